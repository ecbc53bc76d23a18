"""Workload: what lies below a threshold, and which threshold keeps a promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.triage.evaluation.metrics import Ranking
from dagster_project.triage.evaluation.workload import MOST, PROMISES, at_promise, at_threshold, workload_curve


@st.composite
def pasts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    number = draw(st.integers(2, 300))
    p = random.integers(0, draw(st.integers(1, 400)), number) / 400
    y = (random.random(number) < p).astype(float)
    y[0] = 1.0
    return p, y


@given(pasts(), st.floats(0, 1))
def test_at_any_threshold_it_counts_what_lies_below(past: tuple[np.ndarray, np.ndarray], threshold: float) -> None:
    p, y = past
    below = at_threshold(workload_curve(p, y), threshold)
    assert (below.alerts_below, below.acted_below) == ((p < threshold).sum(), y[p < threshold].sum())
    assert (below.alerts, below.acted) == (len(y), y.sum())


@given(pasts(), st.sampled_from(PROMISES))
def test_a_promise_is_kept_and_saves_what_the_evaluation_says(past: tuple[np.ndarray, np.ndarray], rate: float) -> None:
    p, y = past
    at = at_promise(workload_curve(p, y), rate)
    assert at.missed <= rate
    assert at.saved == pytest.approx(Ranking(p, y).workload_saved(rate))


def test_of_many_forecasts_every_thousandth_stays_and_the_promises_are_exact() -> None:
    random = np.random.default_rng(1)
    p = random.random(50_000)
    y = (random.random(50_000) < p).astype(float)
    curve = workload_curve(p, y)
    assert MOST <= len(curve) <= MOST + len(PROMISES)
    assert np.diff(curve["alerts_below"]).max() <= 2 * len(p) / MOST
    for rate in PROMISES:
        assert at_promise(curve, rate).saved == pytest.approx(Ranking(p, y).workload_saved(rate))
    below = at_threshold(curve, 0.3)
    assert 0 <= below.alerts_below - (p < 0.3).sum() <= len(p) / MOST
