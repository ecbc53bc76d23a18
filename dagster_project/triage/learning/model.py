"""The trained model: forecasts, reasons, and an exact, pickle-free stored form.

Belongs here: `Model`, which training produces, the store keeps and scoring uses.
Does not belong here: training it (`learning/training.py`), stores and tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import expit
from dagster_project.triage.features.contract import histories_about, settings_from_contract
from dagster_project.triage.features.matrix import ColumnPlan
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.baselines import Baseline
from dagster_project.triage.learning.calibration import Calibration
from dagster_project.triage.learning.reasons.counts import PastCounts
from dagster_project.triage.learning.reasons.subjects import reasons_from_baseline, reasons_from_contributions
from dagster_project.triage.learning.trees import Forest

FORMAT = 2
LIGHTGBM = "lightgbm"
MIXTURE = "mixture"
PRIOR = "prior"

# Alerts are scored and explained in batches of so many, which bounds the memory. At 150 columns a batch takes 60 MB to
# score and 70 MB to explain; larger ones are no faster.
SCORED_AT_A_TIME = 100_000
EXPLAINED_AT_A_TIME = 20_000


@dataclass(frozen=True)
class Recalibration:
    """A map over the scores of trees that stay, fitted on their forecasts since training and the outcomes.

    calibration : applied after the model's own. cut : everything it was fitted on was known by then (UTC).
    alerts : how many it was fitted on.
    """

    calibration: Calibration
    cut: datetime
    alerts: int

    def to_document(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_document` gives back an equal one."""
        cut = self.cut.astimezone(UTC).isoformat()
        return {"calibration": self.calibration.to_document(), "cut": cut, "alerts": self.alerts}

    @classmethod
    def from_document(cls, document: Any) -> Recalibration:
        """Of a document made by `to_document`; KeyError, TypeError, ValueError or `HeedError` when it is not one."""
        calibration = Calibration.from_document(document["calibration"])
        return cls(calibration, datetime.fromisoformat(document["cut"]), int(document["alerts"]))


