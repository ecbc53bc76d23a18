"""When things run: the two jobs, their schedules, and the sensor that does not wait for them.

Belongs here: which assets a job covers, what starts it and the tags of a run.
Does not belong here: what an asset does.

Declarative automation (`AutomationCondition.eager()`, `on_cron`) is not used: `eager()` requests a child even after
a blocking check of its parent failed in an earlier run, and an hourly `on_cron` below a weekly parent never fires.
One scheduled job that selects its whole path is simpler, and a failed check stops that run where it stands.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from dagster_project.errors import HeedError
from dagster_project.resources.as_of import FULL_REFRESH_TAG, run_tags
from dagster_project.resources.failures import what_stopped
from dagster_project.resources.files.memory import give_back_memory
from dagster_project.resources.notices import FAILED, SUCCEEDED, end_of, run_ended, tell_of_abandoned_runs
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from dagster_project.settings import Settings

REFRESH = "refresh_scores"
RETRAIN = "retrain"
PRUNE = "prune"

_TRAINING = dg.AssetSelection.groups("training")
_EVERYTHING = dg.AssetSelection.all() - dg.AssetSelection.groups("raw")


def build_jobs() -> list[Any]:
    """`refresh_scores` cleans, flags, derives and scores; `retrain` does the same and learns in between."""
    return [
        dg.define_asset_job(
            REFRESH,
            selection=_EVERYTHING - _TRAINING,
            executor_def=dg.in_process_executor,
            tags=WAREHOUSE_TAG,
            hooks={give_back_memory},
            description="Clean what came, flag what is unexpected, score the open alerts with the champion, publish.",
        ),
        dg.define_asset_job(
            RETRAIN,
            selection=_EVERYTHING,
            executor_def=dg.in_process_executor,
            tags={**WAREHOUSE_TAG, FULL_REFRESH_TAG: "true"},  # what it teaches on was read and checked as a whole
            hooks={give_back_memory},
            description="Learn anew from the outcomes that are known, let the gate decide, then score and publish.",
        ),
    ]


@dg.op(name="prune_by_policy", description="Removes what the policy of [retention] lets go.")
def prune_op(
    context: dg.OpExecutionContext, warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> None:
    from dagster_project.resources.retention import prune

    made = prune(warehouse, settings, context.instance)
    for row in made:
        (context.log.warning if row.note else context.log.info)(row.line())
    context.add_output_metadata({row.what: row.removed for row in made})


@dg.job(
    name=PRUNE,
    tags=WAREHOUSE_TAG,
    executor_def=dg.in_process_executor,
    description="Remove old scores, models, features and history by policy; never what evidence needs.",
)
def prune_job() -> None:
    prune_op()


def days_back(job: str, settings: Settings) -> float:
    """How many days of features a run of this job covers.

    A refresh derives the features of all alerts that may still be open, so that late rows reach them; learning
    needs those of its whole past.
    """
    return settings.outcome.horizon_days if job == REFRESH else settings.learning.training_days


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """All schedules, running as soon as a daemon does; the as-of of a run is the tick's own time."""

    def schedule(job: str, cron: str) -> dg.ScheduleDefinition:
        @dg.schedule(
            name=f"{job}_schedule",
            job_name=job,
            cron_schedule=cron,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
        )
        def tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
            moment = context.scheduled_execution_time.astimezone(UTC)
            return dg.RunRequest(
                run_key=moment.isoformat(),
                tags={**run_tags(moment, days_back(job, settings)), **WAREHOUSE_TAG},
            )

        return tick

    @dg.schedule(
        name=f"{PRUNE}_schedule",
        job_name=PRUNE,
        cron_schedule=settings.schedule.prune,
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def prune_tick(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        return dg.RunRequest(run_key=context.scheduled_execution_time.isoformat(), tags=WAREHOUSE_TAG)

    return [
        prune_tick,
        schedule(REFRESH, settings.schedule.refresh_scores),
        schedule(RETRAIN, settings.schedule.retrain),
    ]


# A tick is one query by an index. Half a minute, so that a new alert has a run within a minute of its arrival.
SENSOR_SECONDS = 30
ARRIVAL_TAG = "heed/arrival"  # the newest alert that a run of the sensor was asked for
AGAIN = timedelta(minutes=5)  # after a failure: sooner than the schedule, and not in a loop
DAMAGE_SECONDS = 600  # damage is rare, and reading a model takes a tenth of a second
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def build_sensors(settings: Settings) -> list[dg.SensorDefinition]:
    """`new_alerts` refreshes scores when alerts came that the newest publication does not know.

    `damaged_champion` learns anew when the champion cannot be read, or cannot score today's features.
    """

    @dg.sensor(
        name="new_alerts",
        job_name=REFRESH,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks every half minute whether alerts were loaded since the newest publication; then scores are "
        "refreshed without waiting for the schedule. After a failure it asks again, once in five minutes.",
    )
    def new_alerts(
        context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.RunRequest | dg.SkipReason:
        under_way = dg.RunsFilter(tags=WAREHOUSE_TAG, statuses=_UNDER_WAY)
        if context.instance.get_run_records(under_way, limit=1):
            # A run that was killed would look busy for ever, and hold up the queue.
            tell_of_abandoned_runs(context.instance, warehouse, settings, context.log.warning)
        if context.instance.get_run_records(under_way, limit=1):
            return dg.SkipReason("a run that changes the warehouse is under way")
        newest = newest_arrival(warehouse, settings)
        if newest is None:
            return dg.SkipReason("no alert was loaded, or the source has no column loaded_at")
        published = warehouse.value("SELECT to_regclass('scoring.publications') IS NOT NULL") and warehouse.value(
            # A clock that was ahead once has published a moment still to come: that does not know what came since.
            "SELECT max(as_of) FROM scoring.publications WHERE as_of <= $1",
            (datetime.now(UTC) + timedelta(minutes=1),),
        )
        if not published:
            return dg.SkipReason("nothing was ever published: the first run is `heed run`, or the schedule's")
        if newest <= published:
            return dg.SkipReason("no alert came since the newest publication")
        now, arrival = datetime.now(UTC), newest.isoformat()
        # The key is the arrival, not the moment of asking: the same alerts do not ask twice, unless their run failed.
        key = f"alerts of {arrival}"
        failed = context.instance.get_run_records(
            dg.RunsFilter(tags={ARRIVAL_TAG: arrival}, statuses=[dg.DagsterRunStatus.FAILURE]), limit=1
        )
        if failed:
            run_id, ended = failed[0].dagster_run.run_id[:8], failed[0].end_time
            if ended is not None and now - datetime.fromtimestamp(ended, UTC) < AGAIN:
                return dg.SkipReason(f"run {run_id} failed on these alerts; it is asked for again after {AGAIN}")
            key += f", again after {run_id}"
        return dg.RunRequest(
            run_key=key, tags={**run_tags(now, days_back(REFRESH, settings)), **WAREHOUSE_TAG, ARRIVAL_TAG: arrival}
        )

    @dg.sensor(
        name="damaged_champion",
        job_name=RETRAIN,
        minimum_interval_seconds=DAMAGE_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks whether the champion's row can be read and the champion knows today's features; where not, "
        "learns anew without waiting for the schedule.",
    )
    def damaged_champion(warehouse: dg.ResourceParam[Warehouse]) -> dg.RunRequest | dg.SkipReason:
        from dagster_project.triage.features.contract import contract, require_same_contract

        if warehouse.value("SELECT to_regclass('training.champion_decisions') IS NULL"):
            return dg.SkipReason("nothing was ever learned")
        now, models = datetime.now(UTC), ModelStore(warehouse)
        champion = models.champion(now)
        if champion is None:
            return dg.SkipReason("there is no champion")
        try:
            require_same_contract(models.load(champion.model_version).contract, contract(settings.feature_settings()))
        except HeedError as error:
            # One attempt a day: what damages rows may go on doing so, and what cannot be learned stays so.
            return dg.RunRequest(
                run_key=f"{champion.model_version} cannot score ({error.cause}), {now.date()}",
                tags={**run_tags(now, days_back(RETRAIN, settings)), **WAREHOUSE_TAG},
            )
        return dg.SkipReason("the champion can be read, and knows today's features")

    return [new_alerts, damaged_champion, *_sensors_of_ends(settings)]


def _sensors_of_ends(settings: Settings) -> list[dg.SensorDefinition]:
    """`run_failed` and `run_succeeded`: record how runs that Dagster launched ended, and tell people (`[notify]`)."""

    @dg.run_status_sensor(
        name="run_failed",
        run_status=dg.DagsterRunStatus.FAILURE,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells those whom [notify] names that a run failed, once.",
    )
    def run_failed(context: dg.RunStatusSensorContext, warehouse: dg.ResourceParam[Warehouse]) -> None:
        run = context.dagster_run
        why = what_stopped(context.instance, run.run_id)
        run_ended(warehouse, settings, end_of(run, FAILED, why), context.log.warning)

    @dg.run_status_sensor(
        name="run_succeeded",
        run_status=dg.DagsterRunStatus.SUCCESS,
        minimum_interval_seconds=SENSOR_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells those whom [notify] names that a job works again after it had failed, once.",
    )
    def run_succeeded(context: dg.RunStatusSensorContext, warehouse: dg.ResourceParam[Warehouse]) -> None:
        run_ended(warehouse, settings, end_of(context.dagster_run, SUCCEEDED), context.log.warning)

    return [run_failed, run_succeeded]


def newest_arrival(warehouse: Warehouse, settings: Settings) -> datetime | None:
    """When the newest alert was loaded; None: there is none, or the source does not say."""
    table = f"{settings.source.database_schema}.{settings.source.alerts}"
    if not any(column["name"] == "loaded_at" for column in warehouse.columns(table)):
        return None
    found = warehouse.value(f"SELECT max(loaded_at)::timestamptz FROM {table}")
    return found.astimezone(UTC) if found is not None else None
