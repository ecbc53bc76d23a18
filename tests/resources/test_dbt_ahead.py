"""dbt in a process that was started before it was told what to do."""

import os
from pathlib import Path

import pytest

from dagster_project.resources.dbt import prestarted as dbt_ahead
from dagster_project.resources.dbt.prestarted import prepare_dbt, run_dbt
from dagster_project.resources.dbt.project import DBT_PROJECT
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings


@pytest.fixture(autouse=True)
def _nobody_waits() -> None:
    for process in dbt_ahead._waiting:
        process.kill()
    dbt_ahead._waiting.clear()


def said(warehouse: Warehouse, folder: Path, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, **warehouse.dbt_environment(), "DBT_TARGET_PATH": str(folder)}
    environment |= {"DBT_LOG_PATH": str(folder), "DBT_PROFILES_DIR": str(DBT_PROJECT)}
    process = run_dbt(arguments, environment, DBT_PROJECT)
    assert process.stdout is not None
    output = process.stdout.read().decode()
    return process.wait(), output


def test_a_prepared_process_takes_the_command_and_another_is_started_only_once(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    prepare_dbt(warehouse, Settings())
    [waiting] = dbt_ahead._waiting
    prepare_dbt(warehouse, Settings())
    assert dbt_ahead._waiting == [waiting]
    status, output = said(warehouse, tmp_path / "target", "ls", "--resource-type", "seed")
    assert status == 0, output
    assert output.split()[-1] == "heed.action_types"
    assert waiting.returncode == 0
    assert not dbt_ahead._waiting


def test_a_process_that_died_while_it_waited_is_replaced(warehouse: Warehouse, tmp_path: Path) -> None:
    prepare_dbt(warehouse, Settings())
    dbt_ahead._waiting[0].kill()
    dbt_ahead._waiting[0].wait()
    status, output = said(warehouse, tmp_path / "target", "ls", "--resource-type", "seed")
    assert status == 0, output


def test_a_command_that_fails_says_so(warehouse: Warehouse, tmp_path: Path) -> None:
    status, output = said(warehouse, tmp_path / "target", "build", "--select", "tag:clean", "--target", "nowhere")
    assert status == 1
    assert "nowhere" in output


def test_a_process_that_is_told_nothing_ends(warehouse: Warehouse) -> None:
    prepare_dbt(warehouse, Settings())
    [waiting] = dbt_ahead._waiting
    assert waiting.stdin is not None
    waiting.stdin.close()
    assert waiting.wait(timeout=120) == 0
