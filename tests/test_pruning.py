"""Retention: what is old goes, and what evidence needs stays whatever its age."""

import json
import os
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from dagster_project.instance import dagster_instance
from dagster_project.resources.retention import Pruned, prune
from dagster_project.resources.stores.curves import read_curves, save_curves
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from dagster_project.settings import Settings
from dagster_project.triage.features.contract import contract
from dagster_project.triage.learning.time_to_decision import no_curves

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = Settings(learning={"training_days": 365})


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as made:
        yield made


def put(warehouse: Warehouse, statement: str, rows: list[tuple[object, ...]]) -> None:
    with warehouse.transaction() as cursor:
        for row in rows:
            cursor.execute(statement, parameters=row)


def version(name: str, days_ago: int) -> tuple[object, ...]:
    then = NOW - timedelta(days=days_ago)
    return name, then, then, "lightgbm", json.dumps({})


def fill(warehouse: Warehouse) -> None:
    """Three years of scores of forty alerts at random moments, versions of every fate, and what people said."""
    random = np.random.default_rng(7)
    scores = []
    for number in range(400):
        alert = f"a{random.integers(40)}"
        as_of = NOW - timedelta(days=float(random.uniform(0, 1100)))
        scores.append((alert, NOW - timedelta(days=1200), as_of, "scored", float(random.uniform(0.01, 0.99)), number))
    put(
        warehouse,
        "INSERT INTO scoring.alert_scores (alert_id, raised_at, as_of, scored_at, model_version, probability, status, "
        "flood, visibility_only, reasons) VALUES ($1, $2, $3, $3, $4, $5, 'model', false, false, to_jsonb($6::bigint))",
        scores,
    )
    put(
        warehouse,
        "INSERT INTO training.model_versions (model_version, created_at, cut, kind, document) "
        "VALUES ($1, $2, $3, $4, $5::text::jsonb)",
        [
            *(version("champion", 1000), version("refused", 900), version("young", 100), version("scored", 800)),
            *(version("rolled back to", 700), version("praised", 600), version("newest", 0)),
        ],
    )
    put(
        warehouse,
        "INSERT INTO training.champion_decisions (model_version, as_of, decided_at, decision) VALUES ($1, $2, $2, $3)",
        [
            ("champion", NOW - timedelta(days=1000), "promoted"),
            ("refused", NOW - timedelta(days=900), "refused"),
            ("rolled back to", NOW - timedelta(days=700), "rolled_back"),
        ],
    )
    put(
        warehouse,
        "INSERT INTO training.audit_findings (model_version, as_of, check_name, subject, finding, verdict) "
        "VALUES ($1, $2, 'c', 's', 'f', 'clean')",
        [("refused", NOW), ("champion", NOW)],
    )
    put(
        warehouse,
        "INSERT INTO scoring.feedback (alert_id, model_version, verdict) VALUES ($1, $2, 'wrong')",
        [("a3", "scored"), ("a4", "praised")],
    )
    put(
        warehouse,
        "INSERT INTO scoring.holdout (alert_id, assigned_at, share, arm) VALUES ($1, $2, 0.05, $3)",
        [("a1", NOW - timedelta(days=1000), "held out"), ("a2", NOW - timedelta(days=1000), "shown")],
    )
    put(
        warehouse,
        "INSERT INTO scoring.publications (as_of, published_at, model_version, alerts, added) "
        "VALUES ($1, $1, $2, 1, 1)",
        [(NOW - timedelta(days=1000), "champion")],
    )


