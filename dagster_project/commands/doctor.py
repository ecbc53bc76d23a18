"""`heed doctor`: what is wrong, and what to do about it.

Belongs here: quick examinations. They change nothing, but may start the embedded server.
Does not belong here: repairs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from dagster_project.errors import HeedError, one_line
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.inputs.undecodable import undecodable_rows
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse, quoted
from dagster_project.resources.warehouse.schema import stored_version
from dagster_project.settings import Settings, heed_home, load_settings, settings_path

if TYPE_CHECKING:
    from dagster import DagsterRun

Level = Literal["ok", "warn", "error"]
# Former words for the levels. `--json` keeps them in the field `status` for programs that read it.
STATUS = {"ok": "well", "warn": "look", "error": "wrong"}
OLDEST_SERVER = 150000  # PostgreSQL 15: the oldest the tests run on
ROOM_NEEDED = 2 * 1024**3  # a year of a million alerts takes about 1.5 GB with its features


@dataclass(frozen=True)
class Finding:
    """The result of one examination. `remedy` is empty when nothing needs doing."""

    what: str
    level: Level
    found: str
    remedy: str = ""

    def line(self) -> str:
        """One line for people."""
        label = {"ok": "   ok ", "warn": " WARN ", "error": "ERROR "}[self.level]
        return one_line(f"{label} {self.what}: {self.found}" + (f". {self.remedy}" if self.remedy else ""))

    def to_document(self) -> dict[str, Any]:
        """The same for machines."""
        return {**asdict(self), "status": STATUS[self.level]}


class NotReadable(HeedError):
    """The table exists, and this login may not read it."""

    def __init__(self, table: str) -> None:
        super().__init__(f"this login may not read {table}", "grant it a role of heed")
        self.table = table


def examine() -> list[Finding]:
    """Examine settings, state directory, warehouse, data, model and scores, each after what it depends on."""
    findings: list[Finding] = []
    try:
        settings = load_settings()
    except HeedError as error:
        return [Finding("settings", "error", error.cause, error.remedy)]
    findings.append(Finding("settings", "ok", str(settings_path())))
    findings += _home()
    if cluster := Cluster(settings.compute.dask):
        try:
            findings.append(Finding("Dask cluster", "ok", cluster.check()))
        except HeedError as error:
            findings.append(Finding("Dask cluster", "error", error.cause, error.remedy))
    warehouse = Warehouse(heed_home())
    try:
        version = int(warehouse.value("SELECT current_setting('server_version_num')"))
        stored_version(warehouse)  # not by a newer heed
    except HeedError as error:
        return [*findings, Finding("warehouse", "error", error.cause, error.remedy)]
    where = warehouse.describe() + ("" if warehouse.is_embedded else f" ({URL_VARIABLE})")
    if version < OLDEST_SERVER:
        findings.append(
            Finding("warehouse", "error", f"{where} is version {version // 10000}", "Use PostgreSQL 15 or newer")
        )
    else:
        findings.append(Finding("warehouse", "ok", f"{where}, version {version // 10000}"))
    unreadable: list[str] = []
    for examination in (
        *(_connection, _rights, _raw, _sources, _rows, _files),
        *(_runs, _model, _scores, _notices, _deliveries),
    ):
        try:
            findings += examination(warehouse, settings)
        except NotReadable as error:
            unreadable.append(error.table)
        except HeedError as error:
            findings.append(Finding(examination.__name__.strip("_"), "error", error.cause, error.remedy))
    if unreadable:
        findings.append(
            Finding(
                "reading",
                "warn",
                f"this login may not read {', '.join(unreadable)}, so what depends on them was not examined",
                "Run `heed doctor` with a login in the role heed_analyst",
            )
        )
    return findings


def _home() -> Iterator[Finding]:
    home = heed_home()
    existing = next(path for path in (home, *home.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("state", "error", f"{existing} cannot be written", "Set HEED_HOME to a directory of yours")
        return
    free = shutil.disk_usage(existing).free
    level: Level = "ok" if free > ROOM_NEEDED else "warn"
    yield Finding(
        "state",
        level,
        f"{home}, {free / 1024**3:.1f} GB free",
        "" if level == "ok" else "Free some room, or move HEED_HOME",
    )


def _connection(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Whether a server session can hold a lock for a whole run."""
    from dagster_project.resources.warehouse.run_lock import POOLED, POOLED_REMEDY, pools_transactions

    if not warehouse.is_embedded:
        if pools_transactions(warehouse):
            yield Finding("connection", "error", POOLED, POOLED_REMEDY[:1].upper() + POOLED_REMEDY[1:])
        else:
            yield Finding("connection", "ok", "one server session per connection")


