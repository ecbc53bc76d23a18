"""The board as HTML.

Belongs here: what the templates are given, and how ages are worded. Autoescape is on: text from rules, alerts and
reasons cannot become markup.
Does not belong here: which alerts are shown (`filter.py`).
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from dagster_project.reporting import words
from dagster_project.reporting.environment import environment
from dagster_project.serving.board.board import Snapshot
from dagster_project.serving.board.filter import AGES, FLAGS, NO_TEAM, BoardPage
from dagster_project.serving.freshness import Freshness

TEMPLATES = Path(__file__).parent / "templates"


def board_page(
    page: BoardPage,
    snapshot: Snapshot,
    freshness: Freshness,
    scores: dict[str, dict[str, Any]],
    feedback: dict[str, dict[str, Any]],
    closings: dict[str, dict[str, Any]],
    signed_in: str | None = None,
) -> str:
    """The board. scores, feedback, closings : by alert_id; an alert without a score is left out. signed_in : the
    reader's name from the proxy, '' if it gave none; None: readers name themselves."""
    alerts = [
        {**_row(scores[each], feedback.get(each), freshness.now), "closing": closings.get(each)}
        for each in page.alert_ids
        if each in scores
    ]
    workload, chosen = page.workload, page.filter
    teams = [(NO_TEAM, "alerts without a team"), *((team, words.short(team)) for team in snapshot.teams)]
    return _template("board.html.j2").render(
        page=page,
        chosen=chosen,
        signed_in=signed_in,
        back=chosen.query(threshold=workload.threshold),
        alerts=alerts,
        cut=next((at for at, alert in enumerate(alerts) if _below(alert["ranked"], workload.threshold)), None),
        freshness=freshness,
        age=age(freshness.age),
        past=snapshot.past,
        steps=workload.steps(),
        total=len(snapshot.alerts),
        choices={
            "team": ("Team", [("", "all teams"), *teams[0 if snapshot.without_team else 1 :]]),
            "rule": ("Rule", [("", "all rules"), *((rule, words.short(rule)) for rule in snapshot.rules)]),
            "age": ("Age", list(AGES.items())),
            "flag": ("Flags", list(FLAGS.items())),
        },
    )


def problem_page(status: int, cause: str, remedy: str) -> str:
    """An error page: what is wrong and what to do about it."""
    return _template("problem.html.j2").render(status=status, cause=cause, remedy=remedy)


def row_name(alert_id: str) -> str:
    """The anchor of an alert's row, valid for any ID."""
    return "a" + hashlib.sha256(alert_id.encode()).hexdigest()[:12]


def age(span: timedelta) -> str:
    """Like '3 hours', in the largest unit of which there are at least two."""
    minutes = span.total_seconds() / 60
    for size, unit in ((1440, "days"), (60, "hours"), (1, "minutes")):
        if minutes >= 2 * size:
            return f"{minutes / size:.0f} {unit}"
    return "a moment" if minutes < 1 else "a minute"


def _row(score: dict[str, Any], feedback: dict[str, Any] | None, now: datetime) -> dict[str, Any]:
    raised = datetime.fromisoformat(score["raised_at"])
    names = ("flood", "visibility_only", "unpredictable_team", "new_rule")
    return {
        **score,
        "name": row_name(score["alert_id"]),
        "age": age(max(now - raised, timedelta(0))),
        "raised": raised,
        "shown_flags": [name for name in names if score["flags"][name]],
        # Flagged alerts stand below every threshold, at the end of the list.
        "ranked": 0.0 if score["flags"]["flood"] or score["flags"]["visibility_only"] else score["probability"],
        "feedback": feedback if feedback and feedback["model_version"] == score["model_version"] else None,
    }


def compile_pages() -> None:
    """Compile the templates, so that the first request does not wait for it."""
    for name in ("board.html.j2", "problem.html.j2"):
        _template(name)


def _below(probability: float | None, threshold: int) -> bool:
    return probability is not None and 100 * probability < threshold


@lru_cache(maxsize=4)
def _template(name: str) -> jinja2.Template:
    return environment(TEMPLATES).get_template(name)
