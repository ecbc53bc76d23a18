"""The dbt project run by the real dbt on a real server: one database per scenario, filled by SQL.

Belongs here: starting dbt and reading what it made. Does not belong here: scenarios, which stand with their tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg2
import pytest
from dbt.cli.main import dbtRunner, dbtRunnerResult
from psycopg2.extras import Json, execute_values

from dagster_project.resources.stores.history import BEGINNING, HISTORY_COLUMNS, read_coded_history, read_history
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.triage.flags.find import find_flags

PROJECT = Path(__file__).resolve().parents[2] / "dbt_project"
PARSED = "partial_parse.msgpack"


class Dbt:
    """A database with heed's own tables, and dbt runs against it.

    Parameters
    ----------
    url : the database.
    folder : where dbt keeps its manifest and logs, so that runs do not disturb those of the project.
    """

    ALERT = "alert_id raised_at rule entity team severity value threshold title attributes loaded_at row_hash load_id"
    ACTION = "action_id alert_id acted_at action_type actor loaded_at row_hash load_id"

    def __init__(self, url: str, folder: Path) -> None:
        self.warehouse = Warehouse(folder, url)
        prepare(self.warehouse)
        self.url, self.folder = url, folder
        self.events: list[tuple[str, str]] = []

    def invoke(self, *arguments: str, as_of: datetime | None = None) -> dbtRunnerResult:
        """Run dbt in this process; the names and messages of its events stand in `events` afterwards.

        as_of : as heed gives it, in the environment: for another variable dbt would parse its whole project again.
        """
        self.events = []
        runner = dbtRunner(callbacks=[lambda event: self.events.append((event.info.name, event.info.msg))])
        places = [
            "--project-dir", str(PROJECT), "--profiles-dir", str(PROJECT), "--target-path", str(self.folder),
            *([] if "--write-json" in arguments else ["--no-write-json"]),
        ]  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.warehouse.dbt_environment().items():
                patch.setenv(name, value)
            patch.setenv("DBT_LOG_PATH", str(self.folder))
            if as_of is not None:
                patch.setenv("HEED_AS_OF", as_of.isoformat())
            patch.setenv("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
            before = os.getcwd()
            try:
                return runner.invoke(["--quiet", "--no-use-colors", *arguments, *places])
            finally:
                os.chdir(before)

    def run(self, *arguments: str, as_of: datetime | None = None) -> dict[str, str]:
        """Run dbt, require success, and return the status of each node by its name."""
        result = self.invoke(*arguments, as_of=as_of)
        assert result.success, result.exception or "\n".join(
            f"{node.node.name}: {node.message}" for node in result.result if node.status in ("error", "fail")
        )
        return {node.node.name: str(node.status) for node in result.result}

    def sql(self, query: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
            cursor.execute(query, parameters)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    def fill(self, table: str, columns: str, rows: Iterable[dict[str, Any]]) -> None:
        """Insert rows given as dictionaries; absent columns are null."""
        names = columns.split()
        values = [
            tuple(Json(row[name]) if isinstance(row.get(name), dict) else row.get(name) for name in names)
            for row in rows
        ]
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
            execute_values(cursor, f"INSERT INTO {table} ({', '.join(names)}) VALUES %s", values)
        connection.close()


_STANDS = """
SELECT alert_id, raised_at, rule, entity, team, severity, value, threshold, title, attributes::text AS attributes,
       loaded_at, CASE WHEN known_at <= $1 THEN known_at END AS known_at,
       CASE WHEN known_at <= $1 THEN (outcome = 'acted')::int::double precision END AS acted, horizon_ends_at
FROM marts.alerts JOIN marts.alert_outcomes USING (alert_id, raised_at)
WHERE raised_at >= $2 AND raised_at < $1 ORDER BY raised_at, alert_id
"""


def require_kept_is_what_stands(
    made: Dbt, as_of: datetime, since: datetime = BEGINNING, *, flags: bool = True
) -> pd.DataFrame:
    """What `read_history` gives is what the warehouse holds, coded or not, and so are the flags. Returns the rows.

    flags : False where the same rows were flagged before, or others like them: flagging them twice takes seconds.
    """
    stands = made.warehouse.read(_STANDS, (as_of, since))
    kept = read_history(made.warehouse, as_of, since)
    assert list(kept) == list(HISTORY_COLUMNS)
    pd.testing.assert_frame_equal(kept, stands)
    some = ("alert_id", "acted", "known_at")
    pd.testing.assert_frame_equal(read_history(made.warehouse, as_of, since, some), stands[list(some)])
    if since == BEGINNING:
        flagged_by = read_coded_history(made.warehouse, as_of)
        assert "attributes" not in flagged_by
        for column in flagged_by.columns.intersection(stands.columns):
            ours, theirs = (
                each[column].astype(object).where(each[column].notna(), None).to_list() for each in (flagged_by, stands)
            )
            assert ours == theirs, column
    if since == BEGINNING and flags:
        for ours, theirs in zip(find_flags(flagged_by, None, as_of), find_flags(stands, None, as_of), strict=True):
            pd.testing.assert_frame_equal(ours, theirs)
    return kept


@pytest.fixture(scope="session")
def parses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the parses are kept that dbt stored, by the name of the database that they are for."""
    return tmp_path_factory.mktemp("parses")


@pytest.fixture
def dbt_database(
    prepared_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, parses: Path
) -> Iterator[Callable[[], Dbt]]:
    """Creates a database with heed's tables, empty, and dbt to run on it."""
    yield from databases(prepared_database, tmp_path_factory, parses, "dbt_of_test")


@pytest.fixture(scope="module")
def lasting_dbt_database(
    prepared_database: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, parses: Path
) -> Iterator[Callable[[], Dbt]]:
    """The same, for all tests of a module."""
    yield from databases(prepared_database, tmp_path_factory, parses, "dbt_of_module")


def databases(
    prepared_database: Callable[[str], str], factory: pytest.TempPathFactory, parses: Path, prefix: str
) -> Iterator[Callable[[], Dbt]]:
    """The names begin from 1 each time: dbt need not parse its project again for a database whose name it has seen."""
    made: list[Dbt] = []

    def create() -> Dbt:
        name = f"{prefix}_{len(made) + 1}"
        made.append(Dbt(prepared_database(name), factory.mktemp("dbt")))
        with suppress(FileNotFoundError):
            shutil.copy(parses / name, made[-1].folder / PARSED)
        return made[-1]

    yield create
    for number, each in enumerate(made, 1):
        with suppress(FileNotFoundError):
            shutil.copy(each.folder / PARSED, parses / f"{prefix}_{number}")
