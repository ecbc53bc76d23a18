"""The figures next to the board's slider: what a threshold leaves for later now, and what it would have in the past.

Belongs here: reading the past from the warehouse, counting below each threshold, wording the counts.
Does not belong here: which alerts are open (`board.py`) or shown (`filter.py`), markup (`pages.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.pool import rows
from dagster_project.triage.evaluation.metrics import wilson_interval

STEPS = 101  # thresholds: 0% to 100%
# Where the slider starts: the highest threshold below which at most this share of past actions lay. A convention of
# the evaluation (workload saved at 5% missed), not a recommendation.
STARTING_MISSED = 0.05

_WORKLOAD = """
SELECT alerts_below, acted_below, alerts, acted, share_saved IS NOT NULL AND acted > 0 AS enough
FROM reporting.triage_workload ORDER BY threshold
"""
# The evaluation of the version that scores; a simple rule has its own name there.
_FORECASTS = """
SELECT reliability.mean_forecast, reliability.alerts, reliability.acted
FROM training.reliability AS reliability
JOIN training.model_versions AS versions USING (model_version)
WHERE reliability.model_version = %(version)s
  AND reliability.contender = CASE WHEN versions.kind IN ('mixture', 'lightgbm') THEN 'model' ELSE versions.kind END
  AND reliability.as_of = (SELECT max(as_of) FROM training.reliability WHERE model_version = %(version)s)
"""


@dataclass(frozen=True)
class Past:
    """For each threshold in percent, what lay below it in the past.

    source : 'scores': published scores with their outcomes. 'evaluation': forecasts of past alerts by models that had
    not seen them. 'none': neither exists.
    """

    source: str = "none"
    alerts: int = 0
    acted: int = 0
    alerts_below: tuple[int, ...] = ()
    acted_below: tuple[int, ...] = ()

    def start(self) -> int:
        """The threshold, in percent, at which the slider starts."""
        within = [step for step, missed in enumerate(self.acted_below) if missed <= STARTING_MISSED * self.acted]
        return max(within, default=0)


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


def read_past(cursor: Cursor, model_version: str | None) -> Past:
    """The past as published scores tell it or, while too few of them have an outcome, the evaluation of the version."""
    thresholds = rows(cursor, _WORKLOAD)
    if thresholds and thresholds[0]["enough"]:
        return Past(
            "scores",
            int(thresholds[0]["alerts"]),
            int(thresholds[0]["acted"]),
            tuple(int(row["alerts_below"]) for row in thresholds),
            tuple(int(row["acted_below"]) for row in thresholds),
        )
    bins = rows(cursor, _FORECASTS, {"version": model_version})
    acted = sum(int(row["acted"]) for row in bins)
    if not acted:
        return Past()
    below = [[row for row in bins if row["mean_forecast"] < step / 100] for step in range(STEPS)]
    return Past(
        "evaluation",
        sum(int(row["alerts"]) for row in bins),
        acted,
        tuple(sum(int(row["alerts"]) for row in part) for part in below),
        tuple(sum(int(row["acted"]) for row in part) for part in below),
    )


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
        saved, missed = past.alerts_below[step], past.acted_below[step]
        low, high = wilson_interval(missed, past.acted)
        workload.saved.append(_share(saved, past.alerts))
        workload.saved_of.append(f"{saved:,} of {past.alerts:,} past alerts were below")
        workload.missed.append(_share(missed, past.acted))
        workload.missed_of.append(f"{missed:,} of {past.acted:,} past actions; 95% interval {low:.1%} to {high:.1%}")
    return workload


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _rough(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
