"""From a training frame to the numbers a model sees.

Belongs here: which columns one training settled on (`ColumnPlan`), how text becomes codes, and the matrix itself.
Does not belong here: which history is computed (`contract.py`, `history/`), and anything that looks at outcomes.

The plan is learned from training alerts only, stored in the model, and replayed at scoring: a value that
training did not see is missing, a column that scoring does not have is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.features.attributes import attribute_columns
from dagster_project.triage.features.contract import FeatureSettings, histories_about, history_features_for
from dagster_project.triage.features.facts import RAISE_TIME_FEATURES, raise_time_features

HISTORY_SOURCES = ("history", "share", "undecided")
SOURCES = ("raise", "number", "category", "name", *HISTORY_SOURCES)
IDENTITY = ("rule", "entity", "team", "severity")

# A category needs this many training alerts to be a category of its own: with fewer, its effect on the score
# would be noise, and its history features carry the same information with shrinkage.
CATEGORY_MINIMUM = 20
CATEGORY_LIMIT = 200
# Up to this many categories describe an alert; more name something. Names let trees memorise: small trees go
# without (on real alerts names cost them 0.03 nats).
FEW_CATEGORIES = 25

# An attribute takes part when at least this share of the training alerts has it.
ATTRIBUTE_MINIMUM_SHARE = 0.01
ATTRIBUTE_LIMIT = 30
# Text with more than half of its values distinct names things rather than describing them.
ID_LIKE_SHARE = 0.5
# Whole numbers that hardly ever repeat count something up: tickets, times, ids.
ID_LIKE_NUMBER_SHARE = 0.95
NUMERIC_SHARE = 0.98


@dataclass(frozen=True)
class Column:
    """One column of the matrix.

    name : unique name of the column.
    source : one of `SOURCES`: "raise" (a raise-time feature), "number" (an attribute), "category" (text with
        few different values), "name" (text with many: rule, entity, ...), "history", "share" (acted / known
        of a window) or "undecided" (raised - known of a window).
    of : the frame's columns it is computed from; an attribute is written "@name".
    categories : the text of code 0, 1, ...; a category only.
    """

    name: str
    source: str
    of: tuple[str, ...]
    categories: tuple[str, ...] = ()

    @property
    def categorical(self) -> bool:
        """Whether the column holds category codes."""
        return self.source in ("category", "name")


@dataclass(frozen=True)
class ColumnPlan:
    """The columns of one model, in order."""

    columns: tuple[Column, ...] = field(default_factory=tuple)

    @property
    def names(self) -> list[str]:
        """Column names, in order."""
        return [column.name for column in self.columns]

    @property
    def categorical(self) -> list[int]:
        """Positions of the columns that hold category codes."""
        return [i for i, column in enumerate(self.columns) if column.categorical]

    def positions(self, sources: Sequence[str]) -> list[int]:
        """Positions of the columns that come from one of `sources`."""
        return [i for i, column in enumerate(self.columns) if column.source in sources]

    def without(self, sources: Sequence[str], settings: FeatureSettings) -> ColumnPlan:
        """The plan without the columns computed from `sources` ("severity", "@attribute") or from histories about
        them."""
        gone = {*sources, *histories_about(sources, settings)}
        return ColumnPlan(tuple(c for c in self.columns if not gone & set(RAISE_TIME_FACTS.get(c.of[0], c.of))))

    def subset(self, positions: Sequence[int]) -> ColumnPlan:
        """The plan with these columns only."""
        return ColumnPlan(tuple(self.columns[i] for i in positions))

    def matrix(self, frame: pd.DataFrame) -> np.ndarray:
        """The matrix of `frame`: float32, one row per alert, one column per planned column, nan for missing."""
        matrix = np.full((len(frame), len(self.columns)), np.nan, dtype=np.float32)
        wanted = [c for c in self.columns if c.source in HISTORY_SOURCES]
        missing = sorted({name for c in wanted for name in c.of} - set(frame.columns))
        if missing:
            raise HeedError(
                f"{len(missing)} history columns are missing, among them {', '.join(missing[:3])}",
                "compute the features with the settings the model was trained with",
            )
        raise_time = raise_time_features(frame) if self.positions(("raise",)) else None
        attributes = sorted({c.of[0][1:] for c in self.columns if c.of[0].startswith("@")})
        parsed = attribute_columns(frame["attributes"], attributes) if attributes and "attributes" in frame else {}
        for i, column in enumerate(self.columns):
            if column.source == "raise":
                assert raise_time is not None
                matrix[:, i] = raise_time[column.of[0]].to_numpy()
            elif column.source == "history":
                matrix[:, i] = frame[column.of[0]].to_numpy(dtype=np.float32, na_value=np.nan)
            elif column.source in ("share", "undecided"):
                left, known = (frame[name].to_numpy(dtype=np.float32, na_value=np.nan) for name in column.of)
                if column.source == "share":
                    np.divide(left, known, out=matrix[:, i], where=known > 0)
                else:
                    matrix[:, i] = left - known
            else:
                name = column.of[0]
                values = parsed.get(name[1:]) if name.startswith("@") else _column(frame, name)
                if values is None:
                    continue
                matrix[:, i] = _codes(values, column.categories) if column.categorical else _numbers(values)
        return matrix

    def to_document(self) -> list[dict[str, Any]]:
        """JSON-able; `from_document` gives back an equal plan."""
        return [
            {"name": c.name, "source": c.source, "of": list(c.of), "categories": list(c.categories)}
            for c in self.columns
        ]

    @classmethod
    def from_document(cls, document: Any) -> ColumnPlan:
        """The plan that `to_document` described; `HeedError` when the document is not one."""
        try:
            columns = tuple(
                Column(str(c["name"]), str(c["source"]), tuple(map(str, c["of"])), tuple(map(str, c["categories"])))
                for c in document
            )
            sound = all(c.of and c.source in SOURCES for c in columns) and len({c.name for c in columns}) == len(
                columns
            )
        except (KeyError, TypeError) as error:
            raise HeedError(f"the stored column plan is malformed ({error!r})", "train again") from error
        if not sound:
            raise HeedError("the stored column plan is malformed (unknown source or double name)", "train again")
        return cls(columns)


# The facts behind each raise-time feature; those not listed depend on `raised_at` alone.
RAISE_TIME_FACTS = {
    "value": ("value",),
    "threshold": ("threshold",),
    "value_over_threshold": ("value", "threshold"),
    "severity_level": ("severity",),
    "title_length": ("title",),
}


def plan_columns(
    frame: pd.DataFrame,
    settings: FeatureSettings,
    trained_on: np.ndarray | None = None,
    withheld: Sequence[str] = (),
) -> ColumnPlan:
    """The columns that a training on `frame` uses; looks at facts only, never at outcomes.

    Parameters
    ----------
    frame : training alerts with the raise-time columns and every history column of `settings`.
    trained_on : bool, one per alert: those that are looked at; None: all.
    withheld : facts ("severity", "@attribute") that no column, histories included, is computed from.

    Raise-time features and history features are always in. Identity columns and text attributes become
    categories when at least one value has `CATEGORY_MINIMUM` alerts. Attributes take part when they are
    neither rare nor id-like, the most frequent first, at most `ATTRIBUTE_LIMIT` of them.
    """
    columns = [Column(name, "raise", (name,)) for name in RAISE_TIME_FEATURES]
    features = history_features_for(settings)
    absent = [f.name for f in features if f.name not in frame]
    if absent:
        raise HeedError(
            f"the training frame lacks {len(absent)} history columns, among them {', '.join(absent[:3])}",
            "compute the features again with the present settings",
        )
    # Shares say what counts of acted outcomes say, and each column costs time in every tree.
    short = {
        f.name for f in features if f.key in settings.attribute_keys and (f.window or f.statistic == "raised_count")
    }
    short |= {f.name for f in features if f.statistic == "acted_count" and f.window is None}
    columns += [Column(f.name, "history", (f.name,)) for f in features if f.name not in short]
    known = {(f.key, f.window): f.name for f in features if f.statistic == "known_count"}
    for f in features:
        span = (f.key, f.window)
        if f.statistic == "acted_count" and span in known:
            columns.append(Column(f.name.replace("_acted_count", "_acted_share"), "share", (f.name, known[span])))
        if f.statistic == "raised_count" and span in known and f.name not in short:
            name = f.name.replace("_raised_count_", "_undecided_count_")
            columns.append(Column(name, "undecided", (f.name, known[span])))
    # Cut without the history columns: the frame is wide.
    facts = frame[[name for name in (*IDENTITY, "attributes") if name in frame]]
    facts = facts if trained_on is None else facts[trained_on]
    for name in IDENTITY:
        values = _column(facts, name)
        if values is not None and (categories := _frequent(values)):
            columns.append(_text_column(name, name, categories))
    if "attributes" in facts:
        columns += _attribute_plan(facts["attributes"], withheld)
    return ColumnPlan(tuple(columns)).without(withheld, settings)


def _attribute_plan(attributes: pd.Series, withheld: Sequence[str]) -> list[Column]:
    candidates = []
    for name, values in attribute_columns(attributes).items():
        if f"@{name}" in withheld:
            continue
        present = np.array([v is not None for v in values])
        count = int(present.sum())
        if count < max(1.0, ATTRIBUTE_MINIMUM_SHARE * len(values)):
            continue
        seen = values[present]
        numbers = _numbers(seen)
        parsed = np.isfinite(numbers)
        if parsed.mean() >= NUMERIC_SHARE:
            distinct = np.unique(numbers[parsed])
            integers = bool((distinct == np.round(distinct)).all())
            id_like = count >= 200 and integers and len(distinct) > ID_LIKE_NUMBER_SHARE * count
            if len(distinct) > 1 and not id_like:
                candidates.append((-count, name, Column(f"attribute:{name}", "number", (f"@{name}",))))
            continue
        words = pd.unique(np.array([str(v) for v in seen], dtype=object))
        if len(words) < 2 and count == len(values):
            continue
        if len(words) > 20 and len(words) > ID_LIKE_SHARE * count:
            continue
        if categories := _frequent(values):
            candidates.append((-count, name, _text_column(f"attribute:{name}", f"@{name}", categories)))
    return [column for _, _, column in sorted(candidates, key=lambda item: item[:2])[:ATTRIBUTE_LIMIT]]


def _text_column(name: str, of: str, categories: tuple[str, ...]) -> Column:
    return Column(name, "category" if len(categories) <= FEW_CATEGORIES else "name", (of,), categories)


def _column(frame: pd.DataFrame, name: str) -> np.ndarray | None:
    return frame[name].astype(object).to_numpy() if name in frame else None


def _frequent(values: np.ndarray) -> tuple[str, ...]:
    words = pd.Series([str(v) for v in values if not _null(v)], dtype=object)
    counts = words.value_counts()
    counts = counts[counts >= CATEGORY_MINIMUM]
    ordered = sorted(counts.items(), key=lambda item: (-int(item[1]), str(item[0])))
    return tuple(str(word) for word, _ in ordered[:CATEGORY_LIMIT])


def _null(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value))


def _codes(values: np.ndarray, categories: tuple[str, ...]) -> np.ndarray:
    codes, words = pd.factorize(values)
    place = {word: float(i) for i, word in enumerate(categories)}
    numbers = [np.nan if _null(word) else place.get(str(word), np.nan) for word in words]
    return np.asarray([*numbers, np.nan], dtype=np.float64)[codes]


def _numbers(values: np.ndarray) -> np.ndarray:
    column = pd.Series(values, dtype=object)
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isfinite(numbers), numbers, np.nan)
