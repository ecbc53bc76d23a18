"""Compile Python's modules, dbt's manifest and numba's kernels at installation, so that nobody waits for it later.

Belongs here: calling whatever compiles itself on first use. `make setup` runs it; skipping it only costs time later.
Does not belong here: anything that touches a warehouse.
"""

from __future__ import annotations

from datetime import timedelta


def precompile() -> None:
    """Import what a run imports, parse the dbt project and compile the kernels of features, floods and trees.

    What is compiled already is skipped. With PYTHONDONTWRITEBYTECODE, as in many containers, Python keeps nothing: each
    process compiles 3,000 modules again, in 4 s.
    """
    import numpy as np
    import pandas as pd
    from dbt.adapters.postgres import impl  # noqa: F401  (named by the profile)
    from dbt.task import build  # noqa: F401  (dbt imports its tasks late)

    import dagster_project.definitions  # noqa: F401
    from dagster_project.assets.dbt import ensure_manifest
    from dagster_project.resources.preload import load
    from dagster_project.triage.features.contract import FeatureSettings, history_features_for
    from dagster_project.triage.features.history import history_features
    from dagster_project.triage.features.keys import key_values
    from dagster_project.triage.flags.find import find_flags
    from dagster_project.triage.learning.trees import kernels  # noqa: F401  (compiled when they are imported)

    ensure_manifest()
    load()
    days = 30
    raised = pd.Series(pd.date_range("2025-01-01", periods=days * 8, freq="3h", tz="UTC")).dt.as_unit("us")
    history = pd.DataFrame(
        {
            "alert_id": [str(number) for number in range(len(raised))],
            "raised_at": raised,
            "rule": ["a", "b"] * (len(raised) // 2),
            "entity": "e",
            "team": "t",
            "severity": None,
            "attributes": None,
            "known_at": raised + timedelta(days=1),
            "acted": np.arange(len(raised)) % 2.0,
            "horizon_ends_at": raised + timedelta(days=14),
        }
    )
    settings = FeatureSettings()
    streams = pd.concat([key_values(history, settings.keys), history[["raised_at", "known_at", "acted"]]], axis=1)
    history_features(streams, streams, history_features_for(settings), settings.lookback)
    nothing = pd.Series([pd.NaT] * len(streams), dtype="datetime64[us, UTC]")
    excluded = streams.assign(excluded_from=nothing, excluded_until=nothing)
    excluded["excluded_from"] = excluded["raised_at"].where(excluded.index == 3)
    history_features(excluded, excluded, history_features_for(settings), settings.lookback)
    rules = pd.DataFrame({"rule": ["a"], "declared_visibility_only": [False], "created_at": [pd.NaT]})
    find_flags(history, rules, raised.iloc[-1].to_pydatetime())


if __name__ == "__main__":
    precompile()
