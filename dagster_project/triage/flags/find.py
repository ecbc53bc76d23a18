"""Finding flags: floods first, then visibility-only rules on what is left.

Belongs here: the order of the two detectors, so that every caller gets the same flags.
Does not belong here: the statistics (`floods/`, `flags/visibility.py`) and what a flag excludes (`flags/exclusion.py`).
"""

from __future__ import annotations

from datetime import datetime

import pandas as pd

from dagster_project.triage.flags.floods import FloodSettings, detect_floods
from dagster_project.triage.flags.visibility import VisibilitySettings, declare_visibility_only


def find_flags(
    history: pd.DataFrame,
    rules: pd.DataFrame,
    as_of: datetime,
    flood_settings: FloodSettings | None = None,
    visibility_settings: VisibilitySettings | None = None,
    overrides: pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All flags that stand at `as_of`, with the times at which each became known and was decided.

    Returns: (flood_days, visibility_only_rules) : as `detect_floods` and `declare_visibility_only` return them.
    """
    flood_days = detect_floods(history, as_of, flood_settings or FloodSettings(), overrides)
    # A bug's alerts say nothing about the rule: with them counted, 2.6% of the rules of 30 simulated companies became
    # visibility-only at some time; without them, 0.3% (benchmarks/flags.py, development worlds).
    visibility_only = declare_visibility_only(
        history, rules, as_of, visibility_settings or VisibilitySettings(), overrides, flood_days
    )
    return flood_days, visibility_only
