"""From history to the table of floods, and the band of each day for a figure.

Belongs here: the order of the steps, and the rows with their evidence in words.
Does not belong here: the steps themselves (the other modules of this package).
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.flags.floods.bands import bands_of, season_of
from dagster_project.triage.flags.floods.decision import (
    cleared_early,
    decide_flood,
    find_burst,
    in_burst,
    usual_day_of,
    usual_share_of,
)
from dagster_project.triage.flags.floods.history import (
    DAY,
    NEVER,
    FloodSettings,
    History,
    as_of_us,
    from_us,
    read_history,
)
from dagster_project.triage.flags.floods.levels import (
    Cells,
    Flood,
    alpha_of,
    list_sources,
    rule_floods,
    rule_level,
    wide_floods,
)
from dagster_project.triage.flags.floods.members import membership_text, rules_in
from dagster_project.triage.flags.floods.overrides import overrule
from dagster_project.triage.flags.floods.record import Record

FLOOD_COLUMNS = [
    "day",
    "scope_kind",
    "scope",
    "where_name",
    "where_value",
    "rules",
    "membership",
    "burst_from",
    "burst_until",
    "volume",
    "expected",
    "score",
    "acted_share",
    "status",
    "evidence",
    "decision",
    "detected_at",
    "decided_at",
    "decided_by",
    "recorded_at",
    "superseded_at",
]
TIMES = ["burst_from", "burst_until", "detected_at", "decided_at", "recorded_at", "superseded_at"]


def detect_floods(
    history: pd.DataFrame,
    as_of: datetime | str | pd.Timestamp,
    settings: FloodSettings | None = None,
    overrides: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The floods of a history, as they stood at `as_of`.

    history : one row per alert, any order: `raised_at`, `rule`, `acted` (1.0, 0.0, nan), `known_at`; optional
        `team`, `attributes` (JSON text), `horizon_ends_at`. Alerts with `raised_at` >= `as_of` and outcomes
        with `known_at` > `as_of` are not used. An alert unanswered at the end of its horizon counts as not
        acted on.
    as_of : UTC where it has no zone.
    overrides : decisions by people, one row each: `flag` ('flood'; rows of other flags are skipped), `scope`
        (a rule, a team, 'attribute = value' or 'all alerts') or `rule`, `day` (null: every day from that of
        `created_at` to before `until`), `action` ('flag', 'clear'), `until`, `who`, `why`, `created_at`;
        optional `scope_kind`. They win from `created_at` on; of two, the later one. Overrides do not move the
        band.
    Returns: One row per flood and view of it, ordered by day and `detected_at`:

    day : date, UTC.
    scope_kind, scope : 'rule', 'team', 'source' or 'all', and which one.
    where_name, where_value : what its alerts share in addition to their rules: 'team' and its name, or an attribute
        and its value; null for a rule and for all.
    rules : list of the rules in it. membership : JSON text, a list of {rule, from, until}: since when each
        rule's alerts of the day are flagged by this flood, and until when (null: still).
    volume : int, alerts in it so far. expected : float, usual alerts a day in this scope. score : float,
        distance of the volume from the expected in robust standard deviations on the square-root scale.
    acted_share : float, of its outcomes known at the decision; nan while suspected.
    status : 'suspected', 'confirmed', 'cleared'. evidence, decision : why, in words; no decision while
        suspected.
    detected_at, decided_at, decided_by : null while not; decided_by is 'statistics' or the person.
    recorded_at, superseded_at : the time for which this view holds (null: it still does). Only what people
        overrule has several.

    `attrs["warnings"]` lists, in words, overrides that match nothing or cannot be read.
    """
    settings = settings or FloodSettings()
    now = as_of_us(as_of)
    h = read_history(history, now, settings)
    rows: list[dict[str, Any]] = []
    if len(h.raised):
        floods, cells = _suspect(h, settings)
        rule_starts = np.searchsorted(cells.scope, np.arange(len(h.rules) + 1))
        excluded_from = np.full(len(h.raised), NEVER)
        excluded_until = np.zeros(len(h.raised), np.int64)
        record = Record()
        for flood in sorted(floods, key=lambda f: f.slot):
            find_burst(h, cells, rule_starts, flood, settings.window_days)
            usual, support = usual_share_of(h, (excluded_from, excluded_until), cells, rule_starts, flood)
            status, decided, share = decide_flood(h, flood, usual, support, settings)
            if flood.kind == "rule" and flood.detected != NEVER:
                usual_in_bin = usual_day_of(h, cells, rule_starts, flood, flood.members, settings.window_days)
                early = cleared_early(h, flood, usual_in_bin, usual, support, 5.0 * settings.decision_odds)
                if early:
                    status, (decided, share) = "cleared", early
            if flood.detected != NEVER:
                flood.unsuspicious = record.genuine_bursts(flood)
                if status != "suspected" and len(in_burst(h, flood)):
                    record.add(flood, status == "cleared", decided)
            if flood.detected == NEVER or flood.unsuspicious:
                if status != "confirmed":
                    continue
                flood.detected = decided
                flood.joined = np.full(len(flood.members), decided)
            rows.append(_row(h, flood, status, decided, share, usual))
            until = decided if status == "cleared" else NEVER
            own = in_burst(h, flood)
            excluded_from[own] = np.minimum(excluded_from[own], flood.detected)
            excluded_until[own] = np.maximum(excluded_until[own], until)
    warnings = overrule(rows, h, overrides, now)
    return _table(rows, warnings)


