"""Signals: each says what it promises, from numbers that history features hold."""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.history import history_features
from dagster_project.triage.features.matrix import SIGNAL_SOURCES, ColumnPlan, plan_columns
from dagster_project.triage.features.signals import compute, signals_for
from dagster_project.triage.learning.candidates import CANDIDATES, LearningSettings
from dagster_project.triage.learning.reasons.subjects import subjects_of
from dagster_project.triage.learning.training import learn

SETTINGS = FeatureSettings(keys=("rule", "entity"))
COUNTS = st.integers(0, 500)


def one(kind: str, *numbers: float, spans: tuple[float, ...] = ()) -> float:
    return float(compute(kind, [np.array([float(n)]) for n in numbers], spans)[0])


@given(short=COUNTS, rest=COUNTS)
def test_evidence_for_a_change_of_pace_is_the_root_of_a_likelihood_ratio(short: int, rest: int) -> None:
    share = 7 / 28
    said = one("rate_change", short + rest, short, spans=(7.0, 28.0))
    n = short + rest
    if n == 0:
        assert said == 0
        return
    expected = 2 * (stats.binom.logpmf(short, n, short / n) - stats.binom.logpmf(short, n, share))
    assert said**2 == pytest.approx(max(expected, 0), abs=1e-8)
    assert np.sign(said) in (0, np.sign(short / n - share))


@given(
    acted=st.integers(0, 50), idle=st.integers(0, 50), acted_before=st.integers(0, 50), idle_before=st.integers(0, 50)
)
def test_evidence_for_a_change_of_habit_agrees_with_the_g_test(
    acted: int, idle: int, acted_before: int, idle_before: int
) -> None:
    known, before = acted + idle, acted_before + idle_before
    said = one("share_change", acted + acted_before, known + before, acted, known)
    if not known or not before:
        assert np.isnan(said)
    elif acted + acted_before in (0, known + before):
        assert said == 0
    else:
        table = [[acted, idle], [acted_before, idle_before]]
        g = stats.chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
        assert said**2 == pytest.approx(g, abs=1e-7)
        assert np.sign(said) in (0, np.sign(acted / known - acted_before / before))


def test_a_steady_pace_is_no_signal_and_a_burst_is_one() -> None:
    steady = one("burst", 28, 1, spans=(86_400.0, 28 * 86_400.0))
    assert steady == pytest.approx(0)
    assert one("burst", 48, 21, spans=(86_400.0, 28 * 86_400.0)) > 2
    assert one("gap", 86_400 * 7 / 8 - 1, 7, spans=(86_400.0 * 7,)) == pytest.approx(0)
    assert one("trend", 0.2, 0.9) == pytest.approx(0.7)


def daily_rule(days: int = 40) -> pd.DataFrame:
    """One rule that fires every day at nine, and another that fires at any hour; two alerts a day each."""
    rng = np.random.default_rng(5)
    day = pd.Timestamp("2025-03-01", tz="UTC") + pd.to_timedelta(np.repeat(np.arange(days), 2), unit="D")
    nine = day + pd.to_timedelta(9 * 60 + rng.uniform(-10, 10, len(day)), unit="min")
    any_hour = day + pd.to_timedelta(rng.uniform(0, 24 * 60, len(day)), unit="min")
    frame = pd.DataFrame({"raised_at": [*nine, *any_hour], "rule": ["daily"] * len(day) + ["any"] * len(day)})
    frame["entity"], frame["team"] = "one", "core"
    frame["acted"] = rng.integers(0, 2, len(frame)).astype(float)
    frame["known_at"] = frame["raised_at"] + pd.Timedelta(hours=5)
    frame["alert_id"] = [f"a{i:04d}" for i in range(len(frame))]
    return frame.sort_values("raised_at", ignore_index=True)


