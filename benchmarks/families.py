"""What heed reaches in families of simulated alerts that its own simulator does not know.

    python -m benchmarks.families          # the final seeds; about an hour on 2 cores; writes benchmarks/families.md
    python -m benchmarks.families --first 0 --seeds 2 --noise 4 --out /tmp/families.md     # a quick look

Belongs here: a replay of each world and of every contender, what the same learners reach without the luck of outcomes,
and the page.
Does not belong here: the worlds (`family_worlds.py`), learning and replaying (`dagster_project/triage`), heed's own
simulator (`learning.py`), real alerts (`peers.py`, `wolfi.py`).

Losses are expected log-losses under the true probabilities, so the luck of the scored outcomes does not blur them.
Reached skill is (constant - heed) / (constant - truth); the constant is the rate known at each cut.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd

from benchmarks.family_worlds import BEGIN, FAMILIES, NOISE, Family, world
from benchmarks.learning import expected_loss, fitted_on
from dagster_project.settings import Outcome, Settings
from dagster_project.triage import replay as replaying
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import CONSTANT
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.features.build import build_features
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.mixture.facts import plan_facts
from dagster_project.triage.learning.mixture.linear import LINEAR, encode, fit_linear, log_odds_of
from dagster_project.triage.learning.mixture.model import Mixture
from dagster_project.triage.learning.model import Model
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.pipeline import with_proposed_keys

ROOT = Path(__file__).resolve().parents[1]
FIRST = 1_000
RULES = pd.DataFrame(columns=["rule", "title", "team", "declared_visibility_only", "created_at"])
SKILL_BAR, DECILE_BAR, NOISE_BAR = 0.85, 0.03, 0.05
# After a change: how long it is called recent.
RECENT = timedelta(days=28)
WITHOUT_LUCK = ("trees without luck", "linear without luck", "both without luck")


@dataclass(frozen=True)
class Run:
    """One world: what its replay reached.

    losses : expected log-loss by contender, "truth" and "heed" among them; nats per alert. bound : by how much heed may
    be worse than the best contender, as its versions state it, mean over cuts. phases : reached skill before a
    change, soon after it and later. claims : some score has the status "model". gain_low : lower end of the 95%
    interval of what heed gains over the constant on the drawn outcomes.
    """

    family: str
    seed: int
    alerts: int
    acted: float
    losses: dict[str, float]
    baselines: list[str]
    contenders: list[str]
    bound: float
    decile_bias: float
    decile_error: float
    floods: float
    claims: bool
    gain_low: float
    phases: dict[str, float]
    weights: dict[str, float]
    seconds: float

    def reached(self, name: str = "heed") -> float:
        """Share of the reachable skill."""
        constant, truth = self.losses[CONSTANT], self.losses["truth"]
        return (constant - self.losses[name]) / (constant - truth) if constant > truth else float("nan")

    @property
    def best_baseline(self) -> str:
        return min(self.baselines, key=self.losses.__getitem__)

    @property
    def best_contender(self) -> str:
        return min({*self.baselines, *self.contenders}, key=self.losses.__getitem__)

    @property
    def limit(self) -> float:
        return max(self.reached(name) for name in WITHOUT_LUCK if name in self.losses)


def settings_of(family: Family) -> Settings:
    """heed's defaults; only the horizon is the family's."""
    return Settings(outcome=Outcome(horizon_days=family.horizon_days))


def run(task: tuple[Family, int]) -> Run:
    """Replay one world and judge it by its truth."""
    family, seed = task
    began, whole = time.process_time(), world(family, seed)
    history = whole.drop(columns="probability")
    settings = settings_of(family)
    learning = replace(settings.learning_settings(), threads=1)
    first, until = BEGIN + timedelta(days=family.judged_from * family.days), BEGIN + timedelta(days=family.days)
    every = timedelta(days=family.every_days)
    parts: list[pd.DataFrame] = []
    models: list[Model] = []
    score = replaying.score

    def kept(model: Model, alerts: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
        """Scores as ever, and what each contender of the pool says."""
        models.append(model)
        parts.append(pd.DataFrame(model.forecasts(alerts) if isinstance(model, Mixture) else {}, index=alerts.index))
        return score(model, alerts, flags)

    with patch.object(replaying, "score", kept):
        scores, baselines = replaying.replay(
            history, RULES, first, until, every, learning, settings.learning.training_days
        )
    facts = scores.merge(whole, on="alert_id", how="left", validate="one_to_one", suffixes=("", "_true"))
    p, q, y = (facts[name].to_numpy() for name in ("probability_true", "probability", "acted"))
    # A contender of no weight at some cut says nothing there, and is not compared.
    pool = pd.concat(parts, ignore_index=True).dropna(axis="columns").drop(columns=list(baselines), errors="ignore")
    forecasts = {
        "heed": q,
        "truth": p,
        **{str(name): column.to_numpy() for name, column in baselines.join(pool).items()},
    }
    if family is not NOISE:
        forecasts |= without_luck(whole, first, every, len(models), learning)
    losses = {name: expected_loss(p, forecast) for name, forecast in forecasts.items()}
    gain = metrics.log_losses(forecasts[CONSTANT], y) - metrics.log_losses(q, y)
    low, _ = metrics.interval(lambda w: float(np.dot(w, gain) / max(w.sum(), 1e-300)), rule_day_blocks(facts), 1_000, 0)
    bounds = [m.evidence["mixture"]["worse_than_it_by_at_most"] for m in models if "mixture" in m.evidence]
    shares = pd.DataFrame([m.weights for m in models if isinstance(m, Mixture)]).fillna(0).mean()
    return Run(
        family=family.name,
        seed=seed,
        alerts=len(facts),
        acted=float(whole["acted"].mean()),
        losses=losses,
        baselines=[str(name) for name in baselines],
        contenders=[str(name) for name in pool],
        bound=float(np.mean(bounds)) if bounds else float("nan"),
        decile_bias=metrics.decile_error(q, p),
        decile_error=metrics.decile_error(q, y),
        floods=float(facts["flood_at_scoring"].mean()),
        claims=bool((facts["status"] == "model").any()),
        gain_low=low,
        phases=phases(family, facts["raised_at"], p, q, forecasts[CONSTANT]),
        weights={str(name): float(share) for name, share in shares.items()},
        seconds=time.process_time() - began,
    )


def phases(family: Family, raised: pd.Series, p: np.ndarray, q: np.ndarray, constant: np.ndarray) -> dict[str, float]:
    """Reached skill before the family's change, in the four weeks after it, and later; empty without a change."""
    if family.changes_at is None:
        return {}
    change = pd.Timestamp(BEGIN + timedelta(days=family.changes_at * family.days))
    soon = ((raised >= change) & (raised < change + RECENT)).to_numpy()
    before = (raised < change).to_numpy()
    shares = {}
    for name, rows in (("before", before), ("four weeks after", soon), ("later", ~before & ~soon)):
        floor, ceiling = expected_loss(p[rows], p[rows]), expected_loss(p[rows], constant[rows])
        shares[name] = (ceiling - expected_loss(p[rows], q[rows])) / (ceiling - floor)
    return shares


