"""What a model may know about an alert: the feature contract.

Belongs here: which history features are computed (keys, windows, half-lives, lookback), the facts that are
known at raise time, the values of history keys, and the contract with its hash that a model stores.
Does not belong here: computing history (`timeline.py`), and the columns and codes that one training settled
on (`matrix.py`).

All facts here are known at `raised_at`. History features of an alert raised at t use alerts raised before t
and outcomes known before t, both not older than t - lookback.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    from dagster_project.triage.timeline import HistoryFeature

# Raised whenever the meaning of a feature changes without a change of its name: models trained before are
# refused.
MEANING = 1

COLUMNS = ("rule", "entity", "team", "severity", "title")
# The history key that all alerts share: how busy everything is, and how much is acted upon at the moment.
EVERYTHING = "all"
KEY_SEPARATOR = "+"
# Alerts whose attributes are parsed together: their objects take about 100 MB.
PARSED_AT_ONCE = 50_000

# Words people use for urgency, from least to most. Numbers in names count the other way round: P1 and sev1
# are worst.
SEVERITY_LEVELS = {
    **dict.fromkeys(("debug", "trace", "none", "negligible", "unknown"), 0.0),
    **dict.fromkeys(("info", "information", "informational", "notice", "p5", "sev5", "s5"), 1.0),
    **dict.fromkeys(("low", "minor", "p4", "sev4", "s4"), 2.0),
    **dict.fromkeys(("medium", "moderate", "warn", "warning", "normal", "p3", "sev3", "s3"), 3.0),
    **dict.fromkeys(("high", "major", "error", "severe", "important", "p2", "sev2", "s2"), 4.0),
    **dict.fromkeys(
        (
            "critical",
            "crit",
            "fatal",
            "emergency",
            "emerg",
            "alert",
            "urgent",
            "disaster",
            "blocker",
            "p1",
            "sev1",
            "s1",
        ),
        5.0,
    ),
    **dict.fromkeys(("p0", "sev0", "s0"), 6.0),
}


@dataclass(frozen=True)
class FeatureSettings:
    """Which history features every alert gets.

    keys : what history is kept about: `rule`, `entity`, `team`, `severity`, the name of an attribute, or
        several of them joined by "+" (history of the combination). An alert that lacks a part has no history
        under that key.
    raised_windows : windows over which earlier alerts are counted.
    outcome_windows : windows over which known and acted outcomes are counted.
    half_lives : of the decayed share acted.
    echo_lags, echo_width : for the rule, alerts raised within half the width of the moment one lag ago are counted
        as well (a rule that fires every day at nine), as the difference of two windows. See `signals.py`.
    lookback : nothing older than this is used; at least as long as every window.
    """

    keys: tuple[str, ...] = ("all", "rule", "entity", "team", "rule+entity", "rule+team")
    raised_windows: tuple[timedelta, ...] = (
        timedelta(hours=1),
        timedelta(days=1),
        timedelta(days=7),
        timedelta(days=28),
        timedelta(days=90),
    )
    outcome_windows: tuple[timedelta, ...] = (
        timedelta(days=1),
        timedelta(days=7),
        timedelta(days=28),
        timedelta(days=90),
    )
    half_lives: tuple[timedelta, ...] = (timedelta(days=1), timedelta(days=7), timedelta(days=28))
    echo_lags: tuple[timedelta, ...] = (timedelta(days=1), timedelta(days=7))
    echo_width: timedelta = timedelta(hours=1)
    lookback: timedelta = timedelta(days=180)

    def __post_init__(self) -> None:
        if "rule" not in self.keys:
            object.__setattr__(self, "keys", ("rule", *self.keys))
        if len(set(self.keys)) != len(self.keys):
            raise HeedError(f"a history key is named twice in {list(self.keys)}", "name each history key once")
        for key in self.keys:
            if not all(part.strip() for part in key.split(KEY_SEPARATOR)):
                raise HeedError(f"the history key {key!r} has an empty part", 'write it like "rule+entity"')
        spans = (*self.raised_windows, *self.outcome_windows, *self.half_lives, *self.echo_lags, self.echo_width)
        for span in (*spans, self.lookback):
            if span <= timedelta(0):
                raise HeedError("a window, half-life or lookback is not positive", "give it a length above zero")
        if any(lag <= self.echo_width / 2 for lag in self.echo_lags):
            raise HeedError("an echo lag is not longer than half the echo width", "raise the lag or narrow the width")
        echoes = [lag + self.echo_width / 2 for lag in self.echo_lags]
        longest = max((*self.raised_windows, *self.outcome_windows, *echoes), default=timedelta(0))
        if longest > self.lookback:
            raise HeedError(
                f"the longest window ({longest}) reaches further back than the lookback ({self.lookback})",
                "raise the lookback or shorten the window",
            )


def history_features_for(settings: FeatureSettings) -> list[HistoryFeature]:
    """The history features of `settings`, in the order of their columns.

    Per key: alerts raised, outcomes known and outcomes acted in each window; the last known outcome; seconds
    since the previous alert and since the last known act; the decayed share acted for each half-life. Of the rule also
    the alerts raised in the two windows of each echo.
    """
    from dagster_project.triage.signals import echo_windows
    from dagster_project.triage.timeline import HistoryFeature

    made = []
    for key in settings.keys:
        made += [HistoryFeature(key, "raised_count", window=w) for w in settings.raised_windows]
        for w in settings.outcome_windows:
            made.append(HistoryFeature(key, "known_count", window=w))
            made.append(HistoryFeature(key, "acted_count", window=w))
        made.append(HistoryFeature(key, "last_outcome"))
        made.append(HistoryFeature(key, "seconds_since_raised"))
        made.append(HistoryFeature(key, "seconds_since_acted"))
        made += [HistoryFeature(key, "decayed_acted_rate", half_life=h) for h in settings.half_lives]
    windows = [w for lag in settings.echo_lags for w in echo_windows(lag, settings.echo_width)]
    made += [HistoryFeature("rule", "raised_count", window=w) for w in dict.fromkeys(windows)]
    return list(dict.fromkeys(made))


def histories_about(sources: Sequence[str], settings: FeatureSettings) -> set[str]:
    """The history columns whose key is made of one of `sources`: columns, or attributes written "@name"."""
    names = {source.removeprefix("@") if source[1:] not in COLUMNS else source for source in sources}
    return {f.name for f in history_features_for(settings) if names & set(f.key.split(KEY_SEPARATOR))}


def contract(settings: FeatureSettings) -> dict[str, Any]:
    """What a model was taught with and scoring must repeat: JSON-able, equal for equal settings.

    `hash` (16 hex digits) covers everything else in it. It does not depend on the process, the machine or the
    order of a dictionary.
    """
    content: dict[str, Any] = {
        "meaning": MEANING,
        "settings": {name: _plain(value) for name, value in asdict(settings).items()},
        "history": [feature.name for feature in history_features_for(settings)],
        "raise_time": list(RAISE_TIME_FEATURES),
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return {**content, "hash": hashlib.sha256(text.encode()).hexdigest()[:16]}


def settings_from_contract(document: Any) -> FeatureSettings:
    """The settings that `contract` described; `HeedError` when the document is not a contract."""
    try:
        raw = dict(document["settings"])
        return FeatureSettings(
            keys=tuple(str(k) for k in raw["keys"]),
            raised_windows=_spans(raw["raised_windows"]),
            outcome_windows=_spans(raw["outcome_windows"]),
            half_lives=_spans(raw["half_lives"]),
            echo_lags=_spans(raw["echo_lags"]),
            echo_width=timedelta(seconds=float(raw["echo_width"])),
            lookback=timedelta(seconds=float(raw["lookback"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HeedError(f"the stored feature contract is malformed ({error!r})", "train again") from error


def require_same_contract(model: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to score with features other than those the model was taught with.

    Raises `HeedError` that names what differs.
    """
    if model.get("hash") == now.get("hash"):
        return
    differing = sorted(k for k in {*model, *now} - {"hash"} if model.get(k) != now.get(k))
    missing = sorted(set(model.get("history", [])) - set(now.get("history", [])))
    more = sorted(set(now.get("history", [])) - set(model.get("history", [])))
    detail = f"; the model also needs {', '.join(missing[:3])}" if missing else ""
    detail += f"; it does not know {', '.join(more[:3])}" if more else ""
    raise HeedError(
        "the model was taught with other features than today's "
        f"(differs in: {', '.join(differing) or 'its hash'}{detail})",
        "train again with the present settings, or restore the settings the model was trained with",
    )


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value


