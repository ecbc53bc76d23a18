"""Expectations about volume and outcomes: the unexpected rows are the alerts that heed flags.

Belongs here: calling heed's statistics, and marking the unexpected alerts. Does not belong here: the statistics
themselves (`dagster_project/triage/flags`: `find.find_flags`, `exclusion.flag_alerts`), and publishing the flags.

Both expectations share one metric with the same arguments, so that Great Expectations computes the flags once for
both, and rules are judged after floods were left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from dagster_project.errors import HeedError

from .rows import RowsExpectation, Unexpected, frame_metric

FLAGS = "heed.flags"
ARGUMENTS = ("as_of", "flood_settings", "visibility_settings", "rules", "overrides")


@dataclass(frozen=True)
class Flags:
    """The flags of a history: both tables as `triage.flags.find.find_flags` returns them, and the flags per alert."""

    flood_days: pd.DataFrame
    visibility_only_rules: pd.DataFrame
    alerts: pd.DataFrame


@frame_metric(FLAGS, *ARGUMENTS)
def find_all_flags(
    frame: pd.DataFrame,
    *,
    as_of: str,
    flood_settings: dict[str, Any] | None = None,
    visibility_settings: dict[str, Any] | None = None,
    rules: list[dict[str, Any]] | None = None,
    overrides: list[dict[str, Any]] | None = None,
) -> Flags:
    """The flags that hold at `as_of`. `frame` is a history: alerts with their outcomes as known then."""
    from dagster_project.triage.flags.exclusion import flag_alerts
    from dagster_project.triage.flags.find import find_flags
    from dagster_project.triage.flags.floods import FloodSettings
    from dagster_project.triage.flags.visibility import VisibilitySettings

    for column in ("raised_at", "rule", "known_at", "acted"):
        if column not in frame:
            raise HeedError(f"a history without the column {column!r} has no flags", "join alerts with their outcomes")
    flood_days, visibility_only = find_flags(
        frame,
        pd.DataFrame(rules or [], columns=None if rules else ["rule", "declared_visibility_only", "created_at"]),
        datetime.fromisoformat(as_of),
        FloodSettings(**(flood_settings or {})),
        VisibilitySettings(**(visibility_settings or {})),
        pd.DataFrame(overrides) if overrides else None,
    )
    return Flags(flood_days, visibility_only, flag_alerts(frame, flood_days, visibility_only))


class _FlagExpectation(RowsExpectation):
    """What the two expectations share: the arguments.

    Args:
        as_of (str): The as-of of the flags, ISO 8601; or a suite parameter.
        flood_settings (dict): Fields of `triage.flags.floods.FloodSettings` that differ from the default; or a suite
            parameter.
        visibility_settings (dict): Likewise, of `triage.flags.visibility.VisibilitySettings`.
        rules (list of dict): What is declared about rules: rule, declared_visibility_only, created_at.
        overrides (list of dict): Decisions by people, as `triage.flags.floods.detect_floods` takes them.
    """

    as_of: Any
    flood_settings: Any = None
    visibility_settings: Any = None
    rules: Any = None
    overrides: Any = None
    success_keys = ARGUMENTS
    args_keys = ("as_of",)


class ExpectDailyVolumeWithinSeasonalBand(_FlagExpectation):
    """Expect each day's volume to lie within the seasonal band of its rule, team, source and the whole company.

    The alerts of a day and scope outside the band are unexpected, until their outcomes show that it was a real
    incident: they are the flood alerts. The band and the decision are those of `triage/flags/floods`.

    Great Expectations' own volume checks compare a whole table with a fixed range; a flood is a scope on a day.
    """

    metric_dependencies = (FLAGS,)

    def find(self, value: Flags, frame: pd.DataFrame) -> Unexpected:
        """The alerts of floods that are suspected or confirmed, the table of all floods, and all flags per alert."""
        standing = value.flood_days
        if "superseded_at" in standing:
            standing = standing[standing["superseded_at"].isna()]
        by_status = standing["status"].value_counts()
        counted = ", ".join(f"{by_status.get(status, 0)} {status}" for status in ("suspected", "confirmed", "cleared"))
        return Unexpected(
            value.alerts["flood"].to_numpy(dtype=bool),
            columns=("raised_at", "rule"),
            observed=f"floods: {counted}",
            details={"table": value.flood_days, "alerts": value.alerts},
        )


class ExpectRulesToBeActedOn(_FlagExpectation):
    """Expect each rule to be acted on from time to time.

    The alerts of a rule on which nobody acts, by declaration or by the record, are unexpected: they are the
    visibility-only alerts. Bound and release are those of `triage/flags/visibility.py`.
    """

    metric_dependencies = (FLAGS,)

    def find(self, value: Flags, frame: pd.DataFrame) -> Unexpected:
        """The alerts of rules that are visibility-only now, and the table of all such rules."""
        rules = value.visibility_only_rules
        holding = rules.loc[rules["status"] != "released", "rule"].nunique()
        return Unexpected(
            value.alerts["visibility_only"].to_numpy(dtype=bool),
            columns=("raised_at", "rule"),
            observed=f"visibility-only rules: {holding}",
            details={"table": rules},
        )
