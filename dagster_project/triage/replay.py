"""Replay: what production would have said, walking through time.

Belongs here: the walk. At each cut it calls the functions that production calls (flags, features, learning, the
decision about the champion) with what was known then. Columns that the audit calls leaks at a cut are withheld from
learning there, whatever later outcomes say.
Does not belong here: a second way to compute anything; reading and writing (`commands/replay.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.audit.withholding import Withholding, learn_without_leaks, withhold
from dagster_project.triage.champion.decide import Standing, decide_champion
from dagster_project.triage.champion.gate import Targets
from dagster_project.triage.champion.reading import as_read, learn_reading
from dagster_project.triage.evaluation import evidence
from dagster_project.triage.evaluation.measures import evaluate
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.features.build import build_features
from dagster_project.triage.features.contract import require_same_contract
from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.baselines import Baseline, fit_baselines
from dagster_project.triage.learning.model import Model
from dagster_project.triage.learning.past import usable_alerts
from dagster_project.triage.learning.settings import LearningSettings
from dagster_project.triage.pipeline import score, training_frame, with_proposed_keys, without_other_keys


@dataclass(frozen=True)
class ReplayStep:
    """One cut of a replay: the decision, how many alerts the champion scored, and what was withheld from learning."""

    cut: datetime
    model_version: str
    decision: str
    why: str
    alerts: int
    withholding: Withholding = field(default_factory=Withholding)


def cuts_between(first: datetime, until: datetime, every: timedelta) -> list[datetime]:
    """The moments of retraining: `first`, then one `every` so often, all before `until`."""
    if until <= first:
        raise HeedError("the replay ends before it begins", "give --to a later moment than --from")
    if every <= timedelta(0):
        raise HeedError("the replay's step is not positive", "write --every like 7d")
    return [first + every * number for number in range(int(np.ceil((until - first) / every)))]


def replay(
    history: pd.DataFrame,
    rules: pd.DataFrame,
    first: datetime,
    until: datetime,
    every: timedelta,
    settings: LearningSettings,
    training_days: float,
    tell: Callable[[ReplayStep, int, int], None] = lambda step, number, of: None,
    overrides: pd.DataFrame | None = None,
    targets: Targets | None = None,
    derive: Callable[..., pd.DataFrame] | None = None,
    on_open: Callable[[pd.DataFrame], None] | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score every alert raised in [first, until) as production would have at its `raised_at`.

    history : all alerts raised before `until` with `acted` and `known_at` as known at `until`.
    every : how often production retrains.
    tell : called after each step with the step, its number from 1 and how many there are.
    overrides : people's decisions about flags; each holds from its `created_at` on.
    targets : of the gate; None for its defaults.
    derive : as in `build_features`.
    on_open : called at each cut with the alerts that were open then, as `as_read` gives them.

    Returns
    -------
    scores : one row per alert, in order of time: alert_id, raised_at, model_cut, model_version, probability (never
        null), flood_at_scoring and visibility_only_at_scoring (as known at `raised_at`), flood and visibility_only (as
        decided by `until`), status.
    baselines : for the same rows, the probability of every baseline, fitted at the same cuts on the same past.
    """
    cuts = cuts_between(first, until, every)
    flood_days, visibility_only = find_flags(history, rules, until, overrides=overrides)
    # What each cut proposes depends on the facts of alerts raised before it; histories are computed once for all.
    ordered = history.sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
    at_cut = [with_proposed_keys(settings, ordered[ordered["raised_at"] < pd.Timestamp(cut)]) for cut in cuts]
    keys = tuple(dict.fromkeys(key for each in at_cut for key in each.features.attribute_keys))
    features = build_features(
        history,
        flood_days,
        visibility_only,
        first - timedelta(days=training_days),
        until,
        replace(settings.features, attribute_keys=keys),
        derive,
    )
    at_raise = flag_alerts(features, flood_days, visibility_only, as_of="at_raise")
    champion: Model | None = None
    parts: list[pd.DataFrame] = []
    baseline_parts: list[pd.DataFrame] = []
    for number, (cut, settings) in enumerate(zip(cuts, at_cut, strict=True), start=1):
        then = (known_by(flood_days, cut), known_by(visibility_only, cut))
        frame = training_frame(features, history, *then, cut=cut, training_days=training_days)
        own = without_other_keys(frame, settings, keys)
        withholding = withhold(own, history, cut, settings)
        learned = learn_without_leaks(own, cut, settings, withholding)
        outcome = decide_champion(
            learned.model,
            learned.forecasts,
            evidence.measure(learned.forecasts, headline_only=True),
            frame,
            Standing(champion.version, champion) if champion is not None else None,
            cut=cut,
            horizon=settings.horizon,
            targets=targets,
            withholding=withholding,
        )
        champion = outcome.scores
        assert champion is not None  # only a leak refuses a first candidate, and no leak is passed here
        require_same_contract(champion.contract, learned.model.contract)
        if on_open is not None:
            on_open(_open_alerts(features, history, champion, then, cut, training_days, settings))
        window = (features["raised_at"] >= cut) & (features["raised_at"] < min(cut + every, until))
        alerts = features[window].reset_index(drop=True)
        scores = score(champion, alerts, at_raise[window.to_numpy()])
        parts.append(scores.assign(model_cut=pd.Timestamp(champion.cut)))
        baselines = _baselines_at(frame, cut, replace(settings, withheld=tuple(withholding.withheld)))
        baseline_parts.append(pd.DataFrame({name: fitted.predict(alerts) for name, fitted in baselines.items()}))
        why = "; ".join(outcome.decision.reasons)
        step = ReplayStep(cut, champion.version, outcome.decision.decision, why, len(alerts), withholding)
        tell(step, number, len(cuts))
    replayed = pd.concat(parts, ignore_index=True).rename(
        columns={"flood": "flood_at_scoring", "visibility_only": "visibility_only_at_scoring"}
    )
    at_end = flag_alerts(
        features[features["raised_at"] >= first], flood_days, visibility_only, as_of=pd.Timestamp(until)
    )
    replayed["flood"] = at_end["flood"].to_numpy(dtype=bool)
    replayed["visibility_only"] = at_end["visibility_only"].to_numpy(dtype=bool)
    columns = [
        *("alert_id", "raised_at", "model_cut", "model_version", "probability"),
        *("flood_at_scoring", "visibility_only_at_scoring", "flood", "visibility_only", "status"),
    ]
    # A baseline that reads a column withheld at one of the cuts is left out at all of them.
    return replayed[columns], pd.concat(baseline_parts, ignore_index=True, join="inner")


