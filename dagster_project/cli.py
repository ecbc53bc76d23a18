"""The `heed` command: thin. It reads arguments, calls one function, and says what happened.

Belongs here: arguments, exit status, the one-line form of errors, `--json`.
Does not belong here: anything that could be called without a terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dagster_project.errors import HeedError, one_line, outage
from dagster_project.logs import in_json, json_line
from dagster_project.private import private_files
from dagster_project.resources.warehouse.schema import prepare

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse


class OneLineErrors(click.Group):
    """Errors that a user can mend are one line on standard error and exit status 1, never a stack trace."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with private_files():
                return super().invoke(context)
        except HeedError as error:
            if context.params.get("json_output") or "--json" in sys.argv:
                click.echo(json.dumps({"error": error.cause, "remedy": error.remedy}))
            _complain(error)
            context.exit(1)
        except Exception as error:
            known = outage(error)
            if known is None:  # a bug, and shown as one
                raise
            if context.params.get("json_output") or "--json" in sys.argv:
                click.echo(json.dumps({"error": known.cause, "remedy": known.remedy}))
            _complain(known)
            context.exit(1)
        except KeyboardInterrupt:
            click.echo("heed: interrupted. What was not finished did not happen; run the command again.", err=True)
            context.exit(130)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="heed")
def main() -> None:
    """Scores operational alerts with the probability that somebody will act on them."""


JSON = click.option("--json", "json_output", is_flag=True, help="One JSON document on standard output.")
FILE = click.Path(path_type=Path)


def _complain(error: HeedError) -> None:
    click.echo(json_line(error.cause, "error", remedy=error.remedy) if in_json() else f"heed: {error}", err=True)


def _say(started: float) -> Callable[[str], None]:
    def say(line: str) -> None:
        if in_json():
            click.echo(json_line(one_line(line), seconds=round(time.monotonic() - started, 1)), err=True)
            return
        click.echo(f"  {time.monotonic() - started:5.1f} s  {one_line(line)}", err=True)

    return say


@main.command()
@JSON
def init(json_output: bool) -> None:
    """Make heed's tables and roles in the warehouse, and grant each role what it needs. Safe to run again."""
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.resources.warehouse.roles import LOADER, SCORER, SERVER, TRANSFORMER, WORK
    from dagster_project.resources.warehouse.schema import initialise
    from dagster_project.settings import heed_home, load_settings

    warehouse = Warehouse(heed_home())
    undone = initialise(warehouse, load_settings())
    if json_output:
        click.echo(json.dumps({"roles": list(WORK), "left_to_the_owner": undone}))
        return
    click.echo(f"Tables and roles stand in {warehouse.describe()}:")
    for role, work in WORK.items():
        click.echo(f"  {role:<17} {work}")
    for statement in undone:
        click.echo(f"The owner of your tables has to do this: {statement};")
    click.echo(
        "They cannot log in. Make a login for each of your processes, as the owner of the server:\n"
        f"  CREATE ROLE heed_job LOGIN PASSWORD '...' IN ROLE {LOADER}, {TRANSFORMER}, {SCORER};\n"
        f"  CREATE ROLE heed_web LOGIN PASSWORD '...' IN ROLE {SERVER};"
    )


