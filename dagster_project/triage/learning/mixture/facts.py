"""Alerts as sparse facts: which names, pairs of names, attributes, words and times an alert has.

Belongs here: the facts that a linear model weighs one by one, as sparse matrices with a text for every column.
Does not belong here: weighing them (`linear.py`), the dense matrix of trees (`features/matrix.py`), anything that looks
at outcomes.

Every fact is known at `raised_at`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.triage.features.attributes import attribute_columns
from dagster_project.triage.features.keys import COLUMNS, EVERYTHING, KEY_SEPARATOR

if TYPE_CHECKING:
    from scipy import sparse

# Attributes whose values hold blanks or punctuation inside are read as words as well.
TEXT_COLUMNS = ("title", "rule", "entity")
WORD = re.compile(r"[^\W_]+")
# Longer texts are cut: their first words say what they are about, and one stack trace must not cost a second.
TEXT_LIMIT = 500
# An attribute takes part when this share of alerts has it, and is a name when this share of them has a value that
# another alert has too. Numbers with more different values than `NUMBERED_NAMES` measure something.
PRESENT_SHARE = 0.01
RECURRING_SHARE = 0.3
NUMBERED_NAMES = 50
# Judgements that keep a fit on a million alerts within seconds: each kind costs one number per alert.
MOST_ATTRIBUTES = 20
PAIRED_ATTRIBUTES = 5
MOST_TEXTS = 6
# Keys are proposed from so many of the latest alerts: more would change the proposal hardly ever.
PROPOSED_FROM = 20_000


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
    """The words of a text in lower case and its pairs of neighbours ("disk full"), each once, in order of
    appearance."""
    single = WORD.findall(text[:TEXT_LIMIT].lower())
    return list(dict.fromkeys([*single, *(f"{a} {b}" for a, b in pairwise(single))]))


def plan_facts(frame: pd.DataFrame) -> tuple[str, ...]:
    """The kinds of facts that the alerts of `frame` offer; looks at facts only, never at outcomes.

    An attribute is a name when its values recur, and text when its values are of several words. Pairs of names: rule,
    team and the first attributes with each other, those with the fewest values first.
    """

    def present(name: str) -> bool:
        return name in frame and bool(frame[name].notna().any())

    base = [name for name in ("rule", "entity", "team", "severity") if present(name)]
    pairs = [f"{a}+{b}" for a, b in combinations([name for name in base if name != "severity"], 2)]
    texts = [name for name in TEXT_COLUMNS if present(name)]
    by_size: list[tuple[int, str]] = []
    for name, values in attribute_columns(frame["attributes"]).items() if "attributes" in frame else ():
        codes, distinct = pd.factorize(values)
        count = np.bincount(codes[codes >= 0], minlength=len(distinct))
        total = int(count.sum())
        if total < max(2.0, PRESENT_SHARE * len(frame)) or KEY_SEPARATOR in name:
            continue
        named = sum(isinstance(v, str) for v in distinct) >= 0.5 * len(distinct)
        recurs = count[count > 1].sum() >= RECURRING_SHARE * total
        if len(distinct) > 1 and recurs and (named or len(distinct) <= NUMBERED_NAMES):
            by_size.append((len(distinct), f"@{name}"))
        if named and np.mean([len(WORD.findall(str(v)[:TEXT_LIMIT])) > 1 for v in distinct[:1000]]) >= 0.5:
            texts.append(f"@{name}")
    attributes = [name for _, name in sorted(by_size)][:MOST_ATTRIBUTES]
    paired = attributes[:PAIRED_ATTRIBUTES]
    pairs += [f"{a}+{b}" for a in ("rule", "team") if a in base for b in paired]
    pairs += [f"{a}+{b}" for a, b in combinations(paired, 2)]
    kinds = [*base, *attributes, *pairs, "hour", "weekday", *(f"words of {name}" for name in texts[:MOST_TEXTS])]
    return tuple(kinds)


def sparse_facts(frame: pd.DataFrame, kinds: Sequence[str]) -> Iterator[Facts]:
    """The facts of `frame` of each of the `kinds`, in their order.

    kinds : a column of the contract ("rule"), an attribute ("@region"), several of both joined by "+", "words of " one
        of them, "hour" (of the day, UTC), "weekday". What a frame lacks gives no facts, and is no error.
    """
    attributes = {part[1:] for kind in kinds for part in parts_of(kind) if part.startswith("@")}
    parsed = attribute_columns(frame["attributes"], sorted(attributes)) if attributes and "attributes" in frame else {}
    coded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def column(name: str) -> tuple[np.ndarray, np.ndarray]:
        if name not in coded:
            coded[name] = _coded(frame, name, parsed)
        return coded[name]

    for kind in kinds:
        if kind in ("hour", "weekday"):
            yield _time(frame, kind)
        elif kind.startswith("words of "):
            yield _tokens(kind, *column(kind.removeprefix("words of ")))
        else:
            yield _category(kind, [column(part) for part in kind.split(KEY_SEPARATOR)])


def attribute_keys(frame: pd.DataFrame, most: int = 6) -> tuple[str, ...]:
    """The keys that `frame` proposes for histories of their own: severity, the attributes that are names (those with
    the fewest values first, at most `most`), and the pair of the first two. Looks at the latest `PROPOSED_FROM` alerts
    and at facts only. An attribute with the name of a column of the contract cannot be a key."""
    facts = frame[[c for c in ("raised_at", "severity", "attributes") if c in frame]].tail(PROPOSED_FROM)
    kinds = plan_facts(facts)
    clear = {k: k.replace("@", "") for k in kinds if k.startswith("@")}
    reserved = {*COLUMNS, EVERYTHING}
    usable = [(kind, key) for kind, key in clear.items() if not reserved & {p[1:] for p in kind.split(KEY_SEPARATOR)}]
    named = [key for kind, key in usable if KEY_SEPARATOR not in kind and KEY_SEPARATOR not in key and key.strip()]
    chosen = named[:most]
    pairs = [
        key for kind, key in usable if kind.count(KEY_SEPARATOR) == 1 and set(key.split(KEY_SEPARATOR)) <= set(chosen)
    ]
    return tuple(dict.fromkeys([*(["severity"] if "severity" in kinds else []), *chosen, *pairs[:1]]))


def parts_of(kind: str) -> list[str]:
    """The columns ("rule") and attributes ("@region") that a kind of facts is made of."""
    return kind.removeprefix("words of ").split(KEY_SEPARATOR)


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
    from scipy import sparse

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
    from scipy import sparse

    raised = frame["raised_at"].dt
    hour, day = raised.hour.to_numpy(), raised.weekday.to_numpy()
    codes, n = {"hour": (hour, 24), "weekday": (day, 7)}[kind]
    matrix = sparse.csr_matrix((np.ones(len(codes)), codes, np.arange(len(codes) + 1)), shape=(len(codes), n))
    return Facts(kind, matrix, np.array([str(i) for i in range(n)], dtype=object))


def _tokens(kind: str, codes: np.ndarray, texts: np.ndarray) -> Facts:
    """Each distinct text is read once."""
    from scipy import sparse

    place: dict[str, int] = {}
    indices: list[int] = []
    starts = [0]
    for text in texts:
        indices += [place.setdefault(token, len(place)) for token in words(text)]
        starts.append(len(indices))
    sizes = np.diff(starts)
    weight = np.repeat(1.0 / np.sqrt(np.maximum(sizes, 1)), sizes)
    # The last row is that of no text.
    # Columns in the order of their texts: the last bit of a sum over words must not depend on the other alerts.
    values = sorted(place)
    rank = np.empty(len(place), dtype=np.int64)
    rank[[place[value] for value in values]] = np.arange(len(place))
    columns = rank[np.array(indices, dtype=np.int64)]
    of_text = sparse.csr_matrix((weight, columns, [*starts, len(indices)]), shape=(len(texts) + 1, len(place)))
    of_text.sort_indices()
    return Facts(kind, of_text[codes], np.array(values, dtype=object))
