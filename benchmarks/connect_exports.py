"""A simulated company's alerts, as each alert system would export them.

Belongs here: one function for each preset, which writes the vendor's published shape. Does not belong here: measuring
(`connect.py`), odd or broken files (`tests/loading`).

Systems whose export says nothing about people come with a file of tickets in heed's own columns, as docs/connect.md
asks for.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from dagster_project.simulator import WorldConfig, simulate

Decision = Literal["acted", "dismissed", "by machine", ""]


@dataclass(frozen=True)
class Alert:
    """An alert, and the first decision on it. Times are in UTC, to the second; `decided` is None without a decision."""

    number: int
    raised: datetime
    rule: str
    entity: str
    team: str
    severity: str
    decision: Decision
    decided: datetime | None
    person: str

    @property
    def slug(self) -> str:
        """The rule as an identifier."""
        return re.sub(r"[^a-z0-9]+", "_", self.rule.lower()).strip("_")

    @property
    def title(self) -> str:
        return f"{self.rule} on {self.entity}"

    def when(self, *decisions: Decision) -> str | None:
        """The time of the decision, if it is one of these."""
        return iso(self.decided) if self.decided and self.decision in decisions else None


@dataclass(frozen=True)
class Export:
    """Files that a preset reads, and one of actions for systems that do not know what people did."""

    files: tuple[Path, ...]
    tickets: Path | None = None


def company(seed: int, alerts: int, days: int, end: datetime) -> list[Alert]:
    """Alerts up to `end`. Every fourth alert that nobody answered was closed by a machine two hours later."""
    world = simulate(WorldConfig(seed=seed, alerts=alerts, days=days, end=end, rules=30, entities=120, teams=6))
    decisive = world.actions[world.actions["meaning"] != "neutral"].drop_duplicates("alert_id").set_index("alert_id")
    result = []
    for number, row in enumerate(world.alerts.to_dict("records"), start=1):
        raised = row["raised_at"].to_pydatetime().replace(microsecond=0)
        decision: Decision = ""
        decided, person = None, ""
        if row["alert_id"] in decisive.index:
            answer = decisive.loc[row["alert_id"]]
            decision, person = answer["meaning"], answer["actor"]
            decided = answer["acted_at"].to_pydatetime().replace(microsecond=0)
        elif number % 4 == 0 and raised + timedelta(hours=2) < end:
            decision, decided = "by machine", raised + timedelta(hours=2)
        facts = {name: str(row[name] or "") for name in ("rule", "entity", "team", "severity")}
        result.append(Alert(number, raised, **facts, decision=decision, decided=decided, person=person))
    return result


def iso(moment: datetime | None) -> str | None:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if moment else None


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


def _json(path: Path, document: Any) -> Export:
    path.write_text(json.dumps(document), encoding="utf-8")
    return Export((path,))


def _lines(path: Path, records: Iterable[Any]) -> Export:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    return Export((path,))


def _table(path: Path, rows: list[dict[str, Any]]) -> Export:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return Export((path,))


def _with_tickets(export: Export, alerts: list[Alert], id_of: Callable[[Alert], str]) -> Export:
    """Add what people did, in heed's own columns, as a query on the tickets would give it."""
    path = export.files[0].parent / "tickets.csv"
    rows = [
        {
            "action_id": f"TICKET-{alert.number}",
            "alert_id": id_of(alert),
            "acted_at": time,
            "action_type": "fixed" if alert.decision == "acted" else "dismissed",
            "actor": alert.person,
        }
        for alert in alerts
        if (time := alert.when("acted", "dismissed"))
    ]
    return Export(export.files, _table(path, rows).files[0])


def pagerduty(alerts: list[Alert], folder: Path) -> Export:
    def changed_by(alert: Alert) -> dict[str, str]:
        if alert.decision == "acted":
            return {"id": alert.person, "type": "user_reference", "summary": alert.person}
        return {"id": alert.entity, "type": "service_reference", "summary": alert.entity}

    incidents = [
        {
            "id": f"P{alert.number:06d}",
            "type": "incident",
            "incident_number": alert.number,
            "title": alert.title,
            "created_at": iso(alert.raised),
            "status": "resolved" if alert.decided else "triggered",
            "service": {"id": alert.entity, "type": "service_reference", "summary": alert.entity},
            "teams": [{"id": alert.team, "type": "team_reference", "summary": alert.team}],
            "urgency": "high" if alert.severity in ("high", "critical") else "low",
            "last_status_change_at": iso(alert.decided or alert.raised),
            "last_status_change_by": changed_by(alert),
            "acknowledgements": [],
        }
        for alert in alerts
    ]
    return _json(folder / "incidents.json", {"incidents": incidents, "more": False})


