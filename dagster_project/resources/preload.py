"""Loading heavy libraries while this process waits for another one.

Belongs here: what the steps after dbt's will import, and the thread that does so.
Does not belong here: what is compiled once, at installation (`commands/precompile.py`).

While dbt and the warehouse clean, the process that runs the job has nothing to do. What the next steps import costs it
some 8 s of processor time (Great Expectations 5 s, LightGBM with scikit-learn 2 s, numba's kernels 1 s).
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
    """Begin to load them in a thread of their own; at once when they are loaded or being loaded."""
    if not _started.is_set():
        _started.set()
        threading.Thread(target=load, name="load-meanwhile", daemon=True).start()


def load() -> None:
    """Load them now."""
    # Whatever goes wrong here goes wrong again, and is told, in the step that needs it.
    with suppress(Exception):
        from dagster_project.resources.expectations.validation import load_suite

        load_suite("alert_outcomes")
    for name in _WANTED:
        with suppress(Exception):
            importlib.import_module(name)
