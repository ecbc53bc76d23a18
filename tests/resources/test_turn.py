"""One run at a time: the lock between processes, what waiting says, and who comes too late."""

import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from dagster_project.errors import HeedError
from dagster_project.resources.moment import AS_OF_TAG
from dagster_project.resources.postgres import Warehouse
from dagster_project.resources.turn import living_runs, refuse_if_overtaken, turn
from tests.conftest import PROJECT

HOLDER = """
import sys
from pathlib import Path
from dagster_project.resources.postgres import Warehouse
from dagster_project.resources.turn import turn
with turn(Warehouse(Path(sys.argv[1]), sys.argv[2]), "another-run"):
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
    with turn(warehouse, "mine", say):
        assert first.wait(60) == -9
        assert said == ["waiting: run another- is changing the warehouse"]
        with turn(warehouse, "inner", say):  # a run within a command joins its turn
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
