"""A small company to which anything happens, and the law that what a run left out to read makes no difference.

Belongs here: the operations, one sequence of them, and the comparison of the incremental run with the full one.
Does not belong here: how many sequences there are (`test_equivalence.py`, `benchmarks/equivalence.py`).

What runs is what a job runs: dbt's own models in the order of dbt, and the assets of flags, features, learning and
scoring in Dagster, on a real server. Left out is what nothing reads back and would take more than half of the time:
dbt's tests, the reporting views, the watch over scores, Dagster's event log, and in all runs but the last the suites of
flags, features and scores (their verdict follows from the rows, and the rows are compared).

Each restore goes into a cluster of its own. All clusters are copies of one data directory, so that they share a system
identifier, and object ids and transaction numbers repeat as far as they can.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import dagster as dg
import pandas as pd
import psycopg2
from dagster._core.storage.event_log.in_memory import InMemoryEventLogStorage
from dbt.cli.main import dbtRunner
from upath import UPath

from dagster_project.assets import features, quality, scoring
from dagster_project.assets.features import alert_features
from dagster_project.assets.quality import flags
from dagster_project.assets.scoring import alert_scores
from dagster_project.assets.training import training_assets
from dagster_project.automation import REFRESH, RETRAIN
from dagster_project.checks import nothing_to_check
from dagster_project.errors import HeedError
from dagster_project.resources.as_of import AS_OF_TAG, FULL_REFRESH_TAG
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.dbt.incremental import CLEAN_VARIABLE, NEW, cleaning
from dagster_project.resources.dbt.project import DBT_PROJECT, dbt_environment, dbt_vars
from dagster_project.resources.retention import prune
from dagster_project.resources.stores.features import FeatureFiles, FeatureStore
from dagster_project.resources.stores.frames import FrameFiles
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import embedded_url, stop_server
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings
from dagster_project.triage.features.contract import contract

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
SETTINGS = Settings(
    outcome={"horizon_days": 5},
    learning={"training_days": 30},
    retention={"scores_days": 30, "models_days": 30},
)
RULES = ["disk full", "Disk full", "login failed", "backup late", "cpu high"]
TEAMS = ["ops", "Ops", "dev", None]
TYPES = ["fixed", "dismissed", "seen", "nobody knows"]
STORE = contract(SETTINGS.feature_settings())["hash"]
# Of the compared tables, what says when something was written and not what.
COMPARED = {
    **{
        f"marts.{name}": ()
        for name in ("alerts", "actions", "alert_outcomes", "daily_alert_volume", "rejected_rows", "rules")
    },
    "marts.load_reconciliation": (),
    "staging.stg_alerts": ("raw_rows", "staged_at"),
    "staging.stg_actions": ("raw_rows", "staged_at"),
    **{
        f"quality.{name}": () for name in ("flood_days", "visibility_only_rules", "flagged_alerts", "daily_volume_band")
    },
    "training.champion_decisions": ("decided_at",),
    "training.model_versions": ("created_at",),
    "scoring.alert_scores": ("scored_at",),
    "scoring.holdout": ("logged_at",),
}
GONE_NOTES = "WHERE placement <> 'gone'"


class Differs(AssertionError):
    """The incremental run left something else than the full one."""


@cache
def _manifest(variables: str) -> Any:
    with _dbt_places() as places:
        parsed = dbtRunner().invoke(["--quiet", "parse", "--no-write-json", *places, "--vars", variables])
    assert parsed.success, parsed.exception
    return parsed.result


@contextmanager
def _dbt_places() -> Iterator[list[str]]:
    folder = Path(os.environ["HEED_HOME"]) / f"dbt-{uuid.uuid4().hex[:8]}"
    yield [
        *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)),
        *("--target-path", str(folder), "--log-path", str(folder)),
    ]
    shutil.rmtree(folder, ignore_errors=True)


def build_clean(warehouse: Warehouse, as_of: datetime, what: str) -> None:
    """What the step `clean` has dbt do, in this process: its seeds and models, without its tests."""
    variables = json.dumps(dbt_vars(SETTINGS))
    before = Path.cwd()
    environment = {**dbt_environment(warehouse, as_of), CLEAN_VARIABLE: what}
    with patch.dict(os.environ, environment), _dbt_places() as places:
        manifest = _manifest(variables).deepcopy()
        finished = dbtRunner(manifest=manifest).invoke(
            [
                *("--quiet", "--log-level-file", "none", "build", "--no-write-json", "--select", "tag:clean"),
                *("--exclude-resource-type", "unit_test", "--exclude-resource-type", "test"),
                *places,
                *("--vars", variables),
            ]
        )
    os.chdir(before)
    assert finished.success, finished.exception or [each.message for each in finished.result if each.message]


def _unchecked(
    suite_name: str, asset_key: dg.AssetKey, parts: Iterable[pd.DataFrame], **_: Any
) -> Iterator[dg.AssetCheckResult]:
    """In place of `check_before_publishing`. It also reads all parts: the assets keep each part as it is read."""
    for _part in parts:
        pass
    yield from nothing_to_check(suite_name, asset_key)


@contextmanager
def _without_suites() -> Iterator[None]:
    with ExitStack() as stack:
        for module in (quality, features, scoring):
            stack.enter_context(patch.object(module, "check_before_publishing", _unchecked))
        yield


@contextmanager
def _without_events() -> Iterator[None]:
    with patch.object(InMemoryEventLogStorage, "store_event", lambda self, event: None):
        yield


class Clusters:
    """Servers on copies of one data directory, in which one database stands empty and one has heed's tables."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.standing: list[Path] = []
        first = folder / "first"
        first.mkdir(parents=True)
        url = embedded_url(first)
        prepare(Warehouse(folder / "nowhere", url))
        _sql(url.replace("/heed?", "/postgres?"), "CREATE DATABASE empty")
        stop_server(first)
        self._first = first

    def start(self) -> str:
        """A fresh cluster's URL."""
        home = self.folder / uuid.uuid4().hex[:8]
        home.mkdir()
        subprocess.run(["cp", "-a", str(self._first / "postgres"), str(home / "postgres")], check=True)
        self.standing.append(home)
        return embedded_url(home)

    def stop(self) -> None:
        for home in self.standing:
            stop_server(home)
            shutil.rmtree(home, ignore_errors=True)
        self.standing.clear()


