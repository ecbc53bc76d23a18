"""A warehouse for the tests of loading: one database for all of them, its raw tables empty for each."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loading_store import RAW_TABLES, Store

from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare


@pytest.fixture(scope="session")
def loading_warehouse(new_database: Callable[[], str]) -> Warehouse:
    warehouse = Warehouse(Path(tempfile.gettempdir()), new_database())
    prepare(warehouse)
    return warehouse


@pytest.fixture
def store(loading_warehouse: Warehouse, tmp_path: Path) -> Store:
    store = Store(loading_warehouse, tmp_path)
    store.rows(f"TRUNCATE {RAW_TABLES}")
    return store


@pytest.fixture
def no_warehouse() -> Callable[[], Any]:
    """For files that must be refused before the warehouse is touched."""

    def connect() -> Any:
        raise AssertionError("the warehouse was contacted")

    return connect
