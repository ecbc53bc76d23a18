"""`heed inspect` on exports of systems that no preset knows: each form of file says the same about the same alerts."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from loading_records import actions_of, alerts_of, rows_and_notes

from dagster_project.errors import HeedError
from dagster_project.loading import read_mapping
from dagster_project.loading.inspection.meanings import closed_by_itself, meanings_of
from dagster_project.loading.inspection.propose import Proposal, propose
from dagster_project.loading.records.actions import BY_MACHINE
from dagster_project.resources.inputs.action_types import project_types, type_key


class Alert(NamedTuple):
    number: int
    raised: datetime
    rule: str
    host: str
    how: str
    ended: datetime | None
    who: str


HOW = ("acted", "dismissed", "acted", "machine", "open")
ALERTS = [
    Alert(
        number=n,
        raised=(raised := datetime(2026, 3, 1, 6, tzinfo=UTC) + timedelta(hours=7 * n)),
        rule=("High CPU", "Disk full", "Login failures")[n % 3],
        host=f"srv-{n % 11:02}",
        how=HOW[n % 5],
        ended=None if HOW[n % 5] == "open" else raised + timedelta(minutes=10 + 3 * n),
        who="system" if HOW[n % 5] == "machine" else ("maria", "chen")[n % 2],
    )
    for n in range(60)
]
TRUTH = Counter(alert.how for alert in ALERTS)


def table(path: Path, header: str, rows: list[list[Any]], separator: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=separator).writerows([header.split("|"), *rows])
    return path


def minute(moment: datetime | None, written: str = "%Y-%m-%d %H:%M") -> str:
    return moment.strftime(written) if moment else ""


def on_call(folder: Path) -> Path:
    """Month first, twelve hours, an id named "#", who acknowledged and who resolved."""
    american = "%m/%d/%Y %I:%M:%S %p"
    rows = [
        [
            1000 + a.number,
            minute(a.raised, american),
            a.host,
            a.rule,
            a.who if a.how == "acted" else "",
            a.who if a.ended else "",
            minute(a.ended, american),
        ]
        for a in ALERTS
    ]
    header = "Incident #|Start Time (UTC)|Entity ID|Alert name|Acked By|Resolved By|Resolved At (UTC)"
    return table(folder / "on_call.csv", header, rows)


def yes_or_no(folder: Path) -> Path:
    """A spreadsheet of somebody's own."""
    says = {"acted": "Y", "dismissed": "N", "machine": "", "open": ""}
    rows = [
        [a.number, minute(a.raised), a.rule, a.host, says[a.how], minute(a.ended) if says[a.how] else ""]
        for a in ALERTS
    ]
    return table(folder / "own.csv", "Alert No|Date raised|Alert name|Server|Action taken?|Date closed", rows)


def put_together(folder: Path) -> Path:
    """Types that are put together of a state and a reason; tabs."""
    iso = "%Y-%m-%dT%H:%M:%SZ"
    says = {
        "acted": "Resolved - True Positive",
        "dismissed": "Resolved - False Positive",
        "machine": "Resolved - Auto Resolve",
        "open": "New",
    }
    rows = [[a.number, minute(a.raised, iso), a.rule, a.host, says[a.how], minute(a.ended, iso)] for a in ALERTS]
    return table(folder / "xdr.tsv", "Incident ID|Creation Time|Rule|Hosts|Status|Resolved Timestamp", rows, "\t")


def two_times(folder: Path) -> Path:
    """A column of times for each way to decide, and a state that holds only now."""
    rows = [
        [f"issue-{a.number}", a.rule, a.host, a.raised.isoformat(), a.how]
        + [a.ended.isoformat() if a.ended and a.how == how else "" for how in ("acted", "dismissed")]
        for a in ALERTS
    ]
    header = "ISSUE_ID|PROBLEM_TITLE|HOST|FIRST_SEEN|ISSUE_STATUS|LAST_RESOLVED|LAST_IGNORED"
    return table(folder / "issues.csv", header, rows)


def in_german(folder: Path) -> Path:
    german = "%d.%m.%Y %H:%M"
    says = {"acted": "Behoben", "dismissed": "Fehlalarm", "machine": "Automatisch geschlossen", "open": ""}
    rows = [
        [f"INC-{a.number}", a.rule, a.host, minute(a.raised, german), minute(a.ended, german), says[a.how]]
        for a in ALERTS
    ]
    return table(folder / "t.csv", "Ticket-ID|Betreff|Gerät|Erstellt am|Gelöst am|Lösungsart", rows, ";", "cp1252")


