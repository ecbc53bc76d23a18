"""Floods: bursts of alerts that a bug produced, found by volume on the day and judged by the acted share
later.

Belongs here: what makes a volume unexpected (`detect_floods`), what makes a flood confirmed or cleared, and
how a person's word wins over both. Pure functions on frames.
Does not belong here: which alerts a flag excludes from what (`exclusion`), rules nobody acts on
(`visibility`), tables and settings files.

Words. A *scope* is what flooded on one UTC day: one rule; or many rules at once that share a team, an
attribute (*source*) or nothing (*all*). A scope of many rules holds only those of its rules that are busier
than usual themselves, so genuine alerts of other rules on that day stay.

Time. Everything about a day's band comes from earlier days. A flood is *suspected* at `detected_at`, the
moment at which the running count of the day passes the band, and *confirmed* or *cleared* at `decided_at`,
the moment at which enough outcomes are known. So one pass over a long history holds every past view:
`exclusion.known_by(floods, T)` equals `detect_floods(history, T)` (what still grows during the day itself is
only `volume` and `score`).

Method. Counts are compared on the square-root scale, where Poisson noise is constant (Anscombe 1948), by
median and median absolute deviation over the last eight weeks (Hampel 1974), with a weekday profile that
borrows from the whole company; a negative-binomial predictive tail guards the band where data are few.
Whether the burst was a bug is a Bayes factor between "only the usual alerts are acted on" and "acted on as
usual or more", both Beta-Binomial.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numba import njit
from scipy.special import betaln, gammaln

DAY = 86_400_000_000
"""One day in microseconds."""
NEVER = np.iinfo(np.int64).max
"""A time that does not come."""

FLOOD_COLUMNS = [
    "day",
    "scope_kind",
    "scope",
    "where_name",
    "where_value",
    "rules",
    "membership",
    "burst_from",
    "burst_until",
    "volume",
    "expected",
    "score",
    "acted_share",
    "status",
    "evidence",
    "decision",
    "detected_at",
    "decided_at",
    "decided_by",
    "recorded_at",
    "superseded_at",
]
TIMES = ["burst_from", "burst_until", "detected_at", "decided_at", "recorded_at", "superseded_at"]


@dataclass(frozen=True)
class FloodSettings:
    """How floods are told from busy days.

    horizon_days : days after `raised_at` at which an unanswered alert counts as not acted on, where the
        history has no column `horizon_ends_at`.
    window_days : days of past that make the band. Eight weeks hold eight of each weekday, and few enough for
        trends.
    minimum_days : days of past below which nothing is called unexpected.
    minimum_volume : smallest volume that is called a flood; below it the harm is less than that of a wrong
        flag.
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


# ----------------------------------------------------------------------------------------------------------
# Reading the history


@dataclass
class _History:
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
    attributes: np.ndarray | None
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
    """One moment (anything pandas reads; without a zone it is UTC) as microseconds since the epoch."""
    moment = pd.Timestamp(as_of)
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment.tz_convert("UTC")
    return int(moment.as_unit("us").asm8.view("i8"))


def _read(history: pd.DataFrame, as_of: int, settings: FloodSettings) -> _History:
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
    # Nobody answered by the end of the horizon: that is an answer, whether or not the caller has written it
    # down.
    unanswered = np.isnan(acted) | (known == NEVER)
    known = np.where(unanswered, ends, known)
    acted = np.where(unanswered, 0.0, acted)
    later = known > as_of
    known = np.where(later, NEVER, known)
    acted = np.where(later, np.nan, acted)

    day = raised // DAY
    calendar = _calendar(day)
    rule, rules = pd.factorize(history["rule"].to_numpy(dtype=object)[order])
    if "team" in history:
        team, teams = pd.factorize(history["team"].to_numpy(dtype=object)[order])
    else:
        team, teams = np.full(len(order), -1), np.empty(0, dtype=object)
    attributes = history["attributes"].to_numpy(dtype=object)[order] if "attributes" in history else None
    return _History(
        raised=raised,
        known=known,
        acted=acted,
        day=day,
        slot=np.searchsorted(calendar, day),
        calendar=calendar,
        rule=rule.astype(np.int64),
        rules=np.asarray(rules, dtype=object),
        team=team.astype(np.int64),
        teams=np.asarray(teams, dtype=object),
        attributes=attributes,
        as_of=as_of,
    )


GAP_DAYS = 4
"""This many days in a row without any alert of any rule are a gap in the record (an outage of the export, not
a quiet company) and are no evidence of low volume. A long weekend has three."""


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


# ----------------------------------------------------------------------------------------------------------
# The band


@njit(cache=True)
def _tail(k: int, mean: float, dispersion: float) -> float:  # pragma: no cover - compiled
    """P(X >= k) of a negative binomial with this mean and variance mean + dispersion * mean^2."""
    size = 1.0 / dispersion
    share = mean / (size + mean)
    log_term = (
        math.lgamma(k + size)
        - math.lgamma(size)
        - math.lgamma(k + 1.0)
        + size * math.log(size / (size + mean))
        + k * math.log(share)
    )
    term = math.exp(log_term)
    total = term
    j = k
    for _ in range(200_000):
        term *= (j + size) / (j + 1.0) * share
        total += term
        j += 1
        if term < 1e-6 * total:
            break
    return total


