"""The records of a file, whatever its format: blocks of dictionaries, and the rows that cannot be decoded.

Belongs here: one way to read every format as records, and names for repeated headers.
Does not belong here: grammar of the formats (`readers/`, `json_stream.py`), what a record means (`reader.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from dagster_project.errors import HeedError
from dagster_project.loading.columns import ColumnPlan, numbered
from dagster_project.loading.contract import Kind
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.readers import limits
from dagster_project.loading.readers.chunk import RejectedRow, rejected_row
from dagster_project.loading.readers.csv_reader import CsvReader
from dagster_project.loading.readers.jsonl_reader import json_object
from dagster_project.loading.readers.layout import Layout
from dagster_project.loading.readers.parquet_reader import ParquetReader
from dagster_project.loading.readers.sheet import sheet_rows
from dagster_project.loading.readers.source import BYTE_ORDER_MARK, SourceFile
from dagster_project.loading.records.fields import Record
from dagster_project.loading.records.json_stream import JsonStream, find_list, records

_BLOCK = 4096  # records that are held at a time


@dataclass
class Block:
    """Some records of a file with their rows, counted from 1 (lines, where the format has them)."""

    records: list[tuple[int, Record]] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.records) + len(self.rejected)


class RecordSource:
    """The records of one file.

    names : the header; None where each record has its own keys. delimiter, before_header : as readers have them.
    passed_over : lines that are no records, by a mapping's `lines`. list_at : the path of the list that was read.
    """

    names: tuple[str, ...] | None = None
    delimiter = ""
    before_header = 0
    passed_over = 0
    list_at = ""

    def blocks(self) -> Iterator[Block]:
        raise NotImplementedError


def open_records(
    kind: Kind, source: SourceFile, layout: Layout, fits: Callable[[Sequence[str]], HeedError | None]
) -> RecordSource:
    """The records of a file. fits : why a header cannot be the header, for tables with lines in front of it."""
    if layout.lines or source.format == "lines":
        return _Lines(source, layout)
    if source.format in ("json", "jsonl"):
        return _Json(source, layout)
    if source.format == "sheet":
        return _Sheet(source, layout, fits)
    return _Table(kind, source, layout, fits)


class _Table(RecordSource):
    """CSV and Parquet by their own readers, every column as text."""

    def __init__(
        self, kind: Kind, source: SourceFile, layout: Layout, fits: Callable[[Sequence[str]], HeedError | None]
    ) -> None:
        def plan(header: Sequence[str]) -> ColumnPlan:
            names = numbered([name.strip() or f"unnamed_{at + 1}" for at, name in enumerate(header)])
            if (error := fits(names)) is not None:
                raise error
            return ColumnPlan({name: at for at, name in enumerate(names)}, (), ())

        mapping = Mapping(layouts={kind: layout})
        reader = ParquetReader if source.format == "parquet" else CsvReader
        self._open = lambda: reader(kind, source, mapping, plan)
        first = self._open()
        self.names = tuple(first.plan.contract)
        self.delimiter, self.before_header = first.delimiter, first.before_header

    def blocks(self) -> Iterator[Block]:
        row = 0
        for chunk in self._open().chunks():  # a reader reads once
            names = list(chunk.contract)
            for at in range(0, max(chunk.rows, 1), _BLOCK):
                block = Block([], chunk.rejected if at == 0 else [])
                columns = [chunk.contract[name].slice(at, _BLOCK).to_pylist() for name in names]
                for cells in zip(*columns, strict=True) if columns else ():
                    row += 1
                    block.records.append((row, dict(zip(names, cells, strict=True))))
                yield block


class _Sheet(RecordSource):
    def __init__(self, source: SourceFile, layout: Layout, fits: Callable[[Sequence[str]], HeedError | None]) -> None:
        self._rows = sheet_rows(source, layout.sheet)
        error: HeedError | None = None
        for at in range(layout.skip_lines, min(len(self._rows), layout.skip_lines + limits.LINES_BEFORE_HEADER)):
            if not any(cell is not None and str(cell).strip() for cell in self._rows[at]):
                continue
            cells = ["" if cell is None else str(cell) for cell in self._rows[at]]
            names = numbered([name.strip() or f"unnamed_{i + 1}" for i, name in enumerate(cells)])
            refused = fits(names)
            if refused is None:
                self.names, self._first = tuple(names), at + 1
                return
            error = error or refused
        raise error or HeedError(f"the sheet of {source.path} is empty", "export it again; nothing was loaded")

    def blocks(self) -> Iterator[Block]:
        names = self.names or ()
        block = Block()
        for row, cells in enumerate(self._rows[self._first :], self._first + 1):
            if any(cell not in (None, "") for cell in cells):
                block.records.append((row, dict(zip(names, cells, strict=False))))
            if len(block) >= _BLOCK:
                yield block
                block = Block()
        yield block


class _Json(RecordSource):
    """JSON documents, or one object a line."""

    def __init__(self, source: SourceFile, layout: Layout) -> None:
        self._source = source
        stream = source.stream()
        first = source.read(stream).removeprefix(BYTE_ORDER_MARK)
        lines = [line for line in first.split(b"\n", 50)[:50] if line.strip()]
        whole = [json_object(line) for line in lines[: max(1, len(lines) - 1)]]
        self._by_line = source.format == "jsonl" and any(isinstance(one, dict) for one in whole)
        self._by_line = self._by_line and not layout.records
        self._paths = layout.records
        if not self._by_line and not layout.records:
            path = find_list(self._open())
            self.list_at = ".".join(path or ())
            self._found = (self.list_at,) if self.list_at else ()
        else:
            self._found = ()

    def _open(self) -> JsonStream:
        stream = self._source.stream()
        return JsonStream(lambda: self._source.read(stream), str(self._source.path))

    def blocks(self) -> Iterator[Block]:
        if self._by_line:
            yield from self._lines()
            return
        block = Block()
        for line, record, text in records(self._open(), self._paths or self._found):
            if isinstance(record, dict):
                block.records.append((line, record))
            else:
                block.rejected.append(rejected_row(line, record, text.encode("utf-8", "backslashreplace")))
            if len(block) >= _BLOCK:
                yield block
                block = Block()
        yield block

    def _lines(self) -> Iterator[Block]:
        block = Block()
        for number, line in _lines_of(self._source):
            content = json_object(line)
            if isinstance(content, dict):
                block.records.append((number, content))
            elif content is not None:
                block.rejected.append(rejected_row(number, content, line))
            if len(block) >= _BLOCK:
                yield block
                block = Block()
        yield block


class _Lines(RecordSource):
    """Text whose lines match regular expressions with named groups: logs."""

    def __init__(self, source: SourceFile, layout: Layout) -> None:
        if not layout.lines:
            raise HeedError(
                f"{source.path} is a log, and no mapping says what its lines mean",
                "name the preset (--preset nagios), or write lines = [...] in the mapping",
            )
        self._source = source
        self._patterns = [re.compile(pattern) for pattern in layout.lines]

    def blocks(self) -> Iterator[Block]:
        self.passed_over = 0
        block = Block()
        for number, line in _lines_of(self._source):
            try:
                text = line.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                block.rejected.append(rejected_row(number, "not UTF-8", line))
                continue
            if "\0" in text:
                block.rejected.append(rejected_row(number, "a NUL character", line))
                continue
            match = next((m for pattern in self._patterns if (m := pattern.search(text))), None)
            if match is None:
                self.passed_over += bool(text.strip())
                continue
            block.records.append((number, dict(match.groupdict())))
            if len(block) >= _BLOCK:
                yield block
                block = Block()
        yield block


def _lines_of(source: SourceFile) -> Iterator[tuple[int, bytes]]:
    stream = source.stream()
    rest, number, block = b"", 0, source.read(stream).removeprefix(BYTE_ORDER_MARK)
    while block:
        *lines, rest = (rest + block).split(b"\n")
        rest = rest[: limits.MAX_RECORD_BYTES + 1]
        for line in lines:
            number += 1
            yield number, line
        block = source.read(stream)
    if rest:
        yield number + 1, rest
