"""Measures of a probability of action against what happened.

Belongs here: single measures on arrays (probabilities, outcomes, weights), intervals of shares, and the block
bootstrap. Every measure takes weights, because a bootstrap replicate is nothing but a set of weights.
Does not belong here: which contenders are compared and how the table looks (`evaluation/measures.py`), and fitting
anything.

Shapes: `probability`, `acted` and `weight` are one-dimensional and equally long; `probability` lies in (0,
1), `acted` is 0.0 or 1.0 and never missing. A measure that is not defined on what it gets (one class only, no
weight) is nan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, overload

import numpy as np
import pandas as pd

# A probability closer to 0 or 1 than this claims more than data can show: it is clipped before its log-loss is taken.
PROBABILITY_FLOOR = 1e-6

# Standard deviations of a normal distribution that hold 95% of it.
Z95 = 1.959964


def clip_probability(probability: np.ndarray, floor: float = PROBABILITY_FLOOR) -> np.ndarray:
    """`probability` as float64, kept inside [floor, 1 - floor]."""
    return np.clip(np.asarray(probability, dtype=np.float64), floor, 1.0 - floor)


def logit(probability: np.ndarray) -> np.ndarray:
    """Log-odds of a probability, finite because the probability is clipped first."""
    p = clip_probability(probability)
    return np.log(p) - np.log1p(-p)


def expit(log_odds: np.ndarray) -> np.ndarray:
    """The inverse of `logit`, without overflow for large magnitudes."""
    z = np.asarray(log_odds, dtype=np.float64)
    e = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0 / (1.0 + e), e / (1.0 + e))


def log_losses(probability: np.ndarray, acted: np.ndarray) -> np.ndarray:
    """Per-alert negative log-likelihood, in nats."""
    p = clip_probability(probability)
    return -(acted * np.log(p) + (1.0 - acted) * np.log1p(-p))


def squared_errors(probability: np.ndarray, acted: np.ndarray) -> np.ndarray:
    """Per-alert Brier loss."""
    return (np.asarray(probability, dtype=np.float64) - acted) ** 2


def log_loss(probability: np.ndarray, acted: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Mean negative log-likelihood, in nats; nan for no alerts."""
    return _mean(log_losses(probability, acted), weight)


def _mean(values: np.ndarray, weight: np.ndarray | None) -> float:
    if weight is None:
        return float(np.mean(values)) if len(values) else float("nan")
    total = weight.sum()
    return float(np.dot(values, weight) / total) if total > 0 else float("nan")


