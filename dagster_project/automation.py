"""When things run: the two jobs and their schedules.

Belongs here: which assets a job covers, its schedule and the tags of a run.
Does not belong here: what an asset does.

Declarative automation (`AutomationCondition.eager()`, `on_cron`) is not used: `eager()` requests a child even after
a blocking check of its parent failed in an earlier run, and an hourly `on_cron` below a weekly parent never fires.
One scheduled job that selects its whole path is simpler, and a failed check stops that run where it stands.
"""

from datetime import UTC
from typing import Any

import dagster as dg

from dagster_project.resources.moment import run_tags
from dagster_project.settings import Settings

REFRESH = "refresh_scores"
RETRAIN = "retrain"
# One run at a time changes the warehouse; dagster.yaml limits this tag to one.
WAREHOUSE_TAG = {"heed/warehouse": "writer"}

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
            description="Clean what came, flag what is unexpected, score the open alerts with the champion, publish.",
        ),
        dg.define_asset_job(
            RETRAIN,
            selection=_EVERYTHING,
            executor_def=dg.in_process_executor,
            tags=WAREHOUSE_TAG,
            description="Learn anew from the outcomes that are known, let the gate decide, then score and publish.",
        ),
    ]


def days_back(job: str, settings: Settings) -> float:
    """How many days of features a run of this job covers.

    A refresh derives the features of all alerts that may still be open, so that late rows reach them; learning
    needs those of its whole past.
    """
    return settings.outcome.horizon_days if job == REFRESH else settings.learning.training_days


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """Both schedules, running as soon as a daemon does; the as-of of a run is the tick's own time."""

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

    return [
        schedule(REFRESH, settings.schedule.refresh_scores),
        schedule(RETRAIN, settings.schedule.retrain),
    ]
