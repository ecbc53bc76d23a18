"""Flags against known truth: floods and visibility-only rules in simulated worlds, speed, and real alerts.

    python -m benchmarks.flags                      # everything, about 30 minutes; writes benchmarks/flags.md
    python -m benchmarks.flags --seeds development  # other worlds, for whoever changes a statistic; writes nothing
    python -m benchmarks.flags --seeds development --worlds 40 --parts flags quiet --each

Belongs here: which worlds are asked, what counts as right, intervals, the table. Does not belong here: the statistics
(`dagster_project/triage`), the worlds (`dagster_project/simulator`), and any test.

Two sets of seeds. Whoever improves a statistic looks at *development* worlds only; the table is made of *final* worlds,
whose seeds nobody tunes to. A share over alerts gets a bootstrap interval over worlds, because alerts of one world are
alike; a count of worlds or rules gets Wilson's. A bar is *met* when the whole interval is on its good side, *not shown*
when the bar lies in the interval, else *missed*.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.worlds import history_of, without_floods
from dagster_project.simulator import World, WorldConfig, simulate
from dagster_project.triage.evaluation.metrics import wilson_interval
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.flags.exclusion import flag_alerts
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.flags.floods import DAY, flood_pairs, to_us
from dagster_project.triage.pipeline import training_frame

ROOT = Path(__file__).resolve().parents[1]
SEEDS = {"development": 1_000, "final": 700_000}
WORLDS, QUIET_WORLDS, SKILL_WORLDS = 120, 200, 150
# All outcomes are known a horizon after the last alert; a day more, so that the last day is over as well.
SETTLED = timedelta(days=15)
DECIDED_ENOUGH = 150
PARTS = ("flags", "quiet", "skill", "speed", "real")


# -------------------------------------------------------------------------------------------------- which worlds


def varied(seed: int, **given: Any) -> WorldConfig:
    """A company drawn at random: 4,000 to 80,000 alerts, 3 to 10 months, quiet, growing or shrinking."""
    rng = np.random.default_rng([seed, 77])
    days = int(rng.integers(90, 300))
    alerts = int(np.exp(rng.uniform(np.log(4_000), np.log(80_000))))
    rules = int(max(6, round(40 * np.sqrt(alerts / 60_000) * np.exp(rng.uniform(-0.7, 0.7)))))
    drawn: dict[str, Any] = {
        "seed": seed,
        "alerts": alerts,
        "days": days,
        "rules": rules,
        "trend": ("quiet", "growing", "shrinking")[int(rng.integers(3))],
        "floods": int(rng.integers(max(1, days // 50), max(2, days // 18))),
        "incident_days": int(rng.integers(1, max(2, days // 30) + 1)),
        "visibility_only_rules": int(rng.integers(1, max(2, rules // 8) + 1)),
        "base_rate": float(rng.uniform(0.1, 0.4)),
        "missing_answers": float(rng.uniform(0.1, 0.7)),
    }
    return WorldConfig(**(drawn | given))


def settled(world: World) -> pd.Timestamp:
    """The moment at which every outcome of a world is known."""
    return pd.Timestamp(world.config.end) + SETTLED


# ------------------------------------------------------------------------------------------- floods and rules found


def measure_flags(seed: int) -> dict[str, float]:
    """Counts of one world with floods, incidents and visibility-only rules."""
    world = simulate(varied(seed))
    history, truth = history_of(world), world.truth
    now = settled(world)
    floods, rules = find_flags(history, world.rules, now)
    flags = flag_alerts(history, floods, rules)
    is_flood, is_incident = (truth[name].to_numpy() for name in ("is_flood", "is_incident"))
    flagged = flags["flood"].to_numpy()

    # On the day itself: what the flags known at the end of an alert's own day say of it.
    pairs = flood_pairs(history, floods)
    day_ends = (to_us(history["raised_at"]) // DAY + 1) * DAY
    then = pairs[(pairs["since"] <= day_ends[pairs["alert"]]) & (day_ends[pairs["alert"]] < pairs["until"])]
    same_day = np.zeros(len(history), bool)
    same_day[then["alert"]] = True
    # Genuine alerts of the same rules in the hours of the bug look like the bug's, alert by alert.
    alike = ~is_flood & flagged & truth["in_flood_scope"].to_numpy() & ~is_incident
    measured = {
        "alerts": len(history),
        "flood": is_flood.sum(),
        "flood flagged": (is_flood & flagged).sum(),
        "flood flagged on the day": (is_flood & same_day).sum(),
        "flagged": flagged.sum(),
        "alike": alike.sum(),
        "incident": is_incident.sum(),
        "incident flagged": (is_incident & flagged).sum(),
        "incident flagged on the day": (is_incident & same_day).sum(),
    }
    return {name: float(value) for name, value in {**measured, **_rules_found(world, history, rules, now)}.items()}


def _rules_found(world: World, history: pd.DataFrame, rules: pd.DataFrame, now: pd.Timestamp) -> dict[str, int]:
    truth = world.rule_truth.set_index("rule")["is_visibility_only"]
    # Alerts of a bug are no decision about the rule.
    decided = history["rule"][~world.truth["is_flood"].to_numpy()].value_counts().reindex(truth.index, fill_value=0)
    enough = decided >= DECIDED_ENOUGH
    inferred = rules[rules["basis"] == "inferred"]
    ever = truth.index.isin(inferred["rule"])
    holds = truth.index.isin(rules.loc[rules["status"] != "released", "rule"])
    declared = truth.index.isin(rules.loc[rules["basis"] == "declared", "rule"])
    quiet, acted = truth & enough, ~truth & enough
    return {
        "quiet rules": int(quiet.sum()),
        "quiet rules found": int((quiet & holds).sum()),
        "quiet rules undeclared": int((quiet & ~declared).sum()),
        "quiet rules inferred": int((quiet & ~declared & ever & holds).sum()),
        "acted rules": int(acted.sum()),
        "acted rules declared": int((acted & holds).sum()),
        "acted rules ever declared": int((acted & ever).sum()),
        **_released(world, history, rules),
    }


def _released(world: World, history: pd.DataFrame, rules: pd.DataFrame) -> dict[str, int]:
    """At three quarters of the world, act on one open alert of every rule that stands declared; run the next day."""
    end = pd.Timestamp(world.config.end)
    then = end - (end - history["raised_at"].min()) / 4
    standing, decisive = find_flags(_by(history, then), world.rules, then)[1], {}
    for rule in standing.loc[standing["status"] != "released", "rule"].unique():
        own = history[(history["rule"] == rule) & (history["raised_at"] < then) & (history["known_at"] > then)]
        if len(own):
            decisive[rule] = own.index[-1]
    next_run = then + pd.Timedelta(days=1)
    later = _by(history, next_run)
    at = list(decisive.values())
    later.loc[at, "acted"] = 1.0
    later.loc[at, "known_at"] = then + pd.Timedelta(hours=1)
    after = find_flags(later, world.rules, next_run)[1]
    still = set(after.loc[after["status"] != "released", "rule"])
    return {"acted after": len(decisive), "acted after and released": len(set(decisive) - still)}


def _by(history: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """The history as the warehouse hands it out at a moment."""
    known = history[history["raised_at"] < moment].copy()
    later = known["known_at"] > moment
    known.loc[later, "acted"] = np.nan
    known["known_at"] = known["known_at"].mask(later)
    return known


def measure_quiet(seed: int) -> dict[str, float]:
    """Whether a world without floods and visibility-only rules gets a flag: with incidents (standing in the end),
    and without (ever)."""
    calm = {"floods": 0, "visibility_only_rules": 0, "declared_visibility_only": 0.0}
    measured = {}
    for name, incidents in (("with incidents", None), ("without incidents", 0)):
        config = varied(seed, **calm) if incidents is None else varied(seed, **calm, incident_days=0)
        world = simulate(config)
        history = history_of(world)
        floods, rules = find_flags(history, world.rules, settled(world))
        flags = flag_alerts(history, floods, rules)
        standing = bool(flags["flood"].any() or flags["visibility_only"].any())
        measured[f"{name}: flag in the end"] = float(standing)
        measured[f"{name}: flood in the end"] = float(flags["flood"].any())
        measured[f"{name}: ever a flag"] = float(len(floods) > 0 or len(rules) > 0)
        measured[f"{name}: ever a flood"] = float(len(floods) > 0)
        measured[f"{name}: ever a rule"] = float(len(rules) > 0)
    return measured


# ------------------------------------------------------------------------------------------------ skill recovered


def measure_skill(seed: int) -> dict[str, float]:
    """Expected log-loss of one plain learner in three equal worlds: without floods, with them, with them flagged.

    Companies with a flood in eight days or so: with half as many, floods cost 0.005 of skill, less than two fits to
    nearly the same alerts differ by, and what flags recover of it cannot be told from 24 companies, nor from 100.

    One cut at two thirds of the days; tested on the ordinary alerts after it, the same in all three, by their true
    probability (the expectation of the log-loss over outcomes, without their noise). Learner, columns and seeds are
    those of every arm; visibility-only rules are neither flagged nor tested, so that only floods differ.
    """
    alerts = int(np.random.default_rng([seed, 78]).integers(8_000, 40_000))
    world = simulate(varied(seed, alerts=alerts, rules=None, days=200, floods=24))
    clean = without_floods(world)
    cut = pd.Timestamp(world.config.end) - timedelta(days=67)
    history = history_of(world)
    floods = find_flags(history, world.rules, settled(world))[0]
    none = floods.iloc[:0]
    p, loss = {}, {}
    for arm, own, flags in (
        ("clean", history_of(clean), none),
        ("flooded", history, none),
        ("flagged", history, floods),
    ):
        features = _features(own, flags)
        frame = training_frame(features, own, flags, _no_rules(), cut, 400)
        p[arm] = _learn_and_score(frame[~frame["excluded"]], features[features["raised_at"] >= cut])
    truth = world.truth.set_index("alert_id")
    ordinary = truth[~(truth["is_flood"] | truth["is_visibility_only"])].index
    tested = p["clean"].index.intersection(ordinary)
    true = truth.loc[tested, "probability"].to_numpy()
    share = float(true.mean())
    for arm, predicted in p.items():
        q = predicted.loc[tested].to_numpy()
        loss[arm] = float(-(true * np.log(q) + (1 - true) * np.log1p(-q)).mean())
    base = -(share * np.log(share) + (1 - share) * np.log1p(-share))
    best = -np.nansum(true * np.log(np.where(true > 0, true, 1)) + (1 - true) * np.log1p(-np.where(true < 1, true, 0)))
    return {"tested": float(len(tested)), "base": float(base), "best": float(best / len(true)), **loss}


def _no_rules() -> pd.DataFrame:
    empty = pd.DataFrame(columns=["rule", "status", "basis", "evidence", "detected_at", "released_at", "release"])
    for column in ("detected_at", "released_at"):
        empty[column] = pd.to_datetime(empty[column], utc=True)
    return empty


def _features(history: pd.DataFrame, floods: pd.DataFrame) -> pd.DataFrame:
    first = history["raised_at"].min().floor("D")
    until = history["raised_at"].max() + pd.Timedelta(days=1)
    return build_features(history, floods, _no_rules(), first, until, FeatureSettings())


def _learn_and_score(training: pd.DataFrame, test: pd.DataFrame) -> pd.Series:
    """The mean prediction of four small boosted models that differ in their seed."""
    import lightgbm

    plan = plan_columns(training, FeatureSettings())
    rows, label = plan.matrix(training), training["acted"].to_numpy()
    wanted = plan.matrix(test)
    parameters = {
        "objective": "binary", "learning_rate": 0.05, "num_leaves": 7, "min_data_in_leaf": 100, "lambda_l2": 5.0,
        "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1, "max_cat_to_onehot": 4,
        "deterministic": True, "force_row_wise": True, "num_threads": 1, "verbose": -1,
    }  # fmt: skip
    data = lightgbm.Dataset(rows, label, categorical_feature=plan.categorical, free_raw_data=False)
    scores = [
        lightgbm.train({**parameters, "seed": seed}, data, num_boost_round=200).predict(wanted) for seed in range(4)
    ]
    mean = np.clip(np.mean(scores, axis=0), 1e-6, 1 - 1e-6)
    return pd.Series(mean, index=test["alert_id"])


# --------------------------------------------------------------------------------------------------------- speed


def measure_speed(alerts: int = 1_000_000, repeats: int = 3) -> dict[str, float]:
    """Seconds from a history in memory to its flags per alert, in one thread: wall clock and CPU, of the quickest run.

    On a machine that others use as well the wall clock says how busy they are; CPU seconds are what an idle core takes.
    """
    world = simulate(WorldConfig(seed=5, alerts=alerts, days=365))
    history = history_of(world)
    now = settled(world)
    small = history.iloc[:5_000]
    flag_alerts(small, *find_flags(small, world.rules, now))  # compiles, or loads what was compiled
    wall, cpu = [], []
    for _ in range(repeats):
        began, worked = time.perf_counter(), time.process_time()
        flag_alerts(history, *find_flags(history, world.rules, now))
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - worked)
    return {
        "alerts": float(alerts),
        "wall": min(wall),
        "cpu": min(cpu),
        "most cpu": max(cpu),
        "load": os.getloadavg()[0],
    }


# ----------------------------------------------------------------------------------------------------- real alerts


def measure_real(folder: Path) -> dict[str, Any] | None:
    """The alerts of `examples/wolfi` where they are at hand: its scanner sweep and its busiest real day."""
    from benchmarks.wolfi import read_wolfi

    if not (folder / "alerts.csv.gz").is_file():
        return None
    history = read_wolfi(folder)
    floods, _ = find_flags(history, None, pd.Timestamp("2025-06-15", tz="UTC"))
    day = history["raised_at"].dt.strftime("%Y-%m-%d")
    flagged = flag_alerts(history, floods, None)["flood"]
    measured: dict[str, Any] = {"alerts": len(history), "flagged": int(flagged.sum())}
    for name, days in (("sweep", ["2025-03-04", "2025-03-05", "2025-03-06"]), ("incident", ["2024-09-10"])):
        own = day.isin(days)
        of_day = floods[[str(found) in days for found in floods["day"]]]
        by_status = of_day["status"].value_counts()
        measured[name] = {
            "alerts": int(own.sum()),
            "acted": int(history.loc[own, "acted"].sum()),
            "flagged": int((own & flagged).sum()),
            "flagged and not acted": int((own & flagged & (history["acted"] == 0)).sum()),
            "floods": {status: int(by_status.get(status, 0)) for status in ("confirmed", "cleared", "suspected")},
        }
    return measured


# -------------------------------------------------------------------------------------------------------- intervals


def bootstrap(
    worlds: pd.DataFrame, statistic: Callable[[pd.Series], float], draws: int = 4_000
) -> tuple[float, float, float]:
    """A statistic of the worlds' totals, with its 95% interval over worlds drawn with replacement."""
    rng = np.random.default_rng(0)
    numbers = worlds.to_numpy(dtype=float)
    picks = rng.multinomial(len(worlds), np.full(len(worlds), 1 / len(worlds)), size=draws)
    totals = pd.DataFrame(picks @ numbers, columns=worlds.columns)
    values = [statistic(row) for _, row in totals.iterrows()]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(statistic(worlds.sum())), float(low), float(high)


