"""The artifacts that dbt leaves behind, as alerts: of heed's own project, whose models do not exist yet."""

from __future__ import annotations

import json
from collections.abc import Callable

from dagster_project.loading.pulls.pull import PullReport, pull
from dagster_project.settings import Settings
from tests.dbt.conftest import Dbt


def test_failed_tests_of_dbt_are_alerts(dbt_database: Callable[[], Dbt]) -> None:
    dbt = dbt_database()
    assert not dbt.invoke("test", "--select", "stg_alerts", "--write-json").success
    results = json.loads((dbt.folder / "run_results.json").read_text())["results"]
    failed = {result["unique_id"] for result in results if result["status"] in ("error", "fail", "warn")}
    assert failed

    def pulled() -> PullReport:
        source = {"kind": "dbt", "path": str(dbt.folder)}
        return pull("own", Settings.model_validate({"sources": {"own": source}}), dbt.warehouse, lambda _: None)

    report = pulled()
    assert (report.records, report.alerts) == (len(results), len(failed))
    rows = dbt.warehouse.read_arrow("SELECT * FROM raw.alerts").to_pylist()
    assert {row["alert_id"].split("|")[0] for row in rows} == failed
    rules = {row["rule"]: row["entity"] for row in rows}
    assert rules["not_null_stg_alerts_placement"] == "model.heed.stg_alerts"
    assert all(row["raised_at"].endswith("Z") for row in rows)
    assert pulled().records == 0  # the same artifacts
