"""What heed decided to close among the alerts on the board, and taking such a decision back.

Belongs here: reading the decisions of a page, checking and writing an undo.
Does not belong here: deciding (`triage/autoclose.py`), what else people say about closing (`commands/autoclose.py`).

heed closes nothing itself: another system may apply what stands. An undo is one more row, and it pauses the rule. The
service writes it through `scoring.undo_closing`, so its login can take back, and enable nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.api.validation import alert_of, shown, text_of
from dagster_project.serving.pool import Pool, rows
from dagster_project.serving.problem import Problem

_THERE = "SELECT to_regclass('scoring.autoclose_decisions') IS NOT NULL AS there"
_OPEN = """
SELECT decided.alert_id FROM scoring.autoclose_decisions AS decided
JOIN marts.alert_outcomes AS outcomes USING (alert_id)
WHERE decided.decision = 'close' AND outcomes.outcome IS NULL
"""
_CLOSINGS = """
SELECT decided.alert_id, decided.rule, decided.mode, decided.threshold, decided.as_of,
       undone.as_of AS undone_at, undone.who AS undone_by, undone.why AS undone_because
FROM scoring.autoclose_decisions AS decided
LEFT JOIN LATERAL (
    SELECT events.as_of, events.who, events.why FROM scoring.autoclose_events AS events
    WHERE events.request_id = decided.request_id AND events.event = 'undone' AND events.as_of >= decided.as_of
      AND coalesce(events.alert_id, decided.alert_id) = decided.alert_id
    ORDER BY events.as_of LIMIT 1
) AS undone ON true
WHERE decided.alert_id = ANY(%(ids)s) AND decided.decision = 'close'
"""


@dataclass(frozen=True)
class Undo:
    """Checked, not yet written."""

    alert_id: str
    who: str
    why: str

    @classmethod
    def of(cls, given: Any) -> Undo:
        """From a form or a JSON object.

        Raises
        ------
        Problem
            422: a part is missing or impossible.
        """
        example = '{"alert_id": "...", "who": "...", "why": "..."}'
        alert_id = alert_of(given, ("who", "why"), example)
        who, why = text_of(given, "who"), text_of(given, "why")
        if who is None or why is None:
            raise Problem(422, "an undo needs a name and a reason", f"send {example}")
        return cls(alert_id, who, why)


def undo(pool: Pool, wanted: Undo) -> dict[str, Any]:
    """Take one decision back and pause its rule; what came of it.

    Raises
    ------
    Problem
        404: heed never decided to close it. 409: it was taken back before. 503: it cannot be written.
    """
    found = pool.read(lambda cursor: closings(cursor, [wanted.alert_id])).get(wanted.alert_id)
    if found is None:
        raise Problem(
            404, f"heed never decided to close the alert {shown(wanted.alert_id)}", "see reporting.autoclose_decisions"
        )
    if found["undone_at"] is not None:
        raise Problem(
            409,
            f"the decision on the alert {shown(wanted.alert_id)} was taken back before, by {shown(found['undone_by'])}",
            "nothing needs to be done",
        )
    with pool.write() as cursor:
        rows(cursor, "SELECT scoring.undo_closing(%(alert_id)s, %(who)s, %(why)s) AS event", vars(wanted))
    return {**vars(wanted), "rule": found["rule"]}


def closings(cursor: Cursor, alert_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """alert_id -> the decision to close it; without those that stay open, empty in a warehouse without the tables."""
    if not rows(cursor, _THERE)[0]["there"]:
        return {}
    return {row["alert_id"]: row for row in rows(cursor, _CLOSINGS, {"ids": list(alert_ids)})}


def open_closings(cursor: Cursor) -> frozenset[str]:
    """The open alerts that heed decided to close, in shadow or not, taken back or not."""
    if not rows(cursor, _THERE)[0]["there"]:
        return frozenset()
    return frozenset(row["alert_id"] for row in rows(cursor, _OPEN))
