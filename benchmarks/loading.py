"""How fast `load_file` is: a million alerts as CSV, gzip and Parquet into a fresh embedded warehouse.

Belongs here: making the file, loading it, the table of figures. Does not belong here: anything timed in a test.

    .venv/bin/python benchmarks/loading.py [--rows 1000000]

Each load runs in a process of its own, so that peak memory is that load's. Columns: wall clock of the process's load
(start-up of Python excluded, imports included), CPU seconds of the client and of the PostgreSQL process that served it,
and the client's peak memory. The alerts have nine contract columns and four that become attributes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from dagster_project.resources.warehouse.schema import prepare


def write_files(folder: Path, rows: int) -> dict[str, Path]:
    """The same alerts in each format, and an export that repeats them all and adds one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)

    def named(pattern: str, count: int) -> pa.Array:
        names = pa.array([pattern % i for i in range(count)])
        return names.take(pa.array(rng.integers(0, count, rows)))

    raised_at = pa.array(np.sort(rng.integers(1_700_000_000, 1_731_000_000, rows))).cast(pa.timestamp("s", "UTC"))
    table = pa.table(
        {
            "alert_id": pa.array([f"alert-{i:09d}" for i in range(rows)]),
            "raised_at": raised_at,
            "rule": named('spend above "%04d", hourly', 2000),
            "entity": named("campaign-%05d", 20_000),
            "team": named("team-%d", 30),
            "severity": pa.array(["low", "high", "critical"]).take(pa.array(rng.integers(0, 3, rows))),
            "value": pa.array(rng.random(rows)),
            "threshold": pa.array(rng.random(rows).round(2)),
            "title": named("the spend of campaign %d is, once more, over its limit", 20_000),
            "platform": pa.array(["search", "social", None]).take(pa.array(rng.integers(0, 3, rows))),
            "country": named("C%d", 40),
            "account": named("account-%d", 3000),
            "bucket": pa.array(rng.integers(0, 9, rows)),
        }
    )
    files = {name: folder / name for name in ("alerts.csv", "alerts.csv.gz", "alerts.parquet", "more.csv")}
    pacsv.write_csv(table, files["alerts.csv"])
    pq.write_table(table, files["alerts.parquet"])
    content = files["alerts.csv"].read_bytes()
    with gzip.open(files["alerts.csv.gz"], "wb", compresslevel=6) as file:
        file.write(content)
    files["more.csv"].write_bytes(content + b"one-more,2025-01-01T00:00:00Z,r,,,,,,,,,,\n")
    return files


def load_once(home: Path, path: Path) -> dict[str, Any]:
    """One load in this process, measured."""
    started = time.perf_counter()
    from dagster_project.loading import load_file
    from dagster_project.resources.warehouse.connection import Warehouse

    warehouse = Warehouse(home)
    backends: list[int] = []

    def connect() -> Any:
        connection = warehouse.connect()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            backends.append(int(cursor.fetchone()[0]))
        return connection

    server: list[float] = []

    def watch(at: Any) -> None:
        if at.stage == "committing":
            fields = Path(f"/proc/{backends[-1]}/stat").read_text().rsplit(")", 1)[1].split()
            server.append((int(fields[11]) + int(fields[12])) / 100)

    report = load_file("alerts", path, connect, progress=watch, progress_seconds=0)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "added": report.rows_added,
        "unchanged": report.rows_unchanged,
        "already_loaded": report.already_loaded,
        "wall": time.perf_counter() - started,
        "client": usage.ru_utime + usage.ru_stime,
        "server": server[-1] if server else 0.0,
        "peak": _peak_megabytes(),
    }


def _peak_megabytes() -> float:
    # Not ru_maxrss, which a process takes over from the one that started it.
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--one", nargs=2, metavar=("HOME", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(load_once(Path(arguments.one[0]), Path(arguments.one[1]))))
        return

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.resources.warehouse.embedded import stop_server

    folder = Path(tempfile.mkdtemp(prefix="heed-benchmark-"))
    folder.chmod(0o755)
    try:
        files = write_files(folder, arguments.rows)
        print(f"{arguments.rows:,} alerts, {platform.machine()}, Python {platform.python_version()}")
        print(
            f"{'load':<44}{'rows/s':>10}{'wall s':>9}{'client s':>10}{'server s':>10}{'peak MB':>9}",
        )
        plan = [
            ("CSV into an empty warehouse", "first", "alerts.csv"),
            ("the same file again", "first", "alerts.csv"),
            ("an export that repeats it and adds one row", "first", "more.csv"),
            ("CSV.gz into an empty warehouse", "second", "alerts.csv.gz"),
            ("Parquet into an empty warehouse", "third", "alerts.parquet"),
        ]
        for label, home, name in plan:
            warehouse = Warehouse(folder / home, "")
            prepare(warehouse)
            command = [sys.executable, __file__, "--one", str(folder / home), str(files[name])]
            finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            got = json.loads(finished.stdout)
            rows = got["added"] + got["unchanged"]
            print(
                f"{label:<44}{rows / got['wall']:>10,.0f}{got['wall']:>9.1f}{got['client']:>10.1f}"
                f"{got['server']:>10.1f}{got['peak']:>9.0f}",
                flush=True,
            )
        for home in ("first", "second", "third"):
            stop_server(folder / home)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
