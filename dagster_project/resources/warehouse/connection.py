"""The warehouse: queries into Arrow tables or pandas frames, and bulk writing.

Belongs here: connections, reading a query, bulk writing, and the variables by which dbt reaches the same database.
Does not belong here: what is read or written and why (assets), the embedded server's life (`embedded.py`), heed's own
tables and their versions (`schema.py`).
"""

from __future__ import annotations

import os
import re
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from dagster_project.errors import HeedError, one_line
from dagster_project.resources.warehouse.role_names import HAS_ROLES, TRANSFORMER

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection, Cursor

URL_VARIABLE = "HEED_DATABASE_URL"

# What a server says while it restarts or is overloaded. That is temporary, and a run need not fail for it.
_TEMPORARY = re.compile(
    "starting up|shutting down|recovery mode|not yet accepting connections|too many clients|connection slots|"
    "too many connections"
)
PATIENCE_SECONDS = 15.0  # a restart takes a few seconds, and nobody should wait much longer for `heed doctor`
# Readers hold up no statement of an ordinary run, but somebody's LOCK TABLE or CREATE INDEX does. This is longer than
# an index on a million rows takes, and shorter than a person watches a run that makes no progress.
LOCK_SECONDS = 60

_HOLDERS = """
SELECT activity.pid, coalesce(usename::text, 'unknown') AS who,
       coalesce(nullif(application_name, ''), 'unnamed') AS what, state,
       to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') AS since,
       array_agg(DISTINCT relation::regclass::text) AS tables
FROM pg_locks AS held JOIN pg_stat_activity AS activity ON activity.pid = held.pid
JOIN pg_class ON pg_class.oid = held.relation AND pg_class.relkind IN ('r', 'v')
WHERE held.granted AND held.pid <> pg_backend_pid() AND NOT starts_with(application_name, 'heed run ')
  AND relnamespace::regnamespace::text IN
      ('raw', 'staging', 'marts', 'quality', 'training', 'scoring', 'reporting')
  AND (mode NOT IN ('AccessShareLock', 'RowShareLock') OR $1)
GROUP BY 1, 2, 3, 4, 5, xact_start ORDER BY xact_start LIMIT 5
"""

