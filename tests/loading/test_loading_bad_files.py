"""Bad input, one test each: one clear line that names cause and remedy, and nothing loaded or lost."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from loading_store import Store

from dagster_project.errors import HeedError
from dagster_project.loading import load_file, readers
from dagster_project.loading.readers import limits

HEADER = "alert_id,raised_at,rule\n"


@pytest.fixture
def refused(no_warehouse):
    """The message with which a file is refused before the warehouse is touched."""

    def message(path: Path, kind: Any = "alerts", **options: Any) -> str:
        with pytest.raises(HeedError) as caught:
            load_file(kind, path, no_warehouse, **options)
        text = str(caught.value)
        assert "\n" not in text
        assert caught.value.cause
        assert caught.value.remedy
        return text

    return message


def written(tmp_path: Path, name: str, content: bytes) -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_a_missing_file(tmp_path, refused):
    assert "alerts.csv does not exist" in refused(tmp_path / "alerts.csv")


def test_a_directory(tmp_path, refused):
    folder = tmp_path / "alerts.csv"
    folder.mkdir()
    assert "is a directory" in refused(folder)


def test_a_pipe(tmp_path, refused):
    os.mkfifo(tmp_path / "alerts.csv")
    assert "not a regular file" in refused(tmp_path / "alerts.csv")


def test_a_path_that_no_system_allows(tmp_path, refused):
    assert "cannot be read" in refused(Path("a\0b.csv"))


def test_an_empty_file(tmp_path, refused):
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        assert "is empty (0 bytes)" in refused(written(tmp_path, name, b""))


def test_a_file_of_empty_lines(tmp_path, refused):
    assert "has no header line" in refused(written(tmp_path, "a.csv", b"\n\r\n"))
    assert "has no header line" in refused(written(tmp_path, "a.csv.gz", gzip.compress(b"")))


def test_a_header_only_is_fine_and_says_so(store):
    report = store.load("alerts", store.write("a.csv", HEADER))
    assert (report.rows_read, report.rows_added) == (0, 0)
    assert "a header and no rows" in report.summary()


def test_a_parquet_file_without_rows_is_fine(store):
    schema = pa.schema([(name, pa.string()) for name in HEADER.strip().split(",")])
    pq.write_table(schema.empty_table(), store.folder / "a.parquet")
    assert store.load("alerts", store.folder / "a.parquet").rows_read == 0


def test_a_missing_required_column(tmp_path, refused):
    message = refused(written(tmp_path, "a.csv", b"alert_id,raised,rule\n1,t,r\n"))
    assert "a.csv has no column raised_at" in message
    assert "'raised'" in message
    assert 'raised_at = "raised"' in message


def test_a_missing_required_column_in_every_format(tmp_path, refused):
    pq.write_table(pa.table({"alert_id": ["1"]}), tmp_path / "a.parquet")
    assert "no columns raised_at, rule" in refused(tmp_path / "a.parquet")
    assert "no columns raised_at, rule" in refused(written(tmp_path, "a.jsonl", b'{"alert_id": 1}\n'))


def test_duplicate_header_names(tmp_path, refused):
    assert "'rule' twice" in refused(written(tmp_path, "a.csv", b"alert_id,raised_at,rule,rule\n"))


def test_an_unknown_ending(tmp_path, refused):
    assert "save the sheet as csv" in refused(written(tmp_path, "a.xlsx", b"x")).casefold()
    for name in ("a", "a.gz", "a.parquet.gz", "a.zip"):
        assert "use .csv" in refused(written(tmp_path, name, b"x")).casefold()


def test_text_in_utf_16(tmp_path, refused):
    assert "looks like UTF-16" in refused(written(tmp_path, "a.csv", HEADER.encode("utf-16-le")))


def test_a_header_that_is_not_utf_8(tmp_path, refused):
    assert "not UTF-8" in refused(written(tmp_path, "a.csv", "alert_id,raised_at,rule,gerät\n".encode("latin-1")))


def test_a_header_whose_quote_is_never_closed(tmp_path, refused):
    assert "header" in refused(written(tmp_path, "a.csv", b'"alert_id,raised_at,rule\n1,t,r\n'))


def test_gzip_that_is_not_gzip(tmp_path, refused):
    assert "is not gzip" in refused(written(tmp_path, "a.csv.gz", HEADER.encode()))


@pytest.mark.parametrize("damage", ["cut", "flipped", "tail"])
def test_a_damaged_gzip_file(store, damage):
    chance = random.Random(3)
    rows = "".join(f"{i},{chance.random()},r\n" for i in range(20_000))
    content = bytearray(gzip.compress((HEADER + rows).encode()))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    else:
        content += b"not gzip"
    with pytest.raises(HeedError, match="damaged or cut off"):
        store.load("alerts", store.write("a.csv.gz", bytes(content)))
    assert store.is_empty()


def test_a_gzip_file_made_to_fill_a_disk(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(limits, "GZIP_FREE_BYTES", 1 << 20)
    path = written(tmp_path, "a.csv.gz", gzip.compress(HEADER.encode() + b"1,t,r\n" * 2_000_000))
    assert "made to fill disks" in refused(path)


def test_parquet_that_is_not_parquet(tmp_path, refused):
    assert "is not a Parquet file" in refused(written(tmp_path, "a.parquet", HEADER.encode()))
    assert "damaged or cut off" in refused(written(tmp_path, "a.parquet", b"PAR1" + HEADER.encode()))


def parquet_bytes(tmp_path: Path, rows: int) -> bytearray:
    table = pa.table(
        {
            "alert_id": [str(i) for i in range(rows)],
            "raised_at": ["t"] * rows,
            "rule": [f"r{i % 7}" for i in range(rows)],
        }
    )
    pq.write_table(table, tmp_path / "whole.parquet", row_group_size=max(1, rows // 4))
    return bytearray((tmp_path / "whole.parquet").read_bytes())


def test_a_damaged_parquet_file_loads_nothing(store):
    content = parquet_bytes(store.folder, 20_000)
    for at in (len(content) // 5, len(content) // 3):
        broken = content.copy()
        broken[at : at + 2000] = bytes(2000)
        with pytest.raises(HeedError, match="damaged or cut off"):
            store.load("alerts", store.write("a.parquet", bytes(broken)))
        assert store.is_empty()
    with pytest.raises(HeedError, match="damaged or cut off"):
        store.load("alerts", store.write("a.parquet", bytes(content[:-100])))


def test_parquet_with_any_bytes_changed_is_loaded_or_refused_but_never_a_traceback(tmp_path, refused):
    whole = parquet_bytes(tmp_path, 50)
    chance = random.Random(5)
    survived = 0
    for _ in range(300):
        content = whole.copy()
        for _ in range(chance.choice([1, 1, 3])):
            content[chance.randrange(4, len(content))] = chance.randrange(256)
        path = written(tmp_path, "a.parquet", bytes(content))
        try:
            source = readers.SourceFile(path)
            for chunk in readers.open_reader("alerts", source, None).chunks():
                survived += chunk.rows > 0
        except HeedError:
            pass
    assert survived > 0


def test_parquet_that_claims_more_rows_than_its_bytes_can_hold(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(limits, "PARQUET_FREE_ROWS", 1000)
    n = 2_000_000
    table = pa.table({name: pa.nulls(n, pa.string()) for name in HEADER.strip().split(",")})
    one_page = {"row_group_size": n, "write_batch_size": n, "max_rows_per_page": n, "data_page_size": 1 << 30}
    pq.write_table(table, tmp_path / "a.parquet", **one_page)
    assert "claims 2,000,000 rows" in refused(tmp_path / "a.parquet")


def test_parquet_whose_rows_share_one_long_text(tmp_path, monkeypatch):
    """200,000 rows of 100 kB each, 20 GB, in a small file: read in parts, and refused once that is beyond belief."""
    n, long = 200_000, "x" * 100_000
    titles = pa.DictionaryArray.from_arrays(pa.array([0] * n, pa.int32()), [long])
    ids = pa.array([f"a{i}" for i in range(n)])
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"alert_id": ids, "raised_at": ids, "rule": ids, "title": titles}), path)
    source = readers.SourceFile(path)
    monkeypatch.setattr(limits, "PARQUET_FREE_BYTES", 64 << 20)
    monkeypatch.setattr(limits, "PARQUET_RATIO", 40)
    rows, biggest = 0, 0
    with pytest.raises(HeedError, match="times its size"):  # noqa: PT012
        for chunk in readers.open_reader("alerts", source, None).chunks():
            rows += chunk.rows
            biggest = max(biggest, chunk.contract["title"].nbytes)
    assert biggest <= limits.PARQUET_CHUNK_BYTES + len(long)
    source.close()


def test_parquet_with_dictionaries_is_read_like_any_other(tmp_path):
    texts = [None, "", "é", "x" * 300, "x" * 300, "\\N"] * 50
    table = pa.table({name: pa.array(texts) for name in ("alert_id", "raised_at", "rule", "team")})
    read = {}
    for name, folded in (("folded", True), ("plain", False)):
        pq.write_table(table, tmp_path / f"{name}.parquet", use_dictionary=folded, row_group_size=70)
        source = readers.SourceFile(tmp_path / f"{name}.parquet")
        chunks = list(readers.open_reader("alerts", source, None).chunks())
        read[name] = {key: [v for c in chunks for v in c.contract[key].to_pylist()] for key in chunks[0].contract}
        source.close()
    assert read["folded"] == read["plain"]
    assert read["plain"]["team"] == [text or None for text in texts]


def test_a_json_lines_file_that_is_none(tmp_path, refused):
    assert "no JSON at line 2" in refused(written(tmp_path, "a.jsonl", b"[1]\nfoo\n"))


HOSTILE = [
    "rule 'a'; DROP TABLE raw.alerts; --",
    'rule "b" \\ $$ %s {{ x }} $1',
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "🚨👩‍👩‍👧 ńÆ中",
    "\\N",
    "NULL",
    "x" * 10_000,
    "line\r\nbreak\ttab",
    " outer blanks ",
]


def test_rule_names_of_every_kind_arrive_as_they_are(store):
    import csv
    import io

    text = io.StringIO(newline="")
    csv.writer(text).writerows([HEADER.strip().split(","), *([str(i), "t", rule] for i, rule in enumerate(HOSTILE))])
    store.load("alerts", store.write("a.csv", text.getvalue()))
    assert [rule for (rule,) in store.rows("SELECT rule FROM raw.alerts ORDER BY alert_id::int")] == HOSTILE
    n = len(HOSTILE)
    table = pa.table({"alert_id": [str(i) for i in range(n)], "raised_at": ["t"] * n, "rule": HOSTILE})
    pq.write_table(table, store.folder / "a.parquet")
    assert store.load("alerts", store.folder / "a.parquet").rows_unchanged == len(HOSTILE)


def test_hostile_column_names_are_keys_and_nothing_else(store):
    name = 'x"; DROP TABLE raw.alerts; --'
    text = HEADER.strip() + ',"' + name.replace('"', '""') + '"\n1,t,r,v\n'
    store.load("alerts", store.write("a.csv", text))
    assert store.rows("SELECT attributes::jsonb ->> %s FROM raw.alerts", name) == [("v",)]


def test_long_ids_are_loaded(store):
    long = "i" * 100_000
    text = HEADER + f"{long},t,r\n"
    assert store.load("alerts", store.write("a.csv", text)).rows_added == 1
    assert store.load("alerts", store.write("a.csv", text + "2,t,r\n")).rows_added == 1


def test_tables_of_the_users_own_are_not_loaded_into(store: Store):
    store.rows("ALTER TABLE raw.alerts RENAME COLUMN row_hash TO something")
    try:
        with pytest.raises(HeedError, match="not the table that heed loads into: it has no column row_hash"):
            store.load("alerts", store.write("a.csv", HEADER + "1,t,r\n"))
    finally:
        store.rows("ALTER TABLE raw.alerts RENAME COLUMN something TO row_hash")


def test_a_warehouse_that_refuses_is_said_in_one_line(store: Store):
    store.rows("ALTER TABLE raw.alerts ADD CONSTRAINT no_thanks CHECK (rule <> 'r')")
    try:
        with pytest.raises(HeedError, match=r"the warehouse did not take .*no_thanks") as caught:
            store.load("alerts", store.write("a.csv", HEADER + "1,t,q\n2,t,r\n"))
        assert "\n" not in str(caught.value)
    finally:
        store.rows("ALTER TABLE raw.alerts DROP CONSTRAINT no_thanks")
    assert store.is_empty()
