"""Both kinds of flags together, on simulated companies and on the real alerts; and input that is no history."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dagster_project.triage.features.build import FACTS, build_features, build_features_in_parts
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.flags.floods import daily_band, detect_floods
from tests.triage.worlds_of_flags import START, company, same

LATE = START + pd.Timedelta(days=200)
RULES = pd.DataFrame({"rule": [], "declared_visibility_only": [], "created_at": []})


def at_day(number: float) -> pd.Timestamp:
    return (START + pd.Timedelta(days=number)).round("s")


def test_a_flood_that_nobody_acted_on_does_not_make_its_rule_visibility_only():
    history = company(31, acted=0.3, mean=6, floods=tuple((day, 4, 40.0) for day in (50, 51)))
    history = history[~((history["rule"] == "rule 4") & (history["raised_at"] >= at_day(52)))]
    floods, rules = find_flags(history, RULES, LATE)
    assert set(floods["scope"]) == {"rule 4"}
    assert len(rules) == 0


def test_an_action_releases_a_rule_even_while_a_flood_of_it_is_suspected():
    history = company(32, rules=3, mean=6, acted=0.0, floods=((80, 1, 10.0),))
    floods, rules = find_flags(history, RULES, at_day(80.99))
    assert "suspected" in set(floods["status"])
    assert "rule 1" in set(rules.loc[rules["status"] == "inferred", "rule"])
    held = flag_alerts(history, floods, None)["flood"] & (history["raised_at"] < at_day(80.8))
    row = history.index[held][0]
    history.loc[row, "acted"] = 1.0
    history.loc[row, "known_at"] = at_day(80.9).as_unit("us")
    rules = find_flags(history, RULES, at_day(80.99))[1]
    assert rules.loc[rules["rule"] == "rule 1", "status"].to_list() == ["released"]


def test_flags_of_a_moment_are_those_of_a_run_then_in_both_tables():
    history = company(33, acted=0.05, mean=6, floods=((50, 4, 12.0), (51, 4, 12.0)), incidents=((70, 2, 9.0),))
    late = find_flags(history, RULES, LATE)
    for day in (50.5, 55, 66, 80):
        then = find_flags(history, RULES, at_day(day))
        same(then[1], known_by(late[1], at_day(day)))


def test_the_band_of_a_day_looks_at_earlier_days_only():
    history = company(34, floods=((60, 4, 30.0),))
    band = daily_band(history, LATE)
    assert band["alerts"].sum() == len(history)
    assert band["expected"].isna().sum() == 7
    usual = band.set_index("day")
    flooded = (START + pd.Timedelta(days=60)).date()
    assert usual.loc[flooded, "alerts"] > usual.loc[flooded, "upper"] > usual.loc[flooded, "expected"]
    known = band[band["day"] <= flooded].reset_index(drop=True)
    pd.testing.assert_frame_equal(daily_band(history, at_day(61)), known)
    assert len(daily_band(history.iloc[:0], LATE)) == 0


def test_features_of_a_past_day_are_those_computed_then_whatever_became_of_its_suspects():
    history = company(38, acted=0.3, mean=6, floods=((60, 1, 9.0),), incidents=((60, 4, 12.0), (60, 7, 12.0)))
    history = history.assign(entity="e", severity=None, value=np.nan, threshold=np.nan, title=None)
    late = find_flags(history, RULES, LATE)
    cleared = late[0][late[0]["status"] == "cleared"]
    assert len(cleared) == 2
    # While it is not known that people act on it, a burst is out of the histories of others, then and for ever.
    first, then = at_day(59), cleared["decided_at"].min() - pd.Timedelta(seconds=1)
    assert cleared["detected_at"].min() < then
    known = history[history["raised_at"] < then].copy()
    unknown = known["known_at"] > then
    known["acted"], known["known_at"] = known["acted"].mask(unknown), known["known_at"].mask(unknown)
    settings = FeatureSettings()
    served = build_features(known, *find_flags(known, RULES, then), first, then, settings)
    again = build_features(history, *late, first, then, settings)
    pd.testing.assert_frame_equal(served, again)


@pytest.mark.parametrize("at_once", [1, 7, 100, 10**6])
def test_features_in_parts_are_those_of_the_whole(at_once):
    history = company(39, acted=0.3, mean=1, floods=((60, 1, 9.0),))
    history = history.assign(entity="e", severity=None, value=np.nan, threshold=np.nan, title=None, attributes=None)
    # Some are raised at one moment: they stay together.
    times = history["raised_at"].where(np.arange(len(history)) % 9 > 2, history["raised_at"].dt.floor("D"))
    history = history.assign(raised_at=times).sort_values(["raised_at", "alert_id"], ignore_index=True)
    flags = find_flags(history, RULES, LATE)
    first, until = at_day(55), at_day(62)
    asked = history[(history["raised_at"] >= first) & (history["raised_at"] < until)]
    held = []

    def facts(begin, end):
        held.append(asked[(asked["raised_at"] >= begin) & (asked["raised_at"] < end)][list(FACTS)])
        return held[-1]

    whole = build_features(history, *flags, first, until, FeatureSettings())
    parts = list(build_features_in_parts(history, *flags, first, until, FeatureSettings(), facts, at_once))
    pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)
    assert [len(part) for part in parts] == [len(each) for each in held]
    assert all(len(part) <= at_once or part["raised_at"].nunique() == 1 for part in parts)
    assert len(parts) == 1 or at_once < len(whole)
    none = list(build_features_in_parts(history, *flags, LATE, LATE, FeatureSettings(), facts, at_once))
    assert [len(part) for part in none] == [0]


# ---------------------------------------------------------------------------------------------------- bad input


def one_rule(history: pd.DataFrame) -> pd.DataFrame:
    return history.assign(rule="the only one")


def unanswered(history: pd.DataFrame) -> pd.DataFrame:
    return history.assign(acted=np.nan, known_at=pd.Series(pd.NaT, history.index).dt.tz_localize("UTC"))


def future_dated(history: pd.DataFrame) -> pd.DataFrame:
    return history.assign(raised_at=history["raised_at"] + pd.Timedelta(days=5000))


def strange_attributes(history: pd.DataFrame) -> pd.DataFrame:
    return history.assign(attributes='{"n": 1' + "0" * 400 + ', "m": 1e999, "": null, "b": true, "c": -0.0}')


@pytest.mark.parametrize("spoiled", [one_rule, unanswered, future_dated, strange_attributes])
@pytest.mark.parametrize("days", [1, 40])
def test_bad_histories_have_a_clear_answer(spoiled, days):
    history = spoiled(company(35, days=days, mean=3))
    floods, rules = find_flags(history, RULES, LATE)
    flags = flag_alerts(history, floods, rules)
    assert len(flags) == len(history)
    assert not flags["flood"].any()
    # Nobody ever answered: after the horizon nobody acts on these rules, and they are said to be so.
    expected = spoiled is unanswered and days == 40
    assert flags["visibility_only"].any() == expected
    assert len(daily_band(history, LATE)) == (0 if spoiled is future_dated else days)


def test_weeks_without_any_alert_flag_neither_the_silence_nor_the_return():
    floods, rules = find_flags(company(36, days=120, gap=(50, 85)), RULES, LATE)
    assert len(floods) == 0
    assert len(rules) == 0


@pytest.mark.parametrize("flag", ["flood", "visibility_only"])
def test_an_override_of_a_rule_that_does_not_exist_is_one_clear_line(flag):
    override = pd.DataFrame(
        [{"flag": flag, "scope": "no such rule", "action": "flag", "who": "Ana", "why": "a guess", "created_at": START}]
    )
    floods, rules = find_flags(company(37, days=30), RULES, LATE, overrides=override)
    said = [*floods.attrs["warnings"], *rules.attrs["warnings"]]
    assert len(said) == 1
    assert "override 1" in said[0]
    assert "'no such rule'" in said[0]
    assert len(floods) == len(rules) == 0


# -------------------------------------------------------------------------------------------------- real alerts


def test_the_scanner_sweep_is_confirmed_and_the_busy_day_cleared(real_alerts: Path):
    from benchmarks.wolfi import read_wolfi

    history = read_wolfi(real_alerts)
    floods = detect_floods(history, "2025-06-15")
    flood = flag_alerts(history, floods, None)["flood"]
    day = history["raised_at"].dt.strftime("%Y-%m-%d")
    for sweep in ("2025-03-04", "2025-03-05", "2025-03-06"):
        assert "confirmed" in set(floods.loc[floods["day"].astype(str) == sweep, "status"])
    quiet = day.isin(["2025-03-04", "2025-03-05", "2025-03-06"]) & (history["acted"] == 0)
    assert flood[quiet].mean() > 0.8
    busy = day == "2024-09-10"
    assert busy.sum() == 978
    # Cleared, or not even suspected, since people had acted on earlier bursts.
    assert set(floods.loc[floods["day"].astype(str) == "2024-09-10", "status"]) <= {"cleared"}
    at_raise = flag_alerts(history, floods, None, as_of="at_raise")["flood"]
    assert at_raise.mean() < 0.1, "bursts of updates are no bugs"
    assert not flood[busy].any()
