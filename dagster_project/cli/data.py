"""Commands about the data: `init`, `action-types`, `docs`, `prune`.

Belongs here: arguments, and what is printed.
Does not belong here: loading files (`cli/loading.py`), pruning (`commands/prune.py`).
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from dagster_project.cli.group import FILE, JSON, main, progress, this_warehouse
from dagster_project.errors import HeedError


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
