"""How good the score is after 50, 100, ..., 20,000 outcomes, compared with every contender of the pool.

    python -m benchmarks.learning_curve       # about 20 minutes of a core; writes benchmarks/learning_curve.md

Belongs here: cuts at which so many outcomes are known, the losses on the alerts that follow, and the page.
Does not belong here: the worlds (`family_worlds.py`, `dagster_project/simulator`), long replays (`families.py`,
`peers.py`), learning (`dagster_project/triage`).

At each cut so many alerts are old enough to learn from, flagged ones among them. The model learns as in production and
scores the next 500 alerts. Losses are expected log-losses where the probabilities are known, and log-losses on real
alerts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import zlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.families import RULES, over_seeds, settings_of
from benchmarks.family_worlds import FAMILIES, world
from benchmarks.learning import expected_loss
from benchmarks.peers import SETS
from benchmarks.wolfi import DATA
from benchmarks.worlds import history_of
from dagster_project.settings import Settings
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage.evaluation.contenders import ALWAYS_NO, CONSTANT
from dagster_project.triage.features.build import build_features
from dagster_project.triage.flags.exclusion import known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.baselines import fit_baselines
from dagster_project.triage.learning.mixture.model import Mixture
from dagster_project.triage.learning.past import usable_alerts
from dagster_project.triage.learning.training import learn
from dagster_project.triage.pipeline import training_frame, with_proposed_keys

ROOT = Path(__file__).resolve().parents[1]
OUTCOMES = (50, 100, 200, 500, 1_000, 5_000, 20_000)
SCORED = 500
FAMILY_NAMES = ("words", "together", "weeks", "often", "years")
COMPANY, DESK = "simulated company", "service desk"
FIRST, SEEDS, PARTS = 5_000, 4, 8


@dataclass(frozen=True)
class Point:
    """One training: losses by contender, "heed" among them, and the bound that the version states (nan: none)."""

    source: str
    seed: int
    outcomes: int
    losses: dict[str, float]
    bound: float


def history_and_truth(source: str, seed: int) -> tuple[pd.DataFrame, pd.Series, pd.DataFrame, Settings]:
    """The alerts with their outcomes, what is judged (probability or outcome) by alert_id, rules, settings."""
    if source == COMPANY:
        company = simulate(WorldConfig(seed=seed, alerts=50_000))
        settings = Settings()
        history = history_of(company)
        ordinary = ~(company.truth["is_flood"] | company.truth["is_visibility_only"])
        truth = company.truth[ordinary].set_index("alert_id")["probability"]
        return history, truth, company.rules, settings
    if source == DESK:
        read, folder, *_ = SETS[DESK]
        settings = Settings()
        history = read(DATA.parent / folder).assign(value=None, threshold=None, title=None)
        if seed < PARTS:  # some of its rules, as a small company would have them
            part = history["rule"].map(lambda rule: zlib.crc32(str(rule).encode()) % PARTS)
            history = history[part == seed].reset_index(drop=True)
        return history, history.set_index("alert_id")["acted"].dropna(), RULES, settings
    family = next(f for f in FAMILIES if f.name == source)
    whole = world(family, seed)
    return whole.drop(columns="probability"), whole.set_index("alert_id")["probability"], RULES, settings_of(family)


def points(task: tuple[str, int, tuple[int, ...]]) -> list[Point]:
    """The points of one world, at each number of outcomes that it has and that leave `SCORED` alerts to score."""
    source, seed, wanted = task
    history, truth, rules, settings = history_and_truth(source, seed)
    history = history.sort_values(["raised_at", "alert_id"], ignore_index=True)
    learning = replace(settings.learning_settings(), threads=1)
    end = history["raised_at"].max() + pd.Timedelta(seconds=1)
    flags = find_flags(history, rules, end)
    measured = []
    for outcomes in wanted:
        if outcomes + SCORED > len(history):
            continue
        cut = (history["raised_at"].iloc[outcomes - 1] + pd.Timedelta(learning.horizon)).to_pydatetime()
        own = with_proposed_keys(learning, history[history["raised_at"] < cut])
        table = build_features(history, *flags, history["raised_at"].min(), end, own.features)
        later = table[(table["raised_at"] >= cut) & table["alert_id"].isin(truth.index)]
        later = later.iloc[:SCORED].reset_index(drop=True)
        if len(later) < SCORED:
            continue
        known = [known_by(each, cut) for each in flags]
        frame = training_frame(table, history, *known, cut=cut, training_days=settings.learning.training_days)
        model = learn(frame, cut, own).model
        past = frame[usable_alerts(frame, cut)]
        past = past[past["raised_at"] + own.horizon <= pd.Timestamp(cut)]
        baselines = fit_baselines(past, past["acted"].to_numpy(dtype=np.float64), own.features, prior=own.prior)
        forecasts = {name: b.predict(later) for name, b in baselines.items() if name != ALWAYS_NO}
        if isinstance(model, Mixture):
            forecasts |= model.forecasts(later)
        forecasts["heed"] = model.predict(later)
        p = truth.loc[later["alert_id"]].to_numpy(dtype=np.float64)
        losses = {str(name): expected_loss(p, forecast) for name, forecast in forecasts.items()}
        bound = model.evidence.get("mixture", {}).get("worse_than_it_by_at_most")
        measured.append(Point(source, seed, outcomes, losses, float("nan") if bound is None else float(bound)))
    return measured


def best_on_average(some: list[Point]) -> str:
    """The contender with the lowest mean loss, of those that forecast at each of the points."""
    names = set.intersection(*(set(point.losses) for point in some)) - {"heed"}
    return min(sorted(names), key=lambda name: float(np.mean([point.losses[name] for point in some])))


def page(found: list[Point]) -> str:
    """The committed page."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "lightgbm"))
    sources = list(dict.fromkeys(point.source for point in found))
    seeds = sorted({point.seed for point in found if point.source != DESK})
    worlds = [f"simulated, seeds {seeds[0]} to {seeds[-1]}"] if seeds else []
    worlds += [f"the service desk, {PARTS} parts of its rules and all of it"] if DESK in sources else []
    lines = [
        "# The first outcomes",
        "",
        f"Made by `make benchmark-learning-curve` on {datetime.now(UTC):%Y-%m-%d}; {platform.machine()}, Python "
        f"{platform.python_version()}, {packages}. Worlds: {'; '.join(worlds)}. Differences of "
        "log-loss in nats; negative: heed is better. Intervals: Student's t over worlds.",
        "",
        "| known outcomes | worlds | heed less the constant | heed less the contender that is best on average, in "
        "hindsight | which | heed less the best contender of each world, in hindsight | within the stated bound |",
        "|---:|---:|---:|---:|---|---:|---|",
    ]
    for outcomes in OUTCOMES:
        some = [point for point in found if point.outcomes == outcomes]
        if not some:
            continue
        best = best_on_average(some)
        worse = [p.losses["heed"] - min(v for name, v in p.losses.items() if name != "heed") for p in some]
        stated = [(w, p.bound) for w, p in zip(worse, some, strict=True) if np.isfinite(p.bound)]
        within = f"{sum(w <= bound for w, bound in stated)} of {len(stated)}" if stated else "none stated"
        lines.append(
            f"| {outcomes:,} | {len(some)} "
            f"| {over_seeds([p.losses['heed'] - p.losses[CONSTANT] for p in some])} "
            f"| {over_seeds([p.losses['heed'] - p.losses[best] for p in some])} | {best.replace('_', ' ')} "
            f"| {over_seeds(worse)} | {within} |"
        )
    lines += [
        "",
        "The same by kind of alerts: heed less the contender that is best on average, in hindsight.",
        "",
        "| kind | " + " | ".join(f"{outcomes:,}" for outcomes in OUTCOMES) + " |",
        "|---|" + "---:|" * len(OUTCOMES),
    ]
    for source in sources:
        cells = []
        for outcomes in OUTCOMES:
            some = [point for point in found if (point.source, point.outcomes) == (source, outcomes)]
            if not some:
                cells.append("")
                continue
            best = best_on_average(some)
            gap = float(np.mean([p.losses["heed"] - p.losses[best] for p in some]))
            cells.append(f"{gap:+.3f} ({best.replace('_', ' ')})")
        lines.append(f"| {source} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "The best of ten contenders in hindsight is lucky: nobody could have chosen it. Below some 60 outcomes a "
        "version has no inner cut, states no bound, and scores with the weights it begins with.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train at every point and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--sources", nargs="*", default=[*FAMILY_NAMES, COMPANY, DESK])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "learning_curve.md")
    given = parser.parse_args()
    tasks = [
        (source, given.first + number, OUTCOMES)
        for source in given.sources
        if source != DESK
        for number in range(given.seeds)
    ]
    if DESK in given.sources:
        if (DATA.parent / SETS[DESK][1]).exists():
            tasks += [(DESK, part, OUTCOMES[:5]) for part in range(PARTS)] + [(DESK, PARTS, OUTCOMES[5:])]
        else:
            print(f"{DATA.parent / SETS[DESK][1]} is absent: the page goes without the service desk")
    found: list[Point] = []
    # Not forked: threads of LightGBM and numba do not survive a fork.
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool:
        for some in pool.map(points, tasks):
            found += some
            for point in some:
                best = best_on_average([point])
                print(
                    f"{point.source} {point.seed}, {point.outcomes:,} outcomes: heed {point.losses['heed']:.4f}, "
                    f"{best} {point.losses[best]:.4f}, constant {point.losses[CONSTANT]:.4f}",
                    flush=True,
                )
    given.out.write_text(page(found), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
