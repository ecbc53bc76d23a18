"""heed beside its rivals on the same replay: same cuts, same outcomes, same judge.

    python -m benchmarks.peers wolfi servicenow                     # prints; add --scores DIR for the judge's files
    python -m benchmarks.peers servicenow --first 2016-03-21 --until 2016-06-01 --every 14

Belongs here: the rivals (a recipe written in an afternoon, naive trees, a ridge logistic), each taught at every cut
on the outcomes that were mature then, and the table that compares them with heed's mixture and with every baseline in
hindsight. Does not belong here: heed's learning (`dagster_project/triage`), the data (kept beside the project).

The rival to beat: LightGBM with the lifelong history of rule, entity, team and every categorical attribute; a logistic
regression on words; the past rate of the rule; the mean of their log-odds. Nothing of it is tuned.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.wolfi import read_wolfi
from dagster_project.settings import Settings
from dagster_project.triage import metrics
from dagster_project.triage.baselines import fit_baselines
from dagster_project.triage.exclusion import known_by
from dagster_project.triage.flags import find_flags
from dagster_project.triage.learning.mixed import learn_mixed, remembering
from dagster_project.triage.model import LearningSettings, horizon_ends, rule_day_blocks
from dagster_project.triage.replay import cuts_between
from dagster_project.triage.steps import build_features, training_frame

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
RULES = pd.DataFrame(columns=["rule", "title", "team", "declared_visibility_only", "created_at"])
REPLICATES = 1_000


@dataclass(frozen=True)
class Case:
    """A set of real alerts and the cuts of its replay."""

    name: str
    first: datetime
    until: datetime
    every: timedelta


CASES = {
    "wolfi": Case("wolfi", datetime(2024, 7, 1, tzinfo=UTC), datetime(2025, 5, 1, tzinfo=UTC), timedelta(days=14)),
    "servicenow": Case(
        "servicenow", datetime(2016, 3, 21, tzinfo=UTC), datetime(2016, 6, 1, tzinfo=UTC), timedelta(days=14)
    ),
}


def read(name: str, horizon: timedelta) -> pd.DataFrame:
    """One row per alert in order of time, with the columns of the contract, `acted`, `known_at` and
    `horizon_ends_at`."""
    if name == "wolfi":
        return read_wolfi(DATA / name).assign(severity=None, value=None, threshold=None, title=None)
    folder = DATA / name
    alerts = pd.read_csv(folder / "alerts.csv.gz", dtype="str").drop_duplicates("alert_id")
    alerts = alerts[alerts["rule"].notna()].reset_index(drop=True)
    contract = ["alert_id", "raised_at", "rule", "entity", "team", "severity"]
    rest = alerts.drop(columns=contract)
    alerts = alerts[contract].assign(value=None, threshold=None, title=None)
    alerts["attributes"] = [
        json.dumps({key: value for key, value in row.items() if isinstance(value, str)})
        for row in rest.to_dict("records")
    ]
    alerts["raised_at"] = pd.to_datetime(alerts["raised_at"], utc=True).dt.as_unit("us")
    alerts["horizon_ends_at"] = alerts["raised_at"] + pd.Timedelta(horizon)
    meaning = pd.read_csv(folder / "action_types.csv").set_index("action_type")["meaning"]
    actions = pd.read_csv(folder / "actions.csv.gz", dtype="str")
    actions["acted_at"] = pd.to_datetime(actions["acted_at"], utc=True).dt.as_unit("us")
    actions["meaning"] = actions["action_type"].map(meaning)
    decisive = actions[actions["meaning"].isin(["acted", "dismissed"])].merge(alerts, on="alert_id")
    within = decisive["acted_at"].between(decisive["raised_at"], decisive["horizon_ends_at"])
    first = decisive[within].sort_values("acted_at", kind="stable").drop_duplicates("alert_id").set_index("alert_id")
    alerts["known_at"] = alerts["alert_id"].map(first["acted_at"]).fillna(alerts["horizon_ends_at"])
    alerts["acted"] = alerts["alert_id"].map(first["meaning"] == "acted").fillna(False).astype(float)
    return alerts.sort_values(["raised_at", "alert_id"], ignore_index=True)


# ------------------------------------------------------------------------------------------------------- the rivals


def afternoon_trees(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame) -> np.ndarray:
    """LightGBM as it comes, on every history column, the hour, the weekday and the names as categories."""
    import lightgbm as lgb

    columns = [c for c in past.columns if past[c].dtype == np.float32]
    both = pd.concat([past, later], ignore_index=True)
    table = both[columns].copy()
    table["hour"], table["weekday"] = both["raised_at"].dt.hour, both["raised_at"].dt.day_of_week
    for name in ("rule", "entity", "team", "severity"):
        codes = pd.Index(past[name].dropna().unique())
        table[name] = pd.Categorical.from_codes(codes.get_indexer(both[name]), codes)
    n = len(past)
    model = lgb.LGBMClassifier(
        n_estimators=200, learning_rate=0.03, num_leaves=15, min_child_samples=30, colsample_bytree=0.5,
        subsample=0.8, subsample_freq=1, reg_lambda=5.0, random_state=1, n_jobs=1, verbosity=-1,
    ).fit(table.iloc[:n], acted)  # fmt: skip
    return metrics.clip_probability(model.predict_proba(table.iloc[n:])[:, 1], 1e-3)


def word_logistic(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame) -> np.ndarray:
    """scikit-learn's logistic regression on hashed words of every name, attribute and title."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    def text(frame: pd.DataFrame) -> list[str]:
        columns = [
            frame[c].fillna("").astype(str) for c in ("rule", "entity", "team", "severity", "title", "attributes")
        ]
        return [" ".join(f"{i}_{v}" for i, v in enumerate(row)) for row in zip(*columns, strict=True)]

    hashing = HashingVectorizer(n_features=2**18, alternate_sign=False, ngram_range=(1, 2))
    model = LogisticRegression(C=1.0, max_iter=300).fit(hashing.transform(text(past)), acted)
    return metrics.clip_probability(model.predict_proba(hashing.transform(text(later)))[:, 1], 1e-3)


