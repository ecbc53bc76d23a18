"""Does the holdout measure what showing a score does?

    python -m benchmarks.influence                  # writes benchmarks/influence.md, about 10 minutes on 2 cores
    python -m benchmarks.influence --runs 200 --companies 50 --out /tmp/influence.md       # a quick look

Belongs here: people who are influenced by a score to a known degree, and how often the intervals hold that truth.
Does not belong here: the estimate (`score_influence.py`), the same in SQL
(`reporting.score_influence`; `tests/dbt` holds the two against each other), and any test.

A run has 12,000 alerts of 40 rules over 60 days. Alerts of a rule and day share a random effect, and how much is acted
upon drifts by up to half a log-odds between the runs' halves, as it does in companies. Scores are forecasts with
errors. People are of three kinds: those who follow the number (P = (1 - a) p + a score), those who give attention by
it (from 50% on a share `a` of what would be left is acted upon, below 25% a share `a` of what would be acted upon is
left), and those who only act more (from 25% on a share `a` of what would be left is acted upon). The truth of a run is
the mean change of the true probability over its alerts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import score_influence as influence
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage.evaluation import metrics

ROOT = Path(__file__).resolve().parents[1]
FIRST = 900_000
ALERTS, RULES, DAYS, HORIZON_HOURS = 12_000, 40, 60, 14 * 24.0
STRENGTHS = (0.0, 0.1, 0.2, 0.3)
KINDS = ("follow the number", "give attention by it", "act on what is high")
SHARE = 0.05


def influenced(p: np.ndarray, score: np.ndarray, strength: float, kind: str) -> np.ndarray:
    """P(acted) when the score is shown."""
    if kind == KINDS[0]:
        return (1 - strength) * p + strength * score
    if kind == KINDS[2]:
        return np.where(score >= 0.25, p + strength * (1 - p), p)
    return np.where(score >= 0.5, p + strength * (1 - p), np.where(score < 0.25, p * (1 - strength), p))


def one_run(task: tuple[int, float, str, float]) -> dict[str, Any]:
    """One simulated company for 60 days, its estimate and its truth."""
    seed, strength, kind, share = task
    rng = np.random.default_rng([seed, round(100 * strength), KINDS.index(kind), round(1000 * share)])
    rule, day = rng.integers(RULES, size=2 * ALERTS), np.sort(rng.integers(2 * DAYS, size=2 * ALERTS))
    later = day >= DAYS  # the first half is the time before heed
    drift = rng.uniform(-0.5, 0.5)
    common = rng.normal(0, 0.5, (RULES, 2 * DAYS))[rule, day]
    logit = -1.8 + rng.normal(0, 1.2, RULES)[rule] + rng.normal(0, 0.9, 2 * ALERTS) + common + drift * later
    p = metrics.expit(logit)
    score = metrics.expit(0.8 * logit - 0.2 + rng.normal(0, 0.5, 2 * ALERTS))
    held_out = (rng.random(2 * ALERTS) < share) & later
    shown = later & ~held_out
    with_score = influenced(p, score, strength, kind)
    acted = rng.random(2 * ALERTS) < np.where(shown, with_score, p)
    # Shown high scores are opened sooner; the same `strength`, so that hours have a known truth as well.
    usual = np.minimum(rng.lognormal(2.5, 1.2, 2 * ALERTS), HORIZON_HOURS)
    sooner = 1 - strength * (score >= 0.25)
    hours = np.where(shown, usual * sooner, usual)
    made = _counted(acted, shown, held_out)
    truth = float((with_score - p)[later].mean())
    found: dict[str, Any] = {"truth": truth, **_judged(made, truth)}
    speed = influence.difference_of_means(hours[shown], hours[held_out])
    found["hours"] = speed.low <= (usual * (sooner - 1))[later].mean() <= speed.high
    joint = []
    for band, mask in enumerate(influence.band_of(score) == each for each in range(4)):
        there = _counted(acted, shown & mask, held_out & mask)
        if (held_out & mask).sum() >= 50:
            part = influence.difference_of_shares(*there)
            found[f"band {band}"] = part.low <= (with_score - p)[later & mask].mean() <= part.high
            joint.append(part.chi_square)
    found["noticed"] = influence.acts_differently(joint)
    before = influence.difference_of_shares(acted[shown].sum(), shown.sum(), acted[~later].sum(), (~later).sum())
    found |= {"before_after": before.value, "before_after_covers": before.low <= truth <= before.high}
    high = shown & (score >= 0.5)
    rest = shown & (score < 0.5)
    bands = influence.difference_of_shares(acted[high].sum(), high.sum(), acted[rest].sum(), rest.sum())
    effect = float((with_score - p)[high].mean())
    return {
        **found,
        "high_low": bands.value,
        "high_truth": effect,
        "high_low_covers": bands.low <= effect <= bands.high,
    }


def one_company(task: tuple[int, float, str]) -> dict[str, Any]:
    """The same in a company of the simulator, where habits pass what was done with one alert on to the next."""
    seed, strength, kind = task
    config = WorldConfig(
        seed=seed, alerts=ALERTS, days=120, score_influence=strength, floods=0, visibility_only_rules=0, incident_days=0
    )
    rng = np.random.default_rng(seed)
    plain = simulate(config).truth["probability_without_score"].to_numpy()
    score = metrics.expit(0.8 * metrics.logit(plain) - 0.2 + rng.normal(0, 0.5, len(plain)))
    held_out = rng.random(len(plain)) < SHARE
    # The simulator's people follow a number; attention is the same with 1, 0 or their own mind in its place.
    follow = {
        KINDS[0]: score,
        KINDS[1]: np.where(score >= 0.5, 1.0, np.where(score < 0.25, 0.0, np.nan)),
        KINDS[2]: np.where(score >= 0.25, 1.0, np.nan),
    }[kind]
    truth = simulate(config, shown_scores=np.where(held_out, np.nan, follow)).truth
    without = truth["probability_without_score"].to_numpy()
    effect = float(np.mean(np.where(np.isnan(follow), 0.0, strength * (np.nan_to_num(follow) - without))))
    acted = truth["acted"].to_numpy(dtype=bool)
    return {"truth": effect, **_judged(_counted(acted, ~held_out, held_out), effect)}


def _counted(acted: np.ndarray, shown: np.ndarray, held_out: np.ndarray) -> tuple[Any, Any, Any, Any]:
    return acted[shown].sum(), shown.sum(), acted[held_out].sum(), held_out.sum()


def _judged(counted: tuple[Any, Any, Any, Any], truth: float) -> dict[str, Any]:
    made = influence.difference_of_shares(*counted)
    return {"value": made.value, "covers": made.low <= truth <= made.high, "half": (made.high - made.low) / 2}


def _share(flags: pd.Series) -> str:
    known = flags.dropna().astype(float)
    if not len(known):
        return "too few"
    low, high = metrics.wilson_interval(float(known.sum()), len(known))
    return f"{known.mean():.1%} [{low:.1%}, {high:.1%}]"


def coverage(found: pd.DataFrame) -> str:
    """The table of all settings."""
    lines = [
        "| people | strength | truth, mean | holdout says, mean | its interval holds the truth | of a band | of hours "
        "| people noticed to act differently | before and after says, mean | its interval holds the truth | "
        "high against low says | truth there | its interval holds the truth |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (kind, strength), rows in found.groupby(["kind", "strength"], sort=False):
        bands = pd.concat([rows[name] for name in sorted(rows) if str(name).startswith("band ")])
        error = (rows["before_after"] - rows["truth"]).abs().mean()
        lines.append(
            f"| {kind} | {strength:.0%} | {rows['truth'].mean():+.4f} | {rows['value'].mean():+.4f} | "
            f"{_share(rows['covers'])} | {_share(bands)} | {_share(rows['hours'])} | {_share(rows['noticed'])} | "
            f"{rows['before_after'].mean():+.4f} (mean error {error:.3f}) | {_share(rows['before_after_covers'])} | "
            f"{rows['high_low'].mean():+.3f} | {rows['high_truth'].mean():+.3f} | "
            f"{_share(rows['high_low_covers'])} |"
        )
    return "\n".join(lines)


def costs(found: pd.DataFrame) -> str:
    """What a share costs and gives."""
    lines = [
        "| share | held out of 10,000 alerts | half the interval's width | its interval holds the truth | "
        "a strength of 30% is noticed |",
        "|---:|---:|---:|---:|---:|",
    ]
    for share, rows in found.groupby("share"):
        half = rows["half"].mean() * (ALERTS / 10_000) ** 0.5
        lines.append(
            f"| {share:.0%} | {10_000 * share:,.0f} | {100 * half:.1f} points | {_share(rows['covers'])} | "
            f"{_share(rows['noticed'])} |"
        )
    return "\n".join(lines)


def companies(found: pd.DataFrame) -> str:
    """The table of the simulator's companies."""
    lines = [
        "| people | strength | truth, mean | holdout says, mean | its interval holds the truth |",
        "|---|---:|---:|---:|---:|",
    ]
    for (kind, strength), rows in found.groupby(["kind", "strength"], sort=False):
        lines.append(
            f"| {kind} | {strength:.0%} | {rows['truth'].mean():+.4f} | {rows['value'].mean():+.4f} | "
            f"{_share(rows['covers'])} |"
        )
    return "\n".join(lines)


