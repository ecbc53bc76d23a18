"""The mapping file: how a user's column names map on the contract's.

Belongs here: `Mapping`, reading it from TOML, and refusing contradictions.
Does not belong here: what the mapping makes of one file's columns (`columns.py`).
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import COLUMNS, KINDS, Kind, nearest, normal_name, shown
from dagster_project.loading.readers.layout import SETTINGS as LAYOUT_SETTINGS
from dagster_project.loading.readers.layout import Layout, read_layout
from dagster_project.loading.records.spec import SETTINGS as RECORD_SETTINGS
from dagster_project.loading.records.spec import (
    TIME_COLUMNS,
    TIME_SETTINGS,
    RecordMapping,
    needs_records,
    read_record_mapping,
    read_rule,
    read_words,
)

IGNORE = "ignore"
EMPTY = "empty"
NULL_VALUES = "null_values"
DECIMAL = "decimal"
THOUSANDS = "thousands"
# Tables of a mapping that are not about one kind of file.
FILE, WORDS, PRESET = "file", "words", "preset"
_OF_FILE = (*LAYOUT_SETTINGS, EMPTY, NULL_VALUES, DECIMAL, THOUSANDS, *TIME_SETTINGS)
# Ids that a mapping may join of several columns: unique only within a repository, a project, a monitor.
COMPOSABLE = ("action_id", "alert_id")


@dataclass(frozen=True)
class Mapping:
    """Names of a user's columns, per kind of file.

    Attributes
    ----------
    columns : per kind, contract column -> column of the file.
    ignored : per kind, columns of the file that are left out.
    composed : per kind, id -> the columns of the file whose values it joins (`values.joined`).
    empty : per kind, the texts that mean an empty cell, such as "N/A".
    decimal : per kind, the sign before the decimals of value and threshold: "." or ",". Without it the file decides.
    layouts : per kind, how the file is written.
    records : per kind, what only records can do: paths, times, decisions. A kind that is absent has plain columns.
    title : what a preset reads, in words; empty for a mapping.
    source : the mapping file, for messages.
    """

    columns: dict[Kind, dict[str, str]] = field(default_factory=dict)
    ignored: dict[Kind, tuple[str, ...]] = field(default_factory=dict)
    composed: dict[Kind, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    empty: dict[Kind, tuple[str, ...]] = field(default_factory=dict)
    decimal: dict[Kind, str] = field(default_factory=dict)
    layouts: dict[Kind, Layout] = field(default_factory=dict)
    records: dict[Kind, RecordMapping] = field(default_factory=dict)
    title: str = ""
    source: str = "the mapping"

    def has_decisions(self) -> bool:
        """Whether alerts hold decisions, so that one file gives both alerts and actions."""
        return "alerts" in self.records and bool(self.records["alerts"].decisions)

    def as_records(self, kind: Kind) -> RecordMapping:
        """The columns of a kind as a record mapping, for formats that have only records."""
        columns: dict[str, Any] = {**self.columns.get(kind, {})}
        columns |= {name: list(parts) for name, parts in self.composed.get(kind, {}).items()}
        ignored, empty = self.ignored.get(kind, ()), self.empty.get(kind, ())
        return read_record_mapping(kind, columns, {}, ignored=ignored, empty=empty, source=self.source)

    def with_times(self, time_format: str, time_zone: str) -> Mapping:
        """The same with a format and a zone for all times, as given on the command line; empty: unchanged."""
        if not time_format and not time_zone:
            return self
        settings = {"time_format": time_format or None, "time_zone": time_zone or None}
        records = {}
        for kind in KINDS:
            one = self.records.get(kind) or self.as_records(kind)
            rules = {
                name: read_rule(settings, name, "", "the command line", one.rules.get(name))
                for name in TIME_COLUMNS
                if name in COLUMNS[kind]
            }
            decisions = tuple(
                replace(d, rule=read_rule(settings, "acted_at", "", "the command line", d.rule)) for d in one.decisions
            )
            records[kind] = replace(one, rules=rules, decisions=decisions)
        return replace(self, records=records)

    def fingerprint(self, kind: Kind, *, decisions_only: bool = False) -> bytes:
        """What this mapping changes about a file of this kind; empty when it changes nothing."""
        table: Kind = "alerts" if decisions_only else kind
        richer = b""
        if table in self.records or table in self.layouts:
            parts = (kind, self.layouts.get(table), self.records.get(table))
            richer = repr(tuple(replace(p, source="") if isinstance(p, RecordMapping) else p for p in parts)).encode()
        return self._plain_fingerprint(table) + richer

    def _plain_fingerprint(self, kind: Kind) -> bytes:
        columns, ignored = self.columns.get(kind, {}), self.ignored.get(kind, ())
        newer = (
            sorted(self.composed.get(kind, {}).items()),
            sorted(self.empty.get(kind, ())),
            self.decimal.get(kind, ""),
        )
        if not columns and not ignored and not any(newer):
            return b""
        # A mapping without the newer keys keeps the fingerprint it had before there were any.
        parts = [sorted(columns.items()), sorted(ignored), *(newer if any(newer) else ())]
        return json.dumps(parts, ensure_ascii=False).encode()


def read_mapping(path: str | Path, called: str = "") -> Mapping:
    """Read a mapping file: TOML, one table per kind of file, `contract column = "column of the file"`.

    A list of columns makes an id of several: `alert_id = ["repository", "number"]`. `ignore = ["column", ...]` leaves
    columns of the file out, `null_values = ["N/A", ...]` names texts that mean an empty cell, `decimal = ","` says how
    value and threshold are written.

    Raises
    ------
    HeedError
        The file cannot be read, or names a table or a contract column that does not exist, or one column twice.
    """
    path = Path(path)
    name = Path(called) if called else path
    try:
        content = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise HeedError(f"the mapping file {path} does not exist", "correct the path") from error
    except OSError as error:
        raise HeedError(
            f"the mapping file {path} cannot be read ({error.strerror})", "name a file that you may read"
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        detail = " ".join(str(error).split())[:200]
        raise HeedError(
            f"the mapping file {path} is not valid TOML ({detail})",
            'write tables like [alerts] with lines like rule = "your_column"',
        ) from error
    preset, of_file = content.pop(PRESET, None), content.pop(FILE, {})
    words = read_words(content.pop(WORDS, {}), str(name))
    if not isinstance(of_file, dict):
        raise HeedError(f"file in the mapping file {name} is not a table", "write [file] on a line of its own")
    for setting in of_file:
        if setting not in _OF_FILE:
            close = nearest(setting, _OF_FILE)
            raise HeedError(
                f"[file] in {name} has a setting {shown(setting)}, which heed does not know",
                f"did you mean {close}" if close else f"use {', '.join(_OF_FILE)}",
            )
    tables: dict[Kind, _Table] = {}
    for table, entries in content.items():
        kind = _kind(table, name)
        if not isinstance(entries, dict):
            raise HeedError(
                f"{table} in the mapping file {name} is not a table",
                f'write [{kind}] on a line of its own, and below it lines like rule = "your_column"',
            )
        tables[kind] = _read_table(kind, {**of_file, **entries}, name, words, lenient=preset is not None)
    title = preset.get("title", "") if isinstance(preset, dict) else ""
    return Mapping(
        layouts={kind: table.layout for kind, table in tables.items() if not table.layout.is_plain()},
        records={kind: table.records for kind, table in tables.items() if table.records is not None},
        title=str(title),
        columns={kind: table.columns for kind, table in tables.items()},
        ignored={kind: table.ignored for kind, table in tables.items()},
        composed={kind: table.composed for kind, table in tables.items()},
        empty={kind: table.empty for kind, table in tables.items()},
        decimal={kind: table.decimal for kind, table in tables.items()},
        source=str(name),
    )


def _kind(table: str, path: Path) -> Kind:
    for kind in KINDS:
        if table == kind:
            return kind
    close = nearest(table, KINDS)
    raise HeedError(
        f"the mapping file {path} has a table {shown(table)}, which heed does not know",
        f"did you mean [{close}]" if close else f"use {', '.join(f'[{kind}]' for kind in KINDS)}",
    )


@dataclass
class _Table:
    """One table of a mapping file; see Mapping."""

    columns: dict[str, str] = field(default_factory=dict)
    composed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()
    decimal: str = ""
    layout: Layout = field(default_factory=Layout)
    records: RecordMapping | None = None


def _names(value: object) -> tuple[str, ...] | None:
    """A list of names, none of them blank; None where it is something else."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        return None
    return tuple(value)


