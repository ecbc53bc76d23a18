"""Incidents of PagerDuty, by its own client, which knows its pages, limits and regions.

Belongs here: PagerDuty's REST API, version 2. Does not belong here: what an incident means (the preset).

The list can be asked only by when an incident was created: see `days`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from dagster_project.errors import HeedError, one_line
from dagster_project.loading.pulls import http
from dagster_project.loading.pulls.page import Asked, Page, Position, Stream, days
from dagster_project.settings import PullSource

URL = "https://api.pagerduty.com"


def streams(source: PullSource) -> list[Stream]:
    """All incidents that the token may read."""
    return [Stream("incidents", "pagerduty", _incidents)]


def _incidents(asked: Asked, position: Position) -> Iterator[Page]:
    try:
        import pagerduty
    except ImportError as error:
        raise HeedError("heed pull needs the pagerduty client, which is not installed", http.REMEDY) from error
    try:
        client = pagerduty.RestApiV2Client(asked.secret, base_url=asked.source.url or URL)
        client.timeout, client.sleep_timer = int(http.SECONDS), http.BACKOFF_SECONDS
        # Limits last a minute; its waits double. Without a number it waits for them without end.
        client.retry = {**dict.fromkeys((500, 502, 503, 504), 5), 429: 8}
        with client:
            for begin, end, reached in days(asked, position):
                # A second more than the window: whether its ends belong to it is not documented.
                records = list(client.iter_history("/incidents", begin - timedelta(seconds=1), end))
                yield Page(records, reached)
    except pagerduty.Error as error:
        text = one_line(str(error).replace(asked.secret, "***"))[:300]
        raise HeedError(
            f"PagerDuty does not answer: {text}", "check the token; the next pull goes on from here"
        ) from error
