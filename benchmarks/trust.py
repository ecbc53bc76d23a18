"""Do the audits keep their word? Planted leaks, clean worlds, copied actions, pure noise, and ceilings.

    python -m benchmarks.trust                     # the final seeds, 32 worlds a row: about 20 minutes on 2 cores
    python -m benchmarks.trust --seeds 4 --first 900 --out /tmp/trust.md      # a quick look, on other seeds

Belongs here: worlds with a known truth, what the audits say of them, and the table `benchmarks/trust.md`.
Does not belong here: the audits (`dagster_project/triage`), the worlds (`audit_worlds.py`), the leaks
(`planted_leaks.py`).

The seeds that constants were chosen on are 1,000 to 3,999; those of the table are 7,000 and more. Intervals of shares
are Wilson's at 95%; a share of 32 of 32 says "at least 0.89".
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.audit_worlds import SETTINGS, AuditWorld, accused, audit_world, rolling_forecasts
from benchmarks.planted_leaks import CAUGHT_BY, PLANTED, Case, clean, world_for
from benchmarks.worlds import best_reachable_auc
from dagster_project.triage.audit.findings import LEAK
from dagster_project.triage.audit.leakage import AuditSettings, audit_leakage
from dagster_project.triage.audit.reference_learner import reference_learner
from dagster_project.triage.audit.scorecard import PARTLY, PREDICTABLE, ScorecardSettings, team_scorecard
from dagster_project.triage.audit.shortcut import audit_shortcut
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import MODEL

ROOT = Path(__file__).resolve().parents[1]
FIRST = 7_000
MODES = ("mixed", "predictable", "copy_only", "noise")
LEAK_ALERTS, SHORTCUT_ALERTS, CEILING_ALERTS = 5_000, 8_000, 24_000

Row = dict[str, Any]


def _audit(case: Case) -> pd.DataFrame:
    return audit_leakage(
        case.frame, case.history, case.cut, rebuild=case.rebuild, forecasts=case.forecasts,
        settings=AuditSettings(shuffles=1),
    )  # fmt: skip


def leaks(seed: int) -> list[Row]:
    """Every kind of leak planted once; caught means 'leak' by the whole audit, and by the check that is for it."""
    made = []
    worlds: dict[bool, AuditWorld] = {}
    for kind, plant in PLANTED.items():
        ties = kind == "ties in time"
        if ties not in worlds:
            worlds[ties] = world_for(kind, seed, alerts=LEAK_ALERTS)
        found = accused(_audit(plant(worlds[ties])))
        sure = found[found["verdict"] == LEAK]
        made.append(
            {"table": "leaks", "kind": kind, "seed": seed, "caught": len(sure) > 0,
             "by its check": CAUGHT_BY[kind] in set(sure["check"])}
        )  # fmt: skip
    return made


def clean_worlds(seed: int) -> list[Row]:
    """The audit of worlds without a leak, one of each mode; accused means any finding that is not clean."""
    made = []
    for mode in MODES:
        found = accused(_audit(clean(audit_world(seed, alerts=LEAK_ALERTS, predictability=mode))))
        made.append(
            {"table": "clean", "kind": mode, "seed": seed, "accused": len(found) > 0,
             "findings": "; ".join(found["check"] + ": " + found["subject"])}
        )  # fmt: skip
    return made


def shortcuts(seed: int) -> list[Row]:
    """The shortcut audit, and in noise the scorecard, of one world of each mode."""
    made = []
    for mode in ("copy_only", "mixed", "noise"):
        world = audit_world(seed, alerts=SHORTCUT_ALERTS, predictability=mode)
        forecasts = rolling_forecasts(world.frame, reference_learner(SETTINGS), SETTINGS)
        audit = audit_shortcut(forecasts, world.frame)
        made.append({"table": "shortcut", "kind": mode, "seed": seed, "verdict": audit.verdict, "value": audit.value})
        if mode == "noise":
            card = team_scorecard(forecasts, world.frame)
            used = forecasts[~forecasts["excluded"]]
            # The whole company as one team: the claim of skill that a headline would make.
            whole = team_scorecard(used.assign(team="all"), reach=1.0).iloc[0]
            made.append(
                {"table": "noise", "kind": mode, "seed": seed, "teams": len(card),
                 "predictable": int((card["status"] == PREDICTABLE).sum()),
                 "claimed": int(card["status"].isin([PREDICTABLE, PARTLY]).sum()),
                 "skill claimed": bool(whole["skill_low"] > 0)}
            )  # fmt: skip
    return made


def ceilings(seed: int) -> list[Row]:
    """Ceilings of teams against the truth, on the alerts that were forecast."""
    world = audit_world(seed, alerts=CEILING_ALERTS, days=200)
    learner = reference_learner(SETTINGS)
    forecasts = rolling_forecasts(world.frame, learner, SETTINGS, folds=2)
    card = team_scorecard(forecasts, world.frame, settings=ScorecardSettings(SETTINGS, replicates=200))
    used = forecasts[~forecasts["excluded"]].merge(world.truth[["alert_id", "probability"]], on="alert_id")
    card = card.set_index("team")
    made = []
    for team, mine in used.groupby("team"):
        row = card.loc[team]
        if np.isnan(row["ceiling"]):
            continue
        truth = best_reachable_auc(mine["probability"].to_numpy())
        made.append(
            {"table": "ceilings", "kind": "teams", "seed": seed, "team": team, "alerts": len(mine), "truth": truth,
             "ceiling": row["ceiling"], "auc": metrics.roc_auc(mine[MODEL].to_numpy(), mine["acted"].to_numpy()),
             "covered": row["ceiling_low"] <= truth <= row["ceiling_high"], "status": row["status"]}
        )  # fmt: skip
    return made


PARTS: dict[str, Callable[[int], list[Row]]] = {
    "leaks": leaks,
    "clean": clean_worlds,
    "shortcuts": shortcuts,
    "ceilings": ceilings,
}


def _run(task: tuple[str, int]) -> tuple[str, int, list[Row], float]:
    started = time.perf_counter()
    rows = PARTS[task[0]](task[1])
    return (*task, rows, time.perf_counter() - started)


def _share(successes: int, trials: int) -> str:
    low, high = metrics.wilson_interval(successes, trials)
    return f"{successes} of {trials} | {successes / max(trials, 1):.3f} [{low:.3f}, {high:.3f}]"


def report(rows: list[Row], seeds: range, seconds: float) -> str:
    """The table as Markdown."""
    frame = pd.DataFrame(rows)
    lines = [
        "# Trust: do the audits keep their word?",
        "",
        f"Seeds {seeds.start} to {seeds.stop - 1} ({len(seeds)} worlds a row; constants were chosen on seeds below "
        "4,000). "
        f"Intervals of shares are Wilson's at 95%. {os.cpu_count()} CPU cores, Python {platform.python_version()}, "
        f"pandas {pd.__version__}; {seconds / 60:.0f} minutes. `make benchmark-trust` makes this page again.",
    ]

    def part(name: str) -> pd.DataFrame:
        return frame[frame["table"] == name] if len(frame) else frame

    if len(found := part("leaks")):
        lines += [
            "", "## Planted leaks", "",
            f"Worlds of {LEAK_ALERTS:,} alerts over 150 days. Caught: the audit says 'leak'. By its check: the check "
            "that is there for the kind says so, whatever others say.", "",
            "| planted | caught | share | by its check | share |", "|---|---:|---|---:|---|",
        ]  # fmt: skip
        for kind in PLANTED:
            mine = found[found["kind"] == kind]
            caught, own = (int(mine[c].astype(bool).sum()) for c in ("caught", "by its check"))
            lines.append(f"| {kind} | {_share(caught, len(mine))} | {_share(own, len(mine))} |")
    if len(found := part("clean")):
        lines += [
            "", "## Clean worlds accused", "",
            f"Worlds of {LEAK_ALERTS:,} alerts without a leak. Accused: any finding that is not 'clean'. Target: at "
            "most 0.05.", "",
            "| world | accused | share |", "|---|---:|---|",
        ]  # fmt: skip
        for mode in MODES:
            mine = found[found["kind"] == mode]
            lines.append(f"| {mode} | {_share(int(mine['accused'].astype(bool).sum()), len(mine))} |")
        lines.append(f"| all | {_share(int(found['accused'].astype(bool).sum()), len(found))} |")
        named = sorted({text for text in found["findings"] if text})
        lines += ["", f"Accused: {'; '.join(named)}." if named else "No finding in any of them."]
    if len(found := part("shortcut")):
        lines += [
            "", "## Does it only repeat the last action?", "",
            f"Worlds of {SHORTCUT_ALERTS:,} alerts. Targets: copy-only is called 'repeats' and mixed is not, in at "
            "least 0.95.", "",
            "| world | says | runs | share | share of skill that decided (median, least to most) |",
            "|---|---|---:|---|---|",
        ]  # fmt: skip
        for mode, mine in found.groupby("kind"):
            for verdict, same in mine.groupby("verdict"):
                v = same["value"].astype(float)
                spread = f"{v.median():.2f}, {v.min():.2f} to {v.max():.2f}" if v.notna().any() else "not defined"
                lines.append(f"| {mode} | {verdict} | {_share(len(same), len(mine))} | {spread} |")
    if len(found := part("noise")):
        lines += [
            "", "## Pure noise", "",
            f"Worlds of {SHORTCUT_ALERTS:,} alerts whose outcomes are drawn at one rate. Target: at least 0.95 without "
            "any claim.", "",
            "| claim | worlds without it | share |", "|---|---:|---|",
        ]  # fmt: skip
        for words, good in (
            ("some team is predictable", found["predictable"] == 0),
            ("some team is predictable or partly so", found["claimed"] == 0),
            ("the whole company has skill", ~found["skill claimed"].astype(bool)),
        ):
            lines.append(f"| {words} | {_share(int(good.sum()), len(found))} |")
    if len(found := part("ceilings")):
        lines += [
            "", "## Ceilings of teams", "",
            f"Worlds of {CEILING_ALERTS:,} alerts over 200 days; the truth is the AUC that the true probability is "
            "expected to reach on the alerts that were forecast (60% of all). Error: estimate less truth. Target: "
            "within 0.03 for teams of 1,000 alerts or more.", "",
            "| teams | N | mean error | mean absolute error | nine in ten within | within 0.03 | share "
            "| interval holds the truth | share | the learner's own AUC: mean error |",
            "|---|---:|---:|---:|---:|---:|---|---:|---|---:|",
        ]  # fmt: skip
        for words, mine in (
            ("1,000 forecast alerts or more", found[found["alerts"] >= 1_000]),
            ("fewer", found[found["alerts"] < 1_000]),
        ):
            if not len(mine):
                continue
            error = (mine["ceiling"] - mine["truth"]).astype(float)
            own = (mine["auc"] - mine["truth"]).astype(float)
            lines.append(
                f"| {words} | {len(mine)} | {error.mean():+.4f} | {error.abs().mean():.4f} "
                f"| {error.abs().quantile(0.9):.3f} | {_share(int((error.abs() <= 0.03).sum()), len(mine))} "
                f"| {_share(int(mine['covered'].astype(bool).sum()), len(mine))} | {own.mean():+.4f} |"
            )
        lines += ["", "| truth between | teams | mean error | within 0.03 | share |", "|---|---:|---:|---:|---|"]
        large = found[found["alerts"] >= 1_000]
        for low, high in ((0.5, 0.65), (0.65, 0.8), (0.8, 0.9), (0.9, 1.0)):
            mine = large[(large["truth"] >= low) & (large["truth"] < high)]
            if len(mine):
                error = (mine["ceiling"] - mine["truth"]).astype(float)
                lines.append(
                    f"| {low:.2f} and {high:.2f} | {len(mine)} | {error.mean():+.4f} "
                    f"| {_share(int((error.abs() <= 0.03).sum()), len(mine))} |"
                )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=32, help="worlds a row")
    parser.add_argument("--first", type=int, default=FIRST, help="the first seed")
    parser.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=Path, help="keep rows here; parts that are not run are taken from it")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "trust.md")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    tasks = [(part, seed) for seed in seeds for part in arguments.parts]
    started = time.perf_counter()
    rows: list[Row] = []
    # Fresh processes: LightGBM's threads do not survive a fork.
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        for part, seed, made, seconds in pool.map(_run, tasks):
            rows += made
            print(f"{part} {seed}: {seconds:.1f} s", flush=True)
    seconds = time.perf_counter() - started
    if arguments.rows:
        kept = json.loads(arguments.rows.read_text()) if arguments.rows.exists() else {"rows": [], "seconds": {}}
        mine = {row["table"] for row in rows}
        rows += [row for row in kept["rows"] if row["table"] not in mine]
        kept["seconds"]["+".join(arguments.parts)] = seconds
        seconds = sum(kept["seconds"].values())
        arguments.rows.write_text(json.dumps({"rows": rows, "seconds": kept["seconds"]}, default=float))
    text = report(rows, seeds, seconds)
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