def _rights(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    from dagster_project.resources.warehouse.roles import WORK, missing_rights

    if warehouse.has_roles():
        named = ", ".join(f"'{role}'" for role in WORK)
        mine = warehouse.read(
            f"SELECT rolname::text FROM pg_roles WHERE rolname IN ({named}) AND pg_has_role(oid, 'USAGE') ORDER BY 1"
        )
        roles = ", ".join(mine["rolname"]) or "no role of heed"
        lacking = list(missing_rights(warehouse))
        shown = "; ".join(lacking[:5]) + (f"; and {len(lacking) - 5} more" if len(lacking) > 5 else "")
        if lacking:
            yield Finding("rights", "error", shown, "Run `heed init` as the owner of the database")
        elif mine.empty:
            yield Finding("rights", "error", "this login has no role of heed", f"GRANT one to it: {', '.join(WORK)}")
        else:
            yield Finding("rights", "ok", f"this login has {roles}; no role lacks a right")
    elif warehouse.value("SELECT has_database_privilege(current_database(), 'CREATE')"):
        yield Finding("rights", "ok", "heed may create its schemas")
    else:
        yield Finding(
            "rights",
            "error",
            "this role may not create schemas",
            "As the owner of the database: `heed init`, or GRANT CREATE ON DATABASE ... TO the role in the URL",
        )


def _count(warehouse: Warehouse, table: str) -> int | None:
    """The number of rows in one of heed's tables; None where there is no such table. Raises NotReadable."""
    readable = warehouse.may_read(*table.split("."))
    if readable is False:
        raise NotReadable(table)
    return int(warehouse.value(f"SELECT count(*) FROM {table}")) if readable else None


def _raw(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    for name in ("alerts", "actions"):
        place = settings.source.database_schema, getattr(settings.source, name)
        table, readable = ".".join(place), warehouse.may_read(*place)
        rows = warehouse.value(f"SELECT count(*) FROM {quoted(*place)}") if readable else 0
        if rows:
            yield Finding(name, "ok", f"{rows} rows in {table}")
        else:
            what = "is empty" if readable else "does not exist, or this login may not read it"
            yield Finding(name, "warn", f"{table} {what}", f"Load some: heed load --{name} FILE")


def _sources(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """When the sources of heed.toml were last pulled, and whether that is longer ago than `schedule.pull` says."""
    from dagster_project.loading.pulls.pull import last_pulled
    from dagster_project.serving.freshness import MISSED_REFRESHES, stale_before

    if not settings.sources or _count(warehouse, "raw.pulls") is None:
        return
    oldest = stale_before(settings.schedule.pull, datetime.now(UTC))
    for name, pulled in last_pulled(settings, warehouse).items():
        remedy = f"`heed pull {name}` says why; keep `heed up` running, or set schedule.pull to when you pull"
        if pulled is None:
            yield Finding(f"source {name}", "warn", "it, or a list of it, was never pulled to its end", remedy)
        elif pulled < oldest:
            late = f"not pulled since {pulled:%Y-%m-%d %H:%M} UTC; {MISSED_REFRESHES} scheduled pulls have passed"
            yield Finding(f"source {name}", "warn", late, remedy)
        else:
            yield Finding(f"source {name}", "ok", f"pulled at {pulled:%Y-%m-%d %H:%M} UTC")


def stale_sources(warehouse: Warehouse, settings: Settings) -> list[Finding]:
    """The sources that were not pulled for longer than expected; none where this login may not read when."""
    try:
        return [finding for finding in _sources(warehouse, settings) if finding.level != "ok"]
    except NotReadable:
        return []


def _rows(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Rows that heed could not decode, rejected, or read otherwise than somebody may expect."""
    if _count(warehouse, "raw.loads") and (undecodable := undecodable_rows(warehouse)):
        by_reason = ", ".join(f"{row['rows']} {row['source']} {row['reason']}" for row in undecodable[:5])
        yield Finding(
            "undecodable rows",
            "warn",
            f"{sum(row['rows'] for row in undecodable)} rows of loaded files could not be decoded ({by_reason})",
            "SELECT file, line, reason, content FROM raw.undecodable_rows shows them; correct and reload the file",
        )
    rejected = _count(warehouse, "marts.rejected_rows")
    if rejected:
        yield Finding(
            "rejected rows",
            "warn",
            f"{rejected} rows were rejected",
            "SELECT source, reason, count(*) FROM marts.rejected_rows GROUP BY 1, 2 says why",
        )
    if _count(warehouse, "marts.alert_fact_changes") is not None:
        yield from _meanings(warehouse, settings)


def _meanings(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Alert ids that several alerts share, facts that changed after the raise, and unknown action types."""
    from dagster_project.resources.inputs.action_types import (
        MOST_UNKNOWN,
        clean_types,
        how_to_explain,
        nothing_acted_in_words,
        unknown_in_words,
        unknown_share,
    )
    from dagster_project.resources.stores.history import shared_ids_in_words

    if words := shared_ids_in_words(warehouse):
        cause, _, remedy = words.rpartition(". ")
        yield Finding("alert ids", "warn", cause, remedy)
    changes = warehouse.read_arrow(
        "SELECT ltrim(column_name, '@') AS name, count(*) AS alerts FROM marts.alert_fact_changes GROUP BY 1 "
        "ORDER BY 2 DESC, 1 LIMIT 5"
    ).to_pylist()
    if changes:
        named = ", ".join(f"{row['name'][:60]} of {row['alerts']} alerts" for row in changes)
        yield Finding("facts that changed after the raise", "ok", f"{named}: heed uses the first-seen values")
    types = clean_types(warehouse)
    if words := nothing_acted_in_words(types):
        yield Finding("meaning of actions", "warn", words, how_to_explain(settings))
    if words := unknown_in_words(types):
        refused = unknown_share(types) > MOST_UNKNOWN
        yield Finding(
            "action types",
            "error" if refused else "warn",
            words + "; nothing is learned until somebody explains them" * refused,
            how_to_explain(settings),
        )


DAYS_COMPARED = 5  # chosen at random each time, plus the newest: reading a day takes 10 ms per 1,000 alerts


def _files(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Whether days of the history cache match the warehouse, and feature files are the ones that heed wrote."""
    from upath import UPath

    from dagster_project.resources.stores.features import FeatureStore
    from dagster_project.resources.stores.history_cache import HistoryCache
    from dagster_project.triage.features.contract import contract

    if _count(warehouse, "marts.alert_outcomes") is None or _count(warehouse, "quality.checked_rows") is None:
        return
    now = datetime.now(UTC).date()
    store = FeatureStore(UPath(warehouse.home) / "features", contract(settings.feature_settings())["hash"], warehouse)
    differences = [
        *HistoryCache(warehouse).compare(DAYS_COMPARED),
        *store.compare(now - timedelta(days=settings.learning.training_days), now, DAYS_COMPARED),
    ]
    if differences:
        more = f"; and {len(differences) - 3} more" if len(differences) > 3 else ""
        yield Finding(
            "kept files", "warn", "; ".join(differences[:3]) + more, "Run `heed run --retrain`: it rewrites all of them"
        )
    elif (warehouse.home / "history").exists():
        yield Finding("kept files", "ok", f"{DAYS_COMPARED} random days and the newest match")


def _runs(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """How the newest run ended, and the newest attempt to learn if that failed."""
    if not (warehouse.home / "dagster" / "dagster.yaml").exists():
        return
    from dagster import DagsterRunStatus, RunsFilter

    from dagster_project.automation import REFRESH, RETRAIN
    from dagster_project.instance import dagster_instance
    from dagster_project.resources.failures import what_stopped
    from dagster_project.resources.warehouse.abandoned_runs import abandoned_runs
    from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG

    with dagster_instance(warehouse.home) as instance:
        abandoned = abandoned_runs(instance, warehouse)
        records = instance.get_run_records(RunsFilter(tags=WAREHOUSE_TAG), limit=50)
        runs = [record.dagster_run for record in records if record.dagster_run.job_name in (REFRESH, RETRAIN)]
        if not runs:
            return

        def state_of(run: DagsterRun) -> tuple[Literal["succeeded", "failed", "going on"], str]:
            """The state of a run, and a sentence about it."""
            name = f"run {run.run_id[:8]} of {run.job_name}"
            if run.run_id in abandoned:
                return "failed", f"{name} was cut off: {abandoned[run.run_id]}"
            if run.status == DagsterRunStatus.SUCCESS:
                return "succeeded", f"{name} succeeded"
            if run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
                return "failed", f"{name} stopped: {what_stopped(instance, run.run_id) or 'it was canceled'}"
            return "going on", f"{name} is under way or queued"

        state, sentence = state_of(runs[0])
        if state == "succeeded" and runs[1:]:
            state_before, sentence_before = state_of(runs[1])
            sentence += f"; before it, {sentence_before}" * (state_before == "failed")
        if state == "failed":
            yield Finding("runs", "error", sentence, "The next run takes over: `heed run`")
        else:
            yield Finding("runs", "ok", sentence)
        learned = next((run for run in runs if run.job_name == RETRAIN and state_of(run)[0] != "going on"), runs[0])
        state, sentence = state_of(learned)
        if learned is not runs[0] and state == "failed":
            yield Finding("learning", "warn", sentence, "Correct the cause, then `heed run --retrain`")


def _model(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    from dagster_project.resources.stores.models import ModelStore

    if not _count(warehouse, "training.champion_decisions"):
        yield Finding("model", "warn", "none was trained yet", "Run `heed run`")
        return
    now = datetime.now(UTC)
    champion = ModelStore(warehouse).champion(now)
    if champion is None:
        yield Finding("model", "warn", "no candidate became champion yet", "Run `heed run --retrain`")
        return
    try:
        ModelStore(warehouse).load(champion.model_version)
    except HeedError as error:
        damage = f"champion {champion.model_version} cannot be read ({error.cause}); an earlier champion scores, if any"
        yield Finding("model", "warn", damage, "Run `heed run`: it trains a new model")
        return
    age = now - champion.cut
    old = age > 2 * timedelta(days=settings.learning.retrain_every_days)
    yield Finding(
        "model",
        "warn" if old else "ok",
        f"{champion.model_version} was trained on data through {champion.cut:%Y-%m-%d %H:%M} UTC",
        "Run `heed run --retrain`, or keep `make up` running" if old else "",
    )


def _scores(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    from dagster_project.serving.freshness import AHEAD, MISSED_REFRESHES, stale_before

    if not _count(warehouse, "scoring.alert_scores"):
        yield Finding("scores", "warn", "there are none yet", "Run `heed run`")
        return
    # Scores are written only when they change, so their age does not tell when the job last ran.
    now = datetime.now(UTC)
    ahead = warehouse.value("SELECT max(as_of) FROM scoring.publications WHERE as_of > $1", (now + AHEAD,))
    if ahead:
        yield Finding(
            "clock",
            "warn",
            f"scores were published as of {ahead:%Y-%m-%d %H:%M} UTC, and the clock here says {now:%Y-%m-%d %H:%M}",
            "Correct the clock if it went back; freshness counts publications up to now only",
        )
    newest = warehouse.value(
        "SELECT max(as_of) FROM scoring.publications WHERE as_of <= $1", (now + AHEAD,)
    ) or warehouse.value("SELECT max(as_of) FROM scoring.alert_scores")
    old = newest < stale_before(settings.schedule.refresh_scores, datetime.now(UTC))
    yield Finding(
        "scores",
        "error" if old else "ok",
        f"the newest scores are as of {newest:%Y-%m-%d %H:%M} UTC"
        + (f", and {MISSED_REFRESHES} scheduled refreshes have passed since" if old else ""),
        "Keep `make up` running, or run `heed run` on a schedule of yours" if old else "",
    )
    yield from _watch(warehouse)


def _notices(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Whether anybody is notified when a run fails; sends nothing."""
    from dagster_project.resources.notices import destinations

    number = len(destinations(settings))
    if number:
        yield Finding("notices", "ok", f"{number} destinations hear of failed runs", "`heed notify --test` tries them")
    else:
        yield Finding("notices", "ok", f"nobody hears of failed runs: {settings.notify.urls_from} is not set")


def _deliveries(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """What waits for other systems, and what could not be delivered; sends nothing."""
    from dagster_project.delivery.deliver import credentials
    from dagster_project.resources.stores.deliveries import summary

    for name, destination in settings.destinations.items():
        try:
            credentials(destination)
        except HeedError as error:
            yield Finding(f"destination {name}", "error", error.cause, error.remedy[:1].upper() + error.remedy[1:])
    if not _count(warehouse, "scoring.deliveries"):
        return
    for row in summary(warehouse):
        name, number = row["destination"], row["messages"]
        met = f" (the newest: {row['detail']})" if row["detail"] else ""
        if row["outcome"] == "failed":
            remedy = f"Correct it, then `heed destinations --retry {name}`" if name in settings.destinations else ""
            yield Finding(f"destination {name}", "warn", f"{number} messages could not be delivered{met}", remedy)
        elif row["outcome"] == "waiting":
            late = bool(row["attempts"])
            remedy = f"`heed destinations --test {name}` tries it; the next run goes on" if late else ""
            yield Finding(f"destination {name}", "warn" if late else "ok", f"{number} messages wait{met}", remedy)
        else:
            yield Finding(f"destination {name}", "ok", f"{number} messages delivered")


def _watch(warehouse: Warehouse) -> Iterator[Finding]:
    """What the newest run's checks on published scores warned of."""
    if not _count(warehouse, "reporting.monitoring_latest"):
        return
    for reading in warehouse.read_arrow(
        "SELECT check_name, finding FROM reporting.monitoring_latest WHERE verdict = 'warning' "
        "ORDER BY check_name, value DESC"
    ).to_pylist():
        yield Finding(reading["check_name"].replace("_", " "), "warn", reading["finding"], "See docs/data-engineer.md")