def opsgenie(alerts: list[Alert], folder: Path) -> Export:
    def report(alert: Alert) -> dict[str, Any]:
        if alert.decided is None:
            return {}
        milliseconds = int((alert.decided - alert.raised).total_seconds() * 1000)
        return {"closeTime": milliseconds, "closedBy": alert.person if alert.decision == "acted" else "System"}

    records = (
        {
            "id": f"{alert.number:08x}-0000",
            "message": alert.title,
            "status": "closed" if alert.decided else "open",
            "createdAt": iso(alert.raised),
            "priority": "P2" if alert.severity == "high" else "P4",
            "source": alert.entity,
            "ownerTeamName": alert.team,
            "tags": [],
            "report": report(alert),
        }
        for alert in alerts
    )
    return _lines(folder / "opsgenie.jsonl", records)


def jira(alerts: list[Alert], folder: Path) -> Export:
    spelled = lambda moment: f"{moment:%d/%b/%y %I:%M %p}" if moment else ""  # noqa: E731
    resolutions = {"acted": "Done", "dismissed": "Won't Do", "by machine": "Unresolved", "": ""}
    rows = [
        {
            "Summary": f"Alert: {alert.title}",
            "Issue key": f"OPS-{alert.number}",
            "Issue Type": "Incident",
            "Status": "Done" if alert.decided else "Open",
            "Priority": alert.severity.title(),
            "Resolution": resolutions[alert.decision],
            "Assignee": alert.person,
            "Created": spelled(alert.raised),
            "Updated": spelled(alert.decided or alert.raised),
            "Resolved": spelled(alert.decided if alert.decision in ("acted", "dismissed") else None),
            "Custom field (Service)": alert.entity,
            "Custom field (Team)": alert.team,
        }
        for alert in alerts
    ]
    return _table(folder / "jira.csv", rows)


def servicenow(alerts: list[Alert], folder: Path) -> Export:
    spelled = lambda moment: f"{moment:%Y-%m-%d %H:%M:%S}" if moment else ""  # noqa: E731
    codes = {"acted": "Solved (Permanently)", "dismissed": "Duplicate", "by machine": "Resolved by caller", "": ""}
    rows = [
        {
            "number": f"INC{alert.number:07d}",
            "opened_at": spelled(alert.raised),
            "short_description": alert.title,
            "priority": {"critical": "1 - Critical", "high": "2 - High"}.get(alert.severity, "3 - Moderate"),
            "state": "Closed" if alert.decided else "New",
            "cmdb_ci": alert.entity,
            "assignment_group": alert.team,
            "close_code": codes[alert.decision],
            "resolved_at": spelled(alert.decided),
            "resolved_by": "system" if alert.decision == "by machine" else alert.person,
        }
        for alert in alerts
    ]
    return _table(folder / "incident.csv", rows)


def _github(alerts: list[Alert], kind: str, reason: str) -> list[dict[str, Any]]:
    return [
        {
            "number": alert.number,
            "state": {"acted": "fixed", "dismissed": "dismissed", "by machine": "auto_dismissed", "": "open"}[
                alert.decision
            ],
            "html_url": f"https://github.com/example/{alert.team.lower()}/security/{kind}/{alert.number}",
            "created_at": iso(alert.raised),
            "fixed_at": alert.when("acted"),
            "dismissed_at": alert.when("dismissed"),
            "dismissed_by": {"login": alert.person} if alert.decision == "dismissed" else None,
            "dismissed_reason": reason if alert.decision == "dismissed" else None,
        }
        for alert in alerts
    ]


def github_dependabot(alerts: list[Alert], folder: Path) -> Export:
    records = [
        {
            **record,
            "auto_dismissed_at": alert.when("by machine"),
            "dependency": {"package": {"ecosystem": "npm", "name": alert.entity}, "scope": "runtime"},
            "security_advisory": {"ghsa_id": f"GHSA-{alert.slug}", "summary": alert.rule, "severity": alert.severity},
            "security_vulnerability": {"severity": alert.severity},
        }
        for alert, record in zip(alerts, _github(alerts, "dependabot", "tolerable_risk"), strict=True)
    ]
    return _json(folder / "dependabot.json", records)


def github_code_scanning(alerts: list[Alert], folder: Path) -> Export:
    records = [
        {
            **record,
            "rule": {"id": f"py/{alert.slug}", "security_severity_level": alert.severity, "description": alert.rule},
            "tool": {"name": "CodeQL"},
            "most_recent_instance": {"ref": "refs/heads/main", "location": {"path": f"{alert.entity}.py"}},
        }
        for alert, record in zip(alerts, _github(alerts, "code-scanning", "false positive"), strict=True)
    ]
    return _json(folder / "code-scanning.json", records)


