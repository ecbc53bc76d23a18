"""Counts of rows in loaded files that could not be decoded.

Belongs here: the one query behind `heed summary`, `heed doctor` and `heed report`.
Does not belong here: rejecting such rows (`loading/`), and rows that cleaning rejects (`marts.rejected_rows`).
"""

from __future__ import annotations

from typing import Any

from dagster_project.resources.warehouse.connection import Warehouse

# Rows no longer count once a file of the same name was loaded without any.
_REPLACED = """EXISTS (
    SELECT FROM raw.loads AS later
    WHERE later.kind = loads.kind AND later.file = loads.file AND later.load_id > loads.load_id
        AND later.finished_at IS NOT NULL AND later.rows_undecodable = 0)"""
# The first part of the reason; the second is the length of the row.
_BY_REASON = f"""
SELECT loads.kind AS source, 'undecodable: ' || split_part(undecodable.reason, ';', 1) AS reason, count(*) AS rows
FROM raw.undecodable_rows AS undecodable JOIN raw.loads USING (load_id)
WHERE NOT {_REPLACED} GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2"""
# For roles of an older heed, which may only read the loads.
_BY_KIND = f"""
SELECT kind AS source, 'undecodable' AS reason, sum(rows_undecodable)::bigint AS rows
FROM raw.loads WHERE rows_undecodable > 0 AND NOT {_REPLACED} GROUP BY 1, 2 ORDER BY 3 DESC, 1"""


def undecodable_rows(warehouse: Warehouse) -> list[dict[str, Any]]:
    """How many rows of files could not be decoded: source (kind of file), reason, rows. The most frequent is first."""
    readable = warehouse.value("SELECT has_table_privilege('raw.undecodable_rows', 'SELECT')")
    return warehouse.read_arrow(_BY_REASON if readable else _BY_KIND).to_pylist()
