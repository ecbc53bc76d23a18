"""The watch: distances that are distances, and readings that warn of what they are for and of nothing else."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from dagster_project.triage import monitoring as watch
from tests.conftest import PROJECT

NOW = datetime(2025, 6, 1, tzinfo=UTC)
COUNTS = st.lists(st.integers(0, 1000), min_size=2, max_size=12)


@given(st.data())
def test_the_distance_is_one(data: st.DataObject) -> None:
    p = np.array(data.draw(COUNTS), dtype=float)
    q = np.array(data.draw(st.lists(st.integers(0, 1000), min_size=len(p), max_size=len(p))), dtype=float)
    if not p.sum() or not q.sum():
        assert np.isnan(watch.js_distance(p, q))
        return
    distance = watch.js_distance(p, q)
    assert 0 <= distance <= 1 + 1e-9
    assert distance == pytest.approx(watch.js_distance(q, p), abs=1e-7)
    assert watch.js_distance(p, 3 * p) == pytest.approx(0, abs=1e-7)


def test_nothing_in_common_is_one() -> None:
    assert watch.js_distance(np.array([5.0, 0.0]), np.array([0.0, 9.0])) == pytest.approx(1)


@given(st.integers(0, 100))
def test_the_expected_auc_is_that_of_calibrated_outcomes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.choice(np.round(rng.beta(1, 4, 30), 3), 20_000)
    acted = rng.random(len(p)) < p
    assert watch.estimated_auc(p) == pytest.approx(roc_auc_score(acted, p), abs=0.03)


def alerts(n: int, seed: int, days: int = 7) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "raised_at": pd.Timestamp(NOW) - pd.to_timedelta(rng.uniform(0, days, n), "D"),
            "rule": rng.choice(["a", "b", "c"], n),
            "team": rng.choice(["x", "y"], n),
            "severity": "high",
            "value": rng.lognormal(0, 1, n),
            "threshold": 1.0,
            "attributes": [f'{{"region": "{each}"}}' for each in rng.choice(["north", "south"], n)],
        }
    )


def test_a_column_that_changed_is_named_first_and_the_others_are_well() -> None:
    before, now = alerts(3_000, 1, 56), alerts(500, 2)
    assert {reading.verdict for reading in watch.input_drift(before, now)} == {"well"}
    now["value"] = np.nan  # a source that lost a field
    found = watch.input_drift(before, now)
    assert [reading.subject for reading in found if reading.verdict == "warning"] == ["value", "value over threshold"]
    assert [reading.verdict for reading in watch.input_drift(before, now.head(50))] == ["too few"]


def test_a_new_word_is_drift() -> None:
    before, now = alerts(3_000, 1, 56), alerts(500, 2)
    now.loc[now["rule"] == "a", "rule"] = "new"
    assert [each.subject for each in watch.input_drift(before, now) if each.verdict == "warning"] == ["rule"]


def test_scores_that_say_too_much_are_noticed_and_luck_is_not() -> None:
    rng = np.random.default_rng(3)
    frame = alerts(2_000, 4).assign(probability=rng.beta(1, 4, 2_000))
    frame["acted"] = (rng.random(2_000) < frame["probability"]).astype(float)
    well = watch.realised_performance(frame)
    assert well.verdict == "well"
    assert well.low < well.value < well.high
    frame["acted"] = (rng.random(2_000) < 0.5 * frame["probability"]).astype(float)
    assert watch.realised_performance(frame).verdict == "warning"
    assert watch.realised_performance(frame.head(100)).verdict == "too few"


def test_a_pause_and_a_silent_day_are_noticed() -> None:
    raised = pd.Series(pd.Timestamp(NOW) - pd.to_timedelta(np.arange(2_000) / 2, "h"))
    assert watch.freshness(raised, NOW).verdict == "well"
    assert watch.freshness(raised, NOW + timedelta(hours=2)).verdict == "warning"
    week = [100, 110, 90, 100, 105, 20, 10]
    daily = pd.Series(np.random.default_rng(5).poisson(np.tile(week, 8)))
    assert watch.alert_volume(daily).verdict == "well"
    for wrong in (0, 400):
        assert watch.alert_volume(pd.concat([daily.iloc[:-3], pd.Series([wrong])])).verdict == "warning"
    assert watch.alert_volume(daily.tail(20)).verdict == "too few"
    assert watch.coverage(100, 1).verdict == "warning"
    assert watch.coverage(0, 0).verdict == "well"


def shown(told: float, seed: int = 11) -> pd.DataFrame:
    """Weekly boards of 200 alerts that say `told` times the truth to those open for more than three days."""
    rng = np.random.default_rng(seed)
    moment = np.repeat(pd.date_range(end=NOW, periods=8, freq="7D"), 200)
    age = rng.uniform(0, 14 * 86_400, len(moment))
    truth = rng.beta(2, 8, len(moment))
    said = np.where(age > 3 * 86_400, np.minimum(told * truth, 0.99), truth)
    acted = (rng.random(len(moment)) < truth).astype(float)
    return pd.DataFrame({"moment": moment.as_unit("us"), "age": age, "probability": said, "acted": acted})


def test_a_board_that_says_too_much_to_old_alerts_is_noticed() -> None:
    horizon = timedelta(days=14)
    well = watch.open_alerts_as_read(shown(1.0), horizon)
    assert {each.verdict for each in well} <= {"well", "too few"}
    assert sum(each.verdict == "well" for each in well) >= 3
    overstated = watch.open_alerts_as_read(shown(1.6), horizon)
    wrong = [each for each in overstated if each.verdict == "warning"]
    assert {each.subject for each in wrong} == {"3 to 7 days", "older"}
    assert overstated[: len(wrong)] == wrong
    assert all(each.low > 0 for each in wrong)
    assert {each.verdict for each in watch.open_alerts_as_read(shown(1.0).head(50), horizon)} == {"too few"}


def test_each_limit_carries_what_was_measured_of_it() -> None:
    page = (PROJECT / "benchmarks" / "monitoring.md").read_text(encoding="utf-8")
    assert list(watch.MEASURED) == list(watch.CHECKS)
    for check, said in watch.MEASURED.items():
        assert f"- `{check}`: {said}\n" in page
