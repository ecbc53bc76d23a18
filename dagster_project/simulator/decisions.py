"""What people do with the alerts: the true probability of each, the outcome, and every action that is
recorded.

Belongs here: the formula of the true probability, the walk through time that lets habits form, and the actions.
Does not belong here: how many alerts there are (`volume`), what they say (`facts`) and the frames of the world
(`world`).

The outcome follows the definition of heed: the first decisive action within the horizon decides, none by its
end means not acted.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr, ndtri

from dagster_project.simulator.company import Company
from dagster_project.simulator.config import WorldConfig
from dagster_project.simulator.facts import Facts
from dagster_project.simulator.volume import DAY_US, HOUR_US, Raised, weekday_of

# What each action type of the simulated company means, in the order of their codes. The words are in the
# project's own list of action types, so the company needs none of its own.
ACTION_TYPES = {
    "fixed": "acted",
    "campaign-paused": "acted",
    "budget-changed": "acted",
    "ticket-created": "acted",
    "dismissed": "dismissed",
    "false-positive": "dismissed",
    "muted": "dismissed",
    "seen": "neutral",
    "commented": "neutral",
    "waiting": "neutral",
}
MEANINGS = np.array(list(ACTION_TYPES.values()), dtype=object)
_ACTED, _DISMISSED, _NEUTRAL = (np.flatnonzero(m == MEANINGS) for m in ("acted", "dismissed", "neutral"))
BULK_DISMISSED = int(_DISMISSED[0])

SECOND_US = 1_000_000

# A rule on which people do act has at least this mean probability, before and after a change of habit, so that it can
# be told from a visibility-only rule. Habit and dead campaigns then take their part: over 25 worlds of 40,000 alerts
# the least was 3.2%, at which 150 decided alerts hold no action in 0.8% of cases.
LEAST_RULE_RATE = 0.05
DEAD_PROBABILITY = 0.004

# Standard deviation of the true log-odds within a team, from random (0) to predictable (1). For a rate of 20%
# the best AUC is about 0.54 at 0.15, 0.75 at 1 and 0.95 at 4.
LEAST_SPREAD, SPREAD = 0.12, 3.6
HABIT_PULL = 2.0  # log-odds between "last time acted" and "last time not", in a fully predictable team

# In a copy-only world: P(acted) after the rule's last known outcome was acted / not acted. Long runs of
# either.
COPY_AFTER_ACTED, COPY_AFTER_NOT = 0.90, 0.05


@dataclass
class Decided:
    """Per alert: true probability, the same without shown scores, outcome and when it became known
    (microseconds).
    """

    probability: np.ndarray
    probability_without_score: np.ndarray
    acted: np.ndarray
    known: np.ndarray


@dataclass
class Answers:
    """Every action ever taken, in order of time, also after the export: arrays of one length."""

    alert: np.ndarray
    time: np.ndarray
    type: np.ndarray
    actor: np.ndarray


def decide(
    config: WorldConfig, company: Company, raised: Raised, facts: Facts, shown_scores: np.ndarray | None
) -> tuple[Decided, Answers]:
    """Walk through time: give each alert its true probability, draw its outcome, and record the actions."""
    n = raised.time.size
    flood, incident = raised.flood >= 0, raised.incident >= 0
    visibility = company.rule_visibility_only[raised.rule] & ~flood
    fixed = np.full(n, np.nan)
    if config.mode in ("mixed", "predictable"):
        logit = _logits(config, company, raised, facts, ~(flood | incident | visibility | facts.dead))
        fixed[facts.dead] = DEAD_PROBABILITY
        pull = HABIT_PULL * config.habit * company.predictability[facts.team]
    else:
        logit = np.full(n, math.log(config.base_rate / (1 - config.base_rate)))
        pull = np.zeros(n)
    fixed[incident] = np.array([b.probability for b in raised.incidents])[raised.incident[incident]]
    fixed[visibility] = 0.0
    fixed[flood] = np.array([b.probability for b in raised.floods])[raised.flood[flood]]

    rng = config.stream("answers")
    when_acted, when_not, first_type = _first_answers(config, company, raised, facts, visibility, rng)
    draw = rng.random(n)
    base, known = _walk(
        config, raised, facts, np.where(np.isnan(fixed), expit(logit), fixed), logit, pull, np.isnan(fixed),
        draw, when_acted, when_not, shown_scores,
    )  # fmt: skip
    probability = _followed(base, shown_scores, config.score_influence)
    acted = draw < probability
    decided = Decided(probability, base, acted, known)
    return decided, _answers(config, company, raised, facts, decided, when_acted, when_not, first_type, rng)


def _followed(base: np.ndarray, shown: np.ndarray | None, influence: float) -> np.ndarray:
    """In a share `influence` of cases people follow the shown score; else, and where none is shown,
    themselves.
    """
    if shown is None or influence == 0:
        return base
    return np.where(np.isnan(shown), base, (1 - influence) * base + influence * np.nan_to_num(shown))


def _logits(config: WorldConfig, company: Company, raised: Raised, facts: Facts, free: np.ndarray) -> np.ndarray:
    """(N,) true log-odds before habit.

    A sum of effects, each of a known weight, is scaled within each team to the spread its predictability asks
    for, and shifted to the team's own rate. `free` marks the alerts that this probability is for; only they
    set the scale.
    """
    rng = config.stream("tastes")
    n_rules, n_teams = company.rule.size, company.team.size
    account = company.entity_account[facts.entity]
    kind, band = company.entity_type[facts.entity], company.entity_band[facts.entity]
    country = company.account_country[account]
    platform = company.entity_platform[facts.entity]
    template = company.rule_template[raised.rule]
    n_templates = int(company.rule_template.max()) + 1

    day = raised.first_day + raised.day
    hour = raised.time % DAY_US / HOUR_US
    weekday = weekday_of(day)
    off = (weekday >= 5) | np.isin(raised.day, raised.holidays)
    night = (hour < 6) | (hour > 20)

    z = rng.normal(0.0, 1.3, n_rules)[raised.rule]
    slope = rng.uniform(1.3, 1.9, n_templates)[template]
    z = z + slope * (facts.excess - 0.41) / 0.3 * (facts.excess > 0)
    z += np.array([-0.9, -0.2, 0.4, 1.2])[facts.severity]
    z += -0.8 * off - 0.5 * night - 0.3 * ((weekday == 4) & (hour > 14))
    z += -0.7 * facts.repeated
    # What only this campaign, account or manager explains stays small: with 40 alerts a campaign nobody could
    # learn it.
    z += rng.normal(0.0, 0.25, int(company.account_manager.max()) + 1)[company.account_manager[account]]
    z += rng.normal(0.0, 0.1, company.account_team.size)[account]
    z += rng.normal(0.0, 0.05, company.entity.size)[facts.entity]
    # Interactions: what matters on one platform or to one kind of campaign does not on another.
    z += rng.normal(0.0, 0.4, (7, 5))[platform, kind]
    z += rng.normal(0.0, 0.2, (n_templates, 4))[template, band]
    z += 0.8 * ((country == 0) & (kind == 1)) - 0.8 * ((band == 0) & (facts.severity < 2))

    # Where habit changes, the rule's alerts after the day are other alerts to this team.
    changed = raised.day >= company.rule_change_day[raised.rule]
    z += 1.2 * float(config.habit_changes) * changed * company.rule_change_direction[raised.rule]

    def per_team(values: np.ndarray) -> np.ndarray:
        total = np.bincount(facts.team[free], weights=values[free], minlength=n_teams)
        return total / np.maximum(np.bincount(facts.team[free], minlength=n_teams), 1)

    middle = per_team(z)
    deviation = np.sqrt(np.maximum(per_team((z - middle[facts.team]) ** 2), 1e-12))
    spread = LEAST_SPREAD + SPREAD * company.predictability
    z = (z - middle[facts.team]) / deviation[facts.team] * spread[facts.team]
    rate = np.clip(config.base_rate * np.exp(rng.normal(0.0, 0.2, n_teams)), 0.02, 0.9)
    z += _shift(z, facts.team, n_teams, free, rate, least_only=False)[facts.team]
    phase = raised.rule * 2 + changed
    least = np.full(2 * n_rules, min(LEAST_RULE_RATE, config.base_rate))
    return z + _shift(z, phase, 2 * n_rules, free, least, least_only=True)[phase]


def _shift(
    z: np.ndarray, group: np.ndarray, groups: int, free: np.ndarray, rate: np.ndarray, *, least_only: bool
) -> np.ndarray:
    """(G,) log-odds to add so that the mean probability of each group is `rate` (or at least that), by
    bisection.
    """
    values, member = z[free], group[free]
    count = np.maximum(np.bincount(member, minlength=groups), 1)
    low, high = np.full(groups, 0.0 if least_only else -25.0), np.full(groups, 25.0)
    for _ in range(24):
        middle = (low + high) / 2
        mean = np.bincount(member, weights=expit(values + middle[member]), minlength=groups) / count
        low, high = np.where(mean < rate, middle, low), np.where(mean < rate, high, middle)
    return np.where(np.bincount(member, minlength=groups) > 0, (low + high) / 2, 0.0)


def _lag(rng: np.random.Generator, size: int, median_hours: np.ndarray, sigma: float, most_us: float) -> np.ndarray:
    """(size,) microseconds: log-normal, at least 20 seconds, cut off at `most_us` without piling up there."""
    least = 20 * SECOND_US
    scale = np.log(median_hours * HOUR_US)
    low, high = ndtr((math.log(least) - scale) / sigma), ndtr((math.log(most_us) - scale) / sigma)
    return np.exp(scale + sigma * ndtri(low + rng.random(size) * (high - low)))


def _whole_second(time: np.ndarray) -> np.ndarray:
    """People's tools record whole seconds; rounding up keeps an action after its alert."""
    return -(-time.astype(np.int64) // SECOND_US) * SECOND_US


def _first_answers(
    config: WorldConfig,
    company: Company,
    raised: Raised,
    facts: Facts,
    visibility: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """When each alert is acted on if it is, and when its first decisive answer comes if it is not.

    Returns (N,) int64 microseconds twice; a second time past the horizon means a late answer, -1 none at all;
    and the (N,) type of that second answer.
    """
    n = raised.time.size
    horizon = config.horizon_days * DAY_US
    # An hour short of the horizon: no outcome hangs on a rounding.
    most = horizon - HOUR_US
    median = np.exp(rng.normal(math.log(4.0), 0.6, company.team.size))[facts.team]
    when_acted = _whole_second(raised.time + _lag(rng, n, median, 1.4, most))
    dismissed = _whole_second(raised.time + _lag(rng, n, 2.0 * median, 1.5, most))
    late = _whole_second(raised.time + horizon + HOUR_US + rng.uniform(0, 25 * DAY_US, n))

    kind = rng.random(n)
    missing = np.where(visibility, 0.92, np.where(facts.dead, 0.02, config.missing_answers))
    late_share = np.where(visibility | facts.dead, 0.0, config.late_answers)
    when_not = np.where(kind < missing, -1, np.where(kind < missing + late_share, late, dismissed))
    answer = rng.choice(_DISMISSED, n, p=[0.6, 0.25, 0.15])
    # Late answers are mostly actions, too late to count.
    was_late = (kind >= missing) & (kind < missing + late_share)
    answer = np.where(was_late & (rng.random(n) < 0.6), rng.choice(_ACTED, n), answer)

    for i, burst in enumerate(raised.floods):
        rows = np.flatnonzero(raised.flood == i)
        if burst.bulk_dismissed:
            # One person clears the lot in ten minutes, within three days of the flood day.
            day_end = (raised.first_day + burst.day + 1) * DAY_US
            moment = day_end + rng.uniform(2, 60) * HOUR_US + rng.uniform(0, HOUR_US / 6, rows.size)
            when_not[rows] = np.where(rng.random(rows.size) < 0.95, _whole_second(moment), -1)
            answer[rows] = BULK_DISMISSED
        else:
            when_not[rows] = np.where(rng.random(rows.size) < 0.95, -1, dismissed[rows])
            answer[rows] = BULK_DISMISSED
    return when_acted, when_not, answer


def _walk(
    config: WorldConfig,
    raised: Raised,
    facts: Facts,
    probability: np.ndarray,
    logit: np.ndarray,
    pull: np.ndarray,
    free: np.ndarray,
    draw: np.ndarray,
    when_acted: np.ndarray,
    when_not: np.ndarray,
    shown: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Probability before shown scores and time at which the outcome is known, both (N,), alerts in order of
    time.

    Habit needs the outcomes known before each alert, and they depend on earlier probabilities: a walk in
    order of time with a heap of outcomes still to become known. Floods leave no habit behind: people know
    that it was a bug.
    """
    horizon = round(config.horizon_days * DAY_US)
    ends = raised.time + horizon
    known_not = np.where((when_not < 0) | (when_not > ends), ends, when_not)
    copy = config.mode == "copy_only"
    if not copy and not pull.any():
        acted = draw < _followed(probability, shown, config.score_influence)
        return probability, np.where(acted, when_acted, known_not)

    key = raised.rule if copy else raised.rule * (int(facts.team.max()) + 1) + facts.team
    rows = np.flatnonzero(raised.flood < 0)
    key = np.unique(key, return_inverse=True)[1]
    last = [-1] * (int(key.max()) + 1)
    share, influence = config.base_rate, config.score_influence
    out = probability.tolist()
    times, keys, draws, logits, pulls, frees = (a.tolist() for a in (raised.time, key, draw, logit, pull, free))
    acted_at, not_at = when_acted.tolist(), known_not.tolist()
    scores = None if shown is None or influence == 0 else shown.tolist()
    pending: list[tuple[int, int, int]] = []
    push, pop, exp = heapq.heappush, heapq.heappop, math.exp
    for i in rows.tolist():
        now = times[i]
        while pending and pending[0][0] < now:
            _, j, result = pop(pending)
            last[keys[j]] = result
        if frees[i]:
            before = last[keys[i]]
            if copy:
                if before >= 0:
                    out[i] = COPY_AFTER_ACTED if before else COPY_AFTER_NOT
            elif before >= 0:
                # Centred on the usual rate, so that habit moves no average.
                out[i] = 1.0 / (1.0 + exp(-max(-30.0, min(30.0, logits[i] + pulls[i] * (before - share)))))
        chance = out[i]
        if scores is not None and scores[i] == scores[i]:
            chance = (1 - influence) * chance + influence * scores[i]
        if draws[i] < chance:
            push(pending, (acted_at[i], i, 1))
        else:
            push(pending, (not_at[i], i, 0))
    base = np.array(out)
    acted = draw < _followed(base, shown, influence)
    return base, np.where(acted, when_acted, known_not)


def _answers(
    config: WorldConfig,
    company: Company,
    raised: Raised,
    facts: Facts,
    decided: Decided,
    when_acted: np.ndarray,
    when_not: np.ndarray,
    first_type: np.ndarray,
    rng: np.random.Generator,
) -> Answers:
    """All actions: the first decisive one, what follows it, and what means nothing."""
    n = raised.time.size
    acted = decided.acted
    every = np.arange(n)
    first = np.where(acted, when_acted, when_not)
    kind = np.where(acted, rng.choice(_ACTED, n), first_type)
    has_first = first >= 0
    bulk = np.zeros(n, dtype=bool)
    for i, burst in enumerate(raised.floods):
        if burst.bulk_dismissed:
            bulk |= (raised.flood == i) & ~acted
    alerts, times, types = [every[has_first]], [first[has_first]], [kind[has_first]]

    def add(rows: np.ndarray, time: np.ndarray, type_: np.ndarray) -> None:
        alerts.append(rows)
        times.append(_whole_second(time))
        types.append(type_)

    # A second decisive action: after acting the alert is dismissed as done, or after dismissing somebody acts
    # after all. Neither changes the outcome.
    second = np.flatnonzero(has_first & ~bulk & (rng.random(n) < np.where(acted, 0.12, 0.04)))
    after = first[second] + rng.uniform(0.05, 60, second.size) * HOUR_US
    add(second, after, np.where(acted[second], _DISMISSED[0], rng.choice(_ACTED, second.size)))
    # Neutral actions: seen or waiting before the answer, comments whenever.
    flood = raised.flood >= 0
    seen = np.flatnonzero(rng.random(n) < np.where(flood | bulk, 0.02, 0.3))
    until = np.where(has_first, first, raised.time + 5 * DAY_US)[seen]
    moment = raised.time[seen] + rng.random(seen.size) * (until - raised.time[seen])
    add(seen, np.maximum(moment, raised.time[seen] + 1), rng.choice(_NEUTRAL, seen.size, p=[0.7, 0.1, 0.2]))
    talk = np.flatnonzero((rng.random(n) < 0.05) & ~flood)
    add(talk, raised.time[talk] + rng.uniform(0.02, 200, talk.size) * HOUR_US, np.full(talk.size, _NEUTRAL[1]))

    alert, time, type_ = (np.concatenate(parts).astype(np.int64) for parts in (alerts, times, types))
    person = rng.integers(0, 5, alert.size)
    person[bulk[alert]] = 0
    order = np.lexsort((alert, time))
    return Answers(alert[order], time[order], type_[order], (facts.team[alert] * 5 + person)[order])
