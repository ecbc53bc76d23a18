"""What the board shows: the open alerts that a filter lets through, by actionability, and what a threshold does.

Belongs here: filters, order, pages, the open alerts in memory, the figures beside the slider.
Does not belong here: markup (`board/pages.py`), one alert's document (`api/scores.py`).

Open alerts change only when a run publishes, so their few columns are read once per publication, beside the requests,
and filtered in memory as arrays; the rows of a page come from the same lookup as the API's scores. With 100,000 of
700,000 scored alerts open, reading takes seconds and a page some 50 ms (`make benchmark-service`): so `heed serve`
reads before it says that it is there, and after a publication requests see the board before it until the new one is
ready.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from math import sqrt
from typing import Any
from urllib.parse import urlencode

import numpy as np
from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.api.closing import open_closings
from dagster_project.serving.api.scores import NEW_RULE_DAYS, UNPREDICTABLE
from dagster_project.serving.freshness import Freshness
from dagster_project.serving.pool import Pool, rows

PAGE = 100
# A run that failed may have changed outcomes without publishing; the board follows after this long.
SNAPSHOT_SECONDS = 300.0
# So long the first request after a publication waits for the new board before it takes the one before it: a small
# warehouse is read well within it, and a page may take 300 ms.
PATIENCE_SECONDS = 0.1
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
    "closing": "to be closed",
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
ORDER BY scores.probability DESC NULLS LAST, scores.raised_at DESC, scores.alert_id COLLATE "C"
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
    probability: float | None
    flood: bool
    visibility_only: bool
    unpredictable_team: bool
    new_rule: bool
    closing: bool = False


@dataclass(frozen=True)
class Columns:
    """The same as arrays[open alerts], in the board's order.

    raised_at : datetime64[us] in UTC. rule, team : codes into `rules` and `teams` of the snapshot; -1: no team.
    probability : nan where none is shown. flags : name -> bool.
    """

    raised_at: np.ndarray
    rule: np.ndarray
    team: np.ndarray
    probability: np.ndarray
    flags: dict[str, np.ndarray]


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

    @cached_property
    def columns(self) -> Columns:
        team = {name: code for code, name in enumerate(self.teams)}
        rule = {name: code for code, name in enumerate(self.rules)}
        take = lambda name: [getattr(alert, name) for alert in self.alerts]  # noqa: E731
        return Columns(
            raised_at=np.array([_moment(raised_at) for raised_at in take("raised_at")], "datetime64[us]"),
            rule=np.array([rule[name] for name in take("rule")], np.int64),
            team=np.array([team.get(name, -1) for name in take("team")], np.int64),
            probability=np.array(take("probability"), float),  # None becomes nan
            flags={name: np.array(take(name), bool) for name in FLAGS if name not in ("", "none")},
        )


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

    def lets_through(self, snapshot: Snapshot, now: datetime) -> np.ndarray:
        """bool[open alerts]."""
        columns = snapshot.columns
        passing = np.ones(len(snapshot.alerts), bool)
        if self.team:
            code = snapshot.teams.index(self.team) if self.team in snapshot.teams else None
            passing &= columns.team == (-1 if self.team == NO_TEAM else -2 if code is None else code)
        if self.rule:
            passing &= columns.rule == (snapshot.rules.index(self.rule) if self.rule in snapshot.rules else -2)
        if self.age:
            days = 7 if self.age == "older" else int(self.age)
            is_old = columns.raised_at < np.datetime64(_moment(now - timedelta(days=days)), "us")
            passing &= is_old if self.age == "older" else ~is_old
        if self.flag == "none":
            # A decision to close is no caveat about the score.
            passing &= ~np.logical_or.reduce([flag for name, flag in columns.flags.items() if name != "closing"])
        elif self.flag:
            passing &= columns.flags[self.flag]
        return passing


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
    """The open alerts of one warehouse, kept while no run publishes. Safe to use from many threads.

    Parameters
    ----------
    pool : connections; the board is read on one of its own.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._stands_for: tuple[datetime, datetime] | None = None
        self._until = 0.0
        self._reading: Future[None] | None = None
        self._failure: BaseException | None = None  # of the last reading, until somebody was told

    def snapshot(self, freshness: Freshness) -> Snapshot:
        """The snapshot that belongs to the newest publication, or the one before it while the new one is being read.

        Raises
        ------
        Problem
            It could not be read.
        """
        publication = freshness.as_of, freshness.published_at
        with self._lock:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            reading, begun = self._reading, False
            if reading is None:
                current = self._stands_for == publication and time.monotonic() < self._until
                if self._snapshot is not None and current:
                    return self._snapshot
                reading, begun = Future(), True
                self._reading = reading
                threading.Thread(target=self._read, args=(reading, freshness), daemon=True).start()
            before = self._snapshot
        if before is not None and not begun:  # who began it waits a little; everybody else has better things to do
            return before
        try:
            reading.result(timeout=PATIENCE_SECONDS if before is not None else None)
        except TimeoutError:
            pass
        except BaseException:
            self._failure = None  # told here
            raise
        made = self._snapshot
        assert made is not None
        return made

    def _read(self, reading: Future[None], freshness: Freshness) -> None:
        publication = freshness.as_of, freshness.published_at
        before = self._snapshot
        past = before.past if before and self._stands_for == publication else None
        try:
            made = self._pool.read(lambda cursor: read_snapshot(cursor, freshness.model_version, past))
        except BaseException as error:
            with self._lock:
                self._reading, self._failure = None, error
            reading.set_exception(error)
            return
        with self._lock:
            self._snapshot, self._stands_for = made, publication
            self._until = time.monotonic() + SNAPSHOT_SECONDS
            self._reading = None
        reading.set_result(None)


