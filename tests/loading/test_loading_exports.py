"""Exports as alert systems really write them: the right value, or a warning or refusal with cause, count and remedy.

The files of `exports/` follow the published layouts of their systems and hold nobody's data.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loading_store import Store

from dagster_project.errors import HeedError
from dagster_project.loading import Mapping, read_mapping
from dagster_project.loading.presets import read_preset
from dagster_project.loading.staged import read_time_function
from dagster_project.resources.inputs.action_types import project_types, type_key

EXPORTS = Path(__file__).parent / "exports"
MOMENT = "2026-05-01 08:00:00"


@dataclass(frozen=True)
class Export:
    """A file and what is right for it.

    added : rows that reach the raw tables; undecodable : rows that are rejected. rows : a query on raw.alerts and its
    answer. warnings : name -> rows. refusal : a part of the message with which it is refused.
    """

    file: str
    added: int = 0
    undecodable: int = 0
    query: str = ""
    rows: tuple[Any, ...] = ()
    warnings: dict[str, int] = field(default_factory=dict)
    refusal: str = ""
    mapping: Mapping | None = None
    zone: str = "UTC"


def moment(expression: str = "raised_at") -> str:
    return f"SELECT DISTINCT date_trunc('second', pg_temp.read_time({expression}, 'UTC') AT TIME ZONE 'UTC')::text " + (
        "FROM raw.alerts WHERE rule = 'a'"
    )


DAY_FIRST = "which of the first two numbers is the month"
SERVICENOW = read_mapping(EXPORTS / "servicenow-dates" / "m.toml")
NUMBER_IN_REPOSITORY = Mapping(
    columns={"alerts": {"raised_at": "created_at", "rule": "state"}},
    composed={"alerts": {"alert_id": ("repository", "number")}},
)
CASES = [
    Export("excel-ids/alerts.csv", 20, warnings={"cut_ids": 12, "several_alerts_with_one_id": 12}),
    Export("excel-ids/actions.csv", 20, warnings={"cut_ids": 12}),
    Export("leading-zeros/alerts.csv", 20),
    Export("leading-zeros/actions.csv", 20, warnings={"unmatched_actions": 20}),
    Export(
        "german-numbers/alerts.csv",
        20,
        query="SELECT DISTINCT value::float, threshold::float FROM raw.alerts ORDER BY 1",
        rows=((7.5, 1000.0), (950.0, 1000.0), (1234.0, 1000.0), (1234.5, 1000.0), (12500.0, 1000.0)),
    ),
    *(
        Export(f"parquet-times/{name}.parquet", 3, query=moment(), rows=((MOMENT,),))
        for name in ("berlin_ns", "epoch_float_ms", "epoch_float_s", "epoch_us", "int96", "naive_ns", "naive_s")
    ),
    *(Export(f"parquet-times/{name}.parquet", 3, query=moment(), rows=((MOMENT,),)) for name in ("naive_us", "utc_us")),
    # Moments in UTC stay so where times without a zone are local ones.
    Export(
        "parquet-times/int96.parquet",
        3,
        query=moment().replace("'UTC') AT", "'Europe/Berlin') AT"),
        rows=((MOMENT,),),
        zone="Europe/Berlin",
    ),
    Export("parquet-times/date32.parquet", 3, warnings={"unreadable_times": 3}),
    Export(
        "dst-autumn/alerts.csv",
        4,
        warnings={"hour_that_comes_twice": 2, "hour_that_never_comes": 1},
        zone="Europe/Berlin",
    ),
    Export(
        "dst-autumn/actions.csv",
        4,
        warnings={"hour_that_comes_twice": 3, "actions_before_their_alert": 2},
        zone="Europe/Berlin",
    ),
    Export("reopened/alerts.csv", 12),
    Export("reopened/actions.csv", 36),
    Export("snapshot/day1.csv", 12),
    Export("snapshot/day2.csv", 12),
    Export("vendor-words/alerts.csv", 62),
    Export("vendor-words/actions.csv", 62),
    Export("servicenow-dates/incident_iso.csv", 24, warnings={"placeholders": 8}, mapping=SERVICENOW),
    *(
        Export(
            f"servicenow-dates/incident_{name}.csv",
            24,
            warnings={"placeholders": 8, "unreadable_times": 24},
            mapping=SERVICENOW,
        )
        for name in ("au_slash", "uci_dash", "us_dash", "us_slash")
    ),
    *(
        Export(
            f"dependabot-json/{name}",
            39,
            query="SELECT count(DISTINCT alert_id) FROM raw.alerts",
            rows=((39,),),
            mapping=NUMBER_IN_REPOSITORY,
        )
        for name in ("alerts.json", "array.jsonl")
    ),
    Export(
        "dependabot-json/alerts.jsonl",
        39,
        query="SELECT count(DISTINCT alert_id) FROM raw.alerts",
        rows=((39,),),
        mapping=NUMBER_IN_REPOSITORY,
    ),
    Export("edge/backslash.csv", 1, undecodable=1, warnings={"undecodable_rows": 1}),
    Export(
        "edge/bigint.jsonl",
        3,
        query="SELECT alert_id FROM raw.alerts WHERE rule = 'a'",
        rows=(("123456789012345678",),),
        warnings={"cut_ids": 1},
    ),
    *(
        Export(f"edge/{name}.csv", 1, query=moment(), rows=((MOMENT,),))
        for name in ("bom_quoted", "case_dup", "pipe", "sep_line")
    ),
    *(
        Export(f"edge/{name}.csv", 5, query="SELECT DISTINCT rule FROM raw.alerts", rows=(("a",),))
        for name in ("trail_head", "trail_rows")
    ),
    Export("edge/nan.jsonl", 1, query="SELECT rule, value FROM raw.alerts", rows=(("a", None),)),
    Export("edge/cp1252_body.csv", 10, undecodable=10, warnings={"undecodable_rows": 10}),
    Export("edge/footer.csv", 1, undecodable=1, warnings={"undecodable_rows": 1}),
    Export("edge/nul.csv", 1, undecodable=1, warnings={"undecodable_rows": 1}),
    Export("edge/preamble.csv", 1, undecodable=1, warnings={"undecodable_rows": 1}),
    Export("edge/placeholders.csv", 3, warnings={"placeholders": 6}),
    Export("edge/cp1252_head.csv", refusal="iconv -f WINDOWS-1252"),
    Export("edge/excel_us.csv", refusal='encoding = "utf-16-le"'),
    Export("edge/utf16.csv", 1, query=moment(), rows=((MOMENT,),)),
    Export("edge/hash_comment.csv", refusal="without #"),
    Export("edge/pretty.jsonl", 1, query=moment(), rows=((MOMENT,),)),
    Export("edge/single_quote.csv", refusal="double quotes"),
    Export("edge/xlsx.xlsx", refusal="save the sheet as CSV"),
]


@pytest.mark.parametrize("export", CASES, ids=lambda export: f"{export.file}-{export.zone}")
def test_an_export_gives_its_right_value_or_says_what_is_wrong(store: Store, export: Export):
    path = EXPORTS / export.file
    kind = "actions" if path.stem == "actions" else "alerts"
    if kind == "actions":
        store.load("alerts", path.with_name("alerts.csv"))
    if export.refusal:
        with pytest.raises(HeedError) as refused:
            store.load(kind, path, mapping=export.mapping)
        assert export.refusal in str(refused.value)
        assert store.is_empty()
        return
    report = store.load(kind, path, mapping=export.mapping, time_zone=export.zone)
    assert (report.rows_added, report.rows_undecodable) == (export.added, export.undecodable)
    warned: dict[str, int] = {}
    for warning in report.warnings:
        assert warning.cause
        assert warning.remedy
        warned[warning.name] = warned.get(warning.name, 0) + warning.rows
    assert warned == export.warnings
    assert store.count("raw.undecodable_rows") == export.undecodable
    if export.query:
        assert tuple(store.rows(read_time_function() + export.query)) == export.rows


# (file, preset, alerts, {meaning: alerts whose first decision has it}, decisions by machine, {warning: rows})
PRESET_CASES = [
    pytest.param(file, preset, alerts, meanings, machine, warnings, id=f"{preset}-{file.split('/')[-1]}")
    for file, preset, alerts, meanings, machine, warnings in [
        ("pagerduty-api-csv/incidents.csv", "pagerduty", 40, {"acted": 20}, 10, {}),
        ("dependabot-json/alerts.json", "github-dependabot", 39, {"acted": 12, "dismissed": 9}, 9, {}),
        ("dependabot-json/alerts.jsonl", "github-dependabot", 39, {"acted": 12, "dismissed": 9}, 9, {}),
        ("dependabot-json/array.jsonl", "github-dependabot", 39, {"acted": 12, "dismissed": 9}, 9, {}),
        ("securityhub-json/findings.json", "security-hub", 24, {"acted": 6, "dismissed": 6, "neutral": 6}, 0, {}),
        ("securityhub-json/findings.jsonl", "security-hub", 24, {"acted": 6, "dismissed": 6, "neutral": 6}, 0, {}),
        ("sentinel-csv/incidents.csv", "sentinel", 36, {"acted": 9, "dismissed": 18}, 0, {}),
        ("sentinel-csv/iso.csv", "sentinel", 36, {"acted": 9, "dismissed": 18}, 0, {}),
        ("jira-csv/jira.csv", "jira", 30, {"dismissed": 20}, 0, {}),
        *(
            (f"servicenow-dates/incident_{form}.csv", "servicenow", 24, {}, 16, {})
            for form in ("iso", "au_slash", "uci_dash", "us_dash", "us_slash")
        ),
        ("zabbix-problems-csv/problems.csv", "zabbix", 61, {}, 20, {"decisions_without_time": 12}),
        ("nagios-log/nagios.log", "nagios", 10, {"acted": 5}, 10, {}),
        ("nagios-log/nagios.txt", "nagios", 10, {"acted": 5}, 10, {}),
    ]
]


@pytest.mark.parametrize(("file", "preset", "alerts", "meanings", "machine", "warnings"), PRESET_CASES)
def test_a_preset_gives_the_right_value(store: Store, file, preset, alerts, meanings, machine, warnings):
    mapping = read_preset(preset)
    reports = [store.load("alerts", EXPORTS / file, mapping=mapping)]
    if mapping.has_decisions():
        reports.append(store.load("actions", EXPORTS / file, mapping=mapping, decisions_only=True))
    assert reports[0].rows_added == alerts
    assert store.rows("SELECT count(DISTINCT alert_id), count(rule) FROM raw.alerts") == [(alerts, alerts)]
    unread = store.rows(
        read_time_function()
        + """SELECT count(*)
             FROM (SELECT raised_at AS t FROM raw.alerts UNION ALL SELECT acted_at FROM raw.actions) AS x
             WHERE pg_temp.read_time(t, 'UTC') IS NULL"""
    )
    assert unread == [(0,)]
    assert first_meanings(store) == meanings
    by_machine = store.rows("SELECT count(*) FROM raw.actions WHERE action_type = 'closed-by-machine'")
    assert by_machine == [(machine,)]
    all_warnings = [warning for report in reports for warning in report.warnings]
    assert {w.name: w.rows for w in all_warnings if not w.is_note} == warnings
    assert sum(w.rows for w in all_warnings if w.name == "decided_by_machine") == machine


def first_meanings(store: Store) -> dict[str, int]:
    """Meaning -> alerts whose first decision by a person has it, neutral ones only where nothing else was decided."""
    decided: dict[str, str] = {}
    rows = store.rows("SELECT alert_id, action_type FROM raw.actions ORDER BY acted_at")
    for alert_id, action_type in rows:
        meaning = project_types()[type_key(action_type)]
        if action_type != "closed-by-machine" and decided.get(alert_id, "neutral") == "neutral":
            decided[alert_id] = meaning
    return dict(Counter(decided.values()))


def test_every_export_has_its_case():
    files = {path.relative_to(EXPORTS).as_posix() for path in EXPORTS.rglob("*") if path.suffix not in ("", ".toml")}
    assert files == {export.file for export in CASES} | {case.values[0] for case in PRESET_CASES}


def test_seven_hundred_columns(store):
    names = ",".join(f"c{i}" for i in range(700))
    text = f"alert_id,raised_at,rule,{names}\n1,2026-05-01T08:00:00Z,a,{','.join('x' * 700)}\n"
    assert store.load("alerts", store.write("wide.csv", text)).rows_added == 1
    assert store.rows("SELECT count(*) FROM raw.alerts, jsonb_object_keys(attributes::jsonb)") == [(700,)]


def test_the_remedy_for_placeholders_works(store):
    mapping = Mapping(empty={"alerts": ("null", "N/A", "nan", "?", "-", "None")})
    report = store.load("alerts", EXPORTS / "edge" / "placeholders.csv", mapping=mapping)
    assert report.warnings == ()
    assert store.rows("SELECT DISTINCT rule, entity FROM raw.alerts") == [(None, None)]


def test_leading_zeros_are_hinted_at(store):
    store.load("alerts", EXPORTS / "leading-zeros" / "alerts.csv")
    (warning,) = store.load("actions", EXPORTS / "leading-zeros" / "actions.csv").warnings
    assert "20 of 20 actions belong to no alert that is loaded (such as '45')" in warning.cause
    assert "20 of them would match without leading zeros" in warning.remedy
