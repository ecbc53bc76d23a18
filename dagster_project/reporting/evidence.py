"""The data of the evidence page, and look-ups in the stored evaluation.

Belongs here: the data object that `page.py` renders. Pure: frames in, plain values out.
Does not belong here: reading the warehouse (`dagster_project/commands/report.py`), the verdict (`verdict.py`),
computing metrics (`triage`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

import pandas as pd

from dagster_project.reporting.words import known

MODEL = "model"
LEARNED = ("mixture", "lightgbm")
SKILL = "log_loss_skill_over_best_baseline"
SKILL_OVER_CONSTANT = "log_loss_skill_over_constant"
HEADLINE, EVERYTHING, LAST_CUT = "unflagged", "all", "last cut"
AS_READ, EVERY_AGE = "open alerts as read", "every age"
AGES = ("under 1 hour", "1 hour to 1 day", "1 to 3 days", "3 to 7 days", "older")
MISS_RATES = ("1%", "2%", "5%")


def saved_at(rate: str) -> str:
    """The metric of the workload saved at a miss rate like '5%'."""
    return f"workload_saved_at_{rate}_missed"


@dataclass(frozen=True)
class Number:
    """A metric with its 95% interval; None: too few alerts, or not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def above_zero(self) -> bool:
        return self.low is not None and self.low > 0

    @property
    def below_zero(self) -> bool:
        return self.high is not None and self.high < 0


@dataclass(frozen=True)
class Scoring:
    """The version that scores. kind : 'mixture' or 'prior'; of earlier releases 'lightgbm' or a baseline's name."""

    model_version: str
    kind: str
    cut: datetime
    since: datetime
    decision: str
    decided_by: str
    reasons: list[str]
    explanation: str
    contract_hash: str
    evidence: dict[str, Any] = field(default_factory=dict)

    @property
    def contender(self) -> str:
        """The name of the version's forecasts in the evaluation."""
        return MODEL if self.kind in LEARNED else self.kind


@dataclass(frozen=True)
class Evidence:
    """Everything the page shows.

    as_of : the page uses data through this time. scoring : None: no version scores yet.
    evaluation : slice, slice_value, contender, metric, value, low, high, alerts, acted, of the version that scores;
        reliability : contender, bin, mean_forecast, acted_share, low, high, alerts, acted; evaluated_at : when.
    promises : for each share of actions that may be missed, what reporting.triage_workload says: promise ('5%'),
        threshold, alerts_below, acted_below, alerts, acted, saved, missed.
    versions, decisions : newest first. audits : None: not audited; else 'leakage' (list of findings: check, subject,
        finding, value, limit, verdict), 'shortcut' (verdict, reason, value, low, high) and 'scorecard' (list of teams),
        each of which may be absent.
    band : day, alerts, expected, upper. floods : day, scope_kind, scope, volume, expected, acted_share, status,
        evidence. excluded : counts of flagged alerts. calibration_limit : the largest decile error
        that counts as calibrated; calibration_basis : where that limit comes from.
    """

    as_of: datetime
    scoring: Scoring | None
    evaluation: pd.DataFrame
    reliability: pd.DataFrame
    promises: list[dict[str, Any]] = field(default_factory=list)
    evaluated_at: datetime | None = None
    versions: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    audits: dict[str, Any] | None = None
    band: pd.DataFrame = field(default_factory=pd.DataFrame)
    floods: pd.DataFrame = field(default_factory=pd.DataFrame)
    visibility_only: list[dict[str, Any]] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
    loaded: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    loads: list[dict[str, Any]] = field(default_factory=list)
    horizon_days: float = 14
    calibration_limit: float = 0.05
    calibration_basis: str = ""

    @property
    def shown(self) -> str | None:
        """The contender that the page is about: the one that scores, model or simple rule; None: not evaluated."""
        name = self.scoring.contender if self.scoring else None
        return name if name in self.contenders() else None

    def contenders(self, part: str = HEADLINE) -> list[str]:
        """The contenders of a slice, from the lowest log-loss to the highest."""
        here = self.evaluation
        here = here[(here["slice"] == part) & (here["metric"] == "log_loss")] if len(here) else here
        if not len(here):
            return []
        by = here.sort_values(["value", "contender"], na_position="last", kind="stable")
        return list(dict.fromkeys(by["contender"]))

    def best_baseline(self, part: str = HEADLINE) -> str | None:
        """The baseline with the lowest log-loss on the slice's own alerts; None if it is not known."""
        for name in self.contenders(part):
            if name != MODEL and self.number(name, "log_loss", part).value is not None:
                return name
        return None

    def number(self, contender: str | None, metric: str, part: str = HEADLINE, value: str = "") -> Number:
        """One metric of one contender on one slice."""
        row = self._index.get((part, value, contender or "", metric))
        if row is None or not known(row[0]):
            return Number()
        low, high = (float(end) if known(end) else None for end in row[1:3])
        return Number(float(row[0]), low, high)

    def support(self, part: str = HEADLINE, value: str = "") -> tuple[int, int]:
        """(alerts, acted) of a slice."""
        for (name, of, _, _), row in self._index.items():
            if (name, of) == (part, value):
                return int(row[3]), int(row[4])
        return 0, 0

    def values_of(self, part: str) -> list[str]:
        """The values of a slice: months in order, others by number of alerts."""
        here = self.evaluation
        here = here[here["slice"] == part] if len(here) else here
        if not len(here):
            return []
        sizes = here.groupby("slice_value")["alerts"].max().sort_index()
        return list(sizes.index if part == "month" else sizes.sort_values(ascending=False, kind="stable").index)

    @cached_property
    def _index(self) -> dict[tuple[str, str, str, str], tuple[Any, ...]]:
        columns = ["slice", "slice_value", "contender", "metric", "value", "low", "high", "alerts", "acted"]
        rows = self.evaluation[columns].itertuples(index=False, name=None) if len(self.evaluation) else ()
        return {row[:4]: row[4:] for row in rows}
