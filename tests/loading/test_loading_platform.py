"""Failed asset checks of a real Dagster deployment as alerts, and runs by hand as actions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from loading_store import Store

from dagster_project.errors import HeedError
from dagster_project.instance import relax_sync
from dagster_project.loading.pulls import dagster as checks
from dagster_project.loading.pulls.pull import PullReport, pull
from dagster_project.settings import Settings

BY_SCHEDULE, BY_SENSOR = {"dagster/schedule_name": "hourly"}, {"dagster/sensor_name": "files"}
BY_HAND, BY_ADA, AGAIN = {}, {"user": "ada@example.com"}, {"dagster/retry_number": "1"}


@pytest.fixture(autouse=True)
def _no_positions(store: Store) -> None:
    store.rows("TRUNCATE raw.pulls")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def pulled(store: Store, source: dict[str, Any]) -> PullReport:
    return pull("own", Settings.model_validate({"sources": {"own": source}}), store.warehouse, lambda _: None)


def evaluate(instance: dg.DagsterInstance, tags: dict[str, str], *, passed: bool) -> str:
    """A run of an asset with two checks, the second of which always passes."""

    @dg.asset
    def orders() -> None: ...

    @dg.asset_check(asset=orders)
    def no_nulls() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed, severity=dg.AssetCheckSeverity.WARN, description="3 of 10 rows have no customer"
        )

    @dg.asset_check(asset=orders)
    def enough_rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    result = dg.materialize([orders, no_nulls, enough_rows], instance=instance, tags=tags)
    assert result.success
    return result.run_id


def test_failed_checks_are_alerts_and_runs_by_hand_are_actions(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    source = {"kind": "dagster", "path": str(tmp_path)}
    monkeypatch.setattr(checks, "RUNS", 1)  # failures wait for their answer across pages

    relax_sync()
    home = stack.enter_context(dg.DagsterInstance.from_config(str(tmp_path)))
    runs = [evaluate(home, AGAIN, passed=False)]
    assert (pulled(store, source).alerts, store.count("raw.actions")) == (1, 0)
    runs.append(evaluate(home, BY_HAND, passed=False))
    runs.append(evaluate(home, BY_ADA, passed=True))
    pulled(store, source)
    runs.append(evaluate(home, BY_SENSOR, passed=False))
    runs.append(evaluate(home, BY_SCHEDULE, passed=True))
    last = pulled(store, source)
    assert (last.alerts, last.actions) == (1, 1)

    names = {f"orders|no_nulls||{run}": at for at, run in enumerate(runs)}
    alerts = store.rows("SELECT alert_id, rule, entity, severity, title FROM raw.alerts")
    assert sorted(names[row[0]] for row in alerts) == [0, 1, 3]
    assert {row[1:] for row in alerts} == {("no_nulls", "orders", "warn", "3 of 10 rows have no customer")}
    actions = store.rows("SELECT alert_id, action_type, actor FROM raw.actions")
    assert sorted((names[alert], kind, actor) for alert, kind, actor in actions) == sorted(
        [
            (0, "rerun-failed", None),
            *((n, "rerun-passed", "ada@example.com") for n in (0, 1)),
            (3, "closed-by-machine", None),
        ],
        key=lambda row: row[:2],
    )
    early = """SELECT count(*) FROM raw.actions JOIN raw.alerts USING (alert_id)
               WHERE acted_at::timestamptz <= raised_at::timestamptz"""
    assert store.rows(early) == [(0,)]
    again = pulled(store, source)
    assert (again.records, again.alerts, again.actions) == (0, 0, 0)


def test_a_folder_without_a_deployment_is_named(store: Store, tmp_path: Path) -> None:
    for kind, complaint in (("dagster", "no DAGSTER_HOME"), ("dbt", "has no run_results.json")):
        with pytest.raises(HeedError, match=complaint):
            pulled(store, {"kind": kind, "path": str(tmp_path)})
