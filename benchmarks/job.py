"""The whole job on one million alerts: how long each stage takes, and how much memory stands at a time.

    python -m benchmarks.job                                  # 1,000,000 alerts; writes benchmarks/job.md
    python -m benchmarks.job --alerts 60000 --out /tmp/job.md # a quick look
    python -m benchmarks.job --home DIR --load-only           # loads the company into DIR ...
    python -m benchmarks.job --home DIR                       # ... where a job finds it later

Belongs here: a company in raw tables, one `heed run --retrain` on it as a user would start it, and a watch on its
processes from outside.
Does not belong here: loading files (`loading.py`), and what single stages could do by themselves (`engine.py`).

Memory is resident memory, read ten times a second from /proc (Linux only). Three sums: the process of heed; the process
of dbt beside it; PostgreSQL, as what its processes hold for themselves plus the shared buffers once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

from dagster_project.resources.failures import STEP_WORDS
from dagster_project.resources.warehouse.schema import prepare

ROOT = Path(__file__).resolve().parents[1]
EVERY = 0.1
PARTS = ("heed", "dbt", "PostgreSQL")
BAR_SECONDS, BAR_BYTES = 480, 6e9


@dataclass
class Stage:
    """One stage as it was watched: seconds and the most memory, in bytes, by part and of heed and dbt together."""

    name: str
    began: float
    seconds: float = 0.0
    most: dict[str, int] = field(default_factory=dict)


def memory(pid: int) -> dict[str, int]:
    """Resident bytes of the job's processes: heed (`pid`), dbt (its children), PostgreSQL (by its name)."""
    made, shared = dict.fromkeys(PARTS, 0), 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            status = Path(entry.path, "status").read_text()
        except OSError:  # it ended meanwhile
            continue
        numbers = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+)", status, re.MULTILINE)}
        size = 1024 * numbers.get("VmRSS", 0)
        if int(entry.name) == pid:
            made["heed"] += size
        elif numbers.get("PPid") == pid and "postgres" not in status[:40]:
            made["dbt"] += size
        elif status.startswith("Name:\tpostgres"):
            made["PostgreSQL"] += 1024 * numbers.get("RssAnon", 0)
            shared = max(shared, 1024 * numbers.get("RssShmem", 0))
    made["PostgreSQL"] += shared
    made["heed and dbt"] = made["heed"] + made["dbt"]
    made["all"] = made["heed and dbt"] + made["PostgreSQL"]
    return made


def watch(home: Path, *words: str, trace: Path | None = None) -> tuple[list[Stage], dict[str, object]]:
    """Run `heed run --json` with further words in a process of its own; (its stages as watched, what it said)."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.cli", "run", "--json", *words],
        cwd=ROOT,
        env={**os.environ, "HEED_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    stages = [Stage("starting", 0.0)]

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            print(line, end="", flush=True)
            said = re.match(r"\s*[\d.]+ s  (.*)", line)
            if said and said.group(1) in STEP_WORDS.values():
                stages.append(Stage(said.group(1), time.monotonic() - started))

    listener = threading.Thread(target=listen)
    listener.start()
    points = []
    while process.poll() is None:
        now, stage = time.monotonic() - started, stages[-1]
        seen = memory(process.pid)
        points.append((now, stage.name, seen))
        for name, size in seen.items():
            stage.most[name] = max(stage.most.get(name, 0), size)
        time.sleep(EVERY)
    ended = time.monotonic() - started
    listener.join()
    assert process.stdout is not None
    said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"the job ended with exit status {process.returncode}: {said}")
    for stage, then in zip(stages, [*(s.began for s in stages[1:]), ended], strict=True):
        stage.seconds = then - stage.began
    if trace is not None:
        lines = [
            f"{now:.1f}\t{name}\t" + "\t".join(f"{seen[p] / 1e9:.2f}" for p in PARTS) for now, name, seen in points
        ]
        trace.write_text("\n".join(lines) + "\n")
    return stages, json.loads(said)


def company(home: Path, alerts: int, days: int, seed: int) -> datetime:
    """Load a simulated company's messy export into the raw tables of a new home; returns the as-of of the job."""
    from dagster_project.loading import load_file
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.simulator import WorldConfig, export_messy, simulate

    warehouse = Warehouse(home)
    prepare(warehouse)
    end = datetime(2026, 11, 25, 9, tzinfo=UTC)
    folder = home / "export"
    folder.mkdir(parents=True)
    export_messy(simulate(WorldConfig(seed=seed, alerts=alerts, days=days, end=end)), folder, seed)
    for kind in ("alerts", "actions", "rules", "action_types"):
        print(load_file(kind, next(folder.glob(f"{kind}.csv*")), warehouse.connect).summary(), flush=True)
    return end + timedelta(minutes=1)


