"""What a system's module gives: streams of pages, each with the position that holds once its records are in `raw`.

Belongs here: these shapes, and the arithmetic of times that the systems share.
Does not belong here: one system's requests (its module), loading and keeping positions (`pull.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_project.settings import PullSource

Record = dict[str, Any]
Position = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """What one pull asks for.

    Attributes
    ----------
    source : its settings. secret : from the environment. now : when the pull began, with a zone. first : where a source
    without a position begins. horizon : how long after its raise an action still counts. mapping : the name of the
    preset for a stream.
    """

    source: PullSource
    secret: str
    now: datetime
    first: datetime
    horizon: timedelta

    def since(self, position: Position) -> datetime:
        """From when on to ask: the position less the overlap, because systems show some changes late."""
        if "since" not in position:
            return self.first
        return moment(position["since"]) - timedelta(minutes=self.source.overlap_minutes)


@dataclass(frozen=True)
class Page:
    """records : as the system sends them. position : what has been pulled once they are in `raw`."""

    records: list[Record]
    position: Position


@dataclass(frozen=True)
class Stream:
    """One list of a system. name : under which its position is kept; a stream that asks for something else has another
    name, and begins at the beginning. preset : makes rows of its records."""

    name: str
    preset: str
    pages: Callable[[Asked, Position], Iterator[Page]]


def moment(text: str) -> datetime:
    """A time of an API, in UTC where it has no zone."""
    time = datetime.fromisoformat(text.replace(" ", "T"))
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def written(time: datetime) -> str:
    """A time as the APIs read it: ISO 8601 in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def days(asked: Asked, position: Position) -> Iterator[tuple[datetime, datetime, Position]]:
    """Windows of at most a day with the position behind each, oldest first, for lists that can only be asked by when an
    alert was raised.

    They begin the horizon before the position: what people do with an alert later than that no longer counts, and
    what they do until then changes the record of an alert that was pulled before.
    """
    reached = moment(position["since"]) if position else asked.first
    begin = min(asked.since(position), reached - asked.horizon) if position else asked.first
    while begin < asked.now:
        end = min(begin + timedelta(days=1), asked.now)
        yield begin, end, {"since": written(max(end, reached))}
        begin = end
