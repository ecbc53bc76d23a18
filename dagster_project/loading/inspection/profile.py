"""What the columns of a file hold: how often, how many different values, which are times, what they look like.

Belongs here: counting.
Does not belong here: what a column is for (`guess.py`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dagster_project.errors import HeedError
from dagster_project.loading.observed import PLACEHOLDERS
from dagster_project.loading.readers.layout import Layout
from dagster_project.loading.readers.source import SourceFile
from dagster_project.loading.records.fields import Record, leaves, opened, text_of
from dagster_project.loading.records.sources import open_records
from dagster_project.loading.records.times import TimeColumn, TimeRule, is_time

# Enough to see which columns are filled for few alerts; more rows change no answer, and cost a second per 20,000.
MOST_ROWS = 50_000
_DISTINCT = 20_000
_SAME_OBJECTS = 4  # of one form in a document without a list: each is a record
_TIMES = 0.95  # of the filled values: a few broken ones are a matter for the load


_CLOCK = re.compile(r"\d{1,2}:\d{2}|\d{9,}")


@dataclass
class Column:
    """One column, or one path of nested records.

    Attributes
    ----------
    filled : rows with a value. values : different values with their counts (of the first _DISTINCT). times : values
    that look like a time; days, clocks : that are a day without a time of day, or the other way round.
    order : evidence for day or month first. rows : the numbers of the rows that are filled.
    """

    name: str
    filled: int = 0
    values: Counter[str] = field(default_factory=Counter)
    times: int = 0
    days: int = 0
    clocks: int = 0
    longest: int = 0
    order: TimeColumn = field(default_factory=lambda: TimeColumn("", TimeRule()))
    rows: set[int] = field(default_factory=set)

    def add(self, row: int, text: str) -> None:
        """Count one value."""
        self.filled += 1
        self.rows.add(row)
        self.longest = max(self.longest, len(text))
        if len(self.values) < _DISTINCT or text in self.values:
            self.values[text] += 1
        if 8 <= len(text) <= 64 and is_time(text):
            self.times += 1
            self.days += _CLOCK.search(text) is None
            self.order.observe(text)
        elif len(text) <= 11 and _CLOCK.match(text):
            self.clocks += 1

    def is_time(self) -> bool:
        """Whether it holds times."""
        return self.filled > 0 and self.times >= _TIMES * self.filled

    def is_unique(self) -> bool:
        """Whether no value occurs twice."""
        return self.filled > 0 and (len(self.values) == self.filled or len(self.values) >= _DISTINCT)

    def example(self) -> str:
        """A frequent value."""
        return next(iter(self.values), "")


@dataclass
class Profile:
    """What a file holds. rows : that were looked at; records : some of them, for a trial."""

    path: Path
    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)
    placeholders: Counter[str] = field(default_factory=Counter)
    undecodable: int = 0
    list_at: str = ""
    encoding: str = ""
    records: list[Record] = field(default_factory=list)


def profile(path: Path, layout: Layout | None = None) -> Profile:
    """Look at the columns of a file.

    Raises
    ------
    HeedError
        It cannot be read.
    """
    layout = layout or Layout()
    try:
        return _profile(path, layout)
    except HeedError as error:
        if "not UTF-8" not in error.cause or layout.encoding:
            raise
    # Windows writes it so in Europe and America; other code pages look strange, which people see in the proposal.
    return _profile(path, Layout(**{**layout.to_document(), "encoding": "cp1252"}))


def _profile(path: Path, layout: Layout) -> Profile:
    source = SourceFile(path, layout)
    try:
        records = open_records("alerts", source, layout, lambda names: _no_header(names))
        seen = Profile(path, list_at=records.list_at, encoding=layout.encoding)
        empty, foreign = set(PLACEHOLDERS), 0
        for block in records.blocks():
            seen.undecodable += len(block.rejected)
            foreign += sum("UTF-8" in row.reason for row in block.rejected)
            for _, record in block.records:
                _count(seen, record, empty)
            if seen.rows >= MOST_ROWS:
                break
    finally:
        source.close()
    objects = [value for value in seen.records[0].values() if isinstance(value, dict)] if seen.rows == 1 else []
    if len(objects) >= _SAME_OBJECTS and len({tuple(sorted(one)) for one in objects}) <= len(objects) / 2:
        raise HeedError(
            f"{path} is one object with {len(objects)} objects of the same form, not a list",
            "make it a list, with the keys as ids: jq 'to_entries | map(.value + {id: .key})'",
        )
    if not layout.encoding and foreign and foreign >= 0.01 * max(seen.rows, 1):
        raise HeedError(f"{path} is not UTF-8", "say which encoding it has")
    return seen


def narrowed(seen: Profile, keeps: Callable[[Record], bool]) -> Profile:
    """The same file with some of its rows only."""
    out = Profile(seen.path, list_at=seen.list_at, encoding=seen.encoding)
    empty = set(PLACEHOLDERS)
    for record in seen.records:
        if keeps(record):
            _count(out, record, empty)
    return out


def _count(seen: Profile, record: Record, empty: set[str]) -> None:
    row = seen.rows
    seen.rows += 1
    seen.records.append(record)
    for name, value in _cells(record):
        column = seen.columns.setdefault(name, Column(name))
        text = text_of(value)
        if text is None:
            continue
        if text in empty:
            seen.placeholders[text] += 1
        else:
            column.add(row, text)


def _no_header(names: object) -> HeedError | None:
    """A line with one name is a title, not a header."""
    names = list(names) if isinstance(names, list | tuple) else []
    named = [name for name in names if not name.startswith("unnamed_")]
    if len(named) < 2 or sum(is_time(name) for name in named):
        return HeedError("no line of the file looks like a header", "write the column names on its first line")
    return None


def _cells(record: Record) -> list[tuple[str, object]]:
    """Plain values with their paths; objects that a table's cell holds are opened."""
    opened_up = {key: opened(value) for key, value in record.items()}
    return [(path, value) for path, value in leaves(opened_up) if not isinstance(value, list | dict)]