@dataclass(frozen=True)
class Line:
    """One line of the table: what, the bar in words, the figure with its interval, and how it stands."""

    what: str
    bar: str
    figure: str
    stands: str
    over: str


def _judged(low: float, high: float, least: float | None, most: float | None) -> str:
    if least is not None:
        return "met" if low >= least else "missed" if high < least else "not shown"
    if most is not None:
        return "met" if high <= most else "missed" if low > most else "not shown"
    return ""


def share_line(
    what: str,
    worlds: pd.DataFrame,
    hits: str,
    of: str,
    *,
    least: float | None = None,
    most: float | None = None,
    counted: bool = False,
) -> Line:
    """A share of totals over worlds; `counted` for independent things (Wilson), else bootstrap over worlds."""
    total = float(worlds[of].sum())
    if counted:
        share = float(worlds[hits].sum()) / total if total else float("nan")
        low, high = wilson_interval(float(worlds[hits].sum()), total)
    else:
        share, low, high = bootstrap(worlds[[hits, of]], lambda row: row[hits] / row[of])
    bar = f">= {least:.0%}" if least is not None else f"<= {most:.0%}" if most is not None else ""
    figure = f"{share:.2%} [{low:.2%}, {high:.2%}]"
    return Line(what, bar, figure, _judged(low, high, least, most), f"{total:,.0f}")


