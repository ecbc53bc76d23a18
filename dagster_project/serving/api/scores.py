"""Scores of named alerts, as the service answers them: `reporting.alert_scores_latest` and the team's predictability.

Belongs here: the lookup by ID, the document of one score, and why an alert has none.
Does not belong here: lists of open alerts (`board/board.py`), and HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.pool import rows
from dagster_project.serving.problem import Problem

MOST_IDS = 1_000
MOST_ID_BYTES = 1_000  # staging rejects longer ids
# The first of the ages by which evaluations are sliced: forecasts for a younger rule rest on little history.
NEW_RULE_DAYS = 7
UNPREDICTABLE = "unpredictable"

_SCORES = """
SELECT scores.alert_id, scores.raised_at, scores.rule, scores.entity, scores.team, scores.severity, scores.title,
       scores.probability, scores.probability_at_raise, scores.low, scores.high, scores.flag_words, scores.read_at,
       scores.status, scores.reasons, scores.flood, scores.visibility_only,
       scores.raised_at < rules.first_raised_at + %(new)s * interval '1 day' AS new_rule,
       scores.model_version, scores.as_of, scores.scored_at, scores.is_open, scores.outcome, scores.known_at,
       card.status AS predictability, card.reason AS predictability_reason, card.skill, card.auc,
       card.as_of AS predictability_as_of
FROM reporting.alert_scores_latest AS scores
LEFT JOIN marts.rules AS rules ON rules.rule = scores.rule
LEFT JOIN LATERAL (
    SELECT status, reason, skill, auc, as_of FROM training.team_scorecards
    WHERE model_version = scores.model_version AND team = scores.team ORDER BY as_of DESC LIMIT 1
) AS card ON true
WHERE scores.alert_id = ANY(%(ids)s)
"""
_WHY = """
SELECT outcomes.outcome FROM marts.alerts AS alerts
LEFT JOIN marts.alert_outcomes AS outcomes ON outcomes.alert_id = alerts.alert_id WHERE alerts.alert_id = %(id)s
"""


def read_scores(cursor: Cursor, alert_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """alert_id -> document of its newest score; IDs without a score are absent."""
    newest = rows(cursor, _SCORES, {"ids": list(alert_ids), "new": NEW_RULE_DAYS})
    return {row["alert_id"]: _document(row) for row in newest}


def read_score(cursor: Cursor, alert_id: str) -> dict[str, Any]:
    """The document of one alert's newest score.

    Raises Problem: 404, with why there is none.
    """
    scores = read_scores(cursor, [alert_id]) if is_possible_id(alert_id) else {}
    if alert_id not in scores:
        raise _why_not(cursor, alert_id)
    return scores[alert_id]


def _document(row: dict[str, Any]) -> dict[str, Any]:
    when = lambda name: row[name].isoformat() if row[name] is not None else None  # noqa: E731
    predictability = None
    if row["predictability"] is not None:
        predictability = {
            "status": row["predictability"],
            "reason": row["predictability_reason"],
            "skill": row["skill"],
            "auc": row["auc"],
            "as_of": when("predictability_as_of"),
        }
    return {
        **{name: row[name] for name in ("alert_id", "rule", "entity", "team", "severity", "title")},
        "raised_at": when("raised_at"),
        **{name: row[name] for name in ("probability", "probability_at_raise", "low", "high", "flag_words")},
        "read_at": when("read_at"),
        "status": row["status"],
        "reasons": list(row["reasons"] or []),
        "flags": {
            "flood": row["flood"],
            "visibility_only": row["visibility_only"],
            "unpredictable_team": row["predictability"] == UNPREDICTABLE,
            "new_rule": bool(row["new_rule"]),
        },
        "team_predictability": predictability,
        "model_version": row["model_version"],
        "as_of": when("as_of"),
        "scored_at": when("scored_at"),
        "is_open": row["is_open"],
        "outcome": row["outcome"],
        "known_at": when("known_at"),
    }


def _why_not(cursor: Cursor, alert_id: str) -> Problem:
    shown = repr(alert_id if len(alert_id) <= 100 else alert_id[:99] + "…")
    outcomes = rows(cursor, _WHY, {"id": alert_id}) if is_possible_id(alert_id) else []
    if not outcomes:
        return Problem(
            404, f"there is no alert {shown}", "check the ID; a new alert is known after the next load and refresh"
        )
    if outcomes[0]["outcome"] is None:
        return Problem(404, f"the alert {shown} is not scored yet", "ask again after the next refresh")
    return Problem(
        404, f"the alert {shown} was never scored", "it was decided before heed first scored alerts; see its outcome"
    )


def is_possible_id(alert_id: str) -> bool:
    """Whether an alert could have this ID: PostgreSQL cannot store NUL, and staging rejects longer IDs."""
    if not alert_id or "\0" in alert_id:
        return False
    try:
        return len(alert_id.encode()) <= MOST_ID_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