@main.command()
@click.option("--alerts", type=FILE, help="File of alerts: CSV, TSV or JSON lines, also gzipped, or Parquet.")
@click.option("--actions", type=FILE, help="File of actions.")
@click.option("--rules", type=FILE, help="File that declares facts about rules.")
@click.option("--action-types", type=FILE, help="File: action_type, meaning (acted, dismissed, neutral or reopened).")
@click.option("--mapping", type=FILE, help="TOML file that names your columns.")
@click.option("--correction", is_flag=True, help="These alerts are right, and what was loaded of them before is not.")
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
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.resources.warehouse.emptying import empty_simulated, simulated_company
    from dagster_project.settings import heed_home, load_settings

    given: dict[Kind, Path | None] = {
        "alerts": alerts,
        "actions": actions,
        "rules": rules,
        "action_types": action_types,
    }
    wanted = {kind: path for kind, path in given.items() if path is not None}
    if correction and alerts is None:
        raise HeedError(
            "--correction is about alerts, and no file of alerts is named",
            "leave it out: of actions, rules and action types the newest version counts anyway",
        )
    if not wanted:
        raise HeedError("there is nothing to load", "name a file: heed load --alerts FILE --actions FILE")
    for path in wanted.values():
        if not path.exists():
            raise HeedError(f"the file {path} does not exist", "correct the path; nothing was loaded")
    columns = read_mapping(mapping) if mapping else None
    zone = load_settings().source.time_zone
    warehouse = Warehouse(heed_home())
    prepare(warehouse)
    say = _say(time.monotonic())
    if simulated_company(warehouse):
        say("the simulated company of `heed demo` makes way for yours")
        empty_simulated(warehouse, say)
    reports = []
    for kind, path in wanted.items():
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
    from dagster_project.resources.stores.action_types import (
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
    """Every action type that was loaded, with what heed takes it for: a list to fill in and load."""
    from dagster_project.resources.stores.action_types import raw_types, write_types
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home, load_settings

    types = raw_types(Warehouse(heed_home()), load_settings())
    if not types:
        raise HeedError("no action was loaded yet", "load some: heed load --actions FILE")
    write_types(types, out)
    unknown = sum(each.meaning is None for each in types)
    if json_output:
        click.echo(json.dumps({"out": str(out), "action_types": [each.to_document() for each in types]}))
        return
    click.echo(
        f"{out}: {len(types)} action types, {unknown} without a meaning. Correct what is wrong, write acted, "
        f"dismissed, neutral or reopened where nothing is said, then `heed load --action-types {out}`."
    )


@main.command()
@click.option("--as-of", help="The moment at which to stand; now by default. Like 2025-05-01.")
@click.option("--retrain/--no-retrain", default=None, help="Learn anew, or not, whether it is due or not.")
@click.option("--full", is_flag=True, help="Read and check everything, not only what is new.")
@JSON
def run(as_of: str | None, retrain: bool | None, full: bool, json_output: bool) -> None:
    """The whole job once: clean, flag, derive features, learn if due, score, publish."""
    from dagster_project.commands.run import run_whole_job
    from dagster_project.resources.as_of import parse_moment

    moment = parse_moment(as_of) if as_of else None
    outcome = run_whole_job(moment, retrain=retrain, whole=full, say=_say(time.monotonic()))
    if json_output:
        click.echo(json.dumps(outcome.to_document()))
    else:
        click.echo(outcome.summary())


@main.command()
@click.option("--from", "first", required=True, help="The first moment, like 2024-07-01.")
@click.option("--to", "until", required=True, help="The moment at which the replay ends.")
@click.option("--every", default="7d", show_default=True, help="How often production retrains, like 7d or 12h.")
@click.option("--out", required=True, type=FILE, help="Where the scores go: a .parquet or .csv file.")
@JSON
def replay(first: str, until: str, every: str, out: Path, json_output: bool) -> None:
    """What production would have said: walks through time and scores each alert at its raised_at."""
    from dagster_project.commands.replay import replay_to_file
    from dagster_project.resources.as_of import parse_moment

    report = replay_to_file(parse_moment(first), parse_moment(until), _span(every), out, say=_say(time.monotonic()))
    click.echo(json.dumps(report.to_document()) if json_output else report.summary())


@main.command()
@click.option("--alerts", default=60_000, show_default=True, help="How many alerts the company raises.")
@click.option("--days", default=200, show_default=True, help="Over how many days.")
@click.option("--seed", default=0, show_default=True, help="Another seed is another company.")
def demo(alerts: int, days: int, seed: int) -> None:
    """A simulated company, from raw alerts to scores, with a summary."""
    from dagster_project.commands.demo import run_demo

    run_demo(alerts=alerts, days=days, seed=seed, say=_say(time.monotonic()))


@main.command()
@JSON
def summary(json_output: bool) -> None:
    """What stands now: rows, flags, the model beside the baselines, the alerts most worth attention."""
    from dagster_project.commands.summary import collect, show
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    found = collect(Warehouse(heed_home()))
    if json_output:
        click.echo(json.dumps(found, default=str))
    else:
        show(found)


@main.command()
@click.option("--out", default=Path("report.html"), show_default=True, type=FILE, help="Where the page goes.")
@click.option("--as-of", help="The moment at which to stand; that of the newest run by default. Like 2025-05-01.")
@JSON
def report(out: Path, as_of: str | None, json_output: bool) -> None:
    """The evidence as one self-contained HTML page, the verdict first."""
    from dagster_project.commands.report import read_evidence, write_report
    from dagster_project.reporting.verdict import judge
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home, load_settings

    found = read_evidence(Warehouse(heed_home()), load_settings(), parse_moment(as_of) if as_of else None)
    write_report(found, out)
    verdict = judge(found)
    if json_output:
        document = {
            "out": str(out),
            "as_of": found.as_of.isoformat(),
            "model_version": found.scoring.model_version if found.scoring else None,
            "verdict": verdict.word,
            "sentence": verdict.sentence,
            "points": [vars(point) for point in verdict.points],
        }
        click.echo(json.dumps(document))
    else:
        click.echo(f"{verdict.word}: {verdict.sentence}")
        click.echo(f"The page is {out}.")


@main.command()
@click.option("--out", default=Path("tables.html"), show_default=True, type=FILE, help="Where the page goes.")
@JSON
def docs(out: Path, json_output: bool) -> None:
    """Every table and column described, with contracts, tests and lineage, as one HTML page (dbt docs)."""
    from dagster_project.resources.dbt.project import write_docs
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home, load_settings

    write_docs(Warehouse(heed_home()), load_settings(), datetime.now(UTC), out)
    click.echo(json.dumps({"out": str(out)}) if json_output else f"The page is {out}.")


@main.command()
@click.option("--as-of", help="The moment at which to stand; now by default. Like 2025-05-01.")
@JSON
def champion(as_of: str | None, json_output: bool) -> None:
    """The model versions, what was decided about them, and which one scores."""
    from dagster_project.commands.champion import list_versions
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    found = list_versions(Warehouse(heed_home()), parse_moment(as_of) if as_of else None)
    if json_output:
        click.echo(json.dumps(found, default=str))
        return
    if not found:
        click.echo("There is no model version yet.")
    for row in found:
        state = "scores now" if row["scores"] else "rolled back from" if row["withdrawn"] else ""
        click.echo(f"{row['model_version']}  knows up to {row['cut']:%Y-%m-%d %H:%M} UTC  {state}".rstrip())
        for made in row["decisions"]:
            word, by = made["decision"].replace("_", " "), made["decided_by"]
            click.echo(
                one_line(f"    {made['as_of']:%Y-%m-%d %H:%M} UTC  {word} by {by}: {'; '.join(made['reasons'])}")
            )


@main.command()
@click.argument("version", required=False)
@click.option("--who", required=True, help="Who decides it.")
@click.option("--why", required=True, help="The reason; it is kept with the decision.")
@click.option("--as-of", help="From which moment on it holds; now by default.")
@JSON
def rollback(version: str | None, who: str, why: str, as_of: str | None, json_output: bool) -> None:
    """Let an earlier VERSION score again; without one, the previous champion."""
    from dagster_project.commands.champion import roll_back
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home, load_settings

    moment = parse_moment(as_of) if as_of else None
    now, before = roll_back(Warehouse(heed_home()), load_settings(), version, who=who, why=why, as_of=moment)
    if json_output:
        click.echo(json.dumps({"scores": now, "instead_of": before}))
    else:
        click.echo(f"{now} scores from the next run on, instead of {before or 'nothing'}.")


@main.group()
def autoclose() -> None:
    """Closing, rule by rule, with a bounded miss rate. heed publishes decisions and closes nothing itself."""


WHO = click.option("--who", required=True, help="Who says so.")
WHY = click.option("--why", required=True, help="The reason; it is kept.")
AS_OF = click.option("--as-of", help="From which moment on it holds; now by default.")


@autoclose.command("enable")
@click.argument("rule")
@click.option("--max-miss-rate", required=True, type=float, help="Of alerts acted upon, the share that may be closed.")
@click.option("--until", required=True, help="When it ends, like 2027-01-01.")
@click.option("--mode", type=click.Choice(["shadow", "on"]), default="shadow", show_default=True)
@WHO
@WHY
@AS_OF
@JSON
def autoclose_enable(
    rule: str, max_miss_rate: float, until: str, mode: str, who: str, why: str, as_of: str | None, json_output: bool
) -> None:
    """Let closing be decided for RULE. In shadow mode heed says what it would have closed."""
    from dagster_project.commands.autoclose import enable
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home, load_settings

    made = enable(
        Warehouse(heed_home()),
        load_settings(),
        rule,
        miss_rate=max_miss_rate,
        until=parse_moment(until),
        mode=mode,
        who=who,
        why=why,
        as_of=parse_moment(as_of) if as_of else None,
    )
    if json_output:
        click.echo(json.dumps(made, default=str))
        return
    then = {
        "found": "New alerts are decided from the next run on.",
        "waiting": "Nothing is decided until then.",
        "refused": "Nothing is decided; enable it anew when there are more.",
    }
    click.echo(one_line(f"{rule}, {mode}: {made['finding']}. {then[made['status']]}"))


@autoclose.command("disable")
@click.argument("rule")
@WHO
@WHY
@AS_OF
def autoclose_disable(rule: str, who: str, why: str, as_of: str | None) -> None:
    """Decide nothing more for RULE. What was decided stands."""
    from dagster_project.commands.autoclose import disable
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    disable(Warehouse(heed_home()), rule, who=who, why=why, as_of=parse_moment(as_of) if as_of else None)
    click.echo(one_line(f"{rule}: off."))


@autoclose.command("undo")
@click.argument("rule")
@click.option("--alert", help="Take back this alert only; the rule pauses all the same.")
@WHO
@WHY
@AS_OF
@JSON
def autoclose_undo(rule: str, alert: str | None, who: str, why: str, as_of: str | None, json_output: bool) -> None:
    """Take back what was closed of RULE under its newest request, and pause the rule."""
    from dagster_project.commands.autoclose import undo
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    moment = parse_moment(as_of) if as_of else None
    number = undo(Warehouse(heed_home()), rule, alert_id=alert, who=who, why=why, as_of=moment)
    if json_output:
        click.echo(json.dumps({"rule": rule, "taken_back": number}))
    else:
        click.echo(one_line(f"{rule}: {number:,} taken back. It is paused until somebody enables it anew."))


@autoclose.command("never")
@click.argument("rule")
@click.option("--remove", is_flag=True, help="Take it off the list.")
@WHO
@WHY
@AS_OF
def autoclose_never(rule: str, remove: bool, who: str, why: str, as_of: str | None) -> None:
    """Put RULE on the list of those that are never closed."""
    from dagster_project.commands.autoclose import never
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    moment = parse_moment(as_of) if as_of else None
    never(Warehouse(heed_home()), rule, remove=remove, who=who, why=why, as_of=moment)
    click.echo(one_line(f"{rule}: off the list; nothing is enabled by that." if remove else f"{rule}: never closed."))


@autoclose.command("list")
@AS_OF
@JSON
def autoclose_list(as_of: str | None, json_output: bool) -> None:
    """Where closing stands, rule by rule."""
    from dagster_project.commands.autoclose import list_rules
    from dagster_project.resources.as_of import parse_moment
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    found = list_rules(Warehouse(heed_home()), parse_moment(as_of) if as_of else None)
    if json_output:
        click.echo(json.dumps(found, default=str))
        return
    if not found:
        click.echo("Closing was never enabled for any rule.")
    for row in found:
        until = f" until {row['until']:%Y-%m-%d %H:%M} UTC, by {row['who']}: {row['why']}" if row["until"] else ""
        click.echo(one_line(f"{row['rule']}  {'never' if row['never'] else row['mode']}{until}"))
        for line in (row["finding"], row["ended"]):
            if line:
                click.echo(one_line(f"    {line}"))
        if row["decided"]:
            click.echo(
                f"    decided {row['decided']:,}: closed {row['closed']:,}, "
                f"would have closed {row['would_have_closed']:,} in shadow, left open in doubt {row['open_in_doubt']:,}"
            )


@main.command()
@click.option("--dry-run", is_flag=True, help="Count what would go, and remove nothing.")
@JSON
def prune(dry_run: bool, json_output: bool) -> None:
    """Remove what is older than [retention] in heed.toml allows; never what evidence needs."""
    from dagster_project.commands.prune import prune_home

    made = prune_home(dry_run=dry_run, say=_say(time.monotonic()))
    if json_output:
        click.echo(json.dumps([row.to_document() for row in made]))
        return
    click.echo("Would be removed:" if dry_run else "Removed:")
    for row in made:
        click.echo(row.line())


HOST = click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address; loopback unless you say otherwise."
)
PORT = click.IntRange(0, 65535)
ALLOWED_HOST = click.option(
    "--allowed-host", multiple=True, help="Another name by which it is called, like a proxy's; repeatable."
)