def run_all(function: Callable[[Any], dict[str, Any]], tasks: Iterable[tuple[Any, ...]], names: str) -> pd.DataFrame:
    """Run every task, in processes, and put what was asked beside what was found."""
    listed = list(tasks)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("fork")) as workers:
        found = list(workers.map(function, listed, chunksize=8))
    asked = pd.DataFrame(listed, columns=names.split())
    return pd.concat([asked, pd.DataFrame(found)], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--companies", type=int, default=1_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "influence.md")
    asked = parser.parse_args()
    started = time.monotonic()
    seeds = range(FIRST, FIRST + asked.runs)
    runs = run_all(
        one_run,
        [(seed, strength, kind, SHARE) for kind in KINDS for strength in STRENGTHS for seed in seeds],
        "seed strength kind share",
    )
    shares = run_all(
        one_run,
        [(seed, 0.3, KINDS[1], share) for share in (0.01, 0.02, 0.05, 0.1, 0.2) for seed in seeds[: asked.runs // 4]],
        "seed strength kind share",
    )
    worlds = run_all(
        one_company,
        [
            (seed, strength, kind)
            for kind in KINDS
            for strength in STRENGTHS
            for seed in range(FIRST, FIRST + asked.companies)
        ],
        "seed strength kind",
    )
    minutes = (time.monotonic() - started) / 60
    asked.out.write_text(
        f"""# What showing a score does, against known truth

Made by `make benchmark-influence` in {minutes:.0f} minutes; {platform.machine()}, {os.cpu_count()} cores,
Python {platform.python_version()}, numpy {version("numpy")}. Seeds {FIRST} to {FIRST + asked.runs - 1}.
Intervals of shares: Wilson, 95%.

## Does the interval hold the truth?

{asked.runs:,} runs per line, each of {ALERTS:,} alerts, {SHARE:.0%} of them held out. The bar: the interval holds
the truth in 93% to 97% of runs. "Noticed" is the question to all score bands at once: at a strength of 0% it is the
rate of false alarms (5% by design). "Before and after" compares with as many alerts of the time before. "High against
low" compares shown alerts at 50% or more with the others, and takes foresight for influence.

{coverage(runs)}

Who follows a calibrated number changes nothing on average: the truth is near zero at every strength, and there is
little to notice. The other two change what is done.

## What a share costs, and gives

{asked.runs // 4:,} runs per line, people who give attention by the score, at 30%. The cost of a share is the share
itself: on so many alerts people decide as they would without heed.

{costs(shares)}

## In companies of the simulator

{asked.companies:,} companies per line, each of {ALERTS:,} alerts over 120 days. Teams differ, habits pass what was done
with one alert on to the next, and rules change.

{companies(worlds)}
""",
        encoding="utf-8",
    )
    print(asked.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
