"""Exclusion: which alerts a flag leaves out, and when."""

from __future__ import annotations

import pandas as pd
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.flags.floods import detect_floods
from dagster_project.triage.flags.visibility import declare_visibility_only
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
