"""Visibility-only rules: rules on which nobody acts, by design.

Belongs here: which rules are declared so, which are inferred so from their decided alerts, and when an action ends it.
Pure functions on frames.
Does not belong here: bursts (`floods`), and what a flag excludes (`exclusion`).

Method. The acted share of a rule gets a Beta posterior; the rule is inferred to be visibility-only when the
upper end of its one-sided credible interval falls below a limit (with nothing acted on in n: about 3/n, the
rule of three, Hanley & Lippman-Hand 1983), over a minimum number of decided alerts and of days. An action
ends it at once. The record before the last action stays in the posterior, so that a rule that is acted on rarely is
not inferred again after every quiet spell, unless the quiet spell is so long that the old record cannot explain it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import betainc, betaincinv, betaln

from dagster_project.triage.flags.floods import (
    DAY,
    NEVER,
    Override,
    as_of_us,
    codes_of,
    flood_intervals,
    from_us,
    needed_columns,
    read_overrides,
    to_us,
)

VISIBILITY_COLUMNS = [
    "rule",
    "alerts_decided",
    "acted",
    "days",
    "upper_bound",
    "status",
    "basis",
    "evidence",
    "detected_at",
    "decided_at",
    "released_at",
    "release",
    "decided_by",
]


@dataclass(frozen=True)
class VisibilitySettings:
    """When a rule is inferred to be visibility-only.

    limit, confidence : the acted share is below `limit` with this posterior probability. 0.02 at 95% takes
        148 decided alerts with no action: with that many, a rule acted on at 5% is wrongly inferred in 0.05% of
        cases.
    minimum_decided : decided alerts below which nothing is inferred, whatever the bound.
    minimum_days : days between the first and the last of them; a quiet fortnight is not a design. Outcomes of one rule
        are correlated in time, so days matter more than alerts: of 4,357 rules that are acted on, in 180 simulated
        companies, 15 were wrongly inferred at some time with 14 days, 7 with 21 and 3 with 28; each setting inferred
        all 184 rules that nobody acts on (benchmarks/flags.py, development worlds).
    record : how many alerts from before the last action count at most. With 100, a rule that is
        truly acted on at 3% needs 290 quiet alerts to be inferred again, which happens to 1 in 7,000 of its
        quiet spells.
    changed : probability of the quiet spell under the old record below which the record is ignored: habits
        changed.
    horizon_days : days after `raised_at` at which an unanswered alert counts as not acted on, where the
        history has no column `horizon_ends_at`.
    """

    limit: float = 0.02
    confidence: float = 0.95
    minimum_decided: int = 100
    minimum_days: float = 28.0
    record: float = 100.0
    changed: float = 1e-4
    horizon_days: float = 14.0


def upper_bound(acted: np.ndarray | float, decided: np.ndarray | float, confidence: float) -> np.ndarray:
    """Upper end of the one-sided credible interval of an acted share, from a uniform prior."""
    acted, decided = np.asarray(acted, float), np.asarray(decided, float)
    return np.asarray(betaincinv(acted + 1.0, decided - acted + 1.0, confidence))


def declare_visibility_only(
    history: pd.DataFrame,
    rules: pd.DataFrame | None,
    as_of: datetime | str | pd.Timestamp,
    settings: VisibilitySettings | None = None,
    overrides: pd.DataFrame | None = None,
    floods: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Which rules are, or were, visibility-only as of `as_of`: one row per rule and episode.

    history : as for `floods.detect_floods`. Alerts with `raised_at` >= `as_of` and outcomes with `known_at` >
        `as_of` are not used.
    rules : `rule`, `declared_visibility_only` (bool or text), `created_at` (null: before all time); or None.
    as_of : UTC where it has no zone.
    overrides : `flag` ('visibility_only'), `rule` or `scope`, `action`, `until` (the override holds from
        `created_at` to before it; then the statistics decide again), `who`, `why`, `created_at`. They win,
        also over actions; of two that hold at the same time, the later one.
    floods : the result of `detect_floods`; alerts do not count while a flood holds them, unless they were acted on.
    Returns: rule; alerts_decided, acted (int), days (float), upper_bound (float): the rule's own record at
        `detected_at`, since its last action; status ('declared', 'inferred', 'released'); basis ('declared',
        'inferred', 'override': what it is or was before a release); evidence; detected_at; decided_at (the same time);
        released_at and release (why; null while it holds); decided_by ('statistics', 'declaration' or a person). What
        an override flags has status 'declared'. `attrs["warnings"]` lists, in words, overrides that match no rule, and
        what cannot be read.
    """
    settings = settings or VisibilitySettings()
    now = as_of_us(as_of)
    read, warnings = read_overrides(overrides, "visibility_only", now)
    declared, more = _declarations(rules, now)
    warnings += more
    record = _record(history, now, settings, floods)
    known_rules = set(history["rule"].dropna().unique()) if len(history) else set()
    if rules is not None and len(rules):
        known_rules |= set(rules["rule"].dropna().astype(str))

    episodes: dict[str, list[dict[str, Any]]] = {}
    for rule, at in declared.items():
        episodes[rule] = [_declared_episode(record, rule, at, settings)]
    for rule in record.inferable():
        episodes.setdefault(rule, []).extend(_inferred_episodes(record, rule, settings))
    for o in read:
        if o.scope not in known_rules:
            warnings.append(f"override {o.number}: there is no rule {o.scope!r}")
            continue
        own = episodes.get(o.scope, [])
        if o.clear:
            episodes[o.scope] = [part for e in own for part in _without(e, o)]
        elif o.until > o.created:
            own = [*own, _flagged_episode(record, o, settings)]
            episodes[o.scope] = own
    rows = [{"rule": rule, **e} for rule, own in episodes.items() for e in _one_of_each(own)]
    return _table([row for row in rows if row["detected_at"] <= now], warnings, now)


