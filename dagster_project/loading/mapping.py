"""The mapping file: how a user's column names map on the contract's.

Belongs here: `Mapping`, reading it from TOML, and refusing contradictions.
Does not belong here: what the mapping makes of one file's columns (`columns.py`).
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from dagster_project.errors import HeedError
from dagster_project.loading.contract import COLUMNS, KINDS, Kind, nearest, normal_name, shown

IGNORE = "ignore"
EMPTY = "empty"
DECIMAL = "decimal"
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
    source : the mapping file, for messages.
    """

    columns: dict[Kind, dict[str, str]] = field(default_factory=dict)
    ignored: dict[Kind, tuple[str, ...]] = field(default_factory=dict)
    composed: dict[Kind, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    empty: dict[Kind, tuple[str, ...]] = field(default_factory=dict)
    decimal: dict[Kind, str] = field(default_factory=dict)
    source: str = "the mapping"

    def fingerprint(self, kind: Kind) -> bytes:
        """What this mapping changes about a file of this kind; empty when it changes nothing."""
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


def read_mapping(path: str | Path) -> Mapping:
    """Read a mapping file: TOML, one table per kind of file, `contract column = "column of the file"`.

    A list of columns makes an id of several: `alert_id = ["repository", "number"]`. `ignore = ["column", ...]` leaves
    columns of the file out, `empty = ["N/A", ...]` names texts that mean an empty cell, and `decimal = ","` says how
    value and threshold are written.

    Raises
    ------
    HeedError
        The file cannot be read, or names a table or a contract column that does not exist, or one column twice.
    """
    path = Path(path)
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
    tables: dict[Kind, _Table] = {}
    for table, entries in content.items():
        kind = _kind(table, path)
        if not isinstance(entries, dict):
            raise HeedError(
                f"{table} in the mapping file {path} is not a table",
                f'write [{kind}] on a line of its own, and below it lines like rule = "your_column"',
            )
        tables[kind] = _read_table(kind, entries, path)
    return Mapping(
        columns={kind: table.columns for kind, table in tables.items()},
        ignored={kind: table.ignored for kind, table in tables.items()},
        composed={kind: table.composed for kind, table in tables.items()},
        empty={kind: table.empty for kind, table in tables.items()},
        decimal={kind: table.decimal for kind, table in tables.items()},
        source=str(path),
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


def _names(value: object) -> tuple[str, ...] | None:
    """A list of names, none of them blank; None where it is something else."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name.strip() for name in value):
        return None
    return tuple(value)


def _read_table(kind: Kind, entries: dict[str, object], path: Path) -> _Table:
    table = _Table()
    for name, value in entries.items():
        if name in (IGNORE, EMPTY):
            names = _names(value)
            if names is None:
                what, example = ("names", "column") if name == IGNORE else ("texts", "N/A")
                raise HeedError(
                    f"{name} of [{kind}] in {path} is not a list of {what}", f'write {name} = ["{example}", "other"]'
                )
            table.ignored, table.empty = (names, table.empty) if name == IGNORE else (table.ignored, names)
        elif name == DECIMAL and kind == "alerts":
            if value not in (".", ","):
                raise HeedError(f"decimal of [{kind}] in {path} is neither . nor ,", 'write decimal = ","')
            table.decimal = str(value)
        elif name not in COLUMNS[kind]:
            close = nearest(name, COLUMNS[kind])
            raise HeedError(
                f"[{kind}] in {path} names {shown(name)}, which is no column of heed's contract",
                f"did you mean {close}" if close else f"use one of {', '.join(COLUMNS[kind])}",
            )
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
    return table


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
