"""What looking only at alerts above a threshold would have saved and missed.

Belongs here: the curve over thresholds, and reading it at a threshold or at a promise. The view
`reporting.triage_workload` counts published scores by the same rule; board, report and `heed summary` read the view,
and read it with `at_threshold` and `at_promise`.
Does not belong here: other measures (`measures.py`), the threshold for closing alerts (`triage/autoclose.py`).

All of it is about the chance at the raise, by first scores: what was said before anybody decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

MOST = 1_000  # thresholds: with more distinct forecasts, those at every thousandth of the alerts
PROMISES = (0.01, 0.02, 0.05)  # shares of acted alerts that may be missed; their thresholds are always in the curve
COLUMNS = ("threshold", "alerts", "acted", "alerts_below", "acted_below")


@dataclass(frozen=True)
class Below:
    """What lies below a threshold: alerts whose probability is smaller. alerts, acted : in all."""

    threshold: float
    alerts_below: int
    acted_below: int
    alerts: int
    acted: int

    @property
    def saved(self) -> float:
        return self.alerts_below / self.alerts

    @property
    def missed(self) -> float:
        return self.acted_below / self.acted


def workload_curve(probability: np.ndarray, acted: np.ndarray) -> pd.DataFrame:
    """The curve over the distinct forecasts of past alerts.

    Parameters
    ----------
    probability : float64[alerts], in [0, 1]. acted : 1.0 or 0.0 per alert.

    Returns
    -------
    `COLUMNS`, by rising threshold: threshold (float64), alerts, acted (in all), alerts_below, acted_below (int64). Of
    more than `MOST` distinct forecasts those that hold a thousandth of the alerts, and those of `PROMISES`.
    """
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(acted, dtype=np.float64) > 0.5
    threshold, code = np.unique(p, return_inverse=True)
    own, own_acted = np.bincount(code, minlength=len(threshold)), np.bincount(code[y], minlength=len(threshold))
    below, acted_below = np.cumsum(own) - own, np.cumsum(own_acted) - own_acted
    total, total_acted = len(p), int(y.sum())
    keep = np.ones(len(threshold), dtype=bool)
    if len(threshold) > MOST:
        keep = below * MOST // total < (below + own) * MOST // total
        for rate in PROMISES if total_acted else ():
            keep |= (acted_below / total_acted <= rate) & ((acted_below + own_acted) / total_acted > rate)
    return pd.DataFrame(
        {
            "threshold": threshold,
            "alerts": total,
            "acted": total_acted,
            "alerts_below": below,
            "acted_below": acted_below,
        }
    )[keep].reset_index(drop=True)


def at_threshold(curve: pd.DataFrame, threshold: float) -> Below:
    """What lies below a threshold. Between two of the curve the higher one counts, so nothing missed is left out."""
    row = int(np.searchsorted(curve["threshold"].to_numpy(), threshold, side="left"))
    alerts, acted = int(curve["alerts"].iloc[0]), int(curve["acted"].iloc[0])
    if row == len(curve):
        return Below(threshold, alerts, acted, alerts, acted)
    return Below(threshold, int(curve["alerts_below"].iloc[row]), int(curve["acted_below"].iloc[row]), alerts, acted)


def at_promise(curve: pd.DataFrame, missed: float) -> Below:
    """The highest threshold of the curve below which at most this share of acted alerts lies."""
    # The quotient, as SQL compares it: 0.01 * 2,900 is less than 29.
    within = np.flatnonzero(curve["acted_below"].to_numpy() / curve["acted"].to_numpy() <= missed)
    return at_threshold(curve, float(curve["threshold"].iloc[within[-1]]))
