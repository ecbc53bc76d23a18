"""`heed demo`: a simulated company, from messy export to scores.

Belongs here: the newcomer's first three minutes.
Does not belong here: anything that a real company would use.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from dagster_project.errors import HeedError
from dagster_project.resources.dbt_ahead import prepare_dbt
from dagster_project.resources.features import remove_features
from dagster_project.resources.postgres import Warehouse
from dagster_project.running import Say, run_whole_job
from dagster_project.settings import heed_home, load_settings

# Present as long as the home holds the simulated company and nothing else.
MARK = "demo.json"


def run_demo(*, alerts: int, days: int, seed: int, say: Say) -> None:
    """Simulate, load, run the whole job, and show what came out. What stands already is not done again.

    The company's data end at the hour of the first demo, so that its newest alerts are still open.

    Raises
    ------
    HeedError
        The home already holds alerts of somebody's own: they are never mixed with simulated ones.
    """
    from dagster_project.loading import load_file
    from dagster_project.simulator import WorldConfig, export_messy, simulate
    from dagster_project.summary import collect, show

    started = time.monotonic()
    home = heed_home()
    warehouse = Warehouse(home)
    say(f"starting the warehouse: {warehouse.describe()}")
    warehouse.prepare()
    wanted = {"alerts": alerts, "days": days, "seed": seed}
    company = _standing(home)
    if company is None and warehouse.value("SELECT EXISTS (SELECT 1 FROM raw.alerts)"):
        raise HeedError(
            f"{warehouse.describe()} holds alerts of your own",
            "run the demo in another home: HEED_HOME=/tmp/heed-demo make demo",
        )
    if company is not None and {name: company[name] for name in wanted} != wanted:
        say("another company was asked for: the one before makes way")
        make_way(warehouse)
        company = None
    if company is None:
        end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        company = {**wanted, "end": end.isoformat(), "done": False}
        _mark(home).write_text(json.dumps(company), encoding="utf-8")
    if not company["done"]:
        prepare_dbt(warehouse, load_settings())
        end = datetime.fromisoformat(company["end"])
        say(f"simulating a marketing company: {alerts:,} alerts over {days} days")
        world = simulate(WorldConfig(seed=seed, alerts=alerts, days=days, end=end))
        folder = home / "demo-export"
        folder.mkdir(parents=True, exist_ok=True)
        export_messy(world, folder, seed)
        for kind in ("alerts", "actions", "rules", "action_types"):
            report = load_file(kind, next(folder.glob(f"{kind}.csv*")), warehouse.connect)
            say(report.summary())
        outcome = run_whole_job(end + timedelta(minutes=1), say=say)
        say(f"the job {outcome.job} took {outcome.seconds:.0f} s")
        _mark(home).write_text(json.dumps({**company, "done": True}), encoding="utf-8")
    else:
        say(f"the company of {company['end'][:16]} stands; `rm -r {home}` and then `make demo` makes a new one")
    click.echo()
    show(collect(warehouse))
    click.echo(
        f"\nAll of it in {time.monotonic() - started:.0f} s. Where to look next:\n"
        "  make up                   the lineage, the checks and every run, in a browser\n"
        "  docs/analysts.md          queries for the tables behind this page\n"
        "  docs/data-engineer.md     your own alerts: `heed load`, then `heed run`\n"
        "  docs/managers.md          what to ask before anybody trusts a score"
    )


def holds_demo(home: Path) -> bool:
    """Whether the home holds the simulated company."""
    return _mark(home).exists()


def make_way(warehouse: Warehouse) -> None:
    """Remove the simulated company: its rows, flags, models, scores and features. Does nothing in any other home."""
    if not holds_demo(warehouse.home):
        return
    with warehouse.transaction() as cursor:
        cursor.execute(
            "SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables "
            "WHERE schemaname IN ('raw', 'quality', 'training', 'scoring')"
        )
        row = cursor.fetchone()
        if row and row[0]:
            cursor.execute(f"TRUNCATE {row[0]}")
    remove_features(warehouse.home)
    _mark(warehouse.home).unlink()


def _mark(home: Path) -> Path:
    return home / MARK


def _standing(home: Path) -> dict | None:
    try:
        return json.loads(_mark(home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {"alerts": None, "days": None, "seed": None, "end": "", "done": False}
