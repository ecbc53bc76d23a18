"""Minutes from an export to scores, for each preset, in a clean home, by the commands of docs/connect.md alone.

    python -m benchmarks.connect             # all presets; writes benchmarks/connect.md
    python -m benchmarks.connect jira dbt    # these; lines of other presets that the page has stay

Belongs here: the time that a newcomer waits. Does not belong here: what the files look like (`connect_exports.py`),
whether the rows are right (tests/loading), long files (`load.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.connect_exports import EXPORTS, Export, company
from benchmarks.engine import machine
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import stop_server

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
FIGURES = "<!-- figures: "
ALERTS, DAYS, SEED = 2_000, 120, 3
LIMIT_MINUTES = 5.0  # what docs/connect.md promises a newcomer


def heed(home: Path, *words: str) -> tuple[str, float]:
    """The output of a command, and its seconds."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "dagster_project.cli", *words],
        cwd=ROOT,
        env={**os.environ, "HEED_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"heed {words[0]} ended with exit status {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout, time.monotonic() - started


def processor_seconds() -> float:
    """Of all children that have ended; the embedded server is none of them."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(preset: str, alerts: int) -> dict[str, Any]:
    """Inspect, load, run and read, in a clean home."""
    with tempfile.TemporaryDirectory(prefix="heed-connect-") as name:
        folder = Path(name)
        home = folder / "home"
        export: Export = EXPORTS[preset](company(SEED, alerts, DAYS, datetime.now(UTC)), folder)
        files = [str(path) for path in export.files]
        tickets = ["--actions", str(export.tickets)] if export.tickets else []
        load_at_start, before = os.getloadavg()[0], processor_seconds()
        try:
            _, inspecting = heed(home, "inspect", *files, "--preset", preset)
            output, loading = heed(home, "load", "--preset", preset, *files, *tickets, "--json")
            _, running = heed(home, "run")
            summary, reading = heed(home, "summary", "--json")
            processor = processor_seconds() - before
            warehouse = Warehouse(home)
            scored = warehouse.value(
                "SELECT count(*) FROM reporting.alert_scores_latest WHERE is_open AND probability IS NOT NULL"
            )
        finally:
            stop_server(home)
    added = {kind: 0 for kind in ("alerts", "actions")}
    for report in json.loads(output):
        added[report["kind"]] += report["rows_added"]
    if added["alerts"] != alerts or not scored:
        raise SystemExit(
            f"{preset}: {added['alerts']} of {alerts} alerts were loaded and {scored} open ones are scored"
        )
    return {
        "preset": preset,
        "files": len(files),
        "tickets": bool(tickets),
        **added,
        "scored": scored,
        "champion": json.loads(summary)["champion"] is not None,
        "inspecting": inspecting,
        "loading": loading,
        "running": running,
        "reading": reading,
        "processor": processor,
        "load_at_start": load_at_start,
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "cpus": machine()["cpus"],
        "cpu": machine()["cpu"],
    }


def minutes(row: dict[str, Any]) -> float:
    return float(row["inspecting"] + row["loading"] + row["running"] + row["reading"]) / 60


def page(rows: dict[str, dict[str, Any]]) -> str:
    measured = [rows[preset] for preset in sorted(rows)]
    missing = sorted(set(EXPORTS) - set(rows))
    slow = [f"`{row['preset']}`" for row in measured if minutes(row) > LIMIT_MINUTES]
    loads = [row["load_at_start"] for row in measured]
    verdict = (
        f"{len(measured) - len(slow)} of {len(measured)} took at most the {LIMIT_MINUTES:g} minutes that "
        f"[the docs](../docs/connect.md#systems) promise; the slowest took {max(map(minutes, measured)):.1f}"
    )
    lines = [
        "# From an export to scores",
        "",
        "How long does a newcomer wait? `make benchmark-connect` makes this page again.",
        "",
        f"{verdict}{', not: ' + ', '.join(slow) if slow else ''}."
        + (f" Not measured: {', '.join(f'`{preset}`' for preset in missing)}." if missing else ""),
        "",
        "Each line is a clean home, embedded PostgreSQL included, and `heed inspect FILE --preset`, "
        "`heed load --preset`, `heed run`, `heed summary`. The files hold the alerts of one simulated company "
        f"({DAYS} days, seed {SEED}), as each system exports them; where the export says nothing about people, a file "
        f"of tickets comes with it (`--actions`). {measured[0]['cpu']}, {measured[0]['cpus']} CPUs, shared with other "
        f"work: load average {min(loads):.1f} to {max(loads):.1f}. Minutes of processor leave out the embedded server "
        "and other work: they say more about an idle machine.",
        "",
        "| preset | measured | files | alerts | actions | open, scored | model promoted | inspect (s) | load (s) "
        "| run (s) | summary (s) | minutes | of processor |",
        "|---|---|--:|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in measured:
        files = f"{row['files']}{' and tickets' if row['tickets'] else ''}"
        seconds = " | ".join(f"{row[step]:.0f}" for step in ("inspecting", "loading", "running", "reading"))
        counts = f"{files} | {row['alerts']:,} | {row['actions']:,} | {row['scored']:,}"
        times = f"{seconds} | {minutes(row):.1f} | {row['processor'] / 60:.1f}"
        promoted = "yes" if row["champion"] else "no"
        lines.append(f"| `{row['preset']}` | {row['day']} | {counts} | {promoted} | {times} |")
    return "\n".join([*lines, "", f"{FIGURES}{json.dumps(measured)} -->", ""])


def kept() -> dict[str, dict[str, Any]]:
    """What the page has measured before."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    _, _, figures = text.partition(FIGURES)
    return {row["preset"]: row for row in json.loads(figures.partition(" -->")[0])} if figures else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", metavar="PRESET", help=", ".join(EXPORTS))
    parser.add_argument("--alerts", type=int, default=ALERTS)
    asked = parser.parse_args()
    if unknown := set(asked.presets) - set(EXPORTS):
        parser.error(f"there is no preset {', '.join(sorted(unknown))}")
    rows = kept() if asked.presets else {}
    for preset in asked.presets or EXPORTS:
        rows[preset] = measure(preset, asked.alerts)
        print(json.dumps(rows[preset]), flush=True)
        PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
