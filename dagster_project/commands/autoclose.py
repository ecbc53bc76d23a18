"""Requests about closing: enable or disable a rule, undo closings, and list rules that are never closed.

Belongs here: what `heed autoclose` does, and what it refuses.
Does not belong here: the test and the decisions (`triage/autoclose.py`), and the runs that make them
(`assets/autoclose.py`).

Every request appends a row, with who and why; nothing is changed or deleted.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.resources.stores import autoclose as tables
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings


def enable(
    warehouse: Warehouse,
    settings: Settings,
    rule: str,
    *,
    miss_rate: float,
    until: datetime,
    mode: str = "shadow",
    who: str,
    why: str,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Ask that alerts of a rule be closed, or (shadow) that heed says which ones it would close. Runs the test at once.

    The same miss rate again, while a request is in force, changes its mode or end and keeps its test. Any other miss
    rate is a new request with its own test.

    Returns: rule, mode, miss_rate, until, status ('found', 'waiting' or 'refused'), more (acted alerts missing),
        finding.
    Raises HeedError: the rule raised no alert, is on the never list or visibility-only; a miss rate or an end is
        impossible.
    """
    who, why = _required(who, why)
    as_of = as_of or datetime.now(UTC)
    if not 0 < miss_rate < 1:
        raise HeedError(f"a miss rate of {miss_rate:g} is impossible", "name one above 0 and below 1, like 0.02")
    if until <= as_of:
        raise HeedError(f"the end {until:%Y-%m-%d %H:%M} UTC is past", "choose a later --until")
    facts = _facts(warehouse, rule)
    state = tables.read_states(warehouse, as_of).get(rule)
    if state is not None and state.is_never:
        raise HeedError(
            f"the rule {rule!r} is on the list of rules that are never closed ({state.ended})",
            "take it off with `heed autoclose never RULE --remove`, if that is meant",
        )
    if facts["visibility_only"]:
        raise HeedError(f"the rule {rule!r} is visibility-only", "its alerts are not closed; release the rule first")
    current = state.request if state is not None else None
    same = current is not None and current.miss_rate == miss_rate
    tables.append_event(
        warehouse,
        tables.ENABLED,
        rule,
        as_of,
        request_id=current.request_id if current is not None and same else None,
        mode=mode,
        miss_rate=miss_rate,
        until=until,
        who=who,
        why=why,
    )
    request = tables.read_states(warehouse, as_of)[rule].request
    assert request is not None
    threshold, _ = tables.threshold_of(warehouse, request, as_of, settings.learning.training_days)
    return {
        "rule": rule,
        "mode": mode,
        "miss_rate": miss_rate,
        "until": until,
        "status": threshold.status,
        "more": threshold.more,
        "finding": threshold.sentence(miss_rate),
    }


def disable(warehouse: Warehouse, rule: str, *, who: str, why: str, as_of: datetime | None = None) -> None:
    """End a rule's request; decisions stay. Raises HeedError if there is no request."""
    who, why = _required(who, why)
    as_of = as_of or datetime.now(UTC)
    state = _states(warehouse, as_of).get(rule)
    if state is None or state.request is None:
        raise HeedError(f"closing is not enabled for the rule {rule!r}", "nothing needs to be done")
    tables.append_event(warehouse, tables.DISABLED, rule, as_of, request_id=state.request.request_id, who=who, why=why)


def undo(
    warehouse: Warehouse, rule: str, *, alert_id: str | None = None, who: str, why: str, as_of: datetime | None = None
) -> int:
    """Undo the closings under the newest request of a rule, or that of one alert, and pause the rule.

    Returns how many closings were undone. The rule stays paused until somebody enables it again.

    Raises HeedError: heed never decided to close any such alert.
    """
    who, why = _required(who, why)
    as_of = as_of or datetime.now(UTC)
    table = _read(
        warehouse,
        "SELECT decided.request_id, count(*) AS closed FROM scoring.autoclose_decisions AS decided "
        "WHERE rule = $1 AND decision = 'close' AND as_of <= $2 AND ($3 = '' OR alert_id = $3) "
        "GROUP BY request_id ORDER BY request_id DESC LIMIT 1",
        (rule, as_of, alert_id or ""),
    )
    if not table:
        what = f"the alert {alert_id!r} of the rule {rule!r}" if alert_id else f"any alert of the rule {rule!r}"
        raise HeedError(f"heed never decided to close {what}", "`heed autoclose list` shows where closing stands")
    tables.append_event(
        warehouse,
        tables.UNDONE,
        rule,
        as_of,
        request_id=table[0]["request_id"],
        alert_id=alert_id,
        who=who,
        why=why,
    )
    return int(table[0]["closed"])