def flag_lines(worlds: pd.DataFrame) -> list[Line]:
    """The lines about worlds with floods."""
    worlds = worlds.assign(explained=worlds["flood flagged"] + worlds["alike"])
    return [
        share_line("flood alerts flagged, outcomes known (recall)", worlds, "flood flagged", "flood", least=0.95),
        share_line("flagged alerts that a bug made, outcomes known (precision)", worlds, "flood flagged", "flagged",
                   least=0.95),
        share_line("the same, genuine alerts of the flooded rules and day counted as right", worlds, "explained",
                   "flagged"),
        share_line("flood alerts flagged by the end of their own day (recall)", worlds, "flood flagged on the day",
                   "flood", least=0.90),
        share_line("alerts of real incidents flagged in the end", worlds, "incident flagged", "incident", most=0.02),
        share_line("alerts of real incidents suspected at the end of their day", worlds,
                   "incident flagged on the day", "incident"),
        share_line("visibility-only rules with >= 150 decided alerts found", worlds, "quiet rules found",
                   "quiet rules", least=0.95, counted=True),
        share_line("those of them that nobody declared, inferred", worlds, "quiet rules inferred",
                   "quiet rules undeclared", counted=True),
        share_line("other rules with >= 150 decided alerts that stand as visibility-only in the end", worlds,
                   "acted rules declared", "acted rules", most=0.01, counted=True),
        share_line("other rules that were inferred visibility-only at any moment", worlds,
                   "acted rules ever declared", "acted rules", most=0.01, counted=True),
        share_line("rules acted on after their declaration, released by the next day's run", worlds,
                   "acted after and released", "acted after", least=0.95, counted=True),
    ]  # fmt: skip


