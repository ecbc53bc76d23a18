"""Dependabot and code scanning alerts of GitHub.

Belongs here: GitHub's REST API. Does not belong here: what an alert means (the presets).

Newest change first: an alert that changes meanwhile moves to the front, which shifts others to where they are seen
twice, and never to where they are passed over. So the position moves when the walk is complete; until then the next
page is kept, from which a walk that was cut off goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from dagster_project.loading.pulls.http import Refused, ask, client, listed
from dagster_project.loading.pulls.page import Asked, Page, Position, Stream, moment
from dagster_project.settings import PullSource

URL = "https://api.github.com"


def streams(source: PullSource) -> list[Stream]:
    """Both kinds of alerts of each of `repositories`: owner/name, or an owner for all of an organization."""
    kinds = (("dependabot", "github-dependabot"), ("code-scanning", "github-code-scanning"))
    return [
        Stream(f"{where} {kind}", preset, partial(_alerts, where, kind))
        for where in source.repositories
        for kind, preset in kinds
    ]


def _alerts(where: str, kind: str, asked: Asked, position: Position) -> Iterator[Page]:
    headers = {"Authorization": f"Bearer {asked.secret}", "X-GitHub-Api-Version": "2022-11-28"}
    github = client(asked.source.url or URL, headers=headers)
    path = f"/{'repos' if '/' in where else 'orgs'}/{where}/{kind}/alerts"
    params: dict[str, Any] | None = {"sort": "updated", "direction": "desc", "per_page": 100}
    top, following = position.get("top", ""), position.get("next", "")
    while True:
        try:
            answer = ask(github, following or path, None if following else params)
        except Refused as error:
            if following and position.get("next") == following and error.status in (400, 404, 410, 422):
                top, following = "", ""  # the place was kept for too long
                continue
            if error.status == 404 and "no analysis found" in str(error):
                return  # code scanning is not in use here
            raise
        alerts = listed(answer)
        top = top or (alerts[0]["updated_at"] if alerts else "")
        since = asked.since(position)
        following = answer.links.get("next", {}).get("url", "")
        done = not following or (bool(alerts) and moment(alerts[-1]["updated_at"]) < since)
        if "/" in where:  # the answer for one repository does not name it
            alerts = [{"repository": {"full_name": where}, **alert} for alert in alerts]
        if done:
            yield Page(alerts, {"since": top} if top else position)
            if "next" not in position:
                return
            position = {"since": top}  # a walk that was cut off is complete: now what came since
            top, following = "", ""
            continue
        yield Page(alerts, {**position, "top": top, "next": following})
