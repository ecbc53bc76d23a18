"""Small simulated worlds as the audits get them: history, features, training frame.

Belongs here: what `benchmarks/trust.py` and the tests of the audits share.
Does not belong here: leaks (`planted_leaks.py`), and anything that production uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from benchmarks.worlds import history_of, teams_of
from dagster_project.simulator import WorldConfig, simulate
from dagster_project.triage.audit.findings import LEAK, SUSPICIOUS
from dagster_project.triage.audit.reference_learner import FitPredict, trainable
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.flags.floods import detect_floods
from dagster_project.triage.flags.visibility import declare_visibility_only
from dagster_project.triage.learning.baselines import fit_baselines
from dagster_project.triage.pipeline import training_frame

SETTINGS = FeatureSettings()
FORECAST_FACTS = ("alert_id", "raised_at", "rule", "entity", "team", "severity", "acted", "excluded")


@dataclass(frozen=True)
class AuditWorld:
    """One world at its end: what is known, its features, and the truth beside it."""

    history: pd.DataFrame
    features: pd.DataFrame
    frame: pd.DataFrame
    truth: pd.DataFrame
    teams: pd.DataFrame
    cut: pd.Timestamp


def rebuild(history: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
    """Features as production builds them, without flags."""
    nothing = history.iloc[:0]
    return build_features(
        history, detect_floods(nothing, until), declare_visibility_only(nothing, None, until), first, until, SETTINGS
    )


def framed(features: pd.DataFrame, history: pd.DataFrame, cut: pd.Timestamp, truth: pd.DataFrame) -> pd.DataFrame:
    """The training frame; what a bug made and rules nobody acts on by design are excluded."""
    nothing = history.iloc[:0]
    frame = training_frame(
        features, history, detect_floods(nothing, cut), declare_visibility_only(nothing, None, cut), cut, 10_000
    )
    flagged = truth["is_flood"] | truth["is_visibility_only"]
    frame["excluded"] = frame["alert_id"].isin(truth["alert_id"][flagged]).to_numpy()
    return frame


def audit_world(
    seed: int = 1, alerts: int = 6_000, days: int = 150, predictability: str = "mixed", ties: str | None = None, **more
) -> AuditWorld:
    """A world; `ties` rounds the times of raising and knowing ("10min"), so that many are equal."""
    world = simulate(WorldConfig(seed=seed, alerts=alerts, days=days, predictability=predictability, **more))
    cut = pd.Timestamp(world.config.end)
    history = history_of(world, as_of=cut)
    if ties:
        history["raised_at"] = history["raised_at"].dt.floor(ties)
        # Answers are rounded up: nothing is known before it was raised.
        history["known_at"] = history["known_at"].dt.ceil(ties)
        history.loc[history["known_at"] > cut, ["acted", "known_at"]] = [np.nan, pd.NaT]
    first = history["raised_at"].min() - timedelta(days=1)
    features = rebuild(history, first.to_pydatetime(warn=False), cut.to_pydatetime(warn=False))
    return AuditWorld(history, features, framed(features, history, cut, world.truth), world.truth, teams_of(world), cut)


def accused(findings: pd.DataFrame) -> pd.DataFrame:
    """The rows of an audit with the verdict 'suspicious' or 'leak'."""
    return findings[findings["verdict"].isin([SUSPICIOUS, LEAK])]


def rolling_forecasts(
    frame: pd.DataFrame,
    fit_predict: FitPredict,
    settings: FeatureSettings,
    *,
    folds: int = 4,
    first_share: float = 0.4,
    horizon: timedelta = timedelta(days=14),
) -> pd.DataFrame:
    """Forecasts of alerts by learners that were trained before them (rolling origin, purged).

    Parameters
    ----------
    frame : as `training_frame` returns it, in any order.
    folds : equally many alerts each, one after the other. first_share : of the alerts, before the first fold.
    horizon : only alerts raised at least this long before a cut are trained on; younger ones are known early
        only because somebody was quick.

    Returns
    -------
    One row per alert raised after the first cut, in order of time: `FORECAST_FACTS`, fold (int64, from 0), `model`
    and one column per baseline: float64 probabilities.
    """
    ordered = frame.sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
    edges = np.linspace(first_share, 1.0, folds + 1) * len(ordered)
    parts = []
    for fold, (start, end) in enumerate(zip(edges[:-1].astype(int), edges[1:].astype(int), strict=True)):
        test = ordered.iloc[start:end]
        if not len(test):
            continue
        cut = test["raised_at"].iloc[0]
        past = ordered[(ordered["raised_at"] + horizon <= cut) & (ordered["known_at"] < cut)]
        rows = test[list(FORECAST_FACTS)].assign(fold=fold)
        rows[MODEL] = fit_predict(past, test)
        known = trainable(past)
        for name, baseline in fit_baselines(known, known["acted"].to_numpy(np.float64), settings).items():
            rows[name] = baseline.predict(test)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True)
