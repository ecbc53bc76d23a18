"""The version that serves: contenders with their weights, in plain numbers.

Belongs here: forecasts and contributions of a mixture, its stored form, and reading any stored version (`read_model`).
Does not belong here: learning one (`learning/training.py`), weights themselves (`weights.py`), single contenders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
from dagster_project.triage.learning.mixture.contributions import baseline_contributions, linear_contributions
from dagster_project.triage.learning.mixture.linear import Linear, encode, log_odds_of
from dagster_project.triage.learning.mixture.quotes import (
    WordCounts,
    claims_of_words,
    counts_from_document,
    counts_to_document,
)
from dagster_project.triage.learning.mixture.weights import pool, weights_from_document, weights_to_document
from dagster_project.triage.learning.model import FORMAT, MIXTURE, Model, fields_of, in_batches
from dagster_project.triage.learning.reasons.claims import Subject
from dagster_project.triage.learning.reasons.subjects import pushes_by_subject, reasons_from_pushes

TREES = "trees"

# What carries less weight than this is left out: it moves no probability by more than one point.
LEAST_WEIGHT = 2e-3


@dataclass(frozen=True)
class Mixture(Model):
    """A version that serves: contenders, their weights, and the map over their pool. The fields of `Model` hold the
    trees; `plan` and `counts` are there without trees as well, for the reasons.

    weights : by contender, they sum to 1; contenders of no weight are left out. linears : by recipe. overall : the
    map over the pool. words : how past alerts with a word ended, for the reasons.
    """

    weights: dict[str, float] = field(default_factory=dict)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    linears: dict[str, Linear] = field(default_factory=dict)
    overall: Calibration = field(default_factory=Calibration)
    words: WordCounts = field(default_factory=dict)

    @property
    def status(self) -> str:
        """ "model" when in its own past it was significantly better than the best simple rule, otherwise
        "baseline"."""
        low = self.evidence.get("gain_over_best_baseline", {}).get("low")
        return "model" if low is not None and low > 0 else "baseline"

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action of each alert: float64 in (0, 1)."""
        if not len(frame):
            return np.zeros(0)
        return self._recalibrated(np.concatenate([self._pooled(some) for some in in_batches(frame)]))

    def _pooled(self, frame: pd.DataFrame) -> np.ndarray:
        forecasts = self.forecasts(frame)
        p = pool(np.column_stack([forecasts[name] for name in self.weights]), np.array(list(self.weights.values())))
        return self.overall.apply(p)

    def forecasts(self, frame: pd.DataFrame) -> dict[str, np.ndarray]:
        """The probability that each contender of weight gives, by its name."""
        by_name = {name: baseline.predict(frame) for name, baseline in self.baselines.items()}
        if self.linears:
            first = next(iter(self.linears.values()))
            kinds = sorted({kind for model in self.linears.values() for kind in model.facts})
            encoded = encode(frame, first.settings, kinds, first.withheld)
            by_name |= {name: metrics.expit(z) for name, z in log_odds_of(self.linears, encoded).items()}
        if self.booster_text is not None:
            by_name[TREES] = self.trees_forecast(frame)
        return by_name

    def pushes(self, frame: pd.DataFrame, matrix: np.ndarray) -> dict[Subject, np.ndarray]:
        """What each subject adds to the log-odds: float64 [alerts] by subject.

        matrix : `plan.matrix(frame)`. The contributions of every contender times its weight: exact Shapley values of
        trees, coefficients of linear models, log-odds of a rate less those of the overall rate.
        """
        settings = settings_from_contract(self.contract)
        parts: list[tuple[ColumnPlan, np.ndarray]] = []
        if self.booster_text is not None:
            parts.append((self.plan, self.weights[TREES] * self.contributions(matrix)))
        if self.linears:
            parts.append(linear_contributions({n: (m, self.weights[n]) for n, m in self.linears.items()}, frame))
        baselines = [(baseline, self.weights[name]) for name, baseline in self.baselines.items()]
        parts.append(baseline_contributions(baselines, frame, settings))
        added: dict[Subject, np.ndarray] = {}
        for plan, contributions in parts:
            for subject, push in pushes_by_subject(plan, contributions, settings).items():
                added[subject] = added[subject] + push if subject in added else push
        return added

    def reads(self, source: str) -> bool:
        """As for `Model`, of every contender that has weight."""
        histories = histories_about([source], settings_from_contract(self.contract))
        parts = [baseline.reads(histories) for baseline in self.baselines.values()]
        parts += [model.reads(source) for model in self.linears.values()]
        return any(parts) or super().reads(source)

    def reasons(self, frame: pd.DataFrame, top: int = 3) -> list[list[str]]:
        """At most `top` reasons per alert, strongest first, in plain words."""
        settings = settings_from_contract(self.contract)
        told: list[list[str]] = []
        linears = [(model, self.weights[name]) for name, model in self.linears.items()]
        for some in in_batches(frame, explained=True):
            matrix = self.plan.matrix(some)
            quoted = claims_of_words(some, linears, self.words, self.usual) if self.words else []
            told += reasons_from_pushes(
                some, self.plan, matrix, self.pushes(some, matrix), self.counts, settings, self.usual,
                self.predict(some), top, quoted,
            )  # fmt: skip
        return told

    def _document(self) -> dict[str, Any]:
        return {
            **super()._document(),
            "weights": weights_to_document(list(self.weights), np.array(list(self.weights.values()))),
            "order": list(self.weights),
            "baselines": {name: baseline.to_document() for name, baseline in self.baselines.items()},
            "linears": {name: model.to_document() for name, model in self.linears.items()},
            "overall": self.overall.to_document(),
            "words": counts_to_document(self.words),
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
            model = cls(
                **fields_of(document),
                booster_text=booster_text,
                threads=threads,
                # JSON in PostgreSQL has no order of its own, and a sum has one.
                weights={str(name): float(document["weights"][name]) for name in document["order"]},
                baselines=_in_order(document["baselines"], document["order"], Baseline.from_document),
                linears=_in_order(
                    document["linears"], document["order"], lambda one: Linear.from_document(one, settings)
                ),
                overall=Calibration.from_document(document["overall"]),
                words=counts_from_document(document["words"]),
            )
            version, own = document["version"], model.version
            complete = set(model.weights) <= {*model.baselines, *model.linears, TREES}
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


def _in_order(documents: dict[str, Any], order: list[str], read: Any) -> dict[str, Any]:
    names: Iterator[str] = iter(sorted(documents, key=lambda name: (name not in order, name)))
    return {str(name): read(documents[name]) for name in names}
