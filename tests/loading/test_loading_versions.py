"""Loading again: what is new, what stands already, which version is the newest. Laws, on the real warehouse."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loading_store import Store

from dagster_project.errors import HeedError

HEADER = "alert_id,raised_at,rule\n"

# What staging does: the newest version is the one loaded last.
NEWEST = """SELECT DISTINCT ON (alert_id) alert_id, rule FROM raw.alerts WHERE alert_id IS NOT NULL
            ORDER BY alert_id, loaded_at DESC, load_id DESC, row_hash COLLATE "C" DESC"""


def load(store: Store, *rows: str, name: str = "a.csv", **options: Any):
    """Load rows written like "a1": id a, version 1."""
    text = HEADER + "".join(f"{row[0].strip('-')},t,{row[1]}\n" for row in rows)
    return store.load("alerts", store.write(name, text), **options)


def newest(store: Store) -> dict[str, str]:
    return dict(store.rows(NEWEST))


def test_the_same_file_twice_changes_nothing(store):
    first = load(store, "a1", "b1", "b1")
    before = store.rows("SELECT * FROM raw.alerts ORDER BY 1, 2, 3, row_hash")
    again = load(store, "a1", "b1", "b1")
    assert (first.rows_read, first.rows_added, first.already_loaded) == (3, 3, False)
    assert (again.rows_read, again.rows_added, again.rows_unchanged, again.already_loaded) == (3, 0, 3, True)
    assert store.rows("SELECT * FROM raw.alerts ORDER BY 1, 2, 3, row_hash") == before
    assert store.count("raw.loads") == 1
    assert "nothing changed" in again.summary()


def test_a_file_that_differs_by_gzip_or_name_only_is_the_same_file(store):
    load(store, "a1", "b1")
    path = store.write("other.csv.gz", gzip.compress((HEADER + "a,t,1\nb,t,1\n").encode()))
    assert store.load("alerts", path).already_loaded


def test_a_later_export_with_old_rows_adds_only_the_new_ones(store):
    load(store, "a1", "b1")
    report = load(store, "a1", "b1", "c1")
    assert (report.rows_added, report.rows_unchanged) == (1, 2)
    assert store.count() == 3


def test_the_same_rows_as_parquet_are_unchanged(store):
    import pyarrow as pa
    import pyarrow.parquet as pq

    load(store, "a1", "b1")
    path = store.folder / "a.parquet"
    pq.write_table(pa.table({"rule": [1, 1], "alert_id": ["a", "b"], "raised_at": ["t", "t"]}), path)
    assert store.load("alerts", path).rows_unchanged == 2


def test_a_corrected_row_is_added_and_is_the_newest_and_back_again(store):
    for version in ("1", "2"):
        assert load(store, "a" + version).rows_added == 1
        assert newest(store) == {"a": version}
    # Not the same bytes as the first file, so not the same file: a correction back.
    assert load(store, "a1", "b1").rows_added == 2
    assert newest(store) == {"a": "1", "b": "1"}
    assert store.count() == 4


KINDS = [
    ("alerts", "alert_id,raised_at,rule\n1,2025-05-01T08:00:00Z,{}\n", "rule"),
    ("actions", "action_id,alert_id,acted_at,action_type\n1,1,2025-05-01T08:00:00Z,{}\n", "action_type"),
    ("rules", "rule,title\nr,{}\n", "title"),
    ("action_types", "action_type,meaning\nfixed,{}\n", "meaning"),
]


@pytest.mark.parametrize(("kind", "text", "column"), KINDS, ids=[kind for kind, _, _ in KINDS])
def test_a_repair_with_the_file_of_before_stands(store, kind, text, column):
    good, bad = store.write("good.csv", text.format("good")), store.write("bad.csv", text.format("bad"))
    newest = f"SELECT {column} FROM raw.{kind} ORDER BY loaded_at DESC LIMIT 1"
    store.load(kind, good)
    store.load(kind, bad)
    report = store.load(kind, good)
    assert store.rows(newest) == [("good",)]
    assert [(warning.name, warning.rows) for warning in report.warnings if warning.name == "back_again"] == [
        ("back_again", 1)
    ]
    assert store.load(kind, good).already_loaded
    assert not store.load(kind, bad).already_loaded
    assert store.rows(newest) == [("bad",)]


def test_two_versions_in_one_file_are_both_kept_and_the_last_is_the_newest(store):
    assert load(store, "a1", "a2", "b2", "b1").rows_added == 4
    assert newest(store) == {"a": "2", "b": "1"}
    bigger = load(store, "a1", "a2", "b2", "b1", "c1")
    assert (bigger.rows_added, bigger.rows_unchanged) == (1, 4)
    assert newest(store) == {"a": "2", "b": "1", "c": "1"}
    # A history of versions that came one by one adds nothing either.
    load(store, "d1")
    load(store, "d2")
    assert load(store, "d1", "d2", "c1").rows_added == 0


def test_exact_duplicates_in_a_file_are_kept_once_and_for_all(store):
    assert load(store, "a1", "a1", "a1").rows_added == 3
    assert load(store, "a1", "b1").rows_added == 1
    assert store.count() == 4


def test_rows_without_an_id_are_compared_by_content(store):
    assert load(store, "-1", "-1", "-2").rows_added == 3
    report = load(store, "-1", "-2", "-3")
    assert (report.rows_added, report.rows_unchanged) == (1, 2)
    assert store.count() == 4


def test_another_mapping_makes_another_file_of_it(store):
    from dagster_project.loading import Mapping

    path = store.write("a.csv", "alert_id,raised_at,rule,check\na,t,r,c\n")
    assert store.load("alerts", path).rows_added == 1
    mapped = Mapping(columns={"alerts": {"rule": "check"}})
    assert store.load("alerts", path, mapping=mapped).rows_added == 1
    assert store.load("alerts", path, mapping=mapped).already_loaded
    assert newest(store) == {"a": "c"}


def test_rows_deleted_by_hand_come_back_with_their_file(store):
    load(store, "a1", "b1")
    store.rows("DELETE FROM raw.alerts WHERE alert_id = 'a'")
    report = load(store, "a1", "b1")
    assert (report.rows_added, report.rows_unchanged) == (1, 1)
    assert store.count() == 2


def test_loads_are_ordered_in_time_even_when_the_clock_is_set_back(store):
    ahead = datetime.now(UTC) + timedelta(hours=1)
    load(store, "a1", loaded_at=ahead)
    load(store, "a2", "a3")
    load(store, "a1", "b1")
    assert newest(store) == {"a": "1", "b": "1"}
    times = store.rows("SELECT min(loaded_at), max(loaded_at) FROM raw.alerts GROUP BY load_id ORDER BY load_id")
    flat = [moment for pair in times for moment in pair]
    assert flat == sorted(flat)
    assert flat[0] == ahead
    assert times[1][1] - times[1][0] == timedelta(microseconds=1)
    with pytest.raises(HeedError, match="not later than the last load"):
        load(store, "c1", loaded_at=ahead)


def test_undecodable_rows_are_kept_once(store):
    path = store.write("a.csv", HEADER + "a,t,1\nbroken\nb,t,1\n")
    report = store.load("alerts", path)
    assert (report.rows_read, report.rows_added, report.rows_undecodable) == (3, 2, 1)
    assert "1 undecodable" in report.summary()
    rows = store.rows("SELECT load_id, file, line, reason, content FROM raw.undecodable_rows")
    assert rows == [(report.load_id, str(path), 3, "1 field instead of 3", "broken")]
    store.load("alerts", store.write("b.csv", HEADER + "a,t,1\nbroken\nbroken too\nc,t,1\n"))
    contents = store.rows("SELECT line, content FROM raw.undecodable_rows ORDER BY load_id, line")
    assert contents == [(3, "broken"), (4, "broken too")]


def test_the_report_and_the_log_of_loads_agree(store):
    load(store, "a1")
    report = load(store, "a1", "b1", "b2")
    logged = store.rows(
        """SELECT load_id, kind, file, rows_read, rows_added, rows_unchanged, rows_undecodable,
                  length(sha256), finished_at >= started_at FROM raw.loads ORDER BY load_id DESC LIMIT 1"""
    )
    assert logged == [(report.load_id, "alerts", report.file, 3, 2, 1, 0, 64, True)]
    assert report.to_document()["rows_added"] == 2


def test_the_checksum_is_that_of_the_content(store):
    import hashlib

    content = (HEADER + "a,t,1\n").encode()
    store.load("alerts", store.write("a.csv.gz", gzip.compress(content)))
    assert store.rows("SELECT sha256 FROM raw.loads") == [(hashlib.sha256(content).hexdigest(),)]


def test_all_kinds(store):
    store.load("actions", store.write("x.csv", "action_id,alert_id,acted_at,action_type,why\n1,a,t,fixed,because\n"))
    store.load("rules", store.write("r.csv", "rule,team,declared_visibility_only\nr,core,yes\n"))
    report = store.load("action_types", store.write("t.csv", "action_type,meaning,note\nfixed,acted,n\n"))
    assert "columns not loaded: note" in report.summary()
    assert store.rows("SELECT action_id, alert_id, acted_at, action_type, actor, attributes FROM raw.actions") == [
        ("1", "a", "t", "fixed", None, '{"why":"because"}')
    ]
    assert store.rows("SELECT rule, team, declared_visibility_only FROM raw.rules") == [("r", "core", "yes")]
    assert store.rows("SELECT action_type, meaning FROM raw.action_types") == [("fixed", "acted")]


# Two ids and rows without one ("-"), three versions of each: every way in which files can overlap.
FILES = st.lists(
    st.lists(st.tuples(st.sampled_from("ab-"), st.sampled_from("123")).map("".join), max_size=5), max_size=5
)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES)
def test_any_files_one_after_the_other(store, files):
    store.rows("TRUNCATE raw.alerts, raw.loads")
    standing: list[list[str]] = []  # files that were loaded since a row was last added
    wanted: dict[str, str] = {}
    versions: set[tuple[str | None, str]] = set()
    for rows in files:
        report = load(store, *rows)
        assert report.already_loaded == (rows in standing)
        assert report.rows_read == len(rows) == report.rows_added + report.rows_unchanged
        wanted |= {row[0]: row[1] for row in rows if row[0] != "-"}
        versions |= {(None if row[0] == "-" else row[0], row[1]) for row in rows}
        # 1. The newest version is the one that stands last in the last file that names the id.
        assert newest(store) == wanted
        # 2. Every version that any file held is there, and nothing else.
        assert set(store.rows("SELECT alert_id, rule FROM raw.alerts")) == versions
        # 3. The same rows in another file change nothing.
        count = store.count()
        text = "rule,raised_at,alert_id\n" + "".join(f"{row[1]},t,{row[0].strip('-')}\n" for row in rows)
        if rows and not report.already_loaded:
            assert store.load("alerts", store.write("b.csv", text)).rows_added == 0
            assert store.count() == count
        standing = [rows] if report.rows_added else [*standing, rows]


def test_a_correction_is_marked_and_counts_although_its_rows_are_the_newest(store):
    load(store, "a1", "b1")
    later = load(store, "a2", "b1")
    assert later.rows_of_loaded_ids == 1
    assert "1 of them tell other facts of alerts that were loaded before" in later.summary()
    assert "--correction" in later.summary()
    assert load(store, "a2", "b1").already_loaded
    corrected = load(store, "a2", "b1", correction=True)
    assert (corrected.rows_added, corrected.already_loaded) == (2, False)
    assert store.rows("SELECT load_id FROM raw.corrections") == [(corrected.load_id,)]
    assert "--correction" not in corrected.summary()
    assert load(store, "a2", "b1", correction=True).already_loaded
    again = load(store, "a2", "b1", "c1", correction=True)
    assert (again.rows_added, again.rows_unchanged) == (1, 2), "what a correction says already, no second one adds"


# Ids that staging takes for one: it trims those of alerts, and reads rules and action types in small letters.
SPELLINGS = {
    "alerts": ("alert_id,raised_at,rule\n", '"{}",t,{}\n', ("a", " a", "a\t"), "btrim(alert_id, E' \\t')", "rule"),
    "rules": ("rule,title\n", '"{}",{}\n', ("Disk", "disk", " DISK "), "lower(btrim(rule))", "title"),
    "action_types": (
        "action_type,meaning\n",
        '"{}",{}\n',
        ("False Positive", "false_positive", "false-positive "),
        "translate(lower(btrim(action_type)), ' _-', '')",
        "meaning",
    ),
}


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(sorted(SPELLINGS)), st.lists(st.tuples(st.integers(0, 2), st.sampled_from("12")), max_size=5))
def test_another_spelling_of_an_id_is_another_version_of_its_row(store, kind, rows):
    header, line, spellings, key, value = SPELLINGS[kind]
    store.rows(f"TRUNCATE raw.{kind}, raw.loads")
    for spelling, version in rows:
        store.load(kind, store.write("a.csv", header + line.format(spellings[spelling], version)))
        newest = store.rows(f"SELECT DISTINCT ON ({key}) {value} FROM raw.{kind} ORDER BY {key}, loaded_at DESC")
        assert newest == [(version,)]
