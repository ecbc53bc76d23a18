"""Why a run failed, in one line, from Dagster's events.

Belongs here: finding the error that says it, and the words for steps.
Does not belong here: telling anybody (`notices.py`, `commands/run.py`, `commands/doctor.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

# Escape sequences by which programs steer a terminal (ECMA-48: CSI and OSC sequences, and single ones).
_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\\\)|[@-Z\\\\-_])")

# What each step is called when people watch it.
STEP_WORDS = {
    "clean": "cleaning alerts and actions (dbt)",
    "clean_alerts_suite": "checking the clean alerts",
    "clean_actions_suite": "checking the clean actions",
    "alert_outcomes_suite": "checking the outcomes",
    "flags": "looking for floods and visibility-only rules",
    "features__alert_features": "deriving features",
    "training__training_set": "collecting what is known to learn from",
    "training__candidate_model": "learning",
    "training__model_evaluation": "comparing with the simple baselines",
    "training__model_audit": "auditing for leaks and shortcuts",
    "training__champion_model": "deciding which model scores",
    "scoring__alert_scores": "scoring the open alerts",
    "scoring__autoclose_decisions": "deciding what may be closed",
    "monitoring": "watching for drift",
    "reporting": "publishing the reporting views (dbt)",
}


def failure_in_words(step: str, error: Any) -> str:
    """The innermost error that speaks in heed's words, else the innermost one at all, in one line."""
    told, current = None, error
    while current is not None:
        if current.cls_name in ("HeedError", "ExpectationsFailed", "Failure"):
            told = current
        innermost, current = current, current.cause
    told = told or innermost
    if told.cls_name == "DagsterExecutionInterruptedError":
        return f"{STEP_WORDS.get(step, step)}: it was interrupted from outside"
    # dbt's program puts its command and all of its variables before what went wrong.
    text = " ".join(_ESCAPE.sub("", str(told.message)).split()).rpartition("Errors parsed from dbt logs:")[2].strip()
    for prefix in ("dagster_project.errors.HeedError:", "dagster._core.definitions.events.Failure:"):
        text = text.removeprefix(prefix).strip()
    return f"{STEP_WORDS.get(step, step)}: {text.rstrip('.')[:1500]}"


_UNTOLD = "marked as failed from outside the execution context"


def what_stopped(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in one line, from Dagster's own history; empty: it does not say."""
    from dagster import DagsterEventType

    wanted = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    told = ""
    for entry in instance.all_logs(run_id, of_type=wanted):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            return failure_in_words(str(event.step_key), event.step_failure_data.error)
        # A run that never came to its first step carries its error itself; one that was closed has a message only.
        data = event.event_specific_data
        error = getattr(data, "error", None)
        told = failure_in_words("", error).removeprefix(": ") if error else event.message or told
    if _UNTOLD in told:  # Dagster found its process gone, and says so elsewhere
        entries = instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT)
        messages = [entry.dagster_event.message for entry in entries if entry.dagster_event is not None]
        told = next((each for each in reversed(messages) if each), told)
    return " ".join(told.split())[:1500].rstrip(".")
