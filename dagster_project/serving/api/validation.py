"""What people say about one alert, as a form or a JSON object: reading it.

Belongs here: which parts there may be, the alert's id, short texts, and how what was given is quoted in a message.
Does not belong here: what the parts mean (`feedback.py`, `closing.py`), requests (`app.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from dagster_project.serving.api.scores import is_possible_id
from dagster_project.serving.problem import Problem

MOST_TEXT = 200


def alert_of(given: Any, parts: tuple[str, ...], example: str) -> str:
    """The alert's id in what was sent, which may hold `alert_id` and these parts, and nothing else.

    Raises
    ------
    Problem
        422: it is no object, holds something else, or no possible id.
    """
    remedy = f"send {example}"
    if not isinstance(given, Mapping):
        raise Problem(422, "what was sent is no object", remedy)
    if unknown := sorted(set(given) - {"alert_id", *parts}, key=str):
        raise Problem(422, f"it holds {shown(unknown[0])}", f"send alert_id, {', '.join(parts)}")
    alert_id = given.get("alert_id")
    if not isinstance(alert_id, str) or not is_possible_id(alert_id):
        raise Problem(422, "alert_id is no alert's id", remedy)
    return alert_id


# The inside of a class of a regular expression, for Python and for the service's description. On what white space is,
# Python, JavaScript and Rust differ: this is what any of them takes for it, and control characters.
BLANK = r"\s\u0000-\u001f\u0085\ufeff"
_VISIBLE = re.compile(f"[^{BLANK}]")


def text_of(given: Mapping[str, Any], name: str) -> str | None:
    """A short text, trimmed; None: missing or blank. `Problem` 422 where it is no text."""
    value = given.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MOST_TEXT or not is_possible_id(value or " "):
        raise Problem(422, f"{name} is {shown(value)}", f"send text of at most {MOST_TEXT} characters, or leave it out")
    return value.strip() if _VISIBLE.search(value) else None


def shown(value: Any) -> str:
    """What was given, quoted and cut, for a message."""
    made = repr(value)
    return made if len(made) <= 60 else made[:59] + "…"
