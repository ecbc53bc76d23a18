"""When alerts are raised: seasons, trend, holidays, floods and incidents.

Belongs here: how many alerts each rule raises on each day, at what moment, and which of them a bug or an
incident produced. Does not belong here: what an alert says and what people do with it (`decisions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import numpy as np

from dagster_project.simulator.company import ANY_PLATFORM, Company, source_of
from dagster_project.simulator.config import WorldConfig

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000

# Below this many extra alerts on its day a flood is no event: a rule with one alert a day has a three-alert
# day every month. A scope this small is drawn again.
LEAST_FLOOD_ALERTS = 25


@dataclass
class Burst:
    """One flood or incident on one day. `rules` are the codes it covers, `extra` (same length) its own
    alerts.
    """

    event: int
    day: int
    kind: str
    scope: str
    team: int
    rules: np.ndarray
    expected: float
    factor: float
    extra: np.ndarray
    probability: float
    bulk_dismissed: bool = False


@dataclass
class Raised:
    """All alerts in order of time: arrays of one length. -1 in `flood` and `incident` means neither.

    `time` is int64 microseconds since the epoch. `team_forced` is the team of a whole-team flood, else -1.
    """

    time: np.ndarray
    day: np.ndarray
    rule: np.ndarray
    flood: np.ndarray
    incident: np.ndarray
    team_forced: np.ndarray
    floods: list[Burst]
    incidents: list[Burst]
    first_day: int  # days since the epoch
    holidays: np.ndarray


def microseconds(moment: datetime) -> int:
    """Microseconds since the epoch of an aware datetime, exactly."""
    return int(np.datetime64(round(moment.timestamp() * 1_000_000), "us").astype(np.int64))


def raise_alerts(config: WorldConfig, company: Company) -> Raised:
    """Draw every alert's rule and time. Exactly `config.alerts` of them, each before `config.end`."""
    assert config.floods is not None
    assert config.incident_days is not None
    end = microseconds(config.end)
    last_day = (end - 1) // DAY_US
    first_day = last_day - config.days + 1
    last_part = (end - last_day * DAY_US) / DAY_US  # the share of the last day that lies before the end

    rng = config.stream("volume")
    share, holidays = _daily_share(config, company, first_day, last_part, rng)
    taken = np.zeros(share.shape, dtype=bool)
    incidents = _incidents(config, company, share, taken)
    floods = _floods(config, company, share, taken)

    # `share` sums to 1, so bursts are known as multiples of the ordinary total; solve for that total.
    relative = sum((b.factor - 1.0) * b.expected for b in incidents + floods)
    ordinary = config.alerts / (1.0 + relative)
    spread_rng = config.stream("bursts")
    for burst in incidents + floods:
        weights = share[burst.rules, burst.day]
        extra = max(1, round((burst.factor - 1.0) * burst.expected * ordinary))
        burst.extra = spread_rng.multinomial(extra, weights / weights.sum())
        burst.expected *= ordinary
    total_extra = sum(int(b.extra.sum()) for b in incidents + floods)
    while total_extra > config.alerts:  # a few alerts cannot hold many bursts
        dropped = floods.pop() if floods else incidents.pop()
        total_extra -= int(dropped.extra.sum())

    counts = rng.multinomial(config.alerts - total_extra, share.ravel()).reshape(share.shape)
    rule, day = (np.repeat(a.ravel(), counts.ravel()) for a in np.indices(share.shape))
    rules, days, flood, incident, forced = (
        [rule],
        [day],
        [np.full(rule.size, -1)],
        [np.full(rule.size, -1)],
        [],
    )
    # Inside an incident's scope and day every alert belongs to it: it is the same trouble.
    in_incident = np.full(share.shape, -1)
    for i, burst in enumerate(incidents):
        in_incident[burst.rules, burst.day] = i
    incident[0] = in_incident[rule, day]
    forced.append(np.full(rule.size, -1))
    for i, burst in enumerate(incidents + floods):
        n = int(burst.extra.sum())
        is_flood = i >= len(incidents)
        rules.append(np.repeat(burst.rules, burst.extra))
        days.append(np.full(n, burst.day))
        flood.append(np.full(n, i - len(incidents) if is_flood else -1))
        incident.append(np.full(n, -1 if is_flood else i))
        forced.append(np.full(n, burst.team if is_flood else -1))
    rule, day, flood_of, incident_of, team_forced = (
        np.concatenate(parts).astype(np.int64) for parts in (rules, days, flood, incident, forced)
    )

    time = _times(config, company, rule, day, flood_of, floods, last_part) + first_day * DAY_US
    order = np.argsort(time, kind="stable")
    return Raised(
        time=time[order],
        day=day[order],
        rule=rule[order],
        flood=flood_of[order],
        incident=incident_of[order],
        team_forced=team_forced[order],
        floods=floods,
        incidents=incidents,
        first_day=int(first_day),
        holidays=holidays,
    )


