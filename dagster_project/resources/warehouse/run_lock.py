"""The run lock: one run at a time changes the warehouse.

Belongs here: the lock that a run holds from beginning to end, and waiting for it.
Does not belong here: runs whose process is gone (`abandoned_runs.py`), what a run does (assets), and Dagster's own
limit for runs that its daemon queues (`instance.py`), which does not cover `heed run` and other machines.

The lock is PostgreSQL's, on a connection of its own, so it works across machines and is released however the process
ends. The connection's application name says which run holds it or waits for it, so others know that the run is alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError, one_line
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.locks import RUN_LOCK

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection, Cursor

Say = Callable[[str], None]

WRITER_KEY = "heed/warehouse"
# One run at a time changes the warehouse; dagster.yaml limits this tag to one.
WAREHOUSE_TAG = {WRITER_KEY: "writer"}
# On runs that a command started: they hold the run lock before Dagster knows of them.
COMMAND_TAG = {"heed/command": "run"}

APPLICATION_NAME = "heed run "
POLL_SECONDS = 0.5
# Ten times the longest measured run (330 s for a million alerts, benchmarks/job.md).
WAIT_SECONDS = 3600.0
# A run that Dagster's daemon launched starts a little before it asks for the run lock.
GRACE = timedelta(minutes=1)

# How often the session that holds the lock is used: poolers and firewalls end sessions that are idle for minutes.
HEARTBEAT_SECONDS = 15.0
RUN_LOCK_VARIABLE = "HEED_RUN_LOCK"  # tells dbt which session holds the lock: each model checks it before it commits

# The session that holds the lock is idle during the run, and must not be ended for that.
_KEEP_ALIVE = """
SELECT set_config('idle_session_timeout', '0', false), set_config('tcp_keepalives_idle', '60', false),
       set_config('tcp_keepalives_interval', '10', false), set_config('tcp_keepalives_count', '6', false)
