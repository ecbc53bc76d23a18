"""A job launched by hand: without configuration, and without the days that schedules name."""

import os
from datetime import timedelta

import dagster as dg
from upath import UPath

from dagster_project.definitions import build_defs
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.triage.features.contract import contract
from tests.conftest import Company

FEATURES = dg.AssetKey(["features", "alert_features"])
DAYS = 14  # outcome.horizon_days: what a refresh covers


def materializations(result: dg.ExecuteInProcessResult) -> dict[str, list[dg.AssetMaterialization]]:
    found: dict[str, list[dg.AssetMaterialization]] = {}
    for event in result.all_events:
        if event.event_type_value == "ASSET_MATERIALIZATION":
            shown = event.step_materialization_data.materialization
            found.setdefault(shown.asset_key.to_user_string(), []).append(shown)
    return found


def test_a_refresh_launched_by_hand_covers_the_days_it_needs(company: Company) -> None:
    """An alert of three days ago came: its day gets features, and it gets a score."""
    now = company.end
    late, day = "late, by hand", (now - timedelta(days=3)).date()
    with company.warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO raw.alerts (alert_id, raised_at, rule, loaded_at) SELECT $1, $2, min(rule), now() "
            "FROM marts.alerts",
            parameters=(late, (now - timedelta(days=3)).isoformat()),
        )
    before = {name for name in os.environ if name.startswith("HEED_")}
    try:
        job = build_defs(settings=company.settings, warehouse=company.login("test_job")).resolve_job_def(
            "refresh_scores"
        )
        result = job.execute_in_process(instance=company.instance, tags={AS_OF_TAG: now.isoformat()})
        assert result.success
        store = FeatureStore(UPath(company.home) / "features", contract(company.settings.feature_settings())["hash"])
        assert late in store.read(day, day, ["alert_id"])["alert_id"].to_list()
        assert company.warehouse.value("SELECT count(*) FROM scoring.alert_scores WHERE alert_id = $1", (late,)) == 1
    finally:
        with company.warehouse.transaction() as cursor:
            cursor.execute("DELETE FROM raw.alerts WHERE alert_id LIKE 'late, %'")
            cursor.execute("DELETE FROM scoring.alert_scores WHERE alert_id LIKE 'late, %'")
        company.run("refresh_scores", company.end)
    assert {name for name in os.environ if name.startswith("HEED_")} == before, "dbt's environment is dbt's alone"

    shown = materializations(result)
    days = {each.partition: each for each in shown["features/alert_features"] if each.partition}
    assert {(now - timedelta(days=back)).date().isoformat() for back in range(DAYS + 1)} <= days.keys()
    stored = store.read(now.date() - timedelta(days=1), now.date() - timedelta(days=1), ["alert_id"])
    newest_full_day = days[(now - timedelta(days=1)).date().isoformat()]
    assert newest_full_day.metadata["dagster/partition_row_count"].value == len(stored) > 0
    columns = days[max(days)].metadata["dagster/column_schema"].value.columns
    assert not [column.name for column in columns if not column.description]
    for table in ("scoring.alert_scores", "quality.flood_days", "quality.flagged_alerts"):
        [one] = shown[table.replace(".", "/")]
        assert isinstance(one.metadata["dagster/row_count"].value, int)


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
