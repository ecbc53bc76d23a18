"""Is the number true at the moment it is read? Simulated companies with known truth, real alerts, the cost of reading.

    python -m benchmarks.reading                              # everything, hours; writes benchmarks/reading.md
    python -m benchmarks.reading --companies 5 --parts companies
    python -m benchmarks.reading --work DIR                   # goes on where it was broken off

Each company, real set and timing leaves one file in DIR; what is there is not made again. The page is written from what
is there, and says how much that is.

Belongs here: the replays, the judgement of open alerts by age, the timing, the page. Does not belong here: learning the
curves (`triage/learning/time_to_decision.py`), and what an evaluation stores (`triage/evaluation/open_alerts.py`).

companies : each is replayed with a short training (one way to learn, three inner cuts) and a new model each fortnight;
    at each cut all alerts that are open are judged. Seeds are not those of development (801 to 812).
real : `heed replay --open` on the data next to the project, by the settings that heed has.
view : 100,000 open alerts through `reporting.alert_scores_latest`, with the number now and with that of the raise.

Each alert counts once for each moment at which it is open. Intervals are 95%, from moments drawn with replacement.
*The update* is Bayes' rule with one curve for all alerts: p becomes p S1 / (p S1 + (1 - p) S0), with the shares S1, S0
of acted and of not acted alerts that are still undecided at that age.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import service
from benchmarks.worlds import history_of
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.open_alerts import AGES, age_names
from dagster_project.triage.flags.exclusion import flag_alerts
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.replay import replay

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "benchmarks" / "reading.md"
PARTS = ("companies", "real", "view")
COMPANIES, FIRST_SEED = 30, 91_001
ALERTS, DAYS, BEFORE = 9_000, 180, 84
EVERY = timedelta(days=14)
HORIZON = timedelta(days=14)
MINIMUM = 500  # alert-days below which an age is not judged
BOARD = 100
DRAWS = 500
BARS = {"companies": 0.02, "real": 0.04}
REAL = {
    "wolfi": ("2024-07-01", "2025-05-01", "14d", ROOT / "examples" / "wolfi"),
    "servicenow": ("2016-03-21", "2016-06-01", "7d", None),
}
FORECASTS = {"heed": "the number now", "update": "the update", "at_raise": "the number of the raise"}


# ---------------------------------------------------------------------------------------------------- open alerts


def with_outcomes(shown: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """The open alerts of each moment with what became of them.

    Parameters
    ----------
    shown : as `replay` hands to `on_open`. history : alert_id, raised_at, known_at, acted, one row per alert.

    Returns
    -------
    alert_id, moment, age (days), flagged, acted, heed, update, at_raise (probabilities), first (place on the board,
    from 0; flagged alerts come last). Only moments whose alerts all have an outcome.
    """
    moment = shown["moment"]
    # What has no outcome yet is not in the history.
    facts = history.set_index("alert_id").reindex(shown["alert_id"]).reset_index(drop=True)
    age = ((moment - facts["raised_at"]).dt.total_seconds() / 86_400).to_numpy()
    rows = pd.DataFrame(
        {
            "alert_id": shown["alert_id"],
            "moment": moment,
            "age": age,
            "flagged": shown["flood"] | shown["visibility_only"],
            "acted": facts["acted"].to_numpy(),
            "heed": shown["probability"],
            "at_raise": shown["probability_at_raise"],
        }
    )
    rows["update"] = np.nan
    for at in rows["moment"].unique():
        here = (rows["moment"] == at).to_numpy()
        rows.loc[here, "update"] = _update(history, at, rows.loc[here])
    order = rows.sort_values(["moment", "flagged", "heed", "age"], ascending=[True, True, False, True]).index
    rows["first"] = rows.loc[order].groupby("moment", sort=False).cumcount()
    last = history["known_at"].max() - HORIZON
    return rows[(rows["moment"] <= last) & rows["acted"].notna()].reset_index(drop=True)


def _update(history: pd.DataFrame, moment: pd.Timestamp, rows: pd.DataFrame) -> np.ndarray:
    past = history[(history["raised_at"] + HORIZON <= moment) & history["acted"].notna()]
    lag = ((past["known_at"] - past["raised_at"]).dt.total_seconds() / 86_400).to_numpy()
    p, age = rows["at_raise"].to_numpy(), rows["age"].to_numpy()
    undecided = []
    for acted in (1, 0):
        lags = np.sort(lag[past["acted"].to_numpy() == acted])
        undecided.append((len(lags) - np.searchsorted(lags, age, side="right") + 0.5) / (len(lags) + 1))
    return np.asarray(p * undecided[0] / (p * undecided[0] + (1 - p) * undecided[1]))


def judge(rows: pd.DataFrame, block: str = "moment") -> dict[str, Any]:
    """How true each number was. block : the column whose values are drawn with replacement for intervals."""
    y = rows["acted"].to_numpy(dtype=np.float64)
    codes, blocks = pd.factorize(rows[block])
    draws = np.random.default_rng(1).multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=DRAWS)
    count = np.bincount(codes)

    def ratio(numerator: np.ndarray, denominator: np.ndarray) -> list[float]:
        top, bottom = np.bincount(codes, numerator), np.bincount(codes, denominator)
        drawn = (draws @ top) / np.maximum(draws @ bottom, 1e-9)
        return [float(top.sum() / max(bottom.sum(), 1e-9)), *np.quantile(drawn, [0.025, 0.975]).tolist()]

    ones = np.ones(len(y))
    loss = {name: metrics.log_losses(rows[name].to_numpy(), y) for name in FORECASTS}
    within = {name: _auc_within(rows, name) for name in FORECASTS}
    days = pd.factorize(rows["moment"])[1]
    ages = age_names(rows["age"].to_numpy() * 86_400)
    parts = {name: ages == name for name, _ in AGES} | {"flagged": rows["flagged"].to_numpy()}
    calibration = {}
    for name, mask in parts.items():
        if mask.sum() >= MINIMUM:
            said, happened = float(rows["heed"][mask].mean()), float(y[mask].mean())
            calibration[name] = {
                "alert_days": int(mask.sum()),
                "said": said,
                "happened": happened,
                "error": ratio(np.where(mask, rows["heed"].to_numpy() - y, 0.0), mask.astype(float)),
                "at_raise": float(rows["at_raise"][mask].mean()),
            }
    return {
        "alert_days": len(y),
        "moments": len(days),
        "acted": float(y.mean()),
        "log_loss": {name: ratio(values, ones) for name, values in loss.items()},
        "log_loss_minus_update": ratio(loss["heed"] - loss["update"], ones),
        "auc_within": {name: float(np.nansum(auc * n) / n[~np.isnan(auc)].sum()) for name, (auc, n) in within.items()},
        "auc_minus_update": _drawn_difference(within),
        "sum_over_happened": ratio(rows["heed"].to_numpy(), y),
        "acted_among_first": {
            str(k): {
                name: float(
                    rows.assign(rank=rows["first"] if name == "heed" else _ranks(rows, name))
                    .query(f"rank < {k}")["acted"]
                    .mean()
                )
                for name in FORECASTS
            }
            for k in (10, 50, BOARD)
        },
        "calibration": calibration,
        "flagged_among_first": int(rows["flagged"][rows["first"] < min(10, count.min())].sum()),
    }


def _ranks(rows: pd.DataFrame, name: str) -> pd.Series:
    return rows.groupby("moment")[name].rank(method="first", ascending=False) - 1


def _auc_within(rows: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The AUC of each moment (nan where all outcomes are the same), and how many alerts were open."""
    auc, size = [], []
    for _, own in rows.groupby("moment"):
        y = own["acted"].to_numpy()
        auc.append(metrics.roc_auc(own[name].to_numpy(), y) if 0 < y.mean() < 1 else np.nan)
        size.append(len(own))
    return np.array(auc), np.array(size)


