"""What is true of flagged alerts: the share of their kind that is acted on, in a number and in words.

Belongs here: the rate of floods and of visibility-only rules, by rule, with its interval, and the sentence about it.
Does not belong here: finding flags (`floods`, `visibility.py`), and the chance of alerts without a flag (`model.py`).

A model that learns from alerts without flags says nothing about flagged ones: visibility-only rules with 0 actions in
7,771 decided alerts were shown at 12% on average.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.metrics import wilson_interval

KINDS = {"flood": "part of a flood", "visibility_only": "from a rule for visibility only"}
EVERY_RULE = ""
COLUMNS = ("kind", "rule", "alerts", "acted", "probability", "low", "high")
# The record of a rule counts together with this many alerts of its kind. A judgement: one flood of a rule is one event,
# however many alerts it has, and the next one may be an incident.
PSEUDO_ALERTS = 50.0
# Of a kind of which nothing is known, one in 50 is assumed to be acted on, with the weight of one alert: the limit
# below which a rule is taken for visibility-only.
UNKNOWN = 0.02


def kinds(flood: np.ndarray, visibility_only: np.ndarray) -> np.ndarray:
    """The kind of each alert, object[alerts]: a key of `KINDS`, or None without a flag. A flood of a visibility-only
    rule counts as the latter: its record is the longer one."""
    kind = np.full(len(flood), None, dtype=object)
    kind[np.asarray(flood, dtype=bool)] = "flood"
    kind[np.asarray(visibility_only, dtype=bool)] = "visibility_only"
    return kind


def flagged_rates(alerts: pd.DataFrame, as_of: datetime, horizon: timedelta) -> pd.DataFrame:
    """The share of flagged alerts that was acted on, by kind and rule.

    alerts : raised_at, known_at (datetime64[us, UTC]), acted (1.0, 0.0 or nan), rule, flood, visibility_only: the flags
        as readers saw them, not as they were decided later: a flood is confirmed because nobody acted, so what was
        decided later says too little is acted on.
    as_of : only alerts whose horizon was over and whose outcome was known by then count.
    Returns: `COLUMNS`, one row per kind with rule `EVERY_RULE`, then one per kind and rule, in order of text.
        probability : the share, that of a rule shrunk towards its kind, in (0, 1). low, high : Wilson's 95% interval
        (1927) for the alerts that the probability rests on; it assumes that alerts are independent, which alerts of one
        flood are not: it is too narrow, never too wide.
    """
    at = pd.Timestamp(as_of)
    usable = (alerts["raised_at"] + horizon <= at) & (alerts["known_at"] <= at) & alerts["acted"].notna()
    past = alerts[usable.to_numpy(dtype=bool)]
    kind = kinds(past["flood"].to_numpy(dtype=bool), past["visibility_only"].to_numpy(dtype=bool))
    acted = past["acted"].to_numpy(dtype=np.float64)
    rows = []
    for name in KINDS:
        mine = kind == name
        count, hits = int(mine.sum()), int(acted[mine].sum())
        whole = (hits + UNKNOWN) / (count + 1)
        rows.append((name, EVERY_RULE, count, hits, whole, count + 1.0))
        by_rule = pd.DataFrame({"rule": past["rule"].to_numpy()[mine], "acted": acted[mine]}).groupby("rule")["acted"]
        for rule, group in by_rule:
            own = (group.sum() + PSEUDO_ALERTS * whole) / (len(group) + PSEUDO_ALERTS)
            rows.append((name, str(rule), len(group), int(group.sum()), float(own), len(group) + PSEUDO_ALERTS))
    table = pd.DataFrame(rows, columns=[*COLUMNS[:5], "weight"])
    weight = table["weight"].to_numpy()
    table["low"], table["high"] = wilson_interval(table["probability"].to_numpy() * weight, weight)
    return table[list(COLUMNS)]


def rates_of(rates: pd.DataFrame, kind: np.ndarray, rule: np.ndarray) -> np.ndarray:
    """The probability of each alert's rule, or else of its kind; float64[alerts], nan where `kind` is None."""
    value = pd.Series(rates["probability"].to_numpy(), index=pd.MultiIndex.from_frame(rates[["kind", "rule"]]))
    own = value.reindex(pd.MultiIndex.from_arrays([kind, rule])).to_numpy()
    every = value.reindex(pd.MultiIndex.from_arrays([kind, np.full(len(kind), EVERY_RULE, dtype=object)])).to_numpy()
    return np.where(np.isnan(own), every, own)


def in_words(rate: pd.Series) -> str:
    """One sentence about the number, like "part of a flood: about 1 in 300 of these are acted on"."""
    what, alerts, acted, p = KINDS[rate["kind"]], int(rate["alerts"]), int(rate["acted"]), float(rate["probability"])
    if alerts == 0:
        return f"{what}: no such alert has an outcome yet"
    if acted == 0:
        return f"{what}: none of {alerts:,} of these was acted on"
    if p >= 0.2:
        return f"{what}: {p:.0%} of these are acted on"
    odds = 1 / p
    size = 10 ** max(int(np.floor(np.log10(odds))) - 1, 0) if odds < 100 else 10 ** int(np.floor(np.log10(odds)))
    return f"{what}: about 1 in {round(odds / size) * size:,} of these are acted on"
