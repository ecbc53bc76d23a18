"""How far checks have come.

Belongs here: which clean rows were checked already.
Does not belong here: the checks themselves (`checks.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from dagster_project.resources.stores.watermarks import oldest_in_progress, passed_up_to
from dagster_project.resources.warehouse.connection import Warehouse

if TYPE_CHECKING:
    pass


def unchecked_rows(
    warehouse: Warehouse, table: str, suite: str, expectations: str, witness: str, *, whole: bool = False
) -> tuple[Iterator[pd.DataFrame], bool, int]:
    """The rows of a clean table that were written since all of it passed a suite, told by their transactions (xmin).

    Parameters
    ----------
    table : the qualified table, written by heed's own code.
    expectations : a checksum of what the suite expects; rows that passed something else have not passed.
    witness : a condition. One row that fulfils it, and one row at all, come along, so that what is expected of the
        table as a whole ("some were acted on") is not asked of a few new rows.
    whole : read the whole table in any case.

    Returns
    -------
    rows in parts, at least one; whether they are the whole table; and the transaction up to which the table has passed
    when they do: for `remember_checked`.
    """
    now = oldest_in_progress(warehouse)
    passed = None if whole else passed_up_to(warehouse, suite, expectations)
    is_whole = passed is None
    query, values = f"SELECT * FROM {table}", list[str]()
    if passed is not None:
        query += (
            f" WHERE age(xmin) <= age($1::text::xid) OR ctid IN ("
            f"(SELECT ctid FROM {table} LIMIT 1) UNION (SELECT ctid FROM {table} WHERE {witness} LIMIT 1))"
        )
        values = [str(passed % 2**32)]
    return (part.to_pandas() for part in warehouse.read_parts(query, values)), is_whole, now
