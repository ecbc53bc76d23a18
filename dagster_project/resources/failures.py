"""Why a run failed, in one line, from Dagster's events.

Belongs here: finding the error that explains it, and the words for steps.
Does not belong here: notifying anybody (`notices.py`, `commands/run.py`, `commands/doctor.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

# Escape sequences by which programs steer a terminal (ECMA-48: CSI and OSC sequences, and single ones).
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])")

# How each step is described to people who watch a run.
STEP_WORDS = {
    "clean": "cleaning alerts and actions (dbt)",
    "clean_alerts_suite": "checking the clean alerts",
    "clean_actions_suite": "checking the clean actions",
    "alert_outcomes_suite": "checking the outcomes",
    "flags": "flagging floods and visibility-only rules",
    "features__alert_features": "deriving features",
    "training__training_set": "collecting the training set",
    "training__candidate_model": "training",
    "training__model_evaluation": "comparing with simple baselines",
    "training__model_audit": "auditing for leaks and shortcuts",
    "training__champion_model": "deciding which model scores",
    "scoring__alert_scores": "scoring the open alerts",
    "scoring__autoclose_decisions": "deciding what may be closed",
    "monitoring": "watching for drift",
    "reporting": "publishing the reporting views (dbt)",
    "scoring__deliveries": "delivering scores to other systems",
}


def failure_in_words(step: str, error: Any) -> str:
    """The innermost of heed's own errors, else the innermost error of any kind, in one line."""
    chosen, current = None, error
    while current is not None:
        if current.cls_name in ("HeedError", "ExpectationsFailed", "Failure"):
            chosen = current
        innermost, current = current, current.cause
    chosen = chosen or innermost
    if chosen.cls_name == "DagsterExecutionInterruptedError":
        return f"{STEP_WORDS.get(step, step)}: it was interrupted from outside"
    # dbt puts its command and all of its variables before the error.
    text = " ".join(_ESCAPE.sub("", str(chosen.message)).split()).rpartition("Errors parsed from dbt logs:")[2].strip()
    for prefix in ("dagster_project.errors.HeedError:", "dagster._core.definitions.events.Failure:"):
        text = text.removeprefix(prefix).strip()
    return f"{STEP_WORDS.get(step, step)}: {text.rstrip('.')[:1500]}"


_UNEXPLAINED = "marked as failed from outside the execution context"


def what_stopped(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in one line, from Dagster's own history; empty: unknown."""
    from dagster import DagsterEventType

    wanted = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    reason = ""
    for entry in instance.all_logs(run_id, of_type=wanted):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            return failure_in_words(str(event.step_key), event.step_failure_data.error)
        # A run that failed before its first step has its own error; one that was closed has only a message.
        data = event.event_specific_data
        error = getattr(data, "error", None)
        reason = failure_in_words("", error).removeprefix(": ") if error else event.message or reason
    if _UNEXPLAINED in reason:  # Dagster found its process gone, and says so in another event
        entries = instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)
        messages = [entry.dagster_event.message for entry in entries if entry.dagster_event is not None]
        reason = next((each for each in reversed(messages) if each), reason)
    return " ".join(reason.split())[:1500].rstrip(".")