class Ranking:
    """Alerts ordered by probability once, so that rank measures under many weightings cost one pass each.

    Alerts of equal probability are one step: no measure may profit from the order in which they happen to be listed.
    """

    def __init__(self, probability: np.ndarray, acted: np.ndarray) -> None:
        p = np.asarray(probability, dtype=np.float64)
        self.order = np.argsort(-p, kind="stable")
        ordered = p[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(p) else np.zeros(0, int)
        self.acted = np.asarray(acted, dtype=np.float64)[self.order]

    def steps(self, weight: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """(acted, not acted) weight of each group of equal probability, highest probability first."""
        if not len(self.starts):
            return np.zeros(0), np.zeros(0)
        w = np.ones(len(self.acted)) if weight is None else np.asarray(weight, dtype=np.float64)[self.order]
        all_ = np.add.reduceat(w, self.starts)
        acted = np.add.reduceat(w * self.acted, self.starts)
        return acted, all_ - acted

    def roc_auc(self, weight: np.ndarray | None = None) -> float:
        """Probability that an acted alert ranks above one that was not; ties count half."""
        acted, other = self.steps(weight)
        n_acted, n_other = acted.sum(), other.sum()
        if n_acted <= 0 or n_other <= 0:
            return float("nan")
        above = np.cumsum(acted) - acted
        return float(np.dot(other, above + 0.5 * acted) / (n_acted * n_other))

    def pr_auc(self, weight: np.ndarray | None = None) -> float:
        """Average precision (area under the stepwise precision-recall curve); compare it with the prevalence."""
        acted, other = self.steps(weight)
        total = acted.sum()
        if total <= 0:
            return float("nan")
        hits, seen = np.cumsum(acted), np.cumsum(acted + other)
        precision = np.divide(hits, seen, out=np.zeros_like(hits), where=seen > 0)
        return float(np.dot(acted, precision) / total)

    def workload_saved(self, miss_rate: float, weight: np.ndarray | None = None) -> float:
        """Largest share of alerts below a threshold that leaves at most `miss_rate` of the acted ones there.

        The threshold is chosen on the alerts it is measured on: what a perfect choice of threshold would save.
        """
        acted, other = self.steps(weight)
        n_acted, n_all = acted.sum(), acted.sum() + other.sum()
        if n_acted <= 0 or n_all <= 0:
            return float("nan")
        missed = np.cumsum(acted[::-1])
        saved = np.cumsum((acted + other)[::-1])
        allowed = np.searchsorted(missed, miss_rate * n_acted * (1 + 1e-12), side="right")
        return float(saved[allowed - 1] / n_all) if allowed else 0.0


def roc_auc(probability: np.ndarray, acted: np.ndarray, weight: np.ndarray | None = None) -> float:
    """See `Ranking.roc_auc`."""
    return Ranking(probability, acted).roc_auc(weight)


def equal_count_bins(probability: np.ndarray, bins: int = 10) -> np.ndarray:
    """Bin number of each alert, about equally many alerts per bin; equal probabilities share a bin.

    A constant forecast has one bin. Bins are numbered from the lowest probability, without gaps.
    """
    p = np.asarray(probability, dtype=np.float64)
    if not len(p):
        return np.zeros(0, dtype=np.int64)
    edges = np.unique(np.quantile(p, np.linspace(0, 1, bins + 1)[1:-1], method="higher"))
    return np.unique(np.searchsorted(edges, p, side="right"), return_inverse=True)[1].astype(np.int64)


def decile_error(
    probability: np.ndarray,
    acted: np.ndarray,
    weight: np.ndarray | None = None,
    bins: np.ndarray | None = None,
) -> float:
    """Mean absolute difference between forecast and share acted over ten bins of about equal count.

    Bins are weighted by their alerts (for ten equal bins that is the plain mean over deciles). `bins` re-uses
    bins made by `equal_count_bins`.
    """
    b = equal_count_bins(probability) if bins is None else bins
    if not len(b):
        return float("nan")
    w = np.ones(len(b)) if weight is None else weight
    total = w.sum()
    if total <= 0:
        return float("nan")
    return float(np.abs(np.bincount(b, w * (np.asarray(probability) - acted))).sum() / total)


def _calibration_line(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None) -> tuple[float, float]:
    """(intercept, slope) of the outcome's log-odds on the forecast's log-odds x (Cox 1958)."""
    w = np.ones(len(x)) if weight is None else np.asarray(weight, dtype=np.float64)
    n, positive = w.sum(), np.dot(w, y)
    if n <= 0 or positive <= 0 or positive >= n:
        return float("nan"), float("nan")
    centre = np.dot(w, x) / n
    if np.dot(w, (x - centre) ** 2) / n < 1e-12:
        return float("nan"), float("nan")
    beta = np.array([0.0, 1.0])
    for _ in range(50):  # Newton; halved steps are not needed from a start this near, divergence gives nan
        mu = expit(beta[0] + beta[1] * x)
        v = w * np.maximum(mu * (1 - mu), 1e-12)
        r = w * (y - mu)
        gradient = np.array([r.sum(), np.dot(r, x)])
        a, b, c = v.sum(), np.dot(v, x), np.dot(v, x * x)
        det = a * c - b * b
        if not det > 1e-12 * a * c:
            return float("nan"), float("nan")
        step = np.array([c * gradient[0] - b * gradient[1], a * gradient[1] - b * gradient[0]]) / det
        beta = beta + np.clip(step, -5, 5)
        if np.abs(step).max() < 1e-9:
            return float(beta[0]), float(beta[1])
        if np.abs(beta).max() > 1e3:
            break
    return float("nan"), float("nan")


def calibration_lines(x: np.ndarray, acted: np.ndarray, total: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(intercepts, slopes) of many weightings of the same bins at once.

    x : mean log-odds of each bin [bins]. acted, total : weight acted and of all in each bin [weightings, bins].
    nan as in `CalibrationLine`.
    """
    n, positive = total.sum(axis=1), acted.sum(axis=1)
    intercept, slope = np.zeros(len(n)), np.ones(len(n))
    defined = (positive > 0) & (positive < n)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        centre = (total @ x) / n
        spread = (total * (x[None, :] - centre[:, None]) ** 2).sum(axis=1) / n
        defined &= spread >= 1e-12
        done = ~defined
        for _ in range(50):
            if done.all():
                break
            mu = expit(intercept[:, None] + slope[:, None] * x[None, :])
            v = total * np.maximum(mu * (1 - mu), 1e-12)
            r = acted - total * mu
            g0, g1 = r.sum(axis=1), r @ x
            a, b, c = v.sum(axis=1), v @ x, v @ (x * x)
            det = a * c - b * b
            step0, step1 = (c * g0 - b * g1) / det, (a * g1 - b * g0) / det
            fine = np.isfinite(step0) & np.isfinite(step1) & (det > 1e-12 * a * c)
            defined &= fine | done
            done |= ~fine
            intercept = np.where(done, intercept, intercept + np.clip(step0, -5, 5))
            slope = np.where(done, slope, slope + np.clip(step1, -5, 5))
            done |= np.maximum(np.abs(step0), np.abs(step1)) < 1e-9
    defined &= done
    return np.where(defined, intercept, np.nan), np.where(defined, slope, np.nan)


class CalibrationLine:
    """The outcome's log-odds as a line on the forecast's log-odds (Cox 1958), under many weightings.

    A calibrated forecast has intercept 0 and slope 1; a slope below 1 means over-confidence. nan for one class only, a
    constant forecast, or classes that separate. Above 512 alerts they are pooled into 512 bins first: that moves the
    slope by less than 0.001 (checked in the tests), and a replicate costs one `bincount`.
    """

    def __init__(self, probability: np.ndarray, acted: np.ndarray, bins: int = 512) -> None:
        self.x = logit(probability)
        self.y = np.asarray(acted, dtype=np.float64)
        self.bins = equal_count_bins(self.x, bins) if len(self.x) > bins else None

    def __call__(self, weight: np.ndarray | None = None) -> tuple[float, float]:
        """(intercept, slope) under `weight`."""
        if self.bins is None:
            return _calibration_line(self.x, self.y, weight)
        w = np.ones(len(self.x)) if weight is None else weight
        n = np.bincount(self.bins, w)
        keep = n > 0
        n_ = n[keep]
        x = np.bincount(self.bins, w * self.x)[keep] / n_
        y = np.bincount(self.bins, w * self.y)[keep] / n_
        return _calibration_line(x, y, n_)


def first_per_day(probability: np.ndarray, day: np.ndarray, first: int) -> np.ndarray:
    """Boolean mask of the `first` highest-scored alerts of each day."""
    codes = pd.factorize(np.asarray(day))[0]
    order = np.lexsort((np.arange(len(codes)), -np.asarray(probability, dtype=np.float64), codes))
    ordered = codes[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    rank = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    chosen = np.zeros(len(codes), dtype=bool)
    chosen[order[rank < first]] = True
    return chosen


def bootstrap_weights(blocks: np.ndarray, replicates: int, seed: int) -> Iterator[np.ndarray]:
    """Weights of each block in each replicate: whole blocks drawn with replacement (block bootstrap).

    Alerts of one rule on one day share their cause and often their decision; drawing them one by one would
    claim far more evidence than there is. `blocks` holds codes 0..n-1; yields arrays of length n.
    """
    n = int(blocks.max()) + 1 if len(blocks) else 0
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        yield np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)


def interval(
    statistic: Callable[[np.ndarray], float],
    blocks: np.ndarray,
    replicates: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of `statistic(weight per alert)` over block-bootstrap replicates.

    A replicate in which the statistic is undefined (one class only) is left out; when more than a fifth is,
    the interval is nan: it would describe the lucky draws only.
    """
    values = np.array([statistic(w[blocks]) for w in bootstrap_weights(blocks, replicates, seed)])
    return percentile_interval(values, level)


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Central `level` interval of replicates; (nan, nan) when more than a fifth of them is undefined."""
    good = values[np.isfinite(values)]
    if len(values) == 0 or len(good) < 0.8 * len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(good, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@overload
def wilson_interval(part: float, whole: float, z: float = ...) -> tuple[float, float]: ...
@overload
def wilson_interval(part: np.ndarray, whole: np.ndarray, z: float = ...) -> tuple[np.ndarray, np.ndarray]: ...
def wilson_interval(part: Any, whole: Any, z: float = Z95) -> tuple[Any, Any]:
    """Wilson's interval (1927) of the share `part` / `whole` of independent alerts: (low, high) in [0, 1].

    Numbers, or float64 or int64 arrays of equal shape. It keeps its level for shares near 0 and 1, where normal
    intervals do not. z : of the level; 95% by default. (0, 1) where `whole` is 0.
    """
    n = np.asarray(whole, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.asarray(part, dtype=np.float64) / n
        scale = 1 + z**2 / n
        centre = (share + z**2 / (2 * n)) / scale
        half = z / scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low = np.where(n > 0, np.maximum(centre - half, 0.0), 0.0)
    high = np.where(n > 0, np.minimum(centre + half, 1.0), 1.0)
    return (low, high) if n.ndim else (float(low), float(high))


def rule_day_blocks(frame: pd.DataFrame) -> np.ndarray:
    """Code of the rule-day (UTC) of each alert, 0..n-1: the unit that the block bootstrap resamples."""
    day = frame["raised_at"].dt.floor("D").astype("int64").to_numpy()
    rules = pd.factorize(frame["rule"])[0].astype(np.int64) + 1
    days = pd.factorize(day)[0].astype(np.int64)
    return pd.factorize(days * (int(rules.max(initial=0)) + 1) + rules)[0].astype(np.int64)
