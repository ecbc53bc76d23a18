"""Versions of one alert, alerts that share an id, dismissals that were taken back, and the words of vendors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.resources.dbt.incremental import CLEAN_VARIABLE, FULL, NEW
from dagster_project.resources.inputs.action_types import (
    clean_types,
    project_types,
    raw_types,
    require_known_meanings,
    type_key,
    unknown_share,
    write_types,
)
from dagster_project.resources.stores.history import shared_ids_in_words
from dagster_project.settings import Settings
from tests.dbt.conftest import PROJECT, Dbt

pytestmark = pytest.mark.slow

DAY_1 = datetime(2026, 5, 4, tzinfo=UTC)
RAISED = [datetime(2026, 5, 1, 8, tzinfo=UTC) + timedelta(hours=n) for n in range(12)]
LATE = datetime(2026, 7, 1, tzinfo=UTC)
BEFORE_REOPENING = datetime(2026, 5, 1, 9, 30, tzinfo=UTC)

# As GitHub, Microsoft, ServiceNow, Jira, Bugzilla and DefectDojo write them in their exports.
ACTED = """TruePositive|true_positive|fix_started|
RESOLVED|Solved (Permanently)|Solved (Work Around)|Done|Fixed|FIXED|
mitigated|Closed - True Positive|Complete|completed|remediated|resolve|Closed/Resolved by Caller|revoked"""
DISMISSED = """won't fix|Won't Do|Won’t Fix|wontfix|WONTFIX|Cannot Reproduce|false positive|FalsePositive|
BenignPositive|
used in tests|tolerable_risk|no_bandwidth|
inaccurate|not_used|SUPPRESSED|ARCHIVED|Not Solved (Not Reproducible)|Canceled|
Cancelled|false_p|risk_accepted|Closed - False Positive|
downstream|
WORKSFORME|INVALID|INCOMPLETE|DUPLICATE|No Action Required"""
# The first line: decided by a machine, not by people.
NEUTRAL = """Resolved - Auto|auto-resolved|auto_dismissed|closed-by-machine|
Undetermined|NOTIFIED|Ack|acknowledge|unacknowledge|Close|escalate|snooze|OK|recovered"""
WORDS = [
    (word.strip(), meaning)
    for words, meaning in ((ACTED, "acted"), (DISMISSED, "dismissed"), (NEUTRAL, "neutral"))
    for word in words.split("|")
]


def clean(made: Dbt, what: str, as_of: datetime) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CLEAN_VARIABLE, what)
        made.run("build", "--select", "tag:clean", "--exclude-resource-type", "unit_test", as_of=as_of)


def alert(name: str, raised_at: datetime, load: int, **facts: Any) -> dict[str, Any]:
    loaded = DAY_1 + timedelta(days=load)
    row = {
        "alert_id": name,
        "raised_at": raised_at.isoformat(),
        "rule": "r",
        "loaded_at": loaded,
        "load_id": load,
        **facts,
    }
    return {**row, "row_hash": str(sorted(map(str, row.items())))}


def action(name: str, of: str, acted_at: datetime, what: str, load: int = 1) -> dict[str, Any]:
    row = {"action_id": name, "alert_id": of, "acted_at": acted_at.isoformat(), "action_type": what}
    return {**row, "loaded_at": DAY_1 + timedelta(days=load), "load_id": load, "row_hash": name}


def exports() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Four exports in one: a snapshot before people changed severities, ids that a spreadsheet rounded, alerts that
    were dismissed, reopened and fixed, and decisions in the words of vendors."""
    hour = timedelta(hours=1)
    alerts = [alert(f"s{n}", at, 1, severity="low", attributes='{"comments": "0"}') for n, at in enumerate(RAISED)]
    alerts += [alert("1.23457E+16", at, 1, rule=f"rule{n}") for n, at in enumerate(RAISED)]
    actions = [
        action(f"e{n}", "1.23457E+16", at + hour / 2, ("fixed", "dismissed")[n % 2]) for n, at in enumerate(RAISED)
    ]
    alerts += [alert(f"r{n}", RAISED[0], 1) for n in range(3)]
    for n in range(3):
        actions += [
            action(f"d{n}", f"r{n}", RAISED[0] + hour, "dismissed"),
            action(f"o{n}", f"r{n}", RAISED[0] + 2 * hour, "Re-Opened"),
        ]
        if n < 2:
            actions.append(action(f"f{n}", f"r{n}", RAISED[0] + 5 * hour, "fixed"))
    for n, (word, _) in enumerate(WORDS):
        alerts.append(alert(f"w{n}", RAISED[0], 1))
        actions.append(action(f"w{n}", f"w{n}", RAISED[0] + hour, word))
    return alerts, actions


