"""The stage that scores: the champion's probability for every open alert, published in one transaction.

Belongs here: which alerts are scored, with which model, and publication.
Does not belong here: what a score is (`triage/pipeline.py`, `triage/learning/model.py`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from dagster_project.assets.features import ALERT_FEATURES, derive_features
from dagster_project.assets.showing import score_plot, table, table_schema
from dagster_project.assets.training import CHAMPION_MODEL
from dagster_project.checks import check_before_publishing, nothing_to_check, suite_check_specs
from dagster_project.resources.as_of import run_as_of
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.dbt.prestarted import prepare_dbt
from dagster_project.resources.files.spill import ALERTS_AT_ONCE, SpillBuffer
from dagster_project.resources.stores.features import DamagedFile, FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import publish_scores, read_held_out, scores_that_differ
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

if TYPE_CHECKING:
    from dagster_project.triage.learning.model import Model

ALERT_SCORES = dg.AssetKey(["scoring", "alert_scores"])
# Of each part, so that ten are left to show when some are held out.
_CANDIDATES = 1_000


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
    from dagster_project.triage.features.contract import contract
    from dagster_project.triage.pipeline import prior_model

    prepare_dbt(warehouse, settings)  # publishing comes next
    as_of = run_as_of(context)
    wanted = contract(settings.feature_settings())
    model, damage = models.scoring_model(as_of, wanted)
    if model is None:
        context.log.warning(
            "there is no champion: every alert gets the prior. Run the job `retrain`; `heed champion` shows why not"
        )
        model = prior_model(as_of, settings.learning_settings())
        models.save(model, as_of)
    if damage:
        context.log.warning(damage)

    first = as_of - timedelta(days=settings.outcome.horizon_days)
    recent = read_history(warehouse, as_of, first, ("alert_id", "raised_at", "known_at"))
    still_open = recent.loc[recent["known_at"].isna(), ["alert_id", "raised_at"]].reset_index(drop=True)
    if not len(still_open):
        context.log.warning("there is no open alert to score")
        yield from nothing_to_check("alert_scores", ALERT_SCORES)
        publish_scores(warehouse, [], as_of, None, 0)
        yield dg.MaterializeResult(metadata={"dagster/row_count": 0, "open alerts": 0})
        return

    scored = None
    try:
        kept = features.read(first.date(), as_of.date(), ["alert_id"])
        if len(kept) and still_open["alert_id"].isin(kept["alert_id"]).all():
            scored = _score(
                features.read_parts(first.date(), as_of.date(), ALERTS_AT_ONCE), still_open, model, warehouse, as_of
            )
    except DamagedFile as error:
        context.log.warning(f"{error.cause}: features of open alerts are derived again")
    if scored is None or len(scored.all) != len(still_open):
        # Files are there to save time. Where one is missing or damaged, scores come from what would have made it.
        midnight = datetime.combine(first.date(), time(), UTC)
        parts = derive_features(warehouse, settings, cluster, midnight, as_of)
        scored = _score(parts, still_open, model, warehouse, as_of)
    if lacking := len(still_open) - len(scored.all):
        raise dg.Failure(f"{lacking} open alerts have no features, although they were derived anew")
    context.log.info(f"{scored.fresh.rows} of {len(scored.all)} scores are new")
    if scored.fresh.rows:
        until = {"as_of": as_of.isoformat()}
        yield from check_before_publishing("alert_scores", ALERT_SCORES, scored.fresh, parameters=until)
    else:
        yield from nothing_to_check("alert_scores", ALERT_SCORES)
    added = publish_scores(warehouse, scored.fresh, as_of, model.version, len(scored.all), settings.holdout.share)
    scored.fresh.clear()
    hidden = scored.all["alert_id"].isin(read_held_out(warehouse))
    top = scored.all[~hidden].nlargest(10, "probability")
    why = scored.candidates.set_index("alert_id", drop=False).loc[top["alert_id"]]
    reasons = ["; ".join(each) for each in (model.reasons(why) if len(top) else [])]
    yield dg.MaterializeResult(
        metadata={
            "dagster/row_count": added,
            "dagster/column_schema": table_schema(warehouse, "scoring.alert_scores"),
            "open alerts": len(scored.all),
            "held out: no score is shown": int(hidden.sum()),
            "model version": model.version,
            "model": model.kind,
            "probabilities": score_plot(scored.all["probability"]),
            "most worth attention": table(top.assign(reasons=reasons)),
        }
    )


@dataclass(frozen=True)
class _Scored:
    """all : alert_id and probability of every open alert. fresh : the scores that say something new, with reasons.
    candidates : features of those that score highest, among them the ten that are shown."""

    all: pd.DataFrame
    fresh: SpillBuffer
    candidates: pd.DataFrame


def _score(
    parts: Iterable[pd.DataFrame], still_open: pd.DataFrame, model: "Model", warehouse: Warehouse, as_of: datetime
) -> _Scored:
    """Score the open ones of the alerts whose features come in parts.

    still_open : alert_id and raised_at of those, in order of time.
    """
    from dagster_project.triage.flags.exclusion import flag_alerts
    from dagster_project.triage.pipeline import reasons, score

    flags = read_flags(warehouse)
    times = still_open["raised_at"]
    every, candidates, fresh = [], [], SpillBuffer(warehouse.home, "alert_scores")

    def new_scores() -> Iterator[pd.DataFrame]:
        for part in parts:
            if not len(part):
                continue
            # Looked for among those of its time only: to look among millions takes longer than to score.
            first = int(times.searchsorted(part["raised_at"].min(), "left"))
            last = int(times.searchsorted(part["raised_at"].max(), "right"))
            frame = part[part["alert_id"].isin(still_open["alert_id"].iloc[first:last])].reset_index(drop=True)
            if not len(frame):
                continue
            flagged = flag_alerts(frame, *flags, as_of=as_of)
            scores = score(model, frame, flagged)
            every.append(scores[["alert_id", "probability"]])
            candidates.append(frame.loc[scores["probability"].nlargest(_CANDIDATES).index])
            # Only a score that is published has readers: what says the same as the newest score of its alert keeps
            # that row, reasons included, and needs no new ones.
            changed = scores_that_differ(warehouse, scores, as_of)
            if changed.any():
                new = scores[changed].copy()
                new["reasons"] = reasons(model, frame[changed], flagged[changed])
                yield new

    for _ in fresh.keep(new_scores()):
        pass
    if not every:
        return _Scored(pd.DataFrame({"alert_id": [], "probability": []}), fresh, pd.DataFrame())
    return _Scored(pd.concat(every, ignore_index=True), fresh, pd.concat(candidates, ignore_index=True))
