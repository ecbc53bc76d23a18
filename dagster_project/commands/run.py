"""Run a job in this process, as `heed run`, `heed demo` and the tests do.

Belongs here: launching a job at an as-of, its progress lines, and its failure in one line.
Does not belong here: what a job covers (`automation.py`), what a step does (assets).
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError, one_line
from dagster_project.resources.as_of import AS_OF_TAG, FULL_REFRESH_TAG
from dagster_project.resources.dbt.prestarted import prepare_dbt
from dagster_project.resources.failures import STEP_WORDS, failure_in_words
from dagster_project.resources.warehouse.connection import quoted
from dagster_project.resources.warehouse.run_lock import COMMAND_TAG, WAREHOUSE_TAG, run_lock
from dagster_project.resources.warehouse.schema import prepare

if TYPE_CHECKING:
    import dagster as dg
    from dagster import EventLogEntry

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings

Say = Callable[[str], None]


@dataclass
class JobOutcome:
    """The result of a run."""

    job: str
    run_id: str
    as_of: datetime
    seconds: float
    step_seconds: dict[str, float] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> str:
        """For people, in a few lines."""
        scores = self.metadata.get("scoring/alert_scores", {})
        lines = [
            f"{self.job} as of {self.as_of:%Y-%m-%d %H:%M} UTC: {scores.get('open alerts', 0)} open alerts scored "
            f"by {scores.get('model version', 'no model')}, {scores.get('new scores', 0)} new scores published "
            f"({self.seconds:.0f} s)"
        ]
        lines += [one_line(f"not known at the raise: {line}") for line in self.not_known_at_raise()]
        return "\n".join([*lines, *(one_line(f"warning: {line}") for line in self.warnings)])

    def not_known_at_raise(self) -> list[str]:
        """The columns that the audit withheld from learning, or that a person vouches for, with the reason."""
        columns = self.metadata.get("training/candidate_model", {}).get("not known at the raise") or []
        return [str(line) for line in columns]

    def to_document(self) -> dict[str, Any]:
        """For machines."""
        scores = self.metadata.get("scoring/alert_scores", {})
        return {
            "job": self.job,
            "run_id": self.run_id,
            "as_of": self.as_of.isoformat(),
            "seconds": round(self.seconds, 3),
            "step_seconds": {name: round(value, 3) for name, value in self.step_seconds.items()},
            "open_alerts": scores.get("open alerts", 0),
            "new_scores": scores.get("new scores", 0),
            "model_version": scores.get("model version"),
            "not_known_at_raise": self.not_known_at_raise(),
            "warnings": self.warnings,
        }


class RunStopped(HeedError):
    """A run failed. steps : the failed ones, by their Dagster keys. run_id : Dagster's own."""

    def __init__(self, cause: str, remedy: str, steps: list[str], run_id: str) -> None:
        super().__init__(cause, remedy)
        self.steps = steps
        self.run_id = run_id


