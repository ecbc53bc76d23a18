"""What heed expects in a file: kinds of files, their columns, and how names are compared and shown.

Belongs here: the contract's columns per kind of file.
Does not belong here: users' names for them (`mapping.py`), the columns of one file (`columns.py`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Literal, get_args

Kind = Literal["alerts", "actions", "rules", "action_types"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Columns of the raw tables that users bring, in the tables' order. The first one is the row's id.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "alerts": (
        "alert_id",
        "raised_at",
        "rule",
        "entity",
        "team",
        "severity",
        "value",
        "threshold",
        "title",
        "attributes",
    ),
    "actions": ("action_id", "alert_id", "acted_at", "action_type", "actor", "attributes"),
    "rules": ("rule", "title", "team", "declared_visibility_only", "created_at"),
    "action_types": ("action_type", "meaning"),
}
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "alerts": ("alert_id", "raised_at", "rule"),
    "actions": ("action_id", "alert_id", "acted_at", "action_type"),
    "rules": ("rule",),
    "action_types": ("action_type", "meaning"),
}
NUMBERS = ("value", "threshold")
# heed writes these itself. A file that has them (an export of heed's own tables) must not decide them, and as
# attributes they would be facts that were not known when the alert was raised.
OWN_COLUMNS = ("loaded_at", "row_hash", "load_id")


def normal_name(name: str) -> str:
    """A column name without regard to case, blanks, hyphens and underscores: "Alert ID" is alert_id."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def shown(name: object, limit: int = 60) -> str:
    """A user's text as one short quoted piece of an error message, without control characters."""
    text = str(name)
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return "'" + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) + "'"


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like a name, or None when nothing is like it."""
    by_normal: dict[str, str] = {}
    for candidate in candidates:
        by_normal.setdefault(normal_name(candidate)[:200], candidate)
    # 0.5 finds 'raise_time' for 'raised_at' and 'id' for nothing; 0.6, the default, finds neither.
    matches = difflib.get_close_matches(normal_name(name)[:200], list(by_normal), n=1, cutoff=0.5)
    return by_normal[matches[0]] if matches else None
