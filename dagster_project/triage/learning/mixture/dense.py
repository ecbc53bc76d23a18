"""History as the dense columns of a linear model: shrunk log-odds, counts and raise-time facts on one scale.

Belongs here: which columns the history features allow, computing them, and their scale.
Does not belong here: weighing them (`linear.py`), sparse facts (`facts.py`), the matrix of trees
(`features/matrix.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import expit, logit
from dagster_project.triage.features.contract import FeatureSettings, histories_about, history_features_for
from dagster_project.triage.features.facts import RAISE_TIME_FEATURES, raise_time_features
from dagster_project.triage.features.keys import EVERYTHING, KEY_SEPARATOR
from dagster_project.triage.features.matrix import RAISE_TIME_FACTS

# How many alerts at the overall rate a rate is mixed with before its log-odds are taken. A judgement: with three, one
# acted alert of one moves a rate of 0.5 to 0.63. The coefficients scale it further.
STRENGTH = 3.0
# A standardised history column further out than this counts as this far: what training never saw must not be
# extrapolated.
FURTHEST = 4.0
# Shares acted over less than this are left out: they are of few outcomes, and the last outcome says about as much.
SHORTEST = timedelta(days=7)
RAISE_TIME = tuple(name for name in RAISE_TIME_FEATURES if name not in ("hour", "weekday"))


@dataclass(frozen=True)
class DenseColumn:
    """One dense column: log-odds of a shrunk share, or another number, standardised."""

    name: str
    source: str  # "rate", "last", "count", "raise"
    of: tuple[str, ...]
    parts: tuple[str, ...] = ()  # of a pair of keys: the columns of its parts that it is shrunk towards


def dense_columns(settings: FeatureSettings, withheld: Sequence[str] = ()) -> list[DenseColumn]:
    """The dense columns that the history features of `settings` allow, without histories about `withheld` facts."""
    gone = histories_about(withheld, settings)
    features = history_features_for(settings)
    by = {(f.key, f.statistic, f.window or f.half_life): f.name for f in features}
    columns: list[DenseColumn] = []
    longest = max((w for w in settings.outcome_windows), default=None)
    if any(f.statistic == "known_count" and f.window is None for f in features):
        longest = None
    keys = (*settings.keys, *settings.attribute_keys)
    for key in keys:
        parts = key.split(KEY_SEPARATOR)
        for f in features:
            span = f.window or f.half_life
            if f.key != key or (span is not None and f.statistic != "raised_count" and span < SHORTEST):
                continue
            if f.statistic == "known_count":
                acted = by.get((key, "acted_count", f.window))
                label = _span(f.window)
                if acted:
                    shrunk_to = tuple(f"{p}_rate_{label}" for p in parts if p in keys) if len(parts) > 1 else ()
                    columns.append(DenseColumn(f"{key}_rate_{label}", "rate", (acted, f.name), shrunk_to))
            elif f.statistic == "decayed_acted_rate":
                known = by.get((key, "known_count", longest))
                if known:
                    columns.append(DenseColumn(f"{key}_rate_hl{_span(f.half_life)}", "decayed", (f.name, known)))
            elif f.statistic == "last_outcome":
                columns.append(DenseColumn(f"{key}_last", "last", (f.name,)))
            elif f.statistic == "raised_count" and key != EVERYTHING and f.window is not None:
                everything = by.get((EVERYTHING, "raised_count", f.window))
                if everything:
                    columns.append(DenseColumn(f.name, "count", (f.name, everything)))
    # Parts of a pair first: a pair is shrunk towards them.
    columns.sort(key=lambda c: bool(c.parts))
    return [c for c in columns if not gone & set(c.of)]


def _span(span: timedelta | None) -> str:
    return "life" if span is None else f"{span.total_seconds() / 86_400:g}d"


def _read(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        raise HeedError(f"the history column {name} is missing", "compute the features with the settings of the model")
    return np.nan_to_num(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))


def dense_matrix(
    frame: pd.DataFrame, columns: Sequence[DenseColumn], rate: float, withheld: Sequence[str] = ()
) -> np.ndarray:
    """float64 [alerts, columns + raise-time facts]: shrunk log-odds less those of the overall rate, and other numbers.

    rate : the overall rate that rates are shrunk towards. An alert without history has zeros.
    """
    matrix = np.zeros((len(frame), len(columns)))
    place = {c.name: i for i, c in enumerate(columns)}
    base = float(logit(np.array(rate)))
    for i, c in enumerate(columns):
        if c.source == "rate":
            acted, known = (_read(frame, name) for name in c.of)
            towards = np.full(len(frame), base)
            inside = [place[p] for p in c.parts if p in place]
            if inside:
                towards += matrix[:, inside].mean(axis=1)
            matrix[:, i] = logit((acted + STRENGTH * expit(towards)) / (known + STRENGTH)) - base
        elif c.source == "decayed":
            share, known = (_read(frame, name) for name in c.of)
            matrix[:, i] = logit((share * known + STRENGTH * rate) / (known + STRENGTH)) - base
        elif c.source == "last":
            last = frame[c.of[0]].to_numpy(dtype=np.float64, na_value=np.nan)
            matrix[:, i] = np.where(np.isnan(last), 0.0, 2 * last - 1)
        else:
            # How much of everything: volumes grow, and a plain count would be further out every month.
            count, everything = (_read(frame, name) for name in c.of)
            matrix[:, i] = np.log1p(count) - np.log1p(everything)
    features = raise_time_features(frame)[list(RAISE_TIME)]
    features[[name for name in RAISE_TIME if set(withheld) & set(RAISE_TIME_FACTS[name])]] = np.nan
    facts = features.to_numpy(dtype=np.float64)
    hour = frame["raised_at"].dt.hour.to_numpy() * (2 * np.pi / 24)
    return np.column_stack(
        [matrix, np.nan_to_num(facts), np.isfinite(facts).astype(np.float64), np.sin(hour), np.cos(hour)]
    )


def column_names(settings: FeatureSettings, withheld: Sequence[str] = ()) -> list[str]:
    """The names of the columns of `dense_matrix`, in order."""
    given = [f"{name}_given" for name in RAISE_TIME]
    return [c.name for c in dense_columns(settings, withheld)] + [*RAISE_TIME, *given, "hour_sine", "hour_cosine"]


def standard(raw: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Dense columns on the scale of a fit."""
    return np.clip((raw - mean) / deviation, -FURTHEST, FURTHEST)
