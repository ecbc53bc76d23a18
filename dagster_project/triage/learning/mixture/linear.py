"""A logistic regression on everything that has a name: the contender that serves from the first outcomes on.

Belongs here: its columns (history as shrunk log-odds, sparse facts), fitting them with a penalty chosen inside the
past, forecasts, the share of each fact in a forecast, and the stored form in plain numbers.
Does not belong here: turning alerts into sparse facts (`facts.py`), history itself (`features/history`), whether the
model serves (`weights.py`).

The model is log-odds = prior + history + facts. Prior: the plain mean of the log-odds of the shrunk lifelong rates of
rule, entity and team, which is a fair forecast before anything was learned. History: every rate, at every window, as
log-odds shrunk towards the overall rate (of a pair of keys: towards its parts). Facts: names, pairs of names,
attributes, words, times. All coefficients have a Gaussian prior around zero (ridge; the random effects of a
mixed model). Method: Hoerl & Kennard 1970; Robinson 1991 (random effects as shrinkage).

Each kind of facts (rule, region, words of the title, ...) has a spread of its own, estimated from the past by maximum
marginal likelihood (empirical Bayes): kinds that say nothing shrink to nothing, and one that decides may speak. MacKay
1992 (the fixed point), Breslow & Clayton 1993 (variance components of a logistic regression). History has a fixed
spread: where habits drift, what it was worth last year misleads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import clip_probability, expit, logit
from dagster_project.triage.features.contract import FeatureSettings, histories_about
from dagster_project.triage.features.matrix import RAISE_TIME_FACTS
from dagster_project.triage.learning.mixture.dense import (
    RAISE_TIME,
    DenseColumn,
    column_names,
    dense_columns,
    dense_matrix,
    standard,
)
from dagster_project.triage.learning.mixture.facts import Facts, parts_of, sparse_facts
from dagster_project.triage.learning.settings import YEAR

if TYPE_CHECKING:
    from scipy import sparse

# A fact that fewer training alerts have teaches nothing that its parts do not.
FACT_MINIMUM = 2
FACT_LIMIT = 50_000
# A coefficient below this moves no probability by more than 0.03 points, and is not stored.
NOTHING = 1e-3
# The families of facts, each with its own spread.
FAMILIES = ("names", "words", "time")
TIME_SPREAD = 0.1
# An estimated spread counts the fixed one as so many observed coefficients, and is estimated in so many steps: more of
# them changed the log-loss in no set by more than 0.001, but for words that decide (0.002).
SPREAD_PRIOR = 1.0
SPREAD_STEPS = 2
LEAST_SPREAD = 1e-3
FLOOR = 1e-4
KEYS_OF_PRIOR = ("rule", "entity", "team")


@dataclass(frozen=True)
class Recipe:
    """One way to weigh.

    name : for the evidence. history, names, words : spreads of the coefficients (log-odds); 0 leaves a family out.
    Those of names and words are where the estimates of their kinds begin.
    """

    name: str
    history: float = 0.0
    names: float = 0.0
    words: float = 0.0

    @property
    def spreads(self) -> tuple[float, float, float]:
        """By family: names, words, time."""
        return self.names, self.words, TIME_SPREAD if self.names or self.history else 0.0


MEAN_OF_RATES, LINEAR = "mean_of_rates", "linear"
# One recipe for all alerts. Against fixed spreads, estimated ones moved the log-loss of this model from 0.587 to 0.578
# on the service desk, from 0.523 to 0.469 in simulated alerts whose words decide and from 0.632 to 0.620 in noise, but
# from 0.497 to 0.506 on package alerts, whose habits drift; there the whole pool stayed at 0.4515.
RECIPES = (Recipe(MEAN_OF_RATES), Recipe(LINEAR, history=0.05, names=0.3, words=0.5))


def family(kind: str) -> str:
    """The family of a kind of facts."""
    if kind.startswith("words of "):
        return "words"
    return "time" if kind in ("hour", "weekday") else "names"


@dataclass(frozen=True)
class Encoded:
    """Alerts as numbers, once for many fits and forecasts: their history as a frame, their facts as sparse matrices."""

    frame: pd.DataFrame
    settings: FeatureSettings
    facts: tuple[Facts, ...]
    withheld: tuple[str, ...] = ()


def encode(
    frame: pd.DataFrame, settings: FeatureSettings, kinds: Sequence[str], withheld: Sequence[str] = ()
) -> Encoded:
    """The alerts of `frame` with facts of these `kinds` (`facts.plan_facts`), without those of `withheld` columns."""
    kept = [kind for kind in kinds if not set(withheld) & set(parts_of(kind))]
    return Encoded(frame, settings, tuple(sparse_facts(frame, kept)), tuple(withheld))


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
    withheld: tuple[str, ...] = ()

    def log_odds(self, encoded: Encoded, rows: np.ndarray | None = None) -> np.ndarray:
        """float64 [rows] of encoded alerts; None takes all. Facts that training did not see count nothing."""
        return log_odds_of({self.name: self}, encoded, rows)[self.name]

    def _of_facts(self, encoded: Encoded, rows: np.ndarray | None) -> np.ndarray | float:
        z: np.ndarray | float = 0.0
        # In an order of its own: the last bit of a sum must not depend on how the model was stored.
        for facts in sorted(encoded.facts, key=lambda f: f.name):
            known = self.facts.get(facts.name)
            if known:
                weight = np.array([known.get(value, 0.0) for value in facts.values], dtype=np.float64)
                z = z + (facts.matrix if rows is None else facts.matrix[rows]) @ weight
        return z

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action per alert, float64 in (0, 1); `HeedError` for a missing history column."""
        encoded = encode(frame, self.settings, list(self.facts), self.withheld)
        return clip_probability(expit(self.log_odds(encoded)), FLOOR)

    def reads(self, source: str) -> bool:
        """Whether a column ("severity") or attribute ("@region"), or a history about it, has a coefficient."""
        if any(source in parts_of(kind) for kind in self.facts):
            return True
        columns = dense_columns(self.settings, self.withheld)
        histories = histories_about([source], self.settings)
        weight = np.abs(self.coefficients) + np.abs(self.centre)
        raised = weight[len(columns) : len(columns) + 2 * len(RAISE_TIME)].reshape(2, -1).sum(axis=0)
        return any(histories & set(c.of) and w > 0 for c, w in zip(columns, weight, strict=False)) or any(
            source in RAISE_TIME_FACTS[name] and w > 0 for name, w in zip(RAISE_TIME, raised, strict=True)
        )

    def to_document(self) -> dict[str, Any]:
        """JSON-able; `from_document` gives back a model with the same forecasts, to the last bit."""
        numbers = ("mean", "deviation", "coefficients", "centre")
        return {
            "name": self.name,
            "rate": self.rate,
            "intercept": self.intercept,
            "columns": column_names(self.settings, self.withheld),
            "withheld": list(self.withheld),
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
            model = cls(
                str(document["name"]), settings, float(document["rate"]), float(document["intercept"]), facts=facts,
                withheld=tuple(str(v) for v in document["withheld"]), **arrays,
            )  # fmt: skip
            numbers = [model.rate, model.intercept, *(b for d in facts.values() for b in d.values())]
            sound = (
                list(document["columns"]) == column_names(settings, model.withheld)
                and all(a.shape == (len(document["columns"]),) and np.isfinite(a).all() for a in arrays.values())
                and bool(np.isfinite(numbers).all())
                and 0 < model.rate < 1
                and bool((model.deviation > 0).all())
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HeedError(f"the stored linear model is malformed ({error!r})", "train again") from error
        if not sound:
            raise HeedError(
                "the stored linear model is malformed (other columns, or a number is missing)", "train again"
            )
        return model


def log_odds_of(models: dict[str, Linear], encoded: Encoded, rows: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """`Linear.log_odds` of several models; those with the same scale share their dense columns."""
    frame = encoded.frame if rows is None else encoded.frame.iloc[rows]
    if not len(frame):
        return {name: np.zeros(0) for name in models}
    scales: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    log_odds: dict[str, np.ndarray] = {}
    for name, model in models.items():
        scale = np.concatenate([[model.rate], model.mean, model.deviation]).tobytes()
        if scale not in scales:
            columns = dense_columns(model.settings, model.withheld)
            raw = dense_matrix(frame, columns, model.rate, model.withheld)
            raw = np.ascontiguousarray(raw)
            scales[scale] = raw, standard(raw, model.mean, model.deviation)
        raw, scaled = scales[scale]
        # Row by row the same sum in the same order, whatever the other rows are.
        z = model.intercept + (raw * model.centre).sum(axis=1)
        if model.coefficients.any():
            z = z + (scaled * model.coefficients).sum(axis=1)
        log_odds[name] = z + model._of_facts(encoded, rows)
    return log_odds


def fit_linear(
    encoded: Encoded,
    rows: np.ndarray,
    acted: np.ndarray,
    cut: pd.Timestamp,
    recipes: Sequence[Recipe] = RECIPES,
    weight: np.ndarray | None = None,
    prior: tuple[float, float] = (0.5, 0.5),
) -> dict[str, Linear]:
    """A model by each recipe, by name.

    Parameters
    ----------
    rows : positions of the past alerts in `encoded`, ascending. acted : 0.0 or 1.0 for each. weight : for each,
        default 1; ages are weighed as well. cut : the moment from which ages count.

    Deterministic: same alerts, same bytes. Defined for any number of alerts, none included: the prior is the forecast.
    """
    settings = encoded.settings
    columns = dense_columns(settings, encoded.withheld)
    past = encoded.frame.iloc[rows]
    age = np.maximum((cut - past["raised_at"]).dt.total_seconds().to_numpy(dtype=np.float64), 0.0)
    given = np.ones(len(rows)) if weight is None else np.asarray(weight, dtype=np.float64)
    w = given * np.exp2(-age / YEAR.total_seconds())
    rate = float((np.dot(w, acted) + prior[0]) / (w.sum() + prior[0] + prior[1]))
    raw = dense_matrix(past, columns, rate, encoded.withheld)
    design = _Design.of(encoded, rows, raw)
    centre = _centre(columns, raw.shape[1])
    base = float(logit(np.array(rate)))
    models: dict[str, Linear] = {}
    for recipe in recipes:
        fitted = recipe.history or recipe.names or recipe.words
        with threadpool_limits(1, "blas"):  # the sum of products must not depend on the number of threads
            offset = base + raw @ centre
            beta = design.fit(acted, w, offset, recipe) if fitted and len(rows) else np.zeros(design.width)
        models[recipe.name] = Linear(
            recipe.name, settings, rate, base + float(beta[0]), design.mean, design.deviation,
            beta[1 : 1 + raw.shape[1]], centre, design.stored_facts(encoded, beta), encoded.withheld,
        )  # fmt: skip
    return models


def _centre(columns: Sequence[DenseColumn], width: int) -> np.ndarray:
    """The plain mean of the longest shrunk rates of rule, entity and team."""
    rates = [i for i, c in enumerate(columns) if c.source == "rate"]
    longest: dict[str, int] = {}
    for i in rates:
        key, _, label = columns[i].name.partition("_rate_")
        if key in KEYS_OF_PRIOR and (label == "life" or not columns[longest.get(key, i)].name.endswith("_life")):
            longest[key] = i
    centre = np.zeros(width)
    centre[list(longest.values())] = 1.0 / max(1, len(longest))
    return centre


def _pairs(facts: Facts, wanted: np.ndarray) -> np.ndarray:
    """1 for each of the wanted facts that is a pair of words, 0 for the others: int64."""
    if family(facts.name) != "words":
        return np.zeros(len(wanted), dtype=np.int64)
    return np.array([" " in str(value) for value in facts.values[wanted]], dtype=np.int64)


def _storable(text: str) -> bool:
    """Whether PostgreSQL's JSON can hold a text: no NUL, no half of a surrogate pair."""
    return "\0" not in text and not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


@dataclass(frozen=True)
class _Design:
    """Columns of one fit: an intercept, standardised dense columns, facts; and which facts are kept, by kind."""

    dense: np.ndarray
    facts: sparse.csr_matrix
    families: np.ndarray
    kinds: np.ndarray
    kept: list[np.ndarray]
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, encoded: Encoded, rows: np.ndarray, raw: np.ndarray) -> _Design:
        from scipy import sparse

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
            families.append(np.full(len(wanted), FAMILIES.index(family(facts.name))))
        facts_matrix = sparse.hstack(parts, format="csr") if parts else sparse.csr_matrix((len(rows), 0))
        dense = standard(raw, mean, deviation)
        # Single words and pairs of neighbours are two kinds: where words decide, most pairs say nothing more.
        kinds = np.concatenate(
            [np.zeros(0, np.int64)]
            + [2 * i + _pairs(facts, wanted) for i, (facts, wanted) in enumerate(zip(encoded.facts, kept, strict=True))]
        )
        return cls(
            dense, facts_matrix, np.concatenate([np.zeros(0, np.int64), *families]), kinds, kept, mean, deviation
        )

    @property
    def width(self) -> int:
        return 1 + self.dense.shape[1] + self.facts.shape[1]

    def stored_facts(self, encoded: Encoded, beta: np.ndarray) -> dict[str, dict[str, float]]:
        """By kind, the text and coefficient of every fact that counts."""
        at, by_kind = 1 + self.dense.shape[1], {}
        for facts, kept in zip(encoded.facts, self.kept, strict=True):
            weights = beta[at : at + len(kept)]
            at += len(kept)
            of_kind = {
                str(v): float(b)
                for v, b in zip(facts.values[kept], weights, strict=True)
                if abs(b) > NOTHING and _storable(str(v))
            }
            if of_kind:
                by_kind[facts.name] = dict(sorted(of_kind.items()))
        return by_kind

    def fit(self, y: np.ndarray, w: np.ndarray, offset: np.ndarray, recipe: Recipe) -> np.ndarray:
        """The coefficients of the highest posterior density, with the spreads that were estimated last."""
        k = self.dense.shape[1] if recipe.history else 0
        fixed = np.array(recipe.spreads)[self.families]
        used = np.flatnonzero(fixed > 0)
        problem = _Problem.of(self.dense[:, :k], self.facts, used, y, w, offset)
        spreads = fixed[used]
        solved = problem.solve(recipe.history, spreads, np.zeros(1 + k + len(used)))
        for _ in range(SPREAD_STEPS if len(used) else 0):
            spreads = problem.estimate_spreads(solved, spreads, fixed[used], self.kinds[used])
            solved = problem.solve(recipe.history, spreads, solved)
        beta = np.zeros(self.width)
        beta[: 1 + k] = solved[: 1 + k]
        beta[1 + self.dense.shape[1] + used] = solved[1 + k :]
        return beta


@dataclass(frozen=True)
class _Problem:
    """One weighted logistic regression with an offset: columns, outcomes, weights. Coefficients are ordered as
    intercept, dense columns, facts."""

    dense: np.ndarray
    facts: sparse.csr_matrix
    transposed: sparse.csr_matrix
    y: np.ndarray
    w: np.ndarray
    offset: np.ndarray

    @classmethod
    def of(
        cls, dense: np.ndarray, facts: sparse.csr_matrix, used: np.ndarray, y: np.ndarray, w: np.ndarray,
        offset: np.ndarray,
    ) -> _Problem:  # fmt: skip
        facts = facts if len(used) == facts.shape[1] else facts[:, used]
        return cls(dense, facts, facts.T.tocsr(), y, w, offset)

    def log_odds(self, beta: np.ndarray) -> np.ndarray:
        k = self.dense.shape[1]
        return self.offset + beta[0] + self.dense @ beta[1 : 1 + k] + self.facts @ beta[1 + k :]

    def solve(self, history: float, spreads: np.ndarray, start: np.ndarray) -> np.ndarray:
        """The coefficients of the highest posterior density, by L-BFGS on columns scaled by their spreads."""
        from scipy.optimize import minimize

        scale = np.concatenate([[1.0], np.full(self.dense.shape[1], history), spreads])

        def objective(b: np.ndarray) -> tuple[float, np.ndarray]:
            z = self.log_odds(b * scale)
            value = float(np.dot(self.w, np.logaddexp(0.0, z) - self.y * z) + 0.5 * np.dot(b, b))
            error = self.w * (expit(z) - self.y)
            gradient = np.concatenate([[error.sum()], self.dense.T @ error, self.transposed @ error]) * scale + b
            return value, gradient

        options = {"maxiter": 200, "ftol": 1e-8, "gtol": 1e-4}
        solved: np.ndarray = minimize(objective, start / scale, jac=True, method="L-BFGS-B", options=options).x * scale
        return solved

    def estimate_spreads(
        self, beta: np.ndarray, spreads: np.ndarray, fixed: np.ndarray, kinds: np.ndarray
    ) -> np.ndarray:
        """MacKay's fixed point, one step: the squared coefficients of a kind over how many of them the data determine.

        spreads, fixed : the present and the fixed spread of each fact. kinds : of each fact. The posterior variance of
        a coefficient is taken as if all others were known, which counts facts that go together as better determined
        than they are: the estimates are rather too small.
        """
        p = expit(self.log_odds(beta))
        squared = self.transposed.copy()
        squared.data **= 2
        variance = 1.0 / (1.0 / spreads**2 + squared @ (self.w * p * (1 - p)))
        determined = np.bincount(kinds, 1.0 - variance / spreads**2)
        of_kind = np.bincount(kinds, beta[1 + self.dense.shape[1] :] ** 2)
        prior = np.zeros(len(of_kind))
        prior[kinds] = SPREAD_PRIOR * fixed**2
        estimate = np.sqrt((prior + of_kind) / (SPREAD_PRIOR + determined))
        return np.maximum(estimate, LEAST_SPREAD)[kinds]
