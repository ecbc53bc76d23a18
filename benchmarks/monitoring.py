"""How often do the monitors warn for nothing, and do they notice what breaks?

    python -m benchmarks.monitoring                               # writes benchmarks/monitoring.md
    python -m benchmarks.monitoring --first 20 --companies 2 --out /tmp/monitoring.md       # a quick look
    python -m benchmarks.monitoring --kept DIR/said.jsonl         # can be broken off, and goes on

Belongs here: simulated companies watched day by day, as they are and with one thing broken.
Does not belong here: the monitors and their limits (`dagster_project/triage/monitoring.py`), and any test.

Each company of 24,000 alerts over 200 days learns every 14 days and scores every alert when it is raised, through the
functions of production. It is watched once a day with the flags and outcomes known then, on its last 112 days by the
checks that need no score and on its last 42 by the others: every warning of an ordinary company is false. Then it is
broken in one way at a time, and watched on each day since it broke.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.influence import ROOT
from benchmarks.worlds import history_of
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage import monitoring
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.settings import LearningSettings
from dagster_project.triage.learning.training import learn
from dagster_project.triage.pipeline import training_frame

FIRST, ALERTS, DAYS, EVERY = 920_000, 24_000, 200, 14
WATCHED, WATCHED_WITHOUT_SCORES = 42, 112
WITHOUT_SCORES = ("input_drift", "freshness", "alert_volume")
HORIZON = timedelta(days=14)

Broken = tuple[pd.DataFrame, pd.DataFrame]
Said = dict[str, list[Any]]  # by check: its size on the scale of its limit, and what it is about


def watch(
    history: pd.DataFrame,
    flags: tuple[pd.DataFrame, pd.DataFrame],
    scores: pd.DataFrame,
    as_of: pd.Timestamp,
    cut: datetime,
    auc: float,
) -> Said:
    """What each check says at a moment, with what is known then, on the scale of its limit; 'too few' says nothing."""
    moment = as_of.to_pydatetime()
    since = pd.Timestamp(monitoring.needed_from(moment, cut, HORIZON))
    then = history[(history["raised_at"] < as_of) & (history["raised_at"] >= since)].reset_index(drop=True)
    unknown = ~(then["known_at"] <= as_of)
    then["acted"] = then["acted"].mask(unknown)
    then["known_at"] = then["known_at"].mask(unknown)
    marks = flag_alerts(then, *(known_by(table, moment) for table in flags), as_of=as_of)
    flagged = (marks["flood"] | marks["visibility_only"]).to_numpy()
    made = monitoring.readings(then, flagged, scores, moment, cut, auc, HORIZON)
    said: Said = {}
    for each in made:
        # The columns of input drift come farthest first.
        if each.verdict != "too few" and each.check not in said:
            said[each.check] = [size(each), each.subject]
    return said


def size(reading: monitoring.Reading) -> float:
    """A reading on the scale of its limit in `LIMITS`: above the limit it warns."""
    if reading.check == "estimated_performance":
        return reading.limit + monitoring.AUC_LOST - reading.value
    if reading.check == "realised_performance":
        return abs(reading.value) if reading.low > 0 or reading.high < 0 else 0.0
    if reading.check == "freshness":
        return reading.value / (reading.limit / monitoring.PAUSES)
    return abs(reading.value)


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


# How, the check that should notice, and for how many days it is broken.
BREAKS: dict[str, tuple[Callable[..., Broken], str, int]] = {
    "severities are written in another way": (another_word, "input_drift", 7),
    "nothing comes for two days": (export_stops, "freshness", 2),
    "two of three alerts are lost": (half_is_lost, "alert_volume", 7),
    "scores are half of what the model said": (scores_are_mixed_up, "score_drift", 7),
    "one alert in ten gets no score": (not_scored, "coverage", 7),
    "people act on half of what they acted on": (people_stop, "realised_performance", 35),
}


def one_company(seed: int) -> dict[str, Any]:
    """What the checks say of an ordinary company by day, and of each broken one by day since it broke."""
    world = simulate(WorldConfig(seed=seed, alerts=ALERTS, days=DAYS))
    history = history_of(world)
    first, last = history["raised_at"].min(), history["raised_at"].max()
    features = FeatureSettings()
    flags = find_flags(history, world.rules, last + timedelta(days=15))
    table = build_features(history, *flags, first, last + timedelta(seconds=1), features)
    settings = LearningSettings(features=features, threads=1)
    end = last.ceil("D")
    # Scores have to be there for six weeks before the first day on which they are judged.
    begin = end - pd.Timedelta(days=WATCHED + 42)
    earlier = pd.date_range(end=begin, periods=4, freq=f"{EVERY}D", inclusive="left")
    scores, cuts = [], [(cut, float("nan")) for cut in earlier]
    for cut in pd.date_range(begin, end, freq=f"{EVERY}D", inclusive="left"):
        moment = cut.to_pydatetime()
        then = (known_by(flag, moment) for flag in flags)
        learned = learn(training_frame(table, history, *then, cut=moment, training_days=365), moment, settings)
        past = learned.forecasts[~learned.forecasts["excluded"]]
        forecast = past[MODEL]
        cuts.append((cut, metrics.roc_auc(forecast.to_numpy(), past["acted"].to_numpy())))
        window = table[(table["raised_at"] >= cut) & (table["raised_at"] < cut + pd.Timedelta(days=EVERY))]
        scores.append(window[["alert_id"]].assign(probability=learned.model.predict(window)))
    given = pd.concat(scores, ignore_index=True)

    def at(as_of: pd.Timestamp, history: pd.DataFrame, given: pd.DataFrame) -> Said:
        cut, auc = [each for each in cuts if each[0] < as_of][-1]
        return watch(history, flags, given, as_of, cut.to_pydatetime(), auc)

    def last_days(number: int) -> pd.DatetimeIndex:
        return pd.date_range(end=end, periods=number, freq="D")

    calm = [at(day, history, given) for day in last_days(WATCHED_WITHOUT_SCORES)]
    for day in calm[:-WATCHED]:
        for check in set(day) - set(WITHOUT_SCORES):
            del day[check]
    week = (history["raised_at"] >= end - pd.Timedelta("7D")).to_numpy()
    broken = {}
    for name, (breaks, _, lasts) in BREAKS.items():
        changed = breaks(history, given, week)
        broken[name] = [at(day, *changed) for day in last_days(lasts)]
    return {"seed": seed, "calm": calm, "broken": broken}


def all_companies(seeds: range, kept: Path | None) -> tuple[list[dict[str, Any]], float]:
    """What was said of each company, and the minutes that took; read from `kept` as far as it is there already."""
    said = [json.loads(line) for line in kept.read_text().splitlines()] if kept and kept.exists() else []
    found = {each["seed"]: each for each in said if each["seed"] in seeds}
    left = [seed for seed in seeds if seed not in found]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=multiprocessing.get_context("spawn")) as workers:
        for each in workers.map(timed, left):
            found[each["seed"]] = each
            print(f"company {each['seed']}: {each['seconds']:.0f} s", flush=True)
            if kept:
                with kept.open("a") as file:
                    print(json.dumps(each), file=file)
    return [found[seed] for seed in seeds], sum(each["seconds"] for each in found.values()) / 60


def timed(seed: int) -> dict[str, Any]:
    started = time.process_time()
    return {**one_company(seed), "seconds": time.process_time() - started}


def share(number: int, of: int) -> str:
    low, high = metrics.wilson_interval(number, of)
    return f"{number} of {of} ({number / of:.1%} [{low:.1%}, {high:.1%}])"


LIMITS = {
    "input_drift": monitoring.INPUT_DISTANCE,
    "score_drift": monitoring.SCORE_DISTANCE,
    "estimated_performance": monitoring.AUC_LOST,
    "realised_performance": monitoring.SHARE_OFF,
    "coverage": 0.0,
    "freshness": monitoring.PAUSES,
    "alert_volume": monitoring.VOLUME_SPREADS,
}
UNITS = {
    "input_drift": "distance of the farthest column",
    "score_drift": "distance",
    "estimated_performance": "AUC below the evaluated one",
    "realised_performance": "acted share off, beyond doubt",
    "coverage": "open alerts without a score",
    "freshness": "times the longest pause",
    "alert_volume": "usual spreads",
}


def warned(day: Said, check: str) -> bool:
    return check in day and day[check][0] > LIMITS[check]


def noticed(days: list[Said], check: str) -> int | None:
    """On which day since it broke a check warned first."""
    return next((number for number, day in enumerate(days, 1) if warned(day, check)), None)


def sentences(found: list[dict[str, Any]]) -> dict[str, str]:
    """What was measured of each limit, in the words that stand beside the check: `monitoring.MEASURED`."""
    made = {}
    for check, limit in LIMITS.items():
        calm = [[day for day in each["calm"] if check in day] for each in found]
        days = sum(map(len, calm))
        false = sum(warned(day, check) for days_of_one in calm for day in days_of_one)
        companies = sum(any(warned(day, check) for day in days_of_one) for days_of_one in calm)
        made[check] = (
            f"{false} of {days:,} ordinary days of simulated companies were above {limit:g}, in {companies} of "
            f"{len(found)} companies"
        )
        for name, (_, meant, _) in BREAKS.items():
            first = [noticed(each["broken"][name], check) for each in found]
            seen = [day for day in first if day is not None]
            if meant == check:
                when = f", in the middle on day {np.median(seen):.0f}" if seen else ""
                made[check] += f"; when {name}, it warned in {len(seen)} of {len(found)}{when}"
    return made


def page(found: list[dict[str, Any]], minutes: float, first: int) -> str:
    lines = [
        "# Do the monitors warn in time, and not for nothing?",
        "",
        f"Made by `make benchmark-monitoring` in {minutes:.0f} minutes of one core; {platform.machine()}, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. {len(found)} companies of {ALERTS:,} alerts over "
        f"{DAYS} days, seeds from {first}. An ordinary company is watched for {WATCHED_WITHOUT_SCORES} days by the "
        f"checks that need no score, for {WATCHED} by the others; every warning of it counts as false. Limits were "
        "chosen before, on seeds below 100, all but one: that of `estimated_performance` was lowered from 0.1 to "
        f"{monitoring.AUC_LOST:g} on these companies. Days of one company are alike: the intervals by day (Wilson, "
        "95%) are too narrow, those by company are not.",
        "",
        "| check | limit | days above it | companies with such a day | size on ordinary days: median, 99%, most |",
        "|---|---|---:|---:|---:|",
    ]
    for check, limit in LIMITS.items():
        sizes = [[day[check][0] for day in each["calm"] if check in day] for each in found]
        flat = np.concatenate(sizes)
        above, companies = int((flat > limit).sum()), sum(max(each, default=0) > limit for each in sizes)
        middle, high, most = np.quantile(flat, [0.5, 0.99, 1])
        lines.append(
            f"| `{check}` | {limit:g} {UNITS[check]} | {share(above, len(flat))} | {share(companies, len(found))} "
            f"| {middle:.3f}, {high:.3f}, {most:.3f} |"
        )
    lines += [
        "",
        "| what breaks | check | companies in which it warns | day of the first warning: median (first to last) "
        "| companies with a warning of another check that did not warn before |",
        "|---|---|---:|---:|---:|",
    ]
    for name, (_, check, lasts) in BREAKS.items():
        firsts = [day for each in found if (day := noticed(each["broken"][name], check)) is not None]
        others = sum(
            any(
                warned(day, other) and not any(warned(calm, other) for calm in each["calm"][-lasts:])
                for day in each["broken"][name]
                for other in LIMITS
                if other != check
            )
            for each in found
        )
        when = f"{np.median(firsts):.0f} ({min(firsts)} to {max(firsts)})" if firsts else "–"
        lines.append(
            f"| {name}, for {lasts} days | `{check}` | {share(len(firsts), len(found))} | {when} "
            f"| {share(others, len(found))} |"
        )
    halved = "scores are half of what the model said"
    estimated = sum(noticed(each["broken"][halved], "estimated_performance") is not None for each in found)
    lines += [
        "",
        "Nothing of this breaks what `estimated_performance` is for, scores that tell alerts apart less than they did: "
        f"it warns in {estimated} of {len(found)} companies whose scores are halved. Outcomes are known after the "
        "horizon of 14 days: what people stop doing shows a week or more later than that.",
        "",
        "What stands beside each check:",
        "",
        *(f"- `{check}`: {said}" for check, said in sentences(found).items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=FIRST)
    parser.add_argument("--companies", type=int, default=12)
    parser.add_argument("--kept", type=Path, help="what was said of each company: goes on where it was broken off")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "monitoring.md")
    asked = parser.parse_args()
    found, minutes = all_companies(range(asked.first, asked.first + asked.companies), asked.kept)
    asked.out.write_text(page(found, minutes, asked.first), encoding="utf-8")
    print(asked.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