def daily_band(
    history: pd.DataFrame, as_of: datetime | str | pd.Timestamp, settings: FloodSettings | None = None
) -> pd.DataFrame:
    """The company's volume by day, and what earlier days led to expect.

    For figures only: floods are detected scope by scope, and this band is that of all rules together.

    history, as_of, settings : as for `detect_floods`.
    Returns: One row per observed UTC day that has an alert, in order: day (date), alerts (int64), expected and upper
        (float64, alerts a day; nan while there are too few days before it).
    """
    settings = settings or FloodSettings()
    h = read_history(history, as_of_us(as_of), settings)
    days = len(h.calendar)
    slot, count = np.unique(h.slot, return_counts=True)
    expected = upper = np.full(len(slot), np.nan)
    if days:
        season = season_of(h, settings.window_days)
        alpha = alpha_of(slot[:1], days, settings.false_alarms)
        expected, _, deviation, _, _, _ = bands_of(
            np.array([0, len(slot)]), slot, count, count, season, alpha, settings
        )
        upper = (np.sqrt(expected + 0.375) + settings.band_width * deviation) ** 2
    dates = [pd.Timestamp(int(day) * DAY, unit="us").date() for day in h.calendar[slot]]
    return pd.DataFrame(
        {
            "day": pd.Series(dates, dtype=object),
            "alerts": count.astype(np.int64),
            "expected": expected,
            "upper": upper,
        }
    )


def _suspect(h: History, settings: FloodSettings) -> tuple[list[Flood], Cells]:
    """All suspected floods, narrow scopes first, and the rules' cells."""
    season = season_of(h, settings.window_days)
    cells = rule_level(h, season, settings)
    floods = rule_floods(h, cells)
    covered = np.full(len(h.raised), NEVER)
    for flood in floods:
        if flood.detected != NEVER:
            covered[flood.members] = flood.joined
    # The allowance of false alarms: as much for all wide scopes together as for the rules.
    levels: list[tuple[np.ndarray, list[tuple[str, str, tuple[str, str] | None]], float]] = []
    if len(h.teams):
        levels.append((h.team, [("team", str(team), ("team", str(team))) for team in h.teams], 0.5))
    for name, of_alert, values in list_sources(h, settings.attribute_values):
        names: list[tuple[str, str, tuple[str, str] | None]]
        names = [("source", f"{name} = {value}", (name, value)) for value in values]
        # The number of attributes is not known beforehand: ten is the usual order.
        levels.append((of_alert, names, 0.04))
    levels.append((np.zeros(len(h.raised), np.int64), [("all", "all alerts", None)], 0.1))
    for scope, names, part in levels:
        wide = wide_floods(h, cells, scope, names, covered, season, settings, part)
        for flood in wide:
            if flood.detected == NEVER:
                continue
            covered[flood.members] = np.minimum(covered[flood.members], flood.joined)
        floods += wide
    return floods, cells


