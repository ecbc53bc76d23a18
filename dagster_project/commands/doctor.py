"""`heed doctor`: what is wrong, and what to do about it.

Belongs here: examinations that are quick and change nothing but start the embedded server.
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
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.resources.warehouse.schema import stored_version
from dagster_project.settings import Settings, heed_home, load_settings, settings_path

if TYPE_CHECKING:
    from dagster import DagsterRun

Level = Literal["ok", "warn", "error"]
# The former words for the levels: `--json` keeps them in the field `status` for programs that read it.
STATUS = {"ok": "well", "warn": "look", "error": "wrong"}
OLDEST_SERVER = 150000  # PostgreSQL 15: the oldest the tests run on
ROOM_NEEDED = 2 * 1024**3  # a year of a million alerts takes about 1.5 GB with its features


@dataclass(frozen=True)
class Finding:
    """One thing that was examined. `remedy` is empty when nothing needs doing."""

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


def examine() -> list[Finding]:
    """Examine settings, state directory, warehouse, data, model and scores, in the order in which they depend."""
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
    for examination in (_connection, _rights, _raw, _kept_files, _runs, _model, _scores, _notices):
        try:
            findings += examination(warehouse, settings)
        except HeedError as error:
            findings.append(Finding(examination.__name__.strip("_"), "error", error.cause, error.remedy))
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
    """Whether a session of the server can hold a lock for a whole run."""
    from dagster_project.resources.warehouse.run_lock import POOLED, POOLED_REMEDY, pools_transactions

    if not warehouse.is_embedded:
        pooled = pools_transactions(warehouse)
        remedy = POOLED_REMEDY[:1].upper() + POOLED_REMEDY[1:]
        yield (
            Finding("connection", "error", POOLED, remedy)
            if pooled
            else Finding("connection", "ok", "a session of the server's own")
        )


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
            "wrong",
            "this role may not create schemas",
            "As the owner of the database: `heed init`, or GRANT CREATE ON DATABASE ... TO the role in the URL",
        )


def _count(warehouse: Warehouse, table: str) -> int | None:
    """The rows of a table; None: there is none that this login may read."""
    found = warehouse.value(
        "SELECT CASE WHEN to_regclass($1) IS NOT NULL THEN has_table_privilege(to_regclass($1), 'SELECT') "
        "AND has_schema_privilege(relnamespace, 'USAGE') END FROM pg_class WHERE oid = to_regclass($1)",
        (table,),
    )
    return int(warehouse.value(f"SELECT count(*) FROM {table}")) if found else None


def _undecodable(warehouse: Warehouse) -> list[dict[str, Any]]:
    return undecodable_rows(warehouse) if _count(warehouse, "raw.loads") else []


def _raw(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    for name in ("alerts", "actions"):
        table = f"{settings.source.database_schema}.{getattr(settings.source, name)}"
        rows = _count(warehouse, ".".join('"' + part.replace('"', '""') + '"' for part in table.split(".")))
        if not rows:
            found = f"{table} " + ("does not exist, or this login may not read it" if rows is None else "is empty")
            yield Finding(name, "warn", found, f"Load some: heed load --{name} FILE")
        else:
            yield Finding(name, "ok", f"{rows} rows in {table}")
    if undecodable := _undecodable(warehouse):
        by_reason = ", ".join(f"{row['rows']} {row['source']} {row['reason']}" for row in undecodable[:5])
        yield Finding(
            "undecodable rows",
            "warn",
            f"{sum(row['rows'] for row in undecodable)} rows of loaded files could not be decoded ({by_reason})",
            "SELECT file, line, reason, content FROM raw.undecodable_rows shows them; mend the file and load it again",
        )
    rejected = _count(warehouse, "marts.rejected_rows")
    if rejected:
        yield Finding(
            "rejected rows",
            "warn",
            f"{rejected} rows were set aside",
            "SELECT source, reason, count(*) FROM marts.rejected_rows GROUP BY 1, 2 says why",
        )
    if _count(warehouse, "marts.alert_fact_changes") is not None:
        yield from _meanings(warehouse, settings)


def _meanings(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """What was read otherwise than somebody may expect: ids of several alerts, facts that changed, unknown words."""
    from dagster_project.resources.inputs.action_types import (
        MOST_UNKNOWN,
        clean_types,
        how_to_explain,
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
    if words := unknown_in_words(types):
        refused = unknown_share(types) > MOST_UNKNOWN
        yield Finding(
            "action types",
            "error" if refused else "warn",
            words + "; nothing is learned until somebody explains them" * refused,
            how_to_explain(settings),
        )


DAYS_COMPARED = 5  # chosen at random each time, with the newest: reading one takes some 10 ms for each 1,000 alerts


def _kept_files(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Whether days of the kept history are what the warehouse holds, and those of features what heed wrote."""
    from upath import UPath

    from dagster_project.resources.stores.features import FeatureStore
    from dagster_project.resources.stores.history_cache import HistoryCache
    from dagster_project.triage.features.contract import contract

    if _count(warehouse, "marts.alert_outcomes") is None or _count(warehouse, "quality.checked_rows") is None:
        return
    now = datetime.now(UTC).date()
    store = FeatureStore(UPath(warehouse.home) / "features", contract(settings.feature_settings())["hash"], warehouse)
    wrong = [
        *HistoryCache(warehouse).compare(DAYS_COMPARED),
        *store.compare(now - timedelta(days=settings.learning.training_days), now, DAYS_COMPARED),
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        yield Finding(
            "kept files", "warn", "; ".join(wrong[:3]) + more, "Run `heed run --retrain`: it writes all of them again"
        )
    elif (warehouse.home / "history").exists():
        yield Finding("kept files", "ok", f"{DAYS_COMPARED} random days and the newest are what was written")


def _runs(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """What became of the newest run, and of the newest attempt to learn where that failed."""
    if not (warehouse.home / "dagster" / "dagster.yaml").exists():
        return
    from dagster import DagsterRunStatus, RunsFilter

    from dagster_project.automation import REFRESH, RETRAIN
    from dagster_project.commands.run import what_stopped
    from dagster_project.instance import dagster_instance
    from dagster_project.resources.warehouse.abandoned_runs import abandoned_runs
    from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG

    with dagster_instance(warehouse.home) as instance:
        gone = abandoned_runs(instance, warehouse)
        found = instance.get_run_records(RunsFilter(tags=WAREHOUSE_TAG), limit=50)
        runs = [record.dagster_run for record in found if record.dagster_run.job_name in (REFRESH, RETRAIN)]
        if not runs:
            return

        def told(run: DagsterRun) -> tuple[str, str]:
            """(how it ended: well, stopped, cut off or goes on; that in words)"""
            name = f"run {run.run_id[:8]} of {run.job_name}"
            if run.run_id in gone:
                return "cut off", f"{name} was cut off: {gone[run.run_id]}"
            if run.status == DagsterRunStatus.SUCCESS:
                return "well", f"{name} ended well"
            if run.status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED):
                return "stopped", f"{name} stopped: {what_stopped(instance, run.run_id) or 'it was canceled'}"
            return "goes on", f"{name} is under way or queued"

        state, words = told(runs[0])
        before = next((told(run) for run in runs[1:2]), ("well", ""))
        if state == "ok" and before[0] in ("stopped", "cut off"):
            words += f"; before it, {before[1]}"
        yield Finding(
            "runs",
            "ok" if state in ("well", "goes on") else "error",
            words,
            "" if state in ("well", "goes on") else "The next run takes over: `heed run`",
        )
        learned = next((run for run in runs if run.job_name == RETRAIN and told(run)[0] != "goes on"), None)
        if learned is not None and learned is not runs[0]:
            state, words = told(learned)
            if state != "well":
                yield Finding("learning", "warn", words, "Mend the cause, then `heed run --retrain`")


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
        yield Finding("model", "warn", damage, "Run `heed run`: it learns anew")
        return
    age = now - champion.cut
    old = age > 2 * timedelta(days=settings.learning.retrain_every_days)
    yield Finding(
        "model",
        "warn" if old else "ok",
        f"{champion.model_version} knows the world up to {champion.cut:%Y-%m-%d %H:%M} UTC",
        "Run `heed run --retrain`, or keep `make up` running" if old else "",
    )


def _scores(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    from dagster_project.serving.freshness import AHEAD, MISSED_REFRESHES, stale_before

    if not _count(warehouse, "scoring.alert_scores"):
        yield Finding("scores", "warn", "there are none yet", "Run `heed run`")
        return
    # A score is written only when it changed: its age says nothing about when the job last ran.
    now = datetime.now(UTC)
    ahead = warehouse.value("SELECT max(as_of) FROM scoring.publications WHERE as_of > $1", (now + AHEAD,))
    if ahead:
        yield Finding(
            "clock",
            "warn",
            f"a publication stands at {ahead:%Y-%m-%d %H:%M} UTC, and this machine's clock says {now:%Y-%m-%d %H:%M}",
            "Correct the clock if it went back; freshness counts publications up to now only",
        )
    newest = warehouse.value(
        "SELECT max(as_of) FROM scoring.publications WHERE as_of <= $1", (now + AHEAD,)
    ) or warehouse.value("SELECT max(as_of) FROM scoring.alert_scores")
    old = newest < stale_before(settings.schedule.refresh_scores, datetime.now(UTC))
    yield Finding(
        "scores",
        "error" if old else "ok",
        f"the newest publication stands at {newest:%Y-%m-%d %H:%M} UTC"
        + (f", and {MISSED_REFRESHES} scheduled refreshes have passed since" if old else ""),
        "Keep `make up` running, or run `heed run` on a schedule of yours" if old else "",
    )
    yield from _watch(warehouse)


def _notices(warehouse: Warehouse, settings: Settings) -> Iterator[Finding]:
    """Whether anybody is told when a run fails; nothing is sent."""
    from dagster_project.resources.notices import destinations

    number = len(destinations(settings))
    told = f"{number} destinations are told when a run fails"
    nobody = f"nobody is told when a run fails: {settings.notify.urls_from} is not set"
    yield Finding("notices", "ok", told if number else nobody, "`heed notify --test` tries them" if number else "")


def _watch(warehouse: Warehouse) -> Iterator[Finding]:
    """What the newest run's checks on published scores warned of."""
    if warehouse.value("SELECT to_regclass('reporting.monitoring_latest') IS NULL"):
        return
    for reading in warehouse.read_arrow(
        "SELECT check_name, finding FROM reporting.monitoring_latest WHERE verdict = 'warning' "
        "ORDER BY check_name, value DESC"
    ).to_pylist():
        yield Finding(reading["check_name"].replace("_", " "), "warn", reading["finding"], "See docs/data-engineer.md")
