"""dbt as a program: where it is, what it is told, and where it works.

Belongs here: the command, its variables and environment, its working directory with the parse that it keeps.
Does not belong here: SQL (`dbt_project/`) and how models become assets (`assets/dbt.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.private import share
from dagster_project.settings import PROJECT, Settings

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse

DBT_PROJECT = PROJECT / "dbt_project"
_PARSED = "partial_parse.msgpack"
# Its output goes into logs and messages, where escape codes of a terminal mean nothing and may hide what was written.
DBT_ANYWHERE = {
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DBT_USE_COLORS": "false",
    "DBT_USE_COLORS_FILE": "false",
    "NO_COLOR": "1",
}


def dbt_program() -> str:
    """The dbt command of this environment, also when the environment is not activated."""
    beside = Path(sys.executable).with_name("dbt")
    return str(beside) if beside.exists() else "dbt"


def dbt_vars(settings: Settings) -> dict[str, Any]:
    """What dbt is told of the settings: the same in every run, or dbt parses its whole project anew."""
    return {
        "raw_schema": settings.source.database_schema,
        "raw_alerts": settings.source.alerts,
        "raw_actions": settings.source.actions,
        "raw_rules": settings.source.rules,
        "source_time_zone": settings.source.time_zone,
        "clock_skew_minutes": settings.source.clock_skew_minutes,
        "earliest": settings.source.earliest,
        "horizon_days": settings.outcome.horizon_days,
    }


def dbt_environment(warehouse: Warehouse, as_of: datetime) -> dict[str, str]:
    """What dbt is told of the warehouse and of the moment."""
    return {**warehouse.dbt_environment(), "HEED_AS_OF": as_of.isoformat(), **DBT_ANYWHERE}


@contextmanager
def dbt_directory(home: Path) -> Iterator[Path]:
    """A directory for one invocation, holding the parse that the last good one left; removed when all went well.

    dbt keeps what it parsed and saves some 5 s of processor time with it (measured: 10.7 s for a whole parse, 5.6 s
    with it), but only beside the same profile and variables, hence one per home. What a failed invocation compiled
    stays, for whoever looks for the cause.
    """
    root = home / "dbt"
    directory = root / uuid.uuid4().hex[:12]
    directory.mkdir(parents=True)
    with suppress(FileNotFoundError):
        shutil.copy(root / _PARSED, directory / _PARSED)
    yield directory
    with suppress(FileNotFoundError):
        os.replace(directory / _PARSED, root / _PARSED)
    shutil.rmtree(directory, ignore_errors=True)


def build_clean_tables(warehouse: Warehouse, settings: Settings, as_of: datetime) -> None:
    """Build dbt's clean tables as of a moment, outside Dagster.

    Raises
    ------
    HeedError
        dbt failed; quotes the end of what it said.
    """
    with dbt_directory(warehouse.home) as directory:
        build = ("build", "--select", "tag:clean", "--exclude-resource-type", "unit_test")
        finished = _dbt(build, warehouse, settings, as_of, directory)
        if finished.returncode != 0:
            raise HeedError(f"dbt could not clean the tables ({_end(finished)})", "mend what it names and run again")


def write_docs(warehouse: Warehouse, settings: Settings, as_of: datetime, out: Path) -> None:
    """dbt's documentation of all tables of this warehouse as one HTML file: descriptions, contracts, tests, lineage.

    Raises
    ------
    HeedError
        dbt failed; quotes the end of what it said.
    """
    with dbt_directory(warehouse.home) as directory:
        finished = _dbt(("docs", "generate", "--static"), warehouse, settings, as_of, directory)
        page = directory / "static_index.html"
        if finished.returncode != 0 or not page.exists():
            raise HeedError(
                f"dbt could not write its documentation ({_end(finished)})",
                "run `heed run` first, and mend what it names",
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(page, out)
        share(out)


def _dbt(
    command: Sequence[str],
    warehouse: Warehouse,
    settings: Settings,
    as_of: datetime,
    directory: Path,
    more: Mapping[str, Any] | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(dbt_program(), "--quiet", *command),
            *("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)),
            *("--target-path", str(directory), "--log-path", str(directory)),
            *("--vars", json.dumps({**dbt_vars(settings), **(more or {})})),
        ],
        env={**os.environ, **dbt_environment(warehouse, as_of)},
        capture_output=True,
        text=True,
        check=False,
    )


def _end(finished: subprocess.CompletedProcess[str]) -> str:
    return " ".join((finished.stdout + finished.stderr).split())[-600:]
