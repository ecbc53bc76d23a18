"""Why an alert got its score, in words a triager understands.

Belongs here: grouping exact contributions by the fact they come from, and saying each fact in plain words
with its numbers.
Does not belong here: computing contributions or probabilities (`learning/model.py`).

A reason states a fact, not a coefficient: "this rule led to action in 2 of its last 41 alerts". A fact whose
direction does not show from its words says so: "raised on a Sunday at 03:10 UTC (lowers the score)".
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.contenders import REPEAT
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.keys import EVERYTHING, KEY_SEPARATOR
from dagster_project.triage.features.matrix import HISTORY_SOURCES, Column, ColumnPlan
from dagster_project.triage.learning.baselines import LOGISTIC, RATE_KEYS, Baseline

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Text from an alert is quoted up to this length: a reason is one line.
QUOTE = 60

NOTHING_KNOWN = "nothing is known yet about alerts like this one"


def reasons_from_contributions(
    frame: pd.DataFrame, plan: ColumnPlan, contributions: np.ndarray, settings: FeatureSettings, top: int = 3
) -> list[list[str]]:
    """The `top` facts that moved each score most, strongest first.

    Parameters
    ----------
    frame : the scored alerts with their history columns.
    contributions : float64 [alerts, columns of `plan`], additive on the log-odds scale (exact Shapley
    values).

    Columns of one fact (all windows of a rule's outcomes, say) are added up before they are ranked; the
    window with the strongest contribution lends its numbers. Where a combination has the same history as one of
    its parts (a rule that only one team answers), both are one fact, and the reason names the part. A fact that did
    not move the score is no reason, so there may be fewer than `top`.
    """
    facts = [_fact(column, settings) for column in plan.columns]
    names = sorted(set(facts))
    place = {name: i for i, name in enumerate(names)}
    member = np.zeros((len(facts), len(names)))
    member[np.arange(len(facts)), [place[f] for f in facts]] = 1.0
    grouped = contributions @ member
    for (kind, combination), (_, part), rows in _same_history(frame, names, settings):
        grouped[rows, place[kind, part]] += grouped[rows, place[kind, combination]]
        grouped[rows, place[kind, combination]] = 0.0
    order = np.argsort(-np.abs(grouped), axis=1, kind="stable")[:, : top + 2]
    # Lists of Python numbers are faster here: sentences are made alert by alert.
    pushes = np.take_along_axis(grouped, order, axis=1).tolist()
    strongest = []
    for name in names:
        columns = np.flatnonzero(member[:, place[name]])
        strongest.append(columns[np.abs(contributions[:, columns]).argmax(axis=1)].tolist())
    teller = _Teller(frame, plan, settings)
    reasons: list[list[str]] = []
    for row, best in enumerate(order.tolist()):
        sentences: list[str] = []
        for g, push in zip(best, pushes[row], strict=True):
            if len(sentences) == top or abs(push) < 1e-6:
                break
            text = teller.say(row, names[g], strongest[g][row], push)
            if text and text not in sentences:
                sentences.append(text)
        reasons.append(sentences)
    return reasons


def reasons_from_baseline(
    baseline: Baseline, frame: pd.DataFrame, settings: FeatureSettings, top: int, nothing_known: bool
) -> list[list[str]]:
    """A baseline's reasons are the rates it repeats, in the longest window."""
    if nothing_known:
        return [[NOTHING_KNOWN][:top] for _ in range(len(frame))]
    if baseline.name == LOGISTIC:
        keys = [str(rate["name"]).removeprefix("rate_per_") for rate in baseline.numbers["rates"]]
    elif baseline.name.startswith(REPEAT):
        keys = [baseline.name.removeprefix(REPEAT)]
    else:
        keys = [key for key in RATE_KEYS if baseline.name == f"rate_per_{key}"]
    if not keys:
        rate = float(baseline.predict(frame.iloc[:1])[0]) if len(frame) else 0.0
        return [[f"{rate:.0%} of all past alerts led to action"][:top] for _ in range(len(frame))]
    window = max(settings.outcome_windows)
    names = {(f.key, f.statistic): f.name for f in history_features_for(settings) if f.window == window}
    reasons: list[list[str]] = [[] for _ in range(len(frame))]
    for key in keys[:top]:
        known = frame[names[key, "known_count"]].to_numpy(dtype=np.float64, na_value=0.0)
        acted = frame[names[key, "acted_count"]].to_numpy(dtype=np.float64, na_value=0.0)
        for row in range(len(frame)):
            reasons[row].append(rate_reason(key, known[row], acted[row], window))
    return reasons


def rate_reason(key: str, known: float, acted: float, window: timedelta | None) -> str:
    """How often alerts of one key led to action, as a sentence."""
    subject, own = _subject(key), "their" if key == EVERYTHING else "its"
    span = f" of the last {_days(window)}" if window is not None else ""
    if not known > 0:
        return f"no outcome of {subject}{span} is known yet"
    if known == 1:
        return f"the only known outcome of {subject}{span} was {'action' if acted > 0 else 'no action'}"
    return f"{subject} led to action in {acted:.0f} of {own} {known:.0f} known outcomes{span}"


def _fact(column: Column, settings: FeatureSettings) -> tuple[str, str]:
    """(kind of fact, its key) of a column."""
    if column.source in HISTORY_SOURCES:
        name = column.of[-1]
        feature = {f.name: f for f in history_features_for(settings)}[name]
        volume = feature.statistic in ("raised_count", "seconds_since_raised")
        kind = "volume" if volume else "outcomes"
        return kind, feature.key
    if column.source == "raise":
        name = column.of[0]
        if name in ("value", "threshold", "value_over_threshold"):
            return "value", "value"
        return {"hour": ("time", "time"), "weekday": ("time", "time")}.get(name, (name, name))
    return ("attribute", column.of[0]) if column.of[0].startswith("@") else ("identity", column.of[0])


def _same_history(
    frame: pd.DataFrame, facts: list[tuple[str, str]], settings: FeatureSettings
) -> Iterator[tuple[tuple[str, str], tuple[str, str], np.ndarray]]:
    """(fact of a combination, fact of its part, mask of rows) where both counted the same alerts.

    A combination's alerts are some of its part's: with as many in the longest window, they are the same ones.
    """
    window = max(settings.raised_windows, default=None)
    names = {
        f.key: f.name for f in history_features_for(settings) if f.statistic == "raised_count" and f.window == window
    }
    for kind, key in facts:
        for part in key.split(KEY_SEPARATOR) if KEY_SEPARATOR in key and key in names else ():
            if part in names and (kind, part) in facts:
                both = frame[[names[key], names[part]]].to_numpy(dtype=np.float64, na_value=np.nan)
                yield (kind, key), (kind, part), both[:, 0] == both[:, 1]


class _Teller:
    """Says facts about the rows of one frame."""

    def __init__(self, frame: pd.DataFrame, plan: ColumnPlan, settings: FeatureSettings) -> None:
        self.frame = frame
        self.plan = plan
        self.features = {f.name: f for f in history_features_for(settings)}
        self.longest = max(settings.outcome_windows, default=None)
        self.by_meaning = {(f.key, f.statistic, f.window): f.name for f in self.features.values()}
        self.numbers: dict[str, list[float]] = {}
        self.cells: dict[str, list[object]] = {}
        from dagster_project.triage.features.attributes import attribute_columns

        wanted = sorted({c.of[0][1:] for c in plan.columns if c.of[0].startswith("@")})
        self.attributes = attribute_columns(frame["attributes"], wanted) if wanted and "attributes" in frame else {}

    def number(self, name: str, row: int) -> float:
        """One cell of the frame as a float, nan when missing."""
        if name not in self.numbers:
            self.numbers[name] = self.frame[name].to_numpy(dtype=np.float64, na_value=np.nan).tolist()
        return self.numbers[name][row]

    def say(self, row: int, fact: tuple[str, str], strongest: int, push: float) -> str:
        """The sentence for one fact of one row; `strongest` is that of its columns with the largest contribution."""
        kind, key = fact
        direction = " (raises the score)" if push > 0 else " (lowers the score)"
        if kind == "outcomes":
            return self._outcomes(row, key, strongest, direction)
        if kind == "volume":
            return self._volume(row, key, strongest) + direction
        if kind == "time":
            at: datetime = self._cell("raised_at", row)  # type: ignore[assignment]
            return f"raised on a {WEEKDAYS[at.weekday()]} at {at.hour:02d}:{at.minute:02d} UTC{direction}"
        if kind == "value":
            return self._value(row) + direction
        if kind == "severity_level" or (kind, key) == ("identity", "severity"):
            return f"severity is {self._text('severity', row)}{direction}"
        if kind == "title_length":
            return f"how long the title is{direction}"
        if kind == "attribute":
            value = self.attributes.get(key[1:], np.full(len(self.frame), None, dtype=object))[row]
            shown = "not given" if value is None else _quoted(value)
            return f"{key[1:]} is {shown}{direction}"
        return f"the {key} is {self._text(key, row)}{direction}"

    def _pace(self, row: int, column: Column) -> str:
        """What a signal of volume compares."""
        numbers = [self.number(name, row) for name in column.of]
        windows = [self.features[name].window for name in column.of]
        subject = _subject(self.features[column.of[0]].key)
        if column.source == "echo":
            lag = (windows[0] + windows[1]) / 2  # type: ignore[operator]
            ago = "one day" if lag == timedelta(days=1) else _days(lag)
            count = _times(numbers[0] - numbers[1])
            return f"{subject} raised alerts {count} around the same hour {ago} before"
        longer = f"{subject} raised alerts {_times(numbers[1])} in the {_days(windows[1])} before"
        return f"{longer} and {_times(numbers[0])} in the {_days(windows[0])} before"

    def _outcomes(self, row: int, key: str, strongest: int, direction: str) -> str:
        feature = self.features[self.plan.columns[strongest].of[-1]]
        windows: list[timedelta | None] = [feature.window] if feature.window is not None else []
        windows += [w for (k, s, w) in self.by_meaning if k == key and s == "known_count" and w not in windows]
        if feature.statistic == "last_outcome":
            last = self.number(feature.name, row)
            if not np.isnan(last):
                return f"the last known outcome of {_any(key)} was {'action' if last > 0.5 else 'no action'}"
        if feature.statistic == "seconds_since_acted":
            seconds = self.number(feature.name, row)
            if not np.isnan(seconds):
                return f"somebody last acted on {_any(key)} {_ago(seconds)} before{direction}"
        for window in windows:
            known = self.number(self.by_meaning[key, "known_count", window], row)
            acted = self.number(self.by_meaning[key, "acted_count", window], row)
            if known > 0:
                share = acted / known
                contradicts = (share >= 0.5) != (direction == " (raises the score)")
                return rate_reason(key, known, acted, window) + (direction if contradicts else "")
        return f"no outcome of {_subject(key)} is known yet{direction}"

    def _volume(self, row: int, key: str, strongest: int) -> str:
        column = self.plan.columns[strongest]
        if column.source in ("burst", "rate_change", "echo") and not np.isnan(self.number(column.of[0], row)):
            return self._pace(row, column)
        # A gap is made from the seconds since the previous alert, and from how many there were.
        feature = self.features[column.of[0] if column.source == "gap" else column.of[-1]]
        value = self.number(feature.name, row)
        if feature.statistic == "seconds_since_raised":
            if np.isnan(value):
                return f"the first alert of {_any(key)}"
            return f"the previous alert of {_any(key)} was {_ago(value)} before"
        if np.isnan(value):
            return f"nothing counts for {_subject(key)}: it is not given"
        times = _times(value)
        if key == EVERYTHING:
            return f"alerts of any rule were raised {times} in the {_days(feature.window)} before"
        return f"{_subject(key)} raised alerts {times} in the {_days(feature.window)} before"

    def _value(self, row: int) -> str:
        value = self.number("value", row) if "value" in self.frame else np.nan
        threshold = self.number("threshold", row) if "threshold" in self.frame else np.nan
        if np.isnan(value):
            return "no value is given"
        if np.isnan(threshold) or threshold == 0:
            return f"the value is {value:.4g}"
        return f"the value {value:.4g} is {value / threshold:.3g} times the threshold {threshold:.4g}"

    def _text(self, column: str, row: int) -> str:
        value = self._cell(column, row) if column in self.frame else None
        return "not given" if value is None or value is pd.NA or value != value else _quoted(value)

    def _cell(self, column: str, row: int) -> object:
        if column not in self.cells:
            self.cells[column] = self.frame[column].astype(object).tolist()
        return self.cells[column][row]


def _times(count: float) -> str:
    return {0: "no other time", 1: "once"}.get(int(count), f"{count:.0f} times")


def _any(key: str) -> str:
    """The subject where one alert of it is meant."""
    return "any rule" if key == EVERYTHING else _subject(key)


def _subject(key: str) -> str:
    if key == EVERYTHING:
        return "all alerts together"
    return " with this ".join(f"this {p}" if i == 0 else p for i, p in enumerate(key.split(KEY_SEPARATOR)))


def _quoted(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = " ".join(str(value).split())
    return f'"{text if len(text) <= QUOTE else text[: QUOTE - 1] + "…"}"'


def _days(window: timedelta | None) -> str:
    if window is None:
        return "time"
    hours = window.total_seconds() / 3600
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    if hours <= 48 and hours != 24:
        return "hour" if hours == 1 else f"{hours:.0f} hours"
    return "day" if hours == 24 else f"{hours / 24:.0f} days"


def _ago(seconds: float) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            n = round(seconds / size)
            return f"{n} {word}{'s' if n != 1 else ''}"
    return f"{seconds:.0f} second{'s' if round(seconds) != 1 else ''}"
