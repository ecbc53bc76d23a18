"""dbt in a process that was started before it was told what to do, and that forks for each command."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest

from dagster_project.resources.dbt import prestarted
from dagster_project.resources.dbt.prestarted import DbtProcess, prepare_dbt, run_dbt
from dagster_project.resources.dbt.project import DBT_PROJECT, dbt_vars
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings

pytestmark = pytest.mark.slow

SEEDS = ("ls", "--resource-type", "seed")


@pytest.fixture(scope="module", autouse=True)
def _servers_of_their_own() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prestarted, "_idle", [])
        yield
        for server in prestarted._idle:
            server.process.kill()
            server.process.wait()


def prepared(warehouse: Warehouse) -> prestarted._Server:
    """The process that waits for commands on this warehouse."""
    prepare_dbt(warehouse, Settings())
    [server] = prestarted._idle
    return server


def begin(warehouse: Warehouse, folder: Path, *arguments: str) -> DbtProcess:
    environment = {**os.environ, **warehouse.dbt_environment(), "DBT_TARGET_PATH": str(folder)}
    environment |= {"DBT_LOG_PATH": str(folder), "DBT_PROFILES_DIR": str(DBT_PROJECT)}
    return run_dbt([*arguments, "--vars", json.dumps(dbt_vars(Settings()))], environment, DBT_PROJECT)


def end(process: DbtProcess) -> tuple[int, str]:
    output = process.stdout.read().decode()
    process.stdout.close()
    return process.wait(), output


def test_one_process_takes_all_commands_one_after_the_other(warehouse: Warehouse, tmp_path: Path) -> None:
    server = prepared(warehouse)
    assert prepared(warehouse) is server
    status, output = end(begin(warehouse, tmp_path, *SEEDS))
    assert status == 0, output
    assert output.split()[-1] == "heed.action_types"
    assert "Unable to do partial parsing" not in output, "the command parsed, although its server had"
    failed, output = end(begin(warehouse, tmp_path, "build", "--select", "tag:clean", "--target", "nowhere"))
    assert failed == 1
    assert "nowhere" in output
    process = begin(warehouse, tmp_path, *SEEDS)
    assert prestarted._idle == [], "one that is at work is not asked again"
    assert end(process)[0] == 0
    assert prestarted._idle == [server]
    assert server.process.poll() is None


def test_a_command_leaves_nothing_behind(warehouse: Warehouse, tmp_path: Path) -> None:
    server = prepared(warehouse)
    process = Path(f"/proc/{server.process.pid}")
    assert end(begin(warehouse, tmp_path, *SEEDS))[0] == 0
    before = sorted(os.readlink(file) for file in (process / "fd").iterdir()), os.readlink(process / "cwd")
    status, output = end(begin(warehouse, tmp_path, "run-operation", "create_functions"))
    assert status == 0, output
    assert (sorted(os.readlink(file) for file in (process / "fd").iterdir()), os.readlink(process / "cwd")) == before
    with psycopg2.connect(warehouse.url()) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dbt'")
        assert cursor.fetchone() == (0,)
    connection.close()


def test_what_was_parsed_for_one_warehouse_is_not_used_for_another(
    warehouse: Warehouse, new_prepared_database: Callable[[], str], tmp_path: Path
) -> None:
    prepared(warehouse)
    (tmp_path / "other").mkdir()
    other = Warehouse(tmp_path / "other", new_prepared_database())
    listed = ("--quiet", "ls", "--resource-type", "seed", "--output", "json", "--output-keys", "relation_name")
    for each in (warehouse, other, warehouse):
        status, output = end(begin(each, tmp_path, *listed))
        assert status == 0, output
        assert json.loads(output)["relation_name"].split(".")[0] == f'"{each.dbt_environment()["HEED_PG_DATABASE"]}"'


def test_what_is_killed_says_so_and_is_replaced(warehouse: Warehouse, tmp_path: Path) -> None:
    server = prepared(warehouse)
    process = begin(warehouse, tmp_path, *SEEDS)
    process.send_signal(signal.SIGKILL)
    assert end(process)[0] == -signal.SIGKILL
    assert end(begin(warehouse, tmp_path, *SEEDS))[0] == 0
    assert prestarted._idle == [server], "its fork was killed, and it was not"

    process = begin(warehouse, tmp_path, *SEEDS)
    server.process.kill()
    assert end(process)[0] == -signal.SIGKILL
    until = time.monotonic() + 10
    while Path(f"/proc/{process.pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{process.pid}").exists(), "dbt outlived the process that forked it"

    server = prepared(warehouse)
    server.process.kill()
    server.process.wait()
    status, output = end(begin(warehouse, tmp_path, *SEEDS))
    assert status == 0, output


def test_an_interrupted_command_ends_and_its_server_waits_for_the_next(warehouse: Warehouse, tmp_path: Path) -> None:
    prestarted._idle.clear()
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as in a process that a script started with `&`
    try:
        server = prepared(warehouse)
    finally:
        signal.signal(signal.SIGTERM, before)
    process = begin(warehouse, tmp_path, "show", "--inline", "SELECT pg_sleep(100)")
    process.send_signal(signal.SIGINT)
    status, output = end(process)
    assert status != 0, output
    assert prestarted._idle == [server]


def test_a_server_ends_with_its_starter(warehouse: Warehouse) -> None:
    server = prepared(warehouse)
    prestarted._idle.clear()
    server.connection.close()
    assert server.process.wait(timeout=120) == 0
