"""A field of a ServiceNow record.

Belongs here: ServiceNow's Table API, and the header that it shares with Jira.
Does not belong here: ServiceNow's exports.
"""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

from dagster_project.delivery.http import DELIVERED, Client, Outcome
from dagster_project.delivery.message import Waiting
from dagster_project.settings import Destination

_SYS_ID = re.compile(r"[0-9a-f]{32}")


def authorization(user: str, secret: str) -> str:
    """HTTP Basic with a user, else a bearer token."""
    if not user:
        return f"Bearer {secret}"
    return "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def send(row: Waiting, destination: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Set the field to the chance now in percent. A record is named by its sys_id, or by its number.

    Setting a field twice is harmless.
    """
    table = f"{address}/api/now/table/{destination.table}"
    headers = {"Authorization": authorization(destination.user, secret), "Accept": "application/json"}
    record = row.target
    if not _SYS_ID.fullmatch(record):
        if "^" in record:  # it would end the condition
            return Outcome("failed", f"{record!r} is not the number of a record")
        query = f"sysparm_query={quote(f'number={record}', safe='')}&sysparm_fields=sys_id&sysparm_limit=1"
        answer = client.ask("GET", f"{table}?{query}", headers=headers)
        rows = answer.get("result") if isinstance(answer, dict) else None
        if not rows:
            return Outcome("failed", f"there is no {destination.table} with the number {record}")
        record = str(rows[0]["sys_id"])
    value = f"{100 * row.data['probability']:.0f}"
    client.ask("PATCH", f"{table}/{quote(record, safe='')}", headers=headers, json={destination.field: value})
    return DELIVERED
