"""A logistic regression on everything that has a name: the contender that serves from the first outcomes on.

Belongs here: its columns (history as shrunk log-odds, sparse facts), fitting them with a penalty chosen inside the past,
forecasts, the share of each fact in a forecast, and the stored form in plain numbers.
Does not belong here: turning alerts into sparse facts (`sparse.py`), history itself (`timeline`), whether the model
serves (`mixture.py`).

The model is log-odds = prior + history + facts. Prior: the plain mean of the log-odds of the shrunk lifelong rates of
rule, entity and team, which is a fair forecast before anything was learned. History: every rate, at every window, as
log-odds shrunk towards the overall rate (of a pair of keys: towards its parts). Facts: names, pairs of names,
attributes, words, times. All coefficients have a Gaussian prior around zero (ridge; the random effects of a
mixed model), one spread for history and one for each family of facts. The spreads are those that forecast the latest part
of the past best from the part before it. Method: Hoerl & Kennard 1970; Robinson 1991 (random effects as shrinkage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from dagster_project.errors import HeedError
from dagster_project.triage.features import EVERYTHING, KEY_SEPARATOR, FeatureSettings, history_features_for, raise_time_features
from dagster_project.triage.learning.sparse import sparse_facts
from dagster_project.triage.metrics import clip_probability, expit, log_losses, logit

# How many alerts at the overall rate a rate is mixed with before its log-odds are taken. A judgement: with three, one
# acted alert of one moves a rate of 0.5 to 0.63. The coefficients scale it further.
STRENGTH = 3.0
# A standardised history column further out than this counts as this far: what training never saw must not be
# extrapolated.
FURTHEST = 4.0
# A fact that fewer training alerts have teaches nothing that its parts do not.
FACT_MINIMUM = 2
FACT_LIMIT = 50_000
# The families of facts, each with its own spread.
FAMILIES = ("names", "words", "time")
# Spreads of the coefficients (log-odds) that compete: history, names, words. Time has a fixed one.
SPREADS = (
    (0.03, 0.0, 0.0),
    (0.1, 0.0, 0.0),
    (0.1, 0.15, 0.0),
    (0.1, 0.4, 0.0),
    (0.1, 0.8, 0.0),
    (0.1, 0.4, 0.4),
    (0.1, 0.15, 0.8),
    (0.3, 0.8, 0.8),
)
TIME_SPREAD = 0.1
FLOOR = 1e-4


@dataclass(frozen=True)
class LinearRecipe:
    """How a linear model learns.

    facts : the kinds of sparse facts (`sparse.sparse_facts`). spreads : those that compete. half_life : the weight of
    an alert halves with this age; None weighs all ages alike. tested_share : of the alerts, the latest, on which spreads
    compete. minimum : with fewer alerts the first spread is taken.
    """

    facts: tuple[str, ...]
    spreads: tuple[tuple[float, float, float], ...] = SPREADS
    half_life: timedelta | None = timedelta(days=365)
    tested_share: float = 0.25
    minimum: int = 100


def family(kind: str) -> str:
    """The family of a kind of facts."""
    if kind.startswith(("words of ", "characters of ")):
        return "words"
    return "time" if kind in ("hour", "weekday", "hour of week") else "names"


@dataclass(frozen=True)
class _Column:
    """One dense column: log-odds of a shrunk share, or another number, standardised."""

    name: str
    source: str  # "rate", "last", "count", "raise"
    of: tuple[str, ...]
    parts: tuple[str, ...] = ()  # of a pair of keys: the columns of its parts that it is shrunk towards


def dense_columns(settings: FeatureSettings) -> list[_Column]:
    """The dense columns that the history features of `settings` allow."""
    features = history_features_for(settings)
    by = {(f.key, f.statistic, f.window or f.half_life): f.name for f in features}
    made: list[_Column] = []
    longest = max((w for w in settings.outcome_windows), default=None)
    if any(f.statistic == "known_count" and f.window is None for f in features):
        longest = None
    for key in settings.keys:
        parts = key.split(KEY_SEPARATOR)
        for f in features:
            if f.key != key:
                continue
            if f.statistic == "known_count":
                acted = by.get((key, "acted_count", f.window))
                label = _span(f.window)
                if acted:
                    shrunk_to = tuple(f"{p}_rate_{label}" for p in parts if p in settings.keys) if len(parts) > 1 else ()
                    made.append(_Column(f"{key}_rate_{label}", "rate", (acted, f.name), shrunk_to))
            elif f.statistic == "decayed_acted_rate":
                known = by.get((key, "known_count", longest))
                if known:
                    made.append(_Column(f"{key}_rate_hl{_span(f.half_life)}", "decayed", (f.name, known)))
            elif f.statistic == "last_outcome":
                made.append(_Column(f"{key}_last", "last", (f.name,)))
            elif f.statistic == "raised_count" and key != EVERYTHING and f.window is not None:
                everything = by.get((EVERYTHING, "raised_count", f.window))
                if everything:
                    made.append(_Column(f.name, "count", (f.name, everything)))
    # Parts of a pair first: a pair is shrunk towards them.
    made.sort(key=lambda c: bool(c.parts))
    return made


def _span(span: timedelta | None) -> str:
    return "life" if span is None else f"{span.total_seconds() / 86_400:g}d"


def _read(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        raise HeedError(f"the history column {name} is missing", "compute the features with the settings of the model")
    return np.nan_to_num(frame[name].to_numpy(dtype=np.float64, na_value=np.nan))


def dense_matrix(frame: pd.DataFrame, columns: Sequence[_Column], rate: float) -> np.ndarray:
    """float64 [alerts, columns + raise-time facts]: shrunk log-odds less those of the overall rate, and other numbers.

    rate : the overall rate that rates are shrunk towards. An alert without history has zeros.
    """
    made = np.zeros((len(frame), len(columns)))
    place = {c.name: i for i, c in enumerate(columns)}
    base = float(logit(np.array(rate)))
    for i, c in enumerate(columns):
        if c.source == "rate":
            acted, known = (_read(frame, name) for name in c.of)
            towards = np.full(len(frame), base)
            inside = [place[p] for p in c.parts if p in place]
            if inside:
                towards += made[:, inside].mean(axis=1)
            made[:, i] = logit((acted + STRENGTH * expit(towards)) / (known + STRENGTH)) - base
        elif c.source == "decayed":
            share, known = (_read(frame, name) for name in c.of)
            made[:, i] = logit((share * known + STRENGTH * rate) / (known + STRENGTH)) - base
        elif c.source == "last":
            last = frame[c.of[0]].to_numpy(dtype=np.float64, na_value=np.nan)
            made[:, i] = np.where(np.isnan(last), 0.0, 2 * last - 1)
        else:
            # How much of everything: volumes grow, and a plain count would be further out every month.
            count, everything = (_read(frame, name) for name in c.of)
            made[:, i] = np.log1p(count) - np.log1p(everything)
    facts = raise_time_features(frame)
    facts = facts.drop(columns=["hour", "weekday"]).to_numpy(dtype=np.float64)
    hour = frame["raised_at"].dt.hour.to_numpy() * (2 * np.pi / 24)
    return np.column_stack(
        [made, np.nan_to_num(facts), np.isfinite(facts).astype(np.float64), np.sin(hour), np.cos(hour)]
    )


@dataclass(frozen=True)
class Linear:
    """A fitted linear model.

    columns : names of the dense columns, for reasons. scale : JSON-able: mean and standard deviation of each.
    coefficients : of the standardised dense columns, after the intercept. centre : how far each raw dense column counts
        before anything was learned. facts : by kind, the text of each fact and its coefficient.
    evidence : what the spreads that competed lost on the latest part of the past.
    """

    settings: FeatureSettings
    rate: float
    intercept: float
    mean: np.ndarray
    deviation: np.ndarray
    coefficients: np.ndarray
    centre: np.ndarray
    facts: dict[str, dict[str, float]]
    evidence: dict[str, Any] = field(default_factory=dict)

    def log_odds(self, frame: pd.DataFrame) -> np.ndarray:
        """float64 [alerts]."""
        if not len(frame):
            return np.zeros(0)
        raw = dense_matrix(frame, dense_columns(self.settings), self.rate)
        z = self.intercept + raw @ self.centre + _standard(raw, self.mean, self.deviation) @ self.coefficients
        for facts in sparse_facts(frame, list(self.facts)):
            known = self.facts[facts.name]
            z += facts.matrix @ np.array([known.get(value, 0.0) for value in facts.values], dtype=np.float64)
        return z

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action per alert, float64 in (0, 1)."""
        return clip_probability(expit(self.log_odds(frame)), FLOOR)


