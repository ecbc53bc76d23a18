"""The compiled loops of the history engine: order by time, group by key, sweep.

Belongs here: loops over arrays that numba compiles, without pandas and without checks of input.
Does not belong here: meaning, validation and threads (`engine.py`).

Times are int64 microseconds. Importing this module compiles the loops, or loads them from numba's cache; each has
exactly one specialisation, and is run from ordinary threads (`triage/compiled.py` says why).
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from dagster_project.triage.compiled import compiled, read_only

I1, I4, I8 = read_only(types.int8), read_only(types.int32), read_only(types.int64)
I4_OUT, I8_OUT, I1_OUT = types.int32[::1], types.int64[::1], types.int8[::1]


@intrinsic
def _fetch_for_writing(typing_context, array, position):
    """Ask for the cache line of `array.flat[position]`, to write to it soon; does nothing else."""

    def generate(context, builder, signature, arguments):
        cells = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        address = builder.bitcast(builder.gep(cells, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch")
        builder.call(prefetch, [address, number(1), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


# Rows between asking for a line and writing to it: at 3 million alerts 16 took 20% less CPU time than not asking, 6
# took 10% less.
AHEAD = 16

RADIX_BITS = 12  # 4096 heads stay in the L2 cache; a year of microseconds (45 bits) takes four passes


@compiled(types.boolean(I8_OUT, I4_OUT, I8_OUT, I4_OUT))
def sort_by_time(times, rows, other_times, other_rows):
    """Sort `times` and carry `rows` along (least significant digit radix sort, stable).

    The result stands in the second pair of arrays where True is returned. All are the caller's, because numpy asks
    for huge pages and numba does not: with small ones the scattered writes wait for the page table.
    """
    n = len(times)
    digits = 1 << RADIX_BITS
    heads = np.empty(digits, np.int64)
    in_other = False
    is_sorted = True
    low = high = times[0] if n else 0
    for i in range(1, n):
        is_sorted &= times[i] >= times[i - 1]
        low = min(low, times[i])
        high = max(high, times[i])
    if is_sorted:
        return in_other
    shift = 0
    while ((high - low) >> shift) > 0:
        for d in range(digits):
            heads[d] = 0
        for i in range(n):
            heads[((times[i] - low) >> shift) & (digits - 1)] += 1
        total = 0
        for d in range(digits):
            count = heads[d]
            heads[d] = total
            total += count
        for i in range(n):
            d = ((times[i] - low) >> shift) & (digits - 1)
            p = heads[d]
            heads[d] = p + 1
            other_times[p] = times[i]
            other_rows[p] = rows[i]
        times, other_times = other_times, times
        rows, other_rows = other_rows, rows
        in_other = not in_other
        shift += RADIX_BITS
    return in_other


@compiled(types.int64[::1](I4, I4, types.boolean, types.int64, I8))
def group_starts(codes, order, in_order, n_groups, row_starts):
    """Where each group begins among the rows in `order` (all rows where `in_order`): int64 (n_groups + 1).

    Codes below zero are in no group. Where `row_starts` is given (not empty), groups without rows stay empty.
    """
    starts = np.zeros(n_groups + 1, np.int64)
    for j in range(len(codes) if in_order else len(order)):
        c = codes[j if in_order else order[j]]
        if c >= 0:
            starts[c + 1] += 1
    if len(row_starts) > 0:
        for c in range(n_groups):
            if row_starts[c] == row_starts[c + 1]:
                starts[c + 1] = 0
    for c in range(n_groups):
        starts[c + 1] += starts[c]
    return starts


@compiled(types.void(I4, I4, types.boolean, I8, I1, types.int64, I8, I4_OUT, I8_OUT, I1_OUT))
def place(codes, order, in_order, times, acted, first_group, starts, out_rows, out_times, out_acted):
    """Deal rows, taken in `order` (as they stand where `in_order`), into some of the groups.

    starts : where group `first_group` and the following ones begin in the output, and where the last one ends.
    out_rows, out_times, out_acted : row numbers, times and outcomes; rows and outcomes may be empty, if not wanted.
    """
    heads = starts.copy()
    n_groups = len(starts) - 1
    with_rows = len(out_rows) > 0
    with_acted = len(out_acted) > 0
    for j in range(len(codes) if in_order else len(order)):
        row = np.int64(j if in_order else order[j])
        c = codes[row] - first_group
        if c < 0 or c >= n_groups or starts[c] == starts[c + 1]:
            continue
        p = heads[c]
        heads[c] = p + 1
        out_times[p] = times[row]
        if with_rows:
            out_rows[p] = row
        if with_acted:
            out_acted[p] = acted[row]


NEVER = np.iinfo(np.int64).min


@compiled(
    types.void(
        types.int64, types.int64,
        I8, I4, I8,
        I8, I8, I1,
        I8, I8, I8, I8,
        I8, read_only(types.int64, 2), I8, read_only(types.float64), I8,
        types.float32[:, ::1],
    )
)  # fmt: skip
def sweep(
    first_group, last_group,
    row_starts, rows, row_times,
    event_starts, event_times, acted,
    away_from, away_until, change_starts, changes,
    windows, window_columns, single_columns, half_lives, decay_columns,
    out,
):  # fmt: skip
    """Walk the groups [first_group, last_group) once through time and write every feature of one event stream.

    row_starts, rows, row_times : per group, the rows to describe in order of time.
    event_starts, event_times, acted : per group, the events in order of time, and one number of any value at the end
        of each array (it is read, never used); `acted` may be empty (all zero).
    away_from, away_until : per event, the span (from, until] of t in which it does not count; empty when every
        event always counts. change_starts, changes : per group, the ordered times after which a different set of
        events counts.
    windows : int64 lengths; the last one is the lookback, which must be the longest.
    window_columns : (2, windows) columns of `out` for counts and acted counts; -1 where not wanted.
    single_columns : columns of `out` for last outcome, seconds since the last event, since the last acted event.
    half_lives, decay_columns : microseconds, and columns of `out`.
    out : float32 (rows, features): a row's features share a cache line or two. Neighbours in a group are far apart in
        `out`, and each write would otherwise wait for a line of its own (measured: 10-15 ns a number against 2).

    Decayed rates. Time is cut into blocks as long as the lookback, counted from the epoch. [t - lookback, t) is
    then the end of the block before t's and the beginning of t's own: one sum that grows from the right and one
    that grows from the left. Nothing is ever subtracted, so nothing cancels, and every intermediate number depends
    on the events in [t - lookback, t) alone: any chunking gives the same bits. Sums are kept relative to their
    latest event, whose weight is 1, so none vanishes after a long silence; the factor to t cancels in the ratio.
    """
    n_windows = len(windows)
    n_decays = len(half_lives)
    longest = n_windows - 1
    lookback = windows[longest]
    excluding = len(away_from) > 0
    with_acted = len(acted) > 0

    width = out.shape[1]
    row_end = row_starts[last_group]
    first_column, last_column = width, 0
    for columns in (window_columns.ravel(), single_columns, decay_columns):
        for c in columns:
            if c >= 0:
                first_column = min(first_column, c)
                last_column = max(last_column, c)

    lo = np.empty(n_windows, np.int64)  # the first event inside each window
    n_lo = np.empty(n_windows, np.int64)  # events, and acted ones, before it
    a_lo = np.empty(n_windows, np.int64)

    largest = 0
    if n_decays > 0:
        for g in range(first_group, last_group):
            largest = max(largest, event_starts[g + 1] - event_starts[g])
    tail_sum = np.empty((n_decays, largest), np.float64)
    tail_acted = np.empty((n_decays, largest), np.float64)
    head_sum = np.zeros(n_decays, np.float64)
    head_acted = np.zeros(n_decays, np.float64)
    link = np.zeros(n_decays, np.float64)

    for g in range(first_group, last_group):
        end = event_starts[g + 1]
        change = change_end = 0
        if excluding:
            change = change_starts[g]
            change_end = change_starts[g + 1]
        restart = True
        lo[longest] = event_starts[g]
        hi = n_hi = a_hi = 0
        last = last_acted = NEVER
        tied = tied_acted = 0
        block = NEVER
        tail_start = tail_end = head = 0
        tail_anchor = head_anchor = NEVER

        for r in range(row_starts[g], row_starts[g + 1]):
            t = row_times[r]
            row = rows[r]
            if r + AHEAD < row_end:
                ahead = rows[r + AHEAD] * width
                _fetch_for_writing(out, ahead + first_column)
                _fetch_for_writing(out, ahead + last_column)

            while change < change_end and changes[change] < t:
                change += 1
                restart = True
            if restart:
                # Another set of events counts from here on: begin again at the far end of the lookback.
                restart = False
                hi = lo[longest]
                for w in range(n_windows):
                    lo[w] = hi
                    n_lo[w] = a_lo[w] = 0
                n_hi = a_hi = 0
                last = last_acted = NEVER
                tied = tied_acted = 0
                block = NEVER

            while hi < end and event_times[hi] < t:
                if not (excluding and away_from[hi] < t and t <= away_until[hi]):
                    k = event_times[hi]
                    a = acted[hi] if with_acted else 0
                    n_hi += 1
                    a_hi += a
                    if k != last:
                        tied = tied_acted = 0
                        last = k
                    tied += 1
                    tied_acted += a
                    if a > 0:
                        last_acted = k
                hi += 1

            for w in range(n_windows):
                p = lo[w]
                since = t - windows[w]
                if excluding:
                    while p < hi and event_times[p] < since:
                        if not (away_from[p] < t and t <= away_until[p]):
                            n_lo[w] += 1
                            if with_acted:
                                a_lo[w] += acted[p]
                        p += 1
                else:
                    # From one row to the next none, one or two events leave a window, at random: two steps without a
                    # branch spare the processor most wrong guesses.
                    before = p
                    left = 0
                    for _ in range(2):
                        step = np.int64((p < hi) & (event_times[p] < since))
                        if with_acted:
                            left += step * acted[p]
                        p += step
                    while p < hi and event_times[p] < since:
                        if with_acted:
                            left += acted[p]
                        p += 1
                    n_lo[w] += p - before
                    a_lo[w] += left
                lo[w] = p
                n = n_hi - n_lo[w]
                a = a_hi - a_lo[w]
                if window_columns[0, w] >= 0:
                    out[row, window_columns[0, w]] = n
                if window_columns[1, w] >= 0:
                    out[row, window_columns[1, w]] = a

            since = t - lookback
            # `last` may lie before the lookback (or be NEVER, which always does).
            if single_columns[0] >= 0:
                out[row, single_columns[0]] = tied_acted / tied if last >= since else np.nan
            if single_columns[1] >= 0:
                out[row, single_columns[1]] = (t - last) / 1e6 if last >= since else np.nan
            if single_columns[2] >= 0:
                out[row, single_columns[2]] = (t - last_acted) / 1e6 if last_acted >= since else np.nan

            if n_decays == 0:
                continue
            now = t // lookback
            if now != block:
                block = now
                boundary = now * lookback
                tail_start = lo[longest]
                tail_end = tail_start
                tail_anchor = NEVER
                while tail_end < end and event_times[tail_end] < boundary:
                    if not (excluding and away_from[tail_end] < t and t <= away_until[tail_end]):
                        tail_anchor = event_times[tail_end]
                    tail_end += 1
                for h in range(n_decays):
                    total = total_acted = 0.0
                    for i in range(tail_end - 1, tail_start - 1, -1):
                        if not (excluding and away_from[i] < t and t <= away_until[i]):
                            weight = np.exp2((event_times[i] - tail_anchor) / half_lives[h])
                            total += weight
                            if acted[i] > 0:
                                total_acted += weight
                        tail_sum[h, i - tail_start] = total
                        tail_acted[h, i - tail_start] = total_acted
                head = tail_end
                for h in range(n_decays):
                    head_sum[h] = head_acted[h] = 0.0
                head_anchor = NEVER
            while head < hi:
                if not (excluding and away_from[head] < t and t <= away_until[head]):
                    k = event_times[head]
                    if k != head_anchor:
                        if head_anchor != NEVER:
                            for h in range(n_decays):
                                weight = np.exp2((head_anchor - k) / half_lives[h])
                                head_sum[h] *= weight
                                head_acted[h] *= weight
                                link[h] *= weight
                        elif tail_anchor != NEVER:
                            for h in range(n_decays):
                                link[h] = np.exp2((tail_anchor - k) / half_lives[h])
                        head_anchor = k
                    for h in range(n_decays):
                        head_sum[h] += 1.0
                        head_acted[h] += acted[head]
                head += 1
            tail = lo[longest]
            for h in range(n_decays):
                total = head_sum[h]
                total_acted = head_acted[h]
                if tail < tail_end and tail_anchor != NEVER:
                    weight = link[h] if head_anchor != NEVER else 1.0
                    total += weight * tail_sum[h, tail - tail_start]
                    total_acted += weight * tail_acted[h, tail - tail_start]
                out[row, decay_columns[h]] = total_acted / total if total > 0.0 else np.nan


@compiled(types.void(types.float32[::1], types.int64, types.int64, types.int64, types.int64))
def transpose_tiles(cells, height, width, first, last):
    """In each of the tiles [first, last) of `cells`, turn `height` rows of `width` numbers into columns, in place."""
    size = height * width
    tile = np.empty(size, np.float32)
    for i in range(first, last):
        for j in range(size):
            tile[j] = cells[i * size + j]
        for c in range(width):
            start = i * size + c * height
            for r in range(height):
                cells[start + r] = tile[r * width + c]


@compiled(types.void(types.float32[::1], types.int64, types.int64, types.int64))
def gather_tiles(cells, height, width, n_tiles):
    """After `transpose_tiles`: bring the parts of each column together, in place.

    Parts of `height` numbers stand in the order (tile, column) and go to (column, tile). Each cycle of that
    permutation is walked once, with one part in hand.
    """
    n = n_tiles * width
    done = np.zeros(n, np.bool_)
    carried = np.empty(height, np.float32)
    for start in range(n):
        if done[start]:
            continue
        # What belongs at `here` comes from `source`; the first part of the cycle waits in hand.
        for r in range(height):
            carried[r] = cells[start * height + r]
        here = start
        while True:
            done[here] = True
            source = (here % n_tiles) * width + here // n_tiles
            if source == start:
                break
            for r in range(height):
                cells[here * height + r] = cells[source * height + r]
            here = source
        for r in range(height):
            cells[here * height + r] = carried[r]
