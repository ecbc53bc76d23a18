"""The `heed` group: what all its commands share.

Belongs here: the one-line form of errors, shared options and their types, progress lines.
Does not belong here: commands (the modules of this folder).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import click

from dagster_project.errors import HeedError, one_line, outage
from dagster_project.logs import in_json, json_line
from dagster_project.private import private_files

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse


class OneLineErrors(click.Group):
    """Errors that a user can correct are one line on standard error and exit status 1, never a stack trace."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with private_files():
                return super().invoke(context)
        except Exception as error:
            known = error if isinstance(error, HeedError) else outage(error)
            if known is None:  # a bug, and shown as one
                raise
            if context.params.get("json_output") or "--json" in sys.argv:
                click.echo(json.dumps({"error": known.cause, "remedy": known.remedy}))
            line = json_line(known.cause, "error", remedy=known.remedy) if in_json() else f"heed: {known}"
            click.echo(line, err=True)
            context.exit(1)
        except KeyboardInterrupt:
            click.echo("heed: interrupted. Unfinished work was rolled back; run the command again.", err=True)
            context.exit(130)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="heed")
def main() -> None:
    """Scores operational alerts with the probability that somebody will act on them."""


class Moment(click.ParamType):
    """An ISO-8601 text as an aware datetime in UTC."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> datetime:
        from dagster_project.resources.as_of import parse_moment

        return value if isinstance(value, datetime) else parse_moment(value)


class Span(click.ParamType):
    """A text like 14d, 12h or 2w as a timedelta."""

    name = "text"
    units: ClassVar = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        number, unit = value.strip()[:-1], value.strip()[-1:]
        try:
            return float(number) * self.units[unit]
        except (KeyError, ValueError, OverflowError) as error:
            raise HeedError(f"{value!r} is not a span of time", "write one like 14d, 12h or 2w") from error


FILE = click.Path(path_type=Path)
JSON = click.option("--json", "json_output", is_flag=True, help="One JSON document on standard output.")
WHO = click.option("--who", required=True, help="Who decides.")
WHY = click.option("--why", required=True, help="The reason, which is stored.")
VALID_FROM = click.option("--as-of", type=Moment(), help="When it takes effect; default: now.")
AS_OF = click.option("--as-of", type=Moment(), help="Take the data as of this time, like 2025-05-01; default: now.")


def this_warehouse() -> Warehouse:
    """The warehouse of this home, or the one that HEED_DATABASE_URL names."""
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    return Warehouse(heed_home())


def progress() -> Callable[[str], None]:
    """A function that prints progress lines on standard error, with the seconds since now."""
    started = time.monotonic()

    def say(line: str) -> None:
        if in_json():
            click.echo(json_line(one_line(line), seconds=round(time.monotonic() - started, 1)), err=True)
            return
        click.echo(f"  {time.monotonic() - started:5.1f} s  {one_line(line)}", err=True)

    return say
