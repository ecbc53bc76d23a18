"""Suites as asset checks in real Dagster runs on an ephemeral instance.

Belongs here: `dagster_project/checks.py`: names, severities, blocking, metadata, crashes.
Does not belong here: what the suites say (`test_expectation_suites.py`).
"""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pandas as pd
import pytest
from dagster import AssetCheckSeverity

from dagster_project import checks
from dagster_project.resources.expectations import suites
from dagster_project.resources.expectations.results import ExpectationsFailed

CUT = "2025-02-01T00:00:00+00:00"


def training_set(**faults: object) -> pd.DataFrame:
    n = 200
    raised = pd.Series(
        (pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(range(n), "h")).astype("datetime64[us, UTC]")
    )
    frame = pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(n)],
            "raised_at": raised,
            "known_at": raised + pd.Timedelta("1D"),
            "acted": [float(i % 2) for i in range(n)],
            "excluded": False,
        }
    )
    for column, value in faults.items():
        frame.loc[3, column] = value
    return frame


LATE = training_set(known_at=pd.Timestamp("2025-03-01", tz="UTC"))
FEW = training_set().head(20)


def run_standing_check(frame: pd.DataFrame, tmp_path) -> dg.ExecuteInProcessResult:
    """A table that another asset wrote, its suite as a check of its own, and an asset after it."""

    @dg.asset
    def table() -> None: ...

    @dg.asset(deps=[table])
    def downstream() -> None: ...

    standing = checks.checks_for("training_set", "table", lambda context: (frame, {"cut": CUT}), results_dir=tmp_path)
    job = dg.define_asset_job("everything", executor_def=dg.in_process_executor)
    definitions = dg.Definitions(assets=[table, downstream], asset_checks=[standing], jobs=[job])
    with dg.DagsterInstance.ephemeral() as instance:
        return definitions.resolve_job_def("everything").execute_in_process(instance=instance, raise_on_error=False)


def run_own_check(frame: pd.DataFrame, tmp_path, written: list[int]) -> dg.ExecuteInProcessResult:
    """An asset that checks its rows before it writes them, and an asset after it."""

    @dg.asset(check_specs=checks.suite_check_specs("training_set", "table"))
    def table():
        yield from checks.check_before_publishing(
            "training_set", "table", [frame], parameters={"cut": CUT}, results_dir=tmp_path
        )
        written.append(len(frame))
        yield dg.MaterializeResult()

    @dg.asset(deps=[table])
    def downstream() -> None: ...

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize([table, downstream], instance=instance, raise_on_error=False)


def materialized(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events()}


