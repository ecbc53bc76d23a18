"""Is learning misled by its own influence? Companies whose people are moved by shown scores, to a known degree.

    python -m benchmarks.influenced                # writes benchmarks/influenced.md; 13 minutes
    python -m benchmarks.influenced --companies 1 --out /tmp/influenced.md       # a quick look

Belongs here: what a model that learned from influenced outcomes says, beside what people would do without scores.
Does not belong here: whether the holdout measures the influence (`influence.py`), and any test.

Each company of 24,000 alerts over 160 days shows scores from day 60 on, one alert in twenty held out at random. People
are of the kinds of `influence.py`. A model learns 14 days before the end; its scores of those last days are compared
with the true probability that somebody would have acted had no score ever been shown for the alert. "Naive" learns as
if nothing had been shown. "heed" does the same until the holdout shows that people act differently (all score bands
together, at 5% false alarms), and then calibrates on alerts whose score nobody saw.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import score_influence as influence
from benchmarks.influence import KINDS, SHARE
from benchmarks.worlds import history_of
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.flags.exclusion import known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.settings import LearningSettings
from dagster_project.triage.learning.training import learn
from dagster_project.triage.pipeline import training_frame

ROOT = Path(__file__).resolve().parents[1]
FIRST, ALERTS, DAYS, BEGAN, LAST = 910_000, 24_000, 160, timedelta(days=60), timedelta(days=14)
# Who follows a calibrated number changes nothing on average (`influence.md`): those people stand for no influence here.
LINES = ((KINDS[0], 0.0), (KINDS[1], 0.3), (KINDS[2], 0.3))


def one_company(task: tuple[int, str, float]) -> dict[str, Any]:
    """What two models say, one of which asks the holdout."""
    seed, kind, strength = task
    config = WorldConfig(
        seed=seed,
        alerts=ALERTS,
        days=DAYS,
        score_influence=strength,
        floods=0,
        visibility_only_rules=0,
        incident_days=0,
    )
    rng = np.random.default_rng(seed)
    before = simulate(config)
    plain = before.truth["probability_without_score"].to_numpy()
    score = metrics.expit(0.8 * metrics.logit(plain) - 0.2 + rng.normal(0, 0.5, len(plain)))
    follow = {  # the simulator's people follow a number; attention is the same with 1, 0 or their own mind in its place
        KINDS[0]: score,
        KINDS[1]: np.where(score >= 0.5, 1.0, np.where(score < 0.25, 0.0, np.nan)),
        KINDS[2]: np.where(score >= 0.25, 1.0, np.nan),
    }[kind]
    raised = before.truth.merge(history_of(before)[["alert_id", "raised_at"]], on="alert_id", how="left")["raised_at"]
    drawn = (raised >= raised.min() + BEGAN).to_numpy()
    held_out = drawn & (rng.random(len(plain)) < SHARE)
    world = simulate(config, shown_scores=np.where(drawn & ~held_out, follow, np.nan))
    truth, history = world.truth, history_of(world)
    first, last = history["raised_at"].min(), history["raised_at"].max()
    features = FeatureSettings()
    flags = find_flags(history, world.rules, last + timedelta(days=15))
    table = build_features(history, *flags, first, last + timedelta(seconds=1), features)
    cut = (last - LAST).to_pydatetime()
    frame = training_frame(table, history, *(known_by(f, cut) for f in flags), cut=cut, training_days=365)
    # The holdout's own question, on alerts whose horizon was over at the cut.
    over = drawn & (raised + LAST <= pd.Timestamp(cut)).to_numpy()
    acted, joint = truth["acted"].to_numpy(dtype=bool), []
    for band in range(4):
        mask = over & (influence.band_of(score) == band)
        shown, out = mask & ~held_out, mask & held_out
        if out.sum() >= 50:
            joint.append(
                influence.difference_of_shares(acted[shown].sum(), shown.sum(), acted[out].sum(), out.sum()).chi_square
            )
    noticed = bool(influence.acts_differently(joint))
    touched = frame.assign(influenced=frame["alert_id"].isin(truth["alert_id"][drawn & ~held_out]))
    week = table[table["raised_at"] >= cut].merge(truth[["alert_id", "probability_without_score"]], on="alert_id")
    p = week["probability_without_score"].to_numpy()
    settings = LearningSettings(features=features, threads=1)
    found: dict[str, Any] = {"noticed": noticed}
    for name, given in (("naive", frame), ("asked", touched)):
        said = metrics.clip_probability(learn(given, cut, settings).model.predict(week))
        loss = float(-(p * np.log(said) + (1 - p) * np.log1p(-said)).mean())
        found |= {
            f"{name} error": metrics.decile_error(said, p),
            f"{name} bias": float(said.mean() - p.mean()),
            f"{name} loss": loss,
        }
    for what in ("error", "bias", "loss"):
        found[f"heed {what}"] = found[f"{'asked' if noticed else 'naive'} {what}"]
    return found


def mean_with_interval(values: pd.Series, digits: int) -> str:
    """The mean, and the 95% interval of a bootstrap over companies."""
    numbers = values.to_numpy(dtype=float)
    draws = np.random.default_rng(0).choice(numbers, (2_000, len(numbers))).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return f"{numbers.mean():+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--companies", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "influenced.md")
    asked = parser.parse_args()
    started = time.monotonic()
    tasks = [(seed, *line) for line in LINES for seed in range(FIRST, FIRST + asked.companies)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as workers:
        found = pd.DataFrame(workers.map(one_company, tasks))
    found[["seed", "kind", "strength"]] = tasks
    lines = [
        "| people | strength | noticed | bias, naive | bias, heed | decile error, naive | decile error, heed "
        "| log-loss gained by heed |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for (kind, strength), rows in found.groupby(["kind", "strength"], sort=False):
        lines.append(
            f"| {kind} | {strength:.0%} | {rows['noticed'].sum()} of {len(rows)} "
            f"| {mean_with_interval(rows['naive bias'], 3)} | {mean_with_interval(rows['heed bias'], 3)} "
            f"| {mean_with_interval(rows['naive error'], 3)} | {mean_with_interval(rows['heed error'], 3)} "
            f"| {mean_with_interval(rows['naive loss'] - rows['heed loss'], 4)} |"
        )
    seen = found[found["noticed"]]
    lines += [
        "",
        f"In the {len(seen)} companies where it was noticed: decile error {mean_with_interval(seen['naive error'], 3)} "
        f"naive, {mean_with_interval(seen['asked error'], 3)} calibrated on alerts whose score nobody saw.",
    ]
    asked.out.write_text(
        f"""# Is learning misled by its own influence?

Made by `make benchmark-influenced` in {(time.monotonic() - started) / 60:.0f} minutes; {platform.machine()},
{os.cpu_count()} cores, Python {platform.python_version()}. {asked.companies} companies a line of {ALERTS:,} alerts,
seeds from {FIRST}; scores shown from day 60 of {DAYS} on, {SHARE:.0%} held out. Compared with what people would do
without any score. Intervals: bootstrap over companies.

"""
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )
    print(asked.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
