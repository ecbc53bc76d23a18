"""The executor of history features: frames in, float32 columns out.

Belongs here: dealing rows and events into the groups of each key, sharing the work among threads, and laying out the
result.
Does not belong here: reading frames (`inputs.py`), ordering events (`streams.py`), the loops themselves (`kernels.py`)
and the meaning of a statistic (`definition.py`).

Per call, every event stream is ordered by time once. Then, one key after another and a batch of groups at a time to
limit working memory, rows and events are dealt into the key's groups and each group is walked once, forward
(`kernels.sweep`). Cost grows with rows + events; the output (4 bytes per cell) is most of the memory.

Output is float32: counts are exact up to 2 ** 24 (16.7 million alerts of one key in one window) and right to 6e-8
beyond, seconds and shares are right to 6e-8, and models split the columns into at most a few hundred bins. All
arithmetic before the last step is int64 or float64, and each number depends on nothing but the events in
[t - lookback, t): the same inputs give the same bytes with any number of threads, any order of rows and any chunking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd

from dagster_project.triage.features.history.definition import (
    RAISED_STATISTICS,
    WINDOWED_STATISTICS,
    HistoryFeature,
    microseconds,
)
from dagster_project.triage.features.history.inputs import check, encode, read_times
from dagster_project.triage.features.history.streams import (
    FOREVER,
    NO_I4,
    NO_I8,
    Stream,
    known_stream,
    order_by_time,
    raised_stream,
)
from dagster_project.triage.features.history.workers import WORTH_A_THREAD, Workers, available_threads

# Shares of a key's work that one task takes. More tasks than threads even out groups of unequal cost (keys are
# Zipf distributed). 8, 32 and 128 took the same CPU time at 3 million alerts, within what the machine allowed to tell.
TASKS_PER_THREAD = 8
# Rows and events dealt into their groups at one time, at about 11 bytes each: at 10 million alerts (18.5 million of
# both) two rounds take 100 MB less than one. Four would take 50 MB less again, and 1.3 s more CPU time for dealing.
ROUND = 10_000_000
# Rows that are turned into columns together: 4096 rows of 14 features are 230 KB, which a core's L2 cache holds twice,
# and parts of 16 KB move at the speed of memory. The output is padded to whole tiles.
TILE = 4096


def history_features(
    events: pd.DataFrame,
    at: pd.DataFrame,
    features: Sequence[HistoryFeature],
    lookback: timedelta,
    *,
    threads: int | None = None,
) -> pd.DataFrame:
    """What was known about each row's keys just before the row was raised.

    events : one row per past alert, in any order: a column per key named in `features`; `raised_at`; where any
        feature looks at outcomes also `known_at` (NaT: not known) and `acted` (1, 0; null: not known). An outcome
        counts when it has both. Optional `excluded_from` and `excluded_until`: the event, its outcome included,
        counts at t unless excluded_from < t <= excluded_until (NaT: never excluded; excluded forever).
        For features of rows from a time T on, pass at least the events with `raised_at` or `known_at` at or
        after T - `lookback`; other events change nothing.
    at : the rows to describe, in any order: the key columns and `raised_at`, the time t. It may be `events`
        itself: an event does not count at its own time or before it.
    features : what to compute; names must differ.
    lookback : nothing older than t - lookback counts, in any feature; at least as long as every window.
    threads : at most this many threads; None takes every CPU this process may use.

    Times are `datetime64` of any unit, with any time zone, or without one (UTC); finer than microseconds is cut off.
    Keys are values of any hashable type; null is not a value: such a row's features of that key are nan, and such an
    event counts nowhere.

    Returns: float32 columns named by `HistoryFeature.name`, in the order of `features`, with the index and row order of
        `at`. A feature at t is a function of the events in [t - lookback, t): raised statistics go by `raised_at`,
        outcome statistics by `known_at`, both strictly before t.
    Raises HeedError: a column is missing or of the wrong type, a time is null, `acted` is neither 0, 1 nor null, a
        window is longer than `lookback`, two features have one name, or a frame has more than 2 ** 31 - 1 rows.

    >>> raised_at = pd.to_datetime(["2026-03-01", "2026-03-05", "2026-03-10"])
    >>> alerts = pd.DataFrame({"rule": "cpu", "raised_at": raised_at})
    >>> week = HistoryFeature("rule", "raised_count", window=timedelta(days=7))
    >>> history_features(alerts, alerts, [week], lookback=timedelta(days=28))["rule_raised_count_7d"].tolist()
    [0.0, 1.0, 1.0]
    """
    features = list(features)
    check(events, at, features, lookback)
    keys = list(dict.fromkeys(f.key for f in features))
    with_raised = any(f.statistic in RAISED_STATISTICS for f in features)
    with_known = any(f.statistic not in RAISED_STATISTICS for f in features)

    ordered = [f for key in keys for f in features if f.key == key]
    height = max(1, min(TILE, len(at)))
    n_tiles = -(-len(at) // height)
    out = np.empty((len(ordered), n_tiles * height), dtype=np.float32)
    if len(at) and features:
        busy = len(at) + len(events) >= WORTH_A_THREAD
        with Workers((threads or available_threads()) if busy else 1) as workers:
            at_times = read_times(at, "raised_at", "at", null_allowed=False)
            rows = Stream(at_times, order_by_time(at_times, None, workers))
            streams = []
            if with_raised:
                streams.append((raised_stream(events, at, rows, lookback, workers), True))
            if with_known:
                streams.append((known_stream(events, at_times, lookback, workers), False))
            first = 0
            for key in keys:
                mine = [f for f in ordered if f.key == key]
                cells = out[first : first + len(mine)].reshape(-1)
                first += len(mine)
                _compute_key(key, events, at, rows, streams, mine, lookback, cells.reshape(-1, len(mine)), workers)
                _rows_to_columns(cells, height, len(mine), n_tiles, workers)
    table = pd.DataFrame(out[:, : len(at)].T, index=at.index, columns=[f.name for f in ordered], copy=False)
    return table if ordered == features else table[[f.name for f in features]]


def _rows_to_columns(cells: np.ndarray, height: int, width: int, n_tiles: int, workers: Workers) -> None:
    """Turn (rows, width) into (width, rows) in place: there is no memory for a second copy of the output."""
    from dagster_project.triage.features.history.kernels import gather_tiles, transpose_tiles

    if width == 1:
        return
    bounds = np.unique(np.linspace(0, n_tiles, workers.threads + 1).astype(np.int64)).tolist()
    workers.run([partial(transpose_tiles, cells, height, width, a, b) for a, b in pairwise(bounds)])
    if n_tiles > 1:
        # One thread is enough: it runs while the next key is encoded, which leaves the others idle.
        workers.later(partial(gather_tiles, cells, height, width, n_tiles))


@dataclass(frozen=True)
class _Groups:
    """Rows dealt into groups of one key, in order of time within each group; see `kernels.sweep`."""

    starts: np.ndarray
    rows: np.ndarray
    times: np.ndarray
    acted: np.ndarray


def _count(codes: np.ndarray, stream: Stream, n_groups: int, row_starts: np.ndarray) -> np.ndarray:
    """Where each group of the stream begins: int64 (n_groups + 1)."""
    from dagster_project.triage.features.history.kernels import group_starts

    order = NO_I4 if stream.order is None else stream.order
    return group_starts(codes, order, stream.order is None, n_groups, row_starts)


def _room(starts: np.ndarray, first: int, last: int, with_rows: bool, with_acted: bool) -> _Groups:
    """Arrays for the groups [first, last), to be filled by `_deal`.

    Allocated here and not by a worker: memory by which a thread's own heap grew is not returned.
    """
    starts = starts[first : last + 1] - starts[first]
    size = int(starts[-1])
    rows = np.empty(size if with_rows else 0, np.int32)
    # One number more than there are events: `sweep` may read one beyond the last.
    acted = np.empty(size + 1 if with_acted else 0, np.int8)
    times = np.empty(size + 1, np.int64)
    acted[size:], times[size:] = 0, 0
    return _Groups(starts, rows, times, acted)


def _deal(codes: np.ndarray, stream: Stream, first: int, room: _Groups) -> None:
    from dagster_project.triage.features.history.kernels import place

    order = NO_I4 if stream.order is None else stream.order
    in_order = stream.order is None
    place(codes, order, in_order, stream.times, stream.acted, first, room.starts, room.rows, room.times, room.acted)


def _changes(codes: np.ndarray, stream: Stream, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Per group, the times after which a different set of its events counts: (starts, times in order)."""
    away = np.flatnonzero(stream.away_from != FOREVER) if stream.order is None else stream.order
    away = away[stream.away_from[away] != FOREVER]
    away = away[codes[away] >= 0]
    begins, ends = stream.away_from[away], stream.away_until[away]
    begin, end = begins > stream.times[away], ends != FOREVER
    group = np.concatenate([codes[away[begin]], codes[away[end]]])
    changed_at = np.concatenate([begins[begin], ends[end]])
    order = np.lexsort((changed_at, group))
    group, changed_at = group[order], changed_at[order]
    fresh = np.ones(len(group), dtype=bool)
    fresh[1:] = (group[1:] != group[:-1]) | (changed_at[1:] != changed_at[:-1])
    starts = np.zeros(n_groups + 1, np.int64)
    np.cumsum(np.bincount(group[fresh], minlength=n_groups), out=starts[1:])
    return starts, changed_at[fresh]


