"""The outbox: messages for other systems, each written before it is sent (`scoring.deliveries`).

Belongs here: reading the scores that may be sent, writing messages, and recording attempts.
Does not belong here: who gets which message (`delivery/rules.py`), sending (`delivery/`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dagster_project.resources.warehouse.connection import Warehouse, append
from dagster_project.resources.warehouse.locks import DELIVERY_LOCK

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

# Holdout alerts have no probability in this view. The highest come first: rate limits then hold up the others.
_SCORES = """
SELECT alert_id, raised_at, rule, entity, team, severity, title, attributes::text AS attributes, probability,
       probability_at_raise, low, high, flag_words, status, reasons::text AS reasons, flood, visibility_only,
       model_version, as_of
FROM reporting.alert_scores_latest
WHERE is_open AND probability IS NOT NULL AND status <> 'holdout'
ORDER BY probability DESC, alert_id
"""
_SAID = """
SELECT DISTINCT ON (alert_id) alert_id, version, probability, flag_words
FROM scoring.deliveries WHERE destination = $1 ORDER BY alert_id, version DESC
"""
_COLUMNS = (
    *("destination", "alert_id", "version", "message_id", "target", "message", "probability", "flag_words"),
    *("model_version", "as_of"),
)
_SUPERSEDE = "UPDATE scoring.deliveries SET outcome = 'superseded', ended_at = now(), detail = $1"
_DUE = """
SELECT delivery_id, alert_id, target, message_id, message, attempts,
       extract(epoch FROM now() - created_at)::double precision AS age,
       extract(epoch FROM next_attempt_at - now())::double precision AS wait
FROM scoring.deliveries WHERE destination = $1 AND outcome = 'waiting'
ORDER BY greatest(next_attempt_at, now()), probability DESC, delivery_id LIMIT 1
"""
_SUMMARY = """
SELECT destination, outcome, count(*) AS messages, max(attempts) AS attempts,
       (array_agg(detail ORDER BY coalesce(ended_at, attempted_at) DESC NULLS LAST))[1] AS detail
