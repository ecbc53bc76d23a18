"""The chance now: the probability that an alert is still acted on, given that nobody has decided it at its age.

Belongs here: learning how long decisions take, the curves that turn the chance at the raise into the chance now, and
their form as plain numbers.
Does not belong here: the chance at the raise (`model.py`), measuring the chance now (`open_alerts.py`), flagged alerts
(`flags/rates.py`), tables and views.

An alert that is still open after a day is another alert than it was at its raise: most that are acted on were acted on
by then. With S1(a), S0(a) the shares of acted and of not-acted alerts that are undecided at age a, Bayes' rule turns
the odds at the raise into odds * S1(a) / S0(a). That mixture of two delays is Chapelle's (KDD 2014, "Modeling delayed
feedback in display advertising"), with both delays as life tables (Singer & Willett 1993, "It's about time", discrete
time), each shrunk towards the next wider group: rule -> team -> all.

The mixture assumes that the chance at the raise is calibrated and that delay does not depend on it. Both hold only
roughly. A landmark model (van Houwelingen 2007: a logistic regression of the outcome on the mixture, its level and
slope changing with age) does without, and was tried: it learns mostly how far the chances at the raise were off in the
past, and that does not last. Log-loss over open alert-days, replayed every 14 days with few trees, of the mixture by
rule, the same with a landmark model, and one mixture for all: service desk 0.559, 0.605, 0.564; package alerts 0.312,
0.398, 0.336; a simulated company 0.035, 0.040, 0.035. Trees that find the change with age from age, team, rule, entity,
hour, weekday and severity were no better than the mixture by team.

Readers compute the chance now at the moment of reading, in SQL and in Python, to the same digit. Both know only
addition, multiplication, division and square root, which IEEE 754 rounds in one way; exp, log and power differ between
libraries. With o the odds at the raise and s its square root:

    odds now = s * (a + s * (b + s * c))

where a, b, c >= 0 stand in a table by group and age. The mixture is b alone; a and c are zero in what is learned today,
and bend the slope in curves that earlier releases stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError

MINUTE, HOUR, DAY = 60, 3_600, 86_400
MICROSECONDS = 1_000_000
FORMAT = 1

EVERYWHERE = ""
Level = Literal["all", "team", "rule"]

# The delays of a group are shrunk towards the next wider group, which counts as this many alerts. Between 100 and 1,000
# the log-loss over open alert-days of a service desk hardly moves (0.5456, 0.5443, 0.5446 at 100, 300, 1,000, groups of
# 30 alerts on); with 20, groups of few acted alerts follow their luck (0.5496).
PSEUDO_ALERTS = 200.0
# A group of fewer decided alerts has no curve of its own: two thirds of it would be that of its parent.
GROUP_MINIMUM = 100
# Fewer ripe alerts than this say nothing about delays that the chance at the raise does not say better.
RIPE_MINIMUM = 50


def steps(horizon: timedelta) -> tuple[int, ...]:
    """Ages in seconds at which a curve may change, ascending, the first 0, all below the horizon.

    Hourly for a day (finer in the first hour), 6-hourly for a week, then daily: within a step the chance now is wrong
    by up to half of what it changes over the step, and it changes fast only while the alert is fresh.
    """
    ages = [0, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, *range(HOUR, DAY, HOUR), *range(DAY, 7 * DAY, 6 * HOUR)]
    ages += range(7 * DAY, 366 * DAY, DAY)
    return tuple(age for age in ages if age < horizon.total_seconds())


@dataclass(frozen=True)
class Curves:
    """How the chance at the raise becomes the chance now.

    as_of : nothing known later touched them. alerts : how many they were learned from. ages : (K,) seconds, as `steps`.
    coefficients : group -> (K, 3) a, b, c. The group `EVERYWHERE` is always there.
    """

    as_of: datetime
    horizon: timedelta
    alerts: int
    ages: tuple[int, ...]
    coefficients: dict[str, np.ndarray]

    @property
    def version(self) -> str:
        """Names these curves: equal ones have the same name."""
        text = json.dumps(self.to_document(), sort_keys=True, allow_nan=False)
        return f"curves-{self.as_of:%Y%m%dT%H%M%SZ}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def groups(self, team: Sequence[Any] | pd.Series, rule: Sequence[Any] | pd.Series) -> np.ndarray:
        """The group of each alert: the narrowest that has a curve; object[alerts] of text.

        A group is a fact of the raise: it never changes with age.
        """
        teams, pairs = _names(team, rule)
        known = self.coefficients
        return np.array(
            [
                pair if pair in known else own if own in known else EVERYWHERE
                for own, pair in zip(teams, pairs, strict=True)
            ],
            dtype=object,
        )

    def now(self, probability: np.ndarray, group: np.ndarray, age: np.ndarray) -> np.ndarray:
        """The chance now.

        probability : float64[alerts] in [0, 1], the chance at the raise. group : as `groups`; an unknown one counts as
        `EVERYWHERE`. age : seconds since the raise; below 0 counts as 0, at or after the horizon as the last step.
        Returns: float64[alerts] in [0, 1]. 0 and 1 stay; in the first step, so at age 0, so does every other.
        """
        p = np.asarray(probability, dtype=np.float64)
        keys = list(self.coefficients)
        place = pd.Index(keys).get_indexer(pd.Index(np.asarray(group, dtype=object)))
        place = np.where(place < 0, keys.index(EVERYWHERE), place)
        table = np.array([self.coefficients[key] for key in keys])[place, _step(age, self.ages)]
        return chance_now(p, table[:, 0], table[:, 1], table[:, 2])

    def to_document(self) -> dict[str, Any]:
        """Plain numbers, texts and lists; `from_document` gives back equal curves, also after JSON."""
        return {
            "format": FORMAT,
            "as_of": self.as_of.isoformat(),
            "horizon_seconds": int(self.horizon.total_seconds()),
            "alerts": self.alerts,
            "ages": list(self.ages),
            "coefficients": {group: values.tolist() for group, values in self.coefficients.items()},
        }

    @classmethod
    def from_document(cls, document: Any) -> Curves:
        """The curves of a document made by `to_document`; `HeedError` when it is not one."""
        try:
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']!r}")
            curves = cls(
                datetime.fromisoformat(document["as_of"]),
                timedelta(seconds=document["horizon_seconds"]),
                int(document["alerts"]),
                tuple(int(age) for age in document["ages"]),
                {str(k): np.asarray(v, dtype=np.float64) for k, v in document["coefficients"].items()},
            )
            shape = (len(curves.ages), 3)
            sound = EVERYWHERE in curves.coefficients and curves.ages[0] == 0 and bool((np.diff(curves.ages) > 0).all())
            for values in curves.coefficients.values():
                sound = sound and values.shape == shape and bool(np.isfinite(values).all() and (values >= 0).all())
                sound = sound and bool((values.sum(axis=1) > 0).all())
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise HeedError(f"the stored curves of age are malformed ({error!r})", "train again") from error
        if not sound:
            raise HeedError(
                "the stored curves of age are malformed (not finite, negative or incomplete)", "train again"
            )
        return curves


def chance_now(probability: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The chance now from the chance at the raise and the coefficients of its group and age; float64, in [0, 1].

    The one formula, operation by operation as the view writes it, with q = 1 - p and r = sqrt(p * q):

        odds = a * r + b * p + c * p * r / q    (times q)
        chance = odds / (odds + q)

    With a, b, c = 0, 1, 0 it is p to the last bit. At p = 1, where q is 0, it is 1.
    """
    p = np.asarray(probability, dtype=np.float64)
    q = 1.0 - p
    certain = q <= 0.0
    r = np.sqrt(p * q)
    odds = a * r + b * p + c * p * r / np.where(certain, 1.0, q)
    return np.where(certain, 1.0, odds / (odds + q))


