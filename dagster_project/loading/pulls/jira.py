"""Issues of Jira, in the cloud and on own servers.

Belongs here: Jira's search. Does not belong here: what an issue means (the preset).

Oldest change first: an issue that changes meanwhile moves to the end and is seen again. Others move up to its place, so
pages by number would pass one over; each page asks for what changed since the one before instead. JQL compares minutes,
in the time zone of the user: the question is how many minutes ago.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_project.loading.pulls.http import ask, client, listed
from dagster_project.loading.pulls.page import Asked, Page, Position, Stream, moment, written
from dagster_project.settings import PullSource

# The question is up to two minutes wider than it needs to be; further ahead, the next one begins later than this one.
AHEAD = timedelta(minutes=3)
FIELDS = "summary,created,updated,priority,resolution,resolutiondate,assignee,reporter,components,project,issuetype"


def streams(source: PullSource) -> list[Stream]:
    """The issues that `query`, a filter in JQL, selects."""
    return [Stream(f"issues {source.query}".strip(), "jira", _issues)]


def _issues(asked: Asked, position: Position) -> Iterator[Page]:
    source = asked.source
    # With a user the cloud and an API token; without one an own server and a personal access token.
    bearer = {} if source.user else {"Authorization": f"Bearer {asked.secret}"}
    jira = client(source.url, headers=bearer, auth=(source.user, asked.secret) if source.user else None)
    path = "/rest/api/3/search/jql" if source.user else "/rest/api/2/search"
    since = asked.since(position)
    page: dict[str, Any] = {}  # within one question
    seen = 0
    while True:
        minutes = math.ceil((datetime.now(UTC) - since).total_seconds() / 60) + 1
        jql = f'updated >= "-{minutes}m" ORDER BY updated ASC, key ASC'
        jql = f"({source.query}) AND {jql}" if source.query else jql
        answer = ask(jira, path, {"jql": jql, "fields": FIELDS, "maxResults": 100, **page})
        issues, content = listed(answer, "issues"), answer.json()
        seen += len(issues)
        newest = max((moment(issue["fields"]["updated"]) for issue in issues), default=since)
        if issues:
            yield Page(issues, {"since": written(max(newest, since))})
        following = content.get("nextPageToken")
        if not issues or (not following if source.user else seen >= content.get("total", 0)):
            return
        if newest - since >= AHEAD:
            since, page, seen = newest, {}, 0
        else:  # many issues changed within minutes: go on behind them
            page = {"nextPageToken": following} if source.user else {"startAt": seen}
