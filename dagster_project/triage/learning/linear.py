"""A logistic regression on everything that has a name: the contender that serves from the first outcomes on.

Belongs here: its columns (history as shrunk log-odds, sparse facts), fitting them with a penalty chosen inside the
past, forecasts, the share of each fact in a forecast, and the stored form in plain numbers.
Does not belong here: turning alerts into sparse facts (`sparse.py`), history itself (`timeline`), whether the model
serves (`mixture.py`).

The model is log-odds = prior + history + facts. Prior: the plain mean of the log-odds of the shrunk lifelong rates of
rule, entity and team, which is a fair forecast before anything was learned. History: every rate, at every window, as
log-odds shrunk towards the overall rate (of a pair of keys: towards its parts). Facts: names, pairs of names,
attributes, words, times. All coefficients have a Gaussian prior around zero (ridge; the random effects of a
mixed model), one spread for history and one for each family of facts. Several recipes with other spreads are
contenders of their own, and the mixture weighs them by what they forecast in the past. Method: Hoerl & Kennard 1970;
Robinson 1991 (random effects as shrinkage).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from threadpoolctl import threadpool_limits

from dagster_project.errors import HeedError
from dagster_project.triage.features import (
    EVERYTHING,
    KEY_SEPARATOR,
    RAISE_TIME_FEATURES,
    FeatureSettings,
    history_features_for,
    raise_time_features,
)
from dagster_project.triage.learning.sparse import Facts, sparse_facts
from dagster_project.triage.metrics import clip_probability, expit, logit

# How many alerts at the overall rate a rate is mixed with before its log-odds are taken. A judgement: with three, one
# acted alert of one moves a rate of 0.5 to 0.63. The coefficients scale it further.
STRENGTH = 3.0
# A standardised history column further out than this counts as this far: what training never saw must not be
# extrapolated.
FURTHEST = 4.0
# Shares acted over less than this are left out: they are of few outcomes, and the last outcome says about as much.
SHORTEST = timedelta(days=7)
# A fact that fewer training alerts have teaches nothing that its parts do not.
FACT_MINIMUM = 2
FACT_LIMIT = 50_000
# A coefficient below this moves no probability by more than 0.003 points, and is not stored.
NOTHING = 1e-4
# The families of facts, each with its own spread.
FAMILIES = ("names", "words", "time")
TIME_SPREAD = 0.1
FLOOR = 1e-4
RAISE_TIME = tuple(name for name in RAISE_TIME_FEATURES if name not in ("hour", "weekday"))
KEYS_OF_PRIOR = ("rule", "entity", "team")


@dataclass(frozen=True)
class Recipe:
    """One way to weigh; recipes compete in the mixture, which so chooses the penalty inside the past.

    name : for the evidence. history, names, words : spreads of the coefficients (log-odds); 0 leaves a family out.
    prior : whether the mean of the log-odds of rates is where the model starts. half_life : the weight of an alert
    halves with this age.
    """

    name: str
    history: float = 0.0
    names: float = 0.0
    words: float = 0.0
    prior: bool = True
    half_life: timedelta = timedelta(days=365)

    @property
    def spreads(self) -> tuple[float, float, float]:
        """By family: names, words, time."""
        return self.names, self.words, TIME_SPREAD if self.names or self.history else 0.0


# History misleads where training saw little of it (the first weeks of a company) and where habits change; names are
# blind to what is new; words read what has no name yet. Each alone was the best of these somewhere.
RECIPES = (
    Recipe("mean of rates"),
    Recipe("linear: history", history=0.05),
    Recipe("linear: names", names=0.5, prior=False),
    Recipe("linear: history and names", history=0.05, names=0.4),
    Recipe("linear: words", words=0.8, prior=False),
    Recipe("linear: history, names and words", history=0.05, names=0.3, words=0.5),
)


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
            span = f.window or f.half_life
            if f.key != key or (span is not None and f.statistic != "raised_count" and span < SHORTEST):
                continue
            if f.statistic == "known_count":
                acted = by.get((key, "acted_count", f.window))
                label = _span(f.window)
                if acted:
                    shrunk_to = (
                        tuple(f"{p}_rate_{label}" for p in parts if p in settings.keys) if len(parts) > 1 else ()
                    )
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
    facts = raise_time_features(frame)[list(RAISE_TIME)].to_numpy(dtype=np.float64)
    hour = frame["raised_at"].dt.hour.to_numpy() * (2 * np.pi / 24)
    return np.column_stack(
        [made, np.nan_to_num(facts), np.isfinite(facts).astype(np.float64), np.sin(hour), np.cos(hour)]
    )


def column_names(settings: FeatureSettings) -> list[str]:
    """The names of the columns of `dense_matrix`, in order."""
    given = [f"{name}_given" for name in RAISE_TIME]
    return [c.name for c in dense_columns(settings)] + [*RAISE_TIME, *given, "hour_sine", "hour_cosine"]


@dataclass(frozen=True)
class Encoded:
    """Alerts as numbers, once for many fits and forecasts: their history as a frame, their facts as sparse matrices."""

    frame: pd.DataFrame
    settings: FeatureSettings
    facts: tuple[Facts, ...]


def encode(frame: pd.DataFrame, settings: FeatureSettings, kinds: Sequence[str]) -> Encoded:
    """The alerts of `frame` with facts of these `kinds` (`sparse.plan_facts`)."""
    return Encoded(frame, settings, tuple(sparse_facts(frame, kinds)))


@dataclass(frozen=True)
class Linear:
    """A fitted linear model.

    rate : overall rate that rates are shrunk towards. intercept : log-odds. mean, deviation : of the dense columns, as
    standardised. coefficients : of these. centre : how far each raw dense column counts before anything is learned.
    facts : by kind, the text of each fact and its coefficient (log-odds per unit of the fact).
    """

    name: str
    settings: FeatureSettings
    rate: float
    intercept: float
    mean: np.ndarray
    deviation: np.ndarray
    coefficients: np.ndarray
    centre: np.ndarray
    facts: dict[str, dict[str, float]]

    def log_odds(self, encoded: Encoded, rows: np.ndarray | None = None) -> np.ndarray:
        """float64 [rows] of encoded alerts; None takes all. Facts that training did not see count nothing."""
        frame = encoded.frame if rows is None else encoded.frame.iloc[rows]
        if not len(frame):
            return np.zeros(0)
        raw = dense_matrix(frame, dense_columns(self.settings), self.rate)
        z = self.intercept + raw @ self.centre
        if self.coefficients.any():
            z += _standard(raw, self.mean, self.deviation) @ self.coefficients
        # In an order of its own: the last bit of a sum must not depend on how the model was stored.
        for facts in sorted(encoded.facts, key=lambda f: f.name):
            known = self.facts.get(facts.name)
            if known:
                weight = np.array([known.get(value, 0.0) for value in facts.values], dtype=np.float64)
                z += (facts.matrix if rows is None else facts.matrix[rows]) @ weight
        return z

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action per alert, float64 in (0, 1); `HeedError` for a missing history column."""
        encoded = encode(frame, self.settings, list(self.facts))
        return clip_probability(expit(self.log_odds(encoded)), FLOOR)

    def to_document(self) -> dict[str, Any]:
        """JSON-able; `from_document` gives back a model with the same forecasts, to the last bit."""
        numbers = ("mean", "deviation", "coefficients", "centre")
        return {
            "name": self.name,
            "rate": self.rate,
            "intercept": self.intercept,
            "columns": column_names(self.settings),
            **{name: [float(v) for v in getattr(self, name)] for name in numbers},
            "facts": self.facts,
        }

    @classmethod
    def from_document(cls, document: Any, settings: FeatureSettings) -> Linear:
        """The model of `to_document`, with the settings of its feature contract; `HeedError` when it is not one."""
        try:
            arrays = {
                name: np.array([float(v) for v in document[name]], dtype=np.float64)
                for name in ("mean", "deviation", "coefficients", "centre")
            }
            facts = {str(k): {str(v): float(b) for v, b in d.items()} for k, d in document["facts"].items()}
            made = cls(
                str(document["name"]), settings, float(document["rate"]), float(document["intercept"]), facts=facts,
                **arrays,
            )  # fmt: skip
            numbers = [made.rate, made.intercept, *(b for d in facts.values() for b in d.values())]
            sound = (
                list(document["columns"]) == column_names(settings)
                and all(a.shape == (len(document["columns"]),) and np.isfinite(a).all() for a in arrays.values())
                and bool(np.isfinite(numbers).all())
                and 0 < made.rate < 1
                and bool((made.deviation > 0).all())
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HeedError(f"the stored linear model is malformed ({error!r})", "train again") from error
        if not sound:
            raise HeedError(
                "the stored linear model is malformed (other columns, or a number is missing)", "train again"
            )
        return made


def fit_linear(
    encoded: Encoded,
    rows: np.ndarray,
    acted: np.ndarray,
    cut: pd.Timestamp,
    recipes: Sequence[Recipe] = RECIPES,
    weight: np.ndarray | None = None,
    prior: tuple[float, float] = (0.5, 0.5),
) -> dict[str, Linear]:
    """A model by each recipe that these alerts allow (words need a text), by name.

    Parameters
    ----------
    rows : positions of the past alerts in `encoded`, ascending. acted : 0.0 or 1.0 for each. weight : for each,
        default 1; ages are weighed besides. cut : the moment from which ages count.

    Deterministic: same alerts, same bytes. Defined for any number of alerts, none included: the prior is the forecast.
    """
    settings = encoded.settings
    columns = dense_columns(settings)
    past = encoded.frame.iloc[rows]
    age = np.maximum((cut - past["raised_at"]).dt.total_seconds().to_numpy(dtype=np.float64), 0.0)
    given = np.ones(len(rows)) if weight is None else np.asarray(weight, dtype=np.float64)
    made: dict[str, Linear] = {}
    designs: dict[timedelta, tuple[float, np.ndarray, _Design]] = {}
    for recipe in recipes:
        if recipe.words and not any(family(f.name) == "words" and f.matrix.nnz for f in encoded.facts):
            continue
        w = given * np.exp2(-age / recipe.half_life.total_seconds())
        if recipe.half_life not in designs:
            rate = float((np.dot(w, acted) + prior[0]) / (w.sum() + prior[0] + prior[1]))
            raw = dense_matrix(past, columns, rate)
            designs[recipe.half_life] = rate, raw, _Design.of(encoded, rows, raw)
        rate, raw, design = designs[recipe.half_life]
        centre = _centre(columns, raw.shape[1]) if recipe.prior else np.zeros(raw.shape[1])
        base = float(logit(np.array(rate)))
        fitted = recipe.history or recipe.names or recipe.words
        with threadpool_limits(1, "blas"):  # the sum of products must not depend on the number of threads
            offset = base + raw @ centre
            beta = design.fit(acted, w, offset, recipe) if fitted and len(rows) else np.zeros(design.width)
        made[recipe.name] = Linear(
            recipe.name, settings, rate, base + float(beta[0]), design.mean, design.deviation,
            beta[1 : 1 + raw.shape[1]], centre, design.told(encoded, beta),
        )  # fmt: skip
    return made


def _centre(columns: Sequence[_Column], width: int) -> np.ndarray:
    """The plain mean of the longest shrunk rates of rule, entity and team."""
    rates = [i for i, c in enumerate(columns) if c.source == "rate"]
    longest: dict[str, int] = {}
    for i in rates:
        key, _, label = columns[i].name.partition("_rate_")
        if key in KEYS_OF_PRIOR and (label == "life" or not columns[longest.get(key, i)].name.endswith("_life")):
            longest[key] = i
    made = np.zeros(width)
    made[list(longest.values())] = 1.0 / max(1, len(longest))
    return made


def _standard(raw: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    return np.clip((raw - mean) / deviation, -FURTHEST, FURTHEST)


@dataclass(frozen=True)
class _Design:
    """Columns of one fit: an intercept, standardised dense columns, facts; and which facts are kept, by kind."""

    dense: np.ndarray
    facts: sparse.csr_matrix
    families: np.ndarray
    kept: list[np.ndarray]
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, encoded: Encoded, rows: np.ndarray, raw: np.ndarray) -> _Design:
        mean = raw.mean(axis=0) if len(raw) else np.zeros(raw.shape[1])
        # Log-odds are a scale of their own: what hardly moved in the past must not be blown up.
        deviation = np.maximum(raw.std(axis=0), 1.0) if len(raw) else np.ones(raw.shape[1])
        kept, parts, families = [], [], []
        for facts in encoded.facts:
            mine = facts.matrix[rows]
            count = np.bincount(mine.indices, minlength=mine.shape[1])
            wanted = np.flatnonzero((count >= FACT_MINIMUM) & (count < len(rows)))
            if len(wanted) > FACT_LIMIT:
                wanted = np.sort(wanted[np.argsort(-count[wanted], kind="stable")[:FACT_LIMIT]])
            kept.append(wanted)
            parts.append(mine[:, wanted])
            families += [FAMILIES.index(family(facts.name))] * len(wanted)
        facts_matrix = sparse.hstack(parts, format="csr") if parts else sparse.csr_matrix((len(rows), 0))
        dense = _standard(raw, mean, deviation)
        return cls(dense, facts_matrix, np.array(families, dtype=np.int64), kept, mean, deviation)

    @property
    def width(self) -> int:
        return 1 + self.dense.shape[1] + self.facts.shape[1]

    def told(self, encoded: Encoded, beta: np.ndarray) -> dict[str, dict[str, float]]:
        """By kind, the text and coefficient of every fact that counts."""
        at, made = 1 + self.dense.shape[1], {}
        for facts, kept in zip(encoded.facts, self.kept, strict=True):
            weights = beta[at : at + len(kept)]
            at += len(kept)
            told = {str(v): float(b) for v, b in zip(facts.values[kept], weights, strict=True) if abs(b) > NOTHING}
            if told:
                made[facts.name] = dict(sorted(told.items()))
        return made

    def fit(self, y: np.ndarray, w: np.ndarray, offset: np.ndarray, recipe: Recipe) -> np.ndarray:
        """The coefficients of the highest posterior density, by L-BFGS on columns scaled by their spreads."""
        from scipy.optimize import minimize

        k = self.dense.shape[1] if recipe.history else 0
        spreads = np.array(recipe.spreads)[self.families]
        used = np.flatnonzero(spreads > 0)
        facts = self.facts if len(used) == len(spreads) else self.facts[:, used]
        turned = facts.T.tocsr()
        dense = self.dense[:, :k]
        scale = np.concatenate([[1.0], np.full(k, recipe.history), spreads[used]])

        def objective(b: np.ndarray) -> tuple[float, np.ndarray]:
            beta = b * scale
            z = offset + beta[0] + dense @ beta[1 : 1 + k] + facts @ beta[1 + k :]
            value = float(np.dot(w, np.logaddexp(0.0, z) - y * z) + 0.5 * np.dot(b, b))
            error = w * (expit(z) - y)
            gradient = np.concatenate([[error.sum()], dense.T @ error, turned @ error]) * scale + b
            return value, gradient

        options = {"maxiter": 200, "ftol": 1e-8, "gtol": 1e-4}
        solved = minimize(objective, np.zeros(len(scale)), jac=True, method="L-BFGS-B", options=options).x * scale
        beta = np.zeros(self.width)
        beta[: 1 + k] = solved[: 1 + k]
        beta[1 + self.dense.shape[1] + used] = solved[1 + k :]
        return beta
