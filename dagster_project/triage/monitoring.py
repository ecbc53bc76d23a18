"""Monitoring: are the scores still good, and do the data still look like those heed learned from?

Belongs here: drift of inputs and scores, performance as estimated before outcomes are known and as realised after,
coverage, the pause since the last alert, and volume: each as a number with its limit.
Does not belong here: the tables they are read from and the asset checks that show them (`assets/monitoring.py`).

Everything is judged on alerts without a flag: a flood would drown each of these numbers, and has its own alarm.
`open_alerts_as_read` looks at the number that people read while alerts wait, all others at the one of the raise.
The limits are judgements. `make benchmark-monitoring` measures how often they raise false warnings and what they
notice (benchmarks/monitoring.md).

Sources: Jensen-Shannon distance (Lin 1991; base 2, so from 0 to 1); performance from calibrated probabilities
(confidence-based performance estimation, CBPE, NannyML).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.evaluation.open_alerts import EVERY_AGE, measure
from dagster_project.triage.evaluation.open_alerts import MINIMUM as MINIMUM_READ
from dagster_project.triage.features.attributes import attribute_columns

CHECKS = (
    "input_drift",
    "score_drift",
    "estimated_performance",
    "realised_performance",
    "coverage",
    "freshness",
    "alert_volume",
)

# The days that are judged, and those they are compared with: before the champion's cut for facts, before the judged
# days for scores.
RECENT, REFERENCE = timedelta(days=7), timedelta(days=56)
# The days before the recent ones whose scores they are compared with; and the days of outcomes that are judged.
JUDGED = timedelta(days=28)
BINS = 10
# Fewer alerts on either side say nothing about a distribution.
MINIMUM = 200
MOST_ROWS = 20_000  # of either side: more rows cost seconds and change no digit that matters

# Limits. Their false warnings, and what they notice, are in MEASURED.
INPUT_DISTANCE = 0.2
SCORE_DISTANCE = 0.2
AUC_LOST = 0.05
SHARE_OFF = 0.05
READ_OFF = 0.04  # what the number now promises on real alerts, at every age
PAUSES = 2.0
VOLUME_SPREADS = 5.0
# What was measured for each limit, as in benchmarks/monitoring.md.
MEASURED = {
    "input_drift": "11 of 1,344 ordinary days of simulated companies were above 0.2, in 1 of 12 "
    "companies; when severities are written in another way, it warned in 12 of 12, in the"
    " middle on day 1",
    "score_drift": "18 of 504 ordinary days of simulated companies were above 0.2, in 2 of 12 companies;"
    " when scores are half of what the model said, it warned in 12 of 12, in the middle "
    "on day 6",
    "estimated_performance": "0 of 504 ordinary days of simulated companies were above 0.05, in 0 of 12 companies",
    "realised_performance": "0 of 504 ordinary days of simulated companies were above 0.05, in 0 of 12 companies;"
    " when people act on half of what they acted on, it warned in 12 of 12, in the middle"
    " on day 28",
    "coverage": "0 of 504 ordinary days of simulated companies were above 0, in 0 of 12 companies; "
    "when one alert in ten gets no score, it warned in 12 of 12, in the middle on day 1",
    "freshness": "0 of 1,344 ordinary days of simulated companies were above 2, in 0 of 12 companies; "
    "when nothing comes for two days, it warned in 12 of 12, in the middle on day 1",
    "alert_volume": "13 of 1,344 ordinary days of simulated companies were above 5, in 9 of 12 companies;"
    " when two of three alerts are lost, it warned in 12 of 12, in the middle on day 1",
}

Verdict = Literal["well", "warning", "too few"]


@dataclass(frozen=True)
class Reading:
    """One check at one as-of.

    check : one of `CHECKS`. subject : what it is about (a column), or empty. value : the number; nan: too few.
    limit : what it is compared with. low, high : its 95% interval, nan where there is none. alerts : how
    many it is based on.
    """

    check: str
    subject: str
    value: float
    limit: float
    verdict: Verdict
    finding: str
    alerts: int
    low: float = float("nan")
    high: float = float("nan")

    def to_row(self) -> dict[str, Any]:
        row = asdict(self)
        row["check_name"], row["limit_value"] = row.pop("check"), row.pop("limit")
        return row


def js_distance(reference: np.ndarray, recent: np.ndarray) -> float:
    """Jensen-Shannon distance of two vectors of counts, 0 (alike) to 1 (nothing in common); nan where one is empty."""
    if reference.sum() <= 0 or recent.sum() <= 0:
        return float("nan")
    p, q = reference / reference.sum(), recent / recent.sum()
    middle = (p + q) / 2

    def divergence(part: np.ndarray) -> float:
        there = part > 0
        return float(np.sum(part[there] * np.log2(part[there] / middle[there])))

    return float(np.sqrt(max((divergence(p) + divergence(q)) / 2, 0.0)))


def column_distance(reference: pd.Series, recent: pd.Series) -> float:
    """The distance of one column: numbers in tenths of the reference, words in its nine most frequent and the rest;
    missing values are a bin of their own."""
    if pd.api.types.is_numeric_dtype(reference.dtype) and pd.api.types.is_numeric_dtype(recent.dtype):
        known = reference.dropna().to_numpy(dtype=np.float64)
        edges = np.unique(np.quantile(known, np.arange(1, BINS) / BINS)) if len(known) else np.zeros(0)
        counted = [
            np.append(
                np.bincount(np.searchsorted(edges, side.dropna().to_numpy(dtype=np.float64)), minlength=len(edges) + 1),
                side.isna().sum(),
            )
            for side in (reference, recent)
        ]
    else:
        frequent = reference.astype("str").where(reference.notna()).value_counts().index[: BINS - 1]
        counted = []
        for side in (reference, recent):
            words = side.astype("str").where(side.notna())
            inside = words.value_counts().reindex(frequent, fill_value=0).to_numpy()
            counted.append(np.array([*inside, words.notna().sum() - inside.sum(), words.isna().sum()]))
    return js_distance(*(each.astype(np.float64) for each in counted))


def input_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """The facts that are checked for drift: rule, team, severity, value, value over threshold, and attributes that are
    not ids (at most 50 words in the frame, or numbers)."""
    columns = frame[["rule", "team", "severity", "value"]].copy()
    columns["value over threshold"] = frame["value"] / frame["threshold"].where(frame["threshold"] != 0)
    for name, values in attribute_columns(frame["attributes"]).items():
        column = pd.Series(values, index=frame.index)
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().sum() == column.notna().sum() > 0:
            columns[f"attribute {name}"] = numbers
        elif column.nunique() <= 50:
            columns[f"attribute {name}"] = column
    return columns


def input_drift(reference: pd.DataFrame, recent: pd.DataFrame) -> list[Reading]:
    """One reading per column, the farthest first; one of 'too few' where either side is small.

    reference, recent : alerts as `read_history` gives them, without flagged ones.
    """
    n = len(recent)
    if min(len(reference), n) < MINIMUM:
        return [_too_few("input_drift", INPUT_DISTANCE, n, MINIMUM)]
    both = input_columns(pd.concat([_thin(reference), _thin(recent)], ignore_index=True))
    first = min(len(reference), MOST_ROWS)
    readings = []
    for name in both:
        distance = column_distance(both[name].iloc[:first], both[name].iloc[first:])
        far = distance > INPUT_DISTANCE
        readings.append(
            Reading(
                "input_drift",
                str(name),
                distance,
                INPUT_DISTANCE,
                "warning" if far else "well",
                f"{name}: the last {RECENT.days} days are {distance:.2f} away from what the champion learned from",
                n,
            )
        )
    return sorted(readings, key=lambda each: (-each.value, each.subject))


def score_drift(reference: pd.Series, recent: pd.Series) -> Reading:
    """First scores of the last days against those of the weeks before them."""
    n = len(recent)
    if min(len(reference), n) < MINIMUM:
        return _too_few("score_drift", SCORE_DISTANCE, n, MINIMUM)
    distance = column_distance(reference.astype("float64"), recent.astype("float64"))
    return Reading(
        "score_drift",
        "",
        distance,
        SCORE_DISTANCE,
        "warning" if distance > SCORE_DISTANCE else "well",
        f"the scores of the last {RECENT.days} days are {distance:.2f} away from those of the weeks before; their mean "
        f"went from {reference.mean():.1%} to {recent.mean():.1%}",
        n,
    )


def estimated_auc(probability: np.ndarray) -> float:
    """The AUC to expect where the probabilities are calibrated: each alert counts as p acted ones and 1 - p others."""
    levels, counts = np.unique(np.asarray(probability, dtype=np.float64), return_counts=True)
    acted, other = levels * counts, (1 - levels) * counts
    mass = acted.sum() * other.sum()
    return float(np.dot(acted, np.cumsum(other) - other / 2) / mass) if mass > 0 else float("nan")


def estimated_performance(probability: np.ndarray, evaluated_auc: float) -> Reading:
    """What recent scores, whose outcomes are not known yet, are worth if they are calibrated (CBPE).

    evaluated_auc : of the champion, on alerts it had not seen; nan where it was not evaluated.
    """
    n = len(probability)
    if n < MINIMUM or not np.isfinite(evaluated_auc):
        return _too_few("estimated_performance", AUC_LOST, n, MINIMUM)
    auc = estimated_auc(probability)
    return Reading(
        "estimated_performance",
        "AUC",
        auc,
        evaluated_auc - AUC_LOST,
        "warning" if auc < evaluated_auc - AUC_LOST else "well",
        f"an AUC of {auc:.3f} and an acted share of {np.mean(probability):.1%} are expected of the last "
        f"{RECENT.days} days if scores are calibrated; the champion was evaluated at {evaluated_auc:.3f}",
        n,
    )


def realised_performance(frame: pd.DataFrame, replicates: int = 300, seed: int = 7) -> Reading:
    """What scores turned out to be worth: predicted against actual, with a block bootstrap interval by rule and day.

    frame : rule, raised_at, probability (the first score), acted, of alerts whose horizon is over.
    """
    n = len(frame)
    if n < MINIMUM:
        return _too_few("realised_performance", SHARE_OFF, n, MINIMUM)
    acted, predicted = (frame[name].to_numpy(dtype=np.float64) for name in ("acted", "probability"))
    off = acted - predicted
    low, high = metrics.interval(
        lambda w: float(np.dot(w, off) / max(w.sum(), 1e-300)), rule_day_blocks(frame), replicates, seed
    )
    value = float(off.mean())
    beyond = abs(value) > SHARE_OFF and (low > 0 or high < 0)
    base = metrics.log_loss(np.full(n, acted.mean()), acted)
    skill = 1 - metrics.log_loss(predicted, acted) / base if base > 0 else float("nan")
    return Reading(
        "realised_performance",
        "acted share minus mean probability",
        value,
        SHARE_OFF,
        "warning" if beyond else "well",
        f"{acted.mean():.1%} were acted on; the mean probability was {predicted.mean():.1%}; the log-loss skill over "
        f"the base rate is {skill:.2f}",
        n,
        low,
        high,
    )


def open_alerts_as_read(shown: pd.DataFrame, horizon: timedelta) -> list[Reading]:
    """Whether alerts that waited were acted on as often as the board said; one reading per age, the worst first.

    shown : as `evaluation.open_alerts.as_read` gives it, of unflagged alerts.
    """
    measured = measure(shown, contenders=["probability"], block=horizon)
    by_age = {str(age): own.set_index("metric") for age, own in measured.groupby("age", sort=False) if age != EVERY_AGE}
    readings = []
    for age, own in by_age.items():
        numbers = own[["value", "low", "high"]].astype(float).to_dict("index")
        value, low, high = (numbers["forecast_minus_acted"][name] for name in ("value", "low", "high"))
        n = int(own["alert_days"].iloc[0])
        if np.isnan(value):
            readings.append(replace(_too_few("open_alerts_as_read", READ_OFF, n, MINIMUM_READ), subject=age))
            continue
        beyond = abs(value) > READ_OFF and (low > 0 or high < 0)
        said, happened = (numbers[name]["value"] for name in ("mean_forecast", "acted_share"))
        text = f"open for {age}: the board said {said:.1%} on average, {happened:.1%} were acted on"
        readings.append(
            Reading("open_alerts_as_read", age, value, READ_OFF, "warning" if beyond else "well", text, n, low, high)
        )
    order = {"warning": 0, "well": 1, "too few": 2}
    return sorted(readings, key=lambda each: (order[each.verdict], -abs(each.value)))


def coverage(still_open: int, without_score: int) -> Reading:
    """The share of open alerts that have no score."""
    share = without_score / still_open if still_open else 0.0
    return Reading(
        "coverage",
        "",
        share,
        0.0,
        "warning" if without_score else "well",
        f"{without_score:,} of {still_open:,} open alerts have no score",
        still_open,
    )


def freshness(raised_at: pd.Series, as_of: datetime) -> Reading:
    """The time since the last alert, against the longest pause of the weeks before.

    raised_at : of all alerts of the weeks before `as_of`, flagged ones included.
    """
    n = len(raised_at)
    if n < MINIMUM:
        return _too_few("freshness", float("nan"), n, MINIMUM)
    times = raised_at.sort_values()
    pause = (pd.Timestamp(as_of) - times.iloc[-1]).total_seconds() / 3600
    longest = float(times.diff().max().total_seconds() / 3600)
    return Reading(
        "freshness",
        "hours since the last alert",
        pause,
        PAUSES * longest,
        "warning" if pause > PAUSES * longest else "well",
        f"no alert has come for {pause:.1f} hours; the longest pause of the weeks before was {longest:.1f}",
        n,
    )


def alert_volume(daily: pd.Series) -> Reading:
    """Yesterday's alerts against the same weekday of the weeks before, on square roots, in their usual spread.

    daily : alerts without a flag per full UTC day, in order and without gaps, the last one being judged.
    """
    if len(daily) < 29 or daily.iloc[:-1].mean() < 5:
        return _too_few("alert_volume", VOLUME_SPREADS, len(daily), 29, "days of 5 alerts")
    roots = np.sqrt(daily.to_numpy(dtype=np.float64))
    same = roots[-8:0:-7][:8]
    before = roots[:-1]
    residual = np.array([before[i] - np.median(before[:i][(i - 7) % 7 :: 7][-8:]) for i in range(14, len(before))])
    # A Poisson count has a spread of 0.5 on this scale; less than that is luck.
    spread = max(0.5, 1.4826 * float(np.median(np.abs(residual))))
    value = float((roots[-1] - np.median(same)) / spread)
    return Reading(
        "alert_volume",
        "",
        value,
        VOLUME_SPREADS,
        "warning" if abs(value) > VOLUME_SPREADS else "well",
        f"{daily.iloc[-1]:,.0f} alerts without a flag came on the last full day, where about "
        f"{np.median(same) ** 2:,.0f} are usual for that weekday",
        int(daily.iloc[-1]),
    )


def needed_from(as_of: datetime, cut: datetime, horizon: timedelta) -> datetime:
    """From when on `readings` needs alerts."""
    return min(cut, as_of - horizon - JUDGED) - REFERENCE


def readings(
    history: pd.DataFrame,
    flagged: np.ndarray,
    scores: pd.DataFrame,
    as_of: datetime,
    cut: datetime,
    evaluated_auc: float,
    horizon: timedelta,
) -> list[Reading]:
    """Every reading at `as_of`, in the order of the checks; the drifting columns farthest first.

    history : alerts from `needed_from` on, with outcomes as known at `as_of`, in order of time. flagged : bool[alerts].
    scores : alert_id, probability: the first score of each. cut : of the champion's trees.
    evaluated_auc : as for `estimated_performance`.
    """
    now = pd.Timestamp(as_of)
    unflagged = history[~flagged]
    recent = unflagged["raised_at"] >= now - RECENT
    trained_on = (unflagged["raised_at"] >= pd.Timestamp(cut - REFERENCE)) & (
        unflagged["raised_at"] < min(pd.Timestamp(cut), now - RECENT)
    )
    scored = unflagged.merge(scores[["alert_id", "probability"]], on="alert_id", how="inner", validate="one_to_one")
    recent_scores = scored["raised_at"] >= now - RECENT
    weeks_before = scored["raised_at"] >= now - RECENT - JUDGED
    over = scored["horizon_ends_at"] <= now
    judged = over & (scored["horizon_ends_at"] > now - JUDGED) & scored["acted"].notna()
    still_open = history.loc[history["known_at"].isna() & (history["raised_at"] >= now - horizon), "alert_id"]
    without = ~still_open.isin(set(scores["alert_id"]))
    weeks = now - REFERENCE
    days = pd.date_range(weeks.floor("D"), now.floor("D"), freq="D", inclusive="left")
    daily = unflagged["raised_at"].dt.floor("D").value_counts().reindex(days, fill_value=0)
    return [
        *input_drift(unflagged[trained_on], unflagged[recent]),
        score_drift(scored.loc[weeks_before & ~recent_scores, "probability"], scored.loc[recent_scores, "probability"]),
        estimated_performance(scored.loc[recent_scores, "probability"].to_numpy(), evaluated_auc),
        realised_performance(scored[judged]),
        coverage(len(still_open), int(without.sum())),
        freshness(history.loc[history["raised_at"] >= weeks, "raised_at"], as_of),
        alert_volume(daily),
    ]


def _thin(frame: pd.DataFrame) -> pd.DataFrame:
    if len(frame) <= MOST_ROWS:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, MOST_ROWS).astype(np.int64)]


def _too_few(check: str, limit: float, n: int, needed: int, unit: str = "alerts") -> Reading:
    return Reading(check, "", float("nan"), limit, "too few", f"{n:,} {unit} are too few: {needed:,} are needed", n)
