"""Which scores a destination gets.

Belongs here: the rules of a destination, as pure functions of scores, of what was said before, and of the time.
Does not belong here: reading either (`resources/stores/deliveries.py`), sending.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any
from zoneinfo import ZoneInfo

from dagster_project.settings import Destination


@dataclass(frozen=True)
class Said:
    """The newest message about an alert to a destination."""

    version: int
    probability: float
    flag_words: str | None


def to_say(
    scores: Iterable[Mapping[str, Any]], said: Mapping[str, Said], rules: Destination
) -> list[Mapping[str, Any]]:
    """The scores that a destination should get now, in the order given.

    scores : open alerts, none of them held out. said : by alert.

    A score is news when nothing was said about the alert yet, and it is as high or low as the rules want; or when it
    differs from what was said by at least the minimum change, or has another flag. What was said is kept true: a score
    that leaves the range of `above` and `below` is still sent, since the old one would go on being read.
    """
    news = []
    for score in scores:
        if rules.teams and score["team"] not in rules.teams:
            continue
        before = said.get(score["alert_id"])
        if before is None:
            if in_range(score["probability"], rules):
                news.append(score)
        elif differs(score, before, rules.minimum_change):
            news.append(score)
    return news


def in_range(probability: float, rules: Destination) -> bool:
    """Whether a probability is at or above `above`, or at or below `below`; any is if neither is set."""
    if rules.above is None and rules.below is None:
        return True
    return (rules.above is not None and probability >= rules.above) or (
        rules.below is not None and probability <= rules.below
    )


def differs(score: Mapping[str, Any], before: Said, minimum_change: float) -> bool:
    """Whether a score says something else than the last message."""
    change = abs(score["probability"] - before.probability)
    return bool(score["flag_words"]) != bool(before.flag_words) or (change > 0 and change >= minimum_change)


def is_quiet(now: datetime, rules: Destination) -> bool:
    """Whether `now` (with a zone) is in the destination's quiet hours, which may pass midnight."""
    if not rules.quiet_hours:
        return False
    first, last = (time.fromisoformat(part) for part in rules.quiet_hours.split("-"))
    local = now.astimezone(ZoneInfo(rules.time_zone)).time()
    return first <= local < last if first <= last else local >= first or local < last
