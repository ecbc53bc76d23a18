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


def parse_moment(text: str) -> datetime:
    """A point in time from ISO-8601 text, in UTC unless it has an offset; a date means its first moment.

    Raises HeedError: the text is something else.
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


def feature_days(
    job: str, as_of: datetime, settings: Settings, chosen: tuple[str | None, str | None] = (None, None)
) -> list[date]:
    """The days whose features a run derives, in order, none after the as-of.

    A refresh derives the features of all alerts that may still be open, so that late rows reach them; training needs
    those of its whole past. So does a run of the asset alone, unless days are chosen.
    chosen : first and last day (ISO 8601), by hand. `refresh_scores` and `retrain` cover their own days as well, so
        that they publish what a scheduled run would publish.

    Raises HeedError: a chosen day is not a date, no chosen day is before the as-of, or that is before source.earliest.
    """
    earliest, today = date.fromisoformat(settings.source.earliest), as_of.astimezone(UTC).date()
    if today < earliest:
        raise HeedError(f"the as-of {as_of.isoformat()} is before source.earliest, {earliest}", "choose a later one")
    back = settings.outcome.horizon_days if job == REFRESH else settings.learning.training_days
    own = days_between(max(earliest, today - timedelta(days=ceil(back))), today)
    if not any(chosen):
        return own
    first, last = (parse_moment(each).date() if each else None for each in chosen)
    days = days_between(max(earliest, first or own[0]), min(last or today, today))
    if not days:
        raise HeedError(
            f"no day is between the chosen {first or own[0]} and {last or today}, and before the as-of",
            "choose first_day and last_day so that one is",
        )
    return sorted({*days, *own}) if job in (REFRESH, RETRAIN) else days


def days_between(first: date, last: date) -> list[date]:
    """Every day from `first` to `last`, both included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
