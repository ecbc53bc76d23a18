"""Files to chunks of rows: CSV (plain or gzip), Parquet, JSON lines; streamed, in bounded memory.

Belongs here: opening and identifying files, headers and delimiters, encodings, what makes a row undecodable.
Does not belong here: attributes and hashes (`rows.py`), the warehouse (`load.py`).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
import os
import re
import stat
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from dagster_project.errors import HeedError
from dagster_project.loading import arrow_text
from dagster_project.loading.contract import (
    COLUMNS,
    NUMBERS,
    OWN_COLUMNS,
    ColumnPlan,
    Kind,
    Mapping,
    matched_names,
    normal_name,
    plan_columns,
    shown,
)
from dagster_project.loading.values import joined

if TYPE_CHECKING:
    import pyarrow.parquet as pq


# Measured on a million alerts of 207 bytes: 1 MiB takes 15% more CPU than 4 MiB, 16 MiB takes no less than 4.
BLOCK_BYTES = 4 << 20
# Longer than any record seen in alert exports by orders of magnitude; more is a file that is not what it says.
MAX_RECORD_BYTES = 8 << 20
# Of an undecodable row so much is kept; the reason tells when there was more.
CONTENT_BYTES = 1 << 20
CHUNK_ROWS = 1 << 16
# A record over several lines is read again line by line when it has the wrong number of fields; not beyond this size,
# since reading again costs its square in the worst case.
REREAD_CHARACTERS = 1 << 16
MAX_COLUMNS = 1 << 14
# gzip shrinks at most 1032-fold. Measured: the Wolfi export 6-fold, alerts with 50 constant attributes each 107-fold. A
# file beyond 300-fold that also is large was made to fill a disk.
GZIP_RATIO, GZIP_FREE_BYTES = 300, 1 << 28
# Measured: a column of consecutive numbers, delta-encoded and compressed, holds 181 rows a byte, and alerts have three
# columns at least. Rows beyond this are the same row over and over.
PARQUET_ROWS_PER_BYTE, PARQUET_FREE_ROWS = 200, 1 << 20
PARQUET_ROW_GROUP_BYTES = 4 << 30
PARQUET_CHUNK_BYTES = 32 << 20
# A dictionary holds a text once, however many rows have it: what a file says about its size does not tell what its rows
# hold. 300-fold, as for gzip, is far beyond what alerts reach; nested values are read a few rows at a time.
PARQUET_RATIO, PARQUET_FREE_BYTES = GZIP_RATIO, GZIP_FREE_BYTES
PARQUET_NESTED_ROWS = 256

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_ENDINGS = ".csv, .tsv, .jsonl (each also with .gz) or .parquet"
_OTHER_FORMATS = {
    ".json": "write one object a line, for example with `jq -c '.[]' FILE.json > FILE.jsonl` where it is an array",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV in UTF-8, with ids as text, and load that"),
}
DELIMITERS = (",", ";", "\t", "|")
# Some exports begin with a title, a date and an empty line. Further down a header is not looked for.
LINES_BEFORE_HEADER = 20
# Python's own limit, 128 KiB, is a setting of the whole process; nothing else in heed reads CSV with it.
csv.field_size_limit(max(csv.field_size_limit(), 4 * MAX_RECORD_BYTES))
_SEPARATOR_LINE = re.compile(rb'"?sep=([,;\t|])"?', re.IGNORECASE)
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass
class SetAside:
    """A row that could not be decoded: line (or row) number from 1, why, and its content as text."""

    line: int
    reason: str
    content: str


@dataclass
class Chunk:
    """Some rows of a file.

    Attributes
    ----------
    rows : number of decodable rows.
    contract : contract column -> string array[rows]; absent columns are absent here; empty cells are null.
    further : (name, JSON values as string array[rows], null where empty) of the columns that become attributes.
    set_aside : undecodable rows among them.
    typed : contract columns that the file holds as numbers, not as text: no convention changes how they are written.
    """

    rows: int
    contract: dict[str, pa.Array]
    further: list[tuple[str, pa.Array]]
    set_aside: list[SetAside] = field(default_factory=list)
    typed: frozenset[str] = frozenset()


class SourceFile:
    """One regular file, open for reading, of a known format.

    Raises
    ------
    HeedError
        It does not exist, is no regular file, cannot be read, is empty, or has an ending that heed does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        ending = path.suffix.lower()
        says_gzip = ending == ".gz"
        if says_gzip:
            ending = Path(path.stem).suffix.lower()
        known = FORMATS.get(ending)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise HeedError(f"the file {path} does not exist", "correct the path; nothing was loaded") from error
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if stat.S_ISDIR(status.st_mode):
            raise HeedError(f"{path} is a directory", "name one file; load several one after the other")
        if not stat.S_ISREG(status.st_mode):
            raise HeedError(
                f"{path} is not a regular file", "write its content to a file first, since it is read twice"
            )
        if known is None or (says_gzip and known == "parquet"):
            raise HeedError(
                f"the ending of {path} says nothing that heed can read",
                _OTHER_FORMATS.get(ending, f"use {_ENDINGS}, as fits the content"),
            )
        if status.st_size == 0:
            raise HeedError(f"{path} is empty (0 bytes)", "export it again; nothing was loaded")
        try:
            self.raw: IO[bytes] = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        self.format = known
        self.bytes_total = status.st_size
        self.position: int | None = None  # how far, for formats that are not read from front to back
        self._stamp = _stamp(os.fstat(self.raw.fileno()))
        self.is_gzip = known != "parquet" and self.raw.read(2) == _GZIP_MAGIC
        self.raw.seek(0)
        if says_gzip and not self.is_gzip:
            self.raw.close()
            raise HeedError(
                f"{path} is not gzip, though its name says so",
                f"rename it to {path.stem} if it is plain text, or compress it again",
            )

    def close(self) -> None:
        self.raw.close()

    def bytes_read(self) -> int:
        """How far the file itself (compressed, where it is) has been read."""
        return min(self.raw.tell() if self.position is None else self.position, self.bytes_total)

    def stream(self) -> IO[bytes]:
        """The decompressed content from the start."""
        self.raw.seek(0)
        return cast("IO[bytes]", gzip.GzipFile(fileobj=self.raw, mode="rb")) if self.is_gzip else self.raw

    def read(self, stream: IO[bytes]) -> bytes:
        """The next block of the content; b"" at its end."""
        try:
            return stream.read(BLOCK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise HeedError(
                f"the gzip file {self.path} is damaged or cut off ({' '.join(str(error).split())})",
                "fetch or export it again; nothing was loaded",
            ) from error
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def sha256(self, extra: bytes, tell: Callable[[], None]) -> str:
        """SHA-256 of the decompressed content, then of `extra`. Reads it whole, and so finds damage before loading."""
        digest = hashlib.sha256()
        self.position = None
        stream, size = self.stream(), 0
        while block := self.read(stream):
            digest.update(block)
            size += len(block)
            if self.is_gzip and size > GZIP_FREE_BYTES and size > GZIP_RATIO * self.bytes_total:
                raise HeedError(
                    f"{self.path} holds more than {GZIP_RATIO} times its size, as files do that are made to fill disks",
                    "decompress it yourself if you trust it, and load that",
                )
            tell()
        digest.update(extra)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise if the file was written to since it was opened: then its parts do not belong together."""
        if _stamp(os.fstat(self.raw.fileno())) != self._stamp:
            raise HeedError(
                f"{self.path} changed while it was read", "load it when its writer has finished; nothing was loaded"
            )


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: Exception) -> HeedError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return HeedError(f"{path} cannot be read ({reason})", "name a file that you may read; nothing was loaded")


class Reader:
    """A file's rows in chunks. `ignored` are the names of columns that are not loaded; `before_header` counts lines
    that are set aside and are no rows; `delimiter` is that of CSV."""

    ignored: tuple[str, ...] = ()
    before_header: int = 0
    delimiter: str = ""

    def chunks(self) -> Iterator[Chunk]:
        raise NotImplementedError


def open_reader(kind: Kind, source: SourceFile, mapping: Mapping | None) -> Reader:
    """The reader for a file; reads its header and decides what each column becomes, so bad headers raise here."""
    readers = {"csv": CsvReader, "parquet": ParquetReader, "jsonl": JsonLinesReader}
    return readers[source.format](kind, source, mapping)


def _contract(plan: ColumnPlan, text_of: Callable[[int], pa.Array]) -> dict[str, pa.Array]:
    """The contract's columns, given the text of each column of the file."""
    contract = {name: text_of(at) for name, at in plan.contract.items()}
    contract |= {name: joined([text_of(at) for at in parts]) for name, parts in plan.composed.items()}
    return contract


# --- CSV ---------------------------------------------------------------------------------------------------------


class CsvReader(Reader):
    """CSV with a header line, delimited by comma, semicolon, tab or |, in UTF-8.

    A line `sep=;`, as Excel writes it, names the delimiter. Lines before the header are set aside.

    Grammar: RFC 4180. A field is quoted when its first character is a quote; inside, two quotes are one and newlines
    belong to the field. Elsewhere a quote is an ordinary character. Lines end with LF, CRLF or CR; empty ones are
    no records. A delimiter at the end of a row is no further field, nor does a row need one because the header has it.

    Two parsers share the work. Blocks in which every line is a whole record go through pyarrow, column-wise (13
    columns: 370,000 rows a CPU second, everything in this module included). pyarrow alone would not do (26.0, tried):
    one byte that is not UTF-8 fails the block, one quote that is never closed swallows what follows, and rows set aside
    carry no line number. So a block with anything out of the ordinary goes through the csv module of Python record by
    record (80,000 rows a CPU second): there a broken record gives up its first line only, and reading goes on with
    the next line. A property test holds the two to the same answers.
    """

    def __init__(self, kind: Kind, source: SourceFile, mapping: Mapping | None) -> None:
        self.source = source
        self._stream = source.stream()
        first = source.read(self._stream)
        if first[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first[:4]:
            raise HeedError(
                f"{source.path} is not UTF-8 text (it looks like UTF-16)", f"save it as CSV in UTF-8{_iconv('UTF-16')}"
            )
        lines = first.removeprefix(_BYTE_ORDER_MARK).splitlines(keepends=True)
        filled = [i for i, line in enumerate(lines[:1000]) if line.strip(b"\r\n")]
        delimiters: Sequence[str] = DELIMITERS
        if filled and (named := _SEPARATOR_LINE.fullmatch(lines[filled[0]].strip(b"\r\n"))):
            delimiters = (named[1].decode(),)
            filled = filled[1:]
        if not filled:
            raise HeedError(
                f"{source.path} has no header line", "write the column names on its first line; nothing was loaded"
            )
        header = self._plan(kind, mapping, lines, filled[0], delimiters)
        if isinstance(header, HeedError):
            later = (self._plan(kind, mapping, lines, at, delimiters) for at in filled[1:LINES_BEFORE_HEADER])
            header = next((plan for plan in later if not isinstance(plan, HeedError)), header)
        if isinstance(header, HeedError):
            raise header
        self.plan, self.delimiter, names, at, end = header
        self.ignored = self.plan.ignored
        self.columns = len(names)
        d = re.escape(self.delimiter)
        # Text like "say \"stop\" now" is not CSV; read as such it would lose one quote and gain another.
        self._escapes = re.compile(rf'\\"[^"\r\n{d}]'.encode())
        self._escaped = re.compile(rf'(?:^|{d})"(?:[^"]|"")*\\"[^"\r\n{d}]')
        self._last_is_unnamed = not names[-1].strip()
        self._before = [
            _set_aside(i + 1, "a line before the header", lines[i].rstrip(b"\r\n")) for i in filled if i < at
        ]
        self.before_header = len(self._before)
        self._first, self._line = b"".join(lines[end:]), end + 1

    def _plan(
        self, kind: Kind, mapping: Mapping | None, lines: list[bytes], at: int, delimiters: Sequence[str]
    ) -> tuple[ColumnPlan, str, list[str], int, int] | HeedError:
        """A line as the header: plan, delimiter, names, its line and the line behind it; or why it is none."""
        best: tuple[tuple[int, int], str, list[str], int] | None = None
        try:
            for delimiter in delimiters:
                if (found := self._header(lines, at, delimiter)) is not None:
                    names, end = found
                    measure = (matched_names(kind, names, mapping), len(names))
                    if best is None or measure > best[0]:
                        best = (measure, delimiter, names, end)
            if best is None:
                return HeedError(
                    f"the header of {self.source.path} cannot be read (a quote is not closed, or too many columns)",
                    "write the column names on its first line; nothing was loaded",
                )
            _, delimiter, names, end = best
            return plan_columns(kind, names, mapping, self.source.name), delimiter, names, at, end
        except HeedError as error:
            return error

    def _header(self, lines: list[bytes], at: int, delimiter: str) -> tuple[list[str], int] | None:
        """The column names as this delimiter gives them, and the line behind them; None where it does not fit."""
        try:
            reader = csv.reader((line.decode() for line in lines[at : at + 1000]), delimiter=delimiter, strict=True)
            names = next(reader)
        except UnicodeDecodeError as error:
            raise HeedError(
                f"the header of {self.source.path} is not UTF-8",
                f"save the file as CSV in UTF-8{_iconv('WINDOWS-1252')}; nothing was loaded",
            ) from error
        except csv.Error:
            return None
        return (names, at + reader.line_num) if len(names) <= MAX_COLUMNS else None

    def chunks(self) -> Iterator[Chunk]:
        if self._before:
            yield self._rows([], self._before)
        rest, block = b"", self._first or self.source.read(self._stream)
        final = False
        while not final:
            content = rest + block
            block = self.source.read(self._stream)
            final = not block
            cut = len(content) if final else _whole_lines(content)
            content, rest = content[:cut], content[cut:]
            if len(rest) > MAX_RECORD_BYTES:
                rest = rest[: MAX_RECORD_BYTES + 1]  # what follows is dropped as it comes; the line is then set aside
            if not content:
                continue
            table = self._fast(content)
            if table is not None:
                yield self._columns([column.combine_chunks() for column in table.columns], [])
                self._line += content.count(b"\n")
            else:
                unfinished = yield from self._careful(content, final)
                rest = unfinished + rest

    def _fast(self, content: bytes) -> pa.Table | None:
        """A block as columns, or None unless each of its lines is one record beyond doubt."""
        if (
            b"\0" in content
            or self._escapes.search(content)
            or content.count(b'"') % 2
            or content.count(b"\r") != content.count(b"\r\n")
        ):
            return None
        if not content.endswith(b"\n"):
            content += b"\n"
        lines = content.count(b"\n")
        if content.find(b"\n") > MAX_RECORD_BYTES:
            return None
        names = [str(i) for i in range(self.columns)]
        try:
            table = pacsv.read_csv(
                pa.BufferReader(content),
                read_options=pacsv.ReadOptions(column_names=names, block_size=len(content) + 1),
                parse_options=pacsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                convert_options=pacsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
        except pa.ArrowInvalid:
            return None
        if table.num_rows != lines:
            return None
        # At the end of its input pyarrow takes a quote as closed: what was left open then ends with the newline.
        last = table.column(self.columns - 1)[-1].as_py()
        return None if last.endswith(("\n", "\r")) else table

    def _careful(self, content: bytes, final: bool) -> Generator[Chunk, None, bytes]:
        """A block record by record; returns the bytes of a record that goes on in the next block."""
        lines = _decoded_lines(content)
        damaged = _damage("".join(lines)) is not None
        escaped = self._escapes.search(content) is not None
        rows: list[list[str]] = []
        set_aside: list[SetAside] = []
        at = 0
        while at < len(lines):
            reader = csv.reader(_from(lines, at), delimiter=self.delimiter, strict=True)
            origin, again = at, False
            while not again:  # until a record breaks: then a new reader goes on behind the broken line
                at = origin + reader.line_num
                fields: list[str] | None
                try:
                    fields = next(reader, None)
                except csv.Error as error:
                    if "unexpected end" in str(error) and not final:
                        unfinished = "".join(lines[at:]).encode("utf-8", "surrogateescape")
                        if len(unfinished) <= MAX_RECORD_BYTES:
                            yield self._rows(rows, set_aside)
                            self._line += at
                            return unfinished
                    end, again = at + 1, True
                    fields, reason = self._line_alone(lines[at]), "a quote is opened and not closed"
                else:
                    if fields is None:
                        at = len(lines)
                        break
                    end = origin + reader.line_num
                    if not fields:
                        continue  # an empty line
                    fields = self._fitted(fields)
                    if len(fields) != self.columns:
                        reason = f"{len(fields)} field{'s' if len(fields) != 1 else ''} instead of {self.columns}"
                        fields = None
                        # Over several lines it is most likely a stray quote that swallowed good ones: read them anew.
                        if end - at > 1 and sum(map(len, lines[at:end])) <= REREAD_CHARACTERS:
                            end, again = at + 1, True
                            fields = self._line_alone(lines[at])
                if fields is not None and escaped and self._escaped.search("".join(lines[at:end])):
                    fields, reason = None, "a quote behind a backslash"
                if damaged and (found := _damage("".join(lines[at:end]))):
                    fields, reason = None, found
                if fields is None:
                    raw = "".join(lines[at:end]).rstrip("\r\n").encode("utf-8", "surrogateescape")
                    set_aside.append(_set_aside(self._line + at, reason, raw))
                else:
                    rows.append(fields)
                at = end
                if len(rows) + len(set_aside) >= CHUNK_ROWS:
                    yield self._rows(rows, set_aside)
                    rows, set_aside = [], []
        yield self._rows(rows, set_aside)
        self._line += len(lines)
        return b""

    def _fitted(self, fields: list[str]) -> list[str]:
        """A row's fields without what a delimiter at the end of the row, or of the header alone, makes of them."""
        if len(fields) == self.columns + 1 and not fields[-1]:
            return fields[:-1]
        if len(fields) == self.columns - 1 and self._last_is_unnamed:
            return [*fields, ""]
        return fields

    def _line_alone(self, line: str) -> list[str] | None:
        """A line's fields if it is a record by itself. Text behind a closing quote is added to it, as pyarrow does."""
        fields = self._fitted(next(csv.reader([line.rstrip("\r\n") + "\n"], delimiter=self.delimiter), []))
        closed = len(fields) == self.columns and not fields[-1].endswith("\n")
        return fields if closed else None

    def _rows(self, rows: list[list[str]], set_aside: list[SetAside]) -> Chunk:
        cells = zip(*rows, strict=True) if rows else [()] * self.columns
        return self._columns([pa.array(column, pa.string()) for column in cells], set_aside)

    def _columns(self, columns: list[pa.Array], set_aside: list[SetAside]) -> Chunk:
        contract = _contract(self.plan, lambda at: arrow_text.as_text(columns[at]))
        further = [(name, arrow_text.as_json(columns[at])) for name, at in self.plan.attributes]
        return Chunk(len(columns[0]), contract, further, set_aside)


def _iconv(encoding: str) -> str:
    return f" (`iconv -f {encoding} -t UTF-8 FILE > NEW_FILE`)"


def _whole_lines(content: bytes) -> int:
    """How many bytes are whole lines. A CR at the very end may be half of a line end."""
    return max(content.rfind(b"\n"), content.rfind(b"\r", 0, -1)) + 1


def _decoded_lines(content: bytes) -> list[str]:
    """Lines with their ends. Bytes that are no UTF-8 become half surrogates, from which they can be had back."""
    return [line.decode("utf-8", "surrogateescape") for line in content.splitlines(keepends=True)]


def _from(lines: list[str], at: int) -> Iterator[str]:
    for i in range(at, len(lines)):
        yield lines[i]


def _damage(text: str) -> str | None:
    """Why PostgreSQL could not hold a text, or None."""
    if "\0" in text:
        return "a NUL character"
    if len(text) > MAX_RECORD_BYTES:
        return "too long"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return None


def _set_aside(line: int, reason: str, content: bytes) -> SetAside:
    """Bytes that are no text are written as \\xNN, so that the original can be told from the copy."""
    if len(content) > MAX_RECORD_BYTES:
        reason = f"a line of more than {MAX_RECORD_BYTES:,} bytes; the first {CONTENT_BYTES:,} are kept"
    elif len(content) > CONTENT_BYTES:
        reason += f"; {len(content):,} bytes, the first {CONTENT_BYTES:,} are kept"
    text = content[:CONTENT_BYTES].decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")
    return SetAside(line, reason, text)


# --- Parquet -----------------------------------------------------------------------------------------------------


class ParquetReader(Reader):
    """Parquet, row group by row group. Lines are row numbers."""

    def __init__(self, kind: Kind, source: SourceFile, mapping: Mapping | None) -> None:
        import pyarrow.parquet as pq

        self.source = source
        source.position = 0
        source.raw.seek(0)
        if source.raw.read(4) != b"PAR1":
            raise HeedError(
                f"{source.path} is not a Parquet file, though its name says so",
                "rename it as fits its content (.csv, .jsonl), or export it again",
            )
        with self._told():
            # Buffered: a column chunk is read piece by piece, not whole.
            metadata = pq.read_metadata(source.raw)
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            dictionaries = _dictionaries(metadata.schema, groups)
            self._flat = sorted(name for name in dictionaries if "." not in name)
            self._file: pq.ParquetFile = pq.ParquetFile(
                source.raw, buffer_size=1 << 20, pre_buffer=False, read_dictionary=self._flat
            )
            schema = self._file.schema_arrow
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
            self._rows = int(metadata.num_rows)
            # Impala, Hive and Spark write moments so, in UTC; the type has no place to say it.
            columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
            self._utc = {column.path for column in columns if column.physical_type == "INT96"}
        if self._rows > max(PARQUET_FREE_ROWS, PARQUET_ROWS_PER_BYTE * source.bytes_total):
            raise HeedError(
                f"{source.path} claims {self._rows:,} rows in {source.bytes_total:,} bytes, "
                "as files do that are made to fill a disk",
                "write it again as CSV if you trust it, and load that",
            )
        largest = max((size for _, size in sizes), default=0)
        if largest > PARQUET_ROW_GROUP_BYTES:
            raise HeedError(
                f"{source.path} has a row group of {largest / 2**30:.0f} GiB, which does not fit into memory",
                "write it again with smaller row groups",
            )
        self.plan = plan_columns(kind, schema.names, mapping, source.name)
        self.ignored = self.plan.ignored
        width = sum(size for _, size in sizes) / self._rows if self._rows else 1.0
        most = PARQUET_NESTED_ROWS if len(dictionaries) > len(self._flat) else CHUNK_ROWS
        self._batch_rows = int(max(1, min(most, PARQUET_CHUNK_BYTES / max(width, 1.0))))
        self._unfolded = 0

    def _told(self) -> _ParquetErrors:
        return _ParquetErrors(self.source.path)

    def chunks(self) -> Iterator[Chunk]:
        with self._told():
            batches = self._file.iter_batches(batch_size=self._batch_rows, use_threads=False)
        row = 0
        while True:
            with self._told():
                batch = next(batches, None)
                if batch is None:
                    break
                batch.validate()
            for part in self._unfold(batch):
                yield self._chunk(part, row)
                row += part.num_rows
            if self._rows:
                self.source.position = int(self.source.bytes_total * min(1.0, row / self._rows))
        if row != self._rows:
            raise HeedError(
                f"{self.source.path} holds {row:,} rows and claims {self._rows:,}",
                "export it again; nothing was loaded",
            )

    def _unfold(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batch in parts whose texts fit into memory once each row has its own."""
        if not batch.num_rows:
            return
        sizes = np.zeros(batch.num_rows, np.int64)
        with self._told():  # a damaged index points nowhere
            for column in batch.columns:
                if pa.types.is_dictionary(column.type):
                    lengths = pc.fill_null(pc.binary_length(column.dictionary).take(column.indices), 0)
                    sizes += lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.cumsum(sizes)
        self._unfolded += int(ends[-1])
        if self._unfolded > max(PARQUET_FREE_BYTES, PARQUET_RATIO * self.source.bytes_total):
            raise HeedError(
                f"the rows of {self.source.path} hold more than {PARQUET_RATIO} times its size, "
                "as files do that are made to fill a disk",
                "write it again as CSV if you trust it, and load that",
            )
        at = 0
        while at < batch.num_rows:
            begun = ends[at - 1] if at else 0
            until = max(int(np.searchsorted(ends, begun + PARQUET_CHUNK_BYTES, "right")), at + 1)
            yield batch.slice(at, until - at)
            at = until

    def _chunk(self, batch: pa.RecordBatch, before: int) -> Chunk:
        wanted = sorted(self.plan.positions())
        bad = np.zeros(batch.num_rows, bool)
        for at in wanted:
            mask = arrow_text.undecodable(batch.column(at))
            if mask is not None:
                bad |= mask
        set_aside = []
        if bad.any():
            for row in np.flatnonzero(bad).tolist():
                cells = {}
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    cells[name] = arrow_text.lenient_value(column, int(row))
                content = json.dumps(cells, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
                set_aside.append(_set_aside(before + row + 1, "not UTF-8, or a NUL character", content))
            batch = batch.filter(pa.array(~bad))

        def moments(at: int) -> pa.Array:
            values = batch.column(at)
            is_utc = batch.schema.names[at] in self._utc and pa.types.is_timestamp(values.type)
            return values.cast(pa.timestamp(values.type.unit, "UTC")) if is_utc else values

        contract = _contract(self.plan, lambda at: arrow_text.as_text(moments(at)))
        further = [(name, arrow_text.as_json(moments(at))) for name, at in self.plan.attributes]
        typed = {name for name, at in self.plan.contract.items() if not arrow_text.is_text(batch.column(at))}
        return Chunk(batch.num_rows, contract, further, set_aside, frozenset(typed))


def _dictionaries(schema: Any, groups: list[Any]) -> set[str]:
    """The columns, by their paths, of texts that a dictionary holds in any row group.

    The schema's paths, which decide what is read: those of the groups may say something else.
    """
    found = set()
    for group in groups:
        for at in range(group.num_columns):
            column = group.column(at)
            if column.physical_type == "BYTE_ARRAY" and {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(column.encodings):
                found.add(schema.column(at).path)
    return found


class _ParquetErrors:
    """Whatever goes wrong inside the Parquet reader is a damaged file, said in one line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError)):
            detail = " ".join(str(error).split())[:160]
            raise HeedError(
                f"the Parquet file {self.path} is damaged or cut off ({detail})",
                "fetch or export it again; nothing was loaded",
            ) from error


# --- JSON lines --------------------------------------------------------------------------------------------------


class JsonLinesReader(Reader):
    """One JSON object a line. Columns may differ from line to line; the required ones must occur near the start."""

    def __init__(self, kind: Kind, source: SourceFile, mapping: Mapping | None) -> None:
        self.kind, self.source, self.mapping = kind, source, mapping
        self._stream = source.stream()
        self._plans: dict[tuple[str, ...], ColumnPlan] = {}
        self._first = source.read(self._stream)
        names: dict[str, str] = {}  # spellings may differ from line to line: the first of each contract column counts
        for line in self._first.removeprefix(_BYTE_ORDER_MARK).split(b"\n")[:1000]:
            content = _json_object(line)
            if isinstance(content, dict):
                for name in content:
                    normal = normal_name(name)
                    names.setdefault(normal if normal in COLUMNS[kind] else name, name)
        if not names:
            jq = ".[]" if self._first.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(b"[") else "."
            raise HeedError(
                f"{source.path} holds no JSON object on its first lines",
                f"write one object a line, for example with `jq -c '{jq}' FILE > NEW_FILE.jsonl`; nothing was loaded",
            )
        # Values may be left out on any line, so only the names as a whole must satisfy the contract.
        self._whole = plan_columns(kind, list(names.values()), mapping, source.name)
        self.ignored = self._whole.ignored

    def chunks(self) -> Iterator[Chunk]:
        first = 1
        for lines in self._lines():
            for at in range(0, len(lines), CHUNK_ROWS):
                some = lines[at : at + CHUNK_ROWS]
                yield self._chunk(some, first)
                first += len(some)

    def _lines(self) -> Iterator[list[bytes]]:
        """Lines in groups. What exceeds the longest line allowed is dropped as it comes; the line is then set aside."""
        rest, block = b"", self._first.removeprefix(_BYTE_ORDER_MARK)
        while block:
            *lines, rest = (rest + block).split(b"\n")
            rest = rest[: MAX_RECORD_BYTES + 1]
            if lines:
                yield lines
            block = self.source.read(self._stream)
        if rest:
            yield [rest]

    def _chunk(self, lines: list[bytes], first: int) -> Chunk:
        objects, set_aside = [], []
        for number, line in enumerate(lines, first):
            content = _json_object(line)
            if isinstance(content, dict):
                content = self._plan(tuple(content)).twice or content
            if isinstance(content, dict):
                objects.append(content)
            elif content is not None:
                set_aside.append(_set_aside(number, content, line))
        return self._rows(objects, set_aside)

    def _rows(self, objects: list[dict[str, Any]], set_aside: list[SetAside]) -> Chunk:
        if len({tuple(content) for content in objects}) == 1:
            return self._alike(objects, set_aside)
        contract: dict[str, list[str | None]] = {name: [] for name in COLUMNS[self.kind]}
        composed: dict[str, list[list[str | None]]] = {
            name: [[] for _ in parts] for name, parts in self._whole.composed.items()
        }
        further: dict[str, list[str | None]] = {}
        for row, content in enumerate(objects):
            plan = self._plan(tuple(content))
            values = list(content.values())
            for name, cells in contract.items():
                at = plan.contract.get(name)
                cells.append(None if at is None else arrow_text.plain_text(values[at]))
            for name, columns in composed.items():
                for column, at in zip(columns, plan.composed[name], strict=True):
                    column.append(None if at < 0 else arrow_text.plain_text(values[at]))
            for name, at in plan.attributes:
                text = arrow_text.plain_json(values[at])
                if text is not None:
                    cells = further.setdefault(name, [])
                    cells.extend([None] * (row - len(cells)))
                    cells.append(text)
        for cells in further.values():
            cells.extend([None] * (len(objects) - len(cells)))
        arrays = {name: pa.array(cells, pa.string()) for name, cells in contract.items()}
        arrays |= {name: joined([pa.array(part, pa.string()) for part in parts]) for name, parts in composed.items()}
        return Chunk(
            len(objects),
            arrays,
            [(name, pa.array(further[name], pa.string())) for name in sorted(further)],
            set_aside,
            frozenset(name for name in self._whole.contract if self._holds_numbers(name, objects)),
        )

    def _holds_numbers(self, name: str, objects: list[dict[str, Any]]) -> bool:
        places = ((list(content.values()), self._plan(tuple(content)).contract.get(name)) for content in objects)
        return name in NUMBERS and any(
            at is not None and isinstance(values[at], int | float) and not math.isnan(values[at])
            for values, at in places
        )

    def _alike(self, objects: list[dict[str, Any]], set_aside: list[SetAside]) -> Chunk:
        """The usual case, objects with the same keys in the same order, column by column: three times as fast."""
        plan = self._plan(tuple(objects[0]))
        columns = list(zip(*(content.values() for content in objects), strict=True))
        absent = pa.nulls(len(objects), pa.string())
        contract = _contract(plan, lambda at: arrow_text.texts_of(columns[at]) if at >= 0 else absent)
        further = {name: arrow_text.json_of(columns[at]) for name, at in reversed(plan.attributes)}
        typed = frozenset(name for name in plan.contract if self._holds_numbers(name, objects))
        return Chunk(len(objects), contract, sorted(further.items()), set_aside, typed)

    def _plan(self, names: tuple[str, ...]) -> ColumnPlan:
        """The plan for a line with these keys: the whole file's decisions, applied to the keys that are here."""
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan_for(names)
            if len(self._plans) < 10_000:
                self._plans[names] = plan
        return plan

    def _plan_for(self, names: tuple[str, ...]) -> ColumnPlan:
        mapped = self.mapping.columns.get(self.kind, {}) if self.mapping else {}
        left_out = self.mapping.ignored.get(self.kind, ()) if self.mapping else ()
        joins = self.mapping.composed.get(self.kind, {}) if self.mapping else {}
        places = {normal_name(name): at for at, name in reversed(list(enumerate(names)))}
        # -1: not on this line.
        composed = {name: tuple(places.get(normal_name(part), -1) for part in parts) for name, parts in joins.items()}
        joined_parts = {at for parts in composed.values() for at in parts}
        wanted = {normal_name(column): name for name, column in mapped.items()}
        dropped = {normal_name(column) for column in left_out}
        contract: dict[str, int] = {}
        attributes: list[tuple[str, int]] = []
        twice = ""
        for at, name in enumerate(names):
            normal = normal_name(name)
            is_contract = normal in COLUMNS[self.kind] and normal not in mapped and normal not in composed
            target = wanted.get(normal) or (normal if is_contract else None)
            if normal in dropped or (target is None and at in joined_parts):
                continue
            if target is not None and target in contract:
                twice = f"{target} twice, as {shown(names[contract[target]])} and {shown(name)}"
            elif target is not None:
                contract[target] = at
            elif name not in OWN_COLUMNS and "attributes" in COLUMNS[self.kind]:
                attribute = name.strip() or f"unnamed_{at + 1}"
                if attribute in dict(attributes):
                    twice = f"{shown(attribute)} twice, with and without blanks around it"
                attributes.append((attribute, at))
        return ColumnPlan(contract, tuple(attributes), (), twice, composed)


def _json_object(line: bytes) -> dict[str, Any] | str | None:
    """A line's object; or why it is none; or None for an empty line."""
    if not line.strip():
        return None
    if len(line) > MAX_RECORD_BYTES:
        return f"a line of more than {MAX_RECORD_BYTES:,} bytes; its start is kept"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    content = arrow_text.parse_json(text, nan=True)
    if isinstance(content, arrow_text.NotJson):
        return content.reason
    return content if isinstance(content, dict) else "not a JSON object"
