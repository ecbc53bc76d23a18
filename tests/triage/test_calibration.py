"""Calibration maps: what they repair, what they leave alone, and their plain form."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.learning.calibration import KINDS, Calibration, choose_calibration, fit_calibration


def over_confident(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(claimed, acted, truth): the claim doubles the true log-odds and adds one."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.0, n)
    truth = metrics.expit(z)
    return metrics.expit(2 * z + 1), (rng.random(n) < truth).astype(float), truth


@given(st.sampled_from(KINDS), st.integers(0, 400), st.integers(0, 1000), st.sampled_from([0.0, 0.3, 1.0]))
def test_every_map_is_monotone_inside_zero_and_one_and_survives_json(kind: str, n: int, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    p, y = rng.random(n), (rng.random(n) < rate).astype(float)
    made = fit_calibration(kind, p, y)
    grid = np.linspace(0, 1, 301)
    applied = made.apply(grid)
    assert ((applied > 0) & (applied < 1)).all()
    assert (np.diff(applied) >= -1e-12).all()
    again = Calibration.from_document(json.loads(json.dumps(made.to_document())))
    assert np.array_equal(again.apply(grid), applied)


@pytest.mark.parametrize("kind", ["platt", "beta", "isotonic"])
def test_over_confidence_is_repaired(kind: str) -> None:
    claimed, acted, _ = over_confident(20_000)
    made = fit_calibration(kind, claimed, acted)
    later, later_acted, truth = over_confident(20_000, seed=1)
    gained = metrics.log_loss(later, later_acted) - metrics.log_loss(made.apply(later), later_acted)
    possible = metrics.log_loss(later, later_acted) - metrics.log_loss(truth, later_acted)
    assert gained > 0.97 * possible


def test_few_alerts_hardly_move_a_score() -> None:
    made = fit_calibration("platt", np.array([0.5, 0.5]), np.array([1.0, 1.0]))
    assert 0.5 < made.apply(np.array([0.5]))[0] < 0.8


def test_a_calibrated_score_is_left_alone() -> None:
    rng = np.random.default_rng(2)
    p = rng.uniform(0.05, 0.9, 4_000)
    y = (rng.random(4_000) < p).astype(float)
    chosen, losses = choose_calibration(p, y, np.arange(4_000))
    assert chosen.kind == "none"
    assert set(losses) == set(KINDS)


def test_the_choice_repairs_over_confidence_and_refuses_isotonic_on_few_alerts() -> None:
    claimed, acted, _ = over_confident(600)
    chosen, losses = choose_calibration(claimed, acted, np.arange(600))
    assert chosen.kind in ("platt", "beta")
    assert "isotonic" not in losses
    nothing, none = choose_calibration(claimed[:30], acted[:30], np.arange(30))
    assert nothing.kind == "none"
    assert none == {}


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"kind": "magic", "numbers": {}},
        {"kind": "platt", "numbers": {"slope": 1.0}},
        {"kind": "platt", "numbers": {"slope": float("nan"), "intercept": 0.0}},
        {"kind": "isotonic", "numbers": {"x": [1.0, 0.0], "y": [0.1, 0.2]}},
        {"kind": "isotonic", "numbers": {"x": [], "y": []}},
    ],
)
def test_a_malformed_calibration_is_refused(document: object) -> None:
    with pytest.raises(HeedError, match="calibration is malformed"):
        Calibration.from_document(document)
