"""Fields of one record: by name, by dotted path, from lists and from objects written into a cell.

Belongs here: how a mapping points into a record, and the text that is there.
Does not belong here: reading files (`sources.py`), times (`times.py`), what a field is for (`spec.py`).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal

from dagster_project.loading.contract import normal_name
from dagster_project.loading.readers.arrow_text import NotJson, parse_json, plain_text
from dagster_project.loading.records.times import TimeColumn, TimeRule
from dagster_project.loading.values import BLANKS, JOINT

Record = dict[str, Any]

_STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")
# An object in a cell of a table, such as PagerDuty's and Dependabot's. Longer ones are documents, not facts.
_CELL_CHARACTERS = 1 << 17
_LIST_JOINT = ", "
_normal = lru_cache(maxsize=1 << 16)(normal_name)


@lru_cache(maxsize=1 << 12)
def _ways(path: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each way to read a path: a key of the record, longest first, and the steps below it."""
    ways: list[tuple[str, tuple[str, ...]]] = [(path, ())]
    cuts = [match.start() for match in _STEP.finditer(path) if match.start()]
    for cut in reversed(cuts):
        below = tuple(m[1] if m[1] is not None else f"[{m[2]}]" for m in _STEP.finditer(path[cut:]))
        ways.append((path[:cut], below))
    return tuple(ways)


@lru_cache(maxsize=1 << 12)
def _key_among(keys: tuple[str, ...], name: str) -> str | None:
    return next((key for key in keys if _normal(key) == name), None)


def _key(record: Record, name: str) -> str | None:
    """The record's own spelling of a name; None where it has no such key."""
    if name in record:
        return name
    return _key_among(tuple(record), _normal(name))


def look_up(record: Record, path: str) -> Any:
    """The value at a path; None where there is none.

    A key that is spelt like the whole path comes first. Below it, `.name` enters an object, `[0]` takes one item of a
    list, `[key=host]` the first item whose key is host, and `[]` or a plain name all items, joined by commas.
    """
    for key, below in _ways(path):
        own = _key(record, key)
        if own is not None:
            value = record[own]
            return _descend(value, below) if below else value
    return None


def has(record: Record, path: str) -> bool:
    """Whether the record has a key with which this path may begin."""
    return any(_key(record, key) is not None for key, _ in _ways(path))


def roots(path: str) -> Iterator[str]:
    """The keys with which a path may begin."""
    return (key for key, _ in _ways(path))


def _descend(value: Any, steps: tuple[str, ...]) -> Any:
    at = -1
    while (at := at + 1) < len(steps):
        step, value = steps[at], opened(value)
        if step.startswith("["):
            inner = step[1:-1].strip()
            if not isinstance(value, list):
                return None
            if inner.lstrip("-").isdigit():
                index = int(inner)
                value = value[index] if -len(value) <= index < len(value) else None
            elif "=" in inner:
                name, _, wanted = inner.partition("=")
                matching = (item for item in value if isinstance(item, dict))
                value = next((i for i in matching if text_of(_descend(i, (name.strip(),))) == wanted.strip()), None)
            else:
                return _joined_items([_descend(item, steps[at + 1 :]) for item in value])
        elif isinstance(value, list):
            return _joined_items([_descend(item, steps[at:]) for item in value])
        elif isinstance(value, dict):
            own, at = _longest_key(value, steps, at)
            value = None if own is None else value[own]
        else:
            return None
    return value


def _longest_key(value: Record, steps: tuple[str, ...], at: int) -> tuple[str | None, int]:
    """The key that most of the next steps spell, since keys may have points in them; and the last of these steps."""
    for end in range(len(steps), at, -1):
        name = ".".join(steps[at:end])
        if "[" not in name and (own := _key(value, name)) is not None:
            return own, end - 1
    return None, at


def _joined_items(values: list[Any]) -> str | None:
    texts = [text for value in values if (text := text_of(value)) is not None]
    return _LIST_JOINT.join(texts) or None


def opened(value: Any) -> Any:
    """The object or list that a text holds, as JSON or as Python writes it; any other value as it is."""
    if isinstance(value, str) and value[:1] in "{[" and value:
        inside = _parsed(value) if len(value) <= _CELL_CHARACTERS else None
        return value if inside is None else inside
    return value


@lru_cache(maxsize=1 << 10)
def _parsed(text: str) -> Any:
    content = parse_json(text, nan=True)
    if isinstance(content, NotJson):
        try:
            content = ast.literal_eval(text)  # constants only: it calls nothing
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return content if isinstance(content, dict | list) else None