@dataclass
class _Record:
    """What became known about all rules, in order of rule and time; arrays of events.

    decided, acted : running numbers for the rule, this event included. quiet : decided since its last action.
    quiet_from : when the first alert of that quiet spell was raised. raised : of the event's alert. action :
        whether the event is one. low : whether the bound is below the limit there.
    """

    names: dict[str, slice]
    time: np.ndarray
    raised: np.ndarray
    action: np.ndarray
    decided: np.ndarray
    acted: np.ndarray
    quiet: np.ndarray
    quiet_from: np.ndarray
    low: np.ndarray

    def inferable(self) -> list[str]:
        """Rules whose bound was ever below the limit."""
        lows = np.cumsum(np.concatenate([[0], self.low]))
        return [name for name, own in self.names.items() if lows[own.stop] > lows[own.start]]

    def at(self, rule: str, time: int) -> int | None:
        """The last event of a rule known by `time`."""
        own = self.names.get(rule)
        if own is None:
            return None
        last = own.start + int(np.searchsorted(self.time[own], time, side="right")) - 1
        return last if last >= own.start else None

    def first_action(self, rule: str, since: int) -> int:
        """When the first action at or after `since` became known; `NEVER` if none."""
        own = self.names.get(rule)
        if own is None:
            return NEVER
        times = self.time[own][self.action[own]]
        at = int(np.searchsorted(times, since))
        return int(times[at]) if at < len(times) else NEVER


