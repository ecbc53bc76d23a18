"""The declaration of one history feature.

Belongs here: keys, statistics, windows, half-lives, and the column names derived from them.
Does not belong here: computing (`engine.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, get_args

from dagster_project.errors import HeedError

Statistic = Literal[
    "raised_count",
    "seconds_since_raised",
    "known_count",
    "acted_count",
    "last_outcome",
    "seconds_since_acted",
    "decayed_acted_rate",
]
STATISTICS: tuple[str, ...] = get_args(Statistic)
RAISED_STATISTICS = frozenset({"raised_count", "seconds_since_raised"})
WINDOWED_STATISTICS = frozenset({"raised_count", "known_count", "acted_count"})

_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000))


def microseconds(span: timedelta) -> int:
    """A span in full microseconds."""
    return span // timedelta(microseconds=1)


def span_name(span: timedelta) -> str:
    """A span in its largest unit that needs no fraction.

    >>> [span_name(timedelta(hours=hours)) for hours in (168, 36, 1.5)]
    ['7d', '36h', '90min']
    """
    total = microseconds(span)
    for unit, size in _UNITS:
        if total % size == 0:
            return f"{total // size}{unit}"
    return f"{total}us"


@dataclass(frozen=True)
class HistoryFeature:
    """One statistic of the past of one key, as of the time t at which an alert was raised.

    key : column of the frames that holds the key's value.
    statistic : over the events of the same key; nan where there is nothing to average or to measure from:

        ====================== ===== ============================================================================
        raised_count           count alerts raised in [t - window, t)
        seconds_since_raised   s     since the latest alert raised in [t - lookback, t)
        known_count            count outcomes that became known in [t - window, t)
        acted_count            count those of them that were acted
        last_outcome           0..1  outcome that became known last in [t - lookback, t); the mean of several that
                                     became known in the same microsecond
        seconds_since_acted    s     since the latest acted outcome known in [t - lookback, t)
        decayed_acted_rate     0..1  mean of acted over outcomes known in [t - lookback, t), weighted by
                                     2 ** (-(t - known_at) / half_life)
        ====================== ===== ============================================================================
    window : for counts; None means the full lookback.
    half_life : for `decayed_acted_rate`, and only there.

    Raises `HeedError` for an unknown statistic and for a span that is missing, not positive or not applicable.

    >>> HistoryFeature("rule", "raised_count", window=timedelta(days=7)).name
    'rule_raised_count_7d'
    >>> HistoryFeature("rule", "decayed_acted_rate", half_life=timedelta(hours=36)).name
    'rule_decayed_acted_rate_hl36h'
    """

    key: str
    statistic: Statistic
    window: timedelta | None = None
    half_life: timedelta | None = None

    def __post_init__(self) -> None:
        what = f"history feature {self.statistic!r} of {self.key!r}"
        if self.statistic not in STATISTICS:
            raise HeedError(f"{what} is unknown", f"choose one of {', '.join(STATISTICS)}")
        if self.window is not None and self.statistic not in WINDOWED_STATISTICS:
            raise HeedError(f"{what} has a window, but takes none", "leave the window out")
        if self.half_life is not None and self.statistic != "decayed_acted_rate":
            raise HeedError(f"{what} has a half-life, but takes none", "leave the half-life out")
        if self.half_life is None and self.statistic == "decayed_acted_rate":
            raise HeedError(f"{what} has no half-life", "give it one, for example 7 days")
        for span in (self.window, self.half_life):
            if span is not None and span <= timedelta(0):
                raise HeedError(f"{what} has a span of {span}", "give it a span above zero")

    @property
    def name(self) -> str:
        """The column of the feature."""
        name = f"{self.key}_{self.statistic}"
        if self.window is not None:
            name += f"_{span_name(self.window)}"
        if self.half_life is not None:
            name += f"_hl{span_name(self.half_life)}"
        return name

    @property
    def description(self) -> str:
        """What the column says, in words."""
        subject = "any rule" if self.key == "all" else f"the same {' and '.join(self.key.split('+'))}"
        span = "" if self.window is None else f" in the {span_name(self.window)} before"
        weight = "" if self.half_life is None else f", half-life {span_name(self.half_life)}"
        return f"{_MEANINGS[self.statistic].format(subject=subject)}{span}{weight}."


_MEANINGS = {
    "raised_count": "Alerts of {subject} raised",
    "seconds_since_raised": "Seconds since the previous alert of {subject}",
    "known_count": "Outcomes of alerts of {subject} that became known",
    "acted_count": "Acted outcomes of alerts of {subject} that became known",
    "acted_share": "Share acted of the outcomes of alerts of {subject} that became known",
    "last_outcome": "Outcome of {subject} that became known last: 1 is acted, 0 is not",
    "seconds_since_known": "Seconds since an outcome of {subject} became known",
    "seconds_since_acted": "Seconds since an acted outcome of {subject} became known",
    "decayed_acted_rate": "Mean of the known outcomes of {subject}, newer ones weighing more",
}
