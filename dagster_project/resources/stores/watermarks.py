"""Watermarks: how far something has been checked, and whether that still holds.

Belongs here: writing a watermark into the warehouse, reading it back, and binding it to the database in which it was
written.
Does not belong here: what is skipped because of one (`dbt/incremental.py`, `history_cache.py`, `stores/history.py`).

Runs skip rows by their place (ctid) and by the number of the transaction that wrote them (xmin). Both are meaningful in
one database only, but a dump includes the watermark, and in a restored copy places and numbers may coincide. Two facts
do not survive a restore, and a watermark holds only while both are unchanged:

- the cluster: its system identifier and timeline, and the database's own number. A fresh cluster has another
  identifier; a replica that was promoted, or a backup that was rolled forward, has another timeline;
- the writer: a watermark names the transaction that wrote it, and PostgreSQL knows which transaction really did. A
  restored row was written by the restore. This holds also between copies of one data directory, which share an
  identifier.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from dagster_project.resources.warehouse.connection import Warehouse

# A row that names its writer: true only where that very transaction wrote it. Row versions hold 32 bits of the number.
WRITTEN_HERE = "written_by % 4294967296 = xmin::text::bigint"
WRITER = "pg_current_xact_id()::text::bigint"

_MAY_ASK = """
SELECT has_function_privilege('pg_control_system()', 'EXECUTE')
   AND has_function_privilege('pg_control_checkpoint()', 'EXECUTE')
"""
_CLUSTER = """
SELECT concat_ws(' ', system_identifier, timeline_id, (SELECT oid FROM pg_database WHERE datname = current_database()))
FROM pg_control_system(), pg_control_checkpoint()
"""


def cluster(warehouse: Warehouse) -> str:
    """The cluster, timeline and database; empty if this login may not ask, and then no watermark holds."""
    return str(warehouse.value(_CLUSTER)) if warehouse.value(_MAY_ASK) else ""


def oldest_in_progress(warehouse: Warehouse) -> int:
    """A transaction number: rows written by older transactions are all visible now."""
    return int(warehouse.value("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))


def passed_up_to(warehouse: Warehouse, suite: str, expectations: str) -> int | None:
    """The transaction before which every row has passed, as `remember_checked` recorded it; None: check every row.

    suite, expectations : as they were recorded; another checksum is another watermark.
    """
    transaction = warehouse.value(
        "SELECT transaction FROM quality.checked_rows "
        f"WHERE suite = $1 AND expectations = $2 AND cluster = $3 AND cluster <> '' AND {WRITTEN_HERE}",
        (suite, expectations, cluster(warehouse)),
    )
    # Row versions hold 32 bits of the number, so "older" is meaningful for half of them only.
    known = transaction is not None and 0 <= oldest_in_progress(warehouse) - int(transaction) < 2**31
    return int(transaction) if known else None


def remember_checked(warehouse: Warehouse, suite: str, expectations: str, transaction: int) -> None:
    """Record that every row older than a transaction has passed the critical expectations of a suite."""
    here = cluster(warehouse)
    with warehouse.transaction() as cursor:
        cursor.execute("DELETE FROM quality.checked_rows WHERE suite = $1", parameters=(suite,))
        cursor.execute(
            "INSERT INTO quality.checked_rows (suite, expectations, transaction, cluster, written_by) "
            f"VALUES ($1, $2, $3, $4, {WRITER})",
            parameters=(suite, expectations, transaction, here),
        )


def manifest_watermark(warehouse: Warehouse, kind: str, cache_id: str, content: bytes) -> int | None:
    """The transaction recorded with exactly this manifest of cache files; None: another or no manifest is recorded."""
    return passed_up_to(warehouse, f"{kind} kept as {cache_id}", hashlib.sha256(content).hexdigest())


def remember_manifest(warehouse: Warehouse, kind: str, cache_id: str, content: bytes, transaction: int) -> None:
    """Record the checksum of a manifest of cache files. kind : "history" or "features"."""
    remember_checked(warehouse, f"{kind} kept as {cache_id}", hashlib.sha256(content).hexdigest(), transaction)


def unchecked_rows(
    warehouse: Warehouse, table: str, suite: str, expectations: str, witness: str, *, full_refresh: bool = False
) -> tuple[Iterator[pd.DataFrame], bool, int]:
    """The rows of a clean table that were written since all of it passed a suite, according to xmin.

    table : the qualified table, from heed's own code.
    expectations : a checksum of what the suite expects; rows that passed something else have not passed.
    witness : a condition. One row that meets it, and any one row, are included, so that expectations about the whole
        table ("some were acted on") also hold for a few new rows.
    full_refresh : always read the whole table.
    Returns: The rows in parts, at least one; whether they are the whole table; and the transaction to pass to
        `remember_checked` once they have passed.
    """
    now = oldest_in_progress(warehouse)
    passed = None if full_refresh else passed_up_to(warehouse, suite, expectations)
    is_whole = passed is None
    query, values = f"SELECT * FROM {table}", list[str]()
    if passed is not None:
        query += (
            f" WHERE age(xmin) <= age($1::text::xid) OR ctid IN ("
            f"(SELECT ctid FROM {table} LIMIT 1) UNION (SELECT ctid FROM {table} WHERE {witness} LIMIT 1))"
        )
        values = [str(passed % 2**32)]
    return (part.to_pandas() for part in warehouse.read_parts(query, values)), is_whole, now
