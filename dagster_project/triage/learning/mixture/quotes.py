"""Reasons that quote words: `"deadlock" in the title: 41 of 52 such alerts were acted on`.

Belongs here: counting at training how alerts with a word ended, and the claims that quote one.
Does not belong here: reading texts (`facts.py`), the weight of a word (`linear.py`), which claims convince
(`learning/reasons/claims.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from dagster_project.triage.learning.mixture.facts import Facts, parts_of, sparse_facts
from dagster_project.triage.learning.mixture.linear import Linear
from dagster_project.triage.learning.reasons import words
from dagster_project.triage.learning.reasons.claims import LEAST_KNOWN, Claim, Proof

# kind of facts ("words of title") -> word -> (past alerts with it, those acted on)
WordCounts = dict[str, dict[str, tuple[int, int]]]

OF_WORDS = "words of "
# That a rule has these words in its name is that it is this rule, and its history says more.
NOT_QUOTED = ("rule", "entity")
# A word with a smaller coefficient is never the reason; so many words of a text are kept.
LEAST_COEFFICIENT = 0.1
MOST_WORDS = 5_000


def coefficients_of(models: Sequence[tuple[Linear, float]], kind: str) -> dict[str, float]:
    """What each word of a kind adds to the log-odds: the mean over linear models by their weights in the pool."""
    total, summed = sum(weight for _, weight in models), dict[str, float]()
    for linear, weight in models:
        for word, coefficient in linear.facts.get(kind, {}).items():
            summed[word] = summed.get(word, 0.0) + coefficient * weight / total
    return summed


def count_words(
    models: Sequence[tuple[Linear, float]], facts: tuple[Facts, ...], rows: np.ndarray, acted: np.ndarray
) -> WordCounts:
    """How the alerts `rows` with each word that moves scores ended.

    models : the linear models, each with its weight in the pool. acted : 0.0 or 1.0 for each row.
    """
    counted: WordCounts = {}
    for of_kind in facts:
        weights = coefficients_of(models, of_kind.name)
        if not of_kind.name.startswith(OF_WORDS) or parts_of(of_kind.name)[0] in NOT_QUOTED or not weights:
            continue
        present = of_kind.matrix[rows] > 0
        known = np.asarray(present.sum(axis=0)).ravel()
        hits = present.T @ acted
        heaviest = sorted(weights, key=lambda word: (-abs(weights[word]), word))[:MOST_WORDS]
        kept = {word for word in heaviest if abs(weights[word]) >= LEAST_COEFFICIENT}
        counts = {
            str(word): (int(n), round(float(k)))
            for word, n, k in zip(of_kind.values, known, hits, strict=True)
            if word in kept and n >= LEAST_KNOWN
        }
        if counts:
            counted[of_kind.name] = counts
    return counted


def claims_of_words(
    frame: pd.DataFrame, models: Sequence[tuple[Linear, float]], counted: WordCounts, usual: float
) -> list[Claim]:
    """One claim for each text: of each alert the word that moves its score most.

    models : the linear models, each with its weight in the pool. usual : share of all alerts that is acted on.
    """
    claims, weight = [], sum(weight for _, weight in models)
    for facts in sparse_facts(frame, list(counted)):
        counts, weights = counted[facts.name], coefficients_of(models, facts.name)
        coefficient = np.array([weights.get(v, 0.0) if v in counts else 0.0 for v in facts.values], dtype=np.float64)
        entries = facts.matrix.tocoo()
        push = weight * entries.data * coefficient[entries.col]
        order = np.lexsort((np.abs(push), entries.row))
        rows = entries.row[order]
        last = np.r_[rows[1:] != rows[:-1], True] if len(rows) else np.zeros(0, bool)
        rows, at = rows[last], order[last]
        moved, word = np.zeros(len(frame)), np.full(len(frame), -1)
        moved[rows], word[rows] = push[at], entries.col[at]
        known = np.array([counts.get(v, (0, 0))[0] for v in facts.values] + [0], dtype=np.float64)
        acted = np.array([counts.get(v, (0, 0))[1] for v in facts.values] + [0], dtype=np.float64)
        text = parts_of(facts.name)[0].removeprefix("@")
        say = partial(_say, text, facts.values, usual)
        claims.append(Claim(("word", text), moved, (Proof(known[word], acted[word], say, (word,)),)))
    return claims


def _say(text: str, values: np.ndarray, usual: float, known: float, acted: float, word: int) -> str:
    return words.alike(f"{words.quoted(values[word])} in the {text}", known, acted, usual)


def counts_to_document(counted: WordCounts) -> dict[str, dict[str, list[int]]]:
    """JSON-able; `counts_from_document` gives back equal counts."""
    return {kind: {word: list(pair) for word, pair in counts.items()} for kind, counts in counted.items()}


def counts_from_document(document: dict[str, dict[str, list[int]]]) -> WordCounts:
    """The counts of a document; KeyError, TypeError or ValueError when it is not one."""
    return {
        str(kind): {str(word): (int(known), int(acted)) for word, (known, acted) in counts.items()}
        for kind, counts in document.items()
    }
