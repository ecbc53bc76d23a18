"""The families of `benchmarks/family_worlds.py` keep what their page says of them.

Belongs here: laws of the generators. Does not belong here: what heed reaches in them (`benchmarks/families.md`).
"""

import numpy as np
import pandas as pd
import pytest

from benchmarks.families import Run, page
from benchmarks.family_worlds import BEGIN, DAY_US, FAMILIES, NOISE, Family, world
from dagster_project.triage.evaluation.contenders import CONSTANT
from dagster_project.triage.evaluation.metrics import interval, log_losses
from dagster_project.triage.features.attributes import attribute_columns

ALL = (*FAMILIES, NOISE)
WORLDS = {family.name: world(family, 1) for family in ALL}
CONTRACT = [
    "alert_id", "raised_at", "rule", "entity", "team", "severity", "value", "threshold", "title", "attributes",
    "acted", "known_at", "horizon_ends_at",
]  # fmt: skip


def family_named(name: str) -> Family:
    return next(family for family in ALL if family.name == name)


@pytest.fixture(params=ALL, ids=lambda family: family.name)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


def test_a_world_has_the_columns_of_a_replay_and_its_size(family: Family) -> None:
    alerts = WORLDS[family.name]
    assert set(alerts.columns) == {*CONTRACT, "probability"}
    assert len(alerts) == family.alerts
    assert alerts["alert_id"].is_unique
    assert alerts["raised_at"].is_monotonic_increasing
    assert str(alerts["raised_at"].dtype) == "datetime64[us, UTC]"
    assert alerts["raised_at"].min() >= pd.Timestamp(BEGIN)
    assert alerts["raised_at"].max() < pd.Timestamp(BEGIN) + pd.Timedelta(days=family.days)


def test_outcomes_are_draws_from_probabilities_within_zero_and_one(family: Family) -> None:
    alerts = WORLDS[family.name]
    p, acted = alerts["probability"].to_numpy(), alerts["acted"].to_numpy()
    assert ((p > 0) & (p < 1)).all()
    assert np.isin(acted, (0, 1)).all()
    share, within = family.acted
    assert abs(acted.mean() - share) <= within
    if family.name != "fan-outs":  # whose members share their draws
        assert abs((acted - p).sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_outcomes_become_known_after_the_raise_and_within_the_horizon(family: Family) -> None:
    alerts = WORLDS[family.name]
    assert (alerts["horizon_ends_at"] - alerts["raised_at"] == pd.Timedelta(days=family.horizon_days)).all()
    assert (alerts["known_at"] > alerts["raised_at"]).all()
    assert (alerts["known_at"] <= alerts["horizon_ends_at"]).all()
    waited = (alerts["known_at"] - alerts["raised_at"])[alerts["acted"] == 1] / pd.Timedelta(days=1)
    low, high = family.delay_days
    assert waited.between(low - 1e-6, high + 1e-6).all()
    assert (alerts["known_at"] == alerts["horizon_ends_at"])[alerts["acted"] == 0].mean() > 0.4  # lapsed in silence


def test_a_seed_gives_its_world_and_no_other(family: Family) -> None:
    small = Family(**{**vars(family), "alerts": 800})
    pd.testing.assert_frame_equal(world(small, 5), world(small, 5))
    assert not world(small, 5)["probability"].equals(world(small, 6)["probability"]) or family is NOISE
    assert not world(small, 5)["acted"].equals(world(small, 6)["acted"])


def explained(by: pd.Series, p: pd.Series) -> float:
    """Share of the variance of `p` that the groups of `by` explain."""
    return float(p.groupby(by.to_numpy()).transform("mean").var() / p.var())


def test_neither_attribute_decides_alone() -> None:
    alerts = WORLDS["together"]
    columns = {name: pd.Series(values) for name, values in attribute_columns(alerts["attributes"]).items()}
    p = alerts["probability"]
    assert explained(columns["region"] + columns["product"], p) > 0.999
    assert max(explained(columns[name], p) for name in columns) < 0.1


def test_nearly_every_rule_is_new() -> None:
    rules = WORLDS["words"]["rule"]
    assert 0.94 < (~rules.duplicated(keep=False)).mean() < 0.96
    assert set(np.concatenate([t.split() for t in WORLDS["words"]["title"]])).isdisjoint(rules)


def test_teams_reverse_what_they_do_overnight() -> None:
    alerts, policy = WORLDS["policy"], family_named("policy")
    assert policy.changes_at is not None
    change = pd.Timestamp(BEGIN) + pd.Timedelta(policy.changes_at * policy.days * DAY_US, unit="us")
    of_rule = alerts["rule"] + alerts["attributes"]
    before, after = (
        alerts[rows].groupby(of_rule[rows])["probability"].agg(["nunique", "first"])
        for rows in (alerts["raised_at"] < change, alerts["raised_at"] >= change)
    )
    assert (before["nunique"] == 1).all()
    assert (after["nunique"] == 1).all()
    both = before.join(after, rsuffix="_after", how="inner")
    assert 0.1 < ((both["first"] - both["first_after"]).abs() > 1e-9).mean() < 0.9


def test_members_of_a_fan_out_share_their_outcome() -> None:
    alerts = WORLDS["fan-outs"]
    burst = alerts.groupby(["rule", "team", alerts["raised_at"].dt.floor("6h")])["acted"].agg(["size", "mean"])
    bursts = burst[burst["size"] >= 40]
    assert len(bursts) > 10
    assert ((bursts["mean"] < 0.2) | (bursts["mean"] > 0.8)).mean() > 0.9


def test_rules_come_back_after_a_year_or_two() -> None:
    alerts = WORLDS["years"]
    pauses = alerts.groupby("rule")["raised_at"].diff() / pd.Timedelta(days=1)
    assert ((pauses > 300).groupby(alerts["rule"]).sum() >= 1).all()


def test_the_page_says_which_bars_are_missed() -> None:
    losses = {"truth": 0.4, CONSTANT: 0.6, "rate_per_rule": 0.5, "heed": 0.45, "trees without luck": 0.42}
    good = Run(
        "words", 7, 100, 0.35, losses | {"heed": 0.41}, [CONSTANT, "rate_per_rule"], [], 0.01, 0.02, 0.03, 0.0,
        True, 0.1, {}, {"trees": 1.0}, 1.0,
    )  # fmt: skip
    bad = Run(**{**vars(good), "family": "weak", "losses": losses | {"heed": 0.55}, "decile_bias": 0.05})
    text = page({"words": [good, good], "weak": [bad, bad]})
    kept, missed = text.split("## weak")
    assert "No bar is missed." in kept
    assert "0.950 [0.950, 0.950]" in kept
    assert "Missed: the reached skill of 0.250; the same learners without luck reach 0.900;" in missed
    assert "the bound in 2 of 2 worlds; the decile error of 0.050" in missed


def test_truth_beats_every_constant(family: Family) -> None:
    """The truth is what nobody can improve on: on outcomes it beats the best constant, beyond luck where it differs."""
    if family is NOISE:
        return
    alerts = WORLDS[family.name]
    p, acted = alerts["probability"].to_numpy(), alerts["acted"].to_numpy()
    gain = log_losses(np.full(len(p), acted.mean()), acted) - log_losses(p, acted)
    low, _ = interval(lambda w: float(np.dot(w, gain) / w.sum()), np.arange(len(p)), 200, 0)
    assert low > 0
