"""Recalibration of a champion that stays.

Belongs here: the map from a champion's forecasts of alerts raised since its training to their outcomes; and the
forecasts that such a map would have made at earlier moments, as its evidence.
Does not belong here: the kinds of maps and choosing among them (`learning/calibration.py`), whether a champion stays
(`champion/gate.py`).

A champion may stay for months while candidates are refused. Its ranking of alerts then holds better than the level of
its probabilities: on the real alerts one champion stayed for 16 weeks, and with such a map the decile error of the
whole replay was 0.048 instead of 0.064, and the log-loss 0.379 instead of 0.384. The trees, their columns and reasons
stay as they are; the scores change, their order does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.learning.calibration import Calibration, choose_calibration, uninfluenced
from dagster_project.triage.learning.model import LIGHTGBM, MIXTURE, Model, Recalibration
from dagster_project.triage.learning.past import horizon_ends


def recalibrate(champion: Model, frame: pd.DataFrame, cut: datetime, horizon: timedelta) -> Model:
    """The champion with the map that fits its forecasts since training best; without a map where none is better.

    champion : any recalibration it already has is replaced, never added to.
    frame : the training frame at `cut`. Alerts count that were raised at or after `champion.cut`, whose horizon is over
        and whose outcome is known by `cut`, and that no flag excludes.

    Only what was learned is recalibrated: a prior has nothing to map.
    """
    trained = champion.as_trained()
    if trained.kind not in (LIGHTGBM, MIXTURE):
        return trained
    since = frame[_since(frame, trained.cut, cut, horizon)]
    calibration = _map(since, trained.predict(since))
    if calibration.kind == "none":
        return trained
    return replace(trained, recalibration=Recalibration(calibration, cut, len(since)))


def forecasts_since(
    champion: Model, forecasts: pd.DataFrame, inner_cuts: Sequence[datetime], frame: pd.DataFrame, horizon: timedelta
) -> pd.DataFrame:
    """The forecasts that a recalibrated champion would have made of the alerts of a candidate's inner cuts.

    forecasts : `Learned.forecasts` of the candidate. inner_cuts : the moment of each `fold`, in order.
    frame : as for `recalibrate`.
    Returns: The rows of `forecasts` raised since the champion was trained, with the column "model" replaced: each alert
        is forecast with the map of its inner cut, which was fitted on nothing later.
    """
    trained = champion.as_trained()
    rows = forecasts[forecasts["raised_at"] >= pd.Timestamp(trained.cut)].reset_index(drop=True)
    facts = rows[["alert_id"]].merge(frame, on="alert_id", how="left", validate="one_to_one")
    probability = trained.predict(facts)
    seen = frame[(frame["raised_at"] >= pd.Timestamp(trained.cut)) & frame["acted"].notna()]
    before = trained.predict(seen)
    for fold, cut in enumerate(inner_cuts):
        now = (rows["fold"] == fold).to_numpy()
        ripe = _since(seen, trained.cut, cut, horizon)
        probability[now] = _map(seen[ripe], before[ripe]).apply(probability[now])
    place = list(rows.columns).index("fold") + 1  # before the baselines, as `learn` puts it
    rows = rows.drop(columns=MODEL, errors="ignore")
    rows.insert(place, MODEL, probability)
    return rows


def in_words(champion: Model) -> str:
    """Why a champion that stayed has a new version."""
    recalibration = champion.recalibration
    if recalibration is None:
        return "the champion stays as it was trained: no map over its scores improves them any more"
    return (
        f"the champion stays, recalibrated ({recalibration.calibration.kind}) on {recalibration.alerts} alerts raised "
        "since it was trained; the order of its scores is unchanged"
    )


def _since(frame: pd.DataFrame, trained: datetime, cut: datetime, horizon: timedelta) -> np.ndarray:
    """Mask of alerts raised since training, over and known at the cut, and not excluded by a flag decided by then."""
    at = pd.Timestamp(cut)
    excluded = frame["excluded"].fillna(False).to_numpy(dtype=bool)
    if "excluded_since" in frame:
        excluded = excluded & ~(frame["excluded_since"] > at).to_numpy(dtype=bool)
    known = frame["acted"].notna() & (frame["known_at"] <= at) & (horizon_ends(frame, horizon) <= at)
    return (known & (frame["raised_at"] >= pd.Timestamp(trained))).to_numpy(dtype=bool) & ~excluded


def _map(alerts: pd.DataFrame, probability: np.ndarray) -> Calibration:
    acted = alerts["acted"].to_numpy(dtype=np.float64)
    if "influenced" in alerts:
        free = uninfluenced(alerts["influenced"].to_numpy(dtype=bool), acted)
        alerts, probability, acted = alerts[free], probability[free], acted[free]
    # Alerts of one rule-day share the weight of the square root of their number, as in learning. A burst of hundreds
    # would otherwise move the level of all others.
    block = rule_day_blocks(alerts)
    order = alerts["raised_at"].astype("int64").to_numpy()
    return choose_calibration(probability, acted, order, np.bincount(block)[block] ** -0.5)[0]
