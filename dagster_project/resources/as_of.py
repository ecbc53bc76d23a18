"""The as-of of a run: the one moment in which production, backfill, replay and test differ.

Belongs here: how a run carries its as-of (a tag) and which days of features a run covers.
Does not belong here: what is known at that moment (`stores/history.py` cuts the warehouse's clock).
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    import dagster as dg

    from dagster_project.settings import Settings

REFRESH = "refresh_scores"
RETRAIN = "retrain"
AS_OF_TAG = "heed/as_of"
WHOLE_TAG = "heed/whole"  # "true": the run reads everything, whatever it could leave out
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
FIRST_DAY = date(2015, 1, 1)  # the first daily partition; older alerts are history, never scored or learned from


def parse_moment(text: str) -> datetime:
    """A moment from ISO-8601 text; without an offset it is UTC, a date alone is its beginning.

    Raises
    ------
    HeedError
        The text is not a moment.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise HeedError(
            f"{text!r} is not a moment", "write one like 2025-05-01 or 2025-05-01T12:00:00+02:00"
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def run_moment(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> datetime:
    """The as-of of this run: its tag, else the moment at which the run was created. The same in every step."""
    if text := context.run.tags.get(AS_OF_TAG):
        return parse_moment(text)
    record = context.instance.get_run_record_by_id(context.run.run_id)
    if record is None:
        raise RuntimeError(f"run {context.run.run_id} is not in its own instance")
    return record.create_timestamp.astimezone(UTC)


def reads_everything(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> bool:
    """Whether this run is to clean and check everything: `retrain`, `heed run --full`."""
    return context.run.tags.get(WHOLE_TAG) == "true"


def run_tags(as_of: datetime, days_back: float) -> dict[str, str]:
    """The tags of a run at `as_of` whose features cover the days from `days_back` days before it to its own day."""
    last = as_of.astimezone(UTC).date()
    first = max(FIRST_DAY, last - timedelta(days=ceil(days_back)))
    if last < FIRST_DAY:
        raise HeedError(f"the as-of {as_of.isoformat()} is before {FIRST_DAY}", "choose a later one")
    return {
        AS_OF_TAG: as_of.isoformat(),
        RANGE_START_TAG: first.isoformat(),
        RANGE_END_TAG: last.isoformat(),
    }


def days_back(job: str, settings: Settings) -> float:
    """How many days of features a run of this job covers.

    A refresh derives the features of all alerts that may still be open, so that late rows reach them; training needs
    those of its whole past.
    """
    return settings.outcome.horizon_days if job == REFRESH else settings.learning.training_days


def feature_days(context: dg.AssetExecutionContext, settings: Settings) -> list[date]:
    """The days whose features this run derives, in order.

    These are the partitions that it was launched for. `refresh_scores` and `retrain` always cover their own days as
    well: launched by hand, without a partition or with today's alone, they publish what a scheduled run would publish.
    """
    days = set(days_between(*context.partition_key_range)) if has_partitions(context) else set()
    job = context.run.job_name
    if job in (REFRESH, RETRAIN):
        tags = run_tags(run_moment(context), days_back(job, settings))
        days |= set(days_between(tags[RANGE_START_TAG], tags[RANGE_END_TAG]))
    return sorted(days)


def has_partitions(context: dg.AssetExecutionContext) -> bool:
    """Whether this run was launched for certain days."""
    return context.has_partition_key or context.has_partition_key_range


def days_between(first: str | date, last: str | date) -> list[date]:
    """Every day from `first` to `last`, both included."""
    start = first if isinstance(first, date) else date.fromisoformat(first)
    end = last if isinstance(last, date) else date.fromisoformat(last)
    return [start + timedelta(days=number) for number in range((end - start).days + 1)]
