"""A comment on a Sentry issue.

Belongs here: Sentry's REST API. Does not belong here: Sentry's webhooks.

A comment, not a tag: tags belong to events and are set by the program that sends them. Sentry's API cannot add one to
an issue.
"""

from __future__ import annotations

from urllib.parse import quote

from dagster_project.delivery.comments import comment
from dagster_project.delivery.http import Client, Outcome
from dagster_project.delivery.message import Waiting
from dagster_project.settings import Destination

URL = "https://sentry.io"


def send(row: Waiting, destination: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Add a comment to the issue with this id."""
    comments = f"{address or URL}/api/0/issues/{quote(row.target, safe='')}/comments/"
    return comment(row, comments, comments, {"text": row.comment}, {"Authorization": f"Bearer {secret}"}, client)
