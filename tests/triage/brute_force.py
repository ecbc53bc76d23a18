"""The definitions of history features, as slowly and plainly as they can be said.

Belongs here: one loop per row over all events, with Python's own numbers. Does not belong here: anything clever, and
anything shared with the engine but the declaration of a feature.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.features.history import HistoryFeature

MICROSECOND = timedelta(microseconds=1)


def brute_force(
    events: pd.DataFrame, at: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta
) -> pd.DataFrame:
    """Same arguments and columns as `history_features`, in float64."""
    past, now = _records(events), _records(at)
    rows = [[_value(past, row, f, lookback // MICROSECOND) for f in features] for row in now]
    return pd.DataFrame(
        np.array(rows, dtype=np.float64).reshape(len(at), len(features)),
        index=at.index,
        columns=[f.name for f in features],
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries: nulls as None, times as whole microseconds."""
    epoch = pd.Timestamp(0, tz="UTC")
    return [
        {
            name: None if pd.isna(v) else (v - epoch) // MICROSECOND if isinstance(v, pd.Timestamp) else v
            for name, v in row.items()
        }
        for row in frame.to_dict("records")
    ]


def _value(past: list[dict[str, Any]], row: dict[str, Any], f: HistoryFeature, lookback: int) -> float:
    t, key = row["raised_at"], row[f.key]
    if key is None:
        return math.nan
    clock = "raised_at" if f.statistic in ("raised_count", "seconds_since_raised") else "known_at"
    since = t - (f.window // MICROSECOND if f.window else lookback)
    seen = []  # (time, acted) of the events that count
    for event in past:
        if event[f.key] != key or _excluded(event, t):
            continue
        if clock == "known_at" and (event["known_at"] is None or event["acted"] is None):
            continue
        if since <= event[clock] < t:
            seen.append((event[clock], event["acted"]))

    latest = max((when for when, _ in seen), default=None)
    acted = [when for when, outcome in seen if outcome == 1.0]
    if f.statistic in ("raised_count", "known_count"):
        return len(seen)
    if f.statistic == "acted_count":
        return len(acted)
    if f.statistic == "seconds_since_acted":
        return (t - max(acted)) / 1e6 if acted else math.nan
    if latest is None:
        return math.nan
    if f.statistic == "last_outcome":
        outcomes = [outcome for when, outcome in seen if when == latest]
        return sum(outcomes) / len(outcomes)
    if f.statistic == "seconds_since_raised":
        return (t - latest) / 1e6
    assert f.statistic == "decayed_acted_rate"
    assert f.half_life is not None
    # The latest event weighs 1 here: the same ratio, and nothing vanishes after a long silence.
    half_life = f.half_life // MICROSECOND
    weights = [2.0 ** ((when - latest) / half_life) for when, _ in seen]
    return math.fsum(w * outcome for w, (_, outcome) in zip(weights, seen, strict=True)) / math.fsum(weights)


def _excluded(event: dict[str, Any], t: int) -> bool:
    start, stop = event.get("excluded_from"), event.get("excluded_until")
    return start is not None and start < t and (stop is None or t <= stop)
