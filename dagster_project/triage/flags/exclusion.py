"""Exclusion: the one place that says which alerts a flag excludes, as of any time.

Belongs here: flags as known at an as-of (`known_by`), flags per alert (`flag_alerts`), and what learning goes without
(`out_of_learning`). Labels, training, evaluation, scoring and replay call these and decide nothing themselves.
Does not belong here: how floods (`floods`) and visibility-only rules (`visibility`) are detected.

Which flags to use: learning, calibration and evidence at a cut T use `out_of_learning(alerts, floods, visibility, T)`;
scoring uses `flag_alerts` with its own as-of; `"at_raise"` gives each alert the flags known when it was raised
(what production would have shown), in one pass; `None` takes the tables as they are.
Histories (rates, counts, last outcome) leave out an alert at times in [`excluded_from`, `excluded_until`): what turned
out to be a bug says nothing about a rule, and at every moment they use only what was known then.
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
    """Flags as known at `as_of`, from a table of flags computed then or later.

    Parameters
    ----------
    flags : the result of `detect_floods` or of `declare_visibility_only`.
    as_of : UTC where it has no zone.

    Returns
    -------
    The same columns, without flags that were detected later and without later decisions and releases. Equal to
    the detecting function's own result at `as_of`, except that `volume` and `score` of a
    flood count its whole day.
    """
    now = as_of_us(as_of)
    return _floods_by(flags, now) if "membership" in flags else _visibility_by(flags, now)


def _floods_by(floods: pd.DataFrame, now: int) -> pd.DataFrame:
    known = floods[to_us(floods["recorded_at"]) <= now].reset_index(drop=True)
    superseded = to_us(known["superseded_at"])
    known["superseded_at"] = from_us(np.where(superseded > now, NEVER, superseded))
    # The burst is determined when its day is over.
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
    """The flags of each alert, as known at `as_of`.

    Parameters
    ----------
    alerts : `raised_at`, `rule`, and where floods are of teams or sources `team`, `attributes`; any index.
    floods, visibility : the results of `detect_floods` and `declare_visibility_only` (or the tables stored from
        them); None for none.
    as_of : a time (UTC where it has no zone): the flags known then. "at_raise": for each alert those known
        at its `raised_at`. None: the tables as they are.

    Returns
    -------
    One row per alert, with the index of `alerts`:

    flood, visibility_only : bool.
    excluded_from, excluded_until : datetime64[us, UTC]; histories at times in [from, until) leave the alert
        out (null until: permanently; both null: never). They cover floods only, and all floods that the tables
        know up to `as_of`: a history at t that uses them sees nothing from after t.
    flag_reason : text, null where there is no flag.

    >>> alerts = pd.DataFrame({"raised_at": pd.to_datetime(["2026-03-02", "2026-03-09"], utc=True), "rule": "beat"})
    >>> detected, never = pd.to_datetime(["2026-03-05"], utc=True), pd.to_datetime([None], utc=True)
    >>> visibility = pd.DataFrame(
    ...     {"rule": "beat", "basis": "declared", "evidence": "declared", "detected_at": detected, "released_at": never}
    ... )
    >>> flag_alerts(alerts, None, visibility)["visibility_only"].tolist()
    [True, True]
    >>> flag_alerts(alerts, None, visibility, "at_raise")["visibility_only"].tolist()
    [False, True]
    """
    number = len(alerts)
    if as_of is not None and as_of != "at_raise":
        floods = None if floods is None else known_by(floods, as_of)
        visibility = None if visibility is None else known_by(visibility, as_of)
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
        # Of several floods the narrowest gives the reason: rows of rules are written last.
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


def _flood_reasons(floods: pd.DataFrame) -> np.ndarray:
    texts = []
    for row in floods.to_dict("records"):
        why = row["decision"] if isinstance(row["decision"], str) else row["evidence"]
        texts.append(f"flood ({row['status']}) of {row['scope_kind']} {row['scope']} on {row['day']}: {why}")
    return np.asarray(texts, dtype=np.dtype(object))


def out_of_learning(
    alerts: pd.DataFrame, floods: pd.DataFrame, visibility: pd.DataFrame, as_of: datetime | str | pd.Timestamp
) -> pd.DataFrame:
    """Which alerts no model learns from, and no evidence about models counts, at `as_of`.

    Parameters are those of `flag_alerts`. Returns, with the index of `alerts`:

    excluded : bool. An alert is out when a flag held it at its raise: then its readers saw the rate of its kind, not
        the model's number. Or when a person marked it by `as_of`: its day as a flood, its rule as visibility-only.
    excluded_since : datetime64[us, UTC], when the person marked it; null where the flag held at the raise, or for none.

    A flood that statistics found later, or confirmed, takes nothing away: it is confirmed because nobody acted, so
    without its alerts the others would look more often acted on than they were when they were scored. On one real set
    25% of the alerts are called floods in the end and 0.3% were when they were scored; without the 25%, scores said
    0.46 where 0.36 were acted on. For the same reason an incident that was suspected at the raise stays out after it
    is cleared, by statistics or by a person; the histories of later alerts (`excluded_from`) keep it.
    """
    known_floods, known_rules = known_by(floods, as_of), known_by(visibility, as_of)
    at_raise = flag_alerts(alerts, known_floods, known_rules, "at_raise")
    marked_floods = known_floods[
        (known_floods["status"] == "confirmed") & (known_floods["decided_by"] != "statistics")
    ].reset_index(drop=True)
    since = np.full(len(alerts), NEVER)
    if len(alerts):
        pairs = flood_pairs(alerts, marked_floods)
        pairs = pairs[pairs["until"] == NEVER]
        np.minimum.at(since, pairs["alert"].to_numpy(), to_us(marked_floods["decided_at"])[pairs["flood"].to_numpy()])
        marked_rules = known_rules[known_rules["status"] == "declared"]
        if len(marked_rules):
            times = pd.Series(to_us(marked_rules["detected_at"]), index=marked_rules["rule"]).groupby(level=0).min()
            own = alerts["rule"].map(times).to_numpy(dtype=np.float64, na_value=np.nan)
            since = np.where(np.isnan(own), since, np.minimum(since, np.nan_to_num(own).astype(np.int64)))
    flagged = (at_raise["flood"] | at_raise["visibility_only"]).to_numpy()
    marked = since != NEVER
    return pd.DataFrame(
        {"excluded": flagged | marked, "excluded_since": from_us(np.where(flagged, NEVER, since)).array},
        index=alerts.index,
    )
