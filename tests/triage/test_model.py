"""Learning at a cut: what it may see, what it promises, and its exact stored form."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.learning.mixture.model import Mixture, read_model
from dagster_project.triage.learning.model import Model
from dagster_project.triage.learning.past import usable_alerts
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.learning.training import train
from dagster_project.triage.pipeline import reasons
from tests.triage.learning_world import START, world

CUT = (START + pd.Timedelta(days=130)).to_pydatetime()
# One recipe of trees and one thread: threads wait for each other on a busy machine.
SETTINGS = LearningSettings(replicates=100, threads=1, tree_recipes=(replace(TREE_RECIPES[0], trees=120),))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return world(2500)


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> Model:
    return train(frame, CUT, SETTINGS)


@pytest.fixture(scope="module")
def later(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["raised_at"] >= CUT]


def test_trees_win_where_facts_matter_and_come_near_the_truth(model: Model, later: pd.DataFrame) -> None:
    assert (model.kind, model.status) == ("mixture", "model")
    assert isinstance(model, Mixture)
    assert max(model.weights, key=lambda name: model.weights[name]) not in model.baselines
    assert model.booster_text is not None
    assert "trees" in model.explanation
    y = later["acted"].to_numpy()
    constant = metrics.log_loss(np.full(len(y), y.mean()), y)
    truth = metrics.log_loss(later["truth"].to_numpy(), y)
    assert constant - metrics.log_loss(model.predict(later), y) > 0.6 * (constant - truth)


def test_the_future_cannot_touch_a_model(frame: pd.DataFrame, model: Model) -> None:
    """Deleting or falsifying everything that was not known at the cut changes no byte."""
    known = usable_alerts(frame, CUT)
    falsified = frame.copy()
    falsified.loc[~known, "acted"] = 1.0 - falsified.loc[~known, "acted"]
    falsified.loc[~known, "rule_acted_count_7d"] = 1e6
    falsified.loc[~known, "rule"] = "from the future"
    for other in (frame[known], falsified):
        assert train(other, CUT, SETTINGS).to_document() == model.to_document()


def test_training_is_deterministic_over_row_order_and_threads(frame: pd.DataFrame, model: Model) -> None:
    shuffled = frame.sample(frac=1.0, random_state=3)
    again = train(shuffled, CUT, replace(SETTINGS, threads=2))
    assert again.version == model.version
    assert again.booster_text == model.booster_text


def test_the_stored_form_is_exact(model: Model, later: pd.DataFrame) -> None:
    text, document = model.to_document()
    again = read_model(text, json.loads(json.dumps(document, allow_nan=False)))
    assert again.version == model.version
    assert np.array_equal(again.predict(later), model.predict(later))
    assert again.reasons(later.head(20)) == model.reasons(later.head(20))


def test_a_changed_or_malformed_model_is_refused(model: Model) -> None:
    text, document = model.to_document()
    assert text is not None
    for broken in (
        {},
        {**document, "format": 0},
        {**document, "cut": "yesterday"},
        {**document, "plan": [{}]},
    ):
        with pytest.raises(HeedError):
            read_model(text, broken)
    with pytest.raises(HeedError, match="does not match its own content"):
        read_model(text, {**document, "explanation": "better"})
    with pytest.raises(HeedError, match="does not match its own content"):
        read_model(None, document)
    with pytest.raises(HeedError):
        read_model(text[:200], document)


def places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something is in a document: every part and every part of it."""
    if at:
        yield at
    parts = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, part in parts:
        yield from places(part, (*at, name))


@pytest.fixture(scope="module", params=["trees", "baseline"])
def stored(request: pytest.FixtureRequest, model: Model, frame: pd.DataFrame) -> tuple[str | None, str]:
    made = model
    if request.param == "baseline":
        made = train(frame.assign(acted=np.random.default_rng(0).permutation(frame["acted"])), CUT, SETTINGS)
        assert made.status == "baseline"
    text, document = made.to_document()
    return text, json.dumps(document)


HOSTILE = ["1e999", "-1e999", "NaN", "1" + "0" * 400, "-1", "null", '"x"', "[]", "{}", "true"]


@given(st.data())
def test_no_changed_part_of_a_stored_model_is_believed(stored: tuple[str | None, str], data: st.DataObject) -> None:
    """Whatever a part becomes, the model is refused in words: numbers beyond all bounds among them."""
    text, written = stored
    document = json.loads(written)
    *way, last = data.draw(st.sampled_from(list(places(document))))
    around: Any = document
    for name in way:
        around = around[name]
    value = json.loads(data.draw(st.sampled_from(HOSTILE)))
    assume(around[last] != value and not (value in ([], {}) and around[last] in ([], {})))  # the same to its reader
    around[last] = value
    with pytest.raises(HeedError):
        read_model(text, document)


