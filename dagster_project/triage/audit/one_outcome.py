"""Facts that only alerts of one outcome have: written down, or overwritten, once the outcome was known.

Belongs here: comparing the presence of a fact, and each of its values, with what everything else says about the same
alerts.
Does not belong here: facts that separate outcomes as a whole (`audit/single_feature.py`), and what follows from a
finding (`audit/withholding.py`).

A column that is filled for one acted alert in ten separates outcomes badly overall, but perfectly where it is filled.
So among the alerts that have a value, this counts how many should have the other outcome, according to everything else,
and how many do. Two things distinguish a leak from a strong fact. It has few exceptions where everything else is
uncertain. And it does not depend on what the alert is about: somebody who writes "escalated" after acting does so for
alerts of every rule, entity, team and day. A legitimate value that is nearly always acted on (a rule that matters, a
team that forwards everything, one vulnerability in many packages) belongs to its own entities, teams, rules or days.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from dagster_project.triage.audit.findings import CLEAN, LEAK, NOT_CHECKED, SUSPICIOUS, Finding
from dagster_project.triage.audit.single_feature import (
    IDENTITY,
    THERE,
    Rest,
    Suspect,
    encoded_rates,
    objects,
)
from dagster_project.triage.evaluation import metrics

ONE_OUTCOME = "values of one outcome"
MISSING = "is missing"

# Fewer alerts with the value in either half, or fewer than this expected with the other outcome, prove nothing: no
# exception among 10 expected ones has a probability of 5e-5.
MINIMUM_ALERTS, MINIMUM_EXPECTED = 20, 10.0
# Exceptions seen per exception expected, at the upper end of the 99% interval. On real alerts without a leak (service
# desk at 2 cuts, package alerts at 3; every column) the lowest that was spread over everything had 0.81, and in 120
# simulated companies (seeds 4,000 to 4,029, four modes) no such value had fewer than 0.6 of the exceptions that the
# overall rate expects. A column filled for 30% of the acted alerts and 2% of the others has 0.15 to 0.26, with 5% of
# the others 0.35 to 0.53. That a fact is recorded at all hardly ever goes with an outcome by itself, so there the upper
# limit decides. An honest value may well do so: a team that forwards nearly everything had 0.399 in the first weeks of
# the service desk. Values written over another after the decision had 0.003 to 0.024, so a value must lie below half of
# what the honest one had.
RATIO, RATIO_SUSPICIOUS = 0.2, 0.6
# How well rule, entity, team, severity and day tell which alerts of one outcome have the value, as an AUC. Planted
# leaks had 0.50 to 0.63; of the values on the same real alerts that are nearly always acted on, all had more than 0.7.
SPREAD = 0.7
# Alerts whose outcomes were independent of each other; one fan-out of a rule on a day counts once.
MINIMUM_BLOCKS = 10
MOST_VALUES = 40
# A value is unusual for its rule when fewer than this share of the rule's alerts have it.
UNUSUAL, UNUSUAL_MINIMUM = 0.05, 20
REPLICATES = 200


@dataclass(frozen=True)
class _Reading:
    """One yes-or-no reading of a fact. words : what it says about an alert. flag : bool [alerts]."""

    suspect: Suspect
    words: str
    flag: np.ndarray


def one_outcome(rest: Rest | None, *, seed: int = 0) -> list[Finding]:
    """Values (and the presence or absence of a fact) that go with one outcome whatever else is known of the alert.

    rest : of the frame to be examined (`Rest.of`); alerts without an outcome, and excluded ones, do not count. It
        forecasts the later part of time without the suspect and without the histories kept about it.
    Returns: One finding per fact that is accused, or one that says how many were examined. value : exceptions seen per
        exception expected (upper end of the 99% interval, block bootstrap over rule-days). 'leak' up to `RATIO`, and up
        to `RATIO_SUSPICIOUS` for presence and absence; else 'suspicious'.

    The identity columns are suspects here as well: an overwritten rule, entity or team is a value that appears wherever
    somebody acted, or a value that is unusual for the alert's other columns.
    """
    if rest is None:
        why = "too few known outcomes of either kind in the earlier or the later part"
        return [Finding(ONE_OUTCOME, "facts", why, float("nan"), float("nan"), NOT_CHECKED)]
    parts = rest.parts
    examined = _Examined(rest, seed)
    suspects = [s for s in rest.suspects if s.source != "alert_id"]
    suspects += [Suspect(n, "text", objects(parts.ordered[n]), n) for n in IDENTITY if n in parts.ordered]
    findings: list[Finding] = []
    for suspect in suspects:
        judged = [f for r in _readings(suspect, parts.ordered) for o in (1, 0) if (f := examined.judge(r, o))]
        if judged:
            findings.append(min(judged, key=lambda f: (f.verdict != LEAK, f.value)))
    if findings:
        return findings
    text = f"no value of {len(suspects)} facts goes with one outcome whatever else is known"
    return [Finding(ONE_OUTCOME, "facts", text, float("nan"), RATIO, CLEAN)]


class _Examined:
    """What every reading is compared with."""

    def __init__(self, rest: Rest, seed: int) -> None:
        self.parts, self.rest, self.seed = rest.parts, rest, seed
        frame = self.parts.ordered
        self.acted = frame["acted"].to_numpy(dtype=np.float64)
        self.codes = {
            name: pd.factorize(objects(frame[name]))[0].astype(np.int64)
            for name in (*IDENTITY, "severity")
            if name in frame
        }
        self.day = pd.factorize(frame["raised_at"].dt.floor("D"))[0].astype(np.int64)

    def judge(self, reading: _Reading, outcome: int) -> Finding | None:
        """The finding about a reading and one outcome; None: nothing to accuse."""
        parts, flag = self.parts, reading.flag
        now, before = flag & parts.later, flag & parts.earlier
        if now.sum() < MINIMUM_ALERTS or before.sum() < MINIMUM_ALERTS:
            return None
        against = self.acted != outcome
        if any(
            against[few].mean() > RATIO_SUSPICIOUS * against[all_].mean()
            for few, all_ in ((now, parts.later), (before, parts.earlier))
        ):
            return None
        spread = self._spread(reading, outcome)
        if spread > SPREAD:
            return None
        chance = self.rest.without([reading.suspect.source])[now[parts.later]]
        other = 1 - chance if outcome else chance
        expected, seen = float(other.sum()), int(against[now].sum())
        blocks = self._blocks(reading.suspect.source)[now]
        blocks = np.unique(blocks, return_inverse=True)[1]
        if expected < MINIMUM_EXPECTED or blocks.max() + 1 < MINIMUM_BLOCKS:
            return None
        # One more than were seen: no exception at all is not certainty.
        draws = [
            (float(np.dot(w[blocks], against[now])) + 1) / max(float(np.dot(w[blocks], other)), 1e-9)
            for w in metrics.bootstrap_weights(blocks, REPLICATES, self.seed)
        ]
        ratio = float(np.quantile(draws, 0.99))
        if ratio > RATIO_SUSPICIOUS:
            return None
        sure = ratio <= RATIO or reading.words in (THERE, MISSING)
        did = "acted on" if outcome else "not acted on"
        text = (
            f"{reading.words} for {int(now.sum())} later alerts of all kinds, and all but {seen} of them were {did}; "
            f"everything else together expects {expected:.0f} that were not"
            if outcome
            else f"{reading.words} for {int(now.sum())} later alerts of all kinds, and {seen} of them were acted on; "
            f"everything else together expects {expected:.0f}"
        )
        return Finding(ONE_OUTCOME, reading.suspect.name, text, ratio, RATIO, LEAK if sure else SUSPICIOUS)

    def _spread(self, reading: _Reading, outcome: int) -> float:
        """How well what an alert is about, or its day, tells which alerts of the outcome have the value: best AUC."""
        same = self.acted == outcome
        test = self.parts.later & same
        flag = reading.flag.astype(np.float64)
        best = 0.5
        for name, codes in self.codes.items():
            if name != reading.suspect.source:
                rates = encoded_rates(codes, flag, self.parts.earlier & same)[test]
                best = max(best, metrics.roc_auc(rates, flag[test]))
        # Earlier days say nothing of later ones: each alert is held against the others of its day.
        day, flag = np.unique(self.day[test], return_inverse=True)[1], flag[test]
        n, k = np.bincount(day)[day], np.bincount(day, weights=flag)[day]
        return max(best, metrics.roc_auc((k - flag + flag.mean()) / n, flag))

    def _blocks(self, source: str) -> np.ndarray:
        """Rule-days; for a suspected rule entity-days, since its alerts of a day all have one rule."""
        if source != "rule" or "entity" not in self.codes:
            return self.parts.blocks
        return self.day * (int(self.codes["entity"].max(initial=0)) + 2) + self.codes["entity"] + 1


def _readings(suspect: Suspect, frame: pd.DataFrame) -> Iterator[_Reading]:
    """Presence, absence and frequent values; deciles of numbers; of identity columns also values that are unusual."""
    values = suspect.values
    numeric = suspect.kind in ("number", "time")
    there = np.isfinite(values) if numeric else np.array([v is not None for v in values], dtype=bool)
    if not there.any():
        return
    if not there.all():
        yield _Reading(suspect, THERE, there)
        yield _Reading(suspect, MISSING, ~there)
    if suspect.kind in ("id", "time"):
        return
    codes, words = pd.factorize(values)
    counts = np.bincount(codes[codes >= 0], minlength=len(words))
    frequent = [code for code in np.argsort(-counts, kind="stable")[:MOST_VALUES] if counts[code] >= MINIMUM_ALERTS]
    for code in frequent:
        word = f"{words[code]:.6g}" if numeric else repr(words[code])
        yield _Reading(suspect, f"is {word[:60]}", codes == code)
    if numeric and len(words) > MOST_VALUES:
        edges = np.unique(np.quantile(values[there], np.linspace(0, 1, 11)))
        for low, high in pairwise(edges):
            flag = there & (values >= low) & (values <= high)
            yield _Reading(suspect, f"is from {low:.4g} to {high:.4g}", flag)
    if suspect.source not in (*IDENTITY, "severity"):
        return
    for name in IDENTITY:
        if name != suspect.source and name in frame:
            of = pd.factorize(objects(frame[name]))[0]
            pairs = pd.DataFrame({"of": of, "value": codes})
            alike = pairs.groupby("of")["value"].transform("size").to_numpy()
            same = pairs.groupby(["of", "value"])["value"].transform("size").to_numpy()
            known = there & (of >= 0) & (alike >= UNUSUAL_MINIMUM)
            yield _Reading(suspect, f"is unusual for its {name}", known & (same < UNUSUAL * alike))