def ridge_on_rates(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame) -> np.ndarray:
    """scikit-learn's logistic regression on standardised shrunk log-odds of every key, at every window."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    rate = (acted.sum() + 0.5) / (len(acted) + 1)
    names = [c for c in past.columns if "_acted_count" in c]

    def design(frame: pd.DataFrame) -> np.ndarray:
        made = []
        for name in names:
            k = frame[name].to_numpy(np.float64)
            n = frame[name.replace("_acted_count", "_known_count")].to_numpy(np.float64)
            made.append(metrics.logit((np.nan_to_num(k) + 3 * rate) / (np.nan_to_num(n) + 3)))
        return np.column_stack(made)

    scaler = StandardScaler().fit(design(past))
    model = LogisticRegression(C=0.1, max_iter=500).fit(scaler.transform(design(past)), acted)
    return metrics.clip_probability(model.predict_proba(scaler.transform(design(later)))[:, 1], 1e-3)


def rivals(past: pd.DataFrame, acted: np.ndarray, later: pd.DataFrame, rule_rate: np.ndarray) -> dict[str, np.ndarray]:
    """What each rival says about `later`; the rule's rate where there is only one kind of outcome."""
    if len(acted) < 20 or acted.min() == acted.max():
        return {
            name: rule_rate for name in ("peer: trees", "peer: words", "peer: ridge on rates", "peer: afternoon recipe")
        }
    made = {
        "peer: trees": afternoon_trees(past, acted, later),
        "peer: words": word_logistic(past, acted, later),
        "peer: ridge on rates": ridge_on_rates(past, acted, later),
    }
    parts = [made["peer: trees"], made["peer: words"], rule_rate]
    made["peer: afternoon recipe"] = metrics.expit(np.mean([metrics.logit(p) for p in parts], axis=0))
    return made


# --------------------------------------------------------------------------------------------------------- the walk