@pytest.mark.parametrize("value", ["1e999", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("where", ["members", "evidence", "calibration", "contract"])
def test_a_number_beyond_all_bounds_is_refused_in_words(model: Model, where: str, value: str) -> None:
    text, document = model.to_document()
    number = json.loads(value)
    changed = {
        "members": number,
        "evidence": {"skill": number},
        "calibration": {"kind": "platt", "numbers": {"intercept": number, "slope": 1.0}},
        "contract": {**document["contract"], "lookback_days": number},
    }[where]
    with pytest.raises(HeedError, match="the stored"):
        read_model(text, {**document, where: changed})


def test_probabilities_are_proper_and_never_missing(model: Model, later: pd.DataFrame) -> None:
    p = model.predict(later)
    assert p.dtype == np.float64
    assert ((p > 0) & (p < 1)).all()
    strange = later.head(3).assign(
        rule="never seen", entity=None, team=None, severity="\N{SNOWMAN}", attributes="not json", value=np.inf
    )
    assert np.isfinite(model.predict(strange)).all()
    assert len(model.predict(later.iloc[:0])) == 0
    # Scoring one by one is scoring together.
    assert np.array_equal(np.concatenate([model.predict(later.iloc[[i]]) for i in range(5)]), p[:5])


def test_a_missing_column_is_named(model: Model, later: pd.DataFrame) -> None:
    with pytest.raises(HeedError, match="rule_acted_count_28d"):
        model.predict(later.drop(columns="rule_acted_count_28d"))


def test_an_alert_of_a_flood_gives_the_flood_as_its_reason(model: Model, later: pd.DataFrame) -> None:
    flood = np.arange(len(later)) % 3 == 1
    flags = pd.DataFrame({"flood": flood, "flag_reason": np.where(flood, "flood of rule r", None)}, index=later.index)
    made, all_of_them = reasons(model, later, flags), model.reasons(later)
    assert [said == ["flood of rule r"] for said in made] == flood.tolist()
    assert [said for said, away in zip(made, flood, strict=True) if not away] == [
        said for said, away in zip(all_of_them, flood, strict=True) if not away
    ]
    only = reasons(model, later[flood], flags[flood])
    assert only == [["flood of rule r"]] * int(flood.sum())


def test_contributions_add_up_to_the_log_odds(model: Model, later: pd.DataFrame) -> None:
    matrix = model.plan.matrix(later)
    raw = model._forest().raw_scores(matrix) / model.members
    total = model.contributions(matrix).sum(axis=1)
    assert np.ptp(raw - total) < 1e-9  # the rest is the same expected value for all


def test_id_like_attributes_are_left_out_and_the_others_typed(frame: pd.DataFrame) -> None:
    plan = plan_columns(frame, FeatureSettings())
    columns = {c.name: c for c in plan.columns}
    assert columns["attribute:kind"].categorical
    assert columns["attribute:budget"].source == "number"
    assert "attribute:ticket" not in columns


@pytest.mark.parametrize("answers", ["all acted", "none acted", "few acted"])
def test_too_little_to_learn_from_lets_a_baseline_serve(frame: pd.DataFrame, answers: str) -> None:
    given = frame.copy()
    rare = (np.arange(len(given)) % 100 == 0).astype(float)
    given["acted"] = {"all acted": 1.0, "none acted": 0.0, "few acted": rare}[answers]
    made = train(given, CUT, SETTINGS)
    assert made.status == "baseline"
    assert "too little to learn from" in made.explanation
    p = made.predict(given)
    assert ((p > 0) & (p < 1)).all()
    assert all(made.reasons(given.head(5)))
    text, document = made.to_document()
    assert text is None
    again = read_model(None, json.loads(json.dumps(document)))
    assert again.version == made.version
    assert np.array_equal(again.predict(given), p)


def test_nothing_known_gives_the_prior_and_says_so(frame: pd.DataFrame) -> None:
    before = datetime(2023, 1, 1, tzinfo=UTC)
    made = train(frame, before, replace(SETTINGS, prior=(1.0, 4.0)))
    assert (made.kind, made.status) == ("prior", "prior")
    assert "no outcome is known yet" in made.explanation
    assert set(made.predict(frame.head(3))) == {0.2}
    assert made.reasons(frame.head(1))[0]
    assert read_model(*made.to_document()) == made
    early = train(frame, (START + pd.Timedelta(days=10)).to_pydatetime(), SETTINGS)
    assert early.status == "prior"
    assert "early outcomes alone mislead" in early.explanation


def test_noise_does_not_become_a_model(frame: pd.DataFrame) -> None:
    served = []
    for seed in range(3):
        noise = frame.copy()
        noise["acted"] = np.random.default_rng(seed).permutation(frame["acted"].to_numpy())
        served.append(train(noise, CUT, SETTINGS).status)
    assert served == ["baseline"] * 3


def test_one_rule_and_one_day_are_no_errors(frame: pd.DataFrame) -> None:
    assert train(frame[frame["rule"] == "rule 7"], CUT, SETTINGS).status in ("model", "baseline")
    day = frame.copy()
    day["raised_at"] = START
    day["known_at"] = START + timedelta(days=14)
    made = train(day, CUT, SETTINGS)
    assert made.status == "baseline"
    assert "too close in time" in made.explanation


def test_excluded_alerts_teach_nothing(frame: pd.DataFrame) -> None:
    flooded = frame.copy()
    flooded["excluded"] = flooded["rule"].isin(["rule 0", "rule 1"])
    without = frame[~flooded["excluded"]]
    assert train(flooded, CUT, SETTINGS).version == train(without, CUT, SETTINGS).version


def test_a_cut_without_time_zone_is_a_bug() -> None:
    with pytest.raises(ValueError, match="time zone"):
        train(pd.DataFrame(), datetime(2024, 1, 1), SETTINGS)


def test_rule_day_blocks() -> None:
    frame = pd.DataFrame(
        {
            "rule": ["a", "a", "a", "b", None],
            "raised_at": pd.to_datetime(
                ["2024-01-01T01Z", "2024-01-01T23Z", "2024-01-02T01Z"] + ["2024-01-01T01Z"] * 2
            ),
        }
    )
    codes = rule_day_blocks(frame)
    assert codes[0] == codes[1]
    assert len(set(codes)) == 4
    assert set(codes) == set(range(4))
