"""The competition between candidates: which trees take part, how many, and how their blend is calibrated.

Belongs here: fitting every candidate at every inner cut, and choosing from the forecasts made there.
Does not belong here: whether the winners serve instead of a baseline (`training.py`), which candidates there are
(`candidates.py`), and LightGBM itself (`boosting.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.features.contract import history_features_for
from dagster_project.triage.features.history.definition import span_name
from dagster_project.triage.features.matrix import HISTORY_SOURCES, SIGNAL_SOURCES, ColumnPlan, plan_columns
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.baselines import read_by_baselines
from dagster_project.triage.learning.calibration import Calibration, choose_calibration, uninfluenced
from dagster_project.triage.learning.candidates import FEW, SHARES_OF_TREES, Candidate
from dagster_project.triage.learning.past import Past, join


@dataclass(frozen=True)
class Choice:
    """What production would use: the members of the blend, how many trees each, and the calibration of their mean."""

    members: tuple[int, ...]
    trees: tuple[int, ...]
    calibration: Calibration


class Competition:
    """The candidates' forecasts at every inner cut, and what they decide.

    A candidate that is not part of the default, and that does not improve the blend at some inner cut, leaves the race:
    it would have to be fitted several times more only to be left out. The past's frame loses the columns that only the
    matrix needs.
    """

    def __init__(self, past: Past) -> None:
        self.past, self.settings = past, past.settings
        settings, mature = past.settings, int((~past.excluded).sum())
        self.candidates = [
            c
            for c in settings.candidates
            if c.minimum_alerts <= mature and (c.maximum_alerts is None or mature < c.maximum_alerts)
        ]
        trained = ~past.excluded
        for fold in past.folds:
            trained[fold.training] = True
        self.plan: ColumnPlan = plan_columns(past.mature, settings.features, ~past.excluded, settings.withheld)
        self.matrix = self.plan.matrix(past.mature)
        # The matrix holds the frame's history columns; only the baselines still read some of them in the frame.
        spare = {f.name for f in history_features_for(settings.features)} - read_by_baselines(settings.features)
        past.mature = past.mature.drop(columns=[name for name in past.mature if name in spare])
        self.place = np.cumsum(trained) - 1
        self.binned = boosting.Binned(
            self.matrix if trained.all() else self.matrix[trained],
            past.acted[trained],
            boosting.safe_names(self.plan.names),
            self.plan.categorical,
            settings.seed,
            settings.threads,
        )
        # Log-odds on the validation alerts of each inner cut, by candidate, inner cut and number of trees.
        self.scores: dict[tuple[int, int, int], np.ndarray] = {}
        self.racing = set(range(len(self.candidates)))
        self.left: dict[int, dict[str, Any]] = {}
        for number, fold in enumerate(past.folds):
            for index in sorted(self.racing):
                candidate = self.candidates[index]
                booster = self._fit(candidate, fold.training, fold.cut, candidate.trees)
                matrix = self.matrix[fold.validation]
                for trees in self._numbers_of_trees(candidate):
                    self.scores[index, number, trees] = boosting.log_odds(booster, matrix, trees, self.binned.threads)
            self.racing -= self._left_behind(number + 1)

    def _fit(
        self,
        candidate: Candidate,
        rows: np.ndarray,
        cut: datetime,
        trees: int,
        elsewhere: Callable[[boosting.Fit], str] | None = None,
    ) -> Any:
        weight = np.ones(len(rows))
        if candidate.half_life is not None:
            raised = self.past.mature["raised_at"].iloc[rows]
            age = (pd.Timestamp(cut) - raised).dt.total_seconds().to_numpy(dtype=np.float64)
            weight = np.exp2(-age / candidate.half_life.total_seconds())
            weight /= weight.mean()
        columns, parameters = self._columns(candidate), dict(candidate.parameters)
        if elsewhere is not None:
            return self.binned.fit_elsewhere(
                self.matrix[rows], self.past.acted[rows], weight, parameters, columns, trees, elsewhere
            )
        return self.binned.fit(self.place[rows], weight, parameters, columns, trees)

    def _columns(self, candidate: Candidate) -> list[int]:
        def takes_part(position: int) -> bool:
            column = self.plan.columns[position]
            if column.source == "name":
                return candidate.names
            if column.source in SIGNAL_SOURCES:
                return candidate.signals
            if column.source not in HISTORY_SOURCES or candidate.history == "all":
                return True
            long_share = column.source == "share" and column.name.endswith(longest)
            return candidate.history == "few" and (long_share or any(word in column.name for word in FEW))

        spans = sorted(self.settings.features.outcome_windows)
        longest = f"_{span_name(spans[-1])}" if spans else "_"
        return [i for i in range(len(self.plan.columns)) if takes_part(i)]

    def _numbers_of_trees(self, candidate: Candidate) -> tuple[int, ...]:
        """All trees first: the default."""
        fewer = (round(candidate.trees * share) for share in SHARES_OF_TREES)
        return (candidate.trees, *sorted({t for t in fewer if 0 < t < candidate.trees}, reverse=True))

    def _past(self, candidate: int, trees: int, folds: int) -> np.ndarray:
        return join([self.scores[candidate, f, trees] for f in range(folds)])

    def _choose_trees(self, folds: int) -> dict[int, int]:
        """Number of trees of each racing candidate: all, unless fewer did better beyond noise."""
        counted, y, blocks = self.past.seen(folds)
        chosen = {}
        for index in sorted(self.racing):
            default, *others = self._numbers_of_trees(self.candidates[index])
            chosen[index] = default
            best = metrics.log_losses(metrics.expit(self._past(index, default, folds)[counted]), y)
            for trees in others if len(y) else ():
                loss = metrics.log_losses(metrics.expit(self._past(index, trees, folds)[counted]), y)
                if metrics.clearly_better(best - loss, blocks):
                    chosen[index], best = trees, loss
        return chosen

    def _blend(self, members: list[int], trees: dict[int, int], folds: int) -> np.ndarray:
        return np.mean([self._past(m, trees[m], folds) for m in members], axis=0)

    def _defaults(self) -> list[int]:
        defaults = [i for i, c in enumerate(self.candidates) if c.default]
        return defaults or list(range(len(self.candidates)))

    def _left_behind(self, folds: int) -> set[int]:
        """Candidates outside the default that make the default blend worse so far."""
        if not len(self.past.seen(folds)[1]):
            return set()
        trees, defaults = self._choose_trees(folds), self._defaults()
        for i in sorted(self.racing - set(defaults)):
            gain = self._gain(i, defaults, trees, folds)
            if not gain["nats"] > 0:
                self.left[i] = {"role": "left the race: the blend was no better with it", "gain": gain}
        return set(self.left)

    def _gain(self, candidate: int, members: Sequence[int], trees: dict[int, int], folds: int) -> dict[str, Any]:
        """What the blend gains by a candidate: log-loss without it less log-loss with it, before calibration."""
        counted, y, blocks = self.past.seen(folds)
        without = [m for m in members if m != candidate]
        if not without:
            return {"nats": None, "low": None, "high": None, "alerts": len(y)}

        def losses(which: list[int]) -> np.ndarray:
            return metrics.log_losses(metrics.expit(self._blend(which, trees, folds)[counted]), y)

        gain = losses(without) - losses(sorted([*without, candidate]))
        low, high = metrics.interval(
            lambda w: float(np.dot(w, gain) / max(w.sum(), 1e-300)),
            blocks,
            self.settings.replicates,
            self.settings.seed,
        )
        return {"nats": rounded(gain.mean()), "low": rounded(low), "high": rounded(high), "alerts": len(y)}

    def decide(self, folds: int) -> Choice:
        """What the first `folds` inner cuts say: members, their trees, and a calibration.

        Starting from the default blend, the one change (a member in or out) that gains most is made, as long as it
        gains more than noise.
        """
        counted, y, blocks = self.past.seen(folds)
        trees, members = self._choose_trees(folds), self._defaults()
        if not len(y):
            return Choice(tuple(members), tuple(trees[m] for m in members), Calibration())

        def loss(which: list[int]) -> np.ndarray:
            return metrics.log_losses(metrics.expit(self._blend(which, trees, folds)[counted]), y)

        now = loss(members)
        for _ in range(2 * len(self.candidates)):
            changes = [sorted(set(members) ^ {i}) for i in sorted(self.racing)]
            tried = [(loss(which), which) for which in changes if which]
            better = [(other.mean(), which) for other, which in tried if metrics.clearly_better(now - other, blocks)]
            if not better:
                break
            members = min(better, key=lambda pair: (pair[0], pair[1]))[1]
            now = loss(members)
        rows = join([fold.validation for fold in self.past.folds[:folds]], np.int64)[counted]
        order = self.past.mature["raised_at"].astype("int64").to_numpy()[rows]
        blend = metrics.expit(self._blend(members, trees, folds)[counted])
        # Trees learn from all outcomes; their level is fitted on those that no shown score touched.
        free = uninfluenced(self.past.influenced[rows], y)
        calibration, _ = choose_calibration(blend[free], y[free], order[free])
        return Choice(tuple(members), tuple(trees[m] for m in members), calibration)

    def forecast(self, fold: int, choice: Choice) -> np.ndarray:
        scores = [self.scores[c, fold, t] for c, t in zip(choice.members, choice.trees, strict=True)]
        return choice.calibration.apply(metrics.expit(np.mean(scores, axis=0)))

    def forecasts(self) -> np.ndarray:
        """Probabilities for all validation alerts: at each inner cut by what the inner cuts before it decide."""
        return np.concatenate([self.forecast(fold, self.decide(fold)) for fold in range(len(self.past.folds))])

    def final_trees(self, choice: Choice) -> str:
        """The chosen members, fitted again on all mature alerts that no flag excludes: LightGBM's text."""
        rows = np.flatnonzero(~self.past.excluded)
        return boosting.joined_text(
            [
                self._fit(self.candidates[index], rows, self.past.cut, trees, self.settings.fit_elsewhere)
                for index, trees in zip(choice.members, choice.trees, strict=True)
            ]
        )

    def evidence(self, choice: Choice) -> dict[str, Any]:
        """By candidate: its role, its own loss, and what the blend gains by it, with a 95% block-bootstrap interval."""
        folds = len(self.past.folds)
        counted, y, _ = self.past.seen(folds)
        trees = self._choose_trees(folds)
        by_candidate: dict[str, Any] = {}
        for index, candidate in enumerate(self.candidates):
            if index not in self.racing:
                by_candidate[candidate.name] = self.left[index]
                continue
            p = metrics.expit(self._past(index, trees[index], folds)[counted])
            role = "in the blend" if index in choice.members else "not in the blend"
            by_candidate[candidate.name] = {
                "role": role,
                "log_loss": rounded(metrics.log_loss(p, y)),
                "trees": trees[index],
                "gain": self._gain(index, choice.members, trees, folds),
            }
        return by_candidate


def rounded(value: float) -> float | None:
    """Six digits for the evidence; None for what JSON cannot hold."""
    return round(float(value), 6) if np.isfinite(value) else None