def run_job(
    job: str,
    as_of: datetime,
    *,
    settings: Settings,
    warehouse: Warehouse,
    instance: dg.DagsterInstance,
    full_refresh: bool = False,
    say: Say = lambda line: None,
) -> JobOutcome:
    """Run a job once in this process and wait for it.

    full_refresh : clean and check everything, also what was cleaned and checked before.

    Raises HeedError: a step or a blocking check failed: names the step and the cause. Published scores stay as they
        were.
    """
    started = time.monotonic()
    prepare_dbt(warehouse, settings)
    say("starting the run")
    from dagster_project.definitions import build_defs

    definition = build_defs(settings=settings, warehouse=warehouse).resolve_job_def(job)
    run_id = str(uuid.uuid4())
    instance.add_event_listener(run_id, _listener(say))
    log = warehouse.home / "logs" / f"{run_id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # dbt and libraries print a lot. A person watching gets one line per step; the rest goes to the log.
    with run_lock(warehouse, run_id, say), log.open("w", encoding="utf-8") as output, redirect_stdout(output):
        result = definition.execute_in_process(
            instance=instance,
            run_id=run_id,
            tags={
                AS_OF_TAG: as_of.isoformat(),
                **WAREHOUSE_TAG,
                **COMMAND_TAG,
                **({FULL_REFRESH_TAG: "true"} if full_refresh else {}),
            },
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
    outcome = JobOutcome(job, result.run_id, as_of, time.monotonic() - started)
    failures: list[str] = []
    failed: list[str] = []
    for event in result.all_events:
        kind = event.event_type_value
        if kind == "STEP_SUCCESS":
            outcome.step_seconds[str(event.step_key)] = event.step_success_data.duration_ms / 1000
        elif kind == "ASSET_MATERIALIZATION" and event.asset_key is not None:
            materialized = event.step_materialization_data.materialization
            outcome.metadata["/".join(event.asset_key.path)] = {
                name: getattr(value, "value", None) for name, value in materialized.metadata.items()
            }
        elif kind == "ASSET_CHECK_EVALUATION":
            check = event.asset_check_evaluation_data
            # A dbt test that could not run found nothing; the failure of its step says what happened.
            if not check.passed and getattr(check.metadata.get("status"), "value", "") != "error":
                line = f"{'/'.join(check.asset_key.path)}: {check.check_name}: {check.description or 'failed'}"
                (failures if check.severity.value == "ERROR" else outcome.warnings).append(line)
        elif kind == "STEP_FAILURE":
            failed.append(str(event.step_key))
            failures.append(failure_in_words(str(event.step_key), event.step_failure_data.error))
    if not result.success:
        where = f"run {result.run_id[:8]} of {job} stopped"
        raise RunStopped(
            f"{where}: {failures[0] if failures else 'see its log in the Dagster UI'}",
            "nothing later in the lineage was changed; correct the cause and run again",
            failed,
            result.run_id,
        )
    return outcome


def run_whole_job(
    as_of: datetime | None = None,
    *,
    retrain: bool | None = None,
    full_refresh: bool = False,
    say: Say = lambda line: None,
) -> JobOutcome:
    """Run the whole job once on this home's warehouse: `retrain` when learning is due, else `refresh_scores`.

    The end of each run is recorded in the warehouse and, if it failed or works again, sent to `[notify]`.
    If learning fails, the champion still scores before the error is raised.

    as_of : None: when the run gets the run lock, so that a run that had to wait is not older than the one before it.
    retrain : None: if the newest model is older than `learning.retrain_every_days`, was trained with other features
        than today's, or cannot be read.
    full_refresh : as for `run_job`.

    Raises HeedError: a run stopped; says whether scores were published.
    """
    from dagster_project.resources.notices import FAILED, RunEnd, run_ended
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home, load_settings

    settings = load_settings()
    warehouse = Warehouse(heed_home())
    try:
        return _run_whole_job(warehouse, settings, as_of, retrain, full_refresh, say)
    except Exception as error:
        if not isinstance(error, RunStopped) and not isinstance(error.__cause__, RunStopped):
            # No Dagster run ended: there were no alerts, the warehouse was unreachable, or another run hung.
            why = error.cause if isinstance(error, HeedError) else type(error).__name__
            run_ended(warehouse, settings, RunEnd(str(uuid.uuid4()), "run", as_of, FAILED, why), say)
        raise


def _run_whole_job(
    warehouse: Warehouse, settings: Settings, as_of: datetime | None, retrain: bool | None, full_refresh: bool, say: Say
) -> JobOutcome:
    prepare(warehouse)
    require_alerts(warehouse, settings)
    prepare_dbt(warehouse, settings)
    say("loading what the job needs")
    from dagster_project.automation import REFRESH, RETRAIN
    from dagster_project.instance import dagster_instance
    from dagster_project.resources.notices import FAILED, SUCCEEDED, RunEnd, run_ended
    from dagster_project.resources.stores.models import ModelStore

    with dagster_instance(warehouse.home) as instance, run_lock(warehouse, str(uuid.uuid4()), say):
        run_as_of = as_of or datetime.now(UTC)
        models = ModelStore(warehouse)
        due = models.learning_is_due(run_as_of, settings) if retrain is None else retrain

        def run(job: str) -> JobOutcome:
            try:
                outcome = run_job(
                    job,
                    run_as_of,
                    settings=settings,
                    warehouse=warehouse,
                    instance=instance,
                    full_refresh=full_refresh,
                    say=say,
                )
            except RunStopped as error:
                run_ended(warehouse, settings, RunEnd(error.run_id, job, run_as_of, FAILED, error.cause), say)
                raise
            run_ended(warehouse, settings, RunEnd(outcome.run_id, job, run_as_of, SUCCEEDED), say)
            return outcome

        try:
            return run(RETRAIN if due else REFRESH)
        except RunStopped as error:
            if not any(step.startswith("training__") for step in error.steps) or models.champion(run_as_of) is None:
                raise
            say("learning failed; the champion still scores")
            scores = run(REFRESH).metadata.get("scoring/alert_scores", {})
            raise HeedError(
                error.cause,
                f"scores were still published, by {scores.get('model version', 'the champion')}; correct the cause "
                "and run `heed run --retrain`",
            ) from error


def require_alerts(warehouse: Warehouse, settings: Settings) -> None:
    """Refuse to run without alerts: usually somebody forgot to load them. Raises HeedError."""
    source = settings.source
    place = f"{source.database_schema}.{source.alerts}"
    if warehouse.may_read(source.database_schema, source.alerts) is None:
        raise HeedError(f"there is no table {place}", "load alerts with `heed load`, or correct [source] in heed.toml")
    if not warehouse.value(f"SELECT EXISTS (SELECT 1 FROM {quoted(source.database_schema, source.alerts)})"):
        raise HeedError(f"{place} holds no alerts", "load some: heed load --alerts FILE --actions FILE")


def _listener(say: Say) -> Callable[[EventLogEntry], None]:
    """Report one line per step of a run, and its warnings as notes."""

    def tell(entry: EventLogEntry) -> None:
        event = entry.dagster_event
        if event is not None and event.event_type_value == "STEP_START":
            say(STEP_WORDS.get(str(event.step_key), str(event.step_key)))
        elif event is None and int(entry.level) >= logging.WARNING and "Not executing" not in entry.user_message:
            say(f"note: {entry.user_message}")

    return tell
