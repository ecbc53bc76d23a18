"""The subjects of a model's columns, and what each claims about each alert.

Belongs here: adding up contributions by subject, and turning a subject into a claim with its proofs.
Does not belong here: which claims convince (`claims.py`), counting at training (`counts.py`), words (`words.py`).

A subject is what a triager would call one thing: the history of the rule (all its windows, and that it is this rule),
how many alerts the entity had, the severity. How long a title is, and that a value is missing, say nothing to a
triager: no claim is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.contenders import REPEAT
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.keys import KEY_SEPARATOR
from dagster_project.triage.features.matrix import HISTORY_SOURCES, Column, ColumnPlan
from dagster_project.triage.learning.baselines import LOGISTIC, RATE_KEYS, Baseline
from dagster_project.triage.learning.reasons import words
from dagster_project.triage.learning.reasons.claims import Claim, Proof, Reason, Subject, convincing, distance
from dagster_project.triage.learning.reasons.counts import Bins, PastCounts

if TYPE_CHECKING:
    from dagster_project.triage.features.history import HistoryFeature

Pushes = Mapping[Subject, np.ndarray]


def subjects_of(plan: ColumnPlan, settings: FeatureSettings) -> list[Subject]:
    """(kind, name) of the subject that each column belongs to."""
    features = {f.name: f for f in history_features_for(settings)}
    return [_subject(column, settings, features) for column in plan.columns]


def _subject(column: Column, settings: FeatureSettings, features: Mapping[str, HistoryFeature]) -> Subject:
    name = column.of[-1]
    if column.source in HISTORY_SOURCES:
        feature = features[name]
        volume = feature.statistic in ("raised_count", "seconds_since_raised") or column.source == "undecided"
        return ("volume" if volume else "history"), feature.key
    name = name.removeprefix("@")
    if column.source == "raise":
        if name in ("hour", "weekday"):
            return "time", "time"
        if name in ("value", "threshold", "value_over_threshold"):
            return "value", "value"
        name = "severity" if name == "severity_level" else name
    # That it is this rule, and how this rule did, are one thing.
    return ("history" if name in (*settings.keys, *settings.attribute_keys) else "fact"), name


def pushes_by_subject(
    plan: ColumnPlan, contributions: np.ndarray, settings: FeatureSettings
) -> dict[Subject, np.ndarray]:
    """Contributions added up by subject: float64[alerts] each, log-odds.

    contributions : float64 [alerts, columns of `plan`], additive on the log-odds scale (exact Shapley values).
    """
    subjects = subjects_of(plan, settings)
    names = list(dict.fromkeys(subjects))
    member = np.zeros((len(subjects), len(names)))
    member[np.arange(len(subjects)), [names.index(s) for s in subjects]] = 1.0
    return dict(zip(names, (contributions @ member).T, strict=True))


def claims(
    frame: pd.DataFrame,
    plan: ColumnPlan,
    matrix: np.ndarray,
    counts: PastCounts,
    settings: FeatureSettings,
    pushes: Pushes,
    usual: float,
) -> list[Claim]:
    """What each subject of `pushes` claims about each alert.

    Parameters
    ----------
    frame : the alerts with their history columns. matrix : `plan.matrix(frame)`.
    counts : of the training. usual : share of all alerts that is acted on, inside (0, 1).
    pushes : log-odds by subject, float64[alerts]. Contributions of other models about the same subject may have been
        added; claims about other subjects are made elsewhere and passed to `convincing` with these.
    """
    columns: dict[Subject, list[int]] = {}
    for position, subject in enumerate(subjects_of(plan, settings)):
        if plan.columns[position].name in counts.columns:
            columns.setdefault(subject, []).append(position)
    teller = _Teller(frame, plan, matrix, counts, settings, usual)
    by_subject = []
    for subject, push in _without_repetition(frame, dict(pushes), settings):
        kind, name = subject
        proofs = list(teller.history(name)) if kind == "history" else []
        # Where history has counts of the same fact, they are newer than those of the training.
        if not proofs:
            proofs = [proof for at in columns.get(subject, ()) for proof in teller.counted(at, name)]
        by_subject.append(Claim(subject, push, tuple(proofs)))
    return by_subject


class _Teller:
    """Proofs about the alerts of one frame."""

    def __init__(
        self,
        frame: pd.DataFrame,
        plan: ColumnPlan,
        matrix: np.ndarray,
        counts: PastCounts,
        settings: FeatureSettings,
        usual: float,
    ) -> None:
        self.frame, self.plan, self.matrix = frame, plan, matrix
        self.counts, self.usual = counts, usual
        self.features = {f.name: f for f in history_features_for(settings)}

    def history(self, key: str) -> Iterator[Proof]:
        """The outcomes of alerts of the same key, in each window, the longest first."""
        yield from _history_proofs(self.frame, key, self.features, self.usual)

    def counted(self, position: int, name: str) -> Iterator[Proof]:
        """The training's counts of alerts with the same value of a column."""
        column, values = self.plan.columns[position], self.matrix[:, position].astype(np.float64)
        bins = self.counts.columns[column.name]
        place = bins.place(values)
        known = np.where(place >= 0, np.asarray((*bins.known, 0), dtype=np.float64)[place], np.nan)
        acted = np.where(place >= 0, np.asarray((*bins.acted, 0), dtype=np.float64)[place], np.nan)
        if column.categorical:
            yield Proof(known, acted, partial(self._category, name, column.categories), (place,))
        elif column.source == "history":
            yield Proof(known, acted, partial(self._raised, self.features[column.of[0]], bins), (values, place))
        elif column.of[0] == "hour":
            yield Proof(known, acted, partial(self._hour, bins), (values, place))
        elif column.of[0] == "weekday":
            yield Proof(known, acted, self._weekday, (place,))
        elif column.of[0] == "value_over_threshold":
            yield Proof(known, acted, partial(self._excess, bins), (np.sinh(values), place))
        elif column.of[0] == "value":
            # Values of different rules compare only by their thresholds, where they have one.
            excess = [at for at, other in enumerate(self.plan.columns) if other.name == "value_over_threshold"]
            bare = np.isnan(self.matrix[:, excess]).all(axis=1)
            ends = Bins(tuple(np.sinh(bins.edges).tolist()), bins.known, bins.acted)
            say = partial(self._number, "the value", ends)
            yield Proof(np.where(bare, known, np.nan), acted, say, (np.sinh(values), place))
        else:
            yield Proof(known, acted, partial(self._number, name, bins), (values, place))

    def _category(self, name: str, categories: tuple[str, ...], known: float, acted: float, code: int) -> str:
        return words.alike(f"{name} is {words.quoted(categories[code])}", known, acted, self.usual)

    def _raised(
        self, feature: HistoryFeature, bins: Bins, known: float, acted: float, earlier: float, place: int
    ) -> str:
        assert feature.window is not None
        fact = words.count_in_window(words.of_key(feature.key), earlier, feature.window)
        return words.alike(fact, known, acted, self.usual, words.such_counts(*_ends(bins, place)))

    def _hour(self, bins: Bins, known: float, acted: float, hour: float, place: int) -> str:
        low, high = _ends(bins, place)
        at = f"raised at {int(hour):02d}:{round(hour % 1 * 60) % 60:02d} UTC"
        which = f"alerts between {low:02.0f}:00 and {high or 24:02.0f}:00"
        return words.alike(at, known, acted, self.usual, which)

    def _weekday(self, known: float, acted: float, place: int) -> str:
        return words.alike(f"raised on a {words.WEEKDAYS[place]}", known, acted, self.usual)

    def _excess(self, bins: Bins, known: float, acted: float, excess: float, place: int) -> str:
        low, high = (None if end is None else float(np.sinh(end)) for end in _ends(bins, place))
        fact = f"the value is {words.beyond_threshold(excess)}"
        low = None if place == 0 else low
        return words.alike(fact, known, acted, self.usual, words.alerts_beyond(low, high))

    def _number(self, name: str, bins: Bins, known: float, acted: float, value: float, place: int) -> str:
        low, high = _ends(bins, place)
        which = f"alerts with {words.between(None if place == 0 else low, high)}"
        return words.alike(f"{name} is {words.number(value)}", known, acted, self.usual, which)


