"""What became of earlier bursts: where bursts are acted on, a further one is no reason to suspect a bug.

Belongs here: the record of verdicts, and whether it still lets a burst be suspected on its day.
Does not belong here: volumes (`levels.py`) and the verdicts themselves (`decision.py`).

In some companies one cause raises an alert on each of a hundred hosts, a scanner sweeps all packages, or a campaign
runs every month; people act on many of these bursts. The share of bursts that were cleared has a Beta prior; the
verdicts known when a burst is noticed move it. All scopes of a day have one vote together, since one cause has many.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import betainc

from dagster_project.triage.flags.floods.levels import Flood

# Before any verdict one burst in five is expected to be genuine.
PRIOR = (1.0, 4.0)
# The bursts of other scopes count as at most so many: a rule's own record decides in the end.
MOST_OF_OTHERS = 20.0
# A burst is not suspected where more than a quarter of them are genuine, with this probability: a flag that sends every
# fourth acted alert to the end of the list does more harm than good.
GENUINE_SHARE, CERTAINTY = 0.25, 0.85


@dataclass
class Record:
    """The verdicts so far, in the order of their days: one entry per judged flood."""

    slots: list[int] = field(default_factory=list)
    decided: list[int] = field(default_factory=list)
    cleared: list[bool] = field(default_factory=list)
    scopes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, flood: Flood, cleared: bool, decided: int) -> None:
        self.slots.append(flood.slot)
        self.decided.append(decided)
        self.cleared.append(cleared)
        self.scopes.append((flood.kind, flood.scope))

    def genuine_bursts(self, flood: Flood) -> bool:
        """Whether, by the verdicts known when the flood was noticed, bursts like it are genuine too often."""
        known = np.array(self.decided, np.int64) <= flood.detected
        if not known.any():
            return False
        slots, cleared = np.array(self.slots)[known], np.array(self.cleared, dtype=float)[known]
        own = np.array([scope == (flood.kind, flood.scope) for scope in self.scopes])[known]
        of_own, own_days = _votes(slots[own], cleared[own])
        of_others, days = _votes(slots[~own], cleared[~own])
        weight = min(1.0, MOST_OF_OTHERS / days) if days else 0.0
        genuine = PRIOR[0] + of_own + weight * of_others
        bugs = PRIOR[1] + (own_days - of_own) + weight * (days - of_others)
        return bool(1.0 - betainc(genuine, bugs, GENUINE_SHARE) >= CERTAINTY)


def _votes(slots: np.ndarray, cleared: np.ndarray) -> tuple[float, int]:
    """(sum over days of the share of their verdicts that cleared, days)."""
    days, at = np.unique(slots, return_inverse=True)
    return float((np.bincount(at, cleared) / np.bincount(at)).sum()) if len(days) else 0.0, len(days)
