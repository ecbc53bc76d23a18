"""Parquet: typed columns as text that says the same."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loading_rows import decoded, read_rows, rejected

from dagster_project.loading.readers import limits
from dagster_project.loading.readers.arrow_text import as_json, as_text

BASE = {"alert_id": ["1"], "raised_at": ["t"], "rule": ["r"]}


def rows_of(tmp_path, columns: dict, **options):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table(columns), path, **options)
    return read_rows(path)


MOMENT = datetime(2025, 3, 4, 5, 6, 7, 120000, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("values", "text", "as_attribute"),
    [
        (pa.array([3, None], pa.int32()), ["3", None], ["3", None]),
        (pa.array([2**63], pa.uint64()), ["9223372036854775808"], ["9223372036854775808"]),
        (pa.array([0.1, float("nan"), None, 5.0]), ["0.1", None, None, "5"], ["0.1", None, None, "5"]),
        (pa.array([0.1], pa.float32()), ["0.1"], ["0.1"]),
        (pa.array([float("inf")]), ["inf"], ['"inf"']),
        (pa.array([True, False, None]), ["true", "false", None], ["true", "false", None]),
        (pa.array(["x", "", None]), ["x", None, None], ['"x"', None, None]),
        (pa.array(['say "no"\n']), ['say "no"\n'], ['"say \\"no\\"\\n"']),
        (pa.array(["x", "x"]).dictionary_encode(), ["x", "x"], ['"x"', '"x"']),
        (pa.array([b"x"]), ["x"], ['"x"']),
        (pa.array([Decimal("1.10")]), ["1.10"], ["1.10"]),
        (pa.array([date(2025, 3, 4)]), ["2025-03-04"], ['"2025-03-04"']),
        (pa.array([MOMENT]), ["2025-03-04T03:06:07.12Z"], ['"2025-03-04T03:06:07.12Z"']),
        (pa.array([MOMENT], pa.timestamp("s", "Europe/Berlin")), ["2025-03-04T03:06:07Z"], None),
        (pa.array([datetime(2025, 3, 4, 10)], pa.timestamp("ns")), ["2025-03-04T10:00:00"], None),
        (pa.array([[1, None]]), ["[1,null]"], ["[1,null]"]),
        (pa.array([{"a": "ä", "at": MOMENT}]), ['{"a":"ä","at":"2025-03-04T05:06:07.120000+02:00"}'], None),
        (pa.nulls(2), [None, None], [None, None]),
    ],
)  # fmt: skip
def test_values_of_every_type(values, text, as_attribute):
    assert as_text(values).to_pylist() == text
    if as_attribute is not None:
        assert as_json(values).to_pylist() == as_attribute


def test_a_typed_file(tmp_path):
    (row,) = rows_of(
        tmp_path,
        {
            "alert_id": pa.array([17]),
            "raised_at": pa.array([MOMENT]),
            "rule": pa.array(["r"]).dictionary_encode(),
            "value": [1.5],
            "zone": [3],
            "hot": [True],
            "note": [""],
        },
    )
    assert decoded([row]) == [
        {
            "alert_id": "17",
            "raised_at": "2025-03-04T03:06:07.12Z",
            "rule": "r",
            "value": "1.5",
            "attributes": '{"hot":true,"zone":3}',
        }
    ]


def test_text_that_is_no_text_is_rejected_by_row_number(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "CHUNK_ROWS", 2)
    bad = pa.StringArray.from_buffers(
        4, pa.array([0, 1, 2, 3, 4], pa.int32()).buffers()[1], pa.py_buffer(b"a\xe9\x00b"), None
    )
    rows = rows_of(tmp_path, {"alert_id": list("1234"), "raised_at": list("tttt"), "rule": bad})
    assert [row["alert_id"] for row in decoded(rows)] == ["1", "4"]
    assert [(line, json.loads(content)["rule"]) for line, _, content in rejected(rows)] == [(2, "\\xe9"), (3, "\\x00")]


def test_many_row_groups_are_read_in_order(tmp_path):
    n = 1000
    columns = {"alert_id": [str(i) for i in range(n)], "raised_at": ["t"] * n, "rule": ["r"] * n}
    rows = rows_of(tmp_path, columns, row_group_size=37)
    assert [row["alert_id"] for row in rows] == columns["alert_id"]
