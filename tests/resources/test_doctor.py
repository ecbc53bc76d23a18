"""`heed doctor` for machines: its exit status says whether something is wrong."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_project.automation import REFRESH, WAREHOUSE_TAG
from dagster_project.cli import main
from dagster_project.commands.doctor import STATUS
from dagster_project.instance import dagster_instance
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse


@pytest.fixture
def doctor(warehouse: Warehouse, tmp_path: Path) -> Any:
    """(exit status, finding -> level)"""

    def ask() -> tuple[int, dict[str, str]]:
        environment = {"HEED_HOME": str(tmp_path), URL_VARIABLE: warehouse.url()}
        result = CliRunner().invoke(main, ["doctor", "--json"], env=environment)
        findings = json.loads(result.stdout)
        assert all(each["status"] == STATUS[each["level"]] for each in findings)  # the former words stay
        return result.exit_code, {each["what"]: each["level"] for each in findings}

    return ask


def test_a_failed_run_is_an_error_until_the_next_one_ends_well(doctor: Any, tmp_path: Path) -> None:
    with dagster_instance(tmp_path) as instance:
        job = dg.GraphDefinition(name=REFRESH).to_job()
        instance.report_run_failed(instance.create_run_for_job(job, tags=WAREHOUSE_TAG), "the disk is full")
        status, findings = doctor()
        assert (status, findings["runs"]) == (1, "error")
        instance.create_run_for_job(job, tags=WAREHOUSE_TAG, status=dg.DagsterRunStatus.SUCCESS)
        status, findings = doctor()
        assert (status, findings["runs"]) == (0, "ok")


def test_stale_scores_are_an_error(doctor: Any, warehouse: Warehouse) -> None:
    assert doctor()[0] == 0  # nothing was ever scored: there is something to do, and nothing wrong

    def publish(as_of: datetime) -> None:
        with warehouse.transaction() as cursor:
            cursor.execute(
                "INSERT INTO scoring.alert_scores VALUES ('a', $1, $1, $1, 'm', 0.5, 'model', false, false, null)",
                parameters=(as_of,),
            )
            cursor.execute(
                "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES ($1, $1, 1, 1)",
                parameters=(as_of,),
            )

    publish(datetime.now(UTC) - timedelta(hours=2))
    status, findings = doctor()
    assert (status, findings["scores"]) == (1, "error")
    publish(datetime.now(UTC))
    status, findings = doctor()
    assert (status, findings["scores"]) == (0, "ok")