def quiet_lines(worlds: pd.DataFrame) -> list[Line]:
    """The lines about worlds without floods and visibility-only rules."""
    calm = pd.DataFrame({"all": 1.0}, index=worlds.index)
    for name in worlds:
        calm[name] = 1.0 - worlds[name]
    return [
        share_line("worlds without floods and quiet rules, with incidents: no flag in the end", calm,
                   "with incidents: flag in the end", "all", least=0.95, counted=True),
        share_line("the same without incidents: no flag at any moment, not even suspected", calm,
                   "without incidents: ever a flag", "all", least=0.95, counted=True),
    ]  # fmt: skip


def skill_lines(worlds: pd.DataFrame) -> list[Line]:
    """The lines about skill; skill is 1 - log-loss / log-loss of the base rate."""
    per_world = worlds.assign(
        lost=(worlds["flooded"] - worlds["clean"]) / worlds["base"],
        recovered=(worlds["flooded"] - worlds["flagged"]) / worlds["base"],
        skill=1 - worlds["clean"] / worlds["base"],
        n=1.0,
    )
    columns = per_world[["lost", "recovered", "skill", "n"]]
    skill = bootstrap(columns, lambda row: row["skill"] / row["n"])
    lost = bootstrap(columns, lambda row: row["lost"] / row["n"])
    share = bootstrap(columns, lambda row: row["recovered"] / row["lost"])
    over = f"{len(worlds)} worlds"
    return [
        Line("log-loss skill without floods", "", "{:.4f} [{:.4f}, {:.4f}]".format(*skill), "", over),
        Line("skill that floods cost without flags", "", "{:.4f} [{:.4f}, {:.4f}]".format(*lost), "", over),
        Line("of that loss, recovered by the flags", ">= 90%", "{:.1%} [{:.1%}, {:.1%}]".format(*share),
             _judged(share[1], share[2], 0.90, None), over),
    ]  # fmt: skip


