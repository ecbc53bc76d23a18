"""What learning reaches where the truth is known: simulated companies with a known probability for every alert.

    python -m benchmarks.learning                       # the final seeds; writes benchmarks/learning.md
    python -m benchmarks.learning --first 2000 --worlds 2 --noise 4 --out /tmp/learning.md     # a quick look

Belongs here: worlds, a training in the middle of each as production would have held it, and what its scores were
worth on the alerts after it.
Does not belong here: learning (`dagster_project/triage`), the worlds (`dagster_project/simulator`), and any test.

Each world of 100,000 alerts over 200 days is walked through as production would: the model learns through the functions
of production, scores a week, and learns anew (`retrain_every_days`), twice at the end of the world. Counted is every
alert of those two weeks that no bug made and whose rule is not visibility-only by design. Skill is
(constant - model) / (constant - truth), each an expected log-loss under the true probability, so that luck in the
outcomes does not blur it. The constant is the rate known at the cut; the best baseline is chosen in hindsight.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.worlds import history_of
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import ALWAYS_NO, CONSTANT
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.flags.exclusion import known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.baselines import fit_baselines
from dagster_project.triage.learning.past import usable_alerts
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings, TreeRecipe
from dagster_project.triage.learning.training import learn
from dagster_project.triage.pipeline import training_frame

ROOT = Path(__file__).resolve().parents[1]
FIRST = 800_000
KEYS = ("all", "rule", "entity", "team", "rule+entity", "rule+team")  # those of heed.toml
RETRAIN_EVERY, RETRAININGS = timedelta(days=7), 2


@dataclass(frozen=True)
class Found:
    """One world: what learning reached in it."""

    seed: int
    kind: str
    skill: float
    skill_without_luck: float  # of trees trained on the true probabilities instead of outcomes, last week
    skill_with_luck: float  # of the same trees trained on the outcomes
    over_best_baseline: float  # nats per alert, of the expected log-loss
    best_baseline: str
    decile_error: float  # of scores against outcomes
    decile_bias: float  # of scores against true probabilities
    decile_luck: float  # of the true probabilities against outcomes: what luck alone gives
    auc: float
    auc_of_truth: float
    learned_from: int
    scored: int
    seconds: float  # CPU seconds of one training


def expected_loss(truth: np.ndarray, forecast: np.ndarray) -> float:
    """Mean log-loss to be expected of a forecast when `truth` are the probabilities."""
    q = metrics.clip_probability(forecast)
    return float(-(truth * np.log(q) + (1 - truth) * np.log1p(-q)).mean())


def fitted_on(
    past: pd.DataFrame,
    label: np.ndarray,
    week: pd.DataFrame,
    recipe: TreeRecipe,
    features: FeatureSettings | None = None,
) -> np.ndarray:
    """What the trees of a recipe say about `week`, trained on `label` (0 to 1) of `past`, with all columns."""
    plan = plan_columns(past, features or FeatureSettings(keys=KEYS))
    binned = boosting.Binned(plan.matrix(past), label, boosting.safe_names(plan.names), plan.categorical, 1, 1)
    parameters = {**dict(recipe.parameters), "objective": "cross_entropy"}
    booster = binned.fit(np.arange(len(past)), np.ones(len(past)), parameters, range(len(plan.columns)), recipe.trees)
    return metrics.expit(boosting.log_odds(booster, plan.matrix(week), None, 1))


def share_reached(truth: np.ndarray, forecast: np.ndarray, constant: float) -> float:
    """(constant - forecast) / (constant - truth) in expected log-loss."""
    floor, ceiling = expected_loss(truth, truth), expected_loss(truth, np.full(len(truth), constant))
    return (ceiling - expected_loss(truth, forecast)) / (ceiling - floor) if ceiling > floor else float("nan")


def run(config: WorldConfig) -> Found:
    """Simulate, learn at each cut, score the week that follows."""
    world = simulate(config)
    history = history_of(world)
    first, last = history["raised_at"].min(), history["raised_at"].max()
    features = FeatureSettings(keys=KEYS)
    flags = find_flags(history, world.rules, last + timedelta(days=15))
    table = build_features(history, *flags, first, last + timedelta(seconds=1), features)
    truth = world.truth[["alert_id", "probability", "is_flood", "is_visibility_only", "acted"]]
    settings = LearningSettings(features=features, threads=1)
    seconds, parts, kinds, mature = 0.0, [], [], 0
    for number in range(RETRAININGS):
        cut = (last - RETRAIN_EVERY * (RETRAININGS - number)).to_pydatetime()
        frame = training_frame(table, history, *(known_by(f, cut) for f in flags), cut=cut, training_days=365)
        started = time.process_time()
        learned = learn(frame, cut, settings)
        seconds += time.process_time() - started
        kinds.append(learned.model.status)
        past = frame[usable_alerts(frame, cut)]
        past = past[past["raised_at"] + settings.horizon <= pd.Timestamp(cut)]
        mature = len(past)
        week = table[(table["raised_at"] >= cut) & (table["raised_at"] < cut + RETRAIN_EVERY)]
        week = week.merge(truth, on="alert_id", validate="one_to_one")
        week = week[~week["is_flood"] & ~week["is_visibility_only"]].reset_index(drop=True)
        baselines = fit_baselines(past, past["acted"].to_numpy(dtype=np.float64), features)
        said = {name: baseline.predict(week) for name, baseline in baselines.items() if name != ALWAYS_NO}
        parts.append(week[["probability", "acted"]].assign(heed=learned.model.predict(week), **said))
    later = pd.concat(parts, ignore_index=True)
    p, q, y = later["probability"].to_numpy(), later["heed"].to_numpy(), later["acted"].to_numpy(dtype=np.float64)
    losses = {name: expected_loss(p, later[name].to_numpy()) for name in ("heed", *said)}
    floor = expected_loss(p, p)
    best = min(said, key=lambda name: losses[name])
    without_luck = with_luck = float("nan")
    if config.predictability != "noise":
        label = past[["alert_id"]].merge(truth, on="alert_id", validate="one_to_one")["probability"].to_numpy()
        rate = float(past["acted"].mean())
        outcomes = past["acted"].to_numpy(dtype=np.float64)
        recipe = next(recipe for recipe in TREE_RECIPES if recipe.minimum_alerts)  # the first for so many alerts
        without_luck, with_luck = (
            share_reached(week["probability"].to_numpy(), fitted_on(past, y, week, recipe), rate)
            for y in (label, outcomes)
        )
    return Found(
        config.seed,
        "model" if "model" in kinds else kinds[-1],
        (losses[CONSTANT] - losses["heed"]) / (losses[CONSTANT] - floor) if losses[CONSTANT] > floor else float("nan"),
        without_luck,
        with_luck,
        losses[best] - losses["heed"],
        best,
        metrics.decile_error(q, y),
        metrics.decile_error(q, p),
        metrics.decile_error(p, y),
        metrics.roc_auc(q, y),
        metrics.roc_auc(p, y),
        mature,
        len(later),
        seconds / RETRAININGS,
    )


def of_worlds(values: np.ndarray, statistic: str) -> str:
    """A statistic over worlds with its 95% bootstrap interval."""
    rng = np.random.default_rng(0)
    ask = {"median": np.median, "mean": np.mean}[statistic]
    draws = [ask(rng.choice(values, len(values))) for _ in range(4_000)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return f"{ask(values):.3f} [{low:.3f}, {high:.3f}]"


def page(found: list[Found], noise: list[Found], alerts: int) -> str:
    """The committed table."""
    skill = np.array([f.skill for f in found])
    gain = np.array([f.over_best_baseline for f in found])
    error = np.array([f.decile_error for f in found])
    bias, luck = np.array([f.decile_bias for f in found]), np.array([f.decile_luck for f in found])
    claims = sum(f.kind == "model" for f in noise)
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "lightgbm"))
    lines = [
        "# Learning against known truth",
        "",
        f"Made by `make benchmark-learning`; {platform.machine()}, 2 cores, Python {platform.python_version()}, "
        f"{packages}. {len(found)} worlds of {alerts:,} alerts, seeds {found[0].seed} to {found[-1].seed}"
        + (f"; {len(noise)} worlds of pure noise, seeds {noise[0].seed} to {noise[-1].seed}. " if noise else ". ")
        + "Intervals: bootstrap over worlds, Wilson for counts.",
        "",
        "| what | bar | figure, 95% interval |",
        "|---|---|---|",
        f"| share of the reachable skill, median | >= 0.90 | {of_worlds(skill, 'median')} |",
        f"| the same in the worst world | | {skill.min():.3f} (seed {found[int(skill.argmin())].seed}) |",
        "| the same, of one recipe's trees alone, in the last week | "
        f"| {of_worlds(np.array([f.skill_with_luck for f in found]), 'median')} |",
        "| of those trees, trained on the true probabilities instead of outcomes: no luck to learn from | "
        f"| {of_worlds(np.array([f.skill_without_luck for f in found]), 'median')} |",
        "| worlds in which the best baseline (in hindsight) is better | none "
        f"| {int((gain < 0).sum())} of {len(found)}, least gain {gain.min():.3f} nats |",
        f"| decile calibration error, mean over worlds | <= 0.02 | {of_worlds(error, 'mean')} |",
        f"| the same, worst world | <= 0.02 | {error.max():.3f}; {int((error <= 0.02).sum())} of {len(found)} within |",
        f"| the same of the true probabilities: what the luck of outcomes alone gives | | {of_worlds(luck, 'mean')} |",
        "| decile error against the true probabilities (without the luck of outcomes) | <= 0.02 "
        f"| {of_worlds(bias, 'mean')}; worst {bias.max():.3f} |",
    ]
    if noise:
        low, high = metrics.wilson_interval(claims, len(noise))
        lines.append(
            f"| worlds of pure noise in which a model claims skill | <= 5% | {claims} of {len(noise)} "
            f"[{low:.1%}, {high:.1%}] |"
        )
    lines += [
        "",
        "| seed | serves | skill | trained on the truth | gain over best baseline | which "
        "| decile error | AUC | AUC of the truth "
        "| learned from | scored | learning, CPU s |",
        "|---:|---|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {f.seed} | {f.kind} | {f.skill:.3f} | {f.skill_without_luck:.3f} "
            f"| {f.over_best_baseline:.3f} | {f.best_baseline} "
            f"| {f.decile_error:.3f} | {f.auc:.3f} | {f.auc_of_truth:.3f} | {f.learned_from:,} | {f.scored:,} "
            f"| {f.seconds:.0f} |"
            for f in found
        ),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the worlds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=FIRST, help="first seed")
    parser.add_argument("--worlds", type=int, default=30)
    parser.add_argument("--alerts", type=int, default=100_000)
    parser.add_argument("--noise", type=int, default=60, help="worlds of pure noise, of a tenth of the alerts")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "learning.md")
    given = parser.parse_args()
    found, noise = [], []
    worlds = [WorldConfig(seed=given.first + i, alerts=given.alerts) for i in range(given.worlds)]
    worlds += [
        WorldConfig(seed=given.first + 10_000 + i, alerts=given.alerts // 10, predictability="noise")
        for i in range(given.noise)
    ]
    # Not forked: threads of LightGBM and numba do not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for world, made in zip(worlds, pool.map(run, worlds), strict=True):
            (noise if world.predictability == "noise" else found).append(made)
            print(made, flush=True)
    given.out.write_text(page(found, noise, given.alerts), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
