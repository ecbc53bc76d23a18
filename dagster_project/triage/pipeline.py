"""The pipeline from history to scores: production, backfill, replay and tests all call these functions.

Belongs here: how the parts of `triage/` fit together at one as-of.
Does not belong here: any statistic (its own module), and where rows come from or go to (assets, `replay.py`).

Time: the history that callers pass may reach beyond the as-of; each function cuts it off itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.triage.flags.exclusion import flag_alerts, known_by, out_of_learning

if TYPE_CHECKING:
    from dagster_project.triage.learning.model import Model
    from dagster_project.triage.learning.settings import LearningSettings


def training_frame(
    features: pd.DataFrame,
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    cut: datetime,
    training_days: float,
) -> pd.DataFrame:
    """The training frame at `cut`: alerts raised in [cut - training_days, cut) whose outcome is known by then.

    Returns the features with `acted` (0.0 or 1.0), `known_at`, and `excluded` and `excluded_since` of
    `out_of_learning`: excluded rows are kept because evaluation shows both sides, and `train` leaves them out. `flood`
    (bool) : of a flood that is suspected or confirmed at the cut; only audits go without these alerts.
    """
    as_of = pd.Timestamp(cut)
    known = history.loc[
        (history["known_at"] <= as_of) & (history["raised_at"] < as_of), ["alert_id", "acted", "known_at"]
    ]
    ids = pd.Index(known["alert_id"])
    if not ids.is_unique or not features["alert_id"].is_unique:
        raise ValueError("an alert_id occurs twice")
    first = as_of - timedelta(days=training_days)
    place = ids.get_indexer(features["alert_id"])
    chosen = ((features["raised_at"] < as_of) & (features["raised_at"] >= first)).to_numpy(dtype=bool) & (place >= 0)
    # Selected by their ids alone: the features are wide, and are copied only once.
    frame = features[chosen].reset_index(drop=True)
    outcomes = known[["acted", "known_at"]].iloc[place[chosen]].reset_index(drop=True)
    flood = flag_alerts(frame, known_by(flood_days, as_of), None, as_of)["flood"]
    return pd.concat([frame, outcomes, out_of_learning(frame, flood_days, visibility_only, as_of), flood], axis=1)


def at_most_of_a_burst(
    alerts: pd.DataFrame, flood_days: pd.DataFrame, visibility_only: pd.DataFrame, cut: datetime, most: int
) -> np.ndarray:
    """Which of the alerts of a day training takes, bool[alerts]: of each rule at most `most`, and at most `most` of all
    excluded ones, evenly spaced in time. Without this limit, training would hold a flood of millions in memory.

    alerts : of one day or a part of one, in order of time, with the columns that `flag_alerts` reads.

    The limit looks at sizes only. A flood that was recognised late is learned from like any other day, because its
    alerts were scored like any others; but a day of millions counts as one of `most`, bug or incident: its alerts have
    one cause, and must not outvote all other days. Within a burst the share that was acted on stays what it was.
    """
    out = out_of_learning(alerts, flood_days, visibility_only, pd.Timestamp(cut))["excluded"].to_numpy()
    # All excluded alerts together count as one burst, whatever their rules.
    burst = np.where(out, -1, pd.factorize(alerts["rule"], use_na_sentinel=False)[0])
    needed = np.zeros(len(alerts), bool)
    for rows in pd.Series(burst).groupby(burst).indices.values():
        needed[rows[:: max(1, -(-len(rows) // most))]] = True
    return needed


def with_proposed_keys(settings: LearningSettings, alerts: pd.DataFrame) -> LearningSettings:
    """The settings of a training on `alerts` (in order of time): they propose which attributes get a history."""
    from dagster_project.triage.learning.mixture.facts import attribute_keys

    return replace(settings, features=replace(settings.features, attribute_keys=attribute_keys(alerts)))


def without_other_keys(frame: pd.DataFrame, settings: LearningSettings, keys: Iterable[str]) -> pd.DataFrame:
    """The training frame without the history of those attribute `keys` that `settings` do not name."""
    from dagster_project.triage.features.contract import attribute_history_features

    every = attribute_history_features(replace(settings.features, attribute_keys=tuple(keys)))
    own = {f.name for f in attribute_history_features(settings.features)}
    return frame.drop(columns=[f.name for f in every if f.name not in own], errors="ignore")


def prior_model(as_of: datetime, settings: LearningSettings) -> Model:
    """The model before there is anything to learn from: every alert gets the prior."""
    from dagster_project.triage.learning.training import train

    nothing = pd.DataFrame(
        {
            "alert_id": pd.Series([], dtype="str"),
            "raised_at": pd.Series([], dtype="datetime64[us, UTC]"),
            "known_at": pd.Series([], dtype="datetime64[us, UTC]"),
            "acted": pd.Series([], dtype="float64"),
        }
    )
    return train(nothing, as_of, settings)


def score(model: Model, features: pd.DataFrame, flags: pd.DataFrame) -> pd.DataFrame:
    """Score alerts with a model.

    features : as `build_features` returns them.
    flags : as `flag_alerts` returns them for the same rows, at the time of scoring.
    Returns: alert_id, raised_at, model_version, probability (0 < p < 1), status ('model', 'baseline' or 'prior'),
        flood, visibility_only.
    """
    return pd.DataFrame(
        {
            "alert_id": features["alert_id"].to_numpy(),
            "raised_at": features["raised_at"].to_numpy(),
            "model_version": model.version,
            "probability": np.asarray(model.predict(features), dtype=np.float64),
            "status": model.status,
            "flood": flags["flood"].to_numpy(dtype=bool),
            "visibility_only": flags["visibility_only"].to_numpy(dtype=bool),
        }
    )


def reasons(model: Model, features: pd.DataFrame, flags: pd.DataFrame) -> list[list[str]]:
    """The reasons shown with the scores: at most three sentences per alert, strongest first.

    Parameters are those of `score`. For flood alerts, the only reason is the flood: nothing else about them matters,
    and explaining millions of them would delay the scores of all other alerts.
    """
    flood = flags["flood"].to_numpy(dtype=bool)
    texts = [[text] for text in flags["flag_reason"]]
    explained = model.reasons(features[~flood]) if not flood.all() else []
    for row, sentences in zip(np.flatnonzero(~flood), explained, strict=True):
        texts[row] = sentences
    return texts
