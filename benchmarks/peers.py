"""What others reach on the same real alerts: peers in heed's replay, with the same cuts, outcomes and judge.

    python -m benchmarks.peers --scores FOLDER     # about 15 minutes for each set; writes benchmarks/peers.md

Belongs here: peers that a data scientist would write in an afternoon, with nothing tuned, and the page.
Does not belong here: the data (not part of heed), heed's learning (`dagster_project/triage`), simulated companies
(`learning.py`).

A peer learns at each cut from the same alerts as heed, with the history features that heed computes, and forecasts the
alerts until the next cut. CatBoost is a peer where it is installed (`make benchmark-peers` installs it).
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.real_leaks import read_servicenow
from benchmarks.wolfi import DATA, read_wolfi
from dagster_project.settings import Settings
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.matrix import plan_columns
from dagster_project.triage.flags.exclusion import known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.mixture.dense import dense_columns, dense_matrix
from dagster_project.triage.pipeline import training_frame, with_proposed_keys
from dagster_project.triage.replay import cuts_between, replay

ROOT = Path(__file__).resolve().parents[1]
RULES = pd.DataFrame(columns=["rule", "title", "team", "declared_visibility_only", "created_at"])
EVERY = timedelta(days=14)
SETS = {
    "service desk": (
        read_servicenow,
        "servicenow",
        datetime(2016, 3, 21, tzinfo=UTC),
        datetime(2016, 6, 1, tzinfo=UTC),
    ),
    "packages": (read_wolfi, "wolfi", datetime(2024, 7, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC)),
}
Peer = Callable[[pd.DataFrame, np.ndarray, pd.DataFrame, FeatureSettings], np.ndarray]


def boosting(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """LightGBM as its guide begins: 200 trees, learning rate 0.05, names as categories, all history columns."""
    import lightgbm

    plan = plan_columns(past, settings)
    data = lightgbm.Dataset(plan.matrix(past), acted, categorical_feature=plan.categorical)
    booster = lightgbm.train({"objective": "binary", "learning_rate": 0.05, "verbose": -1, "num_threads": 1}, data, 200)
    return np.asarray(booster.predict(plan.matrix(later)))


def ridge(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """Ridge logistic regression of scikit-learn on the shrunk log-odds of all rates, penalty by cross-validation."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    columns, rate = dense_columns(settings), float(acted.mean())
    model = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=5, cv=5, l1_ratios=(0,), scoring="neg_log_loss", max_iter=2_000, use_legacy_attributes=False
        ),
    )
    model.fit(dense_matrix(past, columns, rate), acted)
    return np.asarray(model.predict_proba(dense_matrix(later, columns, rate))[:, 1])