def _open_alerts(
    features: pd.DataFrame,
    history: pd.DataFrame,
    model: Model,
    flags: tuple[pd.DataFrame, pd.DataFrame],
    cut: datetime,
    training_days: float,
    settings: LearningSettings,
) -> pd.DataFrame:
    """The alerts that are open at a cut, with what production would show."""
    moment = pd.Timestamp(cut)
    recent = history[(history["raised_at"] >= moment - timedelta(days=training_days)) & (history["raised_at"] < moment)]
    curves, rates = learn_reading(recent, flags, cut, settings.horizon)
    still_open = recent["alert_id"][
        (recent["known_at"].isna() | (recent["known_at"] > moment)) & (recent["raised_at"] + settings.horizon > moment)
    ]
    alerts = features[features["alert_id"].isin(still_open)].reset_index(drop=True)
    scores = score(model, alerts, flag_alerts(alerts, *flags, as_of=cut))
    return as_read(scores, alerts, curves, rates, cut)


def _baselines_at(frame: pd.DataFrame, cut: datetime, settings: LearningSettings) -> dict[str, Baseline]:
    """Every baseline, fitted on exactly the alerts that a model may learn from at the cut."""
    past = frame[usable_alerts(frame, cut)]
    past = past[past["raised_at"] + settings.horizon <= pd.Timestamp(cut)]
    acted = past["acted"].to_numpy(dtype=np.float64)
    return fit_baselines(past, acted, settings.features, prior=settings.prior, withheld=settings.withheld)


def compare(
    scores: pd.DataFrame, baselines: pd.DataFrame, history: pd.DataFrame, until: datetime, horizon: timedelta
) -> pd.DataFrame:
    """Compare the replay with every baseline, on the alerts whose horizon was over at `until`.

    Younger alerts are left out: those whose outcome is already known were decided quickly.

    Returns: The table of `evaluate` with `slice`: 'all', 'without floods' (as decided by `until`), 'without flags'.
    """
    facts = scores.merge(history[["alert_id", "acted", "rule"]], on="alert_id", how="left", validate="one_to_one")
    mature = (facts["raised_at"] + horizon <= pd.Timestamp(until)).to_numpy() & facts["acted"].notna().to_numpy()
    flood = facts["flood"].to_numpy()
    parts = []
    for name, mask in (
        ("all", mature),
        ("without floods", mature & ~flood),
        ("without flags", mature & ~flood & ~facts["visibility_only"].to_numpy()),
    ):
        chosen = facts[mask]
        forecasts = {"heed": chosen["probability"].to_numpy()}
        names = [str(name) for name in baselines.columns]
        forecasts |= {name: baselines[name].to_numpy()[mask] for name in names}
        measures = evaluate(forecasts, chosen["acted"].to_numpy(), rule_day_blocks(chosen), baselines=names)
        parts.append(measures.assign(slice=name))
    return pd.concat(parts, ignore_index=True)