def _standard(raw: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.clip((raw - mean) / deviation, -FURTHEST, FURTHEST)


@dataclass(frozen=True)
class Encoded:
    """The alerts of a training as numbers, once for many fits."""

    frame: pd.DataFrame
    settings: FeatureSettings
    names: list[str]
    matrices: list[sparse.csr_matrix]
    values: list[np.ndarray]


def encode(frame: pd.DataFrame, settings: FeatureSettings, recipe: LinearRecipe) -> Encoded:
    """Sparse facts of all alerts of a training."""
    facts = list(sparse_facts(frame, recipe.facts))
    return Encoded(frame, settings, [f.name for f in facts], [f.matrix for f in facts], [f.values for f in facts])


def fit_linear(
    encoded: Encoded,
    rows: np.ndarray,
    acted: np.ndarray,
    cut: pd.Timestamp,
    recipe: LinearRecipe,
    weight: np.ndarray | None = None,
    prior: tuple[float, float] = (0.5, 0.5),
) -> Linear:
    """Fit on `rows` (positions in the encoded frame, in order of time), whose outcomes are `acted` (0.0 or 1.0).

    Deterministic. Defined for any number of alerts, none included: the prior then is the forecast.
    """
    w = np.ones(len(rows)) if weight is None else weight.astype(np.float64)
    raised = encoded.frame["raised_at"].iloc[rows]
    if recipe.half_life is not None and len(rows):
        age = (cut - raised).dt.total_seconds().to_numpy(dtype=np.float64)
        w = w * np.exp2(-np.maximum(age, 0) / recipe.half_life.total_seconds())
    rate = float((np.dot(w, acted) + prior[0]) / (w.sum() + prior[0] + prior[1]))
    columns = dense_columns(encoded.settings)
    raw = dense_matrix(encoded.frame.iloc[rows], columns, rate)
    centre = np.zeros(raw.shape[1])
    lifelong = [i for i, c in enumerate(columns) if c.name in {f"{k}_rate_life" for k in ("rule", "entity", "team")}]
    if not lifelong:
        lifelong = [i for i, c in enumerate(columns) if c.source == "rate" and c.name.startswith("rule_rate")][-1:]
    centre[lifelong] = 1.0 / max(1, len(lifelong))
    offset = raw @ centre + float(logit(np.array(rate)))
    design = _Design.of(encoded, rows, raw)
    evidence: dict[str, Any] = {}
    spread = recipe.spreads[0]
    split = len(rows) - int(len(rows) * recipe.tested_share)
    if len(rows) >= recipe.minimum and 0 < acted[:split].sum() < split and len(recipe.spreads) > 1:
        early, late = np.arange(split), np.arange(split, len(rows))
        part = design.take(early)
        losses, start = [], None
        for candidate in recipe.spreads:
            start = part.fit(acted[early], w[early], offset[early], candidate, start)
            p = expit(offset[late] + design.log_odds(late, start))
            losses.append(float(np.dot(w[late], log_losses(clip_probability(p, FLOOR), acted[late])) / w[late].sum()))
        spread = recipe.spreads[int(np.argmin(losses))]
        evidence = {"log_loss": [round(v, 5) for v in losses], "spread": list(spread)}
    beta = design.fit(acted, w, offset, spread, None) if len(rows) else np.zeros(design.width)
    dense = raw.shape[1]
    facts: dict[str, dict[str, float]] = {}
    at = 1 + dense
    for name, values, kept in zip(encoded.names, encoded.values, design.kept, strict=True):
        found = {str(v): float(b) for v, b in zip(values[kept], beta[at : at + len(kept)], strict=True) if abs(b) > 1e-4}
        at += len(kept)
        if found:
            facts[name] = dict(sorted(found.items()))
    return Linear(
        encoded.settings, rate, float(logit(np.array(rate)) + beta[0]), design.mean, design.deviation,
        beta[1 : 1 + dense], centre, facts, evidence,
    )  # fmt: skip


@dataclass(frozen=True)
class _Design:
    """Columns of one fit: intercept, standardised dense columns, facts."""

    dense: np.ndarray
    facts: sparse.csr_matrix
    families: np.ndarray
    kept: list[np.ndarray]
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, encoded: Encoded, rows: np.ndarray, raw: np.ndarray) -> _Design:
        mean = raw.mean(axis=0) if len(raw) else np.zeros(raw.shape[1])
        deviation = raw.std(axis=0) if len(raw) else np.ones(raw.shape[1])
        # Log-odds are a scale of their own: what hardly moved in the past must not be blown up.
        deviation = np.maximum(deviation, 1.0)
        kept, parts, families = [], [], []
        for name, matrix in zip(encoded.names, encoded.matrices, strict=True):
            mine = matrix[rows]
            count = np.bincount(mine.indices, minlength=mine.shape[1])
            wanted = np.flatnonzero((count >= FACT_MINIMUM) & (count < max(len(rows), 1)))
            if len(wanted) > FACT_LIMIT:
                wanted = np.sort(wanted[np.argsort(-count[wanted], kind="stable")[:FACT_LIMIT]])
            kept.append(wanted)
            parts.append(mine[:, wanted])
            families += [FAMILIES.index(family(name))] * len(wanted)
        facts = sparse.hstack(parts, format="csr") if parts else sparse.csr_matrix((len(rows), 0))
        return cls(_standard(raw, mean, deviation), facts, np.array(families, dtype=np.int64), kept, mean, deviation)

    @property
    def width(self) -> int:
        return 1 + self.dense.shape[1] + self.facts.shape[1]

    def take(self, rows: np.ndarray) -> _Design:
        return _Design(self.dense[rows], self.facts[rows], self.families, self.kept, self.mean, self.deviation)

    def log_odds(self, rows: np.ndarray, beta: np.ndarray) -> np.ndarray:
        dense = self.dense.shape[1]
        return beta[0] + self.dense[rows] @ beta[1 : 1 + dense] + self.facts[rows] @ beta[1 + dense :]

    def fit(
        self, y: np.ndarray, w: np.ndarray, offset: np.ndarray, spread: tuple[float, float, float], start: Any
    ) -> np.ndarray:
        """The coefficients of the highest posterior density, by L-BFGS on columns scaled by their spreads."""
        from scipy.optimize import minimize

        history, names, words = spread
        of_fact = np.array([names, words, TIME_SPREAD if names else 0.0])[self.families]
        dense, sparse_part, turned = self.dense, self.facts, self.facts.T.tocsr()
        k = dense.shape[1]
        scale = np.concatenate([[1.0], np.full(k, history), of_fact])
        scaled = np.maximum(scale, 1e-12)

        def objective(b: np.ndarray) -> tuple[float, np.ndarray]:
            beta = b * scale
            z = offset + beta[0] + dense @ beta[1 : 1 + k] + sparse_part @ beta[1 + k :]
            value = float(np.dot(w, np.logaddexp(0.0, z) - y * z) + 0.5 * np.dot(b, b))
            error = w * (expit(z) - y)
            gradient = np.concatenate([[error.sum()], dense.T @ error, turned @ error]) * scale + b
            return value, gradient

        first = np.zeros(len(scale)) if start is None else np.where(scale > 0, start / scaled, 0.0)
        solved = minimize(objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 200, "ftol": 1e-7})
        return solved.x * scale
