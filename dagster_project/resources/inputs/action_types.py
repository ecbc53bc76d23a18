"""Action types: which ones occur, what heed takes them for, and when it refuses to learn.

Belongs here: heed's own list and users' lists as Python reads them, counts of types, and the refusal.
Does not belong here: the meaning of an action in a table, which SQL joins (`marts.actions`, `marts.action_meanings`).

`heed load` and `heed action-types` read raw rows, since nothing may be cleaned yet. The refusal reads clean ones.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.resources.dbt.project import DBT_PROJECT
from dagster_project.resources.warehouse.connection import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime
    from pathlib import Path

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings

MEANINGS = ("acted", "dismissed", "neutral", "reopened")

# Nothing is learned if more than this share of the actions that may decide has no known meaning. Each of them may be a
# lost label, so every probability may be off by this share of itself; 5% is the size of the calibration error that the
# real alerts show anyway (decile error 0.048).
MOST_UNKNOWN = 0.05

SHOWN = 8  # types named in a message

# The same as in the macro type_key in dbt_project/macros/read_text.sql.
_NOT_COMPARED = dict.fromkeys(map(ord, " \t\n\r\f\x0b_-/.,:;!?()[]&'’`\""))


def type_key(text: str) -> str:
    """The normalized spelling of a type: "Won't Fix", "wont_fix" and "WONTFIX" are the same."""
    lower = text.lower()
    return lower.translate(_NOT_COMPARED) or lower


@dataclass(frozen=True)
class SeenType:
    """An action type that occurs.

    Attributes
    ----------
    meaning : one of MEANINGS; None: unknown, and its actions count as neutral.
    defined_in : "project" (heed's own list), "loaded" (by a person) or None.
    actions : rows of this type. example : the id of one of them.
    alerts_without_decision : alerts with such an action and none that decides; None: not known yet.
    """

    action_type: str
    meaning: str | None
    defined_in: str | None
    actions: int
    example: str | None
    alerts_without_decision: int | None = None

    def to_document(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


_RAW = """
SELECT lower(btrim(action_type::text)) AS action_type, count(*) AS actions, min(action_id::text) AS example FROM {table}
WHERE btrim(action_type::text) <> '' GROUP BY 1 ORDER BY 2 DESC, 1
"""
_LOADED = "SELECT action_type::text AS action_type, lower(btrim(meaning::text)) AS meaning FROM {table}"


def raw_types(warehouse: Warehouse, settings: Settings) -> list[SeenType]:
    """The types of all raw actions, the most frequent first. Counts include duplicate rows."""
    source = settings.source
    if not warehouse.may_read(source.database_schema, source.actions):
        return []
    loaded: dict[str, str] = {}
    types = quoted(source.database_schema, "action_types")
    if warehouse.may_read(source.database_schema, "action_types"):
        newest = " ORDER BY loaded_at NULLS FIRST" if _has_column(warehouse, types, "loaded_at") else ""
        for row in warehouse.read_arrow(_LOADED.format(table=types) + newest).to_pylist():
            if row["action_type"] and row["meaning"] in MEANINGS:
                loaded[type_key(row["action_type"].strip())] = row["meaning"]
    undecided = {}
    if warehouse.may_read("marts", "action_meanings"):
        query = "SELECT action_type, alerts_without_decision AS alerts FROM marts.action_meanings"
        undecided = {
            type_key(row["action_type"]): int(row["alerts"]) for row in warehouse.read_arrow(query).to_pylist()
        }
    seen: dict[str, SeenType] = {}
    for row in warehouse.read_arrow(_RAW.format(table=quoted(source.database_schema, source.actions))).to_pylist():
        key = type_key(row["action_type"])
        before = seen.get(key)
        seen[key] = SeenType(
            before.action_type if before else row["action_type"],
            loaded.get(key) or project_types().get(key),
            "loaded" if key in loaded else "project" if key in project_types() else None,
            int(row["actions"]) + (before.actions if before else 0),
            before.example if before else row["example"],
            undecided.get(key),
        )
    return sorted(seen.values(), key=lambda each: (-each.actions, each.action_type))


def clean_types(warehouse: Warehouse, as_of: datetime | None = None) -> list[SeenType]:
    """The types of clean actions, the most frequent first. as_of : only types of actions up to then."""
    if not warehouse.may_read("marts", "action_meanings"):
        return []
    rows = warehouse.read_arrow(
        "SELECT action_type, meaning, defined_in, actions, example, alerts_without_decision FROM marts.action_meanings "
        "WHERE $1::timestamptz IS NULL OR first_acted_at <= $1::timestamptz ORDER BY actions DESC, action_type",
        (as_of,),
    )
    return [SeenType(**row) for row in rows.to_pylist()]


def unknown_share(types: Iterable[SeenType]) -> float:
    """The share of actions with unknown meaning among those that decide or may decide."""
    types = list(types)
    unknown = sum(each.actions for each in types if each.meaning is None)
    decisive = sum(each.actions for each in types if each.meaning in ("acted", "dismissed"))
    return unknown / max(unknown + decisive, 1)


def unknown_in_words(types: Sequence[SeenType]) -> str:
    """The types that nobody explained, with counts and examples; empty: none."""
    unknown = [each for each in types if each.meaning is None]
    if not unknown:
        return ""
    named = ", ".join(
        f"{each.action_type[:60]} ({each.actions:,}, for example {each.example})" for each in unknown[:SHOWN]
    )
    more = f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else ""
    return f"action types that nobody explained, counted as neutral: {named}{more}"


def nothing_acted_in_words(types: Sequence[SeenType]) -> str:
    """What heed would learn where no action counts as acted, with the types that may; empty: some action does."""
    neutral = [each for each in types if each.meaning in ("neutral", None)]
    if not neutral or any(each.meaning == "acted" for each in types):
        return ""
    named = ", ".join(f"{each.action_type[:60]} ({each.actions:,})" for each in neutral[:SHOWN])
    return (
        f"no action counts as acted, so heed would learn that nobody ever acts; neutral are {named}. Say which of them "
        "are work done for an alert"
    )


def how_to_explain(settings: Settings) -> str:
    """The remedy, as an instruction."""
    schema = settings.source.database_schema
    if schema != "raw":
        return (
            "`heed action-types --out action_types.csv` writes a list to fill in; put its rows into the table "
            f"{schema}.action_types (action_type, meaning)"
        )
    return (
        "`heed action-types --out action_types.csv` writes a list; fill in what each means (neutral is an answer), "
        "then `heed load --action-types action_types.csv`"
    )


def require_known_meanings(warehouse: Warehouse, settings: Settings, as_of: datetime) -> None:
    """Refuse to learn if too many labels would be lost because action types are unexplained.

    Raises HeedError: more than MOST_UNKNOWN of the actions that may decide have a type without a known meaning; names
        the types.
    """
    types = clean_types(warehouse, as_of)
    share = unknown_share(types)
    if share > MOST_UNKNOWN:
        raise HeedError(
            f"nothing is learned: {share:.0%} of the actions that may decide have {unknown_in_words(types)}",
            how_to_explain(settings),
        )


def write_types(types: Sequence[SeenType], out: Path) -> None:
    """Write the file to fill in for `heed load --action-types`: types without a meaning first, then by frequency.

    Raises HeedError: the file cannot be written.
    """
    from dagster_project.resources.files.atomic_write import whole_file

    with whole_file(out, "choose another --out") as fresh, fresh.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["action_type", "meaning", "actions", "said_by", "alerts_without_decision", "example"])
        for each in sorted(types, key=lambda each: (each.meaning is not None, -each.actions, each.action_type)):
            said_by = {"project": "heed assumes it", "loaded": "you"}.get(each.defined_in or "", "nobody")
            undecided = "" if each.alerts_without_decision is None else each.alerts_without_decision
            writer.writerow(
                [each.action_type, each.meaning or "", each.actions, said_by, undecided, each.example or ""]
            )


@lru_cache(maxsize=1)
def project_types() -> dict[str, str]:
    """heed's own list: key of a type -> meaning."""
    with (DBT_PROJECT / "seeds" / "action_types.csv").open(newline="", encoding="utf-8") as file:
        return {type_key(row["action_type"]): row["meaning"] for row in csv.DictReader(file)}


def _has_column(warehouse: Warehouse, table: str, column: str) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2 AND attnum > 0)"
    return bool(warehouse.value(query, (table, column)))
