"""Readers: files to chunks of rows, streamed in bounded memory. CSV and JSON lines (plain or gzip), and Parquet.

Belongs here: choosing the reader for a file.
Does not belong here: attributes and hashes (`loading/rows.py`), the warehouse (`loading/load.py`).
"""

from dagster_project.loading.contract import Kind
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.readers.chunk import Reader
from dagster_project.loading.readers.csv_reader import CsvReader
from dagster_project.loading.readers.jsonl_reader import JsonLinesReader
from dagster_project.loading.readers.parquet_reader import ParquetReader
from dagster_project.loading.readers.source import SourceFile

__all__ = ["SourceFile", "open_reader"]


def open_reader(kind: Kind, source: SourceFile, mapping: Mapping | None) -> Reader:
    """The reader for a file; reads its header and decides what each column becomes, so bad headers raise here."""
    readers = {"csv": CsvReader, "parquet": ParquetReader, "jsonl": JsonLinesReader}
    return readers[source.format](kind, source, mapping or Mapping())
