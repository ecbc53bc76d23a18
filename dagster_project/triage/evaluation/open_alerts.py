"""Open alerts as they were read: what the board said at moments in the past, and what became of those alerts.

Belongs here: which alerts were open at a moment, the chance that a reader saw then, and how good it was, by age.
Does not belong here: learning how the chance changes with age (`learning/time_to_decision.py`), and measures of the
chance at the raise (`measures.py`).

An alert counts once for each moment at which it was open, as it is on the board once for each look at it: long-lived
alerts count more, which is why a chance that is right at the raise can be wrong by an order of magnitude here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.learning.time_to_decision import Curves, fit_curves

COLUMNS = ("age", "contender", "metric", "value", "low", "high", "alert_days", "acted")
CONTENDERS = ("probability", "probability_at_raise")
EVERY_AGE = "every age"
AGES = (
    ("under 1 hour", timedelta(hours=1)),
    ("1 hour to 1 day", timedelta(days=1)),
    ("1 to 3 days", timedelta(days=3)),
    ("3 to 7 days", timedelta(days=7)),
    ("older", timedelta(days=100_000)),
)
FIRST = (10, 50)
METRICS = (
    *("log_loss", "mean_forecast", "acted_share", "forecast_minus_acted", "calibration_error", "roc_auc_within"),
    "expected_over_acted",
)
# Below this a share of the alerts of an age says little: its 95% interval is wider than 0.2 at a share of 0.5, were the
# alerts independent.
MINIMUM = 100
REPLICATES = 300
SEED = 20_250_101


def open_at(alerts: pd.DataFrame, moment: datetime) -> np.ndarray:
    """Which alerts were open at a moment, bool[alerts]: raised by then (`raised_at` <= moment), not decided and their
    horizon not over (`known_at` > moment, or null)."""
    at = pd.Timestamp(moment)
    known = alerts["known_at"]
    return ((alerts["raised_at"] <= at) & (known.isna() | (known > at))).to_numpy(dtype=bool)


def as_read(
    alerts: pd.DataFrame, moments: Sequence[datetime], curves_at: Callable[[datetime], Curves], until: datetime
) -> pd.DataFrame:
    """The open alerts of each moment with both chances and what became of them.

    Parameters
    ----------
    alerts : alert_id, raised_at, known_at (datetime64[us, UTC]), acted (1.0, 0.0 or nan), team, rule, probability (the
        chance at the raise; alerts without one are left out), and flood, visibility_only (bool) where there are such.
    curves_at : the curves that served at a moment; they must have been learned by then.
    until : outcomes known later are unknown. Choose moments at least a horizon earlier: of later ones only those are
        known that were decided early.

    Returns
    -------
    alert_id, moment, age (seconds), probability_at_raise, probability, acted (nan while unknown), flood,
    visibility_only; in order of moment, then of `alerts`.

    Raises
    ------
    ValueError : curves learned later than the moment at which they are to be read.
    """
    parts = []
    for moment in moments:
        curves = curves_at(moment)
        if curves.as_of > moment:
            raise ValueError(f"curves learned at {curves.as_of} cannot have been read at {moment}")
        rows = alerts[open_at(alerts, moment) & alerts["probability"].notna().to_numpy()]
        age = (pd.Timestamp(moment) - rows["raised_at"]).dt.total_seconds().to_numpy(dtype=np.float64)
        at_raise = rows["probability"].to_numpy(dtype=np.float64)
        late = (rows["known_at"].isna() | (rows["known_at"] > pd.Timestamp(until))).to_numpy()
        columns = {
            "alert_id": rows["alert_id"].to_numpy(),
            "moment": np.full(len(rows), np.datetime64(pd.Timestamp(moment).tz_convert("UTC").tz_localize(None), "us")),
            "age": age,
            "probability_at_raise": at_raise,
            "probability": curves.now(at_raise, curves.groups(rows["team"], rows["rule"]), age),
            "acted": np.where(late, np.nan, rows["acted"].to_numpy(dtype=np.float64)),
        }
        for flag in ("flood", "visibility_only"):
            marked = rows[flag].to_numpy(dtype=bool) if flag in rows else np.zeros(len(rows), dtype=bool)
            columns[flag] = marked
        parts.append(pd.DataFrame(columns))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[*_READ])
    return table.assign(moment=pd.to_datetime(table["moment"], utc=True).astype("datetime64[us, UTC]"))


_READ = ("alert_id", "moment", "age", "probability_at_raise", "probability", "acted", "flood", "visibility_only")


def age_names(age: np.ndarray) -> np.ndarray:
    """The name of the part of `AGES` that each age in seconds falls into, object[ages]."""
    ends = [end.total_seconds() for _, end in AGES]
    names = np.array([name for name, _ in AGES], dtype=object)
    return np.asarray(
        names[np.searchsorted(ends, np.asarray(age, dtype=np.float64), side="right").clip(0, len(ends) - 1)]
    )


def measure(
    read: pd.DataFrame, contenders: Sequence[str] = CONTENDERS, block: timedelta = timedelta(days=14)
) -> pd.DataFrame:
    """How good the chances were that readers saw.

    Parameters
    ----------
    read : as `as_read` gives it; rows without a known outcome are left out. More columns of probabilities may be named
        in `contenders`.
    block : moments within so long of each other are resampled together: they show the same alerts. The horizon.

    Returns
    -------
    age (`EVERY_AGE` or a name of `AGES`), contender, metric, value, low, high (float64), alert_days, acted (int64).
    Metrics: log_loss (nats per open alert and moment), mean_forecast, acted_share, forecast_minus_acted,
    calibration_error (the absolute value of that), expected_over_acted (sum of probabilities over the number acted on),
    roc_auc_within (within a moment,
    weighted by its alerts: between moments nobody chooses), and for `EVERY_AGE` precision_of_first_10, _50 (acted share
    of the first rows of the board, mean over moments). low, high : 95% interval of the block bootstrap over time; nan
    where there are fewer than three blocks. Values are nan with fewer than `MINIMUM` rows.
    """
    rows = read[read["acted"].notna()].reset_index(drop=True)
    moment = rows["moment"].astype("int64").to_numpy()
    names = age_names(rows["age"].to_numpy(dtype=np.float64))
    parts = [(EVERY_AGE, np.ones(len(rows), dtype=bool)), *((name, names == name) for name, _ in AGES)]
    table: list[tuple[object, ...]] = []
    for name, chosen in parts:
        y = rows["acted"].to_numpy(dtype=np.float64)[chosen]
        at, length = moment[chosen], round(block.total_seconds() * 1e6)
        codes = np.unique((at - at.min()) // length, return_inverse=True)[1] if len(at) else at
        for contender in contenders:
            p = rows[contender].to_numpy(dtype=np.float64)[chosen]
            for metric, value, low, high in _measured(p, y, at, codes, name == EVERY_AGE):
                table.append((name, contender, metric, value, low, high, len(y), int(y.sum())))
    return pd.DataFrame(table, columns=list(COLUMNS)).astype({"value": float, "low": float, "high": float})


SLICE = "open alerts as read"
MOMENTS = 26  # weeks: half a year of boards
REFIT = timedelta(weeks=4)  # fitting at each moment would take longer than all other evidence together
MOST_ALERTS = 100_000  # enough for every age


def measure_past(forecasts: pd.DataFrame, as_of: datetime, horizon: timedelta) -> pd.DataFrame:
    """What a board would have shown each week, as rows of an evaluation.

    Parameters
    ----------
    forecasts : `Learned.forecasts`: each alert was forecast by a model that had learned from earlier alerts only.
    as_of : outcomes known later are unknown.

    Returns
    -------
    slice (`SLICE`), slice_value (an age), contender ("model", "model at the raise"), metric, value, low, high, alerts
    (open alerts over all moments), acted. Curves are fitted every `REFIT` on what was known then. Without enough
    forecasts, no row.
    """
    columns = ["slice", "slice_value", "contender", "metric", "value", "low", "high", "alerts", "acted"]
    nothing = pd.DataFrame({name: pd.Series([], dtype="object") for name in columns})
    if MODEL not in forecasts or not len(forecasts):
        return nothing
    alerts = forecasts[~forecasts["excluded"]].tail(MOST_ALERTS).rename(columns={MODEL: "probability"})
    last = pd.Timestamp(as_of) - horizon
    first = max(last - timedelta(weeks=MOMENTS), alerts["raised_at"].min() + timedelta(weeks=1))
    moments = [moment.to_pydatetime() for moment in pd.date_range(end=last, start=first, freq="7D")]
    fitted: dict[int, Curves] = {}

    def curves_at(moment: datetime) -> Curves:
        period = (moment - moments[0]) // REFIT
        if period not in fitted:
            fitted[period] = fit_curves(alerts, moment, horizon)
        return fitted[period]

    read = as_read(alerts, moments, curves_at, as_of)
    if not len(read):
        return nothing
    table = measure(read, block=horizon).rename(columns={"age": "slice_value", "alert_days": "alerts"})
    names = {"probability": MODEL, "probability_at_raise": f"{MODEL} at the raise"}
    return table.assign(slice=SLICE, contender=table["contender"].map(names))[columns]


def _measured(
    p: np.ndarray, y: np.ndarray, moment: np.ndarray, block: np.ndarray, board: bool
) -> list[tuple[str, float, float, float]]:
    """(metric, value, low, high) of one forecast of one part; each metric is a ratio of sums over moments."""
    first = FIRST if board else ()
    names = [*METRICS, *(f"precision_of_first_{k}" for k in first)]
    if len(y) < MINIMUM:
        return [(name, np.nan, np.nan, np.nan) for name in names]
    moments, code = np.unique(moment, return_inverse=True)
    size = np.bincount(code).astype(np.float64)
    sums: dict[str, np.ndarray] = {
        "loss": np.bincount(code, metrics.log_losses(p, y)),
        "said": np.bincount(code, p),
        "acted": np.bincount(code, y),
    }
    auc = np.array([metrics.roc_auc(p[code == i], y[code == i]) for i in range(len(moments))])
    both = np.isfinite(auc)
    sums |= {"auc": np.where(both, auc, 0.0) * size, "ranked": np.where(both, size, 0.0)}
    for k in first:
        chosen = metrics.first_per_day(p, moment, k)
        sums[f"first_{k}"] = np.bincount(code, y * chosen) / np.bincount(code, chosen)
    block_of = np.zeros(len(moments), dtype=np.int64)
    block_of[code] = block

    def values(weight: np.ndarray) -> np.ndarray:
        total = {name: float(weight @ column) for name, column in sums.items()}
        n = float(weight @ size)
        said, acted = total["said"] / n, total["acted"] / n
        ratio = total["said"] / total["acted"] if total["acted"] else np.nan
        within = total["auc"] / total["ranked"] if total["ranked"] else np.nan
        top = [total[f"first_{k}"] / weight.sum() for k in first]
        return np.array([total["loss"] / n, said, acted, said - acted, abs(said - acted), within, ratio, *top])

    point = values(np.ones(len(moments)))
    ends = np.full((len(names), 2), np.nan)
    if block_of.max() >= 2:
        draws = np.array([values(w[block_of]) for w in metrics.bootstrap_weights(block_of, REPLICATES, SEED)])
        ends = np.array([metrics.percentile_interval(column) for column in draws.T])
    return [(name, float(v), float(low), float(high)) for name, v, (low, high) in zip(names, point, ends, strict=True)]
