"""What can be asked of a simulated world.

Belongs here: `WorldConfig`, its defaults and its validation, and the independent random streams.
Does not belong here: how the world is made (`company`, `volume`, `decisions`).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from dagster_project.errors import HeedError

TEAMS = (
    "Search", "Social", "Display", "CRM", "Brand", "Analytics", "Shopping", "Video",
    "Affiliate", "Email", "Partnerships", "Growth",
)  # fmt: skip
TRENDS = ("quiet", "growing", "shrinking")
MODES = ("mixed", "predictable", "copy_only", "noise")


@dataclass(frozen=True)
class WorldConfig:
    """One simulated company. The same configuration gives the same world, to the byte.

    seed : any non-negative integer.
    alerts : how many alerts there are in all, those of floods and incidents included. Exact.
    days : UTC calendar days covered; the last one is the day that `end` closes or cuts.
    end : time-zone-aware moment at which the export was made. Alerts are raised before it.
    rules, entities : how many; None scales with `alerts` (about 40 rules and 1,500 campaigns at 60,000).
    teams : how many, or their names. None means 8, or fewer when there are fewer rules.
    trend : volume over time: "quiet" (flat, and steadier from day to day), "growing" (three times as many
        alerts a day at the end as at the start) or "shrinking" (the reverse).
    floods : how many floods, each 1 to 3 days long and of one scope. None: one in 25 days.
    flood_factor : (lowest, highest) volume of a flooded scope on a flood day, as a multiple of its ordinary
        volume.
    incident_days : how many days with a real incident. None: one in 40 days.
    visibility_only_rules : how many rules nobody acts on, by design. None: one rule in 12.
    declared_visibility_only : share of those that the rules table declares (rounded up, so above 0 means at
        least one).
    predictability : "mixed" (teams from predictable to random), "predictable" (all of them), "copy_only" (the
        outcome repeats the rule's last known outcome and depends on nothing else), "noise" (one constant
        probability), or a mapping of team name to a number from 0 (random) to 1; unnamed teams are as in
        "mixed". In "copy_only" and "noise" the three counts above default to 0, because a flood or a rule
        that nobody acts on would be a signal.
    base_rate : acted share of ordinary alerts on rules that are not visibility-only, roughly.
    habit : how strongly the last known outcome of the rule in the team pulls the next decision; 0 is not at
        all.
    habit_changes : at a random day a team begins or stops acting on a rule (one rule in 8); 0 or False is
        never, 1 or True is the default strength.
    late_answers : share of the alerts not acted on whose first answer comes after the horizon.
    missing_answers : share of the alerts not acted on that are never answered.
    horizon_days : the horizon for which the true probability holds.
    score_influence : share of the shown scores that people follow; see `simulate(..., shown_scores=)`.
    Raises HeedError: when a value is impossible, naming it.
    """

    seed: int = 0
    alerts: int = 60_000
    days: int = 200
    end: datetime = datetime(2025, 7, 1, tzinfo=UTC)
    rules: int | None = None
    entities: int | None = None
    teams: int | tuple[str, ...] | None = None
    trend: str = "quiet"
    floods: int | None = None
    flood_factor: tuple[float, float] = (3.0, 50.0)
    incident_days: int | None = None
    visibility_only_rules: int | None = None
    declared_visibility_only: float = 1 / 3
    predictability: str | Mapping[str, float] = "mixed"
    base_rate: float = 0.22
    habit: float = 1.0
    habit_changes: float | bool = 1.0
    late_answers: float = 0.04
    missing_answers: float = 0.40
    horizon_days: float = 14.0
    score_influence: float = 0.0

    def __post_init__(self) -> None:
        _whole("seed", self.seed, 0)
        _whole("alerts", self.alerts, 1)
        _whole("days", self.days, 1)
        for name, least in (("rules", 1), ("entities", 1), ("floods", 0), ("incident_days", 0)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least)
        if self.visibility_only_rules is not None:
            _whole("visibility_only_rules", self.visibility_only_rules, 0)
        if not isinstance(self.end, datetime) or self.end.tzinfo is None:
            raise _bad("end", self.end, "a datetime with a time zone")
        if isinstance(self.teams, tuple):
            if not self.teams or len(set(self.teams)) < len(self.teams) or not all(self.teams):
                raise _bad("teams", self.teams, "different names, none of them empty")
        elif self.teams is not None:
            _whole("teams", self.teams, 1)
        if self.trend not in TRENDS:
            raise _bad("trend", self.trend, "one of " + ", ".join(TRENDS))
        low, high = self.flood_factor
        if not 1 < low <= high:
            raise _bad("flood_factor", self.flood_factor, "(lowest, highest) with 1 < lowest <= highest")
        for name in ("declared_visibility_only", "late_answers", "missing_answers", "score_influence"):
            if not 0 <= getattr(self, name) <= 1:
                raise _bad(name, getattr(self, name), "a share from 0 to 1")
        if self.late_answers + self.missing_answers > 1:
            raise _bad("late_answers", self.late_answers, "a share that leaves room for missing_answers")
        if not 0 < self.base_rate < 1:
            raise _bad("base_rate", self.base_rate, "a share between 0 and 1")
        for name in ("habit", "habit_changes"):
            if not 0 <= float(getattr(self, name)) < math.inf:
                raise _bad(name, getattr(self, name), "0 or more")
        if not 1 <= self.horizon_days <= 365:
            raise _bad("horizon_days", self.horizon_days, "from 1 to 365")
        if isinstance(self.predictability, str):
            if self.predictability not in MODES:
                raise _bad("predictability", self.predictability, "one of " + ", ".join(MODES) + ", or a mapping")
        else:
            for team, value in self.predictability.items():
                if not 0 <= value <= 1:
                    raise _bad(f"predictability of team {team!r}", value, "from 0 (random) to 1")

    @property
    def mode(self) -> str:
        """The kind of world: one of `MODES`; a mapping of teams is a mixed world."""
        return self.predictability if isinstance(self.predictability, str) else "mixed"

    def resolved(self) -> WorldConfig:
        """The same configuration with every None replaced by its default."""
        # 40 rules at 60,000 alerts and 170 at a million: companies add rules more slowly than alerts.
        rules = self.rules or max(4, round(40 * math.sqrt(self.alerts / 60_000)))
        entities = self.entities or max(10, self.alerts // 40)
        teams = self.teams if self.teams is not None else min(8, rules)
        names = team_names(teams) if isinstance(teams, int) else teams
        pure = self.mode in ("copy_only", "noise")
        if not isinstance(self.predictability, str):
            for team in self.predictability:
                if team not in names:
                    raise _bad(f"predictability of team {team!r}", "no such team", "one of " + ", ".join(names))
        if len(names) > rules:
            raise _bad("teams", len(names), f"at most the number of rules ({rules})")

        def default(value: int | None, usual: int) -> int:
            return (0 if pure else usual) if value is None else value

        visibility_only = default(self.visibility_only_rules, rules // 12)
        if visibility_only >= rules and visibility_only:
            raise _bad("visibility_only_rules", visibility_only, f"fewer than the number of rules ({rules})")
        return replace(
            self,
            rules=rules,
            entities=entities,
            teams=names,
            floods=default(self.floods, self.days // 25),
            incident_days=default(self.incident_days, self.days // 40),
            visibility_only_rules=visibility_only,
        )

    def stream(self, name: str) -> np.random.Generator:
        """The random stream of one part of the world. Parts have their own, so that changing one leaves the
        others.
        """
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise _bad(name, value, f"a whole number of {least} or more")


def _bad(name: str, value: Any, wanted: str) -> HeedError:
    return HeedError(f"The simulated world cannot have {name} = {value!r}", f"Give {wanted}")


def team_names(count: int) -> tuple[str, ...]:
    """`count` different team names."""
    return tuple(TEAMS[i % len(TEAMS)] + (f" {i // len(TEAMS) + 1}" if i >= len(TEAMS) else "") for i in range(count))