def never(
    warehouse: Warehouse, rule: str, *, remove: bool = False, who: str, why: str, as_of: datetime | None = None
) -> None:
    """Put a rule on the list of rules that are never closed, which ends its request; or take it off the list."""
    who, why = _required(who, why)
    as_of = as_of or datetime.now(UTC)
    state = _states(warehouse, as_of).get(rule)
    if remove and (state is None or not state.is_never):
        raise HeedError(f"the rule {rule!r} is not on the list", "`heed autoclose list` shows it")
    tables.append_event(warehouse, tables.ALLOWED if remove else tables.NEVER, rule, as_of, who=who, why=why)


_COUNTS = ("decided", "closed", "would_have_closed", "open_in_doubt")


def list_rules(warehouse: Warehouse, as_of: datetime | None = None) -> list[dict[str, Any]]:
    """Every rule with any request: its state, the result of the test, and the numbers of decisions."""
    from dagster_project.triage.autoclose import DOUBTED

    as_of = as_of or datetime.now(UTC)
    counts = {
        row["rule"]: row
        for row in _read(
            warehouse,
            """SELECT rule, count(*) AS decided, count(*) FILTER (WHERE decision = 'close' AND mode = 'on') AS closed,
                      count(*) FILTER (WHERE decision = 'close' AND mode = 'shadow') AS would_have_closed,
                      count(*) FILTER (WHERE reason = $2) AS open_in_doubt
               FROM scoring.autoclose_decisions WHERE as_of <= $1 GROUP BY rule""",
            (as_of, DOUBTED),
        )
    }
    tests = {
        row["request_id"]: row
        for row in _read(
            warehouse,
            "SELECT DISTINCT ON (request_id) request_id, status, more, threshold, finding "
            "FROM scoring.autoclose_tests WHERE as_of <= $1 ORDER BY request_id, as_of DESC, tested_at DESC",
            (as_of,),
        )
    }
    rules = []
    for rule, state in sorted(_states(warehouse, as_of).items()):
        request = state.request
        test = tests.get(request.request_id, {}) if request is not None else {}
        rules.append(
            {
                "rule": rule,
                "mode": request.mode if request is not None else "off",
                "never": state.is_never,
                "ended": state.ended,
                "miss_rate": request.miss_rate if request is not None else None,
                "until": request.until if request is not None else None,
                "who": request.who if request is not None else None,
                "why": request.why if request is not None else None,
                "status": test.get("status"),
                "more": test.get("more"),
                "threshold": test.get("threshold"),
                "finding": test.get("finding"),
                **{name: counts.get(rule, {}).get(name, 0) for name in _COUNTS},
            }
        )
    return rules


def _required(who: str, why: str) -> tuple[str, str]:
    if not who.strip() or not why.strip():
        raise HeedError("that needs a name and a reason", "say --who NAME --why TEXT")
    return who.strip(), why.strip()


def _facts(warehouse: Warehouse, rule: str) -> dict[str, Any]:
    if warehouse.value("SELECT to_regclass('marts.alerts') IS NULL"):
        raise HeedError("there are no clean alerts yet: no job has run", "run `heed run`")
    prepare(warehouse)
    facts = tables.rule_facts(warehouse, rule)
    if facts is None:
        raise HeedError(f"the rule {rule!r} raised no alert", "name it as `reporting.alert_scores_latest` does")
    return facts


def _states(warehouse: Warehouse, as_of: datetime) -> dict[str, tables.RuleState]:
    prepare(warehouse)
    return tables.read_states(warehouse, as_of)


def _read(warehouse: Warehouse, query: str, parameters: tuple[Any, ...]) -> list[dict[str, Any]]:
    prepare(warehouse)
    return warehouse.read_arrow(query, parameters).to_pylist()
