"""History features of 1,000 new alerts on 1 and on 10 million past ones, from the warehouse to the frame.

    python -m benchmarks.history                          # writes benchmarks/history.md; about half an hour
    python -m benchmarks.history --past 1e5 1e6 --out /tmp/h.md
    python -m benchmarks.history --homes DIR              # keeps the warehouses in DIR, and takes those that stand
    python -m benchmarks.history --homes DIR --fill-only  # fills them, and measures nothing

Belongs here: warehouses that hold the standard workload of `engine.py` as clean alerts, new alerts on them, and fresh
processes that ask for the new ones' features as the asset `alert_features` does. Does not belong here: the rest of a
refresh (`refresh.py`), and the features of all alerts at once (`engine.py`).

Measured is `assets.features.derive_features`, after its imports: what changed is found and read from PostgreSQL into
the kept history, the past is read from it, flags are read, and history features are made of the alerts of the newest
day, which are the new ones. Not measured: the first reading of a whole warehouse, which a home pays for once.
Rounds of both sizes alternate; each adds new alerts one quarter of an hour after the last ones, and outcomes of 700
older ones.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.engine import machine, standard_workload
from dagster_project.resources.warehouse.connection import Warehouse, append

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
NEW, DECIDED, EVERY = 1_000, 700, timedelta(minutes=15)
BAR_SECONDS, BAR_RATIO = 3.0, 1.3
BEGIN = datetime(2024, 12, 31, tzinfo=UTC)  # the first moment after the standard workload's year of 365 days
_ALERTS = "alert_id, raised_at, rule, entity, team, severity, value, threshold, title, attributes, loaded_at"
_OUTCOMES = "alert_id, raised_at, horizon_ends_at, outcome, known_at"
_LIMIT = """What bounds this. Two things cost what is old. Which days changed is asked of the warehouse by counting the
rows of both tables day by day, with the transactions that wrote them: PostgreSQL keeps no order of those, so it reads
the tables. And histories look back 180 days (`features.lookback_days`), to outcomes of alerts two weeks older: 194 days
are read from the kept history, all alerts of them, because 1,000 alerts touch every team and nearly every frequent
rule. Ten times the past is ten times as many alerts in those days. Less would take a log of changed days, written by
triggers, and sums kept by key and day."""
_MADE = """'high', 1.0, 2.0, 'Standard alert', '{{"region": "north", "cause": "disk"}}'::jsonb, {loaded}
    FROM pg_temp.incoming"""
_DECIDE = """
UPDATE marts.alert_outcomes SET outcome = 'not_acted', known_at = $1 WHERE alert_id IN (
    SELECT alert_id FROM marts.alert_outcomes
    WHERE outcome IS NULL AND raised_at >= $2 AND raised_at < $3 ORDER BY raised_at LIMIT $4)
"""


def warehouse_of(home: Path, past: int) -> Warehouse:
    """A warehouse with `past` clean alerts of a year; nothing is done where it stands already."""
    warehouse = Warehouse(home)
    if (home / "filled").exists():
        return warehouse
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # the embedded server runs under its own user when this one is root
    heed = [sys.executable, "-m", "dagster_project.cli", "demo", "--alerts", "3000", "--days", "60"]
    subprocess.run(heed, env={**os.environ, "HEED_HOME": str(home)}, check=True, stdout=subprocess.DEVNULL)
    frame = standard_workload(past)
    frame.insert(0, "alert_id", np.char.add("past-", np.arange(past).astype("U8")))
    with warehouse.transaction() as cursor:
        for table in ("alert_outcomes", "alerts"):
            cursor.execute(f"DELETE FROM marts.{table}")
        cursor.execute("DELETE FROM quality.flood_days")
        cursor.execute("DELETE FROM quality.visibility_only_rules")
    for first in range(0, past, 500_000):
        write(warehouse, frame.iloc[first : first + 500_000])
    with warehouse.connect() as connection:
        connection.adbc_connection.set_autocommit(True)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
    (home / "filled").touch()
    return warehouse


def write(warehouse: Warehouse, frame: pd.DataFrame) -> None:
    """Add alerts and their outcomes to the clean tables, in one transaction."""
    import pyarrow as pa

    texts = {name: frame[name].astype("str") for name in ("rule", "entity", "team")}
    rows = pa.Table.from_pandas(frame.assign(**texts), preserve_index=False)
    with warehouse.transaction() as cursor:
        made = _MADE.format(loaded="raised_at")
        append(cursor, "marts.alerts", rows, columns=_ALERTS, select=f"alert_id, raised_at, rule, entity, team, {made}")
        append(
            cursor,
            "marts.alert_outcomes",
            rows,
            columns=_OUTCOMES,
            select="alert_id, raised_at, raised_at + interval '14 days', CASE WHEN acted = 1 THEN 'acted' "
            "WHEN acted = 0 THEN 'not_acted' END, known_at FROM pg_temp.incoming",
        )


def add_new(warehouse: Warehouse, round_number: int) -> datetime:
    """1,000 new alerts on keys drawn like the past ones', and outcomes of older ones; the as-of after them."""
    begin = BEGIN + round_number * EVERY
    drawn = standard_workload(NEW, seed=100 + round_number)
    share = np.sort(np.random.default_rng(round_number).random(NEW))
    drawn["raised_at"] = begin + pd.to_timedelta(share * EVERY.total_seconds(), unit="s").floor("us")
    drawn["known_at"] = pd.Series(pd.NaT, drawn.index, "datetime64[us, UTC]")
    drawn["acted"] = np.float32("nan")
    drawn.insert(0, "alert_id", [f"new-{round_number}-{number}" for number in range(NEW)])
    write(warehouse, drawn)
    with warehouse.transaction() as cursor:
        cursor.execute(_DECIDE, parameters=(begin, begin - timedelta(days=14), begin - timedelta(days=7), DECIDED))
    return begin + EVERY


