"""`heed inspect`: a proposed mapping loads its file as it is, or asks what only a person can say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from loading_records import actions_of, alerts_of, rows_and_notes

from dagster_project.errors import HeedError
from dagster_project.loading import Mapping, read_mapping
from dagster_project.loading.inspection.propose import Proposal, propose
from dagster_project.resources.inputs.action_types import project_types, type_key

EXPORTS = Path(__file__).parent / "exports"


def proposed(tmp_path: Path, *files: Path, time_format: str = "") -> tuple[Proposal, Mapping]:
    proposal = propose(list(files), "UTC", time_format)
    path = tmp_path / "proposed.toml"
    path.write_text(proposal.text, encoding="utf-8")
    return proposal, read_mapping(path)


def meanings(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(project_types().get(type_key(row["action_type"]), "unknown") for row in rows)


@pytest.mark.parametrize(
    ("file", "alerts", "expected"),
    [
        ("pagerduty-api-csv/incidents.csv", 40, {"acted": 20, "neutral": 10}),
        ("dependabot-json/alerts.json", 39, {"acted": 12, "dismissed": 9, "neutral": 9}),
        ("dependabot-json/alerts.jsonl", 39, {"acted": 12, "dismissed": 9, "neutral": 9}),
        ("securityhub-json/findings.json", 24, {"acted": 6, "dismissed": 6, "neutral": 12}),
        ("sentinel-csv/incidents.csv", 36, {"acted": 9, "dismissed": 18}),
        ("sentinel-csv/iso.csv", 36, {"acted": 9, "dismissed": 18}),
        ("jira-csv/jira.csv", 30, {"dismissed": 20}),
        ("zabbix-problems-csv/problems.csv", 61, {}),
        ("edge/utf16.csv", 1, {}),
        ("edge/cp1252_head.csv", 1, {}),
        ("edge/cp1252_body.csv", 20, {}),
        ("edge/sep_line.csv", 1, {}),
        ("edge/pipe.csv", 1, {}),
        ("german-numbers/alerts.csv", 20, {}),
        *(
            (f"servicenow-dates/incident_{x}.csv", 24, None)
            for x in ("iso", "au_slash", "uci_dash", "us_dash", "us_slash")
        ),
    ],
)
def test_a_proposed_mapping_loads_its_file_without_an_edit(tmp_path, file, alerts, expected):
    proposal, mapping = proposed(tmp_path, EXPORTS / file)
    assert not proposal.is_blocked
    rows = alerts_of(EXPORTS / file, mapping)
    assert len({row["alert_id"] for row in rows}) == len(rows) == alerts
    assert not [note for note in rows_and_notes(EXPORTS / file, mapping)[1] if note.name == "unfit_times"]
    if expected is not None:
        assert meanings(actions_of(EXPORTS / file, mapping)) == expected
    decided = [name for row in rows for name in row if name.startswith("+") and "resolv" in name.lower()]
    assert not decided


def home_made(tmp_path: Path, days: list[str]) -> Path:
    rows = ["Ticket No;Opened On;Check Name;Server;Prio;Closed On;Close Reason;Closed By;Root Cause Text;Site"]
    for n, day in enumerate(days):
        who, why = "svc-automation" if n % 8 == 2 else "ann", "fixed" if n % 4 else "false alarm"
        closing = f"{day} 10:00;{why};{who};text {n}" if n % 2 == 0 else ";;;"
        rows.append(f"T{n};{day} 08:00;check {n % 3};srv{n % 4};P{n % 2};{closing};site{n % 2}")
    path = tmp_path / "tickets.csv"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_a_system_that_nobody_knows(tmp_path):
    path = home_made(tmp_path, [f"{day:02}/05/2026" for day in range(1, 29)])
    proposal, mapping = proposed(tmp_path, path)
    assert not proposal.questions
    assert 'time_format = "day-first"' in proposal.text
    row = alerts_of(path, mapping)[2]
    assert row == {
        "alert_id": "T2",
        "raised_at": "2026-05-03T08:00:00",
        "rule": "check 2",
        "entity": "srv2",
        "severity": "P0",
        "+Site": '"site0"',
    }
    # Filled only together with a decision: nobody knew it at the raise.
    assert '"Root Cause Text"' in proposal.text.split("ignore = ")[1].splitlines()[0]
    assert meanings(actions_of(path, mapping)) == {"acted": 3, "dismissed": 7, "neutral": 4}
    assert "28 alerts would be loaded" in proposal.lines[0]


def test_day_or_month_first_is_asked(tmp_path):
    path = home_made(tmp_path, [f"{day:02}/05/2026" for day in range(1, 9)])
    proposal = propose([path], "UTC")
    assert proposal.is_blocked
    assert any("day or the month first" in question for question in proposal.questions)
    assert "time_format = " not in proposal.text.replace("# ", "")
    answered, mapping = proposed(tmp_path, path, time_format="day-first")
    assert not answered.is_blocked
    assert alerts_of(path, mapping)[1]["raised_at"] == "2026-05-02T08:00:00"


def test_alerts_and_actions_in_two_files(tmp_path):
    alerts, actions = tmp_path / "a.csv", tmp_path / "b.csv"
    alerts.write_text("Ticket,Raised,Rule Name\n" + "".join(f"{n},2026-05-0{n} 08:00,cpu\n" for n in range(1, 9)))
    actions.write_text(
        "Ticket;When;What;Who\n1;2026-05-01 10:00;fixed;ann\n2;2026-05-02 06:00;wat;bob\n"
        "3;2026-05-03 09:00;dismissed;ann\n77;2026-05-03 09:00;dismissed;ann\n"
    )
    for files in ((alerts, actions), (actions, alerts)):
        proposal, mapping = proposed(tmp_path, *files)
        assert not proposal.is_blocked
        assert [row["rule"] for row in alerts_of(alerts, mapping)] == ["cpu"] * 8
        rows, _ = rows_and_notes(actions, mapping, "actions")
        assert [(row["alert_id"], row["action_type"], row["actor"]) for row in rows][:2] == [
            ("1", "fixed", "ann"),
            ("2", "wat", "bob"),
        ]
        report = "\n".join(proposal.lines)
        assert "words with unknown meaning, neutral until [words] in the mapping says more: 1 'wat'" in report
        assert "1 of 4 decisions belong to no alert in these files" in report
        assert "1 of 3 actions come before their alert, by up to 2.0 hours" in report
        assert "different zones" in report


def test_a_line_that_is_no_row_says_nothing_about_the_encoding():
    assert "encoding" not in propose([EXPORTS / "edge" / "preamble.csv"], "UTC").text
    assert 'encoding = "cp1252"' in propose([EXPORTS / "edge" / "cp1252_body.csv"], "UTC").text


def test_reused_ids_and_rejected_rows_are_counted(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("alert_id,raised_at,rule\n1,2026-05-01T08:00:00Z,a\n1,2026-05-02T08:00:00Z,a\n2,soon,a\n3,,a\n")
    mapping = tmp_path / "m.toml"
    mapping.write_text('[alerts]\nrule = "rule"\n')
    from dagster_project.loading.inspection.propose import try_files

    lines = try_files([("alerts", path)], read_mapping(mapping), "UTC")
    assert lines == [
        "a.csv: 4 alerts would be loaded",
        "  1 would be rejected: raised_at cannot be read, such as 'soon'",
        "  1 would be rejected: no raised_at",
        "  WARNING: 1 rows have the id of another alert with another time",
    ]


@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"{", b"[]", b"just words\n", b"a,b\n", b"a,b\n1,2\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.xlsx", "a.log"])
def test_a_file_that_is_none_is_refused_in_one_line_or_asked_about(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    message = ""
    try:
        message = "" if propose([path], "UTC").is_blocked else "it would be loaded\n"
    except HeedError as error:
        message = str(error)
    assert "\n" not in message
