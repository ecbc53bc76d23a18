"""The stage that derives features: one Parquet file per day.

Belongs here: which days a run computes, what it reads for them, and what Dagster shows of them.
Does not belong here: features (`triage/features/contract.py`, `triage/features/history`).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain, pairwise
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from dagster_project.assets.quality import FLOOD_DAYS, VISIBILITY_ONLY
from dagster_project.assets.showing import frame_schema
from dagster_project.checks import check_before_publishing, suite_check_specs
from dagster_project.resources.as_of import feature_days, run_as_of
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.files.spill import ALERTS_AT_ONCE, SpillBuffer
from dagster_project.resources.stores.features import DerivedFeatures
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import FLAGGED_BY, read_coded_history, read_history
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

ALERT_FEATURES = dg.AssetKey(["features", "alert_features"])


class ChosenDays(dg.Config):
    """Days to derive by hand, such as after a correction of old alerts; without them, those that the job needs."""

    first_day: str | None = Field(None, description="the first day (UTC), such as 2025-03-01")
    last_day: str | None = Field(None, description="the last day, included")


@dg.asset(
    key=ALERT_FEATURES,
    group_name="features",
    deps=[
        *(dg.AssetKey(["marts", name]) for name in ("alerts", "alert_outcomes")),
        FLOOD_DAYS,
        VISIBILITY_ONLY,
    ],
    io_manager_key="feature_files",
    description="What was known about each alert when it was raised: its facts and the history of its rule, entity "
    "and team. A day's features never change because of what happened later.",
    owners=["team:data-science"],
    kinds={"python", "parquet"},
    check_specs=list(suite_check_specs("alert_features", ALERT_FEATURES)),
)
def alert_features(
    context: dg.AssetExecutionContext,
    config: ChosenDays,
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
    cluster: dg.ResourceParam[Cluster],
) -> Iterator[Any]:
    as_of = run_as_of(context)
    days = feature_days(context.run.job_name, as_of, settings, (config.first_day, config.last_day))
    features, counts = SpillBuffer(warehouse.home, "alert_features"), Counter[str]()

    def parts() -> Iterator[pd.DataFrame]:
        derived = chain.from_iterable(
            derive_features(warehouse, settings, cluster, _midnight(first), min(as_of, _midnight(last + _DAY)))
            for first, last in _stretches(days)
        )
        for part in features.keep(derived):
            counts.update(part["raised_at"].dt.strftime("%Y-%m-%d").value_counts().to_dict())
            yield part

    yield from check_before_publishing("alert_features", ALERT_FEATURES, parts())
    context.log.info(f"{features.rows} alerts of {len(days)} days have features")
    yield dg.Output(
        DerivedFeatures(features, days),
        metadata={
            "dagster/column_schema": frame_schema(features.newest, _descriptions(warehouse, settings)),
            "first day": days[0].isoformat(),
            "last day": days[-1].isoformat(),
            "alerts": features.rows,
            "alerts of each day": {day.isoformat(): counts[day.isoformat()] for day in days},
        },
    )


_DAY = timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _stretches(days: Sequence[date]) -> list[tuple[date, date]]:
    """The first and last day of each stretch of consecutive days."""
    gaps = [(before, after) for before, after in pairwise(days) if after - before > _DAY]
    firsts, lasts = [days[0], *(after for _, after in gaps)], [*(before for before, _ in gaps), days[-1]]
    return list(zip(firsts, lasts, strict=True))


def _descriptions(warehouse: Warehouse, settings: Settings) -> dict[str, str]:
    """What each column of the features means: facts as the mart describes them, histories by their definition."""
    from dagster_project.triage.features.contract import history_features_for

    facts = {column["name"]: column["description"] or "" for column in warehouse.columns("marts.alerts")}
    return {**facts, **{each.name: each.description for each in history_features_for(settings.feature_settings())}}


def derive_features(
    warehouse: Warehouse, settings: Settings, cluster: Cluster, first: datetime, until: datetime
) -> Iterator[pd.DataFrame]:
    """The features of alerts raised in [first, until), from the warehouse, in parts in order of time, at least one."""
    from dagster_project.triage.features.build import FACTS, build_features_in_parts
    from dagster_project.triage.features.keys import COLUMNS, EVERYTHING, KEY_SEPARATOR

    wanted = settings.feature_settings()
    # An alert may be decided a whole horizon after it was raised, and that outcome still be within the lookback.
    since = first - wanted.lookback - timedelta(days=settings.outcome.horizon_days)
    # Of the past only what histories are kept by; attributes only where a key is one.
    parts = {part for key in wanted.keys for part in key.split(KEY_SEPARATOR)} - {EVERYTHING}
    columns = [*FLAGGED_BY, *(part if part in COLUMNS else "attributes" for part in sorted(parts))]
    history = read_coded_history(warehouse, until, since, list(dict.fromkeys(columns)))

    def facts(begin: datetime, end: datetime) -> pd.DataFrame:
        return read_history(warehouse, end, begin, FACTS)

    # A cluster is sent the history once.
    at_once = len(history) + 1 if cluster else ALERTS_AT_ONCE
    yield from build_features_in_parts(
        history, *read_flags(warehouse), first, until, wanted, facts, at_once, cluster.history_features
    )
