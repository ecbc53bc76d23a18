"""Learning a mixture at a cut: every contender forecasts the inner cuts, and their weights follow.

Belongs here: `learn_mixed`, which does what `model.learn` does and lets no contender serve alone, and `Mixed`, the
version that serves.
Does not belong here: weights (`mixture.py`), single contenders (`baselines.py`, `linear.py`, `model.py`).

Contenders are every baseline, every linear recipe, the blend of trees with its calibration (once there are outcomes
enough), and the mean log-odds of trees, linear model, words and the rate of the rule. All of them forecast the alerts
of an inner cut from what was mature at it, as in `model.py`; weights at an inner cut come from the outcomes that were
mature at it. Last, the mixture and its calibrated self are two contenders of a second mixture: a map that does harm
loses its weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage import metrics
from dagster_project.triage.baselines import ALWAYS_NO, Baseline
from dagster_project.triage.calibration import Calibration, choose_calibration, uninfluenced
from dagster_project.triage.features import settings_from_contract
from dagster_project.triage.forecaster import LIGHTGBM, Model
from dagster_project.triage.learning.linear import RECIPES, Linear, encode, fit_linear
from dagster_project.triage.learning.mixture import Rolled, mix, roll, weights_from_document, weights_to_document
from dagster_project.triage.learning.sparse import plan_facts
from dagster_project.triage.matrix import ColumnPlan
from dagster_project.triage.model import (
    MIXTURE,
    MODEL,
    PART,
    Learned,
    LearningSettings,
    _join,
    _known_alerts,
    _rounded,
    _Training,
    horizon_ends,
    rule_day_blocks,
    usable_alerts,
)
from dagster_project.triage.reasons import reasons_from_baseline

TREES = "trees"
ALL = "mean of trees, linear and rate"

# The one contender with nothing to learn but a rate has most of the weight until outcomes speak; "nobody acts" has
# hardly any, because its mistakes cost seven nats. All others share the rest equally.
PRIOR_OF_RATES = 0.4
PRIOR_OF_NEVER = 0.001
# What carries less weight than this is not asked when alerts are scored: it could move a probability of 0.5 by 0.0005.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Mixed(Model):
    """A version that serves: contenders, their weights, and the map over their mean. The fields of `Model` hold the
    trees.

    weights : by contender, they sum to 1; contenders of no weight are left out. linears : by recipe. overall : the
    map over the mixture, and the weight of the mapped probability beside the plain one.
    """

    weights: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    linears: dict[str, Linear] = field(default_factory=dict)
    overall: Calibration = field(default_factory=Calibration)
    mapped_weight: float = 0.0

    @property
    def status(self) -> str:
        """ "model" when what was learned carries more weight than what is counted, otherwise "baseline"."""
        learned = sum(w for name, w in self.weights.items() if name not in self.baselines)
        return "model" if learned > 0.5 else "baseline"

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action of each alert: float64 in (0, 1)."""
        if not len(frame):
            return np.zeros(0)
        forecasts = self.forecasts(frame)
        p = mix(np.column_stack([forecasts[name] for name in self.weights]), np.array(list(self.weights.values())))
        return _mapped(p, self.overall, self.mapped_weight)

    def forecasts(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The probability that each contender of weight gives, by its name."""
        made = {name: b.predict(frame) for name, b in self.baselines.items()}
        if self.linears:
            settings = next(iter(self.linears.values())).settings
            kinds = list(dict.fromkeys(kind for model in self.linears.values() for kind in model.facts))
            encoded = encode(frame, settings, kinds)
            made |= {name: metrics.expit(model.log_odds(encoded)) for name, model in self.linears.items()}
        if self.booster_text is not None:
            made[TREES] = super().predict(frame)
        if ALL in self.weights:
            made[ALL] = mean_log_odds(made)
        return made

    def reasons(self, frame: pd.DataFrame, top: int = 3) -> list[list[str]]:
        """Those of the trees where they take part, otherwise the rates that are repeated."""
        if self.booster_text is not None:
            return super().reasons(frame, top)
        heaviest = max(self.baselines, key=lambda name: self.weights.get(name, 0.0), default=None)
        serving = self.baselines[heaviest] if heaviest else Baseline("constant_rate", {"rate": 0.5})
        return reasons_from_baseline(serving, frame, settings_from_contract(self.contract), top, nothing_known=False)

    def _document(self) -> dict[str, Any]:
        return {
            **super()._document(),
            "weights": weights_to_document(list(self.weights), np.array(list(self.weights.values()))),
            "baselines": {name: b.to_document() for name, b in self.baselines.items()},
            "linears": {name: model.to_document() for name, model in self.linears.items()},
            "overall": self.overall.to_document(),
            "mapped_weight": self.mapped_weight,
        }

    @classmethod
    def from_document(cls, booster_text: str | None, document: Any, threads: int = 2) -> Mixed:
        """The version of `to_document`. `HeedError` when anything is missing, changed or malformed."""
        try:
            settings = settings_from_contract(document["contract"])
            names, weights = weights_from_document(document["weights"])
            made = cls(
                kind=MIXTURE,
                cut=datetime.fromisoformat(document["cut"]),
                contract=dict(document["contract"]),
                explanation=str(document["explanation"]),
                evidence=dict(document["evidence"]),
                plan=ColumnPlan.from_document(document["plan"]),
                calibration=Calibration.from_document(document["calibration"]),
                booster_text=booster_text,
                members=int(document["members"]),
                threads=threads,
                weights=dict(zip(names, weights.tolist(), strict=True)),
                baselines={str(k): Baseline.from_document(d) for k, d in document["baselines"].items()},
                linears={str(k): Linear.from_document(d, settings) for k, d in document["linears"].items()},
                overall=Calibration.from_document(document["overall"]),
                mapped_weight=float(document["mapped_weight"]),
            )
            version = document["version"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HeedError(f"the stored mixture is malformed ({error!r})", "train again") from error
        if version != made.version:
            raise HeedError(
                f"the stored model {version} does not match its own content ({made.version})",
                "restore it or train again",
            )
        return made


def mean_log_odds(forecasts: dict[str, np.ndarray]) -> np.ndarray:
    """The mean log-odds of the trees, the fullest linear model, the words and the rate of the rule, as far as given."""
    wanted = (TREES, RECIPES[-1].name, RECIPES[-2].name, "rate_per_rule")
    if RECIPES[-1].name not in forecasts:  # without a text
        wanted = (TREES, RECIPES[3].name, "rate_per_rule")
    return metrics.expit(np.mean([metrics.logit(forecasts[name]) for name in wanted if name in forecasts], axis=0))


def learn_mixed(frame: pd.DataFrame, cut: datetime, settings: LearningSettings, proven: bool = False) -> Learned:
    """As `model.learn`, with a mixture as the model; its forecasts have the column "model", those of
    its learned contenders "part: trees" and so on.

    It serves from the first mature outcome on: `proven` and the settings' `prove_first` decide nothing, because trees
    that are worse than a baseline have no weight.
    """
    known = int(usable_alerts(frame, cut).sum())
    by = ["raised_at", "alert_id"] if "alert_id" in frame else ["raised_at"]
    ripe = _known_alerts(frame, cut) & (horizon_ends(frame, settings.horizon) <= pd.Timestamp(cut)).to_numpy(dtype=bool)
    mature = frame[ripe].sort_values(by, kind="stable", ignore_index=True)
    return _MixedTraining(known, mature, cut.astimezone(UTC), settings, proven).run()


class _MixedTraining(_Training):
    """A training whose contenders all serve."""

    def run(self) -> Learned:
        if not self.counts["mature"]:
            return Learned(self._prior(), pd.DataFrame())
        settings = self.settings
        self.blocks = rule_day_blocks(self.mature)
        self.folds = self._inner_cuts()
        self.validation = _join([fold.validation for fold in self.folds], np.int64)
        taught = np.flatnonzero(~self.excluded)
        self.encoded = encode(self.mature, settings.features, plan_facts(self.mature.iloc[taught]))
        forecasts = self._baseline_forecasts() | self._linear_forecasts()
        final = self._fit_baselines(self.mature.iloc[taught], self.acted[taught])
        linears = self._fit_linears(taught, pd.Timestamp(self.cut))
        enough = (
            self.counts["acted"] >= settings.minimum_acted and self.counts["not_acted"] >= settings.minimum_not_acted
        )
        trees: Model | None = None
        if enough and self.folds:
            trees = self._learn_trees(forecasts)
        names = [*final, *linears, *([TREES, ALL] if trees else [])]
        if trees:
            forecasts[ALL] = mean_log_odds(forecasts)
        prior = np.array([_prior_of(name) for name in names])
        prior[prior == 0] = (1 - prior.sum()) / max(1, int((prior == 0).sum()))
        rolled, overall, mapped = self._roll({name: forecasts[name] for name in names} if self.folds else {}, prior)
        weights = rolled.state.weights if rolled else prior / prior.sum()
        named = {name if name in final else PART + name: p for name, p in forecasts.items()}
        table = self._table({MODEL: self.published, **named}) if self.folds else pd.DataFrame()
        kept = {n: float(w) for n, w in zip(names, weights, strict=True) if w >= LEAST_WEIGHT}
        total = sum(kept.values())
        kept = {n: w / total for n, w in kept.items()}
        asked = set(kept) | ({TREES, "rate_per_rule", *(r.name for r in RECIPES)} if ALL in kept else set())
        said = ", ".join(f"{name} {weight:.0%}" for name, weight in sorted(kept.items(), key=lambda x: -x[1])[:4])
        model = Mixed(
            MIXTURE,
            self.cut,
            self.contract,
            f"a mixture of {len(names)} contenders, taught on {self.counts['mature']} alerts: {said}",
            self.evidence,
            plan=trees.plan if trees and TREES in asked else ColumnPlan(),
            calibration=trees.calibration if trees and TREES in asked else Calibration(),
            booster_text=trees.booster_text if trees and TREES in asked else None,
            members=trees.members if trees and TREES in asked else 1,
            threads=settings.threads,
            weights=kept,
            baselines={n: b for n, b in final.items() if n in asked},
            linears={n: m for n, m in linears.items() if n in asked},
            overall=overall,
            mapped_weight=mapped,
        )
        return Learned(model, table)

    def _fit_linears(self, rows: np.ndarray, cut: pd.Timestamp) -> dict[str, Linear]:
        """Alerts of one rule-day share the weight of the square root of their number: they are hardly independent."""
        size = np.bincount(self.blocks[rows], minlength=int(self.blocks.max()) + 1)[self.blocks[rows]]
        weight = size**-0.5
        weight = weight * (len(weight) / weight.sum()) if len(weight) else weight
        return fit_linear(self.encoded, rows, self.acted[rows], cut, RECIPES, weight, self.settings.prior)

    def _linear_forecasts(self) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        for fold in self.folds:
            for name, model in self._fit_linears(fold.training, fold.cut).items():
                p = metrics.expit(model.log_odds(self.encoded, fold.validation))
                parts.setdefault(name, []).append(metrics.clip_probability(p, 1e-4))
        return {name: np.concatenate(p) for name, p in parts.items() if len(p) == len(self.folds)}

    def _learn_trees(self, forecasts: dict[str, np.ndarray]) -> Model:
        """Adds the trees' forecasts, and gives what they would be in production."""
        self._compete()
        forecasts[TREES] = np.concatenate([self._forecast(fold, self._decide(fold)) for fold in range(len(self.folds))])
        choice = self._decide(len(self.folds))
        self.evidence["candidates"] = self._candidate_evidence(choice)
        self.evidence["chosen"] = {
            "candidates": [self.candidates[i].name for i in choice.members],
            "trees": list(choice.trees),
            "calibration": choice.calibration.to_document(),
        }
        return Model(
            LIGHTGBM, self.cut, self.contract, "", {}, None, self.plan, choice.calibration, self._final_trees(choice),
            len(choice.members), threads=self.settings.threads,
        )  # fmt: skip

    def _roll(self, forecasts: dict[str, np.ndarray], prior: np.ndarray) -> tuple[Rolled | None, Calibration, float]:
        """The weights of contenders, then those of the mixture and its calibrated self."""
        if not forecasts:
            return None, Calibration(), 0.0
        rows, moments = self.validation, len(self.folds)
        made = np.repeat(np.arange(moments), [len(fold.validation) for fold in self.folds])
        known = np.full(len(rows), moments + 1)
        known[self._taught_at(pd.Timestamp(self.cut))[rows]] = moments
        for moment in range(moments - 1, 0, -1):
            seen = self._taught_at(self.folds[moment].cut)[rows] & (made < moment)
            known[seen] = moment
        y = self.acted[rows]
        counted = known <= moments
        rolled = roll(np.column_stack(list(forecasts.values())), y, made, known, moments, prior)
        p = rolled.probability
        order = self.mature["raised_at"].astype("int64").to_numpy()[rows]

        def fitted(seen: np.ndarray) -> Calibration:
            free = uninfluenced(self.influenced[rows[seen]], y[seen])
            return choose_calibration(p[seen][free], y[seen][free], order[seen][free])[0]

        q = p.copy()
        for moment in range(moments):
            now = made == moment
            q[now] = fitted(known <= moment).apply(p[now])
        both = roll(np.column_stack([p, q]), y, made, known, moments)
        self.published = both.probability
        losses = {name: _rounded(metrics.log_loss(f[counted], y[counted])) for name, f in forecasts.items()}
        own = _rounded(metrics.log_loss(self.published[counted], y[counted]))
        bounds = rolled.state.bounds + both.state.bounds[0]
        best = int(np.argmin(rolled.state.own))
        self.evidence |= {
            "inner_cuts": [fold.cut.isoformat() for fold in self.folds],
            "validation_alerts": int(counted.sum()),
            "log_loss": {MIXTURE: own, **losses},
            "mixture": {
                "weights": {n: round(float(w), 4) for n, w in zip(forecasts, rolled.state.weights, strict=True)},
                "rate": round(float(rolled.state.rate), 5),
                "best_in_hindsight": list(forecasts)[best],
                "worse_than_it_by_at_most": _rounded(bounds[best] / max(1, int(counted.sum()))),
                "mapped_weight": round(float(both.state.weights[1]), 4),
            },
        }
        return rolled, fitted(counted), float(both.state.weights[1])


def _prior_of(name: str) -> float:
    return {RECIPES[0].name: PRIOR_OF_RATES, ALWAYS_NO: PRIOR_OF_NEVER}.get(name, 0.0)


def _mapped(p: np.ndarray, overall: Calibration, weight: float) -> np.ndarray:
    return metrics.clip_probability((1 - weight) * p + weight * overall.apply(p))


def remembering(settings: LearningSettings, facts: pd.DataFrame, most_keys: int = 6) -> LearningSettings:
    """The settings with a memory as long as the data, and history of the attributes that `facts` (alerts) offer.

    Looks at facts only. Attributes are those that `sparse.plan_facts` calls names, the fewest values first.
    """
    kinds: Sequence[str] = plan_facts(facts)
    names = [k.removeprefix("@") for k in kinds if k.startswith("@") and "+" not in k][:most_keys]
    pair = [k.replace("@", "") for k in kinds if k.startswith("@") and "+" in k][:1]
    more = [name for name in (*(("severity",) if "severity" in kinds else ()), *names, *pair)]
    features = settings.features
    half_lives = tuple(dict.fromkeys([*features.half_lives, timedelta(days=90), timedelta(days=365)]))
    return replace(
        settings,
        features=replace(
            features,
            keys=tuple(dict.fromkeys([*features.keys, *more])),
            half_lives=half_lives,
            lifelong=True,
            lookback=timedelta(days=36_500),
        ),
    )
