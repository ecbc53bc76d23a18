"""What people say about scores: 'useful' or 'wrong', appended to `scoring.feedback`.

Belongs here: writing feedback and reading the newest.
Does not belong here: its fields (`models.py`), and outcomes. Feedback is about the score, an action is about the alert;
nothing learns from feedback.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.api.models import NewFeedback, shown
from dagster_project.serving.pool import Pool, rows
from dagster_project.serving.problem import Problem

_SCORED = """
SELECT model_version, coalesce((
    SELECT latest.status = 'holdout' FROM reporting.alert_scores_latest AS latest WHERE latest.alert_id = %(alert_id)s
), false) AS held_out
FROM scoring.alert_scores
WHERE alert_id = %(alert_id)s AND (%(model_version)s::text IS NULL OR model_version = %(model_version)s)
ORDER BY as_of DESC, scored_at DESC LIMIT 1
"""
_ADD = """
INSERT INTO scoring.feedback (alert_id, model_version, verdict, given_by)
VALUES (%(alert_id)s, %(model_version)s, %(verdict)s, %(given_by)s)
RETURNING feedback_id, alert_id, model_version, verdict, given_by, given_at
"""
_NEWEST = """
SELECT DISTINCT ON (alert_id) alert_id, model_version, verdict, given_by, given_at FROM scoring.feedback
WHERE alert_id = ANY(%(ids)s) ORDER BY alert_id, given_at DESC, feedback_id DESC
"""


def give(pool: Pool, feedback: NewFeedback) -> dict[str, Any]:
    """Append the feedback and return its row.

    Raises Problem: 404: the alert was not scored, or not by that version. 409: its score is not shown, so nobody can
        judge it. 503: it cannot be written.
    """
    parameters = feedback.model_dump()
    scored = pool.read(lambda cursor: rows(cursor, _SCORED, parameters))
    if not scored:
        by = f" by {feedback.model_version!r}" if feedback.model_version else ""
        raise Problem(404, f"the alert {shown(feedback.alert_id)} was not scored{by}", "check the ID and the version")
    if scored[0]["held_out"]:
        raise Problem(
            409,
            f"the score of the alert {shown(feedback.alert_id)} is not shown: it was drawn at random",
            "give feedback once its outcome is known",
        )
    with pool.write() as cursor:
        row = rows(cursor, _ADD, {**parameters, "model_version": scored[0]["model_version"]})[0]
    return {**row, "given_at": row["given_at"].isoformat()}


def newest_feedback(cursor: Cursor, alert_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """alert_id -> its newest feedback; empty in a warehouse without the table."""
    if not rows(cursor, "SELECT to_regclass('scoring.feedback') IS NOT NULL AS there")[0]["there"]:
        return {}
    return {row["alert_id"]: row for row in rows(cursor, _NEWEST, {"ids": list(alert_ids)})}