@main.command()
@HOST
@click.option("--port", default=3000, show_default=True, type=PORT, help="0 means any free one.")
@ALLOWED_HOST
@click.option("--ui-only", is_flag=True, help="Without the daemon, where that runs elsewhere on DAGSTER_HOME.")
def up(host: str, port: int, allowed_host: tuple[str, ...], ui_only: bool) -> None:
    """The Dagster UI with its daemon: its schedules run as long as this does."""
    from dagster_project.commands.up import serve_dagster

    raise SystemExit(serve_dagster(host, port, allowed_host, daemon=not ui_only))


@main.command()
@HOST
@click.option("--port", default=8080, show_default=True, type=PORT, help="0 means any free one.")
@ALLOWED_HOST
def serve(host: str, port: int, allowed_host: tuple[str, ...]) -> None:
    """Scores over HTTP, and a board for triagers, until it is stopped."""
    from dagster_project.serving.server import serve as serve_scores

    serve_scores(
        host, port, allowed_host, say=lambda line: click.echo(json_line(line) if in_json() else f"heed: {line}")
    )


@main.command()
@click.option("--test", is_flag=True, required=True, help="Send a message that says that it is a test.")
@JSON
def notify(test: bool, json_output: bool) -> None:
    """Try the destinations that are told when a run fails."""
    from dagster_project.resources.notices import send
    from dagster_project.settings import load_settings

    text = "This is a test of `heed notify --test`. A message like this one comes when a run fails."
    number = send(load_settings(), "heed: a test", text)
    click.echo(json.dumps({"sent": number}) if json_output else f"Sent to {number}.")


@main.command()
@JSON
def doctor(json_output: bool) -> None:
    """What is wrong, and what to do about it. Exit status 1 when something is: also a failed run or stale scores."""
    from dagster_project.commands.doctor import examine

    findings = examine()
    if json_output:
        click.echo(json.dumps([finding.to_document() for finding in findings]))
    else:
        for finding in findings:
            click.echo(finding.line())
    if any(finding.status == "wrong" for finding in findings):
        raise SystemExit(1)


def _span(text: str) -> timedelta:
    units = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
    number, unit = text.strip()[:-1], text.strip()[-1:]
    try:
        return float(number) * units[unit]
    except (KeyError, ValueError, OverflowError) as error:
        raise HeedError(f"{text!r} is not a span of time", "write one like 14d, 12h or 2w") from error


if __name__ == "__main__":
    main()
