"""The table of every contender's measures, with their uncertainty.

Belongs here: measuring several forecasts of the same alerts, their skill over the references, intervals by block
bootstrap, and refusing to publish a number that too few alerts support.
Does not belong here: the measures themselves (`evaluation/metrics.py`), and deciding what serves
(`learning/training.py`, the gate).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import CONSTANT

COLUMNS = ("contender", "metric", "value", "low", "high", "alerts", "acted")
LOSSES = ("log_loss", "brier")
SKILLS = (
    "log_loss_skill_over_constant",
    "brier_skill_over_constant",
    "log_loss_skill_over_best_baseline",
    "brier_skill_over_best_baseline",
)
RANKS = ("roc_auc", "pr_auc", "prevalence")
CALIBRATION = ("calibration_slope", "calibration_intercept", "decile_error")


@dataclass(frozen=True)
class EvaluationSettings:
    """How to measure.

    miss_rates : shares of acted alerts that may be missed, for the workload saved. first_per_day : sizes of
        the day's shortlist.
    minimum_acted, minimum_not_acted, minimum_blocks : below any of these every number is nan: ten alerts of each kind
        leave an interval of the AUC about 0.25 wide, the widest that is still of use.
    replicates : bootstrap draws. level : of the intervals.
    """

    miss_rates: tuple[float, ...] = (0.01, 0.02, 0.05)
    first_per_day: tuple[int, ...] = (10,)
    minimum_acted: int = 10
    minimum_not_acted: int = 10
    minimum_blocks: int = 5
    replicates: int = 300
    level: float = 0.95
    seed: int = 20_250_101


def evaluate(
    predictions: Mapping[str, np.ndarray],
    acted: np.ndarray,
    blocks: np.ndarray,
    *,
    day: np.ndarray | None = None,
    baselines: Iterable[str] = (),
    settings: EvaluationSettings | None = None,
) -> pd.DataFrame:
    """Measure every contender on the same alerts.

    predictions : contender -> probability per alert, all equally long.
    acted : 1.0 or 0.0 per alert; nan where the outcome is not known: such alerts are left out for all contenders.
    blocks : any value that is equal within a block of alerts that share their cause (rule and day); blocks are
        resampled as a whole.
    day : any value that is equal within a day; without it there is no precision of the day's first alerts.
    baselines : contenders that count as baselines. The best one has the lowest log-loss *on these very alerts*: a
        reference chosen in hindsight, which is harder to beat than any choice made beforehand. Skill over the constant
        needs a contender named "constant_rate".
    Returns: Tidy frame with the columns contender, metric, value, low, high (float64), alerts, acted (int64), in the
        order of `predictions`. `value` is nan where the measure is not defined or the alerts are too few
        (`EvaluationSettings`). Skill is 1 - loss / loss of the reference; above zero is better than the reference.
    """
    chosen = settings or EvaluationSettings()
    y = np.asarray(acted, dtype=np.float64)
    known = ~np.isnan(y)
    y = y[known]
    p = {name: np.asarray(values, dtype=np.float64)[known] for name, values in predictions.items()}
    for name, values in p.items():
        if len(values) != len(y) or np.isnan(values).any():
            raise ValueError(f"the predictions of {name!r} are incomplete")
    codes = pd.factorize(np.asarray(blocks)[known])[0].astype(np.int64)
    days = pd.factorize(np.asarray(day)[known])[0] if day is not None else None
    contenders = {name: _Contender(values, y, codes, days, chosen) for name, values in p.items()}
    losses = {name: metrics.log_loss(values, y) for name, values in p.items()} if len(y) else {}
    among = [name for name in baselines if name in p]
    best = min(among, key=lambda name: losses.get(name, np.inf)) if among else None
    names = list(metric_names(chosen, days is not None))
    count, n_acted = len(y), int(y.sum())
    enough = (
        n_acted >= chosen.minimum_acted
        and count - n_acted >= chosen.minimum_not_acted
        and (codes.max(initial=-1) + 1) >= chosen.minimum_blocks
    )
    value, replicas = {}, {}
    if enough:
        value = _with_skill({name: contender.measure() for name, contender in contenders.items()}, best)
        draws = np.array(list(metrics.bootstrap_weights(codes, chosen.replicates, chosen.seed)))
        replicas = _with_skill({name: contender.replicas(draws) for name, contender in contenders.items()}, best)
    rows = []
    for contender in p:
        for metric in names:
            low = high = point = float("nan")
            if (contender, metric) in value:
                point = value[contender, metric]
                if np.isfinite(point):
                    low, high = metrics.percentile_interval(replicas[contender, metric], chosen.level)
            rows.append((contender, metric, point, low, high, count, n_acted))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"value": float, "low": float, "high": float})


def evaluate_slices(
    predictions: Mapping[str, np.ndarray],
    acted: np.ndarray,
    blocks: np.ndarray,
    slices: Mapping[str, np.ndarray],
    *,
    day: np.ndarray | None = None,
    baselines: Iterable[str] = (),
    settings: EvaluationSettings | None = None,
) -> pd.DataFrame:
    """`evaluate` on all alerts and on every value of every slice (team, severity, month, rule age, ...).

    `slices` maps the name of a slice to a value per alert; missing values form no slice. The result has the
    columns of `evaluate` after `slice` and `slice_value`; all alerts together are the slice "all".
    """
    parts = []

    def add(name: str, value: str, mask: np.ndarray) -> None:
        table = evaluate(
            {k: np.asarray(v)[mask] for k, v in predictions.items()},
            np.asarray(acted)[mask],
            np.asarray(blocks)[mask],
            day=None if day is None else np.asarray(day)[mask],
            baselines=baselines,
            settings=settings,
        )
        table.insert(0, "slice", name)
        table.insert(1, "slice_value", value)
        parts.append(table)

    add("all", "", np.ones(len(np.asarray(acted)), dtype=bool))
    for name, values in slices.items():
        codes, words = pd.factorize(np.asarray(values, dtype=object))
        for i in sorted(range(len(words)), key=lambda j: str(words[j])):
            add(name, str(words[i]), codes == i)
    return pd.concat(parts, ignore_index=True)


def metric_names(settings: EvaluationSettings, with_day: bool = True) -> tuple[str, ...]:
    """All metrics of the table, in order."""
    saved = tuple(_saved(rate) for rate in settings.miss_rates)
    first = tuple(_first(k) for k in settings.first_per_day) if with_day else ()
    return (*LOSSES, *SKILLS, *RANKS, *CALIBRATION, *saved, *first)


# Replicates rank by this many bins of about equal count instead of by every alert: the interval's ends move by
# less than 0.001 (checked in the tests), and a replicate costs a thousandth.
RANK_BINS = 512


class _Contender:
    """One forecast, prepared for being measured once exactly and under many block weights at once."""

    def __init__(
        self, p: np.ndarray, y: np.ndarray, codes: np.ndarray, days: np.ndarray | None, settings: EvaluationSettings
    ) -> None:
        self.p, self.y, self.codes, self.settings = p, y, codes, settings
        self.log_losses = metrics.log_losses(p, y)
        self.squared = metrics.squared_errors(p, y)
        self.deciles = metrics.equal_count_bins(p)
        self.first = {k: metrics.first_per_day(p, days, k) for k in settings.first_per_day} if days is not None else {}

    def measure(self) -> dict[str, float]:
        """Every measure, each alert counting once."""
        ranking = metrics.Ranking(self.p, self.y)
        intercept, slope = metrics.CalibrationLine(self.p, self.y)()
        measured = {
            "log_loss": float(self.log_losses.mean()),
            "brier": float(self.squared.mean()),
            "roc_auc": ranking.roc_auc(),
            "pr_auc": ranking.pr_auc(),
            "prevalence": float(self.y.mean()),
            "calibration_slope": slope,
            "calibration_intercept": intercept,
            "decile_error": metrics.decile_error(self.p, self.y, None, self.deciles),
        }
        for rate in self.settings.miss_rates:
            measured[_saved(rate)] = ranking.workload_saved(rate)
        for k, mask in self.first.items():
            measured[_first(k)] = float(self.y[mask].mean()) if mask.any() else float("nan")
        return measured

    def replicas(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """The same under each row of `weights` (float64 [replicates, blocks]): one array per measure."""
        bins = metrics.equal_count_bins(self.p, RANK_BINS)
        count = int(bins.max()) + 1
        acted = self._summed(weights, self.y, bins, count)
        other = self._summed(weights, 1 - self.y, bins, count)
        n_acted, n_other = acted.sum(axis=1), other.sum(axis=1)
        total = n_acted + n_other
        x = np.bincount(bins, metrics.logit(self.p)) / np.bincount(bins)
        intercept, slope = metrics.calibration_lines(x, acted, acted + other)
        off = self._summed(weights, self.p - self.y, self.deciles, int(self.deciles.max()) + 1)
        # From the highest probability down.
        down_acted, down_other = acted[:, ::-1], other[:, ::-1]
        hits_so_far = np.cumsum(down_acted, axis=1)
        seen = hits_so_far + np.cumsum(down_other, axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            above = (down_other * (hits_so_far - 0.5 * down_acted)).sum(axis=1)
            precision = np.where(seen > 0, hits_so_far / seen, 0.0)
            replicas = {
                "log_loss": self._mean(weights, self.log_losses, total),
                "brier": self._mean(weights, self.squared, total),
                "roc_auc": np.where((n_acted > 0) & (n_other > 0), above / (n_acted * n_other), np.nan),
                "pr_auc": np.where(n_acted > 0, (down_acted * precision).sum(axis=1) / n_acted, np.nan),
                "prevalence": n_acted / total,
                "calibration_slope": slope,
                "calibration_intercept": intercept,
                "decile_error": np.abs(off).sum(axis=1) / total,
            }
            missed, saved = np.cumsum(acted, axis=1), np.cumsum(acted + other, axis=1)
            for rate in self.settings.miss_rates:
                allowed = (missed <= rate * n_acted[:, None] * (1 + 1e-12)).sum(axis=1)
                share = np.take_along_axis(saved, np.maximum(allowed - 1, 0)[:, None], axis=1)[:, 0] / total
                replicas[_saved(rate)] = np.where(n_acted > 0, np.where(allowed > 0, share, 0.0), np.nan)
            for k, mask in self.first.items():
                within = self._summed(weights, mask.astype(np.float64))[:, 0]
                hits = self._summed(weights, mask * self.y)[:, 0]
                replicas[_first(k)] = np.where(within > 0, hits / within, np.nan)
        return replicas

    def _summed(
        self, weights: np.ndarray, values: np.ndarray, bins: np.ndarray | None = None, count: int = 1
    ) -> np.ndarray:
        """Sums of `values` by bin under each weighting: float64 [replicates, bins]."""
        from scipy.sparse import csr_array

        column = np.zeros(len(values), dtype=np.int64) if bins is None else bins
        by_block = csr_array((values, (self.codes, column)), shape=(weights.shape[1], count))
        return np.asarray((by_block.T @ weights.T).T)

    def _mean(self, weights: np.ndarray, values: np.ndarray, total: np.ndarray) -> np.ndarray:
        return self._summed(weights, values)[:, 0] / total


def _saved(rate: float) -> str:
    return f"workload_saved_at_{rate:.0%}_missed"


def _first(k: int) -> str:
    return f"precision_of_first_{k}_a_day"


def _with_skill(measured: Mapping[str, Mapping[str, Any]], best: str | None) -> dict[tuple[str, str], Any]:
    """The measures by (contender, metric), and the skill over the references."""
    with_skill: dict[tuple[str, str], Any] = {}
    references = {"constant": CONSTANT if CONSTANT in measured else None, "best_baseline": best}
    for name, values in measured.items():
        with_skill.update({(name, metric): value for metric, value in values.items()})
        for label, reference in references.items():
            for loss in LOSSES:
                if reference is not None:
                    with_skill[name, f"{loss}_skill_over_{label}"] = 1 - values[loss] / measured[reference][loss]
    return with_skill