def page(stages: list[Stage], said: dict[str, object], what: str) -> str:
    """The committed table."""
    total = sum(stage.seconds for stage in stages)
    most = {name: max(stage.most.get(name, 0) for stage in stages) for name in (*PARTS, "heed and dbt", "all")}
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "lightgbm", "dagster", "dbt-core"))
    lines = [
        "# The whole job",
        "",
        f"Made by `make benchmark-job`; {platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python "
        f"{platform.python_version()}, {packages}. {what} One run of `heed run --retrain`, from the raw tables to "
        "published scores, imports and start of the processes included; it scored "
        f"{int(str(said['open_alerts'])):,} open alerts. GB is 10^9 bytes, of resident memory.",
        "",
        "| what | bar | figure |",
        "|---|---|---|",
        f"| whole job | <= {BAR_SECONDS} s | {total:.0f} s |",
        f"| most memory: heed and dbt | <= {BAR_BYTES / 1e9:.0f} GB | {most['heed and dbt'] / 1e9:.1f} GB |",
        f"| the same with PostgreSQL | | {most['all'] / 1e9:.1f} GB |",
        "",
        "The most memory in each stage, GB. What a stage leaves to the allocator still counts in the next one.",
        "",
        "| stage | seconds | heed | dbt | PostgreSQL | heed and dbt | all |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for stage in stages:
        sizes = " | ".join(f"{stage.most.get(name, 0) / 1e9:.2f}" for name in (*PARTS, "heed and dbt", "all"))
        lines.append(f"| {stage.name} | {stage.seconds:.1f} | {sizes} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make the company, run and watch the job, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=1_000_000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--home", type=Path, help="where the company is kept until a job has used it up")
    parser.add_argument("--load-only", action="store_true", help="load the company into --home, and run no job")
    parser.add_argument("--trace", type=Path, help="every sample, as a tab-separated file")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "job.md")
    given = parser.parse_args()
    company_asked = (given.alerts, given.days, given.seed)
    with tempfile.TemporaryDirectory(prefix="heed-job-") as folder:
        home = given.home or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        home.chmod(0o755)  # the embedded server runs under its own user when this one is root
        loaded = home / "loaded.json"  # a job never finds its tables cleaned: it takes this away before it starts
        if not loaded.exists():
            as_of = company(home, *company_asked)
            loaded.write_text(json.dumps({"as_of": as_of.isoformat(), "company": company_asked}))
        if given.load_only:
            return
        held = json.loads(loaded.read_text())
        if tuple(held["company"]) != company_asked:
            raise SystemExit(f"{home} holds another company: {held['company']} (alerts, days, seed)")
        loaded.unlink()
        stages, said = watch(home, "--retrain", "--as-of", held["as_of"], trace=given.trace)
    what = f"A simulated company of {given.alerts:,} alerts over {given.days} days, seed {given.seed}, never cleaned."
    made = page(stages, said, what)
    given.out.write_text(made)
    print(made)


if __name__ == "__main__":
    main()
