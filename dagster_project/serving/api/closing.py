"""heed's decisions to close alerts on the board, and taking such a decision back.

Belongs here: reading the decisions for a page, writing an undo.
Does not belong here: its fields (`models.py`), deciding (`triage/autoclose.py`), enabling rules
(`commands/autoclose.py`).

heed closes nothing itself: another system may apply its decisions. An undo is one more row, and it pauses the rule. The
service writes it through `scoring.undo_closing`, so its login can take decisions back but cannot enable a rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.api.models import NewUndo, shown
from dagster_project.serving.pool import Pool, rows
from dagster_project.serving.problem import Problem

_HAS_TABLE = "SELECT to_regclass('scoring.autoclose_decisions') IS NOT NULL AS present"
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


def undo(pool: Pool, wanted: NewUndo) -> dict[str, Any]:
    """Take one decision back and pause its rule; returns the undo with its rule.

    Raises Problem: 404: heed never decided to close it. 409: it was taken back before. 503: it cannot be written.
    """
    decision = pool.read(lambda cursor: closings(cursor, [wanted.alert_id])).get(wanted.alert_id)
    if decision is None:
        raise Problem(
            404, f"heed never decided to close the alert {shown(wanted.alert_id)}", "see reporting.autoclose_decisions"
        )
    if decision["undone_at"] is not None:
        raise Problem(
            409,
            f"the decision on {shown(wanted.alert_id)} was already taken back by {shown(decision['undone_by'])}",
            "nothing needs to be done",
        )
    with pool.write() as cursor:
        rows(cursor, "SELECT scoring.undo_closing(%(alert_id)s, %(who)s, %(why)s) AS event", wanted.model_dump())
    return {**wanted.model_dump(), "rule": decision["rule"]}


def closings(cursor: Cursor, alert_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """alert_id -> the decision to close it; alerts without one are absent. Empty in a warehouse without the table."""
    if not rows(cursor, _HAS_TABLE)[0]["present"]:
        return {}
    return {row["alert_id"]: row for row in rows(cursor, _CLOSINGS, {"ids": list(alert_ids)})}


def open_closings(cursor: Cursor) -> frozenset[str]:
    """The open alerts that heed decided to close, in shadow or not, taken back or not."""
    if not rows(cursor, _HAS_TABLE)[0]["present"]:
        return frozenset()
    return frozenset(row["alert_id"] for row in rows(cursor, _OPEN))
