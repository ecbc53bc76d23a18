"""Dagster's run history in SQLite, with connections that are kept open for a second.

Belongs here: how Dagster's own storage opens its files. `dagster.yaml` names the class (`instance.py`).
Does not belong here: what is recorded (Dagster decides) and the warehouse (`warehouse/connection.py`).

For every event, Dagster opens its SQLite files, lets SQLAlchemy initialize the dialect, and closes them again, which
moves the write-ahead log into the file every time. A run over a year of days records 1,300 events: 16 s of
processor time, or 2 s with connections that are kept open (measured on 60,000 alerts over 200 days).
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage, SqliteStorageConfig
from dagster._serdes import ConfigurableClassData
from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.pool import StaticPool

# The UI follows a run by watching the file. While a connection is open, the file changes only when the log has grown by
# 4 MB, so a connection is closed once it is this old, and the UI lags by no more.
KEPT_SECONDS = 1.0
BUSY_SECONDS = 60.0  # how long to wait while another process writes, as Dagster's own connections do


@dataclass
class _Kept:
    engine: Engine
    until: float
    process: int


class _Connections:
    """One connection per file, used by one thread at a time, for at most `KEPT_SECONDS`."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    @contextmanager
    def connect(self, url: str) -> Iterator[Connection]:
        """A transaction. The caller holds a lock, as one connection serves all threads."""
        now = time.monotonic()
        for other in [key for key, kept in self._kept.items() if kept.until < now or kept.process != os.getpid()]:
            self._drop(other)
        kept = self._kept.get(url)
        if kept is None:
            engine = create_engine(
                url, poolclass=StaticPool, connect_args={"timeout": BUSY_SECONDS, "check_same_thread": False}
            )
            kept = self._kept[url] = _Kept(engine, now + KEPT_SECONDS, os.getpid())
        try:
            with kept.engine.connect() as connection, connection.begin():
                yield connection
        except BaseException:
            self._drop(url)  # whatever went wrong with it, the next one begins afresh
            raise

    def close(self) -> None:
        for url in list(self._kept):
            self._drop(url)

    def _drop(self, url: str) -> None:
        kept = self._kept.pop(url, None)
        if kept is not None:
            # A forked child must not close its parent's files: that would release SQLite's locks.
            kept.engine.dispose(close=kept.process == os.getpid())


class EventLog(SqliteEventLogStorage):
    """Dagster's event log."""

    def __init__(self, base_dir: str) -> None:
        self._connections = _Connections()
        self._tables: set[str] = set()
        self._asset_columns: set[str] = set()
        super().__init__(base_dir)

    def has_table(self, table_name: str) -> bool:
        # Called for every event about a check or an asset. Existing tables stay; others may appear by migration.
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: Connection, column_name: str) -> bool:
        if column_name not in self._asset_columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._asset_columns.add(column_name)
        return column_name in self._asset_columns

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        if shard not in self._initialized_dbs:
            with super()._connect(shard):  # creates the file
                pass
        with self._db_lock, self._connections.connect(self.conn_string_for_shard(shard)) as connection:
            yield connection

    def wipe(self) -> None:
        with self._db_lock:
            self._connections.close()
        super().wipe()

    def dispose(self) -> None:
        with self._db_lock:
            self._connections.close()
        super().dispose()


class RunHistory(DagsterSqliteStorage):
    """Dagster's own storage in the same files, except for the event log's connections."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(base_dir, inst_data)
        self._event_log_storage = EventLog(os.path.join(base_dir, "history", "runs", ""))

    @classmethod
    def from_config_value(  # type: ignore[override]
        cls, inst_data: ConfigurableClassData, config_value: SqliteStorageConfig
    ) -> "RunHistory":
        return cls.from_local(inst_data=inst_data, **config_value)
