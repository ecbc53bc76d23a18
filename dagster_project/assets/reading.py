"""The stage that learns how a score changes while its alert waits.

Belongs here: what it reads, stores and shows.
Does not belong here: learning it (`triage/champion/reading.py`), applying it (`reporting.alert_scores_latest`).
"""

from datetime import timedelta

import dagster as dg

from dagster_project.assets.quality import FLOOD_DAYS, VISIBILITY_ONLY
from dagster_project.assets.showing import table, table_metadata
from dagster_project.assets.training import CHAMPION_MODEL
from dagster_project.resources.as_of import run_as_of
from dagster_project.resources.stores.curves import publish_rates, save_curves
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.scores import read_influenced
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

DECISION_CURVES = dg.AssetKey(["scoring", "decision_curves"])


@dg.asset(
    key=DECISION_CURVES,
    group_name="training",
    deps=[CHAMPION_MODEL, FLOOD_DAYS, VISIBILITY_ONLY],
    description="How the chance at the raise becomes the chance now, by age, team and rule; and the share of flagged "
    "alerts that is acted on. reporting.alert_scores_latest applies both at the moment of reading.",
    owners=["team:data-science"],
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "scoring.decision_curves"},
)
def decision_curves(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    from dagster_project.triage.champion.reading import learn_reading

    as_of = run_as_of(context)
    first = as_of - timedelta(days=settings.learning.training_days)
    history = read_history(
        warehouse, as_of, first, ("alert_id", "raised_at", "known_at", "acted", "rule", "team", "attributes")
    )
    touched = history["alert_id"].isin(read_influenced(warehouse, as_of)).to_numpy()
    horizon = settings.learning_settings().horizon
    curves, rates = learn_reading(history, read_flags(warehouse), as_of, horizon, touched)
    version = save_curves(warehouse, curves)
    publish_rates(warehouse, rates, as_of)
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "scoring.decision_curves"),
            "version": version,
            "decided alerts": curves.alerts,
            "flagged alerts": table(rates[["kind", "rule", "alerts", "acted", "probability", "low", "high"]].head(40)),
        }
    )
