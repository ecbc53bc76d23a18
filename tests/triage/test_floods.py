"""Floods: what is found, what is cleared, what stays silent, what people say, and that time is honest."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.flags.floods import FLOOD_COLUMNS, FloodSettings, detect_floods
from dagster_project.triage.flags.floods.sources import codes_of_column, codes_of_text, has_source
from tests.triage.worlds_of_flags import START, company, same

LATE = START + pd.Timedelta(days=200)
MEASURED_IN_THE_DAY = ["volume", "score"]


def day_of(number: int):
    return (START + pd.Timedelta(days=number)).date()


def at_day(number: float) -> pd.Timestamp:
    return START + pd.Timedelta(days=number)


def test_a_flood_is_suspected_on_its_day_and_confirmed_when_its_outcomes_are_known():
    history = company(1, floods=((60, 4, 8.0),))
    on_the_day = detect_floods(history, at_day(61))
    assert on_the_day[["day", "scope", "status"]].values.tolist() == [[day_of(60), "rule 4", "suspected"]]
    assert on_the_day["decided_at"].isna().all()
    assert at_day(60) < on_the_day["detected_at"].iloc[0] < at_day(61)
    later = detect_floods(history, LATE)
    assert later["status"].to_list() == ["confirmed"]
    assert later["decided_by"].to_list() == ["statistics"]
    assert later["acted_share"].iloc[0] < 0.2
    assert at_day(61) <= later["decided_at"].iloc[0] <= at_day(76)
    assert "rule" in later["evidence"].iloc[0]
    assert "a bug" in later["decision"].iloc[0]


def test_a_busy_day_that_is_acted_on_is_cleared():
    history = company(2, incidents=((60, 4, 8.0),))
    found = detect_floods(history, LATE)
    assert found["status"].to_list() == ["cleared"]
    # Actions come fast: it does not wait for the horizon.
    assert found["decided_at"].iloc[0] < at_day(64)
    assert not flag_alerts(history, found, None)["flood"].any()


GENUINE = tuple((day, day % 5, 10.0) for day in range(30, 60, 5))


def test_where_people_act_on_bursts_none_is_suspected_and_a_bug_is_still_confirmed():
    history = company(5, days=110, rules=9, incidents=GENUINE, floods=((80, 7, 10.0),))
    on_its_day = detect_floods(history, at_day(81))
    assert "suspected" not in set(on_its_day["status"])
    assert 0 < len(on_its_day) < len(GENUINE), "the first bursts are suspected, the later ones are not"
    later = detect_floods(history, LATE)
    confirmed = later[later["status"] == "confirmed"]
    assert confirmed[["day", "scope"]].values.tolist() == [[day_of(80), "rule 7"]]
    assert "people act on many bursts here" in confirmed["evidence"].iloc[0]
    assert (confirmed["detected_at"] == confirmed["decided_at"]).all(), "flagged from the verdict on, not before"


def test_bugs_keep_bursts_suspicious():
    bugs = tuple((day, day % 5, 10.0) for day in range(30, 75, 5))
    history = company(6, days=110, rules=9, floods=bugs, incidents=((76, 8, 10.0),))
    for number, _, _ in bugs:
        assert "suspected" in set(detect_floods(history, at_day(number + 1))["status"]), number


def test_genuine_alerts_of_other_rules_stay_on_a_flood_day():
    history = company(3, floods=((60, 4, 10.0), (60, 5, 10.0)), incidents=((60, 7, 8.0),))
    flags = flag_alerts(history, detect_floods(history, LATE), None)
    flagged = history[flags["flood"]]
    assert set(flagged["rule"]) == {"rule 4", "rule 5"}
    assert flags["flood"][history["kind"] == "flood"].all()
    assert not flags["flood"][history["kind"] == "incident"].any()


def test_consecutive_flood_days_do_not_become_the_usual():
    history = company(4, mean=20, floods=tuple((day, 4, 6.0) for day in range(60, 67)))
    found = detect_floods(history, LATE)
    assert found["day"].to_list() == [day_of(day) for day in range(60, 67)]
    assert set(found["status"]) == {"confirmed"}
    assert found["expected"].max() < 2 * found["expected"].min() + 5


def test_a_lasting_new_level_ends_as_the_new_normal():
    history = company(5, days=120, mean=20, floods=tuple((day, 4, 6.0) for day in range(60, 120)))
    found = detect_floods(history, LATE)
    assert day_of(60) in set(found["day"])
    assert max(found["day"]) < day_of(80)


@pytest.mark.parametrize("kind", ["team", "source"])
def test_a_flood_of_many_rare_rules_is_found_by_what_they_share(kind):
    random = np.random.default_rng(6)
    usual = company(6, rules=6)
    number = 300
    sweep = pd.DataFrame(
        {
            "raised_at": at_day(60) + pd.to_timedelta(random.integers(0, 86_400, number), unit="s"),
            "rule": [f"rare {i}" for i in range(number)],
            "team": "team 1" if kind == "team" else None,
            "attributes": '{"site": "new scanner"}' if kind == "source" else None,
            "acted": 0.0,
            "kind": "flood",
        }
    )
    if kind == "source":
        usual.loc[usual["rule"] == "rule 3", "attributes"] = '{"site": "new scanner"}'
    sweep["raised_at"] = sweep["raised_at"].dt.as_unit("us")
    sweep["known_at"] = sweep["horizon_ends_at"] = sweep["raised_at"] + pd.Timedelta(days=14)
    sweep["alert_id"] = [f"s{i}" for i in range(number)]
    history = pd.concat([usual, sweep], ignore_index=True)
    found = detect_floods(history, LATE)
    assert kind in set(found["scope_kind"])
    assert set(found["status"]) == {"confirmed"}
    flood = flag_alerts(history, found, None)["flood"]
    truth = history["kind"] == "flood"
    assert flood[truth].mean() > 0.98
    assert flood[~truth & (history["raised_at"].dt.date == day_of(60))].mean() < 0.2


def test_companies_without_floods_get_no_flag():
    flagged = 0
    for seed in range(40):
        history = company(
            100 + seed,
            days=100,
            mean=[0.5, 3.0, 12.0][seed % 3],
            acted=[0.05, 0.3, 0.6, 0.0][seed % 4],
            growth=[1.0, 3.0, 0.3][seed % 3],
            gap=(40, 61) if seed % 5 == 0 else None,
        )
        flagged += len(detect_floods(history, LATE)) > 0
    assert flagged == 0


def test_a_gap_of_weeks_is_no_evidence_of_low_volume():
    history = company(7, days=120, gap=(50, 75), floods=((90, 2, 8.0),))
    found = detect_floods(history, LATE)
    assert found["day"].to_list() == [day_of(90)]


# ------------------------------------------------------------------------------------------------ time is honest


@settings(max_examples=15, phases=[Phase.explicit, Phase.generate])
@given(
    seed=st.integers(0, 10_000),
    early=st.floats(1, 80),
    late=st.floats(0, 40),
    mean=st.sampled_from([1.0, 5.0]),
    acted=st.sampled_from([0.1, 0.5]),
)
def test_one_pass_holds_every_past_view(seed, early, late, mean, acted):
    history = company(
        seed,
        days=80,
        rules=9,
        mean=mean,
        acted=acted,
        floods=((30, 1, 9.0), (31, 1, 9.0), (50, 2, 20.0), (50, 5, 9.0), (50, 8, 4.0)),
        incidents=((20, 3, 9.0), (24, 4, 9.0), (28, 0, 9.0), (40, 3, 9.0), (50, 0, 15.0), (51, 6, 5.0)),
    )
    overrides = pd.DataFrame(
        [
            {"flag": "flood", "scope": "rule 2", "day": day_of(50), "action": "clear", "created_at": at_day(53.3)},
            {"flag": "flood", "scope": "rule 3", "day": day_of(40), "action": "flag", "created_at": at_day(40.6)},
            {"flag": "flood", "scope": "team 0", "day": None, "action": "flag", "created_at": at_day(60.2)},
            {"flag": "flood", "scope": "team 0", "day": day_of(61), "action": "clear", "created_at": at_day(63)},
        ]
    ).assign(until=at_day(62), who="Ana", why="she knows")
    then, now = at_day(early), at_day(early + late)
    past = detect_floods(history, then, overrides=overrides)
    seen = known_by(detect_floods(history, now, overrides=overrides), then)
    same(past.drop(columns=MEASURED_IN_THE_DAY), seen.drop(columns=MEASURED_IN_THE_DAY))
    over = past["day"] < then.date()
    same(past[over].reset_index(drop=True), seen[over].reset_index(drop=True))


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), cut=st.floats(20, 80))
def test_the_future_does_not_matter(seed, cut):
    history = company(seed, days=80, rules=5, floods=((40, 1, 9.0),), incidents=((60, 3, 9.0),))
    then = at_day(cut)
    other = history[history["raised_at"] < then].copy()
    unknown = other["known_at"] > then
    other.loc[unknown, "acted"] = np.nan
    other["known_at"] = other["known_at"].where(~unknown)
    same(detect_floods(history, then), detect_floods(other, then))


def test_the_order_of_rows_does_not_matter():
    history = company(8, floods=((60, 4, 8.0), (60, 1, 8.0)), incidents=((70, 5, 9.0),))
    same(
        detect_floods(history, LATE),
        detect_floods(history.sample(frac=1, random_state=3).set_index("alert_id", drop=False), LATE),
    )


# ------------------------------------------------------------------------------------------------ people overrule


def override(**given) -> pd.DataFrame:
    row = {
        "flag": "flood",
        "scope": "rule 4",
        "day": day_of(60),
        "action": "clear",
        "until": None,
        "who": "Ana",
        "why": "a campaign start",
        "created_at": at_day(62),
    }
    return pd.DataFrame([row | given])


def test_a_person_clears_a_flood():
    history = company(9, floods=((60, 4, 8.0),))
    found = detect_floods(history, LATE, overrides=override())
    assert found["status"].to_list() == ["suspected", "cleared"]
    assert found["superseded_at"].iloc[0] == found["decided_at"].iloc[1] == at_day(62)
    assert found["decided_by"].to_list() == [None, "Ana"]
    assert "a campaign start" in found["decision"].iloc[1]
    assert flag_alerts(history, found, None, at_day(61))["flood"].any()
    assert not flag_alerts(history, found, None, at_day(62))["flood"].any()


def test_a_person_flags_a_quiet_day_and_it_stands_from_then_on():
    history = company(10)
    found = detect_floods(history, LATE, overrides=override(action="flag"))
    assert found["status"].to_list() == ["confirmed"]
    assert found["decided_by"].to_list() == ["Ana"]
    flags = flag_alerts(history, found, None)
    on_day = (history["rule"] == "rule 4") & (history["raised_at"].dt.date == day_of(60))
    assert (flags["flood"] == on_day).all()
    assert (flags["excluded_from"][on_day] == at_day(62)).all()
    assert not flag_alerts(history, found, None, at_day(61.9))["flood"].any()


def test_the_later_of_two_overrides_wins():
    history = company(11, floods=((60, 4, 8.0),))
    both = pd.concat([override(), override(action="flag", who="Ben", created_at=at_day(64))])
    found = detect_floods(history, LATE, overrides=both)
    assert found[found["superseded_at"].isna()][["status", "decided_by"]].values.tolist() == [["confirmed", "Ben"]]


def test_a_rule_that_a_person_clears_leaves_the_flood_of_its_team():
    history = company(12)
    team_flood = detect_floods(history, LATE, overrides=override(scope="team 1", action="flag", created_at=at_day(61)))
    assert "rule 4" in team_flood["rules"].iloc[0]
    both = pd.concat([override(scope="team 1", action="flag", created_at=at_day(61)), override()])
    found = detect_floods(history, LATE, overrides=both)
    flagged = set(history["rule"][flag_alerts(history, found, None)["flood"]])
    assert flagged == {"rule 1", "rule 7", "rule 10"}


@pytest.mark.parametrize(
    "bad",
    [
        {"scope": "no such rule"},
        {"scope": None},
        {"action": "delete"},
        {"flag": "flod"},
        {"created_at": "yesterday evening"},
    ],
)
def test_an_override_that_matches_nothing_is_named_and_harms_nothing(bad):
    history = company(13, floods=((60, 4, 8.0),))
    plain = detect_floods(history, LATE)
    found = detect_floods(history, LATE, overrides=override(**bad))
    same(plain, found)
    assert len(found.attrs["warnings"]) == 1
    assert "override 1" in found.attrs["warnings"][0]


# ------------------------------------------------------------------------------------------------ bad input


def test_an_empty_history_has_no_floods():
    found = detect_floods(company(14, days=1).iloc[:0], LATE)
    assert list(found.columns) == FLOOD_COLUMNS
    assert len(found) == 0
    same(found, known_by(found, LATE))


def test_a_single_day_has_no_past_to_be_unusual_against():
    assert len(detect_floods(company(15, days=1, mean=300), LATE)) == 0


def test_a_single_rule_is_enough():
    history = company(16, rules=1, floods=((60, 0, 8.0),))
    assert detect_floods(history, LATE)["day"].to_list() == [day_of(60)]


def test_without_teams_attributes_and_horizon_it_still_works():
    history = company(17, floods=((60, 4, 8.0),))[["alert_id", "raised_at", "rule", "acted", "known_at"]]
    assert detect_floods(history, LATE)["status"].to_list() == ["confirmed"]


def test_unanswered_alerts_are_suspected_until_the_horizon_ends_and_then_not_acted_on():
    history = company(18, floods=((60, 4, 8.0),)).assign(acted=np.nan, known_at=pd.NaT)
    history["known_at"] = pd.to_datetime(history["known_at"], utc=True)
    assert detect_floods(history, at_day(74))["status"].to_list() == ["suspected"]
    assert detect_floods(history, at_day(76))["status"].to_list() == ["confirmed"]
    short = detect_floods(history.drop(columns="horizon_ends_at"), at_day(66), FloodSettings(horizon_days=3))
    assert short["status"].to_list() == ["confirmed"]


def test_future_dated_alerts_are_not_used():
    history = company(19, floods=((60, 4, 8.0),))
    future = history.iloc[:50].assign(raised_at=START + pd.Timedelta(days=5000))
    same(detect_floods(history, LATE), detect_floods(pd.concat([history, future]), LATE))


def test_null_rules_broken_attributes_and_strange_names_pass():
    history = company(20, floods=((60, 4, 8.0),))
    history["rule"] = history["rule"].replace({"rule 4": "O'Brien; drop table \U0001f4a5 " + "x" * 10_000})
    history.loc[:20, "rule"] = None
    history.loc[20:40, "attributes"] = "{not json"
    history.loc[40:60, "attributes"] = "[1, 2]"
    history.loc[60:80, "attributes"] = None
    found = detect_floods(history, LATE)
    assert found["status"].to_list() == ["confirmed"]
    assert flag_alerts(history, found, None)["flood"].sum() >= (history["kind"] == "flood").sum() - 20


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.none(),
            st.sampled_from(["{", "[1]", '"a"', "{}", '{"a": 1e400}', '{"a": NaN}', "", '{"a": 1}\n{"a": 2}']),
            st.dictionaries(
                st.sampled_from(["a", "b", "c"]),
                st.one_of(
                    st.none(),
                    st.booleans(),
                    st.integers(-3, 3),
                    st.integers(10**17, 10**20),
                    st.sampled_from([1.0, 2.5, 3.0]),
                    st.sampled_from(["x", "y", "", "2024-01-01", "2024-01-01T00:00:00Z", "1", "true", "\U0001f4a5"]),
                    st.lists(st.integers(), max_size=2),
                    st.dictionaries(st.just("k"), st.integers(), max_size=1),
                ),
            ).map(json.dumps),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_alerts_of_a_source_are_those_that_have_the_attribute(attributes):
    limit = 3
    texts, every = np.array(attributes, dtype=object), np.arange(len(attributes))
    frame = pd.DataFrame({"attributes": pd.Series(texts, dtype=object)})
    whole = {name: (code, values) for name, code, values in codes_of_text(texts, len(texts) + 1)}
    for name, code, values in codes_of_text(texts, limit):
        assert len(values) == len(set(values)) <= limit
        # The same attribute as a column of its values, in an order of its own.
        all_codes, all_values = whole[name]
        words = [None if at < 0 else all_values[at] for at in all_codes]
        column = pd.Series(pd.Categorical(words, categories=sorted(all_values, reverse=True)))
        held_codes, held_values = codes_of_column(column, limit)
        assert held_values == values
        assert (held_codes == code).all()
        for at, value in enumerate(values):
            assert ((code == at) == has_source(frame, every, name, value)).all()
            assert ((code == at) == has_source(column.to_frame(f"@{name}"), every, name, value)).all()
