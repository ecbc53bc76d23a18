"""Overrides: decisions by people about floods, which win over the statistics.

Belongs here: reading overrides (also those of visibility-only rules), and rows flagged or cleared by a person.
Does not belong here: storing them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.flags.floods.history import DAY, NEVER, History, as_of_us
from dagster_project.triage.flags.floods.sources import has_source


@dataclass(frozen=True)
class Override:
    """One override, read: `scope`, `kind` (or None), `day` (days since the epoch, or None), `clear` or flag,
    times in microseconds (`NEVER` for no end), who, why, and the number of its row."""

    scope: str
    kind: str | None
    day: int | None
    clear: bool
    until: int
    who: str
    why: str
    created: int
    number: int


def read_overrides(overrides: pd.DataFrame | None, flag: str, now: int) -> tuple[list[Override], list[str]]:
    """The overrides of one flag that were made by `now`, in order of `created_at`, and warnings about
    unreadable ones.

    An override without `created_at` (a seed written by hand) always holds.
    """
    read: list[Override] = []
    warnings: list[str] = []
    if overrides is None or len(overrides) == 0:
        return read, warnings

    def text(row: Any, name: str) -> str | None:
        value = row.get(name)
        return None if value is None or (not isinstance(value, str) and pd.isna(value)) or value == "" else str(value)

    for number, row in enumerate(overrides.to_dict("records"), start=1):
        if text(row, "flag") != flag:
            if text(row, "flag") not in ("flood", "visibility_only"):
                warnings.append(
                    f"override {number}: flag {row.get('flag')!r} is unknown, write flood or visibility_only"
                )
            continue
        scope = text(row, "scope") or text(row, "rule")
        action = text(row, "action")
        if scope is None or action not in ("flag", "clear"):
            warnings.append(f"override {number}: it needs a scope or rule, and the action flag or clear")
            continue
        try:
            day = None if text(row, "day") is None else as_of_us(text(row, "day")) // DAY
            until = NEVER if text(row, "until") is None else as_of_us(text(row, "until"))
            created = 0 if text(row, "created_at") is None else as_of_us(text(row, "created_at"))
        except (ValueError, TypeError) as error:
            warnings.append(f"override {number}: a time cannot be read ({error})")
            continue
        if created <= now:
            who, why = text(row, "who") or "somebody", text(row, "why") or "no reason given"
            kind = text(row, "scope_kind")
            read.append(Override(scope, kind, day, action == "clear", until, who, why, created, number))
    read.sort(key=lambda o: o.created)
    return read, warnings


def overrule(rows: list[dict[str, Any]], h: History, overrides: pd.DataFrame | None, now: int) -> list[str]:
    """Apply overrides to `rows`, in place. Returns warnings."""
    read, warnings = read_overrides(overrides, "flood", now)
    for override in read:
        scope = _scope_of(h, override)
        if scope is None:
            warnings.append(f"override {override.number}: there is no rule, team or source {override.scope!r}")
            continue
        kind, where, inside = scope
        if override.day is not None:
            covered = {override.day}
        else:
            covered = set(np.unique(h.day[inside]).tolist())
            covered = {d for d in covered if d >= override.created // DAY and d * DAY < override.until}
        if override.clear:
            _clear(rows, override, kind, covered)
        else:
            _flag(rows, h, override, kind, where, inside, covered)
    return warnings


def _scope_of(h: History, o: Override) -> tuple[str, tuple[str, str] | None, np.ndarray] | None:
    """Kind, shared attribute and alerts of the scope that an override names; None if there is none."""
    if o.kind in (None, "rule") and (at := np.flatnonzero(h.rules == o.scope)).size:
        return "rule", None, h.rule == at[0]
    if o.kind in (None, "team") and (at := np.flatnonzero(h.teams == o.scope)).size:
        return "team", ("team", o.scope), h.team == at[0]
    if o.kind in (None, "all") and o.scope == "all alerts":
        return "all", None, np.ones(len(h.rule), bool)
    if o.kind in (None, "source") and " = " in o.scope:
        name, value = o.scope.split(" = ", 1)
        inside = has_source(h.sources, np.arange(len(h.rule)), name, value)
        if inside.any():
            return "source", (name, value), inside
    return None


def _supersede(rows: list[dict[str, Any]], row: dict[str, Any], at: int) -> None:
    """End a view at `at`; a decision that it would have reached later is dropped."""
    if at <= row["recorded_at"]:
        rows[:] = [other for other in rows if other is not row]
        return
    row["superseded_at"] = at
    if row["decided_at"] >= at:
        row.update(status="suspected", decision=None, decided_at=NEVER, decided_by=None, acted_share=math.nan)


def _clear(rows: list[dict[str, Any]], o: Override, kind: str, days: set[int]) -> None:
    for row in list(rows):
        if row["day"] not in days or row["superseded_at"] != NEVER:
            continue
        if row["scope_kind"] == kind and row["scope"] == o.scope:
            at = max(o.created, row["recorded_at"])
            view = dict(row)
            view.update(
                status="cleared",
                decision=f"{o.who}: {o.why}",
                acted_share=math.nan,
                decided_at=at,
                decided_by=o.who,
                recorded_at=at,
                superseded_at=NEVER,
            )
            _supersede(rows, row, at)
            rows.append(view)
        elif kind == "rule":
            # A rule that a person clears leaves the floods of many rules too.
            row["membership"] = [
                (r, since, min(until, o.created) if r == o.scope else until)
                for r, since, until in row["membership"]
                if r != o.scope or since < o.created
            ]


def _flag(
    rows: list[dict[str, Any]],
    h: History,
    o: Override,
    kind: str,
    where: tuple[str, str] | None,
    inside: np.ndarray,
    days: set[int],
) -> None:
    for day in sorted(days):
        alerts = np.flatnonzero(inside & (h.day == day))
        if len(alerts) == 0:
            continue
        at = max(o.created, int(h.raised[alerts[0]]) + 1)
        if at > h.as_of:
            continue
        rule, first = np.unique(h.rule[alerts], return_index=True)
        membership = [
            (str(h.rules[r]), max(at, int(h.raised[alerts[f]]) + 1), NEVER) for r, f in zip(rule, first, strict=True)
        ]
        view = {
            "day": day,
            "scope_kind": kind,
            "scope": o.scope,
            "where_name": where[0] if where else None,
            "where_value": where[1] if where else None,
            "volume": len(alerts),
            "expected": math.nan,
            "score": math.nan,
            "evidence": f"{o.who}: {o.why}",
            "detected_at": at,
        }
        for row in list(rows):
            same = row["day"] == day and row["scope_kind"] == kind and row["scope"] == o.scope
            if same and row["superseded_at"] == NEVER:
                if row["recorded_at"] < at:
                    view.update({k: row[k] for k in ("expected", "score", "evidence", "detected_at")})
                _supersede(rows, row, at)
        view.update(
            membership=membership,
            burst_from=NEVER,
            burst_until=NEVER,
            acted_share=math.nan,
            status="confirmed",
            decision=f"{o.who}: {o.why}",
            decided_at=at,
            decided_by=o.who,
            recorded_at=at,
            superseded_at=NEVER,
        )
        rows.append(view)
