"""Scoring and publishing: alerts a second without reasons, with exact contributions, and a million scores published.

    python -m benchmarks.scoring          # writes benchmarks/scoring.md

Belongs here: one trained model (200 trees, up to 63 leaves) walked by heed's loops and by LightGBM on the same rows,
the check that both say the same, and `publish_scores` of a million scores into an empty embedded warehouse. Does not
belong here: reading features and putting reasons into words (`benchmarks/refresh.py` measures whole refreshes).

Trees are walked in memory: from a float32 matrix to scores or contributions. Publishing runs from the frame of scores,
three reasons each, to the committed transaction.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pandas as pd

from benchmarks.engine import machine
from dagster_project.resources.stores.scores import publish_scores
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.triage.learning.trees.forest import Forest

PAGE = Path(__file__).with_suffix(".md")
SEED, COLUMNS, TREES, LEAVES = 1, 60, 200, 63
TAUGHT, SCORED, EXPLAINED, PUBLISHED = 100_000, 500_000, 8_192, 1_000_000
LIGHTGBM_EXPLAINED = 1_024  # its own contributions are slow, and cost the same for each alert
REPEATS = 3


def taught(random: np.random.Generator) -> tuple[lgb.Booster, np.ndarray]:
    """A model of the stated size, and the alerts to score: float32 [SCORED, COLUMNS], 10% missing."""
    x = random.normal(size=(SCORED, COLUMNS)).astype(np.float32)
    x[random.random(x.shape, dtype=np.float32) < 0.1] = np.nan
    some = np.nan_to_num(x[:TAUGHT])
    raw = some[:, 0] * some[:, 1] + np.sin(2 * some[:, 2]) + some[:, 3:20].sum(axis=1) / 4 - 1
    y = (random.random(TAUGHT) < 1 / (1 + np.exp(-raw))).astype(np.float64)
    parameters = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "seed": SEED, "deterministic": True}
    return lgb.train(parameters, lgb.Dataset(x[:TAUGHT], y), TREES), x


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def publication(random: np.random.Generator) -> tuple[float, float]:
    """Seconds to publish a million scores: into an empty table, and the same again, where nothing is new."""
    as_of = datetime(2025, 1, 1, tzinfo=UTC)
    raised = pd.Timestamp("2024-12-01", tz="UTC") + pd.to_timedelta(np.arange(PUBLISHED), unit="s")
    scores = pd.DataFrame(
        {
            "alert_id": [f"alert-{number:09d}" for number in range(PUBLISHED)],
            "raised_at": raised,
            "model_version": "a-model",
            "probability": random.random(PUBLISHED),
            "status": "model",
            "flood": False,
            "visibility_only": False,
            "reasons": [["the rule was acted on often", "the team acts at this hour", "few alerts"]] * PUBLISHED,
        }
    )
    home = Path(tempfile.mkdtemp(prefix="heed-benchmark-"))
    home.chmod(0o755)  # the server may run under an account of its own
    try:
        warehouse = Warehouse(home, "")
        prepare(warehouse)
        first = seconds(lambda: publish_scores(warehouse, [scores], as_of, "a-model", PUBLISHED))
        if warehouse.value("SELECT count(*) FROM scoring.alert_scores") != PUBLISHED:
            raise SystemExit("not every score was published")
        return first, seconds(lambda: publish_scores(warehouse, [scores], as_of, "a-model", PUBLISHED))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    where, random = machine(), np.random.default_rng(SEED)
    booster, x = taught(random)
    forest, threads = Forest(booster.model_to_string()), where["cpus"]
    few, fewer = x[:EXPLAINED], x[:LIGHTGBM_EXPLAINED]
    forest.raw_scores(few), forest.contributions(few)  # loads what was compiled
    if not np.array_equal(forest.raw_scores(few), booster.predict(few, raw_score=True)):
        raise SystemExit("scores differ from LightGBM's")
    theirs = np.asarray(booster.predict(fewer, pred_contrib=True))[:, :-1]
    furthest = float(np.abs(forest.contributions(fewer) - theirs).max())
    if furthest > 1e-9:
        raise SystemExit(f"contributions differ from LightGBM's by {furthest}")
    tasks: dict[tuple[str, str], tuple[int, Callable[[], object]]] = {
        ("scores", "heed"): (SCORED, lambda: forest.raw_scores(x, threads)),
        ("scores", "LightGBM"): (SCORED, lambda: booster.predict(x, raw_score=True, num_threads=threads)),
        ("contributions", "heed"): (EXPLAINED, lambda: forest.contributions(few, threads)),
        ("contributions", "LightGBM"): (
            LIGHTGBM_EXPLAINED,
            lambda: booster.predict(fewer, pred_contrib=True, num_threads=threads),
        ),
    }
    runs: dict[tuple[str, str], list[float]] = {task: [] for task in tasks}
    for _ in range(REPEATS):
        for task, (alerts, work) in tasks.items():
            runs[task].append(alerts / seconds(work))
    first, again = publication(random)
    lines = [
        "# Scoring and publishing",
        "",
        f"{where['cpu']}, {where['cpus']} CPUs, {where['memory_bytes'] / 2**30:.0f} GiB, {where['system']}, Python "
        f"{where['python']}, LightGBM {lgb.__version__}; load average at the start {where['load_at_start']:.1f}. "
        "`make benchmark-scoring` makes this page again.",
        "",
        f"One model of {TREES} trees with up to {LEAVES} leaves on {COLUMNS} columns (seed {SEED}), on {threads} "
        f"threads, {REPEATS} alternating runs in one process: median (least to most) in alerts a second.",
        "",
        "| what | by | alerts | alerts a second |",
        "|---|---|---:|---:|",
    ]
    for (what, who), rates in runs.items():
        lines.append(
            f"| {what} | {who} | {tasks[what, who][0]:,} "
            f"| {statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) |"
        )
    ratio = statistics.median(runs["contributions", "heed"]) / statistics.median(runs["contributions", "LightGBM"])
    lines += [
        "",
        f"Exact contributions are {ratio:.1f} times as fast as LightGBM's own. Scores are the same, bit for bit; "
        f"contributions differ by at most {furthest:.0e}.",
        "",
        f"Publishing {PUBLISHED:,} scores into an empty embedded warehouse, run once: {first:.1f} s; the same scores "
        f"again, where nothing is new: {again:.1f} s.",
    ]
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE.read_text())


if __name__ == "__main__":
    main()
