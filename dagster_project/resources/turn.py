"""Whose turn it is to change the warehouse, and which runs ended without a word.

Belongs here: the lock that a run holds from its beginning to its end, waiting for it, and closing runs in Dagster's
history whose process is gone.
Does not belong here: what a run does (assets), and Dagster's own limit for runs that its daemon queues
(`instance.py`), which knows nothing of `heed run` and of other machines.

The lock is PostgreSQL's, on a connection of its own, so it holds between machines and is released however the process
ends. The connection's name says which run holds it or waits for it: that is how others know that the run lives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.resources.moment import AS_OF_TAG, parse_moment
from dagster_project.resources.postgres import RUN_LOCK, Warehouse

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection
    from dagster import DagsterInstance, DagsterRun

Say = Callable[[str], None]

WRITER_KEY = "heed/warehouse"
# One run at a time changes the warehouse; dagster.yaml limits this tag to one.
WAREHOUSE_TAG = {WRITER_KEY: "writer"}
# On runs that a command started: these hold their turn before Dagster hears of them.
COMMAND_TAG = {"heed/command": "run"}

TURN_LOCK = RUN_LOCK + 2
_NAME = "heed run "
LOOK_SECONDS = 0.5
# Ten times the longest run that was measured (330 s for a million alerts, benchmarks/job.md).
WAIT_SECONDS = 3600.0
# A run that Dagster's daemon launched has started a moment before it asks for its turn.
GRACE = timedelta(minutes=1)

_held: dict[str, Connection] = {}


@contextmanager
def turn(warehouse: Warehouse, run_id: str, say: Say = lambda line: None) -> Iterator[None]:
    """Hold the turn for a run; wait for it while another run has it. Within a turn of this process, join it.

    Raises
    ------
    HeedError
        Another run has held it for too long.
    """
    key = warehouse.url()
    if key in _held:
        _name(_held[key], run_id)
        with warehouse.keeping_a_connection():
            yield
        return
    connection = warehouse.connect()
    try:
        _name(connection, run_id)
        _wait(warehouse, connection, say)
        _held[key] = connection
        with warehouse.keeping_a_connection():
            yield
    finally:
        _held.pop(key, None)
        with suppress(Exception):  # the server may be gone, and with it the lock
            connection.close()


def has_turn(warehouse: Warehouse) -> bool:
    """Whether this process has its turn at a warehouse."""
    return warehouse.url() in _held


def living_runs(warehouse: Warehouse) -> set[str]:
    """The runs whose process is connected to the warehouse: the one that has the turn, and those that wait for it."""
    found = warehouse.read_arrow(
        "SELECT substr(application_name, length($1) + 1) AS run_id FROM pg_stat_activity "
        "WHERE datname = current_database() AND starts_with(application_name, $1)",
        (_NAME,),
    )
    return set(found["run_id"].to_pylist())


def abandoned_runs(instance: DagsterInstance, warehouse: Warehouse) -> dict[str, str]:
    """Runs that Dagster believes to be under way and whose process is gone: run id -> what happened, in one line."""
    from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

    status = DagsterRunStatus
    found = instance.get_run_records(
        RunsFilter(
            tags=WAREHOUSE_TAG,
            statuses=[status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING],
        )
    )
    if not found:
        return {}
    living = living_runs(warehouse)
    made: dict[str, str] = {}
    for record in found:
        run = record.dagster_run
        by_command = COMMAND_TAG.items() <= run.tags.items()
        # Whether a launched run ever starts is watched by Dagster's own run monitoring.
        waits = run.status in (status.NOT_STARTED, status.STARTING)
        started = datetime.fromtimestamp(record.start_time or record.create_timestamp.timestamp(), UTC)
        if run.run_id in living or (not by_command and (waits or datetime.now(UTC) - started < GRACE)):
            continue
        steps = [
            entry.dagster_event.step_key
            for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_START)
            if entry.dagster_event is not None
        ]
        made[run.run_id] = (
            f"its process ended without a word {f'in the step {steps[-1]}' if steps else 'before its first step'} "
            "(killed, out of memory, or the machine stopped); what it had not committed did not happen"
        )
    return made


def refuse_if_overtaken(warehouse: Warehouse, run: DagsterRun) -> None:
    """A run that a schedule or a sensor began stands at their moment. When its turn comes after a later moment has been
    published, it would only take readers back. Whoever names a moment of the past means it.

    Raises
    ------
    HeedError
        It was overtaken.
    """
    if not {"dagster/schedule_name", "dagster/sensor_name"} & run.tags.keys() or AS_OF_TAG not in run.tags:
        return
    as_of = parse_moment(run.tags[AS_OF_TAG])
    # A clock that was ahead once has published a moment that is still to come: that overtakes nobody.
    later = warehouse.value("SELECT to_regclass('scoring.publications') IS NOT NULL") and warehouse.value(
        "SELECT max(as_of) FROM scoring.publications WHERE as_of > $1 AND as_of <= $2", (as_of, datetime.now(UTC))
    )
    if later:
        raise HeedError(
            f"it was overtaken: scores as of {later:%Y-%m-%d %H:%M} UTC were published before this run, as of "
            f"{as_of:%Y-%m-%d %H:%M} UTC, had its turn",
            "nothing needs doing",
        )


def close_abandoned_runs(instance: DagsterInstance, warehouse: Warehouse) -> dict[str, str]:
    """Let Dagster know what became of them: as failed runs they neither look busy nor hold up others."""
    found = abandoned_runs(instance, warehouse)
    for run_id, what in found.items():
        run = instance.get_run_by_id(run_id)
        if run is not None:
            instance.report_run_failed(run, f"The run was cut off: {what}.")
    return found


def _name(connection: Connection, run_id: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT set_config('application_name', $1, false)", parameters=(_NAME + run_id,))
        cursor.fetchall()
    connection.commit()


def _wait(warehouse: Warehouse, connection: Connection, say: Say) -> None:
    until = time.monotonic() + WAIT_SECONDS
    told = False
    while not _lock(connection):
        if not told:
            say(f"waiting: {_holder(warehouse)} is changing the warehouse")
            told = True
        if time.monotonic() > until:
            raise HeedError(
                f"{_holder(warehouse)} has been changing the warehouse for more than {WAIT_SECONDS / 3600:.0f} h",
                "end it if it hangs, then run again",
            )
        time.sleep(LOOK_SECONDS)


def _lock(connection: Connection) -> bool:
    # By a session, not by a transaction: an open transaction would keep PostgreSQL from cleaning up for the whole run.
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock($1)", parameters=(TURN_LOCK,))
        row = cursor.fetchone()
    connection.commit()
    return bool(row and row[0])


def _holder(warehouse: Warehouse) -> str:
    names = warehouse.read_arrow(
        "SELECT application_name AS name FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database "
        "WHERE datname = current_database()) AND classid = 0 AND objid = $1",
        (TURN_LOCK,),
    )["name"].to_pylist()
    return f"run {names[0].removeprefix(_NAME)[:8]}" if names else "another run"
