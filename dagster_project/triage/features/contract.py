"""What a model may know about an alert: the feature contract.

Belongs here: which history features are computed (keys, windows, half-lives, lookback), and the contract with its
hash that a model stores.
Does not belong here: computing history (`history/`), facts (`facts.py`), keys (`keys.py`), and the columns and codes
that one training settled on (`matrix.py`).

History features of an alert raised at t use alerts raised before t and outcomes known before t, both not older than
t - lookback. Attributes that a training proposes by itself (`attribute_keys`) are no part of the hash: their history is
added to the stored features where a model needs it (`build.with_attribute_history`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.triage.features.facts import RAISE_TIME_FEATURES
from dagster_project.triage.features.keys import COLUMNS, KEY_SEPARATOR

if TYPE_CHECKING:
    from dagster_project.triage.features.history import HistoryFeature

# Raise this when the meaning of a feature changes but its name does not: models trained before are refused.
MEANING = 1

# A judgement: what has most history is the whole of it, what changes shows within weeks, and each number costs memory.
ATTRIBUTE_WINDOW = timedelta(days=28)
ATTRIBUTE_HALF_LIVES = (timedelta(days=7), timedelta(days=90))


@dataclass(frozen=True)
class FeatureSettings:
    """Which history features every alert gets.

    keys : what to keep history about: `rule`, `entity`, `team`, `severity`, the name of an attribute, or
        several of them joined by "+" (history of the combination). An alert that lacks a part has no history
        under that key.
    raised_windows : windows over which earlier alerts are counted.
    outcome_windows : windows over which known and acted outcomes are counted.
    half_lives : of the decayed share acted.
    lookback : nothing older than this is used; at least as long as every window.
    lifelong : also count known and acted outcomes over the whole lookback.
    attribute_keys : keys with a short history of their own (`ATTRIBUTE_WINDOW` and the lookback), proposed from the
        alerts of a training (`learning/mixture/facts.py`).
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
    half_lives: tuple[timedelta, ...] = (
        timedelta(days=1),
        timedelta(days=7),
        timedelta(days=28),
        timedelta(days=90),
        timedelta(days=365),
    )
    lookback: timedelta = timedelta(days=3650)
    lifelong: bool = True
    attribute_keys: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if "rule" not in self.keys:
            object.__setattr__(self, "keys", ("rule", *self.keys))
        object.__setattr__(self, "attribute_keys", tuple(k for k in self.attribute_keys if k not in self.keys))
        if len(set(self.keys)) != len(self.keys):
            raise HeedError(f"a history key is named twice in {list(self.keys)}", "name each history key once")
        for key in self.keys:
            if not all(part.strip() for part in key.split(KEY_SEPARATOR)):
                raise HeedError(f"the history key {key!r} has an empty part", 'write it like "rule+entity"')
        for span in (*self.raised_windows, *self.outcome_windows, *self.half_lives, self.lookback):
            if span <= timedelta(0):
                raise HeedError("a window, half-life or lookback is not positive", "give it a length above zero")
        longest = max((*self.raised_windows, *self.outcome_windows), default=timedelta(0))
        if longest > self.lookback:
            raise HeedError(
                f"the longest window ({longest}) reaches further back than the lookback ({self.lookback})",
                "raise the lookback or shorten the window",
            )


def history_features_for(settings: FeatureSettings) -> list[HistoryFeature]:
    """The history features of `settings`, in the order of their columns.

    Per key: alerts raised, outcomes known and outcomes acted in each window; the last known outcome; seconds since the
    previous alert and since the last known act; the decayed share acted for each half-life. An attribute key has fewer:
    outcomes known and acted over `ATTRIBUTE_WINDOW` and the lookback, alerts raised over that window, the last outcome,
    and `ATTRIBUTE_HALF_LIVES`.

    >>> settings = FeatureSettings(keys=("rule",))
    >>> [feature.name for feature in history_features_for(settings)][:3]
    ['rule_raised_count_1h', 'rule_raised_count_1d', 'rule_raised_count_7d']
    """
    from dagster_project.triage.features.history import HistoryFeature

    features = []
    for key in settings.keys:
        features += [HistoryFeature(key, "raised_count", window=w) for w in settings.raised_windows]
        for w in settings.outcome_windows:
            features.append(HistoryFeature(key, "known_count", window=w))
            features.append(HistoryFeature(key, "acted_count", window=w))
        if settings.lifelong:
            features += [HistoryFeature(key, "known_count"), HistoryFeature(key, "acted_count")]
        features.append(HistoryFeature(key, "last_outcome"))
        features.append(HistoryFeature(key, "seconds_since_raised"))
        features.append(HistoryFeature(key, "seconds_since_acted"))
        features += [HistoryFeature(key, "decayed_acted_rate", half_life=h) for h in settings.half_lives]
    return [*features, *attribute_history_features(settings)]


