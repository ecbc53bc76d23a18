"""Training: the pool that serves from a cut on, learned from what was known then.

Belongs here: the forecasts of every contender in the past, their weights, and the version that serves.
Does not belong here: the alerts and inner cuts of a training (`past.py`), the blend of trees (`tree_blend.py`),
weights and their bound (`mixture/weights.py`), the linear model (`mixture/linear.py`), the version that serves
(`mixture/model.py`), LightGBM itself (`boosting.py`), measuring the forecasts (`evaluation/evidence.py`), and the gate
against the present champion (`champion/gate.py`).

How a training uses time, at cut T:

1. Usable alerts were raised before T and their outcome was known at T. Only *mature* ones take part: raised at least
   one horizon before T. Younger alerts are known early only because somebody decided quickly; a model trained on them
   would learn that everything is acted upon. Excluded alerts are never trained on, but are forecast.
2. Inner cuts lie in the last third of the mature alerts (rolling origin). At an inner cut c every contender is fitted
   on alerts that were mature at c and not excluded by a flag decided by c, and forecasts the alerts raised between c
   and the next inner cut. Contenders are the blend of trees (once there are outcomes enough), the linear
   model, and the simple rates in `PRIOR_WEIGHTS`; every baseline forecasts as well, for the evidence.
3. The weights for each inner cut come from the forecasts of the inner cuts *before* it, as in production. The forecasts
   of the pool with these weights are the evidence: nothing in them was chosen with hindsight.
4. For production the same decisions are made once more from all inner cuts, and the contenders that have weight are
   fitted again on all mature alerts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import CONSTANT, MODEL
from dagster_project.triage.features.contract import contract
from dagster_project.triage.features.keys import COLUMNS
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.learning.baselines import LOGISTIC, Baseline, fit_baselines
from dagster_project.triage.learning.calibration import Calibration, choose_calibration, uninfluenced
from dagster_project.triage.learning.mixture.dense import dense_columns
from dagster_project.triage.learning.mixture.facts import plan_facts
from dagster_project.triage.learning.mixture.linear import (
    LINEAR,
    MEAN_OF_RATES,
    RECIPES,
    Linear,
    encode,
    fit_linear,
    log_odds_of,
)
from dagster_project.triage.learning.mixture.model import LEAST_WEIGHT, TREES, Mixture
from dagster_project.triage.learning.mixture.quotes import WordCounts, count_words
from dagster_project.triage.learning.mixture.weights import pool, roll, sharpen
from dagster_project.triage.learning.model import MIXTURE, PRIOR, Model
from dagster_project.triage.learning.past import Past, horizon_ends, join, known_alerts, usable_alerts
from dagster_project.triage.learning.reasons.counts import count_outcomes
from dagster_project.triage.learning.settings import LearningSettings
from dagster_project.triage.learning.tree_blend import TreeBlend

# Weights until outcomes speak. The first weeks of a company belong to the rates: a coefficient fitted while histories
# were short misleads once they are long (service desk, first window: log-loss 0.624 of the mean of rates, 0.658 of the
# linear model).
PRIOR_WEIGHTS = {
    LINEAR: 0.3,
    LOGISTIC: 0.3,
    MEAN_OF_RATES: 0.3,
    "rate_per_rule": 0.07,
    CONSTANT: 0.03,
}
# The weight of trees over that of all others is alerts / TREES_LEARN_SLOWLY, at most MOST_FOR_TREES. Trees lose to the
# rates where little is known, and are best where much is: on samples of the two real sets with 100 to 1,000 alerts to
# learn from, trees had 0.737 and 0.538 against 0.502 and 0.610 of the logistic regression on rates; on package alerts
# (2,000 to 6,400) 0.426 against 0.634, and in simulated companies of 20,000 alerts 0.349 against 0.468.
TREES_LEARN_SLOWLY = 2_000
MOST_FOR_TREES = 9.0
# With fewer alerts of known outcome no rate is told from another: the overall rate serves alone.
FEWEST = 20
# The columns of facts that the linear model reads.
FACTS = ("raised_at", *COLUMNS, "value", "threshold", "title", "attributes")
# The final linear fits take at most so many alerts, every n-th in order of time: their cost grows with each alert,
# and what is left to learn from more is in the trees.
LINEAR_ALERTS = 200_000


@dataclass(frozen=True)
class Learned:
    """The result of a training.

    model : what scores from now on.
    forecasts : one row per alert of the inner cuts, flagged ones included, in order of time: alert_id,
        raised_at, rule, entity, team, severity (as far as given), rule_age_days (since the rule's first alert
        of the training set), last_outcome (of the rule, as known at raise; nan: none), acted, excluded, influenced
        (absent where none is), fold (0, 1, ...), and one column of probabilities per contender: "model" (the pool,
        decided and fitted on nothing later than the alert's inner cut) and every baseline. Empty when there was no
        inner cut.
    """

    model: Model
    forecasts: pd.DataFrame


def train(frame: pd.DataFrame, cut: datetime, settings: LearningSettings) -> Model:
    """The model of `learn`."""
    return learn(frame, cut, settings).model


def learn(frame: pd.DataFrame, cut: datetime, settings: LearningSettings) -> Learned:
    """Learn from what was known at `cut`.

    Parameters
    ----------
    frame : one row per alert: `raised_at`, `known_at` (datetime, UTC), `acted` (1.0, 0.0, nan for not known),
        `excluded` (bool, may be absent), `excluded_since` (datetime, UTC: when the exclusion was decided; may
        be absent or null: always), `influenced` (bool: a shown score may have changed the outcome; may be absent:
        none), the raise-time columns, and the history columns of `settings.features`.
        Rows whose outcome was not known at the cut are ignored, so the whole table may be given.
    cut : time-zone aware.

    Never fails for lack of data: the pool serves from the first mature outcome on, and before that the prior.
    Without outcomes enough for trees it serves without them, and `Model.explanation` says so. Deterministic: the same
    rows, cut and settings give the same bytes, whatever the number of threads and the order of rows.
    """
    if cut.tzinfo is None:
        raise ValueError("the cut needs a time zone")
    known = int(usable_alerts(frame, cut).sum())
    by = ["raised_at", "alert_id"] if "alert_id" in frame else ["raised_at"]
    ripe = known_alerts(frame, cut) & (horizon_ends(frame, settings.horizon) <= pd.Timestamp(cut)).to_numpy(dtype=bool)
    rows = np.flatnonzero(ripe)
    # Ordered by its keys alone: the frame is wide, and is copied once.
    order = frame[by].iloc[rows].reset_index(drop=True).sort_values(by, kind="stable").index.to_numpy()
    mature = frame.iloc[rows[order]].reset_index(drop=True)
    del frame  # learning needs its memory when the caller holds it no more
    return _Training(known, mature, cut.astimezone(UTC), settings).run()


class _Training:
    """One training: the past, the contenders' forecasts on it, their weights, and the version that follows."""

    def __init__(self, known: int, mature: pd.DataFrame, cut: datetime, settings: LearningSettings) -> None:
        self.known, self.cut, self.settings = known, cut, settings
        self.past = Past(mature, cut, settings)
        self.contract = contract(settings.features)
        acted = self.past.acted[~self.past.excluded]
        self.counts = {
            "known": known,
            "mature": len(acted),
            "acted": int(acted.sum()),
            "not_acted": int((acted == 0).sum()),
        }
        self.evidence: dict[str, Any] = {"alerts": self.counts}

    def run(self) -> Learned:
        if not self.counts["mature"]:
            return Learned(self._prior(), pd.DataFrame())
        past, settings = self.past, self.settings
        self.linear = _LinearContenders(past)
        baselines = self._baseline_forecasts()
        forecasts = baselines | self.linear.forecasts()
        kept = np.flatnonzero(~past.excluded)
        fitted = self._fit_baselines(past.mature.iloc[kept], past.acted[kept])
        blend, without = self._trees(forecasts)
        fixed = dict(PRIOR_WEIGHTS)
        if blend:
            fixed[TREES] = sum(fixed.values()) * min(MOST_FOR_TREES, self.counts["mature"] / TREES_LEARN_SLOWLY)
        if self.counts["mature"] < FEWEST:
            fixed = {CONSTANT: 1.0}
        # A baseline may be missing that reads withheld columns.
        names = [name for name in fixed if name in fitted or name in forecasts]
        prior = np.array([fixed[name] for name in names])
        published, weights, overall = self._weigh(forecasts, names, prior / prior.sum())
        table = self._table({MODEL: published, **baselines}) if past.folds else pd.DataFrame()
        heavy = {n: float(w) for n, w in zip(names, weights, strict=True) if w >= LEAST_WEIGHT}
        heavy = {n: w / sum(heavy.values()) for n, w in heavy.items()}
        if blend is None:
            plan = plan_columns(past.mature, settings.features, ~past.excluded, settings.withheld)
            matrix = plan.matrix(past.mature)
        else:
            plan, matrix = blend.plan, blend.matrix
        trees: dict[str, Any] = {}
        if blend is not None and TREES in heavy:
            trees = {"booster_text": blend.final_trees(), "members": len(blend.recipes)}
        linears = self.linear.final([recipe.name for recipe in RECIPES if recipe.name in heavy])
        shown = ", ".join(f"{name} {weight:.0%}" for name, weight in sorted(heavy.items(), key=lambda x: -x[1])[:4])
        model = Mixture(
            MIXTURE,
            self.cut,
            self.contract,
            f"a mixture, trained on {self.counts['mature']} alerts, of {shown}{without}".replace("_", " "),
            self.evidence,
            threads=settings.threads,
            plan=plan,
            counts=count_outcomes(plan, matrix, past.acted, ~past.excluded, settings.features),
            weights=heavy,
            baselines={name: baseline for name, baseline in fitted.items() if name in heavy},
            linears=linears,
            words=self.linear.count_words([(linear, heavy[name]) for name, linear in linears.items()]),
            overall=overall,
            **trees,
        )
        return Learned(model, table)

    def _trees(self, forecasts: dict[str, np.ndarray]) -> tuple[TreeBlend | None, str]:
        """Adds the trees' forecasts; (the blend of trees, or why there is none)."""
        settings, past, counts = self.settings, self.past, self.counts
        few = "; no trees, too little to learn from: "
        if counts["acted"] < settings.minimum_acted or counts["not_acted"] < settings.minimum_not_acted:
            few += f"{counts['acted']} acted and {counts['not_acted']} not acted outcomes are known, "
            return None, f"{few}{settings.minimum_acted} and {settings.minimum_not_acted} are needed"
        if not past.folds:
            return None, f"{few}the known outcomes lie too close in time to test a model on later ones"
        blend = TreeBlend(past)
        forecasts[TREES] = blend.forecasts()
        return blend, ""

    def _weigh(
        self, forecasts: dict[str, np.ndarray], names: list[str], prior: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Calibration]:
        """(what would have been published, the weights of the contenders `names` now, the map over their pool)."""
        past, counts = self.past, self.counts
        sharpened = sharpen(counts["mature"], counts["acted"] / counts["mature"])
        if not past.folds:
            return np.zeros(0), prior, sharpened
        rows, moments = past.validation, len(past.folds)
        published_at = np.repeat(np.arange(moments), [len(fold.validation) for fold in past.folds])
        known = np.full(len(rows), moments + 1)
        known[past.usable_at(pd.Timestamp(self.cut))[rows]] = moments
        for moment in range(moments - 1, 0, -1):
            known[past.usable_at(past.folds[moment].cut)[rows] & (published_at < moment)] = moment
        y = past.acted[rows]
        # Contenders learn from all outcomes; what they are worth shows on those that no shown score touched.
        free = uninfluenced(past.influenced[rows], y)
        known[~free] = moments + 1
        counted = known <= moments
        blocks = np.unique(past.blocks[rows], return_inverse=True)[1]
        importance = np.bincount(blocks)[blocks] ** -0.5
        by_contender = np.column_stack([forecasts[name] for name in names])
        rolled = roll(by_contender, y, published_at, known, moments, prior, importance)
        maps = [sharpen(len(fold.training), past.acted[fold.training].mean()) for fold in past.folds] + [sharpened]
        if not free.all():
            # Shown scores changed outcomes, and contenders learned a level that is not the alerts' own: here the level
            # comes from the others. Elsewhere no map is fitted: a level that drifts makes a map wrong that was right a
            # month ago. Even maps that had paid beyond noise on later alerts raised the log-loss on the service desk
            # from 0.530 to 0.564 in one fortnight and from 0.482 to 0.498 in another.
            order = past.mature["raised_at"].astype("int64").to_numpy()[rows]
            maps = []
            for moment, weights in enumerate(rolled.weights):
                seen = known <= moment
                # The level of the weights that serve: at earlier moments others did.
                maps.append(choose_calibration(pool(by_contender[seen], weights), y[seen], order[seen])[0])
        mapped = rolled.probability.copy()
        for moment in range(moments):
            now = published_at == moment
            mapped[now] = maps[moment].apply(mapped[now])
        losses = {name: rounded(metrics.log_loss(f[counted], y[counted])) for name, f in forecasts.items()}
        best = int(np.argmin(rolled.losses))
        total = max(1e-9, float(importance[counted].sum()))
        self.evidence |= {
            "inner_cuts": [fold.cut.isoformat() for fold in past.folds],
            "validation_alerts": int(counted.sum()),
            "log_loss": {MIXTURE: rounded(metrics.log_loss(mapped[counted], y[counted])), **losses},
            "gain_over_best_baseline": self._gain(mapped, forecasts, counted),
            "mixture": {
                "weights": {name: round(float(w), 4) for name, w in zip(names, rolled.weights[-1], strict=True)},
                "strength": rolled.strength,
                "best_in_hindsight": names[best],
                "worse_than_it_by": rounded((rolled.loss - rolled.losses[best]) / total),
                "worse_than_it_by_at_most": rounded(rolled.bounds[best] / total),
            },
        }
        return mapped, rolled.weights[-1], maps[-1]

    def _gain(self, published: np.ndarray, forecasts: dict[str, np.ndarray], counted: np.ndarray) -> dict[str, Any]:
        """By how much the log-loss of the best baseline is above what would have been published, with an interval.

        At each inner cut the baseline is the best of the inner cuts before, and the constant rate at first. The best in
        hindsight would be an unfair opponent: nobody could have chosen it.
        """
        past, parts, end = self.past, [], 0
        baselines = {n: p for n, p in forecasts.items() if n != TREES and n not in {recipe.name for recipe in RECIPES}}
        for number, fold in enumerate(past.folds):
            seen, y, _ = past.seen(number)
            losses = {name: metrics.log_loss(p[: len(seen)][seen], y) for name, p in baselines.items()}
            chosen = min(losses, key=lambda name: losses[name]) if len(y) else CONSTANT
            parts.append(forecasts[chosen][end : end + len(fold.validation)])
            end += len(fold.validation)
        y = past.acted[past.validation][counted]
        gain = metrics.log_losses(join(parts)[counted], y) - metrics.log_losses(published[counted], y)
        low, high = metrics.interval(
            lambda w: float(np.dot(w, gain) / max(w.sum(), 1e-300)),
            pd.factorize(past.blocks[past.validation][counted])[0],
            self.settings.replicates,
            self.settings.seed,
        )
        nats = float(gain.mean()) if len(gain) else float("nan")
        return {"nats": rounded(nats), "low": rounded(low), "high": rounded(high)}

    def _baseline_forecasts(self) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        past = self.past
        for fold in past.folds:
            training, later = past.mature.iloc[fold.training], past.mature.iloc[fold.validation]
            for name, baseline in self._fit_baselines(training, past.acted[fold.training]).items():
                parts.setdefault(name, []).append(baseline.predict(later))
        return {name: np.concatenate(p) for name, p in parts.items()}

    def _fit_baselines(self, frame: pd.DataFrame, acted: np.ndarray) -> dict[str, Baseline]:
        settings = self.settings
        return fit_baselines(frame, acted, settings.features, prior=settings.prior, withheld=settings.withheld)

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
        explanation = f"every alert gets the prior probability {rate:.2f}: {why}"
        baseline = Baseline(CONSTANT, {"rate": float(rate)})
        return Model(
            PRIOR, self.cut, self.contract, explanation, self.evidence, baseline, threads=self.settings.threads
        )

    def _table(self, forecasts: dict[str, np.ndarray]) -> pd.DataFrame:
        if not forecasts:
            return pd.DataFrame()
        past = self.past
        mature, rows = past.mature, past.validation
        wanted = ("alert_id", "raised_at", "rule", "entity", "team", "severity", "acted", "known_at")
        facts = mature.iloc[rows][[c for c in wanted if c in mature]].reset_index(drop=True)
        first = mature.groupby("rule")["raised_at"].transform("min")
        facts["rule_age_days"] = ((mature["raised_at"] - first).dt.total_seconds() / 86_400).to_numpy()[rows]
        if "rule_last_outcome" in mature:
            facts["last_outcome"] = mature["rule_last_outcome"].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
        facts["excluded"] = past.excluded[rows]
        if past.influenced.any():
            facts["influenced"] = past.influenced[rows]
        facts["fold"] = np.repeat(np.arange(len(past.folds)), [len(fold.validation) for fold in past.folds])
        return pd.concat([facts, pd.DataFrame(forecasts)], axis=1)


class _LinearContenders:
    """The linear recipes on one past. It keeps its own copy of the alerts that it needs: trees thin out the frame."""

    def __init__(self, past: Past) -> None:
        self.past, settings = past, past.settings
        kept = np.flatnonzero(~past.excluded)
        self.last = kept[:: max(1, -(-len(kept) // LINEAR_ALERTS))]
        needed = np.zeros(len(past.mature), dtype=bool)
        for rows in (self.last, *(fold.training for fold in past.folds), past.validation):
            needed[rows] = True
        self.place = np.cumsum(needed) - 1
        # Only what it reads: the frame is wide.
        wanted = {
            *FACTS,
            *(name for column in dense_columns(settings.features, settings.withheld) for name in column.of),
        }
        frame = past.mature.loc[needed, [name for name in past.mature if name in wanted]].reset_index(drop=True)
        self.encoded = encode(frame, settings.features, plan_facts(past.mature.iloc[self.last]), settings.withheld)

    def forecasts(self) -> dict[str, np.ndarray]:
        """By recipe, the probabilities of all alerts of the inner cuts."""
        parts: dict[str, list[np.ndarray]] = {recipe.name: [] for recipe in RECIPES}
        for fold in self.past.folds:
            models = self._fit(fold.training, fold.cut, list(parts))
            for name, z in log_odds_of(models, self.encoded, self.place[fold.validation]).items():
                parts[name].append(metrics.expit(z))
        return {name: join(part) for name, part in parts.items()}

    def final(self, names: list[str]) -> dict[str, Linear]:
        """These recipes, fitted on all mature alerts that no flag excludes."""
        return self._fit(self.last, pd.Timestamp(self.past.cut), names) if names else {}

    def count_words(self, models: list[tuple[Linear, float]]) -> WordCounts:
        """How the alerts of the final fit with each word ended."""
        return count_words(models, self.encoded.facts, self.place[self.last], self.past.acted[self.last])

    def _fit(self, rows: np.ndarray, cut: pd.Timestamp, names: list[str]) -> dict[str, Linear]:
        """Alerts of one rule-day share the weight of the square root of their number: they are hardly independent."""
        blocks = pd.factorize(self.past.blocks[rows])[0]
        weight = np.bincount(blocks)[blocks] ** -0.5
        recipes = [recipe for recipe in RECIPES if recipe.name in names]
        acted, prior = self.past.acted[rows], self.past.settings.prior
        return fit_linear(self.encoded, self.place[rows], acted, cut, recipes, weight, prior)


def rounded(value: float) -> float | None:
    """Six digits for the evidence; None for what JSON cannot hold."""
    return round(float(value), 6) if np.isfinite(value) else None