def events(folder: Path, newest_first: bool = False) -> Path:
    """A row for each event."""
    says = {"acted": "FIXED", "dismissed": "IGNORED", "machine": "FIXED"}
    rows = [[a.raised.isoformat(), a.number, "OPENED", a.rule, a.host, "monitor"] for a in ALERTS]
    rows += [[a.ended.isoformat(), a.number, says[a.how], a.rule, a.host, a.who] for a in ALERTS if a.ended]
    return table(folder / "log.csv", "time|alert_id|event|rule|host|user", sorted(rows, reverse=newest_first))


def offenses(folder: Path) -> Path:
    """Milliseconds, and who closed."""
    reasons = {"acted": "fixed", "dismissed": "false alarm", "machine": "fixed", "open": None}

    def ms(moment: datetime | None) -> int | None:
        return int(moment.timestamp() * 1000) if moment else None

    documents = [
        {"id": a.number, "description": a.rule, "offense_source": a.host, "start_time": ms(a.raised)}
        | {"close_time": ms(a.ended), "closing_user": a.who if a.ended else None, "closing_reason": reasons[a.how]}
        for a in ALERTS
    ]
    (folder / "offenses.json").write_text(json.dumps(documents), encoding="utf-8")
    return folder / "offenses.json"


def detections(folder: Path) -> Path:
    """The span to the resolution, with its unit in the name, and the verdict as the state."""
    says = {"acted": "true_positive", "dismissed": "false_positive", "machine": "automated", "open": "new"}
    rows = [
        [
            f"ldt:{a.number:x}:12",
            a.rule,
            a.host,
            a.raised.isoformat(),
            says[a.how],
            60 * int(spent(a)) if a.ended else "N/A",
        ]
        for a in ALERTS
    ]
    header = "DetectionId|Tactic & Technique|Hostname|Detect Date|Status|Time to Resolved (s)"
    return table(folder / "detections.csv", header, rows)


def findings(folder: Path) -> Path:
    """Objects in objects, names with slashes as ids, and a resource's name that is no rule."""
    documents = [
        {
            "finding": {
                "name": f"organizations/1/findings/{a.number:032x}",
                "category": a.rule,
                "resourceName": a.host,
                "createTime": a.raised.isoformat(),
                "muteUpdateTime": a.ended.isoformat() if a.ended and a.how == "dismissed" else None,
                "mute": "MUTED" if a.how == "dismissed" else "UNMUTED",
            },
            "resolution": {"at": a.ended.isoformat() if a.ended and a.how == "acted" else None},
        }
        for a in ALERTS
    ]
    (folder / "findings.json").write_text(json.dumps(documents), encoding="utf-8")
    return folder / "findings.json"


def two_columns(folder: Path) -> Path:
    """The day in one column, and the time of day in another."""
    rows = [
        [a.number, f"{a.raised:%Y/%m/%d}", f"{a.raised:%H:%M:%S}", a.rule, a.host]
        + ([f"{a.ended:%Y/%m/%d}", f"{a.ended:%H:%M:%S}", a.how, a.who] if a.ended else [""] * 4)
        for a in ALERTS
    ]
    rows = [[{"acted": "fixed", "dismissed": "noise", "machine": "fixed"}.get(c, c) for c in row] for row in rows]
    return table(folder / "days.csv", "Nr|Date|Time|Alarm|Machine|Close date|Close time|Close reason|Closed by", rows)


