"""CSV and JSON lines to rows: the grammar, the line numbers, and what a broken line costs."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading_rows import decoded, read_rows, rejected

from dagster_project.loading.readers import limits
from dagster_project.loading.readers.csv_reader import CsvReader
from dagster_project.loading.values import BLANKS

HEADER = "alert_id,raised_at,rule\n"


def rows_of(tmp_path, content: str | bytes, name="a.csv"):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_rows(path)


def test_a_plain_file(tmp_path):
    rows = rows_of(tmp_path, HEADER + "1,t,r\n2,,r\n")
    assert decoded(rows) == [{"alert_id": "1", "raised_at": "t", "rule": "r"}, {"alert_id": "2", "rule": "r"}]
    assert rejected(rows) == []


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_line_ends(tmp_path, delimiter, end):
    text = f"alert_id,raised_at,rule{end}{end}1,t,'r'{end}2,t,s".replace(",", delimiter)
    rows = decoded(rows_of(tmp_path, text.replace("'", '"')))
    assert [row["rule"] for row in rows] == ["r", "s"]


def test_the_delimiter_is_the_one_that_fits_the_contract(tmp_path):
    text = '"alert_id";"raised_at";"rule";"a,b,c,d,e"\n1;t;r;x\n'
    assert decoded(rows_of(tmp_path, text))[0]["attributes"] == '{"a,b,c,d,e":"x"}'


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    assert decoded(rows_of(tmp_path, b"\xef\xbb\xbf" + HEADER.encode() + b"1,t,r\n"))[0]["alert_id"] == "1"


def test_gzip_by_content_and_by_name(tmp_path):
    content = gzip.compress((HEADER + "1,t,r\n").encode())
    assert len(decoded(rows_of(tmp_path, content, "a.csv.gz"))) == 1
    assert len(decoded(rows_of(tmp_path, content, "a.csv"))) == 1


def test_quotes_newlines_and_emoji_survive(tmp_path):
    rule = 'rule "\'; DROP TABLE raw.alerts; --", 🚨\r\nsecond line'
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["alert_id", "raised_at", "rule"], ["1", "t", rule]])
    assert decoded(rows_of(tmp_path, text.getvalue()))[0]["rule"] == rule


BROKEN = (
    b"alert_id,raised_at,rule\n"  # 1
    b"1,t,r\n"  # 2
    b"2,t\n"  # 3
    b'3,t,"two\n'  # 4, 5: a whole record
    b'lines"\n'
    b"4,t,r,x\n"  # 6
    b'5,"t,r\n'  # 7: never closed
    b"6,t,r\xe9gle\n"  # 8
    b"7,t,r\x00\n"  # 9
    b'8,t,"r"\n'  # 10
    b"\n"
    b'9,t,"r"s\n'  # 12: pyarrow and csv agree to read rs
    b"10,t,r\n"  # 13
    b'11,t,"r'  # 14: never closed, and the file ends
)
BROKEN_LINES = [3, 6, 7, 8, 9, 14]


@pytest.mark.parametrize("block", [1, 2, 7, 50, 4 << 20])
def test_each_broken_line_is_rejected_with_its_number_and_the_rest_is_read(tmp_path, monkeypatch, block):
    monkeypatch.setattr(limits, "BLOCK_BYTES", max(block, 24) if block < 24 else block)
    rows = rows_of(tmp_path, BROKEN)
    assert [row["alert_id"] for row in decoded(rows)] == ["1", "3", "8", "9", "10"]
    broken = rejected(rows)
    assert [line for line, _, _ in broken] == BROKEN_LINES
    reasons = dict(zip(BROKEN_LINES, [reason for _, reason, _ in broken], strict=True))
    assert reasons[3] == "2 fields instead of 3"
    assert reasons[6] == "4 fields instead of 3"
    assert reasons[7] == reasons[14] == "a quote is opened and not closed"
    assert reasons[8] == "not UTF-8"
    assert reasons[9] == "a NUL character"
    contents = dict(zip(BROKEN_LINES, [content for _, _, content in broken], strict=True))
    assert contents[8] == "6,t,r\\xe9gle"
    assert contents[9] == "7,t,r\\x00"
    assert contents[14] == '11,t,"r'


def test_a_stray_quote_that_swallows_lines_costs_one_line(tmp_path):
    good = [f"{i},t,r\n" for i in range(2, 200)]
    rows = rows_of(tmp_path, HEADER + '1,"\n' + "".join(good) + '200,"\n201,t,r\n')
    assert [line for line, _, _ in rejected(rows)] == [2, 201]
    assert len(decoded(rows)) == 199


def test_a_line_beyond_all_measure_is_cut_and_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(limits, "MAX_RECORD_BYTES", 5000)
    monkeypatch.setattr(limits, "CONTENT_BYTES", 100)
    text = HEADER + "1,t,r\n" + "x" * 100_000 + "\n2,t,r\n"
    rows = rows_of(tmp_path, text)
    assert [row["alert_id"] for row in decoded(rows)] == ["1", "2"]
    ((line, reason, content),) = rejected(rows)
    assert line == 3
    assert "more than 5,000 bytes" in reason
    assert content == "x" * 100
    lines = '{"alert_id":"1","raised_at":"t","rule":"r"}\n' + "x" * 100_000 + '\n{"alert_id":"2"}'
    rows = rows_of(tmp_path, lines, "a.jsonl")
    assert [row["alert_id"] for row in decoded(rows)] == ["1", "2"]
    assert [(line, len(content)) for line, _, content in rejected(rows)] == [(2, 100)]


def test_a_file_of_broken_lines_only_is_read_in_little_time(tmp_path):
    rows = rows_of(tmp_path, HEADER + 'a,"b\n' * 30_000)
    assert len(rejected(rows)) == 30_000


@given(
    st.lists(
        st.lists(
            st.text(st.sampled_from(["a", "é", "🚨", '"', ",", ";", "\n", "\r", " ", "\x1f", "\\"]), max_size=6),
            min_size=3,
            max_size=3,
        ),
        max_size=20,
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.integers(40, 200),
)
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, table, end, block):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([["alert_id", "raised_at", "rule"], *table])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", block)
        rows = rows_of(tmp_path_factory.mktemp("csv"), text.getvalue())
    assert rejected(rows) == []
    table = [[row[0].strip(BLANKS), *row[1:]] for row in table]  # ids are trimmed, as staging does
    wanted = [{k: v for k, v in zip(("alert_id", "raised_at", "rule"), r, strict=True) if v} for r in table]
    assert decoded(rows) == wanted


@given(st.binary(max_size=60).map(lambda b: bytes(b'ab",\n\r\x00\xe9 '[x % 9] for x in b)), st.integers(24, 60))
def test_both_parsers_agree_on_any_bytes_in_any_blocks(tmp_path_factory, body, block):
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(HEADER.encode() + body)
    as_one = read_rows(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "BLOCK_BYTES", block)
        in_blocks = read_rows(path)
        patch.setattr(CsvReader, "_fast", lambda self, content: None)
        carefully = read_rows(path)

    def in_order(rows):
        return decoded(rows), rejected(rows)

    assert in_order(in_blocks) == in_order(as_one)
    assert in_order(carefully) == in_order(as_one)
    # Every line that is not empty is in some row: nothing is lost.
    if b"\r" not in body and b'"' not in body:
        assert len(as_one) == sum(1 for line in body.split(b"\n") if line)


def test_attributes_are_merged_and_the_files_own_win(tmp_path):
    rows = rows_of(
        tmp_path,
        "alert_id,raised_at,rule,zone,attributes,colour\n"
        '1,t,r,z,"{""a"": 1.10, ""b"": [1, 2]}",\n'
        '2,t,r,z,"{""zone"": ""own""}",blue\n'
        "3,t,r,z,not json,\n"
        "4,t,r,,not json,\n"
        '5,t,r,z,"[1]",\n'
        "6,t,r,,,\n"
        '7,t,r,"q"" \\ tab\there",,\n'
        '8,t,r,z,"{""a"": ""\\u0000""}",\n',
    )
    attributes = [row.get("attributes") for row in decoded(rows)]
    assert attributes[0] == '{"zone":"z","a": 1.10, "b": [1, 2]}'
    assert json.loads(attributes[1]) == {"colour": "blue", "zone": "own"}
    assert json.loads(attributes[2]) == {"zone": "z", "unreadable": "not json"}
    assert attributes[3] == "not json"
    assert json.loads(attributes[4]) == {"zone": "z", "unreadable": "[1]"}
    assert attributes[5] is None
    assert json.loads(attributes[6]) == {"zone": 'q" \\ tab\there'}
    assert json.loads(attributes[7]) == {"zone": "z", "unreadable": '{"a": "\\u0000"}'}


def test_the_order_of_columns_and_empty_ones_change_no_hash(tmp_path):
    one = rows_of(tmp_path, "alert_id,raised_at,rule,b,a\n1,t,r,x,y\n")
    other = rows_of(tmp_path, "a,rule,team,raised_at,b,alert_id,c\ny,r,,t,x,1,\n", "b.csv")
    assert one[0]["row_hash"] == other[0]["row_hash"]
    changed = rows_of(tmp_path, "alert_id,raised_at,rule,b,a\n1,t,r,y,x\n", "c.csv")
    assert changed[0]["row_hash"] != one[0]["row_hash"]


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), min_size=3, max_size=3))
def test_attribute_values_come_back_from_json(tmp_path_factory, values):
    text = io.StringIO(newline="")
    csv.writer(text).writerows([["alert_id", "raised_at", "rule", "x", "y", "z"], ["1", "t", "r", *values]])
    (row,) = decoded(rows_of(tmp_path_factory.mktemp("csv"), text.getvalue()))
    wanted = {name: value for name, value in zip("xyz", values, strict=True) if value}
    assert json.loads(row.get("attributes", "{}")) == wanted


def test_json_lines(tmp_path):
    lines = [
        '{"Alert ID": "1", "raised_at": "t", "rule": "r", "value": 1.5, "zone": {"a": [1]}, "big": true, "none": null}',
        "",
        '{"alert_id": 2, "raised_at": "t"}',
        "[1]",
        "{",
        '{"alert_id": "3", "rule": "\\u0000"}',
        '{"alert_id": "4", "rule": "\\ud800"}',
        '{"alert_id": "5", "rule": "r", "attributes": {"zone": 1}, "zone": 2, "x": 1e999}',
        '{"alert_id": "6", "rule": "r", "attributes": {"zone": 1}, "zone": 2}',
    ]
    rows = rows_of(tmp_path, "\n".join(lines), "a.jsonl")
    values = decoded(rows)
    assert values[0] == {
        "alert_id": "1",
        "raised_at": "t",
        "rule": "r",
        "value": "1.5",
        "attributes": '{"big":true,"zone":{"a":[1]}}',
    }
    assert values[1] == {"alert_id": "2", "raised_at": "t"}
    assert json.loads(values[2]["attributes"]) == {"zone": 1}
    assert [(line, reason) for line, reason, _ in rejected(rows)] == [
        (4, "not a JSON object"),
        (5, "not JSON"),
        (6, "a NUL character"),
        (7, "half of a surrogate pair"),
        (8, "a number beyond double precision"),
    ]


JSON_VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text("a\"\\\n\té 🚨"),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text("ab"), st.integers(), max_size=2),
)  # fmt: skip


@given(
    st.lists(
        st.fixed_dictionaries(dict.fromkeys(["alert_id", "raised_at", "rule", "z", "y", "attributes"], JSON_VALUES))
    )
)
def test_json_lines_with_equal_keys_are_read_as_those_with_different_ones(tmp_path_factory, objects):
    path = tmp_path_factory.mktemp("jsonl") / "a.jsonl"
    first = {"alert_id": "0", "raised_at": "t", "rule": "r"}  # so that the two ways part
    path.write_text("".join(json.dumps(content) + "\n" for content in [first, *objects]), encoding="utf-8")
    one_by_one = read_rows(path)[1:]
    path.write_text("".join(json.dumps(content) + "\n" for content in objects or [first]), encoding="utf-8")
    together = read_rows(path)
    if objects:
        assert decoded(together) == decoded(one_by_one)
        for row, content in zip(together, objects, strict=True):
            if content["attributes"] is None and content["z"] not in (None, ""):
                assert json.loads(row["attributes"])["z"] == content["z"]


def test_a_json_number_with_hundreds_of_digits_is_kept_as_it_is(tmp_path):
    digits = "1" * 400
    text = f'{{"alert_id":"1","raised_at":"t","rule":"r","value":{digits}}}\n'
    assert [row["value"] for row in decoded(rows_of(tmp_path, text, "a.jsonl"))] == [digits]
