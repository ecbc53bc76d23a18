"""Records of a table of ServiceNow.

Belongs here: the Table API. Does not belong here: what an incident means (the preset).

Each page asks for what changed since the last record of the one before, so that a record that changes meanwhile is
seen again, and none is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dagster_project.loading.pulls.http import ask, client, listed
from dagster_project.loading.pulls.page import Asked, Page, Position, Stream
from dagster_project.settings import PullSource

LIMIT = 500


def streams(source: PullSource) -> list[Stream]:
    """The records of `table` that `query`, an encoded query, selects."""
    return [Stream(f"{source.table} {source.query}".strip(), "servicenow", _records)]


def _records(asked: Asked, position: Position) -> Iterator[Page]:
    source = asked.source
    bearer = {} if source.user else {"Authorization": f"Bearer {asked.secret}"}
    table = client(source.url, headers=bearer, auth=(source.user, asked.secret) if source.user else None)
    own = f"{source.query}^" if source.query else ""
    changed, offset = asked.since(position).strftime("%Y-%m-%d %H:%M:%S"), 0
    while True:
        params: dict[str, Any] = {
            "sysparm_query": f"{own}sys_updated_on>={changed}^ORDERBYsys_updated_on^ORDERBYsys_id",
            "sysparm_limit": LIMIT,
            "sysparm_offset": offset,
            "sysparm_display_value": "all",
            "sysparm_exclude_reference_link": "true",
        }
        rows = [_plain(row) for row in listed(ask(table, f"/api/now/table/{source.table}", params), "result")]
        if not rows:
            return
        yield Page(rows, {"since": rows[-1]["sys_updated_on"]})
        # Where a page ends in the second in which it began, go on behind it: many records change at once.
        offset = offset + len(rows) if rows[-1]["sys_updated_on"] == changed else 0
        changed = rows[-1]["sys_updated_on"]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """A record with names for people, and times in UTC: the value of a time is, its display is in the user's zone."""
    plain = {}
    for name, cell in row.items():
        if not isinstance(cell, dict):
            plain[name] = cell
        elif name.endswith(("_at", "_on")) or name in ("sys_id", "number"):
            plain[name] = cell.get("value")
        else:
            plain[name] = cell.get("display_value") or cell.get("value")
    return plain
