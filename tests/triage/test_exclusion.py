"""Exclusion: which alerts a flag leaves out, and when."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.flags.exclusion import flag_alerts, known_by, out_of_learning
from dagster_project.triage.flags.floods import detect_floods
from dagster_project.triage.flags.visibility import declare_visibility_only
from dagster_project.triage.pipeline import at_most_of_a_burst, training_frame
from tests.triage.worlds_of_flags import START, company

LATE = START + pd.Timedelta(days=200)
COLUMNS = ["flood", "visibility_only", "excluded_from", "excluded_until", "flag_reason"]


def at_day(number: float) -> pd.Timestamp:
    return START + pd.Timedelta(days=number)


def test_without_flags_nothing_is_excluded():
    alerts = company(1, days=20)[["raised_at", "rule"]]
    for floods in (None, detect_floods(company(1, days=20), LATE)):
        flags = flag_alerts(alerts, floods, None)
        assert list(flags.columns) == COLUMNS
        assert not flags["flood"].any()
        assert flags["excluded_from"].isna().all()
        assert flags["flag_reason"].isna().all()
    assert len(flag_alerts(alerts.iloc[:0], None, None, "at_raise")) == 0


def test_the_index_of_the_alerts_is_kept():
    history = company(2, floods=((60, 4, 8.0),)).set_index("alert_id")
    flags = flag_alerts(history, detect_floods(history, LATE), None)
    assert (flags.index == history.index).all()


def test_an_incident_is_left_out_of_histories_only_until_it_is_cleared():
    history = company(3, incidents=((60, 4, 8.0),))
    floods = detect_floods(history, LATE)
    flags = flag_alerts(history, floods, None)
    held = flags["excluded_from"].notna()
    assert held.any()
    assert not flags["flood"].any()
    detected, decided = floods["detected_at"].iloc[0], floods["decided_at"].iloc[0]
    before = held & (history["raised_at"] < detected)
    assert (flags["excluded_from"][before] == detected).all()
    assert (flags["excluded_from"][held & ~before] == history["raised_at"][held & ~before]).all()
    assert (flags["excluded_until"][held] <= decided).all()
    assert flags["excluded_until"][held].max() == decided


def test_at_raise_is_what_production_would_have_shown():
    history = company(4, floods=((60, 4, 9.0),), incidents=((70, 2, 9.0),))
    floods = detect_floods(history, LATE)
    shown = flag_alerts(history, floods, None, "at_raise")
    # Checked the slow way, on the alerts of the two days.
    near = history[history["rule"].isin(["rule 4", "rule 2"]) & history["raised_at"].between(at_day(59.8), at_day(71))]
    for index, alert in near.sample(20, random_state=1).iterrows():
        then = detect_floods(history, alert["raised_at"])
        slow = flag_alerts(history.loc[[index]], then, None)
        assert slow["flood"].iloc[0] == shown.loc[index, "flood"]


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 1000), day=st.floats(45, 90))
def test_flags_at_a_moment_are_those_of_a_run_at_that_moment(seed, day):
    history = company(seed, days=90, acted=0.02, mean=6, floods=((50, 1, 9.0), (50, 4, 5.0)), incidents=((70, 2, 9.0),))
    then = at_day(day)
    past_floods = detect_floods(history, then)
    past_rules = declare_visibility_only(history, None, then, floods=past_floods)
    floods = detect_floods(history, LATE)
    visibility = declare_visibility_only(history, None, LATE, floods=floods)
    alerts = history[history["raised_at"] < then]
    expected = flag_alerts(alerts, past_floods, past_rules)
    got = flag_alerts(alerts, floods, visibility, then)
    pd.testing.assert_frame_equal(expected, got)
    # Histories: left out at a moment is what `excluded_from` and `excluded_until` of the last view say.
    last = flag_alerts(alerts, floods, visibility)
    out = (last["excluded_from"] <= then) & ~(last["excluded_until"] <= then)
    assert (out == got["flood"]).all()


def test_a_visibility_only_rule_is_flagged_with_its_reason():
    history = company(5, rules=3, mean=5, acted=0.0)
    found = declare_visibility_only(history, None, LATE)
    flags = flag_alerts(history, None, found)
    assert flags["visibility_only"].all()
    assert flags["flag_reason"].str.contains("visibility-only: none of its last 148").all()
    shown = flag_alerts(history, None, found, "at_raise")["visibility_only"]
    since = found.set_index("rule")["detected_at"]
    assert (shown == (history["raised_at"] >= history["rule"].map(since))).all()
    assert len(known_by(found, since.min() - pd.Timedelta(seconds=1))) == 0


@settings(max_examples=10, phases=[Phase.explicit, Phase.generate])
@given(seed=st.integers(0, 1000), day=st.floats(60, 90), other=st.integers(0, 1000))
def test_what_learning_goes_without_does_not_depend_on_outcomes_known_after_the_raise(seed, day, other):
    history = company(seed, days=90, acted=0.1, mean=6, floods=((60, 1, 9.0), (75, 4, 5.0)), incidents=((70, 2, 9.0),))
    then = at_day(day)
    unknown = history["known_at"] > then
    guess = np.random.default_rng(other).random(len(history)) < 0.5
    changed = history.assign(acted=history["acted"].where(~unknown, guess.astype(float)))
    alerts = history[history["raised_at"] <= then]
    excluded = []
    for outcomes in (history, changed):
        floods = detect_floods(outcomes, LATE)
        visibility = declare_visibility_only(outcomes, None, LATE, floods=floods)
        excluded.append(out_of_learning(alerts, floods, visibility, LATE))
    pd.testing.assert_frame_equal(*excluded)
    assert excluded[0]["excluded_since"].isna().all()


def test_a_bug_day_is_learned_from_only_as_far_as_it_was_scored_without_a_flag():
    history = company(4, floods=((60, 4, 9.0),))
    floods = detect_floods(history, LATE)
    assert floods["status"].tolist() == ["confirmed"]
    out = out_of_learning(history, floods, declare_visibility_only(history, None, LATE), LATE)["excluded"]
    confirmed = flag_alerts(history, floods, None)["flood"]
    before = confirmed & (history["raised_at"] < floods["detected_at"].iloc[0])
    assert before.sum() > 5
    assert not out[before].any()
    assert out[confirmed & ~before].all()


def test_histories_go_without_a_whole_bug_day_and_keep_a_cleared_incident():
    parts = {"floods": ((60, 4, 25.0),), "incidents": ((62, 2, 25.0),)}
    unknown = dict.fromkeys(("entity", "severity", "value", "threshold", "title"))
    history = company(6, acted=0.4, **parts).assign(**unknown)
    floods = detect_floods(history, LATE)
    none = declare_visibility_only(history, None, LATE)
    assert dict(zip(floods["scope"], floods["status"], strict=True)) == {"rule 4": "confirmed", "rule 2": "cleared"}

    def acted_share(alerts: pd.DataFrame, flags: pd.DataFrame, rule: str) -> float:
        features = build_features(alerts, flags, none, at_day(78), at_day(90), FeatureSettings())
        return float(features.loc[features["rule"] == rule, "rule_decayed_acted_rate_hl7d"].mean())

    without_bug = history[history["kind"] != "flood"]
    truth = acted_share(without_bug, floods.iloc[:0], "rule 4")
    assert abs(acted_share(history, floods, "rule 4") - truth) < 0.05
    assert acted_share(history, floods.iloc[:0], "rule 4") < truth - 0.1
    assert acted_share(history, floods, "rule 2") == acted_share(history, floods.iloc[:0], "rule 2")


def test_natural_bursts_do_not_shift_what_is_learned():
    """Fan-outs of one cause: all of a burst are acted on, or none. Scores are right for the alerts without a flag."""
    random = np.random.default_rng(8)
    bursts = [(int(d), int(random.integers(12)), float(random.uniform(4, 9))) for d in range(40, 180)]
    acted = random.random(len(bursts)) < 0.3
    history = company(
        8,
        days=180,
        acted=0.3,
        floods=tuple(b for b, yes in zip(bursts, acted, strict=True) if not yes),
        incidents=tuple(b for b, yes in zip(bursts, acted, strict=True) if yes),
    )
    floods = detect_floods(history, LATE)
    rules = declare_visibility_only(history, None, LATE, floods=floods)
    facts = history.drop(columns=["acted", "known_at"])
    frame = training_frame(facts, history, floods, rules, cut=LATE.to_pydatetime(), training_days=365)
    scored = ~flag_alerts(frame, floods, rules, "at_raise")[["flood", "visibility_only"]].any(axis=1)
    share = frame["acted"][scored].mean()
    assert abs(frame["acted"][~frame["excluded"]].mean() - share) < 0.005
    in_hindsight = flag_alerts(frame, known_by(floods, LATE), rules, LATE)["flood"]
    assert frame["acted"][~in_hindsight].mean() > share + 0.02


def test_a_day_that_a_person_marks_leaves_learning_as_a_whole_from_then_on():
    history = company(9)
    marked_at = at_day(70)
    mark = pd.DataFrame(
        [{"flag": "flood", "action": "flag", "scope": "rule 3", "day": "2024-02-20", "who": "Ada", "why": "a test",
          "created_at": marked_at.isoformat()}]
    )  # fmt: skip
    floods = detect_floods(history, LATE, overrides=mark)
    none = declare_visibility_only(history, None, LATE)
    on_day = (history["rule"] == "rule 3") & (history["raised_at"].dt.strftime("%Y-%m-%d") == "2024-02-20")
    out = out_of_learning(history, floods, none, LATE)
    assert on_day.sum() > 0
    assert (out["excluded"] == on_day).all()
    assert (out["excluded_since"][on_day] == marked_at).all()
    assert not out_of_learning(history, floods, none, marked_at - pd.Timedelta(hours=1))["excluded"].any()


def test_of_a_huge_burst_a_part_is_learned_from_whatever_came_of_it():
    history = company(10, floods=((60, 4, 100.0),), incidents=((61, 2, 100.0),)).sort_values("raised_at")
    floods, none = detect_floods(history, LATE).iloc[:0], declare_visibility_only(history, None, LATE)
    for day, rule in ((60, "rule 4"), (61, "rule 2")):
        alerts = history[history["raised_at"].between(at_day(day), at_day(day + 1))].reset_index(drop=True)
        needed = at_most_of_a_burst(alerts, floods, none, LATE.to_pydatetime(), 50)
        burst = (alerts["rule"] == rule).to_numpy()
        assert burst.sum() > 500
        assert 25 < needed[burst].sum() <= 50
        assert needed[~burst].all()
        assert abs(alerts["acted"][burst & needed].mean() - alerts["acted"][burst].mean()) < 0.15
