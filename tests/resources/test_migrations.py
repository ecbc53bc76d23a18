"""Warehouses of every version come forward with their rows; whoever changes a table has to say how."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from dagster_project.commands.doctor import examine
from dagster_project.errors import HeedError
from dagster_project.resources.warehouse import migrations
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import run_lock
from dagster_project.resources.warehouse.schema import migrated, prepare

VERSION_1 = (Path(__file__).parent / "version_1.sql").read_text(encoding="utf-8")
ROWS = re.findall(r"^INSERT INTO ([a-z_.]+) ", VERSION_1, re.MULTILINE)
OWN_STEPS = migrations.steps()
OWN = "n.nspname IN ('raw', 'quality', 'training', 'scoring')"
# All that makes the form of a table, but for the order of its columns: one that was added later stands at the end.
FORM = f"""
SELECT concat_ws(' ', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                 a.attidentity, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum))
FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE {OWN} AND c.relkind IN ('r', 'v', 'p', 'm') AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT concat_ws(' ', n.nspname, c.relname, c.relkind, obj_description(c.oid, 'pg_class'),
                 CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) END)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE {OWN}
UNION ALL
SELECT concat_ws(' ', r.conrelid::regclass, r.conname, pg_get_constraintdef(r.oid))
FROM pg_constraint AS r JOIN pg_namespace AS n ON n.oid = r.connamespace WHERE {OWN}
UNION ALL
SELECT concat_ws(' ', pg_get_functiondef(p.oid), p.proacl)
FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE {OWN}
ORDER BY 1
"""


@pytest.fixture
def old(new_database: Callable[[], str], tmp_path: Path) -> Warehouse:
    """A warehouse of version 1 with a row in each table, not brought forward yet."""
    made = Warehouse(tmp_path, new_database())
    do(made, VERSION_1)
    return made


def do(warehouse: Warehouse, script: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(warehouse.url())
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(script)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def rows(warehouse: Warehouse, table: str) -> list[dict[str, Any]]:
    return [row for (row,) in do(warehouse, f"SELECT to_jsonb(t) FROM {table} AS t")]


def test_version_1_comes_forward_with_its_rows(old: Warehouse, warehouse: Warehouse) -> None:
    """And has the form of a new one: a change of schema.sql that lacks a step fails here."""
    before = {table: rows(old, table) for table in ROWS}
    assert len(before) == 27
    assert all(before.values())
    prepare(old)
    for table, had in before.items():
        now = rows(old, table)
        assert len(now) == len(had), table
        # A step that renames or drops a column says here what has become of it.
        assert [{name: row[name] for name in had[0]} for row in now] == had, table
    assert do(old, FORM) == do(warehouse, FORM)


def further(folder: Path, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
    """Let this heed have these steps after its own: schema.sql comes after all of them."""
    for step in OWN_STEPS:
        shutil.copy(step, folder)
    for number, script in enumerate(scripts, start=2 + len(OWN_STEPS)):
        (folder / f"{number:04d}_step.sql").write_text(script)
    monkeypatch.setattr(migrations, "FOLDER", folder)


def test_steps_run_in_order_once_and_all_or_nothing(
    old: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = "ALTER TABLE scoring.feedback ADD COLUMN more text; UPDATE scoring.feedback SET more = 'two';"
    further(tmp_path, monkeypatch, add, "SELECT 1 / 0;")
    with pytest.raises(psycopg2.errors.DivisionByZero):
        prepare(old)
    assert "more" not in rows(old, "scoring.feedback")[0]
    further(tmp_path, monkeypatch, add, "UPDATE scoring.feedback SET more = more || ', three';")
    for _ in range(2):
        prepare(old)
    assert rows(old, "scoring.feedback")[0]["more"] == "two, three"
    version = 1 + len(migrations.steps())
    do(old, f"COMMENT ON SCHEMA scoring IS 'heed''s tables, version {version}, as of schema.sql of another text'")
    prepare(old)  # another schema.sql of the same version: no step is due
    assert rows(old, "scoring.feedback")[0]["more"] == "two, three"


def test_a_step_waits_for_the_run_lock_and_a_run_that_holds_it_does_not(
    old: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further(tmp_path, monkeypatch, "ALTER TABLE scoring.feedback ADD COLUMN more text;")
    with run_lock(old, "a-run"):
        other = psycopg2.connect(old.url())
        with other.cursor() as cursor:
            cursor.execute("SET lock_timeout = '200ms'")
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                migrations.migrate(cursor, in_run=False)
        other.close()
        assert "more" not in rows(old, "scoring.feedback")[0]
        prepare(old)
    assert "more" in rows(old, "scoring.feedback")[0]


def test_a_newer_warehouse_is_refused_and_not_touched(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    newer = f"heed's tables, version {len(migrations.steps()) + 2}, as of schema.sql 0123456789ab"
    do(warehouse, f"COMMENT ON SCHEMA scoring IS '{newer.replace(chr(39), chr(39) * 2)}'")
    with pytest.raises(HeedError, match="Use the newer heed"):
        prepare(warehouse)
    with pytest.raises(HeedError, match=f"of version {len(migrations.steps()) + 2}"), migrated(warehouse):
        pass  # `heed init`
    assert do(warehouse, "SELECT obj_description('scoring'::regnamespace)") == [(newer,)]
    monkeypatch.setenv("HEED_HOME", str(warehouse.home))
    monkeypatch.setenv("HEED_DATABASE_URL", warehouse.url())
    assert [(each.what, each.level) for each in examine()][-1] == ("warehouse", "error")
