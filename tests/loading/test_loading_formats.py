"""Settings of a mapping about formats, with files that fit and files that do not; and the laws of readers."""

from __future__ import annotations

import json
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading_records import actions_of, alerts_of, rows_and_notes

from dagster_project.errors import HeedError
from dagster_project.loading import Mapping, read_mapping
from dagster_project.loading.readers import limits
from dagster_project.loading.records.fields import Field, look_up
from dagster_project.loading.records.json_stream import JsonStream, records
from dagster_project.loading.records.times import DAY_FIRST, MONTH_FIRST, TimeColumn, TimeRule, settle
from dagster_project.loading.values import joined

PLAIN = 'alert_id = "id"\nraised_at = "at"\nrule = "name"\n'
ROW = "id,at,name\n1,2026-05-01T08:00:00Z,cpu\n"


def mapping_of(tmp_path: Path, text: str) -> Mapping:
    path = tmp_path / "m.toml"
    path.write_text(text, encoding="utf-8")
    return read_mapping(path)


def written(tmp_path: Path, name: str, content: str | bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(call: Any) -> str:
    with pytest.raises(HeedError) as refused:
        call()
    return str(refused.value)


def rules(tmp_path: Path, settings: str, name: str, content: str | bytes) -> list[str | None]:
    rows = alerts_of(written(tmp_path, name, content), mapping_of(tmp_path, f"[alerts]\n{settings}\n{PLAIN}"))
    return [row.get("rule") for row in rows]


@pytest.mark.parametrize(
    ("settings", "name", "content", "expected"),
    [
        ('encoding = "cp1252"', "a.csv", ROW.replace("cpu", "Gerät").encode("cp1252"), ["Gerät"]),
        ('encoding = "shift_jis"', "a.csv", ROW.replace("cpu", "警告").encode("shift_jis"), ["警告"]),
        ('encoding = "utf-16-le"', "a.csv", ROW.encode("utf-16-le"), ["cpu"]),
        ("", "a.csv", ROW.encode("utf-16"), ["cpu"]),
        ('separator = "^"', "a.csv", ROW.replace(",", "^"), ["cpu"]),
        ('separator = "tab"', "a.txt", ROW.replace(",", "\t"), ["cpu"]),
        ("skip_lines = 2", "a.csv", "id,at,name\nid,at,name\n" + ROW, ["cpu"]),
        ('format = "csv"', "a.export", ROW, ["cpu"]),
        (
            'null_values = ["none", "-"]\ntime_zone = "UTC"',
            "a.csv",
            ROW.replace("cpu", "-") + "2,2026-05-01T08:00:00Z,x\n",
            [None, "x"],
        ),
        ('records = "x.y"', "a.json", '{"x":{"n":1,"y":[{"id":1,"at":"2026-05-01T08:00:00Z","name":"cpu"}]}}', ["cpu"]),
        ("", "a.json", '{"meta":{"of":[1]},"found":[{"id":1,"at":"2026-05-01T08:00:00Z","name":"a"}]}', ["a"]),
        (
            "",
            "a.json",
            '[[{"id":1,"at":"2026-05-01T08:00:00Z","name":"a"}],[{"id":2,"at":"t","name":"b"}]]',
            ["a", "b"],
        ),
        ("", "a.json", '[{"id":1,"at":"2026-05-01T08:00:00Z","name":"a"}]\n[{"id":2,"at":"t","name":"b"}]', ["a", "b"]),
    ],
)
def test_a_setting_that_fits(tmp_path, settings, name, content, expected):
    assert rules(tmp_path, settings, name, content) == expected


@pytest.mark.parametrize(
    ("settings", "name", "content", "parts"),
    [
        ('encoding = "utf-8"', "a.csv", ROW.encode() + b"2,t,Ger\xe4t\n", ("line 3", "not utf-8", "cp1252")),
        ('encoding = "klingon"', "a.csv", ROW, ("'klingon'", "cp1252")),
        ('separator = ";;"', "a.csv", ROW, ("';;'", "one character")),
        ('separator = ";"', "a.csv", ROW, ("does not have", "'id,at,name'")),
        ("skip_lines = -1", "a.csv", ROW, ("skip_lines",)),
        ("skip_lines = 1", "a.csv", ROW, ("does not have",)),
        ('format = "xml"', "a.csv", ROW, ("'xml'", "jsonl")),
        ('records = "Items"', "a.json", '{"Findings":[{"id":1}]}', ("does not have", "Findings")),
        ('decimal = "."\nthousands = "."', "a.csv", ROW, ("the same sign",)),
        ('thousands = "x"', "a.csv", ROW, ("'x'",)),
        ('time_format = "DD/MM"', "a.csv", ROW, ("time_format", "%d/%m/%Y")),
        ('time_zone = "Mars/Base"', "a.csv", ROW, ("'Mars/Base'", "Europe/Berlin")),
        ('time_of_day = "noon"', "a.csv", ROW, ("time_of_day", '"12:00"')),
        ('time_format = "%d/%m/%Y"', "a.csv", ROW, ("row 1", "'2026-05-01T08:00:00Z'", "%Y-%m-%dT%H:%M:%S%z")),
        ('lines = ["(?P<a>"]', "a.log", ROW, ("no regular expression",)),
        ('lines = ["abc"]', "a.log", ROW, ("names no groups",)),
        ('where = "x"', "a.csv", ROW, ("where",)),
        ('decision = [{ time = "at" }]', "a.csv", ROW, ("what was decided",)),
        ('decision = [{ time = "at", type = "name", wen = 1 }]', "a.csv", ROW, ("'wen'", "did you mean when")),
        ('decision = [{ time = "absent", type = "name" }]', "a.csv", ROW, ("'absent'", "does not have")),
        ('sheet = "x"', "a.xlsx", b"PK", ("damaged",)),
    ],
)
def test_a_setting_that_does_not_fit_says_what_would(tmp_path, settings, name, content, parts):
    message = refusal(lambda: rules(tmp_path, settings, name, content))
    for part in parts:
        assert part.lower() in message.lower()
    assert "\n" not in message


TIMES = [
    ("5/21/2026, 9:00:00.123 PM", "", "UTC", "2026-05-21T21:00:00.123000Z"),
    ("01/May/26 7:00 PM", "", "UTC", "2026-05-01T19:00:00Z"),
    ("May 1, 2026 @ 19:00:00.000", "", "", "2026-05-01T19:00:00"),
    ("Fri, 01 May 2026 19:00:00 GMT", "", "", "2026-05-01T19:00:00Z"),
    ("Fri May  1 19:00:00 2026", "", "UTC", "2026-05-01T19:00:00Z"),
    ("2026-05-01 07:00:00 PM", "", "", "2026-05-01T19:00:00"),
    ("12:30 AM is no date", "", "", None),
    ("2026-05-01T19:00:00.1234567Z", "", "", "2026-05-01T19:00:00.123456Z"),
    ("2026-05-01T19:00:00+0530", "", "", "2026-05-01T13:30:00Z"),
    ("20260501T190000Z", "", "", "2026-05-01T19:00:00Z"),
    ("1777662000", "", "", "2026-05-01T19:00:00Z"),
    ("1777662000123", "", "", "2026-05-01T19:00:00.123000Z"),
    ("01.05.2026 19:00", "", "Europe/Berlin", "2026-05-01T17:00:00Z"),
    ("01.05.2026 19:00 CEST", "", "Europe/Berlin", "2026-05-01T17:00:00Z"),
    ("01.05.2026 19:00 EST", "", "Europe/Berlin", None),
    ("2026-05-01 19:00", "", "-03:00", "2026-05-01T22:00:00Z"),
    ("05/06/2026 19:00", "month-first", "UTC", "2026-05-06T19:00:00Z"),
    ("05/06/2026 19:00", "day-first", "UTC", "2026-06-05T19:00:00Z"),
    ("19h00 2026-05-01", "%Hh%M %Y-%m-%d", "UTC", "2026-05-01T19:00:00Z"),
    ("2026-02-30 10:00", "", "", None),
    ("2026-05-01", "", "", None),
]


@pytest.mark.parametrize(("text", "form", "zone", "expected"), TIMES)
def test_times_as_systems_write_them(text, form, zone, expected):
    column = TimeColumn("t", TimeRule((form,) if form else (), zone))
    column.observe(text)
    column.order = column.order or column.own_order()
    assert column.iso(text, 1) == (expected or text)
    assert column.unread == (expected is None)


@given(st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)), st.integers(-11, 13))
def test_every_spelling_of_a_moment_is_that_moment(moment, hours):
    moment = moment.replace(microsecond=0, tzinfo=timezone(timedelta(hours=hours)))
    expected = moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    for form in ("%Y-%m-%dT%H:%M:%S%z", "%d %b %Y %H:%M:%S %z", "%b %d, %Y %I:%M:%S %p %z", "%d.%m.%Y %H:%M:%S %z"):
        text = moment.strftime(form)
        assert TimeColumn("t", TimeRule(), order=DAY_FIRST).iso(text, 1) == expected
        assert TimeColumn("t", TimeRule((form,))).iso(text, 1) == expected
    assert TimeColumn("t", TimeRule()).iso(str(int(moment.timestamp())), 1) == expected or moment.timestamp() < 1e8


