"""Commands that bring alerts: `load`, `inspect`, `pull`.

Belongs here: arguments, which file is loaded as what, and what is printed.
Does not belong here: loading and pulling (`loading/`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dagster_project.cli.group import FILE, JSON, main, progress, this_warehouse
from dagster_project.errors import HeedError, one_line

if TYPE_CHECKING:
    from dagster_project.loading import Kind, Mapping
    from dagster_project.resources.warehouse.connection import Warehouse

TIME_FORMAT = click.option(
    "--time-format", default="", help="How all times are written: day-first, month-first, or like %d/%m/%Y %H:%M."
)
TIME_ZONE = click.option("--time-zone", default="", help="The zone of times without an offset, like Europe/Berlin.")


@main.command()
@click.argument("files", nargs=-1, type=FILE)
@click.option("--alerts", type=FILE, help="File of alerts: CSV, TSV, JSON, also gzipped, XLSX or Parquet.")
@click.option("--actions", type=FILE, help="File of actions.")
@click.option("--rules", type=FILE, help="File that declares facts about rules.")
@click.option("--action-types", type=FILE, help="File: action_type, meaning (acted, dismissed, neutral or reopened).")
@click.option("--mapping", type=FILE, help="TOML file that names your columns; `heed inspect` writes one.")
@click.option("--preset", help="FILES are exports of this system, like pagerduty; or a preset file of your own.")
@TIME_FORMAT
@TIME_ZONE
@click.option("--correction", is_flag=True, help="These alerts replace what was loaded of them before, which is wrong.")
@JSON
def load(
    files: tuple[Path, ...],
    alerts: Path | None,
    actions: Path | None,
    rules: Path | None,
    action_types: Path | None,
    mapping: Path | None,
    preset: str | None,
    time_format: str,
    time_zone: str,
    correction: bool,
    json_output: bool,
) -> None:
    """Load files into the raw tables. The same file twice changes nothing.

    FILES hold alerts, and decisions in the same rows where the preset or the mapping says so.
    """
    from dagster_project.loading import load_file, read_mapping
    from dagster_project.loading.presets import read_preset
    from dagster_project.resources.warehouse.reset import reset_demo, simulated_company
    from dagster_project.resources.warehouse.schema import prepare
    from dagster_project.settings import heed_home, load_settings

    if preset and mapping:
        raise HeedError("both --preset and --mapping are given", "name one: a preset is a mapping")
    columns: Mapping | None = None
    if preset or mapping:
        columns = read_preset(preset, heed_home() / "presets") if preset else read_mapping(str(mapping))
    if time_format or time_zone:
        from dagster_project.loading import Mapping

        columns = (columns or Mapping()).with_times(time_format, time_zone)
    named: list[tuple[Kind, Path | None]] = [
        *(("alerts", path) for path in files),
        ("alerts", alerts),
        ("actions", actions),
        ("rules", rules),
        ("action_types", action_types),
    ]
    steps: list[tuple[Kind, Path, bool]] = []
    for kind, path in named:
        if path is None:
            continue
        if not path.exists():
            raise HeedError(f"the file {path} does not exist", "correct the path; nothing was loaded")
        steps.append((kind, path, False))
        if kind == "alerts" and columns is not None and columns.has_decisions():
            steps.append(("actions", path, True))
    if not steps:
        raise HeedError("there is nothing to load", "name a file: heed load --alerts FILE --actions FILE")
    if correction and not any(kind == "alerts" for kind, _, _ in steps):
        raise HeedError(
            "--correction is for alerts, and no file of alerts is named",
            "omit it: for actions, rules and action types the newest version counts anyway",
        )
    zone = load_settings().source.time_zone
    warehouse = this_warehouse()
    prepare(warehouse)
    say = progress()
    if simulated_company(warehouse):
        say("removing the simulated company of `heed demo`: yours replaces it")
        reset_demo(warehouse, say)
    reports = []
    for kind, path, decisions_only in steps:
        say(f"loading {'decisions' if decisions_only else kind} from {path}")
        report = load_file(
            kind,
            path,
            warehouse.connect,
            mapping=columns,
            correction=correction and kind == "alerts",
            progress=lambda at: say(f"  {at.summary()}"),
            time_zone=zone,
            decisions_only=decisions_only,
        )
        reports.append(report)
        if not json_output:
            click.echo(one_line(report.summary()))
            for warning in report.warnings:
                click.echo(one_line(f"  {'note' if warning.is_note else 'WARNING'}: {warning.line()}"))
    if any(kind in ("actions", "action_types") for kind, _, _ in steps):
        _warn_of_meanings(warehouse)
    if json_output:
        click.echo(json.dumps([report.to_document() for report in reports]))


@main.command()
@click.argument("files", nargs=-1, required=True, type=FILE)
@click.option("--out", default=Path("mapping.toml"), show_default=True, type=FILE, help="Where the mapping goes.")
@click.option("--mapping", type=FILE, help="Try this mapping instead of proposing one.")
@click.option("--preset", help="Try this preset instead of proposing a mapping.")
@TIME_FORMAT
@TIME_ZONE
@JSON
def inspect(
    files: tuple[Path, ...],
    out: Path,
    mapping: Path | None,
    preset: str | None,
    time_format: str,
    time_zone: str,
    json_output: bool,
) -> None:
    """Look at FILES of alerts and actions, and write a commented mapping for them. Loads nothing."""
    from dagster_project.loading import read_mapping
    from dagster_project.loading.inspection.propose import propose, try_files
    from dagster_project.loading.inspection.write import load_command
    from dagster_project.loading.presets import read_preset
    from dagster_project.settings import heed_home, load_settings

    zone = load_settings().source.time_zone
    if preset or mapping:
        columns = read_preset(preset, heed_home() / "presets") if preset else read_mapping(str(mapping))
        lines = try_files([("alerts", path) for path in files], columns.with_times(time_format, time_zone), zone)
        questions: list[str] = []
    else:
        if out.exists():
            raise HeedError(f"{out} exists", "choose another --out, or try it: heed inspect FILE --mapping " + str(out))
        proposal = propose(list(files), zone, time_format)
        from dagster_project.resources.files.atomic_write import whole_file

        with whole_file(out, "choose another --out") as fresh:
            fresh.write_text(proposal.text, encoding="utf-8")
        questions = proposal.questions
        lines = [*proposal.lines, f"the mapping is in {out}, with its reasons"]
        if not proposal.is_blocked:
            lines += [f"next: {load_command(proposal.parts, str(out))}"]
    if json_output:
        click.echo(json.dumps({"lines": lines, "questions": questions, "out": None if preset or mapping else str(out)}))
        return
    for line in lines:
        click.echo(one_line(line))
    for question in questions:
        click.echo(one_line(f"QUESTION: {question}"))


@main.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@JSON
def pull(names: tuple[str, ...], json_output: bool) -> None:
    """Fetch what is new from the sources of heed.toml: all, or those named."""
    from dagster_project.loading.pulls.pull import pull as pull_source
    from dagster_project.resources.warehouse.schema import prepare
    from dagster_project.settings import load_settings

    settings, say = load_settings(), progress()
    if not names and not settings.sources:
        raise HeedError("heed.toml has no sources", "add a table like [sources.pagerduty]; docs/connect.md has them")
    warehouse = this_warehouse()
    prepare(warehouse)
    reports, failures = [], []
    for name in names or tuple(settings.sources):
        try:
            report = pull_source(name, settings, warehouse, say)
        except HeedError as error:  # one system that is down must not keep the others from being pulled
            failures.append((name, error))
            continue
        reports.append(report)
        if not json_output:
            click.echo(one_line(report.line()))
            for warning in report.warnings:
                click.echo(one_line(f"  WARNING: {warning}"))
    if json_output:
        click.echo(json.dumps([report.to_document() for report in reports]))
    if any(report.actions for report in reports):
        _warn_of_meanings(warehouse)
    for name, failure in failures[:-1]:
        click.echo(one_line(f"heed: {name}: {failure.cause}; {failure.remedy}"), err=True)
    if failures:
        name, failure = failures[-1]
        raise HeedError(f"{name}: {failure.cause}", failure.remedy)


def _warn_of_meanings(warehouse: Warehouse) -> None:
    from dagster_project.resources.inputs.action_types import (
        MOST_UNKNOWN,
        how_to_explain,
        nothing_acted_in_words,
        raw_types,
        unknown_in_words,
        unknown_share,
    )
    from dagster_project.settings import load_settings

    settings = load_settings()
    types = raw_types(warehouse, settings)
    if words := nothing_acted_in_words(types):
        click.echo(one_line(f"heed: warning: {words}: {how_to_explain(settings)}."), err=True)
    if words := unknown_in_words(types):
        share = unknown_share(types)
        refused = f"; these are {share:.0%} of the actions that may decide, and nothing is learned" * (
            share > MOST_UNKNOWN
        )
        click.echo(one_line(f"heed: warning: {words}{refused}. {how_to_explain(settings)}."), err=True)
