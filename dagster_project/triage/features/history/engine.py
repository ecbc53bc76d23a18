"""The executor of history features: frames in, float32 columns out.

Belongs here: checking frames, encoding keys, ordering the two event streams, sharing work among threads.
Does not belong here: the loops themselves (`kernels.py`) and the meaning of a statistic (`definition.py`).

Per call: every event stream is ordered by time once. Then, one key after the other and some groups after the others
so that little working memory stands at a time, rows and events are dealt into the key's groups and each group is
walked once, forward (`kernels.sweep`). Cost grows with rows + events; the output (4 bytes per cell) is most of the
memory.

Output is float32: counts are exact up to 2 ** 24 (16.7 million alerts of one key in one window) and right to 6e-8
beyond, seconds and shares are right to 6e-8, and what learns from the columns splits them into at most a few hundred
bins. All arithmetic before the last step is int64 or float64, and each number depends on nothing but the events in
[t - lookback, t): the same inputs give the same bytes with any number of threads, any order of rows and any chunking.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.features.history.definition import (
    RAISED_STATISTICS,
    WINDOWED_STATISTICS,
    HistoryFeature,
    microseconds,
)

NOT_A_TIME = np.iinfo(np.int64).min  # what NaT is as an integer
FOREVER = np.iinfo(np.int64).max
LARGEST = np.iinfo(np.int32).max  # rows are numbered by int32

# Shares of a key's work that one task takes. More tasks than threads even out groups of unequal cost (keys are
# Zipf distributed). 8, 32 and 128 took the same CPU time at 3 million alerts, within what the machine allowed to tell.
TASKS_PER_THREAD = 8
# Rows and events that stand in their groups at one time, at about 11 bytes each: at 10 million alerts (18.5 million of
# both) two rounds take 100 MB less than one. Four would take 50 MB less again, and 1.3 s more CPU time for dealing.
ROUND = 10_000_000
# Rows that are turned into columns together: 4096 rows of 14 features are 230 KB, which a core's L2 cache holds twice,
# and parts of 16 KB move at the speed of memory. The output is padded to whole tiles.
TILE = 4096
# Below this many rows and events a second thread costs more than it saves (a pool starts in about 0.2 ms, and this
# much work takes about 2 ms).
WORTH_A_THREAD = 50_000

ACTED_REMEDY = "pass 1 for acted, 0 for not acted and null for not known yet"
NO_I1, NO_I4, NO_I8 = np.empty(0, np.int8), np.empty(0, np.int32), np.empty(0, np.int64)
T = TypeVar("T")


def history_features(
    events: pd.DataFrame,
    at: pd.DataFrame,
    features: Sequence[HistoryFeature],
    lookback: timedelta,
    *,
    threads: int | None = None,
) -> pd.DataFrame:
    """What was known about each row's keys just before its moment.

    Parameters
    ----------
    events : one row per past alert, in any order: a column per key named in `features`; `raised_at`; where any
        feature looks at outcomes also `known_at` (NaT: not known) and `acted` (1, 0; null: not known). An outcome
        counts when it has both. Optional `excluded_from` and `excluded_until`: the event, its outcome included,
        counts at t unless excluded_from < t <= excluded_until (NaT: never excluded; excluded for ever).
        For features at rows from some moment on, pass at least the events with `raised_at` or `known_at` at or
        after that moment less `lookback`; older and younger ones change nothing.
    at : the rows to describe, in any order: the key columns and `raised_at`, the moment t. It may be `events`
        itself: nothing counts at its own moment or before it.
    features : what to compute; names must differ.
    lookback : nothing older than t - lookback counts, in any feature; at least as long as every window.
    threads : at most this many threads; None takes every CPU this process may use.

    Times are `datetime64` of any unit, with any time zone, or without one (UTC); finer than microseconds is cut off.
    Keys are values of any hashable type; null is not a value: such a row's features of that key are nan, and such an
    event counts nowhere.

    Returns
    -------
    float32 columns named by `HistoryFeature.name`, in the order of `features`, with the index and row order of
    `at`. A feature at t is a function of the events in [t - lookback, t): raised statistics go by `raised_at`,
    outcome statistics by `known_at`, both strictly before t.

    Raises
    ------
    HeedError : a column is missing or of the wrong type, a moment is null, `acted` is neither 0, 1 nor null, a window
        is longer than `lookback`, two features have one name, or a frame has more than 2 ** 31 - 1 rows.
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
        with _Workers((threads or _available_threads()) if busy else 1) as workers:
            moments = _times(at, "raised_at", "at", null_allowed=False)
            rows = _Stream(moments, _order(moments, None, workers))
            streams = []
            if with_raised:
                streams.append((_raised_stream(events, at, rows, lookback, workers), True))
            if with_known:
                streams.append((_known_stream(events, moments, lookback, workers), False))
            first = 0
            for key in keys:
                mine = [f for f in ordered if f.key == key]
                cells = out[first : first + len(mine)].reshape(-1)
                first += len(mine)
                _compute_key(key, events, at, rows, streams, mine, lookback, cells.reshape(-1, len(mine)), workers)
                _rows_to_columns(cells, height, len(mine), n_tiles, workers)
    made = pd.DataFrame(out[:, : len(at)].T, index=at.index, columns=[f.name for f in ordered], copy=False)
    return made if ordered == features else made[[f.name for f in features]]