def _read_table(
    kind: Kind, entries: dict[str, Any], path: Path, words: dict[str, str], *, lenient: bool = False
) -> _Table:
    table = _Table(layout=read_layout(entries, f"[{kind}] in {path}"))
    if EMPTY in entries and NULL_VALUES in entries:
        raise HeedError(f"[{kind}] in {path} has both {EMPTY} and {NULL_VALUES}", "keep one: they mean the same")
    columns = {name: value for name, value in entries.items() if name in COLUMNS[kind]}
    for name, value in entries.items():
        if name in LAYOUT_SETTINGS or name in RECORD_SETTINGS:
            continue
        if name in (IGNORE, EMPTY, NULL_VALUES):
            names = _names(value)
            if names is None:
                what, example = ("names", "column") if name == IGNORE else ("texts", "N/A")
                raise HeedError(
                    f"{name} of [{kind}] in {path} is not a list of {what}", f'write {name} = ["{example}", "other"]'
                )
            table.ignored, table.empty = (names, table.empty) if name == IGNORE else (table.ignored, names)
        elif name in (DECIMAL, THOUSANDS):
            table.decimal = _decimal(entries, f"[{kind}] in {path}") if kind == "alerts" else ""
        elif name not in COLUMNS[kind]:
            close = nearest(name, COLUMNS[kind])
            raise HeedError(
                f"[{kind}] in {path} names {shown(name)}, which is no column of heed's contract",
                f"did you mean {close}" if close else f"use one of {', '.join(COLUMNS[kind])}",
            )
        elif isinstance(value, dict) and value:
            pass  # a field of records
        elif isinstance(value, list):
            parts = _names(value)
            if name not in COMPOSABLE:
                raise HeedError(
                    f"[{kind}] in {path} makes {name} of several columns, which only an id can be",
                    f'write {name} = "your_column"; a list goes with {" or ".join(COMPOSABLE)}',
                )
            if not parts or len(set(map(normal_name, parts))) < len(parts):
                raise HeedError(
                    f"{name} of [{kind}] in {path} is not a list of different column names",
                    f'write {name} = ["repository", "number"]',
                )
            table.composed[name] = parts
        elif not isinstance(value, str) or not value.strip():
            raise HeedError(f"{name} of [{kind}] in {path} is not a column name", f'write {name} = "your_column"')
        else:
            table.columns[name] = value
    _refuse_double_use(kind, table, path)
    if lenient or needs_records(entries, columns):
        table.records = read_record_mapping(
            kind,
            columns,
            {name: entries[name] for name in RECORD_SETTINGS if name in entries},
            ignored=table.ignored,
            empty=table.empty,
            words=words,
            lenient=lenient,
            source=str(path),
        )
    return table


