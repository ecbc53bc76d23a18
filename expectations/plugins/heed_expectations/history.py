"""Expectations about families of feature columns, recognised by name.

Belongs here: laws that hold between columns of a features frame whatever the history keys and windows are.
Does not belong here: how a feature is computed (`dagster_project/triage`).

Recognised names, with `<key>` any history key (rule, entity, team, ...) and `<window>` like `7d`, `12h` or
`90min`:

- `<key>_raised_count_<window>`, `<key>_known_count_<window>`, `<key>_acted_count_<window>`: integers;
- `..._rate`, `..._rate_<anything>`, `<key>_last_outcome`: between 0 and 1;
- `..._seconds_since_<anything>`: more than 0, because ties do not count as the past.

A frame without any column of a family does not pass: an expectation that checks nothing must not be green.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd

from .rows import RowsExpectation, Unexpected, frame_metric

# Without a window a count is over the whole lookback.
COUNT = re.compile(r"^(?P<key>.+)_(?P<what>raised|known|acted)_count(_(?P<size>\d+)(?P<unit>s|min|m|h|d))?$")
RATE = re.compile(r"(_rate(_.+)?|_last_outcome)$")
WAIT = re.compile(r"_seconds_since_.+$")
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    return pd.to_numeric(frame[column]).to_numpy(dtype="float64", na_value=np.nan)


def _none_found(frame: pd.DataFrame, family: str) -> Unexpected:
    return Unexpected(np.zeros(len(frame), dtype=bool), observed=f"no {family} column", holds=False)


def _summary(frame: pd.DataFrame, bad: dict[str, np.ndarray], looked_at: int) -> Unexpected:
    """One mask over all columns (or comparisons), and which of them are at fault, worst first."""
    mask = np.zeros(len(frame), dtype=bool)
    faults: dict[str, int] = {}
    for name, wrong in bad.items():
        if count := int(wrong.sum()):
            mask |= wrong
            faults[name] = count
    worst = sorted(faults, key=lambda name: (-faults[name], name))
    observed = (
        f"{looked_at} looked at, none at fault"
        if not faults
        else "; ".join(f"{name}: {faults[name]} rows" for name in worst[:5])
        + (f"; and {len(worst) - 5} more" if len(worst) > 5 else "")
    )
    columns = dict.fromkeys(column for name in worst[:5] for column in re.split(r" > ", name))
    return Unexpected(mask, columns=tuple(columns), observed=observed, details={"rows_at_fault": faults})


def _counts(frame: pd.DataFrame) -> dict[tuple[str, str, float], str]:
    """`(key, what, window in seconds) -> column`; the whole lookback is the longest window."""
    columns = {}
    for column in frame.columns:
        if match := COUNT.match(str(column)):
            seconds = int(match["size"]) * SECONDS[match["unit"]] if match["size"] else math.inf
            columns[match["key"], match["what"], seconds] = str(column)
    return columns


@frame_metric("heed.history_counts_are_counts")
def find_history_counts_that_are_no_counts(frame: pd.DataFrame) -> Unexpected:
    """Rows with a history count that is negative or not an integer, or missing while the same key's other counts
    are not."""
    counts = _counts(frame)
    if not counts:
        return _none_found(frame, "history count")
    by_key: dict[str, list[str]] = {}
    for (key, _, _), column in counts.items():
        by_key.setdefault(key, []).append(column)
    bad = {}
    for columns in by_key.values():
        numbers = {column: _numbers(frame, column) for column in columns}
        # An alert without the key (no entity, say) has no history under it: all counts missing, not some.
        without_key = np.logical_and.reduce([np.isnan(values) for values in numbers.values()])
        for column, values in numbers.items():
            with np.errstate(invalid="ignore"):
                bad[column] = ~without_key & ~(np.isfinite(values) & (values >= 0) & (values == np.floor(values)))
    return _summary(frame, bad, len(counts))


class ExpectHistoryCountsToBeCounts(RowsExpectation):
    """Expect each `<key>_{raised,known,acted}_count_<window>` to be an integer of at least 0.

    An alert that lacks the key has no history under it: then all counts of that key are missing, never only
    some.
    """

    metric_dependencies = ("heed.history_counts_are_counts",)


@frame_metric("heed.history_counts_are_consistent")
def find_more_acted_than_known(frame: pd.DataFrame) -> Unexpected:
    """Rows that count more acted alerts than alerts with a known outcome, for one key and window."""
    counts = _counts(frame)
    pairs = [
        (counts[key, "acted", window], counts[key, "known", window])
        for key, what, window in counts
        if what == "acted" and (key, "known", window) in counts
    ]
    if not pairs:
        return _none_found(frame, "pair of acted and known count")
    return _summary(frame, {f"{a} > {k}": _numbers(frame, a) > _numbers(frame, k) for a, k in pairs}, len(pairs))


class ExpectHistoryCountsToBeConsistent(RowsExpectation):
    """Expect `<key>_acted_count_<window>` not to exceed `<key>_known_count_<window>`: acted alerts are a part
    of them.

    `known` may well exceed `raised`: an alert raised before the window can have its outcome known inside it.
    """

    metric_dependencies = ("heed.history_counts_are_consistent",)


@frame_metric("heed.longer_windows_hold_shorter_ones")
def find_shorter_windows_with_more(frame: pd.DataFrame) -> Unexpected:
    """Rows that count more in a shorter window than in the next longer one, for one key and kind of count."""
    counts = _counts(frame)
    if not counts:
        return _none_found(frame, "history count")
    windows: dict[tuple[str, str], list[float]] = {}
    for key, what, window in counts:
        windows.setdefault((key, what), []).append(window)
    pairs = [
        (counts[key, what, short], counts[key, what, long])
        for (key, what), sizes in windows.items()
        for short, long in zip(sorted(sizes), sorted(sizes)[1:], strict=False)
    ]
    return _summary(frame, {f"{s} > {g}": _numbers(frame, s) > _numbers(frame, g) for s, g in pairs}, len(pairs))


class ExpectLongerWindowsToHoldShorterOnes(RowsExpectation):
    """Expect no count over a window to exceed the same count over a longer window: the longer holds the
    shorter."""

    metric_dependencies = ("heed.longer_windows_hold_shorter_ones",)


@frame_metric("heed.rates_are_probabilities")
def find_rates_that_are_no_probabilities(frame: pd.DataFrame) -> Unexpected:
    """Rows with a rate or last outcome outside [0, 1]. Missing passes: nothing was known yet."""
    columns = [str(column) for column in frame.columns if RATE.search(str(column))]
    if not columns:
        return _none_found(frame, "rate")
    bad = {}
    for column in columns:
        numbers = _numbers(frame, column)
        bad[column] = (numbers < 0) | (numbers > 1)
    return _summary(frame, bad, len(columns))


class ExpectRatesToBeProbabilities(RowsExpectation):
    """Expect each rate and each last outcome to lie in [0, 1]. Missing passes: nothing was known yet."""

    metric_dependencies = ("heed.rates_are_probabilities",)


@frame_metric("heed.waiting_times_are_positive")
def find_waiting_times_that_are_not_positive(frame: pd.DataFrame) -> Unexpected:
    """Rows with a time since something that is 0 or less: that something was not in the past."""
    columns = [str(column) for column in frame.columns if WAIT.search(str(column))]
    if not columns:
        return _none_found(frame, "seconds-since")
    return _summary(frame, {column: _numbers(frame, column) <= 0 for column in columns}, len(columns))


class ExpectWaitingTimesToBePositive(RowsExpectation):
    """Expect each `..._seconds_since_...` to be more than 0 or missing.

    0 means that an alert counted one raised at the same time, less than 0 that it counted one from the future.
    """

    metric_dependencies = ("heed.waiting_times_are_positive",)


@frame_metric("heed.features_are_finite", "facts")
def find_infinite_features(frame: pd.DataFrame, *, facts: list[str] | None = None) -> Unexpected:
    """Rows with an infinite number in any floating-point column that is not one of `facts`."""
    left_out = set(facts or ())
    columns = [
        str(column)
        for column in frame.columns
        if column not in left_out and pd.api.types.is_float_dtype(frame[column].dtype)
    ]
    if not columns:
        return _none_found(frame, "floating-point")
    return _summary(frame, {column: np.isinf(_numbers(frame, column)) for column in columns}, len(columns))


class ExpectFeaturesToBeFinite(RowsExpectation):
    """Expect no floating-point column to hold an infinity. Missing passes: the learner handles it.

    Args:
        facts (list of str): Columns that are facts as loaded and not features; they may be infinite.
    """

    facts: list[str] | None = None
    metric_dependencies = ("heed.features_are_finite",)
    success_keys = ("facts",)