@pytest.fixture(scope="module")
def exported(lasting_dbt_database: Callable[[], Dbt]) -> Dbt:
    """The first exports, cleaned as of a moment before the reopening; then the second snapshot, reading what is new."""
    made = lasting_dbt_database()
    alerts, actions = exports()
    made.fill("raw.alerts", made.ALERT, alerts)
    made.fill("raw.actions", made.ACTION, actions)
    clean(made, FULL, BEFORE_REOPENING)
    made.early = dict(made.sql("SELECT alert_id, (outcome, known_at)::text FROM marts.alert_outcomes"))
    second = [
        alert(f"s{n}", at, 2, severity="critical", attributes='{"comments": "5"}')
        for n, at in enumerate(RAISED)
        if n % 2
    ]
    made.fill("raw.alerts", made.ALERT, second)
    clean(made, NEW, LATE)
    made.late = {
        row[0]: row[1:] for row in made.sql("SELECT alert_id, outcome, known_at, decided_by FROM marts.alert_outcomes")
    }
    return made


def test_facts_are_those_of_the_first_load(exported: Dbt) -> None:
    rows = exported.sql(
        "SELECT severity, attributes ->> 'comments', count(*) FROM marts.alerts WHERE alert_id ~ '^s' GROUP BY 1, 2"
    )
    assert rows == [("low", "0", 12)]


def test_what_later_versions_changed_is_kept_by_column(exported: Dbt) -> None:
    rows = exported.sql(
        "SELECT column_name, first_value, later_value, first_loaded_at, changed_at, count(*) "
        "FROM marts.alert_fact_changes GROUP BY 1, 2, 3, 4, 5 ORDER BY 1"
    )
    loads = (DAY_1 + timedelta(days=1), DAY_1 + timedelta(days=2))
    assert rows == [("@comments", "0", "5", *loads, 6), ("severity", "low", "critical", *loads, 6)]


def test_alerts_that_share_an_id_are_not_versions(exported: Dbt) -> None:
    """The first one loaded stays, with the one decision that can only be its own."""
    assert exported.sql("SELECT rule, raised_at FROM marts.alerts WHERE alert_id = '1.23457E+16'") == [
        ("rule0", RAISED[0])
    ]
    assert dict(exported.sql("SELECT reason, count(*) FROM marts.rejected_rows GROUP BY 1")) == {
        "the id belongs to another alert (raised at another time)": 11,
        "the id of its alert belongs to several alerts": 11,
    }
    assert exported.late["1.23457E+16"] == ("acted", RAISED[0] + timedelta(minutes=30), "e0")
    assert (
        exported.sql(
            "SELECT * FROM marts.load_reconciliation WHERE raw_rows <> clean_rows + duplicate_rows + rejected_rows"
        )
        == []
    )
    words = shared_ids_in_words(exported.warehouse)
    assert words.startswith("11 rows have the id of an alert")
    assert "1.23457E+16" in words


def test_a_reopened_alert_that_was_fixed_was_acted_on(exported: Dbt) -> None:
    """As of a moment before the reopening it was dismissed; nothing but time has passed since for its rows."""
    dismissed = f'(not_acted,"{(RAISED[0] + timedelta(hours=1)).isoformat(sep=" ")[:19]}+00")'
    assert [exported.early[f"r{n}"] for n in range(3)] == [dismissed] * 3
    fixed_at = RAISED[0] + timedelta(hours=5)
    assert [exported.late[f"r{n}"] for n in range(2)] == [("acted", fixed_at, "f0"), ("acted", fixed_at, "f1")]
    assert exported.late["r2"] == ("not_acted", RAISED[0] + timedelta(days=14), None)


@pytest.mark.parametrize(("word", "meaning"), WORDS, ids=[word for word, _ in WORDS])
def test_words_of_vendors(word: str, meaning: str) -> None:
    assert project_types()[type_key(word)] == meaning