@given(st.lists(st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)), min_size=1, max_size=30), st.booleans())
def test_day_or_month_first_is_never_guessed(moments, is_day_first):
    """Either every time is read as it was written, or the file is refused and the question asked."""
    form = "%d/%m/%Y %H:%M" if is_day_first else "%m/%d/%Y %H:%M"
    column = TimeColumn("t", TimeRule())
    for moment in moments:
        column.observe(moment.strftime(form))
    decided = any(moment.day > 12 for moment in moments)
    if not decided and any(moment.day != moment.month for moment in moments):
        assert "no value decides" in refusal(lambda: settle([column], "f", "alerts"))
        return
    settle([column], "f", "alerts")
    for moment in moments:
        assert column.iso(moment.strftime(form), 1) == moment.replace(second=0, microsecond=0).isoformat()


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.log"])
def test_files_of_many_blocks_are_read_whole(tmp_path, monkeypatch, name):
    """Also where a look at the whole file comes first, to settle the order of day and month."""
    monkeypatch.setattr(limits, "BLOCK_BYTES", 500)
    rows = [{"id": n, "at": f"{n % 28 + 1:02}/05/2026 08:00", "name": "cpu"} for n in range(3000)]
    if name == "a.csv":
        content = "id,at,name\n" + "".join(f"{r['id']},{r['at']},cpu\n" for r in rows)
    elif name == "a.log":
        content = "".join(f"{r['id']} [{r['at']}] cpu\n" for r in rows)
    else:
        content = json.dumps(rows) if name == "a.json" else "".join(json.dumps(row) + "\n" for row in rows)
    lines = "lines = ['^(?P<id>\\d+) \\[(?P<at>.*)\\] (?P<name>.*)$']" if name == "a.log" else ""
    mapping = mapping_of(tmp_path, f'[alerts]\n{lines}\ntime_zone = "UTC"\n{PLAIN}')
    read = alerts_of(written(tmp_path, name, content), mapping)
    assert [row["alert_id"] for row in read] == [str(n) for n in range(3000)]
    assert read[4]["raised_at"] == "2026-05-05T08:00:00Z"


