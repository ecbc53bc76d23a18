"""The number that people read: the same in the view as in Python, at the moment of reading, for every open alert."""

import json
import re
from datetime import timedelta

import numpy as np
import pandas as pd
from upath import UPath

from dagster_project.resources.stores.curves import read_curves
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import ATTRIBUTES_FROM, read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import scores_that_differ
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.triage.features.build import with_attribute_history
from dagster_project.triage.features.contract import contract, settings_from_contract
from dagster_project.triage.flags.exclusion import flag_alerts
from dagster_project.triage.flags.rates import EVERY_RULE
from dagster_project.triage.learning.reasons.words import share
from dagster_project.triage.pipeline import score
from tests.conftest import Company

OPEN = """
SELECT alert_id, rule, team, raised_at, read_at, probability, probability_at_raise, low, high, flag_words, flood,
       visibility_only, status
FROM reporting.alert_scores_latest WHERE is_open ORDER BY alert_id
"""


def test_the_view_gives_the_chance_now_to_the_last_bit(scored_company: Warehouse) -> None:
    warehouse = scored_company
    rows = warehouse.read(OPEN)
    rows = rows[rows["status"] != "holdout"].reset_index(drop=True)
    curves = read_curves(warehouse, rows["read_at"].iloc[0].to_pydatetime())
    assert curves is not None
    assert len(curves.coefficients) > 3
    plain = rows[~(rows["flood"] | rows["visibility_only"])]
    assert len(plain) > 50
    age = (plain["read_at"] - plain["raised_at"]).dt.total_seconds().to_numpy()
    now = curves.now(plain["probability_at_raise"].to_numpy(), curves.groups(plain["team"], plain["rule"]), age)
    assert np.array_equal(plain["probability"].to_numpy(), now)
    old = age > 86_400
    assert old.sum() > 20
    assert plain["probability"].to_numpy()[old].mean() < plain["probability_at_raise"].to_numpy()[old].mean()
    assert plain[["low", "high", "flag_words"]].isna().all(axis=None)


def test_waiting_is_a_reason_that_only_readers_see(scored_company: Warehouse) -> None:
    """Of old open alerts; with the numbers that are shown."""
    rows = scored_company.read(
        "SELECT read.*, now.reasons, "
        "(SELECT stored.reasons FROM scoring.alert_scores AS stored WHERE stored.alert_id = read.alert_id "
        f"ORDER BY as_of DESC, scored_at DESC LIMIT 1) AS stored FROM ({OPEN}) AS read "
        "JOIN reporting.alert_scores_latest AS now USING (alert_id)"
    )
    waiting = 0
    for row in rows.itertuples():
        shown, stored = json.loads(row.reasons), json.loads(row.stored)
        assert not any("nobody has decided it" in line for line in stored)
        if row.status == "holdout" or row.flood or row.visibility_only:
            assert not any("nobody has decided it" in line for line in shown)
            continue
        odds, before = (p / (1 - p) for p in (row.probability, row.probability_at_raise))
        if not 0.74 <= odds / before <= 1 / 0.74:
            days = (row.read_at - row.raised_at).total_seconds() / 86_400
            age = f"{days:.0f} days" if days >= 2 else r"\d+ (hours|minutes)"
            words = f"nobody has decided it for {age}: of such alerts {share(row.probability)} are still acted on "
            assert re.fullmatch(f"{words}\\({share(row.probability_at_raise)} when it was raised\\)", shown[0])
            waiting += 1
            shown = shown[1:]
        assert shown == stored
    assert waiting > 20


def test_flagged_alerts_get_the_rate_of_their_kind_at_their_age(scored_company: Warehouse) -> None:
    warehouse = scored_company
    rows = warehouse.read(OPEN)
    curves = read_curves(warehouse, rows["read_at"].iloc[0].to_pydatetime())
    assert curves is not None
    flagged = rows[(rows["flood"] | rows["visibility_only"]) & (rows["status"] != "holdout")]
    assert len(flagged) > 5
    rates = warehouse.read(
        "SELECT * FROM scoring.flagged_rates WHERE as_of = (SELECT max(as_of) FROM scoring.flagged_rates)"
    )
    groups = curves.groups(flagged["team"], flagged["rule"])
    age = (flagged["read_at"] - flagged["raised_at"]).dt.total_seconds().to_numpy()
    for place, row in enumerate(flagged.itertuples()):
        kind = "visibility_only" if row.visibility_only else "flood"
        of_kind = rates[rates["kind"] == kind].set_index("rule")
        rate = of_kind.loc[row.rule if row.rule in of_kind.index else EVERY_RULE]
        at_raise = rate[["probability", "low", "high"]].to_numpy(dtype=np.float64)
        now = curves.now(at_raise, np.repeat(groups[place], 3), np.repeat(age[place], 3))
        assert (row.probability, row.low, row.high) == tuple(now)
        assert row.flag_words == rate["words"]
        assert row.low <= row.probability <= row.high


def test_reading_moves_with_the_clock_and_stops_an_hour_after_the_newest_publication(scored_company: Warehouse) -> None:
    moments = scored_company.read(
        "SELECT DISTINCT read_at, now() AS now, (SELECT max(as_of) FROM scoring.publications) AS newest "
        "FROM reporting.alert_scores_latest"
    )
    assert len(moments) == 1
    row = moments.iloc[0]
    assert row["read_at"] == min(row["now"], row["newest"] + pd.Timedelta(hours=1))


def test_age_alone_writes_no_score(company: Company) -> None:
    """An hour later nothing is to be published, although every number that people read has fallen."""
    warehouse, later = company.warehouse, company.end + timedelta(hours=1)
    still_open = warehouse.read(OPEN)
    store = FeatureStore(UPath(company.home) / "features", contract(company.settings.feature_settings())["hash"])
    features = store.read((company.end - timedelta(days=15)).date(), company.end.date())
    features = features[features["alert_id"].isin(still_open["alert_id"])].reset_index(drop=True)
    models = ModelStore(warehouse)
    version = warehouse.value("SELECT model_version FROM scoring.publications ORDER BY as_of DESC LIMIT 1")
    model, flags = models.load(version), read_flags(warehouse)
    past = read_history(warehouse, company.end, columns=ATTRIBUTES_FROM)
    features = with_attribute_history(features, past, *flags, settings_from_contract(model.contract))
    scores = score(model, features, flag_alerts(features, *flags, as_of=later))
    assert len(scores) > 100
    assert not scores_that_differ(warehouse, scores, later).any()
    plain = still_open[~(still_open["flood"] | still_open["visibility_only"]) & (still_open["status"] != "holdout")]
    assert (plain["probability"] != plain["probability_at_raise"]).mean() > 0.9
