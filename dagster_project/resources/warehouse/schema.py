"""Create heed's own tables, or migrate them to this version.

Belongs here: when the tables are created or migrated, and how long a migration waits for readers.
Does not belong here: the tables (`schema.sql`), the migration steps (`migrations/`), the tables that dbt builds.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.migrations import migrate, refuse_newer, schema_version
from dagster_project.resources.warehouse.roles import create_roles, grant
from dagster_project.resources.warehouse.run_lock import holds_run_lock

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg2.extensions import cursor as ScriptCursor

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings

# How long a migration tries to get the locks that it needs, one second at a time.
CHANGE_SECONDS = 30.0


def prepare(warehouse: Warehouse) -> None:
    """Create heed's schemas and tables, or migrate existing ones to this version.

    Tables of this version are not touched: even a statement that changes nothing would wait for writers, and readers
    would queue behind it. A login that may not create tables needs tables of this version.

    Raises HeedError: the warehouse is not reachable, a newer heed created its tables, or the login may not create or
        migrate them.
    """
    from psycopg2 import errors

    if stored_version(warehouse) == schema_version():
        return
    try:
        with migrated(warehouse) as cursor:
            if warehouse.has_roles():  # new tables need their rights too
                grant(cursor)
    except errors.InsufficientPrivilege as error:
        raise HeedError(
            f"the tables in {warehouse.describe()} are missing or of another version, and this login may not change it",
            "run `heed init` as the owner of the database",
        ) from error


def initialise(warehouse: Warehouse, settings: Settings) -> list[str]:
    """Create or migrate the tables and create the roles with their rights (`heed init`), in one transaction.

    Safe to run again.

    Returns: Statements left to the owner: grants on the user's own tables that this login may not make.
    Raises HeedError: the login may not create roles, or does not own what exists.
    """
    from psycopg2 import errors

    try:
        with migrated(warehouse) as cursor:
            return create_roles(cursor, settings)
    except errors.InsufficientPrivilege as error:
        raise HeedError(
            f"this login may not do that in {warehouse.describe()} ({' '.join(str(error).split())})",
            "run `heed init` as the owner of the database, with the right CREATEROLE",
        ) from error


def stored_version(warehouse: Warehouse) -> str | None:
    """The schema version that the warehouse records; None where it records none.

    Raises HeedError: a newer heed created the tables.
    """
    version = warehouse.value("SELECT obj_description(to_regnamespace('scoring'), 'pg_namespace')")
    refuse_newer(version)
    return version


@contextmanager
def migrated(warehouse: Warehouse) -> Iterator[ScriptCursor]:
    """A cursor in a transaction in which heed's tables have this version; one at a time in a database.

    Raises HeedError: the warehouse is not reachable, or other sessions hold the tables for too long.
    """
    warehouse.connect().close()  # reports an unreachable warehouse in heed's own words
    import psycopg2  # dbt's own driver: unlike ADBC it runs a script of several statements

    connection = psycopg2.connect(warehouse.url())
    until = time.monotonic() + CHANGE_SECONDS
    try:
        with connection, connection.cursor() as cursor:
            while True:
                try:
                    migrate(cursor, in_run=holds_run_lock(warehouse))
                    break
                except psycopg2.errors.LockNotAvailable as error:
                    connection.rollback()
                    if time.monotonic() > until:
                        raise HeedError(
                            "the tables cannot be brought to this version of heed while others hold them: "
                            + (warehouse.holders(readers=True) or "a session that has since ended"),
                            "end that session, SELECT pg_terminate_backend(pid), or let it finish, then try again",
                        ) from error
                time.sleep(1)  # lets queued readers through
            yield cursor
    finally:
        connection.close()
