"""Messy raw rows end as clean, as duplicates, or rejected with a reason; a refresh equals a rebuild."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

LOADED = datetime(2025, 6, 10, tzinfo=UTC)
LONG_RULE = ("Spend \"is\" 'high'; DROP TABLE raw.alerts; -- 🔥 " * 300)[:10_000].strip()

EPOCHS = ("milliseconds", "milliseconds as float", "microseconds", "nanoseconds")

NO_DEPRECATION = ["--warn-error-options", '{"error": ["Deprecations"]}']


def alert(expected: str, **columns: Any) -> tuple[str, dict[str, Any]]:
    row = {"raised_at": "2025-06-01T10:00:00Z", "rule": "r", "loaded_at": LOADED, "load_id": 1, **columns}
    return expected, {"row_hash": str(sorted(map(str, row.items()))), **row}


def action(expected: str, **columns: Any) -> tuple[str, dict[str, Any]]:
    row = {"alert_id": "plain", "acted_at": "2025-06-02T10:00:00Z", "action_type": "fixed", "loaded_at": LOADED}
    row = {**row, "load_id": 1, **columns}
    return expected, {"row_hash": str(sorted(map(str, row.items()))), **row}


ALERTS = [
    alert("clean", alert_id="plain", team="Ads", severity="HIGH", value="1.5", attributes='{"a": {"b": [1]}}'),
    alert("clean", alert_id="spaces", raised_at="  2025-06-01 12:00:00+02 ", rule=" R ", team="ads "),
    alert("clean", alert_id="epoch", raised_at="1748772000", rule="r"),
    alert("clean", alert_id="milliseconds", raised_at="1748772000000"),
    alert("clean", alert_id="milliseconds as float", raised_at="1748772000000.0"),
    alert("clean", alert_id="microseconds", raised_at="1748772000000000"),
    alert("clean", alert_id="nanoseconds", raised_at="1748772000000000000"),
    alert("clean", alert_id="emoji 🔥", rule=LONG_RULE, title='<script>alert("x")</script>'),
    alert("clean", alert_id="numbers", value="1,234.5", threshold="inf"),
    alert("clean", alert_id="json", attributes="{not json"),
    alert("clean", alert_id="array", attributes="[1, 2]"),
    alert("clean", alert_id="null character", attributes='{"a": "\\u0000"}'),
    alert("clean", alert_id="deep", attributes='{"a":' * 20_000 + "1" + "}" * 20_000),
    alert("clean", alert_id="twice", title="first", loaded_at=LOADED - timedelta(days=1)),
    alert("duplicate", alert_id="twice", title="later"),
    alert("duplicate", alert_id="same"),
    alert("clean", alert_id="same"),
    alert("the time cannot be read", alert_id="fallback", raised_at="later", loaded_at=LOADED - timedelta(days=1)),
    alert("clean", alert_id="fallback", title="valid"),
    alert(
        "the id belongs to another alert (raised at another time)", alert_id="fallback", raised_at="2025-06-02T10:00Z"
    ),
    alert("the time lies before the earliest that can be true", alert_id="1970", raised_at="1970-01-01T00:00:00Z"),
    alert("the time lies before the earliest that can be true", alert_id="1999", raised_at="0946684799"),
    alert("the id is missing", alert_id="\u00a0"),
    alert("the rule is missing", alert_id="no-break space", rule="\u00a0\u3000"),
    alert("the id is missing", alert_id=None),
    alert("the id is missing", alert_id=" \t\r\n"),
    alert("the id is missing", alert_id=""),
    alert("the id is longer than 1000 bytes", alert_id="ü" * 501),
    alert("the rule is missing", alert_id="no rule", rule=" "),
    alert("the time is missing", alert_id="no time", raised_at=""),
    alert("the time cannot be read", alert_id="calendar", raised_at="2025-02-30T10:00:00Z"),
    alert("the time cannot be read", alert_id="hour", raised_at="2025-02-20T25:00:00Z"),
    alert("the time cannot be read", alert_id="day", raised_at="2025-02-20"),
    alert("the time cannot be read", alert_id="month", raised_at="2025-13-01T10:00:00Z"),
    alert("the time cannot be read", alert_id="month 00", raised_at="2025-00-01T10:00:00Z"),
    alert("the time cannot be read", alert_id="word", raised_at="now"),
    alert("the time cannot be read", alert_id="infinity", raised_at="infinity"),
    alert("the time cannot be read", alert_id="digits", raised_at="٢٠٢٥-06-01T10:00:00Z"),
    alert("the time cannot be read", alert_id="big", raised_at="99999999999999999999"),
    alert("the time lies more than a day after the row was loaded", alert_id="f", raised_at="2025-06-12 00:00"),
    alert("the time lies more than a day after the row was loaded", alert_id="g", raised_at="9999999999"),
]

ACTIONS = [
    action("clean", action_id="1"),
    action("duplicate", action_id="2", action_type="Dismissed", loaded_at=LOADED - timedelta(days=1)),
    action("clean", action_id="2", action_type="False_Positive"),
    action("clean", action_id="skewed", acted_at="2025-06-01T09:55:00Z"),
    action("clean", action_id="unknown type", action_type="Danced"),
    action("clean", action_id="on fallback", alert_id=" fallback ", acted_at="2025-06-02T09:59:59Z"),
    action("the action lies before its alert", action_id="before", acted_at="2025-06-01T09:54:59Z"),
    action("the id of its alert belongs to several alerts", action_id="whose", alert_id="fallback"),
    action("the alert is not known", action_id="orphan", alert_id="nobody"),
    action("the alert is not known", action_id="rejected alert", alert_id="calendar"),
    action("the alert is not known", action_id="other case", alert_id="PLAIN"),
    action("the alert id is missing", action_id="no alert", alert_id=""),
    action("the action type is missing", action_id="no type", action_type=None),
    action("the time is missing", action_id="no time", acted_at=None),
    action("the time cannot be read", action_id="bad time", acted_at="soon"),
    action("the time lies more than a day after the row was loaded", action_id="f", acted_at="2025-07-01 00:00"),
    action("the id is missing", action_id=" "),
]

RULES = [
    ("duplicate", {"rule": "r", "declared_visibility_only": "no", "loaded_at": LOADED - timedelta(days=1)}),
    ("clean", {"rule": "R", "declared_visibility_only": "Yes", "team": "ADS", "loaded_at": LOADED}),
    ("clean", {"rule": "Never fired", "declared_visibility_only": "perhaps", "created_at": "long ago"}),
    ("the rule is missing", {"rule": "", "title": "nameless"}),
]


@pytest.fixture(scope="module")
def messy(lasting_dbt_database):
    """Every bad input at once, built by one whole dbt build with unit tests, deprecations being errors."""
    made = lasting_dbt_database()
    made.fill("raw.alerts", made.ALERT, [row for _, row in ALERTS])
    made.fill("raw.actions", made.ACTION, [row for _, row in ACTIONS])
    rule_columns = "rule title team declared_visibility_only created_at loaded_at"
    made.fill("raw.rules", rule_columns, [row for _, row in RULES])
    made.fill(
        "raw.action_types",
        "action_type meaning loaded_at",
        [{"action_type": "FIXED", "meaning": "dismissed"}, {"action_type": "odd", "meaning": "maybe"}],
    )
    made.statuses = made.run(*NO_DEPRECATION, "build", "--vars", json.dumps({"as_of": "2025-07-01T00:00:00Z"}))
    made.build_events = list(made.events)
    return made


def test_build_passes_with_unit_tests_and_without_deprecations(messy):
    unit_tests = [name for name in messy.statuses if name.startswith("times_in_every") or "horizon" in name]
    assert len(unit_tests) >= 4
    # "no-op": the exposures, which dbt build passes by.
    assert set(messy.statuses.values()) == {"success", "pass", "warn", "no-op"}
    assert {name for name, status in messy.statuses.items() if status == "warn"} == {
        "ids_of_several_alerts",
        "unknown_action_types",
        "unreadable_values",
    }
    assert not [event for event in messy.build_events if "eprecat" in event[0]]


@pytest.mark.parametrize(
    ("source", "rows"), [("alerts", ALERTS), ("actions", ACTIONS), ("rules", RULES)], ids=["alerts", "actions", "rules"]
)
def test_every_raw_row_ends_in_one_place(messy, source, rows):
    expected = Counter("rejected" if " " in where else where for where, _ in rows)
    found = messy.sql(
        "SELECT raw_rows, clean_rows, duplicate_rows, rejected_rows FROM marts.load_reconciliation WHERE source = %s",
        (source,),
    )
    assert found == [(len(rows), expected["clean"], expected["duplicate"], expected["rejected"])]
    assert found[0][0] == messy.sql(f"SELECT count(*) FROM raw.{source}")[0][0]
    assert Counter(reason for reason, _ in rows if " " in reason) == Counter(
        dict(messy.sql("SELECT reason, count(*) FROM marts.rejected_rows WHERE source = %s GROUP BY 1", (source,)))
    )


def test_each_rejected_row_carries_its_own_reason_and_content(messy):
    found = messy.sql("SELECT row_id, reason, content FROM marts.rejected_rows WHERE source = 'alerts'")
    reasons = {(row_id, reason) for row_id, reason, _ in found}
    for expected, row in ALERTS:
        if " " in expected:
            assert ((row["alert_id"] or "").strip() or None, expected) in reasons
    content = next(content for row_id, _, content in found if row_id == "calendar")
    assert content["raised_at"] == "2025-02-30T10:00:00Z"


def test_duplicates_are_counted_and_the_first_valid_version_wins(messy):
    assert set(messy.sql("SELECT source, row_id, duplicates FROM staging.duplicate_rows")) == {
        ("alerts", "twice", 1),
        ("alerts", "same", 1),
        ("actions", "2", 1),
        ("rules", "r", 1),
    }
    titles = dict(messy.sql("SELECT alert_id, title FROM marts.alerts"))
    assert titles["twice"] == "first"
    assert titles["fallback"] == "valid"


def test_nothing_readable_is_lost(messy):
    rows = {row[0]: row[1:] for row in messy.sql("SELECT alert_id, rule, title, value, attributes FROM marts.alerts")}
    assert rows["emoji 🔥"][:2] == (LONG_RULE, '<script>alert("x")</script>')
    assert len(rows["emoji 🔥"][0]) > 9_900
    assert rows["plain"][2:] == (1.5, {"a": {"b": [1]}})
    assert rows["numbers"][2] is None
    for name in ("json", "array", "null character", "deep"):
        text = next(row["attributes"] for _, row in ALERTS if row["alert_id"] == name)
        assert rows[name][3] == {"unreadable": text}
    assert set(messy.sql("SELECT source, column_name, clean_rows FROM staging.unreadable_values")) == {
        ("alerts", "value", 1),
        ("alerts", "threshold", 1),
        ("alerts", "attributes", 4),
        ("rules", "declared_visibility_only", 1),
        ("rules", "created_at", 1),
        ("action_types", "meaning", 1),
    }


def test_all_forms_of_a_time_are_one_moment(messy):
    moments = dict(messy.sql("SELECT alert_id, raised_at FROM marts.alerts"))
    assert {moments[name] for name in ("plain", "spaces", "epoch", *EPOCHS)} == {datetime(2025, 6, 1, 10, tzinfo=UTC)}


def test_letter_case_makes_no_second_rule_or_team(messy):
    assert messy.sql("SELECT DISTINCT rule FROM marts.alerts WHERE lower(rule) = 'r'") == [("r",)]
    assert messy.sql("SELECT DISTINCT team FROM marts.alerts WHERE team IS NOT NULL") == [("Ads",)]
    assert messy.sql("SELECT severity FROM marts.alerts WHERE alert_id = 'plain'") == [("high",)]
    rules = {row[0]: row[1:] for row in messy.sql(
        "SELECT rule, team, declared_visibility_only, is_declared, alerts FROM marts.rules"
    )}  # fmt: skip
    alerts = sum(where == "clean" and row["rule"].strip().lower() == "r" for where, row in ALERTS)
    assert rules["r"] == ("Ads", True, True, alerts)
    assert rules["Never fired"] == (None, False, True, 0)
    assert rules[LONG_RULE] == (None, False, False, 1)


def test_action_types_loaded_by_users_win_and_unknown_ones_are_named(messy):
    found = dict(messy.sql("SELECT action_id, (action_type, meaning)::text FROM marts.actions"))
    assert found["1"] == "(fixed,dismissed)"
    assert found["2"] == "(false-positive,dismissed)"
    assert found["unknown type"] == "(danced,neutral)"
    assert messy.sql("SELECT action_type, actions FROM staging.unknown_action_types") == [("danced", 1)]


def test_action_within_the_clock_skew_counts_as_at_the_raise_moment(messy):
    assert messy.sql("SELECT acted_at FROM marts.actions WHERE action_id = 'skewed'") == [
        (datetime(2025, 6, 1, 10, tzinfo=UTC),)
    ]


@pytest.mark.slow
def test_refresh_equals_a_rebuild_and_keeps_what_depends_on_it(messy):
    """Late, corrected and deleted rows: what the refresh leaves is what a full refresh builds."""
    tables = [
        "alerts",
        "actions",
        "alert_outcomes",
        "daily_alert_volume",
        "rules",
        "rejected_rows",
        "alert_fact_changes",
    ]

    def contents() -> dict[str, Any]:
        tables_and_reports = [f"marts.{name}" for name in [*tables, "load_reconciliation"]]
        return {
            name: messy.sql(f"SELECT md5(string_agg(t::text, E'\\n' ORDER BY t::text)), count(*) FROM {name} t")
            for name in tables_and_reports
        }

    before = contents()
    oids = messy.sql("SELECT relname, oid FROM pg_class WHERE relnamespace = 'marts'::regnamespace ORDER BY 1")
    messy.sql("CREATE VIEW public.of_an_analyst AS SELECT count(*) AS alerts FROM marts.alerts")
    messy.sql("DELETE FROM raw.alerts WHERE alert_id = 'epoch'")
    messy.sql(
        "INSERT INTO raw.alerts (alert_id, raised_at, rule, title, loaded_at) VALUES "
        "('plain', '2025-06-01T11:00:00Z', 'r', 'corrected', '2025-06-11T00:00:00Z'), "
        "('late', '2025-05-01T11:00:00Z', 'r', 'came late', '2025-06-11T00:00:00Z')"
    )
    variables = ["--select", "tag:clean", "--exclude-resource-type", "unit_test", "--vars"]
    variables.append(json.dumps({"as_of": "2025-07-01T00:00:00Z"}))
    messy.run("build", *variables)
    refreshed = contents()
    assert all(refreshed[f"marts.{name}"] != before[f"marts.{name}"] for name in tables[:4])
    now = messy.sql("SELECT relname, oid FROM pg_class WHERE relnamespace = 'marts'::regnamespace ORDER BY 1")
    assert now == oids, "a refresh must not replace tables: views and permissions would be gone"
    assert messy.sql("SELECT alerts FROM public.of_an_analyst") == messy.sql("SELECT count(*) FROM marts.alerts")
    messy.run("build", "--full-refresh", *variables)
    assert contents() == refreshed


@pytest.mark.slow
def test_typed_tables_of_users_say_the_same_as_text(dbt_database):
    """Typed columns, no optional ones, other names, no table of rules; and what is missing is said in one line."""
    made = dbt_database()
    made.sql(
        """
        CREATE SCHEMA own;
        CREATE TABLE own.events (
            alert_id bigint, raised_at timestamptz, rule varchar(100), value numeric, attributes jsonb, extra text
        );
        INSERT INTO own.events VALUES
            (1, '2025-06-01T12:00:00.123456+02', 'Spend', 12.5, '{"a": 1}', 'x'),
            (2, '2025-06-01T10:00:00Z', 'spend', 'NaN', '[1]', 'x'),
            (3, 'infinity', 'Spend', null, null, null),
            (4, null, 'Spend', null, null, null),
            (null, '2025-06-01T10:00:00Z', 'Spend', null, null, null);
        CREATE TABLE own.answers (action_id uuid, alert_id int, acted_at timestamp, action_type text);
        INSERT INTO own.answers VALUES
            ('00000000-0000-0000-0000-000000000001', 1, '2025-06-01T13:00:00.5', 'fixed'),
            ('00000000-0000-0000-0000-000000000002', 2, '2025-06-01T11:59:00', 'fixed'),
            ('00000000-0000-0000-0000-000000000003', 9, '2025-06-01T12:00:00', 'fixed');
        ALTER DATABASE """
        + made.url.split("?")[0].rsplit("/", 1)[1]
        + """ SET datestyle TO 'German, DMY'
        """
    )
    own = {"raw_schema": "own", "raw_alerts": "events", "raw_actions": "answers", "raw_rules": "none",
           "raw_action_types": "none", "source_time_zone": "Europe/Berlin", "as_of": "2025-06-03"}  # fmt: skip
    clean = ["build", "--select", "tag:clean", "--exclude-resource-type", "unit_test", "--vars"]
    made.run(*clean, json.dumps(own))
    rows = made.sql("SELECT alert_id, raised_at, rule, value, attributes, loaded_at FROM marts.alerts ORDER BY 1")
    moment = datetime(2025, 6, 1, 10, tzinfo=UTC)
    assert rows == [
        ("1", moment + timedelta(microseconds=123_456), "Spend", 12.5, {"a": 1}, None),
        ("2", moment, "Spend", None, {"unreadable": "[1]"}, None),
    ]
    assert made.sql("SELECT alert_id, outcome, known_at FROM marts.alert_outcomes ORDER BY 1") == [
        ("1", "acted", datetime(2025, 6, 1, 11, 0, 0, 500_000, tzinfo=UTC)),
        ("2", "acted", moment),
    ]
    counts = "SELECT source, (raw_rows, clean_rows, rejected_rows)::text FROM marts.load_reconciliation"
    assert dict(made.sql(counts)) == {
        "alerts": "(5,2,3)", "actions": "(3,2,1)", "rules": "(0,0,0)",
    }  # fmt: skip
    assert not math.isnan(rows[0][3])

    made.sql("ALTER TABLE own.events RENAME COLUMN raised_at TO raised")
    refused = made.invoke(*clean, json.dumps(own))
    assert not refused.success
    said = " ".join(f"{node.message}" for node in refused.result)
    assert "The table own.events has no column raised_at; it has alert_id, raised, rule" in said