def test_one_column_settles_another(tmp_path):
    text = '[[alerts.decision]]\ntime = "closed"\nfixed_type = "fixed"\n'
    mapping = mapping_of(tmp_path, f"[alerts]\n{PLAIN}{text}")
    path = written(tmp_path, "a.csv", "id,at,name,closed\n1,05/06/2026 08:00,x,05/21/2026 09:00\n")
    assert alerts_of(path, mapping)[0]["raised_at"] == "2026-05-06T08:00:00"
    path = written(tmp_path, "b.csv", "id,at,name,closed\n1,05/06/2026 08:00,x,05/07/2026 09:00\n")
    message = refusal(lambda: alerts_of(path, mapping))
    assert "'05/06/2026 08:00'" in message
    assert "--time-format" in message
    for form, expected in ((DAY_FIRST, "2026-06-05T08:00:00"), (MONTH_FIRST, "2026-05-06T08:00:00")):
        assert alerts_of(path, mapping.with_times(form, ""))[0]["raised_at"] == expected


def test_a_column_that_mixes_orders_is_refused(tmp_path):
    path = written(tmp_path, "a.csv", "id,at,name\n1,13/05/2026 08:00,x\n2,05/13/2026 08:00,x\n")
    message = refusal(lambda: alerts_of(path, mapping_of(tmp_path, f'[alerts]\n{PLAIN}time_zone = "UTC"')))
    assert "mixes two formats" in message


