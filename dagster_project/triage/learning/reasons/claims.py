"""Claims: what a subject says about an alert, with the counts that prove it, and which claims convince.

Belongs here: when counts support a contribution, and which claims an alert gets.
Does not belong here: where claims come from (`subjects.py`) and their words (`words.py`).

A contribution alone convinces nobody, and is not always true: trees share out the effect of facts that occur together
as they please. So a claim is made only where the counts of past alerts with the same fact point the way the
contribution does, by more than luck and by enough to matter. What remains is true of the alerts it speaks of, whatever
the model thinks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from dagster_project.triage.evaluation.metrics import logit

Subject = tuple[str, str]

# A share must differ from the usual one by so many standard errors, and by so many log-odds. Over three simulated
# companies 96% to 97% of the reasons pointed the right way with 1.5 errors and 3 alerts, 98% to 99% with these; with
# an effect of 0.2 again 94% to 98%.
BEYOND_LUCK = 2.0
LEAST_EFFECT = 0.3
# So many alerts must speak; with fewer the share is a story about one or two of them.
LEAST_KNOWN = 5
# A share counts as if so many alerts at the usual share had been seen as well.
PSEUDO_ALERTS = 2.0
# A smaller contribution (log-odds) is no reason: it moves 23% by less than two points.
LEAST_PUSH = 0.1


@dataclass(frozen=True)
class Proof:
    """Counts of past alerts like this one, for each alert, and how they are said.

    known, acted : float64[alerts], how many past alerts had the fact, and how many of them were acted on; nan or 0
    known: nothing to say. say : words from one alert's known, acted and values of `more`.
    """

    known: np.ndarray
    acted: np.ndarray
    say: Callable[..., str]
    more: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True)
class Claim:
    """One subject of every alert.

    push : float64[alerts], what the subject adds to the log-odds. proofs : the alternatives; the strongest that agrees
    with the push is told.
    """

    subject: Subject
    push: np.ndarray
    proofs: tuple[Proof, ...]


@dataclass(frozen=True)
class Reason:
    """A claim that convinces about one alert.

    push : log-odds; positive raises the score. known, acted : the counts that prove it.
    """

    subject: Subject
    push: float
    known: float
    acted: float
    text: str


def distance(known: np.ndarray, acted: np.ndarray, usual: float) -> np.ndarray:
    """Log-odds by which the share of counted alerts, pulled towards the usual one, differs from it: float64[alerts]."""
    share = (acted + PSEUDO_ALERTS * usual) / (known + PSEUDO_ALERTS)
    return logit(share) - logit(np.array([usual]))


def supports(known: np.ndarray, acted: np.ndarray, usual: float, push: np.ndarray) -> np.ndarray:
    """How strongly the counts support the push, in standard errors: float64[alerts], 0 where they do not.

    usual : share of all alerts that is acted on, inside (0, 1).

    >>> supports(np.array([12.0, 12.0, 2.0]), np.array([9.0, 9.0, 2.0]), 0.25, np.array([0.5, -0.5, 0.5])).tolist()
    [4.0, 0.0, 0.0]
    """
    with np.errstate(invalid="ignore"):
        enough = known >= LEAST_KNOWN
        n, k = np.where(enough, known, 1.0), np.where(enough, acted, 0.0)
        errors = (k - n * usual) / np.sqrt(n * usual * (1 - usual))
        effect = distance(n, k, usual)
        holds = enough & (np.sign(errors) == np.sign(push)) & (np.abs(errors) >= BEYOND_LUCK)
    return np.where(holds & (np.abs(effect) >= LEAST_EFFECT) & (np.abs(push) >= LEAST_PUSH), np.abs(errors), 0.0)


def convincing(claims: Iterable[Claim], usual: float, probability: np.ndarray, top: int) -> list[list[Reason]]:
    """The `top` claims that moved each score most and are supported by their counts, strongest first.

    probability : float64[alerts], as shown at the raise. Reasons say why it is above or below the usual share, so only
    claims that point that way are told, and none where it is as good as usual. One alert may have fewer than `top`.
    """
    claims, alerts = list(claims), len(probability)
    away = logit(probability) - logit(np.array([usual]))
    side = np.where(np.abs(away) >= LEAST_EFFECT, np.sign(away), 0.0)
    moved = np.zeros((alerts, len(claims)))
    proof = np.zeros((alerts, len(claims)), dtype=np.int64)
    for number, claim in enumerate(claims):
        if not claim.proofs:
            continue
        support = np.stack([supports(p.known, p.acted, usual, claim.push) for p in claim.proofs])
        proof[:, number] = support.argmax(axis=0)
        moved[:, number] = np.where((support.max(axis=0) > 0) & (np.sign(claim.push) == side), claim.push, 0.0)
    order = np.argsort(-np.abs(moved), axis=1, kind="stable")[:, :top]
    reasons: list[list[Reason | None]] = [[None] * order.shape[1] for _ in range(alerts)]
    for number, claim in enumerate(claims):
        rows, ranks = np.nonzero((order == number) & (moved[:, [number]] != 0))
        which = proof[rows, number]
        for choice, told in enumerate(claim.proofs):
            mine = which == choice
            at = rows[mine]
            texts = _said(told, at)
            pushes, known, acted = (values[at].tolist() for values in (claim.push, told.known, told.acted))
            ranked = zip(at.tolist(), ranks[mine].tolist(), strict=True)
            for place, (row, rank) in enumerate(ranked):
                reasons[row][rank] = Reason(claim.subject, pushes[place], known[place], acted[place], texts[place])
    return [[reason for reason in each if reason is not None] for each in reasons]


def _said(proof: Proof, rows: np.ndarray) -> list[str]:
    """The sentences of these rows; each distinct one is made once."""
    keys = list(zip(*(column[rows].tolist() for column in (proof.known, proof.acted, *proof.more)), strict=True))
    texts = {key: proof.say(*key) for key in set(keys)}
    return [texts[key] for key in keys]