FROM scoring.deliveries WHERE outcome <> 'superseded' GROUP BY 1, 2 ORDER BY 1, 2
"""


@dataclass(frozen=True)
class NewMessage:
    """A message for the outbox. version : one more than that of the last message about the alert."""

    alert_id: str
    version: int
    message_id: str
    target: str
    message: str
    probability: float
    flag_words: str | None
    model_version: str | None
    as_of: datetime


def open_scores(warehouse: Warehouse) -> list[dict[str, Any]]:
    """The scores of open alerts as they are read now, the highest first; none of held-out alerts."""
    rows = warehouse.read_arrow(_SCORES).to_pylist()
    return [{**row, "reasons": json.loads(row["reasons"] or "[]")} for row in rows]


def last_messages(warehouse: Warehouse, destination: str) -> dict[str, tuple[int, float, str | None]]:
    """version, probability and flag words of the newest message about each alert."""
    rows = warehouse.read_arrow(_SAID, (destination,)).to_pylist()
    return {row["alert_id"]: (row["version"], row["probability"], row["flag_words"]) for row in rows}


def enqueue(warehouse: Warehouse, destination: str, messages: Sequence[NewMessage], open_alerts: Sequence[str]) -> int:
    """Write messages, in one transaction that also takes back waiting ones: those about the same alerts, and those
    about alerts that are not open, or not shown, any more. Returns how many were written."""
    import pyarrow as pa

    columns = {
        name: [destination if name == "destination" else getattr(each, name) for each in messages] for name in _COLUMNS
    }
    table = pa.table(
        {
            **columns,
            "flag_words": pa.array(columns["flag_words"], pa.string()),
            "model_version": pa.array(columns["model_version"], pa.string()),
        }
    )
    with warehouse.transaction() as cursor:
        cursor.execute("DROP TABLE IF EXISTS pg_temp.still_open")
        cursor.adbc_ingest(
            "still_open", pa.table({"alert_id": pa.array(open_alerts, pa.string())}), mode="create", temporary=True
        )
        cursor.execute(
            f"{_SUPERSEDE} WHERE destination = $2 AND outcome = 'waiting' AND NOT EXISTS "
            "(SELECT FROM pg_temp.still_open WHERE still_open.alert_id = deliveries.alert_id)",
            parameters=("the alert was decided", destination),
        )
        cursor.execute("DROP TABLE pg_temp.still_open")
        if not messages:
            return 0
        added = append(
            cursor,
            "scoring.deliveries",
            table,
            columns=", ".join(_COLUMNS),
            select=", ".join(_COLUMNS) + " FROM pg_temp.incoming",
            conflict="ON CONFLICT DO NOTHING",
        )
        cursor.execute(
            f"{_SUPERSEDE} WHERE destination = $2 AND outcome = 'waiting' AND EXISTS (SELECT FROM scoring.deliveries "
            "AS newer WHERE newer.destination = $2 AND newer.alert_id = deliveries.alert_id "
            "AND newer.version > deliveries.version)",
            parameters=("a newer message follows", destination),
        )
    return added


def withdraw_all_but(warehouse: Warehouse, destinations: Sequence[str]) -> None:
    """Take back what waits for destinations that are no longer in the settings."""
    with warehouse.transaction() as cursor:
        cursor.execute(
            f"{_SUPERSEDE} WHERE outcome = 'waiting' AND destination <> ALL (string_to_array($2, ' '))",
            parameters=("its destination was removed", " ".join(destinations)),
        )


def put_back(warehouse: Warehouse, destination: str) -> int:
    """Make what was given up wait again, unless something newer was said since. Returns how many messages."""
    with warehouse.transaction() as cursor:
        cursor.execute(
            "WITH again AS (UPDATE scoring.deliveries SET outcome = 'waiting', ended_at = NULL, created_at = now(), "
            "next_attempt_at = now() WHERE destination = $1 AND outcome = 'failed' AND NOT EXISTS (SELECT FROM "
            "scoring.deliveries AS newer WHERE newer.destination = $1 AND newer.alert_id = deliveries.alert_id "
            "AND newer.version > deliveries.version) RETURNING 1) SELECT count(*) FROM again",
            parameters=(destination,),
        )
        row = cursor.fetchone()
        cursor.fetchall()
    return int(row[0]) if row else 0


def summary(warehouse: Warehouse) -> list[dict[str, Any]]:
    """Per destination and outcome: how many messages, the most attempts, and what the newest one met."""
    return warehouse.read_arrow(_SUMMARY).to_pylist()


class Outbox:
    """The messages of one destination, while this process alone may send them."""

    def __init__(self, connection: Connection, destination: str) -> None:
        self._connection, self._destination = connection, destination

    def next(self) -> dict[str, Any] | None:
        """The message that is due first: `wait` is positive if that is later, in seconds. None: nothing waits."""
        with self._connection.cursor() as cursor:
            cursor.execute(_DUE, parameters=(self._destination,))
            rows: list[dict[str, Any]] = cursor.fetch_arrow_table().to_pylist()
        self._connection.rollback()
        return rows[0] if rows else None

    def attempts_since(self, seconds: float) -> list[float]:
        """How many seconds ago attempts began in the last `seconds`, the oldest first."""
        with self._connection.cursor() as cursor:
            cursor.execute(
                "SELECT extract(epoch FROM now() - attempted_at)::double precision FROM scoring.deliveries "
                "WHERE destination = $1 AND attempted_at > now() - $2 * interval '1 second' ORDER BY 1 DESC",
                parameters=(self._destination, seconds),
            )
            ages = [float(row[0]) for row in cursor.fetchall()]
        self._connection.rollback()
        return ages

    def begin(self, delivery_id: int) -> None:
        """Record that an attempt begins: after a kill -9 in it, the next one knows that it may have arrived."""
        self._write("attempts = attempts + 1, attempted_at = now()", delivery_id)

    def end(self, delivery_id: int, outcome: str, detail: str) -> None:
        """Record the last attempt. outcome : delivered or failed."""
        self._write("outcome = $2, detail = $3, ended_at = now()", delivery_id, outcome, detail)

    def again(self, delivery_id: int, detail: str, seconds: float, everything: bool) -> None:
        """Record that the next attempt is due in `seconds`. everything : no other message is sent before that."""
        self._write("detail = $2, next_attempt_at = now() + $3 * interval '1 second'", delivery_id, detail, seconds)
        if everything:
            with self._connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE scoring.deliveries SET next_attempt_at = now() + $2 * interval '1 second' "
                    "WHERE destination = $1 AND outcome = 'waiting' "
                    "AND next_attempt_at < now() + $2 * interval '1 second'",
                    parameters=(self._destination, seconds),
                )
            self._connection.commit()

    def _write(self, change: str, delivery_id: int, *values: Any) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(
                f"UPDATE scoring.deliveries SET {change} WHERE delivery_id = $1 AND outcome = 'waiting'",
                parameters=(delivery_id, *values),
            )
        self._connection.commit()


@contextmanager
def outbox(warehouse: Warehouse, destination: str) -> Iterator[Outbox | None]:
    """The outbox of one destination; None if another process is sending its messages.

    The lock is on a session of its own, so it ends with the process, however that ends.
    """
    connection = warehouse.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_try_advisory_lock($1::int, hashtext($2))", parameters=(DELIVERY_LOCK, destination)
            )
            row = cursor.fetchone()
            cursor.fetchall()
        connection.commit()
        yield Outbox(connection, destination) if row and row[0] else None
    finally:
        connection.close()