def _ends(bins: Bins, place: int) -> tuple[float, float | None]:
    """The ends of a bin; None: it has no upper end."""
    return bins.edges[place], bins.edges[place + 1] if place + 1 < len(bins.edges) else None


def _history_proofs(
    frame: pd.DataFrame, key: str, features: Mapping[str, HistoryFeature], usual: float
) -> Iterator[Proof]:
    of_key = [f for f in features.values() if f.key == key and f.window is not None]
    acted_in = {f.window: f.name for f in of_key if f.statistic == "acted_count"}
    known_in = {f.window: f.name for f in of_key if f.statistic == "known_count"}
    for window in sorted((w for w in known_in if w is not None), reverse=True):
        counted = (known_in[window], acted_in[window])
        known, acted = (frame[name].to_numpy(dtype=np.float64, na_value=0.0) for name in counted)
        yield Proof(known, acted, partial(_outcomes, key, window, usual))


def _outcomes(key: str, window: timedelta, usual: float, known: float, acted: float) -> str:
    span = f" decided in the {words.length(window)} before"
    return words.outcomes(known, acted, words.of_key(key), usual, span)


def _without_repetition(
    frame: pd.DataFrame, pushes: dict[Subject, np.ndarray], settings: FeatureSettings
) -> Iterator[tuple[Subject, np.ndarray]]:
    """The pushes, with that of a combination added to its part where both have the same history.

    A rule that only one team answers is one subject, not two. A combination's alerts are some of its part's: with as
    many in the longest window, they are the same ones.
    """
    window = max(settings.raised_windows, default=None)
    names = {
        f.key: f.name for f in history_features_for(settings) if f.statistic == "raised_count" and f.window == window
    }
    for kind, key in list(pushes):
        for part in key.split(KEY_SEPARATOR) if KEY_SEPARATOR in key and key in names else ():
            if part in names and (kind, part) in pushes:
                both = frame[[names[key], names[part]]].to_numpy(dtype=np.float64, na_value=np.nan)
                same = both[:, 0] == both[:, 1]
                moved = np.where(same, pushes[kind, key], 0.0)
                pushes[kind, part] = pushes[kind, part] + moved
                pushes[kind, key] = pushes[kind, key] - moved
    yield from pushes.items()


