"""`heed prune`: removes what the retention settings allow.

Belongs here: the command.
Does not belong here: what may be removed and how (`resources/retention.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from dagster_project.resources.retention import Pruned, prune
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare


def prune_home(*, dry_run: bool = False, say: Callable[[str], None] = lambda line: None) -> list[Pruned]:
    """`heed prune`: in this home, when its turn has come."""
    import uuid

    from dagster_project.instance import dagster_instance
    from dagster_project.resources.warehouse.run_lock import run_lock
    from dagster_project.settings import heed_home, load_settings

    settings, warehouse = load_settings(), Warehouse(heed_home())
    prepare(warehouse)
    with dagster_instance(warehouse.home) as instance, run_lock(warehouse, f"prune-{uuid.uuid4()}", say):
        return prune(warehouse, settings, instance, dry_run=dry_run)
