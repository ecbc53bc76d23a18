"""A mixture learned at a cut: it serves early, keeps its bound, knows nothing later, and survives storage."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from dagster_project.errors import HeedError
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.triage.champion.gate import Targets, judge
from dagster_project.triage.evaluation import evidence
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.evaluation.metrics import log_loss
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.history import history_features
from dagster_project.triage.features.keys import key_values
from dagster_project.triage.learning.calibration import Calibration
from dagster_project.triage.learning.mixture.model import Mixture, read_model
from dagster_project.triage.learning.settings import LearningSettings, TreeRecipe
from dagster_project.triage.learning.training import Learned, learn
from tests.triage.learning_world import START, facts

FEATURES = FeatureSettings(attribute_keys=("kind",))
SETTINGS = LearningSettings(features=FEATURES, folds=3, tree_recipes=(TreeRecipe("small", trees=40),), threads=1)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    alerts = facts(1_200, 120, 7)
    keys = key_values(alerts, [*FEATURES.keys, *FEATURES.attribute_keys])
    streams = pd.concat([keys, alerts[["raised_at", "known_at", "acted"]]], axis=1)
    history = history_features(streams, streams, history_features_for(FEATURES), FEATURES.lookback)
    return pd.concat([alerts, history], axis=1)


@pytest.fixture(scope="module")
def learned(frame: pd.DataFrame) -> Learned:
    return learn(frame, _cut(110), SETTINGS)


def _cut(days: int) -> datetime:
    return (START + pd.Timedelta(days=days)).to_pydatetime()


@pytest.mark.parametrize("days", [15, 16, 20])
def test_it_serves_from_the_first_mature_outcome_on(frame: pd.DataFrame, days: int) -> None:
    model = learn(frame, _cut(days), SETTINGS).model
    assert isinstance(model, Mixture)
    assert sum(model.weights.values()) == pytest.approx(1.0)
    p = model.predict(frame)
    assert np.isfinite(p).all()
    assert ((p > 0) & (p < 1)).all()
    assert len(model.reasons(frame.iloc[:5])) == 5


def test_in_the_past_it_is_not_worse_than_the_best_contender_by_more_than_it_says(
    frame: pd.DataFrame, learned: Learned
) -> None:
    forecasts, told = learned.forecasts, learned.model.evidence
    losses = told["log_loss"]
    assert {"trees", "linear", "rate_per_rule", "repeat_last_per_team"} <= set(losses)
    assert told["mixture"]["best_in_hindsight"] in losses
    assert told["mixture"]["worse_than_it_by"] <= told["mixture"]["worse_than_it_by_at_most"]
    assert sum(told["mixture"]["weights"].values()) == pytest.approx(1.0, abs=1e-3)
    assert losses["mixture"] == pytest.approx(log_loss(forecasts[MODEL].to_numpy(), forecasts["acted"].to_numpy()))
    later = frame[frame["raised_at"] >= pd.Timestamp(_cut(110))]
    p, acted = learned.model.predict(later), later["acted"].to_numpy()
    assert log_loss(p, acted) < log_loss(np.full(len(acted), acted.mean()), acted)


def test_nothing_known_after_the_cut_matters_and_the_order_of_rows_does_not(frame: pd.DataFrame) -> None:
    cut = _cut(80)
    once = learn(frame, cut, SETTINGS).model
    late = frame["known_at"] > pd.Timestamp(cut)
    other = frame.assign(acted=np.where(late, 1 - frame["acted"], frame["acted"]))
    again = learn(other.sample(frac=1, random_state=1).reset_index(drop=True), cut, SETTINGS).model
    assert once.version == again.version


def test_storage_changes_no_forecast_and_damage_is_named(frame: pd.DataFrame, learned: Learned) -> None:
    model = learned.model
    text, document = model.to_document()
    shuffled = json.loads(json.dumps(document, allow_nan=False, sort_keys=True))
    stored = read_model(text, shuffled, threads=1)
    assert isinstance(stored, Mixture)
    assert stored.version == model.version
    assert stored.reasons(frame.iloc[:20]) == model.reasons(frame.iloc[:20])
    assert np.array_equal(stored.predict(frame), model.predict(frame))
    for wrong in (document | {"weights": {}}, document | {"members": 7}, {}):
        with pytest.raises(HeedError):
            Mixture.from_document(text, wrong)


def test_the_gate_takes_a_mixture_for_what_was_learned(learned: Learned) -> None:
    table = evidence.measure(learned.forecasts, headline_only=True)
    assert judge(learned.model, table, Targets(minimum_skill=0.05), has_champion=True).decision == "promoted"
    assert judge(learned.model, table, Targets(minimum_skill=0.99), has_champion=True).decision == "refused"


def test_what_is_withheld_reaches_no_contender(frame: pd.DataFrame) -> None:
    model = learn(frame, _cut(110), replace(SETTINGS, withheld=("severity", "@kind", "entity"))).model
    assert isinstance(model, Mixture)
    assert not any(model.reads(source) for source in ("severity", "@kind", "entity"))
    assert model.reads("rule")
    changed = [json.dumps({**json.loads(text), "kind": "another"}) for text in frame["attributes"]]
    other = frame.assign(severity="critical", attributes=changed, entity="another")
    other[[c for c in frame if c.startswith(("entity_", "kind_", "rule+entity"))]] = 7.0
    assert np.array_equal(model.predict(other), model.predict(frame))


def test_reasons_come_from_every_contender(frame: pd.DataFrame, learned: Learned) -> None:
    model, some = learned.model, frame.iloc[-40:]
    assert isinstance(model, Mixture)
    matrix = model.plan.matrix(some)
    pushes = model.pushes(some, matrix)
    assert ("history", "rule") in pushes
    assert all(push.shape == (40,) and np.isfinite(push).all() for push in pushes.values())
    linear = model.linears["linear"]
    alone = replace(model, weights={"linear": 1.0}, linears={"linear": linear}, baselines={}, booster_text=None)
    z = np.log(linear.predict(some) / (1 - linear.predict(some)))
    assert np.allclose(sum(alone.pushes(some, matrix).values()) + linear.intercept, z, atol=1e-6)
    assert all(0 < len(sentences) <= 3 for sentences in model.reasons(some))


def test_a_version_with_a_negative_zero_comes_back_from_the_warehouse(learned: Learned, warehouse: Warehouse) -> None:
    """JSON in PostgreSQL has no negative zero."""
    model = replace(learned.model, overall=Calibration("platt", {"intercept": -0.0, "slope": 1.0}))
    store = ModelStore(warehouse)
    version = store.save(model, model.cut)
    assert store.load(version).version == version == model.version
