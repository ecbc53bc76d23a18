"""A refresh after 1,000 new alerts: how long `heed run --no-retrain` takes as a whole process, and its steps.

    python -m benchmarks.refresh                             # on 1,000,000 alerts; writes benchmarks/refresh.md
    python -m benchmarks.refresh --home DIR --out /tmp/r.md  # on a home with a champion; its past grows

Belongs here: new alerts like recent ones and actions on open ones, loaded as files, and refreshes on them from outside.
Does not belong here: the first run on a million alerts (`job.py`).

The first refresh is not measured: it brings the home to today's code, which may mean to read everything.

Each round loads rows raised after the last published as-of and refreshes a quarter of an hour later. Seconds of the
processor are those of heed and of dbt, without PostgreSQL's. Where other work runs on the machine the wall clock says
little: the load at the beginning of each round stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.job import company, watch
from dagster_project.resources.failures import STEP_WORDS
from dagster_project.resources.warehouse.connection import Warehouse

ROOT = Path(__file__).resolve().parents[1]
BAR_SECONDS, BAR_OVERHEAD = 25, 10
EVERY = timedelta(minutes=15)
_RECENT = """
SELECT rule, entity, team, severity, value, threshold, title, attributes::text AS attributes
FROM marts.alerts WHERE raised_at >= $1 ORDER BY alert_id
"""
_OPEN = "SELECT alert_id FROM marts.alert_outcomes WHERE outcome IS NULL ORDER BY alert_id"


@dataclass
class Round:
    """One refresh. seconds: of the whole process; processor: heed's and dbt's; load: of the machine before it."""

    as_of: datetime
    seconds: float
    processor: float
    load: float
    said: dict[str, object]


def new_rows(home: Path, seed: int, new: int, into: Path) -> tuple[Path, Path, datetime]:
    """Files of new alerts and of 7 actions for each 10 of them, and the as-of at which they are all in the past."""
    warehouse, random = Warehouse(home), np.random.default_rng(seed)
    begin = pd.Timestamp(warehouse.value("SELECT max(as_of) FROM scoring.publications"))
    name = f"{begin:%Y%m%dT%H%M%S}-{seed}"
    recent = warehouse.read(_RECENT, (begin - pd.Timedelta(days=30),))
    alerts = recent.iloc[random.choice(len(recent), new)].reset_index(drop=True)
    alerts.insert(0, "alert_id", [f"new-{name}-{number}" for number in range(new)])
    moments = begin + EVERY * np.sort(random.random(new))
    alerts.insert(1, "raised_at", [moment.isoformat() for moment in moments])
    still_open = warehouse.read(_OPEN)["alert_id"].to_numpy()
    acted_on = random.choice(still_open, min(7 * new // 10, len(still_open)), replace=False)
    actions = pd.DataFrame(
        {
            "action_id": [f"new-{name}-{number}" for number in range(len(acted_on))],
            "alert_id": acted_on,
            "acted_at": [(begin + EVERY * share).isoformat() for share in random.random(len(acted_on))],
            "action_type": random.choice(["dismissed", "fixed", "seen"], len(acted_on)),
        }
    )
    alerts.to_csv(into / "alerts.csv", index=False)
    actions.to_csv(into / "actions.csv", index=False)
    return into / "alerts.csv", into / "actions.csv", (begin + EVERY).to_pydatetime()


def refresh(home: Path, seed: int, new: int) -> Round:
    """Load new rows, then refresh in a process of its own."""
    heed = [sys.executable, "-m", "dagster_project.cli"]
    environment = {**os.environ, "HEED_HOME": str(home)}
    with tempfile.TemporaryDirectory() as folder:
        alerts, actions, as_of = new_rows(home, seed, new, Path(folder))
        load = [*heed, "load", "--alerts", str(alerts), "--actions", str(actions)]
        subprocess.run(load, env=environment, check=True, capture_output=True)
    return run(home, as_of)


def run(home: Path, as_of: datetime) -> Round:
    """One refresh at an as-of in a process of its own."""
    heed = [sys.executable, "-m", "dagster_project.cli"]
    environment = {**os.environ, "HEED_HOME": str(home)}
    before, busy, started = resource.getrusage(resource.RUSAGE_CHILDREN), os.getloadavg()[0], time.monotonic()
    command = [*heed, "run", "--no-retrain", "--json", "--as-of", as_of.isoformat()]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"the refresh failed: {done.stdout}{done.stderr}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Round(as_of, seconds, processor, busy, json.loads(done.stdout))


def table(home: Path, new: int, rounds: list[Round], what: str) -> str:
    """The page: what the home is, each round, and the steps of the fastest."""
    past = int(Warehouse(home).value("SELECT count(*) FROM marts.alerts"))
    best = min(rounds, key=lambda one: one.seconds)
    steps: dict[str, float] = best.said["step_seconds"]  # type: ignore[assignment]
    lines = [
        "# A refresh",
        "",
        f"Made by `make benchmark-refresh`; {platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python "
        f"{platform.python_version()}. {new:,} new alerts and {7 * new // 10:,} actions in each round, on "
        f"{past:,} past alerts. {what} The bar is {BAR_SECONDS} s for the whole process, at most {BAR_OVERHEAD} s "
        "of it start-up and orchestration.",
        "",
        "| round | seconds | processor seconds of heed and dbt | load before it | new scores |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {number} | {one.seconds:.0f} | {one.processor:.0f} | {one.load:.1f} | {one.said['new_scores']:,} |"
            for number, one in enumerate(rounds, 1)
        ),
        "",
        f"The steps of the fastest round. What is no step, {best.seconds - sum(steps.values()):.0f} s, is starting the "
        "process and Dagster's work between steps.",
        "",
        "| step | seconds |",
        "|---|---:|",
        *(f"| {STEP_WORDS.get(name, name)} | {value:.1f} |" for name, value in steps.items()),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Refresh as often as asked, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="a home with a champion; it is changed")
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "refresh.md")
    asked = parser.parse_args()

    def page(home: Path, what: str) -> str:
        run(home, Warehouse(home).value("SELECT max(as_of) FROM scoring.publications"))
        rounds = [refresh(home, asked.seed + number, asked.new) for number in range(asked.rounds)]
        return table(home, asked.new, rounds, what)

    if asked.home:
        made = page(asked.home, "A home that stood.")
    else:
        with tempfile.TemporaryDirectory(prefix="heed-refresh-") as folder:
            home = Path(folder)
            home.chmod(0o755)  # the embedded server runs under its own user when this one is root
            as_of = company(home, asked.alerts, 365, asked.seed)
            watch(home, "--retrain", "--as-of", as_of.isoformat())
            made = page(home, f"A simulated company of a year, seed {asked.seed}.")
    asked.out.write_text(made)
    print(made)


if __name__ == "__main__":
    main()
