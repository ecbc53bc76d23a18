"""The timeline on its standard workload: seconds and peak memory against the number of alerts.

    python -m benchmarks.engine                          # 1, 3 and 10 million alerts, every contender, three runs each
    python -m benchmarks.engine --rows 1e6 --repeats 1 --contenders heed
    python -m benchmarks.engine --text-keys              # keys as text instead of categories

`make benchmark-engine` runs it in an environment that has the peers; elsewhere those whose package is missing are left
out.

Belongs here: the standard workload, fresh processes that are measured one at a time in alternating order, the check
that everyone gives the same answer, the table `benchmarks/engine.md` and the plot beside it. Does not belong here:
the peers (`benchmarks/engine_peers.py`), and any bar to pass: a timed test fails on a busy machine, and shows nothing
there.

What is measured: from frame to frame of features, in memory. Reading the frame, imports and a first small call (which
compiles, or loads what was compiled) come before. Peak memory is that of the whole process during the measured call:
interpreter, libraries, input, work and output. Of a peer that works in a server only the time on the clock is told:
CPU time and memory are not this process's.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.engine_peers import PEERS, Peer
from dagster_project.triage.features.history import HistoryFeature, history_features

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("rule", "entity", "team")
RULES, ENTITIES, TEAMS = 5_000, 20_000, 30
NEVER_DECIDED = 0.15
LOOKBACK = timedelta(days=90)
DAY = 86_400_000_000  # microseconds
WRITTEN = "heed, with Parquet files"
RUN_ONCE = 100.0  # seconds: who takes longer is run once with so many alerts


def standard_features(keys: Sequence[str] = KEYS) -> list[HistoryFeature]:
    """14 features of each key: 42 for the standard three."""
    made = []
    for key in keys:
        made += [HistoryFeature(key, "raised_count", window=timedelta(hours=h)) for h in (1, 24, 168, 672)]
        for days in (7, 28, 90):
            made.append(HistoryFeature(key, "known_count", window=timedelta(days=days)))
            made.append(HistoryFeature(key, "acted_count", window=timedelta(days=days)))
        made.append(HistoryFeature(key, "last_outcome"))
        made.append(HistoryFeature(key, "seconds_since_raised"))
        made.append(HistoryFeature(key, "seconds_since_acted"))
        made.append(HistoryFeature(key, "decayed_acted_rate", half_life=timedelta(days=7)))
    return made


def standard_workload(rows: int, *, seed: int = 1, text_keys: bool = False) -> pd.DataFrame:
    """One year of alerts in order of time.

    5,000 rules (Zipf with exponent 1), 20,000 entities, 30 teams (a rule belongs to one), each rule with its own share
    acted; half of the decided alerts are decided after two days on average, the others at the end of 14 days; 15% are
    never decided. Columns: rule, entity, team (category, or str with `text_keys`), raised_at, known_at, acted
    (float32).
    """
    rng = np.random.default_rng(seed)
    weight = 1.0 / np.arange(1, RULES + 1)
    rule = rng.choice(RULES, size=rows, p=weight / weight.sum()).astype(np.int16)
    team = rng.integers(0, TEAMS, RULES).astype(np.int8)[rule]
    entity = rng.integers(0, ENTITIES, rows, dtype=np.int16)
    share = rng.beta(0.5, 2.0, RULES).astype(np.float32)[rule]
    start = np.int64(pd.Timestamp("2024-01-01").value // 1_000)  # `value` counts nanoseconds, whatever the unit
    raised = np.sort(rng.integers(0, 365 * DAY, rows)) + start
    delay = np.where(rng.random(rows) < 0.5, rng.exponential(2 * DAY, rows), 14 * DAY)
    known = raised + np.minimum(delay, 14 * DAY).astype(np.int64)
    undecided = rng.random(rows) < NEVER_DECIDED
    known[undecided] = np.iinfo(np.int64).min
    acted = np.where(undecided, np.nan, rng.random(rows, dtype=np.float32) < share).astype(np.float32)

    def key(name: str, codes: np.ndarray, n: int) -> pd.Series:
        named = pd.Series(pd.Categorical.from_codes(codes, [f"{name}-{i:05d}" for i in range(n)]))
        return named.astype("str") if text_keys else named

    return pd.DataFrame(
        {
            "rule": key("rule", rule, RULES),
            "entity": key("entity", entity, ENTITIES),
            "team": key("team", team, TEAMS),
            "raised_at": pd.Series(raised.view("M8[us]")).dt.tz_localize("UTC"),
            "known_at": pd.Series(known.view("M8[us]")).dt.tz_localize("UTC"),
            "acted": acted,
        }
    )


def heed(frame: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> pd.DataFrame:
    """The timeline itself, on every CPU this process may use."""
    return history_features(frame, frame, features, lookback)


def heed_written(frame: pd.DataFrame, features: Sequence[HistoryFeature], lookback: timedelta) -> pd.DataFrame:
    """The same, and the features with their moments as Parquet files, one per day, as the feature store writes them."""
    from upath import UPath

    from dagster_project.resources.as_of import days_between
    from dagster_project.resources.stores.features import FeatureStore

    made = heed(frame, features, lookback)
    days = days_between(frame["raised_at"].iloc[0].date(), frame["raised_at"].iloc[-1].date())
    with tempfile.TemporaryDirectory(prefix="heed-benchmark-") as folder:
        FeatureStore(UPath(folder), "benchmark").write(pd.concat([frame[["raised_at"]], made], axis=1), days)
    return made


def contenders() -> dict[str, Peer]:
    """Everyone who takes part, heed first."""
    ours = {"heed": Peer(heed, "numba", 2**31 - 1), WRITTEN: Peer(heed_written, "numba", 2**31 - 1)}
    return {**ours, **PEERS}


def installed(peer: Peer) -> str | None:
    """The version of a peer's package here; None where it is missing."""
    try:
        return version(peer.package)
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------- inside a fresh process


