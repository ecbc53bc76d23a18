"""Readers: files to chunks of rows, streamed in bounded memory. CSV and JSON lines (plain or gzip), and Parquet.

Belongs here: choosing the reader for a file.
Does not belong here: attributes and hashes (`loading/rows.py`), the warehouse (`loading/load.py`), records with fields
inside fields (`loading/records/`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster_project.loading.readers.source import SourceFile

if TYPE_CHECKING:
    from dagster_project.loading.contract import Kind
    from dagster_project.loading.mapping import Mapping
    from dagster_project.loading.readers.chunk import Reader

__all__ = ["SourceFile", "open_reader"]


def open_reader(kind: Kind, source: SourceFile, mapping: Mapping | None, *, decisions_only: bool = False) -> Reader:
    """The reader for a file; reads its header and decides what each column becomes, so bad headers raise here.

    decisions_only : `kind` is actions, and the file holds alerts with decisions in them.
    """
    # Not at the top: what a mapping is made of uses parts of this package.
    from dagster_project.loading.mapping import Mapping
    from dagster_project.loading.readers.csv_reader import CsvReader
    from dagster_project.loading.readers.jsonl_reader import JsonLinesReader
    from dagster_project.loading.readers.layout import Layout
    from dagster_project.loading.readers.parquet_reader import ParquetReader
    from dagster_project.loading.records.reader import RecordReader

    mapping = mapping or Mapping()
    table: Kind = "alerts" if decisions_only else kind
    as_records = mapping.records.get(table)
    layout = mapping.layouts.get(table, Layout())
    plain = {"csv": CsvReader, "parquet": ParquetReader, "jsonl": JsonLinesReader}
    is_table = source.format in plain and not layout.records and not layout.lines
    if as_records is None and is_table and (source.format != "jsonl" or source.is_by_line()):
        return plain[source.format](kind, source, mapping)
    return RecordReader(kind, source, as_records or mapping.as_records(table), layout, decisions_only=decisions_only)
