"""Remove what the retention settings allow, as `heed prune` does.

Belongs here: pruning one home under the run lock.
Does not belong here: what may be removed and how (`resources/retention.py`).
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from dagster_project.instance import dagster_instance
from dagster_project.resources.retention import Pruned, prune
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import run_lock
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import heed_home, load_settings


def prune_home(*, dry_run: bool = False, say: Callable[[str], None] = lambda line: None) -> list[Pruned]:
    """Prune this home; waits for the run lock. dry_run : count, and remove nothing."""
    settings, warehouse = load_settings(), Warehouse(heed_home())
    prepare(warehouse)
    with dagster_instance(warehouse.home) as instance, run_lock(warehouse, f"prune-{uuid.uuid4()}", say):
        return prune(warehouse, settings, instance, dry_run=dry_run)
