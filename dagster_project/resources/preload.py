"""Preload heavy libraries while this process waits for dbt.

Belongs here: what the steps after dbt's import, and the thread that imports it.
Does not belong here: what is compiled once, at installation (`commands/precompile.py`).

While dbt and the warehouse clean, the process that runs the job is idle. The imports of the next steps take it some 8 s
of processor time (Great Expectations 5 s, LightGBM with scikit-learn 2 s, numba's kernels 1 s).
"""

from __future__ import annotations

import importlib
import threading
from contextlib import suppress

# In the order in which the steps need them.
_WANTED = (
    "pandas",
    "dagster_project.triage.flags.floods",
    "dagster_project.triage.features.history.kernels",
    "dagster_project.triage.learning.trees.kernels",
    "matplotlib.figure",
    "lightgbm",
)
_started = threading.Event()


def preload() -> None:
    """Start loading them in a thread, unless that was started before."""
    if not _started.is_set():
        _started.set()
        threading.Thread(target=load, name="preload", daemon=True).start()


def load() -> None:
    """Load them now."""
    # Any error here occurs again, and is reported, in the step that needs the import.
    with suppress(Exception):
        from dagster_project.resources.expectations.validation import load_suite

        load_suite("alert_outcomes")
    for name in _WANTED:
        with suppress(Exception):
            importlib.import_module(name)
