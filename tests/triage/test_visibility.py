"""Visibility-only rules: declared, inferred, released at the first action, and overruled."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.flags.floods import detect_floods
from dagster_project.triage.flags.visibility import (
    VISIBILITY_COLUMNS,
    VisibilitySettings,
    declare_visibility_only,
    upper_bound,
)
from tests.triage.worlds_of_flags import START, company, same

LATE = START + pd.Timedelta(days=400)


def at_day(number: float) -> pd.Timestamp:
    return START + pd.Timedelta(days=number)


def answers(outcomes: list[float], per_day: float = 4.0, rule: str = "quiet", begin: float = 0.0) -> pd.DataFrame:
    """Alerts of one rule, evenly spaced, each answered after a day."""
    raised = START + pd.to_timedelta(begin + np.arange(len(outcomes)) / per_day, unit="D").as_unit("us")
    return pd.DataFrame(
        {
            "alert_id": [f"{rule} {n}" for n in range(len(outcomes))],
            "raised_at": raised,
            "rule": rule,
            "acted": outcomes,
            "known_at": raised + pd.Timedelta(days=1),
            "horizon_ends_at": raised + pd.Timedelta(days=14),
        }
    )


def rules(**given) -> pd.DataFrame:
    return pd.DataFrame([{"rule": "quiet", "declared_visibility_only": True, "created_at": at_day(10)} | given])


def override(**given) -> pd.DataFrame:
    row = {
        "flag": "visibility_only",
        "rule": "quiet",
        "day": None,
        "action": "clear",
        "until": None,
        "who": "Ana",
        "why": "we do act on it, in another tool",
        "created_at": at_day(60),
    }
    return pd.DataFrame([row | given])


def test_the_bound_is_the_rule_of_three_and_the_exact_binomial():
    assert upper_bound(0, 299, 0.95) == pytest.approx(3 / 300, rel=0.01)
    assert upper_bound(0, 147, 0.95) > 0.02 > upper_bound(0, 148, 0.95)


def test_a_rule_nobody_acts_on_is_inferred_when_the_bound_allows():
    history = answers([0.0] * 200)
    found = declare_visibility_only(history, None, LATE)
    assert found[["rule", "status", "decided_by", "alerts_decided"]].values.tolist() == [
        ["quiet", "inferred", "statistics", 148]
    ]
    assert found["upper_bound"].iloc[0] < 0.02
    assert found["detected_at"].iloc[0] == history["known_at"].iloc[147]
    assert len(declare_visibility_only(history.iloc[:147], None, LATE)) == 0
    flags = flag_alerts(history, None, found)
    assert flags["visibility_only"].all()
    assert flags["excluded_from"].isna().all()


def test_a_bad_week_is_no_design():
    assert len(declare_visibility_only(answers([0.0] * 400, per_day=60), None, LATE)) == 0


def test_the_first_action_releases_it_and_the_history_stays():
    history = answers([0.0] * 200 + [1.0] + [0.0] * 600)
    found = declare_visibility_only(history, None, LATE)
    assert found["status"].to_list() == ["released", "inferred"]
    assert found["released_at"].iloc[0] == history["known_at"].iloc[200]
    # It takes a good quiet spell again, though the record before the action counts too.
    again = found["detected_at"].iloc[1]
    assert history["known_at"].iloc[201 + 50] < again <= history["known_at"].iloc[201 + 148]
    between = declare_visibility_only(history, None, history["known_at"].iloc[200])
    assert between["status"].to_list() == ["released"]
    assert not flag_alerts(history, None, between)["visibility_only"].any()


def test_a_rule_that_stopped_to_be_acted_on_is_inferred_in_spite_of_its_record():
    history = answers([float(n % 4 == 0) for n in range(401)] + [0.0] * 160)
    found = declare_visibility_only(history, None, LATE)
    assert found["status"].to_list() == ["inferred"]
    assert found["alerts_decided"].iloc[0] == 148


def test_rules_that_are_acted_on_rarely_are_seldom_taken_for_visibility_only():
    random = np.random.default_rng(1)
    rates = {f"rule {n}": (0.03, 0.05, 0.1)[n % 3] for n in range(300)}
    history = pd.concat(
        answers((random.random(800) < rate).astype(float).tolist(), per_day=8, rule=rule)
        for rule, rate in rates.items()
    )
    found = declare_visibility_only(history, None, LATE)
    assert (found["status"] == "inferred").sum() / len(rates) <= 0.01
    assert found["rule"].nunique() / len(rates) <= 0.02


def test_a_declared_rule_counts_at_once_and_until_an_action():
    history = answers([0.0] * 80 + [1.0] + [0.0] * 20)
    at_once = declare_visibility_only(history, rules(), at_day(10))
    assert at_once[["status", "decided_by"]].values.tolist() == [["declared", "declaration"]]
    released = declare_visibility_only(history, rules(), LATE)
    assert released["status"].to_list() == ["released"]
    assert released["released_at"].iloc[0] == history["known_at"].iloc[80]
    assert len(declare_visibility_only(history, rules(), at_day(9))) == 0
    undated = declare_visibility_only(history, rules(created_at=None), at_day(1))
    assert undated["status"].to_list() == ["declared"]


@pytest.mark.parametrize(("word", "declared"), [("yes", 1), ("TRUE", 1), ("0", 0), ("", 0), (None, 0), (True, 1)])
def test_a_declaration_may_be_text(word, declared):
    found = declare_visibility_only(answers([0.0]), rules(declared_visibility_only=word), LATE)
    assert len(found) == declared
    assert found.attrs["warnings"] == []


def test_a_declaration_that_cannot_be_read_is_named():
    found = declare_visibility_only(answers([0.0]), rules(declared_visibility_only="perhaps"), LATE)
    assert len(found) == 0
    assert "perhaps" in found.attrs["warnings"][0]


def test_alerts_of_floods_do_not_count():
    history = company(1, rules=4, mean=1.5, floods=((60, 2, 60.0),)).assign(acted=0.0)
    floods = detect_floods(history, at_day(90))
    without = declare_visibility_only(history, None, at_day(90), floods=floods).set_index("rule")
    taken = declare_visibility_only(history, None, at_day(90)).set_index("rule")
    assert (history["kind"] == "flood").sum() > 60
    assert taken.loc["rule 2", "detected_at"] < without.reindex(["rule 2"])["detected_at"].fillna(LATE).iloc[0]


def test_a_person_clears_a_rule_until_a_date():
    history = answers([0.0] * 400)
    found = declare_visibility_only(history, None, at_day(100), overrides=override(until=at_day(80)))
    assert found["status"].to_list() == ["released", "inferred"]
    assert found["released_at"].iloc[0] == at_day(60)
    assert "Ana" in found["release"].iloc[0]
    assert found["detected_at"].iloc[1] == at_day(80)
    during = declare_visibility_only(history, None, at_day(70), overrides=override(until=at_day(80)))
    assert during["status"].to_list() == ["released"]


def test_a_person_flags_a_rule_over_its_actions():
    history = answers([1.0] * 300)
    flag = override(action="flag", until=at_day(70))
    found = declare_visibility_only(history, None, at_day(65), overrides=flag)
    assert found[["status", "basis", "decided_by"]].values.tolist() == [["declared", "override", "Ana"]]
    assert declare_visibility_only(history, None, at_day(75), overrides=flag)["status"].to_list() == ["released"]
    both = pd.concat([flag, override(created_at=at_day(64), who="Ben")])
    assert declare_visibility_only(history, None, at_day(66), overrides=both)["status"].to_list() == ["released"]


def test_two_overrides_at_one_time_are_one_episode():
    history = answers([1.0] * 300)
    short, long = override(action="flag", until=at_day(70)), override(action="flag", who="Ben")
    for both in (pd.concat([short, long]), pd.concat([long, short]), pd.concat([short, short])):
        episodes = declare_visibility_only(history, None, at_day(90), overrides=both)
        # What holds longest counts, as it would if only one of them were there.
        assert episodes["status"].to_list() == ["released" if both["until"].notna().all() else "declared"]
        assert len(episodes) == 1


def test_interrupted_overrides_go_on_as_one_episode():
    history = answers([1.0] * 300)
    overrides = pd.concat(
        [
            override(action="flag", created_at=at_day(40)),
            override(action="flag", created_at=at_day(45), until=at_day(70)),
            override(created_at=at_day(50), until=at_day(60)),
        ]
    )
    episodes = declare_visibility_only(history, None, at_day(90), overrides=overrides)
    assert not episodes.duplicated(["rule", "detected_at", "basis"]).any()
    assert episodes[episodes["detected_at"] == at_day(60)]["status"].to_list() == ["declared"]


def test_an_override_for_an_unknown_rule_is_named_and_harms_nothing():
    history = answers([0.0] * 200)
    plain = declare_visibility_only(history, None, LATE)
    found = declare_visibility_only(history, None, LATE, overrides=override(rule="no such rule"))
    same(plain, found)
    assert "no such rule" in found.attrs["warnings"][0]


@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 10_000),
    early=st.floats(1, 120),
    late=st.floats(0, 60),
    rate=st.sampled_from([0.0, 0.004, 0.02]),
    quiet=st.integers(50, 400),
)
def test_one_pass_holds_every_past_view(seed, early, late, rate, quiet):
    random = np.random.default_rng(seed)
    history = pd.concat(
        [
            answers((random.random(500) < rate).astype(float).tolist(), rule="quiet", per_day=5),
            answers([1.0] * 20 + [0.0] * quiet + [1.0] + [0.0] * quiet, rule="other", per_day=9),
            company(seed, days=60, rules=2, mean=4, acted=rate, floods=((40, 1, 20.0),)),
        ]
    )
    declared = pd.concat([rules(), rules(rule="other", created_at=at_day(90)), rules(rule="never raised")])
    overrides = pd.concat(
        [
            override(until=at_day(70)),
            override(rule="other", action="flag", created_at=at_day(75), until=at_day(85)),
            override(rule="other", created_at=at_day(80.5), until=at_day(83)),
        ]
    )
    then, now = at_day(early), at_day(early + late)
    floods = detect_floods(history, now)
    past = declare_visibility_only(history, declared, then, overrides=overrides, floods=known_by(floods, then))
    today = declare_visibility_only(history, declared, now, overrides=overrides, floods=floods)
    same(past, known_by(today, then))


def test_empty_and_unanswered_histories():
    nothing = declare_visibility_only(answers([]), None, LATE)
    assert list(nothing.columns) == VISIBILITY_COLUMNS
    assert len(nothing) == 0
    same(nothing, known_by(nothing, LATE))
    unanswered = answers([np.nan] * 300)
    unanswered["known_at"] = pd.Series(pd.NaT, index=unanswered.index, dtype="datetime64[us, UTC]")
    # Nobody answered by the end of the horizon: that counts as not acted on.
    found = declare_visibility_only(unanswered, None, LATE)
    assert found["detected_at"].iloc[0] == unanswered["horizon_ends_at"].iloc[147]
    assert len(declare_visibility_only(unanswered, None, at_day(20))) == 0
    strict = VisibilitySettings(minimum_decided=300)
    assert len(declare_visibility_only(unanswered.iloc[:299], None, LATE, strict)) == 0
