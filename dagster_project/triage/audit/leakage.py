"""The leakage audit: does anything the model learns from know what was not known when the alert was raised?

Belongs here: the whole audit in one call, and the checks of whole data sets: duplicates across a cut, forecasts that
do not follow time, and the control with shuffled outcomes.
Does not belong here: features built again without the future (`audit/recomputation.py`), single facts
(`audit/single_feature.py`), and whether the model merely repeats habits (`audit/shortcut.py`).

The checks follow the kinds of leakage of Kapoor and Narayanan (2023): no separation of training and test
(duplicates, split), illegitimate features (single facts, ids and times, known later, encodings), and temporal leakage
(future removed, definition, split). Shuffled outcomes are a control for everything that none of them looks for.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.audit.findings import CLEAN, LEAK, NOT_CHECKED, SUSPICIOUS, VOUCHED, Finding, table
from dagster_project.triage.audit.recomputation import Rebuild, by_definition, future_removed, raised_before
from dagster_project.triage.audit.reference_learner import FitPredict, reference_learner, trainable
from dagster_project.triage.audit.single_feature import CLEAR, halve, list_suspects, without
from dagster_project.triage.audit.withholding import COLUMN_CHECKS, check_columns, extra_numbers, is_vouched, source_of
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.features.attributes import attribute_columns
from dagster_project.triage.features.contract import FeatureSettings

DUPLICATES = "duplicates across the cut"
SPLIT = "split in time"
SHUFFLED = "shuffled outcomes"

# An AUC on shuffled outcomes up to this is not worth an accusation, and below it the standard error decides nothing.
# In 64 clean worlds (seeds 1,000 to 1,015, four modes, 6,000 alerts) it was never exceeded.
SHUFFLED_LIMIT = 0.53
# Copies of alerts on both sides matter from this share of the later alerts on: when the answers of 1% are known, an AUC
# of 0.80 becomes at most 0.804.
DUPLICATE_SHARE = 0.01
DUPLICATE_MINIMUM = 20


@dataclass(frozen=True)
class AuditSettings:
    """How to audit.

    features : the history features that the frame holds. horizon : how long an answer counts.
    cuts, ties, sample : see `recomputation.future_removed` and `recomputation.by_definition`.
    shuffles : runs with shuffled outcomes; each rebuilds all features and trains one reference learner.
    most_alerts : learners and single facts use at most so many alerts, the latest ones.
    threads : CPU threads; findings do not depend on them.
    withheld : columns withheld from learning; they are not checked.
    known_at_raise : columns that a person vouches for; what would be a leak has the verdict 'vouched'.
    """

    features: FeatureSettings = field(default_factory=FeatureSettings)
    horizon: timedelta = timedelta(days=14)
    cuts: int = 6
    ties: int = 8
    sample: int = 150
    shuffles: int = 2
    most_alerts: int = 50_000
    replicates: int = 60
    seed: int = 20_250_101
    threads: int = 1
    withheld: tuple[str, ...] = ()
    known_at_raise: tuple[str, ...] = ()


def audit_leakage(
    frame: pd.DataFrame,
    history: pd.DataFrame,
    cut: pd.Timestamp,
    *,
    rebuild: Rebuild | None = None,
    forecasts: pd.DataFrame | None = None,
    fit_predict: FitPredict | None = None,
    settings: AuditSettings | None = None,
    history_from: pd.Timestamp | None = None,
) -> pd.DataFrame:
    """Audit what a candidate learns from.

    frame : as `training_frame` returns it at `cut`; additional columns are audited like attributes.
    history : alerts raised before `cut` with the facts of today, open ones included; `acted` and `known_at` null where
        the outcome is not known at `cut`.
    cut : the as-of of the training, UTC.
    rebuild : how features are built from a history; without it nothing is built again and outcomes are shuffled in
        the frame only.
    forecasts : the rolling-origin forecasts (`alert_id`, `raised_at`, `fold`); without them the split is not checked.
    fit_predict : the learner of the controls; `reference_learner` by default.
    history_from : the history holds all alerts raised since then (one lookback and one horizon after that it holds
        everything that features look at); None: it goes back to the beginning.
    Returns: One row per finding: check, subject, finding (in words), value, limit (float64), verdict ('clean',
        'suspicious', 'leak', 'not checked'). Every check has at least one row. The same input and seed give the same
        rows.
    """
    chosen = settings or AuditSettings()
    features = chosen.features
    learner = fit_predict or reference_learner(features, extra=extra_numbers(frame, features), threads=chosen.threads)
    past = raised_before(history, cut)
    trusted = None if history_from is None else pd.Timestamp(history_from) + features.lookback + chosen.horizon
    # Positions are sorted, not rows: the frame is wide.
    times = (
        frame[["raised_at", "alert_id"]].reset_index(drop=True).sort_values(["raised_at", "alert_id"], kind="stable")
    )
    latest = frame.iloc[times.index[-chosen.most_alerts :]]
    findings: list[Finding] = []
    if rebuild is None:
        text = "no way to build features again was given"
        findings.append(Finding("future removed", "features", text, float("nan"), float("nan"), NOT_CHECKED))
    else:
        findings += future_removed(
            frame, past, rebuild, cuts=chosen.cuts, ties=chosen.ties, seed=chosen.seed, trusted_from=trusted
        )
    findings += by_definition(frame, past, features, sample=chosen.sample, seed=chosen.seed, trusted_from=trusted)
    findings += check_columns(
        latest, frame, past, cut, features, chosen.horizon, learner,
        withheld=chosen.withheld, replicates=chosen.replicates, seed=chosen.seed,
    )  # fmt: skip
    # The controls of whole data sets see only what learning sees.
    bare = without(latest, chosen.withheld, features)
    findings += duplicates(bare, features)
    findings += split_in_time(frame, forecasts)
    findings += shuffled_outcomes(bare, past, cut, learner, rebuild, chosen)
    return table([_vouched(f) if f.verdict == LEAK and f.check in COLUMN_CHECKS
                  and is_vouched(source_of(f.subject), chosen.known_at_raise) else f for f in findings])  # fmt: skip


def _vouched(finding: Finding) -> Finding:
    return replace(
        finding, verdict=VOUCHED, finding=f"{finding.finding}; a person vouches that it is known at the raise"
    )


def duplicates(frame: pd.DataFrame, settings: FeatureSettings) -> list[Finding]:
    """The same alert on both sides of a cut.

    Two readings: one `alert_id` in several rows; and later alerts with exactly the facts (attributes included, ids
    among them not) of an earlier one, which agree in their outcome more often than alerts of the same rule and entity
    with other facts do. The second part matters: alarms repeat, honestly, and repeated alarms about one thing often
    end alike.
    """
    ordered = trainable(frame).sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
    findings = []
    twice = ordered["alert_id"].duplicated()
    if twice.any():
        text = f"{int(twice.sum())} rows repeat an alert_id"
        findings.append(Finding(DUPLICATES, "alert_id", text, float(twice.mean()), 0.0, LEAK))
    parts = halve(ordered)
    if parts is None:
        text = "too few known outcomes to divide in time"
        return findings or [Finding(DUPLICATES, "rows", text, float("nan"), float("nan"), NOT_CHECKED)]
    rows = parts.ordered
    used = parts.earlier | parts.later
    rows, later = rows[used].reset_index(drop=True), parts.later[used]
    facts = _facts_key(rows, settings)
    thing = pd.factorize(rows["rule"].astype(object).astype(str) + "\0" + rows["entity"].astype(object).astype(str))[0]
    y = rows["acted"].to_numpy(dtype=np.float64)
    same, same_agree = _earlier_match(facts, None, later, y)
    _, near_agree = _earlier_match(thing, facts, later, y)
    share = float(same.sum() / max(later.sum(), 1))
    agreement = float(same_agree[same].mean()) if same.any() else float("nan")
    near = near_agree[np.isfinite(near_agree)]
    rate = float(y.mean())
    expected = float(near.mean()) if len(near) >= DUPLICATE_MINIMUM else rate**2 + (1 - rate) ** 2
    error = np.sqrt(max(expected * (1 - expected), 0.01) * (1 / max(same.sum(), 1) + 1 / max(len(near), 1)))
    enough = same.sum() >= DUPLICATE_MINIMUM and share >= DUPLICATE_SHARE
    if enough and agreement - expected > CLEAR * error:
        text = (
            f"{int(same.sum())} later alerts ({share:.1%}) have exactly the facts of an earlier one, and "
            f"{agreement:.0%} of these end alike; of alerts about the same thing with other facts {expected:.0%} do"
        )
        findings.append(Finding(DUPLICATES, "rows", text, share, DUPLICATE_SHARE, LEAK))
    if not findings:
        text = f"{int(same.sum())} later alerts ({share:.1%}) have the facts of an earlier one"
        text += f", {agreement:.0%} of them end alike: no more than repeated alarms do" if same.any() else ""
        findings.append(Finding(DUPLICATES, "rows", text, share, DUPLICATE_SHARE, CLEAN))
    return findings


def _facts_key(rows: pd.DataFrame, settings: FeatureSettings) -> np.ndarray:
    """Codes of rows with equal facts; ids and times among the attributes do not count."""
    skipped = {s.source[1:] for s in list_suspects(rows, settings) if s.kind in ("id", "time") and s.source[0] == "@"}
    columns = [rows[n] for n in ("rule", "entity", "team", "severity", "value", "threshold", "title") if n in rows]
    if "attributes" in rows:
        parsed = attribute_columns(rows["attributes"])
        columns += [pd.Series(v, index=rows.index) for n, v in parsed.items() if n not in skipped]
    codes = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        mine = pd.factorize(column.astype(object))[0].astype(np.int64) + 1
        codes = pd.factorize(codes * (int(mine.max(initial=0)) + 1) + mine)[0].astype(np.int64)
    return codes


def _earlier_match(
    key: np.ndarray, other: np.ndarray | None, later: np.ndarray, acted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per row: is it later with an earlier row of its key, and does the outcome of the latest such row agree.

    With `other`, only where that row differs in `other`. Rows are in order of time.
    """
    last = pd.DataFrame({"key": key, "row": np.arange(len(key))})[~later].groupby("key")["row"].max()
    match = last.reindex(key).to_numpy(dtype=np.float64)
    has = later & np.isfinite(match)
    at = np.where(has, match, 0).astype(np.int64)
    if other is not None:
        has &= other != other[at]
    return has, np.where(has, (acted == acted[at]).astype(np.float64), np.nan)