def without_luck(
    whole: pd.DataFrame, first: pd.Timestamp, every: timedelta, cuts: int, learning: LearningSettings
) -> dict[str, np.ndarray]:
    """What the pool's trees, its linear model and the mean of their log-odds say if they learn from true probabilities.

    They learn from the alerts that heed may learn from at each cut, flagged ones included, with the same history
    features: what they miss is hidden by too few alerts, by the luck in histories, or cannot be said by such a model.
    """
    truth = whole.set_index("alert_id")["probability"]
    until = whole["raised_at"].max() + timedelta(seconds=1)
    features_of = with_proposed_keys(learning, whole[whole["raised_at"] < first]).features
    history = whole.drop(columns="probability")
    flags = find_flags(history, RULES, until)
    table = build_features(history, *flags, history["raised_at"].min(), until, features_of)
    parts: list[np.ndarray] = []
    for number in range(cuts):
        cut = pd.Timestamp(first) + number * every
        past = table[table["raised_at"] + learning.horizon <= cut].reset_index(drop=True)
        later = table[(table["raised_at"] >= cut) & (table["raised_at"] < cut + every)].reset_index(drop=True)
        label = truth.loc[past["alert_id"]].to_numpy()
        recipes = [
            r for r in TREE_RECIPES
            if r.minimum_alerts <= len(past) and (r.maximum_alerts is None or len(past) < r.maximum_alerts)
        ]  # fmt: skip
        trees = np.mean([metrics.logit(fitted_on(past, label, later, r, features_of)) for r in recipes], axis=0)
        both = pd.concat([past, later], ignore_index=True)
        encoded = encode(both, features_of, plan_facts(past))
        linear = fit_linear(encoded, np.arange(len(past)), label, cut)
        linear_log_odds = log_odds_of({LINEAR: linear[LINEAR]}, encoded, np.arange(len(past), len(both)))[LINEAR]
        parts.append(metrics.expit(np.column_stack([trees, linear_log_odds, (trees + linear_log_odds) / 2])))
    return dict(zip(WITHOUT_LUCK, np.concatenate(parts).T, strict=True))


