"""The evidence page of a warehouse, as `heed report` writes it.

Belongs here: the queries behind the page, cut at the as-of, and writing the file.
Does not belong here: what the page shows and how (`reporting/`), and computing the numbers (`triage/`, dbt).

Flags, versions, decisions and evaluations are read as they were known at the as-of. Loaded and rejected
rows, and the workload that the board counts, are shown as of the newest run, and the page says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.private import share
from dagster_project.reporting.evidence import Evidence, Scoring
from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.inputs.undecodable import undecodable_rows
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import read_workload
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings
from dagster_project.triage.evaluation.workload import PROMISES, at_promise

# Limit of the mean error over ten bins: agreed for heed's real alerts, and the default where nothing else is agreed.
DECILE_ERROR = 0.05

_NEWEST = """
SELECT max(as_of) FROM (SELECT max(as_of) AS as_of FROM training.champion_decisions
                        UNION ALL SELECT max(as_of) FROM scoring.alert_scores) AS moments
"""
_EVALUATION = """
SELECT as_of, slice, slice_value, contender, metric, value, low, high, alerts, acted FROM training.model_evaluations
WHERE model_version = $1 AND as_of = (
    SELECT max(as_of) FROM training.model_evaluations WHERE model_version = $1 AND as_of <= $2)
ORDER BY slice, slice_value, contender, metric
"""
_RELIABILITY = """
SELECT contender, bin, mean_forecast, acted_share, low, high, alerts, acted FROM training.reliability
WHERE model_version = $1 AND as_of = (
    SELECT max(as_of) FROM training.reliability WHERE model_version = $1 AND as_of <= $2)
ORDER BY contender, bin
"""
_FLOODS = """
SELECT day, scope_kind, scope, volume, expected, acted_share, status, evidence FROM quality.flood_days
WHERE coalesce(recorded_at, detected_at) <= $1 AND (superseded_at IS NULL OR superseded_at > $1)
ORDER BY day DESC, volume DESC, scope_kind, scope
"""
_RULES = """
SELECT * FROM (
    SELECT DISTINCT ON (rule) rule, alerts_decided, acted, upper_bound,
           CASE WHEN status = 'released' THEN 'inferred' ELSE status END AS status, evidence
    FROM quality.visibility_only_rules WHERE detected_at <= $1 AND (released_at IS NULL OR released_at > $1)
    ORDER BY rule, detected_at DESC, alerts_decided DESC) AS those
ORDER BY alerts_decided DESC NULLS LAST, rule
"""
_EXCLUDED = """
SELECT count(*) AS alerts, count(*) FILTER (WHERE flood) AS flood,
       count(*) FILTER (WHERE visibility_only) AS visibility_only
FROM quality.flagged_alerts WHERE raised_at < $1
"""


def _promises(curve: pd.DataFrame) -> list[dict[str, Any]]:
    if not len(curve):
        return []
    kept = [(promise, at_promise(curve, promise)) for promise in PROMISES]
    return [{"promise": f"{p:.0%}", **vars(at), "saved": at.saved, "missed": at.missed} for p, at in kept]


def read_evidence(warehouse: Warehouse, settings: Settings, as_of: datetime | None = None) -> Evidence:
    """Everything the page shows.

    as_of : None: that of the newest run.

    Raises HeedError: no job has run on this warehouse.
    """
    if warehouse.value("SELECT to_regclass('marts.load_reconciliation') IS NULL"):
        raise HeedError("there is nothing to report: no job has run yet", "run `heed run`")
    prepare(warehouse)  # an older warehouse lacks the newest tables

    def read(query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        return warehouse.read_arrow(query, parameters).to_pylist()

    as_of = as_of or warehouse.value(_NEWEST) or datetime.now(UTC)
    models = ModelStore(warehouse)
    decisions = models.decisions(as_of)[::-1]
    scoring = _scoring(models, as_of, decisions)
    version = scoring.model_version if scoring else ""
    evaluation = warehouse.read(_EVALUATION, (version, as_of))
    # A limit of 1 has no effect.
    limit = settings.gate.maximum_decile_error if settings.gate.maximum_decile_error < 1 else None
    loads = read(
        "SELECT started_at, kind, file, rows_read, rows_added FROM raw.loads "
        "WHERE finished_at IS NOT NULL ORDER BY started_at DESC, load_id DESC"
    )
    return Evidence(
        as_of=as_of.astimezone(UTC),
        scoring=scoring,
        evaluation=evaluation.drop(columns="as_of"),
        reliability=warehouse.read(_RELIABILITY, (version, as_of)),
        promises=_promises(read_workload(warehouse)),
        evaluated_at=evaluation["as_of"].iloc[0].to_pydatetime() if len(evaluation) else None,
        versions=models.versions(as_of),
        decisions=decisions,
        audits=models.audit(version) if scoring else None,
        band=warehouse.read(
            "SELECT day, alerts, expected, upper FROM quality.daily_volume_band WHERE day <= $1::timestamptz::date "
            "ORDER BY day",
            (as_of,),
        ),
        floods=warehouse.read(_FLOODS, (as_of,)),
        visibility_only=read(_RULES, (as_of,)),
        excluded=read(_EXCLUDED, (as_of,))[0],
        loaded=read(
            "SELECT source, raw_rows, clean_rows, duplicate_rows, rejected_rows FROM marts.load_reconciliation "
            "ORDER BY source"
        ),
        rejected=undecodable_rows(warehouse)
        + read("SELECT source, reason, count(*) AS rows FROM marts.rejected_rows GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"),
        loads=[{**row, "file": _name(row["file"])} for row in loads],
        horizon_days=settings.outcome.horizon_days,
        calibration_limit=limit or DECILE_ERROR,
        calibration_basis="agreed in heed.toml" if limit else "the default; heed.toml agrees on none",
    )


def write_report(evidence: Evidence, out: Path) -> None:
    """Write the page; a reader sees the old file or the new one."""
    from dagster_project.reporting.page import render

    with whole_file(out, "choose another --out") as fresh:
        fresh.write_text(render(evidence), encoding="utf-8")
        share(fresh)


def _scoring(models: ModelStore, as_of: datetime, decisions: list[dict[str, Any]]) -> Scoring | None:
    champion = models.champion(as_of)
    if champion is None:
        return None
    model = models.load(champion.model_version)
    last = next(row for row in decisions if row["decision"] != "refused" and row["model_version"] == model.version)
    return Scoring(
        model_version=champion.model_version,
        kind=champion.kind,
        cut=champion.cut,
        since=champion.as_of,
        decision=last["decision"],
        decided_by=last["decided_by"] or "unknown",
        reasons=champion.reasons,
        explanation=model.explanation,
        contract_hash=str(model.contract.get("hash", "")),
        evidence=model.evidence,
    )


def _name(file: str) -> str:
    """The file's name without its folder on somebody's machine, which is private."""
    return PureWindowsPath(PurePosixPath(file).name).name
