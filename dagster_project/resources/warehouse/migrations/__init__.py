"""Versions of heed's own tables, and migrating from an older one to this one with the rows in place.

Belongs here: which version created the tables, the steps in this folder (`0002_*.sql`, ...), refusing newer warehouses.
Does not belong here: the current form of the tables (`schema.sql`), what dbt builds (it rebuilds that itself), rights.

The version is recorded in the comment on schema `scoring`, so a dump includes it. Tables from before versions were
recorded are of version 1. `schema.sql` runs after the steps: it creates what is new, and leaves existing tables alone.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.locks import RUN_LOCK, SCHEMA_LOCK
from dagster_project.settings import PROJECT

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as ScriptCursor

SCHEMA_FILE = Path(__file__).parents[1] / "schema.sql"
FOLDER = Path(__file__).parent
_VERSION = re.compile(r"heed's tables, version (\d+),")


def steps() -> list[Path]:
    """The steps in order: the first leads from version 1 to 2."""
    files = sorted(FOLDER.glob("[0-9]*.sql"))
    assert [int(step.name[:4]) for step in files] == list(range(2, 2 + len(files))), "steps are numbered without a gap"
    return files


def own_tables() -> list[str]:
    """heed's own tables, with their schemas. Any other table in those schemas is not heed's."""
    return re.findall(r"^CREATE TABLE IF NOT EXISTS ([a-z_.]+)", SCHEMA_FILE.read_text(encoding="utf-8"), re.MULTILINE)


def schema_version() -> str:
    """The version of heed's tables, with a checksum of `schema.sql`, as the comment on schema `scoring` records it."""
    checksum = hashlib.sha256(SCHEMA_FILE.read_bytes()).hexdigest()[:12]
    return f"heed's tables, version {1 + len(steps())}, as of schema.sql {checksum}"


def refuse_newer(recorded: str | None) -> int:
    """The number in a recorded version; 1 where none is recorded.

    Raises HeedError: a newer heed created the tables, and this one does not know their form.
    """
    counted = _VERSION.match(recorded or "")
    version, known = int(counted[1]) if counted else 1, 1 + len(steps())
    if version > known:
        raise HeedError(
            f"the warehouse's tables are of version {version}, and this heed knows versions up to {known}",
            "use the newer heed, or restore a backup from before it",
        )
    return version


def migrate(cursor: ScriptCursor, *, in_run: bool) -> None:
    """Create the tables, or migrate existing ones to this version, in the cursor's transaction: all of it or nothing.

    cursor : at the beginning of a transaction.
    in_run : whether this process holds the run lock (`run_lock.py`). If not, a migration waits until nobody does: a
        run of the older heed would find tables that it does not know.
    """
    # The run lock comes first: a run that holds it and migrates takes the second lock while it holds the first.
    if _due(cursor) and not in_run:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (RUN_LOCK,))
    # Concurrent CREATE IF NOT EXISTS of the same object collide in PostgreSQL; one at a time does not.
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
    # Changing a table waits for its readers, and later readers queue behind it: wait a second, then the caller retries.
    cursor.execute("SET LOCAL lock_timeout = '1s'")
    _refuse_tables_of_others(cursor)
    for step in _due(cursor):  # checked again: another process may have migrated meanwhile
        cursor.execute(step.read_text(encoding="utf-8"))
    cursor.execute(SCHEMA_FILE.read_text(encoding="utf-8"))
    cursor.execute("COMMENT ON SCHEMA scoring IS %s", (schema_version(),))


def _refuse_tables_of_others(cursor: ScriptCursor) -> None:
    """Refuse a database where tables that heed and its dbt would replace were created by others.

    Only checked when heed uses a database for the first time. Tables in `raw` are what heed is to read.

    Raises HeedError: there is such a table.
    """
    cursor.execute(
        "SELECT obj_description(to_regnamespace('scoring'), 'pg_namespace') IS NULL "
        "AND to_regclass('training.model_versions') IS NULL"
    )
    [is_first_use] = cursor.fetchone() or [False]
    if not is_first_use:
        return
    replaced = [*tables_of_dbt(), *(name for name in own_tables() if not name.startswith("raw."))]
    cursor.execute(
        "SELECT nspname || '.' || relname FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace "
        "WHERE nspname || '.' || relname = ANY(%s) ORDER BY 1",
        (replaced,),
    )
    if others := [name for (name,) in cursor.fetchall()]:
        raise HeedError(
            f"this database holds {', '.join(others[:3])}{' and others' if len(others) > 3 else ''}, which heed did "
            "not create and would replace",
            "give heed a database of its own, or move them to another schema",
        )


def tables_of_dbt() -> list[str]:
    """Every schema.table that the dbt project builds."""
    project = PROJECT / "dbt_project"
    tables = [f"staging.{path.stem}" for path in project.glob("seeds/*.csv")]
    for path in project.glob("models/*/*.sql"):
        schema = "staging" if path.parent.name == "intermediate" else path.parent.name
        alias = re.search(r"alias='(\w+)'", path.read_text(encoding="utf-8"))
        tables.append(f"{schema}.{alias[1] if alias else path.stem}")
    return tables


def _due(cursor: ScriptCursor) -> list[Path]:
    """The steps that have not run yet; none if there are no tables."""
    cursor.execute(
        "SELECT obj_description(to_regnamespace('scoring'), 'pg_namespace'), to_regclass('training.model_versions')"
    )
    recorded, table = cursor.fetchone() or (None, None)
    return steps()[refuse_newer(recorded) - 1 :] if table else []