def test_dates_without_a_time_need_an_hour(tmp_path):
    path = written(tmp_path, "a.csv", "id,at,name\n1,2026-05-01,x\n2,2026-05-02T10:00:00Z,x\n")
    rows, notes = rows_and_notes(path, mapping_of(tmp_path, f'[alerts]\n{PLAIN}time_zone = "UTC"'))
    assert [row["raised_at"] for row in rows] == ["2026-05-01", "2026-05-02T10:00:00Z"]
    (note,) = notes
    assert (note.name, note.rows) == ("unfit_times", 1)
    assert "'2026-05-01' in row 1" in note.cause
    assert 'time_of_day = "12:00"' in note.remedy
    settings = 'time_of_day = "12:00"\ntime_zone = "Europe/Berlin"'
    assert (
        alerts_of(path, mapping_of(tmp_path, f"[alerts]\n{PLAIN}{settings}"))[0]["raised_at"] == "2026-05-01T10:00:00Z"
    )


def test_the_hours_of_a_clock_change_are_counted(tmp_path):
    path = written(
        tmp_path, "a.csv", "id,at,name\n1,2026-10-25 02:30:00,x\n2,2026-03-29 02:30:00,x\n3,2026-05-01 02:30:00,x\n"
    )
    rows, notes = rows_and_notes(path, mapping_of(tmp_path, f'[alerts]\n{PLAIN}time_zone = "Europe/Berlin"'))
    assert {note.name: note.rows for note in notes} == {"hour_that_comes_twice": 1, "hour_that_never_comes": 1}
    assert [row["raised_at"] for row in rows] == [
        "2026-10-25T01:30:00Z",
        "2026-03-29T01:30:00Z",
        "2026-05-01T00:30:00Z",
    ]


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1)), st.sampled_from(["Europe/Berlin", "America/New_York"]))
def test_a_zone_is_applied_as_the_zone_says(moment, name):
    aware = moment.replace(microsecond=0, tzinfo=UTC).astimezone(ZoneInfo(name))
    column = TimeColumn("t", TimeRule((), name))
    read = column.iso(aware.strftime("%Y-%m-%d %H:%M:%S"), 1)
    assert column.twice or datetime.fromisoformat(read) == aware


