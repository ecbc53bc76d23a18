"""The simple rules every model has to beat."""

import json

import numpy as np
import pandas as pd
import pytest

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import ALWAYS_NO, CONSTANT, REPEAT_LAST
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.learning.baselines import (
    ALWAYS_NO_PROBABILITY,
    LOGISTIC,
    Baseline,
    fit_baselines,
    names_for,
)
from tests.triage.learning_world import world

SETTINGS = FeatureSettings()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return world(900)


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> dict[str, Baseline]:
    return fit_baselines(frame, frame["acted"].to_numpy(), SETTINGS)


def test_every_baseline_gives_probabilities_and_survives_json(frame: pd.DataFrame, fitted: dict[str, Baseline]) -> None:
    assert list(fitted) == names_for(SETTINGS)
    for name, baseline in fitted.items():
        p = baseline.predict(frame)
        assert p.dtype == np.float64
        assert ((p > 0) & (p < 1)).all(), name
        again = Baseline.from_document(json.loads(json.dumps(baseline.to_document())))
        assert np.array_equal(again.predict(frame), p)


def test_constant_and_always_no(frame: pd.DataFrame, fitted: dict[str, Baseline]) -> None:
    assert fitted[CONSTANT].predict(frame)[0] == pytest.approx(frame["acted"].mean(), abs=1e-3)
    assert set(fitted[ALWAYS_NO].predict(frame)) == {ALWAYS_NO_PROBABILITY}


def test_repeat_last_is_the_share_acted_after_each_last_outcome(
    frame: pd.DataFrame, fitted: dict[str, Baseline]
) -> None:
    p = fitted[REPEAT_LAST].predict(frame)
    last = frame["rule_last_outcome"]
    after_act = frame.loc[last == 1, "acted"]
    rate = fitted[CONSTANT].numbers["rate"]
    assert p[(last == 1).to_numpy()][0] == pytest.approx((after_act.sum() + 2 * rate) / (len(after_act) + 2))
    assert p[(last == 1).to_numpy()][0] > p[(last == 0).to_numpy()][0]


def test_a_rate_follows_history_and_falls_back_to_the_overall_rate(fitted: dict[str, Baseline]) -> None:
    baseline = fitted["rate_per_rule"]
    names = [baseline.numbers[k] for k in ("known", "acted", "share") if baseline.numbers[k]]
    empty = pd.DataFrame({name: [np.nan] for name in names})
    assert baseline.predict(empty)[0] == pytest.approx(baseline.numbers["rate"])
    busy = pd.DataFrame({name: [1000.0 if name == baseline.numbers["known"] else 0.0] for name in names})
    assert baseline.predict(busy)[0] < 0.1


def test_rates_know_more_than_the_constant(frame: pd.DataFrame, fitted: dict[str, Baseline]) -> None:
    y = frame["acted"].to_numpy()
    loss = {name: metrics.log_loss(b.predict(frame), y) for name, b in fitted.items()}
    assert loss["rate_per_rule"] < loss[CONSTANT] < loss[ALWAYS_NO]
    assert loss[LOGISTIC] < loss[REPEAT_LAST]


def test_nothing_known_gives_the_prior(frame: pd.DataFrame) -> None:
    for baseline in fit_baselines(frame.iloc[:0], np.zeros(0), SETTINGS, prior=(1.0, 3.0)).values():
        if baseline.name != ALWAYS_NO:
            assert baseline.predict(frame.iloc[:1])[0] == pytest.approx(0.25, abs=0.2)


def test_a_missing_history_column_is_named(frame: pd.DataFrame, fitted: dict[str, Baseline]) -> None:
    with pytest.raises(HeedError, match="rule_last_outcome is missing"):
        fitted[REPEAT_LAST].predict(frame.drop(columns="rule_last_outcome"))


@pytest.mark.parametrize(
    "document",
    [
        None,
        {},
        {"name": "magic", "numbers": {}},
        {"name": CONSTANT, "numbers": {"rate": None}},
        {"name": CONSTANT, "numbers": {"rate": float("inf")}},
        {"name": "rate_per_rule", "numbers": {"rate": 0.5, "strength": 1}},
        {"name": LOGISTIC, "numbers": {"rates": [], "last": "x", "coefficients": [0.0]}},
    ],
)
def test_a_malformed_baseline_is_refused(document: object) -> None:
    with pytest.raises(HeedError, match="baseline is malformed"):
        Baseline.from_document(document)
