"""The training stage: training set, candidate, its evaluation and audit, and the champion.

Belongs here: what each asset reads, stores and shows.
Does not belong here: learning, auditing and deciding (`triage/`).
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
from dagster_project.resources.as_of import run_as_of
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.inputs.action_types import require_known_meanings
from dagster_project.resources.stores.features import FeatureStore
from dagster_project.resources.stores.flags import read_flags
from dagster_project.resources.stores.frames import FrameFile
from dagster_project.resources.stores.history import ATTRIBUTES_FROM, read_fact_changes, read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import read_influenced
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from dagster_project.triage.learning.settings import LearningSettings

TRAINING_SET = dg.AssetKey(["training", "training_set"])
CANDIDATE_MODEL = dg.AssetKey(["training", "candidate_model"])
MODEL_EVALUATION = dg.AssetKey(["training", "model_evaluation"])
MODEL_AUDIT = dg.AssetKey(["training", "model_audit"])
CHAMPION_MODEL = dg.AssetKey(["training", "champion_model"])
_OWNERS = ["team:data-science"]
# Training holds so many alerts at most, the newest ones: 5 GB. Of a year before, few more would be learned.
MOST_ALERTS = 1_000_000
MOST_OF_A_BURST = 10_000  # of a rule on a day, or in each ALERTS_AT_ONCE of one: training leaves the others out


@dg.asset(
    key=TRAINING_SET,
    group_name="training",
    deps=[FLOOD_DAYS, VISIBILITY_ONLY],
    ins={"features": dg.AssetIn(ALERT_FEATURES)},
    io_manager_key="frame_files",
    description="What the model learns from: alerts whose outcome is known at the as-of, with the features they had "
    "when they were raised. Those that had a flag when they were scored, or that a person marked, are left out of "
    "learning.",
    owners=_OWNERS,
    kinds={"python", "parquet"},
    check_specs=list(suite_check_specs("training_set", TRAINING_SET)),
)
def training_set(
    context: dg.AssetExecutionContext,
    features: FeatureStore,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
) -> Iterator[Any]:
    as_of = run_as_of(context)
    require_known_meanings(warehouse, settings, as_of)
    frame, left_out = read_training_set(features, warehouse, as_of, settings.learning.training_days)
    frame = _with_attribute_history(frame, warehouse, models, settings, as_of)
    touched = read_influenced(warehouse, as_of)
    if len(touched):
        frame["influenced"] = frame["alert_id"].isin(touched).to_numpy()
        unseen = int((~frame["influenced"]).sum())
        context.log.info(
            f"people act differently because of scores: calibrating on the {unseen} alerts whose score nobody saw, "
            "if there are enough of them"
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
            "first raised at": str(frame["raised_at"].min()) if len(frame) else "none",
            "left out (flagged)": int(frame["excluded"].sum()),
            "alerts of bursts beyond what learning needs": left_out,
            "outcomes that a shown score may have changed": int(frame["influenced"].sum()) if len(touched) else 0,
        },
    )


def _with_attribute_history(
    frame: pd.DataFrame, warehouse: Warehouse, models: ModelStore, settings: Settings, as_of: datetime
) -> pd.DataFrame:
    """The training set with the history of the attributes that its alerts propose, and of those that the champion
    needs to be compared."""
    from dagster_project.triage.features.build import with_attribute_history

    learning = _learning(frame, settings)
    keys = dict.fromkeys([*learning.features.attribute_keys, *models.attribute_keys(as_of)])
    features = replace(learning.features, attribute_keys=tuple(keys))
    if not features.attribute_keys:
        return frame
    return with_attribute_history(
        frame, read_history(warehouse, as_of, columns=ATTRIBUTES_FROM), *read_flags(warehouse), features
    )


def _learning(frame: pd.DataFrame, settings: Settings) -> "LearningSettings":
    """The settings of learning, with the keys that the training set proposes."""
    from dagster_project.triage.pipeline import with_proposed_keys

    return with_proposed_keys(settings.learning_settings(), frame)


def _own(frame: pd.DataFrame, learning: "LearningSettings", models: ModelStore, as_of: datetime) -> pd.DataFrame:
    """The training set without what only the champion reads."""
    from dagster_project.triage.pipeline import without_other_keys

    return without_other_keys(frame, learning, models.attribute_keys(as_of))


def read_training_set(
    features: FeatureStore,
    warehouse: Warehouse,
    as_of: datetime,
    training_days: float,
    most: int = MOST_OF_A_BURST,
    most_alerts: int = MOST_ALERTS,
) -> tuple[pd.DataFrame, int]:
    """The training set at `as_of` as `training_frame` builds it, and how many alerts of bursts it leaves out.

    most : how many alerts of a rule on a day are kept, and how many excluded ones; see `at_most_of_a_burst`.
    most_alerts : with more in `training_days`, the oldest whole days are left out.
    """
    from dagster_project.triage.features.build import FACTS
    from dagster_project.triage.pipeline import at_most_of_a_burst, training_frame

    first = as_of - timedelta(days=training_days)
    flags = read_flags(warehouse)
    outcomes = read_history(warehouse, as_of, first, ("alert_id", "raised_at", "acted", "known_at"))
    if len(outcomes) > most_alerts:
        oldest = outcomes["raised_at"].nlargest(most_alerts).iloc[-1]
        first = min(oldest.ceil("D"), pd.Timestamp(as_of)).to_pydatetime()
        training_days = (as_of - first) / timedelta(days=1)
        outcomes = outcomes[outcomes["raised_at"] >= pd.Timestamp(first)]
    left_out = 0

    def needed(day: "pa.Table") -> np.ndarray:
        nonlocal left_out
        if day.num_rows <= most:
            return np.ones(day.num_rows, bool)
        mask = at_most_of_a_burst(day.select(list(FACTS)).to_pandas(), *flags, as_of, most)
        left_out += int((~mask).sum())
        return mask

    derived = features.read(first.date(), as_of.date(), keep=needed)
    if not len(derived):
        derived = pd.DataFrame(columns=list(FACTS))
        derived["raised_at"] = derived["raised_at"].astype("datetime64[us, UTC]")
    if left_out:
        outcomes = outcomes[outcomes["alert_id"].isin(derived["alert_id"])]
    return training_frame(derived, outcomes, *flags, cut=as_of, training_days=training_days), left_out


@dg.asset(
    key=CANDIDATE_MODEL,
    group_name="training",
    ins={"frame": dg.AssetIn(TRAINING_SET)},
    io_manager_key="frame_files",
    description="A new model version, learned from the past only: a pool of trees, a linear model and simple rates "
    "with weights. With it come forecasts of the past: those that it and every "
    "baseline made of alerts later than all they had learned from.",
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

    as_of = run_as_of(context)
    rows = frame.read()
    learning = replace(_learning(rows, settings), fit_elsewhere=cluster.fit if cluster else None)
    rows = _own(rows, learning, models, as_of)
    history, changes = read_history(warehouse, as_of), read_fact_changes(warehouse, as_of)
    withholding = withhold(rows, history, as_of, learning, changes)
    del history, rows
    leaking = [f"{row.subject} is {row.verdict}: {row.finding}" for row in withholding.findings]
    for line in leaking:
        context.log.warning(line)
    # Read once more: the checks need memory, and learning gives back that of the frame as soon as it can.
    learned = learn_without_leaks(_own(frame.read(), learning, models, as_of), as_of, learning, withholding)
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
            "not known at the raise": leaking,
        },
    )


@dg.asset(
    key=MODEL_EVALUATION,
    group_name="training",
    ins={"forecasts": dg.AssetIn(CANDIDATE_MODEL)},
    description="The candidate's forecasts of the past compared with every simple baseline's, with intervals: with and "
    "without flagged alerts, on the last cut alone, by team, severity, month and age of the rule. Forecast against "
    "outcome is in training.reliability.",
    owners=_OWNERS,
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "training.model_evaluations"},
)
def model_evaluation(
    context: dg.AssetExecutionContext,
    forecasts: FrameFile,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    from dagster_project.triage.evaluation import evidence

    as_of = run_as_of(context)
    past = forecasts.read()
    horizon = settings.learning_settings().horizon
    evaluation = _evaluate(past, as_of, horizon)
    version = models.newest(as_of)
    workload = evidence.workload(past, models.load(version).kind)
    models.save_evaluation(version, as_of, evaluation, evidence.reliability(past), workload)
    shown = evaluation[
        evaluation["metric"].isin(["log_loss", "roc_auc"]) & evaluation["slice"].isin(["unflagged", "all", "last cut"])
    ]
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "training.model_evaluations"),
            **headline(evaluation),
            "measured on": f"alerts from {past['raised_at'].min():%Y-%m-%d} to {past['raised_at'].max():%Y-%m-%d}"
            if len(past)
            else "too few known outcomes to measure anything",
            "against the baselines": table(shown[["slice", "contender", "metric", "value", "low", "high", "alerts"]]),
        },
    )


def _evaluate(forecasts: pd.DataFrame, as_of: datetime, horizon: timedelta) -> pd.DataFrame:
    """The evidence about the chance at the raise, and about the chance that readers saw while alerts waited."""
    from dagster_project.triage.evaluation import evidence, open_alerts

    parts = [evidence.measure(forecasts), open_alerts.measure_past(forecasts, as_of, horizon)]
    return pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)


@dg.asset(
    key=MODEL_AUDIT,
    group_name="training",
    ins={"frame": dg.AssetIn(TRAINING_SET), "forecasts": dg.AssetIn(CANDIDATE_MODEL)},
    description="What an auditor would ask of the candidate: does anything it learns from know the future, does it "
    "only repeat the last action, and how predictable are each team's decisions at all?",
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

    as_of = run_as_of(context)
    version = models.newest(as_of)
    withholding = Withholding.of(models.load(version).evidence)
    rows = frame.read()
    learning = _learning(rows, settings)
    result = audit(
        _own(rows, learning, models, as_of),
        forecasts.read(),
        read_history(warehouse, as_of),
        *read_flags(warehouse),
        cut=as_of,
        settings=replace(learning, withheld=tuple(withholding.withheld)),
    )
    withheld = replace(withholding, vouched={}).findings  # vouched columns were audited again
    result = replace(result, findings=pd.concat([table_of(withheld), result.findings], ignore_index=True))
    models.save_audit(version, as_of, result)
    verdicts = result.findings["verdict"].value_counts()
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "training.audit_findings"),
            **{f"findings: {name}": int(number) for name, number in verdicts.items()},
            "findings": table(result.findings[["check", "subject", "verdict", "finding"]].head(40)),
            "repeating the last action": f"{result.shortcut.verdict}: {result.shortcut.reason}"
            if result.shortcut
            else "no trees were trained",
            "teams": table(result.teams[["team", "alerts", "auc", "ceiling", "status", "reason"]])
            if len(result.teams)
            else "no trees were trained",
        },
    )


@dg.asset(
    key=CHAMPION_MODEL,
    group_name="training",
    ins={"frame": dg.AssetIn(TRAINING_SET), "forecasts": dg.AssetIn(CANDIDATE_MODEL)},
    deps=[MODEL_EVALUATION, MODEL_AUDIT],
    description="The model version that scores: the gate's decisions with their reasons, append-only. A champion that "
    "stays is recalibrated on its forecasts since training.",
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
    from dagster_project.triage.audit.withholding import Withholding
    from dagster_project.triage.champion.decide import decide_champion
    from dagster_project.triage.champion.recalibration import forecasts_since, in_words
    from dagster_project.triage.evaluation import evidence

    as_of = run_as_of(context)
    horizon = settings.learning_settings().horizon
    version = models.newest(as_of)
    candidate = models.load(version)
    past, known = forecasts.read(), frame.read()
    standing = models.standing(as_of)
    outcome = decide_champion(
        candidate,
        past,
        models.evaluation(version),
        known,
        standing,
        cut=as_of,
        horizon=horizon,
        targets=settings.gate_targets(),
        withholding=Withholding.of(candidate.evidence),
        leaks=models.leaks(version),
        withdrawn=models.succession(as_of).withdrawn,
    )
    decision, champion = outcome.decision, outcome.scores
    if outcome.unusable:
        context.log.warning(outcome.unusable)
    models.decide(version, as_of, decision.decision, decision.reasons, decision.evidence, decided_by="gate")
    if champion is not None and standing is not None and champion.version not in (version, standing.version):
        models.save(champion, as_of)
        if len(past):
            inner_cuts = [datetime.fromisoformat(text) for text in candidate.evidence.get("inner_cuts", [])]
            past = forecasts_since(champion, past, inner_cuts, known, horizon)
            models.save_evaluation(
                champion.version,
                as_of,
                _evaluate(past, as_of, horizon),
                evidence.reliability(past),
                evidence.workload(past, champion.kind),
            )
        models.inherit_audit(champion.version, as_of, standing.version)
        models.decide(champion.version, as_of, "promoted", [in_words(champion)], {}, decided_by="gate")
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