def sheet(tmp_path: Path, rows: list[list[str]], name: str = "a.xlsx") -> Path:
    """A workbook of one sheet, as small as the format allows. Cells are XML: <c><v>1</v></c>."""
    head = '<?xml version="1.0" encoding="UTF-8"?>'
    main, doc = (
        "http://schemas.openxmlformats.org",
        "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
    )
    cells = "".join(
        f'<row r="{r}">'
        + "".join(cell.replace("<c", f'<c r="{chr(65 + c)}{r}"', 1) for c, cell in enumerate(row))
        + "</row>"
        for r, row in enumerate(rows, 1)
    )
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{main}/package/2006/content-types"><Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Default Extension="xml" '
        'ContentType="application/xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{main}/package/2006/relationships"><Relationship Id="r1" '
        f'Type="{doc}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}/spreadsheetml/2006/main" xmlns:r="{doc}"><sheets>'
        '<sheet name="Alerts" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{main}/package/2006/relationships"><Relationship '
        f'Id="r1" Type="{doc}/worksheet" Target="worksheets/s1.xml"/><Relationship Id="r2" Type="{doc}/styles" '
        'Target="styles.xml"/></Relationships>',
        "xl/styles.xml": f'<styleSheet xmlns="{main}/spreadsheetml/2006/main"><cellXfs count="2"><xf numFmtId="0"/>'
        '<xf numFmtId="22" applyNumberFormat="1"/></cellXfs></styleSheet>',
        "xl/worksheets/s1.xml": f'<worksheet xmlns="{main}/spreadsheetml/2006/main"><sheetData>{cells}</sheetData>'
        "</worksheet>",
    }
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as archive:
        for part, text in parts.items():
            archive.writestr(part, head + text)
    return path


def text_cell(text: str) -> str:
    return f'<c t="inlineStr"><is><t>{text}</t></is></c>'


def test_a_spreadsheet(tmp_path):
    header = [text_cell(name) for name in ("id", "at", "name", "value")]
    title = [text_cell("Alerts of May")]
    rows = [["<c><v>12</v></c>", '<c s="1"><v>46143.5</v></c>', text_cell("cpu"), "<c><v>7.5</v></c>"]]
    path = sheet(tmp_path, [title, header, *rows])
    mapping = mapping_of(tmp_path, f"[alerts]\n{PLAIN}")
    (row,) = alerts_of(path, mapping)
    assert row["alert_id"] == "12"
    assert row["raised_at"] == "2026-05-01T12:00:00"
    assert row["value"] == "7.5"
    message = refusal(lambda: alerts_of(path, mapping_of(tmp_path, f'[alerts]\nsheet = "May"\n{PLAIN}')))
    assert "no sheet 'May'" in message
    assert "'Alerts'" in message


RECORD = {
    "a": {"b": [{"n": "x", "v": 1}, {"n": "y", "v": 2}], "c.d": "dotted"},
    "tags": ["p", "q"],
    "cell": "{'id': 'S1', 'more': [1, None]}",
    "Issue Key": "K-1",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a.b[0].n", "x"),
        ("a.b[-1].v", 2),
        ("a.b[5].n", None),
        ("a.b.n", "x, y"),
        ("a.b[].v", "1, 2"),
        ("a.b[n=y].v", 2),
        ("a.b[n=z].v", None),
        ("tags[1]", "q"),
        ("cell.id", "S1"),
        ("cell.more[0]", 1),
        ("issue_key", "K-1"),
        ("A.B[0].N", "x"),
        ("nothing.here", None),
        ("tags.x", None),
    ],
)
def test_a_path_into_a_record(path, expected):
    assert look_up(RECORD, path) == expected


texts = st.text(st.sampled_from("ab|\\ é"), max_size=5)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=20))
def test_an_id_of_several_columns_is_the_same_in_tables_and_records(rows):
    plain = joined([pa.array([a for a, _ in rows]), pa.array([b for _, b in rows])]).to_pylist()
    one = Field(("a", "b"), "id")
    assert [one.text({"a": a, "b": b}) for a, b in rows] == plain


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.dictionaries(words, json_values, max_size=4), max_size=6),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([None, 1, 2]),
)
def test_a_stream_of_records_is_what_the_document_holds_however_it_is_cut(items, size, is_wrapped, indent):
    document = json.dumps({"n": 1, "x": {"Findings": items}, "z": [1]} if is_wrapped else items, indent=indent).encode()
    blocks = iter([document[at : at + size] for at in range(0, len(document), size)])
    stream = JsonStream(lambda: next(blocks, b""), "f")
    read = [record for _, record, _ in records(stream, ("x.Findings",) if is_wrapped else ())]
    assert read == items


