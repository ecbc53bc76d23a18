"""Flags and people's overrides, as tables.

Belongs here: reading and replacing flags, reading rules and overrides.
Does not belong here: what is flagged and why (`triage/flags`).
"""

from __future__ import annotations

import json
from datetime import datetime

import pandas as pd

from dagster_project.resources.stores.scores import to_arrow
from dagster_project.resources.warehouse.connection import Warehouse, append


def read_rules(warehouse: Warehouse) -> pd.DataFrame:
    """The facts that people declared about rules: rule, title, team, declared_visibility_only, created_at."""
    return warehouse.read(
        "SELECT rule, title, team, declared_visibility_only, created_at FROM marts.rules ORDER BY rule"
    )


def read_overrides(warehouse: Warehouse, as_of: datetime) -> pd.DataFrame:
    """People's overrides of flags up to `as_of`, with who, why, since when and until when."""
    return warehouse.read(
        "SELECT flag, action, scope_kind, scope, day::text AS day, until, who, why, created_at "
        "FROM quality.flag_overrides WHERE created_at <= $1 ORDER BY created_at, flag, scope",
        (as_of,),
    )


def read_flags(warehouse: Warehouse) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The flags as last published, with the times at which each became known: (flood_days, visibility_only_rules)."""
    from dagster_project.triage.flags.floods import FLOOD_COLUMNS
    from dagster_project.triage.flags.visibility import VISIBILITY_COLUMNS

    flood_days = warehouse.read(
        f"SELECT {', '.join(FLOOD_COLUMNS)} FROM quality.flood_days ORDER BY day, scope_kind, scope, recorded_at"
    )
    flood_days["rules"] = [json.loads(rules) for rules in flood_days["rules"]]
    visibility_only = warehouse.read(
        f"SELECT {', '.join(VISIBILITY_COLUMNS)} FROM quality.visibility_only_rules ORDER BY rule, detected_at"
    )
    return flood_days, visibility_only


def replace_flags(
    warehouse: Warehouse,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    flagged: pd.DataFrame,
    band: pd.DataFrame,
) -> None:
    """Publish the flags, all tables in one transaction. Readers see the old flags until it commits.

    flood_days, visibility_only : as `triage.flags.find_flags` returns them.
    flagged : alert_id, raised_at, flood, visibility_only, reason of flagged alerts.
    band : as `triage.floods.daily_band` returns it.
    """
    times = ("burst_from", "burst_until", "detected_at", "decided_at", "recorded_at", "superseded_at", "released_at")
    # These casts give a column without any value the right type, and change nothing otherwise.
    casts = {"day": "day::date", "rules": "rules::jsonb", **{name: f"{name}::timestamptz" for name in times}}
    rules = [json.dumps(list(rules), ensure_ascii=False) for rules in flood_days["rules"]]
    floods = flood_days.assign(rules=pd.Series(rules, dtype="str", index=flood_days.index))
    with warehouse.transaction() as cursor:
        for table, rows in (
            ("quality.flood_days", floods),
            ("quality.visibility_only_rules", visibility_only),
            ("quality.flagged_alerts", flagged),
            ("quality.daily_volume_band", band),
        ):
            cursor.execute(f"DELETE FROM {table}")
            append(
                cursor,
                table,
                to_arrow(rows),
                columns=", ".join(rows.columns),
                select=", ".join(casts.get(name, name) for name in rows.columns) + " FROM pg_temp.incoming",
            )
