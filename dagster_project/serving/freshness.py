"""How old the published scores are, and when they count as stale.

Belongs here: the limit, and the publication that it is compared with.
Does not belong here: the age of the model (`heed doctor`) and of one alert's score: a score is written only when it
changes, so an old one is usually fine.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from croniter import CroniterError, croniter
from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.pool import rows
from dagster_project.serving.problem import Problem

# Scores are stale once this many scheduled refreshes have passed without a publication.
MISSED_REFRESHES = 2
# For a cron line that cannot be read or never fires, like 31 February.
OTHERWISE_STALE_AFTER = timedelta(days=1)

_NEWEST = """
SELECT as_of, published_at, model_version FROM scoring.publications WHERE as_of <= %(until)s
ORDER BY as_of DESC, published_at DESC LIMIT 1
"""
# Earlier versions of heed recorded no publications.
_NEWEST_SCORE = """
SELECT as_of, scored_at AS published_at, model_version FROM scoring.alert_scores
ORDER BY as_of DESC, scored_at DESC LIMIT 1
"""
AHEAD = timedelta(minutes=5)  # clocks of two machines differ


@dataclass(frozen=True)
class Freshness:
    """The newest publication and how old it is.

    as_of : the newest scores use data through this time. published_at : when they were written. stale_before : scores
    with an earlier as_of are stale.
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
        """The same, for JSON."""
        return {
            "as_of": self.as_of.isoformat(),
            "published_at": self.published_at.isoformat(),
            "age_seconds": int(self.age.total_seconds()),
            "stale": self.is_stale,
            "stale_before": self.stale_before.isoformat(),
        }


def read_freshness(cursor: Cursor, refresh_cron: str, now: datetime) -> Freshness | None:
    """The freshness at `now`; None if nothing was ever published."""
    has_table = rows(cursor, "SELECT to_regclass('scoring.publications') IS NOT NULL AS present")[0]["present"]
    # A publication with an as_of in the future (the clock was wrong once) says nothing about how fresh scores are now.
    newest = (rows(cursor, _NEWEST, {"until": now + AHEAD}) if has_table else []) or rows(cursor, _NEWEST_SCORE)
    return Freshness(**newest[0], now=now, stale_before=stale_before(refresh_cron, now)) if newest else None


def require_freshness(cursor: Cursor, refresh_cron: str, now: datetime) -> Freshness:
    """The same, for who has nothing to answer otherwise.

    Raises Problem: 503: nothing was ever published.
    """
    freshness = read_freshness(cursor, refresh_cron, now)
    if freshness is None:
        raise Problem(503, "the warehouse holds no published scores yet", "run `heed run`, then ask again")
    return freshness


def stale_before(refresh_cron: str, now: datetime) -> datetime:
    """Scores whose data ends before this time are stale at `now`: it is the second newest scheduled refresh, in UTC."""
    try:
        # A refresh that is due at this very moment counts.
        refreshes = croniter(refresh_cron, now.astimezone(UTC) + timedelta(microseconds=1))
        return [refreshes.get_prev(datetime) for _ in range(MISSED_REFRESHES)][-1]
    except CroniterError:
        return now - OTHERWISE_STALE_AFTER
