"""The stage that scores: the champion's probability for every open alert, published in one transaction.

Belongs here: an alert's way to its score, in order: read, derive, score, check, publish.
Does not belong here: what a score is (`triage/pipeline.py`, `triage/learning/model.py`), and the tables
(`resources/stores/scores.py`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from dagster_project.assets.features import ALERT_FEATURES, derive_features
from dagster_project.assets.showing import score_plot, table, table_metadata
from dagster_project.assets.training import CHAMPION_MODEL
from dagster_project.checks import check_before_publishing, nothing_to_check, suite_check_specs
from dagster_project.resources.as_of import run_as_of
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.files.spill import ALERTS_AT_ONCE, SpillBuffer
from dagster_project.resources.stores.features import DamagedFile, FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.history import ATTRIBUTES_FROM, read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import publish_scores, read_held_out, scores_that_differ
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

if TYPE_CHECKING:
    from dagster_project.triage.learning.model import Model

ALERT_SCORES = dg.AssetKey(["scoring", "alert_scores"])
# Of each part, so that ten can be shown although some are held out.
_CANDIDATES = 1_000


@dg.asset(
    key=ALERT_SCORES,
    group_name="scoring",
    deps=[CHAMPION_MODEL],
    ins={"features": dg.AssetIn(ALERT_FEATURES)},
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
    as_of = run_as_of(context)

    # Read.
    model = _model(context, models, settings, as_of)
    first = as_of - timedelta(days=settings.outcome.horizon_days)
    recent = read_history(warehouse, as_of, first, ("alert_id", "raised_at", "known_at"))
    still_open = recent.loc[recent["known_at"].isna(), ["alert_id", "raised_at"]].reset_index(drop=True)
    if not len(still_open):
        context.log.warning("there is no open alert to score")
        yield from nothing_to_check("alert_scores", ALERT_SCORES)
        publish_scores(warehouse, [], as_of, None, 0)
        shown = {"new scores": 0, "open alerts": 0}
        yield dg.MaterializeResult(metadata={**table_metadata(warehouse, "scoring.alert_scores"), **shown})
        return

    # Derive: only what the feature files lack.
    parts = _stored_features(context, features, still_open, first.date(), as_of.date())
    if parts is None:
        midnight = datetime.combine(first.date(), time(), UTC)
        parts = derive_features(warehouse, settings, cluster, midnight, as_of)

    # Score.
    scored = _score(parts, still_open, model, warehouse, as_of)
    if missing := len(still_open) - len(scored.all):
        raise dg.Failure(f"{missing} open alerts have no features")
    context.log.info(f"{scored.fresh.rows} of {len(scored.all)} scores are new")

    # Check.
    if scored.fresh.rows:
        until = {"as_of": as_of.isoformat()}
        yield from check_before_publishing("alert_scores", ALERT_SCORES, scored.fresh, parameters=until)
    else:
        yield from nothing_to_check("alert_scores", ALERT_SCORES)

    # Publish.
    added = publish_scores(warehouse, scored.fresh, as_of, model.version, len(scored.all), settings.holdout.share)
    scored.fresh.clear()
    hidden = scored.all["alert_id"].isin(read_held_out(warehouse))
    top = scored.all[~hidden].nlargest(10, "probability")
    why = scored.candidates.set_index("alert_id", drop=False).loc[top["alert_id"]]
    reasons = ["; ".join(each) for each in (model.reasons(why) if len(top) else [])]
    yield dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "scoring.alert_scores"),
            "new scores": added,
            "open alerts": len(scored.all),
            "held out: no score is shown": int(hidden.sum()),
            "model version": model.version,
            "model": model.kind,
            "probabilities": score_plot(scored.all["probability"]),
            "most worth attention": table(top.assign(reasons=reasons)),
        }
    )


def _model(context: dg.AssetExecutionContext, models: ModelStore, settings: Settings, as_of: datetime) -> "Model":
    """The champion, or the prior for every alert if there is none."""
    from dagster_project.triage.features.contract import contract
    from dagster_project.triage.pipeline import prior_model

    model, damage = models.scoring_model(as_of, contract(settings.feature_settings()))
    if model is None:
        context.log.warning(
            "there is no champion: every alert gets the prior. Run the job `retrain`; `heed champion` shows why not"
        )
        model = prior_model(as_of, settings.learning_settings())
        models.save(model, as_of)
    if damage:
        context.log.warning(damage)
    return model


def _stored_features(
    context: dg.AssetExecutionContext, features: FeatureStore, still_open: pd.DataFrame, first: date, last: date
) -> Iterator[pd.DataFrame] | None:
    """The stored features of these days, in parts; None if they lack an open alert, or a file is damaged."""
    try:
        stored = features.read(first, last, ["alert_id"])  # also compares the checksum of each file
    except DamagedFile as error:
        context.log.warning(f"{error.cause}: features of open alerts are derived again")
        return None
    complete = len(stored) and still_open["alert_id"].isin(stored["alert_id"]).all()
    return features.read_parts(first, last, ALERTS_AT_ONCE) if complete else None


@dataclass(frozen=True)
class _Scored:
    """all : alert_id and probability of every open alert. fresh : the scores that differ from the newest ones of their
    alerts, with reasons. candidates : features of those that score highest, among them the ten that are shown."""

    all: pd.DataFrame
    fresh: SpillBuffer
    candidates: pd.DataFrame


def _score(
    parts: Iterable[pd.DataFrame], still_open: pd.DataFrame, model: "Model", warehouse: Warehouse, as_of: datetime
) -> _Scored:
    """Score the open ones of the alerts whose features come in parts.

    still_open : alert_id and raised_at of those, in order of time.
    """
    from dagster_project.triage.features.build import with_attribute_history
    from dagster_project.triage.features.contract import settings_from_contract
    from dagster_project.triage.flags.exclusion import flag_alerts
    from dagster_project.triage.pipeline import reasons, score

    flags = read_flags(warehouse)
    features = settings_from_contract(model.contract)
    keyed = bool(features.attribute_keys)
    history = read_history(warehouse, as_of, columns=ATTRIBUTES_FROM) if keyed else pd.DataFrame()
    times = still_open["raised_at"]
    every, candidates, fresh = [], [], SpillBuffer(warehouse.home, "alert_scores")

    def new_scores() -> Iterator[pd.DataFrame]:
        for part in parts:
            if not len(part):
                continue
            # Look only among open alerts of the same time: among millions, that would take longer than scoring.
            first = int(times.searchsorted(part["raised_at"].min(), "left"))
            last = int(times.searchsorted(part["raised_at"].max(), "right"))
            frame = part[part["alert_id"].isin(still_open["alert_id"].iloc[first:last])].reset_index(drop=True)
            if not len(frame):
                continue
            if keyed:
                frame = with_attribute_history(frame, history, *flags, features)
            flagged = flag_alerts(frame, *flags, as_of=as_of)
            scores = score(model, frame, flagged)
            every.append(scores[["alert_id", "probability"]])
            candidates.append(frame.loc[scores["probability"].nlargest(_CANDIDATES).index])
            # A score that equals the newest one of its alert keeps that row, reasons included.
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
