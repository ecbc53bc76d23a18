"""Rows of the contract, as webhooks make them.

Belongs here: the rows, and reading values from a payload with errors that name the place.
Does not belong here: the shape of one system's payload (`vendors.py`), writing rows (`intake.py`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from dagster_project.serving.api.models import shown
from dagster_project.serving.problem import Problem


@dataclass
class Rows:
    """What one webhook says. ignored : events in it that are neither an alert nor an action."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    ignored: int = 0

    def alert(self, alert_id: str, raised_at: Any, rule: Any, **further: Any) -> None:
        """Add an alert. further : other columns of `raw.alerts`; attributes : facts known when it was raised."""
        facts = {name: value for name, value in (further.pop("attributes", None) or {}).items() if value is not None}
        row = {"alert_id": alert_id, "raised_at": text(raised_at), "rule": text(rule)}
        row |= {name: text(value) for name, value in further.items() if value is not None}
        self.alerts.append({**row, "attributes": json.dumps(facts, sort_keys=True)} if facts else row)

    def action(self, action_id: str, alert_id: str, acted_at: Any, action_type: str, actor: Any = None) -> None:
        """Add an action."""
        row = {"action_id": action_id, "alert_id": alert_id, "acted_at": text(acted_at), "action_type": action_type}
        self.actions.append(row if actor is None else {**row, "actor": text(actor)})


def text(value: Any) -> str:
    """A value as `raw` holds it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def need(payload: Any, path: str) -> Any:
    """The value at a dotted path.

    Raises
    ------
    Problem
        422: it is missing, or empty.
    """
    value = at(payload, path)
    if value is None or value == "":
        raise Problem(422, f"the webhook has no {shown(path)}", "send it as its system documents it")
    return value


def at(payload: Any, path: str) -> Any:
    """The value at a dotted path; None where there is none. A number is a place in a list."""
    for part in path.split("."):
        if isinstance(payload, list) and part.isdigit():
            payload = payload[int(part)] if int(part) < len(payload) else None
        elif isinstance(payload, dict):
            payload = payload.get(part)
        else:
            return None
    return payload