def alertmanager(alerts: list[Alert], folder: Path) -> Export:
    bodies = (
        {
            "version": "4",
            "receiver": "heed",
            "status": "resolved" if alert.decided else "firing",
            "alerts": [
                {
                    "status": "resolved" if alert.decided else "firing",
                    "labels": {
                        "alertname": alert.slug,
                        "instance": alert.entity,
                        "team": alert.team,
                        "severity": alert.severity,
                    },
                    "annotations": {"summary": alert.title},
                    "startsAt": iso(alert.raised),
                    "endsAt": iso(alert.decided) or "0001-01-01T00:00:00Z",
                    "fingerprint": f"{alert.number:016x}",
                }
            ],
        }
        for alert in alerts
    )
    export = _lines(folder / "webhooks.jsonl", bodies)
    return _with_tickets(export, alerts, lambda alert: f"{alert.number:016x}|{iso(alert.raised)}")


def grafana(alerts: list[Alert], folder: Path) -> Export:
    groups = [
        {
            "id": f"I{alert.number:06d}",
            "integration_id": alert.entity,
            "team_id": alert.team,
            "title": alert.title,
            "created_at": iso(alert.raised),
            "resolved_at": alert.when("acted", "by machine"),
            "resolved_by": alert.person if alert.decision == "acted" else None,
            "acknowledged_at": None,
            "silenced_at": alert.when("dismissed"),
        }
        for alert in alerts
    ]
    return _json(folder / "oncall.json", {"count": len(groups), "results": groups})


def datadog(alerts: list[Alert], folder: Path) -> Export:
    def workflow(alert: Alert) -> dict[str, Any]:
        triage: dict[str, Any] = {"state": "open"}
        if alert.decided and alert.decision != "by machine":
            triage = {
                "state": "archived",
                "archiveReason": "investigated_case_opened" if alert.decision == "acted" else "false_positive",
                "stateUpdateTimestamp": 1000 * epoch(alert.decided),
                "stateUpdateUser": {"handle": alert.person},
            }
        return {"rule": {"name": alert.rule}, "triage": triage}

    signals = [
        {
            "id": f"signal-{alert.number}",
            "type": "signal",
            "attributes": {
                "title": alert.title,
                "timestamp": iso(alert.raised),
                "severity": alert.severity,
                "service": alert.entity,
                "tags": [f"team:{alert.team}"],
                "custom": {"workflow": workflow(alert)},
            },
        }
        for alert in alerts
    ]
    return _json(folder / "signals.json", {"data": signals})


def zabbix(alerts: list[Alert], folder: Path) -> Export:
    def updates(alert: Alert) -> list[dict[str, str]]:
        if alert.decided is None or alert.decision == "by machine":
            return []
        action = "6" if alert.decision == "acted" else "32"  # acknowledged with a message; suppressed
        return [{"clock": str(epoch(alert.decided)), "action": action, "username": alert.person}]

    problems = [
        {
            "eventid": str(alert.number),
            "clock": str(epoch(alert.raised)),
            "name": alert.rule,
            "severity": {"critical": "5", "high": "4", "medium": "3"}.get(alert.severity, "2"),
            "r_clock": str(epoch(alert.decided)) if alert.decided and alert.decision == "by machine" else "0",
            "hosts": [{"hostid": alert.entity, "host": alert.entity}],
            "acknowledges": updates(alert),
        }
        for alert in alerts
    ]
    return _json(folder / "problems.json", {"jsonrpc": "2.0", "result": problems, "id": 1})


def nagios(alerts: list[Alert], folder: Path) -> Export:
    """In the log a decision answers the last problem of its host and service, so every problem has a service of its
    host: the rule."""
    events: list[tuple[datetime, str]] = []
    for alert in alerts:
        where = f"{alert.entity};{alert.rule}"
        events.append((alert.raised, f"SERVICE ALERT: {where};CRITICAL;HARD;3;{alert.title}"))
        if alert.decided is None:
            continue
        what = {
            "acted": f"EXTERNAL COMMAND: ACKNOWLEDGE_SVC_PROBLEM;{where};2;1;0;{alert.person};on it",
            "dismissed": f"EXTERNAL COMMAND: SCHEDULE_SVC_DOWNTIME;{where};1;2;1;0;60;{alert.person};known",
            "by machine": f"SERVICE ALERT: {where};OK;HARD;3;OK",
        }[alert.decision]
        events.append((alert.decided, what))
    path = folder / "nagios.log"
    path.write_text("".join(f"[{epoch(moment)}] {text}\n" for moment, text in sorted(events)), encoding="utf-8")
    return Export((path,))


