"""What flags exclude, as people read it: the published tables and views say what the one deciding function says."""

from __future__ import annotations

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from upath import UPath

from dagster_project.assets.quality import FLOOD_DAYS, flags
from dagster_project.assets.training import read_training_set
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import read_history
from dagster_project.triage.features.contract import contract
from dagster_project.triage.flags.exclusion import flag_alerts
from tests.conftest import Company

pytestmark = pytest.mark.slow


def test_the_views_say_what_the_deciding_function_says(company: Company) -> None:
    history = read_history(company.warehouse, company.end)
    expected = flag_alerts(history, *read_flags(company.warehouse))
    held = expected["flood"] | expected["visibility_only"]
    found = company.warehouse.read("SELECT * FROM reporting.excluded_alerts").set_index("alert_id")
    assert held.sum() > 100
    assert set(found.index) == set(history.loc[held, "alert_id"])
    own = expected[held].set_index(history.loc[held, "alert_id"]).loc[found.index]
    assert (found["flood"].to_numpy() == own["flood"].to_numpy()).all()
    assert (found["visibility_only"].to_numpy() == own["visibility_only"].to_numpy()).all()
    assert (found["reason"].to_numpy() == own["flag_reason"].to_numpy()).all()


def test_the_days_add_up(company: Company) -> None:
    daily = company.warehouse.read("SELECT * FROM reporting.exclusion_daily ORDER BY day")
    excluded = company.warehouse.read("SELECT * FROM reporting.excluded_alerts")
    assert daily["alerts"].sum() == company.warehouse.value("SELECT count(*) FROM marts.alerts")
    assert daily["excluded"].sum() == len(excluded)
    assert daily["flood_alerts"].sum() == excluded["flood"].sum()
    assert (daily["excluded"] <= daily["alerts"]).all()
    np.testing.assert_allclose(daily["share_excluded"], daily["excluded"] / daily["alerts"])
    assert daily["expected"].notna().mean() > 0.8
    known = daily.dropna(subset=["expected"])
    assert (known["upper"] > known["expected"]).all()


def test_learning_goes_without_most_alerts_of_a_great_burst_and_without_nothing_else(company: Company) -> None:
    store = FeatureStore(UPath(company.home) / "features", contract(company.settings.feature_settings())["hash"])
    days, most = company.settings.learning.training_days, 10
    whole, none = read_training_set(store, company.warehouse, company.end, days)
    few, left_out = read_training_set(store, company.warehouse, company.end, days, most)
    assert none == 0
    assert left_out >= len(whole) - len(few) > 100
    pd.testing.assert_frame_equal(
        few.reset_index(drop=True), whole[whole["alert_id"].isin(few["alert_id"])].reset_index(drop=True)
    )

    def sizes(frame: pd.DataFrame) -> pd.Series:
        burst = frame["rule"].mask(frame["excluded"], "excluded")
        return frame.groupby([frame["raised_at"].dt.date, burst]).size()

    # Of younger alerts some have no outcome yet: they count for the limit, but are not in the frame.
    over = company.end - company.settings.learning_settings().horizon
    before = sizes(whole[whole["raised_at"] < over])
    kept = sizes(few[few["raised_at"] < over]).reindex(before.index, fill_value=0)
    assert (kept <= most).all()
    assert (kept[before <= most] == before[before <= most]).all()
    assert (kept[before > most] > most / 3).all()


def test_learning_takes_the_newest_whole_days_where_there_are_too_many_alerts(company: Company) -> None:
    store = FeatureStore(UPath(company.home) / "features", contract(company.settings.feature_settings())["hash"])
    days = company.settings.learning.training_days
    whole, _ = read_training_set(store, company.warehouse, company.end, days)
    newest, _ = read_training_set(store, company.warehouse, company.end, days, most_alerts=len(whole) // 2)
    assert len(whole) / 4 < len(newest) <= len(whole) // 2
    since = newest["raised_at"].min().floor("D")
    pd.testing.assert_frame_equal(newest, whole[whole["raised_at"] >= since].reset_index(drop=True))


def test_an_override_of_nothing_is_one_line_on_the_asset_and_changes_nothing(company: Company) -> None:
    before = read_flags(company.warehouse)
    with company.warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO quality.flag_overrides (flag, action, scope, who, why, created_at) "
            "VALUES ('flood', 'clear', 'no such rule', 'Ada', 'a guess', '2025-01-01')"
        )
    try:
        result = dg.materialize(
            [flags], resources={"warehouse": company.warehouse}, tags={AS_OF_TAG: company.end.isoformat()}
        )
    finally:
        with company.warehouse.transaction() as cursor:
            cursor.execute("DELETE FROM quality.flag_overrides WHERE scope = 'no such rule'")
    shown = {made.asset_key: made.metadata for made in result.asset_materializations_for_node("flags")}[FLOOD_DAYS]
    assert "there is no rule, team or source 'no such rule'" in str(shown["overrides to mend"].value).replace("\\", "")
    assert str(shown["daily volume"].value).startswith("![alerts per day")
    for old, new in zip(before, read_flags(company.warehouse), strict=True):
        pd.testing.assert_frame_equal(old, new)
