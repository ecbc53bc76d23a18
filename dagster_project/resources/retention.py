"""Retention: what the policy removes, and what stays because evidence needs it.

Belongs here: what `heed prune` and its schedule remove, each with the condition that keeps what is needed.
Does not belong here: the policy's numbers (`[retention]` in heed.toml), and raw rows, which are never removed.

Kept at any age: the first and the newest score of each alert (every published quality figure and its revisions come
from first scores) and each score with feedback; publications; holdout draws; feedback; all decisions about models;
every version that was ever champion, that a score or feedback names, or that is the newest; the newest end of each job.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.errors import one_line
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

# Files of a failed or killed run, kept to find the cause: dbt's compiled SQL and half-written files.
LEFTOVER_DAYS = 7
# A home may contain a `logs` or `dbt` folder that is not heed's, so only names that heed gives are removed.
_RUN_LOG = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.log")
_DBT_RUN = re.compile(r"[0-9a-f]{12}")
# Features of another contract are useful only if a setting is reverted; they can be derived again.
OTHER_CONTRACT_DAYS = 30

_OLD_SCORES = """
ctid IN (
    SELECT place FROM (
        SELECT ctid AS place, alert_id, model_version, as_of,
               row_number() OVER (PARTITION BY alert_id ORDER BY as_of, scored_at) AS from_first,
               row_number() OVER (PARTITION BY alert_id ORDER BY as_of DESC, scored_at DESC) AS from_newest
        FROM scoring.alert_scores
    ) AS old
    WHERE from_first > 1 AND from_newest > 1 AND as_of < $1
      AND NOT EXISTS (
          SELECT FROM scoring.feedback AS f WHERE f.alert_id = old.alert_id AND f.model_version = old.model_version)
)
"""
# Evidence about a version is removed with the version, never earlier.
_OLD_VERSIONS = """
model_version IN (
    SELECT model_version FROM training.model_versions AS v
    WHERE v.created_at < $1
      AND v.cut < (SELECT max(cut) FROM training.model_versions)
      AND NOT EXISTS (SELECT FROM training.champion_decisions AS d WHERE d.model_version = v.model_version
                      AND d.decision IN ('promoted', 'rolled_back'))
      AND NOT EXISTS (SELECT FROM scoring.alert_scores AS s WHERE s.model_version = v.model_version)
      AND NOT EXISTS (SELECT FROM scoring.publications AS p WHERE p.model_version = v.model_version)
      AND NOT EXISTS (SELECT FROM scoring.feedback AS f WHERE f.model_version = v.model_version)
)
"""
# The newest end of each job stays: the next one is compared with it, and metrics show it.
_OLD_ENDS = """
ended_at < $1 AND ended_at < (SELECT max(ended_at) FROM scoring.run_ends AS newest WHERE newest.job = run_ends.job)
"""
# Old evidence is about the number at the raise, which needs no curves; what people read needs the newest set alone.
_OLD_CURVES = "as_of < $1 AND as_of < (SELECT max(as_of) FROM scoring.curve_sets)"
_OLD_RATES = "as_of < $1 AND as_of < (SELECT max(as_of) FROM scoring.flagged_rates)"
_EVIDENCE = ("model_evaluations", "reliability", "workload_curves", "audit_findings", "team_scorecards")


@dataclass(frozen=True)
class Pruned:
    """How much of one thing was removed, or would be. note : why nothing was, where something should have been."""

    what: str
    removed: int
    policy: str
    note: str = ""

    def line(self) -> str:
        """One line for people."""
        return one_line(f"{self.removed:>8,}  {self.what} ({self.policy})" + (f": {self.note}" if self.note else ""))

    def to_document(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)


def prune(
    warehouse: Warehouse,
    settings: Settings,
    instance: DagsterInstance,
    *,
    now: datetime | None = None,
    dry_run: bool = False,
) -> list[Pruned]:
    """Remove what the policy allows, each table in one transaction. The caller holds the run lock.

    now : ages count from this time. dry_run : count, and remove nothing.
    """
    policy, now = settings.retention, now or datetime.now(UTC)
    logs, dbt_runs = warehouse.home / "logs", warehouse.home / "dbt"
    features_days = max(policy.features_days, settings.learning.training_days)

    def rows(what: str, days: float, tables: list[str], condition: str, more: str = "") -> Pruned:
        age = f"older than {days:g} days{more}"
        return _rows(warehouse, what, age, tables, condition, now - timedelta(days=days), dry_run)

    def files(what: str, days: float, paths: Iterator[Path]) -> Pruned:
        return _files(what, f"older than {days:g} days", paths, dry_run)

    return [
        rows(
            "superseded scores",
            policy.scores_days,
            ["scoring.alert_scores"],
            _OLD_SCORES,
            ", neither first nor newest of their alert",
        ),
        # The newest message about an open alert says what its destination knows; no alert is open for longer than this.
        rows(
            "messages to other systems",
            max(policy.scores_days, settings.outcome.horizon_days),
            ["scoring.deliveries"],
            "ended_at < $1",
        ),
        rows("monitoring readings", policy.scores_days, ["scoring.monitoring"], "as_of < $1"),
        rows(
            "model versions that never scored, with their evidence",
            policy.models_days,
            [*(f"training.{name}" for name in _EVIDENCE), "training.model_versions"],
            _OLD_VERSIONS,
        ),
        rows("sets of decision curves", policy.models_days, ["scoring.curve_sets"], _OLD_CURVES, ", not the newest"),
        rows("rates of flagged alerts", policy.models_days, ["scoring.flagged_rates"], _OLD_RATES, ", not the newest"),
        files(
            "days of features",
            features_days,
            _old_features(warehouse, settings, (now - timedelta(days=features_days)).date()),
        ),
        _runs(instance, now - timedelta(days=policy.runs_days), f"older than {policy.runs_days:g} days", dry_run),
        rows(
            "records of how runs ended",
            policy.runs_days,
            ["scoring.run_ends"],
            _OLD_ENDS,
            ", not the newest of their job",
        ),
        files("logs of runs", policy.runs_days, _untouched(logs, _RUN_LOG, policy.runs_days)),
        files(
            "directories of dbt runs that failed",
            LEFTOVER_DAYS,
            (path for path in _untouched(dbt_runs, _DBT_RUN, LEFTOVER_DAYS) if path.is_dir()),
        ),
    ]


def _rows(
    warehouse: Warehouse,
    what: str,
    policy: str,
    tables: list[str],
    condition: str,
    before: datetime,
    dry_run: bool,
) -> Pruned:
    """Remove rows that meet the condition from all tables; counts those of the last one."""
    count = int(warehouse.value(f"SELECT count(*) FROM {tables[-1]} WHERE {condition}", (before,)))
    if dry_run or not count:
        return Pruned(what, count, policy)
    for table in tables:
        if not warehouse.value("SELECT has_table_privilege($1, 'DELETE')", (table,)):
            note = f"this login may not delete from {table}; run `heed prune` as the owner of the database"
            return Pruned(what, 0, policy, note)
    with warehouse.transaction() as cursor:
        for table in tables:
            cursor.execute(f"DELETE FROM {table} WHERE {condition}", parameters=(before,))
    return Pruned(what, count, policy)


def _old_features(warehouse: Warehouse, settings: Settings, first: date) -> Iterator[Path]:
    from dagster_project.triage.features.contract import contract

    current = f"contract={contract(settings.feature_settings())['hash']}"
    for directory in sorted((warehouse.home / "features").glob("contract=*")):
        if directory.name != current:
            files = [*directory.glob("day=*.parquet"), *directory.glob("manifest.json")]
            if not any(_age_days(path) < OTHER_CONTRACT_DAYS for path in files):
                yield from files
            continue
        for path in sorted(directory.glob("day=*.parquet")):
            if path.name < f"day={first.isoformat()}":
                yield path


def _runs(instance: DagsterInstance, before: datetime, policy: str, dry_run: bool) -> Pruned:
    """Remove ended runs with their events; the newest of each job stays."""
    from dagster import DagsterRunStatus, RunsFilter

    ended = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
    newest: dict[str, str] = {}
    for record in instance.get_run_records(RunsFilter(statuses=ended), limit=200):  # the newest first
        newest.setdefault(record.dagster_run.job_name, record.dagster_run.run_id)
    old = instance.get_run_records(RunsFilter(statuses=ended, created_before=before))
    removed = [record.dagster_run.run_id for record in old if record.dagster_run.run_id not in newest.values()]
    if not dry_run:
        for run_id in removed:
            instance.delete_run(run_id)
    return Pruned("runs in Dagster's history, with their events", len(removed), policy)


def _files(what: str, policy: str, paths: Iterator[Path], dry_run: bool) -> Pruned:
    count = 0
    for path in list(paths):
        count += 1
        if not dry_run:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return Pruned(what, count, policy)


def _untouched(directory: Path, name: re.Pattern[str], days: float) -> Iterator[Path]:
    return (path for path in sorted(directory.glob("*")) if name.fullmatch(path.name) and _age_days(path) > days)


def _age_days(path: Path) -> float:
    return (time.time() - path.stat().st_mtime) / 86400
