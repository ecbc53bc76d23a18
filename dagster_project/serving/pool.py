"""The service's connections: a few that can only read, and one at a time that writes feedback.

Belongs here: opening, sharing, checking and discarding connections, and naming their errors.
Does not belong here: queries.

psycopg2 rather than ADBC: rows are few, and its errors distinguish a missing table from a missing server.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import psycopg2
from psycopg2 import errors
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import RealDictCursor

from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.problem import Problem

Result = TypeVar("Result")

# Queries take a few milliseconds, so a handful of connections serves hundreds of requests a second.
CONNECTIONS = 4
WAIT_SECONDS = 10.0
CONNECT_SECONDS = 5
# The longest query is the board's, once per publication.
STATEMENT_SECONDS = 60
# An upgrade replaces reporting views; a reader that finds one missing tries once more after this long.
REPLACED_SECONDS = 0.3

_SESSION = f"SET timezone = 'UTC'; SET jit = off; SET statement_timeout = '{STATEMENT_SECONDS}s'"


class Pool:
    """Connections to one warehouse. Safe to use from many threads."""

    def __init__(self, warehouse: Warehouse, size: int = CONNECTIONS) -> None:
        self._warehouse = warehouse
        self._idle: deque[Connection] = deque()
        self._permits = threading.BoundedSemaphore(size)

    def read(self, work: Callable[[Cursor], Result]) -> Result:
        """Call `work` with a cursor (rows are dicts) in one read-only snapshot, and return its result.

        `work` may be called twice: after a connection that died while idle, or a view that was just being replaced.

        Raises Problem: 503: the warehouse cannot be reached, holds no scores yet, or is too slow.
        """
        if not self._permits.acquire(timeout=WAIT_SECONDS):
            raise Problem(503, "the service is busy", "try again in a moment")
        try:
            for attempt in (1, 2):
                connection = self._take(fresh=attempt > 1)
                try:
                    with connection.cursor(cursor_factory=RealDictCursor) as cursor:
                        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                        result = work(cursor)
                        cursor.execute("COMMIT")
                except BaseException as error:
                    with suppress(psycopg2.Error):
                        connection.close()
                    if attempt == 1 and isinstance(error, _MOMENTARY) and not isinstance(error, errors.QueryCanceled):
                        if not isinstance(error, _LOST):
                            time.sleep(REPLACED_SECONDS)
                        continue
                    raise _named(error, self._warehouse) from error
                self._idle.append(connection)
                return result
            raise AssertionError("the second attempt returns or raises")
        finally:
            self._permits.release()

    @contextmanager
    def write(self) -> Iterator[Cursor]:
        """A cursor on a connection of its own, in one transaction. Writes are rare, and never retried."""
        try:
            connection = self._open(read_only=False)
            try:
                with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
                    yield cursor
            finally:
                connection.close()
        except (errors.UndefinedTable, errors.UndefinedFunction) as error:
            raise Problem(
                503, "the warehouse has no table for it", "start `heed serve` once with a role that may create it"
            ) from error
        except psycopg2.Error as error:
            raise _named(error, self._warehouse) from error

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _take(self, *, fresh: bool) -> Connection:
        if fresh:
            self.close()  # what broke one idle connection broke the others
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._open(read_only=True)
        except psycopg2.Error as error:
            raise _named(error, self._warehouse) from error

    def _open(self, *, read_only: bool) -> Connection:
        connection = psycopg2.connect(
            self._warehouse.url(), connect_timeout=CONNECT_SECONDS, application_name="heed serve"
        )
        connection.autocommit = read_only  # reading begins its own transactions
        with connection.cursor() as cursor:
            cursor.execute(_SESSION + ("; SET default_transaction_read_only = on" if read_only else ""))
        if not read_only:
            connection.commit()
        return connection


# A missing relation may be a view that is being replaced; PostgreSQL then also reports a failed cache lookup.
_LOST: tuple[type[Exception], ...] = (psycopg2.OperationalError, psycopg2.InterfaceError)
_MOMENTARY: tuple[type[Exception], ...] = (*_LOST, errors.UndefinedTable, errors.InternalError_)


def _named(error: BaseException, warehouse: Warehouse) -> BaseException:
    """A database error as a Problem, without secrets; any other error unchanged."""
    if isinstance(error, errors.QueryCanceled):
        return Problem(503, "the warehouse took too long to answer", "try again; `heed doctor` says more")
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn, errors.InvalidSchemaName)):
        return Problem(503, "the warehouse holds no published scores yet", "run `heed run`, then ask again")
    if isinstance(error, errors.InsufficientPrivilege):
        return Problem(
            503, "the service's role may not do this in the warehouse", "grant the rights that docs/alert-ui.md names"
        )
    if isinstance(error, _LOST):
        return Problem(
            503, f"the warehouse is not reachable: {warehouse.describe()}", "start it; `heed doctor` says more"
        )
    return error


def rows(cursor: Cursor, query: str, parameters: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """All rows of a query as dicts. Values are bound as `%(name)s`, never formatted into the text."""
    cursor.execute(query, parameters or {})
    return [dict(row) for row in cursor.fetchall()]