def _sql(url: str, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(url)
    connection.autocommit = True  # CREATE DATABASE knows no transaction
    try:
        with connection.cursor() as cursor:
            cursor.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


@dataclass
class Sequence:
    """One company, and all that happens to it.

    done : the operations so far, in order. reads : how many incremental runs read what is new, and how many everything.
    """

    clusters: Clusters
    folder: Path
    seed: int
    done: list[str] = field(default_factory=list)
    reads: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.home = self.folder / "home"
        self.home.mkdir(parents=True)
        self.kept = self.folder / "kept"
        self.url = self.clusters.start()
        self.warehouse = Warehouse(self.home, self.url)
        self.now = BEGIN + timedelta(days=20)
        # The holdout's draw is secret, and another one in each warehouse; here a seed makes the same sequence again.
        self.sql("INSERT INTO scoring.holdout_salt (salt) VALUES ('of the tests')")
        self.number = 0
        self.copies = 0

    # ------------------------------------------------------------------------------------------- what happens

    def sql(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        return _sql(self.url, query, parameters)

    def _alert(self, alert_id: str, first: datetime) -> None:
        pick = self.random.choice
        raised = first + (self.now - first) * self.random.random()
        attributes = pick([None, json.dumps({"place": pick("xyz"), "n": self.random.randrange(4)})])
        self.sql(
            "INSERT INTO raw.alerts (alert_id, raised_at, rule, entity, team, severity, value, attributes, loaded_at, "
            "row_hash, load_id) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            (
                *(alert_id, raised.isoformat(), pick(RULES), f"e{self.random.randrange(4)}", pick(TEAMS)),
                *(
                    pick(["high", "low"]),
                    pick(["1", "2.5", "many"]),
                    attributes,
                    self.now,
                    uuid.UUID(int=self.random.getrandbits(128)).hex,
                ),
                self.number,
            ),
        )

    def _action(self, first: datetime) -> None:
        self.number += 1
        some = [row[0] for row in self.sql("SELECT alert_id, raised_at FROM raw.alerts ORDER BY alert_id, row_hash")]
        if not some:
            return
        acted = first + (self.now - first) * self.random.random()
        self.sql(
            "INSERT INTO raw.actions (action_id, alert_id, acted_at, action_type, loaded_at, row_hash, load_id) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s)",
            (
                *(f"x{self.number}", self.random.choice(some), acted.isoformat(), self.random.choice(TYPES), self.now),
                *(uuid.UUID(int=self.random.getrandbits(128)).hex, self.number),
            ),
        )

    def _some_ids(self, table: str, most: int) -> list[str]:
        column = f"{table.removesuffix('s')}_id"
        ids = sorted({row[0] for row in self.sql(f"SELECT {column} FROM raw.{table}")})
        return self.random.sample(ids, min(most, len(ids)))

    def load_new(self) -> None:
        for _ in range(self.random.randrange(3, 9)):
            self.number += 1
            self._alert(f"a{self.number}", self.now - timedelta(days=2))

    def load_late(self) -> None:
        for _ in range(self.random.randrange(1, 4)):
            self.number += 1
            self._alert(f"a{self.number}", self.now - timedelta(days=18))

    def load_burst(self) -> None:
        for _ in range(25):
            self.number += 1
            self._alert(f"a{self.number}", self.now - timedelta(hours=1))

    def load_actions(self) -> None:
        for _ in range(self.random.randrange(2, 8)):
            self._action(self.now - timedelta(days=3))

    def correct_alerts(self) -> None:
        for alert_id in self._some_ids("alerts", 3):
            self.number += 1
            self._alert(alert_id, self.now - timedelta(days=15))

    def change_in_place(self) -> None:
        self.sql(
            "UPDATE raw.alerts SET rule = %s WHERE alert_id = ANY(%s)",
            (self.random.choice(RULES), self._some_ids("alerts", 2)),
        )
        self.sql(
            "UPDATE raw.actions SET action_type = %s WHERE action_id = ANY(%s)",
            (self.random.choice(TYPES), self._some_ids("actions", 2)),
        )

    def delete_alerts(self) -> None:
        self.sql("DELETE FROM raw.alerts WHERE alert_id = ANY(%s)", (self._some_ids("alerts", 4),))

    def delete_actions(self) -> None:
        self.sql("DELETE FROM raw.actions WHERE action_id = ANY(%s)", (self._some_ids("actions", 4),))

    def swap_alerts(self) -> None:
        """As many come as go, so that no count changes."""
        gone = self._some_ids("alerts", 3)
        self.sql("DELETE FROM raw.alerts WHERE alert_id = ANY(%s)", (gone,))
        for _ in gone:
            self.number += 1
            self._alert(f"a{self.number}", self.now - timedelta(days=10))

    def override_a_flag(self) -> None:
        pick = self.random.choice
        flag = pick(["flood", "visibility_only"])
        day = (self.now - timedelta(days=self.random.randrange(6))).date() if flag == "flood" else None
        self.sql(
            "INSERT INTO quality.flag_overrides (flag, action, scope_kind, scope, day, who, why, created_at) "
            "VALUES (%s, %s, 'rule', %s, %s, 'Ada', 'a reason', %s)",
            (flag, pick(["flag", "clear"]), pick(RULES[1:]), day, self.now - timedelta(hours=1)),
        )

    def take_back_an_override(self) -> None:
        self.sql("DELETE FROM quality.flag_overrides WHERE ctid IN (SELECT ctid FROM quality.flag_overrides LIMIT 1)")

    def declare_a_rule(self) -> None:
        self.sql(
            "INSERT INTO raw.rules (rule, title, declared_visibility_only, loaded_at) VALUES (%s, 't', %s, %s)",
            (self.random.choice(RULES), self.random.choice(["true", "false", ""]), self.now),
        )

    def say_what_a_type_means(self) -> None:
        self.sql(
            "INSERT INTO raw.action_types (action_type, meaning, loaded_at) VALUES (%s, %s, %s)",
            (self.random.choice(TYPES), self.random.choice(["acted", "dismissed", "neutral"]), self.now),
        )

    def rewrite_a_table(self) -> None:
        self.sql(
            f"VACUUM FULL {self.random.choice(['raw.alerts', 'raw.actions', 'marts.alerts', 'staging.stg_alerts'])}"
        )

    def prune_by_policy(self) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            # Ages are counted from a later moment: no policy lets go what is as young as all that happens here.
            prune(self.warehouse, SETTINGS, instance, now=self.now + timedelta(days=27))

    def dump_and_restore(self) -> None:
        """Into a fresh cluster; now and then rows go before the dump, so that what was deleted must not come back."""
        if self.random.random() < 0.5:
            self.delete_alerts()
            self.load_new()
        file = self.folder / "dump"
        programs = _programs()
        subprocess.run([programs / "pg_dump", "--format=custom", "--file", file, "--dbname", self.url], check=True)
        self.clusters.stop()
        url = self.clusters.start()
        restored = url.replace("/heed?", "/empty?")
        subprocess.run([programs / "pg_restore", "--exit-on-error", "--dbname", restored, file], check=True)
        admin = url.replace("/heed?", "/postgres?")
        _sql(admin, "DROP DATABASE heed")
        _sql(admin, "ALTER DATABASE empty RENAME TO heed")
        self.url = url
        self.warehouse = Warehouse(self.home, url)

    def keep_a_copy_of_the_files(self) -> None:
        for name in ("history", "features"):
            if (self.home / name).exists():
                shutil.copytree(self.home / name, self.kept / str(self.copies) / name)
        self.copies += 1

    def put_an_older_file_back(self) -> None:
        """One file, or all of a directory with its manifest, as it was at an earlier moment."""
        older = sorted(path for path in self.kept.rglob("*") if path.is_file() and path.name != "manifest.json")
        if not older:
            return
        path = self.random.choice(older)
        place = Path(*path.relative_to(self.kept).parts[1:])
        if self.random.random() < 0.3:
            source = self.kept / path.relative_to(self.kept).parts[0] / place.parts[0]
            shutil.rmtree(self.home / place.parts[0], ignore_errors=True)
            shutil.copytree(source, self.home / place.parts[0])
        else:
            (self.home / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, self.home / place)

    def lose_a_file(self) -> None:
        files = sorted(
            path for name in ("history", "features") for path in (self.home / name).rglob("*") if path.is_file()
        )
        if files:
            self.random.choice(files).unlink()

    def refresh(self) -> None:
        self.now += timedelta(hours=self.random.randrange(1, 40))
        self.run(self.now, REFRESH)

    def retrain(self) -> None:
        self.now += timedelta(hours=self.random.randrange(1, 40))
        try:
            self.run(self.now, RETRAIN, full_refresh=True)
        except HeedError as error:
            if not error.cause.startswith("nothing is learned"):
                raise
            self.reads["training refused"] += 1

    # ------------------------------------------------------------------------------------------- what runs

    def run(self, as_of: datetime, job: str, *, full_refresh: bool = False, checks: bool = False) -> None:
        """A job, as far as it is run here, on the warehouse and the home as they stand. checks : with the suites."""
        warehouse = self.warehouse
        with warehouse.keeping_a_connection(), patch.dict(os.environ, {"HEED_HOME": str(self.home)}):
            prepare(warehouse)
            with cleaning(warehouse, SETTINGS, as_of, full_refresh=full_refresh) as reading:
                build_clean(warehouse, as_of, reading.what)
            if not full_refresh:
                self.reads["what is new" if reading.what == NEW else "everything"] += 1
            with (
                open(os.devnull, "w") as nowhere,
                redirect_stdout(nowhere),
                _without_events(),
                nullcontext() if checks else _without_suites(),
                dg.DagsterInstance.ephemeral() as instance,
            ):
                finished = (
                    self._definitions(job)
                    .resolve_job_def(job)
                    .execute_in_process(
                        instance=instance,
                        tags={
                            AS_OF_TAG: as_of.isoformat(),
                            **WAREHOUSE_TAG,
                            **({FULL_REFRESH_TAG: "true"} if full_refresh else {}),
                        },
                        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                    )
                )
            assert finished.success

    def _definitions(self, job: str) -> dg.Definitions:
        store = FeatureStore(UPath(self.home) / "features", STORE, self.warehouse)
        return dg.Definitions(
            assets=[flags, alert_features, *(training_assets if job == RETRAIN else []), alert_scores],
            jobs=[dg.define_asset_job(job, executor_def=dg.in_process_executor)],
            resources={
                "warehouse": self.warehouse,
                "settings": SETTINGS,
                "models": ModelStore(self.warehouse),
                "cluster": Cluster(),
                "feature_files": FeatureFiles(store),
                "frame_files": FrameFiles(UPath(self.home) / "training"),
            },
        )

    def state(self, as_of: datetime, days: float) -> dict[str, Any]:
        """What stands after a run."""
        found: dict[str, Any] = {
            name: self.sql(
                f'SELECT (to_jsonb(t) - %s::text[])::text COLLATE "C" FROM {name} AS t '
                # A row that left the raw table is noted until the next change; a full run has nothing to note.
                f"{GONE_NOTES if name.startswith('staging.') else ''} ORDER BY 1",
                (list(without),),
            )
            for name, without in COMPARED.items()
        }
        store = FeatureStore(UPath(self.home) / "features", STORE, self.warehouse)
        found["features"] = store.read((as_of - timedelta(days=days)).date(), as_of.date())
        found["the history that flags and features read"] = read_history(self.warehouse, as_of)
        return found

    def compare(self) -> int:
        """Run once more what is new, and everything on a copy with an empty home; returns how many rows were compared.

        Raises
        ------
        Differs
            What stands then is not the same.
        """
        job, days = REFRESH, SETTINGS.outcome.horizon_days
        as_of = self.now + timedelta(hours=1)
        admin = self.url.replace("/heed?", "/postgres?")
        prepare(self.warehouse)
        _sql(admin, "CREATE DATABASE before TEMPLATE heed")
        self.run(as_of, job)
        incremental = self.state(as_of, days)
        _sql(admin, "ALTER DATABASE heed RENAME TO done")
        _sql(admin, "ALTER DATABASE before RENAME TO heed")
        self.home = self.folder / "empty home"
        self.home.mkdir()
        self.warehouse = Warehouse(self.home, self.url)
        self.run(as_of, job, full_refresh=True, checks=True)
        full = self.state(as_of, days)
        rows = 0
        for name, expected in full.items():
            rows += len(expected)
            if isinstance(expected, pd.DataFrame):
                try:
                    pd.testing.assert_frame_equal(incremental[name], expected)
                except AssertionError as error:
                    raise Differs(f"{name} after {self.done}: {error}") from error
            elif incremental[name] != expected:
                more, less = set(incremental[name]) - set(expected), set(expected) - set(incremental[name])
                raise Differs(
                    f"{name} after {self.done}: only incremental {sorted(more)[:3]}, only full {sorted(less)[:3]}"
                )
        return rows


@cache
def _programs() -> Path:
    from tests.end_to_end.test_backup import programs

    return programs(18)


# How often each comes up, of all operations that are drawn. After a restore, a rewritten table and another meaning of a
# type everything is read: these come seldom, so that most runs read what is new.
OPERATIONS: dict[Callable[[Sequence], None], int] = {
    Sequence.load_new: 8,
    Sequence.load_late: 4,
    Sequence.load_burst: 2,
    Sequence.load_actions: 8,
    Sequence.correct_alerts: 4,
    Sequence.change_in_place: 4,
    Sequence.delete_alerts: 4,
    Sequence.delete_actions: 2,
    Sequence.swap_alerts: 4,
    Sequence.override_a_flag: 4,
    Sequence.take_back_an_override: 2,
    Sequence.declare_a_rule: 2,
    Sequence.say_what_a_type_means: 1,
    Sequence.rewrite_a_table: 1,
    Sequence.prune_by_policy: 2,
    Sequence.dump_and_restore: 1,
    Sequence.keep_a_copy_of_the_files: 4,
    Sequence.put_an_older_file_back: 6,
    Sequence.lose_a_file: 2,
}
LENGTH = 18
# Runs among the operations; one of them retrains. Each costs more than all other operations together.
RUNS = 2


def happen(clusters: Clusters, folder: Path, seed: int) -> tuple[Sequence, int]:
    """A sequence of operations drawn with a seed, and the comparison after it: the sequence, and the rows compared."""
    sequence = Sequence(clusters, folder, seed)
    draw = sequence.random
    drawn = draw.choices(list(OPERATIONS), list(OPERATIONS.values()), k=LENGTH - RUNS - 1)
    runs = [Sequence.refresh] * RUNS
    runs[draw.randrange(RUNS)] = Sequence.retrain
    for each in runs:
        drawn.insert(draw.randrange(len(drawn) + 1), each)
    try:
        for begin in (Sequence.load_burst, Sequence.load_late, Sequence.load_actions, Sequence.refresh, *drawn):
            begin(sequence)
            sequence.done.append(begin.__name__)
        return sequence, sequence.compare()
    finally:
        with suppress(OSError):
            clusters.stop()
