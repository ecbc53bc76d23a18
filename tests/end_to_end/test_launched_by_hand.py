"""A job launched by hand: without configuration; and the features of chosen days."""

import os
from datetime import timedelta

import dagster as dg
import pytest
from upath import UPath

from dagster_project.definitions import build_defs
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.expectations.suites import suite_checksum
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.resources.stores.watermarks import unchecked_rows
from dagster_project.triage.features.contract import contract
from tests.conftest import Company

pytestmark = pytest.mark.slow

FEATURES = dg.AssetKey(["features", "alert_features"])
DAYS = 14  # outcome.horizon_days: what a refresh covers


def materializations(result: dg.ExecuteInProcessResult) -> dict[str, list[dg.AssetMaterialization]]:
    found: dict[str, list[dg.AssetMaterialization]] = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION":
            shown = event.step_materialization_data.materialization
            found.setdefault(shown.asset_key.to_user_string(), []).append(shown)
    return found


def test_a_refresh_launched_by_hand_reads_scores_and_checks_what_is_new(company: Company) -> None:
    """An alert comes: it is read and scored, few rows are checked, and all days whose alerts may be open get features.
    It goes: nothing is left of it but its score."""

    def count(table: str) -> int:
        return company.warehouse.value(f"SELECT count(*) FROM {table}")

    now = company.end
    late, raised = "late, by hand", now - timedelta(milliseconds=1)
    alerts, scores = count("marts.alerts"), count("scoring.alert_scores")
    with company.warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO raw.alerts (alert_id, raised_at, rule, loaded_at) SELECT $1, $2, min(rule), now() "
            "FROM marts.alerts",
            parameters=(late, raised.isoformat()),
        )
    before = {name for name in os.environ if name.startswith("HEED_")}
    store = FeatureStore(UPath(company.home) / "features", contract(company.settings.feature_settings())["hash"])
    days_ago = [store.path(now.date() - timedelta(days=back)) for back in range(1, DAYS + 1)]
    written = {path.name: path.stat().st_mtime for path in days_ago if path.exists()}
    try:
        job = build_defs(settings=company.settings, warehouse=company.login("test_job")).resolve_job_def(
            "refresh_scores"
        )
        result = job.execute_in_process(instance=company.instance, tags={AS_OF_TAG: now.isoformat()})
        assert result.success
        assert len(written) > 10
        assert all(path.stat().st_mtime > written[path.name] for path in days_ago if path.name in written)
        assert late in store.read(raised.date(), raised.date(), ["alert_id"])["alert_id"].to_list()
        assert company.warehouse.value("SELECT alert_id FROM staging.changed_alerts") == late
        assert count("staging.changed_alerts") == 1
        assert count("marts.alerts") == count("marts.alert_outcomes") == alerts + 1
        parts, is_whole, _ = unchecked_rows(
            company.warehouse, "marts.alerts", "clean_alerts", suite_checksum("clean_alerts"), "true"
        )
        assert sum(map(len, parts)) < 5
        assert not is_whole
    finally:
        with company.warehouse.transaction() as cursor:
            cursor.execute("DELETE FROM raw.alerts WHERE alert_id = $1", parameters=(late,))
        outcome = company.run("refresh_scores", company.end)
    assert outcome.metadata["scoring/alert_scores"]["new scores"] == 0
    assert count("marts.alerts") == count("marts.alert_outcomes") == alerts
    assert company.warehouse.value("SELECT count(*) FROM scoring.alert_scores WHERE alert_id = $1", (late,)) == 1
    with company.warehouse.transaction() as cursor:
        cursor.execute("DELETE FROM scoring.alert_scores WHERE alert_id = $1", parameters=(late,))
    assert count("scoring.alert_scores") == scores
    after = {name for name in os.environ if name.startswith("HEED_")}
    assert after == before, "a dbt that this process starts later would read only what is new"

    shown = materializations(result)
    [features] = shown["features/alert_features"]
    days = features.metadata["alerts of each day"].value
    assert days.keys() == {(now - timedelta(days=back)).date().isoformat() for back in range(DAYS + 1)}
    earlier = now.date() - timedelta(days=2)
    stored = store.read(earlier, earlier, ["alert_id"])
    assert days[earlier.isoformat()] == len(stored) > 0
    assert features.metadata["alerts"].value == sum(days.values())
    columns = features.metadata["dagster/column_schema"].value.columns
    assert not [column.name for column in columns if not column.description]
    [published] = shown["scoring/alert_scores"]
    assert published.metadata["new scores"].value == 1
    for table in ("scoring.alert_scores", "quality.flood_days", "quality.flagged_alerts"):
        [one] = shown[table.replace(".", "/")]
        assert isinstance(one.metadata["dagster/row_count"].value, int)


def test_a_backfill_derives_the_chosen_days_and_no_others(company: Company) -> None:
    directory = company.home / "features"
    first, last = (company.end.date() - timedelta(days=back) for back in (60, 58))
    files = {path.name: path for path in directory.rglob("day=*.parquet")}
    chosen = {f"day={first + timedelta(days=number)}.parquet" for number in range(3)}
    before = {name: path.stat().st_mtime_ns for name, path in files.items()}
    assert chosen <= before.keys()
    definitions = build_defs(settings=company.settings, warehouse=company.login("test_job"))
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=company.instance,
        asset_selection=[FEATURES],
        tags={AS_OF_TAG: company.end.isoformat()},
        run_config={"ops": {"features__alert_features": {"config": {"first_day": str(first), "last_day": str(last)}}}},
    )
    assert result.success
    assert {name for name, path in files.items() if path.stat().st_mtime_ns != before[name]} == chosen


def test_row_counts_are_those_of_the_table_and_measures_are_numbers(company: Company) -> None:
    def newest(asset: str) -> dict[str, dg.MetadataValue]:
        event = company.instance.get_latest_materialization_event(dg.AssetKey(asset.split(".")))
        assert event is not None
        assert event.asset_materialization is not None
        return dict(event.asset_materialization.metadata)

    for asset, table in (("model_evaluation", "model_evaluations"), ("model_audit", "audit_findings")):
        rows = company.warehouse.value(f"SELECT count(*) FROM training.{table}")
        assert newest(f"training.{asset}")["dagster/row_count"].value == rows, table
    shown = newest("training.model_evaluation")
    measured = company.warehouse.read(
        "SELECT metric, value FROM training.model_evaluations WHERE slice = 'unflagged' AND contender = 'model'"
    ).set_index("metric")["value"]
    for name, metric in {
        "AUC": "roc_auc",
        "log-loss": "log_loss",
        "log-loss skill over the constant rate": "log_loss_skill_over_constant",
        "decile error": "decile_error",
    }.items():
        assert isinstance(shown[name], dg.FloatMetadataValue), name
        assert shown[name].value == measured[metric]
