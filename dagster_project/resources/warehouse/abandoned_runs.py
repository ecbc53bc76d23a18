"""Runs whose process is gone, and runs that were overtaken.

Belongs here: finding them, closing them in Dagster's history, and refusing to publish older scores over newer ones.
Does not belong here: the lock that a living run holds (`run_lock.py`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.resources.as_of import AS_OF_TAG, parse_moment
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import APPLICATION_NAME, COMMAND_TAG, GRACE, WAREHOUSE_TAG

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun


def living_runs(warehouse: Warehouse) -> set[str]:
    """The runs whose process is connected to the warehouse: the holder of the run lock, and those that wait for it."""
    sessions = warehouse.read_arrow(
        "SELECT substr(application_name, length($1) + 1) AS run_id FROM pg_stat_activity "
        "WHERE datname = current_database() AND starts_with(application_name, $1)",
        (APPLICATION_NAME,),
    )
    return set(sessions["run_id"].to_pylist())


def abandoned_runs(instance: DagsterInstance, warehouse: Warehouse) -> dict[str, str]:
    """Runs that are under way according to Dagster, but whose process is gone: run id -> what happened, in one line."""
    from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

    status = DagsterRunStatus
    records = instance.get_run_records(
        RunsFilter(
            tags=WAREHOUSE_TAG,
            statuses=[status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING],
        )
    )
    if not records:
        return {}
    living = living_runs(warehouse)
    abandoned: dict[str, str] = {}
    for record in records:
        run = record.dagster_run
        by_command = COMMAND_TAG.items() <= run.tags.items()
        # Dagster's own run monitoring watches whether a launched run ever starts.
        waits = run.status in (status.NOT_STARTED, status.STARTING)
        started = datetime.fromtimestamp(record.start_time or record.create_timestamp.timestamp(), UTC)
        if run.run_id in living or (not by_command and (waits or datetime.now(UTC) - started < GRACE)):
            continue
        steps = [
            entry.dagster_event.step_key
            for entry in instance.all_logs(run.run_id, of_type=DagsterEventType.STEP_START)
            if entry.dagster_event is not None
        ]
        abandoned[run.run_id] = (
            f"its process ended without a message {f'in the step {steps[-1]}' if steps else 'before its first step'} "
            "(killed, out of memory, or the machine stopped); what it had not committed was rolled back"
        )
    return abandoned


def refuse_if_overtaken(warehouse: Warehouse, run: DagsterRun) -> None:
    """Refuse a run whose schedule or sensor tick is older than the newest published scores.

    Such a run waited for the run lock while a later one published; it would replace newer scores by older ones. Runs
    that a person started at a past as-of are not refused.

    Raises HeedError: the run was overtaken.
    """
    if not {"dagster/schedule_name", "dagster/sensor_name"} & run.tags.keys() or AS_OF_TAG not in run.tags:
        return
    as_of = parse_moment(run.tags[AS_OF_TAG])
    # A clock that was once ahead may have published scores as of a future time: these overtake no run.
    later = warehouse.value("SELECT to_regclass('scoring.publications') IS NOT NULL") and warehouse.value(
        "SELECT max(as_of) FROM scoring.publications WHERE as_of > $1 AND as_of <= $2", (as_of, datetime.now(UTC))
    )
    if later:
        raise HeedError(
            f"it was overtaken: scores as of {later:%Y-%m-%d %H:%M} UTC were published before this run, as of "
            f"{as_of:%Y-%m-%d %H:%M} UTC, got the run lock",
            "nothing needs doing",
        )


def close_abandoned_runs(instance: DagsterInstance, warehouse: Warehouse) -> dict[str, str]:
    """Report them to Dagster as failed, so that they no longer look busy or hold up other runs."""
    abandoned = abandoned_runs(instance, warehouse)
    for run_id, what in abandoned.items():
        run = instance.get_run_by_id(run_id)
        if run is not None:
            instance.report_run_failed(run, f"The run was cut off: {what}.")
    return abandoned