def measure(home: Path, first: datetime, until: datetime) -> dict[str, Any]:
    """One call in this process."""
    from dagster_project.assets.features import derive_features
    from dagster_project.commands.precompile import precompile
    from dagster_project.resources.cluster import Cluster
    from dagster_project.resources.stores.history_cache import HistoryCache
    from dagster_project.settings import load_settings

    precompile()
    warehouse = Warehouse(home)
    with warehouse.keeping_a_connection():
        started = time.perf_counter()
        HistoryCache(warehouse).refresh()
        kept = time.perf_counter() - started
        parts = list(derive_features(warehouse, load_settings(), Cluster(), first, until))
        seconds = time.perf_counter() - started
    # What is kept from before, and what comes of the new rows.
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds": seconds, "kept": kept, "rows": sum(map(len, parts)), "columns": parts[0].shape[1], "most": most}


def fresh(home: Path, first: datetime, until: datetime) -> dict[str, Any]:
    """`measure` in a process of its own."""
    asked = ["--measure", str(home), first.isoformat(), until.isoformat()]
    command = [sys.executable, "-m", "benchmarks.history", *asked]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "HEED_HOME": str(home)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"a measurement failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--past", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--homes", type=Path)
    parser.add_argument("--fill-only", action="store_true", help="fill the warehouses in --homes, and measure nothing")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        home, first, until = asked.measure
        print(json.dumps(measure(Path(home), datetime.fromisoformat(first), datetime.fromisoformat(until))))
        return
    with tempfile.TemporaryDirectory(prefix="heed-history-") as folder:
        homes = asked.homes or Path(folder)
        homes.mkdir(parents=True, exist_ok=True)
        homes.chmod(0o755)
        pasts = [int(past) for past in asked.past]
        warehouses = {past: warehouse_of(homes / str(past), past) for past in pasts}
        if asked.fill_only:
            return
        begun = {
            past: int(one.value("SELECT count(*) FROM marts.alerts") - past) // NEW for past, one in warehouses.items()
        }
        runs: dict[int, list[dict[str, Any]]] = {past: [] for past in pasts}
        for number in range(asked.rounds + 1):
            for past, warehouse in warehouses.items():
                begin = BEGIN + (begun[past] + number) * EVERY
                until = add_new(warehouse, begun[past] + number)
                run = fresh(warehouse.home, begin, until)
                print(f"{past:>12,} past alerts: {run}", flush=True)
                if number:  # the first one reads the whole warehouse
                    runs[past].append(run)
    asked.out.write_text(page(runs))
    print(asked.out.read_text())


def page(runs: dict[int, list[dict[str, Any]]]) -> str:
    where = machine()
    one = next(iter(runs.values()))[0]
    lines = [
        "# History features of new alerts",
        "",
        f"Made by `make benchmark-history`; {where['cpu']}, {where['cpus']} CPUs, {where['memory_bytes'] / 2**30:.0f} "
        f"GiB, {where['system']}, Python {where['python']}; load average {where['load_at_start']:.1f}. {NEW:,} new "
        f"alerts and {DECIDED} new outcomes on alerts of a year, {one['columns']} columns of {one['rows']:,} alerts "
        f"come of them; {len(next(iter(runs.values())))} rounds, alternating, each in a process of its own. GB is "
        f"10^9 bytes, of the process. The bar is {BAR_SECONDS:.0f} s, and {BAR_RATIO} times the time of a tenth of the "
        "past.",
        "",
        "| past alerts | seconds: median (least to most) | of these, what changed | most memory, GB |",
        "|---:|---:|---:|---:|",
    ]
    for past, mine in runs.items():
        seconds = [run["seconds"] for run in mine]
        lines.append(
            f"| {past:,} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) "
            f"| {statistics.median(run['kept'] for run in mine):.2f} | {max(run['most'] for run in mine) / 1e9:.2f} |"
        )
    middle = [statistics.median(run["seconds"] for run in mine) for mine in runs.values()]
    if len(middle) > 1:
        lines += ["", f"The last row took {middle[-1] / middle[0]:.1f} times the first row's time."]
    lines += ["", *_LIMIT.splitlines()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