def failed_checks(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    return {e.check_name: e for e in result.get_asset_check_evaluations() if not e.passed}


def test_good_rows_pass_every_check_and_reach_downstream(tmp_path):
    result = run_standing_check(training_set(), tmp_path)
    assert result.success
    assert materialized(result) == {"table", "downstream"}
    evaluations = result.get_asset_check_evaluations()
    assert [e.check_name for e in evaluations] == [s.check_name for s in suites.check_specs("training_set")]
    assert all(e.passed for e in evaluations)


def test_a_critical_failure_stops_downstream_and_says_which_rows(tmp_path):
    result = run_standing_check(LATE, tmp_path)
    assert not result.success
    assert materialized(result) == {"table"}
    [(name, evaluation)] = failed_checks(result).items()
    assert name == "known_by_the_cut"
    assert evaluation.severity == AssetCheckSeverity.ERROR
    assert evaluation.blocking
    assert "1 of 200 rows: alert_id=a3, known_at=2025-03-01T00:00:00+00:00" in evaluation.description
    table = evaluation.metadata["sample of failing rows"].value
    assert table.splitlines()[0] == "| alert\\_id | known\\_at |"
    assert table.splitlines()[2] == "| a3 | 2025-03-01T00:00:00+00:00 |"
    assert evaluation.metadata["unexpected rows"].value == 1
    assert evaluation.metadata["rows"].value == 200
    assert "seeing the future" in evaluation.metadata["why this severity"].value
    assert evaluation.metadata["data docs"].value == str(tmp_path / "data_docs" / "index.html")


def test_a_warning_shows_and_lets_pass(tmp_path):
    result = run_standing_check(FEW, tmp_path)
    assert result.success
    assert materialized(result) == {"table", "downstream"}
    failed = failed_checks(result)
    assert set(failed) == {"enough_acted", "enough_not_acted"}
    assert all(e.severity == AssetCheckSeverity.WARN and not e.blocking for e in failed.values())
    assert failed["enough_acted"].metadata["observed"].value == 10


def test_an_asset_that_checks_itself_writes_only_what_passes(tmp_path):
    written: list[int] = []
    result = run_own_check(training_set(), tmp_path, written)
    assert result.success
    assert written == [200]
    assert materialized(result) == {"table", "downstream"}


def test_an_asset_that_checks_itself_does_not_write_what_fails(tmp_path):
    written: list[int] = []
    result = run_own_check(LATE, tmp_path, written)
    assert not result.success
    assert written == []
    assert materialized(result) == set()
    assert set(failed_checks(result)) == {"known_by_the_cut"}
    [failure] = [e for e in result.all_events if e.is_step_failure]
    told = failure.step_failure_data.error_display_string
    assert "ExpectationsFailed" in told
    assert "alert_id=a3" in told


def test_an_asset_that_checks_itself_writes_with_warnings(tmp_path):
    written: list[int] = []
    result = run_own_check(FEW, tmp_path, written)
    assert result.success
    assert written == [20]
    assert set(failed_checks(result)) == {"enough_acted", "enough_not_acted"}


def test_a_crash_is_a_failed_step_and_no_failed_check(tmp_path):
    result = run_standing_check(training_set().assign(known_at="yesterday"), tmp_path)
    assert not result.success
    assert result.get_asset_check_evaluations() == []
    [failure] = [e for e in result.all_events if e.is_step_failure]
    assert "ExpectationCrashed" in failure.step_failure_data.error_display_string
    assert materialized(result) == {"table"}


def test_specs_block_exactly_where_the_suite_is_critical():
    for suite in suites.suite_names():
        specs = checks.suite_check_specs(suite, ["marts", "alerts"])
        for spec, told in zip(specs, suites.check_specs(suite), strict=True):
            assert spec.asset_key == dg.AssetKey(["marts", "alerts"])
            assert spec.blocking == (told.severity == "critical")
            assert spec.description.startswith(told.description)


def test_specs_need_no_great_expectations():
    program = (
        "import sys; from dagster_project import checks;"
        "checks.suite_check_specs('clean_alerts', 'alerts');"
        "checks.checks_for('clean_alerts', 'alerts', lambda context: None);"
        "checks.data_docs_job();"
        "assert 'great_expectations' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_results_are_kept_and_the_job_builds_data_docs_from_them(tmp_path):
    with pytest.raises(ExpectationsFailed):
        list(
            checks.check_before_publishing(
                "training_set", "table", [LATE], parameters={"cut": CUT}, results_dir=tmp_path
            )
        )
    with dg.DagsterInstance.ephemeral() as instance:
        result = checks.data_docs_job(tmp_path).execute_in_process(instance=instance)
    assert result.success
    [page] = (tmp_path / "data_docs" / "validations" / "training_set").rglob("*.html")
    assert "alert_id=a3" in page.read_text()


def test_results_stand_under_the_state_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    list(checks.check_before_publishing("training_set", "table", [FEW], parameters={"cut": CUT}))
    assert len(list((tmp_path / "expectations" / "results" / "training_set").glob("*.json"))) == 1


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        ("a | b", "a \\| b"),
        ("two\nlines", "two lines"),
        ("<script>", "\\<script\\>"),
        ("x" * 500, "x" * 79 + "…"),
        (0.5, "0.5"),
    ],
)
def test_values_stay_in_their_cell(value, shown):
    table = checks.markdown_table([{"id": 1, "value": value}])
    assert table.splitlines()[2] == f"| 1 | {shown} |"