def featured(frame: pd.DataFrame) -> pd.DataFrame:
    made = history_features(frame, frame, history_features_for(SETTINGS), SETTINGS.lookback)
    return pd.concat([frame, made], axis=1)


def test_an_echo_finds_the_rule_that_comes_every_day_at_the_same_hour() -> None:
    frame = featured(daily_rule())
    plan = plan_columns(frame, SETTINGS)
    echo = plan.matrix(frame)[:, plan.names.index("rule_echo_1d")]
    later = frame["raised_at"] > frame["raised_at"].min() + timedelta(days=8)
    assert np.median(echo[later & (frame["rule"] == "daily")]) > 1
    assert np.median(echo[later & (frame["rule"] == "any")]) < 0.2
    # Counted by hand: alerts of the rule within half an hour of the moment one day before.
    row = int(np.flatnonzero(later)[17])
    moment = frame["raised_at"].iloc[row] - timedelta(days=1)
    near = frame[
        (frame["rule"] == frame["rule"].iloc[row]) & ((frame["raised_at"] - moment).abs() <= timedelta(minutes=30))
    ]
    outer, inner = (frame[f"rule_raised_count_{w}"].iloc[row] for w in ("1470min", "1410min"))
    assert outer - inner == len(near)


def test_the_windows_of_an_echo_are_no_columns_of_their_own() -> None:
    plan = plan_columns(featured(daily_rule()), SETTINGS)
    assert not [n for n in plan.names if "min" in n]
    assert {c.source for c in plan.columns} >= set(SIGNAL_SOURCES)
    assert ColumnPlan.from_document(plan.to_document()) == plan
    assert {s.name for s in signals_for(SETTINGS)} <= set(plan.names)


def test_every_signal_belongs_to_what_a_reason_can_tell() -> None:
    plan = plan_columns(featured(daily_rule()), SETTINGS)
    subjects = subjects_of(plan, SETTINGS)
    told = {plan.columns[position].source: subjects[position][0] for position in plan.positions(SIGNAL_SOURCES)}
    assert told == {
        **dict.fromkeys(("burst", "gap", "rate_change", "echo"), "volume"),
        **dict.fromkeys(("share_change", "trend"), "history"),
    }


def test_whether_signals_pay_is_decided_in_the_past_and_the_evidence_is_kept() -> None:
    rng = np.random.default_rng(11)
    n = 6_000
    # Somebody acts when a rule has been silent for longer than is its habit.
    rules = rng.integers(0, 12, n)
    raised = np.sort(rng.uniform(0, 200 * 86_400, n))
    frame = pd.DataFrame(
        {"raised_at": pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(raised, unit="s").round("us")}
    )
    frame["rule"], frame["entity"], frame["team"] = [f"r{r}" for r in rules], "one", "core"
    gap = frame.groupby("rule")["raised_at"].diff().dt.total_seconds().fillna(0)
    pace = gap.groupby(frame["rule"]).transform("median")
    frame["acted"] = (rng.uniform(size=n) < np.where(gap > 1.5 * pace, 0.8, 0.1)).astype(float)
    frame["known_at"] = frame["raised_at"] + pd.Timedelta(hours=2)
    frame["alert_id"] = [f"a{i:05d}" for i in range(n)]
    cut = (frame["raised_at"].max() + timedelta(days=15)).to_pydatetime()
    learned = learn(featured(frame), cut, LearningSettings(features=SETTINGS, threads=1))
    raced = learned.model.evidence["candidates"]
    names = {c.name for c in CANDIDATES if c.signals}
    (signals,) = names & set(raced)
    gain = raced[signals]["gain"]
    assert gain["low"] <= gain["nats"] <= gain["high"]
    assert gain["alerts"] > 100
    # Whatever is in the blend has earned its place, and whatever was left out has not.
    assert (raced[signals]["role"] == "in the blend") <= (gain["nats"] > 0)
    assert (raced[signals]["role"].startswith("left the race")) <= (gain["nats"] <= 0)
