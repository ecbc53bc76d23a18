"""What a mapping says about records: fields, times, decisions, words, and which records are alerts.

Belongs here: those parts of a mapping's table, and refusing contradictions.
Does not belong here: names of plain columns (`loading/mapping.py`), reading records (`reader.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import COLUMNS, OWN_COLUMNS, Kind, nearest, normal_name, shown
from dagster_project.loading.records.conditions import Condition, read_conditions
from dagster_project.loading.records.fields import UNITS, Field, roots
from dagster_project.loading.records.times import NAMED, TimeRule, zone_in_name, zone_named

TIME_COLUMNS = ("raised_at", "acted_at", "created_at")
TIME_SETTINGS = ("time_format", "time_zone", "time_of_day")
DECISION = "decision"
SETTINGS = (*TIME_SETTINGS, "where", "keep", DECISION)
MEANINGS = ("acted", "dismissed", "neutral", "reopened")
_FIELD_KEYS = (
    *("column", "first", "join", "id", "with", "value", "pattern", "texts", "mask", "or", "after", "unit", "moments"),
    *TIME_SETTINGS,
)
_DECISION_KEYS = ("time", "type", "fixed_type", "actor", "when", "by_machine", "each", "link", *TIME_SETTINGS)


@dataclass(frozen=True)
class Decision:
    """How a record becomes an action.

    Attributes
    ----------
    time, type, actor : the facts of the action. when : one of these must hold; none: whenever there is a time.
    by_machine : one of these: then no person decided. always_machine : a machine decided, whatever the record says.
    each : the path of a list in the record, each item of which is an action. link : fields by which a record that is no
    alert belongs to the last alert before it with the same values. name : of the decision, for ids.
    """

    name: str
    time: Field
    rule: TimeRule
    type: Field
    actor: Field
    when: tuple[Condition, ...] = ()
    by_machine: tuple[Condition, ...] = ()
    always_machine: bool = False
    each: str = ""
    link: tuple[Field, ...] = ()

    def paths(self) -> set[str]:
        """Every path that it looks at."""
        parts = {path for one in (self.time, self.type, self.actor) for path in one.all_paths()}
        parts |= {self.each} if self.each else set()
        return parts | {path for one in (*self.when, *self.by_machine) for path in one.paths()}


@dataclass(frozen=True)
class RecordMapping:
    """What records of one kind are made of.

    Attributes
    ----------
    fields : contract column -> where it is. rules : time column -> how it is written. where : one of these must hold
    for a record to count; none: all. keep : the only paths that become attributes; None: all that nothing else uses
    and that are not ignored. decisions : actions in the same records. words : key of a type -> its meaning here.
    empty : texts that mean nothing. lenient : a column that is missing is no error, unless it is required.
    source : the mapping, for messages.
    """

    fields: dict[str, Field]
    rules: dict[str, TimeRule] = field(default_factory=dict)
    where: tuple[Condition, ...] = ()
    keep: tuple[str, ...] | None = None
    ignored: tuple[str, ...] = ()
    decisions: tuple[Decision, ...] = ()
    words: dict[str, str] = field(default_factory=dict)
    empty: frozenset[str] = frozenset()
    lenient: bool = False
    source: str = "the mapping"

    def used(self) -> set[str]:
        """The paths that fields and decisions look at."""
        used = {path for one in self.fields.values() for path in one.all_paths()}
        return used | {path for decision in self.decisions for path in decision.paths()}

    def keeps(self, kind: Kind, path: str) -> bool:
        """Whether the value at a path of a record becomes an attribute."""
        if "attributes" not in COLUMNS[kind]:
            return False
        if self.keep is not None:
            return any(_under(path, one) for one in self.keep)
        return not any(_under(path, one) for one in (*self.ignored, *self.used(), *OWN_COLUMNS))


def _under(path: str, root: str) -> bool:
    """Whether a path is one that a mapping names, lies below it, or (for a part of a list) holds it."""
    path, root = normal_name(path), normal_name(root)
    return path == root or path.startswith((f"{root}.", f"{root}[")) or root.startswith(f"{path}[")


def needs_records(entries: dict[str, Any], columns: dict[str, Any]) -> bool:
    """Whether a table says something that only records can do, or names a path into an object."""
    paths = [path for value in columns.values() for path in (value if isinstance(value, list) else [value])]
    return (
        any(name in SETTINGS for name in entries)
        or any(isinstance(value, dict) for value in columns.values())
        or any(isinstance(path, str) and len(tuple(roots(path))) > 1 for path in paths)
    )


def read_field(value: Any, where: str, *, several: str = "first") -> Field:
    """A field as a mapping writes it: a path, a list of paths, or a table.

    several : what a list of paths means.

    Raises
    ------
    HeedError
        It is none of these.
    """
    if isinstance(value, str) and value.strip():
        return Field((value,))
    if isinstance(value, list) and value and all(isinstance(path, str) and path.strip() for path in value):
        return Field(tuple(value), "id" if several == "id" else "first")
    if not isinstance(value, dict) or not value:
        raise HeedError(f"{where} is not a column", 'write the name of one, like "status" or "user.name"')
    for key in value:
        if key not in _FIELD_KEYS:
            close = nearest(key, _FIELD_KEYS)
            raise HeedError(
                f"{where} has a key {shown(key)}, which heed does not know",
                f"did you mean {close}" if close else f"use {', '.join(_FIELD_KEYS)}",
            )
    lists = [key for key in ("column", "first", "join", "id") if key in value]
    if len(lists) > 1 or not (lists or "value" in value):
        raise HeedError(f"{where} does not say which column", 'write one of column = "a", first = [...], join = [...]')
    paths: Any = value[lists[0]] if lists else []
    paths = [paths] if isinstance(paths, str) else paths
    texts, pattern = value.get("texts", {}), value.get("pattern", "")
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.strip() for path in paths):
        raise HeedError(f"{where} is not a list of column names", f'write {lists[0]} = ["one", "other"]')
    moments = value.get("moments", [])
    if not isinstance(moments, list) or not set(map(str, moments)) <= set(paths) or (moments and lists != ["id"]):
        raise HeedError(f"moments of {where} are no columns of its id", 'write moments = ["startsAt"], from id = [...]')
    if not isinstance(texts, dict) or not isinstance(pattern, str):
        raise HeedError(f"texts or pattern of {where} cannot be read", 'write texts = { "1" = "high" }')
    if value.get("unit", "s") not in UNITS:
        raise HeedError(f"unit of {where} is {shown(value['unit'])}", f"use one of {', '.join(UNITS)}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise HeedError(
            f"pattern of {where} is no regular expression ({error})", "correct it, or leave it out"
        ) from error
    return Field(
        tuple(paths),
        "join" if lists == ["join"] else "id" if lists == ["id"] else "first",
        str(value.get("with", " ")),
        str(value.get("value", "")),
        pattern,
        {str(text).casefold(): str(to) for text, to in texts.items()},
        value.get("mask") is True,
        read_field(value["or"], where) if "or" in value else None,
        str(value.get("after", "")),
        str(value.get("unit", "s")),
        tuple(moments),
    )


def read_rule(entries: dict[str, Any], column: str, path: str, where: str, base: TimeRule | None = None) -> TimeRule:
    """How a time column is written. entries : a table with time_format, time_zone, time_of_day; each may be a table by
    column. base : what counts where the table says nothing.

    Raises
    ------
    HeedError
        A format, zone or hour that does not exist.
    """
    values: dict[str, Any] = {}
    for name in TIME_SETTINGS:
        value = entries.get(name)
        if isinstance(value, dict):
            value = value.get(column, value.get(path))
        values[name] = value
    base = base or TimeRule()
    formats = values["time_format"]
    formats = [formats] if isinstance(formats, str) else formats
    if formats is not None and (not isinstance(formats, list) or not all(_is_format(form) for form in formats)):
        raise HeedError(
            f"time_format of {where} is no format",
            f'write one like time_format = "%d/%m/%Y %H:%M", or one of {", ".join(NAMED)}',
        )
    zone, hour = values["time_zone"], values["time_of_day"]
    if zone is not None:
        if not isinstance(zone, str):
            raise HeedError(f"time_zone of {where} is no text", 'write time_zone = "Europe/Berlin"')
        zone_named(zone)
    if hour is not None and (not isinstance(hour, str) or not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", hour)):
        raise HeedError(f"time_of_day of {where} is no time", 'write time_of_day = "12:00"')
    return TimeRule(
        base.formats if formats is None else tuple(formats),
        zone or base.zone or zone_in_name(path),
        hour or base.hour,
    )


def _is_format(form: Any) -> bool:
    return isinstance(form, str) and (form in NAMED or "%" in form)


def _rule_of(value: Any, entries: dict[str, Any], column: str, where: str) -> TimeRule:
    """The rule of one time column: what its own table says counts before what the table of its kind says."""
    path = value if isinstance(value, str) else ""
    base = read_rule(entries, column, path, where)
    return read_rule(value, column, path, where, base) if isinstance(value, dict) else base


def read_record_mapping(
    kind: Kind,
    columns: dict[str, Any],
    entries: dict[str, Any],
    *,
    ignored: tuple[str, ...] = (),
    empty: tuple[str, ...] = (),
    words: dict[str, str] | None = None,
    lenient: bool = False,
    source: str = "the mapping",
) -> RecordMapping:
    """The record mapping of one table.

    columns : contract column -> what the table says of it. entries : the settings of the table (`SETTINGS`).

    Raises
    ------
    HeedError
        A part of it is wrong; names it.
    """
    where = f"[{kind}] in {source}"
    fields = {
        name: read_field(value, f"{name} of {where}", several="id" if name.endswith("_id") else "first")
        for name, value in columns.items()
    }
    rules = {
        name: _rule_of(columns.get(name), entries, name, f"{name} of {where}")
        for name in TIME_COLUMNS
        if name in COLUMNS[kind]
    }
    keep = entries.get("keep")
    if keep is not None and (not isinstance(keep, list) or not all(isinstance(path, str) for path in keep)):
        raise HeedError(f"keep of {where} is not a list of columns", 'write keep = ["column", "other"]')
    decisions = entries.get(DECISION, [])
    if decisions and kind != "alerts":
        raise HeedError(f"{where} has decisions, which only alerts have", "write [[alerts.decision]]")
    if not isinstance(decisions, list) or not all(isinstance(one, dict) for one in decisions):
        raise HeedError(f"decision of {where} is not a list of tables", "write [[alerts.decision]] and its lines below")
    return RecordMapping(
        fields,
        rules,
        read_conditions(entries["where"], f"where of {where}") if "where" in entries else (),
        None if keep is None else tuple(keep),
        ignored,
        tuple(_read_decision(one, entries, f"decision {at} of {where}") for at, one in enumerate(decisions, 1)),
        words or {},
        frozenset(empty),
        lenient,
        source,
    )


def _read_decision(table: dict[str, Any], entries: dict[str, Any], where: str) -> Decision:
    for key in table:
        if key not in _DECISION_KEYS:
            close = nearest(key, _DECISION_KEYS)
            raise HeedError(
                f"{where} has a key {shown(key)}, which heed does not know",
                f"did you mean {close}" if close else f"use {', '.join(_DECISION_KEYS)}",
            )
    if "type" not in table and "fixed_type" not in table:
        raise HeedError(
            f"{where} does not say what was decided",
            'write type = "your_column" or fixed_type = "fixed"',
        )
    if "time" not in table:
        raise HeedError(f"{where} does not say when", 'write time = "your_column"')
    kind_of = read_field(table["type"], f"type of {where}") if "type" in table else Field()
    fixed = table.get("fixed_type", "")
    if not isinstance(fixed, str):
        raise HeedError(f"fixed_type of {where} is not a text", 'write fixed_type = "fixed"')
    if fixed:
        kind_of = replace(kind_of, value=fixed)
    time = read_field(table["time"], f"time of {where}")
    base = _rule_of(table["time"], entries, "acted_at", where)
    path = time.paths[0] if time.paths else ""
    by_machine, link = table.get("by_machine", False), table.get("link", [])
    return Decision(
        name=f"{path}{'=' + fixed if fixed else ''}",
        time=time,
        rule=read_rule(table, "acted_at", path, where, base),
        type=kind_of,
        actor=read_field(table["actor"], f"actor of {where}") if "actor" in table else Field(),
        when=read_conditions(table["when"], f"when of {where}") if "when" in table else (),
        by_machine=() if isinstance(by_machine, bool) else read_conditions(by_machine, f"by_machine of {where}"),
        always_machine=by_machine is True,
        each=str(table.get("each", "")),
        link=tuple(read_field(one, f"link of {where}") for one in ([link] if isinstance(link, str) else link)),
    )


def read_words(table: Any, source: str) -> dict[str, str]:
    """A list of words: type -> meaning, as `[words]` of a mapping has it; keys are normalized.

    Raises
    ------
    HeedError
        A meaning that heed does not know.
    """
    from dagster_project.resources.inputs.action_types import type_key

    if not isinstance(table, dict):
        raise HeedError(f"words in {source} is not a table", 'write [words] and lines like "Won\'t Do" = "dismissed"')
    words = {}
    for word, meaning in table.items():
        if meaning not in MEANINGS:
            raise HeedError(
                f"[words] in {source} gives {shown(word)} the meaning {shown(meaning)}", f"use {', '.join(MEANINGS)}"
            )
        words[type_key(word)] = str(meaning)
    return words
