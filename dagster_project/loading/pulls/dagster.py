"""Asset checks of a Dagster deployment: failures are alerts, and runs by hand are what people did about them.

Belongs here: which evaluations are alerts, and which runs count as a person's answer.
Does not belong here: loading rows (`pull.py`), dbt's artifacts (`dbt.py`).

Each failed evaluation is an alert. What answers it is an evaluation of the same check and partition in a run that began
later: if a person launched that run, they acted, whether the check then passed or not. If a schedule, a sensor,
automation, an automatic retry or a backfill of one of these launched it, the check passed by itself. The open-source
Dagster does not record who launched a run; one without any of those tags was launched by hand, or by a command.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.loading.pulls.page import Asked, Page, Position, Record, Stream, moment
from dagster_project.loading.records.actions import BY_MACHINE
from dagster_project.loading.records.fields import id_of
from dagster_project.settings import PullSource, heed_home

if TYPE_CHECKING:
    import dagster as dg

RUNS = 500  # in one page
# Runs that were read last: more than end within a second, which is how far a pull goes back.
MOST_READ = 2_000
# Failures of one check and partition that wait for an answer. A check that fails every quarter of an hour for the whole
# horizon of 14 days has 1,344; beyond that the oldest no longer need one.
MOST_OPEN = 2_000
# Tags by which Dagster marks runs that nobody launched. Automatic retries carry the number of the attempt.
_BY_MACHINE = (
    *("dagster/schedule_name", "dagster/sensor_name", "dagster/auto_materialize", "dagster/from_automation_condition"),
    *("dagster/auto_observe", "dagster/retry_number"),
)
PASSED, FAILED_AGAIN = "rerun-passed", "rerun-failed"


def streams(source: PullSource) -> list[Stream]:
    """All checks of the deployment whose DAGSTER_HOME is `path`; without one, heed's own."""
    return [Stream(f"checks {source.path}".strip(), "", _evaluations)]


def _evaluations(asked: Asked, position: Position) -> Iterator[Page]:
    from dagster import DagsterInstance, RunsFilter
    from dagster._core.storage.dagster_run import FINISHED_STATUSES

    home = Path(asked.source.path).expanduser() if asked.source.path else heed_home() / "dagster"
    if not (home / "dagster.yaml").is_file():
        raise HeedError(f"{home} is no DAGSTER_HOME: it has no dagster.yaml", "correct path of the source")
    own = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home)  # an instance's settings may refer to it
    try:
        with DagsterInstance.from_config(str(home)) as instance:
            while True:
                read = position.get("runs", [])
                after = moment(position["after"]) - timedelta(seconds=1) if position else asked.first
                ended = RunsFilter(statuses=FINISHED_STATUSES, updated_after=after)
                some = instance.get_run_records(ended, RUNS + len(read), order_by="update_timestamp", ascending=True)
                runs = [run for run in some if run.dagster_run.run_id not in read]
                if not runs:
                    return
                checks = _Checks(position.get("open", {}))
                records = [record for run in runs for record in checks.records(instance, run)]
                read = [*read, *(run.dagster_run.run_id for run in runs)][-MOST_READ:]
                position = {"after": runs[-1].update_timestamp.isoformat(), "runs": read, "open": checks.open}
                yield Page(records, position)
    finally:
        os.environ.pop("DAGSTER_HOME") if own is None else os.environ.update(DAGSTER_HOME=own)


class _Checks:
    """The checks that fail, and the alerts of each that nobody has answered.

    open : check and partition -> alerts as (id, moment of the raise).
    """

    def __init__(self, still_open: dict[str, list[list[Any]]]) -> None:
        self.open = still_open

    def records(self, instance: dg.DagsterInstance, run: dg.RunRecord) -> Iterator[Record]:
        """The rows that one run makes."""
        from dagster import DagsterEventType

        tags, run_id = run.dagster_run.tags, run.dagster_run.run_id
        began = run.create_timestamp.astimezone(UTC)
        is_by_person = not any(tag in tags for tag in _BY_MACHINE)
        for event in instance.all_logs(run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION):
            evaluation = event.dagster_event.asset_check_evaluation_data if event.dagster_event else None
            if evaluation is not None:
                answer = _Answer(run_id, began, event.timestamp, tags.get("user"), is_by_person)
                yield from self._evaluated(evaluation, answer)

    def _evaluated(self, found: dg.AssetCheckEvaluation, answer: _Answer) -> Iterator[Record]:
        """Actions on earlier failures of a check, and an alert if it failed."""
        asset, check, partition = "/".join(found.asset_key.path), found.check_name, found.partition or ""
        key = id_of([asset, check, partition])
        waiting = self.open.pop(key, [])
        for alert, raised in waiting:
            if answer.is_by_person and answer.began.timestamp() > raised:
                yield answer.action(alert, answer.began, PASSED if found.passed else FAILED_AGAIN)
            elif found.passed:
                yield answer.action(alert, answer.evaluated, BY_MACHINE)
        if found.passed:
            return
        alert = id_of([asset, check, partition, answer.run_id])
        facts = {"partition": found.partition, "blocking": found.blocking}
        yield {
            "alert_id": alert,
            "raised_at": answer.evaluated.isoformat(),
            "rule": check,
            "entity": asset,
            "severity": found.severity.value.lower(),
            "title": found.description or f"{check} of {asset} failed",
            "attributes": json.dumps({name: value for name, value in facts.items() if value is not None}),
        }
        self.open[key] = [*waiting, [alert, answer.timestamp]][-MOST_OPEN:]


@dataclass(frozen=True)
class _Answer:
    """An evaluation as an answer to earlier failures. began : when its run was launched; person : by whom, if known."""

    run_id: str
    began: datetime
    timestamp: float
    person: str | None
    is_by_person: bool

    @property
    def evaluated(self) -> datetime:
        return datetime.fromtimestamp(self.timestamp, UTC)

    def action(self, alert: str, acted: datetime, kind: str) -> Record:
        """A row of actions."""
        action = {
            "action_id": id_of([alert, self.run_id]),
            "alert_id": alert,
            "acted_at": acted.isoformat(),
            "action_type": kind,
            "attributes": json.dumps({"run_id": self.run_id}),
        }
        return {**action, "actor": self.person} if self.person and kind != BY_MACHINE else action
