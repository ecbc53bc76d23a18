"""When things run: the jobs, their schedules, and the sensors that don't wait for a schedule.

Belongs here: which assets a job covers, what starts it, and the tags of a run.
Does not belong here: what an asset does.

Declarative automation (`AutomationCondition.eager()`, `on_cron`) is not used: `eager()` requests a child even after
a blocking check of its parent failed in an earlier run, and an hourly `on_cron` below a weekly parent never fires.
One scheduled job that selects its whole path is simpler, and a failed check stops that run where it is.
"""

from datetime import UTC, datetime, timedelta

import dagster as dg

from dagster_project.assets.sources import GROUP
from dagster_project.errors import HeedError
from dagster_project.resources.as_of import AS_OF_TAG, FULL_REFRESH_TAG, REFRESH, RETRAIN
from dagster_project.resources.failures import what_stopped
from dagster_project.resources.files.memory import give_back_memory
from dagster_project.resources.notices import FAILED, SUCCEEDED, end_of, run_ended, tell_of_abandoned_runs
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from dagster_project.settings import Settings

PRUNE = "prune"
PULL = "pull"

_TRAINING = dg.AssetSelection.groups("training")
_SOURCES = dg.AssetSelection.groups(GROUP)
_EVERYTHING = dg.AssetSelection.all() - dg.AssetSelection.groups("raw") - _SOURCES

refresh_job = dg.define_asset_job(
    REFRESH,
    selection=_EVERYTHING - _TRAINING,
    executor_def=dg.in_process_executor,
    tags=WAREHOUSE_TAG,
    hooks={give_back_memory},
    description="Cleans new rows, flags what is unexpected, scores open alerts with the champion, and publishes. "
    "Launched by hand, it takes now as its as-of.",
)
retrain_job = dg.define_asset_job(
    RETRAIN,
    selection=_EVERYTHING,
    executor_def=dg.in_process_executor,
    tags={**WAREHOUSE_TAG, FULL_REFRESH_TAG: "true"},  # what it trains on was read and checked in full
    hooks={give_back_memory},
    description="As `refresh_scores`, and trains in between: learns from the known outcomes and lets the gate decide. "
    "Launched by hand, it takes now as its as-of.",
)

pull_job = dg.define_asset_job(
    PULL,
    selection=_SOURCES,
    executor_def=dg.in_process_executor,
    description="Fetches what is new from the sources of heed.toml. It adds rows, so it does not wait for other runs.",
)