def weekday_of(day_since_epoch: np.ndarray) -> np.ndarray:
    """0 is Monday. 1970-01-01 was a Thursday."""
    return (day_since_epoch + 3) % 7


def _daily_share(
    config: WorldConfig, company: Company, first_day: int, last_part: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """(R, D) expected share of the ordinary alerts per rule and day, summing to 1; and the holidays' day
    indices.
    """
    days = np.arange(config.days)
    weekday = weekday_of(first_day + days)
    level = np.where(weekday == 5, 0.45, np.where(weekday == 6, 0.4, 1.0))
    if config.trend != "quiet":
        growth = np.exp(np.linspace(0.0, np.log(3.0), config.days))
        level = level * (growth if config.trend == "growing" else growth[::-1])
    holidays = np.sort(rng.choice(config.days, size=min(config.days // 90, config.days), replace=False))
    level[holidays] *= 0.3
    level[-1] *= float(np.interp(last_part, *_clock()[::-1]))

    share = company.rule_weight[:, None] * level[None, :]
    # Weekly reviews raise most of their alerts on Mondays.
    monday = np.where(weekday == 0, 3.5, 0.4)
    share = np.where(company.rule_weekly[:, None], share * monday[None, :], share)
    exists = (days >= company.rule_start[:, None]) & (days < company.rule_end[:, None])
    # Counts per rule and day vary more than Poisson: a gamma multiplier with this coefficient of variation.
    variation = 0.2 if config.trend == "quiet" else 0.3
    share = share * exists * rng.gamma(1 / variation**2, variation**2, share.shape)
    if share.sum() == 0:  # every rule begins later than the last day: possible only with one day and few rules
        share[:, -1] = 1.0
    return share / share.sum(), holidays


def _clock() -> tuple[np.ndarray, np.ndarray]:
    """The day as a distribution: (share of the day gone, share of its alerts raised), 97 points each."""
    at = np.linspace(0, 1, 97)
    hour = at[:-1] * 24
    density = 0.35 + np.exp(-(((hour - 9.5) / 2.5) ** 2)) + 0.9 * np.exp(-(((hour - 15) / 3.0) ** 2))
    return np.concatenate([[0.0], np.cumsum(density) / density.sum()]), at


def _draw_days(config: WorldConfig, rng: np.random.Generator, count: int) -> list[int]:
    """Days for events: after a run-in in which the company's usual volume can be seen, spread over the
    rest.
    """
    first = min(28, config.days // 3)
    if count <= 0 or config.days - first < 1:
        return []
    edges = np.linspace(first, config.days, count + 1)
    return [int(min(config.days - 1, rng.uniform(a, b))) for a, b in pairwise(edges.tolist())]


def _incidents(config: WorldConfig, company: Company, share: np.ndarray, taken: np.ndarray) -> list[Burst]:
    """Real and busy days: a few rules of one team, two to ten times their volume, mostly acted on."""
    rng = config.stream("incidents")
    bursts: list[Burst] = []
    assert config.incident_days is not None
    # A random team acts at random, in an incident too: it has none, or it would be predictable.
    steady = company.predictability >= 0.3 if config.mode in ("mixed", "predictable") else company.predictability >= 0
    for event, day in enumerate(_draw_days(config, rng, config.incident_days)):
        alive = (company.rule_start + 14 <= day) & (company.rule_end > day) & ~company.rule_visibility_only
        alive &= (company.rule_team >= 0) & (share[:, day] > 0) & ~taken[:, day]
        alive[alive] = steady[company.rule_team[alive]]
        candidates = np.flatnonzero(alive)
        if not candidates.size:
            continue
        weight = company.rule_weight[candidates]
        team = company.rule_team[rng.choice(candidates, p=weight / weight.sum())]
        rules = candidates[company.rule_team[candidates] == team]
        rules = np.sort(rng.choice(rules, size=min(rules.size, int(rng.integers(2, 5))), replace=False))
        taken[rules, day] = True
        bursts.append(
            Burst(
                event=event,
                day=day,
                kind="incident",
                scope=str(company.team[team]),
                team=int(team),
                rules=rules,
                expected=float(share[rules, day].sum()),
                factor=float(np.exp(rng.uniform(np.log(2), np.log(10)))),
                extra=np.zeros(rules.size, dtype=np.int64),
                probability=float(rng.uniform(0.6, 0.9)),
            )
        )
    return bursts


def _floods(config: WorldConfig, company: Company, share: np.ndarray, taken: np.ndarray) -> list[Burst]:
    """Bugs: one rule, one source with all its rules, or one whole team; one to three days on end."""
    rng = config.stream("floods")
    bursts: list[Burst] = []
    assert config.floods is not None
    event = 0
    for first in _draw_days(config, rng, config.floods):
        length = int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15]))
        chosen: list[Burst] = []
        best = -1.0
        for _ in range(40):
            draft = _draft_flood(config, company, share, rng, event, first, length)
            if not draft or any(taken[b.rules, b.day].any() for b in draft):
                continue
            smallest = min((b.factor - 1) * b.expected for b in draft) * config.alerts
            if smallest > best:
                chosen, best = draft, smallest
            if smallest >= LEAST_FLOOD_ALERTS:
                break
        for burst in chosen:
            # The scope rests on the days around it, so that one flood is one flood.
            taken[burst.rules, max(0, burst.day - 1) : burst.day + 2] = True
        bursts += chosen
        event += bool(chosen)
    return bursts


def _draft_flood(
    config: WorldConfig,
    company: Company,
    share: np.ndarray,
    rng: np.random.Generator,
    event: int,
    first: int,
    length: int,
) -> list[Burst]:
    kind = str(rng.choice(["rule", "source", "team"], p=[0.5, 0.3, 0.2]))
    alive = (company.rule_start + 14 <= first) & (company.rule_end > first + length) & ~company.rule_visibility_only
    alive &= share[:, first] > 0
    rules, team, scope = np.flatnonzero(alive), -1, ""
    if not rules.size:
        return []
    if kind == "rule":
        weight = np.sqrt(company.rule_weight[rules])
        rules = rng.choice(rules, size=1, p=weight / weight.sum())
        scope = str(company.rule[rules[0]])
    elif kind == "source":
        platform = int(rng.integers(0, ANY_PLATFORM + 1))
        rules = rules[company.rule_platform[rules] == platform]
        scope = str(source_of(np.array([platform]))[0])
    else:
        team = int(rng.integers(0, company.team.size))
        rules = rules[company.rule_team[rules] == team]
        scope = str(company.team[team])
    if rules.size < (1 if kind == "rule" else 2):
        return []
    low, high = config.flood_factor
    factor = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    probability, bulk = float(rng.uniform(0.0, 0.03)), bool(rng.random() < 0.6)
    bursts = []
    for day in range(first, min(first + length, config.days)):
        expected = float(share[rules, day].sum())
        if expected > 0:
            zero = np.zeros(rules.size, dtype=np.int64)
            bursts.append(Burst(event, day, kind, scope, team, rules, expected, factor, zero, probability, bulk))
        # The bug goes on, a little weaker or stronger.
        factor = float(np.clip(factor * rng.uniform(0.7, 1.2), low, high))
    return bursts


def _times(
    config: WorldConfig,
    company: Company,
    rule: np.ndarray,
    day: np.ndarray,
    flood: np.ndarray,
    floods: list[Burst],
    last_part: float,
) -> np.ndarray:
    """Microseconds since the first midnight. Batch rules fire within three minutes, on whole seconds, with
    ties.
    """
    rng = config.stream("times")
    gone, at = _clock()
    limit = np.where(day == config.days - 1, np.interp(last_part, at, gone), 1.0)
    part = np.interp(rng.random(rule.size) * limit, gone, at)
    within = (part * DAY_US).astype(np.int64) // 1000 * 1000  # milliseconds

    # A bug pours for two to ten hours.
    in_flood = np.flatnonzero(flood >= 0)
    if in_flood.size:
        length = rng.uniform(2, 10, len(floods)) * HOUR_US
        begin = rng.uniform(0, 1, len(floods)) * (DAY_US - length)
        of = flood[in_flood]
        moment = begin[of] + rng.random(in_flood.size) * length[of]
        partial = day[in_flood] == config.days - 1
        moment = np.where(partial, rng.random(in_flood.size) * last_part * DAY_US, moment)
        within[in_flood] = moment.astype(np.int64) // 1_000_000 * 1_000_000

    hour = company.rule_batch_hour[rule]
    second = np.nan_to_num(hour) * 3600 + rng.integers(0, 180, rule.size)
    batch = ~np.isnan(hour) & (flood < 0) & ((day < config.days - 1) | (second < last_part * 86_400 - 1))
    within = np.where(batch, second.astype(np.int64) * 1_000_000, within)
    cut = np.where(day == config.days - 1, round(last_part * DAY_US) - 1, DAY_US - 1)
    return day * DAY_US + np.minimum(within, cut)
