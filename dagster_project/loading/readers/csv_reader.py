"""CSV with a header line to chunks of rows.

Belongs here: delimiter and header, the grammar of records, and which lines are rejected.
Does not belong here: what a column means (`loading/columns.py`), values beyond their text (`arrow_text.py`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Generator, Iterator, Sequence

import pyarrow as pa
import pyarrow.csv as pacsv

from dagster_project.errors import HeedError
from dagster_project.loading.columns import ColumnPlan, matched_names, plan_columns
from dagster_project.loading.contract import Kind
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.readers import arrow_text, limits
from dagster_project.loading.readers.chunk import Chunk, Reader, RejectedRow, contract_columns, rejected_row
from dagster_project.loading.readers.layout import Layout
from dagster_project.loading.readers.source import BYTE_ORDER_MARK, SourceFile

DELIMITERS = (",", ";", "\t", "|")
# Python's own limit, 128 KiB, is a setting of the whole process; nothing else in heed reads CSV with it.
csv.field_size_limit(max(csv.field_size_limit(), 4 * limits.MAX_RECORD_BYTES))
_SEPARATOR_LINE = re.compile(rb'"?sep=([,;\t|])"?', re.IGNORECASE)


class CsvReader(Reader):
    """CSV with a header line, delimited by comma, semicolon, tab or |, in UTF-8.

    A line `sep=;`, as Excel writes it, names the delimiter. Lines before the header are rejected.

    Grammar: RFC 4180. A field is quoted when its first character is a quote; inside, two quotes are one and newlines
    belong to the field. Elsewhere a quote is an ordinary character. Lines end with LF, CRLF or CR; empty ones are
    no records. A delimiter at the end of a row is no further field, nor does a row need one because the header has it.

    Two parsers share the work. pyarrow reads blocks in which every line is a whole record (13 columns: 370,000 rows
    a CPU second, everything in this module included). pyarrow alone is not enough (26.0): one byte that is not
    UTF-8 fails the block, one quote that is never closed swallows what follows, and rejected rows carry no line
    number. Python's csv module reads any other block record by record (80,000 rows a CPU second): of a broken
    record only the first line is rejected, and reading continues with the next line. A property test requires the
    same answers from both.
    """

    def __init__(
        self,
        kind: Kind,
        source: SourceFile,
        mapping: Mapping,
        plan: Callable[[Sequence[str]], ColumnPlan] | None = None,
    ) -> None:
        """plan : what each column of a header becomes; the contract's columns by default."""
        self.source = source
        self._plan_of = plan or (lambda names: plan_columns(kind, names, mapping, source.name))
        layout = mapping.layouts.get(kind, Layout())
        self._stream = source.stream()
        first = source.read(self._stream)
        if first[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in first[:4]:
            raise HeedError(
                f"{source.path} is not UTF-8 text (it looks like UTF-16)",
                f'write encoding = "utf-16-le" in the mapping, or save it as UTF-8{_iconv("UTF-16")}',
            )
        lines = first.removeprefix(BYTE_ORDER_MARK).splitlines(keepends=True)
        filled = [i for i, line in enumerate(lines[:1000]) if line.strip(b"\r\n") and i >= layout.skip_lines]
        delimiters: Sequence[str] = (layout.separator,) if layout.separator else DELIMITERS
        if filled and not layout.separator and (named := _SEPARATOR_LINE.fullmatch(lines[filled[0]].strip(b"\r\n"))):
            delimiters = (named[1].decode(),)
            filled = filled[1:]
        if not filled:
            raise HeedError(
                f"{source.path} has no header line", "write the column names on its first line; nothing was loaded"
            )
        header = self._plan(kind, mapping, lines, filled[0], delimiters)
        if isinstance(header, HeedError) and not layout.skip_lines:
            later = (self._plan(kind, mapping, lines, at, delimiters) for at in filled[1 : limits.LINES_BEFORE_HEADER])
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
            rejected_row(i + 1, "a line before the header", lines[i].rstrip(b"\r\n")) for i in filled if i < at
        ]  # not those that a mapping skips: somebody looked at them
        self.before_header = len(self._before)
        self._first, self._line = b"".join(lines[end:]), end + 1

    def _plan(
        self, kind: Kind, mapping: Mapping, lines: list[bytes], at: int, delimiters: Sequence[str]
    ) -> tuple[ColumnPlan, str, list[str], int, int] | HeedError:
        """A line as the header: plan, delimiter, names, its line and the line behind it; or why it is none."""
        best: tuple[tuple[int, int], str, list[str], int] | None = None
        try:
            for delimiter in delimiters:
                if (header := self._header(lines, at, delimiter)) is not None:
                    names, end = header
                    measure = (matched_names(kind, names, mapping), len(names))
                    if best is None or measure > best[0]:
                        best = (measure, delimiter, names, end)
            if best is None:
                return HeedError(
                    f"the header of {self.source.path} cannot be read (a quote is not closed, or too many columns)",
                    "write the column names on its first line; nothing was loaded",
                )
            _, delimiter, names, end = best
            return self._plan_of(names), delimiter, names, at, end
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
                'write encoding = "cp1252" in the mapping, or another that fits, or save the file as UTF-8'
                f"{_iconv('WINDOWS-1252')}; nothing was loaded",
            ) from error
        except csv.Error:
            return None
        return (names, at + reader.line_num) if len(names) <= limits.MAX_COLUMNS else None

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
            if len(rest) > limits.MAX_RECORD_BYTES:
                rest = rest[: limits.MAX_RECORD_BYTES + 1]  # the line will be rejected; the rest of it is not kept
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
        """A block as columns, or None unless each of its lines certainly is one record."""
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
        if content.find(b"\n") > limits.MAX_RECORD_BYTES:
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
        rejected: list[RejectedRow] = []
        at = 0
        while at < len(lines):
            reader = csv.reader(map(lines.__getitem__, range(at, len(lines))), delimiter=self.delimiter, strict=True)
            origin, again = at, False
            while not again:  # until a record breaks: then a new reader goes on behind the broken line
                at = origin + reader.line_num
                fields: list[str] | None
                try:
                    fields = next(reader, None)
                except csv.Error as error:
                    if "unexpected end" in str(error) and not final:
                        unfinished = "".join(lines[at:]).encode("utf-8", "surrogateescape")
                        if len(unfinished) <= limits.MAX_RECORD_BYTES:
                            yield self._rows(rows, rejected)
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
                        # Over several lines it is most likely a stray quote that swallowed good ones: read them again.
                        if end - at > 1 and sum(map(len, lines[at:end])) <= limits.REREAD_CHARACTERS:
                            end, again = at + 1, True
                            fields = self._line_alone(lines[at])
                if fields is not None and escaped and self._escaped.search("".join(lines[at:end])):
                    fields, reason = None, "a quote behind a backslash"
                if damaged and (damage := _damage("".join(lines[at:end]))):
                    fields, reason = None, damage
                if fields is None:
                    raw = "".join(lines[at:end]).rstrip("\r\n").encode("utf-8", "surrogateescape")
                    rejected.append(rejected_row(self._line + at, reason, raw))
                else:
                    rows.append(fields)
                at = end
                if len(rows) + len(rejected) >= limits.CHUNK_ROWS:
                    yield self._rows(rows, rejected)
                    rows, rejected = [], []
        yield self._rows(rows, rejected)
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

    def _rows(self, rows: list[list[str]], rejected: list[RejectedRow]) -> Chunk:
        cells = zip(*rows, strict=True) if rows else [()] * self.columns
        return self._columns([pa.array(column, pa.string()) for column in cells], rejected)

    def _columns(self, columns: list[pa.Array], rejected: list[RejectedRow]) -> Chunk:
        contract = contract_columns(self.plan, lambda at: arrow_text.as_text(columns[at]))
        further = [(name, arrow_text.as_json(columns[at])) for name, at in self.plan.attributes]
        return Chunk(len(columns[0]), contract, further, rejected)


def _iconv(encoding: str) -> str:
    return f" (`iconv -f {encoding} -t UTF-8 FILE > NEW_FILE`)"


def _whole_lines(content: bytes) -> int:
    """How many bytes are whole lines. A CR at the very end may be half of a line end."""
    return max(content.rfind(b"\n"), content.rfind(b"\r", 0, -1)) + 1


def _decoded_lines(content: bytes) -> list[str]:
    """Lines with their ends. Bytes that are not UTF-8 become half surrogates, which encode back to the same bytes."""
    return [line.decode("utf-8", "surrogateescape") for line in content.splitlines(keepends=True)]


def _damage(text: str) -> str | None:
    """Why PostgreSQL could not hold a text, or None."""
    if "\0" in text:
        return "a NUL character"
    if len(text) > limits.MAX_RECORD_BYTES:
        return "too long"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "not UTF-8"
    return None