@dg.op(name="prune_by_policy", description="Removes what is older than the policy of [retention] allows.")
def prune_op(
    context: dg.OpExecutionContext, warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> None:
    from dagster_project.resources.retention import prune

    removals = prune(warehouse, settings, context.instance)
    for removal in removals:
        (context.log.warning if removal.note else context.log.info)(removal.line())
    context.add_output_metadata({removal.what: removal.removed for removal in removals})


@dg.job(
    name=PRUNE,
    tags=WAREHOUSE_TAG,
    executor_def=dg.in_process_executor,
    description="Removes old scores, models, features and history by policy; never what evidence needs.",
)
def prune_job() -> None:
    prune_op()


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
            as_of = context.scheduled_execution_time.astimezone(UTC)
            if job == PULL:
                return dg.RunRequest(run_key=as_of.isoformat())
            tags = {} if job == PRUNE else {AS_OF_TAG: as_of.isoformat()}
            return dg.RunRequest(run_key=as_of.isoformat(), tags={**tags, **WAREHOUSE_TAG})

        return tick

    return [
        schedule(PRUNE, settings.schedule.prune),
        schedule(REFRESH, settings.schedule.refresh_scores),
        schedule(RETRAIN, settings.schedule.retrain),
        *([schedule(PULL, settings.schedule.pull)] if settings.sources else []),
    ]


# A tick is one query by an index. At this pace, a run for a new alert starts within a minute of its arrival.
SENSOR_SECONDS = 30
ARRIVAL_TAG = "heed/arrival"  # arrival of the newest alert that the run is for
RETRY_AFTER = timedelta(minutes=5)  # wait after a failure: shorter than the schedule, but not a loop
DAMAGE_SECONDS = 600  # damage is rare, and reading a model takes a tenth of a second
_IN_PROGRESS = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    job_name=REFRESH,
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Checks every half minute whether alerts were loaded since the newest publication, and then refreshes "
    "scores without waiting for the schedule. After a failure it tries again every five minutes.",
)
def new_alerts(
    context: dg.SensorEvaluationContext, warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    in_progress = dg.RunsFilter(tags=WAREHOUSE_TAG, statuses=_IN_PROGRESS)
    if context.instance.get_run_records(in_progress, limit=1):
        # A killed run would look busy for ever, and block the queue.
        tell_of_abandoned_runs(context.instance, warehouse, settings, context.log.warning)
    if context.instance.get_run_records(in_progress, limit=1):
        return dg.SkipReason("a run that changes the warehouse is in progress")
    newest = newest_arrival(warehouse, settings)
    if newest is None:
        return dg.SkipReason("no alert was loaded, or the source has no column loaded_at")
    published = warehouse.value("SELECT to_regclass('scoring.publications') IS NOT NULL") and warehouse.value(
        # A clock that was once ahead has published with an as-of in the future, which says nothing about newer alerts.
        "SELECT max(as_of) FROM scoring.publications WHERE as_of <= $1",
        (datetime.now(UTC) + timedelta(minutes=1),),
    )
    if not published:
        return dg.SkipReason("nothing was published yet: run `heed run`, or wait for the schedule")
    if newest <= published:
        return dg.SkipReason("no alert came since the newest publication")
    now, arrival = datetime.now(UTC), newest.isoformat()
    # The key is the arrival, not the time of the tick: the same alerts request one run, unless that run failed.
    key = f"alerts of {arrival}"
    failed = context.instance.get_run_records(
        dg.RunsFilter(tags={ARRIVAL_TAG: arrival}, statuses=[dg.DagsterRunStatus.FAILURE]), limit=1
    )
    if failed:
        run_id, ended = failed[0].dagster_run.run_id[:8], failed[0].end_time
        if ended is not None and now - datetime.fromtimestamp(ended, UTC) < RETRY_AFTER:
            return dg.SkipReason(f"run {run_id} failed on these alerts; the next attempt is {RETRY_AFTER} after it")
        key += f", again after {run_id}"
    return dg.RunRequest(run_key=key, tags={AS_OF_TAG: now.isoformat(), **WAREHOUSE_TAG, ARRIVAL_TAG: arrival})


@dg.sensor(
    job_name=RETRAIN,
    minimum_interval_seconds=DAMAGE_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Checks whether the champion can be read and uses today's features. If not, it retrains without "
    "waiting for the schedule.",
)
def damaged_champion(
    warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> dg.RunRequest | dg.SkipReason:
    from dagster_project.triage.features.contract import contract, require_same_contract

    if warehouse.value("SELECT to_regclass('training.champion_decisions') IS NULL"):
        return dg.SkipReason("nothing was trained yet")
    now, models = datetime.now(UTC), ModelStore(warehouse)
    champion = models.champion(now)
    if champion is None:
        return dg.SkipReason("there is no champion")
    try:
        require_same_contract(models.load(champion.model_version).contract, contract(settings.feature_settings()))
    except HeedError as error:
        # One attempt a day: whatever damages rows may go on doing so, and a failure to train may last.
        return dg.RunRequest(
            run_key=f"{champion.model_version} cannot score ({error.cause}), {now.date()}",
            tags={AS_OF_TAG: now.isoformat(), **WAREHOUSE_TAG},
        )
    return dg.SkipReason("the champion can be read, and uses today's features")


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.FAILURE,
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records that a run failed, and notifies the destinations of [notify], once.",
)
def run_failed(
    context: dg.RunStatusSensorContext, warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> None:
    run = context.dagster_run
    cause = what_stopped(context.instance, run.run_id)
    run_ended(warehouse, settings, end_of(run, FAILED, cause), context.log.warning)


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    minimum_interval_seconds=SENSOR_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records that a run succeeded, and notifies the destinations of [notify], once, when the job had "
    "failed before.",
)
def run_succeeded(
    context: dg.RunStatusSensorContext, warehouse: dg.ResourceParam[Warehouse], settings: dg.ResourceParam[Settings]
) -> None:
    run_ended(warehouse, settings, end_of(context.dagster_run, SUCCEEDED), context.log.warning)


SENSORS = [new_alerts, damaged_champion, run_failed, run_succeeded]


def newest_arrival(warehouse: Warehouse, settings: Settings) -> datetime | None:
    """When the newest alert was loaded; None if there is none, or the table has no column `loaded_at`."""
    table = f"{settings.source.database_schema}.{settings.source.alerts}"
    if not any(column["name"] == "loaded_at" for column in warehouse.columns(table)):
        return None
    newest = warehouse.value(f"SELECT max(loaded_at)::timestamptz FROM {table}")
    return newest.astimezone(UTC) if newest is not None else None
