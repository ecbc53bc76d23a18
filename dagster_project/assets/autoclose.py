"""The stage after scoring that decides about closing, for rules that somebody enabled.

Belongs here: the order of test, monitors and decisions in a run, and what Dagster shows of them.
Does not belong here: the test, the monitors, the decision (`triage/autoclose.py`), tables
(`resources/stores/autoclose.py`).

heed closes nothing: it publishes decisions, and another system may apply them.
"""

from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd

from dagster_project.assets.scoring import ALERT_SCORES
from dagster_project.assets.showing import table, table_metadata
from dagster_project.resources.as_of import run_as_of
from dagster_project.resources.stores.autoclose import (
    HEED,
    STOPPED,
    Request,
    append_event,
    decide_new_alerts,
    read_states,
    scores_before,
    threshold_of,
    watch_request,
)
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

AUTOCLOSE_DECISIONS = dg.AssetKey(["scoring", "autoclose_decisions"])


@dg.asset(
    key=AUTOCLOSE_DECISIONS,
    group_name="scoring",
    deps=[ALERT_SCORES],
    description="Which new alerts of the rules that somebody enabled may be closed, each with its evidence: "
    "append-only. heed closes nothing itself.",
    owners=["team:data-science"],
    kinds={"python", "postgres"},
    metadata={"dagster/table_name": "scoring.autoclose_decisions"},
)
def autoclose_decisions(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[Any]:
    as_of = run_as_of(context)
    requests = [state.request for state in read_states(warehouse, as_of).values() if state.request is not None]
    rows = [_serve(context, warehouse, request, as_of, settings.learning.training_days) for request in requests]
    return dg.MaterializeResult(
        metadata={
            **table_metadata(warehouse, "scoring.autoclose_decisions"),
            "new decisions": sum(row["decided"] for row in rows),
            "rules enabled": len(rows),
            **({"rules": table(pd.DataFrame(rows))} if rows else {}),
        }
    )


def _serve(
    context: dg.AssetExecutionContext, warehouse: Warehouse, request: Request, as_of: datetime, days: float
) -> dict[str, Any]:
    """Test one rule once, monitor it, and decide about its new alerts unless a monitor stops it."""
    tested, before = threshold_of(warehouse, request, as_of, days)
    row = {"rule": request.rule, "mode": request.mode, "decided": 0, "closed": 0}
    if tested.threshold is None:
        return {**row, "finding": f"{tested.status}: {tested.sentence(request.miss_rate)}"}
    all_before = scores_before(warehouse, request, days)
    seen = watch_request(warehouse, request, tested, before, all_before, as_of)
    if seen.stop is not None:
        append_event(warehouse, STOPPED, request.rule, as_of, request_id=request.request_id, who=HEED, why=seen.stop)
        context.log.warning(f"closing stopped for the rule {request.rule}: {seen.stop}")
        return {**row, "finding": f"stopped: {seen.stop}"}
    if seen.doubt is not None:
        context.log.warning(f"closing pauses for the rule {request.rule}: {seen.doubt}")
    decisions = decide_new_alerts(warehouse, request, tested, all_before, as_of, seen.doubt is not None)
    closed = int((decisions["decision"] == "close").sum()) if len(decisions) else 0
    finding = f"paused: {seen.doubt}" if seen.doubt is not None else tested.sentence(request.miss_rate)
    return {**row, "decided": len(decisions), "closed": closed, "finding": finding}
