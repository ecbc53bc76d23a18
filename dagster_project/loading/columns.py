"""What each column of one file becomes: a contract column, part of an id, an attribute, or nothing.

Belongs here: the plan for a header, and refusing headers that cannot be planned.
Does not belong here: reading rows (`readers/`), and types: every value is text until staging reads it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from dagster_project.errors import HeedError
from dagster_project.loading.contract import COLUMNS, OWN_COLUMNS, REQUIRED, Kind, nearest, normal_name, shown
from dagster_project.loading.mapping import Mapping

NAMES_SHOWN = 12  # of a header in an error message: more do not fit on a line that people read


@dataclass(frozen=True)
class ColumnPlan:
    """What each column of one file becomes.

    Attributes
    ----------
    contract : contract column -> position in the file.
    composed : id -> positions in the file of the columns that it joins.
    attributes : (name, position) of columns that become attributes, in order of their names.
    ignored : names of columns that are not loaded.
    twice : the column that has two names here, so that it is unclear which one is meant; empty where none has. Only for
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


def matched_names(kind: Kind, header: Sequence[str], mapping: Mapping) -> int:
    """How many columns of a header the contract or the mapping knows: the measure of a good delimiter."""
    known = set(COLUMNS[kind])
    known |= {normal_name(column) for column in mapping.columns.get(kind, {}).values()}
    known |= {normal_name(part) for parts in mapping.composed.get(kind, {}).values() for part in parts}
    return len(known & {normal_name(name) for name in header})


def plan_columns(kind: Kind, header: Sequence[str], mapping: Mapping, file: str) -> ColumnPlan:
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
    _refuse_duplicates(kind, names, mapping, file)
    names = numbered(names)
    position = {name: i for i, name in enumerate(names)}
    loosely: dict[str, int] = {}
    for i, name in enumerate(names):
        loosely.setdefault(normal_name(name), i)

    def place(column: str, verb: str) -> int:
        at = position.get(column.strip(), loosely.get(normal_name(column)))
        if at is None:
            close = nearest(column, names)
            hint = f"did you mean {shown(close)}" if close else f"the header has {listed(names)}"
            raise HeedError(
                f"{mapping.source} {verb} the column {shown(column)}, which {file} does not have",
                f"correct [{kind}] there: {hint}",
            )
        return at

    ignored = {place(column, "ignores") for column in mapping.ignored.get(kind, ())}
    contract = {name: place(column, f"takes {name} from") for name, column in mapping.columns.get(kind, {}).items()}
    composed = {
        name: tuple(place(part, f"makes {name} of") for part in parts)
        for name, parts in mapping.composed.get(kind, {}).items()
    }
    mapped = set(contract.values())
    if len(mapped) < len(contract):
        raise HeedError(
            f"two lines of [{kind}] in {mapping.source} use one column of {file}",
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


def numbered(names: Sequence[str]) -> list[str]:
    """Column names without repetition: the second Labels is "Labels 2", as in exports with a column per value."""
    taken, unique = set(names), []
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = count = seen.get(name, 0) + 1
        candidate = name if count == 1 else f"{name} {count}"
        while count > 1 and candidate in taken:
            candidate += "_"
        taken.add(candidate)
        unique.append(candidate)
    return unique


def _refuse_duplicates(kind: Kind, names: Sequence[str], mapping: Mapping, file: str) -> None:
    """Raise where a column that is used has two columns of its name; others are numbered."""
    wanted = set(COLUMNS[kind]) | set(map(normal_name, mapping.columns.get(kind, {}).values()))
    wanted |= {normal_name(part) for parts in mapping.composed.get(kind, {}).values() for part in parts}
    seen: dict[str, str] = {}
    for name in names:
        # Two spellings of one contract column are as ambiguous as one name twice; other names are compared exactly.
        key = normal_name(name) if normal_name(name) in COLUMNS[kind] else name
        if key in seen and normal_name(key) in wanted:
            both = shown(name) if seen[key] == name else f"{shown(seen[key])} and {shown(name)}"
            raise HeedError(
                f"the header of {file} has the column {both} twice",
                "give each column a name of its own, so that it is clear which one is meant",
            )
        seen[key] = name


def _missing(kind: Kind, missing: list[str], names: Sequence[str], used: set[int], file: str) -> HeedError:
    if names and names[0].startswith("#"):
        return HeedError(
            f"{file} begins with a comment ({shown(names[0])}) and not with column names",
            "write the column names on its first line, without #",
        )
    if names and all(len(name) > 1 and name[0] == name[-1] == "'" for name in names):
        return HeedError(
            f"{file} quotes its fields with ' ({listed(names)})", 'export it with double quotes, like "field"'
        )
    free = [name for i, name in enumerate(names) if i not in used]
    close = {name: nearest(name, free) for name in missing}
    hints = [f"nearest to {name} is {shown(candidate)}" for name, candidate in close.items() if candidate]
    plural = "s" if len(missing) > 1 else ""
    cause = f"{file} has no column{plural} {', '.join(missing)}, which {kind.replace('_', ' ')} need"
    cause += f" ({'; '.join(hints)})" if hints else f" (its header: {listed(names)})"
    lines = ", ".join(f"{name} = {json.dumps(close[name] or 'your_column', ensure_ascii=False)}" for name in missing)
    return HeedError(cause, f"rename the column, or name it in a file for --mapping: under [{kind}] write {lines}")


def listed(names: Sequence[str]) -> str:
    some = ", ".join(shown(name, 30) for name in names[:NAMES_SHOWN])
    return some + (f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else "")
