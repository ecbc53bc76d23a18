"""The stage that flags: flood days and visibility-only rules.

Belongs here: reading the clean history, finding what is unexpected in it, publishing the flags.
Does not belong here: the statistics (`triage/floods`, `triage/flags/visibility.py`) and their expectations
(`expectations/`).
"""

from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg

from dagster_project.assets.showing import table_metadata, volume_plot
from dagster_project.checks import (
    RowsToCheck,
    check_before_publishing,
    check_results,
    checks_for,
    markdown_table,
    suite_check_specs,
)
from dagster_project.resources.as_of import is_full_refresh, run_as_of
from dagster_project.resources.expectations.flags import find_flags
from dagster_project.resources.expectations.suites import suite_checksum
from dagster_project.resources.stores.flags import read_overrides, read_rules, replace_flags
from dagster_project.resources.stores.history import read_coded_history
from dagster_project.resources.stores.watermarks import remember_checked, unchecked_rows
from dagster_project.resources.warehouse.connection import Warehouse

FLOOD_DAYS = dg.AssetKey(["quality", "flood_days"])
VISIBILITY_ONLY = dg.AssetKey(["quality", "visibility_only_rules"])
FLAGGED_ALERTS = dg.AssetKey(["quality", "flagged_alerts"])
DAILY_VOLUME_BAND = dg.AssetKey(["quality", "daily_volume_band"])
_CLEAN = [dg.AssetKey(["marts", name]) for name in ("alerts", "alert_outcomes", "rules")]


def _mart(suite: str, table: str, witness: str) -> Callable[[Any], RowsToCheck]:
    """What a refresh checks: the rows written since the table last passed. The tables' indexes keep ids unique."""

    def load(context: dg.AssetCheckExecutionContext) -> RowsToCheck:
        warehouse, checksum = context.resources.warehouse, suite_checksum(suite)
        rows, is_all, transaction = unchecked_rows(
            warehouse, f"marts.{table}", suite, checksum, witness, full_refresh=is_full_refresh(context)
        )
        return RowsToCheck(
            rows,
            {"as_of": run_as_of(context).isoformat()} if table == "alert_outcomes" else None,
            "all" if is_all else "those written since all of them passed",
            lambda: remember_checked(warehouse, suite, checksum, transaction),
        )

    return load


# What dbt built is checked before Python uses it; a critical failure stops everything downstream.
clean_checks = [
    checks_for(
        suite,
        dg.AssetKey(["marts", table]),
        _mart(suite, table, witness),
        id_columns=(identifier,),
        required_resource_keys={"warehouse"},
    )
    for suite, table, identifier, witness in (
        ("clean_alerts", "alerts", "alert_id", "true"),
        ("clean_actions", "actions", "action_id", "meaning = 'acted'"),
        ("alert_outcomes", "alert_outcomes", "alert_id", "outcome = 'acted'"),
    )
]


