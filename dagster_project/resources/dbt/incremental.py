"""Whether dbt may clean only what is new, or must read everything.

Belongs here: what the clean tables were built with (a fingerprint and an as-of), asking and remembering it.
Does not belong here: how dbt reads only what is new (`dbt_project/macros/only_new.sql`).

dbt reads only what is new if the last cleaning succeeded, its tables are still there, its as-of is not later, and
nothing else has changed: the raw tables (not emptied, rewritten or replaced), the cluster, the dbt project, the
settings, the meanings of action types, and the corrections. In doubt dbt reads everything, which takes longer and
leaves the same tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from dagster_project.resources.dbt.project import dbt_vars, project_files
from dagster_project.resources.stores.history_cache import HistoryCache
from dagster_project.resources.stores.watermarks import WRITER, WRITTEN_HERE, cluster

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings

NEW, FULL, PUBLISH = "new", "full", "publish"
CLEAN_VARIABLE = "HEED_CLEAN"  # tells the dbt project one of the three words

# A table that is emptied or rewritten gets another file. Added columns are listed.
_IDENTITY = """
SELECT oid::bigint, pg_relation_filenode(oid)::bigint AS file, relkind = 'r' AND NOT relhassubclass AS is_plain,
       (SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped) AS columns
FROM pg_class WHERE oid = to_regclass($1)
"""
# What dbt built and reads again next time. A table restored from a dump has another oid or file.
_BUILT = """
SELECT string_agg(concat_ws(' ', nspname, relname, pg_class.oid, pg_relation_filenode(pg_class.oid)), ', '
                  ORDER BY nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE relkind = 'r' AND (nspname = 'marts' OR nspname = 'staging' AND relname IN ('stg_alerts', 'stg_actions'))
"""


@dataclass(frozen=True)
class Reading:
    """What dbt reads in this run, and why. `fingerprint` is empty if dbt can never read only what is new."""

    what: str
    why: str
    fingerprint: str


@contextmanager
def cleaning(
    warehouse: Warehouse, settings: Settings, as_of: datetime, *, full_refresh: bool = False
) -> Iterator[Reading]:
    """What dbt reads. dbt runs within the block; if the block succeeds, what dbt built is recorded.

    After a full refresh, the history cache is read again in full as well.
    """
    reading = what_to_read(warehouse, settings, as_of, full_refresh=full_refresh)
    warehouse.history_is_current = False
    if reading.what == FULL:
        HistoryCache(warehouse).forget()
    yield reading
    warehouse.history_is_current = False
    remember_reading(warehouse, reading, as_of)


def what_to_read(warehouse: Warehouse, settings: Settings, as_of: datetime, *, full_refresh: bool = False) -> Reading:
    """Whether the clean tables can be brought to `as_of` by reading only what is new.

    full_refresh : read everything, because somebody asked for it.
    """
    fingerprint = _fingerprint(warehouse, settings)
    if full_refresh:
        return Reading(FULL, "it was asked for", fingerprint)
    if not fingerprint:
        return Reading(
            FULL,
            "changes do not show: the alerts or actions are not plain tables, or the server hides its identifier",
            "",
        )
    if not any(column["name"] == "written_by" for column in warehouse.columns("staging.built_with")):
        return Reading(FULL, "nothing was cleaned before", fingerprint)
    rows = warehouse.read_arrow(
        f"SELECT fingerprint, as_of, {WRITTEN_HERE} AS written_here, built = ({_BUILT}) AS still_stand "
        "FROM staging.built_with"
    ).to_pylist()
    if not rows:
        return Reading(FULL, "the last cleaning failed, or was not heed's own", fingerprint)
    if rows[0]["fingerprint"] != fingerprint:
        return Reading(FULL, "the raw tables, the settings or heed itself have changed", fingerprint)
    if not (rows[0]["written_here"] and rows[0]["still_stand"]):
        return Reading(FULL, "the tables were restored from a dump, or replaced", fingerprint)
    if rows[0]["as_of"] > as_of:
        return Reading(FULL, "the tables have a later as-of", fingerprint)
    return Reading(NEW, "only what is new", fingerprint)


def remember_reading(warehouse: Warehouse, reading: Reading, as_of: datetime) -> None:
    """Record what the clean tables were built with. Call it only after a run that succeeded."""
    if reading.fingerprint:
        with warehouse.transaction() as cursor:
            cursor.execute("DELETE FROM staging.built_with")
            cursor.execute(
                "INSERT INTO staging.built_with (fingerprint, as_of, written_by, built) "
                f"VALUES ($1, $2, {WRITER}, ({_BUILT}))",
                parameters=(reading.fingerprint, as_of),
            )


def _fingerprint(warehouse: Warehouse, settings: Settings) -> str:
    source = settings.source
    sources = [f"{_quoted(source.database_schema)}.{_quoted(name)}" for name in (source.alerts, source.actions)]
    tables = [warehouse.read_arrow(_IDENTITY, (table,)).to_pylist() for table in sources]
    here = cluster(warehouse)
    if not here or not all(rows and rows[0]["is_plain"] for rows in tables):
        return ""
    types = f"{_quoted(source.database_schema)}.action_types"
    meanings = None
    if not warehouse.value("SELECT to_regclass($1) IS NULL", (types,)):
        meanings = warehouse.value(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {types} AS t")
    corrections = None
    if not warehouse.value("SELECT to_regclass('raw.corrections') IS NULL"):
        corrections = warehouse.value("SELECT string_agg(load_id::text, ' ' ORDER BY load_id) FROM raw.corrections")
    content = [hashlib.sha256(path.read_bytes()).hexdigest() for path in project_files()]
    inputs = json.dumps([here, tables, meanings, corrections, dbt_vars(settings), content], sort_keys=True)
    return hashlib.sha256(inputs.encode()).hexdigest()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
