"""How often do the monitors warn for nothing, and do they notice what breaks?

    python -m benchmarks.monitoring                               # writes benchmarks/monitoring.md
    python -m benchmarks.monitoring --first 20 --companies 2 --out /tmp/monitoring.md       # a quick look

Belongs here: simulated companies watched day by day, as they are and with one thing broken.
Does not belong here: the monitors and their limits (`dagster_project/triage/monitoring.py`), and any test.

Each company of 24,000 alerts over 200 days learns every 14 days and scores every alert when it is raised, through the
functions of production. It is watched on each of its last 42 days, with the flags and outcomes known then: every
warning of an ordinary company is false. Then its last seven days are broken in one way, and it is watched once more, at
the end.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.influence import ROOT
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage import influence, metrics, monitoring
from dagster_project.triage.exclusion import flag_alerts, known_by
from dagster_project.triage.features import FeatureSettings
from dagster_project.triage.flags import find_flags
from dagster_project.triage.model import MODEL, LearningSettings, learn
from dagster_project.triage.steps import build_features, training_frame

FIRST, ALERTS, DAYS, WATCHED, EVERY = 920_000, 24_000, 200, 42, 14
HORIZON = timedelta(days=14)

Broken = tuple[pd.DataFrame, pd.DataFrame]


def watch(
    history: pd.DataFrame,
    flags: tuple[pd.DataFrame, pd.DataFrame],
    scores: pd.DataFrame,
    as_of: pd.Timestamp,
    cut: datetime,
    auc: float,
) -> set[str]:
    """The checks that warn at a moment, with what is known then."""
    moment = as_of.to_pydatetime()
    since = pd.Timestamp(monitoring.needed_from(moment, cut, HORIZON))
    then = history[(history["raised_at"] < as_of) & (history["raised_at"] >= since)].reset_index(drop=True)
    unknown = ~(then["known_at"] <= as_of)
    then["acted"] = then["acted"].mask(unknown)
    then["known_at"] = then["known_at"].mask(unknown)
    marks = flag_alerts(then, *(known_by(table, moment) for table in flags), as_of=as_of)
    flagged = (marks["flood"] | marks["visibility_only"]).to_numpy()
    made = monitoring.readings(then, flagged, scores, moment, cut, auc, HORIZON)
    return {reading.check for reading in made if reading.verdict == "warning"}


def another_word(history: pd.DataFrame, scores: pd.DataFrame, week: np.ndarray) -> Broken:
    """A system begins to write every severity in another way."""
    return history.assign(severity=history["severity"].mask(week, history["severity"].astype("str") + "-1")), scores


def export_stops(history: pd.DataFrame, scores: pd.DataFrame, week: np.ndarray) -> Broken:
    """Nothing comes any more, for the last two days."""
    last = history["raised_at"] >= history["raised_at"].max() - pd.Timedelta("2D")
    return history[~last].reset_index(drop=True), scores


def half_is_lost(history: pd.DataFrame, scores: pd.DataFrame, week: np.ndarray) -> Broken:
    """Two of three alerts get lost on the way."""
    lost = week & (np.arange(len(history)) % 3 > 0)
    return history[~lost].reset_index(drop=True), scores


def scores_are_mixed_up(history: pd.DataFrame, scores: pd.DataFrame, week: np.ndarray) -> Broken:
    """A join goes wrong: each alert gets half of what the model said."""
    wrong = scores["alert_id"].isin(history.loc[week, "alert_id"]).to_numpy()
    return history, scores.assign(probability=np.where(wrong, scores["probability"] / 2, scores["probability"]))


def not_scored(history: pd.DataFrame, scores: pd.DataFrame, week: np.ndarray) -> Broken:
    """One alert in ten gets no score."""
    missing = history.loc[week, "alert_id"].iloc[::10]
    return history, scores[~scores["alert_id"].isin(missing)]


def people_stop(history: pd.DataFrame, scores: pd.DataFrame, week: np.ndarray) -> Broken:
    """Half of what was acted upon is not any more, for five weeks."""
    recent = history["raised_at"] >= history["raised_at"].max() - pd.Timedelta("35D")
    left = recent.to_numpy() & (np.arange(len(history)) % 2 > 0)
    known = history["known_at"].mask(left & (history["acted"] == 1), history["horizon_ends_at"])
    return history.assign(acted=history["acted"].mask(left & history["acted"].notna(), 0.0), known_at=known), scores


BREAKS: dict[str, tuple[Callable[..., Broken], str]] = {
    "severities are written in another way": (another_word, "input_drift"),
    "nothing comes for two days": (export_stops, "freshness"),
    "two of three alerts are lost": (half_is_lost, "alert_volume"),
    "scores are half of what the model said": (scores_are_mixed_up, "score_drift"),
    "one alert in ten gets no score": (not_scored, "coverage"),
    "people act on half of what they acted on": (people_stop, "realised_performance"),
}


def one_company(seed: int) -> dict[str, Any]:
    """The warnings of an ordinary company by day, and those of each broken one."""
    world = simulate(WorldConfig(seed=seed, alerts=ALERTS, days=DAYS))
    history = world.history()
    first, last = history["raised_at"].min(), history["raised_at"].max()
    features = FeatureSettings()
    flags = find_flags(history, world.rules, last + timedelta(days=15))
    table = build_features(history, *flags, first, last + timedelta(seconds=1), features)
    settings = LearningSettings(features=features, threads=1)
    end = last.ceil("D")
    # Scores have to be there for five weeks before the first day that is watched.
    begin = end - pd.Timedelta(days=WATCHED + 42)
    scores, cuts = [], []
    for cut in pd.date_range(begin, end, freq=f"{EVERY}D", inclusive="left"):
        moment = cut.to_pydatetime()
        then = (known_by(flag, moment) for flag in flags)
        learned = learn(training_frame(table, history, *then, cut=moment, training_days=365), moment, settings)
        past = learned.forecasts[~learned.forecasts["excluded"]]
        said = past[MODEL if learned.model.status == "model" else learned.model.kind]
        cuts.append((cut, metrics.roc_auc(said.to_numpy(), past["acted"].to_numpy())))
        window = table[(table["raised_at"] >= cut) & (table["raised_at"] < cut + pd.Timedelta(days=EVERY))]
        scores.append(window[["alert_id"]].assign(probability=learned.model.predict(window)))
    given = pd.concat(scores, ignore_index=True)

    def at(as_of: pd.Timestamp, history: pd.DataFrame, given: pd.DataFrame) -> set[str]:
        cut, auc = [each for each in cuts if each[0] < as_of][-1]
        return watch(history, flags, given, as_of, cut.to_pydatetime(), auc)

    days = pd.date_range(end - pd.Timedelta(days=WATCHED - 1), end, freq="D")
    daily = [at(day, history, given) for day in days]
    week = (history["raised_at"] >= end - pd.Timedelta("7D")).to_numpy()
    broken = {name: at(end, *breaks(history, given, week)) for name, (breaks, _) in BREAKS.items()}
    return {"daily": daily, "broken": broken}


def share(number: int, of: int) -> str:
    low, high = (float(each) for each in influence.wilson(np.float64(number / of), np.float64(of)))
    return f"{number} of {of} ({number / of:.1%} [{max(low, 0):.1%}, {min(high, 1):.1%}])"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--companies", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "monitoring.md")
    asked = parser.parse_args()
    started = time.monotonic()
    seeds = range(asked.first, asked.first + asked.companies)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as workers:
        found = list(workers.map(one_company, seeds))
    days = Counter(check for each in found for day in each["daily"] for check in day)
    watched = WATCHED * len(found)
    companies = Counter(check for each in found for check in set().union(*each["daily"]))
    lines = [
        "| check | limit | days with a warning | companies that see one in six weeks |",
        "|---|---|---:|---:|",
        *(
            f"| {check} | {limit} | {share(days[check], watched)} | {share(companies[check], len(found))} |"
            for check, limit in LIMITS.items()
        ),
        "",
        "| what breaks, in the last seven days | the check for it warns | any other check that did not warn before |",
        "|---|---:|---:|",
    ]
    for name, (_, check) in BREAKS.items():
        caught = sum(check in each["broken"][name] for each in found)
        others = sum(bool(each["broken"][name] - {check} - each["daily"][-1]) for each in found)
        lines.append(f"| {name} | {check}: {share(caught, len(found))} | {share(others, len(found))} |")
    asked.out.write_text(
        f"""# Do the monitors warn in time, and not for nothing?

Made by `make benchmark-monitoring` in {(time.monotonic() - started) / 60:.0f} minutes; {platform.machine()},
{os.cpu_count()} cores, Python {platform.python_version()}. {len(found)} companies of {ALERTS:,} alerts, seeds from
{asked.first}, each watched on {WATCHED} days; limits were chosen on seeds below 100. Days of one company are alike: the
intervals by day are too narrow, those by company are not. Intervals: Wilson, 95%.

"""
        + "\n".join(lines)
        + "\n",
        encoding="utf-8",
    )
    print(asked.out.read_text(encoding="utf-8"))


LIMITS = {
    "input_drift": f"distance {monitoring.INPUT_DISTANCE:g}, any column",
    "score_drift": f"distance {monitoring.SCORE_DISTANCE:g}",
    "estimated_performance": f"AUC {monitoring.AUC_LOST:g} below the evaluated",
    "realised_performance": f"{100 * monitoring.SHARE_OFF:g} points off, beyond doubt",
    "coverage": "any open alert without a score",
    "freshness": f"{monitoring.PAUSES:g} times the longest pause",
    "alert_volume": f"{monitoring.VOLUME_SPREADS:g} spreads",
}

if __name__ == "__main__":
    main()