def _decimal(entries: dict[str, Any], where: str) -> str:
    """The decimal sign that `decimal` and `thousands` say."""
    decimal, thousands = entries.get(DECIMAL), entries.get(THOUSANDS)
    if decimal is not None and decimal not in (".", ","):
        raise HeedError(f"decimal of {where} is neither . nor ,", 'write decimal = ","')
    if thousands is not None and thousands not in (".", ",", " ", "'", "’"):
        raise HeedError(f"thousands of {where} is {shown(thousands)}", 'write thousands = "." or "," or " "')
    if decimal is not None and decimal == thousands:
        raise HeedError(f"decimal and thousands of {where} are the same sign", "correct one of them")
    return str(decimal or ("," if thousands == "." else "."))


def _refuse_double_use(kind: Kind, table: _Table, path: Path) -> None:
    """A column has one use, and a part of an id may have another: the repository may also be the entity."""
    ignored = set(map(normal_name, table.ignored))
    taken: dict[str, str] = {}
    for name, column in table.columns.items():
        if other := taken.get(normal_name(column)):
            raise HeedError(
                f"[{kind}] in {path} uses the column {shown(column)} twice, for {other} and for {name}",
                "keep one of the two lines",
            )
        taken[normal_name(column)] = name
    for name, column in [*table.columns.items(), *((n, part) for n, parts in table.composed.items() for part in parts)]:
        if normal_name(column) in ignored:
            raise HeedError(
                f"[{kind}] in {path} both uses and ignores the column {shown(column)}",
                f"take it out of ignore, or remove the line {name} = ...",
            )