@njit(cache=True)
def _median(values: np.ndarray, n: int) -> float:  # pragma: no cover - compiled
    """Median of the first n values; sorts them in place. By insertion: compiles in a tenth of numpy's sort, and is as
    fast on eight weeks."""
    for i in range(1, n):
        x = values[i]
        j = i - 1
        while j >= 0 and values[j] > x:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = x
    return values[n // 2] if n % 2 else 0.5 * (values[n // 2] + values[n // 2 - 1])


SUSPECTED_SHARE = 0.02
"""Of the tail probability that `false_alarms` allows, the share at which volume alone makes a flood suspected. A tail
is as good as the spread behind it, which is an estimate: with 1, 12% of simulated companies without floods (half a
year each) had something suspected at some moment, with 0.1 3% and with 0.02 none of 60, while 97.7%, 97.3% and 96.5%
of flood alerts were flagged on their day. What lies between is watched (benchmarks/flags.py, development worlds)."""
WATCHED_WIDTH = 2.5
WATCHED_CHANCE = 1e-3
"""Volumes above this band and below this chance are watched: too usual to be suspected by volume alone, they become
floods when their outcomes make up for what the volume lacks."""


@njit(cache=True)
def _bands(  # pragma: no cover - compiled
    starts,
    slot,
    count,
    peak,
    weekday,
    profile,
    slope,
    prior_mean,
    prior_dispersion,
    newly,
    alpha,
    window,
    minimum_days,
    minimum_volume,
    minimum_ratio,
    width,
):
    """The band of each (scope, day) cell, from that scope's earlier days.

    starts : int64[scopes + 1], cells of each scope, in order of day. slot, count, peak : of each cell;
        `count` is what later days learn from, `peak` the highest running count of the day. weekday :
        int64[days]. profile : float[days, 7]. newly : of each cell, expected of rules that the past does not hold
        yet. prior_* , alpha : float[days]; a nan prior mean means that
        there is no prior.

    Returns expected, dispersion, robust deviation (square-root scale), own (expected by the scope's own past
    alone; 0 without any), needed (the count that is unexpected; 0 if the day stayed below it) and chance (log of
    how many times more likely by chance the volume is than is allowed, of those that are unexpected or watched; nan
    if it is no candidate), each of cells.
    """
    cells = len(slot)
    expected = np.full(cells, np.nan)
    spread = np.full(cells, np.nan)
    deviation = np.full(cells, np.nan)
    own = np.zeros(cells)
    needed = np.zeros(cells, np.int64)
    log_chance = np.full(cells, np.nan)
    flagged = np.zeros(cells, np.bool_)
    decay = 0.5 ** (1.0 / 28.0)
    value = np.empty(window)
    root = np.empty(window)
    weight = np.empty(window)
    day_of_week = np.empty(window, np.int64)
    factors = np.empty(7)
    for s in range(len(starts) - 1):
        first_cell = starts[s]
        if starts[s + 1] == first_cell:
            continue
        first = slot[first_cell]
        for i in range(first_cell, starts[s + 1]):
            today = slot[i]
            # Flagged on most days of the last three weeks is no burst any more but the new normal: begin anew
            # there.
            recent = 0
            since = today
            k = i - 1
            while k >= first_cell and slot[k] >= today - 21:
                if flagged[k]:
                    recent += 1
                    since = slot[k]
                k -= 1
            if recent >= 10:
                first = since
                k = i - 1
                while k >= first_cell and slot[k] >= since:
                    flagged[k] = False
                    k -= 1
            low = max(first, today - window)
            # Fill the window, zeros included, flagged days left out.
            n = 0
            k = i - 1
            for d in range(today - 1, low - 1, -1):
                c = 0.0
                if k >= first_cell and slot[k] == d:
                    skip = flagged[k]
                    c = float(count[k])
                    k -= 1
                    if skip:
                        continue
                value[n] = c * math.exp(slope[today] * (today - d))
                weight[n] = decay ** (today - d)
                day_of_week[n] = weekday[d]
                n += 1
            mean_before = prior_mean[today]
            has_prior = not np.isnan(mean_before)
            if n < minimum_days and not has_prior:
                continue
            if n < minimum_days:
                # A first week says little, and nothing about the days of the week it has not seen.
                n = 0
            level = 0.0
            robust = 0.5
            own_dispersion = 0.0
            weights = 0.0
            factor = profile[today, weekday[today]]
            if n > 0:
                # A first level, robust, by the company's weekdays.
                for j in range(n):
                    factors[day_of_week[j]] = profile[today, day_of_week[j]]
                    root[j] = math.sqrt(value[j] / profile[today, day_of_week[j]] + 0.375)
                middle = _median(root, n)
                for j in range(n):
                    root[j] = abs(math.sqrt(value[j] / profile[today, day_of_week[j]] + 0.375) - middle)
                cap = (middle + 4.0 * max(0.5, 1.4826 * _median(root, n))) ** 2
                total = 0.0
                for j in range(n):
                    weights += weight[j]
                    total += weight[j] * min(value[j] / profile[today, day_of_week[j]], cap)
                level = total / weights
                # The scope's own weekdays, by their medians, as far as its numbers bear them.
                for w in range(7):
                    same = 0
                    for j in range(n):
                        if day_of_week[j] == w:
                            root[same] = value[j]
                            same += 1
                    factors[w] = profile[today, w]
                    if same >= 3:
                        usual = same * level * profile[today, w]
                        # The median of a Poisson count lies about a third below its mean.
                        factors[w] = (
                            (30.0 * factors[w] + usual * (_median(root, same) + 0.33) / level) / (30.0 + usual)
                            if level > 0
                            else factors[w]
                        )
                factor = factors[weekday[today]]
                # The level again by those weekdays; what is left over then makes the band (by its median) and the
                # tail (by its square).
                total = 0.0
                scale = 0.0
                for j in range(n):
                    usual = level * factors[day_of_week[j]]
                    cap = (math.sqrt(usual + 0.375) + 4.0 * max(0.5, 0.25 * math.sqrt(usual))) ** 2
                    value[j] = min(value[j], cap)
                    total += weight[j] * value[j]
                    scale += weight[j] * factors[day_of_week[j]]
                level = total / max(scale, 1e-9)
                left_over = 0.0
                squares = 0.0
                for j in range(n):
                    usual = level * factors[day_of_week[j]]
                    root[j] = abs(math.sqrt(value[j] + 0.375) - math.sqrt(usual + 0.375))
                    left_over += weight[j] * ((value[j] - usual) ** 2 - usual)
                    squares += weight[j] * usual**2
                robust = max(0.5, 1.4826 * _median(root, n))
                if squares > 0:
                    own_dispersion = min(5.0, max(0.0, left_over / squares))
            own[i] = level * factor * n / (n + 1.0)
            # A dispersion from few alerts says little: lean on a prior of 0.15 by the information that is
            # there.
            information = n * level / (1.0 + level)
            dispersion = (information * own_dispersion + 15.0 * 0.15) / (information + 15.0)
            # Gamma posterior of the level; overdispersed days tell less than Poisson days.
            effective = weights / (1.0 + dispersion * level)
            if has_prior:
                shape = 1.0 / prior_dispersion[today]
                rate = shape / mean_before
            else:
                shape = 0.5
                rate = 0.5 / max(level, 1.0 / window)
            shape += effective * level
            rate += effective
            mean = shape / rate * factor + newly[i]
            # What new rules add varies by itself, not as the scope's past did.
            base = mean - newly[i]
            total_dispersion = ((dispersion + 1.0 / shape) * base**2 + 0.3 * newly[i] ** 2) / mean**2
            expected[i] = mean
            spread[i] = total_dispersion
            deviation[i] = robust
            edge = (math.sqrt(mean + 0.375) + width * robust) ** 2
            # A rule that peaks on this weekday again and again is weekly, not flooded: its median on that weekday,
            # flagged or not, is usual there. Of a young scope that raises on most days one such day has to do,
            # else each weekly rule begins with a false alarm.
            same = min(window, today - slot[first_cell]) // 7
            for j in range(same):
                root[j] = 0.0
            j = 0
            k = i - 1
            while k >= first_cell and j < same:
                if weekday[slot[k]] == weekday[today] and slot[k] >= today - window:
                    root[j] = float(count[k])
                    j += 1
                k -= 1
            weekly = 0.0
            if same > 0:
                _median(root, same)
                if same >= 3:
                    weekly = root[(same - 1) // 2]
                elif i - first_cell >= (today - slot[first_cell]) / 2:
                    weekly = root[same - 1]
            if weekly > edge:
                mean = weekly
                if same < 3:
                    # One or two such days say little about the next.
                    total_dispersion = max(total_dispersion, 0.5)
                    spread[i] = total_dispersion
                expected[i] = mean
                own[i] = mean
                edge = (math.sqrt(mean + 0.375) + width * robust) ** 2
            least = max(float(minimum_volume), math.ceil(minimum_ratio * mean), math.ceil(edge))
            if peak[i] < minimum_volume or peak[i] < minimum_ratio * mean:
                continue
            chance = _tail(peak[i], mean, total_dispersion)
            if peak[i] < least or chance > SUSPECTED_SHARE * alpha[today]:
                edge = (math.sqrt(mean + 0.375) + WATCHED_WIDTH * robust) ** 2
                if same >= 3 and peak[i] >= edge and chance < WATCHED_CHANCE:
                    log_chance[i] = math.log(max(chance, alpha[today]) / alpha[today])
                continue
            below = int(least) - 1
            above = peak[i]
            while above - below > 1:
                k = (above + below) // 2
                if _tail(k, mean, total_dispersion) <= SUSPECTED_SHARE * alpha[today]:
                    above = k
                else:
                    below = k
            needed[i] = above
            flagged[i] = True
            log_chance[i] = math.log(max(chance, 1e-300) / alpha[today])
    return expected, spread, deviation, own, needed, log_chance


@dataclass
class _Season:
    """What the whole company's volume does, as of each day: weekday of the day, factors of all weekdays, growth."""

    weekday: np.ndarray
    profile: np.ndarray
    slope: np.ndarray


def _season(h: _History, window: int) -> _Season:
    weekday = ((h.calendar + 3) % 7).astype(np.int64)  # 1970-01-01 was a Thursday; Monday is 0
    totals = np.bincount(h.slot, minlength=len(h.calendar)).astype(float)
    profile = _profile(totals, weekday, window)
    return _Season(weekday, profile, _slope(totals, weekday, profile, window))


def _slope(totals: np.ndarray, weekday: np.ndarray, profile: np.ndarray, window: int) -> np.ndarray:
    """Daily growth of the whole company's volume (natural log) as of each day, from earlier days only.

    The difference of the medians of the window's two halves, for days of equal weekday weight; floods and holidays
    of a few days do not move it. Shrunk where a company raises so few alerts that the medians are noise.
    """
    slope = np.zeros(len(totals))
    for today in range(28, len(totals)):
        low = max(0, today - window)
        half = (today - low) // 2
        level = (totals[low:today] + 0.375) / profile[today, weekday[low:today]]
        old, new = np.median(level[:half]), np.median(level[-half:])
        weight = (old + new) / (old + new + 20.0)
        slope[today] = weight * np.clip(np.log(new / old), -0.7, 0.7) / (len(level) - half)
    return slope


def _profile(totals: np.ndarray, weekday: np.ndarray, window: int) -> np.ndarray:
    """Weekday factors of the whole company as of each day, from earlier days only; shape (days, 7), mean
    about 1."""
    days = len(totals)
    profile = np.ones((days, 7))
    root = np.sqrt(totals + 0.375)
    for today in range(14, days):
        low = max(0, today - window)
        recent, which = root[low:today], weekday[low:today]
        middle = np.median(recent)
        for w in range(7):
            same = recent[which == w]
            # Two days of prior: a factor from a single Sunday is pulled two thirds of the way to 1.
            ratio = (np.median(same) / middle) ** 2 if len(same) else 1.0
            profile[today, w] = (len(same) * ratio + 2.0) / (len(same) + 2.0)
    return np.clip(profile, 0.05, 5.0)


# ----------------------------------------------------------------------------------------------------------
# Levels: rules, teams, sources, all


@dataclass
class _Cells:
    """(scope, day) cells with their band. `order[start:stop]` are a cell's alerts in order of time."""

    order: np.ndarray
    scope: np.ndarray
    slot: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    expected: np.ndarray
    spread: np.ndarray
    deviation: np.ndarray
    own: np.ndarray
    needed: np.ndarray
    chance: np.ndarray
    detected: np.ndarray  # NEVER where the day stayed within the band


def _segments(scope: np.ndarray, slot: np.ndarray, days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order by (scope, slot, time) of the alerts that are in a scope, and the starts and stops of its
    cells."""
    inside = np.flatnonzero(scope >= 0)
    key = scope[inside] * np.int64(max(days, 1)) + slot[inside]
    by_key = np.argsort(key, kind="stable")
    order, key = inside[by_key], key[by_key]
    edges = np.flatnonzero(np.diff(key)) + 1
    start = np.concatenate([[0], edges]).astype(np.int64) if len(key) else np.empty(0, np.int64)
    stop = np.concatenate([edges, [len(key)]]).astype(np.int64) if len(key) else np.empty(0, np.int64)
    return order, start, stop


def _alpha(first_slots: np.ndarray, days: int, false_alarms: float) -> np.ndarray:
    """Tail probability allowed to one scope on one day, so that all scopes together make few false alarms a
    year."""
    # Scopes seen before the day: the allowance must not move within it.
    seen = np.cumsum(np.bincount(first_slots + 1, minlength=days)[:days])
    return false_alarms / (365.0 * np.maximum(seen, 1))


def _rule_level(h: _History, season: _Season, settings: FloodSettings) -> _Cells:
    days = len(h.calendar)
    order, start, stop = _segments(h.rule, h.slot, days)
    scope, slot, count = h.rule[order[start]], h.slot[order[start]], stop - start
    prior_mean, prior_dispersion = _newcomers(scope, slot, count, days)
    starts = np.searchsorted(scope, np.arange(len(h.rules) + 1))
    expected, spread, deviation, own, needed, chance = _bands(
        starts,
        slot,
        count,
        count,
        season.weekday,
        season.profile,
        season.slope,
        prior_mean,
        prior_dispersion,
        np.zeros(len(slot)),
        _alpha(slot[starts[:-1]], days, settings.false_alarms),
        settings.window_days,
        settings.minimum_days,
        settings.minimum_volume,
        settings.minimum_ratio,
        settings.band_width,
    )
    # One microsecond after the alert that passed the band: the first moment at which that alert may be used.
    passing = order[start + np.maximum(needed, 1) - 1] if len(start) else start
    detected = np.where(needed > 0, h.raised[passing] + 1, NEVER)
    return _Cells(order, scope, slot, start, stop, expected, spread, deviation, own, needed, chance, detected)


def _newcomers(scope: np.ndarray, slot: np.ndarray, count: np.ndarray, days: int) -> tuple[np.ndarray, np.ndarray]:
    """What new rules raise a day, as known on each day: mean and dispersion of the daily level over first
    weeks."""
    first_cell = np.concatenate([[True], scope[1:] != scope[:-1]])
    first = slot[first_cell][np.cumsum(first_cell) - 1]
    early = slot < first + 7
    level = np.log(np.bincount(scope[early], weights=count[early]) / 7.0)
    done = slot[first_cell] + 7
    usable = done < days
    number = np.cumsum(np.bincount(done[usable], minlength=days)[:days])
    total = np.cumsum(np.bincount(done[usable], weights=level[usable], minlength=days)[:days])
    square = np.cumsum(np.bincount(done[usable], weights=level[usable] ** 2, minlength=days)[:days])
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = total / number
        # Two pseudo-rules of variance 1: five first rules that happen to be alike do not make the next one
        # certain.
        variance = (np.maximum(square - number * centre**2, 0.0) + 2.0) / (number + 1.0)
    centre = np.where(number >= 5, centre, np.nan)
    return np.exp(centre + variance / 2), np.clip(np.exp(variance) - 1.0, 1.0, 8.0)


@dataclass
class _Flood:
    """One suspected flood: its scope and the alerts in it."""

    kind: str
    scope: str
    where: tuple[str, str] | None
    slot: int
    detected: int
    needed: int
    expected: float
    deviation: float
    members: np.ndarray  # alerts, in order of time
    joined: np.ndarray  # when each of them came to be flagged
    left: np.ndarray  # when each of them passed to a narrower flood; NEVER if not
    burst: tuple[int, int] | None = None  # first and last moment of the burst, once the day is over
    chance: float = 0.0  # log of how many times more likely its volume is by chance than is allowed
    genuine: float = 0.0  # alerts of the burst's time that would have come anyway
    within: tuple[np.ndarray, int] | None = None  # scope of every alert, and which one is this flood's


def _rule_floods(h: _History, cells: _Cells) -> list[_Flood]:
    floods = []
    for cell in np.flatnonzero(~np.isnan(cells.chance)):
        members = cells.order[cells.start[cell] : cells.stop[cell]]
        detected = int(cells.detected[cell])
        floods.append(
            _Flood(
                "rule",
                str(h.rules[cells.scope[cell]]),
                None,
                int(cells.slot[cell]),
                detected,
                int(cells.needed[cell]),
                float(cells.expected[cell]),
                float(cells.deviation[cell]),
                members,
                np.maximum(detected, h.raised[members]),
                np.full(len(members), NEVER),
                chance=float(cells.chance[cell]),
            )
        )
    return floods


def _wide_floods(
    h: _History,
    rules: _Cells,
    scope: np.ndarray,
    names: list[tuple[str, str, tuple[str, str] | None]],
    covered: np.ndarray,
    season: _Season,
    settings: FloodSettings,
    part: float,
) -> list[_Flood]:
    """Floods of scopes that hold many rules: teams, sources, all.

    scope : int64[alerts], -1 outside. covered : int64[alerts], when an alert came to be flagged by a narrower
        flood (`NEVER` if not): from then on it does not count here. Each rule counts only up to its own usual
        busy day, so that one rule alone cannot make its team flood.
    """
    days = len(h.calendar)
    counted = scope >= 0
    upper, rank, cell_of = _usual_upper(h, rules)
    newly = _new_rules_usual(h, rules, settings.window_days)[cell_of]
    counted &= rank < upper[cell_of]
    counted &= (covered > h.raised) | (rank < np.round(rules.own)[cell_of])
    if not counted.any():
        return []
    order, start, stop = _segments(np.where(counted, scope, -1), h.slot, days)
    cell_scope, slot = scope[order[start]], h.slot[order[start]]
    # Of rules that flood by themselves, their usual number stays in the count.
    leaves = np.where(rank >= np.round(rules.own)[cell_of], covered, NEVER)
    stays = (leaves[order] == NEVER).astype(np.int64)
    count = np.add.reduceat(stays, start)
    peak = stop - start
    newly = np.add.reduceat(newly[order], start)
    leaving = np.flatnonzero(count < peak)
    running: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for cell in leaving:
        running[int(cell)] = _running(h, leaves, order[start[cell] : stop[cell]])
        peak[cell] = running[int(cell)][1].max()
    starts = np.searchsorted(cell_scope, np.arange(len(names) + 1))
    used = starts[:-1] < starts[1:]
    expected, _, deviation, _, needed, chance = _bands(
        starts,
        slot,
        count,
        peak,
        season.weekday,
        season.profile,
        season.slope,
        np.full(days, np.nan),
        np.ones(days),
        newly,
        _alpha(slot[starts[:-1][used]], days, part * settings.false_alarms),
        settings.window_days,
        max(14, settings.minimum_days),
        settings.minimum_volume,
        settings.minimum_ratio,
        settings.band_width,
    )
    floods = []
    by_day = np.argsort(h.slot, kind="stable")
    day_starts = np.searchsorted(h.slot[by_day], np.arange(days + 1))
    for cell in np.flatnonzero(~np.isnan(chance)):
        inside = order[start[cell] : stop[cell]]
        if needed[cell] == 0:
            detected = 0
        elif int(cell) in running:
            times, level = running[int(cell)]
            detected = int(times[np.argmax(level >= needed[cell])]) + 1
        else:
            detected = int(h.raised[inside[needed[cell] - 1]]) + 1
        kind, name, where = names[int(cell_scope[cell])]
        today = by_day[day_starts[slot[cell]] : day_starts[slot[cell] + 1]]
        candidates = today[scope[today] == cell_scope[cell]]
        limit = h.raised[candidates] if needed[cell] else NEVER - 1
        candidates = candidates[covered[candidates] > limit]
        if len(candidates) == 0:
            continue
        busy = _busy_rules(h, rules, candidates, cell_of, covered, detected, settings.minimum_volume)
        if busy is None:
            continue
        floods.append(
            _Flood(
                kind,
                name,
                where,
                int(slot[cell]),
                busy[0] if needed[cell] else NEVER,
                int(needed[cell]),
                float(expected[cell]),
                float(deviation[cell]),
                *busy[1:],
                chance=float(chance[cell]),
                within=(scope, int(cell_scope[cell])) if where else None,
            )
        )
    return floods


def _usual_upper(h: _History, rules: _Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each rule cell how many of its alerts may count in wide scopes; for each alert its rank within its cell,
    and its cell.

    Six times the usual lets a bug of many rules show, and ten a sweep of rules that were never seen; a single rule
    beyond that is a flood of its own first.
    """
    upper = np.ceil(6.0 * rules.own + 10.0)
    lengths = rules.stop - rules.start
    cell_of = np.empty(len(h.rule), np.int64)
    rank = np.empty(len(h.rule), np.int64)
    cell_of[rules.order] = np.repeat(np.arange(len(lengths)), lengths)
    rank[rules.order] = np.arange(len(rules.order)) - np.repeat(rules.start, lengths)
    return upper, rank, cell_of


def _new_rules_usual(h: _History, rules: _Cells, window: int) -> np.ndarray:
    """For each rule cell, what an alert of it adds to the expected of a wide scope whose past does not yet hold the
    rule: the rule's own usual, by the share of the window before its first day, spread over its alerts.
    """
    first_cell = np.searchsorted(rules.scope, rules.scope, side="left")
    age = rules.slot - rules.slot[first_cell]
    # A scope younger than the window has no past that misses the rule's either.
    missing = np.clip(np.minimum(window, rules.slot) - age, 0, None) / np.maximum(1, np.minimum(window, rules.slot))
    # Only of rules that raise on most days since they began: rare rules that come and go are in the past already.
    steady = np.arange(len(first_cell)) - first_cell >= np.maximum(age, 1) / 2
    return np.where(steady, missing * rules.own, 0.0) / (rules.stop - rules.start)


def _running(h: _History, leaves: np.ndarray, alerts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running count of alerts that come when raised and leave when covered: times and levels."""
    leave = leaves[alerts]
    leave = leave[leave != NEVER]
    times = np.concatenate([h.raised[alerts], leave])
    steps = np.concatenate([np.ones(len(alerts), np.int64), -np.ones(len(leave), np.int64)])
    by_time = np.lexsort((steps, times))
    return times[by_time], np.cumsum(steps[by_time])


def _busy_rules(
    h: _History,
    rules: _Cells,
    candidates: np.ndarray,
    cell_of: np.ndarray,
    covered: np.ndarray,
    passed: int,
    minimum_volume: int,
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | None:
    """Of one wide scope and day: the alerts of those rules that are busier than usual themselves.

    Returns when they were a flood (the band was passed, and they were `minimum_volume`), the alerts in order
    of time, when each joined, and when its rule left for a flood of its own; None if they never were enough.
    """
    own_alerts, own_when = [], []
    by_cell = np.argsort(cell_of[candidates], kind="stable")
    edges = np.flatnonzero(np.diff(cell_of[candidates][by_cell])) + 1
    for own in np.split(candidates[by_cell], edges):
        mean = rules.own[cell_of[own[0]]] if len(own) else 0.0
        busy = math.floor(mean + math.sqrt(mean)) + 1
        if len(own) >= busy:
            own_alerts.append(own)
            own_when.append(np.full(len(own), h.raised[own[busy - 1]] + 1))
    if not own_alerts:
        return None
    alerts, when = np.concatenate(own_alerts), np.concatenate(own_when)
    if len(alerts) < minimum_volume:
        return None
    counts_from = np.maximum(when, h.raised[alerts] + 1)
    detected = max(passed, int(np.partition(counts_from, minimum_volume - 1)[minimum_volume - 1]))
    joined = np.maximum(np.maximum(when, detected), h.raised[alerts])
    left = rules.detected[cell_of[alerts]]
    stays = (covered[alerts] > joined) & (left > joined)
    if not stays.any():
        return None
    by_time = np.argsort(alerts[stays], kind="stable")
    return detected, alerts[stays][by_time], joined[stays][by_time], left[stays][by_time]


def _sources(h: _History, limit: int) -> list[tuple[str, np.ndarray, list[str]]]:
    """Attributes with few values: name, value code of each alert (-1 if none), values.

    An attribute stops being a source after the day on which it shows its `limit` + 1st value, so that the answer for
    a day never depends on later days.
    """
    if h.attributes is None or len(h.attributes) == 0:
        return []
    sources = []
    for name, code, values in sorted(_attribute_codes(h.attributes, limit), key=lambda found: found[0]):
        beyond = np.flatnonzero(code == limit)
        if len(beyond):
            code = np.where((code < limit) & (h.day <= h.day[beyond[0]]), code, -1)
        if (code >= 0).any():
            sources.append((name, code, values[:limit]))
    return sources


def _attribute_codes(attributes: np.ndarray, limit: int) -> list[tuple[str, np.ndarray, list[str]]]:
    """Of each attribute the value codes in order of first appearance (-1 for none, `limit` for any further value) and
    the first values' texts. What is no JSON object has no attributes."""
    known: dict[str, dict[str, int]] = {}
    codes: dict[str, list[int]] = {}
    # The text of a number is the same wherever it stands. Of a million alerts with ten attributes each, this loop is
    # two thirds of all time that flags take: lists, because setting one element of an array costs three times as much.
    of_numbers: dict[tuple[type, Any], str | None] = {}
    read = json.JSONDecoder().decode
    for number, text in enumerate(attributes):
        if not isinstance(text, str) or not text:
            continue
        try:
            content = read(text)
        except ValueError:
            continue
        if not isinstance(content, dict):
            continue
        for name, value in content.items():
            kind = type(value)
            if kind is str:
                word = value
            elif value is None or kind is dict or kind is list:
                continue
            else:
                try:
                    word = of_numbers[kind, value]
                except KeyError:
                    word = of_numbers[kind, value] = attribute_text(value) if _is_whole(value) else None
                if word is None:
                    continue
            own = known.get(name)
            if own is None:
                own = known[name] = {}
                codes[name] = [-1] * len(attributes)
            at = own.get(word)
            if at is None:
                at = len(own)
                if at < limit:
                    own[word] = at
            codes[name][number] = at
    return [(name, np.array(codes[name], np.int64), list(own)) for name, own in known.items()]


def _is_whole(number: float) -> bool:
    """Whole numbers that a float holds exactly; others are measurements or ids, not sources."""
    return abs(number) <= 2**53 and number == math.trunc(number)


def attribute_text(value: Any) -> str:
    """An attribute's value as the text that a flood's `where_value` holds; a whole number has no decimal point."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value)


# ----------------------------------------------------------------------------------------------------------
# The decision


BINS = 96
"""Quarters of an hour: the grain at which a burst's begin and end are looked for within its day."""


def _usual_day(
    h: _History, cells: _Cells, rule_starts: np.ndarray, flood: _Flood, alerts: np.ndarray, window_days: int
) -> np.ndarray:
    """What the rules of these alerts usually raise on such a day, in each of its `BINS`."""
    begin = int(h.calendar[flood.slot]) * DAY
    hours = np.zeros(24)
    usual = 0.0
    for r in np.unique(h.rule[alerts]):
        first, last = rule_starts[r], rule_starts[r + 1]
        own = cells.order[cells.start[first] : cells.stop[last - 1]]
        past = own[slice(*np.searchsorted(h.raised[own], [begin - window_days * DAY, begin]))]
        hours += np.bincount(h.raised[past] % DAY * 24 // DAY, minlength=24)
        usual += cells.own[first + np.searchsorted(cells.slot[first:last], flood.slot)]
    # A day's worth of alerts, spread evenly, stands for what the past did not show.
    share = np.repeat((hours + 1.0) / (hours.sum() + 24.0), BINS // 24) / (BINS // 24)
    return share * max(usual, 0.5)


def _find_burst(h: _History, cells: _Cells, rule_starts: np.ndarray, flood: _Flood, window_days: int) -> None:
    """Once the day is over, find when the burst began and ended, so that genuine alerts before and after it stay.

    The likeliest window of a Poisson stream on top of the hours at which the same rules usually raise.
    Sets `burst` and `genuine`; leaves them as they are while the day lasts.
    """
    begin = int(h.calendar[flood.slot]) * DAY
    members = flood.members[flood.left == NEVER]
    if h.as_of < begin + DAY or len(members) == 0:
        return
    usual_in_bin = _usual_day(h, cells, rule_starts, flood, members, window_days)
    usual_in_bin *= min(1.0, len(members) / usual_in_bin.sum())
    bins = (h.raised[members] % DAY * BINS // DAY).astype(np.int64)
    count = np.bincount(bins, minlength=BINS).astype(float)
    first, last = _likeliest_stream(count, usual_in_bin)[1:]
    # A bug may pause. What is left outside is searched again, as long as chance does not explain it.
    while True:
        rest = count.copy()
        rest[first:last] = usual_in_bin[first:last]
        gain, begins, ends = _likeliest_stream(rest, usual_in_bin)
        if gain < SECOND_STREAM or (first <= begins and ends <= last):
            break
        first, last = min(first, begins), max(last, ends)
    width = DAY // BINS
    flood.burst = begin + first * width, begin + last * width - 1
    flood.genuine = float(usual_in_bin[first:last].sum())


SECOND_STREAM = 12.0
"""Log likelihood that a further stream on the same day must gain: the best of some 4,600 windows and ten rates gains
about 8 by chance."""


def _likeliest_stream(count: np.ndarray, usual: np.ndarray) -> tuple[float, int, int]:
    """The window (bins, half open) in which a constant stream on top of the usual explains the counts best, and its
    gain in log likelihood.
    """
    best = -math.inf, 0, len(count)
    # Its rate is tried from an alert in five hours upwards.
    for rate in 0.05 * 1.6 ** np.arange(int(math.log(max(2.0, 20.0 * count.max())) / math.log(1.6)) + 2):
        gain = np.concatenate([[0.0], np.cumsum(count * np.log1p(rate / usual) - rate)])
        lowest = np.minimum.accumulate(gain)
        last = int(np.argmax(gain - lowest))
        if gain[last] - lowest[last] > best[0]:
            best = float(gain[last] - lowest[last]), int(np.argmin(gain[: last + 1])), last
    return best


def _usual_share(
    h: _History, excluded: tuple[np.ndarray, np.ndarray], by_rule: _Cells, rule_starts: np.ndarray, flood: _Flood
) -> tuple[float, float]:
    """The acted share to expect of a flood's alerts, by their rules' past in its scope, as known when its day began.

    Floods of earlier days are left out unless they were cleared by then. Returns the share and the number of
    decided alerts behind it (at most 50 are believed).
    """
    begin = int(h.calendar[flood.slot]) * DAY
    recent = slice(np.searchsorted(h.raised, begin - 180 * DAY), np.searchsorted(h.raised, begin))
    since, until = excluded
    usable = (h.known[recent] <= begin) & ((since[recent] > begin) | (until[recent] <= begin))
    everywhere = (float(h.acted[recent][usable].sum()) + 1.0) / (usable.sum() + 4.0)
    share, support = 0.0, 0.0
    rule, number = np.unique(h.rule[flood.members], return_counts=True)
    for r, n in zip(rule, number, strict=True):
        own = by_rule.order[by_rule.start[rule_starts[r]] : by_rule.stop[rule_starts[r + 1] - 1]]
        own = own[slice(*np.searchsorted(h.raised[own], [begin - 180 * DAY, begin]))]
        own = own[(h.known[own] <= begin) & ((since[own] > begin) | (until[own] <= begin))]
        usual = (float(h.acted[own].sum()) + 5.0 * everywhere) / (len(own) + 5.0)
        if flood.within is not None:
            # What is usual for this team or source of the rule's alerts may differ from the rest of them.
            own = own[flood.within[0][own] == flood.within[1]]
            usual = (float(h.acted[own].sum()) + 5.0 * usual) / (len(own) + 5.0)
        share += n * usual
        support += n * len(own)
    return share / number.sum(), min(50.0, support / number.sum() + 5.0)


def _beta_binomial(k: np.ndarray, n: int, mean: float, strength: float) -> np.ndarray:
    """Log probability of k of n under a Beta-Binomial with this mean and strength (its two parameters'
    sum)."""
    mean = min(max(mean, 1e-4), 1 - 1e-4)
    a, b = mean * strength, (1 - mean) * strength
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return choose + betaln(k + a, n - k + b) - betaln(a, b)


def _incident_evidence(
    volume: int,
    expected: float,
    usual: float,
    support: float,
    watched: bool = False,
    only: float | None = None,
    by_chance: float = 0.0,
) -> np.ndarray:
    """Log Bayes factor of "an incident" over "a bug", for each number of acted alerts 0..volume (or `only` one).

    A bug: only the alerts that would have come anyway are acted on, at the usual share. An incident: acted on
    as usual, or more. by_chance : how likely, against a bug, such a volume is by chance; a busy day is acted on as
    usual.
    """
    k = np.arange(volume + 1, dtype=float) if only is None else np.array([only])
    genuine = min(1.0, expected / volume)
    # How far the usual share may be off, and how far a bug's alerts may be acted on after all: 1.5% +- 1.5%.
    mean = usual * genuine + 0.015
    deviation = genuine * math.sqrt(usual * (1 - usual) / (support + 1)) + 0.015
    bug = _beta_binomial(k, volume, mean, max(2.0, mean * (1 - mean) / deviation**2 - 1))
    as_usual = _beta_binomial(k, volume, usual, support)
    more = _beta_binomial(k, volume, (1.0 + usual) / 2.0, 4.0)
    if watched:
        # The rival of a bug is then a busy day by chance, and that is acted on as usual; but what is usual differs
        # from day to day (weekends, holidays, who is on duty) by more than the numbers behind it say.
        return _beta_binomial(k, volume, usual, min(support, 15.0)) - bug
    return np.logaddexp(math.log(0.1 + by_chance) + as_usual, math.log(0.9) + more) - bug


def _in_burst(h: _History, flood: _Flood) -> np.ndarray:
    """The flood's alerts, without those of rules with a flood of their own and those outside the burst's time."""
    members = flood.members[flood.left == NEVER]
    if flood.burst is None:
        return members
    raised = h.raised[members]
    return members[(flood.burst[0] <= raised) & (raised <= flood.burst[1])]


def _cleared_early(
    h: _History, flood: _Flood, usual_in_bin: np.ndarray, usual: float, support: float, odds: float
) -> tuple[int, float] | None:
    """When, on the day itself, so many of a rule's alerts are acted on that it is no bug; None if never.

    Looked at whenever an outcome becomes known, with the alerts and the usual of the day until then. A Bayes factor
    may be looked at as often as one likes: under a bug it passes the odds at any time with chance 1 / odds (Ville).
    """
    begin = int(h.calendar[flood.slot]) * DAY
    known, acted = h.known[flood.members], h.acted[flood.members]
    by_time = np.argsort(known, kind="stable")
    known, acted = known[by_time], acted[by_time]
    looks = np.flatnonzero((known < min(begin + DAY, h.as_of + 1)) & (known != NEVER))
    if len(looks) == 0:
        return None
    times, so_far = known[looks], np.cumsum(acted[looks])
    # Of several outcomes at one moment, the last look has seen them all; and none before it was suspected.
    final = np.append(times[1:] != times[:-1], True) & (times >= flood.detected)
    times, so_far, number = times[final], so_far[final], (looks + 1)[final]
    volume = np.searchsorted(h.raised[flood.members], times)
    until = np.interp(times - begin, np.arange(BINS + 1) * (DAY // BINS), np.append(0.0, np.cumsum(usual_in_bin)))
    for time, k, n, v, genuine in zip(times, so_far, number, volume, until, strict=True):
        if k >= 2 and _incident_evidence(int(v), float(genuine), usual, support, only=float(k))[0] >= math.log(odds):
            return int(time), float(k / n)
    return None


def _decide(
    h: _History, flood: _Flood, usual: float, support: float, settings: FloodSettings
) -> tuple[str, int, float]:
    """Status, moment of the decision and acted share then.

    On the day itself only `_cleared_early` decides. Acted outcomes only add up, so the Bayes factor for the acted so
    far is a lower limit, and the one for "all open ones will be acted on" an upper limit: passing the odds with either
    settles the matter early.
    """
    end = (int(h.calendar[flood.slot]) + 1) * DAY
    if h.as_of < end:
        return "suspected", NEVER, math.nan
    members = _in_burst(h, flood)
    volume = len(members)
    watched = flood.detected == NEVER
    if volume == 0 or (watched and volume < settings.minimum_volume):
        return "cleared", end, math.nan
    # At the edge of the band chance speaks against a bug as it does for volumes that are only watched, and less the
    # further beyond it the volume lies; by half of what the tail says, because the tail's own spread is an estimate.
    by_chance = settings.decision_odds * math.exp(min(flood.chance, 0.0) / 2)
    evidence = _incident_evidence(volume, flood.genuine, usual, support, watched, by_chance=by_chance)
    # The factor rises with the number of acted alerts; enforce it against rounding in the far tails.
    evidence = np.maximum.accumulate(evidence)
    limit = math.log(settings.decision_odds)
    if watched:
        limit = max(limit, flood.chance)
    enough = int(np.searchsorted(evidence, limit, side="left"))
    too_few = int(np.searchsorted(evidence, -limit, side="right")) - 1
    even = int(np.searchsorted(evidence, 0.0, side="left")) if not watched else too_few + 1
    known, acted = h.known[members], h.acted[members]
    by_time = np.argsort(known, kind="stable")
    known, acted = known[by_time], acted[by_time]
    decided = int(np.searchsorted(known, h.as_of, side="right"))
    so_far = np.concatenate([[0.0], np.cumsum(acted[:decided])])
    still_open = volume - np.arange(decided + 1)
    clear = so_far >= enough
    confirm = so_far + still_open <= too_few
    last = np.zeros(decided + 1, bool)
    last[-1] = decided == volume
    settled = np.flatnonzero(clear | confirm | last)
    if len(settled) == 0:
        return "suspected", NEVER, math.nan
    at = int(settled[0])
    moment = end if at == 0 else max(end, int(known[at - 1]))
    # What is known at the moment counts all outcomes of that moment, not only the one that tipped it.
    at = int(np.searchsorted(known[:decided], moment, side="right"))
    status = "cleared" if so_far[at] >= (even if at == volume else enough) else "confirmed"
    return status, moment, float(so_far[at] / at) if at else math.nan


# ----------------------------------------------------------------------------------------------------------
# The public function


def detect_floods(
    history: pd.DataFrame,
    as_of: datetime | str | pd.Timestamp,
    settings: FloodSettings | None = None,
    overrides: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The floods of a history, as they stood at `as_of`.

    Parameters
    ----------
    history : one row per alert, any order: `raised_at`, `rule`, `acted` (1.0, 0.0, nan), `known_at`; optional
        `team`, `attributes` (JSON text), `horizon_ends_at`. Alerts with `raised_at` >= `as_of` and outcomes
        with `known_at` > `as_of` are not used. An alert unanswered at the end of its horizon counts as not
        acted on.
    as_of : the moment at which the computation stands; UTC where it has no zone.
    overrides : what people said, one row each: `flag` ('flood'; rows of other flags are passed over), `scope`
        (a rule, a team, 'attribute = value' or 'all alerts') or `rule`, `day` (null: every day from that of
        `created_at` to before `until`), `action` ('flag', 'clear'), `until`, `who`, `why`, `created_at`;
        optional `scope_kind`. They win from `created_at` on; of two, the later one. Overrides do not move the
        band.

    Returns
    -------
    One row per flood and view of it, ordered by day and `detected_at`:

    day : date, UTC.
    scope_kind, scope : 'rule', 'team', 'source' or 'all', and which one.
    where_name, where_value : what its alerts share beside their rules: 'team' and its name, or an attribute
        and its value; null for a rule and for all.
    rules : list of the rules in it. membership : JSON text, a list of {rule, from, until}: since when each
        rule's alerts of the day are flagged by this flood, and until when (null: still).
    volume : int, alerts in it so far. expected : float, usual alerts a day in this scope. score : float,
        distance of the volume from the expected in robust standard deviations on the square-root scale.
    acted_share : float, of its outcomes known at the decision; nan while suspected.
    status : 'suspected', 'confirmed', 'cleared'. evidence, decision : why, in words; no decision while
        suspected.
    detected_at, decided_at, decided_by : null while not; decided_by is 'statistics' or the person.
    recorded_at, superseded_at : the time for which this view holds (null: it still does). Only what people
        overrule has several.

    `attrs["warnings"]` lists, in words, overrides that match nothing or cannot be read.
    """
    settings = settings or FloodSettings()
    now = as_of_us(as_of)
    h = _read(history, now, settings)
    rows: list[dict[str, Any]] = []
    if len(h.raised):
        floods, cells = _suspect(h, settings)
        rule_starts = np.searchsorted(cells.scope, np.arange(len(h.rules) + 1))
        excluded_from = np.full(len(h.raised), NEVER)
        excluded_until = np.zeros(len(h.raised), np.int64)
        for flood in sorted(floods, key=lambda f: f.slot):
            _find_burst(h, cells, rule_starts, flood, settings.window_days)
            usual, support = _usual_share(h, (excluded_from, excluded_until), cells, rule_starts, flood)
            status, decided, share = _decide(h, flood, usual, support, settings)
            if flood.kind == "rule" and flood.detected != NEVER:
                usual_in_bin = _usual_day(h, cells, rule_starts, flood, flood.members, settings.window_days)
                early = _cleared_early(h, flood, usual_in_bin, usual, support, 5.0 * settings.decision_odds)
                if early:
                    status, (decided, share) = "cleared", early
            if flood.detected == NEVER:
                if status != "confirmed":
                    continue
                flood.detected = decided
                flood.joined = np.full(len(flood.members), decided)
            rows.append(_row(h, flood, status, decided, share, usual))
            until = decided if status == "cleared" else NEVER
            own = _in_burst(h, flood)
            excluded_from[own] = np.minimum(excluded_from[own], flood.detected)
            excluded_until[own] = np.maximum(excluded_until[own], until)
    warnings = _overrule(rows, h, overrides, now)
    return _table(rows, warnings)


def daily_band(
    history: pd.DataFrame, as_of: datetime | str | pd.Timestamp, settings: FloodSettings | None = None
) -> pd.DataFrame:
    """The whole company's volume by day, beside what was to be expected of each day by the days before it.

    For people to look at: floods are found scope by scope, and this band is that of all rules together.

    Parameters
    ----------
    history, as_of, settings : as for `detect_floods`.

    Returns
    -------
    One row per observed UTC day that has an alert, in order: day (date), alerts (int64), expected and upper (float64,
    alerts a day; nan while there are too few days before it).
    """
    settings = settings or FloodSettings()
    h = _read(history, as_of_us(as_of), settings)
    days = len(h.calendar)
    slot, count = np.unique(h.slot, return_counts=True)
    expected = upper = np.full(len(slot), np.nan)
    if days:
        season = _season(h, settings.window_days)
        expected, _, deviation, _, _, _ = _bands(
            np.array([0, len(slot)]),
            slot,
            count,
            count,
            season.weekday,
            season.profile,
            season.slope,
            np.full(days, np.nan),
            np.ones(days),
            np.zeros(len(slot)),
            _alpha(slot[:1], days, settings.false_alarms),
            settings.window_days,
            settings.minimum_days,
            settings.minimum_volume,
            settings.minimum_ratio,
            settings.band_width,
        )
        upper = (np.sqrt(expected + 0.375) + settings.band_width * deviation) ** 2
    dates = [pd.Timestamp(int(day) * DAY, unit="us").date() for day in h.calendar[slot]]
    return pd.DataFrame(
        {
            "day": pd.Series(dates, dtype=object),
            "alerts": count.astype(np.int64),
            "expected": expected,
            "upper": upper,
        }
    )


def _suspect(h: _History, settings: FloodSettings) -> tuple[list[_Flood], _Cells]:
    """All suspected floods, narrow scopes first, and the rules' cells."""
    season = _season(h, settings.window_days)
    cells = _rule_level(h, season, settings)
    floods = _rule_floods(h, cells)
    covered = np.full(len(h.raised), NEVER)
    for flood in floods:
        if flood.detected != NEVER:
            covered[flood.members] = flood.joined
    # The allowance of false alarms: as much for all wide scopes together as for the rules.
    levels: list[tuple[np.ndarray, list[tuple[str, str, tuple[str, str] | None]], float]] = []
    if len(h.teams):
        levels.append((h.team, [("team", str(team), ("team", str(team))) for team in h.teams], 0.5))
    for name, of_alert, values in _sources(h, settings.attribute_values):
        names: list[tuple[str, str, tuple[str, str] | None]]
        names = [("source", f"{name} = {value}", (name, value)) for value in values]
        # The number of attributes is not known beforehand: ten is the usual order.
        levels.append((of_alert, names, 0.04))
    levels.append((np.zeros(len(h.raised), np.int64), [("all", "all alerts", None)], 0.1))
    for scope, names, part in levels:
        found = _wide_floods(h, cells, scope, names, covered, season, settings, part)
        for flood in found:
            if flood.detected == NEVER:
                continue
            covered[flood.members] = np.minimum(covered[flood.members], flood.joined)
        floods += found
    return floods, cells


def _row(h: _History, flood: _Flood, status: str, decided: int, share: float, usual: float) -> dict[str, Any]:
    rule, first = np.unique(h.rule[flood.members], return_index=True)
    # Of one rule all alerts join at the same moment, or when raised if that is later: the first one tells it.
    membership = [
        (str(h.rules[r]), int(flood.joined[f]), int(flood.left[f]))
        for r, f in zip(rule, first, strict=True)
        if flood.joined[f] < flood.left[f]
    ]
    volume = len(_in_burst(h, flood))
    score = (math.sqrt(volume + 0.375) - math.sqrt(flood.expected + 0.375)) / flood.deviation
    scope, flags = {
        "rule": ("this rule", "all of them"),
        "team": ("this team (each rule up to its usual busy day)", "its rules that are busier than usual"),
        "source": (
            "this source (each rule up to its usual busy day)",
            "its rules that are busier than usual",
        ),
        "all": ("all rules together (each up to its usual busy day)", "the rules that are busier than usual"),
    }[flood.kind]
    evidence = (
        f"{flood.needed} alerts by {pd.Timestamp(flood.detected, unit='us'):%H:%M} UTC, where "
        f"{flood.expected:.3g} a day are usual for {scope}; flagged are {flags}"
    )
    if flood.needed == 0:
        evidence = (
            f"{volume} alerts, where {flood.genuine:.3g} are usual at these hours for {scope}: too few to be suspected "
            f"by volume alone; flagged are {flags}"
        )
    decision = None
    if status != "suspected" and volume == 0:
        decision = "all of it belongs to floods of single rules"
    elif status != "suspected":
        acted = "no outcome was known" if math.isnan(share) else f"{100 * share:.0f}% were acted on"
        verdict = "a bug" if status == "confirmed" else "busy, but acted on"
        decision = f"{acted}, where {100 * usual:.0f}% are usual: {verdict}"
    return {
        "day": int(h.calendar[flood.slot]),
        "scope_kind": flood.kind,
        "scope": flood.scope,
        "where_name": flood.where[0] if flood.where else None,
        "where_value": flood.where[1] if flood.where else None,
        "membership": membership,
        "burst_from": flood.burst[0] if flood.burst else NEVER,
        "burst_until": flood.burst[1] if flood.burst else NEVER,
        "volume": volume,
        "expected": flood.expected,
        "score": score,
        "acted_share": share,
        "status": status,
        "evidence": evidence,
        "decision": decision,
        "detected_at": flood.detected,
        "decided_at": decided,
        "decided_by": None if status == "suspected" else "statistics",
        "recorded_at": flood.detected,
        "superseded_at": NEVER,
    }


def _table(rows: list[dict[str, Any]], warnings: list[str]) -> pd.DataFrame:
    """Rows (times in microseconds, days since the epoch) as the typed, ordered answer."""
    rows = sorted(rows, key=lambda r: (r["day"], r["detected_at"], r["scope_kind"], r["scope"], r["recorded_at"]))
    table = pd.DataFrame(rows, columns=FLOOD_COLUMNS)
    table["day"] = pd.Series(
        [pd.Timestamp(row["day"] * DAY, unit="us").date() for row in rows], dtype=object, index=table.index
    )
    for column in TIMES:
        table[column] = from_us(table[column].to_numpy(dtype=np.int64))
    table["membership"] = pd.Series(
        [membership_text(row["membership"]) for row in rows], dtype=object, index=table.index
    )
    table["rules"] = pd.Series([rules_in(row["membership"]) for row in rows], dtype=object, index=table.index)
    table["volume"] = table["volume"].astype(np.int64)
    for column in ("expected", "score", "acted_share"):
        table[column] = table[column].astype(float)
    texts = (
        "scope_kind",
        "scope",
        "where_name",
        "where_value",
        "status",
        "evidence",
        "decision",
        "decided_by",
    )
    for column in texts:
        table[column] = pd.Series([row[column] for row in rows], dtype=object, index=table.index)
    table.attrs["warnings"] = warnings
    return table


def membership_text(membership: list[tuple[str, int, int]]) -> str:
    """The column `membership`: (rule, from, until) in microseconds as JSON text, ordered by time and rule."""
    ordered = sorted(membership, key=lambda member: (member[1], member[0]))
    return json.dumps(
        [
            {"rule": r, "from": _iso(since), "until": None if until == NEVER else _iso(until)}
            for r, since, until in ordered
        ],
        ensure_ascii=False,
    )


def membership_of(text: str) -> list[tuple[str, int, int]]:
    """The reverse of `membership_text`."""
    return [
        (m["rule"], as_of_us(m["from"]), NEVER if m["until"] is None else as_of_us(m["until"]))
        for m in json.loads(text)
    ]


def rules_in(membership: list[tuple[str, int, int]]) -> list[str]:
    """The rules that are still in a flood, in order of time and name."""
    return [rule for rule, _, until in sorted(membership, key=lambda m: (m[1], m[0])) if until == NEVER]


def _iso(time: int) -> str:
    return pd.Timestamp(time, unit="us", tz="UTC").isoformat()


# ----------------------------------------------------------------------------------------------------------
# Alerts in floods


def flood_pairs(alerts: pd.DataFrame, floods: pd.DataFrame) -> pd.DataFrame:
    """Which alerts which floods hold, and in which moments of knowledge.

    Parameters
    ----------
    alerts : `raised_at`, `rule`, and where floods are of teams or sources `team`, `attributes`.
    floods : as `detect_floods` or `known_by` answer; with all its views.

    Returns
    -------
    One row per alert and view of a flood that holds it: alert, flood (int64, positions in the two frames),
    since, until (int64 microseconds: the flood flags the alert at moments T with since <= T < until; `NEVER`:
    for good).
    """
    empty = pd.DataFrame({name: np.empty(0, np.int64) for name in ("alert", "flood", "since", "until")})
    if len(floods) == 0 or len(alerts) == 0:
        return empty
    recorded, superseded = to_us(floods["recorded_at"]), to_us(floods["superseded_at"])
    cleared = np.where(floods["status"].to_numpy() == "cleared", to_us(floods["decided_at"]), NEVER)
    days = np.array([as_of_us(day) // DAY for day in floods["day"]], np.int64)
    member_flood, member_rule, since, until = [], [], [], []
    for number, text in enumerate(floods["membership"]):
        for rule, begin, end in membership_of(text):
            begin = max(begin, int(recorded[number]))
            end = min(end, int(superseded[number]), int(cleared[number]))
            if begin < end:
                member_flood.append(number)
                member_rule.append(rule)
                since.append(begin)
                until.append(end)
    if not member_flood:
        return empty
    rule_code, rules = pd.factorize(np.array(member_rule, dtype=object))
    flood_number = np.array(member_flood, np.int64)
    members = pd.DataFrame(
        {
            "key": days[flood_number] * len(rules) + rule_code,
            "flood": flood_number,
            "since": np.array(since, np.int64),
            "until": np.array(until, np.int64),
        }
    )
    raised = to_us(alerts["raised_at"])
    day = raised // DAY
    near = np.flatnonzero(np.isin(day, np.unique(days)) & (raised != NEVER))
    alert_rule = pd.Index(rules).get_indexer(pd.Index(alerts["rule"].to_numpy(dtype=object)[near]))
    near, alert_rule = near[alert_rule >= 0], alert_rule[alert_rule >= 0]
    keys = pd.DataFrame({"key": day[near] * len(rules) + alert_rule, "alert": near})
    pairs = keys.merge(members, on="key")[["alert", "flood", "since", "until"]]

    name = floods["where_name"].to_numpy(dtype=object)[pairs["flood"]]
    value = floods["where_value"].to_numpy(dtype=object)[pairs["flood"]]
    holds = pd.isna(name)
    named = np.flatnonzero(~holds)
    if len(named):
        at = pairs["alert"].to_numpy()[named]
        kinds, whats = pd.factorize(pd.MultiIndex.from_arrays([name[named], value[named]]))
        for number, (what, which) in enumerate(whats):
            own = kinds == number
            if what == "team":
                column = alerts["team"].to_numpy(dtype=object) if "team" in alerts else None
                holds[named[own]] = column is not None and column[at[own]] == which
            elif "attributes" in alerts:
                holds[named[own]] = has_attribute(alerts["attributes"].to_numpy(dtype=object)[at[own]], what, which)
    pairs = pairs[holds].reset_index(drop=True)
    # When its day is over, the alerts before and after the burst are let go.
    flood_number, alert = pairs["flood"].to_numpy(), pairs["alert"].to_numpy()
    first, last = to_us(floods["burst_from"])[flood_number], to_us(floods["burst_until"])[flood_number]
    outside = (first != NEVER) & ((raised[alert] < first) | (raised[alert] > last))
    over = (days[flood_number] + 1) * DAY
    pairs["until"] = np.where(outside, np.minimum(pairs["until"], over), pairs["until"])
    # An alert is flagged from its raise on, never before it.
    pairs["since"] = np.maximum(pairs["since"].to_numpy(), raised[pairs["alert"].to_numpy()])
    return pairs[pairs["since"] < pairs["until"]].reset_index(drop=True)


def flood_intervals(alerts: pd.DataFrame, floods: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """From when until when floods leave each alert out of histories: int64 microseconds, `NEVER` where not.

    Where several floods hold an alert, from the first beginning to the last end.
    """
    since, until = np.full(len(alerts), NEVER), np.full(len(alerts), -1)
    pairs = flood_pairs(alerts, floods)
    at = pairs["alert"].to_numpy()
    np.minimum.at(since, at, pairs["since"].to_numpy())
    np.maximum.at(until, at, pairs["until"].to_numpy())
    return since, np.where(until < 0, NEVER, until)


# ----------------------------------------------------------------------------------------------------------
# People overrule


@dataclass(frozen=True)
class Override:
    """One override, read: `scope`, `kind` (or None), `day` (days since the epoch, or None), `clear` or flag,
    times in microseconds (`NEVER` for no end), who, why, and the number of its row."""

    scope: str
    kind: str | None
    day: int | None
    clear: bool
    until: int
    who: str
    why: str
    created: int
    number: int


def read_overrides(overrides: pd.DataFrame | None, flag: str, now: int) -> tuple[list[Override], list[str]]:
    """The overrides of one flag that were made by `now`, in order of `created_at`, and warnings about
    unreadable ones.

    An override without `created_at` counts as made before all time: a seed that somebody wrote by hand.
    """
    found: list[Override] = []
    warnings: list[str] = []
    if overrides is None or len(overrides) == 0:
        return found, warnings

    def text(row: Any, name: str) -> str | None:
        value = row.get(name)
        return None if value is None or (not isinstance(value, str) and pd.isna(value)) or value == "" else str(value)

    for number, row in enumerate(overrides.to_dict("records"), start=1):
        if text(row, "flag") != flag:
            if text(row, "flag") not in ("flood", "visibility_only"):
                warnings.append(
                    f"override {number}: flag {row.get('flag')!r} is unknown, write flood or visibility_only"
                )
            continue
        scope = text(row, "scope") or text(row, "rule")
        action = text(row, "action")
        if scope is None or action not in ("flag", "clear"):
            warnings.append(f"override {number}: it needs a scope or rule, and the action flag or clear")
            continue
        try:
            day = None if text(row, "day") is None else as_of_us(text(row, "day")) // DAY
            until = NEVER if text(row, "until") is None else as_of_us(text(row, "until"))
            created = 0 if text(row, "created_at") is None else as_of_us(text(row, "created_at"))
        except (ValueError, TypeError) as error:
            warnings.append(f"override {number}: a time cannot be read ({error})")
            continue
        if created <= now:
            who, why = text(row, "who") or "somebody", text(row, "why") or "no reason given"
            kind = text(row, "scope_kind")
            found.append(Override(scope, kind, day, action == "clear", until, who, why, created, number))
    found.sort(key=lambda o: o.created)
    return found, warnings


def _overrule(rows: list[dict[str, Any]], h: _History, overrides: pd.DataFrame | None, now: int) -> list[str]:
    """Add the views that overrides make to `rows`, in place. Returns warnings."""
    read, warnings = read_overrides(overrides, "flood", now)
    for override in read:
        scope = _scope_of(h, override)
        if scope is None:
            warnings.append(f"override {override.number}: there is no rule, team or source {override.scope!r}")
            continue
        kind, where, inside = scope
        if override.day is not None:
            covered = {override.day}
        else:
            covered = set(np.unique(h.day[inside]).tolist())
            covered = {d for d in covered if d >= override.created // DAY and d * DAY < override.until}
        if override.clear:
            _clear(rows, override, kind, covered)
        else:
            _flag(rows, h, override, kind, where, inside, covered)
    return warnings


def _scope_of(h: _History, o: Override) -> tuple[str, tuple[str, str] | None, np.ndarray] | None:
    """Kind, shared attribute and alerts of the scope that an override names; None if there is none."""
    if o.kind in (None, "rule") and (at := np.flatnonzero(h.rules == o.scope)).size:
        return "rule", None, h.rule == at[0]
    if o.kind in (None, "team") and (at := np.flatnonzero(h.teams == o.scope)).size:
        return "team", ("team", o.scope), h.team == at[0]
    if o.kind in (None, "all") and o.scope == "all alerts":
        return "all", None, np.ones(len(h.rule), bool)
    if o.kind in (None, "source") and h.attributes is not None and " = " in o.scope:
        name, value = o.scope.split(" = ", 1)
        inside = has_attribute(h.attributes, name, value)
        if inside.any():
            return "source", (name, value), inside
    return None


def has_attribute(attributes: np.ndarray, name: str, value: str) -> np.ndarray:
    """bool[alerts]: whether the JSON object of an alert holds this value under this name."""
    code, unique = pd.factorize(attributes)
    holds = np.zeros(len(unique) + 1, bool)
    for number, text in enumerate(unique):
        try:
            content = json.loads(text) if isinstance(text, str) else text
        except ValueError:
            continue
        if isinstance(content, dict) and content.get(name) is not None:
            holds[number] = attribute_text(content[name]) == value
    return holds[code]


def _supersede(rows: list[dict[str, Any]], row: dict[str, Any], at: int) -> None:
    """End a view at a moment; what it would have decided later, it does not decide any more."""
    if at <= row["recorded_at"]:
        rows[:] = [other for other in rows if other is not row]
        return
    row["superseded_at"] = at
    if row["decided_at"] >= at:
        row.update(status="suspected", decision=None, decided_at=NEVER, decided_by=None, acted_share=math.nan)


def _clear(rows: list[dict[str, Any]], o: Override, kind: str, days: set[int]) -> None:
    for row in list(rows):
        if row["day"] not in days or row["superseded_at"] != NEVER:
            continue
        if row["scope_kind"] == kind and row["scope"] == o.scope:
            at = max(o.created, row["recorded_at"])
            view = dict(row)
            view.update(
                status="cleared",
                decision=f"{o.who}: {o.why}",
                acted_share=math.nan,
                decided_at=at,
                decided_by=o.who,
                recorded_at=at,
                superseded_at=NEVER,
            )
            _supersede(rows, row, at)
            rows.append(view)
        elif kind == "rule":
            # A rule that a person clears leaves the floods of many rules too.
            row["membership"] = [
                (r, since, min(until, o.created) if r == o.scope else until)
                for r, since, until in row["membership"]
                if r != o.scope or since < o.created
            ]


def _flag(
    rows: list[dict[str, Any]],
    h: _History,
    o: Override,
    kind: str,
    where: tuple[str, str] | None,
    inside: np.ndarray,
    days: set[int],
) -> None:
    for day in sorted(days):
        alerts = np.flatnonzero(inside & (h.day == day))
        if len(alerts) == 0:
            continue
        at = max(o.created, int(h.raised[alerts[0]]) + 1)
        if at > h.as_of:
            continue
        rule, first = np.unique(h.rule[alerts], return_index=True)
        membership = [
            (str(h.rules[r]), max(at, int(h.raised[alerts[f]]) + 1), NEVER) for r, f in zip(rule, first, strict=True)
        ]
        view = {
            "day": day,
            "scope_kind": kind,
            "scope": o.scope,
            "where_name": where[0] if where else None,
            "where_value": where[1] if where else None,
            "volume": len(alerts),
            "expected": math.nan,
            "score": math.nan,
            "evidence": f"{o.who}: {o.why}",
            "detected_at": at,
        }
        for row in list(rows):
            same = row["day"] == day and row["scope_kind"] == kind and row["scope"] == o.scope
            if same and row["superseded_at"] == NEVER:
                if row["recorded_at"] < at:
                    view.update({k: row[k] for k in ("expected", "score", "evidence", "detected_at")})
                _supersede(rows, row, at)
        view.update(
            membership=membership,
            burst_from=NEVER,
            burst_until=NEVER,
            acted_share=math.nan,
            status="confirmed",
            decision=f"{o.who}: {o.why}",
            decided_at=at,
            decided_by=o.who,
            recorded_at=at,
            superseded_at=NEVER,
        )
        rows.append(view)
