"""Issues of Sentry, with their activity.

Belongs here: Sentry's API. Does not belong here: what an issue means (the preset).

The list can be asked only by when an issue was first seen (see `days`), and does not say when it was decided: the
record of each issue does, which is asked for unless nothing was done about it.
"""

from __future__ import annotations

from collections.abc import Iterator

from dagster_project.loading.pulls.http import Refused, ask, client, listed
from dagster_project.loading.pulls.page import Asked, Page, Position, Record, Stream, days, written
from dagster_project.settings import PullSource

URL = "https://sentry.io"


def streams(source: PullSource) -> list[Stream]:
    """The issues of `organization` that `query`, a search, selects."""
    return [Stream(f"{source.organization} {source.query}".strip(), "sentry", _issues)]


def _issues(asked: Asked, position: Position) -> Iterator[Page]:
    source = asked.source
    sentry = client(source.url or URL, headers={"Authorization": f"Bearer {asked.secret}"})
    issues = f"/api/0/organizations/{source.organization}/issues/"
    for begin, end, reached in days(asked, position):
        query = f"{source.query} firstSeen:>={written(begin)} firstSeen:<{written(end)}".strip()
        answer = ask(
            sentry,
            issues,
            {"query": query, "sort": "new", "limit": 100, "start": written(begin), "end": written(asked.now)},
        )
        records: list[Record] = []
        while True:
            for issue in listed(answer):
                if issue.get("substatus") == "new":  # nobody has decided yet
                    records.append(issue)
                    continue
                try:
                    records.append(ask(sentry, f"{issues}{issue['id']}/").json())
                except Refused as error:
                    if error.status != 404:  # deleted or merged meanwhile
                        raise
            following = answer.links.get("next", {})
            if following.get("results") != "true":
                break
            answer = ask(sentry, following["url"])
        yield Page(records, reached)