def _row(h: History, flood: Flood, status: str, decided: int, share: float, usual: float) -> dict[str, Any]:
    rule, first = np.unique(h.rule[flood.members], return_index=True)
    # All alerts of one rule join at the same time, or when raised if that is later: the first one has it.
    membership = [
        (str(h.rules[r]), int(flood.joined[f]), int(flood.left[f]))
        for r, f in zip(rule, first, strict=True)
        if flood.joined[f] < flood.left[f]
    ]
    volume = len(in_burst(h, flood))
    score = (math.sqrt(volume + 0.375) - math.sqrt(flood.expected + 0.375)) / flood.deviation
    scope, flagged = {
        "rule": ("this rule", "all of them are flagged"),
        "team": ("this team (each rule up to its usual busy day)", "its rules that are busier than usual are flagged"),
        "source": (
            "this source (each rule up to its usual busy day)",
            "its rules that are busier than usual are flagged",
        ),
        "all": (
            "all rules together (each up to its usual busy day)",
            "the rules that are busier than usual are flagged",
        ),
    }[flood.kind]
    evidence = (
        f"{flood.needed} alerts by {pd.Timestamp(flood.detected, unit='us'):%H:%M} UTC, where "
        f"{flood.expected:.3g} a day are usual for {scope}; {flagged}"
    )
    if flood.needed == 0 or flood.unsuspicious:
        why = "too few to be suspected by volume alone"
        if flood.unsuspicious:
            why = "not suspected on its day, since people act on many bursts here"
        evidence = f"{volume} alerts, where {flood.genuine:.3g} are usual at these hours for {scope}: {why}; {flagged}"
    decision = None
    if status != "suspected" and volume == 0:
        decision = "all its alerts belong to floods of single rules"
    elif status != "suspected":
        acted = "no outcome was known" if math.isnan(share) else f"{100 * share:.0f}% were acted on"
        verdict = "a bug" if status == "confirmed" else "busy, but acted on"
        decision = f"{acted}, where {100 * usual:.0f}% are usual: {verdict}"
    return {
        "day": int(h.calendar[flood.slot]),
        "scope_kind": flood.kind,
        "scope": flood.scope,
        "where_name": flood.where[0] if flood.where else None,
        "where_value": flood.where[1] if flood.where else None,
        "membership": membership,
        "burst_from": flood.burst[0] if flood.burst else NEVER,
        "burst_until": flood.burst[1] if flood.burst else NEVER,
        "volume": volume,
        "expected": flood.expected,
        "score": score,
        "acted_share": share,
        "status": status,
        "evidence": evidence,
        "decision": decision,
        "detected_at": flood.detected,
        "decided_at": decided,
        "decided_by": None if status == "suspected" else "statistics",
        "recorded_at": flood.detected,
        "superseded_at": NEVER,
    }


def _table(rows: list[dict[str, Any]], warnings: list[str]) -> pd.DataFrame:
    """Rows (times in microseconds, days since the epoch) as the typed, ordered table."""
    rows = sorted(rows, key=lambda r: (r["day"], r["detected_at"], r["scope_kind"], r["scope"], r["recorded_at"]))
    table = pd.DataFrame(rows, columns=FLOOD_COLUMNS)
    table["day"] = pd.Series(
        [pd.Timestamp(row["day"] * DAY, unit="us").date() for row in rows], dtype=object, index=table.index
    )
    for column in TIMES:
        table[column] = from_us(table[column].to_numpy(dtype=np.int64))
    table["membership"] = pd.Series(
        [membership_text(row["membership"]) for row in rows], dtype=object, index=table.index
    )
    table["rules"] = pd.Series([rules_in(row["membership"]) for row in rows], dtype=object, index=table.index)
    table["volume"] = table["volume"].astype(np.int64)
    for column in ("expected", "score", "acted_share"):
        table[column] = table[column].astype(float)
    texts = (
        "scope_kind",
        "scope",
        "where_name",
        "where_value",
        "status",
        "evidence",
        "decision",
        "decided_by",
    )
    for column in texts:
        table[column] = pd.Series([row[column] for row in rows], dtype=object, index=table.index)
    table.attrs["warnings"] = warnings
    return table
