"""The reference learner of the audits.

Belongs here: one fixed, small way to learn that every audit can afford to repeat.
Does not belong here: the model that serves (`learning/training.py`), tuning, calibration, and what an audit concludes
(`audit/leakage.py`, `audit/shortcut.py`, `audit/scorecard.py`).

An audit compares the same learner with and without something. Which learner that is matters little, as long as it is
the same on both sides, finds what trees find, and takes seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.metrics import clip_probability
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.matrix import plan_columns

# (training frame, test frame) -> probability of action per test alert.
FitPredict = Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]

# Shallow trees and strong regularisation, as the serving model's. On 59 teams of 8 worlds (seeds 3,000 to 3,007) three
# times as many trees lowered the mean AUC by 0.003.
PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "learning_rate": 0.1,
    "num_leaves": 8,
    "min_data_in_leaf": 30,
    "lambda_l2": 5.0,
    "feature_fraction": 0.5,
    "cat_smooth": 20.0,
    "cat_l2": 20.0,
    "min_data_per_group": 50,
    "max_cat_threshold": 16,
    "max_bin": 127,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS = 80


def reference_learner(
    settings: FeatureSettings,
    *,
    extra: Sequence[str] = (),
    rounds: int = ROUNDS,
    threads: int = 1,
    seed: int = 20_250_101,
) -> FitPredict:
    """A learner that trains on one frame and forecasts another.

    settings : the history features that both frames hold.
    extra : further numeric columns of the frames to learn from.
    rounds : trees. threads : CPU threads; the forecasts do not depend on them.
    Returns: `fit_predict(train, test)`: `train` has `acted` (0.0 or 1.0, nan for not known; such alerts and those with
        `excluded` are not trained on), `test` needs no outcomes; float64 probabilities in (0, 1), one per row of
        `test`. With fewer than two alerts of either outcome to train on, the answer is their rate (Jeffreys' prior).
    """

    def fit_predict(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
        known = trainable(train)
        y = known["acted"].to_numpy(dtype=np.float64)
        if not len(test):
            return np.zeros(0)
        if min(y.sum(), len(y) - y.sum()) < 2:
            return np.full(len(test), (y.sum() + 0.5) / (len(y) + 1.0))
        import lightgbm as lgb

        plan = plan_columns(known, settings)
        matrix = _matrix(plan.matrix(known), known, extra)
        wanted = _matrix(plan.matrix(test), test, extra)
        parameters = {**PARAMETERS, "seed": seed, "num_threads": threads}
        data = lgb.Dataset(matrix, y, categorical_feature=plan.categorical, params=parameters, free_raw_data=True)
        booster = lgb.train(parameters, data, rounds)
        probability = np.asarray(booster.predict(wanted, num_threads=threads), dtype=np.float64)
        return clip_probability(probability, 1e-4)

    return fit_predict


def _matrix(planned: np.ndarray, frame: pd.DataFrame, extra: Sequence[str]) -> np.ndarray:
    if not extra:
        return planned
    more = [pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float32, na_value=np.nan) for name in extra]
    return np.column_stack([planned, *more])


def trainable(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows to train on: outcome known, not excluded."""
    mask = frame["acted"].notna()
    if "excluded" in frame:
        mask &= ~frame["excluded"].astype(bool)
    return frame[mask]