def sentry(alerts: list[Alert], folder: Path) -> Export:
    kinds = {"acted": "set_resolved", "dismissed": "set_ignored", "by machine": "set_resolved_by_age"}

    def activity(alert: Alert) -> list[dict[str, Any]]:
        first: dict[str, Any] = {"type": "first_seen", "dateCreated": iso(alert.raised), "user": None}
        if not alert.decision:
            return [first]
        user = None if alert.decision == "by machine" else {"email": f"{alert.person}@example.com"}
        return [first, {"type": kinds[alert.decision], "dateCreated": iso(alert.decided), "user": user}]

    issues = [
        {
            "id": str(alert.number),
            "title": alert.title,
            "culprit": alert.entity,
            "level": "error",
            "project": {"slug": alert.team.lower()},
            "metadata": {"type": alert.rule},
            "firstSeen": iso(alert.raised),
            "status": {"acted": "resolved", "dismissed": "ignored", "by machine": "resolved", "": "unresolved"}[
                alert.decision
            ],
            "activity": activity(alert),
        }
        for alert in alerts
    ]
    return _json(folder / "issues.json", issues)


def sentinel(alerts: list[Alert], folder: Path) -> Export:
    spelled = lambda moment: f"{moment:%m/%d/%Y, %I:%M:%S %p}" if moment else ""  # noqa: E731
    classes = {"acted": "TruePositive", "dismissed": "FalsePositive", "by machine": "Undetermined", "": ""}
    rows = [
        {
            "IncidentName": f"{alert.number:08d}-aaaa-bbbb-cccc",
            "CreatedTime [UTC]": spelled(alert.raised),
            "IncidentNumber": alert.number,
            "Title": alert.title,
            "Severity": alert.severity.title(),
            "Status": "Closed" if alert.decided else "New",
            "Classification": classes[alert.decision],
            "ClosedTime [UTC]": spelled(alert.decided),
            "LastModifiedTime [UTC]": spelled(alert.decided or alert.raised),
            "Owner": alert.person,
            "ModifiedBy": "Automation rule" if alert.decision == "by machine" else alert.person,
            "ProviderName": alert.team,
        }
        for alert in alerts
    ]
    return _table(folder / "incidents.csv", rows)


def defender(alerts: list[Alert], folder: Path) -> Export:
    classes = {"acted": "truePositive", "dismissed": "falsePositive", "by machine": "unknown", "": None}
    records = [
        {
            "id": f"da{alert.number}",
            "title": alert.rule,
            "severity": alert.severity,
            "status": "resolved" if alert.decided else "new",
            "classification": classes[alert.decision],
            "createdDateTime": iso(alert.raised),
            "resolvedDateTime": iso(alert.decided),
            "assignedTo": "Automation" if alert.decision == "by machine" else alert.person,
            "serviceSource": alert.team,
            "evidence": [{"@odata.type": "#microsoft.graph.security.deviceEvidence", "deviceDnsName": alert.entity}],
        }
        for alert in alerts
    ]
    return _json(folder / "alerts.json", {"value": records})


def splunk(alerts: list[Alert], folder: Path) -> Export:
    dispositions = {
        "acted": "True Positive - Suspicious Activity",
        "dismissed": "False Positive - Inaccurate Data",
        "by machine": "Undetermined",
        "": "Unassigned",
    }
    records = (
        {
            "preview": False,
            "result": {
                "event_id": f"notable@@{alert.number}",
                "_time": f"{alert.raised:%Y-%m-%dT%H:%M:%S.000+00:00}",
                "rule_name": alert.rule,
                "dest": alert.entity,
                "security_domain": alert.team,
                "urgency": alert.severity,
                "status_label": "Closed" if alert.decided else "New",
                "disposition_label": dispositions[alert.decision],
                "review_time": str(epoch(alert.decided)) if alert.decided else "",
                "reviewer": "splunk-system-user" if alert.decision == "by machine" else alert.person,
            },
        }
        for alert in alerts
    )
    return _lines(folder / "notables.json", records)


