"""Which alerts belong to a flood, and since when.

Belongs here: the stored form of a flood's membership, and looking up its alerts.
Does not belong here: what a flood excludes its alerts from (`triage/flags/exclusion.py`).
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from dagster_project.triage.flags.floods.history import DAY, NEVER, as_of_us, positions_in, to_us
from dagster_project.triage.flags.floods.sources import has_source


def membership_text(membership: list[tuple[str, int, int]]) -> str:
    """The column `membership`: (rule, from, until) in microseconds as JSON text, ordered by time and rule."""
    ordered = sorted(membership, key=lambda member: (member[1], member[0]))
    return json.dumps(
        [
            {"rule": r, "from": _iso(since), "until": None if until == NEVER else _iso(until)}
            for r, since, until in ordered
        ],
        ensure_ascii=False,
    )


def membership_of(text: str) -> list[tuple[str, int, int]]:
    """The reverse of `membership_text`."""
    return [
        (m["rule"], as_of_us(m["from"]), NEVER if m["until"] is None else as_of_us(m["until"]))
        for m in json.loads(text)
    ]


def rules_in(membership: list[tuple[str, int, int]]) -> list[str]:
    """The rules that are still in a flood, in order of time and name."""
    return [rule for rule, _, until in sorted(membership, key=lambda m: (m[1], m[0])) if until == NEVER]


def _iso(time: int) -> str:
    return pd.Timestamp(time, unit="us", tz="UTC").isoformat()


def flood_pairs(alerts: pd.DataFrame, floods: pd.DataFrame) -> pd.DataFrame:
    """Which floods hold which alerts, and as of when.

    alerts : `raised_at`, `rule`, and where floods are of teams or sources `team` and the sources.
    floods : the result of `detect_floods` or `known_by`, with all views.
    Returns: One row per alert and view of a flood that holds it: alert, flood (int64, positions in the two frames),
        since, until (int64 microseconds: the flood flags the alert as of T with since <= T < until; `NEVER`:
        permanently).
    """
    empty = pd.DataFrame({name: np.empty(0, np.int64) for name in ("alert", "flood", "since", "until")})
    if len(floods) == 0 or len(alerts) == 0:
        return empty
    recorded, superseded = to_us(floods["recorded_at"]), to_us(floods["superseded_at"])
    cleared = np.where(floods["status"].to_numpy() == "cleared", to_us(floods["decided_at"]), NEVER)
    days = np.array([as_of_us(day) // DAY for day in floods["day"]], np.int64)
    member_flood, member_rule, since, until = [], [], [], []
    for number, text in enumerate(floods["membership"]):
        for rule, begin, end in membership_of(text):
            begin = max(begin, int(recorded[number]))
            end = min(end, int(superseded[number]), int(cleared[number]))
            if begin < end:
                member_flood.append(number)
                member_rule.append(rule)
                since.append(begin)
                until.append(end)
    if not member_flood:
        return empty
    rule_code, rules = pd.factorize(np.array(member_rule, dtype=object))
    flood_number = np.array(member_flood, np.int64)
    members = pd.DataFrame(
        {
            "key": days[flood_number] * len(rules) + rule_code,
            "flood": flood_number,
            "since": np.array(since, np.int64),
            "until": np.array(until, np.int64),
        }
    )
    raised = to_us(alerts["raised_at"])
    day = raised // DAY
    near = np.flatnonzero(np.isin(day, np.unique(days)) & (raised != NEVER))
    alert_rule = positions_in(pd.Index(rules), alerts["rule"], near)
    near, alert_rule = near[alert_rule >= 0], alert_rule[alert_rule >= 0]
    keys = pd.DataFrame({"key": day[near] * len(rules) + alert_rule, "alert": near})
    pairs = keys.merge(members, on="key")[["alert", "flood", "since", "until"]]

    name = floods["where_name"].to_numpy(dtype=object)[pairs["flood"]]
    value = floods["where_value"].to_numpy(dtype=object)[pairs["flood"]]
    holds = pd.isna(name)
    named = np.flatnonzero(~holds)
    if len(named):
        at = pairs["alert"].to_numpy()[named]
        kinds, whats = pd.factorize(pd.MultiIndex.from_arrays([name[named], value[named]]))
        for number, (what, which) in enumerate(whats):
            own = kinds == number
            if what == "team":
                if "team" in alerts:
                    holds[named[own]] = positions_in(pd.Index([which]), alerts["team"], at[own]) == 0
            else:
                holds[named[own]] = has_source(alerts, at[own], what, which)
    pairs = pairs[holds].reset_index(drop=True)
    # When its day is over, the alerts before and after the burst are no longer flagged.
    flood_number, alert = pairs["flood"].to_numpy(), pairs["alert"].to_numpy()
    first, last = to_us(floods["burst_from"])[flood_number], to_us(floods["burst_until"])[flood_number]
    outside = (first != NEVER) & ((raised[alert] < first) | (raised[alert] > last))
    over = (days[flood_number] + 1) * DAY
    pairs["until"] = np.where(outside, np.minimum(pairs["until"], over), pairs["until"])
    # An alert is flagged from its raise on, never before it.
    pairs["since"] = np.maximum(pairs["since"].to_numpy(), raised[pairs["alert"].to_numpy()])
    return pairs[pairs["since"] < pairs["until"]].reset_index(drop=True)


def flood_intervals(alerts: pd.DataFrame, floods: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """From when to when floods keep each alert out of histories: int64 microseconds, `NEVER` where not.

    Where several floods hold an alert, from the first beginning to the last end.
    """
    since, until = np.full(len(alerts), NEVER), np.full(len(alerts), -1)
    pairs = flood_pairs(alerts, floods)
    at = pairs["alert"].to_numpy()
    np.minimum.at(since, at, pairs["since"].to_numpy())
    np.maximum.at(until, at, pairs["until"].to_numpy())
    return since, np.where(until < 0, NEVER, until)
