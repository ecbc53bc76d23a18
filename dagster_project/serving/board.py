"""What the board shows: the open alerts that a filter lets through, by actionability, and what a threshold does.

Belongs here: filters, order, pages, the open alerts in memory, the figures beside the slider.
Does not belong here: markup (`pages.py`), one alert's document (`scores.py`).

Open alerts change only when a run publishes, so their few columns are read once per publication and filtered in
memory; the rows of a page come from the same lookup as the API's scores.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from math import sqrt
from typing import Any
from urllib.parse import urlencode

from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.freshness import Freshness
from dagster_project.serving.pool import rows
from dagster_project.serving.scores import NEW_RULE_DAYS, UNPREDICTABLE

PAGE = 100
# A run that failed may have changed outcomes without publishing; the board follows after this long.
SNAPSHOT_SECONDS = 300.0
STEPS = 101  # thresholds: 0% to 100%
# Where the slider starts: the highest threshold below which at most this share of past actions lay. A convention of
# the evaluation (workload saved at 5% missed), not a recommendation.
STARTING_MISSED = 0.05

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
}
NO_TEAM = " "  # the option for alerts that name no team; cleaning trims names, so no team is called that

# The view, an open alert at a time: OFFSET keeps PostgreSQL from ranking the scores of all closed alerts first. With
# 600,000 scored alerts, 23,400 of them open, it takes 1 s instead of 3.
_OPEN = f"""
WITH cards AS (
    SELECT DISTINCT ON (model_version, team) model_version, team, status FROM training.team_scorecards
    ORDER BY model_version, team, as_of DESC
)
SELECT scores.alert_id, scores.raised_at, scores.rule, scores.team, scores.probability, scores.flood,
       scores.visibility_only, coalesce(cards.status = '{UNPREDICTABLE}', false) AS unpredictable_team,
       coalesce(scores.raised_at < rules.first_raised_at + interval '{NEW_RULE_DAYS} days', false) AS new_rule
FROM (SELECT alert_id FROM marts.alert_outcomes WHERE outcome IS NULL) AS still_open
CROSS JOIN LATERAL (
    SELECT * FROM reporting.alert_scores_latest AS latest WHERE latest.alert_id = still_open.alert_id OFFSET 0
) AS scores
LEFT JOIN marts.rules AS rules ON rules.rule = scores.rule
LEFT JOIN cards ON cards.model_version = scores.model_version AND cards.team = scores.team
ORDER BY scores.probability DESC, scores.raised_at DESC, scores.alert_id COLLATE "C"
"""
_WORKLOAD = """
SELECT alerts_below, acted_below, alerts, acted, share_saved IS NOT NULL AND acted > 0 AS enough
FROM reporting.triage_workload ORDER BY threshold
"""
# The evaluation of the version that scores: a simple rule stands in it under its own name.
_FORECASTS = """
SELECT reliability.mean_forecast, reliability.alerts, reliability.acted
FROM training.reliability AS reliability
JOIN training.model_versions AS versions USING (model_version)
WHERE reliability.model_version = %(version)s
  AND reliability.contender = CASE WHEN versions.kind = 'lightgbm' THEN 'model' ELSE versions.kind END
  AND reliability.as_of = (SELECT max(as_of) FROM training.reliability WHERE model_version = %(version)s)
