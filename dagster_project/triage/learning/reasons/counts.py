"""How often alerts with a fact were acted on, counted at training.

Belongs here: the bins of each column of the matrix, counting in them, and their form as plain numbers.
Does not belong here: what the counts prove (`claims.py`) and how they are said (`words.py`).

History columns know how often alerts of the same rule were acted on; nothing knows that of "severity is critical" or
"the third alert of a host within an hour". A model keeps these counts of the alerts it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.matrix import Column, ColumnPlan

# Earlier alerts in a window: few are told one by one, many in bins of about half an order of magnitude.
RAISED_EDGES = (0, 1, 2, 3, 6, 11, 21, 51, 101, 201, 501, 1001, 2001, 5001, 10001, 20001, 50001, 100001, 1000001)
HOUR_EDGES = (0, 3, 6, 9, 12, 15, 18, 21)
WEEKDAY_EDGES = (0, 1, 2, 3, 4, 5, 6)
# Numbers fall into so many bins of equal size. Wider ones say too little, narrower ones follow luck.
QUANTILES = 6


@dataclass(frozen=True)
class Bins:
    """Counts of one column.

    edges : the lower end of each bin, ascending; a category has its codes.
    known, acted : training alerts in each bin, and those of them that were acted on.
    """

    edges: tuple[float, ...]
    known: tuple[int, ...]
    acted: tuple[int, ...]

    def place(self, values: np.ndarray) -> np.ndarray:
        """The bin of each value, int64; -1 below the first and for nan."""
        # nan sorts behind every number.
        return np.where(np.isnan(values), -1, np.searchsorted(np.asarray(self.edges), values, side="right") - 1)


@dataclass(frozen=True)
class PastCounts:
    """Counts of the alerts a model was trained on: name of a column of its plan -> `Bins`."""

    columns: dict[str, Bins] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_document` gives back equal counts."""
        return {
            name: {"edges": list(bins.edges), "known": list(bins.known), "acted": list(bins.acted)}
            for name, bins in self.columns.items()
        }

    @classmethod
    def from_document(cls, document: Any) -> PastCounts:
        """The counts of a document made by `to_document`; KeyError, TypeError or ValueError when it is not one."""
        columns = {}
        for name, entry in dict(document).items():
            bins = Bins(
                tuple(map(float, entry["edges"])), tuple(map(int, entry["known"])), tuple(map(int, entry["acted"]))
            )
            if not len(bins.edges) == len(bins.known) == len(bins.acted):
                raise ValueError("bins and counts differ in number")
            columns[str(name)] = bins
        return cls(columns)


def count_outcomes(
    plan: ColumnPlan, matrix: np.ndarray, acted: np.ndarray, rows: np.ndarray, settings: FeatureSettings
) -> PastCounts:
    """Counts of the training alerts `rows` (bool) in the bins of every column that a reason may tell.

    matrix : float32 [alerts, columns of `plan`]. acted : 0.0 or 1.0 per alert.
    """
    windows = {f.name for f in history_features_for(settings) if f.statistic == "raised_count"}
    outcome = acted[rows]
    columns = {}
    for position, column in enumerate(plan.columns):
        values = matrix[rows, position].astype(np.float64)
        edges = _edges(column, windows, values)
        if edges is None:
            continue
        bins = Bins(edges, (), ())
        place = bins.place(values)
        inside = place >= 0
        known = np.bincount(place[inside], minlength=len(edges))
        hits = np.bincount(place[inside], outcome[inside], minlength=len(edges))
        columns[column.name] = Bins(edges, tuple(map(int, known)), tuple(map(round, hits.tolist())))
    return PastCounts(columns)


def _edges(column: Column, windows: set[str], values: np.ndarray) -> tuple[float, ...] | None:
    """None for a column that no reason tells."""
    name = column.of[0]
    if column.categorical:
        return tuple(float(code) for code in range(len(column.categories)))
    if column.source == "raise" and name in ("hour", "weekday"):
        return tuple(map(float, HOUR_EDGES if name == "hour" else WEEKDAY_EDGES))
    if column.source == "history" and name in windows:
        return tuple(map(float, RAISED_EDGES))
    if column.source == "number" or (column.source == "raise" and name in ("value", "value_over_threshold")):
        return _quantile_edges(values)
    return None


def _quantile_edges(values: np.ndarray) -> tuple[float, ...] | None:
    """Bins of about equal size; None when there is nothing to divide."""
    seen = values[np.isfinite(values)]
    edges = np.unique(np.quantile(seen, np.linspace(0, 1, QUANTILES + 1)[:-1])) if len(seen) else seen
    return tuple(map(float, edges)) if len(edges) > 1 else None