# libpq's parameters that dbt's profile does not name, and the variables by which they reach dbt anyway.
_PASSED_ON = {
    **{name: f"PG{name.upper()}" for name in ("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "options")},
    **{"passfile": "PGPASSFILE", "channel_binding": "PGCHANNELBINDING", "target_session_attrs": "PGTARGETSESSIONATTRS"},
}


class Guard(Protocol):
    """A condition that must hold while a run writes: see `run_lock.py`."""

    def require(self) -> None:
        """Raise `HeedError` if it is known not to hold any more."""

    def verify(self, cursor: Cursor) -> None:
        """Ask the server in the cursor's transaction, and raise `HeedError` if it does not hold."""


class Warehouse:
    """One PostgreSQL database: the one that `HEED_DATABASE_URL` names, else the embedded one of this home.

    Nothing is started or contacted before the first connection.

    home : the state directory, which contains the embedded server's data.
    url : a libpq URL; `None`: the one in the environment, else the embedded server.
    """

    def __init__(self, home: Path, url: str | None = None) -> None:
        self.home = home
        self._external_url = url if url is not None else os.environ.get(URL_VARIABLE)
        # Whether the history cache was refreshed under this run lock, and nothing was cleaned since.
        self.history_is_current = False
        self._connection_users = 0
        self._idle: list[Connection] = []
        self._guards: list[Guard] = []

    @property
    def is_embedded(self) -> bool:
        return not self._external_url

    def url(self) -> str:
        """The database's URL, with the embedded server running. May hold a password: never log it."""
        if self._external_url:
            return self._external_url
        from dagster_project.resources.warehouse.embedded import embedded_url

        return embedded_url(self.home)

    def describe(self) -> str:
        """Where the warehouse is, without secrets."""
        if self.is_embedded:
            return f"embedded PostgreSQL of {self.home}"
        parts = _parsed(str(self._external_url))
        host = parts.get("host") or parts.get("hostaddr") or "localhost"
        place = f"{host}:{parts.get('port') or 5432}, database {parts.get('dbname') or 'postgres'}"
        return one_line(f"PostgreSQL at {place}")

    def connect(self) -> Connection:
        """A new connection, not in autocommit mode.

        Raises HeedError: the server is unreachable or refuses; the message contains no password.
        """
        from adbc_driver_manager import Error
        from adbc_driver_postgresql import dbapi

        url = self.url()
        _parsed(url)  # libpq's own error quotes what it cannot parse, which may be the password
        until = time.monotonic() + PATIENCE_SECONDS
        restarted = False
        while True:
            try:
                connection = dbapi.connect(url)
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT set_config('timezone', 'UTC', false), set_config('lock_timeout', $1, false)",
                        parameters=(f"{LOCK_SECONDS}s",),
                    )
                    cursor.fetchall()
                connection.commit()
                return connection
            except Error as error:
                if _TEMPORARY.search(str(error)) and time.monotonic() < until:
                    time.sleep(0.5)
                elif self.is_embedded and not restarted:
                    from dagster_project.resources.warehouse.embedded import restart

                    restart(self.home)
                    restarted = True
                else:
                    raise self.unreachable(str(error)) from error

    def unreachable(self, message: str) -> HeedError:
        """What to raise when the server could not be reached; removes secrets from the driver's message."""
        return HeedError(
            f"the warehouse is not reachable: {self.describe()} ({_without_secrets(message, self.url())})",
            f"start it, or correct {URL_VARIABLE}; `heed doctor` tells more",
        )

    @contextmanager
    def keeping_a_connection(self) -> Iterator[None]:
        """Within it, a used connection is kept for its next use: connecting takes 40 ms, and a run does it 60 times."""
        self._connection_users += 1
        try:
            yield
        finally:
            self._connection_users -= 1
            if not self._connection_users:
                self.history_is_current = False
            while self._idle and not self._connection_users:
                _close(self._idle.pop())

    @property
    def keeps_a_connection(self) -> bool:
        """Whether this process holds the run lock, so that nobody else changes the clean tables."""
        return self._connection_users > 0

    @contextmanager
    def guarded(self, guard: Guard) -> Iterator[None]:
        """Within it, nothing is read, written or committed once the guard fails."""
        if guard in self._guards:
            yield
            return
        self._guards.append(guard)
        try:
            yield
        finally:
            self._guards.remove(guard)

    def unguarded(self) -> Warehouse:
        """The same warehouse without guards: how a run ended is recorded even if it lost the run lock."""
        return Warehouse(self.home, self._external_url or "")

    def holders(self, *, readers: bool = False) -> str:
        """The sessions that lock heed's tables against writers, in words, the oldest first; empty: none.

        readers : include sessions that only read.
        """
        from adbc_driver_manager import Error

        with suppress(Error, HeedError):
            return "; ".join(
                f"pid {row['pid']} (user {row['who']}, application {row['what']}"
                + (f", {row['state']} since {row['since']} UTC" if row["since"] else "")
                + f") holds {', '.join(row['tables'][:3])}"
                + (f" and {len(row['tables']) - 3} more" if len(row["tables"]) > 3 else "")
                for row in self.read_arrow(_HOLDERS, (readers,)).to_pylist()
            )
        return ""

    @contextmanager
    def _borrowed(self) -> Iterator[Connection]:
        """A connection for one use, outside any transaction before and after it."""
        for guard in self._guards:
            guard.require()
        connection = self._idle.pop() if self._idle else None
        if connection is not None and not _is_alive(connection):
            _close(connection)
            connection = None
        connection = connection or self.connect()
        try:
            yield connection
            connection.rollback()  # what was only read
        except BaseException:
            _close(connection)  # rolls back
            raise
        if self._connection_users and not self._idle:
            self._idle.append(connection)
        else:
            _close(connection)

    @contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """A cursor in one transaction: committed at the end, rolled back on any error.

        Raises HeedError: the run has lost the run lock, or other sessions held a lock for too long; names them.
        """
        from adbc_driver_manager import Error

        try:
            with self._borrowed() as connection:
                with connection.cursor() as cursor:
                    try:
                        yield cursor
                        for guard in self._guards:
                            guard.verify(cursor)
                    except BaseException:
                        connection.rollback()
                        raise
                connection.commit()
        except Error as error:
            if "lock timeout" not in str(error):
                raise
            holders = self.holders() or "a session that has since ended"
            raise HeedError(
                f"writing waited {LOCK_SECONDS} s for a lock: {holders}",
                "end that session, SELECT pg_terminate_backend(pid), or let it finish, then run again",
            ) from error

    def read_arrow(self, query: str, parameters: Sequence[Any] = ()) -> pa.Table:
        """The result of a query as an Arrow table. Values go as `$1, $2, ...`, never into the text."""
        with self._borrowed() as connection, connection.cursor() as cursor:
            cursor.execute(query, parameters=tuple(parameters) or None)
            return cursor.fetch_arrow_table()

    def read(self, query: str, parameters: Sequence[Any] = ()) -> pd.DataFrame:
        """The result of a query as a frame; times as datetime64[us, UTC], text as str with missing values."""
        return self.read_arrow(query, parameters).to_pandas()

    def read_parts(self, query: str, parameters: Sequence[Any] = (), rows: int = 250_000) -> Iterator[pa.Table]:
        """As `read_arrow`, in parts of `rows` rows, at least one part: little more than a part is in memory at once.

        The iterator holds a connection until it is exhausted or closed.
        """
        import pyarrow as pa

        with self._borrowed() as connection, connection.cursor() as cursor:
            cursor.execute(query, parameters=tuple(parameters) or None)
            reader = cursor.fetch_record_batch()
            held, has_yielded = reader.schema.empty_table(), False
            for batch in reader:
                held = pa.concat_tables([held, pa.Table.from_batches([batch])])
                while held.num_rows > rows:
                    yield held.slice(0, rows)
                    held, has_yielded = held.slice(rows), True
            if held.num_rows or not has_yielded:
                yield held

    def value(self, query: str, parameters: Sequence[Any] = ()) -> Any:
        """The first column of the first row, or None when there is no row."""
        table = self.read_arrow(query, parameters)
        return table.column(0)[0].as_py() if table.num_rows else None

    def may_read(self, schema: str, table: str) -> bool | None:
        """Whether this login may read a table; None where there is no such table.

        `to_regclass` would fail in a schema that the login may not use.
        """
        return self.value(
            "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') FROM pg_class AS c "
            "JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2",
            (schema, table),
        )

    def columns(self, table: str) -> list[dict[str, str]]:
        """The columns of a table, in order: name, type, and description (empty: none)."""
        return self.read_arrow(
            "SELECT attname::text AS name, format_type(atttypid, atttypmod) AS type, "
            "coalesce(col_description(attrelid, attnum), '') AS description FROM pg_attribute "
            "WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            (table,),
        ).to_pylist()

    def has_roles(self) -> bool:
        """Whether `heed init` has created this database's roles."""
        return bool(self.read_arrow(HAS_ROLES).to_pylist()[0]["has_roles"])

    def dbt_environment(self) -> dict[str, str]:
        """The environment variables that `dbt_project/profiles.yml` reads."""
        parts = _parsed(self.url())
        roles = self.read_arrow(HAS_ROLES).to_pylist()[0]
        return {
            "HEED_PG_HOST": parts.get("host") or parts.get("hostaddr") or "localhost",
            "HEED_PG_PORT": parts.get("port") or "5432",
            "HEED_PG_USER": parts.get("user") or "postgres",
            "HEED_PG_PASSWORD": parts.get("password") or "",
            "HEED_PG_DATABASE": parts.get("dbname") or "postgres",
            "HEED_PG_ROLE": TRANSFORMER if roles["has_roles"] and roles["is_member"] else "",
            **{variable: parts[name] for name, variable in _PASSED_ON.items() if parts.get(name)},
        }


def _is_alive(connection: Connection) -> bool:
    """Whether a kept connection still has a server behind it."""
    from adbc_driver_manager import Error

    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            cursor.fetchall()
        connection.rollback()
    except Error:
        return False
    return True


def _close(connection: Connection) -> None:
    from adbc_driver_manager import Error

    with suppress(Error):  # the server may be gone
        connection.close()


def append(
    cursor: Cursor, table: str, rows: pa.Table, *, columns: str, select: str, conflict: str = "", keep: str = ""
) -> int:
    """Bulk-write rows (COPY into a temporary table, then one INSERT), and return how many were added.

    table : the qualified target, from heed's own code, never from users.
    columns : the target's columns, as SQL.
    select : the expressions over the temporary table `incoming`, as SQL after SELECT, including the FROM clause.
    conflict : an ON CONFLICT clause.
    keep : a column of the target; the added rows' values in it go into the temporary table `added`.
    """
    cursor.execute("DROP TABLE IF EXISTS pg_temp.incoming")
    cursor.adbc_ingest("incoming", rows, mode="create", temporary=True)
    cursor.execute(
        f"WITH new AS (INSERT INTO {table} ({columns}) SELECT {select} {conflict} RETURNING {keep or 1}) "
        + (", kept AS (INSERT INTO pg_temp.added SELECT * FROM new) " if keep else "")
        + "SELECT count(*) FROM new"
    )
    row = cursor.fetchone()
    cursor.execute("DROP TABLE pg_temp.incoming")
    return int(row[0]) if row else 0


def quoted(*parts: str) -> str:
    """A name in SQL, like "schema"."table", whatever characters it holds."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def _parsed(url: str) -> dict[str, str]:
    """The parts of a URL or of a `key=value` line, as libpq itself reads them.

    Raises HeedError: it is neither. Unlike libpq's own error, the message quotes nothing of it.
    """
    import psycopg2
    from psycopg2.extensions import parse_dsn

    try:
        return {name: str(value) for name, value in parse_dsn(url).items()}
    except (psycopg2.Error, ValueError, UnicodeError):
        raise HeedError(
            f"{URL_VARIABLE} is not the address of a database",
            "write it like postgresql://user:password@host:5432/database, with special characters percent-encoded",
        ) from None


# Where a connection string holds its password: `user:password@host` and `password=...`.
_PASSWORD = re.compile(r"(?<=:)[^\s:@/]+(?=@)|(?<=password=)\S+", re.IGNORECASE)
# Masking a password that is an ordinary word would reveal it: "*** authentication failed". Mask only unusual ones.
_UNUSUAL = re.compile(r"(?=.*[^A-Za-z]).{8,}", re.DOTALL)


def _without_secrets(message: str, url: str) -> str:
    """A driver's message on one line without the password: no driver is known to quote it, but none is trusted."""
    text = _PASSWORD.sub("***", " ".join(message.split()).replace(url, "***"))
    password = _parsed(url).get("password")
    for secret in filter(None, (password, unquote(password) if password else None)):
        if _UNUSUAL.match(secret):
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
    return text[:300]
