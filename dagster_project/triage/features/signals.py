"""Signals: how a key's present differs from its own past.

Belongs here: bursts, gaps, evidence for a change, trends and daily or weekly repetition, as functions of the history
features of one alert.
Does not belong here: computing the history (`history/`), and whether a signal helps (`learning/training.py`: candidates
with signals compete with those without).

Every signal is a function of history features, so it uses events before `raised_at`, nothing else.
Trees could build each from its parts, but only with many splits: a ratio of two counts is a diagonal to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from dagster_project.triage.features.history.definition import echo_windows, span_name

if TYPE_CHECKING:
    from dagster_project.triage.features.contract import FeatureSettings

# The keys that get signals. A judgement: a team or a combination would cost as many columns each, and so far these
# have not paid (benchmarks/learning.md).
SIGNAL_KEYS = ("rule", "entity")


@dataclass(frozen=True)
class Signal:
    """One signal.

    name : of its column.
    kind : one of `KINDS`.
    of : the history features it is computed from, in the order its function takes them.
    spans : seconds, as its function takes them.
    """

    name: str
    kind: str
    of: tuple[str, ...]
    spans: tuple[float, ...] = ()


def signals_for(settings: FeatureSettings) -> list[Signal]:
    """The signals that the history features of `settings` allow.

    Per key of `SIGNAL_KEYS`: a burst for each two consecutive raised windows; the shape of the gap against
    the pace of the second shortest window of a day or more; evidence that the rate, and that the share acted, changed
    between a window and the time before it in the next longer one; the trend from the longest half-life to the
    shortest. For the rule: the echo of each lag.
    """
    from dagster_project.triage.features.contract import history_features_for

    names: dict[tuple[str, str, timedelta | None], str] = {
        (f.key, f.statistic, f.window or f.half_life): f.name for f in history_features_for(settings)
    }
    signals = [s for key in SIGNAL_KEYS if key in settings.keys for s in _of_key(key, settings, names)]
    longest = max(settings.raised_windows, default=timedelta(0))
    for lag in (lag for lag in settings.echo_lags if lag < longest):
        windows = (*echo_windows(lag, settings.echo_width), longest)
        spans = (settings.echo_width.total_seconds(), longest.total_seconds())
        parts = tuple(names["rule", "raised_count", w] for w in windows)
        signals.append(Signal(f"rule_echo_{span_name(lag)}", "echo", parts, spans))
    return signals


def _of_key(
    key: str, settings: FeatureSettings, names: dict[tuple[str, str, timedelta | None], str]
) -> Iterator[Signal]:
    raised, known = sorted(settings.raised_windows), sorted(settings.outcome_windows)
    for short, long in pairwise(raised):
        parts = (names[key, "raised_count", long], names[key, "raised_count", short])
        spans, label = (short.total_seconds(), long.total_seconds()), f"{span_name(short)}_{span_name(long)}"
        yield Signal(f"{key}_burst_{label}", "burst", parts, spans)
        if short >= timedelta(days=1):
            yield Signal(f"{key}_rate_change_{label}", "rate_change", parts, spans)
    for window in [w for w in raised if w >= timedelta(days=1)][1:2]:
        parts = (names[key, "seconds_since_raised", None], names[key, "raised_count", window])
        yield Signal(f"{key}_gap_{span_name(window)}", "gap", parts, (window.total_seconds(),))
    for short, long in pairwise(known):
        outcomes = tuple(names[key, s, w] for w in (long, short) for s in ("acted_count", "known_count"))
        yield Signal(f"{key}_share_change_{span_name(short)}_{span_name(long)}", "share_change", outcomes)
    if len(settings.half_lives) > 1:
        slow, fast = max(settings.half_lives), min(settings.half_lives)
        parts = (names[key, "decayed_acted_rate", slow], names[key, "decayed_acted_rate", fast])
        yield Signal(f"{key}_trend_hl{span_name(fast)}_hl{span_name(slow)}", "trend", parts)


def compute(kind: str, columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """A signal of every alert: float64, nan where a part is missing.

    columns : float64, one per name in `Signal.of`. spans : `Signal.spans`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return KINDS[kind](columns, spans)


def _burst(columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """log2 of the count in the short window over what the long one leads to expect, each with one alert more."""
    long, short = columns
    return np.log2((short + 1) / (long * (spans[0] / spans[1]) + 1))


def _gap(columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """log2 of the seconds since the previous alert over the mean gap of the window."""
    since, count = columns
    return np.log2((since + 1) * (count + 1) / spans[0])


def _rate_change(columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """Evidence that the pace of the short window is not that of the rest of the long one.

    Signed root of the likelihood ratio of two Poisson rates against one (Wilks 1938): about standard normal without a
    change.
    """
    long, short = columns
    share = spans[0] / spans[1]
    return _signed_root(short, long, np.full_like(long, share))


def _share_change(columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """Evidence that the share acted of the short window is not that of the rest of the long one: as `_rate_change`,
    of two binomial shares against one. nan while either has no outcome."""
    acted_long, known_long, acted_short, known_short = columns
    acted_rest, known_rest = acted_long - acted_short, known_long - known_short
    pooled = acted_long / known_long
    ratio = 2 * (
        _binomial(acted_short, known_short, acted_short / known_short)
        + _binomial(acted_rest, known_rest, acted_rest / known_rest)
        - _binomial(acted_long, known_long, pooled)
    )
    sign = np.sign(acted_short / known_short - pooled)
    return np.where((known_short > 0) & (known_rest > 0), sign * np.sqrt(np.maximum(ratio, 0)), np.nan)


def _trend(columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """The share acted with the short half-life minus that with the long one."""
    slow, fast = columns
    return fast - slow


def _echo(columns: Sequence[np.ndarray], spans: Sequence[float]) -> np.ndarray:
    """log2 of the count around the time one lag ago over what the longest window leads to expect of such a span."""
    outer, inner, long = columns
    return np.log2((outer - inner + 1) / (long * (spans[0] / spans[1]) + 1))


KINDS: dict[str, Callable[[Sequence[np.ndarray], Sequence[float]], np.ndarray]] = {
    "burst": _burst,
    "gap": _gap,
    "rate_change": _rate_change,
    "share_change": _share_change,
    "trend": _trend,
    "echo": _echo,
}


def _signed_root(part: np.ndarray, total: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Signed root of the likelihood ratio of `part` of `total` being a draw with its own share against `share`."""
    own = part / total
    ratio = 2 * (_binomial(part, total, own) - _binomial(part, total, share))
    return np.where(total > 0, np.sign(own - share) * np.sqrt(np.maximum(ratio, 0)), np.where(total == 0, 0.0, np.nan))


def _binomial(k: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Log-likelihood of k in n, up to a constant; 0 log 0 is 0."""
    return np.where(k > 0, k * np.log(p), 0.0) + np.where(n - k > 0, (n - k) * np.log1p(-p), 0.0)
