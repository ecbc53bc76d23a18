"""The past that a training at a cut may use, and the inner cuts that divide it.

Belongs here: which alerts count at which moment, and where the inner cuts lie.
Does not belong here: anything that is fitted (`training.py`, `tree_blend.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.learning.settings import LearningSettings


def usable_alerts(frame: pd.DataFrame, cut: datetime) -> np.ndarray:
    """Boolean mask: raised before the cut, outcome known at the cut, not excluded."""
    mask = known_alerts(frame, cut)
    if "excluded" in frame:
        mask = mask & ~frame["excluded"].fillna(False).to_numpy(dtype=bool)
    return mask


def known_alerts(frame: pd.DataFrame, cut: datetime) -> np.ndarray:
    """Boolean mask: raised before the cut, outcome known at the cut."""
    at = pd.Timestamp(cut)
    known = frame["acted"].notna() & frame["known_at"].notna() & (frame["known_at"] <= at)
    return ((frame["raised_at"] < at) & known).to_numpy(dtype=bool)


def horizon_ends(frame: pd.DataFrame, horizon: timedelta) -> pd.Series:
    """When the horizon of each alert is over: datetime, UTC."""
    if "horizon_ends_at" in frame:
        return frame["horizon_ends_at"]
    return frame["raised_at"] + pd.Timedelta(horizon)


def join(parts: list[np.ndarray], dtype: Any = np.float64) -> np.ndarray:
    """The parts as one array; an empty one when there are none."""
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


@dataclass(frozen=True)
class Fold:
    """An inner cut. training, validation : positions among the mature alerts, to learn from and to forecast."""

    cut: pd.Timestamp
    training: np.ndarray
    validation: np.ndarray


class Past:
    """The mature alerts of a training, in order of time, and their inner cuts.

    mature : the alerts. acted (float64), excluded, influenced (bool), blocks (code of the rule-day) : one per alert.
    folds : the inner cuts. validation : positions of all alerts that they forecast, fold by fold.
    """

    def __init__(self, mature: pd.DataFrame, cut: datetime, settings: LearningSettings) -> None:
        self.mature, self.cut, self.settings = mature, cut, settings
        self.acted = mature["acted"].to_numpy(dtype=np.float64)
        self.excluded = (
            mature["excluded"].fillna(False).to_numpy(dtype=bool)
            if "excluded" in mature
            else np.zeros(len(mature), dtype=bool)
        )
        self.influenced = (
            mature["influenced"].to_numpy(dtype=bool) if "influenced" in mature else np.zeros(len(mature), dtype=bool)
        )
        empty = bool(self.excluded.all())
        self.blocks = np.zeros(len(mature), dtype=np.int64) if empty else rule_day_blocks(mature)
        self.folds = [] if empty else self._inner_cuts()
        self.validation = join([fold.validation for fold in self.folds], np.int64)

    def usable_at(self, moment: pd.Timestamp) -> np.ndarray:
        """Mask of alerts that are mature at the moment, and not excluded by a flag decided by then."""
        excluded = self.excluded
        if "excluded_since" in self.mature:
            later = (self.mature["excluded_since"] > moment).to_numpy(dtype=bool)
            excluded = excluded & ~later
        return (horizon_ends(self.mature, self.settings.horizon) <= moment).to_numpy() & ~excluded

    def _inner_cuts(self) -> list[Fold]:
        """Inner cuts in the last part; those with too little to learn from or to test on are left out.

        The part and its folds are shares of the sum of square roots of rule-days, not of the alerts: otherwise one
        day of 1,000 alerts would hold most of the inner cuts.
        """
        mature, settings = self.mature, self.settings
        counted = np.flatnonzero(~self.excluded)
        step = max(1, -(-len(counted) // settings.tuning_alerts))
        tuning = counted[::step]
        raised = mature["raised_at"]
        size = np.bincount(self.blocks[counted], minlength=int(self.blocks.max()) + 1)
        mass = np.cumsum(size[self.blocks[tuning]] ** -0.5)
        folds = settings.folds if len(counted) < settings.many_alerts else settings.folds_of_many
        shares = 1 - settings.tested_share * (1 - np.arange(folds) / folds)
        starts = tuning[np.minimum(np.searchsorted(mass, shares * mass[-1]), len(tuning) - 1)]
        cuts = sorted({raised.iloc[p] for p in starts})
        sampled = np.zeros(len(mature), dtype=bool)
        sampled[tuning] = True
        sampled[np.flatnonzero(self.excluded)[::step]] = True
        inner_cuts = []
        for i, cut in enumerate(cuts):
            training = np.flatnonzero(sampled & self.usable_at(cut))
            later = sampled & (raised >= cut).to_numpy()
            if i + 1 < len(cuts):
                later = later & (raised < cuts[i + 1]).to_numpy()
            validation = np.flatnonzero(later)
            if (~self.excluded[validation]).any() and len(training) >= 20 and 0 < self.acted[training].mean() < 1:
                inner_cuts.append(Fold(cut, training, validation))
        return inner_cuts

    def seen(self, folds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(mask of counted alerts, their outcomes, their blocks) of the first `folds` inner cuts.

        An alert counts when the next inner cut may learn from it: one raised the day before has no outcome yet.
        """
        rows = join([fold.validation for fold in self.folds[:folds]], np.int64)
        moment = self.folds[folds].cut if folds < len(self.folds) else pd.Timestamp(self.cut)
        counted = self.usable_at(moment)[rows]
        return counted, self.acted[rows[counted]], pd.factorize(self.blocks[rows[counted]])[0]
