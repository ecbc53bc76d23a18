"""The pool keeps its guarantee on any data, uses nothing early, and moves from its prior as outcomes speak."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import log_losses, logit
from dagster_project.triage.learning.mixture.weights import (
    FLOOR,
    SHARPEN,
    STRENGTHS,
    fit_weights,
    pool,
    roll,
    sharpen,
    weights_from_document,
    weights_to_document,
)


def _data(seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    acted = (rng.random(alerts) < 0.4).astype(float)
    noise = rng.normal(0, 1.5, (alerts, contenders))
    forecasts = 1 / (1 + np.exp(-(noise + skill * (2 * acted[:, None] - 1) * (np.arange(contenders) == 0))))
    published_at = np.sort(rng.integers(0, moments, alerts))
    known_at = published_at + 1 + rng.integers(0, delay + 1, alerts)
    prior = rng.dirichlet(np.full(contenders, 2.0)) + 0.01
    return forecasts, acted, published_at, known_at, prior / prior.sum(), rng.uniform(0.1, 1.0, alerts)


CASES = given(
    seed=st.integers(0, 10_000),
    alerts=st.integers(1, 200),
    contenders=st.integers(1, 6),
    moments=st.integers(1, 6),
    delay=st.integers(0, 3),
    skill=st.sampled_from([0.0, 0.5, 3.0]),
    strengths=st.sampled_from([(0.5,), (50.0, 5.0), (50.0, 5.0, 0.5)]),
)


@settings(max_examples=60)
@CASES
def test_never_worse_than_any_contender_by_more_than_the_bound(
    seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float, strengths: tuple[float, ...]
) -> None:
    forecasts, acted, published_at, known_at, prior, importance = _data(seed, alerts, contenders, moments, delay, skill)
    rolled = roll(forecasts, acted, published_at, known_at, moments, prior, importance, strengths)
    seen = known_at <= moments
    own = [
        float(np.dot(importance[seen], log_losses(np.clip(f, FLOOR, 1 - FLOOR), acted[seen])))
        for f in forecasts[seen].T
    ]
    assert np.allclose(rolled.losses, own)
    published = float(np.dot(importance[seen], log_losses(rolled.probability[seen], acted[seen])))
    assert rolled.loss == pytest.approx(published)
    # The weights are found by descent: the lemma asks for the minimum.
    assert (published <= np.array(own) + rolled.bounds + 1e-3).all()


@settings(max_examples=40)
@CASES
def test_an_outcome_changes_nothing_before_it_is_known(
    seed: int, alerts: int, contenders: int, moments: int, delay: int, skill: float, strengths: tuple[float, ...]
) -> None:
    forecasts, acted, published_at, known_at, prior, importance = _data(seed, alerts, contenders, moments, delay, skill)
    before = roll(forecasts, acted, published_at, known_at, moments, prior, importance, strengths)
    late = known_at > moments // 2
    other = np.where(late, 1 - acted, acted)
    after = roll(forecasts, other, published_at, known_at, moments, prior, importance, strengths)
    early = published_at <= moments // 2
    assert np.array_equal(before.probability[early], after.probability[early])


@given(seed=st.integers(0, 10_000), alerts=st.integers(1, 50), contenders=st.integers(1, 6))
def test_the_pool_loses_no_more_than_its_contenders_on_average(seed: int, alerts: int, contenders: int) -> None:
    forecasts, acted, _, _, weights, _ = _data(seed, alerts, contenders, 1, 0, 0.5)
    pooled = pool(forecasts, weights)
    each = np.column_stack([log_losses(np.clip(f, FLOOR, 1 - FLOOR), acted) for f in forecasts.T])
    assert (log_losses(pooled, acted) <= each @ weights + 1e-9).all()
    assert np.array_equal(pool(forecasts[-1:], weights), pooled[-1:]), "row by row the same number"


def test_weights_find_what_pools_best_and_begin_at_the_prior() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(0, 1.5, (4_000, 2))
    acted = (rng.random(4_000) < 1 / (1 + np.exp(-z.sum(axis=1)))).astype(float)
    # Two contenders know one half of the log-odds each, the third knows nothing.
    forecasts = np.column_stack([1 / (1 + np.exp(-2 * z)), np.full(4_000, 0.9)])
    prior = np.array([0.8, 0.1, 0.1])
    assert np.array_equal(fit_weights(forecasts[:0], acted[:0], acted[:0], prior), prior)
    weights = fit_weights(forecasts, acted, np.ones(4_000), prior, 100.0)
    assert weights.sum() == pytest.approx(1.0)
    assert abs(weights[0] - weights[1]) < 0.15
    assert weights[2] < 0.05
    near = np.abs(fit_weights(forecasts[:20], acted[:20], np.ones(20), prior) - prior).max()
    assert near < 0.1, "twenty outcomes hardly move it"


def test_weights_follow_quickly_only_where_the_same_contender_stays_best() -> None:
    rng = np.random.default_rng(0)
    alerts, moments = 1_200, 6
    acted = (rng.random(alerts) < 0.5).astype(float)
    published_at = np.repeat(np.arange(moments), alerts // moments)
    knows = 1 / (1 + np.exp(-(3 * acted - 1.5 + rng.normal(0, 1, alerts))))
    wrong = 1 / (1 + np.exp(-rng.normal(0, 2, alerts)))
    prior, importance = np.array([0.2, 0.8]), np.full(alerts, 0.5)
    steady = np.column_stack([knows, wrong])
    drifting = np.where((published_at % 2 == 0)[:, None], steady, steady[:, ::-1])
    by_strength = [
        roll(forecasts, acted, published_at, published_at + 1, moments, prior, importance).strength
        for forecasts in (steady, drifting)
    ]
    assert by_strength == [STRENGTHS[-1], STRENGTHS[0]]


@pytest.mark.parametrize(("better", "follows"), [(3.0, True), (0.1, False)])
def test_where_no_moment_can_tell_weights_follow_only_what_is_better_by_far(better: float, follows: bool) -> None:
    rng = np.random.default_rng(2)
    acted = (rng.random(600) < 0.4).astype(float)
    side = 2 * acted - 1
    say_little = rng.normal(-0.4, 0.1, (600, 2))
    forecasts = 1 / (1 + np.exp(-np.column_stack([better * side + rng.normal(-0.4, 0.3 * better, 600), say_little])))
    published_at = np.repeat(np.arange(3), 200)
    # All outcomes are known at the end only.
    rolled = roll(
        forecasts, acted, published_at, np.full(600, 3), 3, np.array([0.1, 0.45, 0.45]), np.ones(600), STRENGTHS
    )
    assert (rolled.strength < STRENGTHS[0]) == follows
    assert (rolled.weights[-1][0] > 0.5) == follows
    assert np.allclose(rolled.weights[:-1], rolled.weights[0]), "nothing was known before"


def test_weights_survive_storage_exactly_and_damage_is_named() -> None:
    weights = np.random.default_rng(1).dirichlet(np.ones(3))
    names, read = weights_from_document(json.loads(json.dumps(weights_to_document(["a", "b", "c"], weights))))
    assert names == ["a", "b", "c"]
    assert np.array_equal(read, weights)
    for wrong in ({}, {"a": 0.5}, {"a": -1, "b": 2}, {"a": "x"}, None):
        with pytest.raises(HeedError, match="malformed"):
            weights_from_document(wrong)


def test_an_outcome_known_at_its_own_forecast_is_refused() -> None:
    one = np.ones(1)
    with pytest.raises(ValueError, match="own forecast"):
        roll(np.full((1, 1), 0.5), one, np.zeros(1, int), np.zeros(1, int), 1, one, one)


@given(
    rate=st.floats(0.01, 0.99),
    alerts=st.integers(0, 10**7),
    forecasts=st.lists(st.floats(0.001, 0.999), min_size=2, max_size=20),
)
def test_sharpening_keeps_the_overall_rate_and_the_order(rate: float, alerts: int, forecasts: list[float]) -> None:
    p = np.sort(np.array(forecasts))
    sharpened = sharpen(alerts, rate).apply(p)
    assert sharpen(alerts, rate).apply(np.array([rate]))[0] == pytest.approx(rate)
    assert (np.diff(sharpened) >= 0).all()
    moved = (logit(sharpened) - logit(np.array([rate]))) / np.where(p == rate, 1, logit(p) - logit(np.array([rate])))
    away = np.abs(logit(p) - logit(np.array([rate]))) > 1e-6
    assert (moved[away] >= 1 - 1e-6).all()
    assert (moved[away] <= 1 + SHARPEN + 1e-6).all()