def measure(name: str, workload: Path, check: bool) -> dict[str, Any]:
    """One measured call of one contender on the frame stored in `workload`, in this process."""
    peer = contenders()[name]
    frame = _read(workload)
    features = standard_features()
    peer.run(frame.iloc[:2_000].reset_index(drop=True), features, LOOKBACK)
    _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    found = peer.run(frame, features, LOOKBACK)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    measured = {
        "contender": name,
        "rows": len(frame),
        "features": found.shape[1],
        "seconds": wall,
        "cpu_seconds": cpu if peer.in_process else None,
        "peak_bytes": _peak() if peer.in_process else None,
    }
    if check and name != "heed":
        _check_answer(name, found, heed(frame, features, LOOKBACK))
    return measured


def _read(workload: Path) -> pd.DataFrame:
    """The frame, without what its reader keeps for later (a third of a gigabyte at 10 million alerts)."""
    import pyarrow

    frame = pd.read_parquet(workload)
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    return frame


def _check_answer(name: str, found: pd.DataFrame, expected: pd.DataFrame) -> None:
    if len(found) != len(expected):
        raise SystemExit(f"{name} returned {len(found):,} rows instead of {len(expected):,}")
    for column in found.columns:
        ours = expected[column].to_numpy(dtype=np.float64)
        theirs = found[column].to_numpy(dtype=np.float64, na_value=np.nan)
        wrong = ~np.isclose(theirs, ours, rtol=1e-5, atol=1e-5, equal_nan=True)
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise SystemExit(
                f"{name} differs from heed in {column}, {wrong.sum():,} rows, first row {row}: "
                f"{theirs[row]!r} instead of {ours[row]!r}"
            )


def measure_start() -> dict[str, Any]:
    """Seconds to import the compiled loops in this process; compiles them where numba's cache is empty."""
    import numba  # noqa: F401  (its own import is not ours to measure)

    wall, cpu = time.perf_counter(), time.process_time()
    import dagster_project.triage.features.history.kernels  # noqa: F401

    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def _status(field: str) -> int | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    line = next((line for line in text.splitlines() if line.startswith(field)), None)
    return int(line.split()[1]) * 1024 if line else None


def _forget_peak() -> None:
    # Where that is refused the peak includes reading the input, which takes less than the output.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# --------------------------------------------------------------------------------------------------- around them


