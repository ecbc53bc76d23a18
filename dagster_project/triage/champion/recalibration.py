"""A champion that stays is calibrated anew.

Belongs here: the map from what a champion said, about alerts raised since it learned, to what came of them; and what
that map would have said at earlier moments, as its evidence.
Does not belong here: the kinds of maps and choosing among them (`learning/calibration.py`), whether a champion stays
(`champion/gate.py`).

A champion may stay for months, while candidates are refused. The order in which it puts alerts then holds better
than the level of its probabilities: on the real alerts one stayed for 16 weeks, and with such a map the decile error
of the whole replay was 0.048 instead of 0.064, its log-loss 0.379 instead of 0.384. The trees, their columns and
reasons stay as they are; scores move, all in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.learning.calibration import Calibration, choose_calibration, uninfluenced
from dagster_project.triage.learning.model import LIGHTGBM, Model, Recalibration
from dagster_project.triage.learning.training import horizon_ends


def recalibrate(champion: Model, frame: pd.DataFrame, cut: datetime, horizon: timedelta) -> Model:
    """The champion with the map that did best on what it said since it was taught; without one where none pays.

    Parameters
    ----------
    champion : a recalibration that it has is replaced, never added to.
    frame : the training frame at `cut`: alerts raised at or after `champion.cut`, whose horizon was over and outcome
        known by `cut`, and which no flag excludes, count.

    Only trees are recalibrated: a baseline is taught anew with every candidate.
    """
    taught = champion.as_taught()
    if taught.kind != LIGHTGBM:
        return taught
    since = frame[_since(frame, taught.cut, cut, horizon)]
    calibration = _map(since, taught.predict(since))
    if calibration.kind == "none":
        return taught
    return replace(taught, recalibration=Recalibration(calibration, cut, len(since)))


def forecasts_since(
    champion: Model, forecasts: pd.DataFrame, inner_cuts: Sequence[datetime], frame: pd.DataFrame, horizon: timedelta
) -> pd.DataFrame:
    """What a recalibrated champion would have said about the alerts of a candidate's inner cuts.

    Parameters
    ----------
    forecasts : `Learned.forecasts` of the candidate. inner_cuts : the moment of each `fold`, in order.
    frame : as for `recalibrate`.

    Returns
    -------
    The rows of `forecasts` raised since the champion was taught, the column "model" replaced: each alert by the map
    of its inner cut, fitted on nothing later.
    """
    taught = champion.as_taught()
    made = forecasts[forecasts["raised_at"] >= pd.Timestamp(taught.cut)].reset_index(drop=True)
    facts = made[["alert_id"]].merge(frame, on="alert_id", how="left", validate="one_to_one")
    said = taught.predict(facts)
    seen = frame[(frame["raised_at"] >= pd.Timestamp(taught.cut)) & frame["acted"].notna()]
    before = taught.predict(seen)
    for fold, moment in enumerate(inner_cuts):
        now = (made["fold"] == fold).to_numpy()
        ripe = _since(seen, taught.cut, moment, horizon)
        said[now] = _map(seen[ripe], before[ripe]).apply(said[now])
    place = list(made.columns).index("fold") + 1  # before the baselines, as `learn` puts it
    made = made.drop(columns=MODEL, errors="ignore")
    made.insert(place, MODEL, said)
    return made


def in_words(champion: Model) -> str:
    """Why a champion that stayed is a version of its own."""
    again = champion.recalibration
    if again is None:
        return "the champion stays as it was taught: no map over its scores pays any more"
    return (
        f"the champion stays, calibrated anew ({again.calibration.kind}) on {again.alerts} alerts raised since it "
        "learned; the order of its scores is unchanged"
    )


def _since(frame: pd.DataFrame, taught: datetime, cut: datetime, horizon: timedelta) -> np.ndarray:
    """Raised since the trees were taught, over and known at the cut, and not excluded by a flag decided by then."""
    at = pd.Timestamp(cut)
    excluded = frame["excluded"].fillna(False).to_numpy(dtype=bool)
    if "excluded_since" in frame:
        excluded = excluded & ~(frame["excluded_since"] > at).to_numpy(dtype=bool)
    known = frame["acted"].notna() & (frame["known_at"] <= at) & (horizon_ends(frame, horizon) <= at)
    return (known & (frame["raised_at"] >= pd.Timestamp(taught))).to_numpy(dtype=bool) & ~excluded


def _map(alerts: pd.DataFrame, said: np.ndarray) -> Calibration:
    acted = alerts["acted"].to_numpy(dtype=np.float64)
    if "influenced" in alerts:
        free = uninfluenced(alerts["influenced"].to_numpy(dtype=bool), acted)
        alerts, said, acted = alerts[free], said[free], acted[free]
    return choose_calibration(said, acted, alerts["raised_at"].astype("int64").to_numpy())[0]