def test_words_of_vendors_in_sql(exported: Dbt) -> None:
    meanings = dict(exported.sql("SELECT action_id, meaning FROM marts.actions WHERE action_id ~ '^w'"))
    assert meanings == {f"w{n}": meaning for n, (_, meaning) in enumerate(WORDS)}
    assert exported.sql("SELECT count(*) FROM marts.action_meanings WHERE meaning IS NULL") == [(0,)]


@settings(max_examples=1)
@given(
    st.lists(st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=12), min_size=300, max_size=300)
)
def test_python_and_sql_compare_types_alike(exported: Dbt, words: list[str]) -> None:
    """Of ASCII; what `lower` makes of other letters is the business of each server's locale."""
    macro = (PROJECT / "macros" / "read_text.sql").read_text(encoding="utf-8").split("macro type_key(text) -%}")[1]
    key = macro.split("{%- endmacro %}")[0].replace("{{ text }}", "w")
    plain = [word for word in words if word.isascii()] + ["Won’t Fix"]
    rows = exported.sql(f"SELECT {key} FROM unnest(%s::text[]) WITH ORDINALITY AS t (w, n) ORDER BY n", (plain,))
    assert [row[0] for row in rows] == [type_key(word) for word in plain]


def test_a_correction_replaces_facts_also_for_the_past(exported: Dbt) -> None:
    """Last in this file: it changes the exports."""
    corrected = RAISED[3] + timedelta(hours=1)
    rows = [alert("s1", RAISED[1], 3, severity="medium"), alert("s3", corrected, 3, severity="medium")]
    exported.fill("raw.alerts", exported.ALERT, rows)
    exported.sql("INSERT INTO raw.corrections (load_id) VALUES (3)")
    exported.fill("raw.alerts", exported.ALERT, [alert("s3", RAISED[3], 4, severity="critical")])
    exported.fill(
        "raw.actions", exported.ACTION, [action(f"u{n}", "s5", RAISED[6], "adjusted", load=4) for n in range(30)]
    )
    clean(exported, NEW, LATE)
    assert exported.sql(
        "SELECT alert_id, raised_at, severity FROM marts.alerts WHERE alert_id IN ('s1', 's3') ORDER BY 1"
    ) == [
        ("s1", RAISED[1], "medium"),
        ("s3", corrected, "medium"),
    ]
    assert exported.sql("SELECT count(*) FROM marts.rejected_rows WHERE source = 'alerts'") == [(11,)]
    changed = exported.sql("SELECT column_name, later_value FROM marts.alert_fact_changes WHERE alert_id = 's3'")
    assert changed == [("severity", "critical")], "what the correction replaced is no change after the raise"


def test_unknown_words_are_named_and_nothing_is_learned(exported: Dbt, tmp_path: Any) -> None:
    """After the test above, which brought 30 actions of a type that nobody explained."""
    types = clean_types(exported.warehouse)
    unknown = [each for each in types if each.meaning is None]
    assert [(each.action_type, each.actions, each.example, each.alerts_without_decision) for each in unknown] == [
        ("adjusted", 30, "u0", 1)
    ]
    assert 0.3 < unknown_share(types) < 0.5
    with pytest.raises(HeedError, match=r"adjusted .30, for example u0") as refused:
        require_known_meanings(exported.warehouse, Settings(), LATE)
    assert "heed action-types --out action_types.csv" in refused.value.remedy
    require_known_meanings(exported.warehouse, Settings(), BEFORE_REOPENING)  # there was none by then
    raw = raw_types(exported.warehouse, Settings())
    assert {(each.action_type, each.meaning) for each in raw} >= {("adjusted", None), ("fixed", "acted")}
    write_types(raw, tmp_path / "types.csv")
    lines = (tmp_path / "types.csv").read_text().splitlines()
    assert lines[1] == "adjusted,,30,nobody,1,u0"
    # The answer of a person, in a spelling of their own.
    exported.sql("INSERT INTO raw.action_types (action_type, meaning, loaded_at) VALUES ('Adjusted', 'neutral', now())")
    assert {each.defined_in for each in raw_types(exported.warehouse, Settings()) if each.meaning is None} == set()
    clean(exported, FULL, LATE)
    require_known_meanings(exported.warehouse, Settings(), LATE)
