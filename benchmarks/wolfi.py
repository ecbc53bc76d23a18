"""The real alerts of `examples/wolfi`: what a replay says about them, and how much anybody could have said.

    python -m benchmarks.wolfi                  # about 3 minutes; writes benchmarks/wolfi.md

Belongs here: reading the two exported files by the example's own mapping and meanings, without a warehouse; the replay
beside every baseline; the same learner with knowledge that nobody had, as a measure of what is out of reach.
Does not belong here: the data (not part of heed), and loading and replaying them for real (`heed load`, `heed replay`).
"""

from __future__ import annotations

import json
import platform
import time
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from dagster_project.settings import Settings
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.flags.floods import DAY
from dagster_project.triage.learning import boosting
from dagster_project.triage.learning.settings import TREE_RECIPES
from dagster_project.triage.replay import replay

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "wolfi"
EXAMPLE = ROOT / "examples" / "wolfi"
HORIZON = pd.Timedelta(DAY * 14, unit="us")
FIRST, UNTIL = datetime(2024, 7, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC)
EVERY = timedelta(days=14)
SWEEP = (pd.Timestamp("2025-03-04", tz="UTC"), pd.Timestamp("2025-03-07", tz="UTC"))
HINDSIGHT = "repeat_last_per_rule"  # the best of the simple baselines in hindsight, where the bar was set


def read_wolfi(folder: Path) -> pd.DataFrame:
    """One row per alert in order of time: the contract's columns, attributes as JSON text, and the outcome.

    The first decisive action from `raised_at` to the end of the horizon decides; none by then means not acted on.
    """
    mapping = tomllib.loads((EXAMPLE / "mapping.toml").read_text())
    meaning = pd.read_csv(EXAMPLE / "action_types.csv").set_index("action_type")["meaning"]
    raw = pd.read_csv(folder / "alerts.csv.gz", dtype="str")
    alerts = raw.rename(columns={theirs: ours for ours, theirs in mapping["alerts"].items()})
    contract = ["alert_id", "raised_at", "rule", "entity", "team"]
    rest = alerts.drop(columns=contract)
    alerts = alerts[contract].drop_duplicates("alert_id")
    alerts["attributes"] = [
        json.dumps({name: value for name, value in row.items() if isinstance(value, str)})  # nulls are no attributes
        for row in rest.loc[alerts.index].to_dict("records")
    ]
    alerts["raised_at"] = pd.to_datetime(alerts["raised_at"], utc=True).dt.as_unit("us")
    alerts["horizon_ends_at"] = alerts["raised_at"] + HORIZON

    actions = pd.read_csv(folder / "actions.csv.gz", dtype="str")[["alert_id", "acted_at", "action_type"]]
    actions["acted_at"] = pd.to_datetime(actions["acted_at"], utc=True).dt.as_unit("us")
    actions["meaning"] = actions["action_type"].map(meaning)
    decisive = actions[actions["meaning"].isin(["acted", "dismissed"])].merge(alerts, on="alert_id")
    within = decisive["acted_at"].between(decisive["raised_at"], decisive["horizon_ends_at"])
    first = decisive[within].sort_values("acted_at", kind="stable").drop_duplicates("alert_id").set_index("alert_id")
    alerts["known_at"] = alerts["alert_id"].map(first["acted_at"]).fillna(alerts["horizon_ends_at"])
    alerts["acted"] = alerts["alert_id"].map(first["meaning"] == "acted").fillna(False).astype(float)
    return alerts.sort_values(["raised_at", "alert_id"], ignore_index=True)


def known_by(history: pd.DataFrame, moment: datetime) -> pd.DataFrame:
    """The alerts raised before the moment, with the outcomes known then, and every column of the contract."""
    made = history[history["raised_at"] < moment].copy()
    late = made["known_at"] > moment
    made.loc[late, "acted"] = np.nan
    made.loc[late, "known_at"] = pd.NaT
    return made.assign(severity=None, value=None, threshold=None, title=None)


def with_all_other(periods: np.ndarray, features: pd.DataFrame, acted: np.ndarray, settings: Settings) -> np.ndarray:
    """What trees say about each period when they learned from all the others, later ones included."""
    learning = settings.learning_settings()
    plan = plan_columns(features, learning.features)
    matrix = plan.matrix(features)
    recipe = TREE_RECIPES[0]
    columns = [i for i, column in enumerate(plan.columns) if column.source != "name"]
    binned = boosting.Binned(matrix, acted, boosting.safe_names(plan.names), plan.categorical, learning.seed, 2)
    made = np.zeros(len(acted))
    for part in range(10):
        now = periods % 10 == part
        rows = np.flatnonzero(~now)
        booster = binned.fit(rows, np.ones(len(rows)), dict(recipe.parameters), columns, recipe.trees)
        made[now] = metrics.expit(boosting.log_odds(booster, matrix[now], None, 2))
    return made


def line(name: str, forecast: np.ndarray, acted: np.ndarray, reference: np.ndarray, blocks: np.ndarray) -> str:
    """A row of a table: log-loss, skill over the reference, AUC, decile error; both with intervals."""
    own, other = metrics.log_losses(forecast, acted), metrics.log_losses(reference, acted)
    skill = 1 - own.mean() / other.mean()
    low, high = metrics.interval(lambda w: 1 - float(np.dot(w, own) / np.dot(w, other)), blocks, 1_000, 0)
    bins = metrics.equal_count_bins(forecast)
    error = metrics.decile_error(forecast, acted, bins=bins)
    least, most = metrics.interval(lambda w: metrics.decile_error(forecast, acted, w, bins), blocks, 1_000, 0)
    return (
        f"| {name} | {own.mean():.4f} | {skill:.3f} [{low:.3f}, {high:.3f}] | {metrics.roc_auc(forecast, acted):.3f} "
        f"| {error:.4f} [{least:.3f}, {most:.3f}] |"
    )


