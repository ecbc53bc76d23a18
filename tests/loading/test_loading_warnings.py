"""What a load says about its file: counted, with a remedy that works. Laws of ids, numbers and times, on the real
warehouse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loading_store import Store

from dagster_project.errors import HeedError
from dagster_project.loading import Mapping, read_mapping
from dagster_project.loading.observed import SURE_TIME
from dagster_project.loading.staged import read_time_function
from dagster_project.loading.values import NumberEvidence, decimals, joined, plain_numbers
from dagster_project.resources.inputs.undecodable import undecodable_rows

HEADER = "alert_id,raised_at,rule\n"
EXPORTS = Path(__file__).parent / "exports"


def warned(report) -> dict[str, int]:
    return {warning.name: warning.rows for warning in report.warnings}


def test_a_load_that_keeps_nothing_fails(store: Store):
    path = store.write("a.csv", HEADER + "1,2\n3,4\n")
    with pytest.raises(HeedError, match=r"none of the 2 rows of .* can be decoded: 2 2 fields instead of 3") as refused:
        store.load("alerts", path)
    assert "as many fields as the header" in refused.value.remedy
    assert store.is_empty()
    with pytest.raises(HeedError, match="none of the 1 rows"):
        store.load("alerts", store.write("b.csv", "A title\n\n" + HEADER + "1,2\n"))
    assert store.load("alerts", store.write("c.csv", "A title\n\n" + HEADER)).rows_added == 0


def test_undecodable_rows_are_counted_until_their_file_is_mended(store: Store):
    path = store.write("a.csv", HEADER.encode() + b"1,t,\xfc\n2,t,\xfc\n3,t,a\n4,t\n")
    store.load("alerts", path)
    store.load("actions", store.write("b.csv", "action_id,alert_id,acted_at,action_type\n1,1,t,x\n2\n"))
    assert [(row["source"], row["reason"], row["rows"]) for row in undecodable_rows(store.warehouse)] == [
        ("alerts", "undecodable: not UTF-8", 2),
        ("actions", "undecodable: 1 field instead of 4", 1),
        ("alerts", "undecodable: 2 fields instead of 3", 1),
    ]
    store.write("a.csv", HEADER + "1,t,ü\n2,t,ü\n3,t,a\n4,t,b\n")
    store.load("alerts", path)
    assert [row["source"] for row in undecodable_rows(store.warehouse)] == ["actions"]


def test_one_id_with_several_times_is_named_within_a_file_and_between_loads(store: Store):
    first = store.load(
        "alerts",
        store.write(
            "a.csv", HEADER + "1,2025-05-01T08:00:00Z,r\n1,2025-05-01 10:00:00+02,s\n2,2025-05-01T08:00:00Z,r\n"
        ),
    )
    assert warned(first) == {}  # the same moment, written in two ways: versions of one alert
    second = store.load("alerts", store.write("b.csv", HEADER + "2,2025-05-01T09:00:00Z,r\n3,2025-05-01T09:00:00Z,r\n"))
    assert warned(second) == {"raised_at_changed": 1}
    assert "'2': '2025-05-01T08:00:00Z', now '2025-05-01T09:00:00Z'" in second.warnings[0].cause
    third = store.load("alerts", store.write("c.csv", HEADER + "4,2025-05-01T08:00:00Z,r\n4,2025-05-01T08:00:01Z,r\n"))
    assert warned(third) == {"several_alerts_with_one_id": 2}


MAPPING = """
[alerts]
alert_id = ["repository", "number"]
entity = "repository"
empty = ["N/A"]
decimal = ","
[actions]
action_id = ["repository", "number", "acted_at"]
alert_id = ["repository", "number"]
"""


def test_ids_of_several_columns_match_in_all_formats(store: Store):
    import pyarrow as pa
    import pyarrow.parquet as pq

    mapping = read_mapping(store.write("m.toml", MAPPING))
    rows = [("web|api", 7, "r", "7,5"), ("web", 7, "r", "N/A"), ("", 7, "r", "1.000")]
    time = "2025-05-01T08:00:00Z"
    files = [
        store.write(
            "a.csv",
            "repository;number;raised_at;rule;value\n" + "".join(f"{a};{b};{time};{c};{d}\n" for a, b, c, d in rows),
        ),
        store.write(
            "a.jsonl",
            "".join(
                json.dumps(
                    {"repository": a, "number": b, "raised_at": time, "rule": c, "value": d}
                    if a
                    else {"rule": c, "number": b, "raised_at": time, "value": d}
                )
                + "\n"
                for a, b, c, d in rows
            ),
        ),
        store.folder / "a.parquet",
    ]
    columns = dict(zip(("repository", "number", "rule", "value"), map(list, zip(*rows, strict=True)), strict=True))
    pq.write_table(pa.table({**columns, "raised_at": [time] * 3}), files[2])
    assert [store.load("alerts", file, mapping=mapping).rows_added for file in files] == [3, 0, 0]
    assert store.rows("SELECT alert_id, entity, value, attributes FROM raw.alerts ORDER BY 1") == [
        ("web\\|api|7", "web|api", "7.5", None),
        ("web|7", "web", None, None),
        (None, None, "1000", None),
    ]
    actions = (
        "repository,number,acted_at,action_type\nweb,7,2025-05-01T09:00:00Z,fixed\nweb|api,7,2025-05-01T09:00:00Z,x\n"
    )
    assert warned(store.load("actions", store.write("d.csv", actions), mapping=mapping)) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[alerts]\nrule = ["a", "b"]', "makes rule of several columns, which only an id can be"),
        ('[alerts]\nalert_id = ["a", "A"]', "not a list of different column names"),
        ("[alerts]\nalert_id = []", "not a list of different column names"),
        ('[alerts]\nalert_id = ["a", "b"]\nignore = ["b"]', "both uses and ignores the column 'b'"),
        ('[alerts]\ndecimal = ";"', "neither . nor ,"),
        ('[alerts]\nempty = "N/A"', "empty of .* is not a list of texts"),
    ],
)
def test_mappings_that_cannot_be_meant(tmp_path, text, message):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(HeedError, match=message):
        read_mapping(tmp_path / "m.toml")


def test_a_part_of_an_id_that_the_file_does_not_have(store: Store):
    mapping = Mapping(composed={"alerts": {"alert_id": ("repository", "number")}})
    with pytest.raises(HeedError, match=r"makes alert_id of the column 'number', which a\.csv does not"):
        store.load("alerts", store.write("a.csv", "repository,raised_at,rule\nx,t,r\n"), mapping=mapping)


PARTS = st.lists(st.text(st.sampled_from("ab|\\"), min_size=1, max_size=4), min_size=2, max_size=3)


@given(PARTS, PARTS)
def test_different_parts_never_make_one_id(one, other):
    import pyarrow as pa

    ids = [joined([pa.array([part]) for part in parts])[0].as_py() for parts in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)


NUMBERS = st.lists(
    st.decimals(-10_000_000, 10_000_000, places=3).map(lambda d: d.normalize()), min_size=1, max_size=20
).map(lambda some: [*some, *[type(some[0])("1234.5")]])


@given(NUMBERS, st.sampled_from([",.", ".,", ", ", ".'"]))
def test_numbers_written_in_any_one_way_are_read_rightly(numbers, signs):
    """A column that says its decimal sign at least once (1234.5 is in each) is read without an error."""
    import pyarrow as pa

    decimal, thousands = signs
    texts = [f"{n:,f}".replace(",", "t").replace(".", decimal).replace("t", thousands) for n in numbers]
    evidence = NumberEvidence()
    evidence.add(pa.array(texts))
    sign = decimals({"value": evidence}).get("value")
    read = plain_numbers(pa.array(texts), sign) if sign else pa.array(texts)
    assert [type(n)(text) for n, text in zip(numbers, read.to_pylist(), strict=True)] == numbers


def numbers_file(store: Store, *values: str) -> Path:
    rows = "".join(f'{i};2025-05-01T08:00:00Z;r;"{value}"\n' for i, value in enumerate(values))
    return store.write("a.csv", "alert_id;raised_at;rule;value\n" + rows)


def test_numbers_that_nothing_settles_are_asked_for(store: Store):
    report = store.load("alerts", numbers_file(store, "1.234", "5"))
    assert warned(report) == {"ambiguous_decimals": 1}
    assert 'decimal = ","' in report.warnings[0].remedy
    assert warned(store.load("alerts", numbers_file(store, "1,234", "7"))) == {
        "ambiguous_decimals": 1,
        "unreadable_numbers": 1,
    }
    assert warned(store.load("alerts", numbers_file(store, "1,5", "1.5"))) == {
        "contradictory_decimals": 2,
        "unreadable_numbers": 1,
    }
    # The remedy works, also for a file that was loaded before.
    mapping = Mapping(decimal={"alerts": ","})
    path = numbers_file(store, "1.234", "5")
    assert warned(store.load("alerts", path, mapping=mapping)) == {"back_again": 1}  # id 1 was 5 before
    assert store.rows("SELECT value FROM raw.alerts WHERE alert_id = '0' ORDER BY loaded_at DESC LIMIT 1") == [
        ("1234",)
    ]


TIMES = st.from_regex(SURE_TIME.replace("[0-9]{9}", "[0-9]"), fullmatch=True)


@settings(max_examples=30)
@given(st.lists(TIMES, min_size=20, max_size=20))
def test_times_that_are_not_asked_about_are_all_readable(loading_warehouse, times):
    query = "SELECT count(*) FROM unnest(%s) AS text WHERE pg_temp.read_time(text, 'UTC') IS NULL"
    import psycopg2

    connection = psycopg2.connect(loading_warehouse.url())
    with connection, connection.cursor() as cursor:
        cursor.execute(read_time_function())
        cursor.execute(query, (times,))
        assert cursor.fetchone() == (0,)
    connection.close()


def test_the_command_says_it_loudly(store: Store):
    import os

    environment = {**os.environ, "HEED_HOME": str(store.folder), "HEED_DATABASE_URL": store.url}
    heed = str(Path(sys.executable).with_name("heed"))
    command = [heed, "load", "--alerts", str(EXPORTS / "edge" / "cp1252_body.csv")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "  WARNING: 10 of 20 rows are undecodable and were rejected: 10 not UTF-8 (first on line 2)" in done.stdout
    findings = json.loads(
        subprocess.run([heed, "doctor", "--json"], capture_output=True, text=True, env=environment).stdout
    )
    (finding,) = [one for one in findings if one["what"] == "undecodable rows"]
    assert finding["status"] == "look"
    assert "10 rows of loaded files could not be decoded (10 alerts undecodable: not UTF-8)" in finding["found"]
