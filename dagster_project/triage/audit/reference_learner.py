"""A quick learner for audits, and forecasts that it makes as time goes by.

Belongs here: one fixed, small way to learn that every audit can afford to repeat, and rolling-origin forecasts
made with it.
Does not belong here: the model that serves (`learning/training.py`), tuning, calibration, and what an audit concludes
(`audit/leakage.py`, `audit/shortcut.py`, `audit/scorecard.py`).

An audit compares the same learner with and without something. What the learner is matters little as long as it
is the same on both sides, finds what trees find, and costs seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.metrics import clip_probability
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.learning.baselines import fit_baselines

# (training frame, test frame) -> probability of action per test alert.
FitPredict = Callable[[pd.DataFrame, pd.DataFrame], np.ndarray]

FORECAST_FACTS = ("alert_id", "raised_at", "rule", "entity", "team", "severity", "acted", "excluded")
MODEL = "model"

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


def quick_learner(
    settings: FeatureSettings,
    *,
    extra: Sequence[str] = (),
    rounds: int = ROUNDS,
    threads: int = 1,
    seed: int = 20_250_101,
) -> FitPredict:
    """A learner that is taught on one frame and forecasts another.

    Parameters
    ----------
    settings : the history features that both frames hold.
    extra : numeric columns of the frames that take part beside the planned ones.
    rounds : trees. threads : CPU threads; the forecasts do not depend on them.

    Returns
    -------
    `fit_predict(train, test)`: `train` has `acted` (0.0 or 1.0, nan for not known; such alerts and those with
    `excluded` do not teach), `test` needs no outcomes; float64 probabilities in (0, 1), one per row of `test`.
    With fewer than two teaching alerts of a kind the answer is their rate (Jeffreys' prior).
    """

    def fit_predict(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
        taught = teaching(train)
        y = taught["acted"].to_numpy(dtype=np.float64)
        if not len(test):
            return np.zeros(0)
        if min(y.sum(), len(y) - y.sum()) < 2:
            return np.full(len(test), (y.sum() + 0.5) / (len(y) + 1.0))
        import lightgbm as lgb

        plan = plan_columns(taught, settings)
        known = _matrix(plan.matrix(taught), taught, extra)
        wanted = _matrix(plan.matrix(test), test, extra)
        parameters = {**PARAMETERS, "seed": seed, "num_threads": threads}
        data = lgb.Dataset(known, y, categorical_feature=plan.categorical, params=parameters, free_raw_data=True)
        booster = lgb.train(parameters, data, rounds)
        made = np.asarray(booster.predict(wanted, num_threads=threads), dtype=np.float64)
        return clip_probability(made, 1e-4)

    return fit_predict


def _matrix(planned: np.ndarray, frame: pd.DataFrame, extra: Sequence[str]) -> np.ndarray:
    if not extra:
        return planned
    more = [pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float32, na_value=np.nan) for name in extra]
    return np.column_stack([planned, *more])


def teaching(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that teach: outcome known, not excluded."""
    mask = frame["acted"].notna()
    if "excluded" in frame:
        mask &= ~frame["excluded"].astype(bool)
    return frame[mask]


def rolling_forecasts(
    frame: pd.DataFrame,
    fit_predict: FitPredict,
    settings: FeatureSettings,
    *,
    folds: int = 4,
    first_share: float = 0.4,
    horizon: timedelta = timedelta(days=14),
) -> pd.DataFrame:
    """Forecasts of alerts by learners that were taught before them (rolling origin, purged).

    Parameters
    ----------
    frame : as `steps.training_frame` returns it, in any order.
    folds : equally many alerts each, one after the other. first_share : of the alerts, before the first fold.
    horizon : alerts teach at a cut when they were raised at least this long before it; younger ones are known
        early only because somebody was quick.

    Returns
    -------
    One row per alert raised after the first cut, in order of time: `FORECAST_FACTS`, fold (int64, from 0), `model`
    and one column per baseline: float64 probabilities.
    """
    ordered = frame.sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
    edges = np.linspace(first_share, 1.0, folds + 1) * len(ordered)
    parts = []
    for fold, (start, end) in enumerate(zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True)):
        test = ordered.iloc[start:end]
        if not len(test):
            continue
        cut = test["raised_at"].iloc[0]
        past = ordered[(ordered["raised_at"] + horizon <= cut) & (ordered["known_at"] < cut)]
        made = test[list(FORECAST_FACTS)].assign(fold=fold)
        made[MODEL] = fit_predict(past, test)
        taught = teaching(past)
        for name, baseline in fit_baselines(taught, taught["acted"].to_numpy(np.float64), settings).items():
            made[name] = baseline.predict(test)
        parts.append(made)
    return pd.concat(parts, ignore_index=True)