def _spans(seconds: Iterable[Any]) -> tuple[timedelta, ...]:
    return tuple(timedelta(seconds=float(s)) for s in seconds)


RAISE_TIME_FEATURES = (
    "value",
    "threshold",
    "value_over_threshold",
    "severity_level",
    "hour",
    "weekday",
    "title_length",
)


def raise_time_features(alerts: pd.DataFrame) -> pd.DataFrame:
    """Facts known at the moment of raising: float64 columns `RAISE_TIME_FEATURES`, nan where not known.

    value, threshold : arcsinh of the column, so that one enormous value does not own the scale.
    value_over_threshold : arcsinh((value - threshold) / |threshold|): signed excess in thresholds; nan at
    threshold 0.
    severity_level : 0 (debug) to 6 (P0) for words of `SEVERITY_LEVELS`, case and blanks ignored.
    hour : hour of day in UTC with its fraction. weekday : 0 is Monday.
    title_length : characters of the title.

    `alerts` needs `raised_at` (datetime, UTC); every other column may be absent.
    """
    n = len(alerts)

    def number(name: str) -> np.ndarray:
        if name not in alerts:
            return np.full(n, np.nan)
        values = pd.to_numeric(alerts[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(values), values, np.nan)

    value, threshold = number("value"), number("threshold")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        excess = np.where(threshold != 0, (value - threshold) / np.abs(threshold), np.nan)
    raised = alerts["raised_at"].dt
    columns = {
        "value": np.arcsinh(value),
        "threshold": np.arcsinh(threshold),
        "value_over_threshold": np.where(np.isfinite(excess), np.arcsinh(excess), np.nan),
        "severity_level": _severity_level(alerts["severity"]) if "severity" in alerts else np.full(n, np.nan),
        "hour": (raised.hour + raised.minute / 60.0).to_numpy(dtype=np.float64),
        "weekday": raised.weekday.to_numpy(dtype=np.float64),
        "title_length": _length(alerts["title"]) if "title" in alerts else np.full(n, np.nan),
    }
    return pd.DataFrame(columns, index=alerts.index)[list(RAISE_TIME_FEATURES)]


def _severity_level(severity: pd.Series) -> np.ndarray:
    codes, words = pd.factorize(severity)
    level = [SEVERITY_LEVELS.get(str(w).strip().lower().replace("-", "").replace(" ", ""), np.nan) for w in words]
    return np.asarray([*level, np.nan], dtype=np.float64)[codes]


def _length(text: pd.Series) -> np.ndarray:
    codes, words = pd.factorize(text)
    return np.asarray([*(float(len(str(w))) for w in words), np.nan], dtype=np.float64)[codes]


def attribute_columns(attributes: pd.Series, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Attributes as object arrays: a str, float, or None each.

    Parameters
    ----------
    attributes : JSON object text, a dict, or null per alert. What is not a JSON object counts as no
    attributes.
    names : attributes wanted; None takes every name that occurs. A wanted name that never occurs is all None.

    Booleans become 1.0 and 0.0. Nested values become their JSON text. Empty text counts as missing.
    """
    columns: dict[str, np.ndarray] = {}
    # Parsed a part at a time, and equal values kept once: all objects of a million alerts at once take gigabytes.
    kept: dict[str | float, str | float] = {}
    for first in range(0, len(attributes), PARSED_AT_ONCE):
        part = attributes.iloc[first : first + PARSED_AT_ONCE].astype(object).to_numpy()
        # The same text recurs often in fan-outs and never in id-rich exports: parse each distinct text once.
        codes, texts = pd.factorize(np.array([_text(value) for value in part], dtype=object))
        parsed = [_object(text) for text in texts]
        for name in names if names is not None else {key for entry in parsed for key in entry}:
            if name not in columns:
                columns[name] = np.full(len(attributes), None, dtype=object)
            values = [_scalar(entry.get(name), kept) for entry in parsed]
            # The last one is that of no text.
            columns[name][first : first + len(part)] = np.array([*values, None], dtype=object)[codes]
    wanted = names if names is not None else sorted(columns)
    return {name: columns.get(name, np.full(len(attributes), None, dtype=object)) for name in wanted}


def _text(value: Any) -> str | None:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    return value if isinstance(value, str) else None


def _object(text: str) -> dict[str, Any]:
    try:
        made = json.loads(text)
    except ValueError:
        return {}
    return made if isinstance(made, dict) else {}


def _scalar(value: Any, kept: dict[str | float, str | float]) -> str | float | None:
    if isinstance(value, str):
        return kept.setdefault(value, value) if value else None
    if value is None:
        return None
    if isinstance(value, (bool, int, float)):
        if not abs(value) < 1e300:  # nan as well
            return None
        number = float(value)
        # Zero has two signs, which are equal and are written differently.
        return kept.setdefault(number, number) if number else number
    text = json.dumps(value, sort_keys=True)
    return kept.setdefault(text, text)


def key_values(alerts: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The value of each history key per alert: one categorical column per key (text, or missing), for the timeline.

    A name that is a column of the contract is that column; any other is an attribute. A combination is the
    JSON list of its parts, so that no two combinations are confused; it is missing when a part is missing.
    """
    coded = _coded_parts(alerts, keys)
    made = {key: _joined([coded[name] for name in key.split(KEY_SEPARATOR)]) for key in keys}
    columns = {key: pd.Categorical.from_codes(codes, pd.Index(words)) for key, (codes, words) in made.items()}
    return pd.DataFrame(columns, index=alerts.index)


def key_codes(alerts: pd.DataFrame, keys: Sequence[str], wanted: np.ndarray) -> pd.DataFrame:
    """As `key_values`, with numbers for the values that the `wanted` alerts (bool) have, and all others missing.

    No history of a wanted alert looks at another value: what nobody asks for needs neither a text nor a group.
    """
    coded = _coded_parts(alerts, keys)
    columns = {}
    for key in keys:
        parts = [coded[name] for name in key.split(KEY_SEPARATOR)]
        joint = parts[0][0]
        for codes, words in parts[1:]:
            joint = joint * (len(words) + 1) + codes
            if len(parts) > 2:  # the product of all numbers of values may be more than int64 holds
                joint = pd.factorize(joint)[0].astype(np.int64)
        for codes, _ in parts if len(parts) > 1 else ():
            joint[codes < 0] = -1
        asked = pd.unique(joint[wanted & (joint >= 0)])
        columns[key] = pd.Categorical.from_codes(pd.Index(asked).get_indexer(joint), pd.RangeIndex(len(asked)))
    return pd.DataFrame(columns, index=alerts.index)


def _coded_parts(alerts: pd.DataFrame, keys: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each part of the keys the codes (int64, -1: missing) and the values that they stand for."""
    parts = {part for key in keys for part in key.split(KEY_SEPARATOR)}
    none = np.full(len(alerts), -1, dtype=np.int64)
    coded: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    coded[EVERYTHING] = none + 1, np.array([EVERYTHING], dtype=object)
    for part in sorted(parts & set(COLUMNS)):
        coded[part] = _coded(alerts[part]) if part in alerts else (none, np.empty(0, dtype=object))
    others = sorted(parts - {*COLUMNS, EVERYTHING})
    if others:
        texts = alerts["attributes"] if "attributes" in alerts else pd.Series([None] * len(alerts), dtype=object)
        for name, values in attribute_columns(texts, others).items():
            words = np.array([v if v is None or isinstance(v, str) else repr(v) for v in values], dtype=object)
            coded[name] = _coded(pd.Series(words, dtype=object))
    return coded


def _coded(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """Codes (int64, -1: missing) and the values that they stand for."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        return column.cat.codes.to_numpy(dtype=np.int64), column.cat.categories.to_numpy(dtype=object)
    codes, values = pd.factorize(column)
    return codes.astype(np.int64), np.asarray(values, dtype=object)


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The combination of coded columns as one."""
    if len(parts) == 1:
        return parts[0]
    missing = np.any([codes < 0 for codes, _ in parts], axis=0)
    joint = parts[0][0]
    for codes, words in parts[1:]:
        joint = pd.factorize(joint * (len(words) + 1) + np.maximum(codes, 0))[0].astype(np.int64)
    joint = pd.factorize(np.where(missing, np.nan, joint))[0].astype(np.int64)
    numbers, first = np.unique(joint, return_index=True)
    rows = first[numbers >= 0]
    # As json.dumps writes a list; each part's text is written once.
    texts = [[json.dumps(str(word), ensure_ascii=False) for word in words] for _, words in parts]
    chosen = [[text[code] for code in codes[rows]] for (codes, _), text in zip(parts, texts, strict=True)]
    return joint, np.array([f"[{', '.join(words)}]" for words in zip(*chosen, strict=True)], dtype=object)