def no_curves(as_of: datetime, horizon: timedelta) -> Curves:
    """Curves that leave every chance as it was at the raise."""
    ages = steps(horizon)
    return Curves(as_of, horizon, 0, ages, {EVERYWHERE: np.tile([0.0, 1.0, 0.0], (len(ages), 1))})


def fit_curves(alerts: pd.DataFrame, as_of: datetime, horizon: timedelta) -> Curves:
    """Learn how long decisions take from the alerts whose horizon was over at `as_of`.

    alerts : one row per alert that is not flagged as far as was known when it was scored, in any order: raised_at,
        known_at (datetime64[us, UTC]; null while unknown), acted (1.0, 0.0 or nan), team, rule (text or null).
    as_of : rows whose horizon ends later, and outcomes known later, change nothing. Alerts that were decided early
        count only once their horizon is over: else the quick ones would be counted before the slow ones.
    horizon : how long an action counts.
    Returns: Curves for all, and for each team, and rule within a team, of at least `GROUP_MINIMUM` ripe alerts. With
        fewer than `RIPE_MINIMUM` ripe alerts in all, `no_curves`. Deterministic, whatever the order of rows.
    """
    past = _Past(alerts, as_of, horizon)
    if len(past.raised) < RIPE_MINIMUM:
        return no_curves(as_of, horizon)
    nothing = np.zeros(len(past.ages))
    coefficients = {
        group: np.column_stack([nothing, np.exp(shift), nothing]) for group, shift in _mixture(past).items()
    }
    return Curves(as_of, horizon, len(past.raised), past.ages, coefficients)


class _Past:
    """The alerts as arrays, in an order that does not depend on that of the rows."""

    def __init__(self, alerts: pd.DataFrame, as_of: datetime, horizon: timedelta) -> None:
        self.horizon = round(horizon.total_seconds() * MICROSECONDS)
        self.cut = pd.Timestamp(as_of).tz_convert("UTC").value // 1_000  # value is in nanoseconds
        self.ages = steps(horizon)
        raised = _microseconds(alerts["raised_at"])
        known = _microseconds(alerts["known_at"])
        acted = alerts["acted"].to_numpy(dtype=np.float64)
        usable = ~alerts["known_at"].isna().to_numpy() & ~np.isnan(acted)
        usable &= (known <= self.cut) & (raised + self.horizon <= self.cut)
        chosen = alerts[usable]
        teams, pairs = _names(chosen["team"], chosen["rule"])
        lag = np.clip(known[usable] - raised[usable], 0, self.horizon)
        order = np.lexsort((acted[usable], lag, pairs.astype(str), raised[usable]))
        self.raised, self.lag, self.acted = raised[usable][order], lag[order], acted[usable][order]
        self.team, self.team_names = pd.factorize(teams[order], sort=True)
        self.pair, self.pair_names = pd.factorize(pairs[order], sort=True)
        self.team_of_pair = np.zeros(len(self.pair_names), dtype=np.int64)
        self.team_of_pair[self.pair] = self.team


