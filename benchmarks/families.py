"""Simulated companies of other mechanics than heed's own, each with a known probability for every alert.

    python -m benchmarks.families text pair --seeds 900000 900001        # seeds below 900,000 are for developing

Belongs here: the worlds, and what share of the reachable skill the mixture, its parts and the rivals reach in them.
Does not belong here: heed's own simulator (`dagster_project/simulator`), learning (`dagster_project/triage`).

Skill is (constant - forecast) / (constant - truth), each an expected log-loss under the true probability, over the
alerts of the last third of the time. The constant is the mean of the true probabilities there.
"""

from __future__ import annotations

import argparse
import json
import time
import zlib
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd

from benchmarks.peers import Case, walk
from dagster_project.settings import Settings
from dagster_project.triage import metrics

START = pd.Timestamp("2024-01-01", tz="UTC")
HORIZON = pd.Timedelta(days=14)
KINDS = ("plain", "text", "pair", "flip", "fanout", "new", "rare", "frequent", "slow", "memory", "noise")
# Learning curve: known outcomes at the cut.
CURVE = (50, 100, 200, 500, 1_000, 5_000, 20_000)


def world(kind: str, seed: int, alerts: int = 6_000, days: int = 180) -> pd.DataFrame:
    """One row per alert in order of time: the contract's columns, outcome, and `truth` (the probability).

    plain : rule, team and entity add up. text : four of sixty words of the title decide, 95% of rules are new. pair :
    region and product decide together. flip : as pair, and half of the table turns over on one night. fanout : one
    cause raises alerts on up to 300 entities at once, and they share their outcome's odds. new : 95% of rules are
    new, and an attribute decides. rare : 0.3% acted. frequent : 90% acted. slow : answers after a week or more.
    memory : 720 days in which each rule fires a few times and keeps its odds. noise : one constant probability.
    """
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode())])
    days = 720 if kind == "memory" else days
    when = np.sort(rng.random(alerts)) * days * 86_400
    entity, team = np.minimum(rng.zipf(1.4, alerts), 80), rng.integers(0, 4, alerts)
    rule = np.minimum(rng.zipf(1.5, alerts), 40)
    region, product = rng.integers(0, 6, alerts), rng.integers(0, 8, alerts)
    titles: list[str | None] = [None] * alerts
    odds = np.full(alerts, -0.4)
    own = rng.normal(0, 1.2, 2_000)
    if kind in ("plain", "slow", "rare", "frequent"):
        level = {"rare": -6.6, "frequent": 2.9}.get(kind, -0.5)
        odds = level + own[rule] + rng.normal(0, 0.8, 4)[team] + rng.normal(0, 0.7, 81)[entity]
    elif kind == "text":
        vocabulary = np.array([f"{a}{b}" for a in "bdfgklmnprst" for b in ("ano", "eru", "ilo", "opa", "uze")])
        pull = np.where(rng.random(60) < 0.3, rng.normal(0, 2.2, 60), 0.0)
        picked = np.array([rng.choice(60, 4, replace=False) for _ in range(alerts)])
        titles = [" ".join(vocabulary[p]) for p in picked]
        odds = -0.3 + pull[picked].sum(axis=1)
    elif kind in ("pair", "flip"):
        table = rng.choice([-2.0, 2.0], (6, 8))
        later = np.where(rng.random((6, 8)) < 0.5, -table, table) if kind == "flip" else table
        odds = np.where(when > 0.6 * days * 86_400, later[region, product], table[region, product])
        odds = odds + rng.normal(0, 0.3, 41)[rule]
    elif kind == "fanout":
        cause = np.sort(rng.integers(0, max(2, alerts // 40), alerts))
        start = np.sort(rng.random(cause.max() + 1)) * days * 86_400
        when, order = start[cause] + rng.random(alerts) * 3_600, np.arange(alerts)
        order = np.argsort(when, kind="stable")
        when, cause = when[order], cause[order]
        of_cause = np.minimum(rng.zipf(1.5, cause.max() + 1), 40)
        rule, entity = of_cause[cause], rng.integers(0, 300, alerts)
        odds = -0.4 + own[rule] + rng.normal(0, 0.8, cause.max() + 1)[cause]
    elif kind == "new":
        rule = np.where(rng.random(alerts) < 0.95, 100_000 + np.arange(alerts), rule)
        odds = rng.normal(0, 1.6, 6)[region] + rng.normal(0, 0.8, 4)[team]
    elif kind == "memory":
        rule = rng.integers(0, 1_500, alerts)
        odds = -0.4 + 1.4 * own[rule]
    truth = 1 / (1 + np.exp(-odds))
    acted = (rng.random(alerts) < truth).astype(float)
    mean_days = 9.0 if kind == "slow" else 1.5
    answered = np.where(acted == 1, 1.0, (rng.random(alerts) < 0.7).astype(float))
    lag = np.where(answered == 1, rng.exponential(mean_days * 86_400, alerts), 14 * 86_400)
    raised = (START + pd.to_timedelta(when.round(), unit="s")).as_unit("us")
    names = {"rule": rule, "entity": entity, "team": team}
    frame = pd.DataFrame(
        {
            "alert_id": [f"a{i:06d}" for i in range(alerts)],
            "raised_at": raised,
            **{name: [f"{name} {v}" for v in values] for name, values in names.items()},
            "severity": None,
            "value": None,
            "threshold": None,
            "title": pd.Series(titles, dtype=object),
            "attributes": [
                json.dumps({"region": f"region {a}", "product": f"product {b}"})
                for a, b in zip(region, product, strict=True)
            ],
            "acted": acted,
            "known_at": raised + pd.to_timedelta(np.minimum(lag, 14 * 86_400).round(), unit="s"),
            "horizon_ends_at": raised + HORIZON,
            "truth": truth,
        }
    )
    return frame.sort_values(["raised_at", "alert_id"], ignore_index=True)


def expected_loss(truth: np.ndarray, forecast: np.ndarray) -> float:
    """Mean log-loss to be expected of a forecast when `truth` are the probabilities."""
    q = metrics.clip_probability(forecast)
    return float(-(truth * np.log(q) + (1 - truth) * np.log1p(-q)).mean())


def skills(rows: pd.DataFrame, names: list[str]) -> dict[str, float]:
    """Share of the reachable skill by contender; nan where nothing can be reached."""
    truth = rows["truth"].to_numpy()
    ceiling, floor = expected_loss(truth, np.full(len(truth), truth.mean())), expected_loss(truth, truth)
    if ceiling - floor < 1e-6:
        return {name: ceiling - expected_loss(truth, rows[name].to_numpy()) for name in names}
    return {name: (ceiling - expected_loss(truth, rows[name].to_numpy())) / (ceiling - floor) for name in names}


def main() -> None:
    """Walk each world, print a line per world."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", choices=KINDS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[900_000])
    parser.add_argument("--alerts", type=int, default=6_000)
    chosen = parser.parse_args()
    settings = replace(Settings().learning_settings(), mixture=True, threads=1)
    for kind in chosen.kinds:
        for seed in chosen.seeds:
            whole = world(kind, seed, chosen.alerts)
            first, last = whole["raised_at"].iloc[0], whole["raised_at"].iloc[-1]
            begin = (first + (last - first) * 2 / 3).floor("D").to_pydatetime()
            until = (last + pd.Timedelta(seconds=1)).to_pydatetime()
            every = max(timedelta(days=14), (until - begin) / 4)
            parts = [rows for _, rows, _ in walk(whole, Case(kind, begin, until, every), settings)]
            rows = pd.concat(parts, ignore_index=True).merge(whole[["alert_id", "truth"]], on="alert_id")
            fixed = [c for c in rows if c in ("heed", "rate_per_rule", "repeat_last_per_rule") or c.startswith("peer")]
            fixed += [c for c in rows if c.startswith("part") and rows[c].notna().all()]
            made = skills(rows, fixed)
            error = metrics.decile_error(rows["heed"].to_numpy(), rows["truth"].to_numpy())
            said = ", ".join(f"{name} {value:.2f}" for name, value in sorted(made.items(), key=lambda x: -x[1]))
            print(f"{kind} {seed}: decile error {error:.3f}; {said}; {time.process_time():.0f} s", flush=True)


if __name__ == "__main__":
    main()
