"""Suspected floods by volume, level by level: single rules, then teams, sources and all rules together.

Belongs here: what scopes there are, and which scopes and days left their band.
Does not belong here: the band itself (`bands.py`), and whether people acted (`decision.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dagster_project.triage.flags.floods.bands import Season, bands_of
from dagster_project.triage.flags.floods.history import NEVER, FloodSettings, History
from dagster_project.triage.flags.floods.sources import MARK, codes_of_column, codes_of_text, source_names


@dataclass
class Cells:
    """(scope, day) cells with their band. `order[start:stop]` are a cell's alerts in order of time."""

    order: np.ndarray
    scope: np.ndarray
    slot: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    expected: np.ndarray
    spread: np.ndarray
    deviation: np.ndarray
    own: np.ndarray
    needed: np.ndarray
    chance: np.ndarray
    detected: np.ndarray  # NEVER where the day stayed within the band


def _segments(scope: np.ndarray, slot: np.ndarray, days: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order by (scope, slot, time) of the alerts that are in a scope, and the starts and stops of its
    cells."""
    inside = np.flatnonzero(scope >= 0)
    key = scope[inside] * np.int64(max(days, 1)) + slot[inside]
    by_key = np.argsort(key, kind="stable")
    order, key = inside[by_key], key[by_key]
    edges = np.flatnonzero(np.diff(key)) + 1
    start = np.concatenate([[0], edges]).astype(np.int64) if len(key) else np.empty(0, np.int64)
    stop = np.concatenate([edges, [len(key)]]).astype(np.int64) if len(key) else np.empty(0, np.int64)
    return order, start, stop


def alpha_of(first_slots: np.ndarray, days: int, false_alarms: float) -> np.ndarray:
    """Tail probability allowed to one scope on one day, so that all scopes together make few false alarms a
    year."""
    # Scopes seen before the day: the allowance must not move within it.
    seen = np.cumsum(np.bincount(first_slots + 1, minlength=days)[:days])
    return false_alarms / (365.0 * np.maximum(seen, 1))


def rule_level(h: History, season: Season, settings: FloodSettings) -> Cells:
    days = len(h.calendar)
    order, start, stop = _segments(h.rule, h.slot, days)
    scope, slot, count = h.rule[order[start]], h.slot[order[start]], stop - start
    starts = np.searchsorted(scope, np.arange(len(h.rules) + 1))
    expected, spread, deviation, own, needed, chance = bands_of(
        starts,
        slot,
        count,
        count,
        season,
        alpha_of(slot[starts[:-1]], days, settings.false_alarms),
        settings,
        prior=_newcomers(scope, slot, count, days),
    )
    # One microsecond after the alert that passed the band: the first time at which that alert may be used.
    passing = order[start + np.maximum(needed, 1) - 1] if len(start) else start
    detected = np.where(needed > 0, h.raised[passing] + 1, NEVER)
    return Cells(order, scope, slot, start, stop, expected, spread, deviation, own, needed, chance, detected)


def _newcomers(scope: np.ndarray, slot: np.ndarray, count: np.ndarray, days: int) -> tuple[np.ndarray, np.ndarray]:
    """What new rules raise a day, as known on each day: mean and dispersion of the daily level over first
    weeks."""
    first_cell = np.concatenate([[True], scope[1:] != scope[:-1]])
    first = slot[first_cell][np.cumsum(first_cell) - 1]
    early = slot < first + 7
    level = np.log(np.bincount(scope[early], weights=count[early]) / 7.0)
    done = slot[first_cell] + 7
    usable = done < days
    number = np.cumsum(np.bincount(done[usable], minlength=days)[:days])
    total = np.cumsum(np.bincount(done[usable], weights=level[usable], minlength=days)[:days])
    square = np.cumsum(np.bincount(done[usable], weights=level[usable] ** 2, minlength=days)[:days])
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = total / number
        # Two pseudo-rules of variance 1: five first rules that happen to be alike do not make the next one
        # certain.
        variance = (np.maximum(square - number * centre**2, 0.0) + 2.0) / (number + 1.0)
    centre = np.where(number >= 5, centre, np.nan)
    return np.exp(centre + variance / 2), np.clip(np.exp(variance) - 1.0, 1.0, 8.0)


@dataclass
class Flood:
    """One suspected flood: its scope and the alerts in it."""

    kind: str
    scope: str
    where: tuple[str, str] | None
    slot: int
    detected: int
    needed: int
    expected: float
    deviation: float
    members: np.ndarray  # alerts, in order of time
    joined: np.ndarray  # when each of them came to be flagged
    left: np.ndarray  # when each of them moved to a narrower flood; NEVER if not
    burst: tuple[int, int] | None = None  # first and last time of the burst, once the day is over
    chance: float = 0.0  # log of how many times more likely its volume is by chance than is allowed
    genuine: float = 0.0  # alerts during the burst that would have come anyway
    within: tuple[np.ndarray, int] | None = None  # scope of every alert, and which one is this flood's
    unsuspicious: bool = False  # by the record of earlier bursts


def rule_floods(h: History, cells: Cells) -> list[Flood]:
    floods = []
    for cell in np.flatnonzero(~np.isnan(cells.chance)):
        members = cells.order[cells.start[cell] : cells.stop[cell]]
        detected = int(cells.detected[cell])
        floods.append(
            Flood(
                "rule",
                str(h.rules[cells.scope[cell]]),
                None,
                int(cells.slot[cell]),
                detected,
                int(cells.needed[cell]),
                float(cells.expected[cell]),
                float(cells.deviation[cell]),
                members,
                np.maximum(detected, h.raised[members]),
                np.full(len(members), NEVER),
                chance=float(cells.chance[cell]),
            )
        )
    return floods


def wide_floods(
    h: History,
    rules: Cells,
    scope: np.ndarray,
    names: list[tuple[str, str, tuple[str, str] | None]],
    covered: np.ndarray,
    season: Season,
    settings: FloodSettings,
    part: float,
) -> list[Flood]:
    """Floods of scopes that hold many rules: teams, sources, all.

    scope : int64[alerts], -1 outside. covered : int64[alerts], when an alert came to be flagged by a narrower
        flood (`NEVER` if not): from then on it does not count here. Each rule counts only up to its own usual
        busy day, so that one rule alone cannot make its team flood.
    """
    days = len(h.calendar)
    counted = scope >= 0
    upper, rank, cell_of = _usual_upper(h, rules)
    newly = _new_rules_usual(h, rules, settings.window_days)[cell_of]
    counted &= rank < upper[cell_of]
    counted &= (covered > h.raised) | (rank < np.round(rules.own)[cell_of])
    if not counted.any():
        return []
    order, start, stop = _segments(np.where(counted, scope, -1), h.slot, days)
    cell_scope, slot = scope[order[start]], h.slot[order[start]]
    # Of rules that flood by themselves, their usual number stays in the count.
    leaves = np.where(rank >= np.round(rules.own)[cell_of], covered, NEVER)
    stays = (leaves[order] == NEVER).astype(np.int64)
    count = np.add.reduceat(stays, start)
    peak = stop - start
    newly = np.add.reduceat(newly[order], start)
    leaving = np.flatnonzero(count < peak)
    running: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for cell in leaving:
        running[int(cell)] = _running(h, leaves, order[start[cell] : stop[cell]])
        peak[cell] = running[int(cell)][1].max()
    starts = np.searchsorted(cell_scope, np.arange(len(names) + 1))
    used = starts[:-1] < starts[1:]
    expected, _, deviation, _, needed, chance = bands_of(
        starts,
        slot,
        count,
        peak,
        season,
        alpha_of(slot[starts[:-1][used]], days, part * settings.false_alarms),
        settings,
        newly=newly,
        minimum_days=14,
    )
    floods = []
    by_day = np.argsort(h.slot, kind="stable")
    day_starts = np.searchsorted(h.slot[by_day], np.arange(days + 1))
    for cell in np.flatnonzero(~np.isnan(chance)):
        inside = order[start[cell] : stop[cell]]
        if needed[cell] == 0:
            detected = 0
        elif int(cell) in running:
            times, level = running[int(cell)]
            detected = int(times[np.argmax(level >= needed[cell])]) + 1
        else:
            detected = int(h.raised[inside[needed[cell] - 1]]) + 1
        kind, name, where = names[int(cell_scope[cell])]
        today = by_day[day_starts[slot[cell]] : day_starts[slot[cell] + 1]]
        candidates = today[scope[today] == cell_scope[cell]]
        limit = h.raised[candidates] if needed[cell] else NEVER - 1
        candidates = candidates[covered[candidates] > limit]
        if len(candidates) == 0:
            continue
        busy = _busy_rules(h, rules, candidates, cell_of, covered, detected, settings.minimum_volume)
        if busy is None:
            continue
        floods.append(
            Flood(
                kind,
                name,
                where,
                int(slot[cell]),
                busy[0] if needed[cell] else NEVER,
                int(needed[cell]),
                float(expected[cell]),
                float(deviation[cell]),
                *busy[1:],
                chance=float(chance[cell]),
                within=(scope, int(cell_scope[cell])) if where else None,
            )
        )
    return floods


def _usual_upper(h: History, rules: Cells) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each rule cell how many of its alerts may count in wide scopes; for each alert its rank within its cell,
    and its cell.

    Six times the usual lets a bug of many rules show, and ten a sweep of rules that were never seen; a single rule
    beyond that is a flood of its own first.
    """
    upper = np.ceil(6.0 * rules.own + 10.0)
    lengths = rules.stop - rules.start
    cell_of = np.empty(len(h.rule), np.int64)
    rank = np.empty(len(h.rule), np.int64)
    cell_of[rules.order] = np.repeat(np.arange(len(lengths)), lengths)
    rank[rules.order] = np.arange(len(rules.order)) - np.repeat(rules.start, lengths)
    return upper, rank, cell_of


def _new_rules_usual(h: History, rules: Cells, window: int) -> np.ndarray:
    """For each rule cell, what an alert of it adds to the expected of a wide scope whose past does not yet hold the
    rule: the rule's own usual, by the share of the window before its first day, spread over its alerts.
    """
    first_cell = np.searchsorted(rules.scope, rules.scope, side="left")
    age = rules.slot - rules.slot[first_cell]
    # A scope younger than the window has no past that misses the rule's either.
    missing = np.clip(np.minimum(window, rules.slot) - age, 0, None) / np.maximum(1, np.minimum(window, rules.slot))
    # Only of rules that raise on most days since they began: rare rules that come and go are in the past already.
    steady = np.arange(len(first_cell)) - first_cell >= np.maximum(age, 1) / 2
    return np.where(steady, missing * rules.own, 0.0) / (rules.stop - rules.start)


def _running(h: History, leaves: np.ndarray, alerts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The running count of alerts that come when raised and leave when covered: times and levels."""
    leave = leaves[alerts]
    leave = leave[leave != NEVER]
    times = np.concatenate([h.raised[alerts], leave])
    steps = np.concatenate([np.ones(len(alerts), np.int64), -np.ones(len(leave), np.int64)])
    by_time = np.lexsort((steps, times))
    return times[by_time], np.cumsum(steps[by_time])


def _busy_rules(
    h: History,
    rules: Cells,
    candidates: np.ndarray,
    cell_of: np.ndarray,
    covered: np.ndarray,
    passed: int,
    minimum_volume: int,
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray] | None:
    """Of one wide scope and day: the alerts of those rules that are busier than usual themselves.

    Returns when they were a flood (the band was passed, and they were `minimum_volume`), the alerts in order
    of time, when each joined, and when its rule left for a flood of its own; None if they never were enough.
    """
    own_alerts, own_when = [], []
    by_cell = np.argsort(cell_of[candidates], kind="stable")
    edges = np.flatnonzero(np.diff(cell_of[candidates][by_cell])) + 1
    for own in np.split(candidates[by_cell], edges):
        mean = rules.own[cell_of[own[0]]] if len(own) else 0.0
        busy = math.floor(mean + math.sqrt(mean)) + 1
        if len(own) >= busy:
            own_alerts.append(own)
            own_when.append(np.full(len(own), h.raised[own[busy - 1]] + 1))
    if not own_alerts:
        return None
    alerts, when = np.concatenate(own_alerts), np.concatenate(own_when)
    if len(alerts) < minimum_volume:
        return None
    counts_from = np.maximum(when, h.raised[alerts] + 1)
    detected = max(passed, int(np.partition(counts_from, minimum_volume - 1)[minimum_volume - 1]))
    joined = np.maximum(np.maximum(when, detected), h.raised[alerts])
    left = rules.detected[cell_of[alerts]]
    stays = (covered[alerts] > joined) & (left > joined)
    if not stays.any():
        return None
    by_time = np.argsort(alerts[stays], kind="stable")
    return detected, alerts[stays][by_time], joined[stays][by_time], left[stays][by_time]


def list_sources(h: History, limit: int) -> list[tuple[str, np.ndarray, list[str]]]:
    """Attributes with few values: name, value code of each alert (-1 if none), values.

    An attribute stops being a source after the day on which it shows its `limit` + 1st value, so that the answer for
    a day never depends on later days.
    """
    held = source_names(h.sources.columns)
    if held:
        attributes = [(name, *codes_of_column(h.sources[MARK + name], limit)) for name in held]
    elif "attributes" in h.sources:
        attributes = codes_of_text(h.sources["attributes"].to_numpy(dtype=object), limit)
    else:
        return []
    sources = []
    for name, code, values in sorted(attributes, key=lambda one: one[0]):
        beyond = np.flatnonzero(code == limit)
        if len(beyond):
            code = np.where((code < limit) & (h.day <= h.day[beyond[0]]), code, -1)
        if (code >= 0).any():
            sources.append((name, code, values[:limit]))
    return sources
