"""One run at a time: the lock between processes, what waiting says, and who comes too late."""

import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import psycopg2
import psycopg2.extensions
import pytest

from dagster_project.commands.doctor import _connection
from dagster_project.errors import HeedError
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.warehouse.abandoned_runs import living_runs, refuse_if_overtaken
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import pools_transactions, run_lock
from dagster_project.settings import Settings
from tests.conftest import PROJECT
from tests.resources.transaction_pooler import transaction_pooler

HOLDER = """
import sys
from pathlib import Path
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import run_lock
with run_lock(Warehouse(Path(sys.argv[1]), sys.argv[2]), "another-run"):
    print("mine", flush=True)
    sys.stdin.readline()
"""


def test_the_second_waits_until_the_first_is_gone_however_it_ends(warehouse: Warehouse) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(warehouse.home), warehouse.url()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
    )
    assert first.stdout is not None
    assert first.stdout.readline() == "mine\n"
    assert living_runs(warehouse) == {"another-run"}
    said: list[str] = []
    waits = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waits.set()

    def kill() -> None:
        assert waits.wait(60)
        first.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with run_lock(warehouse, "mine", say):
        assert first.wait(60) == -9
        assert said == ["waiting: run another- is changing the warehouse"]
        with run_lock(warehouse, "inner", say):  # a run within a command shares its run lock
            assert living_runs(warehouse) == {"inner"}
    killer.join()
    assert living_runs(warehouse) == set()


def test_only_a_scheduled_run_can_be_overtaken(warehouse: Warehouse) -> None:
    now = datetime.now(UTC)
    with warehouse.transaction() as cursor:
        for as_of in (now - timedelta(minutes=10), now + timedelta(hours=2)):  # the second: a clock that was ahead once
            cursor.execute(
                "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES ($1, now(), 0, 0)",
                parameters=(as_of,),
            )

    def run(as_of: datetime, **tags: str) -> dg.DagsterRun:
        return dg.DagsterRun(job_name="refresh_scores", tags={AS_OF_TAG: as_of.isoformat(), **tags})

    scheduled = {"dagster/schedule_name": "refresh_scores_schedule"}
    with pytest.raises(HeedError, match="overtaken"):
        refuse_if_overtaken(warehouse, run(now - timedelta(minutes=15), **scheduled))
    refuse_if_overtaken(warehouse, run(now - timedelta(minutes=10), **scheduled))
    refuse_if_overtaken(warehouse, run(now, **scheduled))
    refuse_if_overtaken(warehouse, run(now - timedelta(minutes=15)))


END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'heed run mine'"
PUBLISH = "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES (now(), now(), 0, 0)"


def published(warehouse: Warehouse) -> int:
    return int(Warehouse(warehouse.home, warehouse.url()).value("SELECT count(*) FROM scoring.publications"))


def order(warehouse: Warehouse, statement: str) -> None:
    """As somebody else."""
    connection = psycopg2.connect(warehouse.url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


def test_a_server_that_ends_idle_sessions_does_not_end_the_turn(warehouse: Warehouse) -> None:
    name = warehouse.value("SELECT current_database()")
    order(warehouse, f"ALTER DATABASE {name} SET idle_session_timeout = '2s'")
    with run_lock(warehouse, "mine"):
        time.sleep(3.5)
        assert living_runs(warehouse) == {"mine"}
        with warehouse.transaction() as cursor:
            cursor.execute(PUBLISH)
    assert published(warehouse) == 1


def test_a_run_whose_lock_is_gone_commits_nothing(warehouse: Warehouse) -> None:
    with run_lock(warehouse, "mine"):
        with pytest.raises(HeedError, match=r"run mine lost the run lock: .* has ended"):  # noqa: PT012, SIM117
            with warehouse.transaction() as cursor:
                cursor.execute(PUBLISH)
                order(warehouse, END)
        with pytest.raises(HeedError, match="lost the run lock"):
            warehouse.value("SELECT 1")
    assert published(warehouse) == 0
    with run_lock(warehouse, "next"), warehouse.transaction() as cursor:
        cursor.execute(PUBLISH)
    assert published(warehouse) == 1


def test_a_run_that_only_reads_learns_of_it_too(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_project.resources.warehouse.run_lock.HEARTBEAT_SECONDS", 0.05)

    def read_on() -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            warehouse.value("SELECT 1")

    with run_lock(warehouse, "mine"):
        order(warehouse, END)
        with pytest.raises(HeedError, match="lost the run lock"):
            read_on()


def test_a_pooler_in_transaction_mode_is_recognised_and_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    parts = psycopg2.extensions.parse_dsn(warehouse.url())
    assert not pools_transactions(warehouse)
    with (
        tempfile.TemporaryDirectory() as short,
        transaction_pooler(Path(parts["host"]) / f".s.PGSQL.{parts.get('port', 5432)}", Path(short)),
    ):
        pooled = Warehouse(tmp_path, f"postgresql://{parts['user']}@/{parts['dbname']}?host={short}")
        assert pooled.value("SELECT count(*) FROM scoring.publications") == 0
        assert pools_transactions(pooled)
        with pytest.raises(HeedError, match="pooler in transaction mode"), run_lock(pooled, "mine"):
            pass
        assert [finding.level for finding in _connection(pooled, Settings())] == ["error"]
    assert [finding.level for finding in _connection(warehouse, Settings())] == ["ok"]
