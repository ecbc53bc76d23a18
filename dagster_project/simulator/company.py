"""The company: its teams, rules and campaigns, with the traits that decide how alerts on them are treated.

Belongs here: names and fixed traits, drawn once per world.
Does not belong here: when alerts are raised (`volume`) and what people do with them (`decisions`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dagster_project.simulator.config import WorldConfig

PLATFORMS = ("Google Ads", "Meta", "Microsoft Ads", "TikTok", "LinkedIn", "DV360")
ANY_PLATFORM = len(PLATFORMS)  # the code of a rule that watches all platforms
COUNTRIES = ("DE", "FR", "GB", "US", "NL", "PL", "ES", "IT", "SE", "JP")
CAMPAIGN_TYPES = ("prospecting", "retargeting", "brand", "shopping", "app")
BUDGET_BANDS = ("small", "medium", "large", "flagship")
SEVERITIES = ("low", "medium", "high", "critical")

# name, sentence for people, unit of the value, +1 when too much is bad, -1 when too little is, 0 without a
# number
TEMPLATES = (
    ("Spend above daily budget", "Spend today is above the daily budget", "EUR", 1),
    ("CPA over target", "Cost per acquisition is above its target", "EUR", 1),
    ("Conversion tracking silent", "No conversion was recorded for hours", "", 0),
    ("Disapproved ads", "The platform disapproved ads", "", 0),
    ("Conversions dropped", "Conversions are below the usual level", "conversions", -1),
    ("Click-through rate dropped", "The click-through rate is below the usual level", "percent", -1),
    ("Cost per click jumped", "Cost per click is above the usual level", "EUR", 1),
    ("Impressions dropped", "Impressions are below the usual level", "impressions", -1),
    ("Budget nearly exhausted", "The monthly budget is nearly used up", "percent", 1),
    ("Landing page slow", "The landing page answers slowly", "ms", 1),
    ("Landing page broken", "The landing page answers with an error", "", 0),
    ("Feed items rejected", "Items of the product feed were rejected", "items", 1),
    ("Frequency too high", "The same people see the ads too often", "views", 1),
    ("Audience too small", "The audience is below the size that delivers", "people", -1),
    ("Return on ad spend below target", "Return on ad spend is below its target", "ratio", -1),
    ("Bounce rate high", "More visitors than usual leave at once", "percent", 1),
    ("Unsubscribes above normal", "More people than usual unsubscribe", "people", 1),
    ("Duplicate conversions", "Conversions are counted twice", "conversions", 1),
    ("Naming convention violated", "A name does not follow the convention", "", 0),
    ("Learning phase restarted", "The bidding started to learn again", "", 0),
)


@dataclass(frozen=True)
class Company:
    """Teams (T), rules (R) and entities (E) as arrays; index = code used everywhere in the simulator.

    `predictability` (T,) from 0 to 1. `rule_team` (R,) is -1 for rules that route to the team of the account.
    `rule_batch_hour` (R,) is nan for rules that fire at any time, else the UTC hour of their daily check.
    `rule_start`, `rule_end` (R,) are the first and past-the-last day index on which the rule exists.
    `entity_death` (E,) is the day index from which the campaign is dead, past the end for those that live.
    """

    team: np.ndarray
    predictability: np.ndarray
    rule: np.ndarray
    rule_title: np.ndarray
    rule_team: np.ndarray
    rule_template: np.ndarray
    rule_platform: np.ndarray
    rule_direction: np.ndarray
    rule_severity: np.ndarray
    rule_weight: np.ndarray
    rule_weekly: np.ndarray
    rule_batch_hour: np.ndarray
    rule_start: np.ndarray
    rule_end: np.ndarray
    rule_visibility_only: np.ndarray
    rule_declared: np.ndarray
    rule_threshold: np.ndarray
    rule_change_day: np.ndarray
    rule_change_direction: np.ndarray
    entity: np.ndarray
    entity_weight: np.ndarray
    entity_platform: np.ndarray
    entity_account: np.ndarray
    entity_type: np.ndarray
    entity_band: np.ndarray
    entity_death: np.ndarray
    entity_marked: np.ndarray
    account_team: np.ndarray
    account_country: np.ndarray
    account_manager: np.ndarray


def source_of(platform: np.ndarray) -> np.ndarray:
    """Name of the connector that raises the alerts of each platform code: what many rules share when it
    breaks.
    """
    names = [*(p.lower().replace(" ", "-") + "-sync" for p in PLATFORMS), "warehouse-checks"]
    return np.array(names, dtype=object)[platform]


def build_company(config: WorldConfig) -> Company:
    """Draw the company of a resolved configuration."""
    assert isinstance(config.teams, tuple)
    assert config.rules is not None
    assert config.entities is not None
    assert config.visibility_only_rules is not None
    return _build(config, config.teams, config.rules, config.entities, config.visibility_only_rules)


def _build(config: WorldConfig, teams: tuple[str, ...], n_rules: int, n_entities: int, n_visibility: int) -> Company:
    rng = config.stream("company")
    n_teams, days = len(teams), config.days

    # Rules: templates crossed with platforms, busiest first, dealt to the teams in turn so that none is
    # starved. Alternating directions keep one team from owning the busiest rule of each deal.
    names, titles, template, platform = _rule_names(rng, n_rules)
    rank = np.arange(n_rules)
    weight = 1.0 / (rank + 3.0) ** 0.9  # volumes of rules are Zipf-like; 3 keeps the first from dwarfing the rest
    turn, place = np.divmod(rank, n_teams)
    rule_team = np.where(turn % 2 == 0, place, n_teams - 1 - place)

    visibility = np.zeros(n_rules, dtype=bool)
    if n_visibility:
        # Neither the busiest rules nor the rarest: people notice the first and a world of the second proves
        # nothing.
        middle = rank[min(2, n_rules - n_visibility) : max(n_visibility + 2, (2 * n_rules) // 3)]
        visibility[rng.choice(middle, size=n_visibility, replace=False)] = True
        weight[visibility] *= 1.5
    declared = np.zeros(n_rules, dtype=bool)
    hidden = rng.permutation(np.flatnonzero(visibility))
    declared[hidden[: math.ceil(config.declared_visibility_only * n_visibility - 1e-9)]] = True

    # One rule in six belongs to no team: it routes to the team of the account. Only when all teams own a
    # rule.
    shared = (rank >= 2 * n_teams) & (rng.random(n_rules) < 1 / 6)
    rule_team = np.where(shared, -1, rule_team)

    start = np.zeros(n_rules, dtype=np.int64)
    end = np.full(n_rules, days, dtype=np.int64)
    late = (rng.random(n_rules) < 0.15) & ~visibility & (rank > 0)
    start[late] = (rng.uniform(0.2, 0.8, late.sum()) * days).astype(np.int64)
    gone = (rng.random(n_rules) < 0.05) & ~late & ~visibility & (rank > 0)
    end[gone] = np.maximum(1, (rng.uniform(0.5, 0.9, gone.sum()) * days).astype(np.int64))

    changing = (rng.random(n_rules) < 1 / 8) & ~visibility & (days >= 20)
    change_day = np.full(n_rules, np.iinfo(np.int64).max // 2, dtype=np.int64)
    span = end - start
    change_day[changing] = (start + rng.uniform(0.3, 0.8, n_rules) * span).astype(np.int64)[changing]
    change_direction = np.where(rng.random(n_rules) < 0.5, -1.0, 1.0)

    direction = np.array([t[3] for t in TEMPLATES])[template]
    threshold = np.round(10 ** rng.uniform(1.0, 3.0, n_rules), 0)
    batch = rng.random(n_rules) < 0.3
    batch_hour = np.where(batch, rng.integers(4, 10, n_rules), np.nan)

    # Campaigns belong to accounts; an account has a country, a manager and a home team.
    n_accounts = max(1, n_entities // 15)
    account_team = rng.permutation(np.arange(n_accounts) % n_teams)
    account_country = rng.integers(0, len(COUNTRIES), n_accounts)
    account_manager = rng.integers(0, max(2, min(40, n_accounts // 3 + 1)), n_accounts)
    entity_account = rng.integers(0, n_accounts, n_entities)
    entity_platform = rng.choice(len(PLATFORMS), n_entities, p=[0.34, 0.26, 0.14, 0.1, 0.08, 0.08])
    entity_platform[: min(n_entities, len(PLATFORMS))] = np.arange(min(n_entities, len(PLATFORMS)))
    death = np.full(n_entities, np.iinfo(np.int64).max // 2, dtype=np.int64)
    dying = rng.random(n_entities) < 0.12
    death[dying] = (rng.uniform(0.05, 0.9, dying.sum()) * days).astype(np.int64)

    return Company(
        team=np.array(teams, dtype=object),
        predictability=_predictability(config, teams),
        rule=names,
        rule_title=titles,
        rule_team=rule_team,
        rule_template=template,
        rule_platform=platform,
        rule_direction=direction,
        rule_severity=rng.choice(4, n_rules, p=[0.25, 0.4, 0.25, 0.1]),
        rule_weight=weight / weight.sum(),
        rule_weekly=(rng.random(n_rules) < 0.06),
        rule_batch_hour=batch_hour,
        rule_start=start,
        rule_end=end,
        rule_visibility_only=visibility,
        rule_declared=declared,
        rule_threshold=threshold,
        rule_change_day=change_day,
        rule_change_direction=change_direction,
        entity=np.array([f"campaign-{i:05d}" for i in rng.permutation(n_entities)], dtype=object),
        entity_weight=1.0 / (rng.permutation(n_entities) + 20.0) ** 0.7,
        entity_platform=entity_platform,
        entity_account=entity_account,
        entity_type=rng.integers(0, len(CAMPAIGN_TYPES), n_entities),
        entity_band=rng.choice(len(BUDGET_BANDS), n_entities, p=[0.4, 0.35, 0.2, 0.05]),
        entity_death=death,
        # One dead campaign in twenty is not marked as ended; there only the history of answers tells.
        entity_marked=rng.random(n_entities) < 0.95,
        account_team=account_team,
        account_country=account_country,
        account_manager=account_manager,
    )


def _rule_names(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`count` different rules: (names, titles, template codes, platform codes), in random order."""
    pairs = [(t, p) for t in range(len(TEMPLATES)) for p in range(ANY_PLATFORM + 1)]
    chosen: list[tuple[int, int, str]] = []
    while len(chosen) < count:  # beyond 140 rules: the same per country, then numbered
        turn = len(chosen) // len(pairs)
        variant = "" if turn == 0 else f", {COUNTRIES[(turn - 1) % len(COUNTRIES)]}"
        if turn > len(COUNTRIES):
            variant += f" {(turn - 1) // len(COUNTRIES) + 1}"
        chosen += [(*pairs[i], variant) for i in rng.permutation(len(pairs))]
    chosen = chosen[:count]
    names, titles = [], []
    for template, platform, variant in chosen:
        where = PLATFORMS[platform] if platform < ANY_PLATFORM else "all platforms"
        names.append(f"{TEMPLATES[template][0]} ({where}{variant})")
        titles.append(f"{TEMPLATES[template][1]} on {where}{variant}")
    return (
        np.array(names, dtype=object),
        np.array(titles, dtype=object),
        np.array([c[0] for c in chosen]),
        np.array([c[1] for c in chosen]),
    )


def _predictability(config: WorldConfig, teams: tuple[str, ...]) -> np.ndarray:
    """(T,) numbers from 0 to 1."""
    count = len(teams)
    if config.mode == "predictable":
        return np.full(count, 0.95)
    if config.mode in ("copy_only", "noise"):
        return np.zeros(count)
    # Most teams are predictable, the last is random. One lone team is in the middle.
    values = 1.0 - np.linspace(0, 1, count) ** 1.3 if count > 1 else np.array([0.7])
    if not isinstance(config.predictability, str):
        values = np.array([config.predictability.get(t, v) for t, v in zip(teams, values, strict=True)], dtype=float)
    return values
