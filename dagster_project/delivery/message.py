"""What a message says: a document for programs, and the same in words for people.

Belongs here: the message, and its form as a comment.
Does not belong here: who gets it (`rules.py`), how it is sent (one module per kind).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dagster_project.errors import one_line

TYPE = "score.changed"
# The first reasons say most; more make no better comment.
MOST_REASONS = 3
_FACTS = ("alert_id", "raised_at", "rule", "entity", "team", "severity", "title")
_NUMBERS = ("probability", "probability_at_raise", "low", "high")


@dataclass(frozen=True)
class Waiting:
    """A message in the outbox. target : what the destination calls the alert. attempts : those begun before."""

    delivery_id: int
    alert_id: str
    target: str
    message_id: str
    message: str
    attempts: int

    @property
    def data(self) -> dict[str, Any]:
        """The facts and numbers of the message."""
        return dict(json.loads(self.message)["data"])

    @property
    def reference(self) -> str:
        """What a comment carries, so that an attempt that may have arrived is recognised before the next one."""
        return f"[heed {self.message_id[-12:]}]"

    @property
    def comment(self) -> str:
        """The message as a comment for people."""
        return f"{self.data['text']} {self.reference}"


def document(score: dict[str, Any], now: datetime) -> str:
    """The message about one score as JSON text.

    score : a row of `reporting.alert_scores_latest`, with `reasons` as a list.
    """
    data: dict[str, Any] = {name: score[name] for name in (*_FACTS, *_NUMBERS)}
    data |= {
        "flags": {"flood": score["flood"], "visibility_only": score["visibility_only"]},
        "flag_words": score["flag_words"],
        "status": score["status"],
        "reasons": score["reasons"],
        "model_version": score["model_version"],
        "as_of": score["as_of"],
        "text": words(score),
    }
    return json.dumps({"type": TYPE, "timestamp": now, "data": data}, default=_text, ensure_ascii=False)


def words(score: dict[str, Any]) -> str:
    """The score in one or two sentences."""
    chance, before = score["probability"], score["probability_at_raise"]
    text = f"heed: {chance:.0%} chance that somebody acts on this alert"
    if score["flag_words"]:
        return one_line(f"{text}. {score['flag_words']}.")
    if before is not None and f"{before:.0%}" != f"{chance:.0%}":
        text += f" ({before:.0%} when it was raised)"
    if score["reasons"]:
        text += f". Why: {'; '.join(score['reasons'][:MOST_REASONS])}"
    return one_line(f"{text}.")


def example(now: datetime) -> str:
    """The message of `heed destinations --test`."""
    score: dict[str, Any] = {name: None for name in (*_FACTS, *_NUMBERS, "flag_words", "model_version")}
    score |= {"alert_id": "heed-test", "raised_at": now, "rule": "heed test", "probability": 0.5, "status": "test"}
    score |= {"title": "A test of `heed destinations --test`", "flood": False, "visibility_only": False, "as_of": now}
    return document({**score, "reasons": ["this is a test"]}, now)


def _text(value: Any) -> str:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else str(value)
