"""`heed autoclose`: close alerts, rule by rule.

Belongs here: arguments, and what is printed.
Does not belong here: requests and lists (`commands/autoclose.py`), the guarantee (`triage/autoclose.py`).
"""

from __future__ import annotations

import json
from datetime import datetime

import click

from dagster_project.cli.group import JSON, VALID_FROM, WHO, WHY, Moment, main, this_warehouse
from dagster_project.errors import one_line


@main.group()
def autoclose() -> None:
    """Close alerts rule by rule, with a bounded miss rate. heed publishes decisions and closes nothing itself."""


@autoclose.command("enable")
@click.argument("rule")
@click.option("--max-miss-rate", required=True, type=float, help="The share of acted alerts that may be closed.")
@click.option("--until", required=True, type=Moment(), help="When it ends, like 2027-01-01.")
@click.option("--mode", type=click.Choice(["shadow", "on"]), default="shadow", show_default=True)
@WHO
@WHY
@VALID_FROM
@JSON
def autoclose_enable(
    rule: str,
    max_miss_rate: float,
    until: datetime,
    mode: str,
    who: str,
    why: str,
    as_of: datetime | None,
    json_output: bool,
) -> None:
    """Let heed decide to close alerts of RULE. In shadow mode it only says what it would have closed."""
    from dagster_project.commands.autoclose import enable
    from dagster_project.settings import load_settings

    request = enable(
        this_warehouse(),
        load_settings(),
        rule,
        miss_rate=max_miss_rate,
        until=until,
        mode=mode,
        who=who,
        why=why,
        as_of=as_of,
    )
    if json_output:
        click.echo(json.dumps(request, default=str))
        return
    then = {
        "found": "New alerts are decided from the next run on.",
        "waiting": "Nothing is decided until then.",
        "refused": "Nothing is decided; enable it again when there are more.",
    }
    click.echo(one_line(f"{rule}, {mode}: {request['finding']}. {then[request['status']]}"))


@autoclose.command("disable")
@click.argument("rule")
@WHO
@WHY
@VALID_FROM
def autoclose_disable(rule: str, who: str, why: str, as_of: datetime | None) -> None:
    """Stop deciding for RULE. Earlier decisions stay."""
    from dagster_project.commands.autoclose import disable

    disable(this_warehouse(), rule, who=who, why=why, as_of=as_of)
    click.echo(one_line(f"{rule}: off."))


@autoclose.command("undo")
@click.argument("rule")
@click.option("--alert", help="Undo the closing of this alert only; the rule is still paused.")
@WHO
@WHY
@VALID_FROM
@JSON
def autoclose_undo(rule: str, alert: str | None, who: str, why: str, as_of: datetime | None, json_output: bool) -> None:
    """Undo the closings of RULE under its newest request, and pause the rule."""
    from dagster_project.commands.autoclose import undo

    number = undo(this_warehouse(), rule, alert_id=alert, who=who, why=why, as_of=as_of)
    if json_output:
        click.echo(json.dumps({"rule": rule, "taken_back": number}))
    else:
        click.echo(one_line(f"{rule}: {number:,} closings undone. The rule is paused until somebody enables it again."))


@autoclose.command("never")
@click.argument("rule")
@click.option("--remove", is_flag=True, help="Take it off the list.")
@WHO
@WHY
@VALID_FROM
def autoclose_never(rule: str, remove: bool, who: str, why: str, as_of: datetime | None) -> None:
    """Put RULE on the list of rules that are never closed."""
    from dagster_project.commands.autoclose import never

    never(this_warehouse(), rule, remove=remove, who=who, why=why, as_of=as_of)
    click.echo(one_line(f"{rule}: off the list. This enables nothing." if remove else f"{rule}: never closed."))


@autoclose.command("list")
@VALID_FROM
@JSON
def autoclose_list(as_of: datetime | None, json_output: bool) -> None:
    """The state of closing, rule by rule."""
    from dagster_project.commands.autoclose import list_rules

    rules = list_rules(this_warehouse(), as_of)
    if json_output:
        click.echo(json.dumps(rules, default=str))
        return
    if not rules:
        click.echo("Closing was never enabled for any rule.")
    for row in rules:
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
