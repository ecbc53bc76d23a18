"""What is said about flagged alerts is what happened to flagged alerts."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.triage.flags.rates import EVERY_RULE, flagged_rates, in_words, kinds, rates_of

HORIZON = timedelta(days=14)
START = datetime(2024, 1, 1, tzinfo=UTC)


def rate_of(rates: pd.DataFrame, kind: str, rule: str) -> pd.Series:
    """The row for an alert of a kind and rule; `rates_of` must give its probability."""
    mine = rates[rates["kind"] == kind]
    own = mine[(mine["rule"] == rule) & (rule != EVERY_RULE)]
    row = (own if len(own) else mine[mine["rule"] == EVERY_RULE]).iloc[0]
    [probability] = rates_of(rates, np.array([kind], dtype=object), np.array([rule], dtype=object))
    assert probability == row["probability"]
    return row


def flagged(acted: list[int], rule: str = "r", flood: bool = False, quiet: bool = True) -> pd.DataFrame:
    raised = pd.Series(pd.Timestamp(START) + pd.to_timedelta(np.arange(len(acted)), unit="h")).astype(
        "datetime64[us, UTC]"
    )
    return pd.DataFrame(
        {
            "raised_at": raised,
            "known_at": (raised + HORIZON).astype("datetime64[us, UTC]"),
            "acted": np.array(acted, dtype=float),
            "rule": rule,
            "flood": flood,
            "visibility_only": quiet,
        }
    )


LATER = START + timedelta(days=2_000)


def test_rules_on_which_nobody_acts_are_not_said_to_be_acted_on() -> None:
    rates = flagged_rates(pd.concat([flagged([0] * 2_500, rule) for rule in "abc"]), LATER, HORIZON)
    rate = rate_of(rates, "visibility_only", "b")
    assert rate["probability"] < 1e-4
    assert rate["low"] == pytest.approx(0, abs=1e-9)
    assert rate["high"] < 0.003
    assert in_words(rate) == "from a rule for visibility only: none of 2,500 of these was acted on"


def test_a_flood_in_words() -> None:
    rates = flagged_rates(flagged([1] * 10 + [0] * 2_990, "a", flood=True, quiet=False), LATER, HORIZON)
    assert in_words(rate_of(rates, "flood", "a")) == "part of a flood: about 1 in 300 of these are acted on"
    assert in_words(rate_of(rates, "visibility_only", "a")) == (
        "from a rule for visibility only: no such alert has an outcome yet"
    )
    unheard = rate_of(rates, "flood", "a rule that nobody knows")
    assert unheard["rule"] == EVERY_RULE
    assert unheard["probability"] == pytest.approx(1 / 300, rel=0.01)


@given(st.lists(st.integers(0, 1), max_size=60), st.lists(st.integers(0, 1), max_size=60), st.integers(0, 80))
def test_rates_lie_in_their_interval_and_know_nothing_later(a: list[int], b: list[int], hours: int) -> None:
    alerts = pd.concat([flagged(a, "a"), flagged(b, "b", flood=True, quiet=False)], ignore_index=True)
    cut = START + HORIZON + timedelta(hours=hours)
    rates = flagged_rates(alerts, cut, HORIZON)
    assert ((rates["low"] <= rates["probability"]) & (rates["probability"] <= rates["high"])).all()
    assert rates["probability"].between(0, 1, inclusive="neither").all()
    later = (alerts["known_at"] > pd.Timestamp(cut)).to_numpy()
    changed = alerts.assign(acted=np.where(later, 1 - alerts["acted"], alerts["acted"]))
    pd.testing.assert_frame_equal(flagged_rates(changed, cut, HORIZON), rates)
    pd.testing.assert_frame_equal(flagged_rates(alerts.sample(frac=1, random_state=1), cut, HORIZON), rates)


def test_an_alert_without_a_flag_has_no_kind() -> None:
    made = kinds(np.array([False, True, False, True]), np.array([False, False, True, True]))
    assert list(made) == [None, "flood", "visibility_only", "visibility_only"]