def _record(history: pd.DataFrame, now: int, settings: VisibilitySettings, floods: pd.DataFrame | None) -> _Record:
    raised = to_us(history["raised_at"])
    known = to_us(history["known_at"])
    acted = pd.to_numeric(history["acted"], errors="coerce").to_numpy(dtype=float)
    if "horizon_ends_at" in history:
        ends = to_us(history["horizon_ends_at"])
    else:
        ends = np.where(raised == NEVER, NEVER, raised + int(settings.horizon_days * DAY))
    # No action by the end of the horizon is an outcome, whether or not the caller has filled it in.
    unanswered = np.isnan(acted) | (known == NEVER)
    known = np.where(unanswered, ends, known)
    acted = np.where(unanswered, 0.0, acted)
    use = np.flatnonzero((raised < now) & (known <= now) & history["rule"].notna().to_numpy())
    raised, known, acted = raised[use], known[use], acted[use] > 0.5
    code, names = codes_of(history["rule"], use)
    since, until = np.full(len(use), NEVER), np.full(len(use), NEVER)
    if floods is not None and len(floods) and len(use):
        since, until = flood_intervals(history[needed_columns(history)].iloc[use], floods)

    # A flood's alerts begin to count when it is cleared, and stop counting when it is detected after their outcome. An
    # action always counts: people who act on a rule do not treat it as visibility-only, and a suspected flood must not
    # hide that.
    every = np.arange(len(use))
    held = (since <= known) & (known < until) & ~acted
    later = (since > known) & (since != NEVER) & ~acted
    alert = np.concatenate([every[~held], every[held], every[later], every[later]])
    time = np.concatenate([known[~held], until[held], since[later], until[later]])
    change = np.ones(len(alert), np.int64)
    change[len(every) : len(every) + int(later.sum())] = -1
    seen = time <= now
    alert, time, change = alert[seen], time[seen], change[seen]
    # Actions first among equal times: the bound must not look low between two outcomes of the same time.
    order = np.lexsort((alert, ~acted[alert], time, code[alert]))
    alert, time, change = alert[order], time[order], change[order]
    rule = code[alert]
    starts = np.searchsorted(rule, np.arange(len(names) + 1))
    names_at = {str(n): slice(int(a), int(b)) for n, a, b in zip(names, starts[:-1], starts[1:], strict=True)}

    action = acted[alert]
    begin = starts[rule]
    decided = _running_from(change, begin)
    acted_so_far = _running_from(np.where(acted[alert], change, 0), begin)
    position = np.arange(len(alert))
    last_action = np.maximum.accumulate(np.where(action, position, -1)) if len(alert) else position
    last_action = np.where(last_action >= begin, last_action, -1)
    has_action = last_action >= 0
    before = np.where(has_action, decided[last_action], 0)
    before_acted = np.where(has_action, acted_so_far[last_action], 0)
    quiet = np.maximum(decided - before, 0)
    first_quiet = np.minimum(np.where(has_action, last_action + 1, begin), np.maximum(len(alert) - 1, 0))
    quiet_from = raised[alert[first_quiet]] if len(alert) else raised[:0]
    low = _low(quiet, before, before_acted, settings)
    low &= quiet >= 1
    low &= decided >= settings.minimum_decided
    low &= raised[alert] - quiet_from >= settings.minimum_days * DAY
    return _Record(names_at, time, raised[alert], action, decided, acted_so_far, quiet, quiet_from, low)