def text_of(value: Any) -> str | None:
    """A value as text, trimmed; None where it is empty. Lists of plain values are joined by commas."""
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return _joined_items(value)
    text = plain_text(value)
    return (text.strip(BLANKS) or None) if text is not None else None


@dataclass(frozen=True)
class Field:
    """Where one fact of a record is.

    Attributes
    ----------
    paths : where to look. how : "first" takes the first path with a value, "join" all of them with `joint` between,
        "id" joins all as ids are joined and is empty where one is.
    value : a text that is the same for every record, where no path gives one.
    pattern : a regular expression that is searched in the text; its group is the value, none where nothing matches.
        Several groups are joined as ids are.
    texts : text -> text, compared without regard to case. mask : words with digits in them become #, so that titles
        that name a host or a number share a text. otherwise : where to look if there is nothing here.
    after, unit : the value is not a time but how long after the time at this path, in seconds, ms, minutes or hours.
    moments : paths of an id that hold times. Systems write one time in several ways; the id has it in UTC, to the
        millisecond, which is what the coarsest of them keep.
    """

    paths: tuple[str, ...] = ()
    how: Literal["first", "join", "id"] = "first"
    joint: str = " "
    value: str = ""
    pattern: str = ""
    texts: dict[str, str] = field(default_factory=dict, hash=False)
    mask: bool = False
    otherwise: Field | None = None
    after: str = ""
    unit: str = "s"
    moments: tuple[str, ...] = ()

    def all_paths(self) -> tuple[str, ...]:
        """Every path that may be looked at."""
        others = self.otherwise.all_paths() if self.otherwise else ()
        return (*self.paths, *((self.after,) if self.after else ()), *others)

    def text(self, record: Record, empty: frozenset[str] = frozenset()) -> str | None:
        """The text of this fact; None where it is empty or one of the texts that mean so."""
        text = self._own(record, empty)
        if text is None and self.otherwise is not None:
            text = self.otherwise.text(record, empty)
        return text or self.value or None

    def _own(self, record: Record, empty: frozenset[str]) -> str | None:
        parts = []
        for path in self.paths:
            text = text_of(look_up(record, path))
            if text is not None and text in empty:
                text = None
            if text is None and self.how == "id":
                return None
            if text is not None and self.after:
                text = _shifted(text_of(look_up(record, self.after)), text, self.unit)
            if text is not None:
                parts.append(_to_the_millisecond(text) if path in self.moments else text)
                if self.how == "first":
                    break
        if self.how == "id":
            return id_of(parts)
        result = self.joint.join(parts) or None
        if result is not None and self.pattern:
            match = _regex(self.pattern).search(result)
            result = None if match is None else id_of(list(match.groups(""))) if match.re.groups > 1 else _group(match)
        if result is not None and self.texts:
            result = self.texts.get(result.casefold(), result)
        if result is not None and self.mask:
            result = _NUMBERED.sub("#", result)
        return result


def id_of(parts: list[str]) -> str:
    """One id of several parts."""
    return JOINT.join(part.replace("\\", "\\\\").replace(JOINT, "\\" + JOINT) for part in parts)


def _group(match: re.Match[str]) -> str | None:
    return match[1] if match.re.groups else match[0]


_NUMBERED = re.compile(r"[^\s,;:()\[\]{}'\"=/]*\d[^\s,;:()\[\]{}'\"=/]*")
UNITS = {"s": 1.0, "ms": 0.001, "minutes": 60.0, "hours": 3600.0}


def _shifted(start: str | None, span: str, unit: str) -> str | None:
    """A moment so long after another, as ISO 8601; None where either cannot be read."""
    moment = None if start is None else TimeColumn("", TimeRule()).iso(start, 0)
    try:
        seconds = float(span) * UNITS[unit]
        return (datetime.fromisoformat(moment or "") + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    except (ValueError, OverflowError):
        return None


def _to_the_millisecond(text: str) -> str:
    """A time in UTC, cut to the millisecond, without trailing zeros; what is no time comes back as it is."""
    written = TimeColumn("", TimeRule()).iso(text, 0)
    if not written.endswith("Z") or "." not in written:
        return written
    whole, fraction = written[:-1].split(".")
    fraction = fraction[:3].rstrip("0")
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


_regex = lru_cache(maxsize=1 << 8)(re.compile)


def leaves(record: Record, depth: int = 4) -> Iterator[tuple[str, Any]]:
    """Every plain value of a record with its dotted path. Lists of plain values are joined; lists of objects are
    given as they are, as are objects more than `depth` levels down."""
    for key, value in record.items():
        if isinstance(value, dict) and depth > 1 and value:
            for path, inner in leaves(value, depth - 1):
                yield f"{key}.{path}", inner
        elif isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
            yield key, text_of(value)
        else:
            yield key, value
