"""How old the published scores are, and from when on they are called stale.

Belongs here: the limit, and reading the refresh schedule's cron line backwards.
Does not belong here: the age of the model (`heed doctor`) and of one alert's score: a score is written only when it
changes, so an old one is usually fine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.pool import rows

# The limit: scores are stale once so many scheduled refreshes have come and none of them was published.
MISSED_REFRESHES = 2
# Where the cron line uses words that are not read here (like L or #).
OTHERWISE_STALE_AFTER = timedelta(days=1)

_NEWEST = """
SELECT as_of, published_at, model_version FROM scoring.publications WHERE as_of <= %(until)s
ORDER BY as_of DESC, published_at DESC LIMIT 1
"""
# Scores that an earlier version of heed wrote, which recorded no publications.
_NEWEST_SCORE = """
SELECT as_of, scored_at AS published_at, model_version FROM scoring.alert_scores
ORDER BY as_of DESC, scored_at DESC LIMIT 1
"""
AHEAD = timedelta(minutes=5)  # clocks of two machines differ
_DAYS_BACK = 1500  # more than four years: 29 February


@dataclass(frozen=True)
class Freshness:
    """The newest publication and how old it is.

    as_of : the moment at which the newest scores stand. published_at : when they were written. stale_before : scores
    that stand at an earlier moment are stale.
    """

    as_of: datetime
    published_at: datetime
    model_version: str | None
    now: datetime
    stale_before: datetime

    @property
    def age(self) -> timedelta:
        return max(self.now - self.as_of, timedelta(0))

    @property
    def is_stale(self) -> bool:
        return self.as_of < self.stale_before

    def to_document(self) -> dict[str, Any]:
        """The same for machines."""
        return {
            "as_of": self.as_of.isoformat(),
            "published_at": self.published_at.isoformat(),
            "age_seconds": int(self.age.total_seconds()),
            "stale": self.is_stale,
            "stale_before": self.stale_before.isoformat(),
        }


def read_freshness(cursor: Cursor, refresh_cron: str, now: datetime) -> Freshness | None:
    """The freshness at `now`; None: nothing was ever published."""
    cursor.execute("SELECT to_regclass('scoring.publications') IS NOT NULL AS there")
    there = bool(cursor.fetchone()["there"])  # type: ignore[index, call-overload]
    # A publication that stands in the future (the clock was ahead once) says nothing about how fresh scores are now.
    found = (rows(cursor, _NEWEST, {"until": now + AHEAD}) if there else []) or rows(cursor, _NEWEST_SCORE)
    return Freshness(**found[0], now=now, stale_before=stale_before(refresh_cron, now)) if found else None


def stale_before(refresh_cron: str, now: datetime) -> datetime:
    """The moment that scores must stand at, or after, not to be stale at `now`."""
    try:
        firings = cron_firings(refresh_cron, now)
        for _ in range(MISSED_REFRESHES):
            moment = next(firings)
        return moment
    except (ValueError, StopIteration):
        return now - OTHERWISE_STALE_AFTER


def cron_firings(line: str, until: datetime) -> Iterator[datetime]:
    """The moments, in UTC, at which a cron line of five fields fired, from `until` backwards.

    Raises
    ------
    ValueError
        A field is not made of `*`, numbers, names, ranges, steps and lists.
    """
    minute, hour, day, month, weekday = line.lower().split()
    minutes, hours = _field(minute, 0, 59), _field(hour, 0, 23)
    days, months = _field(day, 1, 31), _field(month, 1, 12, _MONTHS)
    weekdays = {number % 7 for number in _field(weekday, 0, 7, _WEEKDAYS)}
    # Where both name days, cron fires on either.
    either = not day.startswith("*") and not weekday.startswith("*")
    until = until.astimezone(UTC)
    for back in range(_DAYS_BACK):
        date = until.date() - timedelta(days=back)
        on_day, on_weekday = date.day in days, (date.weekday() + 1) % 7 in weekdays
        if date.month not in months or not (on_day or on_weekday if either else on_day and on_weekday):
            continue
        for at_hour in sorted(hours, reverse=True):
            for at_minute in sorted(minutes, reverse=True):
                moment = datetime(date.year, date.month, date.day, at_hour, at_minute, tzinfo=UTC)
                if moment <= until:
                    yield moment


_MONTHS = {"janfebmaraprmayjunjulaugsepoctnovdec"[3 * at - 3 : 3 * at]: at for at in range(1, 13)}
_WEEKDAYS = {"sunmontuewedthufrisat"[3 * at : 3 * at + 3]: at for at in range(7)}


def _field(text: str, low: int, high: int, names: dict[str, int] | None = None) -> set[int]:
    """The numbers that a field of a cron line allows."""
    named = names or {}
    number = lambda word: named[word] if word in named else int(word)  # noqa: E731
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            start, end = low, high
        else:
            start = number(first)
            end = number(last) if last else (high if step else start)
        if not low <= start <= end <= high or (step and int(step) < 1):
            raise ValueError(f"{part!r} is no part of a cron line")
        found |= set(range(start, end + 1, int(step or 1)))
    return found