@pytest.mark.parametrize(
    "export", [on_call, yes_or_no, put_together, two_times, in_german, offenses, detections, findings, two_columns]
)
def test_one_row_for_each_alert(tmp_path, export):
    path = export(tmp_path)
    proposal, mapping = proposed(tmp_path, path)
    assert not proposal.questions
    rows = alerts_of(path, mapping)
    assert [(row["rule"], row["entity"]) for row in rows] == [(a.rule, a.host) for a in ALERTS]
    assert len({row["alert_id"] for row in rows}) == len(ALERTS)
    assert all(row["raised_at"].startswith(f"{a.raised:%Y-%m-%dT%H:%M}") for row, a in zip(rows, ALERTS, strict=True))
    # Nothing that was filled after the raise reaches the model.
    assert not [name for row in rows for name in row if name.startswith("+")]
    actions = actions_of(path, mapping)
    meanings = Counter(project_types().get(type_key(row["action_type"]), "unknown") for row in actions)
    # Who resolves in a tool without reasons has acted, for all that the file says.
    acted = TRUTH["acted"] + (TRUTH["dismissed"] if export is on_call else 0)
    dismissed = 0 if export is on_call else TRUTH["dismissed"]
    assert (meanings["acted"], meanings["dismissed"], meanings["unknown"]) == (acted, dismissed, 0)
    by_machine = sum(row["action_type"] == BY_MACHINE for row in actions)
    assert by_machine == (0 if export in (yes_or_no, two_times, findings) else TRUTH["machine"])


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_row_for_each_event(tmp_path, newest_first):
    path = events(tmp_path, newest_first)
    proposal, mapping = proposed(tmp_path, path)
    assert not proposal.questions
    alerts, _ = rows_and_notes(path, mapping, "alerts")
    actions, _ = rows_and_notes(path, mapping, "actions")
    assert {row["alert_id"]: row["raised_at"][:16] for row in alerts} == {
        str(a.number): f"{a.raised:%Y-%m-%dT%H:%M}" for a in ALERTS
    }
    assert {(row["alert_id"], row["action_type"]) for row in actions} == {
        (str(a.number), {"acted": "FIXED", "dismissed": "IGNORED"}[a.how])
        for a in ALERTS
        if a.how in ("acted", "dismissed")
    }
    assert f"--alerts {path} --actions {path}" in proposal.text


def spent(alert: Alert) -> int | str:
    return (alert.ended - alert.raised).seconds // 60 if alert.ended else ""


def test_a_span_instead_of_a_time_of_closing(tmp_path):
    rows = [
        [
            f"n{a.number}",
            a.rule,
            a.host,
            int(a.raised.timestamp()),
            spent(a),
            a.who if a.ended else "",
        ]
        for a in ALERTS
    ]
    path = table(tmp_path / "spans.csv", "incident_id|condition_name|target|opened_at|duration_minutes|closed_by", rows)
    proposal, mapping = proposed(tmp_path, path)
    ended = {row["alert_id"]: row["acted_at"][:16] for row in actions_of(path, mapping)}
    assert ended == {f"n{a.number}": f"{a.ended:%Y-%m-%dT%H:%M}" for a in ALERTS if a.ended}
    # "closed" says nothing about what was done, and heed says so before it learns that nobody ever acts.
    assert any("no action counts as acted" in line for line in proposal.lines)


def test_what_only_a_person_can_say(tmp_path):
    rows = [[a.number, a.raised.isoformat(), a.rule, int(a.how == "acted")] for a in ALERTS]
    path = table(tmp_path / "labels.csv", "alert_id|timestamp|signature|escalated", rows)
    assert propose([path], "UTC").questions == ["escalated seems to say what was decided, and no column says when"]
    keyed = {str(a.number): {"rule": a.rule, "created": a.raised.isoformat()} for a in ALERTS}
    (tmp_path / "keyed.json").write_text(json.dumps(keyed), encoding="utf-8")
    with pytest.raises(HeedError, match="60 objects of the same form, not a list") as refusal:
        propose([tmp_path / "keyed.json"], "UTC")
    assert "to_entries" in refusal.value.remedy


def test_what_words_say():
    assert meanings_of("Action taken", ["Yes", "No", "perhaps"]) == {
        "Yes": ("acted", "Action taken says yes"),
        "No": ("dismissed", "Action taken says no"),
    }
    assert meanings_of("False positive", ["true", "false"]) == {"true": ("dismissed", "False positive says yes")}
    assert meanings_of("No action taken", ["Y", "N"]) == {}
    assert meanings_of("Status", ["Closed: fixed", "Closed (false alarm)", "Closed - whatever"]) == {
        "Closed: fixed": ("acted", 'as "fixed"'),
        "Closed (false alarm)": ("dismissed", 'as "false alarm"'),
    }
    assert all(map(closed_by_itself, ("Auto Resolve", "automated_closure", "automatisch geschlossen", "auto-closed")))
    assert not any(map(closed_by_itself, ("resolved", "autonomous system down", "author asked", "automobile")))


def proposed(tmp_path: Path, path: Path) -> tuple[Proposal, Any]:
    proposal = propose([path], "UTC")
    mapping = tmp_path / "proposed.toml"
    mapping.write_text(proposal.text, encoding="utf-8")
    return proposal, read_mapping(mapping)
