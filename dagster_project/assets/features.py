"""The stage that derives features: one Parquet file per day.

Belongs here: which days a run computes and what it reads for them.
Does not belong here: features (`triage/features/contract.py`, `triage/features/history`).
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg
import pandas as pd

from dagster_project.assets.quality import FLOOD_DAYS, VISIBILITY_ONLY
from dagster_project.assets.showing import frame_schema
from dagster_project.checks import check_before_publishing, suite_check_specs
from dagster_project.resources.as_of import FIRST_DAY, run_as_of
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.files.spill import ALERTS_AT_ONCE, SpillBuffer
from dagster_project.resources.stores.features import days_between
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import FLAGGED_BY, read_coded_history, read_history
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

ALERT_FEATURES = dg.AssetKey(["features", "alert_features"])
DAYS = dg.DailyPartitionsDefinition(start_date=FIRST_DAY.isoformat(), end_offset=1)


@dg.asset(
    key=ALERT_FEATURES,
    group_name="features",
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
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
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
    cluster: dg.ResourceParam[Cluster],
) -> Iterator[Any]:
    as_of = run_as_of(context)
    days = days_between(*context.partition_key_range)
    first = datetime.combine(days[0], time(), UTC)
    until = min(as_of, datetime.combine(days[-1] + timedelta(days=1), time(), UTC))
    features, counts = SpillBuffer(warehouse.home, "alert_features"), Counter[str]()

    def parts() -> Iterator[pd.DataFrame]:
        for part in features.keep(derive_features(warehouse, settings, cluster, first, until)):
            counts.update(part["raised_at"].dt.strftime("%Y-%m-%d").value_counts().to_dict())
            yield part

    yield from check_before_publishing("alert_features", ALERT_FEATURES, parts())
    context.log.info(f"{features.rows} alerts of {len(days)} days have features")
    # A day shows its own count. All days have the same columns, which the newest one shows for all.
    for day in days:
        context.add_asset_metadata({"dagster/row_count": counts[day.isoformat()]}, partition_key=day.isoformat())
    shown = {"dagster/column_schema": frame_schema(features.newest)}
    context.add_asset_metadata(shown, partition_key=days[-1].isoformat())
    yield dg.Output(features)


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