def read_snapshot(cursor: Cursor, model_version: str | None, past: Past | None = None) -> Snapshot:
    """The open alerts, read anew. past : what is known to stand already."""
    closing = open_closings(cursor)
    alerts = in_their_places([OpenAlert(**row, closing=row["alert_id"] in closing) for row in rows(cursor, _OPEN)])
    made = Snapshot(
        alerts=alerts,
        past=past or _past(cursor, model_version),
        teams=tuple(sorted({alert.team for alert in alerts if alert.team is not None})),
        rules=tuple(sorted({alert.rule for alert in alerts})),
        without_team=any(alert.team is None for alert in alerts),
    )
    made.columns  # noqa: B018  (made here, so that no request waits for it)
    return made


def in_their_places(alerts: Sequence[OpenAlert]) -> tuple[OpenAlert, ...]:
    """The alerts in order, those without a shown score at random places among them, always the same ones.

    At the end, or on top, their place itself would tell people how much they matter.
    """
    shown = [alert for alert in alerts if alert.probability is not None]
    order = [(at, 1, "", alert) for at, alert in enumerate(shown)]
    for alert in alerts:
        if alert.probability is None:
            draw = int.from_bytes(hashlib.sha256(alert.alert_id.encode()).digest()[:6])
            order.append(((len(shown) + 1) * draw // 2**48, 0, alert.alert_id, alert))
    return tuple(alert for *_, alert in sorted(order, key=lambda each: each[:3]))


def turn_to(snapshot: Snapshot, wanted: Filter, now: datetime) -> BoardPage:
    """The page that the filter asks for; the last one where there are fewer."""
    passing = np.flatnonzero(wanted.lets_through(snapshot, now))
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
        workload=_workload(snapshot.columns.probability[passing], snapshot.past, threshold),
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


def _workload(probabilities: np.ndarray, past: Past, threshold: int) -> Workload:
    rising = np.sort(probabilities[~np.isnan(probabilities)])
    sums = np.concatenate([[0.0], np.cumsum(rising)])
    made = Workload(threshold)
    for step, below in enumerate(np.searchsorted(rising, [step / 100 for step in range(STEPS)]).tolist()):
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


def _moment(moment: datetime) -> datetime:
    """The same in UTC without its zone, as numpy wants it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
