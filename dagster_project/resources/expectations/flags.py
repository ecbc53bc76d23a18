"""Flags, as expectations report them.

Belongs here: running the flags suite, and its unexpected rows as flags.
Does not belong here: how a flood is recognised (`triage/flags`), where flags are kept (`stores/flags.py`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dagster_project.resources.expectations.results import SuiteResult
from dagster_project.resources.expectations.validation import readable, validate

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FoundFlags:
    """The flags as Great Expectations reports them.

    Attributes
    ----------
    flood_days, visibility_only_rules : the tables, as `triage.flags.find.find_flags` returns them.
    alerts : the flags of each alert, as `triage.flags.exclusion.flag_alerts` computes them from the two tables.
    result : the validation of the suite `alert_volume`; its unexpected rows are the flagged alerts.
    """

    flood_days: pd.DataFrame
    visibility_only_rules: pd.DataFrame
    alerts: pd.DataFrame
    result: SuiteResult


def find_flags(
    history: pd.DataFrame,
    rules: pd.DataFrame | None,
    as_of: datetime,
    flood_settings: Any = None,
    visibility_settings: Any = None,
    overrides: pd.DataFrame | None = None,
) -> FoundFlags:
    """What is unexpected in a history: `triage.flags.find.find_flags`, run through the suite `alert_volume`.

    history, rules, as_of, overrides : as `triage.flags.find.find_flags` takes them.
    flood_settings, visibility_settings : the dataclasses of the same names in `triage`, or None.

    The unexpected rows *are* the flagged alerts: counts and sample rows in `result` are those of the alerts that
    `triage.flags.exclusion.flag_alerts` flags by the two tables.
    """
    if rules is not None and "declared_visibility_only" in rules:
        # Great Expectations copies parameters often: leave out the thousands of rules that declare nothing.
        rules = rules[rules["declared_visibility_only"].notna() & (rules["declared_visibility_only"] != False)]  # noqa: E712
    result = validate(
        "alert_volume",
        history,
        parameters={
            "as_of": as_of,
            "flood_settings": {} if flood_settings is None else asdict(flood_settings),
            "visibility_settings": {} if visibility_settings is None else asdict(visibility_settings),
            "rules": _records(rules),
            "overrides": _records(overrides),
        },
    )
    details = {outcome.check_name: outcome.details for outcome in result.results}
    floods, rules_acted_on = details["daily_volume_within_seasonal_band"], details["rules_are_acted_on"]
    return FoundFlags(floods["table"], rules_acted_on["table"], floods["alerts"], result)


def _records(frame: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: parameters travel as JSON."""
    if frame is None:
        return []
    return [{str(k): readable(v) for k, v in row.items()} for row in frame.to_dict("records")]