def reasons_from_contributions(
    frame: pd.DataFrame,
    plan: ColumnPlan,
    matrix: np.ndarray,
    contributions: np.ndarray,
    counts: PastCounts,
    settings: FeatureSettings,
    usual: float,
    probability: np.ndarray,
    top: int = 3,
) -> list[list[str]]:
    """The `top` claims that moved each score most and whose counts support it, strongest first, in words.

    Parameters are those of `pushes_by_subject`, `claims` and `convincing`. Where no single claim
    convinces, the one line says so.
    """
    pushes = pushes_by_subject(plan, contributions, settings)
    return reasons_from_pushes(frame, plan, matrix, pushes, counts, settings, usual, probability, top)


def reasons_from_pushes(
    frame: pd.DataFrame,
    plan: ColumnPlan,
    matrix: np.ndarray,
    pushes: Pushes,
    counts: PastCounts,
    settings: FeatureSettings,
    usual: float,
    probability: np.ndarray,
    top: int = 3,
    more: Sequence[Claim] = (),
) -> list[list[str]]:
    """As `reasons_from_contributions`, of contributions that are already added up by subject; more : other claims."""
    every = [*claims(frame, plan, matrix, counts, settings, pushes, usual), *more]
    chosen = convincing(every, usual, probability, top)
    return _in_words(chosen, probability, usual, top)


def reasons_from_baseline(
    baseline: Baseline,
    frame: pd.DataFrame,
    settings: FeatureSettings,
    usual: float,
    probability: np.ndarray,
    top: int,
    nothing_known: bool,
) -> list[list[str]]:
    """A baseline's reasons are the rates it repeats, where they convince; as `reasons_from_contributions`."""
    if nothing_known:
        return [[words.NOTHING_KNOWN][:top] for _ in range(len(frame))]
    if baseline.name == LOGISTIC:
        keys = [str(rate["name"]).removeprefix("rate_per_") for rate in baseline.numbers["rates"]]
    elif baseline.name.startswith(REPEAT):
        keys = [baseline.name.removeprefix(REPEAT)]
    else:
        keys = [key for key in RATE_KEYS if baseline.name == f"rate_per_{key}"]
    features = {f.name: f for f in history_features_for(settings)}
    by_subject = []
    for key in keys:
        proofs = tuple(_history_proofs(frame, key, features, usual))
        if proofs:
            push = distance(proofs[0].known, proofs[0].acted, usual)
            by_subject.append(Claim(("history", key), push, proofs))
    return _in_words(convincing(by_subject, usual, probability, top), probability, usual, top)


def _in_words(chosen: list[list[Reason]], probability: np.ndarray, usual: float, top: int) -> list[list[str]]:
    return [
        [reason.text for reason in each] or [words.no_single_fact(chance, usual)][:top]
        for each, chance in zip(chosen, probability.tolist(), strict=True)
    ]
