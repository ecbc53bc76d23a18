"""Empty a warehouse, which is allowed only if the warehouse itself says that all its rows were simulated.

Belongs here: recognizing a simulated company, and removing it.
Does not belong here: simulating (`simulator/`), loading (`loading/`), retention by age (`resources/retention.py`).

`raw.loads.simulation` says so, written in the same transaction as the rows. A file in the home could not: the next
command may use another warehouse.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.resources.stores.features import remove_features
from dagster_project.resources.warehouse.migrations import own_tables
from dagster_project.resources.warehouse.run_lock import run_lock

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Cursor

    from dagster_project.resources.warehouse.connection import Warehouse

# Rows that heed loads name their load. Rows that other programs write to raw may not.
_LOADED = ("alerts", "actions", "rules", "action_types", "undecodable_rows")
# Rows about alerts. If the source was a different one for a while, these are not the simulated alerts.
_ABOUT_ALERTS = ("alert_scores", "holdout", "autoclose_decisions", "feedback", "deliveries")


def simulated_company(warehouse: Warehouse) -> dict[str, Any] | None:
    """What the newest simulated load says about its company; None: nothing was simulated."""
    simulation = warehouse.value(
        "SELECT simulation::text FROM raw.loads WHERE simulation IS NOT NULL ORDER BY load_id DESC LIMIT 1"
    )
    return json.loads(simulation) if simulation else None


def holds_nothing(warehouse: Warehouse) -> bool:
    """Whether all of heed's own tables are empty."""
    names = own_tables()
    return not warehouse.value("SELECT " + " OR ".join(f"EXISTS (SELECT FROM {name})" for name in names))


def reset_demo(warehouse: Warehouse, say: Callable[[str], None] = lambda line: None) -> None:
    """Remove the simulated company with everything that came from it: rows, flags, models, scores and features.

    The tables are locked before they are examined, so that nothing is written in between.

    Raises HeedError: the warehouse holds rows that were not simulated, or the login may not remove them. Nothing was
        removed.
    """
    with run_lock(warehouse, f"empty-{uuid.uuid4()}", say):
        names = ", ".join(own_tables())
        if not all(warehouse.value("SELECT has_table_privilege($1, 'TRUNCATE')", (name,)) for name in own_tables()):
            raise HeedError(
                f"{warehouse.describe()} holds a simulated company, and this login may not remove it",
                "load into another database, or run this command as the owner of this one",
            )
        with warehouse.transaction() as cursor:
            cursor.execute(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")
            own = {what: count for what, count in _not_simulated(cursor) if count}
            if own:
                counts = ", ".join(f"{count:,} {what}" for what, count in own.items())
                raise HeedError(
                    f"besides a simulated company, {warehouse.describe()} holds {counts} that were not simulated, so "
                    "nothing was removed",
                    "name another database in HEED_DATABASE_URL, or another home in HEED_HOME",
                )
            cursor.execute(f"TRUNCATE {names}")
        remove_features(warehouse.home)


def _not_simulated(cursor: Cursor) -> list[tuple[str, int]]:
    """What the warehouse holds that no simulated load wrote: (description, number of rows)."""
    simulated = "(SELECT FROM raw.loads WHERE loads.load_id = t.load_id AND simulation IS NOT NULL)"
    queries = {
        "loads": "SELECT count(*) FROM raw.loads WHERE simulation IS NULL",
        **{
            f"rows in raw.{name}": f"SELECT count(*) FROM raw.{name} AS t WHERE NOT EXISTS {simulated}"
            for name in _LOADED
        },
        **{
            f"rows in scoring.{name} about other alerts": f"SELECT count(*) FROM scoring.{name} AS t "
            "WHERE NOT EXISTS (SELECT FROM raw.alerts WHERE btrim(alerts.alert_id, E' \\t\\r\\n\\f\\x0b') = t.alert_id)"
            for name in _ABOUT_ALERTS
        },
    }
    counts = []
    for what, query in queries.items():
        cursor.execute(query)
        row = cursor.fetchone()
        cursor.fetchall()
        counts.append((what, int(row[0]) if row else 0))
    return counts
