"""The stages that SQL owns: staging and marts before Python, reporting after it.

Belongs here: how dbt models become Dagster assets, and how dbt is told the as-of and the settings.
Does not belong here: SQL (`dbt_project/`).
"""

import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, dbt_assets
from dagster_dbt.errors import DagsterDbtError

from dagster_project.assets.sources import source_keys
from dagster_project.errors import HeedError, one_line
from dagster_project.resources.as_of import is_full_refresh, run_as_of
from dagster_project.resources.dbt.incremental import CLEAN_VARIABLE, FULL, PUBLISH, cleaning
from dagster_project.resources.dbt.prestarted import prepare_dbt
from dagster_project.resources.dbt.project import (
    DBT_ANYWHERE,
    DBT_PROJECT,
    call_dbt,
    dbt_directory,
    dbt_environment,
    dbt_vars,
    end_of_output,
    newest_change,
)
from dagster_project.resources.dbt.resource import Dbt
from dagster_project.resources.expectations.results import SHOWN_VALUES, row_in_words
from dagster_project.resources.inputs.action_types import clean_types, how_to_explain, unknown_in_words
from dagster_project.resources.preload import preload
from dagster_project.resources.stores.history import shared_ids_in_words
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import run_lock_environment
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings

MANIFEST = DBT_PROJECT / "target" / "manifest.json"

# How libpq says that it got no connection: dbt passes it on among other words.
_REFUSED = re.compile(r"connection to server .{1,300}? failed: .*")
# What macros of the project raise in heed's words (readers.sql).
_RAISED_BY_MACROS = re.compile(
    r"(?:heed cannot replace \S+, whose definition|heed lost the run lock).*?(?= CONTEXT:| compiled code at|$)"
)


class HeedTranslator(DagsterDbtTranslator):
    """dbt names to Dagster names: the asset key is schema/model, the group is the folder of the model."""

    def __init__(self) -> None:
        super().__init__(
            DagsterDbtTranslatorSettings(
                enable_asset_checks=True,
                enable_code_references=False,
                enable_duplicate_source_asset_keys=True,  # one Python asset may write several tables
            )
        )

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = manifest["nodes"].get(unique_id) or manifest["sources"].get(unique_id)
        if node is None or node["resource_type"] == "source":
            return spec
        schema = node["config"].get("schema") or "staging"
        folder = node["fqn"][1] if node["resource_type"] == "model" else schema
        return spec.replace_attributes(
            key=dg.AssetKey([schema, node["name"]]), group_name=folder, owners=["team:data-engineering"]
        )