def skill_notes(worlds: pd.DataFrame) -> list[str]:
    """What floods cost and flags recovered, by the trend of the company: a look at the parts, not a result."""
    cost, recovered = worlds["flooded"] - worlds["clean"], worlds["flooded"] - worlds["flagged"]
    trend = [varied(int(seed)).trend for seed in worlds.index]
    parts = pd.DataFrame({"cost": cost / worlds["base"], "recovered": recovered / worlds["base"]}).groupby(trend)
    return [
        f"skill in {len(of)} {name} companies (a part looked at, no result): floods cost {of['cost'].mean():.4f} "
        f"(from {of['cost'].min():.4f} to {of['cost'].max():.4f}), the flags recovered {of['recovered'].mean():.4f}"
        for name, of in parts
    ]


def real_lines(real: dict[str, Any]) -> list[Line]:
    """The lines about real alerts, which have no known truth: how many were flagged, of those nobody acted on."""
    sweep, incident = real["sweep"], real["incident"]
    quiet = sweep["alerts"] - sweep["acted"]
    return [
        Line("real: alerts of the scanner sweep that nobody acted on, flagged in the end", "flagged",
             f"{sweep['flagged and not acted']:,} of {quiet:,}",
             "met" if sweep["floods"]["confirmed"] and sweep["flagged and not acted"] > quiet / 2 else "missed",
             f"{real['alerts']:,}"),
        Line("real: alerts of the busy day that was acted on, flagged in the end", "none",
             f"{incident['flagged']:,} of {incident['alerts']:,}",
             "met" if incident["floods"]["cleared"] and not incident["flagged"] else "missed", f"{real['alerts']:,}"),
    ]  # fmt: skip


