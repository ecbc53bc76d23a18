"""A mixture learned at a cut: it serves early, keeps its bound, knows nothing later, and survives storage."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from dagster_project.errors import HeedError
from dagster_project.triage import evidence
from dagster_project.triage.features import FeatureSettings, history_features_for, key_values
from dagster_project.triage.gate import Targets, decide
from dagster_project.triage.learning.mixed import Mixed, learn_mixed, remembering
from dagster_project.triage.metrics import log_loss
from dagster_project.triage.model import MODEL, PART, Candidate, Learned, LearningSettings
from dagster_project.triage.timeline import history_features
from tests.triage.learning_world import START, facts

FEATURES = FeatureSettings(echo_lags=(), lifelong=True, lookback=timedelta(days=3650))
SETTINGS = LearningSettings(
    features=FEATURES, folds=3, candidates=(Candidate("small", default=True, trees=40),), threads=1, mixture=True
)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    made = facts(1_200, 120, 7)
    streams = pd.concat([key_values(made, FEATURES.keys), made[["raised_at", "known_at", "acted"]]], axis=1)
    history = history_features(streams, streams, history_features_for(FEATURES), FEATURES.lookback)
    return pd.concat([made, history], axis=1)


@pytest.fixture(scope="module")
def learned(frame: pd.DataFrame) -> Learned:
    return learn_mixed(frame, _cut(110), SETTINGS)


def _cut(days: int) -> datetime:
    return (START + pd.Timedelta(days=days)).to_pydatetime()


@pytest.mark.parametrize("days", [15, 16, 20])
def test_it_serves_from_the_first_mature_outcome_on(frame: pd.DataFrame, days: int) -> None:
    model = learn_mixed(frame, _cut(days), SETTINGS).model
    assert isinstance(model, Mixed)
    assert sum(model.weights.values()) == pytest.approx(1.0)
    p = model.predict(frame)
    assert np.isfinite(p).all()
    assert ((p > 0) & (p < 1)).all()
    assert len(model.reasons(frame.iloc[:5])) == 5


def test_in_the_past_it_is_not_worse_than_the_best_contender_by_more_than_it_says(
    frame: pd.DataFrame, learned: Learned
) -> None:
    forecasts, told = learned.forecasts, learned.model.evidence
    assert f"{PART}trees" in forecasts
    y = forecasts["acted"].to_numpy()
    names = [c for c in forecasts if c.startswith((PART, "rate_per", "repeat_last", "constant", "logistic"))]
    best = min(log_loss(forecasts[name].to_numpy(), y) for name in names)
    assert log_loss(forecasts[MODEL].to_numpy(), y) <= best + told["mixture"]["worse_than_it_by_at_most"]
    later = frame[frame["raised_at"] >= pd.Timestamp(_cut(110))]
    p, acted = learned.model.predict(later), later["acted"].to_numpy()
    assert log_loss(p, acted) < log_loss(np.full(len(acted), acted.mean()), acted)


def test_nothing_known_after_the_cut_matters_and_the_order_of_rows_does_not(frame: pd.DataFrame) -> None:
    cut = _cut(80)
    once = learn_mixed(frame, cut, SETTINGS).model
    late = frame["known_at"] > pd.Timestamp(cut)
    other = frame.assign(acted=np.where(late, 1 - frame["acted"], frame["acted"]))
    again = learn_mixed(other.sample(frac=1, random_state=1).reset_index(drop=True), cut, SETTINGS).model
    assert once.version == again.version


def test_storage_changes_no_forecast_and_damage_is_named(frame: pd.DataFrame, learned: Learned) -> None:
    model = learned.model
    text, document = model.to_document()
    stored = Mixed.from_document(text, json.loads(json.dumps(document, allow_nan=False)), threads=1)
    assert np.array_equal(stored.predict(frame), model.predict(frame))
    for wrong in (document | {"weights": {}}, document | {"mapped_weight": 0.25}, {}):
        with pytest.raises(HeedError):
            Mixed.from_document(text, wrong)


def test_the_gate_takes_a_mixture_for_what_was_learned(learned: Learned) -> None:
    table = evidence.measure(learned.forecasts, headline_only=True)
    assert decide(learned.model, table, Targets(minimum_skill=0.05), has_champion=True).decision == "promoted"
    assert decide(learned.model, table, Targets(minimum_skill=0.99), has_champion=True).decision == "refused"


def test_memory_is_as_long_as_the_data_and_attributes_have_histories(frame: pd.DataFrame) -> None:
    made = remembering(replace(SETTINGS, features=FeatureSettings()), frame.iloc[:300]).features
    assert made.lifelong
    assert timedelta(days=365) in made.half_lives
    assert "kind" in made.keys
    assert "ticket" not in made.keys
    assert any(f.name == "kind_known_count" for f in history_features_for(made))
