"""What the webhooks of each system mean: alerts, and what was done about them.

Belongs here: one function per system, from its published payload to rows of the contract.
Does not belong here: signatures (`signatures.py`), and what an action type means (the seed `action_types`).

An alert is taken only from the event that raised it, so that nothing learned later becomes a fact of the raise. Ids are
made of the system's own, so the same event makes the same rows however often and in whatever order it comes. What a
machine did (a condition that cleared, a service that resolved) is `recovered`, which is neutral.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from dagster_project.loading.values import JOINT
from dagster_project.serving.api.models import PushedRows
from dagster_project.serving.problem import Problem
from dagster_project.serving.webhooks.rows import Rows, at, need

RECOVERED = "recovered"
Convert = Callable[[Any, Mapping[str, str]], Rows]


def rows_of(kind: str, payload: Any, headers: Mapping[str, str]) -> Rows:
    """The rows of a webhook.

    payload : the JSON. headers : with lower-case names.

    Raises
    ------
    Problem
        422: it is not a webhook of this system, or lacks what every one has.
    """
    if not isinstance(payload, dict):
        raise Problem(422, "a webhook is a JSON object", "send it as its system documents it")
    return _CONVERT[kind](payload, headers)


def _alertmanager(payload: Any, headers: Mapping[str, str]) -> Rows:
    """Alertmanager's webhook, version 4, and Grafana's, which has the same alerts: those of one group."""
    rows = Rows()
    alerts = need(payload, "alerts")
    if not isinstance(alerts, list):
        raise Problem(422, "alerts is not a list", "send it as its system documents it")
    for alert in alerts:
        labels = at(alert, "labels") or {}
        started = need(alert, "startsAt")
        alert_id = joined(need(alert, "fingerprint"), started)
        if at(alert, "status") == "resolved":
            rows.action(joined(alert_id, RECOVERED), alert_id, need(alert, "endsAt"), RECOVERED)
            continue
        rows.alert(
            alert_id,
            started,
            need(alert, "labels.alertname"),
            entity=next((labels[name] for name in ("instance", "pod", "service", "job") if labels.get(name)), None),
            team=labels.get("team"),
            severity=labels.get("severity"),
            title=at(alert, "annotations.summary") or at(alert, "annotations.description"),
            attributes={name: value for name, value in labels.items() if name not in _COLUMNS_OF_LABELS},
        )
    return rows


_COLUMNS_OF_LABELS = {"alertname", "team", "severity"}
_PAGERDUTY = {
    "incident.acknowledged": "acknowledged",
    "incident.unacknowledged": "unacknowledged",
    "incident.resolved": "resolved",
    "incident.reopened": "reopened",
    "incident.annotated": "annotated",
    "incident.delegated": "delegated",
    "incident.escalated": "escalated",
    "incident.reassigned": "reassigned",
}


def _pagerduty(payload: Any, headers: Mapping[str, str]) -> Rows:
    """A webhook of version 3: one event."""
    rows, event = Rows(), need(payload, "event")
    kind, data = need(event, "event_type"), at(event, "data") or {}
    if kind == "incident.triggered":
        rows.alert(
            need(data, "id"),
            need(data, "created_at"),
            need(data, "service.summary"),
            entity=at(data, "incident_key"),
            team=at(data, "teams.0.summary") or at(data, "escalation_policy.summary"),
            severity=at(data, "priority.summary") or at(data, "urgency"),
            title=at(data, "title"),
            attributes={"service_id": at(data, "service.id"), "urgency": at(data, "urgency")},
        )
    elif kind in _PAGERDUTY:
        by_person = str(at(event, "agent.type")).startswith("user")
        word = RECOVERED if kind == "incident.resolved" and not by_person else _PAGERDUTY[kind]
        # An annotation's data is the note, which names its incident.
        incident = need(data, "incident.id" if kind == "incident.annotated" else "id")
        rows.action(need(event, "id"), incident, need(event, "occurred_at"), word, at(event, "agent.summary"))
    else:
        rows.ignored = 1
    return rows


_SENTRY = {"resolved": "resolved", "unresolved": "reopened", "assigned": "assigned"} | dict.fromkeys(
    ("archived", "ignored"), "archived"
)


def _sentry(payload: Any, headers: Mapping[str, str]) -> Rows:
    """A webhook of an integration: issues and comments. The header says which, and when."""
    rows, resource = Rows(), headers.get("sentry-hook-resource", "")
    action = need(payload, "action")
    actor = at(payload, "actor.name")
    if resource == "issue":
        issue = need(payload, "data.issue")
        issue_id = str(need(issue, "id"))
        if action == "created":
            rows.alert(
                issue_id,
                need(issue, "firstSeen"),
                need(issue, "project.slug"),
                entity=at(issue, "culprit"),
                severity=at(issue, "level"),
                title=at(issue, "title"),
                attributes={"platform": at(issue, "platform"), "type": at(issue, "type")},
            )
            return rows
        if action in _SENTRY:
            by_person = at(payload, "actor.type") == "user"
            word = RECOVERED if action == "resolved" and not by_person else _SENTRY[action]
            stamp = need(dict(headers), "sentry-hook-timestamp")
            rows.action(joined(issue_id, action, stamp), issue_id, _moment(stamp), word, actor)
            return rows
    elif resource == "comment" and action == "created":
        data = need(payload, "data")
        comment = joined(str(need(data, "issue_id")), "comment", str(need(data, "comment_id")))
        rows.action(comment, str(data["issue_id"]), need(data, "timestamp"), "commented", actor)
        return rows
    rows.ignored = 1
    return rows


# Event -> (path of the rule, path of the entity), in the alert.
_GITHUB = {
    "dependabot_alert": ("security_advisory.ghsa_id", "dependency.package.name"),
    "code_scanning_alert": ("rule.id", "most_recent_instance.location.path"),
    "secret_scanning_alert": ("secret_type", None),
}
_GITHUB_RAISED = {"created"}
_GITHUB_REOPENED = {"reopened", "reopened_by_user", "reintroduced"}
_GITHUB_DISMISSED = {"dismissed", "closed_by_user", "resolved"}


def _github(payload: Any, headers: Mapping[str, str]) -> Rows:
    """A webhook of a repository or organisation: Dependabot, code scanning and secret scanning."""
    rows, event = Rows(), headers.get("x-github-event", "")
    if event not in _GITHUB:
        rows.ignored = 1
        return rows
    action, alert, repository = need(payload, "action"), need(payload, "alert"), need(payload, "repository.full_name")
    alert_id = joined(repository, event.removesuffix("_alert"), str(need(alert, "number")))
    rule, entity = _GITHUB[event]
    when: Any = None
    if action in _GITHUB_RAISED:
        rows.alert(
            alert_id,
            need(alert, "created_at"),
            need(alert, rule),
            entity=at(alert, entity) if entity else None,
            severity=at(alert, "security_advisory.severity") or at(alert, "rule.severity"),
            title=at(alert, "security_advisory.summary") or at(alert, "rule.description"),
            attributes={
                "repository": repository,
                "ecosystem": at(alert, "dependency.package.ecosystem"),
                "manifest": at(alert, "dependency.manifest_path"),
                "tool": at(alert, "tool.name"),
            },
        )
        return rows
    if action in _GITHUB_DISMISSED:
        when = at(alert, "dismissed_at") or need(alert, "resolved_at")
        word = str(at(alert, "dismissed_reason") or at(alert, "resolution") or "dismissed")
        who = at(alert, "dismissed_by.login") or at(alert, "resolved_by.login")
    elif action == "fixed":
        when, word, who = at(alert, "fixed_at") or need(alert, "updated_at"), "fixed", at(payload, "sender.login")
    elif action in _GITHUB_REOPENED:
        when, word, who = need(alert, "updated_at"), "reopened", at(payload, "sender.login")
    elif action in ("auto_dismissed", "auto_reopened"):
        when = at(alert, "auto_dismissed_at") or need(alert, "updated_at")
        word, who = RECOVERED if action == "auto_dismissed" else "reopened", None
    if when is None:
        rows.ignored = 1
        return rows
    rows.action(joined(alert_id, action, when), alert_id, when, word, who)
    return rows


def _json(payload: Any, headers: Mapping[str, str]) -> Rows:
    """heed's own form: rows of the contract."""
    sent = PushedRows.read(payload)
    rows = Rows()
    for alert in sent.alerts:
        values = alert.model_dump(exclude_none=True)
        rows.alert(values.pop("alert_id"), values.pop("raised_at"), values.pop("rule"), **values)
    for action in sent.actions:
        rows.action(**action.model_dump())
    return rows


def joined(*parts: str) -> str:
    """One id of several, as a mapping file joins them."""
    return JOINT.join(part.strip().replace("\\", "\\\\").replace(JOINT, "\\" + JOINT) for part in parts)


def _moment(seconds: str) -> str:
    try:
        return datetime.fromtimestamp(float(seconds), UTC).isoformat()
    except (ValueError, OverflowError, OSError) as error:
        raise Problem(422, "sentry-hook-timestamp is not a time", "send it as Sentry does") from error


_CONVERT: dict[str, Convert] = {
    "alertmanager": _alertmanager,
    "grafana": _alertmanager,
    "pagerduty": _pagerduty,
    "sentry": _sentry,
    "github": _github,
    "json": _json,
}
