"""Claims in words: one line each, with its counts, its share and the usual one.

Belongs here: phrases, and numbers and spans inside them.
Does not belong here: which claims are made (`subjects.py`, `claims.py`).

Every sentence ends in the share of alerts like this one and the usual share, or in the usual share alone where nobody
or everybody acted. So a reader sees which way it points, and can check it.
"""

from __future__ import annotations

from datetime import timedelta

from dagster_project.triage.features.keys import EVERYTHING, KEY_SEPARATOR

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

# Text from an alert is quoted up to this length: a reason is one line.
QUOTE = 60

NOTHING_KNOWN = "nothing is known yet about alerts like this one"

# Up to here people count: the 12th alert of an hour.
MOST_ORDINAL = 20


def outcomes(known: float, acted: float, of: str, usual: float, span: str = "") -> str:
    """ "people acted on 9 of the 12 alerts of this rule decided in the 7 days before, 75% (usual here: 23%)".

    of : which alerts, behind "alerts"; span : when they were decided.
    """
    n, k = f"{known:,.0f}", f"{acted:,.0f}"
    which = f"alerts{of}{span}"
    if acted <= 0:
        return f"nobody acted on any of the {n} {which} (usual here: {share(usual)})"
    if acted >= known:
        return f"people acted on all {n} {which} (usual here: {share(usual)})"
    return f"people acted on {k} of the {n} {which}, {share(acted / known)} (usual here: {share(usual)})"


def alike(fact: str, known: float, acted: float, usual: float, which: str = "such alerts") -> str:
    """ "severity is "critical": people acted on 31 of 60 such alerts, 52% (usual here: 23%)"."""
    n, k = f"{known:,.0f}", f"{acted:,.0f}"
    if acted <= 0:
        return f"{fact}: nobody acted on any of {n} {which} (usual here: {share(usual)})"
    if acted >= known:
        return f"{fact}: people acted on all {n} {which} (usual here: {share(usual)})"
    return f"{fact}: people acted on {k} of {n} {which}, {share(acted / known)} (usual here: {share(usual)})"


def of_key(key: str) -> str:
    """ " of this rule on this entity", " of any rule"."""
    if key == EVERYTHING:
        return " of any rule"
    first, *more = key.split(KEY_SEPARATOR)
    joint = {"entity": "on", "team": "for"}
    return f" of this {first}" + "".join(f" {joint.get(part, 'with')} this {part}" for part in more)


def share(value: float) -> str:
    """A share as people say it: 23%, 0.4%, under 0.1%."""
    if 0 < value < 0.001:
        return "under 0.1%"
    if 0.999 < value < 1:
        return "over 99.9%"
    if 0 < value < 0.01 or 0.99 < value < 1:
        return f"{value:.1%}"
    return f"{value:.0%}"


def count_in_window(of: str, earlier: float, window: timedelta) -> str:
    """ "the 3rd alert of this entity within a day", or how many there were before."""
    if earlier < 1:
        return f"the first alert{of} in {period(window)}"
    if earlier < MOST_ORDINAL:
        return f"the {ordinal(int(earlier) + 1)} alert{of} within {period(window)}"
    return f"{earlier:,.0f} alerts{of} in the {length(window)} before"


def such_counts(low: float, high: float | None) -> str:
    """Which alerts are counted: those with a number of earlier alerts in [low, high)."""
    if high is None:
        return f"alerts with {low:,.0f} or more before them"
    if high - low <= 1:
        return "such alerts"
    return f"alerts with {low:,.0f} to {high - 1:,.0f} before them"


def between(low: float | None, high: float | None, unit: str = "") -> str:
    """ "5 to 9", "below 5", "9 or more"."""
    if low is None:
        return f"below {number(high or 0.0)}{unit}"
    if high is None:
        return f"{number(low)}{unit} or more"
    return f"{number(low)} to {number(high)}{unit}"


def beyond_threshold(excess: float) -> str:
    """An excess in thresholds as a distance: "40% above its threshold"."""
    if abs(excess) < 0.005:
        return "at its threshold"
    return f"{number(100 * abs(excess), 2)}% {'above' if excess > 0 else 'below'} its threshold"


def number(value: float, digits: int = 3) -> str:
    """So many digits, thousands separated, never an exponent within reason."""
    if value == 0 or 1e-4 <= abs(value) < 1e15:
        rounded = float(f"{value:.{digits}g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 100 or rounded == round(rounded) else f"{rounded:g}"
    return f"{value:.{digits}g}"


def quoted(value: object) -> str:
    """Outside text on one line, in quotation marks; a number bare."""
    if isinstance(value, float):
        return number(value)
    text = " ".join(str(value).split())
    return f'"{text if len(text) <= QUOTE else text[: QUOTE - 1] + "…"}"'


def ordinal(value: int) -> str:
    """2nd, 3rd, 11th."""
    last = "th" if 10 <= value % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    return f"{value}{last}"


def length(window: timedelta) -> str:
    """ "7 days", "hour": what follows "the" in "the 7 days before"."""
    hours = window.total_seconds() / 3600
    if hours < 1:
        return f"{hours * 60:.0f} minutes"
    if hours <= 48 and hours != 24:
        return "hour" if hours == 1 else f"{hours:.0f} hours"
    return "day" if hours == 24 else f"{hours / 24:.0f} days"


def period(window: timedelta) -> str:
    """ "an hour", "a day", "7 days"."""
    text = length(window)
    return {"hour": "an hour", "day": "a day"}.get(text, text)


def alerts_beyond(low: float | None, high: float | None) -> str:
    """Which alerts are counted: those with an excess in [low, high), in thresholds."""
    if low is None:
        return f"alerts below {_percent(high or 0.0)}"
    if high is None:
        return f"alerts at {_percent(low)} or more"
    return f"alerts between {_percent(low)} and {_percent(high)}"


def _percent(excess: float) -> str:
    return f"{'+' if excess > 0 else '−' if excess < 0 else ''}{number(100 * abs(excess), 2)}%"


def no_single_fact(probability: float, usual: float) -> str:
    """Where no claim convinces: why, as far as it is known."""
    if abs(probability - usual) < 0.5 * usual * (1 - usual):
        return f"nothing stands out: close to the usual {share(usual)}"
    return f"no single fact stands out (usual here: {share(usual)})"