def _rows_to_columns(cells: np.ndarray, height: int, width: int, n_tiles: int, workers: _Workers) -> None:
    """Turn (rows, width) into (width, rows) where it stands: a second copy would not fit beside the output."""
    from dagster_project.triage.features.history.kernels import gather_tiles, transpose_tiles

    if width == 1:
        return
    bounds = np.unique(np.linspace(0, n_tiles, workers.threads + 1).astype(np.int64)).tolist()
    workers.run([partial(transpose_tiles, cells, height, width, a, b) for a, b in pairwise(bounds)])
    if n_tiles > 1:
        # One thread is enough: it works beside the next key's encoding, which leaves the others idle.
        workers.later(partial(gather_tiles, cells, height, width, n_tiles))


class _Workers:
    """Ordinary threads, or none at all: the loops release the GIL."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads, "timeline") if threads > 1 else None
        self.unfinished: list[Future[object]] = []

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=error[0] is not None)
        for future in self.unfinished:
            if not future.cancelled():
                future.result()

    def run(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """The results of `tasks`, in their order."""
        if self.pool is None:
            return [task() for task in tasks]
        return [future.result() for future in [self.pool.submit(task) for task in tasks]]

    def later(self, task: Callable[[], object]) -> None:
        """Run `task` at some time before the workers leave."""
        if self.pool is None:
            task()
        else:
            self.unfinished.append(self.pool.submit(task))


def _available_threads() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


# ---------------------------------------------------------------------------------------------- checks and columns


def check(events: pd.DataFrame, at: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> None:
    """Raise `HeedError` unless the features can be computed from these frames."""
    keys = list(dict.fromkeys(f.key for f in features))
    with_known = any(f.statistic not in RAISED_STATISTICS for f in features)
    _check_features(features, lookback)
    _check_frame(at, "at", [*keys, "raised_at"])
    _check_frame(events, "events", [*keys, "raised_at", *(("known_at", "acted") if with_known else ())])


def _check_features(features: Sequence[HistoryFeature], lookback: timedelta) -> None:
    if lookback <= timedelta(0):
        raise HeedError(f"the lookback is {lookback}", "give it a length above zero")
    names = [f.name for f in features]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise HeedError(f"history feature {double[0]} is declared twice", "declare each feature once")
    for f in features:
        if f.window is not None and f.window > lookback:
            raise HeedError(
                f"the window of history feature {f.name} is longer than the lookback of {lookback}",
                "raise the lookback or shorten the window",
            )


def _check_frame(frame: pd.DataFrame, which: str, columns: Sequence[str]) -> None:
    missing = [c for c in columns if c not in frame.columns]
    if missing:
        raise HeedError(
            f"the frame `{which}` of the history features lacks the column {missing[0]!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else ""),
            f"pass it with the columns {', '.join(columns)}",
        )
    for c in columns:
        if isinstance(frame[c], pd.DataFrame):
            raise HeedError(
                f"the frame `{which}` of the history features has the column {c!r} twice", "keep one of them"
            )
    if len(frame) > LARGEST:
        raise HeedError(
            f"the frame `{which}` of the history features has {len(frame):,} rows, more than {LARGEST:,}",
            "compute it in parts, by days or by keys",
        )


def _times(frame: pd.DataFrame, column: str, which: str, *, null_allowed: bool) -> np.ndarray:
    """A time column as int64 microseconds since the epoch, `NOT_A_TIME` where null."""
    series = frame[column]
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        if not series.isna().all():
            raise HeedError(
                f"the column {column!r} of the frame `{which}` holds {series.dtype}, not times",
                "convert it with pandas.to_datetime(..., utc=True)",
            )
        series = pd.Series(pd.NaT, index=series.index, dtype="datetime64[us, UTC]")
    if not isinstance(series.dtype, (np.dtype, pd.DatetimeTZDtype)):  # Arrow timestamps
        series = series.astype("datetime64[us, UTC]")
    if series.dt.unit != "us":
        series = series.dt.as_unit("us")
    times = np.ascontiguousarray(series.array.view("i8"))
    if not null_allowed and len(times) and times.min() == NOT_A_TIME:
        count = int((times == NOT_A_TIME).sum())
        raise HeedError(
            f"the column {column!r} of the frame `{which}` is null in {count:,} rows",
            "leave those rows out: without its moment an alert has no past",
        )
    return times


def _acted(events: pd.DataFrame) -> np.ndarray:
    """The outcomes as int8: 1, 0, or -1 where null."""
    try:
        values = events["acted"].to_numpy(na_value=np.nan)
        if values.dtype != np.float32:
            values = values.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise HeedError("the column 'acted' of the frame `events` is not a number", ACTED_REMEDY) from error
    null = np.isnan(values)
    acted = np.where(null, -1, values)
    wrong = acted[(acted != 1) & (acted != 0) & ~null]
    if len(wrong):
        raise HeedError(f"the column 'acted' of the frame `events` holds {wrong[0]:g}", ACTED_REMEDY)
    return acted.astype(np.int8)


def encode(at: pd.Series, events: pd.Series) -> tuple[np.ndarray, np.ndarray, int]:
    """Equal keys as equal int32 codes from 0 on in both columns, -1 for null; and how many codes there are."""
    if isinstance(at.dtype, pd.CategoricalDtype) and isinstance(events.dtype, pd.CategoricalDtype):
        values, at_values = events.cat.categories, at.cat.categories
        at_codes = at.cat.codes.to_numpy()
        n = len(values)
        if not values.equals(at_values):
            known = values.get_indexer(at_values)
            known = np.where(known < 0, n + np.arange(len(known)), known)
            at_codes = np.append(known, -1)[at_codes]
            n += len(at_values)
        return _int32(at_codes), _int32(events.cat.codes.to_numpy()), n
    try:
        if at is events:
            codes, values = pd.factorize(at)
            codes = _int32(codes)
            return codes, codes, len(values)
        codes, values = pd.factorize(pd.concat([at, events], ignore_index=True))
    except TypeError as error:
        raise HeedError(
            f"the key column {at.name!r} holds values that cannot be compared ({error})", "turn them into text"
        ) from error
    codes = _int32(codes)
    return codes[: len(at)], codes[len(at) :], len(values)


def _int32(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes, dtype=np.int32)


# ------------------------------------------------------------------------------------------------- streams of events


@dataclass(frozen=True)
class _Stream:
    """Rows of a frame under one clock. Arrays are as long as the frame, but for `order`.

    times : int64 microseconds.
    order : int32, the rows that can count at all, by time; None for all of them as they stand.
    acted : int8, or empty where outcomes play no part.
    away_from, away_until : int64, the span (from, until] of moments at which a row does not count, FOREVER where it
        does not begin or end; empty when every row always counts.
    """

    times: np.ndarray
    order: np.ndarray | None
    acted: np.ndarray = field(default_factory=lambda: NO_I1)
    away_from: np.ndarray = field(default_factory=lambda: NO_I8)
    away_until: np.ndarray = field(default_factory=lambda: NO_I8)


def _order(times: np.ndarray, counts: np.ndarray | None, workers: _Workers) -> np.ndarray | None:
    """The rows where `counts` (all, when None) by time; None when that is all rows as they stand."""
    if counts is None and (times[1:] >= times[:-1]).all():
        return None
    from dagster_project.triage.features.history.kernels import group_starts, place, sort_by_time

    # Each worker sorts one span of time, cut so that all get about as many rows. Large arrays are made here and not
    # by the workers: what a thread's own heap grew by is not given back.
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


def _raised_stream(
    events: pd.DataFrame, at: pd.DataFrame, rows: _Stream, lookback: timedelta, workers: _Workers
) -> _Stream:
    times = rows.times if events is at else _times(events, "raised_at", "events", null_allowed=False)
    away_from, away_until, counts = _away(events, times)
    if counts is None and (times is rows.times or np.array_equal(times, rows.times)):
        return rows
    return _Stream(
        times, _order(times, _within_reach(times, rows.times, lookback, counts), workers), NO_I1, away_from, away_until
    )


def _known_stream(events: pd.DataFrame, moments: np.ndarray, lookback: timedelta, workers: _Workers) -> _Stream:
    times = _times(events, "known_at", "events", null_allowed=True)
    acted = _acted(events)
    away_from, away_until, counts = _away(events, times)
    known = acted >= 0
    if counts is not None:
        known &= counts
    return _Stream(
        times, _order(times, _within_reach(times, moments, lookback, known), workers), acted, away_from, away_until
    )


def _within_reach(times: np.ndarray, moments: np.ndarray, lookback: timedelta, counts: np.ndarray | None) -> np.ndarray:
    """Whether any row can see the event; a time that is null lies before everything."""
    within = times < moments.max()
    within &= times >= moments.min() - microseconds(lookback)
    if counts is not None:
        within &= counts
    return within


def _away(events: pd.DataFrame, times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """When each event is excluded: (away_from, away_until, whether it ever counts), empty and None if none ever is."""
    if "excluded_from" not in events:
        return NO_I8, NO_I8, None
    away_from = _times(events, "excluded_from", "events", null_allowed=True).copy()
    away_from[away_from == NOT_A_TIME] = FOREVER
    if (away_from == FOREVER).all():
        return NO_I8, NO_I8, None
    if "excluded_until" in events:
        away_until = _times(events, "excluded_until", "events", null_allowed=True).copy()
        away_until[away_until == NOT_A_TIME] = FOREVER
    else:
        away_until = np.full(len(events), FOREVER)
    away_from[away_until <= away_from] = FOREVER
    # Most outcomes of a flood become known after the flood did: they never count, and need no further thought.
    never = (away_from <= times) & (away_until == FOREVER)
    if not ((away_from != FOREVER) & ~never).any():
        away_from = away_until = NO_I8
    return away_from, away_until, ~never


# ------------------------------------------------------------------------------------------------------- one key


@dataclass(frozen=True)
class _Groups:
    """Rows dealt into some groups of one key, in order of time within each group; see `kernels.sweep`."""

    starts: np.ndarray
    rows: np.ndarray
    times: np.ndarray
    acted: np.ndarray


def _count(codes: np.ndarray, stream: _Stream, n_groups: int, row_starts: np.ndarray) -> np.ndarray:
    """Where each group of the stream begins: int64 (n_groups + 1)."""
    from dagster_project.triage.features.history.kernels import group_starts

    order = NO_I4 if stream.order is None else stream.order
    return group_starts(codes, order, stream.order is None, n_groups, row_starts)


def _room(starts: np.ndarray, first: int, last: int, with_rows: bool, with_acted: bool) -> _Groups:
    """Room for the groups [first, last), to be filled by `_deal`.

    Made by the caller of the workers: what a thread's own heap grew by is not given back.
    """
    starts = starts[first : last + 1] - starts[first]
    size = int(starts[-1])
    rows = np.empty(size if with_rows else 0, np.int32)
    # One number more than there are events: `sweep` may look one beyond the last.
    acted = np.empty(size + 1 if with_acted else 0, np.int8)
    times = np.empty(size + 1, np.int64)
    acted[size:], times[size:] = 0, 0
    return _Groups(starts, rows, times, acted)


def _deal(codes: np.ndarray, stream: _Stream, first: int, room: _Groups) -> None:
    from dagster_project.triage.features.history.kernels import place

    order = NO_I4 if stream.order is None else stream.order
    in_order = stream.order is None
    place(codes, order, in_order, stream.times, stream.acted, first, room.starts, room.rows, room.times, room.acted)


def _changes(codes: np.ndarray, stream: _Stream, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Per group, the moments after which another set of its events counts: (starts, moments in order)."""
    away = np.flatnonzero(stream.away_from != FOREVER) if stream.order is None else stream.order
    away = away[stream.away_from[away] != FOREVER]
    away = away[codes[away] >= 0]
    begins, ends = stream.away_from[away], stream.away_until[away]
    begin, end = begins > stream.times[away], ends != FOREVER
    group = np.concatenate([codes[away[begin]], codes[away[end]]])
    moment = np.concatenate([begins[begin], ends[end]])
    order = np.lexsort((moment, group))
    group, moment = group[order], moment[order]
    fresh = np.ones(len(group), dtype=bool)
    fresh[1:] = (group[1:] != group[:-1]) | (moment[1:] != moment[:-1])
    starts = np.zeros(n_groups + 1, np.int64)
    np.cumsum(np.bincount(group[fresh], minlength=n_groups), out=starts[1:])
    return starts, moment[fresh]


