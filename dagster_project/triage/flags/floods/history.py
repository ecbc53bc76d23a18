"""The history as flood detection uses it: codes, counts per UTC day, and times as integer microseconds.

Belongs here: settings, the conversion of times, reading a frame of alerts, the calendar without long gaps.
Does not belong here: judging a volume.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.flags.floods.sources import MARK, source_names

DAY = 86_400_000_000
"""One day in microseconds."""
NEVER = np.iinfo(np.int64).max
"""A time that never comes."""


@dataclass(frozen=True)
class FloodSettings:
    """How floods are distinguished from busy days.

    horizon_days : days after `raised_at` at which an unanswered alert counts as not acted on, where the
        history has no column `horizon_ends_at`.
    window_days : days of past that make the band. Eight weeks hold eight of each weekday, and few enough for
        trends.
    minimum_days : days of past below which nothing is unexpected.
    minimum_volume : smallest volume that is called a flood; below it a wrong flag does more harm than the flood.
    minimum_ratio : smallest volume over expected that is called a flood.
    false_alarms : expected number of wrongly suspected scopes per company and year, by the tail guard.
    band_width : width of the band in robust standard deviations on the square-root scale.
    decision_odds : odds at which an early decision is taken, before all outcomes are known.
    attribute_values : an attribute is a source only while it has had at most this many values.
    """

    horizon_days: float = 14.0
    window_days: int = 56
    minimum_days: int = 7
    minimum_volume: int = 10
    minimum_ratio: float = 2.0
    false_alarms: float = 0.02
    band_width: float = 4.5
    decision_odds: float = 20.0
    attribute_values: int = 50


@dataclass
class History:
    """The history as arrays, in order of time; times in microseconds since the epoch."""

    raised: np.ndarray
    known: np.ndarray  # NEVER where not known by the as-of
    acted: np.ndarray  # float, nan where not known
    day: np.ndarray  # days since the epoch
    slot: np.ndarray  # index into `calendar`
    calendar: np.ndarray  # days since the epoch that count as observed
    rule: np.ndarray
    rules: np.ndarray
    team: np.ndarray  # -1 where null
    teams: np.ndarray
    sources: pd.DataFrame  # the attributes, as `sources.py` reads them
    as_of: int


def to_us(times: pd.Series | pd.DatetimeIndex) -> np.ndarray:
    """Times as int64 microseconds since the epoch, UTC; missing times become `NEVER`."""
    converted = pd.to_datetime(pd.Series(times).reset_index(drop=True), utc=True)
    missing = converted.isna().to_numpy()
    values = converted.dt.tz_localize(None).astype("datetime64[us]").to_numpy().astype(np.int64)
    return np.where(missing, NEVER, values)


def from_us(values: np.ndarray | list[int]) -> pd.Series:
    """The reverse of `to_us`: a `datetime64[us, UTC]` series, `NaT` where `NEVER`."""
    numbers = np.asarray(values, dtype=np.int64)
    times = np.where(numbers == NEVER, np.iinfo(np.int64).min, numbers).astype("datetime64[us]")
    return pd.Series(times).dt.tz_localize("UTC")


def as_of_us(as_of: Any) -> int:
    """A time (anything pandas reads; UTC where it has no zone) as microseconds since the epoch."""
    time = pd.Timestamp(as_of)
    time = time.tz_localize("UTC") if time.tzinfo is None else time.tz_convert("UTC")
    return int(time.as_unit("us").asm8.view("i8"))


def read_history(history: pd.DataFrame, as_of: int, settings: FloodSettings) -> History:
    raised = to_us(history["raised_at"])
    use = (raised < as_of) & history["rule"].notna().to_numpy()
    order = np.flatnonzero(use)
    order = order[np.argsort(raised[order], kind="stable")]
    raised = raised[order]

    known = to_us(history["known_at"])[order]
    acted = pd.to_numeric(history["acted"], errors="coerce").to_numpy(dtype=float)[order]
    if "horizon_ends_at" in history:
        ends = to_us(history["horizon_ends_at"])[order]
    else:
        ends = raised + int(settings.horizon_days * DAY)
    # No action by the end of the horizon is an outcome, whether or not the caller has filled it in.
    unanswered = np.isnan(acted) | (known == NEVER)
    known = np.where(unanswered, ends, known)
    acted = np.where(unanswered, 0.0, acted)
    later = known > as_of
    known = np.where(later, NEVER, known)
    acted = np.where(later, np.nan, acted)

    day = raised // DAY
    calendar = _calendar(day)
    rule, rules = codes_of(history["rule"], order)
    if "team" in history:
        team, teams = codes_of(history["team"], order)
    else:
        team, teams = np.full(len(order), -1), np.empty(0, dtype=object)
    held = [MARK + name for name in source_names(history.columns)]
    wanted = held or [name for name in ("attributes",) if name in history]
    return History(
        raised=raised,
        known=known,
        acted=acted,
        day=day,
        slot=np.searchsorted(calendar, day),
        calendar=calendar,
        rule=rule,
        rules=rules,
        team=team,
        teams=teams,
        sources=history[wanted].iloc[order].reset_index(drop=True),
        as_of=as_of,
    )


def codes_of(names: pd.Series, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For the names at these positions: codes in order of first appearance (int64, -1: missing), and their names."""
    if not isinstance(names.dtype, pd.CategoricalDtype):
        code, values = pd.factorize(names.to_numpy(dtype=object)[at])
        return code.astype(np.int64), np.asarray(values, dtype=object)
    held = names.cat.codes.to_numpy()[at]
    code, values = pd.factorize(np.where(held < 0, np.nan, held))
    return code.astype(np.int64), names.cat.categories.to_numpy(dtype=object)[values.astype(np.int64)]


def positions_in(wanted: pd.Index, names: pd.Series, at: np.ndarray) -> np.ndarray:
    """The position of each of these names among the wanted ones; -1: not among them."""
    if not isinstance(names.dtype, pd.CategoricalDtype):
        return wanted.get_indexer(pd.Index(names.to_numpy(dtype=object)[at]))
    held = wanted.get_indexer(pd.Index(names.cat.categories.to_numpy(dtype=object)))
    return np.append(held, -1)[names.cat.codes.to_numpy()[at]]


GAP_DAYS = 4
"""This many days in a row without any alert of any rule are a gap in the record (an outage of the export, not
a quiet company) and no evidence of low volume. A long weekend has three."""


def _calendar(day: np.ndarray) -> np.ndarray:
    """Days that count as observed: all from the first to the last, without gaps of `GAP_DAYS` and more."""
    present = np.unique(day)
    if len(present) == 0:
        return present
    pieces = []
    for before, after in itertools.pairwise(present):
        pieces.append(np.arange(before, after) if after - before <= GAP_DAYS else np.array([before]))
    pieces.append(present[-1:])
    return np.concatenate(pieces)
