"""The stage that learns: training set, candidate, its evidence, and the gate.

Belongs here: what each of them reads, stores and shows.
Does not belong here: learning and judging (`triage/`).
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import pandas as pd

from dagster_project.assets.features import ALERT_FEATURES
from dagster_project.assets.quality import FLOOD_DAYS, VISIBILITY_ONLY
from dagster_project.assets.showing import frame_schema, headline, table, table_metadata
from dagster_project.checks import check_before_publishing, suite_check_specs
from dagster_project.errors import HeedError
from dagster_project.resources.as_of import run_moment
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.stores.action_types import require_known_meanings
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.frames import FrameFile
from dagster_project.resources.stores.history import read_fact_changes, read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import read_influenced
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

TRAINING_SET = dg.AssetKey(["training", "training_set"])
CANDIDATE_MODEL = dg.AssetKey(["training", "candidate_model"])
MODEL_EVALUATION = dg.AssetKey(["training", "model_evaluation"])
MODEL_AUDIT = dg.AssetKey(["training", "model_audit"])
CHAMPION_MODEL = dg.AssetKey(["training", "champion_model"])
_OWNERS = ["team:data-science"]
MOST_FLAGGED = 10_000  # of a day, or of each ALERTS_AT_ONCE of one: the training set goes without the others


@dg.asset(
    key=TRAINING_SET,
    group_name="training",
    deps=[FLOOD_DAYS, VISIBILITY_ONLY],
    ins={"features": dg.AssetIn(ALERT_FEATURES, partition_mapping=dg.AllPartitionMapping())},
    io_manager_key="frame_files",
    description="What there is to learn from: alerts whose outcome is known at the as-of, with the features they had "
    "when they were raised. Flagged alerts are marked and left out of learning.",
    owners=_OWNERS,
    kinds={"python", "parquet"},
    check_specs=list(suite_check_specs("training_set", TRAINING_SET)),
)
def training_set(
    context: dg.AssetExecutionContext,
    features: FeatureStore,
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
) -> Iterator[Any]:
    as_of = run_moment(context)
    require_known_meanings(warehouse, settings, as_of)
    frame, left_out = read_taught(features, warehouse, as_of, settings.learning.training_days)
    touched = read_influenced(warehouse, as_of)
    if len(touched):
        frame["influenced"] = frame["alert_id"].isin(touched).to_numpy()
        unseen = int((~frame["influenced"]).sum())
        context.log.info(
            f"people act differently because of scores: calibrating on the {unseen} alerts whose score nobody "
            "saw, where they are enough"
        )
    yield from check_before_publishing(
        "training_set", TRAINING_SET, [frame[~frame["excluded"]]], parameters={"cut": as_of.isoformat()}
    )
    yield dg.Output(
        frame,
        metadata={
            "dagster/row_count": len(frame),
            "dagster/column_schema": frame_schema(frame),
            "acted": int(frame["acted"].sum()),
            "left out (flagged)": int(frame["excluded"].sum()),
            "flagged beyond what evaluation needs": left_out,
            "outcomes that a shown score may have changed": int(frame["influenced"].sum()) if len(touched) else 0,
        },
    )


def read_taught(
    features: FeatureStore, warehouse: Warehouse, as_of: datetime, training_days: float, most: int = MOST_FLAGGED
) -> tuple[pd.DataFrame, int]:
    """The training set at `as_of` as `training_frame` makes it, and how many flagged alerts it goes without.

    most : of the flagged alerts of a day, or of each ALERTS_AT_ONCE on a day of more, so many come along.
    """
    from dagster_project.triage.features.build import FACTS
    from dagster_project.triage.pipeline import at_most_flagged, training_frame

    first = as_of - timedelta(days=training_days)
    flags = read_flags(warehouse)
    left_out = 0

    def needed(day: "pa.Table") -> np.ndarray:
        nonlocal left_out
        if day.num_rows <= most:
            return np.ones(day.num_rows, bool)
        mask = at_most_flagged(day.select(list(FACTS)).to_pandas(), *flags, as_of, most)
        left_out += int((~mask).sum())
        return mask

    made = features.read(first.date(), as_of.date(), keep=needed)
    if not len(made):
        made = pd.DataFrame(columns=list(FACTS))
        made["raised_at"] = made["raised_at"].astype("datetime64[us, UTC]")
    outcomes = read_history(warehouse, as_of, first, ("alert_id", "raised_at", "acted", "known_at"))
    if left_out:
        outcomes = outcomes[outcomes["alert_id"].isin(made["alert_id"])]
    return training_frame(made, outcomes, *flags, cut=as_of, training_days=training_days), left_out


@dg.asset(
    key=CANDIDATE_MODEL,
    group_name="training",
    ins={"frame": dg.AssetIn(TRAINING_SET)},
    io_manager_key="frame_files",
    description="A new model version, learned from the past only; or the best simple baseline where there is too "
    "little to learn from or nothing beats it. With it come its forecasts of the past: what it and every baseline said "
    "about alerts that were later than all they had learned from.",
    owners=_OWNERS,
    kinds={"lightgbm", "postgres"},
    metadata={"dagster/table_name": "training.model_versions"},
)
def candidate_model(
    context: dg.AssetExecutionContext,
    frame: FrameFile,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
    cluster: dg.ResourceParam[Cluster],
) -> dg.Output[pd.DataFrame]:
    from dagster_project.triage.audit.withholding import learn_without_leaks, withhold
    from dagster_project.triage.learning.training import LIGHTGBM

    as_of = run_moment(context)
    champion = models.champion(as_of)
    learning = replace(settings.learning_settings(), fit_elsewhere=cluster.fit if cluster else None)
    since = as_of - timedelta(days=settings.learning.training_days + settings.features.lookback_days)
    history, changes = read_history(warehouse, as_of, since), read_fact_changes(warehouse, as_of)
    withholding = withhold(frame.read(), history, as_of, learning, changes)
    del history
    told = [f"{row.subject} is {row.verdict}: {row.finding}" for row in withholding.findings]
    for line in told:
        context.log.warning(line)
    learned = learn_without_leaks(
        frame.read(), as_of, learning, withholding, proven=champion is not None and champion.kind == LIGHTGBM
    )
    models.save(learned.model, as_of)
    context.log.info(learned.model.explanation)
    return dg.Output(
        learned.forecasts,
        metadata={
            **table_metadata(warehouse, "training.model_versions"),
            "model version": learned.model.version,
            "kind": learned.model.kind,
            "why": learned.model.explanation,
            "forecasts of the past": len(learned.forecasts),
            "not known at the raise": told,
        },
    )


@dg.asset(
    key=MODEL_EVALUATION,
    group_name="training",
    ins={"forecasts": dg.AssetIn(CANDIDATE_MODEL)},
    description="The candidate's forecasts of the past beside every simple baseline's, with intervals: with and "
    "without flagged alerts, on the last cut alone, by team, severity, month and age of the rule. What was said beside "
    "what happened stands in training.reliability.",
    owners=_OWNERS,
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "training.model_evaluations"},
)
def model_evaluation(
    context: dg.AssetExecutionContext,
    forecasts: FrameFile,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
) -> dg.MaterializeResult:
    from dagster_project.triage.evaluation import evidence

    as_of = run_moment(context)
    past = forecasts.read()
    evaluation = evidence.measure(past)
    models.save_evaluation(models.newest(as_of), as_of, evaluation, evidence.reliability(past))
    shown = evaluation[
        evaluation["metric"].isin(["log_loss", "roc_auc"]) & evaluation["slice"].isin(["unflagged", "all", "last cut"])
    ]
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "training.model_evaluations"),
            **headline(evaluation),
            "measured on": f"alerts from {past['raised_at'].min():%Y-%m-%d} to {past['raised_at'].max():%Y-%m-%d}"
            if len(past)
            else "too little known to measure anything",
            "against the baselines": table(shown[["slice", "contender", "metric", "value", "low", "high", "alerts"]]),
        },
    )


@dg.asset(
    key=MODEL_AUDIT,
    group_name="training",
    ins={"frame": dg.AssetIn(TRAINING_SET), "forecasts": dg.AssetIn(CANDIDATE_MODEL)},
    description="What an auditor would ask of the candidate: does anything it learns from know the future, does it "
    "only repeat the last action, and how far can each team's decisions be foreseen at all?",
    owners=_OWNERS,
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "training.audit_findings"},
)
def model_audit(
    context: dg.AssetExecutionContext,
    frame: FrameFile,
    forecasts: FrameFile,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    from dagster_project.triage.audit.audit import audit
    from dagster_project.triage.audit.findings import table as table_of
    from dagster_project.triage.audit.withholding import Withholding

    as_of = run_moment(context)
    version = models.newest(as_of)
    withholding = Withholding.of(models.load(version).evidence)
    since = as_of - timedelta(days=settings.learning.training_days + settings.features.lookback_days)
    made = audit(
        frame.read(),
        forecasts.read(),
        read_history(warehouse, as_of, since),
        *read_flags(warehouse),
        cut=as_of,
        settings=replace(settings.learning_settings(), withheld=tuple(withholding.withheld)),
        history_from=pd.Timestamp(since),
    )
    withheld = replace(withholding, vouched={}).findings  # those that are vouched for were audited again
    made = replace(made, findings=pd.concat([table_of(withheld), made.findings], ignore_index=True))
    models.save_audit(version, as_of, made)
    verdicts = made.findings["verdict"].value_counts()
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "training.audit_findings"),
            **{f"findings: {name}": int(number) for name, number in verdicts.items()},
            "findings": table(made.findings[["check", "subject", "verdict", "finding"]].head(40)),
            "repeating the last action": f"{made.shortcut.verdict}: {made.shortcut.reason}"
            if made.shortcut
            else "no trees were taught",
            "teams": table(made.teams[["team", "alerts", "auc", "ceiling", "status", "reason"]])
            if len(made.teams)
            else "no trees were taught",
        },
    )


@dg.asset(
    key=CHAMPION_MODEL,
    group_name="training",
    ins={"frame": dg.AssetIn(TRAINING_SET), "forecasts": dg.AssetIn(CANDIDATE_MODEL)},
    deps=[MODEL_EVALUATION, MODEL_AUDIT],
    description="The model version that scores: the gate's decisions with their reasons, append-only. A champion that "
    "stays is calibrated anew on what it said since it learned.",
    owners=_OWNERS,
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "training.champion_decisions"},
)
def champion_model(
    context: dg.AssetExecutionContext,
    frame: FrameFile,
    forecasts: FrameFile,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    from dagster_project.triage.audit.withholding import Withholding, knows
    from dagster_project.triage.champion import gate
    from dagster_project.triage.champion.recalibration import forecasts_since, in_words, recalibrate
    from dagster_project.triage.evaluation import evidence

    as_of = run_moment(context)
    version = models.newest(as_of)
    candidate = models.load(version)
    standing = models.champion(as_of)
    champion, unusable = None, ""
    past, known = forecasts.read(), frame.read()
    withholding = Withholding.of(candidate.evidence)
    comparison = None
    if standing is not None:
        try:
            champion = models.load(standing.model_version)
        except HeedError as error:
            unusable = f"the champion {standing.model_version} cannot be read ({error.cause})"
    if champion is not None and standing is not None and champion.contract != candidate.contract:
        # It cannot score any more and does not defend its place; what it said while it could is compared all the same.
        unusable = gate.why_other_features(standing.model_version, champion.contract, candidate.contract)
        said = models.published_by(champion, as_of)
        comparison = gate.compare_published(candidate, past, champion.as_taught(), said)
        champion = None
    elif champion is not None and standing is not None and (known_to := knows(champion, withholding)):
        # On the facts of today it would win by what it cannot have known.
        unusable = gate.why_it_knows(standing.model_version, known_to)
        champion = None
    elif champion is not None:
        # As it was taught: a map fitted since has seen these very alerts.
        comparison = gate.compare(candidate, past, champion.as_taught(), known)
    if unusable:
        context.log.warning(unusable)
    decision = gate.decide(
        candidate,
        models.evaluation(version),
        settings.gate_targets(),
        champion is not None,
        comparison,
        models.leaks(version),
        unusable,
    )
    withdrawn_versions = models.succession(as_of).withdrawn
    if decision.decision == "promoted" and (withdrawn := withdrawn_versions.get(version)):
        # What a person ended, only a person begins again.
        word = f"{withdrawn['decided_by']} rolled back from it ({'; '.join(withdrawn['reasons'])})"
        decision = gate.Decision("refused", [f"{word}; only a person makes it champion again"], decision.evidence)
    models.decide(version, as_of, decision.decision, decision.reasons, decision.evidence, decided_by="gate")
    if decision.decision == "refused" and champion is not None and standing is not None:
        horizon = settings.learning_settings().horizon
        again = recalibrate(champion, known, as_of, horizon)
        if again.version != standing.model_version and again.version not in withdrawn_versions:
            inner_cuts = [datetime.fromisoformat(moment) for moment in candidate.evidence.get("inner_cuts", [])]
            models.save(again, as_of)
            if len(past):
                past = forecasts_since(again, past, inner_cuts, known, horizon)
                models.save_evaluation(again.version, as_of, evidence.measure(past), evidence.reliability(past))
            models.inherit_audit(again.version, as_of, standing.model_version)
            models.decide(again.version, as_of, "promoted", [in_words(again)], {}, decided_by="gate")
    scoring = models.champion(as_of)
    context.log.info(f"{decision.decision}: {'; '.join(decision.reasons)}")
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "training.champion_decisions"),
            "decision": decision.decision,
            "reasons": "; ".join(decision.reasons),
            "champion": scoring.model_version if scoring else "none",
            "the evidence as one page": f"heed report --as-of {as_of.isoformat()} --out report.html",
        },
    )


training_assets = [training_set, candidate_model, model_evaluation, model_audit, champion_model]