def walk(
    whole: pd.DataFrame, case: Case, settings: LearningSettings, with_rivals: bool = True
) -> Iterator[tuple[datetime, pd.DataFrame, dict[str, Any]]]:
    """Per cut: the cut, the alerts raised until the next one with a column per contender, and the evidence."""
    history = whole[whole["raised_at"] < case.until].copy()
    late = history["known_at"] > case.until
    history.loc[late, "acted"], history.loc[late, "known_at"] = np.nan, pd.NaT
    flags = find_flags(history, RULES, case.until)
    settings = remembering(settings, history[history["raised_at"] < case.first])
    begin = history["raised_at"].min().to_pydatetime()
    table = build_features(history, *flags, begin, case.until, settings.features)
    truth = whole.set_index("alert_id")["acted"]
    for cut in cuts_between(case.first, case.until, case.every):
        frame = training_frame(table, history, *(known_by(f, cut) for f in flags), cut=cut, training_days=36_500)
        window = (table["raised_at"] >= cut) & (table["raised_at"] < min(cut + case.every, case.until))
        later = table[window].reset_index(drop=True)
        learned = learn_mixed(frame, cut, settings)
        made = {"heed": learned.model.predict(later)}
        counted = ~frame["excluded"].to_numpy(dtype=bool)
        ripe = (horizon_ends(frame, settings.horizon) <= pd.Timestamp(cut)).to_numpy()
        past = frame[counted & ripe].reset_index(drop=True)
        acted = past["acted"].to_numpy(dtype=np.float64)
        made |= {n: b.predict(later) for n, b in fit_baselines(past, acted, settings.features).items()}
        mixed = learned.model
        if hasattr(mixed, "forecasts"):
            made |= {f"part: {n}": p for n, p in mixed.forecasts(later).items() if n not in made}
        if with_rivals:
            made |= rivals(past, acted, later, made["rate_per_rule"])
        facts = later[["alert_id", "raised_at", "rule", "entity", "team"]]
        y = truth.reindex(later["alert_id"]).to_numpy()
        yield cut, facts.assign(acted=y, cut=cut, learned_from=len(past), **made), dict(mixed.evidence)


def compared(rows: pd.DataFrame, names: list[str]) -> list[str]:
    """One line per contender: log-loss, gain over the best baseline in hindsight with its interval, AUC, decile
    error."""
    y, blocks = rows["acted"].to_numpy(dtype=np.float64), rule_day_blocks(rows)
    losses = {name: metrics.log_losses(rows[name].to_numpy(), y) for name in names}
    simple = [n for n in names if n.startswith(("rate_per_", "repeat_last_", "constant", "always", "logistic"))]
    best = min(simple, key=lambda name: losses[name].mean())
    lines = [f"{len(rows):,} alerts, {y.mean():.1%} acted on; best baseline in hindsight: {best}"]
    lines += [
        "| contender | log-loss | over the best baseline | heed gains over it | AUC | decile error |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in sorted(names, key=lambda n: losses[n].mean()):
        gains = []
        for ours, theirs in ((losses[name], losses[best]), (losses["heed"], losses[name])):
            low, high = metrics.interval(
                lambda w, a=ours, b=theirs: 1 - float(np.dot(w, a) / np.dot(w, b)), blocks, REPLICATES, 0
            )
            gains.append(f"{1 - ours.mean() / theirs.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
        p = rows[name].to_numpy()
        lines.append(
            f"| {name} | {losses[name].mean():.4f} | {gains[0]} | {gains[1]} | {metrics.roc_auc(p, y):.3f} "
            f"| {metrics.decile_error(p, y):.3f} |"
        )
    return lines


def main() -> None:
    """Walk, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=sorted(CASES))
    parser.add_argument("--first", type=lambda t: datetime.fromisoformat(t).replace(tzinfo=UTC))
    parser.add_argument("--until", type=lambda t: datetime.fromisoformat(t).replace(tzinfo=UTC))
    parser.add_argument("--every", type=int, help="days")
    parser.add_argument("--scores", type=Path, help="a directory for one parquet file per contender, for a judge")
    chosen = parser.parse_args()
    for name in chosen.names:
        case = CASES[name]
        case = replace(
            case,
            first=chosen.first or case.first,
            until=chosen.until or case.until,
            every=timedelta(days=chosen.every) if chosen.every else case.every,
        )
        settings = replace(Settings().learning_settings(), mixture=True, threads=1)
        parts = []
        for cut, rows, evidence in walk(read(name, settings.horizon), case, settings):
            parts.append(rows)
            told = evidence.get("mixture", {})
            print(f"{cut:%Y-%m-%d} {len(rows)} alerts, {time.process_time():.0f} s  {told}", flush=True)
            if chosen.scores:
                pd.concat(parts, ignore_index=True).to_parquet(chosen.scores / f"{name}.parquet")
        rows = pd.concat(parts, ignore_index=True)
        mature = rows["raised_at"] + pd.Timedelta(settings.horizon) <= case.until
        names = [c for c in rows.columns[rows.notna().all()] if rows[c].dtype == np.float64 and c != "acted"]
        print(f"\n## {name}\n", *compared(rows[mature].reset_index(drop=True), names), sep="\n")


if __name__ == "__main__":
    main()
