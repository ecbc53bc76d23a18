"""Event streams: the rows of a frame under one clock, in order of time.

Belongs here: which events can count at all, when each is excluded, and their order.
Does not belong here: reading columns (`inputs.py`), grouping by key and computing (`engine.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from dagster_project.triage.features.history.definition import microseconds
from dagster_project.triage.features.history.inputs import NOT_A_TIME, read_acted, read_times
from dagster_project.triage.features.history.workers import WORTH_A_THREAD, Workers

FOREVER = np.iinfo(np.int64).max
NO_I1, NO_I4, NO_I8 = np.empty(0, np.int8), np.empty(0, np.int32), np.empty(0, np.int64)


@dataclass(frozen=True)
class Stream:
    """Rows of a frame under one clock. Arrays are as long as the frame, but for `order`.

    times : int64 microseconds.
    order : int32, the rows that can count at all, by time; None for all of them in their present order.
    acted : int8, or empty where outcomes are not used.
    away_from, away_until : int64, the span (from, until] of times at which a row does not count, FOREVER where it
        does not begin or end; empty when every row always counts.
    """

    times: np.ndarray
    order: np.ndarray | None
    acted: np.ndarray = field(default_factory=lambda: NO_I1)
    away_from: np.ndarray = field(default_factory=lambda: NO_I8)
    away_until: np.ndarray = field(default_factory=lambda: NO_I8)


def order_by_time(times: np.ndarray, counts: np.ndarray | None, workers: Workers) -> np.ndarray | None:
    """The rows where `counts` (all, when None) by time; None when that is all rows in their present order."""
    if counts is None and (times[1:] >= times[:-1]).all():
        return None
    from dagster_project.triage.features.history.kernels import group_starts, place, sort_by_time

    # Each worker sorts one span of time, cut so that all get about as many rows. Large arrays are allocated
    # here and not by the workers: memory by which a thread's own heap grew is not returned.
    span = np.zeros(len(times), np.int32)
    if workers.threads > 1 and len(times) >= WORTH_A_THREAD:
        every = max(1, len(times) // 10_000)
        sample = times[::every] if counts is None else times[::every][counts[::every]]
        for cut in (
            np.quantile(sample, np.linspace(0, 1, workers.threads + 1)[1:-1], method="lower") if len(sample) else ()
        ):
            span += times >= cut
    if counts is not None:
        span[~counts] = -1
    starts = group_starts(span, NO_I4, True, workers.threads, NO_I8)
    n = int(starts[-1])
    rows, other_rows = np.empty(n, np.int32), np.empty(n, np.int32)
    chosen, other_chosen = np.empty(n, np.int64), np.empty(n, np.int64)
    place(span, NO_I4, True, times, NO_I1, 0, starts, rows, chosen, NO_I1)
    parts = [slice(a, b) for a, b in pairwise(starts.tolist())]
    swapped = workers.run([partial(sort_by_time, chosen[p], rows[p], other_chosen[p], other_rows[p]) for p in parts])
    for part, in_other in zip(parts, swapped, strict=True):
        if in_other:
            rows[part] = other_rows[part]
    return rows


def raised_stream(
    events: pd.DataFrame, at: pd.DataFrame, rows: Stream, lookback: timedelta, workers: Workers
) -> Stream:
    times = rows.times if events is at else read_times(events, "raised_at", "events", null_allowed=False)
    away_from, away_until, counts = _away(events, times)
    if counts is None and (times is rows.times or np.array_equal(times, rows.times)):
        return rows
    return Stream(
        times,
        order_by_time(times, _within_reach(times, rows.times, lookback, counts), workers),
        NO_I1,
        away_from,
        away_until,
    )


def known_stream(events: pd.DataFrame, at_times: np.ndarray, lookback: timedelta, workers: Workers) -> Stream:
    times = read_times(events, "known_at", "events", null_allowed=True)
    acted = read_acted(events)
    away_from, away_until, counts = _away(events, times)
    known = acted >= 0
    if counts is not None:
        known &= counts
    return Stream(
        times,
        order_by_time(times, _within_reach(times, at_times, lookback, known), workers),
        acted,
        away_from,
        away_until,
    )


def _within_reach(
    times: np.ndarray, at_times: np.ndarray, lookback: timedelta, counts: np.ndarray | None
) -> np.ndarray:
    """Whether any row can see the event; a null time lies before all others."""
    within = times < at_times.max()
    within &= times >= at_times.min() - microseconds(lookback)
    if counts is not None:
        within &= counts
    return within


def _away(events: pd.DataFrame, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """When each event is excluded: (away_from, away_until, whether it ever counts), empty and None if none ever is."""
    if "excluded_from" not in events:
        return NO_I8, NO_I8, None
    away_from = read_times(events, "excluded_from", "events", null_allowed=True).copy()
    away_from[away_from == NOT_A_TIME] = FOREVER
    if (away_from == FOREVER).all():
        return NO_I8, NO_I8, None
    if "excluded_until" in events:
        away_until = read_times(events, "excluded_until", "events", null_allowed=True).copy()
        away_until[away_until == NOT_A_TIME] = FOREVER
    else:
        away_until = np.full(len(events), FOREVER)
    away_from[away_until <= away_from] = FOREVER
    # Most outcomes of a flood become known after the flood did: they never count and can be left out.
    never = (away_from <= times) & (away_until == FOREVER)
    if not ((away_from != FOREVER) & ~never).any():
        away_from = away_until = NO_I8
    return away_from, away_until, ~never