"""
_IS_HELD = """
SELECT EXISTS (
    SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = $1 AND pid = $2 AND application_name = $3
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
)
"""


class _RunLock:
    """The session that holds the lock, kept alive by a thread, and the guard of what its run writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._one_at_a_time = threading.Lock()  # two threads must not use a connection at once
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._lost = ""
        self.name = ""
        self.pid = 0

    def take(self, warehouse: Warehouse, run_id: str, say: Say) -> None:
        """Wait for the lock, and hold it."""
        self._ask(_KEEP_ALIVE)
        self.rename(run_id)
        _wait(warehouse, self._connection, say)
        self.pid = int(self._ask("SELECT pg_backend_pid()"))
        self._thread = threading.Thread(target=self._keep_alive, name="heed run lock", daemon=True)
        self._thread.start()

    def rename(self, run_id: str) -> None:
        """Say which run holds the lock, or waits for it."""
        self.name = APPLICATION_NAME + run_id
        self._ask("SELECT set_config('application_name', $1, false)", (self.name,))

    def require(self) -> None:
        """Raise HeedError if the session is known to have ended."""
        if self._lost:
            raise self._error(self._lost)

    def verify(self, cursor: Cursor) -> None:
        """Check in another session's transaction, just before it commits, that the lock is still held."""
        self.require()
        cursor.execute(_IS_HELD, parameters=(RUN_LOCK, self.pid, self.name))
        row = cursor.fetchone()
        if not (row and row[0]):
            self._lost = "the server does not know it any more"
            self.require()

    def end(self) -> None:
        """Release the lock."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(Exception):  # the server may be gone, and with it the lock
            self._connection.close()

    def _ask(self, query: str, values: Sequence[Any] = ()) -> Any:
        with self._one_at_a_time, self._connection.cursor() as cursor:
            cursor.execute(query, parameters=tuple(values) or None)
            row = cursor.fetchone()
            self._connection.commit()
        return row[0] if row else None

    def _keep_alive(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            try:
                self._ask("SELECT 1")
            except Exception as error:  # of any type: without this session there is no lock
                self._lost = one_line(str(error))[:200].rstrip(". ")
                return

    def _error(self, why: str) -> HeedError:
        return HeedError(
            f"{self.name.removeprefix('heed ')[:12]} lost the run lock: the session that held it, pid {self.pid}, "
            f"has ended ({why}), so another run may have begun",
            "run again; where that recurs, see what ends sessions (a person, idle limits of a pooler or a firewall)",
        )


_held: dict[str, _RunLock] = {}


@contextmanager
def run_lock(warehouse: Warehouse, run_id: str, say: Say = lambda line: None) -> Iterator[None]:
    """Hold the run lock for a run; wait while another run holds it. If this process holds it already, share it.

    Raises HeedError: another run has held it for too long; a pooler in transaction mode is in between, so no session
        can hold a lock; or, while the run works, the session that holds the lock has ended.
    """
    key = warehouse.url()
    if key in _held:
        _held[key].rename(run_id)
        with warehouse.guarded(_held[key]), warehouse.keeping_a_connection():
            yield
        return
    if not warehouse.is_embedded and pools_transactions(warehouse):
        raise HeedError(POOLED, POOLED_REMEDY)
    held = _RunLock(warehouse.connect())
    try:
        held.take(warehouse, run_id, say)
        _held[key] = held
        with warehouse.guarded(held), warehouse.keeping_a_connection():
            yield
    finally:
        _held.pop(key, None)
        held.end()


POOLED = "the warehouse is reached through a pooler in transaction mode, in which no run can hold a lock"
POOLED_REMEDY = "name the server itself in HEED_DATABASE_URL, or set the pooler to session mode"


def pools_transactions(warehouse: Warehouse) -> bool:
    """Whether one connection reaches more than one session of the server, as behind a pooler in transaction mode."""
    first, second = warehouse.connect(), None
    try:
        before = _session(first)
        first.commit()  # a pooler now gives this session to the next client
        second = warehouse.connect()
        # Not committed: the second keeps its session while the first asks again.
        return _session(second) == before or _session(first) != before
    finally:
        for connection in (second, first):
            with suppress(Exception):
                if connection is not None:
                    connection.close()


def _session(connection: Connection) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        row = cursor.fetchone()
    return int(row[0]) if row else 0


def holds_run_lock(warehouse: Warehouse) -> bool:
    """Whether this process holds the run lock of a warehouse."""
    return warehouse.url() in _held


def run_lock_environment(warehouse: Warehouse) -> dict[str, str]:
    """The variable that tells dbt which session holds this process's run lock; empty: none does."""
    held = _held.get(warehouse.url())
    return {RUN_LOCK_VARIABLE: str(held.pid)} if held else {}


def _wait(warehouse: Warehouse, connection: Connection, say: Say) -> None:
    until = time.monotonic() + WAIT_SECONDS
    announced = False
    while not _lock(connection):
        if not announced:
            say(f"waiting: {_holder(warehouse)} is changing the warehouse")
            announced = True
        if time.monotonic() > until:
            raise HeedError(
                f"{_holder(warehouse)} has been changing the warehouse for more than {WAIT_SECONDS / 3600:.0f} h",
                "end it if it hangs, then run again",
            )
        time.sleep(POLL_SECONDS)


def _lock(connection: Connection) -> bool:
    # Held by the session, not a transaction: an open transaction would block vacuum for the whole run.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock($1)", parameters=(RUN_LOCK,))
        row = cursor.fetchone()
    connection.commit()
    return bool(row and row[0])


def _holder(warehouse: Warehouse) -> str:
    names = warehouse.read_arrow(
        "SELECT application_name AS name FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database "
        "WHERE datname = current_database()) AND classid = 0 AND objid = $1",
        (RUN_LOCK,),
    )["name"].to_pylist()
    return f"run {names[0].removeprefix(APPLICATION_NAME)[:8]}" if names else "another run"
