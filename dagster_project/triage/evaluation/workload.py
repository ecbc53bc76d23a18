"""What a threshold saves and misses, exactly: counted on forecasts, not on deciles.

Belongs here: the curve of alerts and of actions below each threshold, and reading it at a threshold or at a promise.
Does not belong here: which forecasts count (the caller's), and showing them (board, report, `triage_workload`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

COLUMNS = ("threshold", "alerts_below", "acted_below", "alerts", "acted", "share_below", "share_missed")
MOST = 1_000


def workload_curve(probability: np.ndarray, acted: np.ndarray, most: int = MOST) -> pd.DataFrame:
    """Alerts and actions below each threshold.

    Parameters
    ----------
    probability : float64[alerts] in [0, 1]. acted : 1.0 or 0.0; alerts with nan in either are left out. Equally long.
    most : with more distinct forecasts than this, this many quantiles of them are the thresholds.

    Returns
    -------
    `COLUMNS`, thresholds ascending, the last 1. alerts_below counts forecasts strictly below the threshold, in every
    row exactly: quantiles choose where the curve is read and round no count. share_missed is nan where nobody acted,
    share_below where there are no alerts.
    """
    p, y = np.asarray(probability, dtype=np.float64), np.asarray(acted, dtype=np.float64)
    known = ~np.isnan(p) & ~np.isnan(y)
    order = np.argsort(p[known], kind="stable")
    p, y = p[known][order], y[known][order]
    thresholds = np.unique(p)
    if len(thresholds) > most:
        thresholds = np.unique(np.quantile(thresholds, np.linspace(0, 1, most), method="nearest"))
    thresholds = np.union1d(thresholds, [1.0])
    below = np.searchsorted(p, thresholds, side="left")
    acted_below = np.concatenate([[0], np.cumsum(y)])[below].astype(np.int64)
    total, hits = len(p), int(y.sum())
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "alerts_below": below.astype(np.int64),
            "acted_below": acted_below,
            "alerts": total,
            "acted": hits,
            "share_below": below / total if total else np.nan,
            "share_missed": acted_below / hits if hits else np.nan,
        }
    )


def at_threshold(curve: pd.DataFrame, threshold: float) -> pd.Series:
    """The row that holds for a threshold: that of the lowest threshold at or above it, or the last.

    Exact where every distinct forecast is in the curve: no alert lies between the two."""
    place = int(np.searchsorted(curve["threshold"].to_numpy(), threshold, side="left"))
    return curve.iloc[min(place, len(curve) - 1)]


def at_promise(curve: pd.DataFrame, missed: float) -> pd.Series:
    """The row that saves most while it misses at most the share `missed` of actions; the first where nothing was acted
    on, which saves nothing."""
    kept = curve["share_missed"].to_numpy() <= missed * (1 + 1e-12)
    return curve.iloc[int(np.flatnonzero(kept)[-1]) if kept.any() else 0]