def _drawn_difference(within: dict[str, tuple[np.ndarray, np.ndarray]]) -> list[float]:
    gain, size = within["heed"][0] - within["update"][0], within["heed"][1]
    gain, size = gain[~np.isnan(gain)], size[~np.isnan(gain)]
    draws = np.random.default_rng(2).multinomial(len(gain), np.full(len(gain), 1 / len(gain)), size=DRAWS)
    drawn = (draws @ (gain * size)) / np.maximum(draws @ size, 1e-9)
    return [float(np.average(gain, weights=size)), *np.quantile(drawn, [0.025, 0.975]).tolist()]


def at_scoring(scores: pd.DataFrame, history: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean score and acted share at the moment of scoring, by flag state then; alerts whose horizon is over."""
    facts = scores.merge(history[["alert_id", "acted", "known_at"]], on="alert_id")
    last = history["known_at"].max() - HORIZON
    facts = facts[facts["acted"].notna() & (facts["raised_at"] <= last)]
    flagged = facts["flood_at_scoring"] | facts["visibility_only_at_scoring"]
    groups = {
        "without a flag": ~flagged,
        "with a flag (readers see the rate of its kind instead)": flagged,
        "flagged in the end only": facts["flood"] & ~flagged,
    }
    return {
        name: {
            "alerts": int(mask.sum()),
            "said": float(facts["probability"][mask].mean()),
            "happened": float(facts["acted"][mask].mean()),
        }
        for name, mask in groups.items()
        if mask.any()
    }


# ------------------------------------------------------------------------------------------------ simulated companies


def company_of(seed: int) -> WorldConfig:
    """A company drawn at random. Bursts that are acted on (incidents) and bugs (floods) both occur."""
    rng = np.random.default_rng([seed, 21])
    return WorldConfig(
        seed=seed,
        alerts=ALERTS,
        days=DAYS,
        trend=("quiet", "growing", "shrinking")[int(rng.integers(3))],
        base_rate=float(rng.uniform(0.1, 0.4)),
        missing_answers=float(rng.uniform(0.1, 0.7)),
        floods=int(rng.integers(2, 9)),
        incident_days=int(rng.integers(2, 9)),
    )


def replay_company(seed: int, work: Path) -> dict[str, Any]:
    """One company: the open alerts of all its cuts in DIR/company-SEED.parquet, and how its scores were at scoring."""
    world = simulate(company_of(seed))
    history = history_of(world)
    settings = LearningSettings(replicates=60, threads=1, folds=3, tree_recipes=(replace(TREE_RECIPES[0], trees=120),))
    first = (history["raised_at"].min() + pd.Timedelta(days=BEFORE)).floor("D").to_pydatetime()
    until = history["raised_at"].max().to_pydatetime() + timedelta(seconds=1)
    shown: list[pd.DataFrame] = []
    scores, _ = replay(history, world.rules, first, until, EVERY, settings, 365, on_open=shown.append)
    rows = with_outcomes(pd.concat(shown, ignore_index=True), history)
    truth = world.truth.set_index("alert_id").loc[rows["alert_id"]]
    rows["truth"] = _update(history, history["known_at"].max(), rows.assign(at_raise=truth["probability"].to_numpy()))
    rows["bug"] = (truth["is_flood"] | truth["is_visibility_only"]).to_numpy()
    rows.loc[rows["bug"], "truth"] = 0.0
    rows.assign(company=seed).to_parquet(work / f"company-{seed}.parquet", index=False)
    floods, rules = find_flags(history, world.rules, history["known_at"].max())
    flags = flag_alerts(history, floods, rules)
    return {
        "seed": seed,
        "at_scoring": at_scoring(scores, history),
        "bug_alerts_flagged": float(flags["flood"][world.truth["is_flood"].to_numpy()].mean()),
    }


def judge_companies(work: Path) -> dict[str, Any] | None:
    files = sorted(work.glob("company-*.parquet"))
    if not files:
        return None
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    # A moment is one board: those of two companies are never ranked together.
    names = rows["company"].astype(str) + " " + rows["moment"].astype(str)
    rows["moment"] = names
    judged = judge(rows, block="company")
    rank = rows["first"]
    best = rows.groupby("moment")["truth"].rank(method="first", ascending=False) - 1
    judged["board"] = {
        "heed": float(rows["truth"][rank < BOARD].mean()),
        "best": float(rows["truth"][best < BOARD].mean()),
        "at_raise": float(rows["truth"][_ranks(rows, "at_raise") < BOARD].mean()),
        "flagged": int((rows["flagged"] & (rank < 10)).sum()),
    }
    records = [json.loads(file.read_text()) for file in sorted(work.glob("company-*.json"))]
    judged["companies"] = len(files)
    judged["seeds"] = ", ".join(str(seed) for seed in sorted(rows["company"].unique()))
    judged["at_scoring"] = _pooled([record["at_scoring"] for record in records])
    return judged


def _pooled(records: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    table = pd.DataFrame([{"group": name, **row} for record in records for name, row in record.items()])
    pooled = {}
    for name, own in table.groupby("group", sort=False):
        n = own["alerts"].to_numpy()
        pooled[str(name)] = {
            "alerts": int(n.sum()),
            "said": float(np.average(own["said"], weights=n)),
            "happened": float(np.average(own["happened"], weights=n)),
        }
    return pooled


# -------------------------------------------------------------------------------------------------------- real alerts


def replay_real(name: str, work: Path) -> dict[str, Any]:
    """`heed load` and `heed replay --open` of a real set, then its judgement."""
    from dagster_project.resources.stores.history import read_history
    from dagster_project.resources.warehouse.connection import Warehouse

    first, until, every, example = REAL[name]
    data, home = ROOT.parent / "shared" / "data" / name, work / f"home-{name}"
    environment = os.environ | {"HEED_HOME": str(home)}
    call = lambda *words: subprocess.run([service.heed(), *words], check=True, env=environment)  # noqa: E731
    types = (example or data) / "action_types.csv"
    mapping = ["--mapping", str(example / "mapping.toml")] if example else []
    scores, shown = work / f"{name}-scores.parquet", work / f"{name}-open.parquet"
    if not (scores.exists() and shown.exists()):
        call("load", "--alerts", str(data / "alerts.csv.gz"), "--actions", str(data / "actions.csv.gz"),
             "--action-types", str(types), *mapping)  # fmt: skip
        call("replay", "--from", first, "--to", until, "--every", every, "--out", str(scores), "--open", str(shown))
    history = read_history(Warehouse(home), datetime.fromisoformat(until).replace(tzinfo=UTC))
    rows = with_outcomes(pd.read_parquet(shown), history[history["known_at"].notna()])
    rows.to_parquet(work / f"{name}.parquet", index=False)
    return judge(rows) | {"at_scoring": at_scoring(pd.read_parquet(scores), history)}


# ---------------------------------------------------------------------------------------------------------- the view


def time_view(work: Path) -> dict[str, float]:
    """Seconds to read the open alerts of a large warehouse, with the number now and with that of the raise alone."""
    os.environ["HEED_HOME"] = str(work / "home-view")
    service.make_warehouse(work / "home-view")
    timed = {}
    for name, column in (("now", "probability"), ("at_raise", "probability_at_raise")):
        query = f"SELECT count(*), sum({column}) FROM reporting.alert_scores_latest WHERE is_open"
        seconds = []
        for _ in range(7):
            began = time.perf_counter()
            (count, _), *_ = service.sql(query)
            seconds.append(time.perf_counter() - began)
        timed[name] = float(np.median(seconds[1:]))
        timed["open"] = float(count)
    return timed


# ---------------------------------------------------------------------------------------------------------- the page


def _three(values: list[float], digits: int = 3) -> str:
    value, low, high = values
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _verdict(met: bool, missed: bool) -> str:
    return "met" if met else "missed" if missed else "not shown"


def _set_lines(name: str, judged: dict[str, Any], bar: float) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield (
        f"{judged['alert_days']:,} open alert-days at {judged['moments']} moments; {judged['acted']:.1%} were acted "
        f"on. Sum of probabilities over alerts acted on: {_three(judged['sum_over_happened'])} (bar: within 5%)."
    )
    yield ""
    yield "| number | log-loss | AUC within a moment | acted among the first 10 | 50 | 100 |"
    yield "|---|---|---|---|---|---|"
    for key, words in FORECASTS.items():
        first = " | ".join(f"{judged['acted_among_first'][k][key]:.0%}" for k in ("10", "50", str(BOARD)))
        yield f"| {words} | {_three(judged['log_loss'][key])} | {judged['auc_within'][key]:.3f} | {first} |"
    yield ""
    yield (
        f"Log-loss minus the update's: {_three(judged['log_loss_minus_update'], 4)}; AUC minus the update's: "
        f"{_three(judged['auc_minus_update'], 4)}."
    )
    yield ""
    yield "| age | alert-days | number of the raise | said | happened | error | bar |"
    yield "|---|---|---|---|---|---|---|"
    for age, row in judged["calibration"].items():
        error, low, high = row["error"]
        worst, least = max(abs(low), abs(high)), 0.0 if low <= 0 <= high else min(abs(low), abs(high))
        yield (
            f"| {age} | {row['alert_days']:,} | {row['at_raise']:.3f} | {row['said']:.3f} | {row['happened']:.3f} | "
            f"{_three([error, low, high])} | {bar}: {_verdict(worst <= bar, least > bar)} |"
        )
    yield ""
    yield "| at the moment of scoring | alerts | said | happened |"
    yield "|---|---|---|---|"
    for group, row in judged["at_scoring"].items():
        yield f"| {group} | {row['alerts']:,} | {row['said']:.3f} | {row['happened']:.3f} |"
    yield ""


def page(work: Path) -> str:
    """The page, from what is in DIR."""
    lines = [
        "# Is the number true when it is read?",
        "",
        f"Made by `make benchmark-reading` on {datetime.now(UTC):%Y-%m-%d}, code {_code()}, Python "
        f"{platform.python_version()}. `benchmarks/reading.py` says what is measured and how.",
        "",
    ]
    if (judged := judge_companies(work)) is not None:
        board = judged["board"]
        lines += _set_lines(f"{judged['companies']} simulated companies", judged, BARS["companies"])
        lines += [
            f"The first {BOARD} of each board, by the simulator's truth (the true probability at the raise, updated "
            "for age with the company's whole record): mean chance "
            f"{board['heed']:.3f} as heed orders them, {board['best']:.3f} in the best order, {board['at_raise']:.3f} "
            f"by the number of the raise. Flagged alerts among the first ten: {board['flagged']}. "
            f"Seeds {judged['seeds']}.",
            "",
        ]
    for name in REAL:
        if (file := work / f"{name}.json").exists():
            lines += _set_lines(name, json.loads(file.read_text()), BARS["real"])
    if (file := work / "view.json").exists():
        timed = json.loads(file.read_text())
        lines += [
            "### The cost of reading",
            "",
            f"{timed['open']:,.0f} open alerts through `reporting.alert_scores_latest`: {timed['now']:.2f} s with the "
            f"number now, {timed['at_raise']:.2f} s with that of the raise alone: "
            f"{timed['now'] / timed['at_raise']:.2f} times as long (bar: 1.5).",
            "",
        ]
    return "\n".join(lines)


def _code() -> str:
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or "of unknown commit"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--companies", type=int, default=COMPANIES, help="how many simulated companies")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "reading", help="where each part is kept")
    chosen = parser.parse_args()
    work: Path = chosen.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    tasks: list[tuple[str, Callable[[], dict[str, Any]]]] = []
    if "companies" in chosen.parts:
        seeds = range(FIRST_SEED, FIRST_SEED + chosen.companies)
        tasks += [(f"company-{seed}", lambda seed=seed: replay_company(seed, work)) for seed in seeds]  # type: ignore[misc]
    if "real" in chosen.parts:
        at_hand = [name for name in REAL if (ROOT.parent / "shared" / "data" / name).is_dir()]
        tasks += [(name, lambda name=name: replay_real(name, work)) for name in at_hand]  # type: ignore[misc]
    if "view" in chosen.parts:
        tasks += [("view", lambda: time_view(work))]
    for name, task in tasks:
        if (file := work / f"{name}.json").exists():
            continue
        began = time.monotonic()
        file.write_text(json.dumps(task()))
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    PAGE.write_text(page(work))
    print(PAGE)


if __name__ == "__main__":
    main()
