"""What alerts say: entity, team, severity, value and threshold.

Belongs here: the facts of an alert that matter to people.
Does not belong here: how many alerts there are (`volume`) and what people do with them (`decisions`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dagster_project.simulator.company import ANY_PLATFORM, Company
from dagster_project.simulator.config import WorldConfig
from dagster_project.simulator.volume import DAY_US, Raised


@dataclass
class Facts:
    """What an alert says, per alert: codes into the company's arrays, and numbers."""

    entity: np.ndarray
    team: np.ndarray
    severity: np.ndarray
    value: np.ndarray
    threshold: np.ndarray
    excess: np.ndarray  # |log(value / threshold)|, 0 without a number
    repeated: np.ndarray  # the same rule and entity within the last 24 hours
    ended: np.ndarray  # the campaign is marked as ended at raise time
    dead: np.ndarray  # it is, marked or not


def state_facts(config: WorldConfig, company: Company, raised: Raised) -> Facts:
    """Draw what each alert says. Flood alerts say what ordinary ones say: that is what makes a flood
    harmful.
    """
    rng = config.stream("facts")
    n = raised.time.size
    flood = raised.flood >= 0
    entity = _draw_entities(company, raised, rng)
    team = company.rule_team[raised.rule]
    team = np.where(team < 0, company.account_team[company.entity_account[entity]], team)
    team = np.where(raised.team_forced >= 0, raised.team_forced, team)

    direction = company.rule_direction[raised.rule]
    excess = np.abs(rng.normal(0.0, 0.5, n)) + 0.01
    excess = np.where(raised.incident >= 0, excess + 0.6, excess)
    band = company.entity_band[entity]
    threshold = np.round(company.rule_threshold[raised.rule] * np.array([0.5, 1.0, 2.5, 8.0])[band], 2)
    value = np.round(threshold * np.exp(direction * excess), 2)
    numeric = direction != 0
    value, threshold = np.where(numeric, value, np.nan), np.where(numeric, threshold, np.nan)
    excess = np.where(numeric, excess, 0.0)

    bump = (rng.random(n) < 0.25).astype(np.int64) - (rng.random(n) < 0.2)
    bump += (excess > 0.8).astype(np.int64) + 2 * (raised.incident >= 0)
    severity = np.clip(company.rule_severity[raised.rule] + bump, 0, 3)

    dead = raised.day >= company.entity_death[entity]
    if config.mode in ("copy_only", "noise"):
        dead[:] = False  # there, nothing about a campaign may matter
    repeated = np.zeros(n, dtype=bool)
    key = raised.rule * company.entity.size + entity
    real = np.flatnonzero(~flood)
    order = real[np.lexsort((raised.time[real], key[real]))]
    again = (np.diff(key[order]) == 0) & (np.diff(raised.time[order]) < DAY_US)
    repeated[order[1:]] = again
    return Facts(
        entity=entity,
        team=team,
        severity=severity,
        value=value,
        threshold=threshold,
        excess=excess,
        repeated=repeated,
        ended=dead & company.entity_marked[entity],
        dead=dead,
    )


def _draw_entities(company: Company, raised: Raised, rng: np.random.Generator) -> np.ndarray:
    """(N,) entity codes on the rule's platform; three in ten alerts repeat the rule's previous entity."""
    n = raised.time.size
    entity = np.zeros(n, dtype=np.int64)
    platform = company.rule_platform[raised.rule]
    pick = rng.random(n)
    for code in range(ANY_PLATFORM + 1):
        rows = np.flatnonzero(platform == code)
        pool = np.flatnonzero(company.entity_platform == code)
        if code == ANY_PLATFORM or not pool.size:
            pool = np.arange(company.entity.size)
        heap = np.cumsum(company.entity_weight[pool])
        at = np.searchsorted(heap / heap[-1], pick[rows], side="right")
        entity[rows] = pool[np.minimum(at, pool.size - 1)]
    # Trouble lasts: runs of the same entity within a rule. A flood is not part of them.
    real = np.flatnonzero(raised.flood < 0)
    order = real[np.argsort(raised.rule[real], kind="stable")]
    first = np.ones(order.size, dtype=bool)
    first[1:] = np.diff(raised.rule[order]) != 0
    fresh = first | (rng.random(order.size) >= 0.3)
    origin = np.maximum.accumulate(np.where(fresh, np.arange(order.size), 0))
    entity[order] = entity[order][origin]
    return entity
