"""Attributes: the further facts of an alert.

Belongs here: JSON documents to columns.
Does not belong here: which attributes a model takes (`features/matrix.py`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pandas as pd

# Alerts whose attributes are parsed together: their objects take about 100 MB.
PARSED_AT_ONCE = 50_000


def attribute_columns(attributes: pd.Series, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Attributes as object arrays of str, float or None, one array per name.

    attributes : JSON object text, a dict, or null per alert. Anything else counts as no attributes.
    names : the attributes wanted; None takes every name that occurs. A wanted name that never occurs is all None.

    Booleans become 1.0 and 0.0. Nested values become their JSON text. Empty text counts as missing.

    >>> texts = pd.Series(['{"site": "s1", "retries": 2}', '{"site": ""}', None])
    >>> {name: values.tolist() for name, values in attribute_columns(texts).items()}
    {'retries': [2.0, None, None], 'site': ['s1', None, None]}
    """
    columns: dict[str, np.ndarray] = {}
    # Parsed in parts, and equal values kept once: all objects of a million alerts at once take gigabytes.
    kept: dict[str | float, str | float] = {}
    for first in range(0, len(attributes), PARSED_AT_ONCE):
        part = attributes.iloc[first : first + PARSED_AT_ONCE].astype(object).to_numpy()
        # The same text recurs often in fan-outs and never in id-rich exports: parse each distinct text once.
        codes, texts = pd.factorize(np.array([_text(value) for value in part], dtype=object))
        parsed = [_object(text) for text in texts]
        for name in names if names is not None else {key for entry in parsed for key in entry}:
            if name not in columns:
                columns[name] = np.full(len(attributes), None, dtype=object)
            values = [_scalar(entry.get(name), kept) for entry in parsed]
            # The last one is that of no text.
            columns[name][first : first + len(part)] = np.array([*values, None], dtype=object)[codes]
    wanted = names if names is not None else sorted(columns)
    return {name: columns.get(name, np.full(len(attributes), None, dtype=object)) for name in wanted}


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    return value if isinstance(value, str) else None


def _object(text: str) -> dict[str, Any]:
    try:
        content = orjson.loads(text)
    except ValueError:
        try:
            content = json.loads(text)  # takes what orjson does not: NaN, lone surrogates
        except ValueError:
            return {}
    return content if isinstance(content, dict) else {}


def _scalar(value: Any, kept: dict[str | float, str | float]) -> str | float | None:
    if isinstance(value, str):
        return kept.setdefault(value, value) if value else None
    if value is None:
        return None
    if isinstance(value, (bool, int, float)):
        if not abs(value) < 1e300:  # nan as well
            return None
        number = float(value)
        # Zero has two signs, which are equal and are written differently.
        return kept.setdefault(number, number) if number else number
    text = json.dumps(value, sort_keys=True)
    return kept.setdefault(text, text)