def _mixture(past: _Past) -> dict[str, np.ndarray]:
    """log S1/S0 at the middle of each step, by group: the life tables of acted and of not-acted alerts."""
    count, horizon = len(past.ages), past.horizon / MICROSECONDS
    step = _step(past.lag / MICROSECONDS, past.ages)
    # An alert that reached the end of its horizon undecided was undecided at every age.
    step = np.where(past.lag >= past.horizon, count, step)
    ages = np.array([*past.ages, horizon])
    # With nothing known, decisions are spread evenly over the horizon for both, which shifts nothing.
    even = 1 - (ages[:-1] + ages[1:])[None, :] / 2 / horizon
    acted = past.acted == 1
    one = np.zeros(len(step), dtype=np.int64)
    whole = [_undecided(one[mask], step[mask], 1, count, even, 1.0) for mask in (acted, ~acted)]
    team = _groups(past.team, len(past.team_names), step, acted, count, whole)
    pair = _groups(past.pair, len(past.pair_names), step, acted, count, [table[past.team_of_pair] for table in team])
    shifts = {EVERYWHERE: (np.log(whole[0]) - np.log(whole[1]))[0]}
    for code, names, tables in ((past.team, past.team_names, team), (past.pair, past.pair_names, pair)):
        ratio = np.log(tables[0]) - np.log(tables[1])
        for group in np.flatnonzero(np.bincount(code, minlength=len(names)) >= GROUP_MINIMUM):
            shifts[names[group]] = ratio[group]
    for shift in shifts.values():
        shift[0] = 0.0  # at the raise, the chance at the raise
    return shifts


def _groups(
    code: np.ndarray,
    groups: int,
    step: np.ndarray,
    acted: np.ndarray,
    count: int,
    parents: list[np.ndarray],
) -> list[np.ndarray]:
    """Shares undecided by group and step, of acted and of not-acted alerts, each shrunk towards its parent."""
    return [
        _undecided(code[mask], step[mask], groups, count, parent, PSEUDO_ALERTS)
        for mask, parent in zip((acted, ~acted), parents, strict=True)
    ]


def _undecided(
    code: np.ndarray, step: np.ndarray, groups: int, count: int, parent: np.ndarray, pseudo: float
) -> np.ndarray:
    """float64[groups, steps]: the share still undecided at the middle of each step."""
    decided = np.bincount(code * (count + 1) + step, minlength=groups * (count + 1)).reshape(groups, count + 1)
    total = decided.sum(axis=1, keepdims=True)
    after = total - np.cumsum(decided, axis=1)[:, :count] + decided[:, :count] / 2
    return np.asarray((after + pseudo * parent) / (total + pseudo))


def _step(age: np.ndarray, ages: tuple[int, ...]) -> np.ndarray:
    """The step of each age in seconds."""
    return np.clip(np.searchsorted(np.array(ages), np.asarray(age, dtype=np.float64), side="right") - 1, 0, None)


def _names(team: Any, rule: Any) -> tuple[np.ndarray, np.ndarray]:
    """The names of the groups of each alert, by team and by team and rule; object[alerts] of text.

    A team or rule may hold any text, so the length of the team keeps two pairs from sharing a name.
    """
    teams = pd.Series(team, dtype="object").fillna("").astype(str).to_numpy(dtype=object)
    rules = pd.Series(rule, dtype="object").fillna("").astype(str).to_numpy(dtype=object)
    own = np.array([group_name("team", team, "") for team in teams], dtype=object)
    pairs = [group_name("rule", team, rule) for team, rule in zip(teams, rules, strict=True)]
    return own, np.array(pairs, dtype=object)


def group_name(level: Level, team: str, rule: str) -> str:
    """The name of a group; team and rule are empty where the level does not say them."""
    return {"all": EVERYWHERE, "team": f"team:{team}", "rule": f"rule:{len(team)}:{team}:{rule}"}[level]


def group_key(name: str) -> tuple[Level, str, str]:
    """Level, team and rule of a group: the inverse of `group_name`."""
    level, _, rest = name.partition(":")
    if level == "team":
        return "team", rest, ""
    if level == "rule":
        length, _, rest = rest.partition(":")
        return "rule", rest[: int(length)], rest[int(length) + 1 :]
    return "all", "", ""


def _microseconds(times: pd.Series) -> np.ndarray:
    return times.astype("datetime64[us, UTC]").astype("int64").to_numpy()
