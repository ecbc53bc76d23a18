"""Families of simulated alerts with a known probability, of other mechanics than heed's own simulator.

Belongs here: the generators, one per family, and the columns that a replay needs.
Does not belong here: replays and the page (`families.py`), heed's own simulator (`dagster_project/simulator`).

Every alert has a true probability, which nobody could improve on with what is known when it is raised. Its outcome is a
draw from it; only the members of a fan-out share one draw. People answer after a delay. Some of what nobody acts on is
dismissed after a delay as well, the rest is known at the end of the horizon.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation.metrics import expit, logit

BEGIN = datetime(2023, 1, 2, tzinfo=UTC)
DAY_US = 86_400_000_000
# What is dismissed instead of left to lapse; of alerts that nobody acts on.
DISMISSED = 0.5

# When the family "policy" changes, as a share of its days.
POLICY_AT, POLICY_DAYS = 0.67, 240

Columns = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    """A family of worlds.

    name : short, for tables. about : what decides, in words. alerts, days : of a world. acted : the share that is acted
    on in expectation, and how far a world's share may be from it. judged_from : share of the days after which alerts
    are scored and judged. every_days : between trainings. delay_days : least and most days until people answer.
    make : `rng`, day of each alert (ascending), returns the columns, `probability` among them. changes_at : share of
    the days after which the world changes, for families in which it does.
    """

    name: str
    about: str
    alerts: int
    days: int
    acted: tuple[float, float]
    make: Callable[[np.random.Generator, np.ndarray], Columns]
    judged_from: float = 0.65
    every_days: int = 28
    horizon_days: int = 14
    delay_days: tuple[float, float] = (0.02, 6.0)
    changes_at: float | None = None


def world(family: Family, seed: int) -> pd.DataFrame:
    """The alerts of a world in order of time: the columns of a replay's history, and `probability`, the truth.

    Outcomes are not known before the raise, and within the horizon. The same seed gives the same rows.
    """
    rng = np.random.default_rng([seed, *family.name.encode()])
    columns = family.make(rng, _days(rng, family))
    day, p = columns.pop("day"), columns.pop("probability")
    n = len(day)
    # Members of one cause share its draw; every other alert has its own.
    cause = columns.pop("cause", np.arange(n))
    draw = rng.random(n)[np.unique(cause, return_inverse=True)[1]]
    acted = draw < p
    low, high = family.delay_days
    # Members of one cause are answered one by one, each at its own time.
    delay = low * (high / low) ** rng.random(n)
    lapsed = ~acted & (rng.random(n) >= DISMISSED)
    start = pd.Timestamp(BEGIN).as_unit("us").value // 1_000
    raised = start + np.round(day * DAY_US).astype(np.int64)
    known = raised + np.where(lapsed, family.horizon_days * DAY_US, np.round(delay * DAY_US)).astype(np.int64)
    columns = {"severity": None, "value": None, "threshold": None, "title": None, "attributes": None} | columns
    frame = pd.DataFrame(
        {
            "alert_id": [f"a{number:06d}" for number in range(n)],
            "raised_at": _times(raised),
            **columns,
            "acted": acted.astype(np.float64),
            "known_at": _times(known),
            "horizon_ends_at": _times(raised + family.horizon_days * DAY_US),
            "probability": p,
        }
    )
    return frame.sort_values(["raised_at", "alert_id"], ignore_index=True)


def _times(us: np.ndarray) -> pd.Series:
    return pd.Series(us.astype("datetime64[us]")).dt.tz_localize("UTC")


def _days(rng: np.random.Generator, family: Family) -> np.ndarray:
    """Days since the beginning, ascending: fewer alerts on weekends and at night."""
    day = rng.integers(family.days, size=4 * family.alerts)
    day = day[rng.random(len(day)) < np.where(day % 7 < 5, 1.0, 0.5)][: family.alerts]
    return np.sort(day + (0.25 + 0.2 * rng.standard_normal(len(day)) + 0.3) % 1.0)


def _named(kind: str, number: np.ndarray) -> np.ndarray:
    """ "rule-07" and the like."""
    return np.array([f"{kind}-{n:02d}" for n in number], dtype=object)


def _among(rng: np.random.Generator, kinds: int, size: int) -> np.ndarray:
    """Numbers below `kinds`, the first ones more often than the last."""
    weight = 1 / np.arange(1, kinds + 1) ** 0.7
    return rng.choice(kinds, size, p=weight / weight.sum())


def _documents(**columns: np.ndarray) -> np.ndarray:
    """The attributes of each alert as JSON text."""
    names, values = list(columns), zip(*(each.tolist() for each in columns.values()), strict=True)
    return np.array([json.dumps(dict(zip(names, row, strict=True))) for row in values], dtype=object)


def _level(z: np.ndarray, share: float) -> np.ndarray:
    """Log-odds moved so that the mean probability is `share`."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expit(z + middle).mean() < share else (low, middle)
    return z + (low + high) / 2


