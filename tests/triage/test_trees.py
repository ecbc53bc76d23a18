"""Taught trees: scores and contributions are LightGBM's own, whatever the splits and the missing values."""

import re
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.trees import Forest
from dagster_project.triage.learning.trees.text import Unsupported, read_trees

COLUMNS = 7


def alerts(rng: np.random.Generator, number: int) -> np.ndarray:
    """Columns of every kind: categories, counts with many zeros, numbers with and without missing values."""
    x = rng.normal(size=(number, COLUMNS)).astype(np.float32)
    x[:, 0] = rng.integers(0, 70, number)
    x[:, 1] = rng.integers(0, 3, number)
    x[:, 2] = rng.poisson(0.7, number)
    x[rng.random((number, COLUMNS)) < 0.15] = np.nan
    x[:, 3] = np.nan_to_num(x[:, 3])
    return x


def taught(rng: np.random.Generator, leaves: int, trees: int, **more: Any) -> lgb.Booster:
    x = alerts(rng, 400)
    raw = np.nan_to_num(x[:, 4]) * (x[:, 1] == 1) + np.nan_to_num(x[:, 0] % 5) - 2 + np.nan_to_num(x[:, 2])
    y = (rng.random(len(x)) < 1 / (1 + np.exp(-raw))).astype(np.float64)
    parameters = {
        "objective": "binary",
        "num_leaves": leaves,
        "min_data_in_leaf": 3,
        "cat_smooth": 1.0,
        "verbosity": -1,
    }
    parameters |= {"num_threads": 1, "seed": int(rng.integers(1000)), "extra_trees": bool(rng.integers(2)), **more}
    data = lgb.Dataset(x, y, categorical_feature=[0, 1], params={"min_data_in_bin": 1, **parameters})
    return lgb.train(parameters, data, trees)


def strange(rng: np.random.Generator) -> np.ndarray:
    """Alerts with what training never saw."""
    x = alerts(rng, 60)
    x[:4, 0], x[4:8, 0], x[8:12, 1] = -3, 400, 1.7
    x[12:16, 3], x[16:18, 4], x[18:20, 4] = np.nan, np.inf, -np.inf
    x[20:24, 5], x[24:28, 2] = 1e-36, -0.0
    return x


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    leaves=st.sampled_from([2, 3, 8, 31, 63]),
    more=st.sampled_from([{}, {"zero_as_missing": True}, {"use_missing": False}, {"max_depth": 3}]),
)
def test_scores_and_contributions_are_those_of_lightgbm(seed: int, leaves: int, more: dict[str, Any]) -> None:
    rng = np.random.default_rng(seed)
    booster = taught(rng, leaves, 4, **more)
    forest, x = Forest(booster.model_to_string()), strange(rng)
    raw = forest.raw_scores(x)
    assert np.array_equal(raw, booster.predict(x, raw_score=True, num_threads=1))
    expected = booster.predict(x, pred_contrib=True, num_threads=1)
    made = forest.contributions(x)
    assert np.abs(made - expected[:, :-1]).max() < 1e-9
    # They add up to the score, and what is left is the same for all alerts.
    assert np.ptp(raw - made.sum(axis=1)) < 1e-9
    assert np.array_equal(forest.contributions(x[:1]), made[:1])


def test_a_blend_is_the_sum_of_its_members_in_any_batches_and_threads() -> None:
    rng = np.random.default_rng(4)
    x = np.concatenate([alerts(rng, 20_000), strange(rng)])
    members = [taught(rng, 31, 3), taught(rng, 8, 5), taught(rng, 2, 1, min_data_in_leaf=300)]
    text = boosting.joined_text(members)
    forest, blend = Forest(text), lgb.Booster(model_str=text)
    raw, made = forest.raw_scores(x), forest.contributions(x)
    assert np.array_equal(raw, blend.predict(x, raw_score=True, num_threads=1))
    assert np.abs(made[-500:] - blend.predict(x[-500:], pred_contrib=True, num_threads=1)[:, :-1]).max() < 1e-9
    assert np.array_equal(forest.raw_scores(x, threads=3), raw)
    assert np.array_equal(forest.contributions(x, threads=3), made)
    assert np.array_equal(forest.raw_scores(x[777:1234]), raw[777:1234])
    assert np.array_equal(forest.contributions(x[777:1234]), made[777:1234])


def test_long_paths_and_large_trees() -> None:
    """Paths of one split after the other, and trees that only LightGBM can walk."""
    rng = np.random.default_rng(6)
    booster, x = taught(rng, 40, 3), strange(rng)
    forest = Forest(booster.model_to_string())
    expected = booster.predict(x, pred_contrib=True, num_threads=1)[:, :-1]
    assert np.abs(forest.contributions(x) - expected).max() < 1e-9
    large = taught(rng, 100, 2, min_data_in_leaf=1)
    with pytest.raises(Unsupported):
        read_trees(large.model_to_string())
    forest = Forest(large.model_to_string())
    assert np.array_equal(forest.raw_scores(x), large.predict(x, raw_score=True, num_threads=1))
    assert np.array_equal(forest.contributions(x), large.predict(x, pred_contrib=True, num_threads=1)[:, :-1])


def test_what_is_no_whole_model_is_refused() -> None:
    text = taught(np.random.default_rng(1), 8, 2).model_to_string()
    for broken in (
        "",
        text[: len(text) // 3],
        re.sub("left_child=-?[0-9]+", "left_child=0", text),
        text.replace("leaf_count=", "leaf_count=7 "),
        text.replace("split_feature=", "split_feature=99 ", 1),
    ):
        with pytest.raises(HeedError, match="cannot be read"):
            Forest(broken)
    with pytest.raises(HeedError, match="3 columns"):
        Forest(text).raw_scores(np.zeros((2, 3), np.float32))
