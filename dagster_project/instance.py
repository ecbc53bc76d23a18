"""Dagster's instance directory in the state directory, created on first use.

Belongs here: `dagster.yaml` and finding the instance.
Does not belong here: what runs on it (`automation.py`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_project.private import private_directory

if TYPE_CHECKING:
    from dagster import DagsterInstance

# Written once and never again, so that your changes to it (dagster-postgres, another launcher) last.
_DAGSTER_YAML = """\
# Dagster's instance for this heed home. Yours to change; see docs/data-engineer.md.
nux:
  enabled: false
telemetry:
  enabled: false
storage:
  custom:
    module: dagster_project.resources.run_history
    class: RunHistory
    config:
      base_dir:
        env: DAGSTER_HOME
concurrency:
  runs:
    max_concurrent_runs: 4
    tag_concurrency_limits:
      - key: heed/warehouse
        value: writer
        limit: 1
run_monitoring:
  enabled: true
  max_runtime_seconds: 21600
retention:
  schedule:
    purge_after_days: 30
  sensor:
    purge_after_days: 7
"""


def dagster_home(home: Path) -> Path:
    """The instance directory of this home, with its `dagster.yaml`; also exported as DAGSTER_HOME."""
    private_directory(home)
    directory = home / "dagster"
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "dagster.yaml"
    if not file.exists():
        file.write_text(_DAGSTER_YAML, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(directory)
    return directory


def relax_sync() -> None:
    """Let Dagster's SQLite files sync at checkpoints rather than at every event.

    A run over a year of days records about a thousand events, each in its own transaction. With a sync, each takes
    40 ms: 40 s of a run of 120 s (measured on 60,000 alerts over 200 days). In WAL mode the files stay consistent
    without it. A power cut may lose the end of Dagster's own run history, never alerts or scores.
    """
    import sqlite3

    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = NORMAL")

    global _RELAXED
    if not _RELAXED:
        event.listen(Engine, "connect", relax)
        _RELAXED = True


_RELAXED = False


def dagster_instance(home: Path) -> DagsterInstance:
    """The instance of this home: whose runs `make up` shows."""
    from dagster import DagsterInstance

    relax_sync()
    return DagsterInstance.from_config(str(dagster_home(home)))
