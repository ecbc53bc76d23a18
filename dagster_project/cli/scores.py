"""Commands about scores: `run`, `replay`, `demo`, `summary`, `report`, `champion`, `rollback`.

Belongs here: arguments, and what is printed.
Does not belong here: what the commands do (`commands/`).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import click

from dagster_project.cli.group import (
    AS_OF,
    FILE,
    JSON,
    VALID_FROM,
    WHO,
    WHY,
    Moment,
    Span,
    main,
    progress,
    this_warehouse,
)
from dagster_project.errors import one_line


@main.command()
@AS_OF
@click.option("--retrain/--no-retrain", default=None, help="Train or do not train, whether it is due or not.")
@click.option("--full", is_flag=True, help="Read and check everything, not only what is new.")
@JSON
def run(as_of: datetime | None, retrain: bool | None, full: bool, json_output: bool) -> None:
    """Run the whole job once: clean, flag, derive features, train if due, score, publish."""
    from dagster_project.commands.run import run_whole_job

    outcome = run_whole_job(as_of, retrain=retrain, full_refresh=full, say=progress())
    if json_output:
        click.echo(json.dumps(outcome.to_document()))
    else:
        click.echo(outcome.summary())


@main.command()
@click.option("--from", "first", required=True, type=Moment(), help="When the replay begins, like 2024-07-01.")
@click.option("--to", "until", required=True, type=Moment(), help="When the replay ends.")
@click.option(
    "--every", default="7d", type=Span(), show_default=True, help="How often production retrains, like 7d or 12h."
)
@click.option("--out", required=True, type=FILE, help="Where the scores go: a .parquet or .csv file.")
@click.option(
    "--open", "open_out", type=FILE, help="Where the alerts go that were open at each cut, as they were read."
)
@JSON
def replay(
    first: datetime, until: datetime, every: timedelta, out: Path, open_out: Path | None, json_output: bool
) -> None:
    """Replay the past as production would have scored it: each alert at its raised_at."""
    from dagster_project.commands.replay import replay_to_file

    report = replay_to_file(first, until, every, out, say=progress(), open_out=open_out)
    click.echo(json.dumps(report.to_document()) if json_output else report.summary())


@main.command()
@click.option("--alerts", default=60_000, show_default=True, help="How many alerts the company raises.")
@click.option("--days", default=200, show_default=True, help="Over how many days.")
@click.option("--seed", default=0, show_default=True, help="Another seed gives another company.")
def demo(alerts: int, days: int, seed: int) -> None:
    """A simulated company, from raw alerts to scores, with a summary."""
    from dagster_project.commands.demo import run_demo

    run_demo(alerts=alerts, days=days, seed=seed, say=progress())


@main.command()
@JSON
def summary(json_output: bool) -> None:
    """Rows, flags, the model next to the baselines, and the alerts most worth attention."""
    from dagster_project.commands.summary import collect, show

    document = collect(this_warehouse())
    if json_output:
        click.echo(json.dumps(document, default=str))
    else:
        show(document)


@main.command()
@click.option("--out", default=Path("report.html"), show_default=True, type=FILE, help="Where the page goes.")
@click.option("--as-of", type=Moment(), help="Take the data as of this time; default: that of the newest run.")
@JSON
def report(out: Path, as_of: datetime | None, json_output: bool) -> None:
    """The evidence as one self-contained HTML page, the verdict first."""
    from dagster_project.commands.report import read_evidence, write_report
    from dagster_project.reporting.verdict import judge
    from dagster_project.settings import load_settings

    evidence = read_evidence(this_warehouse(), load_settings(), as_of)
    write_report(evidence, out)
    verdict = judge(evidence)
    if json_output:
        document = {
            "out": str(out),
            "as_of": evidence.as_of.isoformat(),
            "model_version": evidence.scoring.model_version if evidence.scoring else None,
            "verdict": verdict.word,
            "sentence": verdict.sentence,
            "points": [vars(point) for point in verdict.points],
        }
        click.echo(json.dumps(document))
    else:
        click.echo(f"{verdict.word}: {verdict.sentence}")
        click.echo(f"The page is {out}.")


@main.command()
@AS_OF
@JSON
def champion(as_of: datetime | None, json_output: bool) -> None:
    """The model versions, what was decided about them, and which one scores."""
    from dagster_project.commands.champion import list_versions

    versions = list_versions(this_warehouse(), as_of)
    if json_output:
        click.echo(json.dumps(versions, default=str))
        return
    if not versions:
        click.echo("There is no model version yet.")
    for row in versions:
        state = "scores now" if row["scores"] else "rolled back from" if row["withdrawn"] else ""
        click.echo(f"{row['model_version']}  trained on data up to {row['cut']:%Y-%m-%d %H:%M} UTC  {state}".rstrip())
        for decision in row["decisions"]:
            word, by = decision["decision"].replace("_", " "), decision["decided_by"]
            click.echo(
                one_line(
                    f"    {decision['as_of']:%Y-%m-%d %H:%M} UTC  {word} by {by}: {'; '.join(decision['reasons'])}"
                )
            )


@main.command()
@click.argument("version", required=False)
@WHO
@WHY
@VALID_FROM
@JSON
def rollback(version: str | None, who: str, why: str, as_of: datetime | None, json_output: bool) -> None:
    """Let an earlier VERSION score again; without one, the previous champion."""
    from dagster_project.commands.champion import roll_back
    from dagster_project.settings import load_settings

    now, before = roll_back(this_warehouse(), load_settings(), version, who=who, why=why, as_of=as_of)
    if json_output:
        click.echo(json.dumps({"scores": now, "instead_of": before}))
    else:
        click.echo(f"{now} scores from the next run on, instead of {before or 'nothing'}.")
