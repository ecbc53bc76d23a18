"""The frames that come into the history engine: checked, and read into arrays.

Belongs here: refusing frames that features cannot be computed from, times and outcomes as integers, keys as codes.
Does not belong here: ordering events (`streams.py`), computing (`engine.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.features.history.definition import RAISED_STATISTICS, HistoryFeature

NOT_A_TIME = np.iinfo(np.int64).min  # what NaT is as an integer
LARGEST = np.iinfo(np.int32).max  # rows are numbered by int32

ACTED_REMEDY = "pass 1 for acted, 0 for not acted and null for not known yet"


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


def read_times(frame: pd.DataFrame, column: str, which: str, *, null_allowed: bool) -> np.ndarray:
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
            "leave those rows out: an alert without a time has no history",
        )
    return times


def read_acted(events: pd.DataFrame) -> np.ndarray:
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
