"""What each fact adds to a score, of contenders that are no trees: log-odds per column, for reasons.

Belongs here: contributions of linear models and baselines, as columns that reasons know how to say.
Does not belong here: contributions of trees (`learning/trees`), saying facts in words (`learning/reasons`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.contenders import REPEAT
from dagster_project.triage.evaluation.metrics import logit
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.matrix import Column, ColumnPlan
from dagster_project.triage.learning.baselines import LOGISTIC, RATE_KEYS, Baseline
from dagster_project.triage.learning.mixture.dense import RAISE_TIME, dense_columns, dense_matrix, standard
from dagster_project.triage.learning.mixture.facts import parts_of
from dagster_project.triage.learning.mixture.linear import Linear, encode

TIMES = ("hour", "weekday")


def linear_contributions(models: dict[str, tuple[Linear, float]], frame: pd.DataFrame) -> tuple[ColumnPlan, np.ndarray]:
    """The contributions of linear models, each times its weight: (columns, float64 [alerts, columns]).

    A pair of names counts half for each of its parts, and a word for the text that holds it.
    """
    by_column: dict[Column, np.ndarray] = {}

    def add(column: Column, value: np.ndarray) -> None:
        by_column[column] = by_column[column] + value if column in by_column else value

    first = next(iter(models.values()))[0]
    kinds = sorted({kind for model, _ in models.values() for kind in model.facts})
    encoded = encode(frame, first.settings, kinds, first.withheld)
    for model, weight in models.values():
        columns = dense_columns(model.settings, model.withheld)
        raw = dense_matrix(frame, columns, model.rate, model.withheld)
        z = raw * model.centre + standard(raw, model.mean, model.deviation) * model.coefficients
        for i, column in enumerate(columns):
            if column.source == "rate":
                add(Column(f"{column.name} (linear)", "share", column.of), weight * z[:, i])
            else:
                add(Column(f"{column.name} (linear)", "history", column.of[:1]), weight * z[:, i])
        for i, name in enumerate((*RAISE_TIME, *RAISE_TIME)):
            add(Column(f"{name} (linear)", "raise", (name,)), weight * z[:, len(columns) + i])
        add(Column("hour (linear)", "raise", ("hour",)), weight * z[:, -2:].sum(axis=1))
        for facts in encoded.facts:
            known = model.facts.get(facts.name)
            if not known:
                continue
            pull = facts.matrix @ np.array([known.get(value, 0.0) for value in facts.values], dtype=np.float64)
            parts = ["hour"] if facts.name in TIMES else parts_of(facts.name)
            for part in parts:
                source = "raise" if part == "hour" else "name"
                add(Column(f"{part} (linear)", source, (part,)), weight * pull / len(parts))
    return join([(ColumnPlan((column,)), value[:, None]) for column, value in by_column.items()], len(frame))


def baseline_contributions(
    baselines: Sequence[tuple[Baseline, float]], frame: pd.DataFrame, settings: FeatureSettings
) -> tuple[ColumnPlan, np.ndarray]:
    """Of each rate, how far its log-odds lie from their mean over these alerts, times its weight."""
    longest = max(settings.outcome_windows, default=None)
    names = {(f.key, f.statistic): f.name for f in history_features_for(settings) if f.window in (longest, None)}
    parts: list[tuple[ColumnPlan, np.ndarray]] = []
    for baseline, weight in baselines:
        for key, log_odds in _log_odds(baseline, frame):
            if (key, "known_count") in names:
                of = (names[key, "acted_count"], names[key, "known_count"])
                column = Column(f"{key} ({baseline.name})", "share", of)
                parts.append((ColumnPlan((column,)), weight * log_odds[:, None]))
    return join(parts, len(frame))


def _log_odds(baseline: Baseline, frame: pd.DataFrame) -> Iterable[tuple[str, np.ndarray]]:
    """(key, what it adds to the log-odds) for every rate that a baseline reads."""
    if baseline.name == LOGISTIC:
        for document, coefficient in zip(baseline.numbers["rates"], baseline.numbers["coefficients"][1:], strict=False):
            for key, log_odds in _log_odds(Baseline.from_document(document), frame):
                yield key, float(coefficient) * log_odds
        return
    key = baseline.name.removeprefix("rate_per_").removeprefix(REPEAT)
    if key in RATE_KEYS:
        rate = baseline.numbers["rate" if "rate" in baseline.numbers else "none"]
        yield key, logit(baseline.predict(frame)) - logit(np.array(float(rate)))


def join(parts: Sequence[tuple[ColumnPlan, np.ndarray]], alerts: int) -> tuple[ColumnPlan, np.ndarray]:
    """The columns of several plans as one."""
    columns = tuple(column for plan, _ in parts for column in plan.columns)
    return ColumnPlan(columns), np.concatenate([np.zeros((alerts, 0)), *(values for _, values in parts)], axis=1)
