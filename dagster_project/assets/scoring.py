"""The stage that scores: the champion's probability for every open alert, published in one transaction.

Belongs here: which alerts are scored, with which model, and publication.
Does not belong here: what a score is (`triage/steps.py`, `triage/model.py`).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from typing import Any

import dagster as dg
import pandas as pd

from dagster_project.assets.features import ALERT_FEATURES, derive_features
from dagster_project.assets.showing import score_plot, table, table_schema
from dagster_project.assets.training import CHAMPION_MODEL
from dagster_project.checks import check_before_publishing, nothing_to_check, suite_check_specs
from dagster_project.errors import HeedError
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.dbt_ahead import prepare_dbt
from dagster_project.resources.features import FeatureStore
from dagster_project.resources.models import ModelStore
from dagster_project.resources.moment import run_moment
from dagster_project.resources.postgres import Warehouse
from dagster_project.resources.tables import (
    publish_scores,
    read_flags,
    read_held_out,
    read_history,
    scores_that_differ,
)
from dagster_project.settings import Settings

ALERT_SCORES = dg.AssetKey(["scoring", "alert_scores"])


@dg.asset(
    key=ALERT_SCORES,
    group_name="scoring",
    deps=[CHAMPION_MODEL],
    ins={"features": dg.AssetIn(ALERT_FEATURES, partition_mapping=dg.AllPartitionMapping())},
    description="Probability that somebody will act, for every alert that is still open: append-only, one row "
    "whenever a score, its model or a flag changed.",
    owners=["team:data-science"],
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "scoring.alert_scores"},
    check_specs=list(suite_check_specs("alert_scores", ALERT_SCORES)),
)
def alert_scores(
    context: dg.AssetExecutionContext,
    features: FeatureStore,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
    cluster: dg.ResourceParam[Cluster],
) -> Iterator[Any]:
    from dagster_project.triage.exclusion import flag_alerts
    from dagster_project.triage.features import contract
    from dagster_project.triage.steps import score, untaught

    prepare_dbt(warehouse, settings)  # publishing comes next
    as_of = run_moment(context)
    wanted = contract(settings.feature_settings())
    model, damage = models.scoring_model(as_of, wanted)
    if model is None:
        context.log.warning("no model was ever trained: every alert gets the prior. Run the job `retrain`.")
        model = untaught(as_of, settings.learning_settings())
        models.save(model, as_of)
    if damage:
        context.log.warning(damage)

    horizon = timedelta(days=settings.outcome.horizon_days)
    recent = read_history(warehouse, as_of, as_of - horizon)
    still_open = set(recent.loc[recent["known_at"].isna(), "alert_id"])
    try:
        frame = features.read((as_of - horizon).date(), as_of.date())
    except HeedError as error:
        context.log.warning(f"{error.cause}: features of open alerts are derived again")
        frame = pd.DataFrame()
    if still_open and (not len(frame) or not still_open <= set(frame["alert_id"])):
        # Files are there to save time. Where one is missing or damaged, scores come from what would have made it.
        frame = derive_features(
            warehouse, settings, cluster, datetime.combine((as_of - horizon).date(), time(), UTC), as_of
        )
    if len(frame):
        frame = frame[frame["alert_id"].isin(still_open)].reset_index(drop=True)
    if lacking := len(still_open) - len(frame):
        raise dg.Failure(f"{lacking} open alerts have no features, although they were derived anew")
    if not len(frame):
        context.log.warning("there is no open alert to score")
        yield from nothing_to_check("alert_scores", ALERT_SCORES)
        publish_scores(warehouse, frame, as_of)
        yield dg.MaterializeResult(metadata={"dagster/row_count": 0, "open alerts": 0})
        return
    flags = flag_alerts(frame, *read_flags(warehouse), as_of=as_of)
    # Only a score that is published has readers: what says the same as the newest score of its alert keeps that row,
    # reasons included, and needs no new ones.
    scores = score(model, frame, flags, with_reasons=False)
    changed = scores_that_differ(warehouse, scores, as_of, as_of - horizon)
    fresh = scores[changed].copy()
    fresh["reasons"] = model.reasons(frame[changed]) if len(fresh) else []
    context.log.info(f"{len(fresh)} of {len(scores)} scores are new")
    if len(fresh):
        yield from check_before_publishing("alert_scores", ALERT_SCORES, fresh, parameters={"as_of": as_of.isoformat()})
    else:
        yield from nothing_to_check("alert_scores", ALERT_SCORES)
    added = publish_scores(
        warehouse, fresh, as_of, settings.holdout.share, model_version=model.version, open_alerts=len(scores)
    )
    held_out = read_held_out(warehouse)
    hidden = scores["alert_id"].isin(held_out)
    top = scores[~hidden].nlargest(10, "probability")
    top["reasons"] = model.reasons(frame.loc[top.index]) if len(top) else []
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": added,
            "dagster/column_schema": table_schema(warehouse, "scoring.alert_scores"),
            "open alerts": len(scores),
            "held out: no score is shown": int(hidden.sum()),
            "model version": model.version,
            "model": model.kind,
            "probabilities": score_plot(scores["probability"]),
            "most worth attention": table(
                top.assign(reasons=top["reasons"].map("; ".join))[["alert_id", "probability", "reasons"]]
            ),
        }
    )
