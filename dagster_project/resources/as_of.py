"""The as-of of a run, the only thing in which production, backfill, replay and tests differ.

Belongs here: how a run carries its as-of (a tag), and which days of features it covers.
Does not belong here: cutting history at the as-of (`stores/history.py`).
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
FULL_REFRESH_TAG = "heed/whole"  # "true": the run reads everything, also what it could skip
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
FIRST_DAY = date(2015, 1, 1)  # the first daily partition; older alerts are never scored or learned from


def parse_moment(text: str) -> datetime:
    """A point in time from ISO-8601 text, in UTC unless it has an offset; a date means its first moment.

    Raises
    ------
    HeedError
        The text is something else.
    """
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise HeedError(
            f"{text!r} is not a moment", "write one like 2025-05-01 or 2025-05-01T12:00:00+02:00"
        ) from error
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def run_as_of(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> datetime:
    """The as-of of this run: its tag, else the time at which it was created. The same in every step."""
    if text := context.run.tags.get(AS_OF_TAG):
        return parse_moment(text)
    record = context.instance.get_run_record_by_id(context.run.run_id)
    if record is None:
        raise RuntimeError(f"run {context.run.run_id} is not in its own instance")
    return record.create_timestamp.astimezone(UTC)


def is_full_refresh(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> bool:
    """Whether this run is to clean and check everything: `retrain`, `heed run --full`."""
    return context.run.tags.get(FULL_REFRESH_TAG) == "true"


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
        tags = run_tags(run_as_of(context), days_back(job, settings))
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