"""


@dataclass(frozen=True, slots=True)
class OpenAlert:
    """The columns by which open alerts are filtered and ordered."""

    alert_id: str
    raised_at: datetime
    rule: str
    team: str | None
    probability: float
    flood: bool
    visibility_only: bool
    unpredictable_team: bool
    new_rule: bool


@dataclass(frozen=True)
class Past:
    """For each threshold in percent, what lay below it in the past.

    source : 'scores': scores that were given, with their outcomes. 'evaluation': forecasts of past alerts by models
    that had not seen them. 'none': neither is there.
    """

    source: str = "none"
    alerts: int = 0
    acted: int = 0
    alerts_below: tuple[int, ...] = ()
    acted_below: tuple[int, ...] = ()

    def start(self) -> int:
        """The threshold, in percent, at which the slider starts."""
        within = [step for step, missed in enumerate(self.acted_below) if missed <= STARTING_MISSED * self.acted]
        return max(within, default=0)


@dataclass(frozen=True)
class Snapshot:
    """The open alerts, in the board's order, and the past, as one publication left them."""

    alerts: tuple[OpenAlert, ...]
    past: Past
    teams: tuple[str, ...]
    rules: tuple[str, ...]
    without_team: bool


@dataclass(frozen=True)
class Filter:
    """What the reader chose. Words that mean nothing are read as no choice: a bookmark must not break."""

    team: str = ""
    rule: str = ""
    age: str = ""
    flag: str = ""
    threshold: int | None = None
    page: int = 1
    by: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> Filter:
        age, flag = given.get("age", ""), given.get("flag", "")
        name = lambda part: given.get(part, "").replace("\r\n", "\n")  # noqa: E731  (forms change line breaks)
        threshold = _whole(given.get("threshold", ""))
        return cls(
            team=name("team"),
            rule=name("rule"),
            age=age if age in AGES else "",
            flag=flag if flag in FLAGS else "",
            threshold=threshold if threshold is not None and 0 <= threshold < STEPS else None,
            page=max(_whole(given.get("page", "")) or 1, 1),
            by=given.get("by", "")[:200],
        )

    def query(self, **changed: Any) -> str:
        """The query string that means this filter, with some parts changed."""
        parts = {**vars(self), **changed}
        if parts["page"] == 1:
            parts["page"] = ""
        return urlencode({name: value for name, value in parts.items() if value not in ("", None)})

    def lets_through(self, alert: OpenAlert, now: datetime) -> bool:
        if self.team and alert.team != (None if self.team == NO_TEAM else self.team):
            return False
        if self.rule and alert.rule != self.rule:
            return False
        if self.age == "older" and now - alert.raised_at <= timedelta(days=7):
            return False
        if self.age in ("1", "3", "7") and now - alert.raised_at > timedelta(days=int(self.age)):
            return False
        if self.flag == "none":
            return not (alert.flood or alert.visibility_only or alert.unpredictable_team or alert.new_rule)
        return not self.flag or bool(getattr(alert, self.flag))


@dataclass(frozen=True)
class Workload:
    """The figures beside the slider: one text per threshold in percent for each of them."""

    threshold: int
    waiting: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    saved: list[str] = field(default_factory=list)
    saved_of: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    missed_of: list[str] = field(default_factory=list)

    def steps(self) -> dict[str, list[str]]:
        return {name: texts for name, texts in vars(self).items() if name != "threshold"}


@dataclass(frozen=True)
class BoardPage:
    """One page of the board, without the documents of its alerts."""

    filter: Filter
    alert_ids: list[str]
    matching: int
    pages: int
    first: int
    workload: Workload


