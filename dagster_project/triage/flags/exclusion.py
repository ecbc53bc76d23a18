"""Exclusion: the one place that says which alerts a flag leaves out, as known at which moment.

Belongs here: flags as they stood at a moment (`known_by`) and flags per alert (`flag_alerts`). Labels,
training, evaluation, scoring and replay call these and decide nothing themselves.
Does not belong here: how floods (`floods`) and visibility-only rules (`visibility`) are found.

Which flags to use: training, evaluation and replay at a cut T use `flag_alerts(alerts, floods, visibility,
T)`; scoring uses the same with the moment of scoring; `"at_raise"` gives each alert the flags of the moment
at which it was raised (what production would have shown), in one pass; `None` takes the tables as they stand.
Histories (rates, counts, last outcome) leave out an alert at moments in [`excluded_from`, `excluded_until`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import numpy as np
import pandas as pd

from dagster_project.triage.flags.floods import (
    DAY,
    NEVER,
    as_of_us,
    flood_pairs,
    from_us,
    membership_of,
    membership_text,
    positions_in,
    rules_in,
    to_us,
)


def known_by(flags: pd.DataFrame, as_of: datetime | str | pd.Timestamp) -> pd.DataFrame:
    """Flags as they stood at a moment, from a table of flags that was made at that moment or later.

    Parameters
    ----------
    flags : the answer of `detect_floods` or of `declare_visibility_only`.
    as_of : the moment; UTC where it has no zone.

    Returns
    -------
    The same columns. Flags that were detected later are absent, decisions and releases that came later are
    taken back. Equal to the detecting function's own answer at `as_of`, except that `volume` and `score` of a
    flood count its whole day.
    """
    now = as_of_us(as_of)
    return _floods_by(flags, now) if "membership" in flags else _visibility_by(flags, now)


def _floods_by(floods: pd.DataFrame, now: int) -> pd.DataFrame:
    known = floods[to_us(floods["recorded_at"]) <= now].reset_index(drop=True)
    superseded = to_us(known["superseded_at"])
    known["superseded_at"] = from_us(np.where(superseded > now, NEVER, superseded))
    # The burst is found when its day is over.
    over = np.array([as_of_us(day) for day in known["day"]], np.int64) + DAY
    for column in ("burst_from", "burst_until"):
        known[column] = from_us(np.where(over > now, NEVER, to_us(known[column])))
    decided = to_us(known["decided_at"])
    later = decided > now
    known["decided_at"] = from_us(np.where(later, NEVER, decided))
    known["status"] = known["status"].where(~later, "suspected")
    known["acted_share"] = known["acted_share"].where(~later)
    for column in ("decision", "decided_by"):
        known[column] = known[column].astype(object).where(~later, None)
    members = [
        [(rule, since, NEVER if until > now else until) for rule, since, until in membership_of(text) if since <= now]
        for text in known["membership"]
    ]
    known["membership"] = pd.Series([membership_text(m) for m in members], dtype=object, index=known.index)
    known["rules"] = pd.Series([rules_in(m) for m in members], dtype=object, index=known.index)
    return known


def _visibility_by(rules: pd.DataFrame, now: int) -> pd.DataFrame:
    known = rules[to_us(rules["detected_at"]) <= now].reset_index(drop=True)
    released = to_us(known["released_at"])
    later = released > now
    known["released_at"] = from_us(np.where(later, NEVER, released))
    known["release"] = known["release"].astype(object).where(~later, None)
    holds = np.where(known["basis"].to_numpy(dtype=object) == "inferred", "inferred", "declared")
    known["status"] = pd.Series(np.where(later, holds, "released"), dtype=object, index=known.index)
    return known


def flag_alerts(
    alerts: pd.DataFrame,
    floods: pd.DataFrame | None,
    visibility: pd.DataFrame | None,
    as_of: datetime | str | pd.Timestamp | Literal["at_raise"] | None = None,
) -> pd.DataFrame:
    """The flags of each alert, as known at a moment.

    Parameters
    ----------
    alerts : `raised_at`, `rule`, and where floods are of teams or sources `team`, `attributes`; any index.
    floods, visibility : the answers of `detect_floods` and `declare_visibility_only` (or the tables made of
        them); None for none.
    as_of : a moment (UTC where it has no zone): the flags known then. "at_raise": for each alert those known
        at its `raised_at`. None: the tables as they stand.

    Returns
    -------
    One row per alert, with the index of `alerts`:

    flood, visibility_only : bool.
    excluded_from, excluded_until : datetime64[us, UTC]; histories at moments in [from, until) leave the alert
        out (null until: for good; both null: never). They are about floods only, and always about all that
        the tables know up to `as_of`: a history at t that uses them sees nothing of after t.
    flag_reason : text, null where there is no flag.
    """
    number = len(alerts)
    moment: int | None = None
    if as_of is not None and as_of != "at_raise":
        moment = as_of_us(as_of)
        floods = None if floods is None else known_by(floods, moment_of(moment))
        visibility = None if visibility is None else known_by(visibility, moment_of(moment))
    at_raise = isinstance(as_of, str) and as_of == "at_raise"
    raised = to_us(alerts["raised_at"]) if number else np.empty(0, np.int64)

    flood = np.zeros(number, bool)
    reason = np.full(number, None, dtype=object)
    since, until = np.full(number, NEVER), np.full(number, -1)
    if floods is not None and len(floods) and number:
        pairs = flood_pairs(alerts, floods)
        alert, begin, end = (pairs[name].to_numpy() for name in ("alert", "since", "until"))
        np.minimum.at(since, alert, begin)
        np.maximum.at(until, alert, end)
        holds = (begin <= raised[alert]) & (raised[alert] < end) if at_raise else end == NEVER
        flood[alert[holds]] = True
        texts = _flood_reasons(floods)
        # Of several floods the narrowest speaks: rows of rules are written last.
        narrow = floods["scope_kind"].to_numpy() == "rule"
        which = pairs["flood"].to_numpy()
        for rows in (holds & ~narrow[which], holds & narrow[which]):
            reason[alert[rows]] = texts[which[rows]]

    visibility_only = np.zeros(number, bool)
    if visibility is not None and len(visibility) and number:
        names = pd.Index(visibility["rule"].unique())
        rule = positions_in(names, alerts["rule"], np.arange(number))
        begin, end = to_us(visibility["detected_at"]), to_us(visibility["released_at"])
        which = names.get_indexer(pd.Index(visibility["rule"]))
        whys = [f"visibility-only: {evidence}" for evidence in visibility["evidence"]]
        by_rule = np.argsort(rule, kind="stable")
        edges = np.searchsorted(rule[by_rule], np.arange(len(names) + 1))
        for row in range(len(visibility)):
            own = by_rule[edges[which[row]] : edges[which[row] + 1]]
            if at_raise:
                own = own[(begin[row] <= raised[own]) & (raised[own] < end[row])]
            elif end[row] != NEVER:
                continue
            visibility_only[own] = True
            quiet = own[~flood[own]]
            reason[quiet] = whys[row]

    return pd.DataFrame(
        {
            "flood": flood,
            "visibility_only": visibility_only,
            "excluded_from": from_us(since).array,
            "excluded_until": from_us(np.where(until < 0, NEVER, until)).array,
            "flag_reason": pd.Series(reason, dtype=object, index=alerts.index),
        },
        index=alerts.index,
    )


def moment_of(time: int) -> pd.Timestamp:
    """Microseconds since the epoch as a moment."""
    return pd.Timestamp(time, unit="us", tz="UTC")


def _flood_reasons(floods: pd.DataFrame) -> np.ndarray:
    texts = []
    for row in floods.to_dict("records"):
        why = row["decision"] if isinstance(row["decision"], str) else row["evidence"]
        texts.append(f"flood ({row['status']}) of {row['scope_kind']} {row['scope']} on {row['day']}: {why}")
    return np.asarray(texts, dtype=np.dtype(object))


def excluded_since(
    alerts: pd.DataFrame, floods: pd.DataFrame, visibility: pd.DataFrame, as_of: datetime | str | pd.Timestamp
) -> pd.Series:
    """When it was decided that an alert is excluded, among the flags that stand at `as_of`.

    Parameters are those of `flag_alerts`. Returns datetime64[us, UTC] with the index of `alerts`; null where no
    flag stands. A flood counts from its decision on (from its suspicion on, where nothing is decided yet), a
    visibility-only rule from its detection on. An evaluation at an earlier cut uses it to leave out flags that
    were decided later.
    """
    moment = moment_of(as_of_us(as_of))
    made = np.full(len(alerts), NEVER)
    if len(alerts):
        known = known_by(floods, moment)
        pairs = flood_pairs(alerts, known)
        pairs = pairs[pairs["until"] == NEVER]
        decided = np.minimum(to_us(known["decided_at"]), NEVER)
        said = np.where(decided == NEVER, to_us(known["detected_at"]), decided)
        np.minimum.at(made, pairs["alert"].to_numpy(), said[pairs["flood"].to_numpy()])
        rules = known_by(visibility, moment)
        standing = rules[to_us(rules["released_at"]) == NEVER]
        if len(standing):
            times = pd.Series(to_us(standing["detected_at"]), index=standing["rule"]).groupby(level=0).min()
            own = alerts["rule"].map(times).to_numpy(dtype=np.float64, na_value=np.nan)
            made = np.where(np.isnan(own), made, np.minimum(made, np.nan_to_num(own).astype(np.int64)))
    return pd.Series(from_us(made).array, index=alerts.index)
