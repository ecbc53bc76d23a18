"""The version that serves: contenders with their weights, in plain numbers.

Belongs here: forecasts and contributions of a mixture, its stored form, and reading any stored version (`read_model`).
Does not belong here: learning one (`learning/training.py`), weights themselves (`weights.py`), single contenders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.features.contract import histories_about, settings_from_contract
from dagster_project.triage.features.matrix import ColumnPlan
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.baselines import Baseline
from dagster_project.triage.learning.calibration import Calibration
from dagster_project.triage.learning.mixture.contributions import baseline_contributions, join, linear_contributions
from dagster_project.triage.learning.mixture.linear import RECIPES, Linear, encode, log_odds_of
from dagster_project.triage.learning.mixture.weights import mix, weights_from_document, weights_to_document
from dagster_project.triage.learning.model import FORMAT, MIXTURE, Model, Recalibration, in_batches
from dagster_project.triage.learning.reasons import reasons_from_baseline, reasons_from_contributions

TREES = "trees"
ALL = "mean of trees, linear and rate"

# What carries less weight than this is not asked when alerts are scored: it could move a probability of 0.5 by 0.0005.
LEAST_WEIGHT = 1e-3


@dataclass(frozen=True)
class Mixture(Model):
    """A version that serves: contenders, their weights, and the map over their mean. The fields of `Model` hold the
    trees.

    weights : by contender, they sum to 1; contenders of no weight are left out. linears : by recipe. overall : the
    map over the mixture, and the weight of the mapped probability next to the plain one.
    """

    weights: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    linears: dict[str, Linear] = field(default_factory=dict)
    overall: Calibration = field(default_factory=Calibration)
    mapped_weight: float = 0.0

    @property
    def status(self) -> str:
        """ "model" when what was learned carries more weight than what is counted, otherwise "baseline"."""
        counted = {*self.baselines, RECIPES[0].name}
        learned = sum(w for name, w in self.weights.items() if name not in counted)
        return "model" if learned > 0.5 else "baseline"

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action of each alert: float64 in (0, 1)."""
        if not len(frame):
            return np.zeros(0)
        probability = np.concatenate([self._predict(some) for some in in_batches(frame)])
        return probability if self.recalibration is None else self.recalibration.calibration.apply(probability)

    def _predict(self, frame: pd.DataFrame) -> np.ndarray:
        forecasts = self.forecasts(frame)
        p = mix(np.column_stack([forecasts[name] for name in self.weights]), np.array(list(self.weights.values())))
        return mapped(p, self.overall, self.mapped_weight)

    def forecasts(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The probability that each contender of weight gives, by its name."""
        by_name = {name: baseline.predict(frame) for name, baseline in self.baselines.items()}
        if self.linears:
            first = next(iter(self.linears.values()))
            kinds = sorted({kind for model in self.linears.values() for kind in model.facts})
            encoded = encode(frame, first.settings, kinds, first.withheld)
            log_odds = log_odds_of(self.linears, encoded)
            by_name |= {name: metrics.clip_probability(metrics.expit(z), 1e-4) for name, z in log_odds.items()}
        if self.booster_text is not None:
            by_name[TREES] = self.trees_forecast(frame)
        if ALL in self.weights:
            by_name[ALL] = mean_log_odds(by_name)
        return by_name

    def contributions_by_column(self, frame: pd.DataFrame) -> tuple[ColumnPlan, np.ndarray]:
        """What each fact adds to the log-odds, as columns of a plan: float64 [alerts, columns].

        The contributions of every contender, times its weight: exact Shapley values of trees, coefficients of linear
        models, log-odds of a rate less those of the overall rate. They rank facts; the mixture itself is a mean of
        probabilities, so they do not add up to its log-odds exactly.
        """
        settings = settings_from_contract(self.contract)
        shares = dict(self.weights)
        together = shares.pop(ALL, 0.0)
        for name in self.averaged if together else ():
            shares[name] = shares.get(name, 0.0) + together / len(self.averaged)
        parts: list[tuple[ColumnPlan, np.ndarray]] = []
        if self.booster_text is not None and shares.get(TREES):
            parts.append((self.plan, shares[TREES] * self.contributions(frame)))
        linears = {name: (model, shares[name]) for name, model in self.linears.items() if shares.get(name)}
        if linears:
            parts.append(linear_contributions(linears, frame))
        baselines = [(baseline, shares[name]) for name, baseline in self.baselines.items() if shares.get(name)]
        parts.append(baseline_contributions(baselines, frame, settings))
        return join(parts, len(frame))

    def reads(self, source: str) -> bool:
        """As for `Model`, of every contender that has weight."""
        histories = histories_about([source], settings_from_contract(self.contract))
        parts = [baseline.reads(histories) for baseline in self.baselines.values()]
        parts += [model.reads(source) for model in self.linears.values()]
        return any(parts) or super().reads(source)

    @property
    def averaged(self) -> tuple[str, ...]:
        """The contenders whose log-odds `ALL` averages."""
        return averaged({*self.baselines, *self.linears, *([TREES] if self.booster_text is not None else [])})

    def reasons(self, frame: pd.DataFrame, top: int = 3) -> list[list[str]]:
        """At most `top` reasons per alert, strongest first, in plain words."""
        return [sentences for some in in_batches(frame, explained=True) for sentences in self._reasons(some, top)]

    def _reasons(self, frame: pd.DataFrame, top: int) -> list[list[str]]:
        settings = settings_from_contract(self.contract)
        plan, contributions = self.contributions_by_column(frame)
        sentences = reasons_from_contributions(frame, plan, contributions, settings, top)
        heaviest = max(self.baselines, key=lambda name: self.weights.get(name, 0.0), default=None)
        if heaviest is None or all(sentences):
            return sentences
        # Where nothing moved the score, it is the rate that is repeated.
        rates = reasons_from_baseline(self.baselines[heaviest], frame, settings, top, nothing_known=False)
        return [own or rate for own, rate in zip(sentences, rates, strict=True)]

    def _document(self) -> dict[str, Any]:
        return {
            **super()._document(),
            "weights": weights_to_document(list(self.weights), np.array(list(self.weights.values()))),
            "order": list(self.weights),
            "baselines": {name: baseline.to_document() for name, baseline in self.baselines.items()},
            "linears": {name: model.to_document() for name, model in self.linears.items()},
            "overall": self.overall.to_document(),
            "mapped_weight": self.mapped_weight,
        }

    @classmethod
    def from_document(cls, booster_text: str | None, document: Any, threads: int = 2) -> Mixture:
        """The version of `to_document`. `HeedError` when anything is missing, changed or malformed."""
        try:
            if document["format"] != FORMAT or document["kind"] != MIXTURE or document["baseline"] is not None:
                raise HeedError(
                    f"the stored mixture has format {document['format']!r}, this version reads {FORMAT}", "train again"
                )
            settings = settings_from_contract(document["contract"])
            weights_from_document(document["weights"])
            recalibrated = document.get("recalibration")
            model = cls(
                kind=MIXTURE,
                cut=datetime.fromisoformat(document["cut"]),
                contract=dict(document["contract"]),
                explanation=str(document["explanation"]),
                evidence=dict(document["evidence"]),
                plan=ColumnPlan.from_document(document["plan"]),
                calibration=Calibration.from_document(document["calibration"]),
                booster_text=booster_text,
                members=int(document["members"]),
                recalibration=Recalibration.from_document(recalibrated) if recalibrated is not None else None,
                threads=threads,
                # JSON in PostgreSQL has no order of its own, and a sum has one.
                weights={str(name): float(document["weights"][name]) for name in document["order"]},
                baselines=_in_order(document["baselines"], document["order"], Baseline.from_document),
                linears=_in_order(
                    document["linears"], document["order"], lambda one: Linear.from_document(one, settings)
                ),
                overall=Calibration.from_document(document["overall"]),
                mapped_weight=float(document["mapped_weight"]),
            )
            version, own = document["version"], model.version
            complete = set(model.weights) - {ALL} <= {*model.baselines, *model.linears, TREES}
            complete = complete and (TREES not in model.weights or booster_text is not None) and model.members >= 1
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise HeedError(f"the stored mixture is malformed ({error!r})", "train again") from error
        if version != own:
            raise HeedError(
                f"the stored model {version} does not match its own content ({own})",
                "restore it or train again",
            )
        if not complete:
            raise HeedError("the stored mixture lacks a contender that has weight", "train again")
        if booster_text is not None and model._forest().names != boosting.safe_names(model.plan.names):
            raise HeedError("the stored trees and their column plan do not belong together", "train again")
        return model


def read_model(booster_text: str | None, document: Any, threads: int = 2) -> Model:
    """Any stored version: a mixture, or a model of an earlier release. `HeedError` when it is damaged."""
    mixed = isinstance(document, dict) and document.get("kind") == MIXTURE
    return (Mixture if mixed else Model).from_document(booster_text, document, threads)


def averaged(names: set[str]) -> tuple[str, ...]:
    """Of the contenders `names`, those whose log-odds `ALL` averages: the trees, the fullest linear model, the words
    and the rate of the rule, as far as given."""
    everything, words, plain = RECIPES[-1].name, RECIPES[-2].name, RECIPES[3].name
    wanted = (TREES, everything, words, "rate_per_rule") if everything in names else (TREES, plain, "rate_per_rule")
    return tuple(name for name in wanted if name in names)


def mean_log_odds(forecasts: dict[str, np.ndarray]) -> np.ndarray:
    """The mean log-odds of the `averaged` contenders, as a probability."""
    return metrics.expit(np.mean([metrics.logit(forecasts[name]) for name in averaged(set(forecasts))], axis=0))


def mapped(p: np.ndarray, overall: Calibration, weight: float) -> np.ndarray:
    """A probability mixed with its calibrated self, which has this weight."""
    return metrics.clip_probability((1 - weight) * p + weight * overall.apply(p)) if weight else p


def _in_order(documents: dict[str, Any], order: list[str], read: Any) -> dict[str, Any]:
    names: Iterator[str] = iter(sorted(documents, key=lambda name: (name not in order, name)))
    return {str(name): read(documents[name]) for name in names}
