"""The warehouse: Arrow in, Arrow out, pandas frames for those who ask.

Belongs here: connections, reading a query into a frame, bulk writing, the tables that Python writes (`schema.sql`),
and what dbt must know to reach the same database.
Does not belong here: what is read or written and why (assets), and the embedded server's life
(`embedded_postgres.py`).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection, Cursor

SCHEMA_FILE = Path(__file__).parent / "schema.sql"
URL_VARIABLE = "HEED_DATABASE_URL"

# Held while a run changes the warehouse, so that two runs cannot interleave: any constant that is heed's own.
RUN_LOCK = 0x68656564


class Warehouse:
    """One PostgreSQL database: the one that `HEED_DATABASE_URL` names, else the embedded one of this home.

    Nothing is started or contacted before the first connection.

    Parameters
    ----------
    home : the state directory; the embedded server's data stands in it.
    url : a libpq URL; `None` means the environment's, else the embedded server.
    """

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.home = home
        self._given_url = url if url is not None else os.environ.get(URL_VARIABLE)

    @property
    def is_embedded(self) -> bool:
        return not self._given_url

    def url(self) -> str:
        """The database's URL, with the embedded server running. May hold a password: never log it."""
        if self._given_url:
            return self._given_url
        from dagster_project.resources.embedded_postgres import embedded_url

        return embedded_url(self.home)

    def describe(self) -> str:
        """Where the warehouse is, without secrets."""
        if self.is_embedded:
            return f"embedded PostgreSQL of {self.home}"
        parts = urlsplit(str(self._given_url))
        host = parts.hostname or unquote(parse_qs(parts.query).get("host", ["?"])[0])
        return f"PostgreSQL at {host}:{parts.port or 5432}, database {parts.path.lstrip('/') or 'postgres'}"

    def connect(self) -> Connection:
        """A new connection, not in autocommit mode: what is not committed did not happen.

        Raises
        ------
        HeedError
            The server is not reachable or refuses; the message holds no password.
        """
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi

        url = self.url()
        try:
            connection = dbapi.connect(url)
            with connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
            connection.commit()
        except Error as error:
            raise HeedError(
                f"the warehouse is not reachable: {self.describe()} ({_reason(error, url)})",
                f"start it, or correct {URL_VARIABLE}; `heed doctor` tells more",
            ) from error
        return connection

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor in one transaction: committed at the end, rolled back on any error."""
        with self.connect() as connection:
            with connection.cursor() as cursor:
                try:
                    yield cursor
                except BaseException:
                    connection.rollback()
                    raise
            connection.commit()

    def read_arrow(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of a query as an Arrow table. Values go as `$1, $2, ...`, never into the text."""
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(query, parameters=tuple(parameters) or None)
            return cursor.fetch_arrow_table()

    def read(self, query: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """The result of a query as a frame; times as datetime64[us, UTC], text as str with missing values."""
        return self.read_arrow(query, parameters).to_pandas()

    def value(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        table = self.read_arrow(query, parameters)
        return table.column(0)[0].as_py() if table.num_rows else None

    def columns(self, table: str) -> list[dict[str, str]]:
        """The columns of a table, in order: name, type, and description (empty where none was given)."""
        return self.read_arrow(
            "SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type, "
            "coalesce(col_description(attrelid, attnum), '') AS description FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (table,),
        ).to_pylist()

    def prepare(self) -> None:
        """Create the schemas and tables that heed itself writes, where they do not exist yet."""
        self.connect().close()  # an unreachable warehouse is said in heed's own words
        import psycopg2  # dbt's own driver: unlike ADBC it runs a script of several statements

        connection = psycopg2.connect(self.url())
        try:
            with connection, connection.cursor() as cursor:
                # Concurrent CREATE IF NOT EXISTS of the same object collide in PostgreSQL; one at a time does not.
                cursor.execute("SELECT pg_advisory_xact_lock(%s)", (RUN_LOCK + 1,))
                cursor.execute(SCHEMA_FILE.read_text(encoding="utf-8"))
        finally:
            connection.close()

    def dbt_environment(self) -> dict[str, str]:
        """The environment variables that `dbt_project/profiles.yml` reads."""
        parts = urlsplit(self.url())
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        environment = {
            "HEED_PG_HOST": parts.hostname or query.get("host", "localhost"),
            "HEED_PG_PORT": str(parts.port or query.get("port", 5432)),
            "HEED_PG_USER": unquote(parts.username or query.get("user", "postgres")),
            "HEED_PG_PASSWORD": unquote(parts.password or query.get("password", "")),
            "HEED_PG_DATABASE": unquote(parts.path.lstrip("/")) or "postgres",
        }
        if "sslmode" in query:
            environment["PGSSLMODE"] = query["sslmode"]
        return environment


def append(cursor: Cursor, table: str, rows: pa.Table, *, columns: str, select: str, conflict: str = "") -> int:
    """Bulk-write rows (COPY into a temporary table, then one INSERT), and return how many were added.

    Parameters
    ----------
    table : the qualified target, written by heed's own code, never by users.
    columns : the target's columns, as SQL.
    select : the expressions over the temporary table `incoming`, as SQL after SELECT, with FROM and what follows.
    conflict : an ON CONFLICT clause.
    """
    cursor.execute("DROP TABLE IF EXISTS pg_temp.incoming")
    cursor.adbc_ingest("incoming", rows, mode="create", temporary=True)
    cursor.execute(
        f"WITH added AS (INSERT INTO {table} ({columns}) SELECT {select} {conflict} RETURNING 1) "
        "SELECT count(*) FROM added"
    )
    row = cursor.fetchone()
    cursor.execute("DROP TABLE pg_temp.incoming")
    return int(row[0]) if row else 0


def _reason(error: Exception, url: str) -> str:
    text = " ".join(str(error).split())
    password = urlsplit(url).password
    for secret in filter(None, (url, password, unquote(password) if password else None)):
        text = text.replace(secret, "***")
    return text[:300]