def split_in_time(frame: pd.DataFrame, forecasts: pd.DataFrame | None) -> list[Finding]:
    """Do the folds of the forecasts follow each other in time?

    A random split puts alerts of all times into every fold. The value is the share of forecasts that lie in a time
    that another fold has already begun and not left: 0 for folds that follow each other, and for one fold.
    """
    if forecasts is None or not len(forecasts):
        return [Finding(SPLIT, "folds", "no forecasts were given", float("nan"), float("nan"), NOT_CHECKED)]
    spans = forecasts.groupby("fold")["raised_at"].agg(["min", "max"]).sort_values(["min", "max"])
    inside = 0
    for fold, span in spans.iterrows():
        rest = forecasts[forecasts["fold"] != fold]["raised_at"]
        inside += int(((rest > span["min"]) & (rest < span["max"])).sum())
    share = min(1.0, inside / len(forecasts))
    backwards = not spans.index.is_monotonic_increasing
    repeated = int(forecasts["alert_id"].duplicated().sum())
    if share > 0 or backwards or repeated:
        text = f"{share:.0%} of the forecasts lie within the time of another fold: alerts were not split in time"
        text = f"{repeated} alerts were forecast more than once" if repeated and not share else text
        text = "folds do not follow each other in time" if backwards and not share else text
        return [Finding(SPLIT, "folds", text, share, 0.0, LEAK)]
    preceded = frame["raised_at"].min() < spans["min"].min()
    text = f"{len(spans)} folds follow each other in time"
    text += "" if preceded else ", but no alert is older than the first of them"
    return [Finding(SPLIT, "folds", text, 0.0, 0.0, CLEAN if preceded else SUSPICIOUS)]