def over_seeds(values: list[float], digits: int = 3) -> str:
    """The mean with its 95% interval (Student's t over seeds)."""
    from scipy import stats

    x = np.array(values)
    half = stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)) if len(x) > 1 else float("nan")
    return f"{x.mean():.{digits}f} [{x.mean() - half:.{digits}f}, {x.mean() + half:.{digits}f}]"


def of_family(family: Family, runs: list[Run]) -> list[str]:
    """The table of a family, and what it misses."""
    best = [r.losses["heed"] - r.losses[r.best_baseline] for r in runs]
    contender = [r.losses["heed"] - r.losses[r.best_contender] for r in runs]
    kept = sum(worse <= r.bound for worse, r in zip(contender, runs, strict=True))
    reached, limit = [r.reached() for r in runs], [r.limit for r in runs]
    bias, floods = [r.decile_bias for r in runs], [r.floods for r in runs]
    lines = [
        f"## {family.name}",
        "",
        f"What decides: {family.about}. {len(runs)} worlds of {family.alerts:,} alerts over {family.days} days, seeds "
        f"{runs[0].seed} to {runs[-1].seed}; {np.mean([r.alerts for r in runs]):,.0f} of them scored, learned again "
        f"every {family.every_days} days; {np.mean([r.acted for r in runs]):.1%} acted on.",
        "",
        "| what | bar | figure, 95% interval |",
        "|---|---|---|",
        f"| share of the reachable skill | >= {SKILL_BAR} | {over_seeds(reached)} |",
        f"| the same, of the best baseline in hindsight ({names_of(r.best_baseline for r in runs)}) | "
        f"| {over_seeds([r.reached(r.best_baseline) for r in runs])} |",
        f"| the same, of the best contender in hindsight ({names_of(r.best_contender for r in runs)}) | "
        f"| {over_seeds([r.reached(r.best_contender) for r in runs])} |",
        "| the same, of trees and the linear model trained on true probabilities: the best of them "
        f"| | {over_seeds(limit)} |",
        f"| nats worse than the best baseline (negative: better) | | {over_seeds(best, 4)} |",
        f"| nats worse than the best contender | at most the bound in every world | {over_seeds(contender, 4)}; "
        f"within it in {kept} of {len(runs)} |",
        f"| the bound that heed states, nats | | {np.mean([r.bound for r in runs]):.4f} |",
        f"| decile error against true probabilities | <= {DECILE_BAR} | {over_seeds(bias)} |",
        f"| alerts flagged as floods when they are scored | | {np.mean(floods):.1%} |",
    ]
    if family.changes_at is not None:
        for name in runs[0].phases:
            lines.append(f"| share of the reachable skill, {name} | | {over_seeds([r.phases[name] for r in runs])} |")
    shares = pd.DataFrame([r.weights for r in runs]).fillna(0).mean().sort_values(ascending=False)
    lines += [
        "",
        "Weights: " + ", ".join(f"{name} {share:.0%}" for name, share in shares.items() if share >= 0.01) + ".",
    ]
    missed = []
    if np.mean(reached) < SKILL_BAR:
        missed.append(
            f"the reached skill of {np.mean(reached):.3f}; the same learners without luck reach {np.mean(limit):.3f}"
        )
    if kept < len(runs):
        missed.append(f"the bound in {len(runs) - kept} of {len(runs)} worlds")
    if np.mean(bias) > DECILE_BAR:
        missed.append(f"the decile error of {np.mean(bias):.3f}")
    return [*lines, "", f"Missed: {'; '.join(missed)}." if missed else "No bar is missed.", ""]


