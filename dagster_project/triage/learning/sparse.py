"""Alerts as sparse facts: which names, pairs of names, attributes, words and times an alert has.

Belongs here: the facts that a linear model weighs one by one, as sparse matrices with a text for every column.
Does not belong here: weighing them (`linear.py`), the dense matrix of trees (`matrix.py`), anything that looks at
outcomes.

Every fact is known at `raised_at`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from dagster_project.triage.features import COLUMNS, KEY_SEPARATOR, attribute_columns

# Attributes whose values hold blanks or punctuation inside are read as words as well.
TEXT_COLUMNS = ("title", "rule", "entity")
WORD = re.compile(r"[^\W_]+")
# Longer texts are cut: their first words say what they are about, and one stack trace must not cost a second.
TEXT_LIMIT = 500
CHARACTERS = 4


@dataclass(frozen=True)
class Facts:
    """Sparse facts of one kind.

    name : the kind: "rule", "rule+entity", "@region", "words of title", "hour", ...
    matrix : float64 CSR [alerts, values]; words of one text share a weight: k words weigh 1 / sqrt(k) each.
    values : the text of each column, all different.
    """

    name: str
    matrix: sparse.csr_matrix
    values: np.ndarray


def words(text: str) -> list[str]:
    """The words of a text in lower case and its pairs of neighbours ("disk full"), each once, in order of appearance."""
    single = WORD.findall(text[:TEXT_LIMIT].lower())
    return list(dict.fromkeys([*single, *(f"{a} {b}" for a, b in zip(single, single[1:], strict=False))]))


def character_grams(text: str) -> list[str]:
    """The runs of `CHARACTERS` characters inside the words of a text, ends marked "^" and "$", each once."""
    made: dict[str, None] = {}
    for word in dict.fromkeys(WORD.findall(text[:TEXT_LIMIT].lower())):
        marked = f"^{word}$"
        for i in range(max(1, len(marked) - CHARACTERS + 1)):
            made[marked[i : i + CHARACTERS]] = None
    return list(made)


def sparse_facts(frame: pd.DataFrame, kinds: Sequence[str]) -> Iterator[Facts]:
    """The facts of `frame` of each of the `kinds`, in their order.

    kinds : a column of the contract ("rule"), an attribute ("@region"), several of both joined by "+", "words of " or
        "characters of " one of them, "hour" (of the day, UTC), "weekday", "hour of week". What a frame lacks gives no
        facts, and is no error.
    """
    attributes = {
        part[1:] for kind in kinds for part in _parts(kind) if part.startswith("@")
    }
    parsed = attribute_columns(frame["attributes"], sorted(attributes)) if attributes and "attributes" in frame else {}
    coded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def column(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in coded:
            coded[name] = _coded(frame, name, parsed)
        return coded[name]

    for kind in kinds:
        if kind in ("hour", "weekday", "hour of week"):
            yield _time(frame, kind)
        elif kind.startswith("words of "):
            yield _tokens(kind, *column(kind.removeprefix("words of ")), words)
        elif kind.startswith("characters of "):
            yield _tokens(kind, *column(kind.removeprefix("characters of ")), character_grams)
        else:
            yield _category(kind, [column(part) for part in kind.split(KEY_SEPARATOR)])


def _parts(kind: str) -> list[str]:
    return kind.removeprefix("words of ").removeprefix("characters of ").split(KEY_SEPARATOR)


def _coded(frame: pd.DataFrame, name: str, parsed: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Codes (-1: missing) and the texts that they mean."""
    if name.startswith("@"):
        column = parsed.get(name[1:])
        if column is None:
            return np.full(len(frame), -1), np.empty(0, dtype=object)
        # A number that names something ("region 7") is a name like any other.
        column = np.array([v if v is None or isinstance(v, str) else f"{v:g}" for v in column], dtype=object)
    elif name in COLUMNS and name in frame:
        column = frame[name].astype(object).to_numpy()
    else:
        return np.full(len(frame), -1), np.empty(0, dtype=object)
    codes, values = pd.factorize(column)
    return codes, np.array([str(v) for v in values], dtype=object)


def _category(kind: str, parts: list[tuple[np.ndarray, np.ndarray]]) -> Facts:
    joint, values = parts[0]
    present = joint >= 0
    if len(parts) > 1:
        for codes, _ in parts[1:]:
            present = present & (codes >= 0)
        joint = joint.astype(np.int64)
        for codes, texts in parts[1:]:
            joint = pd.factorize(joint * (len(texts) + 1) + codes)[0]
        rows = np.flatnonzero(present)
        codes, first = np.unique(joint[rows], return_index=True)
        columns = [texts[c[rows[first]]] for c, texts in parts]
        values = np.array(["\x1f".join(texts) for texts in zip(*columns, strict=True)], dtype=object)
        joint = np.searchsorted(codes, joint) if len(codes) else joint
    rows = np.flatnonzero(present)
    matrix = sparse.csr_matrix(
        (np.ones(len(rows)), joint[rows], np.r_[0, np.cumsum(present)]), shape=(len(present), len(values))
    )
    return Facts(kind, matrix, values)


def _time(frame: pd.DataFrame, kind: str) -> Facts:
    raised = frame["raised_at"].dt
    hour, day = raised.hour.to_numpy(), raised.weekday.to_numpy()
    codes, n = {"hour": (hour, 24), "weekday": (day, 7), "hour of week": (day * 8 + hour // 3, 56)}[kind]
    matrix = sparse.csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape=(len(codes), n))
    return Facts(kind, matrix, np.array([str(i) for i in range(n)], dtype=object))


def _tokens(kind: str, codes: np.ndarray, texts: np.ndarray, split: Callable[[str], list[str]]) -> Facts:
    """Each distinct text is read once."""
    place: dict[str, int] = {}
    indices: list[int] = []
    starts = [0]
    for text in texts:
        indices += [place.setdefault(token, len(place)) for token in split(text)]
        starts.append(len(indices))
    sizes = np.diff(starts)
    weight = np.repeat(1.0 / np.sqrt(np.maximum(sizes, 1)), sizes)
    # The last row is that of no text.
    of_text = sparse.csr_matrix((weight, indices, [*starts, len(indices)]), shape=(len(texts) + 1, len(place)))
    return Facts(kind, of_text[codes], np.array(list(place), dtype=object))
