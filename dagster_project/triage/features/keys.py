"""Keys: what history is kept about.

Belongs here: the value of a key for each alert, and its code.
Does not belong here: the history itself (`history/`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dagster_project.triage.features.attributes import attribute_columns

COLUMNS = ("rule", "entity", "team", "severity", "title")

# The history key that all alerts share: how busy everything is, and how much of it is acted on.
EVERYTHING = "all"

KEY_SEPARATOR = "+"


def key_values(alerts: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The value of each history key per alert: one categorical column per key (text, or missing).

    A name that is a column of the contract is that column; any other is an attribute. A combination is the
    JSON list of its parts, so that no two combinations are confused; it is missing when a part is missing.

    >>> alerts = pd.DataFrame({"rule": ["cpu", "disk"], "team": ["web", None]})
    >>> key_values(alerts, ["rule", "rule+team"]).astype(object).to_numpy().tolist()
    [['cpu', '["cpu", "web"]'], ['disk', nan]]
    """
    coded = _coded_parts(alerts, keys)
    coded_keys = {key: _joined([coded[name] for name in key.split(KEY_SEPARATOR)]) for key in keys}
    columns = {key: pd.Categorical.from_codes(codes, pd.Index(words)) for key, (codes, words) in coded_keys.items()}
    return pd.DataFrame(columns, index=alerts.index)


def key_codes(alerts: pd.DataFrame, keys: Sequence[str], wanted: np.ndarray) -> pd.DataFrame:
    """As `key_values`, with numbers for the values that the `wanted` alerts (bool) have, and all others missing.

    No history of a wanted alert uses another value, so other values need neither a text nor a group.
    """
    coded = _coded_parts(alerts, keys)
    columns = {}
    for key in keys:
        parts = [coded[name] for name in key.split(KEY_SEPARATOR)]
        joint = parts[0][0]
        for codes, words in parts[1:]:
            joint = joint * (len(words) + 1) + codes
            if len(parts) > 2:  # the product of the counts may overflow int64
                joint = pd.factorize(joint)[0].astype(np.int64)
        for codes, _ in parts if len(parts) > 1 else ():
            joint[codes < 0] = -1
        asked = pd.unique(joint[wanted & (joint >= 0)])
        columns[key] = pd.Categorical.from_codes(pd.Index(asked).get_indexer(joint), pd.RangeIndex(len(asked)))
    return pd.DataFrame(columns, index=alerts.index)


def _coded_parts(alerts: pd.DataFrame, keys: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each part of the keys, its codes (int64, -1: missing) and their values."""
    parts = {part for key in keys for part in key.split(KEY_SEPARATOR)}
    none = np.full(len(alerts), -1, dtype=np.int64)
    coded: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    coded[EVERYTHING] = none + 1, np.array([EVERYTHING], dtype=object)
    for part in sorted(parts & set(COLUMNS)):
        coded[part] = _coded(alerts[part]) if part in alerts else (none, np.empty(0, dtype=object))
    others = sorted(parts - {*COLUMNS, EVERYTHING})
    if others:
        texts = alerts["attributes"] if "attributes" in alerts else pd.Series([None] * len(alerts), dtype=object)
        for name, values in attribute_columns(texts, others).items():
            words = np.array([v if v is None or isinstance(v, str) else repr(v) for v in values], dtype=object)
            coded[name] = _coded(pd.Series(words, dtype=object))
    return coded


def _coded(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int64, -1: missing) and their values."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(dtype=np.int64), column.cat.categories.to_numpy(dtype=object)
    codes, values = pd.factorize(column)
    return codes.astype(np.int64), np.asarray(values, dtype=object)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The combination of coded columns as one."""
    if len(parts) == 1:
        return parts[0]
    missing = np.any([codes < 0 for codes, _ in parts], axis=0)
    joint = parts[0][0]
    for codes, words in parts[1:]:
        joint = pd.factorize(joint * (len(words) + 1) + np.maximum(codes, 0))[0].astype(np.int64)
    joint = pd.factorize(np.where(missing, np.nan, joint))[0].astype(np.int64)
    numbers, first = np.unique(joint, return_index=True)
    rows = first[numbers >= 0]
    # As json.dumps writes a list; each part's text is written once.
    texts = [[json.dumps(str(word), ensure_ascii=False) for word in words] for _, words in parts]
    chosen = [[text[code] for code in codes[rows]] for (codes, _), text in zip(parts, texts, strict=True)]
    return joint, np.array([f"[{', '.join(words)}]" for words in zip(*chosen, strict=True)], dtype=object)
