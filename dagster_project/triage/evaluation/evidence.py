"""The evidence for a candidate: its forecasts of later alerts, measured against every baseline.

Belongs here: which alerts are measured and in which parts, from the forecasts made at the inner cuts of a training.
Does not belong here: making forecasts (`learning/training.py`), single measures and intervals (`evaluation/metrics.py`,
`evaluation/measures.py`), and what follows from the evidence (`champion/gate.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.sparse import csr_array

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.evaluation.measures import EvaluationSettings, evaluate, evaluate_slices
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.evaluation.workload import workload_curve

COLUMNS = ("slice", "slice_value", "contender", "metric", "value", "low", "high", "alerts", "acted")
FACTS = (
    "alert_id",
    "raised_at",
    "rule",
    "entity",
    "team",
    "severity",
    "rule_age_days",
    "last_outcome",
    "acted",
    "known_at",
    "excluded",
    "influenced",
    "fold",
)

RELIABILITY_COLUMNS = ("contender", "bin", "mean_forecast", "acted_share", "low", "high", "alerts", "acted")
RELIABILITY_BINS = 10
# A share of fewer alerts than this says little: its 95% interval is wider than 0.4 in the middle (Wilson).
RELIABILITY_MINIMUM = 20

# There are many parts, and their intervals are wide: fewer draws are enough.
PART_REPLICATES = 100
# Teams and severities beyond these are too small to be measured.
MOST_PARTS = 20
RULE_AGES = ((7.0, "first week"), (30.0, "first month"), (np.inf, "older"))


def contenders(forecasts: pd.DataFrame) -> list[str]:
    """The forecasts in the table, "model" first where there is one."""
    return [name for name in forecasts.columns if name not in FACTS]


def measure(forecasts: pd.DataFrame, headline_only: bool = False) -> pd.DataFrame:
    """Every contender on the alerts of the inner cuts.

    Parameters
    ----------
    forecasts : `Learned.forecasts`.
    headline_only : measure only the slice "unflagged", which the gate reads.

    Returns
    -------
    slice, slice_value, contender, metric, value, low, high, alerts, acted. Slices: "unflagged" (the headline: all
    alerts whose readers saw the number that is measured; see `out_of_learning`), "all" (flagged alerts included),
    "last cut" (unflagged alerts of the last inner cut, which no decision touched), "not influenced" (unflagged alerts
    whose score nobody saw; where the holdout shows that people act differently because of scores), and of the
    unflagged alerts "team", "severity", "month" and "rule age" with their values.
    """
    if not len(forecasts):
        return pd.DataFrame({name: pd.Series([], dtype=_dtype(name)) for name in COLUMNS})
    names = contenders(forecasts)
    baselines = [name for name in names if name != MODEL]
    clean = forecasts[~forecasts["excluded"]].reset_index(drop=True)
    parts = [_table(clean, names, baselines).assign(slice="unflagged", slice_value="")]
    if not headline_only:
        last = clean[clean["fold"] == forecasts["fold"].max()]
        parts += [
            _table(forecasts, names, baselines).assign(slice="all", slice_value=""),
            _table(last, names, baselines).assign(slice="last cut", slice_value=""),
            *([_in_parts(clean, names, baselines)] if len(clean) else []),
        ]
    if not headline_only and "influenced" in clean and not clean["influenced"].all():
        parts += [_table(clean[~clean["influenced"]], names, baselines).assign(slice="not influenced", slice_value="")]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


def reliability(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Forecast against outcome, in ten bins of about equally many alerts, of every contender.

    Parameters
    ----------
    forecasts : `Learned.forecasts`; its unflagged alerts are measured, as for the headline.

    Returns
    -------
    contender, bin (0 holds the lowest forecasts), mean_forecast, acted_share, low, high (float64), alerts, acted
    (int64). Equal forecasts share a bin, so a constant has one. low, high : 95% interval of the share: on each side the
    wider of the block bootstrap over rule-days (alerts of one cause belong together) and Wilson's (1927; the bootstrap
    of a bin without an acted alert would claim certainty). acted_share, low and high are nan in bins of fewer than
    `RELIABILITY_MINIMUM` alerts.
    """
    clean = forecasts[~forecasts["excluded"]].reset_index(drop=True) if len(forecasts) else forecasts
    if not len(clean):
        return pd.DataFrame({name: pd.Series([], dtype=_dtype(name)) for name in RELIABILITY_COLUMNS})
    settings = EvaluationSettings()
    y = clean["acted"].to_numpy(dtype=np.float64)
    blocks = rule_day_blocks(clean)
    draws = np.array(list(metrics.bootstrap_weights(blocks, settings.replicates, settings.seed)))
    parts = []
    for name in contenders(clean):
        p = clean[name].to_numpy(dtype=np.float64)
        bins = metrics.equal_count_bins(p, RELIABILITY_BINS)
        shape = (draws.shape[1], int(bins.max()) + 1)
        here = np.bincount(bins).astype(np.int64)
        acted = np.bincount(bins, y).astype(np.int64)
        share = acted / here
        totals = draws @ csr_array((np.ones(len(y)), (blocks, bins)), shape=shape)
        drawn = np.where(totals > 0, draws @ csr_array((y, (blocks, bins)), shape=shape), np.nan)
        spread = [metrics.percentile_interval(column) for column in (drawn / np.where(totals > 0, totals, 1)).T]
        low, high = (np.array(ends) for ends in zip(*spread, strict=True))
        wilson_low, wilson_high = metrics.wilson_interval(acted, here)
        enough = here >= RELIABILITY_MINIMUM
        parts.append(
            pd.DataFrame(
                {
                    "contender": name,
                    "bin": np.arange(len(here)),
                    "mean_forecast": np.bincount(bins, p) / here,
                    "acted_share": np.where(enough, share, np.nan),
                    "low": np.where(enough, np.fmin(low, wilson_low), np.nan),
                    "high": np.where(enough, np.fmax(high, wilson_high), np.nan),
                    "alerts": here,
                    "acted": acted,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)[list(RELIABILITY_COLUMNS)]


def workload(forecasts: pd.DataFrame, kind: str) -> pd.DataFrame:
    """The curve of `workload_curve` for the unflagged alerts.

    forecasts : `Learned.forecasts`. kind : of the model; a baseline forecasts under its own name. Empty where the past
    holds no forecast of it.
    """
    name = kind if kind in forecasts else MODEL
    if name not in forecasts or not len(clean := forecasts[~forecasts["excluded"]]):
        return workload_curve(np.zeros(0), np.zeros(0))
    return workload_curve(clean[name].to_numpy(), clean["acted"].to_numpy())


def row(
    table: pd.DataFrame, contender: str, metric: str, part: str = "unflagged", value: str = ""
) -> dict[str, float] | None:
    """value, low and high of one measure; None where it is missing or there were too few alerts."""
    rows = table[
        (table["slice"] == part)
        & (table["slice_value"] == value)
        & (table["contender"] == contender)
        & (table["metric"] == metric)
    ]
    figure = {name: float(rows[name].iloc[0]) for name in ("value", "low", "high")} if len(rows) else {}
    return figure if figure and all(np.isfinite(list(figure.values()))) else None


def _in_parts(clean: pd.DataFrame, names: Sequence[str], baselines: Sequence[str]) -> pd.DataFrame:
    slices = {name: _largest(clean[name]) for name in ("team", "severity") if name in clean}
    slices["month"] = clean["raised_at"].dt.strftime("%Y-%m").to_numpy(dtype=object)
    edges = np.array([edge for edge, _ in RULE_AGES])
    words = np.array([word for _, word in RULE_AGES], dtype=object)
    slices["rule age"] = words[np.searchsorted(edges, clean["rule_age_days"].to_numpy(), side="right")]
    measured = evaluate_slices(
        {name: clean[name].to_numpy() for name in names},
        clean["acted"].to_numpy(),
        rule_day_blocks(clean),
        slices,
        day=_days(clean),
        baselines=baselines,
        settings=EvaluationSettings(replicates=PART_REPLICATES),
    )
    return measured[measured["slice"] != "all"]


def _table(frame: pd.DataFrame, names: Sequence[str], baselines: Sequence[str]) -> pd.DataFrame:
    return evaluate(
        {name: frame[name].to_numpy() for name in names},
        frame["acted"].to_numpy(),
        rule_day_blocks(frame),
        day=_days(frame),
        baselines=baselines,
    )


def _days(frame: pd.DataFrame) -> np.ndarray:
    return frame["raised_at"].dt.floor("D").astype("int64").to_numpy()


def _largest(values: pd.Series) -> np.ndarray:
    """The values, None for all but the most frequent ones: those form no slice."""
    keep = values.value_counts().index[:MOST_PARTS]
    return values.where(values.isin(keep)).astype(object).where(values.notna(), None).to_numpy()


def _dtype(name: str) -> str:
    return {"slice": "str", "slice_value": "str", "contender": "str", "metric": "str"}.get(
        name, "int64" if name in ("alerts", "acted", "bin") else "float64"
    )