@given(st.integers(1, 60), st.integers(1, 8))
def test_a_document_that_is_cut_off_is_refused_or_its_last_record_is(cut, size):
    document = json.dumps([{"id": n, "name": "x" * n} for n in range(4)]).encode()[:cut]
    blocks = iter([document[at : at + size] for at in range(0, len(document), size)])
    message = refusal(lambda: list(records(JsonStream(lambda: next(blocks, b""), "f.json"), ())))
    assert "f.json" in message
    assert "line 1" in message


def test_a_cut_off_file_says_where(tmp_path):
    path = written(tmp_path, "a.json", '[\n{"id": 1},\n{"id": 2, "na')
    assert "line 3" in refusal(lambda: alerts_of(path, None))


def test_records_that_are_no_objects_are_rejected_with_their_line(tmp_path):
    path = written(tmp_path, "a.json", '[{"alert_id":1,"raised_at":"t","rule":"r"},\n5,\n{"a":1,"a":2}]')
    from dagster_project.loading.readers import SourceFile, open_reader

    reader = open_reader("alerts", SourceFile(path), None)
    rejected = [(row.line, row.reason) for chunk in reader.chunks() for row in chunk.rejected]
    assert rejected == [(2, "not a JSON object"), (3, "the name 'a' twice in one object")]


DECIDED = """
[alerts]
alert_id = "id"
raised_at = "at"
rule = "name"
[[alerts.decision]]
time = "closed"
type = "how"
actor = "who"
by_machine = { who = ["bot", "~^auto"] }
[[alerts.decision]]
time = "seen"
fixed_type = "acknowledged"
[words]
"gelöst" = "acted"
"""


def test_alert_and_decisions_in_one_row(tmp_path):
    path = written(
        tmp_path,
        "a.csv",
        "id,at,name,closed,how,who,seen,host\n"
        "1,2026-05-01T08:00:00Z,x,2026-05-01T09:00:00Z,gelöst,ann,2026-05-01T08:30:00Z,h\n"
        "2,2026-05-01T08:00:00Z,x,2026-05-01T09:00:00Z,fixed,AutoClose,,h\n"
        "3,2026-05-01T08:00:00Z,x,,,,,h\n"
        "4,2026-05-01T08:00:00Z,x,2026-05-01T09:00:00Z,wat,bob,,h\n",
    )
    mapping = mapping_of(tmp_path, DECIDED)
    assert [sorted(row) for row in alerts_of(path, mapping)] == [["+host", "alert_id", "raised_at", "rule"]] * 4
    rows, notes = rows_and_notes(path, mapping, "actions", decisions_only=True)
    got = [(r["alert_id"], r["action_type"], r.get("actor"), r.get("+type")) for r in rows]
    assert got == [
        ("1", "acted", "ann", '"gelöst"'),
        ("1", "acknowledged", None, None),
        ("2", "closed-by-machine", "AutoClose", '"fixed"'),
        ("4", "wat", "bob", None),
    ]
    (note,) = notes
    assert (note.name, note.rows, note.is_note) == ("decided_by_machine", 1, True)
    assert [row["action_id"] for row in actions_of(path, mapping)] == [row["action_id"] for row in rows]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[words]\nx = 'maybe'\n", "'maybe'"),
        ("[file]\nenconding = 'x'\n", "did you mean encoding"),
        ("[actions]\n[[actions.decision]]\ntime='a'\ntype='b'\n", "only alerts have"),
        ("[alerts]\nempty=['a']\nnull_values=['b']\n", "keep one"),
        ("[alerts]\nrule = { colum = 'a' }\n", "did you mean column"),
        ("[alerts]\nrule = { column = 'a', pattern = '(' }\n", "no regular expression"),
        ("[alerts]\nrule = { column = 'a', first = ['b'] }\n", "which column"),
    ],
)
def test_a_mapping_that_contradicts_itself(tmp_path, text, part):
    assert part in refusal(lambda: mapping_of(tmp_path, text)).lower()
