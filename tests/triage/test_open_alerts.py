"""Open alerts as they were read: who was open, which number was shown, and measures by brute force."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.open_alerts import EVERY_AGE, age_names, as_read, measure, measure_past, open_at
from dagster_project.triage.learning.time_to_decision import fit_curves
from tests.triage.test_time_to_decision import HORIZON, at, past

ALERTS = past(8_000, seed=5, days=120)
MOMENTS = [at(50 + 7 * week) for week in range(10)]
READ = as_read(ALERTS, MOMENTS, lambda moment: fit_curves(ALERTS, moment, HORIZON), at(150))
MEASURED = measure(READ).set_index(["age", "contender", "metric"])["value"].sort_index()


def test_each_row_was_open_and_shows_what_was_known() -> None:
    facts = READ.merge(ALERTS, on="alert_id", suffixes=("", "_fact"))
    assert len(facts) == len(READ) == sum(open_at(ALERTS, moment).sum() for moment in MOMENTS)
    assert (facts["raised_at"] <= facts["moment"]).all()
    assert (facts["known_at"] > facts["moment"]).all()
    assert (facts["age"] == (facts["moment"] - facts["raised_at"]).dt.total_seconds()).all()
    assert (facts["probability_at_raise"] == facts["probability_fact"]).all()
    # What happened later does not change what was shown.
    late = (ALERTS["known_at"] > pd.Timestamp(MOMENTS[2])).to_numpy()
    other = ALERTS.assign(acted=np.where(late, 1 - ALERTS["acted"], ALERTS["acted"]))
    again = as_read(other, MOMENTS[:3], lambda moment: fit_curves(other, moment, HORIZON), at(150))
    assert np.array_equal(again["probability"], READ["probability"][: len(again)])


def test_curves_from_the_future_are_refused() -> None:
    curves = fit_curves(ALERTS, at(100), HORIZON)
    with pytest.raises(ValueError, match="cannot have been read"):
        as_read(ALERTS, [at(99)], lambda moment: curves, at(150))


def test_what_is_not_known_yet_is_not_measured() -> None:
    young = as_read(ALERTS, MOMENTS, lambda moment: fit_curves(ALERTS, moment, HORIZON), at(60))
    assert young["acted"].isna().any()
    assert measure(young)["alert_days"].max() == young["acted"].notna().sum()


def test_measures_are_those_of_brute_force() -> None:
    y, p = READ["acted"].to_numpy(), READ["probability"].to_numpy()
    assert MEASURED[EVERY_AGE, "probability", "log_loss"] == pytest.approx(metrics.log_loss(p, y))
    assert MEASURED[EVERY_AGE, "probability", "expected_over_acted"] == pytest.approx(p.sum() / y.sum())
    days = [group for _, group in READ.groupby("moment")]
    auc = [metrics.roc_auc(g["probability"].to_numpy(), g["acted"].to_numpy()) for g in days]
    assert MEASURED[EVERY_AGE, "probability", "roc_auc_within"] == pytest.approx(
        np.average(auc, weights=[len(g) for g in days])
    )
    top = [g.sort_values("probability", ascending=False, kind="stable")["acted"].head(10).mean() for g in days]
    assert MEASURED[EVERY_AGE, "probability", "precision_of_first_10"] == pytest.approx(np.mean(top))
    names = age_names(READ["age"].to_numpy())
    for name in np.unique(names):
        mine = names == name
        if mine.sum() >= 100:
            expected = abs(p[mine].mean() - y[mine].mean())
            assert MEASURED[name, "probability", "calibration_error"] == pytest.approx(expected)


def test_the_chance_now_is_better_than_the_chance_at_the_raise() -> None:
    now, raised = (MEASURED[EVERY_AGE, name] for name in ("probability", "probability_at_raise"))
    assert now["log_loss"] < raised["log_loss"]
    assert now["calibration_error"] < 0.02
    assert raised["calibration_error"] > 0.05
    assert now["roc_auc_within"] > raised["roc_auc_within"]


def test_ages_fall_into_their_parts() -> None:
    hour = 3_600.0
    given = [0, hour - 1, hour, 24 * hour, 72 * hour, 168 * hour, 400 * hour]
    assert list(age_names(np.array(given))) == [
        "under 1 hour", "under 1 hour", "1 hour to 1 day", "1 to 3 days", "3 to 7 days", "older", "older",
    ]  # fmt: skip


def test_no_open_alert_is_no_number() -> None:
    nothing = as_read(ALERTS, [at(-10)], lambda moment: fit_curves(ALERTS, moment, HORIZON), at(150))
    assert nothing.empty
    assert measure(nothing)["value"].isna().all()
    assert (
        measure(as_read(ALERTS, [], lambda moment: fit_curves(ALERTS, moment, HORIZON), at(150)))["value"].isna().all()
    )


def test_blocks_are_as_long_as_asked() -> None:
    """Ten weekly moments are five blocks of 14 days, and one block of a year, which has no interval."""
    assert measure(READ)["low"].notna().any()
    assert measure(READ, block=timedelta(days=365))["low"].isna().all()


def test_an_evaluation_measures_the_boards_of_the_past() -> None:
    forecasts = ALERTS.rename(columns={"probability": "model"}).assign(excluded=np.arange(len(ALERTS)) % 50 == 0)
    table = measure_past(forecasts, at(150), HORIZON)
    assert set(table["slice"]) == {"open alerts as read"}
    losses = table[(table["metric"] == "log_loss") & (table["slice_value"] == EVERY_AGE)].set_index("contender")[
        "value"
    ]
    assert losses["model"] < losses["model at the raise"]
    # Outcomes of alerts whose horizon was not over at the as-of change nothing.
    later = (forecasts["known_at"] > pd.Timestamp(at(150))).to_numpy()
    changed = forecasts.assign(acted=np.where(later, 1 - forecasts["acted"], forecasts["acted"]))
    pd.testing.assert_frame_equal(measure_past(changed, at(150), HORIZON), table)
    assert not len(measure_past(forecasts.iloc[:0], at(150), HORIZON))
    assert not len(measure_past(forecasts.drop(columns="model"), at(150), HORIZON))
