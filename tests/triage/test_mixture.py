"""The mixture keeps its guarantee on any data, uses nothing early, and follows what changes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import log_losses
from dagster_project.triage.learning.mixture.weights import (
    MixtureState,
    Rolled,
    mix,
    roll,
    stacked,
    weights_from_document,
    weights_to_document,
)


def _data(seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    acted = (rng.random(alerts) < 0.4).astype(float)
    noise = rng.normal(0, 1.5, (alerts, contenders))
    forecasts = 1 / (1 + np.exp(-(noise + skill * (2 * acted[:, None] - 1) * (np.arange(contenders) == 0))))
    made = np.sort(rng.integers(0, moments, alerts))
    known = made + 1 + rng.integers(0, delay + 1, alerts)
    return forecasts, acted, made, known


CASES = given(
    seed=st.integers(0, 10_000),
    alerts=st.integers(1, 300),
    contenders=st.integers(1, 7),
    moments=st.integers(1, 40),
    delay=st.integers(0, 6),
    skill=st.sampled_from([0.0, 0.5, 3.0]),
    share=st.sampled_from([0.0, 0.01, 0.2]),
)


@CASES
def test_never_worse_than_any_contender_by_more_than_the_bound(
    seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float, share: float
) -> None:
    forecasts, acted, made, known = _data(seed, alerts, contenders, moments, delay, skill)
    for importance in (None, np.ones(alerts)):
        _keeps_its_bound(roll(forecasts, acted, made, known, moments, None, share, importance), forecasts, acted, known)


def _keeps_its_bound(rolled: Rolled, forecasts: np.ndarray, acted: np.ndarray, known: np.ndarray) -> None:
    moments, contenders = len(rolled.weights), forecasts.shape[1]
    seen = known <= moments
    own = np.array([log_losses(forecasts[seen, i], acted[seen]).sum() for i in range(contenders)])
    published = log_losses(rolled.probability[seen], acted[seen]).sum()
    assert np.isfinite(rolled.state.bounds).all()
    assert (published <= own + rolled.state.bounds + 1e-6).all()


@CASES
def test_the_worst_case_bound_holds_where_batches_do_not_overlap(
    seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float, share: float
) -> None:
    forecasts, acted, made, _ = _data(seed, alerts, contenders, moments, delay, skill)
    largest = int(np.bincount(made).max())
    state = MixtureState.start(contenders)
    state = MixtureState(state.prior, state.losses, 1 / largest, own=state.own)
    total = 0.0
    for moment in range(moments):
        now = made == moment
        if not now.any():
            continue
        published = log_losses(mix(forecasts[now], state.weights), acted[now]).sum()
        total += published
        each = np.array([log_losses(forecasts[now, i], acted[now]).sum() for i in range(contenders)])
        state = state.learn(each, float(published), 0.0)
    assert state.excess <= 1e-6
    assert total <= state.own.min() + largest * np.log(contenders) + 1e-6


@CASES
def test_an_outcome_changes_nothing_before_it_is_known(
    seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float, share: float
) -> None:
    forecasts, acted, made, known = _data(seed, alerts, contenders, moments, delay, skill)
    before = roll(forecasts, acted, made, known, moments, share=share)
    late = known > moments // 2
    after = roll(forecasts, np.where(late, 1 - acted, acted), made, known, moments, share=share)
    early = made <= moments // 2
    assert np.array_equal(before.probability[early], after.probability[early])


@CASES
def test_the_order_of_alerts_does_not_matter(
    seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float, share: float
) -> None:
    forecasts, acted, made, known = _data(seed, alerts, contenders, moments, delay, skill)
    rows = np.random.default_rng(seed).permutation(alerts)
    once = roll(forecasts, acted, made, known, moments, share=share)
    again = roll(forecasts[rows], acted[rows], made[rows], known[rows], moments, share=share)
    assert np.allclose(once.probability[rows], again.probability, atol=1e-9)


def test_one_alert_at_a_time_without_delay_is_the_rule_of_bayes() -> None:
    forecasts, acted, _, _ = _data(1, 60, 4, 5, 0, 0.5)
    made = np.arange(60)
    rolled = roll(forecasts, acted, made, made + 1, 60, share=0.0)
    likelihood = np.where(acted[:, None] == 1, forecasts, 1 - forecasts)
    evidence = np.vstack([np.ones(4), np.cumprod(likelihood, axis=0)[:-1]])
    posterior = evidence / evidence.sum(axis=1, keepdims=True)
    assert np.allclose(rolled.probability, (posterior * forecasts).sum(axis=1), atol=1e-6)
    assert rolled.state.rate == 1.0
    assert abs(rolled.state.excess) < 1e-6


def test_one_fan_out_does_not_decide_alone_and_a_change_is_followed() -> None:
    good, bad = 0.9, 0.2
    # 20 batches of 100 alerts, all acted; the first contender is right in the first half, the second in the other.
    made = np.repeat(np.arange(20), 100)
    first = np.where(made < 10, good, bad)
    forecasts = np.column_stack([first, 1.1 - first, np.full(2000, 0.5)])
    rolled = roll(forecasts, np.ones(2000), made, made + 2, 20)
    assert rolled.state.rate < 0.2, "hundreds of equal outcomes at once are not hundreds of reasons"
    assert rolled.weights[9, 0] > 0.9
    assert rolled.weights[16:, 1].min() > 0.5, "four batches that were late after the change, the other leads"
    assert (np.diff(rolled.weights[12:, 1]) > 0).all()


def test_stacked_weights_find_what_mixes_best_and_begin_at_the_prior() -> None:
    rng = np.random.default_rng(3)
    truth = 1 / (1 + np.exp(-rng.normal(0, 1.5, 4_000)))
    acted = (rng.random(4_000) < truth).astype(float)
    # The first knows every second alert, the other the rest: half of each is best.
    even = np.arange(4_000) % 2 == 0
    forecasts = np.column_stack([np.where(even, truth, 0.5), np.where(even, 0.5, truth), np.full(4_000, 0.9)])
    prior = np.array([0.8, 0.1, 0.1])
    assert np.array_equal(stacked(forecasts[:0], acted[:0], acted[:0], prior), prior)
    weights = stacked(forecasts, acted, np.ones(4_000), prior)
    assert weights.sum() == pytest.approx(1.0)
    assert abs(weights[0] - weights[1]) < 0.1
    assert weights[2] < 0.02
    near = np.abs(stacked(forecasts[:5], acted[:5], np.ones(5), prior) - prior).max()
    assert near < 0.2, "five outcomes hardly move it"


def test_weights_survive_storage_exactly_and_damage_is_named() -> None:
    state = MixtureState.start(3).learn(np.array([1.0, 2.0, 3.0]), 2.0)
    document = json.loads(json.dumps(weights_to_document(["a", "b", "c"], state.weights)))
    names, weights = weights_from_document(document)
    assert names == ["a", "b", "c"]
    assert np.array_equal(weights, state.weights)
    for wrong in ({}, {"a": 0.5}, {"a": -1, "b": 2}, {"a": "x"}, None):
        with pytest.raises(HeedError, match="malformed"):
            weights_from_document(wrong)


def test_a_prior_or_a_forecast_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="contender"):
        MixtureState.start(0)
    with pytest.raises(ValueError, match="positive"):
        MixtureState.start(2, np.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="own forecast"):
        roll(np.full((1, 2), 0.5), np.ones(1), np.zeros(1, int), np.zeros(1, int), 1)