@dg.multi_asset(
    name="flags",
    group_name="quality",
    specs=[
        dg.AssetSpec(
            FLOOD_DAYS,
            deps=_CLEAN,
            description="Bursts of alerts that a bug produced: a day and the scope that flooded. Suspected on the "
            "day itself; confirmed or cleared once outcomes say whether anybody acted.",
            owners=["team:data-science"],
            kinds={"python", "postgres"},
            metadata={"dagster/table_name": "quality.flood_days"},
        ),
        dg.AssetSpec(
            VISIBILITY_ONLY,
            deps=_CLEAN,
            description="Rules on which nobody acts by design: declared by people or inferred from outcomes, and "
            "released at the first action.",
            owners=["team:data-science"],
            kinds={"python", "postgres"},
            metadata={"dagster/table_name": "quality.visibility_only_rules"},
        ),
        dg.AssetSpec(
            FLAGGED_ALERTS,
            deps=_CLEAN,
            description="The alerts that are flagged now, and why: left out of training and the headline metrics.",
            owners=["team:data-science"],
            kinds={"python", "postgres"},
            metadata={"dagster/table_name": "quality.flagged_alerts"},
        ),
        dg.AssetSpec(
            DAILY_VOLUME_BAND,
            deps=_CLEAN,
            description="The volume of each day, and what the days before it led to expect.",
            owners=["team:data-science"],
            kinds={"python", "postgres"},
            metadata={"dagster/table_name": "quality.daily_volume_band"},
        ),
    ],
    check_specs=[
        *suite_check_specs("alert_volume", FLOOD_DAYS),
        *suite_check_specs("flood_days", FLOOD_DAYS),
        *suite_check_specs("visibility_only_rules", VISIBILITY_ONLY),
    ],
)
def flags(
    context: dg.AssetExecutionContext,
    warehouse: dg.ResourceParam[Warehouse],
) -> Iterator[Any]:
    from dagster_project.triage.flags.floods import daily_band

    as_of = run_as_of(context)
    history = read_coded_history(warehouse, as_of)
    # What the expectations on volume find unexpected becomes the flag.
    unexpected = find_flags(history, read_rules(warehouse), as_of, overrides=read_overrides(warehouse, as_of))
    flood_days, visibility_only = unexpected.flood_days, unexpected.visibility_only_rules
    # Both kinds of flags read the same overrides, and may warn of the same one.
    warnings = list(dict.fromkeys([*flood_days.attrs.get("warnings", []), *visibility_only.attrs.get("warnings", [])]))
    for warning in warnings:
        context.log.warning(warning)
    to_correct = {"overrides to mend": dg.MetadataValue.md(markdown_table([{"what": line} for line in warnings]))}
    yield from check_results(unexpected.result, FLOOD_DAYS)
    # Superseded rows are a flag's past, which replay needs. People and expectations look at the current ones.
    current = flood_days[flood_days["superseded_at"].isna()]
    yield from check_before_publishing("flood_days", FLOOD_DAYS, [current], id_columns=("day", "scope"))
    yield from check_before_publishing(
        "visibility_only_rules", VISIBILITY_ONLY, [visibility_only], id_columns=("rule",)
    )
    flags_now = unexpected.alerts
    excluded = flags_now["flood"] | flags_now["visibility_only"]
    # Filtered first: an empty frame would take on the rows of what is assigned to it.
    why = flags_now[excluded]
    flagged = history.loc[excluded, ["alert_id", "raised_at"]].assign(
        flood=why["flood"], visibility_only=why["visibility_only"], reason=why["flag_reason"]
    )
    band = daily_band(history, as_of)
    replace_flags(warehouse, flood_days, visibility_only, flagged, band)
    plot = volume_plot(band, current)
    yield dg.MaterializeResult(
        asset_key=FLOOD_DAYS,
        metadata={
            **table_metadata(warehouse, "quality.flood_days"),
            "confirmed": int((current["status"] == "confirmed").sum()),
            "suspected": int((current["status"] == "suspected").sum()),
            "cleared": int((current["status"] == "cleared").sum()),
            "daily volume": plot,
            **(to_correct if warnings else {}),
        },
    )
    yield dg.MaterializeResult(
        asset_key=VISIBILITY_ONLY,
        metadata={
            **table_metadata(warehouse, "quality.visibility_only_rules"),
            "in force": int((visibility_only["status"] != "released").sum()),
            **(to_correct if warnings else {}),
        },
    )
    number = max(len(history), 1)
    yield dg.MaterializeResult(
        asset_key=FLAGGED_ALERTS,
        metadata={
            **table_metadata(warehouse, "quality.flagged_alerts"),
            "share of alerts excluded": float(excluded.sum() / number),
            "share in floods": float(flags_now["flood"].sum() / number),
            "share of visibility-only rules": float(flags_now["visibility_only"].sum() / number),
        },
    )
    yield dg.MaterializeResult(
        asset_key=DAILY_VOLUME_BAND,
        metadata={
            **table_metadata(warehouse, "quality.daily_volume_band"),
            "daily volume": plot,
        },
    )