def _fresh_process(arguments: Sequence[str], **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.engine", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    import numba

    return {
        "cpu": model,
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pandas": pd.__version__,
        "numba": numba.__version__,
        "load_at_start": os.getloadavg()[0],
    }


def summarise(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians per contender and number of rows."""
    cells: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for run in runs:
        cells.setdefault((run["contender"], run["rows"]), []).append(run)
    return [
        {
            "contender": name,
            "rows": rows,
            "features": found[0]["features"],
            "runs": len(found),
            **{
                field: None if found[0][field] is None else statistics.median(run[field] for run in found)
                for field in ("seconds", "cpu_seconds", "peak_bytes")
            },
        }
        for (name, rows), found in cells.items()
    ]


def growth(summary: Sequence[dict[str, Any]], name: str, field: str) -> float | None:
    """The exponent b of field ~ rows ** b, by least squares on logarithms; None with fewer than two sizes."""
    mine = [cell for cell in summary if cell["contender"] == name and cell[field] is not None]
    if len(mine) < 2:
        return None
    return float(np.polyfit(np.log([c["rows"] for c in mine]), np.log([c[field] for c in mine]), 1)[0])


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    where = result["machine"]
    lines = [
        "# History features: the standard workload",
        "",
        f"{where['cpu']}, {where['cpus']} CPUs, {where['memory_bytes'] / 2**30:.0f} GiB, {where['system']}, "
        f"Python {where['python']}, numpy {where['numpy']}, pandas {where['pandas']}, numba {where['numba']}; "
        f"load average at the start {where['load_at_start']:.1f}. Keys as {result['keys']}. "
        "Each number is the median of alternating runs in fresh processes; who takes more than "
        f"{RUN_ONCE:.0f} s is run once. Every answer is checked against heed's. `make benchmark-engine` makes this "
        "page again.",
        "",
        "| contender | alerts | features | runs | seconds (median) | CPU seconds | peak memory (GB) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for c in sorted(result["summary"], key=lambda c: (c["rows"], c["seconds"])):
        lines.append(
            f"| {c['contender']} | {c['rows']:,} | {c['features']} | {c['runs']} | {c['seconds']:.2f} "
            f"| {_number(c['cpu_seconds'])} | {_number(c['peak_bytes'], 1e9)} |"
        )
    lines += ["", *result["notes"], ""]
    for name in dict.fromkeys(c["contender"] for c in result["summary"]):
        wall, cpu = (growth(result["summary"], name, field) for field in ("seconds", "cpu_seconds"))
        if wall is not None:
            lines.append(f"- {name}: time grows as N^{wall:.2f}" + (f", CPU time as N^{cpu:.2f}." if cpu else "."))
    lines += ["", *_beside_peers(result["summary"]), *_aims(result["summary"])]
    cold, warm = result["start"]["cold"], result["start"]["warm"]
    lines.append(
        f"First use of heed's loops on a machine: {cold['seconds']:.1f} s to compile "
        f"({cold['cpu_seconds']:.1f} s CPU); every later process: {warm['seconds']:.1f} s "
        f"({warm['cpu_seconds']:.1f} s CPU)."
    )
    return "\n".join(lines) + "\n"


def _beside_peers(summary: Sequence[dict[str, Any]]) -> list[str]:
    """How many times as fast as each peer heed is with the most alerts, and its share of the memory."""
    most = max(c["rows"] for c in summary)
    here = {c["contender"]: c for c in summary if c["rows"] == most}
    if "heed" not in here:
        return []
    said = [
        f"{name} {c['seconds'] / here['heed']['seconds']:.1f}"
        + (f" (and {100 * here['heed']['peak_bytes'] / c['peak_bytes']:.0f}% of its memory)" if c["peak_bytes"] else "")
        for name, c in here.items()
        if name in PEERS
    ]
    return [f"With {most:,} alerts heed is faster by the factors: {'; '.join(said)}.", ""] if said else []


def _aims(summary: Sequence[dict[str, Any]]) -> list[str]:
    """What was aimed at with 10 million alerts, beside what was reached."""
    here = {c["contender"]: c for c in summary if c["rows"] == 10_000_000}
    if not {"heed", WRITTEN, "Polars", "pandas", "DuckDB", "PostgreSQL"} <= here.keys():
        return []
    heed, polars = here["heed"], here["Polars"]
    answer = heed["rows"] * heed["features"] * 4
    slower = {name: here[name]["seconds"] / heed["seconds"] for name in ("pandas", "DuckDB", "PostgreSQL")}
    rows = [
        ("at most 8 s to compute", f"{heed['seconds']:.1f} s", heed["seconds"] <= 8),
        ("at most 2.5 GB", f"{heed['peak_bytes'] / 1e9:.2f} GB", heed["peak_bytes"] <= 2.5e9),
        ("at most 30 s with the Parquet files", f"{here[WRITTEN]['seconds']:.1f} s", here[WRITTEN]["seconds"] <= 30),
        (
            "4 times as fast as the fastest peer",
            f"{polars['seconds'] / heed['seconds']:.1f} times (Polars)",
            polars["seconds"] >= 4 * heed["seconds"],
        ),
        (
            "a quarter of its memory",
            f"{heed['peak_bytes'] / polars['peak_bytes']:.0%}",
            4 * heed["peak_bytes"] <= polars["peak_bytes"],
        ),
        *((f"15 times as fast as {name}", f"{factor:.1f} times", factor >= 15) for name, factor in slower.items()),
    ]
    grown = growth(summary, "heed", "seconds")
    if grown is not None:
        rows.append(("time grows no faster than N^1.1", f"N^{grown:.2f}", grown <= 1.1))
    return [
        "| aimed at, with 10 million alerts | reached | |",
        "|---|---:|---|",
        *(f"| {aim} | {reached} | {'yes' if met else '**no**'} |" for aim, reached, met in rows),
        "",
        f"The answer alone is {answer / 1e9:.2f} GB, {answer / polars['peak_bytes']:.0%} of Polars' memory: with the "
        "alerts beside it a quarter cannot be had. What grows faster than N are the walks through memory: keys lie in "
        "order of time and are written in order of the alerts, and at 10 million neither is in a cache any more "
        "(`python -m benchmarks.engine --walks` measures that alone).",
        "",
    ]


def walks() -> str:
    """How a bare walk like heed's grows: 42 numbers a row, read in order of a key, written in order of time."""
    said = []
    for rows in (1_000_000, 10_000_000):
        order = np.argsort(np.random.default_rng(1).integers(0, ENTITIES, rows, dtype=np.int16), kind="stable")
        source, target = np.ones((rows, 42), np.float32), np.zeros((rows, 42), np.float32)
        took = []
        for _ in range(5):
            began = time.perf_counter()
            target[order] = source
            took.append(time.perf_counter() - began)
        said.append(statistics.median(took))
    exponent = float(np.log10(said[1] / said[0]))
    return f"{said[0]:.3f} s with 1,000,000 rows, {said[1]:.3f} s with 10,000,000: N^{exponent:.2f}"


def _number(value: float | None, unit: float = 1.0) -> str:
    return "–" if value is None else f"{value / unit:.2f}"


def plot(result: dict[str, Any], path: Path) -> None:
    """Seconds and peak memory against the number of alerts, one line per contender."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    fields = (("seconds", 1.0, "seconds"), ("peak_bytes", 1e9, "peak memory (GB)"))
    for axis, (field, unit, label) in zip(axes, fields, strict=True):
        for name in dict.fromkeys(c["contender"] for c in result["summary"]):
            mine = [c for c in result["summary"] if c["contender"] == name and c[field] is not None]
            cells = sorted((c["rows"], c[field] / unit) for c in mine)
            if cells:
                axis.plot(*zip(*cells, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel="alerts", ylabel=label)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.suptitle("42 history features of every alert")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e6, 1e7])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=list(contenders()), default=list(contenders()))
    parser.add_argument("--text-keys", action="store_true", help="keys as text instead of categories")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--workload", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--walks", action="store_true", help="only how a bare walk through memory grows")
    arguments = parser.parse_args()
    if arguments.walks:
        print(walks())
        return
    if arguments.measure:
        if arguments.measure == "start":
            print(json.dumps(measure_start()))
        else:
            print(json.dumps(measure(arguments.measure, arguments.workload, arguments.check)))
        return

    result: dict[str, Any] = {"machine": machine(), "keys": "text" if arguments.text_keys else "categories"}
    runs, notes, present = [], [], {}
    for name, peer in contenders().items():
        found = installed(peer)
        if name not in arguments.contenders:
            continue
        if found is None:
            print(f"{name} is left out: {peer.package} is not installed")
            continue
        present[name] = peer
        if name in PEERS:
            most = f"; not run on more than {peer.max_rows:,} alerts" if peer.max_rows < max(arguments.rows) else ""
            server = "" if peer.in_process else "; CPU time and memory of its server are not measured"
            notes.append(f"- {name}: {peer.package} {found}{most}{server}.")
    with tempfile.TemporaryDirectory(prefix="heed-benchmark-") as scratch:
        cache = {"NUMBA_CACHE_DIR": f"{scratch}/numba"}
        result["start"] = {state: _fresh_process(["--measure", "start"], **cache) for state in ("cold", "warm")}
        for rows in (int(r) for r in arguments.rows):
            workload = Path(scratch) / f"{rows}.parquet"
            standard_workload(rows, text_keys=arguments.text_keys).to_parquet(workload)
            slow: set[str] = set()
            for repeat in range(arguments.repeats):
                for name, peer in present.items():
                    if name in slow:
                        continue
                    if rows > peer.max_rows:
                        if repeat == 0:
                            print(f"{name:>12} {rows:>12,} alerts are more than it is given ({peer.max_rows:,})")
                        continue
                    extra = ["--check"] if repeat == 0 else []
                    run = _fresh_process(["--measure", name, "--workload", str(workload), *extra], **cache)
                    runs.append(run)
                    if run["seconds"] > RUN_ONCE:
                        slow.add(name)
                    print(
                        f"{name:>12} {rows:>12,} alerts  {run['features']} features  {run['seconds']:8.2f} s  "
                        f"{_number(run['cpu_seconds']):>8} s CPU  {_number(run['peak_bytes'], 1e9):>8} GB",
                        flush=True,
                    )
            workload.unlink()
    result["notes"], result["summary"] = notes, summarise(runs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    name = "engine_text_keys" if arguments.text_keys else "engine"
    (arguments.out / f"{name}.md").write_text(table(result))
    plot(result, arguments.out / f"{name}.png")
    print(table(result))


if __name__ == "__main__":
    main()