def shuffled_outcomes(
    frame: pd.DataFrame,
    history: pd.DataFrame,
    cut: pd.Timestamp,
    fit_predict: FitPredict,
    rebuild: Rebuild | None,
    settings: AuditSettings,
) -> list[Finding]:
    """The control: outcomes shuffled within weeks, everything built and learned again. No skill may remain.

    An outcome and its delay move together from one alert to another of the same week; features are built again from
    the shuffled history (so that features made of outcomes follow them), a learner is trained on the earlier part
    and tested on the later. Its AUC within weeks is 0.5 in expectation, whatever the alerts are; within weeks,
    because the share acted of a week stays and may honestly be guessed. More means that the outcome reaches the
    learner by a way that is not the past. Leak: above `SHUFFLED_LIMIT` and by `CLEAR` standard errors (Hanley and
    McNeil's for an AUC of one half, which suffices: shuffled outcomes are independent).
    """
    ordered = history.sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
    # Open alerts stay open; only known outcomes change places.
    known = ordered["acted"].notna().to_numpy() & ordered["known_at"].notna().to_numpy()
    excluded = set(frame.loc[frame["excluded"].astype(bool), "alert_id"]) if "excluded" in frame else set()
    known &= ~ordered["alert_id"].isin(excluded).to_numpy()
    week = (ordered["raised_at"].astype("int64").to_numpy() - ordered["raised_at"].astype("int64").min()) // (
        pd.Timedelta(days=7).value // (1 if str(ordered["raised_at"].dtype).startswith("datetime64[ns") else 1000)
    )
    observed, variance = [], []
    for run in range(settings.shuffles):
        rng = np.random.default_rng([settings.seed, run])
        source = np.arange(len(ordered))
        for rows in pd.Series(np.flatnonzero(known)).groupby(week[known]).groups.values():
            positions = np.flatnonzero(known)[np.asarray(rows)]
            source[positions] = rng.permutation(positions)
        delay = (ordered["known_at"] - ordered["raised_at"]).to_numpy()[source]
        shuffled = ordered.assign(
            acted=ordered["acted"].to_numpy(dtype=np.float64, na_value=np.nan)[source],
            known_at=(ordered["raised_at"] + pd.Series(delay)).mask(~known & ordered["known_at"].isna()),
        )
        mine = frame.drop(columns=["acted", "known_at"])
        if rebuild is not None and len(mine):
            first = mine["raised_at"].min().to_pydatetime(warn=False)
            rebuilt = rebuild(shuffled, first, cut.to_pydatetime(warn=False)).drop_duplicates("alert_id")
            again = [
                c for c in rebuilt.columns if c == "alert_id" or (c in mine and pd.api.types.is_float_dtype(rebuilt[c]))
            ]
            mine = mine.drop(columns=[c for c in again if c != "alert_id"]).merge(rebuilt[again], on="alert_id")
        answers = shuffled[["alert_id", "acted", "known_at"]].drop_duplicates("alert_id")
        parts = halve(mine.merge(answers, on="alert_id"))
        if parts is None:
            break
        p = fit_predict(parts.ordered[parts.earlier], parts.ordered[parts.later])
        tested = parts.ordered[parts.later]
        auc, error = _auc_within(p, tested["acted"].to_numpy(np.float64), _weeks(tested["raised_at"]))
        observed.append(auc)
        variance.append(error**2)
    if len(observed) < settings.shuffles or not observed or not np.isfinite(observed).all():
        text = "too few known outcomes to divide in time"
        return [Finding(SHUFFLED, "outcomes", text, float("nan"), float("nan"), NOT_CHECKED)]
    auc = float(np.mean(observed))
    error = float(np.sqrt(np.sum(variance)) / len(variance))
    limit = max(SHUFFLED_LIMIT, 0.5 + CLEAR * error)
    text = f"with outcomes shuffled within weeks the AUC within weeks is {auc:.3f} (standard error {error:.3f})"
    leak = auc > limit
    text += ": the outcome reaches the learner by another way than the past" if leak else ""
    return [Finding(SHUFFLED, "outcomes", text, auc, limit, LEAK if leak else CLEAN)]


def _weeks(raised: pd.Series) -> np.ndarray:
    return ((raised - raised.min()).dt.total_seconds().to_numpy() // (7 * 86_400)).astype(np.int64)


def _auc_within(p: np.ndarray, acted: np.ndarray, group: np.ndarray) -> tuple[float, float]:
    """(AUC over pairs of the same group, its standard error when there is nothing to rank)."""
    won = pairs = variance = 0.0
    for rows in pd.Series(np.arange(len(p))).groupby(group).groups.values():
        y = acted[np.asarray(rows)]
        a, b = float(y.sum()), float(len(y) - y.sum())
        if a and b:
            won += metrics.roc_auc(p[np.asarray(rows)], y) * a * b
            pairs += a * b
            variance += a * b * (a + b + 1) / 12
    return (won / pairs, float(np.sqrt(variance)) / pairs) if pairs else (float("nan"), float("nan"))
