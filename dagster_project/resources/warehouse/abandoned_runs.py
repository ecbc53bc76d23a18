"""Runs whose process is gone.

Belongs here: finding and closing them in Dagster's history.
Does not belong here: the lock that a living run holds (`run_lock.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.resources.as_of import AS_OF_TAG, parse_moment
from dagster_project.resources.warehouse.connection import Warehouse

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun
from dagster_project.resources.warehouse.run_lock import APPLICATION_NAME, COMMAND_TAG, GRACE, WAREHOUSE_TAG


def living_runs(warehouse: Warehouse) -> set[str]:
    """The runs whose process is connected to the warehouse: the one that has the turn, and those that wait for it."""
    found = warehouse.read_arrow(
        "SELECT substr(application_name, length($1) + 1) AS run_id FROM pg_stat_activity "
        "WHERE datname = current_database() AND starts_with(application_name, $1)",
        (APPLICATION_NAME,),
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
