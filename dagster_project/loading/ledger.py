"""The log of loads (`raw.loads`), and the tables that a load writes to.

Belongs here: which contents were loaded before, when a load counts as loaded, real or simulated rows, and undecodable
rows (`raw.undecodable_rows`).
Does not belong here: the rows of a file (`versions.py`).
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import COLUMNS, OWN_COLUMNS, Kind

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor


def one_row(cursor: Cursor, query: str, *parameters: Any) -> Any:
    """The only row of a query."""
    cursor.execute(query, parameters=parameters or None)
    row = cursor.fetchone()
    cursor.fetchall()  # the driver refuses the next statement while rows are outstanding
    return row


def require_own_tables(cursor: Cursor, kind: Kind) -> None:
    """Raise unless the raw tables are those that heed made."""
    cursor.execute(
        """SELECT table_name, column_name FROM information_schema.columns
           WHERE table_schema = 'raw' AND table_name IN ($1, 'loads', 'undecodable_rows')""",
        parameters=(kind,),
    )
    columns = set(cursor.fetchall())
    if len({table for table, _ in columns}) < 3:
        raise HeedError(
            "the warehouse has no raw tables to load into, or this role may not see them",
            "prepare it first (`heed load` does so), or use a role that may write to raw",
        )
    missing = [name for name in (*COLUMNS[kind], *OWN_COLUMNS) if (kind, name) not in columns]
    if missing:
        raise HeedError(
            f"raw.{kind} is not the table that heed loads into: it has no column {', '.join(missing)}",
            "heed reads your own tables where they are (database_schema under [source] in heed.toml), and loads "
            "files only into tables it made",
        )


def refuse_mixture(cursor: Cursor, is_simulated: bool) -> None:
    """A warehouse holds real rows or simulated ones, never both: nobody could tell them apart later."""
    (holds_others,) = one_row(
        cursor, "SELECT EXISTS (SELECT FROM raw.loads WHERE (simulation IS NOT NULL) <> $1)", is_simulated
    )
    if holds_others and is_simulated:
        raise HeedError("the warehouse holds rows of your own", "simulate in another one")
    if holds_others:
        raise HeedError(
            "the warehouse holds a simulated company", "use another one, or `heed load`, which removes it first"
        )


def loaded_before(cursor: Cursor, kind: Kind, sha256: str) -> tuple[int, int, int] | None:
    """(load_id, rows read, rows undecodable) of the last load of this content; None if it must be loaded.

    That includes content loaded before, if a later load of its kind added rows, or rows of earlier loads were deleted
    since: the raw table then differs from what this load would leave.
    """
    load = one_row(
        cursor,
        """SELECT load_id, coalesce(rows_read, 0), coalesce(rows_undecodable, 0) FROM raw.loads
           WHERE kind = $1 AND sha256 = $2 AND finished_at IS NOT NULL ORDER BY load_id DESC LIMIT 1""",
        kind,
        sha256,
    )
    if load is None:
        return None
    (is_current,) = one_row(
        cursor,
        f"""SELECT NOT EXISTS (SELECT FROM raw.loads WHERE kind = $1 AND load_id > $2 AND rows_added > 0)
               AND (SELECT count(*) FROM raw."{kind}" WHERE load_id IS NOT NULL)
                >= (SELECT coalesce(sum(rows_added), 0) FROM raw.loads WHERE kind = $1)""",
        kind,
        load[0],
    )
    return tuple(map(int, load)) if is_current else None  # type: ignore[return-value]


def begin_load(
    cursor: Cursor, kind: Kind, file: str, sha256: str, loaded_at: datetime | None, simulation: dict[str, Any] | None
) -> tuple[int, datetime]:
    """Enter a load into the log; returns its id and when its rows count as loaded: later than those of any load before,
    even when the clock was set back in between."""
    (newest,) = one_row(cursor, "SELECT max(greatest(started_at, finished_at)) FROM raw.loads")
    if loaded_at is not None and newest is not None and loaded_at <= newest:
        raise HeedError(
            f"loaded_at {loaded_at.isoformat()} is not later than the last load ({newest.isoformat()})",
            "give a later moment, since the rows loaded last must be the newest",
        )
    load_id, started_at = one_row(
        cursor,
        """INSERT INTO raw.loads (kind, file, sha256, started_at, simulation)
           SELECT $1, $2, $3, coalesce($4::timestamptz, greatest(
               clock_timestamp(),
               (SELECT max(greatest(started_at, finished_at)) FROM raw.loads) + interval '1 microsecond')),
               $5::text::jsonb
           RETURNING load_id, started_at""",
        kind,
        file,
        sha256,
        loaded_at,
        None if simulation is None else json.dumps(simulation),
    )
    return int(load_id), started_at


def finish_load(cursor: Cursor, load_id: int, read: int, added: int, unchanged: int, undecodable: int) -> None:
    """Enter the counts of a load, and when it finished: no earlier than its newest version counts as loaded."""
    cursor.execute(
        """UPDATE raw.loads SET rows_read = $2, rows_added = $3, rows_unchanged = $4, rows_undecodable = $5,
               finished_at = greatest(clock_timestamp(), started_at + interval '1 microsecond' * coalesce(
                   (SELECT max(version) FROM pg_temp.judged WHERE is_added), 0))
           WHERE load_id = $1""",
        parameters=(load_id, read, added, unchanged, undecodable),
    )


def keep_undecodable(cursor: Cursor, kind: Kind, file: str, load_id: int, loaded_at: datetime) -> None:
    """Keep the rejected rows of `pg_temp.incoming`, once: an export that repeats one adds it no second time."""
    cursor.execute(
        """INSERT INTO raw.undecodable_rows (load_id, file, line, reason, content, loaded_at)
           SELECT $1, $2, line, reason, content, $3
           FROM pg_temp.incoming
           WHERE reason IS NOT NULL AND NOT EXISTS (
               SELECT FROM raw.undecodable_rows AS earlier JOIN raw.loads USING (load_id)
               WHERE loads.kind = $4
                 AND earlier.reason = incoming.reason AND earlier.content = incoming.content)""",
        parameters=(load_id, file, loaded_at, kind),
    )
