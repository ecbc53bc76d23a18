"""Which open alerts a page of the board shows: the reader's filter, and turning to a page.

Belongs here: reading the query string, writing it back, selecting alerts.
Does not belong here: reading open alerts (`board.py`), figures (`workload.py`), markup (`pages.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import numpy as np

from dagster_project.serving.board.board import Snapshot, utc_without_zone
from dagster_project.serving.board.workload import STEPS, Workload, workload_of

PAGE = 100

AGES = {
    "": "any age",
    "1": "raised in the last 24 hours",
    "3": "raised in the last 3 days",
    "7": "raised in the last 7 days",
    "older": "older than 7 days",
}
FLAGS = {
    "": "all alerts",
    "none": "without a flag",
    "flood": "flood",
    "visibility_only": "visibility only",
    "unpredictable_team": "unpredictable team",
    "new_rule": "new rule",
    "closing": "to be closed",
}
NO_TEAM = " "  # the option for alerts without a team; cleaning trims names, so no team is called that
PARAMETERS = {
    "team": "A team's name; a blank for alerts without a team.",
    "rule": "A rule's name.",
    "age": f"One of {', '.join(filter(None, AGES))}: days, or older than 7 days.",
    "flag": f"One of {', '.join(filter(None, FLAGS))}.",
    "threshold": "Percent, 0 to 100: where the line in the table is, and what the figures are for.",
    "page": "From 1.",
    "by": "A name for feedback.",
}


@dataclass(frozen=True)
class Filter:
    """What the reader chose. A value that means nothing counts as no choice, so that a bookmark never breaks."""

    team: str = ""
    rule: str = ""
    age: str = ""
    flag: str = ""
    threshold: int | None = None
    page: int = 1
    by: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        age, flag = query.get("age", ""), query.get("flag", "")
        name = lambda part: query.get(part, "").replace("\r\n", "\n")  # noqa: E731  (forms change line breaks)
        threshold = _natural(query.get("threshold", ""))
        return cls(
            team=name("team"),
            rule=name("rule"),
            age=age if age in AGES else "",
            flag=flag if flag in FLAGS else "",
            threshold=threshold if threshold is not None and threshold < STEPS else None,
            page=max(_natural(query.get("page", "")) or 1, 1),
            by=query.get("by", "")[:200],
        )

    def query(self, **changed: Any) -> str:
        """The query string that means this filter, with some parts changed."""
        parts = {**vars(self), **changed}
        if parts["page"] == 1:
            parts["page"] = ""
        return urlencode({name: value for name, value in parts.items() if value not in ("", None)})

    def passing(self, snapshot: Snapshot, now: datetime) -> np.ndarray:
        """Whether each open alert passes: bool[open alerts]."""
        columns = snapshot.columns
        passing = np.ones(len(snapshot.alerts), bool)
        if self.team:
            code = snapshot.teams.index(self.team) if self.team in snapshot.teams else None
            passing &= columns.team == (-1 if self.team == NO_TEAM else -2 if code is None else code)
        if self.rule:
            passing &= columns.rule == (snapshot.rules.index(self.rule) if self.rule in snapshot.rules else -2)
        if self.age:
            days = 7 if self.age == "older" else int(self.age)
            is_old = columns.raised_at < np.datetime64(utc_without_zone(now - timedelta(days=days)), "us")
            passing &= is_old if self.age == "older" else ~is_old
        if self.flag == "none":
            # A decision to close is no caveat about the score.
            passing &= ~np.logical_or.reduce([flag for name, flag in columns.flags.items() if name != "closing"])
        elif self.flag:
            passing &= columns.flags[self.flag]
        return passing


@dataclass(frozen=True)
class BoardPage:
    """One page of the board, without the documents of its alerts."""

    filter: Filter
    alert_ids: list[str]
    matching: int
    pages: int
    first: int
    workload: Workload


def select_page(snapshot: Snapshot, wanted: Filter, now: datetime) -> BoardPage:
    """The page that the filter asks for, or the last one if there are fewer."""
    passing = np.flatnonzero(wanted.passing(snapshot, now))
    pages = max(1, -(-len(passing) // PAGE))
    page = min(wanted.page, pages)
    threshold = wanted.threshold if wanted.threshold is not None else snapshot.past.start()
    first = (page - 1) * PAGE
    return BoardPage(
        filter=Filter(**{**vars(wanted), "page": page}),
        alert_ids=[snapshot.alerts[at].alert_id for at in passing[first : first + PAGE]],
        matching=len(passing),
        pages=pages,
        first=first + 1,
        # Sums are about alerts without a flag, as the figures of the past are.
        workload=workload_of(
            snapshot.columns.probability[passing[~snapshot.columns.flagged[passing]]], snapshot.past, threshold
        ),
    )


def _natural(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
