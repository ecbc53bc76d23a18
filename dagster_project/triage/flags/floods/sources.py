"""Sources: what the alerts of one scope share in their attributes, such as an account or a collector.

Belongs here: the values of attributes as codes, from JSON text or from columns that hold them already, and which alerts
have a given value.
Does not belong here: which attributes floods look at (`levels.list_sources`).

A value is a text, or a whole number as its text; other numbers are measurements or ids, and nested values are none. A
frame brings its attributes as JSON text in the column `attributes`, or as one categorical column for each attribute,
named `@` and its name; with such columns the text is not read.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd

MARK = "@"


def source_names(columns: pd.Index | list[str]) -> list[str]:
    """The attributes that these columns hold the values of."""
    return [name[len(MARK) :] for name in columns if isinstance(name, str) and name.startswith(MARK)]


def needed_columns(history: pd.DataFrame) -> list[str]:
    """The columns of a history that decide which scopes an alert belongs to."""
    return [c for c in ("raised_at", "rule", "team", "attributes") if c in history] + [
        MARK + name for name in source_names(history.columns)
    ]


def codes_of_text(attributes: np.ndarray, limit: int) -> list[tuple[str, np.ndarray, list[str]]]:
    """For each attribute in JSON texts: name, the value codes in order of first appearance (int64, -1 for none, `limit`
    for any further value), and the first values. Anything but a JSON object has no attributes."""
    known: dict[str, dict[str, int]] = {}
    codes: dict[str, list[int]] = {}
    # The text of a number is the same in each row. Lists, because setting one element of an array costs three
    # times as much.
    of_numbers: dict[tuple[type, Any], str | None] = {}
    read = json.JSONDecoder().decode
    for number, text in enumerate(attributes):
        if not isinstance(text, str) or not text:
            continue
        try:
            content = read(text)
        except ValueError:
            continue
        if not isinstance(content, dict):
            continue
        for name, value in content.items():
            kind = type(value)
            if kind is str:
                word = value
            elif value is None or kind is dict or kind is list:
                continue
            else:
                try:
                    word = of_numbers[kind, value]
                except KeyError:
                    word = of_numbers[kind, value] = _word(value)
                if word is None:
                    continue
            own = known.get(name)
            if own is None:
                own = known[name] = {}
                codes[name] = [-1] * len(attributes)
            at = own.get(word)
            if at is None:
                at = len(own)
                if at < limit:
                    own[word] = at
            codes[name][number] = at
    return [(name, np.array(codes[name], np.int64), list(own)) for name, own in known.items()]


def codes_of_column(column: pd.Series, limit: int) -> tuple[np.ndarray, list[str]]:
    """The same for one categorical column, in its row order."""
    codes, first = pd.factorize(column.cat.codes.to_numpy(), use_na_sentinel=False)
    words = column.cat.categories.to_numpy(dtype=object)
    # -1 means no value, wherever it first appears.
    none = np.flatnonzero(first == -1)
    numbers = np.arange(len(first))
    if len(none):
        numbers[none[0] + 1 :] -= 1
        numbers[none[0]] = -1
    codes = np.minimum(numbers[codes], limit)
    return codes.astype(np.int64), [str(words[code]) for code in first if code >= 0][:limit]


def has_source(alerts: pd.DataFrame, at: np.ndarray, name: str, value: str) -> np.ndarray:
    """bool, one for each position in `at`: whether that alert has this value under this name."""
    if MARK + name in alerts:
        column = alerts[MARK + name]
        code = column.cat.categories.get_indexer(pd.Index([value]))[0]
        return (column.cat.codes.to_numpy()[at] == code) & (code >= 0)
    if "attributes" not in alerts:
        return np.zeros(len(at), bool)
    code, unique = pd.factorize(alerts["attributes"].to_numpy(dtype=object)[at])
    holds = np.zeros(len(unique) + 1, bool)
    for number, text in enumerate(unique):
        try:
            content = json.loads(text) if isinstance(text, str) else text
        except ValueError:
            continue
        if isinstance(content, dict):
            holds[number] = _word(content.get(name)) == value
    return holds[code]


def _word(value: Any) -> str | None:
    """The text of a value; None where it is none. A whole number that a float holds exactly has no decimal point."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float) or not (abs(value) <= 2**53 and value == math.trunc(value)):
        return None
    return json.dumps(int(value) if isinstance(value, float) else value)
