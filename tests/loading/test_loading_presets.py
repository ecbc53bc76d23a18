"""Presets on small files in the shapes that vendors publish, as API answers and as tables. Nobody's data."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loading_records import actions_of, alerts_of

from dagster_project.errors import HeedError
from dagster_project.loading.presets import preset_names, read_preset

NAMES = (
    *("alertmanager", "datadog", "dbt", "defectdojo", "defender", "github-code-scanning", "github-dependabot"),
    *("grafana", "jira", "nagios", "opsgenie", "pagerduty", "security-hub", "sentinel", "sentry", "servicenow"),
    *("splunk", "suricata", "wazuh", "zabbix"),
)


def table(*rows: dict[str, str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def lines(*records: Any) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


FIRE = {"labels": {"alertname": "HighCPU", "instance": "db1:9100", "severity": "page", "team": "core"}}
TRIAGE = {"triage": {"state": "archived", "archive_reason": "false_positive", "state_update_timestamp": 1777626000000}}
SENTRY = {
    "firstSeen": "2026-05-01T08:00:00Z",
    "title": "KeyError: 7",
    "metadata": {"type": "KeyError"},
    "level": "error",
}
WAZUH = {
    "timestamp": "2026-05-01T08:00:00.123+0000",
    "id": "1777622400.1",
    "rule": {"id": "5503", "level": 5, "description": "login failed"},
    "agent": {"id": "001", "name": "web1"},
}
EVE = {
    "timestamp": "2026-05-01T08:00:00.000001+0000",
    "flow_id": 7,
    "event_type": "alert",
    "src_ip": "10.0.0.1",
    "dest_ip": "10.0.0.2",
    "alert": {"signature_id": 2001, "signature": "ET SCAN", "severity": 2, "category": "scan"},
}
SIGNAL = {"title": "New login", "timestamp": "2026-05-01T08:00:00Z", "custom": {"workflow": TRIAGE}}
ADO = {"title": "SQL Injection", "severity": "High", "false_p": False, "risk_accepted": False, "duplicate": False}
SNOW = {"short_description": "disk full", "priority": "2", "assignment_group": {"display_value": "DBA", "value": "x"}}
ISSUE = {"summary": "Alert: lag on mq1", "created": "2026-05-01T10:00:00.000+0200", "priority": {"name": "High"}}

# name of the preset, file, content, alerts as (id, moment, rule, entity), actions as type -> count
SHAPES: list[tuple[str, str, str, list[tuple[str, str, str, str | None]], dict[str, int]]] = [
    (
        "pagerduty",
        "a.json",
        json.dumps(
            {
                "incidents": [
                    {
                        "id": "P1",
                        "title": "Disk on db1",
                        "created_at": "2026-05-01T08:00:00Z",
                        "status": "resolved",
                        "service": {"id": "S1", "type": "service_reference", "summary": "DB"},
                        "last_status_change_at": "2026-05-01T09:00:00Z",
                        "last_status_change_by": {"id": "U1", "type": "user_reference", "summary": "Ann"},
                        "acknowledgements": [
                            {"at": "2026-05-01T08:10:00Z", "acknowledger": {"type": "user_reference", "summary": "Ann"}}
                        ],
                    }
                ],
                "more": False,
            }
        ),
        [("P1", "2026-05-01T08:00:00Z", "Disk on #", "DB")],
        {"resolved": 1, "acknowledged": 1},
    ),
    (
        "pagerduty",
        "analytics.csv",
        table(
            {
                "id": "Q1",
                "description": "Disk",
                "service_name": "DB",
                "created_on": "2026-05-01 08:00:00 +0200",
                "resolved_on": "2026-05-01 09:00:00 +0200",
                "auto_resolved": "true",
                "resolved_by_user_name": "",
            }
        ),
        [("Q1", "2026-05-01T06:00:00Z", "Disk", "DB")],
        {"closed-by-machine": 1},
    ),
    (
        "opsgenie",
        "a.json",
        json.dumps(
            {
                "data": [
                    {
                        "id": "o1",
                        "message": "CPU on web-1",
                        "status": "closed",
                        "createdAt": "2026-05-01T08:00:00.5Z",
                        "priority": "P2",
                        "source": "zabbix",
                        "report": {"ackTime": 60000, "closeTime": 120000, "closedBy": by, "acknowledgedBy": "ann@x"},
                    }
                    for by in ("ann@x",)
                ]
            }
        ),
        [("o1", "2026-05-01T08:00:00.500000Z", "CPU on #", "zabbix")],
        {"acted": 1, "acknowledged": 1},
    ),
    (
        "opsgenie",
        "b.csv",
        table(
            {
                "Alert ID": "o2",
                "Message": "CPU",
                "Status": "closed",
                "Created At": "1777622400000",
                "Updated At": "1777626000000",
                "Closed By": "System",
            }
        ),
        [("o2", "2026-05-01T08:00:00Z", "CPU", None)],
        {"closed-by-machine": 1},
    ),
    (
        "jira",
        "a.json",
        json.dumps(
            {
                "total": 1,
                "issues": [
                    {
                        "key": "OPS-1",
                        "fields": {
                            **ISSUE,
                            "resolutiondate": "2026-05-01T11:00:00.000+0200",
                            "resolution": {"name": "Won't Do"},
                            "components": [{"name": "mq"}],
                        },
                    }
                ],
            }
        ),
        [("OPS-1", "2026-05-01T08:00:00Z", "Alert: lag on #", "mq")],
        {"Won't Do": 1},
    ),
    (
        "servicenow",
        "a.json",
        json.dumps(
            {
                "result": [
                    {
                        **SNOW,
                        "number": "INC1",
                        "opened_at": "2026-05-01 08:00:00",
                        "resolved_at": "2026-05-01 09:00:00",
                        "close_code": "Solved (Permanently)",
                        "resolved_by": {"display_value": "Ann"},
                    },
                    {**SNOW, "number": "INC2", "opened_at": "2026-05-01 08:00:00", "resolved_at": "", "state": "1"},
                ]
            }
        ),
        [(f"INC{n}", "2026-05-01T08:00:00", "disk full", None) for n in (1, 2)],
        {"Solved (Permanently)": 1},
    ),
    (
        "servicenow",
        "labels.csv",
        table(
            {
                "Number": "INC3",
                "Opened": "2026-05-13 08:00:00",
                "Short description": "disk",
                "Configuration item": "db1",
                "Resolved": "",
                "Closed": "2026-05-13 09:00:00",
                "Resolution code": "Duplicate",
                "Closed by": "Ann",
            }
        ),
        [("INC3", "2026-05-13T08:00:00", "disk", "db1")],
        {"Duplicate": 1},
    ),
    (
        "github-dependabot",
        "one-repository.json",
        json.dumps(
            [
                {
                    "number": 4,
                    "state": "dismissed",
                    "html_url": "https://github.com/o/web/security/dependabot/4",
                    "created_at": "2026-05-01T08:00:00Z",
                    "dismissed_at": "2026-05-02T08:00:00Z",
                    "dismissed_by": {"login": "ann"},
                    "dismissed_reason": "tolerable_risk",
                    "security_advisory": {"ghsa_id": "GHSA-1"},
                    "dependency": {"package": {"name": "ws", "ecosystem": "npm"}},
                }
            ]
        ),
        [("o/web|dependabot|4", "2026-05-01T08:00:00Z", "GHSA-1", "ws")],
        {"tolerable_risk": 1},
    ),
    (
        "github-code-scanning",
        "a.json",
        json.dumps(
            [
                {
                    "number": n,
                    "created_at": "2026-05-01T08:00:00Z",
                    "fixed_at": "2026-05-02T08:00:00Z" if n == 1 else None,
                    "dismissed_at": None if n == 1 else "2026-05-02T08:00:00Z",
                    "dismissed_reason": None if n == 1 else "false positive",
                    "rule": {"id": "py/sqli", "security_severity_level": "high"},
                    "most_recent_instance": {"location": {"path": "a.py"}},
                    "repository": {"full_name": "o/web"},
                }
                for n in (1, 2)
            ]
        ),
        [(f"o/web|code-scanning|{n}", "2026-05-01T08:00:00Z", "py/sqli", "a.py") for n in (1, 2)],
        {"fixed": 1, "false positive": 1},
    ),
    (
        "alertmanager",
        "webhook.jsonl",
        lines(
            {
                "receiver": "x",
                "status": "firing",
                "alerts": [
                    {
                        **FIRE,
                        "status": "firing",
                        "fingerprint": "f1",
                        "startsAt": "2026-05-01T08:00:00Z",
                        "endsAt": "0001-01-01T00:00:00Z",
                    },
                    {
                        **FIRE,
                        "status": "resolved",
                        "fingerprint": "f2",
                        "startsAt": "2026-05-01T08:00:00Z",
                        "endsAt": "2026-05-01T09:00:00Z",
                    },
                ],
            }
        ),
        [(f"f{n}|2026-05-01T08:00:00Z", "2026-05-01T08:00:00Z", "HighCPU", "db1:9100") for n in (1, 2)],
        {"closed-by-machine": 1},
    ),
    (
        "alertmanager",
        "api.json",
        json.dumps(
            [
                {
                    **FIRE,
                    "fingerprint": "f3",
                    "startsAt": "2026-05-01T08:00:00Z",
                    "updatedAt": "2026-05-01T08:30:00Z",
                    "status": {"state": "suppressed", "silencedBy": ["s1"], "inhibitedBy": []},
                }
            ]
        ),
        [("f3|2026-05-01T08:00:00Z", "2026-05-01T08:00:00Z", "HighCPU", "db1:9100")],
        {"silenced": 1},
    ),
    (
        "grafana",
        "oncall.json",
        json.dumps(
            {
                "results": [
                    {
                        "id": "I1",
                        "integration_id": "C1",
                        "title": "CPU on web-1",
                        "created_at": "2026-05-01T08:00:00Z",
                        "resolved_at": "2026-05-01T09:00:00Z",
                        "resolved_by": by,
                        "acknowledged_at": None,
                    }
                    for by in ("U1",)
                ]
            }
        ),
        [("I1", "2026-05-01T08:00:00Z", "CPU on #", "C1")],
        {"resolved": 1},
    ),
    (
        "grafana",
        "annotations.json",
        json.dumps(
            [
                {"id": 1, "alertName": "CPU", "newState": "Alerting", "time": 1777622400000, "panelId": 3},
                {"id": 2, "alertName": "CPU", "newState": "Normal", "time": 1777626000000, "panelId": 3},
            ]
        ),
        [("1", "2026-05-01T08:00:00Z", "CPU", "3")],
        {},
    ),
    (
        "datadog",
        "events.json",
        json.dumps(
            {
                "events": [
                    {"id": 1, "title": "CPU on h1", "date_happened": 1777622400, "alert_type": "error", "host": "h1"},
                    {"id": 2, "title": "CPU on h1", "date_happened": 1777626000, "alert_type": "success", "host": "h1"},
                ]
            }
        ),
        [("1", "2026-05-01T08:00:00Z", "CPU on #", "h1")],
        {},
    ),
    (
        "datadog",
        "signals.json",
        json.dumps({"data": [{"id": "s1", "type": "signal", "attributes": SIGNAL}]}),
        [("s1", "2026-05-01T08:00:00Z", "New login", None)],
        {"false_positive": 1},
    ),
    (
        "zabbix",
        "problems.json",
        json.dumps(
            {
                "jsonrpc": "2.0",
                "result": [
                    {
                        "eventid": "11",
                        "clock": "1777622400",
                        "name": "High load",
                        "severity": "4",
                        "r_clock": "0",
                        "hosts": [{"hostid": "1", "host": "db1"}],
                        "acknowledges": [{"clock": "1777622700", "action": "6", "username": "ann"}],
                    }
                ],
            }
        ),
        [("11", "2026-05-01T08:00:00Z", "High load", "db1")],
        {"acted": 1},
    ),
    (
        "sentry",
        "issues.json",
        json.dumps(
            [
                {
                    **SENTRY,
                    "id": "1",
                    "culprit": "app.views",
                    "status": "resolved",
                    "activity": [
                        {"type": "first_seen", "dateCreated": "2026-05-01T08:00:00Z", "user": None},
                        {"type": "set_resolved", "dateCreated": "2026-05-02T08:00:00Z", "user": {"email": "ann@x"}},
                        {"type": "set_resolved_by_age", "dateCreated": "2026-05-03T08:00:00Z", "user": None},
                    ],
                },
                {**SENTRY, "id": "2", "status": "ignored"},
            ]
        ),
        [("1", "2026-05-01T08:00:00Z", "KeyError", "app.views"), ("2", "2026-05-01T08:00:00Z", "KeyError", None)],
        {"acted": 1, "closed-by-machine": 1},
    ),
    (
        "dbt",
        "run_results.json",
        json.dumps(
            {
                "metadata": {"dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json"},
                "results": [
                    {"unique_id": "model.shop.orders", "status": "error", "timing": [], "message": "no such column"},
                    *(
                        {
                            "unique_id": f"test.shop.not_null_orders_{column}.ab12cd34ef",
                            "status": status,
                            "timing": [{"name": "execute", "completed_at": "2026-05-01T08:00:00.123456Z"}],
                            "failures": 3,
                            "message": "Got 3 results, configured to fail if != 0",
                        }
                        for column, status in (("id", "fail"), ("customer", "pass"))
                    ),
                ],
            }
        ),
        [
            (
                "test.shop.not_null_orders_id.ab12cd34ef|2026-05-01T08:00:00.123Z",
                "2026-05-01T08:00:00.123456Z",
                "not_null_orders_id",
                "test.shop.not_null_orders_id.ab12cd34ef",
            )
        ],
        {},
    ),
    (
        "sentinel",
        "api.json",
        json.dumps(
            {
                "value": [
                    {
                        "name": "g1",
                        "properties": {
                            "incidentNumber": 7,
                            "title": "Rare sign-in",
                            "severity": "High",
                            "status": "Closed",
                            "classification": "BenignPositive",
                            "createdTimeUtc": "2026-05-01T08:00:00.1234567Z",
                            "lastModifiedTimeUtc": "2026-05-01T09:00:00Z",
                        },
                    }
                ]
            }
        ),
        [("7", "2026-05-01T08:00:00.123456Z", "Rare sign-in", None)],
        {"BenignPositive": 1},
    ),
    (
        "defender",
        "graph.json",
        json.dumps(
            {
                "value": [
                    {
                        "id": "da1",
                        "title": "Malware",
                        "severity": "high",
                        "status": "resolved",
                        "classification": "truePositive",
                        "createdDateTime": "2026-05-01T08:00:00.12Z",
                        "resolvedDateTime": "2026-05-01T09:00:00Z",
                        "assignedTo": by,
                        "evidence": [{"@odata.type": "#d", "deviceDnsName": "pc1"}],
                    }
                    for by in ("ann@x",)
                ]
            }
        ),
        [("da1", "2026-05-01T08:00:00.120000Z", "Malware", "pc1")],
        {"truePositive": 1},
    ),
    (
        "splunk",
        "notables.json",
        lines(
            {
                "preview": False,
                "result": {
                    "event_id": "e@@1",
                    "_time": "2026-05-01T08:00:00.000+00:00",
                    "rule_name": "Brute force",
                    "dest": "h1",
                    "urgency": "high",
                    "status_label": "Closed",
                    "disposition_label": "False Positive - Inaccurate Data",
                    "review_time": "1777626000",
                    "reviewer": "ann",
                },
            }
        ),
        [("e@@1", "2026-05-01T08:00:00Z", "Brute force", "h1")],
        {"False Positive - Inaccurate Data": 1},
    ),
    (
        "security-hub",
        "archived.json",
        json.dumps(
            {
                "Findings": [
                    {
                        "Id": "arn:1",
                        "CreatedAt": "2026-05-01T08:00:00Z",
                        "UpdatedAt": "2026-05-02T08:00:00Z",
                        "GeneratorId": "cis/1.1",
                        "Title": "x",
                        "RecordState": "ARCHIVED",
                        "Workflow": {"Status": "NEW"},
                        "Resources": [{"Id": "arn:b"}],
                    }
                ]
            }
        ),
        [("arn:1", "2026-05-01T08:00:00Z", "cis/1.1", "arn:b")],
        {"closed-by-machine": 1},
    ),
    (
        "defectdojo",
        "findings.json",
        json.dumps(
            {
                "count": 3,
                "results": [
                    {**ADO, "id": 1, "created": "2026-05-01T08:00:00Z", "mitigated": "2026-05-03T08:00:00Z"},
                    {
                        **ADO,
                        "id": 2,
                        "date": "2026-05-01",
                        "false_p": True,
                        "last_status_update": "2026-05-02T08:00:00Z",
                    },
                    {**ADO, "id": 3, "date": "2026-05-01", "mitigated": None},
                ],
            }
        ),
        [
            ("1", "2026-05-01T08:00:00Z", "SQL Injection", None),
            ("2", "2026-05-01T00:00:00", "SQL Injection", None),
            ("3", "2026-05-01T00:00:00", "SQL Injection", None),
        ],
        {"mitigated": 1, "false_p": 1},
    ),
    ("wazuh", "alerts.json", lines(WAZUH), [("1777622400.1", "2026-05-01T08:00:00.123000Z", "5503", "web1")], {}),
    (
        "wazuh",
        "indexer.json",
        json.dumps({"took": 1, "hits": {"total": {"value": 1}, "hits": [{"_id": "x", "_source": WAZUH}]}}),
        [("1777622400.1", "2026-05-01T08:00:00.123000Z", "5503", "web1")],
        {},
    ),
    (
        "suricata",
        "eve.json",
        lines(
            {"timestamp": "2026-05-01T07:00:00+0000", "event_type": "dns", "flow_id": 1},
            {**EVE, "evebox": {"history": [{"action": "archived", "timestamp": "2026-05-01T09:00:00Z"}]}},
        ),
        [("7|2001|2026-05-01T08:00:00.000001+0000", "2026-05-01T08:00:00.000001Z", "2001", "10.0.0.2")],
        {"archived": 1},
    ),
]


def test_all_presets_are_there():
    assert preset_names() == list(NAMES)
    assert {shape[0] for shape in SHAPES} | {"nagios"} == set(NAMES)
    assert all(read_preset(name).title for name in NAMES)


@pytest.mark.parametrize("shape", SHAPES, ids=[f"{shape[0]}-{shape[1]}" for shape in SHAPES])
def test_a_preset_reads_the_published_shape(tmp_path: Path, shape: Any):
    name, file, content, alerts, actions = shape
    path = tmp_path / file
    path.write_text(content, encoding="utf-8")
    mapping = read_preset(name)
    rows = alerts_of(path, mapping)
    assert [tuple(row.get(key) for key in ("alert_id", "raised_at", "rule", "entity")) for row in rows] == alerts
    made = actions_of(path, mapping)
    assert Counter(row["action_type"] for row in made) == actions
    assert {row["alert_id"] for row in made} <= {row["alert_id"] for row in rows}
    assert len({row["action_id"] for row in made}) == len(made)
    assert [row["action_id"] for row in actions_of(path, mapping)] == [row["action_id"] for row in made]


def test_what_is_learned_later_is_no_attribute(tmp_path):
    for name, file, content, *_ in SHAPES:
        path = tmp_path / file
        path.write_text(content, encoding="utf-8")
        for row in alerts_of(path, read_preset(name)):
            later = ("resolved", "status", "closed", "dismissed", "report", "updated", "acknowledge", "triage")
            assert not [key for key in row if key.startswith("+") and any(word in key.lower() for word in later)], name


def test_a_preset_of_ones_own(tmp_path):
    (tmp_path / "presets").mkdir()
    own = tmp_path / "presets" / "homegrown.toml"
    own.write_text('[preset]\ntitle="x"\n[alerts]\nalert_id="n"\nraised_at="t"\nrule="r"\nteam="absent"\n')
    data = tmp_path / "a.csv"
    data.write_text("n,t,r\n1,2026-05-01T08:00:00Z,cpu\n")
    for mapping in (read_preset("homegrown", own.parent), read_preset(str(own))):
        assert [row["rule"] for row in alerts_of(data, mapping)] == ["cpu"]
    assert "homegrown" in preset_names(own.parent)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(HeedError) as refused:
        read_preset("pagerdutty")
    assert "did you mean pagerduty" in str(refused.value).lower()


def test_a_file_of_another_system_is_refused(tmp_path):
    data = tmp_path / "a.csv"
    data.write_text("foo,bar\n1,2\n")
    with pytest.raises(HeedError) as refused:
        alerts_of(data, read_preset("pagerduty"))
    assert "takes alert_id from" in str(refused.value)
