"""Changes of published scores since a cursor, for systems that pull.

Belongs here: reading a page of changes, and the cursor.
Does not belong here: recording changes (`resources/stores/scores.py`, in the transaction that publishes), the document
of a score (`scores.py`).

A cursor is a position in the order of publications, not a time: clocks step, and a transaction may begin before another
one and commit after it. Publications take their positions one after the other, each until it has committed, so a reader
who sees a position also sees every smaller one. Each alert is at the position of its newest change only. A page
therefore never tires of old changes, and a cursor never becomes too old.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.api.models import shown
from dagster_project.serving.api.scores import MOST_IDS, read_scores
from dagster_project.serving.pool import rows
from dagster_project.serving.problem import Problem

LIMIT = 500
BEGINNING = "0"
_CURSOR = re.compile(r"([1-9]\d{0,17})-([1-9]\d{0,17})-([0-9a-f]{12})", re.ASCII)
_AGAIN = "ask without `since` to begin with the open alerts again, or with since=0 for all alerts ever scored"

_END = "SELECT coalesce(max(last_position), 0) AS last_position FROM scoring.change_marks"
_MARK = """
SELECT mark FROM scoring.change_marks WHERE last_position >= %(position)s ORDER BY last_position LIMIT 1
"""
_PAGE = """
SELECT alert_id, position, change FROM scoring.alert_changes
WHERE position > %(after)s AND position <= %(until)s AND outcome IS NULL AND change <> 'gone'
UNION ALL
SELECT alert_id, position, change FROM scoring.alert_changes WHERE position > greatest(%(after)s, %(until)s)
ORDER BY position LIMIT %(limit)s
"""


@dataclass(frozen=True)
class Place:
    """after : the last position that was read. until : where the first reading of open alerts ends: up to there only
    open alerts are given, since everything else is old news to who has just begun."""

    after: int
    until: int


def read_changes(cursor: Cursor, since: str | None, limit: int) -> dict[str, Any]:
    """A page of changes as JSON: `changes`, each with the alert's newest score as of now; `next`, the cursor; `more`.

    cursor : in one snapshot. since : a cursor that was given before; None: begin with the open alerts; '0': with the
    first change ever. limit : changes on a page.

    Raises Problem: 422: no such cursor was ever given. 410: another warehouse gave it, or this one before it was
        restored or emptied.
    """
    place = _place(cursor, since)
    changes = rows(cursor, _PAGE, {"after": place.after, "until": place.until, "limit": limit + 1})
    page, has_more = changes[:limit], len(changes) > limit
    scores = read_scores(cursor, [row["alert_id"] for row in page])
    end = page[-1]["position"] if has_more else _end(cursor)
    return {
        "changes": [
            {"alert_id": row["alert_id"], "change": row["change"], "score": scores.get(row["alert_id"])} for row in page
        ],
        "next": _written(cursor, Place(end, max(place.until, end))) if end else BEGINNING,
        "more": has_more,
    }


def read_limit(text: str | None) -> int:
    """How many changes a page is to have.

    Raises Problem: 422: it is not a number that a page can have.
    """
    if text is None:
        return LIMIT
    if not re.fullmatch(r"[1-9]\d{0,5}", text, re.ASCII) or int(text) > MOST_IDS:
        raise Problem(422, f"limit is {shown(text)}", f"send a whole number from 1 to {MOST_IDS:,}")
    return int(text)


def _place(cursor: Cursor, since: str | None) -> Place:
    if since is None:
        return Place(0, _end(cursor))
    if since == BEGINNING:
        return Place(0, 0)
    parts = _CURSOR.fullmatch(since)
    if parts is None:
        raise Problem(422, f"since is {shown(since)}, which is no cursor that this service gives", _AGAIN)
    place = Place(int(parts[1]), int(parts[2]))
    if _mark(cursor, place) != parts[3]:
        raise Problem(
            410,
            f"this warehouse did not give the cursor {shown(since)}: it was restored, emptied or replaced since",
            _AGAIN,
        )
    return place


def _written(cursor: Cursor, place: Place) -> str:
    return f"{place.after}-{place.until}-{_mark(cursor, place)}"


def _mark(cursor: Cursor, place: Place) -> str | None:
    """The mark of the later of the two positions; None if this warehouse has not come so far."""
    marks = rows(cursor, _MARK, {"position": max(place.after, place.until)})
    return marks[0]["mark"] if marks else None


def _end(cursor: Cursor) -> int:
    return int(rows(cursor, _END)[0]["last_position"])
