"""Learning actionability at a cut.

Belongs here: which alerts a training at a cut may use, tuning inside the past, and the competition between
ways to learn and baselines.
Does not belong here: the stored model (`learning/model.py`), LightGBM itself (`learning/boosting.py`), measuring the
forecasts (`evaluation/evidence.py`), the gate against the present champion (`champion/gate.py`). See also
`features/matrix.py` (columns), `learning/baselines.py`, `learning/calibration.py`.

How a training stands in time, at cut T:

1. Usable alerts were raised before T and their outcome was known at T. Of these only *mature* ones take part:
   raised at least one horizon before T. Younger alerts are known early only because somebody decided quickly;
   they would teach that everything is acted upon. Excluded alerts never teach, but are forecast.
2. Inner cuts lie in the last third of the mature alerts (rolling origin). At an inner cut c every candidate
   and every baseline is fitted on alerts that were mature at c and not excluded by a flag decided by c, and
   forecasts the alerts raised between c and the next inner cut.
3. Whatever is decided (candidates, number of trees, calibration) is decided for each inner cut from the
   forecasts of the inner cuts *before* it, as production would have done. The forecasts made with these
   decisions are the evidence: nothing in them was chosen with hindsight, and those of the last inner cut were
   touched by no decision at all. Trees serve only if they beat the best baseline there, with a block
   bootstrap interval above zero; the best baseline is chosen in the same way, from the inner cuts before.
4. For production the same decisions are made once more from all inner cuts, and the winners are fitted again
   on all mature alerts.

The default stands unless the past says otherwise beyond its noise. Alert histories are short and move in
leaps: on the real alerts (22 cuts, 10,040 alerts) choosing freely by the smallest past loss had a log-loss
0.09 above the same candidates left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import CONSTANT, MODEL
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.features.contract import contract, history_features_for
from dagster_project.triage.features.history.definition import span_name
from dagster_project.triage.features.matrix import HISTORY_SOURCES, SIGNAL_SOURCES, ColumnPlan, plan_columns
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.baselines import Baseline, fit_baselines, read_by_baselines
from dagster_project.triage.learning.calibration import Calibration, choose_calibration, uninfluenced
from dagster_project.triage.learning.candidates import _FEW, SHARES_OF_TREES, Candidate, LearningSettings
from dagster_project.triage.learning.model import LIGHTGBM, PRIOR, Model

# How many cluster-robust standard errors a change must gain before it replaces the default.
BEYOND_NOISE = 2.0


@dataclass(frozen=True)
class Learned:
    """What a training gives.

    model : what scores from now on.
    forecasts : one row per alert of the inner cuts, flagged ones included, in order of time: alert_id,
        raised_at, rule, entity, team, severity (as far as given), rule_age_days (since the rule's first alert
        of the training set), last_outcome (of the rule, as known at raise; nan: none), acted, excluded, influenced
        (absent where none is), fold (0, 1, ...), and one column of probabilities per contender: "model" (the trees,
        decided and fitted on nothing later than the alert's inner cut; absent when there was too little to learn
        from) and every baseline. Empty when there was no inner cut.
    """

    model: Model
    forecasts: pd.DataFrame


def usable_alerts(frame: pd.DataFrame, cut: datetime) -> np.ndarray:
    """Boolean mask: raised before the cut, outcome known at the cut, not excluded."""
    mask = _known_alerts(frame, cut)
    if "excluded" in frame:
        mask = mask & ~frame["excluded"].fillna(False).to_numpy(dtype=bool)
    return mask


def _known_alerts(frame: pd.DataFrame, cut: datetime) -> np.ndarray:
    at = pd.Timestamp(cut)
    known = frame["acted"].notna() & frame["known_at"].notna() & (frame["known_at"] <= at)
    return ((frame["raised_at"] < at) & known).to_numpy(dtype=bool)


def train(frame: pd.DataFrame, cut: datetime, settings: LearningSettings) -> Model:
    """The model that `learn` gives."""
    return learn(frame, cut, settings).model


def learn(frame: pd.DataFrame, cut: datetime, settings: LearningSettings, proven: bool = False) -> Learned:
    """Learn from what was known at `cut`.

    Parameters
    ----------
    frame : one row per alert: `raised_at`, `known_at` (datetime, UTC), `acted` (1.0, 0.0, nan for not known),
        `excluded` (bool, may be absent), `excluded_since` (datetime, UTC: when the exclusion was decided; may
        be absent or null: always), `influenced` (bool: a shown score may have changed the outcome; may be absent:
        none), the raise-time columns, and the history columns of `settings.features`.
        Rows whose outcome was not known at the cut are ignored, so the whole table may be given.
    cut : time-zone aware.
    proven : whether the present champion is a model of trees. It became so by beating the best baseline beyond
        doubt, and that proof holds until it is refuted: trees then give way only when they lose beyond doubt.
        Otherwise an interval that happens to include zero would swap model and baseline from week to week.

    Never fails for want of data: with too little to learn from, the best baseline (or the prior) serves and
    `Model.explanation` says so. Deterministic: same rows, cut and settings give the same bytes, whatever the
    threads and the order of rows.
    """
    if cut.tzinfo is None:
        raise ValueError("the cut needs a time zone")
    known = int(usable_alerts(frame, cut).sum())
    by = ["raised_at", "alert_id"] if "alert_id" in frame else ["raised_at"]
    ripe = _known_alerts(frame, cut) & (horizon_ends(frame, settings.horizon) <= pd.Timestamp(cut)).to_numpy(dtype=bool)
    rows = np.flatnonzero(ripe)
    # Ordered by its keys alone: the frame is wide, and is copied once.
    order = frame[by].iloc[rows].reset_index(drop=True).sort_values(by, kind="stable").index.to_numpy()
    mature = frame.iloc[rows[order]].reset_index(drop=True)
    del frame  # where the caller holds it no more, its memory is needed for learning
    return _Training(known, mature, cut.astimezone(UTC), settings, proven).run()


@dataclass(frozen=True)
class _Fold:
    """Positions among the mature alerts: what teaches at the inner cut, and all that it forecasts."""

    cut: pd.Timestamp
    training: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class _Choice:
    """What production would use: members and their trees, and the calibration of their mean."""

    members: tuple[int, ...]
    trees: tuple[int, ...]
    calibration: Calibration


class _Training:
    """One training: holds the mature alerts, and what the inner cuts have shown so far."""

    def __init__(
        self, known: int, mature: pd.DataFrame, cut: datetime, settings: LearningSettings, proven: bool
    ) -> None:
        self.known, self.mature, self.cut, self.settings, self.proven = known, mature, cut, settings, proven
        self.contract = contract(settings.features)
        self.acted = mature["acted"].to_numpy(dtype=np.float64)
        self.excluded = (
            mature["excluded"].fillna(False).to_numpy(dtype=bool)
            if "excluded" in mature
            else np.zeros(len(mature), dtype=bool)
        )
        self.influenced = (
            mature["influenced"].to_numpy(dtype=bool) if "influenced" in mature else np.zeros(len(mature), dtype=bool)
        )
        taught = self.acted[~self.excluded]
        self.counts = {
            "known": known,
            "mature": len(taught),
            "acted": int(taught.sum()),
            "not_acted": int((taught == 0).sum()),
        }
        self.evidence: dict[str, Any] = {"alerts": self.counts}

    def run(self) -> Learned:
        if not self.counts["mature"]:
            return Learned(self._prior(), pd.DataFrame())
        self.blocks = rule_day_blocks(self.mature)
        self.folds = self._inner_cuts()
        self.validation = _join([fold.validation for fold in self.folds], np.int64)
        forecasts = self._baseline_forecasts()
        counted = ~self.excluded[self.validation]
        y = self.acted[self.validation][counted]
        baseline = self._baseline_in_the_past(forecasts)
        losses = {name: metrics.log_loss(p[counted], y) for name, p in forecasts.items()} if self.folds else {}
        best = min(losses, key=lambda name: losses[name]) if losses else CONSTANT
        self.evidence |= {
            "inner_cuts": [fold.cut.isoformat() for fold in self.folds],
            "validation_alerts": len(y),
            "log_loss": {name: _rounded(loss) for name, loss in losses.items()},
        }
        settings = self.settings
        if self.counts["acted"] < settings.minimum_acted or self.counts["not_acted"] < settings.minimum_not_acted:
            why = (
                f"too little to learn from: {self.counts['acted']} acted and {self.counts['not_acted']} not acted "
                f"outcomes are known, {settings.minimum_acted} and {settings.minimum_not_acted} are needed"
            )
            return Learned(self._baseline(best, why), self._table(forecasts))
        if not self.folds:
            why = "too little to learn from: the known outcomes lie too close in time to test a model on later ones"
            return Learned(self._baseline(best, why), self._table(forecasts))
        self._compete()
        trees = np.concatenate([self._forecast(fold, self._decide(fold)) for fold in range(len(self.folds))])
        gain = metrics.log_losses(baseline[counted], y) - metrics.log_losses(trees[counted], y)
        blocks = pd.factorize(self.blocks[self.validation][counted])[0]
        low, high = metrics.interval(
            lambda w: float(np.dot(w, gain) / max(w.sum(), 1e-300)), blocks, settings.replicates, settings.seed
        )
        choice = self._decide(len(self.folds))
        names = [self.candidates[i].name for i in choice.members]
        self.evidence["log_loss"][LIGHTGBM] = _rounded(metrics.log_loss(trees[counted], y))
        self.evidence["candidates"] = self._candidate_evidence(choice)
        self.evidence["chosen"] = {
            "candidates": names,
            "trees": list(choice.trees),
            "calibration": choice.calibration.to_document(),
        }
        self.evidence["gain_over_best_baseline"] = {
            "baseline_in_hindsight": best,
            "nats": _rounded(float(gain.mean())),
            "low": _rounded(low),
            "high": _rounded(high),
        }
        table = self._table({MODEL: trees, **forecasts})
        said = f"by {gain.mean():.3f} nats per alert (95% interval {low:.3f} to {high:.3f})"
        explanation = f"gradient-boosted trees ({'; '.join(names)}), taught on {self.counts['mature']} alerts; "
        if gain.mean() > 0 and low > 0:
            explanation += f"in the past they beat the best baseline {said}"
        elif self.proven and not high < 0:
            explanation += (
                f"they beat the best baseline beyond doubt before, and lately {said}, which does not refute it"
            )
        elif not settings.prove_first and not high < 0:
            explanation += f"they serve unproven, as the settings ask: in the past they beat the best baseline {said}"
        else:
            why = f"in the past no model beat the best baseline beyond doubt (the trees did {said})"
            return Learned(self._baseline(best, why), table)
        model = Model(
            LIGHTGBM,
            self.cut,
            self.contract,
            explanation,
            self.evidence,
            None,
            self.plan,
            choice.calibration,
            self._final_trees(choice),
            len(choice.members),
            threads=settings.threads,
        )
        return Learned(model, table)

    # Time

    def _taught_at(self, moment: pd.Timestamp) -> np.ndarray:
        """Mature at the moment, and not excluded by a flag that was decided by then."""
        excluded = self.excluded
        if "excluded_since" in self.mature:
            later = (self.mature["excluded_since"] > moment).to_numpy(dtype=bool)
            excluded = excluded & ~later
        return (horizon_ends(self.mature, self.settings.horizon) <= moment).to_numpy() & ~excluded

    def _inner_cuts(self) -> list[_Fold]:
        """Inner cuts in the last part; those that cannot teach or test are left out.

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
        made = []
        for i, cut in enumerate(cuts):
            training = np.flatnonzero(sampled & self._taught_at(cut))
            later = sampled & (raised >= cut).to_numpy()
            if i + 1 < len(cuts):
                later = later & (raised < cuts[i + 1]).to_numpy()
            validation = np.flatnonzero(later)
            if (~self.excluded[validation]).any() and len(training) >= 20 and 0 < self.acted[training].mean() < 1:
                made.append(_Fold(cut, training, validation))
        return made

    # Baselines

    def _baseline_forecasts(self) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        for fold in self.folds:
            training, later = self.mature.iloc[fold.training], self.mature.iloc[fold.validation]
            for name, baseline in self._fit_baselines(training, self.acted[fold.training]).items():
                parts.setdefault(name, []).append(baseline.predict(later))
        return {name: np.concatenate(p) for name, p in parts.items()}

    def _baseline_in_the_past(self, forecasts: dict[str, np.ndarray]) -> np.ndarray:
        """What the best baseline would have said: the best of the inner cuts before, the constant rate at first.

        The best in hindsight would be an unfair opponent: nobody could have chosen it.
        """
        made, end = [], 0
        for number, fold in enumerate(self.folds):
            counted, y, _ = self._seen(number)
            losses = {name: metrics.log_loss(p[: len(counted)][counted], y) for name, p in forecasts.items()}
            chosen = min(losses, key=lambda name: losses[name]) if len(y) else CONSTANT
            made.append(forecasts[chosen][end : end + len(fold.validation)])
            end += len(fold.validation)
        return _join(made)

    def _fit_baselines(self, frame: pd.DataFrame, acted: np.ndarray) -> dict[str, Baseline]:
        settings = self.settings
        return fit_baselines(frame, acted, settings.features, prior=settings.prior, withheld=settings.withheld)

    def _baseline(self, name: str, why: str) -> Model:
        fitted = self._fit_baselines(self.mature[~self.excluded], self.acted[~self.excluded])[name]
        explanation = f"{name.replace('_', ' ')} serves: {why}"
        return Model(
            name,
            self.cut,
            self.contract,
            explanation,
            self.evidence,
            fitted,
            threads=self.settings.threads,
        )

    def _prior(self) -> Model:
        """No alert is old enough for an unbiased outcome: the prior, moved by nothing."""
        a, b = self.settings.prior
        rate = a / (a + b)
        why = (
            "no outcome is known yet"
            if not self.known
            else f"{self.known} outcomes are known, none of an alert that is a whole horizon old, "
            "and early outcomes alone mislead"
        )
        return Model(
            PRIOR,
            self.cut,
            self.contract,
            f"every alert gets the prior probability {rate:.2f}: {why}",
            self.evidence,
            Baseline(CONSTANT, {"rate": float(rate)}),
            threads=self.settings.threads,
        )

    # Trees

    def _compete(self) -> None:
        """Fit every candidate at every inner cut.

        A candidate that is not part of the default, and that after an inner cut makes the blend no better,
        leaves the race: it would have to be fitted three times more only to be left out.
        """
        settings = self.settings
        mature = self.counts["mature"]
        self.candidates = [
            c
            for c in settings.candidates
            if c.minimum_alerts <= mature and (c.maximum_alerts is None or mature < c.maximum_alerts)
        ]
        taught = ~self.excluded
        for fold in self.folds:
            taught[fold.training] = True
        self.plan: ColumnPlan = plan_columns(self.mature, settings.features, ~self.excluded, settings.withheld)
        self.matrix = self.plan.matrix(self.mature)
        # The matrix says what the frame's history columns said, but for those that baselines read.
        spare = {f.name for f in history_features_for(settings.features)} - read_by_baselines(settings.features)
        self.mature = self.mature.drop(columns=[name for name in self.mature if name in spare])
        self.place = np.cumsum(taught) - 1
        self.binned = boosting.Binned(
            self.matrix if taught.all() else self.matrix[taught],
            self.acted[taught],
            boosting.safe_names(self.plan.names),
            self.plan.categorical,
            settings.seed,
            settings.threads,
        )
        # Log-odds on the validation alerts of each inner cut, by candidate, inner cut and number of trees.
        self.scores: dict[tuple[int, int, int], np.ndarray] = {}
        self.racing = set(range(len(self.candidates)))
        self.left: dict[int, dict[str, Any]] = {}
        for number, fold in enumerate(self.folds):
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
            raised = self.mature["raised_at"].iloc[rows]
            age = (pd.Timestamp(cut) - raised).dt.total_seconds().to_numpy(dtype=np.float64)
            weight = np.exp2(-age / candidate.half_life.total_seconds())
            weight /= weight.mean()
        columns, parameters = self._columns(candidate), dict(candidate.parameters)
        if elsewhere is not None:
            return self.binned.fit_elsewhere(
                self.matrix[rows], self.acted[rows], weight, parameters, columns, trees, elsewhere
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
            return candidate.history == "few" and (long_share or any(word in column.name for word in _FEW))

        spans = sorted(self.settings.features.outcome_windows)
        longest = f"_{span_name(spans[-1])}" if spans else "_"
        return [i for i in range(len(self.plan.columns)) if takes_part(i)]

    def _numbers_of_trees(self, candidate: Candidate) -> tuple[int, ...]:
        """All trees first: the default."""
        fewer = (round(candidate.trees * share) for share in SHARES_OF_TREES)
        return (candidate.trees, *sorted({t for t in fewer if 0 < t < candidate.trees}, reverse=True))

    def _seen(self, folds: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(mask of counted alerts, their outcomes, their blocks) of the first `folds` inner cuts.

        Counted are those from which the next inner cut may learn: an alert raised the day before it has no outcome yet.
        """
        rows = _join([fold.validation for fold in self.folds[:folds]], np.int64)
        moment = self.folds[folds].cut if folds < len(self.folds) else pd.Timestamp(self.cut)
        counted = self._taught_at(moment)[rows]
        return counted, self.acted[rows[counted]], pd.factorize(self.blocks[rows[counted]])[0]

    def _past(self, candidate: int, trees: int, folds: int) -> np.ndarray:
        return _join([self.scores[candidate, f, trees] for f in range(folds)])

    def _choose_trees(self, folds: int) -> dict[int, int]:
        """Number of trees of each racing candidate: all, unless fewer did better beyond noise."""
        counted, y, blocks = self._seen(folds)
        chosen = {}
        for index in sorted(self.racing):
            default, *others = self._numbers_of_trees(self.candidates[index])
            chosen[index] = default
            best = metrics.log_losses(metrics.expit(self._past(index, default, folds)[counted]), y)
            for trees in others if len(y) else ():
                loss = metrics.log_losses(metrics.expit(self._past(index, trees, folds)[counted]), y)
                if _clearly_better(best - loss, blocks):
                    chosen[index], best = trees, loss
        return chosen

    def _blend(self, members: list[int], trees: dict[int, int], folds: int) -> np.ndarray:
        return np.mean([self._past(m, trees[m], folds) for m in members], axis=0)

    def _defaults(self) -> list[int]:
        made = [i for i, c in enumerate(self.candidates) if c.default]
        return made or list(range(len(self.candidates)))

    def _left_behind(self, folds: int) -> set[int]:
        """Candidates outside the default that make the default blend worse so far."""
        if not len(self._seen(folds)[1]):
            return set()
        trees, defaults = self._choose_trees(folds), self._defaults()
        for i in sorted(self.racing - set(defaults)):
            gain = self._gain(i, defaults, trees, folds)
            if not gain["nats"] > 0:
                self.left[i] = {"role": "left the race: the blend was no better with it", "gain": gain}
        return set(self.left)

    def _gain(self, candidate: int, members: Sequence[int], trees: dict[int, int], folds: int) -> dict[str, Any]:
        """What the blend gains by a candidate: log-loss without it less log-loss with it, before calibration."""
        counted, y, blocks = self._seen(folds)
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
        return {"nats": _rounded(gain.mean()), "low": _rounded(low), "high": _rounded(high), "alerts": len(y)}

    def _decide(self, folds: int) -> _Choice:
        """What the first `folds` inner cuts say: members, their trees, and a calibration.

        From the default blend, the one change (a member in or out) that gains most is made as long as it
        gains beyond noise.
        """
        counted, y, blocks = self._seen(folds)
        trees, members = self._choose_trees(folds), self._defaults()
        if not len(y):
            return _Choice(tuple(members), tuple(trees[m] for m in members), Calibration())

        def loss(which: list[int]) -> np.ndarray:
            return metrics.log_losses(metrics.expit(self._blend(which, trees, folds)[counted]), y)

        now = loss(members)
        for _ in range(2 * len(self.candidates)):
            changes = [sorted(set(members) ^ {i}) for i in sorted(self.racing)]
            tried = [(loss(which), which) for which in changes if which]
            better = [(other.mean(), which) for other, which in tried if _clearly_better(now - other, blocks)]
            if not better:
                break
            members = min(better, key=lambda pair: (pair[0], pair[1]))[1]
            now = loss(members)
        rows = _join([fold.validation for fold in self.folds[:folds]], np.int64)[counted]
        order = self.mature["raised_at"].astype("int64").to_numpy()[rows]
        blend = metrics.expit(self._blend(members, trees, folds)[counted])
        # Trees learn from all outcomes; what level they stand for is asked of those that no shown score touched.
        free = uninfluenced(self.influenced[rows], y)
        calibration, _ = choose_calibration(blend[free], y[free], order[free])
        return _Choice(tuple(members), tuple(trees[m] for m in members), calibration)

    def _forecast(self, fold: int, choice: _Choice) -> np.ndarray:
        scores = [self.scores[c, fold, t] for c, t in zip(choice.members, choice.trees, strict=True)]
        return choice.calibration.apply(metrics.expit(np.mean(scores, axis=0)))

    def _final_trees(self, choice: _Choice) -> str:
        rows = np.flatnonzero(~self.excluded)
        return boosting.joined_text(
            [
                self._fit(self.candidates[index], rows, self.cut, trees, self.settings.fit_elsewhere)
                for index, trees in zip(choice.members, choice.trees, strict=True)
            ]
        )

    def _candidate_evidence(self, choice: _Choice) -> dict[str, Any]:
        """By candidate: its part, its own loss, and what the blend gains by it, with a 95% block-bootstrap interval."""
        folds = len(self.folds)
        counted, y, _ = self._seen(folds)
        trees = self._choose_trees(folds)
        made: dict[str, Any] = {}
        for index, candidate in enumerate(self.candidates):
            if index not in self.racing:
                made[candidate.name] = self.left[index]
                continue
            p = metrics.expit(self._past(index, trees[index], folds)[counted])
            role = "in the blend" if index in choice.members else "not in the blend"
            made[candidate.name] = {
                "role": role,
                "log_loss": _rounded(metrics.log_loss(p, y)),
                "trees": trees[index],
                "gain": self._gain(index, choice.members, trees, folds),
            }
        return made

    def _table(self, forecasts: dict[str, np.ndarray]) -> pd.DataFrame:
        if not forecasts:
            return pd.DataFrame()
        mature, rows = self.mature, self.validation
        wanted = ("alert_id", "raised_at", "rule", "entity", "team", "severity", "acted", "known_at")
        facts = mature.iloc[rows][[c for c in wanted if c in mature]].reset_index(drop=True)
        first = mature.groupby("rule")["raised_at"].transform("min")
        facts["rule_age_days"] = ((mature["raised_at"] - first).dt.total_seconds() / 86_400).to_numpy()[rows]
        if "rule_last_outcome" in mature:
            facts["last_outcome"] = mature["rule_last_outcome"].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
        facts["excluded"] = self.excluded[rows]
        if self.influenced.any():
            facts["influenced"] = self.influenced[rows]
        facts["fold"] = np.repeat(np.arange(len(self.folds)), [len(fold.validation) for fold in self.folds])
        return pd.concat([facts, pd.DataFrame(forecasts)], axis=1)


def _clearly_better(gain: np.ndarray, blocks: np.ndarray) -> bool:
    """Whether a per-alert gain has a mean above zero by `BEYOND_NOISE` cluster-robust standard errors."""
    total = np.bincount(blocks, gain - gain.mean())
    error = np.sqrt(np.dot(total, total)) / len(gain)
    return bool(gain.mean() > BEYOND_NOISE * error and gain.mean() > 0)


def horizon_ends(frame: pd.DataFrame, horizon: timedelta) -> pd.Series:
    """When the horizon of each alert is over: datetime, UTC."""
    if "horizon_ends_at" in frame:
        return frame["horizon_ends_at"]
    return frame["raised_at"] + pd.Timedelta(horizon)


def _join(parts: list[np.ndarray], dtype: Any = np.float64) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=dtype)


def _rounded(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None
