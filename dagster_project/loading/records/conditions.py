"""Conditions on a record: which ones are alerts, when somebody decided, whether it was a machine.

Belongs here: reading and testing conditions.
Does not belong here: what follows from one (`spec.py`, `reader.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import shown
from dagster_project.loading.records.fields import Record, look_up, text_of

FILLED, EMPTY = "*", ""
_REGEX = "~"
_NOT = "!"
_regex = lru_cache(maxsize=1 << 8)(re.compile)


@dataclass(frozen=True)
class Condition:
    """All of some tests: path -> texts of which one must be there.

    A text is compared without regard to case; "*" means any text, "" none; "~..." is a regular expression that is
    searched; "!" in front of any of these negates it, and all negated ones must hold.
    """

    tests: tuple[tuple[str, tuple[str, ...]], ...]

    def holds(self, record: Record) -> bool:
        """Whether the record passes all tests."""
        return all(_passes(text_of(look_up(record, path)), wanted) for path, wanted in self.tests)

    def says_something(self) -> bool:
        """Whether a record that passes has a text that is asked for, and not only lacks others."""
        return any(not one.startswith(_NOT) and one != EMPTY for _, wanted in self.tests for one in wanted)

    def paths(self) -> tuple[str, ...]:
        """The paths that are tested."""
        return tuple(path for path, _ in self.tests)


def _passes(text: str | None, wanted: tuple[str, ...]) -> bool:
    positive = [one for one in wanted if not one.startswith(_NOT)]
    negative = [one[1:] for one in wanted if one.startswith(_NOT)]
    if any(_matches(text, one) for one in negative):
        return False
    return not positive or any(_matches(text, one) for one in positive)


def _matches(text: str | None, wanted: str) -> bool:
    if wanted == EMPTY:
        return text is None
    if text is None:
        return False
    if wanted == FILLED:
        return True
    if wanted.startswith(_REGEX):
        return _regex(wanted[1:], re.IGNORECASE).search(text) is not None
    return text.casefold() == wanted.casefold()


def read_conditions(value: Any, where: str) -> tuple[Condition, ...]:
    """One table of conditions, or a list of them, of which one must hold.

    Raises
    ------
    HeedError
        It is something else.
    """
    tables = value if isinstance(value, list) else [value]
    conditions = []
    for table in tables:
        if not isinstance(table, dict) or not table:
            raise HeedError(f"{where} is not a condition", f'write {where.split()[0]} = {{ status = ["closed"] }}')
        tests = []
        for path, texts in table.items():
            texts = [texts] if isinstance(texts, str | int | float | bool) else texts
            if not isinstance(texts, list) or not texts:
                raise HeedError(f"{where} says nothing about {shown(path)}", f'write {path} = ["text", "other"]')
            words = tuple(str(text).lower() if isinstance(text, bool) else str(text) for text in texts)
            for word in words:
                if word.lstrip(_NOT).startswith(_REGEX):
                    try:
                        _regex(word.lstrip(_NOT)[1:], re.IGNORECASE)
                    except re.error as error:
                        raise HeedError(
                            f"{where} has no regular expression in {shown(word)} ({error})", "correct what follows ~"
                        ) from error
            tests.append((path, words))
        conditions.append(Condition(tuple(tests)))
    return tuple(conditions)


def any_holds(conditions: tuple[Condition, ...], record: Record) -> bool:
    """Whether one of them holds; with none, no."""
    return any(condition.holds(record) for condition in conditions)
