"""Commands that serve, tell and watch: `up`, `serve`, `mcp`, `notify`, `destinations`, `doctor`.

Belongs here: arguments, exit status, and what is printed.
Does not belong here: the servers (`commands/up.py`, `serving/`), the checks (`commands/doctor.py`).
"""

from __future__ import annotations

import json

import click

from dagster_project.cli.group import JSON, main, this_warehouse
from dagster_project.logs import in_json, json_line

HOST = click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
PORT = click.IntRange(0, 65535)
ALLOWED_HOST = click.option(
    "--allowed-host", multiple=True, help="Another host name that requests may use, like a proxy's; repeatable."
)


@main.command()
@HOST
@click.option("--port", default=3000, show_default=True, type=PORT, help="0 means any free one.")
@ALLOWED_HOST
@click.option("--ui-only", is_flag=True, help="Without the daemon, if that runs elsewhere on DAGSTER_HOME.")
def up(host: str, port: int, allowed_host: tuple[str, ...], ui_only: bool) -> None:
    """Serve the Dagster UI with its daemon. Schedules run as long as this does."""
    from dagster_project.commands.up import serve_dagster

    raise SystemExit(serve_dagster(host, port, allowed_host, daemon=not ui_only))


@main.command()
@HOST
@click.option("--port", default=8080, show_default=True, type=PORT, help="0 means any free one.")
@ALLOWED_HOST
def serve(host: str, port: int, allowed_host: tuple[str, ...]) -> None:
    """Serve scores over HTTP, and a board for triagers, until stopped."""
    from dagster_project.serving.server import serve as serve_scores

    serve_scores(
        host, port, allowed_host, say=lambda line: click.echo(json_line(line) if in_json() else f"heed: {line}")
    )


@main.command()
def mcp() -> None:
    """Serve scores to an assistant over MCP, on standard input and output. Needs the extra: pip install 'heed[mcp]'."""
    from dagster_project.serving.model_context import serve as serve_tools

    serve_tools()


@main.command()
@click.option("--test", is_flag=True, required=True, help="Send a test message.")
@JSON
def notify(test: bool, json_output: bool) -> None:
    """Try the destinations that are notified when a run fails."""
    from dagster_project.resources.notices import send
    from dagster_project.settings import load_settings

    text = "This is a test from `heed notify --test`. heed sends a message like this when a run fails."
    number = send(load_settings(), "heed: a test", text)
    click.echo(json.dumps({"sent": number}) if json_output else f"Sent to {number}.")


@main.command()
@click.option("--test", "tested", metavar="NAME", help="Send one test message to NAME.")
@click.option("--on", default="", metavar="ID", help="With --test: the incident, issue or record to comment on.")
@click.option("--send", is_flag=True, help="Send now what is due, without waiting for the next run.")
@click.option("--retry", metavar="NAME", help="Let what was given up for NAME wait again.")
@JSON
def destinations(tested: str | None, on: str, send: bool, retry: str | None, json_output: bool) -> None:
    """The systems that get scores, and what was delivered to them."""
    from dagster_project.delivery import deliver
    from dagster_project.resources.stores.deliveries import put_back, summary
    from dagster_project.settings import load_settings

    settings = load_settings()
    if tested is not None:
        deliver.send_test(tested, settings, on)
        click.echo(json.dumps({"tested": tested}) if json_output else f"{tested} accepted a test message.")
        return
    warehouse = this_warehouse()
    if retry is not None:
        number = put_back(warehouse, retry)
        click.echo(json.dumps({"waiting": number}) if json_output else f"{number} messages to {retry} wait again.")
        return
    if send:
        results = deliver.send_due(warehouse, settings, list(settings.destinations))
        click.echo(
            json.dumps([result.to_document() for result in results])
            if json_output
            else "\n".join(result.line() for result in results) or "There are no destinations in heed.toml."
        )
        return
    rows = summary(warehouse)
    if json_output:
        click.echo(json.dumps(rows))
        return
    for name, destination in settings.destinations.items():
        counts = ", ".join(f"{row['messages']} {row['outcome']}" for row in rows if row["destination"] == name)
        click.echo(f"{name} ({destination.kind}): {counts or 'nothing was sent yet'}")
    if not settings.destinations:
        click.echo("There are no destinations in heed.toml: docs/destinations.md says how to add one.")


@main.command()
@JSON
def doctor(json_output: bool) -> None:
    """Say what is wrong, and what to do about it. Exit status 1 on errors, including a failed run or stale scores."""
    from dagster_project.commands.doctor import examine

    findings = examine()
    if json_output:
        click.echo(json.dumps([finding.to_document() for finding in findings]))
    else:
        for finding in findings:
            click.echo(finding.line())
    if any(finding.level == "error" for finding in findings):
        raise SystemExit(1)
