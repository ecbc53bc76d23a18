"""The first stage: one asset for each source of heed.toml, which fetches what is new into `raw`.

Belongs here: an asset per source, above `raw` in the lineage, and the job that pulls them.
Does not belong here: pulling (`loading/pulls/`), the schedule (`automation.py`).

A pull adds rows, as `heed load` does, so it does not take the run lock, and may run while scores are refreshed.
"""

import dagster as dg

from dagster_project.loading.pulls.pull import pull
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings

GROUP = "sources"


def source_assets(settings: Settings, warehouse: Warehouse) -> list[dg.AssetsDefinition]:
    """The assets; none where heed.toml has no sources."""
    return [_asset(name, settings, warehouse) for name in settings.sources]


def source_keys(settings: Settings) -> list[dg.AssetKey]:
    """Their keys."""
    return [dg.AssetKey([GROUP, name]) for name in settings.sources]


def _asset(name: str, settings: Settings, warehouse: Warehouse) -> dg.AssetsDefinition:
    kind = settings.sources[name].kind

    @dg.asset(
        key=[GROUP, name],
        group_name=GROUP,
        description=f"What is new in {kind}: alerts and what people did about them, into raw.",
        owners=["team:data-engineering"],
        kinds={"python"},
    )
    def fetched(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        prepare(warehouse)
        report = pull(name, settings, warehouse, context.log.debug)
        for warning in report.warnings:
            context.log.warning(warning)
        context.log.info(report.line())
        return dg.MaterializeResult(metadata=report.to_document())

    return fetched