def _ordinary(rng: np.random.Generator, n: int, rules: int = 40, entities: int = 150, teams: int = 6) -> dict:
    """Numbers of rule, entity and team per alert; a rule belongs to one team."""
    rule, owner = _among(rng, rules, n), rng.integers(teams, size=rules)
    return {"rule": rule, "entity": _among(rng, entities, n), "team": owner[rule]}


def _names(numbers: dict[str, np.ndarray]) -> Columns:
    return {kind: _named(kind, number) for kind, number in numbers.items()}


def words_decide(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """Every title has 4 to 8 of 150 words, 30 of which move the log-odds; 95% of alerts have a rule of their own."""
    n = len(day)
    vocabulary = np.array(["".join(rng.choice(list("bcdfglmnprst"), 3)) + f"{i:x}" for i in range(150)], dtype=object)
    weight = np.where(rng.permutation(150) < 30, rng.normal(0, 1.6, 150), 0.0)
    chance = 1 / (5 + np.arange(150.0))
    order = (np.log(chance) + rng.gumbel(size=(n, 150))).argsort(axis=1)[:, ::-1]  # drawn without replacement
    count = rng.integers(4, 9, size=n)
    titles, z = np.empty(n, dtype=object), np.zeros(n)
    for row in range(n):
        chosen = order[row, : count[row]]
        titles[row], z[row] = " ".join(vocabulary[chosen]), weight[chosen].sum()
    numbers = _ordinary(rng, n, rules=20)
    rule = np.where(rng.random(n) < 0.95, 1_000 + rng.permutation(n), numbers["rule"])
    names = _names(numbers) | {"rule": np.array([f"check-{(r * 7_919) % 999_983:06d}" for r in rule], dtype=object)}
    return {"day": day, **names, "title": titles, "probability": expit(_level(z, 0.35))}


def two_together(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """Region and product decide together; neither says anything alone. Two further attributes say nothing."""
    n = len(day)
    a, b, c, d = (rng.integers(kinds, size=n) for kinds in (6, 6, 5, 8))
    table = rng.normal(0, 1.8, (6, 6))
    table -= table.mean(axis=0) + table.mean(axis=1)[:, None] - table.mean()
    attributes = _documents(
        region=_named("region", a), product=_named("product", b), shift=_named("shift", c), source=_named("source", d)
    )
    return {
        "day": day,
        **_names(_ordinary(rng, n)),
        "attributes": attributes,
        "probability": expit(_level(table[a, b], 0.4)),
    }


def policy_flips(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """Rule and source decide. Two thirds through, in three of eight teams acted becomes not acted, and vice versa."""
    n = len(day)
    numbers, source = _ordinary(rng, n, teams=8), rng.integers(6, size=n)
    z = rng.normal(0, 1.3, 40)[numbers["rule"]] + rng.normal(0, 0.8, 6)[source]
    share_of_team = np.bincount(numbers["team"], minlength=8) / n
    # Teams of middling size, so that a flip is felt in every world.
    flipping = np.isin(numbers["team"], np.argsort(np.abs(share_of_team - 0.125))[:3])
    z = np.where(flipping & (day >= POLICY_AT * POLICY_DAYS), -z, z)
    return {
        "day": day,
        **_names(numbers),
        "attributes": _documents(source=_named("source", source)),
        "probability": expit(z - 0.3),
    }


def fan_outs(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """Half of the alerts come one by one; the others are raised by causes of 50 to 250 entities within two hours.

    Rule and team decide about both. A cause is acted on as a whole, but for one member in twenty.
    """
    n, single = len(day), len(day) // 2
    sizes: list[int] = []
    while sum(sizes) < n - single:
        sizes.append(int(min(rng.integers(50, 251), n - single - sum(sizes))))
    of_cause = np.repeat(np.arange(len(sizes)), sizes)
    starts = rng.uniform(0, day.max() - 0.1, len(sizes))
    alone = np.sort(rng.choice(day, single, replace=False))
    when = np.concatenate([alone, starts[of_cause] + rng.uniform(0, 2 / 24, n - single)])
    rules, effect, of_team = 15, rng.normal(0, 1.2, 15), rng.normal(0, 0.6, 5)
    rule = np.concatenate([_among(rng, rules, single), rng.integers(rules, size=len(sizes))[of_cause]])
    team = np.concatenate([rng.integers(5, size=single), rng.integers(5, size=len(sizes))[of_cause]])
    entity = np.concatenate([rng.integers(300, size=single), *(rng.choice(300, size, replace=False) for size in sizes)])
    p = expit(_level(effect[rule] + of_team[team], 0.4))
    # One member in twenty is decided by itself, with the same probability.
    cause = np.arange(n)
    together = rng.random(n - single) < 0.95
    cause[single:] = np.where(together, n + of_cause, cause[single:])
    return {"day": when, **_names({"rule": rule, "entity": entity, "team": team}), "probability": p, "cause": cause}


def effects(share: float, rule: float, entity: float, severity: float) -> Callable[..., Columns]:
    """Rule, entity and severity add up, with these spreads of log-odds; `share` is acted on."""

    def make(rng: np.random.Generator, day: np.ndarray) -> Columns:
        n = len(day)
        numbers = _ordinary(rng, n)
        level = rng.choice(3, n, p=[0.6, 0.3, 0.1])
        z = rng.normal(0, rule, 40)[numbers["rule"]] + rng.normal(0, entity, 150)[numbers["entity"]]
        z = z + severity * level
        severities = np.array(["info", "warning", "critical"], dtype=object)[level]
        return {"day": day, **_names(numbers), "severity": severities, "probability": expit(_level(z, share))}

    return make


def memory_of_years(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """160 rules, each raised for three weeks of one season, every year or every second; its habit never changes."""
    n, rules = len(day), 160
    season, every = rng.uniform(0, 365, rules), rng.choice([365, 730], rules, p=[0.7, 0.3])
    offset = np.where(every == 730, rng.integers(2, size=rules) * 365, 0)
    since = (day[:, None] - season - offset) % every  # days since a rule's season began
    open_now = since < 21
    none_open = ~open_now.any(axis=1)
    open_now[none_open, since[none_open].argmin(axis=1)] = True
    rule = np.where(open_now, rng.random(open_now.shape), -1.0).argmax(axis=1)
    entity = _among(rng, 120, n)
    z = rng.normal(0, 1.8, rules)[rule] + rng.normal(0, 0.4, 120)[entity]
    names = _names({"rule": rule, "entity": entity, "team": rng.integers(5, size=rules)[rule]})
    return {"day": day, **names, "probability": expit(_level(z, 0.4))}


def weak_signal(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """Three attributes move the log-odds by a quarter each way; nothing else says anything."""
    n = len(day)
    parts = [rng.integers(2, size=n) for _ in range(3)]
    z = sum(0.25 * (2 * part - 1) for part in parts)
    attributes = _documents(
        **{name: _named(name, part) for name, part in zip(("zone", "tier", "kind"), parts, strict=True)}
    )
    return {
        "day": day,
        **_names(_ordinary(rng, n)),
        "attributes": attributes,
        "probability": expit(logit(np.full(n, 0.3)) + z),
    }


def pure_noise(rng: np.random.Generator, day: np.ndarray) -> Columns:
    """Nothing says anything: 30% of all alerts are acted on."""
    n = len(day)
    attributes = _documents(zone=_named("zone", rng.integers(6, size=n)), tier=_named("tier", rng.integers(3, size=n)))
    return {"day": day, **_names(_ordinary(rng, n)), "attributes": attributes, "probability": np.full(n, 0.3)}


NOISE = Family("noise", "nothing: 30% of all alerts", 1_500, 120, (0.3, 0.05), pure_noise, 0.65, 21)
FAMILIES = (
    Family(
        "words", "words of the title; 95% of alerts have a rule never seen before",
        6_000, 240, (0.35, 0.05), words_decide,
    ),
    Family("together", "two attributes together, neither alone", 6_000, 240, (0.4, 0.05), two_together),
    Family(
        "policy", "rule and source, until three teams of eight reverse what they do",
        6_000, POLICY_DAYS, (0.45, 0.2), policy_flips, 0.54, changes_at=POLICY_AT,
    ),
    Family(
        "fan-outs",
        "rule and team; half of the alerts belong to causes of 50 to 250 entities, decided within two weeks",
        8_000, 400, (0.4, 0.2), fan_outs, 0.65, 47, delay_days=(1.0, 14.0),
    ),
    Family(
        "rare", "rule, entity and severity; 0.3% acted on",
        30_000, 200, (0.003, 0.002), effects(0.003, 1.5, 0.5, 1.0),
    ),
    Family(
        "often", "rule, entity and severity; 90% acted on",
        5_000, 200, (0.9, 0.03), effects(0.9, 1.2, 0.7, 0.5),
    ),
    Family(
        "weeks", "rule, entity and severity; answers take one to four weeks",
        5_000, 280, (0.35, 0.05), effects(0.35, 1.2, 0.7, 0.5), 0.7, horizon_days=28, delay_days=(7.0, 28.0),
    ),
    Family(
        "years", "rule and entity; a rule returns after one or two years",
        7_000, 1_460, (0.4, 0.05), memory_of_years, 0.75, 92,
    ),
    Family("weak", "three attributes, a little", 6_000, 240, (0.3, 0.05), weak_signal),
)  # fmt: skip
