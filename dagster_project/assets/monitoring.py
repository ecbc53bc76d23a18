"""The watch over published scores: drift, performance, coverage, freshness and volume, as asset checks that warn.

Belongs here: reading their input, writing the table `scoring.monitoring`, and how a reading shows in Dagster.
Does not belong here: what is measured, on which alerts, and its limits (`triage/monitoring.py`).

The checks run after scores are published and never stop anything: a drifted score is better than none, as long as
somebody is told.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pandas as pd

from dagster_project.assets.scoring import ALERT_SCORES
from dagster_project.assets.showing import table
from dagster_project.resources.as_of import run_as_of
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import append_monitoring, read_first_scores
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

DESCRIPTIONS = {
    "input_drift": "The facts of the last 7 days resemble those that the champion was trained on.",
    "score_drift": "First scores of the last 7 days resemble those of the weeks before.",
    "estimated_performance": "Scores whose outcomes are not known yet separate alerts as well as the evaluation said.",
    "realised_performance": "As many alerts were acted on as their first scores said.",
    "coverage": "Every open alert has a score.",
    "freshness": "Alerts keep coming: no pause is longer than twice the longest of the weeks before.",
    "alert_volume": "The last full day brought as many alerts as its weekday usually does.",
}


@dg.multi_asset_check(
    name="monitoring",
    specs=[dg.AssetCheckSpec(name, asset=ALERT_SCORES, description=text) for name, text in DESCRIPTIONS.items()],
)
def monitoring(
    context: dg.AssetCheckExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    models: dg.ResourceParam[ModelStore],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.AssetCheckResult]:
    from dagster_project.triage.monitoring import MEASURED

    as_of = run_as_of(context)
    champion = models.champion(as_of)
    version = champion.model_version if champion is not None else None
    auc = _evaluated_auc(models, version)
    readings = read_all(warehouse, as_of, champion.trained if champion else as_of, auc, settings.outcome.horizon_days)
    rows = pd.DataFrame([reading.to_row() for reading in readings])
    append_monitoring(warehouse, rows, as_of, version)
    for name in DESCRIPTIONS:
        own = rows[rows["check_name"] == name]
        worst = own.iloc[0]
        passed = bool((own["verdict"] != "warning").all())
        yield dg.AssetCheckResult(
            asset_key=ALERT_SCORES,
            check_name=name,
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=str(worst["finding"]),
            metadata={
                "verdict": str(worst["verdict"]),
                "value": float(worst["value"]),
                "limit": float(worst["limit_value"]),
                "measured": MEASURED[name],
                "readings": table(own[["subject", "value", "limit_value", "verdict", "finding"]].head(20)),
            },
        )


def read_all(
    warehouse: Warehouse, as_of: datetime, cut: datetime, evaluated_auc: float, horizon_days: float
) -> list[Any]:
    """Every reading at `as_of`, in the order of the checks; the column that drifted most comes first."""
    from dagster_project.triage import monitoring as watch

    horizon = timedelta(days=horizon_days)
    since = watch.needed_from(as_of, cut, horizon)
    history = read_history(warehouse, as_of, since)
    flagged = warehouse.read("SELECT alert_id FROM quality.flagged_alerts WHERE raised_at >= $1", (since,))["alert_id"]
    scores = read_first_scores(warehouse, as_of, since)
    is_flagged = history["alert_id"].isin(flagged).to_numpy()
    return watch.readings(history, is_flagged, scores, as_of, cut, evaluated_auc, horizon)


def _evaluated_auc(models: ModelStore, version: str | None) -> float:
    if version is None:
        return float("nan")
    evaluation = models.evaluation(version)
    auc = evaluation.loc[
        (evaluation["slice"] == "unflagged")
        & (evaluation["metric"] == "roc_auc")
        & (evaluation["contender"] == "model"),
        "value",
    ]
    return float(auc.iloc[0]) if len(auc) else float("nan")
