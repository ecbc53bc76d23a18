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
from dagster_project.resources.stores.curves import read_curves
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import append_monitoring, read_first_scores
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

WEEKS = 8  # of open alerts that are judged: four horizons, enough for an interval
DESCRIPTIONS = {
    "input_drift": "The facts of the last 7 days resemble those that the champion was trained on.",
    "score_drift": "First scores of the last 7 days resemble those of the weeks before.",
    "estimated_performance": "Scores whose outcomes are not known yet separate alerts as well as the evaluation said.",
    "realised_performance": "As many alerts were acted on as their first scores said.",
    "open_alerts_as_read": "Alerts that waited were acted on as often as the board said, at every age.",
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
                "measured": MEASURED.get(name, "benchmarks/reading.md"),
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
    # The flag at scoring: one that was decided later depends on what people did.
    at_scoring = history["alert_id"].map(scores.set_index("alert_id")["flagged"])
    is_flagged = at_scoring.where(at_scoring.notna(), history["alert_id"].isin(flagged)).to_numpy(dtype=bool)
    judged = watch.readings(history, is_flagged, scores, as_of, cut, evaluated_auc, horizon)
    return judged + watch.open_alerts_as_read(_shown(warehouse, history[~is_flagged], scores, as_of, horizon), horizon)


def _shown(
    warehouse: Warehouse, history: pd.DataFrame, scores: pd.DataFrame, as_of: datetime, horizon: timedelta
) -> pd.DataFrame:
    """The open alerts of each of the last weeks whose alerts all have an outcome, with what the board said."""
    from dagster_project.triage.evaluation.open_alerts import as_read
    from dagster_project.triage.learning.time_to_decision import no_curves

    moments = [as_of - horizon - timedelta(weeks=week) for week in range(WEEKS)]
    alerts = history.merge(scores[["alert_id", "probability", "as_of"]], on="alert_id", how="inner")
    shown = as_read(alerts, moments, lambda at: read_curves(warehouse, at) or no_curves(at, horizon), as_of)
    published = alerts.set_index("alert_id")["as_of"].reindex(
        shown["alert_id"]
    )  # `map` refuses an empty series of times
    return shown[published.array <= shown["moment"].array]


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