def test_old_curves_and_rates_go_and_the_newest_stay_whatever_their_age(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    moments = [NOW - timedelta(days=days) for days in (900, 800, 100)]
    for moment in moments:
        save_curves(warehouse, no_curves(moment, timedelta(days=14)))
        put(
            warehouse,
            "INSERT INTO scoring.flagged_rates (as_of, kind, rule, alerts, acted, probability, low, high, words) "
            "VALUES ($1, 'flood', '', 1, 0, 0.01, 0, 0.1, 'words')",
            [(moment,)],
        )
    made = prune(warehouse, SETTINGS, instance, now=NOW)
    assert removed(made, "decision curves") == removed(made, "rates of flagged") == 2
    assert read_curves(warehouse, NOW) is not None
    assert read_curves(warehouse, moments[1]) is None
    later = prune(warehouse, SETTINGS, instance, now=NOW + timedelta(days=3_000))
    assert removed(later, "decision curves") == removed(later, "rates of flagged") == 0
    assert warehouse.value("SELECT count(*) FROM scoring.decision_curves") == 1


def figures(warehouse: Warehouse) -> list[object]:
    """What quality figures, readers and the gate are made of."""
    return [
        warehouse.read_arrow(query).to_pylist()
        for query in (
            "SELECT DISTINCT ON (alert_id) * FROM scoring.alert_scores ORDER BY alert_id, as_of, scored_at",
            "SELECT DISTINCT ON (alert_id) * FROM scoring.alert_scores ORDER BY alert_id, as_of DESC, scored_at DESC",
            "SELECT * FROM scoring.alert_scores WHERE alert_id = 'a3' ORDER BY as_of",
            "SELECT * FROM scoring.feedback ORDER BY 1",
            "SELECT * FROM scoring.holdout ORDER BY 1",
            "SELECT * FROM scoring.publications",
            "SELECT * FROM training.champion_decisions ORDER BY 1",
            "SELECT * FROM training.model_versions WHERE model_version <> 'refused' ORDER BY 1",
            "SELECT * FROM training.audit_findings WHERE model_version <> 'refused'",
        )
    ]


def removed(made: list[Pruned], word: str) -> int:
    [row] = [row for row in made if word in row.what]
    assert not row.note
    return row.removed


def test_evidence_stays_and_figures_do_not_change(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    fill(warehouse)
    before, all_scores = figures(warehouse), warehouse.value("SELECT count(*) FROM scoring.alert_scores")
    foretold = prune(warehouse, SETTINGS, instance, now=NOW, dry_run=True)
    assert warehouse.value("SELECT count(*) FROM scoring.alert_scores") == all_scores, "a dry run removes nothing"
    made = prune(warehouse, SETTINGS, instance, now=NOW)
    assert [row.removed for row in made] == [row.removed for row in foretold]
    assert figures(warehouse) == before
    assert removed(made, "superseded scores") > 50
    assert removed(made, "model versions") == 1
    assert warehouse.value("SELECT count(*) FROM training.model_versions WHERE model_version = 'refused'") == 0
    assert warehouse.value("SELECT count(*) FROM training.audit_findings") == 1
    young = warehouse.value("SELECT count(*) FROM scoring.alert_scores WHERE as_of >= $1", (NOW - timedelta(days=730),))
    again = prune(warehouse, SETTINGS, instance, now=NOW)
    assert sum(row.removed for row in again) == 0
    assert young == warehouse.value(
        "SELECT count(*) FROM scoring.alert_scores WHERE as_of >= $1", (NOW - timedelta(days=730),)
    )


def test_what_is_old_goes(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    """Files and runs: the old ones, and neither the newest run of a job nor what is still of use."""
    home = warehouse.home
    current = home / "features" / f"contract={contract(SETTINGS.feature_settings())['hash']}"
    other = home / "features" / "contract=other"
    log, failed = home / "logs", home / "dbt" / "0123456789ab"
    own = home / "dbt" / "a project of somebody"
    for directory in (current, other, log, failed, own):
        directory.mkdir(parents=True)
    (home / "dbt" / "partial_parse.msgpack").write_bytes(b"kept")
    now = datetime.now(UTC)
    old_day, young_day = ((now - timedelta(days=days)).date() for days in (500, 100))
    for path in (current / f"day={old_day}.parquet", current / f"day={young_day}.parquet", other / "day=x.parquet"):
        path.write_bytes(b"x")
    old_log, young_log = (log / f"{uuid.uuid4()}.log" for _ in range(2))
    for path in (old_log, young_log, log / "of somebody.log"):
        path.write_text("x")
    then = time.time() - 100 * 86400
    parse = home / "dbt" / "partial_parse.msgpack"
    for path in (other / "day=x.parquet", old_log, log / "of somebody.log", failed, own, parse):
        os.utime(path, (then, then))

    @dg.job
    def one() -> None: ...

    @dg.job
    def another() -> None: ...

    runs = [
        instance.create_run_for_job(job, tags=WAREHOUSE_TAG, status=status).run_id
        for job, status in (
            (one, dg.DagsterRunStatus.SUCCESS),
            (one, dg.DagsterRunStatus.FAILURE),
            (another, dg.DagsterRunStatus.SUCCESS),
            (another, dg.DagsterRunStatus.STARTED),
        )
    ]
    assert removed(prune(warehouse, SETTINGS, instance), "runs in Dagster") == 0
    made = prune(warehouse, SETTINGS, instance, now=now + timedelta(days=200))
    assert removed(made, "runs in Dagster") == 1
    assert {run.run_id for run in instance.get_runs()} == set(runs[1:])
    assert not (current / f"day={old_day}.parquet").exists()
    assert (current / f"day={young_day}.parquet").exists()
    assert not (other / "day=x.parquet").exists()
    assert {path.name for path in log.iterdir()} == {young_log.name, "of somebody.log"}
    assert {path.name for path in (home / "dbt").iterdir()} == {"partial_parse.msgpack", own.name}


def test_how_runs_ended_is_kept_as_long_as_runs(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    """The newest end of each job stays: the next one is compared with it, and metrics show it."""
    put(
        warehouse,
        "INSERT INTO scoring.run_ends (run_id, job, status, ended_at) VALUES ($1, $2, $3, $4)",
        [
            (f"{job} {days_ago}", job, status, NOW - timedelta(days=days_ago))
            for job, status, days_ago in (
                *(("refresh", "failed", 200), ("refresh", "succeeded", 91), ("refresh", "succeeded", 89)),
                *(("retrain", "failed", 300), ("retrain", "failed", 200)),
            )
        ],
    )
    assert removed(prune(warehouse, SETTINGS, instance, now=NOW, dry_run=True), "how runs ended") == 3
    assert removed(prune(warehouse, SETTINGS, instance, now=NOW), "how runs ended") == 3
    kept = warehouse.read_arrow("SELECT run_id FROM scoring.run_ends ORDER BY 1")["run_id"].to_pylist()
    assert kept == ["refresh 89", "retrain 200"]


def test_the_nightly_job_does_the_same(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    from dagster_project.definitions import build_defs

    fill(warehouse)
    job = build_defs(settings=SETTINGS, warehouse=warehouse).resolve_job_def("prune")
    assert job.execute_in_process(instance=instance, tags=WAREHOUSE_TAG).success
    assert warehouse.value("SELECT count(*) FROM training.model_versions WHERE model_version = 'refused'") == 0
    assert sum(row.removed for row in prune(warehouse, SETTINGS, instance)) == 0
