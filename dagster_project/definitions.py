"""Where everything meets: `build_defs` for tests and commands, `defs` for Dagster.

Belongs here: wiring. Loading it contacts nothing: no warehouse, no bucket.
Does not belong here: everything else.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import dagster as dg

warnings.filterwarnings("ignore", category=dg.BetaWarning)
warnings.filterwarnings("ignore", category=dg.PreviewWarning)

from upath import UPath  # noqa: E402

from dagster_project.assets.autoclose import autoclose_decisions  # noqa: E402
from dagster_project.assets.dbt import build_dbt_assets, raw_assets  # noqa: E402
from dagster_project.assets.delivery import deliveries  # noqa: E402
from dagster_project.assets.features import alert_features  # noqa: E402
from dagster_project.assets.monitoring import monitoring  # noqa: E402
from dagster_project.assets.quality import clean_checks, flags  # noqa: E402
from dagster_project.assets.reading import decision_curves  # noqa: E402
from dagster_project.assets.scoring import alert_scores  # noqa: E402
from dagster_project.assets.sources import source_assets  # noqa: E402
from dagster_project.assets.training import training_assets  # noqa: E402
from dagster_project.automation import SENSORS, build_schedules, prune_job, pull_job, refresh_job, retrain_job  # noqa: E402
from dagster_project.checks import data_docs_job  # noqa: E402
from dagster_project.instance import relax_sync  # noqa: E402
from dagster_project.resources.cluster import Cluster  # noqa: E402
from dagster_project.resources.dbt.project import DBT_PROJECT, dbt_program  # noqa: E402
from dagster_project.resources.dbt.resource import Dbt  # noqa: E402
from dagster_project.resources.notices import tell_of_abandoned_runs  # noqa: E402
from dagster_project.resources.stores.features import FeatureFiles, FeatureStore  # noqa: E402
from dagster_project.resources.stores.frames import FrameFiles  # noqa: E402
from dagster_project.resources.stores.models import ModelStore  # noqa: E402
from dagster_project.resources.warehouse.abandoned_runs import refuse_if_overtaken  # noqa: E402
from dagster_project.resources.warehouse.connection import Warehouse  # noqa: E402
from dagster_project.resources.warehouse.run_lock import run_lock  # noqa: E402
from dagster_project.settings import Settings, heed_home, load_settings  # noqa: E402


def build_defs(
    *, settings: Settings | None = None, warehouse: Warehouse | None = None, models: ModelStore | None = None
) -> dg.Definitions:
    """The code location.

    settings, warehouse, models : replace those that heed.toml and the environment give.
    """
    from dagster_project.triage.features.contract import contract

    settings = settings or load_settings()
    warehouse = warehouse or Warehouse(heed_home())
    store = FeatureStore(UPath(warehouse.home) / "features", contract(settings.feature_settings())["hash"], warehouse)
    resources = {
        "settings": settings,
        "warehouse": _locked_for_runs(warehouse, settings),
        "models": models or ModelStore(warehouse),
        "cluster": Cluster(settings.compute.dask),
        "feature_files": FeatureFiles(store),
        "frame_files": FrameFiles(UPath(warehouse.home) / "training"),
        "dbt": Dbt(
            project_dir=str(DBT_PROJECT),
            profiles_dir=str(DBT_PROJECT),
            dbt_executable=dbt_program(),
        ),
    }
    return dg.Definitions(
        assets=[
            *source_assets(settings, warehouse),
            *raw_assets(settings),
            *build_dbt_assets(),
            flags,
            alert_features,
            *training_assets,
            decision_curves,
            alert_scores,
            autoclose_decisions,
            deliveries,
        ],
        asset_checks=[*clean_checks, monitoring],
        jobs=[refresh_job, retrain_job, prune_job, data_docs_job(), *([pull_job] if settings.sources else [])],
        schedules=build_schedules(settings),
        sensors=SENSORS,
        resources=resources,
        executor=dg.in_process_executor,
    )


def _locked_for_runs(warehouse: Warehouse, settings: Settings) -> dg.ResourceDefinition:
    """The warehouse. A run holds the run lock from its first step to its last; a sensor reads without it."""

    @dg.resource(description="One PostgreSQL database. A run holds the run lock while it changes it.")
    def held(context: dg.InitResourceContext) -> Iterator[Warehouse]:
        if context.run_id is None or context.instance is None:
            yield warehouse
            return
        log = context.log or dg.get_dagster_logger()
        with run_lock(warehouse, context.run_id, log.warning):
            tell_of_abandoned_runs(context.instance, warehouse, settings, log.warning)
            if context.dagster_run is not None:
                refuse_if_overtaken(warehouse, context.dagster_run)
            yield warehouse

    return held


# Runs that the daemon launches load this module as well.
relax_sync()
defs = build_defs()