def security_hub(alerts: list[Alert], folder: Path) -> Export:
    statuses = {"acted": "RESOLVED", "dismissed": "SUPPRESSED", "by machine": "NEW", "": "NEW"}
    findings = [
        {
            "SchemaVersion": "2018-10-08",
            "Id": f"arn:aws:securityhub:eu-west-1:111122223333:finding/{alert.number}",
            "GeneratorId": f"rules/{alert.slug}",
            "AwsAccountId": "111122223333",
            "AwsAccountName": alert.team,
            "CreatedAt": iso(alert.raised),
            "UpdatedAt": iso(alert.decided or alert.raised),
            "Severity": {"Label": alert.severity.upper()},
            "Title": alert.rule,
            "Resources": [{"Type": "AwsS3Bucket", "Id": f"arn:aws:s3:::{alert.entity}"}],
            "Workflow": {"Status": statuses[alert.decision]},
            "RecordState": "ARCHIVED" if alert.decision == "by machine" else "ACTIVE",
        }
        for alert in alerts
    ]
    return _json(folder / "findings.json", {"Findings": findings})


def defectdojo(alerts: list[Alert], folder: Path) -> Export:
    findings = [
        {
            "id": alert.number,
            "title": alert.rule,
            "severity": alert.severity.title(),
            "component_name": alert.entity,
            "related_fields": {"test": {"engagement": {"product": {"name": alert.team}}}},
            "created": iso(alert.raised),
            "mitigated": alert.when("acted"),
            "mitigated_by": alert.person if alert.decision == "acted" else None,
            "false_p": alert.decision == "dismissed",
            "duplicate": alert.decision == "by machine",
            "risk_accepted": False,
            "out_of_scope": False,
            "last_status_update": iso(alert.decided or alert.raised),
        }
        for alert in alerts
    ]
    return _json(folder / "findings.json", {"count": len(findings), "results": findings})


def wazuh(alerts: list[Alert], folder: Path) -> Export:
    id_of: Callable[[Alert], str] = lambda alert: f"{epoch(alert.raised)}.{alert.number}"  # noqa: E731
    records = (
        {
            "timestamp": f"{alert.raised:%Y-%m-%dT%H:%M:%S.000+0000}",
            "id": id_of(alert),
            "rule": {"id": alert.slug, "level": 7, "description": alert.rule, "groups": ["syslog"]},
            "agent": {"id": "001", "name": alert.entity, "labels": {"group": alert.team}},
        }
        for alert in alerts
    )
    return _with_tickets(_lines(folder / "alerts.json", records), alerts, id_of)


def dbt(alerts: list[Alert], folder: Path) -> Export:
    """One run_results.json for each day, as a nightly build leaves them: they are kept under the name of their day."""
    test_of: Callable[[Alert], str] = lambda alert: f"test.shop.{alert.slug}_{alert.entity.replace('-', '_')}"  # noqa: E731
    days: dict[str, list[dict[str, Any]]] = {}
    for alert in alerts:
        failure = {
            "unique_id": test_of(alert),
            "status": "fail",
            "timing": [{"name": "execute", "completed_at": iso(alert.raised)}],
            "failures": 3,
            "message": "Got 3 results, configured to fail if != 0",
        }
        days.setdefault(f"{alert.raised:%Y-%m-%d}", []).append(failure)
    files = []
    for day, results in days.items():
        version = {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"}
        files += _json(folder / f"run_results-{day}.json", {"metadata": version, "results": results}).files
    return _with_tickets(Export(tuple(files)), alerts, lambda alert: f"{test_of(alert)}|{iso(alert.raised)}")


def suricata(alerts: list[Alert], folder: Path) -> Export:
    actions = {"acted": "escalated", "dismissed": "archived", "by machine": "auto-archived"}

    def history(alert: Alert) -> list[dict[str, Any]]:
        if not alert.decision:
            return []
        return [{"action": actions[alert.decision], "timestamp": iso(alert.decided), "username": alert.person}]

    records = (
        {
            "timestamp": f"{alert.raised:%Y-%m-%dT%H:%M:%S.000000+0000}",
            "flow_id": alert.number,
            "event_type": "alert",
            "src_ip": "10.0.0.1",
            "dest_ip": alert.entity,
            "host": alert.team,
            "alert": {"signature_id": alert.slug, "signature": alert.rule, "severity": 2, "category": "scan"},
            "evebox": {"history": history(alert)},
        }
        for alert in alerts
    )
    return _lines(folder / "eve.json", records)


EXPORTS: dict[str, Callable[[list[Alert], Path], Export]] = {
    write.__name__.replace("_", "-"): write
    for write in (
        *(alertmanager, datadog, dbt, defectdojo, defender, github_code_scanning, github_dependabot, grafana, jira),
        *(nagios, opsgenie, pagerduty, security_hub, sentinel, sentry, servicenow, splunk, suricata, wazuh, zabbix),
    )
}
