"""The figures next to the board's slider: what a threshold leaves for later now, and what it would have in the past.

Belongs here: reading the past from the warehouse, counting below each threshold, wording the counts.
Does not belong here: which alerts are open (`board.py`) or shown (`filter.py`), markup (`pages.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.pool import rows
from dagster_project.triage.evaluation.metrics import wilson_interval
from dagster_project.triage.evaluation.workload import COLUMNS, Below, at_threshold

STEPS = 101  # thresholds: 0% to 100%
# Where the slider starts: the highest threshold below which at most this share of past actions lay. A convention of
# the evaluation (workload saved at 5% missed), not a recommendation.
STARTING_MISSED = 0.05

_WORKLOAD = """
SELECT source, threshold, alerts, acted, alerts_below, acted_below
FROM reporting.triage_workload WHERE share_missed IS NOT NULL ORDER BY threshold
"""


@dataclass(frozen=True)
class Past:
    """What lay below each threshold in the past.

    source : 'scores': published scores with their outcomes. 'evaluation': forecasts of past alerts by models that had
    not seen them. 'none': neither exists. curve : as `workload_curve` gives it.
    """

    source: str = "none"
    curve: pd.DataFrame = field(default_factory=pd.DataFrame)

    @cached_property
    def below(self) -> list[Below]:
        """What lay below each threshold in percent."""
        return [at_threshold(self.curve, step / 100) for step in range(STEPS)] if len(self.curve) else []

    @property
    def alerts(self) -> int:
        return self.below[0].alerts if self.below else 0

    def start(self) -> int:
        """The threshold, in percent, at which the slider starts."""
        return max((step for step, at in enumerate(self.below) if at.missed <= STARTING_MISSED), default=0)


@dataclass(frozen=True)
class Workload:
    """The figures next to the slider: for each figure, one text per threshold in percent."""

    threshold: int
    waiting: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    saved_of: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    missed_of: list[str] = field(default_factory=list)

    def steps(self) -> dict[str, list[str]]:
        return {name: texts for name, texts in vars(self).items() if name != "threshold"}


def read_past(cursor: Cursor) -> Past:
    """The past as published scores tell it or, while too few of them have an outcome, the evaluation."""
    curve = rows(cursor, _WORKLOAD)
    return Past(curve[0]["source"], pd.DataFrame(curve, columns=[*COLUMNS])) if curve else Past()


def workload_of(probabilities: np.ndarray, past: Past, threshold: int) -> Workload:
    """The figures for these open alerts. probabilities : float[alerts], nan where no score is shown."""
    rising = np.sort(probabilities[~np.isnan(probabilities)])
    sums = np.concatenate([[0.0], np.cumsum(rising)])
    workload = Workload(threshold)
    for step, below in enumerate(np.searchsorted(rising, [step / 100 for step in range(STEPS)]).tolist()):
        workload.waiting.append(f"{below:,} of {len(rising):,} ({_share(below, len(rising))})")
        workload.expected.append(f"about {_rough(sums[below])} of {_rough(sums[-1])}")
        if past.source == "none":
            for texts in (workload.saved, workload.missed):
                texts.append("not known yet")
            for texts in (workload.saved_of, workload.missed_of):
                texts.append("too few outcomes are known")
            continue
        at = past.below[step]
        low, high = wilson_interval(at.acted_below, at.acted)
        workload.saved.append(_share(at.alerts_below, at.alerts))
        workload.saved_of.append(f"{at.alerts_below:,} of {at.alerts:,} past alerts were below")
        workload.missed.append(_share(at.acted_below, at.acted))
        workload.missed_of.append(
            f"{at.acted_below:,} of {at.acted:,} past actions; 95% interval {low:.1%} to {high:.1%}"
        )
    return workload


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _rough(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