def _running_from(steps: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """Running sums that restart at `begin` (the position of the first event of each event's rule)."""
    total = np.concatenate([[0], np.cumsum(steps)])
    return total[1:] - total[begin]


def _low(quiet: np.ndarray, before: np.ndarray, before_acted: np.ndarray, settings: VisibilitySettings) -> np.ndarray:
    """bool: whether the posterior upper bound of the acted share is below the limit.

    quiet : decided since the last action, none acted on. before, before_acted : decided and acted up to that
        action.
    """
    weight = np.minimum(1.0, settings.record / np.maximum(before, 1))
    a = 1.0 + weight * before_acted
    b = 1.0 + weight * np.maximum(before - before_acted, 0)
    low = np.zeros(len(quiet), bool)
    # The bound lies above the mean and, with a uniform prior, above log(1 / (1 - confidence)) / n: skip the
    # rest.
    nearly = -np.log1p(-settings.confidence) / settings.limit * 0.9
    near = np.flatnonzero((a / (a + b + quiet) < settings.limit) & (a + b + quiet > nearly))
    low[near] = betainc(a[near], b[near] + quiet[near], settings.limit) >= settings.confidence
    near = np.flatnonzero((quiet > nearly) & ~low & (before > 0))
    fresh = betainc(1.0, 1.0 + quiet[near], settings.limit) >= settings.confidence
    same = betaln(a[near], b[near] + quiet[near]) - betaln(a[near], b[near])
    low[near] = fresh & (same < np.log(settings.changed))
    return low


def _declarations(rules: pd.DataFrame | None, now: int) -> tuple[dict[str, int], list[str]]:
    """Rule -> when it was declared visibility-only (0 if no time is given), if by `now`."""
    declared: dict[str, int] = {}
    warnings: list[str] = []
    if rules is None or len(rules) == 0 or "declared_visibility_only" not in rules:
        return declared, warnings
    created = to_us(rules["created_at"]) if "created_at" in rules else np.full(len(rules), NEVER)
    for rule, value, time in zip(rules["rule"], rules["declared_visibility_only"], created, strict=True):
        word = str(value).strip().lower()
        yes = word in ("true", "t", "yes", "y", "1", "1.0")
        if not yes and word not in ("false", "f", "no", "n", "0", "0.0", "", "none", "nan", "<na>"):
            warnings.append(f"rule {rule!r}: declared_visibility_only {value!r} is neither yes nor no")
        if yes and isinstance(rule, str):
            at = 0 if time == NEVER else int(time)
            if at <= now:
                declared[rule] = min(at, declared.get(rule, at))
    return declared, warnings


def _episode(record: _Record, rule: str, event: int | None, at: int, settings: VisibilitySettings) -> dict[str, Any]:
    """An episode from `at` on, with the rule's record at that time."""
    decided = 0 if event is None else int(record.quiet[event])
    days = 0.0 if event is None or decided == 0 else float(record.raised[event] - record.quiet_from[event]) / DAY
    return {
        "alerts_decided": decided,
        "acted": 0,
        "days": max(days, 0.0),
        "upper_bound": float(upper_bound(0, decided, settings.confidence)),
        "detected_at": at,
        "released_at": NEVER,
        "release": None,
    }


def _declared_episode(record: _Record, rule: str, at: int, settings: VisibilitySettings) -> dict[str, Any]:
    episode = _episode(record, rule, record.at(rule, at), at, settings)
    end = record.first_action(rule, at)
    episode.update(basis="declared", decided_by="declaration", evidence="declared in the table of rules")
    if end != NEVER:
        episode.update(released_at=end, release="one of its alerts was acted on")
    return episode


def _flagged_episode(record: _Record, o: Override, settings: VisibilitySettings) -> dict[str, Any]:
    episode = _episode(record, o.scope, record.at(o.scope, o.created), o.created, settings)
    episode.update(basis="override", decided_by=o.who, evidence=f"{o.who}: {o.why}")
    if o.until != NEVER:
        episode.update(released_at=o.until, release="the override ended")
    return episode


def _inferred_episodes(record: _Record, rule: str, settings: VisibilitySettings) -> list[dict[str, Any]]:
    own = record.names[rule]
    lows = own.start + np.flatnonzero(record.low[own])
    episodes = []
    free_from = own.start
    while (at := int(np.searchsorted(lows, free_from))) < len(lows):
        event = int(lows[at])
        episode = _episode(record, rule, event, int(record.time[event]), settings)
        n, bound = episode["alerts_decided"], episode["upper_bound"]
        episode.update(
            basis="inferred",
            decided_by="statistics",
            evidence=(
                f"none of its last {n} decided alerts, over {episode['days']:.0f} days, was acted on: with "
                f"{100 * settings.confidence:.0f}% probability fewer than {100 * bound:.1f}% are"
            ),
        )
        actions = np.flatnonzero(record.action[event + 1 : own.stop])
        episodes.append(episode)
        if len(actions) == 0:
            break
        free_from = event + 1 + int(actions[0])
        episode.update(released_at=int(record.time[free_from]), release="one of its alerts was acted on")
    return episodes


def _without(episode: dict[str, Any], o: Override) -> list[dict[str, Any]]:
    """What is left of an episode when a person clears the rule from `o.created` to before `o.until`."""
    begin, end = episode["detected_at"], episode["released_at"]
    if end <= o.created or begin >= o.until:
        return [episode]
    left = []
    if begin < o.created:
        left.append({**episode, "released_at": o.created, "release": f"{o.who}: {o.why}"})
    if o.until < end:
        left.append({**episode, "detected_at": o.until})
    return left


def _one_of_each(episodes: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Of episodes that begin at the same time for the same reason, the one that holds longest; of equals, the last.

    Two people may flag a rule at the same time, and episodes that one person interrupts go on at the same time.
    """
    longest: dict[tuple[int, str], dict[str, Any]] = {}
    for episode in episodes:
        key = episode["detected_at"], episode["basis"]
        if key not in longest or longest[key]["released_at"] <= episode["released_at"]:
            longest[key] = episode
    return longest.values()


def _table(rows: list[dict[str, Any]], warnings: list[str], now: int) -> pd.DataFrame:
    for row in rows:
        if row["released_at"] > now:
            row.update(released_at=NEVER, release=None)
        row["decided_at"] = row["detected_at"]
        holds = "inferred" if row["basis"] == "inferred" else "declared"
        row["status"] = "released" if row["released_at"] != NEVER else holds
    rows = sorted(rows, key=lambda r: (r["rule"], r["detected_at"], r["basis"]))
    table = pd.DataFrame(rows, columns=VISIBILITY_COLUMNS)
    for column in ("detected_at", "decided_at", "released_at"):
        table[column] = from_us(table[column].to_numpy(dtype=np.int64))
    for column in ("alerts_decided", "acted"):
        table[column] = table[column].astype(np.int64)
    for column in ("days", "upper_bound"):
        table[column] = table[column].astype(float)
    for column in ("rule", "status", "basis", "evidence", "release", "decided_by"):
        table[column] = pd.Series([row[column] for row in rows], dtype=object, index=table.index)
    table.attrs["warnings"] = warnings
    return table
