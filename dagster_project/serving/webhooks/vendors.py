"""What the webhooks of each system mean: alerts, and what was done about them.

Belongs here: one function per system, from its published payload to the record that its API has, and what only the
webhook says.
Does not belong here: what a record means (the system's preset, as for files), signatures (`signatures.py`), and what an
action type means (the seed `action_types`).

Webhooks, files and pulls of one system can be mixed, because its preset makes the rows of all three: the same ids and
facts. An alert is taken only from the event that raised it, so that nothing learned later becomes a fact of the raise.
The same event makes the same rows however often and in whatever order it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from dagster_project.loading.presets import read_preset
from dagster_project.loading.records.actions import BY_MACHINE
from dagster_project.loading.records.single import SingleRecords
from dagster_project.loading.values import JOINT
from dagster_project.serving.api.models import PushedRows
from dagster_project.serving.problem import Problem
from dagster_project.serving.webhooks.rows import Rows, at, need

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


@lru_cache
def _preset(name: str) -> SingleRecords:
    return SingleRecords(read_preset(name).records["alerts"])


def _alertmanager(payload: Any, headers: Mapping[str, str]) -> Rows:
    return _group("alertmanager", payload)


def _grafana(payload: Any, headers: Mapping[str, str]) -> Rows:
    return _group("grafana", payload)


def _group(preset: str, payload: Any) -> Rows:
    """Alertmanager's webhook, version 4, and Grafana's, which has the same alerts: those of one group."""
    rows = Rows()
    alerts = need(payload, "alerts")
    if not isinstance(alerts, list):
        raise Problem(422, "alerts is not a list", "send it as its system documents it")
    for alert in alerts:
        for path in ("fingerprint", "startsAt", "labels.alertname"):
            need(alert, path)
        if at(alert, "status") == "resolved":
            need(alert, "endsAt")
            rows.actions += _preset(preset).actions(alert)
        else:
            rows.alerts.append(_preset(preset).alert(alert))
    return rows


# What only webhooks say, by event. Of what the API's incident says too, the preset makes the same action.
_PAGERDUTY = {
    "incident.acknowledged": "",
    "incident.resolved": "",
    "incident.unacknowledged": "unacknowledged",
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
        for path in ("id", "created_at", "title"):
            need(data, path)
        rows.alerts.append(_preset("pagerduty").alert(data))
    elif kind in _PAGERDUTY:
        # An annotation's data is the note, which names its incident.
        incident = need(data, "incident.id" if kind == "incident.annotated" else "id")
        when, agent = need(event, "occurred_at"), at(event, "agent")
        if _PAGERDUTY[kind]:
            rows.action(need(event, "id"), incident, when, _PAGERDUTY[kind], at(agent, "summary"))
        else:
            # The API has seconds where webhooks have milliseconds.
            second, by = when.partition(".")[0].rstrip("Z") + "Z", agent or {"type": "service"}
            record: dict[str, Any] = {"id": incident, "created_at": at(data, "created_at")}
            if kind == "incident.resolved":
                record |= {"status": "resolved", "resolved_at": second, "last_status_change_by": by}
            else:
                record["acknowledgements"] = [{"at": second, "acknowledger": by}]
            rows.actions += _preset("pagerduty").actions(record)
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
            for path in ("firstSeen", "title"):
                need(issue, path)
            rows.alerts.append(_preset("sentry").alert(issue))
            return rows
        if action in _SENTRY:
            by_person = at(payload, "actor.type") == "user"
            word = BY_MACHINE if action == "resolved" and not by_person else _SENTRY[action]
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


# Event -> its preset, which reads the alerts of the API.
_GITHUB = {
    "dependabot_alert": "github-dependabot",
    "code_scanning_alert": "github-code-scanning",
    "secret_scanning_alert": "",
}
_GITHUB_REOPENED = {"reopened", "reopened_by_user", "reintroduced", "auto_reopened"}


def _github(payload: Any, headers: Mapping[str, str]) -> Rows:
    """A webhook of a repository or organisation: Dependabot, code scanning and secret scanning."""
    rows, event = Rows(), headers.get("x-github-event", "")
    if event not in _GITHUB:
        rows.ignored = 1
        return rows
    action, alert, repository = need(payload, "action"), need(payload, "alert"), need(payload, "repository.full_name")
    alert_id = joined(repository, event.removesuffix("_alert").replace("_", "-"), str(need(alert, "number")))
    if action in _GITHUB_REOPENED:
        when = need(alert, "updated_at")
        who = None if action == "auto_reopened" else at(payload, "sender.login")
        rows.action(joined(alert_id, action, when), alert_id, when, "reopened", who)
    elif not _GITHUB[event]:
        _secret_scanning(rows, action, alert, alert_id, repository)
    else:
        # The repository of the webhook, also where the alert's own addresses are not those of the API.
        record = {**alert, "repository": payload["repository"], "html_url": None, "url": None}
        if action == "created":
            need(alert, "created_at")
            need(alert, "security_advisory.ghsa_id" if event == "dependabot_alert" else "rule.id")
            rows.alerts.append(_preset(_GITHUB[event]).alert(record))
        else:
            rows.actions += _preset(_GITHUB[event]).actions(record)
    rows.ignored = int(not rows.alerts and not rows.actions)
    return rows


def _secret_scanning(rows: Rows, action: str, alert: Any, alert_id: str, repository: str) -> None:
    if action == "created":
        kind, facts = need(alert, "secret_type"), {"repository": repository}
        rows.alert(alert_id, need(alert, "created_at"), kind, team=repository, attributes=facts)
    elif action == "resolved":
        when, word = need(alert, "resolved_at"), str(at(alert, "resolution") or "dismissed")
        rows.action(joined(alert_id, action, when), alert_id, when, word, at(alert, "resolved_by.login"))


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
    "grafana": _grafana,
    "pagerduty": _pagerduty,
    "sentry": _sentry,
    "github": _github,
    "json": _json,
}