def machine() -> str:
    """Where the figures come from, in general terms."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "scipy", "numba", "lightgbm"))
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {packages}"


def table(lines: Sequence[Line]) -> str:
    """Lines as Markdown."""
    made = ["| what | bar | figure, 95% interval | stands | over |", "|---|---|---|---|---:|"]
    return "\n".join(made + [f"| {r.what} | {r.bar} | {r.figure} | {r.stands} | {r.over} |" for r in lines])


# ------------------------------------------------------------------------------------------------------------ run


def over_worlds(what: str, measure: Callable[[int], dict[str, float]], first: int, count: int) -> pd.DataFrame:
    """One row per seed, a world per core at a time; a line of progress every ten worlds."""
    rows, began = [], time.perf_counter()
    seeds = range(first, first + count)
    # Not forked: threads of LightGBM and numba do not survive a fork.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        for seed, found in zip(seeds, pool.map(measure, seeds), strict=True):
            rows.append({"seed": seed, **found})
            if len(rows) % 10 == 0 or len(rows) == count:
                print(f"{what}: {len(rows)} of {count} worlds, {time.perf_counter() - began:.0f} s", flush=True)
    return pd.DataFrame(rows).set_index("seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", choices=sorted(SEEDS), default="final")
    parser.add_argument("--worlds", type=int, help="fewer worlds of each kind")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", type=Path, help="a folder: worlds measured before are read from it, others added")
    parser.add_argument("--each", action="store_true", help="print every world")
    parser.add_argument("--real", type=Path, default=ROOT.parent / "shared" / "data" / "wolfi")
    arguments = parser.parse_args()
    first, lines, notes = SEEDS[arguments.seeds], [], []

    def some(usual: int) -> int:
        return min(usual, arguments.worlds or usual)

    for part, measure, made, usual, offset in (
        ("flags", measure_flags, flag_lines, WORLDS, 0),
        ("quiet", measure_quiet, quiet_lines, QUIET_WORLDS, 10_000),
        ("skill", measure_skill, skill_lines, SKILL_WORLDS, 20_000),
    ):
        if part not in arguments.parts:
            continue
        kept = arguments.keep / f"{part}.csv" if arguments.keep else None
        if kept is not None and kept.is_file():
            found = pd.read_csv(kept, index_col="seed")
        else:
            found = over_worlds(part, measure, first + offset, some(usual))
            if kept is not None:
                kept.parent.mkdir(parents=True, exist_ok=True)
                found.to_csv(kept)
        if arguments.each:
            print(found.to_string())
        lines += made(found)
        if part == "skill":
            notes += skill_notes(found)
        notes.append(f"{part}: {len(found)} worlds, seeds {found.index.min()} to {found.index.max()}")
        print(table(made(found)), flush=True)
    if "speed" in arguments.parts:
        speed = measure_speed()
        lines.append(
            Line(
                "one million alerts flagged: CPU seconds, in one thread",
                "<= 20 s",
                f"{speed['cpu']:.1f}, worst of three {speed['most cpu']:.1f} "
                f"(wall clock {speed['wall']:.1f} at a load of {speed['load']:.1f})",
                "met" if speed["most cpu"] <= 20 else "missed",
                f"{speed['alerts']:,.0f}",
            )
        )
    if "real" in arguments.parts and (real := measure_real(arguments.real)) is not None:
        lines += real_lines(real)
        notes += [
            f"real, {name}: {of['alerts']:,} alerts, {of['acted']:,} acted on; "
            + ", ".join(f"{count} scopes {status}" for status, count in of["floods"].items())
            for name, of in (("scanner sweep of 4 to 6 March 2025", real["sweep"]), ("2024-09-10", real["incident"]))
        ]
    document = "\n".join(
        [
            "# Flags against known truth",
            "",
            f"Made by `make benchmark-flags` on {datetime.now(UTC):%Y-%m-%d}; {machine()}.",
            "",
            table(lines),
            "",
            *[f"- {note}" for note in notes],
            "",
        ]
    )
    print(document)
    if arguments.seeds == "final" and arguments.worlds is None and set(arguments.parts) == set(PARTS):
        (ROOT / "benchmarks" / "flags.md").write_text(document)


if __name__ == "__main__":
    main()