def words(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """Logistic regression on the words of all texts and names."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    def text(frame: pd.DataFrame) -> list[str]:
        parts = [
            frame[n].astype(object).fillna("") for n in ("rule", "entity", "team", "severity", "title", "attributes")
        ]
        return [" ".join(map(str, row)) for row in zip(*parts, strict=True)]

    reader = TfidfVectorizer(min_df=2, sublinear_tf=True)
    model = LogisticRegression(max_iter=2_000).fit(reader.fit_transform(text(past)), acted)
    return np.asarray(model.predict_proba(reader.transform(text(later)))[:, 1])


def rate_of_rule(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """The share acted of the rule over its whole life, mixed with three alerts at the overall share."""
    known, hits = (
        later[name].fillna(0).to_numpy(dtype=np.float64) for name in ("rule_known_count", "rule_acted_count")
    )
    return (hits + 3 * acted.mean()) / (known + 3)


def recipe(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """The mean log-odds of boosting, words and the rate of the rule."""
    parts = [peer(past, acted, later, settings) for peer in (boosting, words, rate_of_rule)]
    return metrics.expit(np.mean([metrics.logit(metrics.clip_probability(p, 1e-3)) for p in parts], axis=0))


def catboost(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """CatBoost's defaults on names and history columns; its ordered statistics encode the names."""
    from catboost import CatBoostClassifier

    names = [n for n in ("rule", "entity", "team", "severity") if past[n].notna().any()]
    history = [c for c in past if c.startswith(("rule_", "entity_", "team_", "all_"))]

    def table(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[names].astype(object).fillna("none").astype(str).join(frame[history].astype(np.float64))

    model = CatBoostClassifier(iterations=300, verbose=False, allow_writing_files=False, random_seed=0, thread_count=1)
    model.fit(table(past), acted, cat_features=names)
    return np.asarray(model.predict_proba(table(later))[:, 1])


PEERS: dict[str, Peer] = {
    "rate of the rule": rate_of_rule,
    "ridge logistic on rates": ridge,
    "LightGBM with history": boosting,
    "the recipe: boosting, words, rate of the rule": recipe,
}
if find_spec("catboost"):
    PEERS["CatBoost"] = catboost


def forecasts(history: pd.DataFrame, first: datetime, until: datetime, settings: Settings) -> pd.DataFrame:
    """alert_id and the probability of every peer, for the alerts raised in [first, until)."""
    learning = settings.learning_settings()
    features_of = with_proposed_keys(learning, history[history["raised_at"] < first]).features
    flags = find_flags(history, RULES, until)
    begin = history["raised_at"].min().to_pydatetime()
    features = build_features(history, *flags, begin, until, features_of)
    parts = []
    for cut in cuts_between(first, until, EVERY):
        then = [known_by(flag, cut) for flag in flags]
        past = training_frame(features, history, *then, cut=cut, training_days=settings.learning.training_days)
        past = past[past["raised_at"] + learning.horizon <= pd.Timestamp(cut)].reset_index(drop=True)
        later = features[(features["raised_at"] >= cut) & (features["raised_at"] < min(cut + EVERY, until))]
        acted = past["acted"].to_numpy(dtype=np.float64)
        by_peer = {name: peer(past, acted, later, features_of) for name, peer in PEERS.items()}
        parts.append(pd.DataFrame({"alert_id": later["alert_id"].to_numpy(), **by_peer}))
    return pd.concat(parts, ignore_index=True)


def compared(
    title: str, scores: pd.DataFrame, peers: pd.DataFrame, history: pd.DataFrame, until: datetime
) -> list[str]:
    """A table: log-loss, what heed gains over each with its interval over rule-days, AUC, decile error."""
    facts = scores[["alert_id", "probability"]].merge(peers, on="alert_id").merge(history, on="alert_id")
    facts = facts[facts["horizon_ends_at"] <= until]
    acted, blocks = facts["acted"].to_numpy(dtype=np.float64), rule_day_blocks(facts)
    heed = metrics.log_losses(facts["probability"].to_numpy(), acted)
    lines = [
        f"## {title}: {len(facts):,} alerts, {acted.mean():.1%} acted on",
        "",
        "| contender | log-loss | heed's gain over it | AUC | decile error |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in ("probability", *peers.columns.drop("alert_id")):
        forecast = metrics.clip_probability(facts[name].to_numpy(dtype=np.float64))
        losses = metrics.log_losses(forecast, acted)
        gain = 1 - heed.mean() / losses.mean()
        low, high = metrics.interval(
            lambda w, other=losses: 1 - float(np.dot(w, heed) / np.dot(w, other)), blocks, 1_000, 0
        )
        gained = "" if name == "probability" else f"{gain:+.1%} [{low:.1%}, {high:.1%}]"
        lines.append(
            f"| {'heed' if name == 'probability' else name} | {losses.mean():.4f} | {gained} "
            f"| {metrics.roc_auc(forecast, acted):.3f} | {metrics.decile_error(forecast, acted):.3f} |"
        )
    return [*lines, ""]


def main() -> None:
    """Replay, let the peers forecast, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--scores", type=Path, help="a folder that keeps heed's replays between calls")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "peers.md")
    arguments = parser.parse_args()
    settings = Settings()
    libraries = ["lightgbm", "scikit-learn", *(["catboost"] if find_spec("catboost") else [])]
    lines = [
        "# Peers on real alerts",
        "",
        f"Made by `make benchmark-peers`; {platform.machine()}, Python {platform.python_version()}, "
        + ", ".join(f"{name} {version(name)}" for name in libraries)
        + f". Everybody learns again every {EVERY.days} days, from the same alerts and outcomes; nothing is tuned for "
        "these alerts. All alerts count whose horizon was over, flagged ones included. Intervals: bootstrap over "
        "rule-days, 95%. The recipes, starting weights and sharpening of heed's pool were chosen with these alerts in "
        "view; peers were not tuned.",
        "",
    ]
    for name in arguments.sets:
        read, folder, first, until = SETS[name]
        history = read(DATA.parent / folder)
        missing = [c for c in ("severity", "value", "threshold", "title") if c not in history]
        history = history.assign(**dict.fromkeys(missing))
        if "horizon_ends_at" not in history:
            history["horizon_ends_at"] = history["raised_at"] + pd.Timedelta(settings.learning_settings().horizon)
        history = history[history["raised_at"] < until].reset_index(drop=True)
        kept = arguments.scores / f"{folder}.parquet" if arguments.scores else None
        began = time.perf_counter()
        if kept is not None and kept.exists():
            scores = pd.read_parquet(kept)
        else:
            learning = settings.learning_settings()
            scores, _ = replay(history, RULES, first, until, EVERY, learning, settings.learning.training_days)
            if kept is not None:
                scores.to_parquet(kept)
        peers = forecasts(history, first, until, settings)
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
        lines += compared(name, scores, peers, history, until)
        arguments.out.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