def _compute_key(
    key: str,
    events: pd.DataFrame,
    at: pd.DataFrame,
    rows: Stream,
    streams: Sequence[tuple[Stream, bool]],
    features: Sequence[HistoryFeature],
    lookback: timedelta,
    out: np.ndarray,
    workers: Workers,
) -> None:
    """Write every feature of one key; `out` is float32 (rows, features), some rows longer than `at`."""
    at_codes, event_codes, n_groups = encode(at[key], at[key] if events is at else events[key])
    out[np.flatnonzero(at_codes < 0)] = np.nan

    programs = [
        (stream, _program([(i, f) for i, f in enumerate(features) if _of(f, raised)], lookback))
        for stream, raised in streams
        if any(_of(f, raised) for f in features)
    ]
    same_keys = at_codes is event_codes or np.array_equal(at_codes, event_codes)
    row_starts = _count(at_codes, rows, n_groups, NO_I8)
    shared = [stream is rows and same_keys for stream, _ in programs]
    starts = workers.run(
        [
            partial(_count, event_codes, stream, n_groups, row_starts) if not share else partial(np.asarray, row_starts)
            for (stream, _), share in zip(programs, shared, strict=True)
        ]
    )
    changes = [
        _changes(event_codes, stream, n_groups) if len(stream.away_from) else (NO_I8, NO_I8) for stream, _ in programs
    ]
    work = row_starts + sum(starts)
    for first, last in _cut(work, 0, n_groups, -(-int(work[-1]) // ROUND)):
        if row_starts[first] == row_starts[last]:
            continue
        there = _room(row_starts, first, last, True, False)
        deals = [partial(_deal, at_codes, rows, first, there)]
        pasts = []
        for (stream, _), mine, share in zip(programs, starts, shared, strict=True):
            past = there if share else _room(mine, first, last, len(stream.away_from) > 0, len(stream.acted) > 0)
            pasts.append(past)
            if not share:
                deals.append(partial(_deal, event_codes, stream, first, past))
        workers.run(deals)
        sweeps = []
        for (stream, program), past, (change_starts, change_times) in zip(programs, pasts, changes, strict=True):
            away = (NO_I8, NO_I8)
            if len(stream.away_from):
                away = (stream.away_from[past.rows], stream.away_until[past.rows])
            changed = change_starts[first : last + 1]
            sweeps.append((past.starts, past.times, past.acted, *away, changed, change_times, *program, out))
        tasks = workers.threads * TASKS_PER_THREAD if workers.threads > 1 else 1
        bounds = _cut(work[first : last + 1], 0, last - first, tasks)
        workers.run([partial(_walk, a, b, there, sweeps) for a, b in bounds])


def _walk(first: int, last: int, there: _Groups, sweeps: Sequence[tuple]) -> None:
    """One stream right after the other, while the rows that both write are still in the cache."""
    from dagster_project.triage.features.history.kernels import sweep

    for arguments in sweeps:
        sweep(first, last, there.starts, there.rows, there.times, *arguments)


def _cut(work: np.ndarray, first: int, last: int, parts: int) -> list[tuple[int, int]]:
    """The groups [first, last) in at most `parts` stretches of about equal work; `work` is cumulative."""
    inner = np.searchsorted(work, np.linspace(work[0], work[-1], max(1, parts) + 1)[1:-1])
    return list(pairwise(np.unique([first, *inner, last]).tolist()))


def _of(feature: HistoryFeature, raised: bool) -> bool:
    return (feature.statistic in RAISED_STATISTICS) == raised


def _program(
    features: Sequence[tuple[int, HistoryFeature]], lookback: timedelta
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `kernels.sweep` writes where: windows, their columns, single columns, half-lives, their columns."""
    reach = microseconds(lookback)
    slots: list[tuple[int, list[int]]] = []  # a window, and where its count and acted count go
    single_columns = np.full(3, -1, dtype=np.int64)
    half_lives, decay_columns = [], []
    for column, f in features:
        if f.statistic in WINDOWED_STATISTICS:
            span = microseconds(f.window) if f.window else reach
            line = 1 if f.statistic == "acted_count" else 0
            free = next((lines for s, lines in slots if s == span and lines[line] < 0), None)
            if free is None:
                free = [-1, -1]
                slots.append((span, free))
            free[line] = column
        elif f.half_life is not None:
            half_lives.append(microseconds(f.half_life))
            decay_columns.append(column)
        else:
            place = {"last_outcome": 0, "seconds_since_raised": 1, "seconds_since_acted": 2}[f.statistic]
            single_columns[place] = column
    slots.sort(key=lambda slot: slot[0])
    if not slots or slots[-1][0] < reach:
        slots.append((reach, [-1, -1]))
    return (
        np.array([span for span, _ in slots], dtype=np.int64),
        np.ascontiguousarray(np.array([lines for _, lines in slots], dtype=np.int64).T),
        single_columns,
        np.array(half_lives, dtype=np.float64),
        np.array(decay_columns, dtype=np.int64),
    )
