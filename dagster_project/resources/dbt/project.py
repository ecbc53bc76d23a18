"""dbt as a program: the command, its variables, its environment and its working directory.

Belongs here: starting dbt outside Dagster, and the directory with its stored parse.
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
# Its output goes into logs and messages, where a terminal's escape codes only hide text.
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


def project_files() -> list[Path]:
    """What the dbt project consists of."""
    folders = [DBT_PROJECT / folder for folder in ("models", "macros", "seeds", "tests")]
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    return [*files, DBT_PROJECT / "dbt_project.yml"]


def newest_change() -> float:
    """When the dbt project last changed, in seconds since 1970."""
    return max(path.stat().st_mtime for path in project_files())


def dbt_vars(settings: Settings) -> dict[str, Any]:
    """The variables that follow from the settings. If they change, dbt parses its project again."""
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
    """The environment variables that dbt reads: the connection, and the as-of."""
    return {**warehouse.dbt_environment(), "HEED_AS_OF": as_of.isoformat(), **DBT_ANYWHERE}


@contextmanager
def dbt_directory(home: Path) -> Iterator[Path]:
    """A directory for one invocation, with the parse that the last successful one left; removed on success.

    dbt stores what it parsed, which saves some 5 s of processor time (measured: 10.7 s for a full parse, 5.6 s with
    it), but only for the same profile and variables, hence one per home. After a failure the directory stays, with
    the compiled SQL, so that you can look for the cause.
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

    Raises HeedError: dbt failed; quotes the end of its output.
    """
    with dbt_directory(warehouse.home) as directory:
        build = ("build", "--select", "tag:clean", "--exclude-resource-type", "unit_test")
        finished = _dbt(build, warehouse, settings, as_of, directory)
        if finished.returncode != 0:
            raise HeedError(
                f"dbt could not clean the tables ({end_of_output(finished)})", "correct what it names and run again"
            )


def write_docs(warehouse: Warehouse, settings: Settings, as_of: datetime, out: Path) -> None:
    """dbt's documentation of all tables of this warehouse as one HTML file: descriptions, contracts, tests, lineage.

    Raises HeedError: dbt failed; quotes the end of its output.
    """
    with dbt_directory(warehouse.home) as directory:
        finished = _dbt(("docs", "generate", "--static"), warehouse, settings, as_of, directory)
        page = directory / "static_index.html"
        if finished.returncode != 0 or not page.exists():
            raise HeedError(
                f"dbt could not write its documentation ({end_of_output(finished)})",
                "run `heed run` first, and correct what it names",
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(page, out)
        share(out)


def _dbt(
    command: Sequence[str], warehouse: Warehouse, settings: Settings, as_of: datetime, directory: Path
) -> subprocess.CompletedProcess[str]:
    places = ("--target-path", str(directory), "--log-path", str(directory), "--vars", json.dumps(dbt_vars(settings)))
    return call_dbt((*command, *places), dbt_environment(warehouse, as_of))


def call_dbt(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run `dbt` on heed's project, in a process of its own, and wait for it."""
    return subprocess.run(
        [dbt_program(), "--quiet", *command, "--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def end_of_output(finished: subprocess.CompletedProcess[str]) -> str:
    """The last words of what it said."""
    return " ".join((finished.stdout + finished.stderr).split())[-600:]