def attribute_history_features(settings: FeatureSettings) -> list[HistoryFeature]:
    """The history features of the attribute keys alone, as `history_features_for` lists them last."""
    from dagster_project.triage.features.history import HistoryFeature

    features = []
    for key in settings.attribute_keys:
        features.append(HistoryFeature(key, "raised_count", window=ATTRIBUTE_WINDOW))
        for window in (ATTRIBUTE_WINDOW, None):
            features.append(HistoryFeature(key, "known_count", window=window))
            features.append(HistoryFeature(key, "acted_count", window=window))
        features.append(HistoryFeature(key, "last_outcome"))
        features += [HistoryFeature(key, "decayed_acted_rate", half_life=h) for h in ATTRIBUTE_HALF_LIVES]
    return features


def histories_about(sources: Sequence[str], settings: FeatureSettings) -> set[str]:
    """The history columns whose key contains one of `sources`: columns, or attributes written "@name"."""
    names = {source.removeprefix("@") if source[1:] not in COLUMNS else source for source in sources}
    return {f.name for f in history_features_for(settings) if names & set(f.key.split(KEY_SEPARATOR))}


def contract(settings: FeatureSettings) -> dict[str, Any]:
    """What a model was trained with and scoring must repeat: JSON-able, equal for equal settings.

    `hash` (16 hex digits) covers everything else in it but `attribute_keys`, which each model brings with it. It does
    not depend on the process, the machine or the order of a dictionary.
    """
    stored = replace(settings, attribute_keys=())
    content: dict[str, Any] = {
        "meaning": MEANING,
        "settings": {name: _plain(value) for name, value in asdict(stored).items() if name != "attribute_keys"},
        "history": [feature.name for feature in history_features_for(stored)],
        "raise_time": list(RAISE_TIME_FEATURES),
    }
    if not settings.lifelong:  # as it was written before there was a choice: stored models stay valid
        del content["settings"]["lifelong"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    own = {"attribute_keys": list(settings.attribute_keys)} if settings.attribute_keys else {}
    return {**content, **own, "hash": hashlib.sha256(text.encode()).hexdigest()[:16]}


def settings_from_contract(document: Any) -> FeatureSettings:
    """The settings that `contract` described; `HeedError` when the document is not a contract."""
    try:
        raw = dict(document["settings"])
        return FeatureSettings(
            keys=tuple(str(k) for k in raw["keys"]),
            raised_windows=_spans(raw["raised_windows"]),
            outcome_windows=_spans(raw["outcome_windows"]),
            half_lives=_spans(raw["half_lives"]),
            lookback=timedelta(seconds=float(raw["lookback"])),
            lifelong=bool(raw.get("lifelong", False)),
            attribute_keys=tuple(str(k) for k in document.get("attribute_keys", ())),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise HeedError(f"the stored feature contract is malformed ({error!r})", "train again") from error


def require_same_contract(model: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise `HeedError`, which names what differs, unless the model was trained with the same features."""
    if model.get("hash") == now.get("hash"):
        return
    differing = sorted(k for k in {*model, *now} - {"hash"} if model.get(k) != now.get(k))
    missing = sorted(set(model.get("history", [])) - set(now.get("history", [])))
    more = sorted(set(now.get("history", [])) - set(model.get("history", [])))
    detail = f"; the model also needs {', '.join(missing[:3])}" if missing else ""
    detail += f"; it does not know {', '.join(more[:3])}" if more else ""
    raise HeedError(
        "the model was trained with other features than today's "
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