def names_of(names: Iterator[str]) -> str:
    """The names with how often each occurs, the commonest first."""
    counts = pd.Series(list(names)).str.replace("_", " ").value_counts()
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def of_noise(runs: list[Run]) -> list[str]:
    """The table of worlds in which nothing says anything."""
    lines = [
        "## noise",
        "",
        f"What decides: {NOISE.about}. {len(runs)} worlds of {NOISE.alerts:,} alerts over {NOISE.days} days, seeds "
        f"{runs[0].seed} to {runs[-1].seed}; learned again every {NOISE.every_days} days. Intervals of counts: Wilson.",
        "",
        "| what | bar | figure, 95% interval |",
        "|---|---|---|",
    ]
    low = [r.gain_low > 0 for r in runs]
    for what, bar, hits in (
        ("some score claims skill (status `model`)", "", [r.claims for r in runs]),
        ("the gain over the constant on the scored alerts is above zero with its interval", "", low),
        ("both", f"<= {NOISE_BAR:.0%}", [r.claims and each for r, each in zip(runs, low, strict=True)]),
    ):
        least, most = metrics.wilson_interval(sum(hits), len(hits))
        lines.append(f"| {what} | {bar} | {sum(hits)} of {len(hits)} [{least:.1%}, {most:.1%}] |")
    worse = [r.losses["heed"] - r.losses[CONSTANT] for r in runs]
    lines.append(f"| nats worse than the constant | | {over_seeds(worse, 4)} |")
    lines.append(
        f"| decile error against the true probability | <= {DECILE_BAR} | {over_seeds([r.decile_bias for r in runs])} |"
    )
    return [*lines, ""]


def page(found: dict[str, list[Run]]) -> str:
    """The committed page."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pandas", "lightgbm"))
    lines = [
        "# Families of simulated alerts",
        "",
        f"Made by `make benchmark-families`; {platform.machine()}, 2 cores, Python {platform.python_version()}, "
        f"{packages}. Each family is a way in which alerts come about, with a known probability for every alert. The "
        "settings are heed's own; other seeds were used while heed was developed. Losses are expected log-losses under "
        "the true probabilities, and intervals are Student's t over seeds.",
        "",
        "| family | share of the reachable skill | of the same learners without luck | nats worse than the best "
        "contender in hindsight | decile error | flagged as floods |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    shown = [family for family in FAMILIES if family.name in found]
    for family in shown:
        runs = found[family.name]
        worse = [r.losses["heed"] - r.losses[r.best_contender] for r in runs]
        lines.append(
            f"| {family.name} | {over_seeds([r.reached() for r in runs])} | {over_seeds([r.limit for r in runs])} "
            f"| {over_seeds(worse, 4)} | {over_seeds([r.decile_bias for r in runs])} "
            f"| {np.mean([r.floods for r in runs]):.1%} |"
        )
    lines.append("")
    for family in shown:
        lines += of_family(family, found[family.name])
    if NOISE.name in found:
        lines += of_noise(found[NOISE.name])
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run the worlds and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=[f.name for f in (*FAMILIES, NOISE)])
    parser.add_argument("--first", type=int, default=FIRST, help="first seed")
    parser.add_argument("--seeds", type=int, default=10, help="worlds of each family")
    parser.add_argument("--noise", type=int, default=40, help="worlds of noise")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--runs", type=Path, help="a folder that keeps finished runs between calls")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "families.md")
    given = parser.parse_args()
    tasks = [
        (family.name, given.first + number, given.runs)
        for family in (*FAMILIES, NOISE)
        if family.name in given.families
        for number in range(given.noise if family is NOISE else given.seeds)
    ]
    found: dict[str, list[Run]] = {}
    # Not forked: threads of LightGBM and numba do not survive a fork.
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool:
        for done in pool.map(kept_or_run, tasks):
            found.setdefault(done.family, []).append(done)
            print(
                f"{done.family} {done.seed}: reached {done.reached():.3f}, {done.best_contender} "
                f"{done.reached(done.best_contender):.3f}, decile error {done.decile_bias:.3f}, "
                f"floods {done.floods:.1%}, {done.seconds:.0f} s",
                flush=True,
            )
    given.out.write_text(page(found), encoding="utf-8")
    print(given.out.read_text(encoding="utf-8"))


def kept_or_run(task: tuple[str, int, Path | None]) -> Run:
    """The run of a world, from the folder if it is there. The family goes by its name: generators cannot be pickled."""
    name, seed, folder = task
    family = next(family for family in (*FAMILIES, NOISE) if family.name == name)
    path = folder / f"{name}-{seed}.json" if folder else None
    if path is not None and path.exists():
        return Run(**json.loads(path.read_text(encoding="utf-8")))
    done = run((family, seed))
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(done)), encoding="utf-8")
    return done


if __name__ == "__main__":
    main()
