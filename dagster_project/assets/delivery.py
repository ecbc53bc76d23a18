"""The stage after publication that delivers scores to the destinations of heed.toml.

Belongs here: its place in the lineage, and what Dagster shows of it.
Does not belong here: what is said and how it is sent (`delivery/`), tables (`resources/stores/deliveries.py`).
"""

from typing import Any

import dagster as dg
import pandas as pd

from dagster_project.assets.showing import table, table_metadata
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

DELIVERIES = dg.AssetKey(["scoring", "deliveries"])


@dg.asset(
    key=DELIVERIES,
    group_name="delivery",
    deps=[dg.AssetKey(["reporting", "alert_scores_latest"])],
    description="Scores sent to the destinations of heed.toml (none by default): one row per message, written before "
    "it is sent, at least once. What a destination does not take fails no run.",
    owners=["team:data-engineering"],
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "scoring.deliveries"},
)
def deliveries(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[Any]:
    from dagster_project.delivery.deliver import deliver

    results = deliver(warehouse, settings)
    for result in results:
        (context.log.warning if result.note else context.log.info)(result.line())
    rows = [result.to_document() for result in results]
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "scoring.deliveries"),
            "delivered": sum(result.delivered for result in results),
            **({"destinations": table(pd.DataFrame(rows))} if rows else {}),
        }
    )
