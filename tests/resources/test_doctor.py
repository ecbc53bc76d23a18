"""`heed doctor` for machines: its exit status says whether something is wrong."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_project.automation import REFRESH, WAREHOUSE_TAG
from dagster_project.cli import main
from dagster_project.commands.doctor import STATUS, Finding, examine, stale_sources
from dagster_project.instance import dagster_instance
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings
from tests.conftest import with_roles


@pytest.fixture
def doctor(warehouse: Warehouse, tmp_path: Path) -> Any:
    """(exit status, finding -> level)"""

    def ask(login: Warehouse = warehouse) -> tuple[int, dict[str, str]]:
        environment = {"HEED_HOME": str(tmp_path), URL_VARIABLE: login.url()}
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


def test_a_run_that_ended_well_names_the_failure_before_it(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dagster_instance(tmp_path) as instance:
        job = dg.GraphDefinition(name=REFRESH).to_job()
        instance.report_run_failed(instance.create_run_for_job(job, tags=WAREHOUSE_TAG), "the disk is full")
        instance.create_run_for_job(job, tags=WAREHOUSE_TAG, status=dg.DagsterRunStatus.SUCCESS)
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, warehouse.url())
    [runs] = [each for each in examine() if each.what == "runs"]
    assert runs.level == "ok"
    assert "; before it, run " in runs.found
    assert "the disk is full" in runs.found


def test_a_login_without_rights_gets_one_clear_finding(
    doctor: Any, warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warehouse.transaction() as cursor:
        cursor.execute("CREATE SCHEMA marts")
        cursor.execute("CREATE TABLE marts.rejected_rows AS SELECT 'alerts' AS source, 'no id' AS reason")
    login = with_roles(warehouse)
    status, findings = doctor(login("test_loader"))
    assert (status, findings["rights"], findings["reading"]) == (0, "ok", "warn")
    assert {"alerts", "actions", "notices"} < findings.keys()
    assert not {"model", "scores"} & findings.keys(), "nothing is said about what could not be read"
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, login("test_loader").url())
    [reading] = [each for each in examine() if each.what == "reading"]
    assert "marts.rejected_rows" in reading.found
    assert "scoring.alert_scores" in reading.found
    assert "heed_analyst" in reading.remedy
    assert "reading" not in doctor()[1]


def test_every_finding_has_a_level_that_is_shown(warehouse: Warehouse) -> None:
    """A login that may create no schema is told so, also without roles of heed."""
    from dagster_project.commands.doctor import _rights

    with warehouse.transaction() as cursor:
        cursor.execute("DO $$ BEGIN CREATE ROLE test_nobody LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
    nobody = Warehouse(warehouse.home, re.sub("//[^@]*@", "//test_nobody@", warehouse.url()))
    [rights] = list[Finding](_rights(nobody, Settings()))
    assert rights.line().startswith("ERROR  rights: ")


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


def test_sources_that_are_not_pulled_any_more_are_named(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [f'[sources.{name}]\nkind = "dbt"\npath = "/opt/{name}"' for name in ("fresh", "stale", "never")]
    (tmp_path / "heed.toml").write_text("\n".join(sources))
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, warehouse.url())
    prepare(warehouse)
    kept = (("fresh", "results /opt/fresh", 1), ("stale", "results /opt/stale", 90), ("never", "another list", 1))
    with warehouse.transaction() as cursor:
        for source, stream, minutes in kept:
            cursor.execute(
                "INSERT INTO raw.pulls VALUES ($1, $2, '{}', now() - make_interval(mins => $3::int))",
                parameters=(source, stream, minutes),
            )
    findings = {each.what: each for each in examine() if each.what.startswith("source ")}
    assert {what: each.level for what, each in findings.items()} == {
        "source fresh": "ok",
        "source stale": "warn",
        "source never": "warn",
    }
    assert "not pulled since" in findings["source stale"].found
    assert "never" in findings["source never"].found
    for name in ("stale", "never"):
        assert f"heed pull {name}" in findings[f"source {name}"].remedy
        assert "\n" not in findings[f"source {name}"].line()
    settings = Settings.model_validate({"sources": {"stale": {"kind": "dbt", "path": "/opt/stale"}}})
    assert [each.what for each in stale_sources(warehouse, settings)] == ["source stale"]
    daily = settings.model_copy(update={"schedule": settings.schedule.model_copy(update={"pull": "0 6 * * *"})})
    assert stale_sources(warehouse, daily) == []  # two hours are nothing to who pulls once a day