HEADER = f"| contender | log-loss | skill over {HINDSIGHT} | AUC | decile error |\n|---|---:|---:|---:|---:|"


def replayed(whole: pd.DataFrame, settings: Settings) -> Iterator[str]:
    """The replay and every baseline, in three parts of the same alerts."""
    rules = pd.DataFrame(columns=["rule", "title", "team", "declared_visibility_only", "created_at"])
    days, learning = settings.learning.training_days, settings.learning_settings()
    began = time.perf_counter()
    scores, baselines = replay(
        known_by(whole, UNTIL), rules, FIRST, UNTIL, EVERY, learning, days, targets=settings.gate_targets()
    )
    seconds = time.perf_counter() - began
    facts = scores.merge(whole[["alert_id", "acted", "known_at", "rule"]], on="alert_id", validate="one_to_one")
    mature = (facts["raised_at"] + HORIZON <= UNTIL).to_numpy()
    sweep = facts["raised_at"].between(*SWEEP).to_numpy()
    flood = facts["flood"].to_numpy()
    served = scores.loc[mature, "status"].value_counts()
    yield (
        f"{len(scores):,} alerts scored at their own `raised_at`, {mature.sum():,} of them with their horizon over; "
        f"{seconds:.0f} s. {served.get('model', 0):,} of the latter were scored by a version that was significantly "
        "better than the best simple rule in its past. Intervals: bootstrap over rule-days."
    )
    for title, mask in (
        ("All alerts", mature),
        ("Without the scanner sweep of 4 to 6 March 2025", mature & ~sweep),
        ("Without what heed flags as floods", mature & ~flood),
    ):
        acted, blocks = facts.loc[mask, "acted"].to_numpy(), rule_day_blocks(facts[mask])
        reference = baselines[HINDSIGHT].to_numpy()[mask]
        yield f"\n### {title}: {mask.sum():,} alerts, {acted.mean():.1%} acted on\n\n{HEADER}"
        yield line("heed", facts.loc[mask, "probability"].to_numpy(), acted, reference, blocks)
        for name in baselines.columns:
            yield line(str(name), baselines[name].to_numpy()[mask], acted, reference, blocks)


def out_of_reach(whole: pd.DataFrame, settings: Settings) -> Iterator[str]:
    """The same learner with knowledge of the future."""
    rules = pd.DataFrame(columns=["rule", "title", "team", "declared_visibility_only", "created_at"])
    then = known_by(whole, UNTIL)
    learning = settings.learning_settings()
    features = build_features(then, *find_flags(then, rules, UNTIL), FIRST, UNTIL, learning.features)
    over = features[features["raised_at"] + HORIZON <= UNTIL]
    yield HEADER.replace(HINDSIGHT, "the overall rate in hindsight")
    for part, features in (
        ("without the sweep", over[~over["raised_at"].between(*SWEEP)].reset_index(drop=True)),
        ("all alerts", over.reset_index(drop=True)),
    ):
        facts = features[["alert_id"]].merge(whole[["alert_id", "acted"]], on="alert_id", validate="one_to_one")
        acted, blocks = facts["acted"].to_numpy(), rule_day_blocks(features)
        day = ((features["raised_at"] - pd.Timestamp(FIRST)) // pd.Timedelta("1D")).to_numpy()
        constant = np.full(len(acted), acted.mean())
        for name, periods in (("all other days", day), ("all other fortnights", day // 14)):
            said = with_all_other(periods, features, acted, settings)
            yield line(f"{part}: learned from {name}, before and after", said, acted, constant, blocks)
        if part != "all alerts":
            monthly = facts["acted"].groupby(features["raised_at"].dt.strftime("%Y-%m")).mean()
    yield (
        "\nShare acted on by month, without the sweep: "
        + ", ".join(f"{month} {share:.0%}" for month, share in monthly.items())
        + "."
    )


def main() -> None:
    """Replay, compare, write the page."""
    if not (DATA / "alerts.csv.gz").exists():
        raise SystemExit("the real alerts are not here: they are kept beside the project, not in it")
    settings, whole = Settings(), read_wolfi(DATA)
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "lightgbm"))
    machine = f"{platform.machine()}, 2 cores, Python {platform.python_version()}, {packages}"
    page = [
        "# Real alerts: vulnerabilities in Wolfi packages",
        "",
        f"Made by `make benchmark-wolfi`; {machine}.",
        "Acted on means: the package was changed within 14 days. The settings are heed's own, nothing is chosen for "
        "these alerts.",
        "",
        f"## Replay from {FIRST:%Y-%m-%d} to {UNTIL:%Y-%m-%d}, trained again every {EVERY.days} days",
        "",
        *replayed(whole, settings),
        "",
        "## What is out of reach",
        "",
        "The same trees on the same features, allowed to learn from alerts raised *after* those that they forecast",
        "(ten parts, no period in two of them). What they cannot say either, no learner of this",
        "kind could have said at the time.",
        "",
        *out_of_reach(whole, settings),
        "",
    ]
    (ROOT / "benchmarks" / "wolfi.md").write_text("\n".join(page), encoding="utf-8")
    print("\n".join(page))


if __name__ == "__main__":
    main()
