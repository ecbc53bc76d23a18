"""Commands about the data: `init`, `load`, `action-types`, `docs`, `prune`.

Belongs here: arguments, and what is printed.
Does not belong here: loading (`loading/`), pruning (`commands/prune.py`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.cli.group import FILE, JSON, main, progress, this_warehouse
from dagster_project.errors import HeedError, one_line

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse


@main.command()
@JSON
def init(json_output: bool) -> None:
    """Create heed's tables and roles in the warehouse, and grant each role what it needs. Safe to run again."""
    from dagster_project.resources.warehouse.roles import LOADER, SCORER, SERVER, TRANSFORMER, WORK
    from dagster_project.resources.warehouse.schema import initialise
    from dagster_project.settings import load_settings

    warehouse = this_warehouse()
    undone = initialise(warehouse, load_settings())
    if json_output:
        click.echo(json.dumps({"roles": list(WORK), "left_to_the_owner": undone}))
        return
    click.echo(f"Tables and roles are in {warehouse.describe()}:")
    for role, work in WORK.items():
        click.echo(f"  {role:<17} {work}")
    for statement in undone:
        click.echo(f"The owner of your tables has to run this: {statement};")
    click.echo(
        "They cannot log in. Create a login for each of your processes, as the owner of the server:\n"
        f"  CREATE ROLE heed_job LOGIN PASSWORD '...' IN ROLE {LOADER}, {TRANSFORMER}, {SCORER};\n"
        f"  CREATE ROLE heed_web LOGIN PASSWORD '...' IN ROLE {SERVER};"
    )


@main.command()
@click.option("--alerts", type=FILE, help="File of alerts: CSV, TSV or JSON lines, also gzipped, or Parquet.")
@click.option("--actions", type=FILE, help="File of actions.")
@click.option("--rules", type=FILE, help="File that declares facts about rules.")
@click.option("--action-types", type=FILE, help="File: action_type, meaning (acted, dismissed, neutral or reopened).")
@click.option("--mapping", type=FILE, help="TOML file that names your columns.")
@click.option("--correction", is_flag=True, help="These alerts replace what was loaded of them before, which is wrong.")
@JSON
def load(
    alerts: Path | None,
    actions: Path | None,
    rules: Path | None,
    action_types: Path | None,
    mapping: Path | None,
    correction: bool,
    json_output: bool,
) -> None:
    """Load files into the raw tables. The same file twice changes nothing."""
    from dagster_project.loading import Kind, load_file, read_mapping
    from dagster_project.resources.warehouse.reset import reset_demo, simulated_company
    from dagster_project.resources.warehouse.schema import prepare
    from dagster_project.settings import load_settings

    named: dict[Kind, Path | None] = {
        "alerts": alerts,
        "actions": actions,
        "rules": rules,
        "action_types": action_types,
    }
    files = {kind: path for kind, path in named.items() if path is not None}
    if correction and alerts is None:
        raise HeedError(
            "--correction is for alerts, and no file of alerts is named",
            "omit it: for actions, rules and action types the newest version counts anyway",
        )
    if not files:
        raise HeedError("there is nothing to load", "name a file: heed load --alerts FILE --actions FILE")
    for path in files.values():
        if not path.exists():
            raise HeedError(f"the file {path} does not exist", "correct the path; nothing was loaded")
    columns = read_mapping(mapping) if mapping else None
    zone = load_settings().source.time_zone
    warehouse = this_warehouse()
    prepare(warehouse)
    say = progress()
    if simulated_company(warehouse):
        say("removing the simulated company of `heed demo`: yours replaces it")
        reset_demo(warehouse, say)
    reports = []
    for kind, path in files.items():
        say(f"loading {kind} from {path}")
        report = load_file(
            kind,
            path,
            warehouse.connect,
            mapping=columns,
            correction=correction and kind == "alerts",
            progress=lambda at: say(f"  {at.summary()}"),
            time_zone=zone,
        )
        reports.append(report)
        if not json_output:
            click.echo(one_line(report.summary()))
            for warning in report.warnings:
                click.echo(one_line(f"  WARNING: {warning.line()}"))
    if actions or action_types:
        _warn_of_unknown_types(warehouse)
    if json_output:
        click.echo(json.dumps([report.to_document() for report in reports]))


def _warn_of_unknown_types(warehouse: Warehouse) -> None:
    from dagster_project.resources.inputs.action_types import (
        MOST_UNKNOWN,
        how_to_explain,
        raw_types,
        unknown_in_words,
        unknown_share,
    )
    from dagster_project.settings import load_settings

    settings = load_settings()
    types = raw_types(warehouse, settings)
    if words := unknown_in_words(types):
        share = unknown_share(types)
        refused = f"; these are {share:.0%} of the actions that may decide, and nothing is learned" * (
            share > MOST_UNKNOWN
        )
        click.echo(one_line(f"heed: warning: {words}{refused}. {how_to_explain(settings)}."), err=True)


@main.command("action-types")
@click.option("--out", default=Path("action_types.csv"), show_default=True, type=FILE, help="Where the list goes.")
@JSON
def action_types_command(out: Path, json_output: bool) -> None:
    """Write every loaded action type with its assumed meaning: a list to fill in and load."""
    from dagster_project.resources.inputs.action_types import raw_types, write_types
    from dagster_project.settings import load_settings

    types = raw_types(this_warehouse(), load_settings())
    if not types:
        raise HeedError("no actions were loaded yet", "load some: heed load --actions FILE")
    write_types(types, out)
    unknown = sum(each.meaning is None for each in types)
    if json_output:
        click.echo(json.dumps({"out": str(out), "action_types": [each.to_document() for each in types]}))
        return
    click.echo(
        f"{out}: {len(types)} action types, {unknown} without a meaning. Correct what is wrong, write acted, "
        f"dismissed, neutral or reopened where the meaning is empty, then `heed load --action-types {out}`."
    )


@main.command()
@click.option("--out", default=Path("tables.html"), show_default=True, type=FILE, help="Where the page goes.")
@JSON
def docs(out: Path, json_output: bool) -> None:
    """Every table and column described, with contracts, tests and lineage, as one HTML page (dbt docs)."""
    from dagster_project.resources.dbt.project import write_docs
    from dagster_project.settings import load_settings

    write_docs(this_warehouse(), load_settings(), datetime.now(UTC), out)
    click.echo(json.dumps({"out": str(out)}) if json_output else f"The page is {out}.")


@main.command()
@click.option("--dry-run", is_flag=True, help="Count what would be removed, and remove nothing.")
@JSON
def prune(dry_run: bool, json_output: bool) -> None:
    """Remove what is older than [retention] in heed.toml says, but never what evidence needs."""
    from dagster_project.commands.prune import prune_home

    removed = prune_home(dry_run=dry_run, say=progress())
    if json_output:
        click.echo(json.dumps([row.to_document() for row in removed]))
        return
    click.echo("Would be removed:" if dry_run else "Removed:")
    for row in removed:
        click.echo(row.line())
