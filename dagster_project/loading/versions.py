"""Which rows of a file are new.

Belongs here: comparing the rows of a file (`pg_temp.incoming`) with the raw tables, and adding those that are new.
Does not belong here: getting the file's rows there (`load.py`).

A row is a version of its id; versions differ in the hash of their content. Raw keeps every version that any
file ever held. After a load, the newest version of each id in the file is the last one in the file. So:

- a version that raw does not hold is added; copies of it within the file are added too, as duplicates;
- a version that raw holds is skipped, except where it is the last one in the file and not the newest in raw: then it
  is a correction back, and is added again;
- a row without an id is skipped when raw holds its content.

Content that was loaded before is read again only if a later load of its kind has added a row: otherwise loading it
would change nothing.

An id is what staging takes for an id: without outer blanks, rules and action types without regard to letter case.

Newest is by `loaded_at`, then `load_id`, as in staging. All rows of a load carry one `loaded_at`, later than that of
any load before; only where a file holds different versions of one id, each carries a microsecond more than the one
before.

Of an alert staging uses the oldest version, unless a later load is a correction: then that one. So the rows of a
correction are added although raw holds the same ones as the newest.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from dagster_project.loading.contract import COLUMNS, Kind
from dagster_project.loading.ledger import one_row

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

_TRIMMED = "nullif(btrim({}, E' \\t\\r\\n\\f\\x0b'), '')"
_TYPE = _TRIMMED.format("action_type")
# As the macro type_key in dbt_project/macros/read_text.sql has it.
_NOT_COMPARED = "E' \\t\\n\\r\\f\\x0b_-/.,:;!?()[]&''\u2019`\"'"
# What rows of one id share, as the staging models see it. Ids of alerts and actions are trimmed as they are read
# (`rows.py`), so that an index on them serves.
KEYS: dict[Kind, str] = {
    "alerts": "alert_id",
    "actions": "action_id",
    "rules": f"lower({_TRIMMED.format('rule')})",
    "action_types": f"coalesce(nullif(translate(lower({_TYPE}), {_NOT_COMPARED}, ''), ''), lower({_TYPE}))",
}


def judge(cursor: Cursor, kind: Kind, correction: bool) -> None:
    """Fill pg_temp.judged for the rows that need a decision; all others are added as version 0.

    They are rows of ids that raw holds or that occur twice in the file, and rows without an id that raw holds.
    is_questioned : not merely the newest version once more. is_back_again : raw holds it, and newer ones.
    """
    key, table = KEYS[kind], f'raw."{kind}"'
    raised_at = "raised_at" if kind == "alerts" else "NULL::text"
    # Every version in raw of an id in the file, and which one is the newest. A correction is added although raw
    # holds the same row as the newest one: it must win over the older ones, too.
    corrects = "AND load_id IN (SELECT load_id FROM raw.corrections)" if correction else ""
    cursor.execute("DROP TABLE IF EXISTS pg_temp.stored, pg_temp.judged")
    cursor.execute(
        f"""CREATE TEMPORARY TABLE stored AS
            SELECT {key} AS id, row_hash, {raised_at} AS raised_at,
                   row_number() OVER (PARTITION BY {key} COLLATE "C" ORDER BY loaded_at DESC NULLS LAST,
                       load_id DESC NULLS LAST, row_hash COLLATE "C" DESC) = 1 {corrects} AS is_newest
            FROM {table}
            WHERE {key} IN (SELECT {key} FROM pg_temp.incoming WHERE reason IS NULL)"""
    )
    if one_row(cursor, f"SELECT EXISTS (SELECT FROM pg_temp.incoming WHERE reason IS NULL AND {key} IS NULL)")[0]:
        cursor.execute(
            f"""INSERT INTO pg_temp.stored
                SELECT NULL, row_hash, NULL, false FROM {table}
                WHERE {key} IS NULL AND row_hash IN (
                    SELECT row_hash FROM pg_temp.incoming WHERE {key} IS NULL AND reason IS NULL)"""
        )
    cursor.execute("ANALYZE pg_temp.stored")
    cursor.execute(
        f"""CREATE TEMPORARY TABLE judged AS
            WITH file AS (
                SELECT seq, {key} AS id, row_hash FROM pg_temp.incoming WHERE reason IS NULL
            ),
            repeated AS (
                SELECT id FROM file WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1
            ),
            settled AS (
                -- (Joins and NOT EXISTS throughout: NOT IN is hashed only where it fits into work_mem.)
                -- The bulk of an export that repeats an older one: the newest version in raw, once in the file.
                -- The hash covers the id, so it alone tells whether raw holds a version.
                SELECT seq FROM file JOIN pg_temp.stored USING (row_hash)
                WHERE is_newest AND NOT EXISTS (SELECT FROM repeated WHERE repeated.id = file.id)
            ),
            questioned AS (
                SELECT file.* FROM file
                JOIN (SELECT id FROM pg_temp.stored WHERE is_newest UNION SELECT id FROM repeated) AS contested
                    USING (id)
                WHERE NOT EXISTS (SELECT FROM settled WHERE settled.seq = file.seq)
                UNION ALL
                SELECT * FROM file WHERE id IS NULL
            ),
            known AS (
                SELECT questioned.*, held.row_hash IS NOT NULL AS is_known
                FROM questioned
                LEFT JOIN (SELECT DISTINCT row_hash FROM pg_temp.stored) AS held USING (row_hash)
            ),
            placed AS (
                SELECT known.*,
                       id IS NOT NULL AND row_number() OVER (by_id ORDER BY seq DESC) = 1 AS is_last,
                       bool_or(NOT is_known) OVER by_id AS id_gains_a_version
                FROM known WINDOW by_id AS (PARTITION BY id COLLATE "C")
            ),
            decided AS (
                SELECT placed.seq, placed.id, placed.row_hash, is_known AND newest.row_hash <> placed.row_hash
                           AND NOT id_gains_a_version AS is_back_again,
                       NOT is_known OR (is_last AND (
                           id_gains_a_version OR newest.row_hash IS DISTINCT FROM placed.row_hash)) AS is_added
                FROM placed
                LEFT JOIN pg_temp.stored AS newest ON newest.is_newest AND newest.id = placed.id
            ),
            changes AS (
                SELECT seq, id, is_added, is_back_again,
                       is_added AND id IS NOT NULL AND row_hash <> lag(row_hash) OVER (
                           PARTITION BY id COLLATE "C", is_added ORDER BY seq) AS is_change
                FROM decided
            )
            SELECT seq, is_added,
                   count(*) FILTER (WHERE is_change) OVER (
                       PARTITION BY id COLLATE "C" ORDER BY seq) AS version,
                   true AS is_questioned, is_back_again
            FROM changes
            UNION ALL
            SELECT seq, false, 0, false, false FROM settled"""
    )
    cursor.execute("ANALYZE pg_temp.judged")


def insert_new(cursor: Cursor, kind: Kind, load_id: int, loaded_at: datetime) -> int:
    """Add the rows that are new to the raw table; returns how many."""
    names = ", ".join(f'"{name}"' for name in COLUMNS[kind])
    (count,) = one_row(
        cursor,
        f"""WITH added AS (
                INSERT INTO raw."{kind}" ({names}, loaded_at, row_hash, load_id)
                SELECT {names}, $1::timestamptz + coalesce(judged.version, 0) * interval '1 microsecond',
                       row_hash, $2::bigint
                FROM pg_temp.incoming LEFT JOIN pg_temp.judged USING (seq)
                WHERE reason IS NULL AND coalesce(judged.is_added, true)
                RETURNING 1
            )
            SELECT count(*) FROM added""",
        loaded_at,
        load_id,
    )
    return int(count)


def added_to_loaded_ids(cursor: Cursor, kind: Kind) -> int:
    """How many of the added rows have an id that raw held before."""
    (count,) = one_row(
        cursor,
        f"""SELECT count(*) FROM pg_temp.incoming JOIN pg_temp.judged USING (seq)
            WHERE is_added AND {KEYS[kind]} IN (SELECT id FROM pg_temp.stored)""",
    )
    return int(count)