def ensure_manifest() -> Path:
    """dbt's manifest, parsed again when a file of the dbt project is newer. Does not contact the warehouse.

    `DbtProject.prepare_if_dev` of dagster-dbt acts only under `dagster dev`, where it parses on every load; tests,
    schedules and commands need the manifest as well, and nobody should wait for a parse that changes nothing. One
    process parses at a time: dbt writes its files in place, and others would read half of them.
    """
    MANIFEST.parent.mkdir(parents=True, exist_ok=True)
    with (MANIFEST.parent / "manifest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _parsed_manifest()


def _parsed_manifest() -> Path:
    if MANIFEST.exists() and MANIFEST.stat().st_mtime >= newest_change():
        return MANIFEST
    finished = call_dbt(["parse"], DBT_ANYWHERE)
    if finished.returncode != 0 or not MANIFEST.exists():
        cause = f"dbt cannot read the project in {DBT_PROJECT} ({end_of_output(finished)})"
        raise HeedError(cause, "correct the model it names")
    os.utime(MANIFEST)
    return MANIFEST


def _build(
    context: dg.AssetExecutionContext, dbt: Dbt, warehouse: Warehouse, settings: Settings, clean: str
) -> Iterator[Any]:
    environment = {
        **dbt_environment(warehouse, run_as_of(context)),
        **run_lock_environment(warehouse),
        CLEAN_VARIABLE: clean,
    }
    # Unit tests check the SQL, not the data: they run in `make test`. Nobody reads the documents that dbt writes about
    # itself (0.5 s): its events tell all.
    arguments = ["--no-write-json", "--exclude-resource-type", "unit_test", "--vars", json.dumps(dbt_vars(settings))]
    prepare_dbt(warehouse, settings)
    try:
        with dbt_directory(warehouse.home) as directory:
            invocation = dbt.build(context, arguments, directory, environment)
            preload()
            for event in invocation.stream():
                yield _with_its_cause(_with_values(event, warehouse, directory), warehouse, settings)
    except DagsterDbtError as error:
        message = " ".join(str(error).split())
        if refused := _REFUSED.search(str(error)):
            raise warehouse.unreachable(refused[0]) from error
        if raised := _RAISED_BY_MACROS.search(message):
            raise HeedError(
                raised[0], "end that session, SELECT pg_terminate_backend(pid), or let it finish, then run again"
            ) from error
        if "due to lock timeout" in message:
            holders = warehouse.holders(readers=True) or "a session that has ended since"
            raise HeedError(f"dbt waited too long for a lock: {holders}", "end that session, then run again") from error
        raise


def _with_values(event: Any, warehouse: Warehouse, directory: Path) -> Any:
    """Add to the result of a failed dbt test how many rows its query returned, and the first of them."""
    if not isinstance(event, dg.AssetCheckResult) or event.passed:
        return event
    metadata = {name: getattr(value, "value", value) for name, value in (event.metadata or {}).items()}
    if metadata.get("status") == "error":  # the query could not be run
        return event
    name = str(metadata.get("unique_id", "")).split(".")[2:3]
    queries = list(directory.glob(f"compiled/**/{name[0]}.sql")) if name else []
    count = metadata.get("dagster_dbt/failed_row_count")
    words = f"{count:,} rows" if isinstance(count, int) else "rows"
    if queries:
        # Showing rows is an extra: it never fails the run.
        with suppress(Exception):
            query = queries[0].read_text(encoding="utf-8")
            rows = warehouse.read_arrow(f"SELECT * FROM (\n{query}\n) AS failing LIMIT {SHOWN_VALUES}").to_pylist()
            shown = "; ".join(row_in_words(row) for row in rows)
            words += f", such as {shown}" if not isinstance(count, int) or count > len(rows) else f": {shown}"
    return event._replace(description=one_line(words))


def _with_its_cause(event: Any, warehouse: Warehouse, settings: Settings) -> Any:
    """Add the cause and the remedy to the result of a failed check that people have to act on."""
    if not isinstance(event, dg.AssetCheckResult) or event.passed:
        return event
    description = ""
    if event.check_name == "unknown_action_types":
        description = f"{unknown_in_words(clean_types(warehouse))}. {how_to_explain(settings)}"
    elif event.check_name == "ids_of_several_alerts":
        description = shared_ids_in_words(warehouse)
    return event._replace(description=description) if description else event


# Importing the location builds it once, and a command builds it again with its own settings.
@lru_cache(maxsize=1)
def build_dbt_assets() -> list[dg.AssetsDefinition]:
    """The two dbt steps: what cleans, and what publishes."""
    manifest = ensure_manifest()

    @dbt_assets(manifest=manifest, select="tag:clean", dagster_dbt_translator=HeedTranslator(), name="clean")
    def clean(
        context: dg.AssetExecutionContext,
        dbt: Dbt,
        warehouse: dg.ResourceParam[Warehouse],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[Any]:
        prepare(warehouse)
        as_of = run_as_of(context)
        with cleaning(warehouse, settings, as_of, full_refresh=is_full_refresh(context)) as reading:
            context.log.info(f"dbt reads {'everything' if reading.what == FULL else 'what is new'}: {reading.why}")
            yield from _build(context, dbt, warehouse, settings, reading.what)

    @dbt_assets(manifest=manifest, select="tag:reporting", dagster_dbt_translator=HeedTranslator(), name="reporting")
    def reporting(
        context: dg.AssetExecutionContext,
        dbt: Dbt,
        warehouse: dg.ResourceParam[Warehouse],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[Any]:
        yield from _build(context, dbt, warehouse, settings, PUBLISH)

    return [clean, reporting]


def raw_assets(settings: Settings) -> list[dg.AssetSpec]:
    """The tables that users bring, as the beginning of the lineage."""
    described = {
        "alerts": "Alerts as they came: one row per version of an alert, nothing cleaned, nothing lost.",
        "actions": "Actions as they came: what people did with alerts, and when.",
        "rules": "What users declare about rules (optional).",
        "action_types": "What users say their action types mean (optional); it wins over the seed.",
    }
    return [
        dg.AssetSpec(
            key=["raw", name],
            group_name="raw",
            description=text,
            owners=["team:data-engineering"],
            kinds={"postgres"},
            deps=source_keys(settings) if name in ("alerts", "actions") else [],
            metadata={
                "dagster/table_name": f"{settings.source.database_schema}.{getattr(settings.source, name, name)}"
            },
        )
        for name, text in described.items()
    ]
