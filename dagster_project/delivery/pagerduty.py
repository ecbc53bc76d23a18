"""A note on a PagerDuty incident.

Belongs here: PagerDuty's REST API, version 2. Does not belong here: PagerDuty's webhooks.
"""

from __future__ import annotations

from urllib.parse import quote

from dagster_project.delivery.comments import comment
from dagster_project.delivery.http import Client, Outcome
from dagster_project.delivery.message import Waiting
from dagster_project.settings import Destination

URL = "https://api.pagerduty.com"


def send(row: Waiting, destination: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Add a note. `user` is the e-mail address of a PagerDuty user, which notes need (header From)."""
    notes = f"{address or URL}/incidents/{quote(row.target, safe='')}/notes"
    headers = {
        "Authorization": f"Token token={secret}",
        "Accept": "application/vnd.pagerduty+json;version=2",
        "From": destination.user,
    }
    return comment(row, notes, notes, {"note": {"content": row.comment}}, headers, client)
