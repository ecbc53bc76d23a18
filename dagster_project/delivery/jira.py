"""A comment on a Jira issue.

Belongs here: Jira's REST API, version 2: it takes plain text, in the cloud and on own servers.
Does not belong here: Jira's exports.
"""

from __future__ import annotations

from urllib.parse import quote

from dagster_project.delivery.comments import comment
from dagster_project.delivery.http import Client, Outcome
from dagster_project.delivery.message import Waiting
from dagster_project.delivery.servicenow import authorization
from dagster_project.settings import Destination


def send(row: Waiting, destination: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Add a comment. With `user` (the cloud) the secret is an API token, without it a personal access token."""
    comments = f"{address}/rest/api/2/issue/{quote(row.target, safe='')}/comment"
    headers = {"Authorization": authorization(destination.user, secret), "Accept": "application/json"}
    newest = f"{comments}?orderBy=-created&maxResults=50"
    return comment(row, comments, newest, {"body": row.comment}, headers, client)
