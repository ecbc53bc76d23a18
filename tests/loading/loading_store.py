"""The raw tables as the tests of loading use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg2

from dagster_project.loading import LoadReport, load_file
from dagster_project.resources.warehouse.connection import Warehouse

RAW_TABLES = "raw.alerts, raw.actions, raw.rules, raw.action_types, raw.loads, raw.corrections, raw.undecodable_rows"


class Store:
    """The raw tables, and loading into them."""

    def __init__(self, warehouse: Warehouse, folder: Path) -> None:
        self.warehouse, self.folder = warehouse, folder
        self.url = warehouse.url()

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def load(self, kind: Any, path: Path, **options: Any) -> LoadReport:
        return load_file(kind, path, self.warehouse.connect, **options)

    def rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(query, parameters or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def count(self, table: str = "raw.alerts") -> int:
        return int(self.rows(f"SELECT count(*) FROM {table}")[0][0])

    def is_empty(self) -> bool:
        """Whether no load left any trace."""
        tables = RAW_TABLES.split(", ")
        return not any(self.count(table) for table in tables)