class Board:
    """The open alerts of one warehouse, kept while no run publishes. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._stands_for: tuple[datetime, datetime] | None = None
        self._until = 0.0

    def snapshot(self, cursor: Cursor, freshness: Freshness) -> Snapshot:
        """The snapshot that belongs to the newest publication.

        One reader makes it; meanwhile the others get the one before it, rather than wait.
        """
        publication = freshness.as_of, freshness.published_at
        if self._snapshot is not None and self._stands_for == publication and time.monotonic() < self._until:
            return self._snapshot
        if not self._lock.acquire(blocking=self._snapshot is None):
            assert self._snapshot is not None
            return self._snapshot
        try:
            before = self._snapshot
            if before is None or self._stands_for != publication or time.monotonic() > self._until:
                past = before.past if before and self._stands_for == publication else None
                self._snapshot = read_snapshot(cursor, freshness.model_version, past)
                self._stands_for = publication
                self._until = time.monotonic() + SNAPSHOT_SECONDS
            assert self._snapshot is not None
            return self._snapshot
        finally:
            self._lock.release()


def read_snapshot(cursor: Cursor, model_version: str | None, past: Past | None = None) -> Snapshot:
    """The open alerts, read anew. past : what is known to stand already."""
    alerts = tuple(OpenAlert(**row) for row in rows(cursor, _OPEN))
    return Snapshot(
        alerts=alerts,
        past=past or _past(cursor, model_version),
        teams=tuple(sorted({alert.team for alert in alerts if alert.team is not None})),
        rules=tuple(sorted({alert.rule for alert in alerts})),
        without_team=any(alert.team is None for alert in alerts),
    )


def turn_to(snapshot: Snapshot, wanted: Filter, now: datetime) -> BoardPage:
    """The page that the filter asks for; the last one where there are fewer."""
    passing = [alert for alert in snapshot.alerts if wanted.lets_through(alert, now)]
    pages = max(1, -(-len(passing) // PAGE))
    page = min(wanted.page, pages)
    threshold = wanted.threshold if wanted.threshold is not None else snapshot.past.start()
    first = (page - 1) * PAGE
    return BoardPage(
        filter=Filter(**{**vars(wanted), "page": page}),
        alert_ids=[alert.alert_id for alert in passing[first : first + PAGE]],
        matching=len(passing),
        pages=pages,
        first=first + 1,
        workload=_workload((alert.probability for alert in passing), snapshot.past, threshold),
    )


def _past(cursor: Cursor, model_version: str | None) -> Past:
    given = rows(cursor, _WORKLOAD)
    if given and given[0]["enough"]:
        return Past(
            "scores",
            int(given[0]["alerts"]),
            int(given[0]["acted"]),
            tuple(int(row["alerts_below"]) for row in given),
            tuple(int(row["acted_below"]) for row in given),
        )
    bins = rows(cursor, _FORECASTS, {"version": model_version})
    acted = sum(int(row["acted"]) for row in bins)
    if not acted:
        return Past()
    below = [[row for row in bins if row["mean_forecast"] < step / 100] for step in range(STEPS)]
    return Past(
        "evaluation",
        sum(int(row["alerts"]) for row in bins),
        acted,
        tuple(sum(int(row["alerts"]) for row in part) for part in below),
        tuple(sum(int(row["acted"]) for row in part) for part in below),
    )


def _workload(probabilities: Iterable[float], past: Past, threshold: int) -> Workload:
    rising = sorted(probabilities)
    sums = [0.0, *accumulate(rising)]
    made = Workload(threshold)
    for step in range(STEPS):
        below = bisect_left(rising, step / 100)
        made.waiting.append(f"{below:,} of {len(rising):,} ({_share(below, len(rising))})")
        made.expected.append(f"about {_rough(sums[below])} of {_rough(sums[-1])}")
        if past.source == "none":
            for texts in (made.saved, made.missed):
                texts.append("not known yet")
            for texts in (made.saved_of, made.missed_of):
                texts.append("too few outcomes are known")
            continue
        saved, missed = past.alerts_below[step], past.acted_below[step]
        low, high = wilson(missed, past.acted)
        made.saved.append(_share(saved, past.alerts))
        made.saved_of.append(f"{saved:,} of {past.alerts:,} past alerts lay below")
        made.missed.append(_share(missed, past.acted))
        made.missed_of.append(f"{missed:,} of {past.acted:,} past actions; 95% interval {low:.1%} to {high:.1%}")
    return made


def wilson(part: int, whole: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share (1927): it holds its level near 0 and 1, where shares of misses are."""
    z = 1.959964
    share = part / whole
    middle = (share + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z / (1 + z * z / whole) * sqrt(share * (1 - share) / whole + z * z / (4 * whole * whole))
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "none"


def _rough(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
