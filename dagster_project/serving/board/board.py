"""The open alerts of a warehouse in memory, in the board's order.

Belongs here: reading them, their order, and when they are read again.
Does not belong here: filters and pages (`filter.py`), the slider's figures (`workload.py`), markup (`pages.py`), one
alert's document (`api/scores.py`).

Open alerts change only when a run publishes, so their few columns are read once per publication, in a thread of their
own, and filtered in memory as arrays. The rows of a page come from the same lookup as the API's scores. With 100,000
of 700,000 scored alerts open, reading takes seconds and a page some 50 ms (`make benchmark-service`). So `heed serve`
reads them before it announces its address, and after a publication requests see the previous board until the new one
is ready.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, TimeoutError
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from psycopg2.extensions import cursor as Cursor

from dagster_project.serving.api.closing import open_closings
from dagster_project.serving.api.scores import NEW_RULE_DAYS, UNPREDICTABLE
from dagster_project.serving.board.workload import Past, read_past
from dagster_project.serving.freshness import Freshness
from dagster_project.serving.pool import Pool, rows

# A run that failed may have changed outcomes without publishing; the board follows after this long.
SNAPSHOT_SECONDS = 300.0
# How long the first request after a publication waits for the new board before it takes the previous one: a small
# warehouse is read well within it, and a page may take 300 ms.
PATIENCE_SECONDS = 0.1
FLAG_COLUMNS = ("flood", "visibility_only", "unpredictable_team", "new_rule", "closing")

# Flagged alerts come last: their number is the rate of their kind.
_OPEN = f"""
WITH cards AS (
    SELECT DISTINCT ON (model_version, team) model_version, team, status FROM training.team_scorecards
    ORDER BY model_version, team, as_of DESC
)
SELECT scores.alert_id, scores.raised_at, scores.rule, scores.team, scores.probability, scores.flood,
       scores.visibility_only, coalesce(cards.status = '{UNPREDICTABLE}', false) AS unpredictable_team,
       coalesce(scores.raised_at < rules.first_raised_at + interval '{NEW_RULE_DAYS} days', false) AS new_rule
FROM reporting.alert_scores_latest AS scores
LEFT JOIN marts.rules AS rules ON rules.rule = scores.rule
LEFT JOIN cards ON cards.model_version = scores.model_version AND cards.team = scores.team
WHERE scores.is_open
ORDER BY scores.flood OR scores.visibility_only, scores.probability DESC NULLS LAST, scores.raised_at DESC,
         scores.alert_id COLLATE "C"
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

    @property
    def flagged(self) -> np.ndarray:
        """bool[open alerts]: flood or visibility-only; their number is the rate of their kind."""
        return self.flags["flood"] | self.flags["visibility_only"]


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
            raised_at=np.array([utc_without_zone(raised_at) for raised_at in take("raised_at")], "datetime64[us]"),
            rule=np.array([rule[name] for name in take("rule")], np.int64),
            team=np.array([team.get(name, -1) for name in take("team")], np.int64),
            probability=np.array(take("probability"), float),  # None becomes nan
            flags={name: np.array(take(name), bool) for name in FLAG_COLUMNS},
        )


class Board:
    """The open alerts of one warehouse, kept until a run publishes. Safe to use from many threads.

    pool : connections; the board is read on one of them, in a thread of its own.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._snapshot: Snapshot | None = None
        self._publication: tuple[datetime, datetime] | None = None
        self._until = 0.0
        self._reading: Future[None] | None = None
        self._failure: BaseException | None = None  # of the last reading, until a caller was told

    def snapshot(self, freshness: Freshness) -> Snapshot:
        """The snapshot of the newest publication, or the previous one while the new one is being read.

        Raises Problem: it could not be read.
        """
        publication = freshness.as_of, freshness.published_at
        with self._lock:
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            reading, begun = self._reading, False
            if reading is None:
                current = self._publication == publication and time.monotonic() < self._until
                if self._snapshot is not None and current:
                    return self._snapshot
                reading, begun = Future(), True
                self._reading = reading
                threading.Thread(target=self._read, args=(reading, freshness), daemon=True).start()
            before = self._snapshot
        if before is not None and not begun:  # only the request that began the reading waits a little
            return before
        try:
            reading.result(timeout=PATIENCE_SECONDS if before is not None else None)
        except TimeoutError:
            pass
        except BaseException:
            self._failure = None  # raised here
            raise
        snapshot = self._snapshot
        assert snapshot is not None
        return snapshot

    def _read(self, reading: Future[None], freshness: Freshness) -> None:
        publication = freshness.as_of, freshness.published_at
        before = self._snapshot
        past = before.past if before and self._publication == publication else None
        try:
            snapshot = self._pool.read(lambda cursor: read_snapshot(cursor, past))
        except BaseException as error:
            with self._lock:
                self._reading, self._failure = None, error
            reading.set_exception(error)
            return
        with self._lock:
            self._snapshot, self._publication = snapshot, publication
            self._until = time.monotonic() + SNAPSHOT_SECONDS
            self._reading = None
        reading.set_result(None)


def read_snapshot(cursor: Cursor, past: Past | None = None) -> Snapshot:
    """The open alerts as of now. past : the past, if it is known already."""
    closing = open_closings(cursor)
    alerts = in_board_order([OpenAlert(**row, closing=row["alert_id"] in closing) for row in rows(cursor, _OPEN)])
    snapshot = Snapshot(
        alerts=alerts,
        past=past or read_past(cursor),
        teams=tuple(sorted({alert.team for alert in alerts if alert.team is not None})),
        rules=tuple(sorted({alert.rule for alert in alerts})),
        without_team=any(alert.team is None for alert in alerts),
    )
    snapshot.columns  # noqa: B018  (computed here, so that no request waits for it)
    return snapshot


def in_board_order(alerts: Sequence[OpenAlert]) -> tuple[OpenAlert, ...]:
    """The alerts in order, with those without a shown score at random places among them, always the same places.

    At the end or on top, the place itself would tell people how much they matter.
    """
    shown = [alert for alert in alerts if alert.probability is not None]
    order = [(at, 1, "", alert) for at, alert in enumerate(shown)]
    for alert in alerts:
        if alert.probability is None:
            draw = int.from_bytes(hashlib.sha256(alert.alert_id.encode()).digest()[:6])
            order.append(((len(shown) + 1) * draw // 2**48, 0, alert.alert_id, alert))
    return tuple(alert for *_, alert in sorted(order, key=lambda each: each[:3]))


def utc_without_zone(moment: datetime) -> datetime:
    """The same moment in UTC, without its zone, as numpy wants it."""
    return moment.astimezone(UTC).replace(tzinfo=None)
