"""What heed wants to find in a file, and how a user's column names map on it.

Belongs here: the contract's columns per kind of file, the mapping file, and the plan that says what each column of
one file becomes.
Does not belong here: reading rows (`readers.py`), and types: every value is text until staging reads it.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from dagster_project.errors import HeedError

Kind = Literal["alerts", "actions", "rules", "action_types"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Columns of the raw tables that users bring, in the tables' order. The first one is the row's id.
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "alerts": (
        "alert_id",
        "raised_at",
        "rule",
        "entity",
        "team",
        "severity",
        "value",
        "threshold",
        "title",
        "attributes",
    ),
    "actions": ("action_id", "alert_id", "acted_at", "action_type", "actor", "attributes"),
    "rules": ("rule", "title", "team", "declared_visibility_only", "created_at"),
    "action_types": ("action_type", "meaning"),
}
REQUIRED: dict[Kind, tuple[str, ...]] = {
    "alerts": ("alert_id", "raised_at", "rule"),
    "actions": ("action_id", "alert_id", "acted_at", "action_type"),
    "rules": ("rule",),
    "action_types": ("action_type", "meaning"),
}
NUMBERS = ("value", "threshold")
# heed writes these itself. A file that has them (an export of heed's own tables) must not decide them, and as
# attributes they would be facts that were not known when the alert was raised.
OWN_COLUMNS = ("loaded_at", "row_hash", "load_id")

IGNORE = "ignore"
EMPTY = "empty"
DECIMAL = "decimal"
# Ids that a mapping may join of several columns: unique only within a repository, a project, a monitor.
COMPOSABLE = ("action_id", "alert_id")
NAMES_SHOWN = 12  # of a header in an error message: more do not fit on a line that people read


def normal_name(name: str) -> str:
    """A column name without regard to case, blanks, hyphens and underscores: "Alert ID" is alert_id."""
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def shown(name: object, limit: int = 60) -> str:
    """A user's text as one short quoted piece of an error message, without control characters."""
    text = str(name)
    text = text if len(text) <= limit else text[: limit - 3] + "..."
    return "'" + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) + "'"


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like a name, or None when nothing is like it."""
    by_normal: dict[str, str] = {}
    for candidate in candidates:
        by_normal.setdefault(normal_name(candidate)[:200], candidate)
    # 0.5 finds 'raise_time' for 'raised_at' and 'id' for nothing; 0.6, the default, finds neither.
    found = difflib.get_close_matches(normal_name(name)[:200], list(by_normal), n=1, cutoff=0.5)
    return by_normal[found[0]] if found else None


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


@dataclass(frozen=True)
class ColumnPlan:
    """What each column of one file becomes.

    Attributes
    ----------
    contract : contract column -> position in the file.
    composed : id -> positions in the file of the columns that it joins.
    attributes : (name, position) of columns that become attributes, in order of their names.
    ignored : names of columns that are not loaded.
    twice : which column has two names here, so that nobody can tell which one is meant; empty where none has. Only for
        single lines of JSON: in a header it is an error.
    """

    contract: dict[str, int]
    attributes: tuple[tuple[str, int], ...]
    ignored: tuple[str, ...]
    twice: str = ""
    composed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def positions(self) -> set[int]:
        """The positions of all columns that are read."""
        joined = {at for parts in self.composed.values() for at in parts}
        return {*self.contract.values(), *joined, *(at for _, at in self.attributes)}


def matched_names(kind: Kind, header: Sequence[str], mapping: Mapping | None) -> int:
    """How many columns of a header the contract or the mapping knows: the measure of a good delimiter."""
    known = set(COLUMNS[kind])
    if mapping is not None:
        known |= {normal_name(column) for column in mapping.columns.get(kind, {}).values()}
        known |= {normal_name(part) for parts in mapping.composed.get(kind, {}).values() for part in parts}
    return len(known & {normal_name(name) for name in header})


def plan_columns(kind: Kind, header: Sequence[str], mapping: Mapping | None, file: str) -> ColumnPlan:
    """Decide what each column of a file becomes.

    Parameters
    ----------
    header : the file's column names, in order; an empty name becomes unnamed_<position from 1>.
    file : the file's name, for messages.

    Raises
    ------
    HeedError
        Two columns with one name; a mapped column that is not there; a required column that is missing.
    """
    names = [name.strip() or f"unnamed_{i + 1}" for i, name in enumerate(header)]
    _refuse_duplicates(kind, names, file)
    position = {name: i for i, name in enumerate(names)}
    loosely: dict[str, int] = {}
    for i, name in enumerate(names):
        loosely.setdefault(normal_name(name), i)

    contract: dict[str, int] = {}
    composed: dict[str, tuple[int, ...]] = {}
    ignored: set[int] = set()
    if mapping is not None:
        for column in mapping.ignored.get(kind, ()):
            at = position.get(column.strip(), loosely.get(normal_name(column)))
            if at is None:
                raise _not_in_file(kind, column, "ignores", names, file, mapping)
            ignored.add(at)
        for name, column in mapping.columns.get(kind, {}).items():
            at = position.get(column.strip(), loosely.get(normal_name(column)))
            if at is None:
                raise _not_in_file(kind, column, f"takes {name} from", names, file, mapping)
            contract[name] = at
        for name, parts in mapping.composed.get(kind, {}).items():
            places = [position.get(part.strip(), loosely.get(normal_name(part))) for part in parts]
            for part, at in zip(parts, places, strict=True):
                if at is None:
                    raise _not_in_file(kind, part, f"makes {name} of", names, file, mapping)
            composed[name] = tuple(at for at in places if at is not None)
    mapped = set(contract.values())
    if len(mapped) < len(contract):
        raise HeedError(
            f"two lines of [{kind}] in {mapping.source if mapping else 'the mapping'} use one column of {file}",
            "keep one of the two",
        )
    for name in COLUMNS[kind]:
        at = loosely.get(name)
        if name not in contract and name not in composed and at is not None and at not in mapped | ignored:
            contract[name] = at

    used = {*contract.values(), *(at for parts in composed.values() for at in parts)}
    missing = [name for name in REQUIRED[kind] if name not in contract and name not in composed]
    if missing:
        raise _missing(kind, missing, names, used | ignored, file)
    further = [(name, i) for i, name in enumerate(names) if i not in used and i not in ignored]
    left_out = [names[i] for i in sorted(ignored)]
    attributes = []
    for name, i in further:
        if name in OWN_COLUMNS or "attributes" not in COLUMNS[kind]:
            left_out.append(name)
        else:
            attributes.append((name, i))
    return ColumnPlan(contract, tuple(sorted(attributes)), tuple(left_out), composed=composed)


def _refuse_duplicates(kind: Kind, names: Sequence[str], file: str) -> None:
    seen: dict[str, str] = {}
    for name in names:
        # Two spellings of one contract column are as ambiguous as one name twice; other names are told apart exactly.
        key = normal_name(name) if normal_name(name) in COLUMNS[kind] else name
        if key in seen:
            both = shown(name) if seen[key] == name else f"{shown(seen[key])} and {shown(name)}"
            raise HeedError(
                f"the header of {file} has the column {both} twice",
                "give each column a name of its own, so that it is clear which one is meant",
            )
        seen[key] = name


def _not_in_file(kind: Kind, column: str, verb: str, names: Sequence[str], file: str, mapping: Mapping) -> HeedError:
    close = nearest(column, names)
    hint = f"did you mean {shown(close)}" if close else f"the header has {_listed(names)}"
    return HeedError(
        f"{mapping.source} {verb} the column {shown(column)}, which {file} does not have",
        f"correct [{kind}] there: {hint}",
    )


def _missing(kind: Kind, missing: list[str], names: Sequence[str], used: set[int], file: str) -> HeedError:
    if names and names[0].startswith("#"):
        return HeedError(
            f"{file} begins with a comment ({shown(names[0])}) and not with column names",
            "write the column names on its first line, without #",
        )
    if names and all(len(name) > 1 and name[0] == name[-1] == "'" for name in names):
        return HeedError(
            f"{file} quotes its fields with ' ({_listed(names)})", 'export it with double quotes, like "field"'
        )
    free = [name for i, name in enumerate(names) if i not in used]
    close = {name: nearest(name, free) for name in missing}
    hints = [f"nearest to {name} is {shown(found)}" for name, found in close.items() if found]
    plural = "s" if len(missing) > 1 else ""
    cause = f"{file} has no column{plural} {', '.join(missing)}, which {kind.replace('_', ' ')} need"
    cause += f" ({'; '.join(hints)})" if hints else f" (its header: {_listed(names)})"
    lines = ", ".join(f"{name} = {json.dumps(close[name] or 'your_column', ensure_ascii=False)}" for name in missing)
    return HeedError(cause, f"rename the column, or name it in a file for --mapping: under [{kind}] write {lines}")


def _listed(names: Sequence[str]) -> str:
    some = ", ".join(shown(name, 30) for name in names[:NAMES_SHOWN])
    return some + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