def _compute_key(
    key: str,
    events: pd.DataFrame,
    at: pd.DataFrame,
    rows: _Stream,
    streams: Sequence[tuple[_Stream, bool]],
    features: Sequence[HistoryFeature],
    lookback: timedelta,
    out: np.ndarray,
    workers: _Workers,
) -> None:
    """Write every feature of one key; `out` is float32 (rows, features), some rows longer than `at`."""
    at_codes, event_codes, n_groups = encode(at[key], at[key] if events is at else events[key])
    out[np.flatnonzero(at_codes < 0)] = np.nan

    programmes = [
        (stream, _programme([(i, f) for i, f in enumerate(features) if _of(f, raised)], lookback))
        for stream, raised in streams
        if any(_of(f, raised) for f in features)
    ]
    same_keys = at_codes is event_codes or np.array_equal(at_codes, event_codes)
    row_starts = _count(at_codes, rows, n_groups, NO_I8)
    shared = [stream is rows and same_keys for stream, _ in programmes]
    starts = workers.run(
        [
            partial(_count, event_codes, stream, n_groups, row_starts) if not share else partial(np.asarray, row_starts)
            for (stream, _), share in zip(programmes, shared, strict=True)
        ]
    )
    changes = [
        _changes(event_codes, stream, n_groups) if len(stream.away_from) else (NO_I8, NO_I8) for stream, _ in programmes
    ]
    work = row_starts + sum(starts)
    for first, last in _cut(work, 0, n_groups, -(-int(work[-1]) // ROUND)):
        if row_starts[first] == row_starts[last]:
            continue
        there = _room(row_starts, first, last, True, False)
        deals = [partial(_deal, at_codes, rows, first, there)]
        pasts = []
        for (stream, _), mine, share in zip(programmes, starts, shared, strict=True):
            past = there if share else _room(mine, first, last, len(stream.away_from) > 0, len(stream.acted) > 0)
            pasts.append(past)
            if not share:
                deals.append(partial(_deal, event_codes, stream, first, past))
        workers.run(deals)
        sweeps = []
        for (stream, programme), past, (change_starts, moments) in zip(programmes, pasts, changes, strict=True):
            away = (NO_I8, NO_I8)
            if len(stream.away_from):
                away = (stream.away_from[past.rows], stream.away_until[past.rows])
            changed = change_starts[first : last + 1]
            sweeps.append((past.starts, past.times, past.acted, *away, changed, moments, *programme, out))
        tasks = workers.threads * TASKS_PER_THREAD if workers.threads > 1 else 1
        bounds = _cut(work[first : last + 1], 0, last - first, tasks)
        workers.run([partial(_walk, a, b, there, sweeps) for a, b in bounds])


def _walk(first: int, last: int, there: _Groups, sweeps: Sequence[tuple]) -> None:
    """One stream right after the other, while the rows they both write are still near."""
    from dagster_project.triage.features.history.kernels import sweep

    for arguments in sweeps:
        sweep(first, last, there.starts, there.rows, there.times, *arguments)


def _cut(work: np.ndarray, first: int, last: int, parts: int) -> list[tuple[int, int]]:
    """The groups [first, last) in at most `parts` runs of about equal work; `work` is cumulative."""
    inner = np.searchsorted(work, np.linspace(work[0], work[-1], max(1, parts) + 1)[1:-1])
    return list(pairwise(np.unique([first, *inner, last]).tolist()))


def _of(feature: HistoryFeature, raised: bool) -> bool:
    return (feature.statistic in RAISED_STATISTICS) == raised


def _programme(
    features: Sequence[tuple[int, HistoryFeature]], lookback: timedelta
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What `kernels.sweep` writes where: windows, their columns, single columns, half-lives, their columns."""
    reach = microseconds(lookback)
    slots: list[tuple[int, list[int]]] = []  # a window, and where its count, acted count and acted share go
    single_columns = np.full(3, -1, dtype=np.int64)
    half_lives, decay_columns = [], []
    for column, f in features:
        if f.statistic in WINDOWED_STATISTICS:
            span = microseconds(f.window) if f.window else reach
            line = {"raised_count": 0, "known_count": 0, "acted_count": 1, "acted_share": 2}[f.statistic]
            free = next((lines for s, lines in slots if s == span and lines[line] < 0), None)
            if free is None:
                free = [-1, -1, -1]
                slots.append((span, free))
            free[line] = column
        elif f.half_life is not None:
            half_lives.append(microseconds(f.half_life))
            decay_columns.append(column)
        else:
            line = {
                "last_outcome": 0,
                "seconds_since_raised": 1,
                "seconds_since_known": 1,
                "seconds_since_acted": 2,
            }[f.statistic]
            single_columns[line] = column
    slots.sort(key=lambda slot: slot[0])
    if not slots or slots[-1][0] < reach:
        slots.append((reach, [-1, -1, -1]))
    return (
        np.array([span for span, _ in slots], dtype=np.int64),
        np.ascontiguousarray(np.array([lines for _, lines in slots], dtype=np.int64).T),
        single_columns,
        np.array(half_lives, dtype=np.float64),
        np.array(decay_columns, dtype=np.int64),
    )