@dataclass(frozen=True)
class Model:
    """Forecasts the probability of action; comes from `train` or `Model.from_document`.

    kind : "mixture" (`mixture/model.py`) or "prior"; of earlier releases "lightgbm" or the name of a baseline.
    cut : data through this moment went into it (UTC).
    contract : the feature contract it was trained with.
    explanation : what it is and why it serves, in words.
    evidence : JSON-able: how every contender performed in the past.
    members : how many fits share `booster_text`; their mean log-odds are the score before calibration.
    counts : how often alerts with a fact were acted on, for the reasons of trees.
    recalibration : set while a champion stays whose candidates were refused (`champion/recalibration.py`).
    """

    kind: str
    cut: datetime
    contract: dict[str, Any]
    explanation: str
    evidence: dict[str, Any] = field(default_factory=dict)
    baseline: Baseline | None = None
    plan: ColumnPlan = field(default_factory=ColumnPlan)
    calibration: Calibration = field(default_factory=Calibration)
    booster_text: str | None = None
    members: int = 1
    counts: PastCounts = field(default_factory=PastCounts)
    recalibration: Recalibration | None = None
    threads: int = field(default=2, compare=False)

    @property
    def status(self) -> str:
        """ "model", "baseline" or "prior", as readers of the score see it."""
        return {LIGHTGBM: "model", PRIOR: "prior"}.get(self.kind, "baseline")

    @property
    def version(self) -> str:
        """Deterministic name: the kind, the cut and a hash of everything in the stored form."""
        text = json.dumps(_storable(self._document()), sort_keys=True, separators=(",", ":"), allow_nan=False)
        digest = hashlib.sha256((text + "\n" + (self.booster_text or "")).encode()).hexdigest()[:12]
        return f"{self.kind}-{self.cut.astimezone(UTC):%Y%m%dT%H%M%SZ}-{digest}"

    def as_trained(self) -> Model:
        """The model as it was trained, without any recalibration."""
        return replace(self, recalibration=None)

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action of each alert: float64 in (0, 1), never missing.

        `frame` has the raise-time columns and the history columns of the contract; `HeedError` names a
        missing one. Text the training did not see counts as missing.
        """
        if not len(frame):
            return np.zeros(0)
        if self.baseline is not None:
            probability = self.calibration.apply(self.baseline.predict(frame))
        else:
            probability = np.concatenate([self.trees_forecast(some) for some in in_batches(frame)])
        return self._recalibrated(probability)

    def trees_forecast(self, frame: pd.DataFrame) -> np.ndarray:
        """The calibrated probability of the trees alone: float64 [alerts]."""
        return self._trees_probability(self.plan.matrix(frame))

    def _trees_probability(self, matrix: np.ndarray) -> np.ndarray:
        return self.calibration.apply(expit(self._forest().raw_scores(matrix, self.threads) / self.members))

    def _recalibrated(self, probability: np.ndarray) -> np.ndarray:
        return probability if self.recalibration is None else self.recalibration.calibration.apply(probability)

    @property
    def usual(self) -> float:
        """Share acted of the alerts it was trained on, inside (0, 1): half an alert of each kind is added."""
        alerts = self.evidence.get("alerts", {})
        return (alerts.get("acted", 0) + 0.5) / (alerts.get("mature", 0) + 1.0)

    def contributions(self, matrix: np.ndarray) -> np.ndarray:
        """Exact Shapley contributions to the log-odds before calibration: float64 [alerts, columns of the plan].

        matrix : `plan.matrix` of the alerts. Of a model of trees only.
        """
        return self._forest().contributions(matrix, self.threads) / self.members

    def reasons(self, frame: pd.DataFrame, top: int = 3) -> list[list[str]]:
        """At most `top` reasons per alert, strongest first, in plain words."""
        settings = settings_from_contract(self.contract)
        if self.baseline is not None:
            chance, nothing = self.predict(frame), self.kind == PRIOR
            return reasons_from_baseline(self.baseline, frame, settings, self.usual, chance, top, nothing)
        told: list[list[str]] = []
        for some in in_batches(frame, explained=True):
            matrix = self.plan.matrix(some)
            told += reasons_from_contributions(
                some, self.plan, matrix, self.contributions(matrix), self.counts, settings, self.usual,
                self._recalibrated(self._trees_probability(matrix)), top,
            )  # fmt: skip
        return told

    def reads(self, source: str) -> bool:
        """Whether a column ("severity") or attribute ("@region"), or a history about it, takes part in the scores."""
        settings = settings_from_contract(self.contract)
        if len(self.plan.without([source], settings).columns) < len(self.plan.columns):
            return True
        return self.baseline is not None and self.baseline.reads(histories_about([source], settings))

    def to_document(self) -> tuple[str | None, dict[str, Any]]:
        """(LightGBM's text format or None, a JSON-able document) for `from_document`."""
        return self.booster_text, {**_storable(self._document()), "version": self.version}

    @classmethod
    def from_document(cls, booster_text: str | None, document: Any, threads: int = 2) -> Model:
        """The model of `to_document`. `HeedError` when anything is missing, changed or malformed."""
        try:
            if document["format"] != FORMAT:
                raise HeedError(
                    f"the stored model has format {document['format']!r}, this version reads {FORMAT}",
                    "train again",
                )
            baseline = document["baseline"]
            model = cls(
                **fields_of(document),
                baseline=Baseline.from_document(baseline) if baseline is not None else None,
                booster_text=booster_text,
                threads=threads,
            )
            version, own = document["version"], model.version
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, RecursionError) as error:
            raise HeedError(f"the stored model is malformed ({error!r})", "train again") from error
        if (model.baseline is None) == (model.booster_text is None) or model.members < 1:
            raise HeedError("the stored model has neither trees nor a baseline, or both", "train again")
        if version != own:
            raise HeedError(
                f"the stored model {version} does not match its own content ({own})",
                "restore it or train again",
            )
        if model.baseline is None and model._forest().names != boosting.safe_names(model.plan.names):
            raise HeedError("the stored trees and their column plan do not belong together", "train again")
        return model

    def _forest(self) -> Forest:
        assert self.booster_text is not None
        key = hashlib.sha256(self.booster_text.encode()).digest()
        if key not in _PARSED:
            forest = Forest(self.booster_text)
            _PARSED.clear()
            _PARSED[key] = forest
        return _PARSED[key]

    def _document(self) -> dict[str, Any]:
        # Left out when there is none, so that versions stored earlier keep their names.
        recalibrated = {"recalibration": self.recalibration.to_document()} if self.recalibration is not None else {}
        counted = {"counts": self.counts.to_document()} if self.counts.columns else {}
        return {
            **recalibrated,
            **counted,
            "format": FORMAT,
            "kind": self.kind,
            "cut": self.cut.astimezone(UTC).isoformat(),
            "contract": self.contract,
            "explanation": self.explanation,
            "evidence": self.evidence,
            "calibration": self.calibration.to_document(),
            "baseline": self.baseline.to_document() if self.baseline is not None else None,
            "plan": self.plan.to_document(),
            "members": self.members,
        }


def fields_of(document: Any) -> dict[str, Any]:
    """The fields that every kind of version has, of its stored form; LookupError, TypeError, ValueError or `HeedError`
    when it is not one."""
    recalibrated = document.get("recalibration")
    return {
        "kind": str(document["kind"]),
        "cut": datetime.fromisoformat(document["cut"]),
        "contract": dict(document["contract"]),
        "explanation": str(document["explanation"]),
        "evidence": dict(document["evidence"]),
        "plan": ColumnPlan.from_document(document["plan"]),
        "calibration": Calibration.from_document(document["calibration"]),
        "members": int(document["members"]),
        "counts": PastCounts.from_document(document.get("counts", {})),
        "recalibration": Recalibration.from_document(recalibrated) if recalibrated is not None else None,
    }


def _storable(value: Any) -> Any:
    """The document as JSON in PostgreSQL gives it back: its numbers have no negative zero."""
    if isinstance(value, dict):
        return {key: _storable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(part) for part in value]
    return 0.0 if isinstance(value, float) and value == 0 else value


# The trees parsed last, so that scoring in batches parses their text only once.
_PARSED: dict[bytes, Forest] = {}


def in_batches(frame: pd.DataFrame, explained: bool = False) -> Iterator[pd.DataFrame]:
    """The alerts in batches that bound the memory of scoring, or of explaining."""
    size = EXPLAINED_AT_A_TIME if explained else SCORED_AT_A_TIME
    return (frame.iloc[first : first + size] for first in range(0, len(frame), size))
