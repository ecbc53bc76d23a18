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

from dagster_project.triage.flags.exclusion import excluded_since, flag_alerts, known_by

if TYPE_CHECKING:
    from dagster_project.triage.learning.candidates import LearningSettings
    from dagster_project.triage.learning.model import Model


def training_frame(
    features: pd.DataFrame,
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    cut: datetime,
    training_days: float,
) -> pd.DataFrame:
    """The training frame at `cut`: alerts raised in [cut - training_days, cut) whose outcome is known by then.

    Returns the features with `acted` (0.0 or 1.0), `known_at`, `excluded` (flood or visibility-only as known at the
    cut; such rows are kept because evaluation shows both sides, and `train` leaves them out) and `excluded_since`
    (when that was decided; null where it was not).
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
    decided = _decided(flood_days, as_of)
    flags = flag_alerts(frame, decided, visibility_only, as_of=as_of)
    since = excluded_since(frame, decided, visibility_only, as_of).array
    exclusions = pd.DataFrame(
        {"excluded": (flags["flood"] | flags["visibility_only"]).to_numpy(), "excluded_since": since}, index=frame.index
    )
    return pd.concat([frame, outcomes, exclusions], axis=1)


def at_most_flagged(
    alerts: pd.DataFrame, flood_days: pd.DataFrame, visibility_only: pd.DataFrame, cut: datetime, most: int
) -> np.ndarray:
    """Which of the alerts `training_frame` needs, bool[alerts]: all that it would not mark as excluded at the cut, and
    at most `most` of the others, evenly spaced. The model does not learn from excluded alerts, and evaluation looks at
    a part of them (its earlier cuts also learn from those that were flagged later). Without this limit, training would
    hold a flood of millions of alerts in memory.

    alerts : in order of time, with the columns that `flag_alerts` reads.
    """
    as_of = pd.Timestamp(cut)
    flags = flag_alerts(alerts, _decided(flood_days, as_of), visibility_only, as_of=as_of)
    flagged = (flags["flood"] | flags["visibility_only"]).to_numpy()
    needed = ~flagged
    needed[np.flatnonzero(flagged)[:: max(1, -(-int(flagged.sum()) // most))]] = True
    return needed


def _decided(flood_days: pd.DataFrame, as_of: pd.Timestamp) -> pd.DataFrame:
    """The floods decided by `as_of`. A suspected flood may still be cleared: an incident must not vanish from
    training."""
    known = known_by(flood_days, as_of)
    return known[known["status"] != "suspected"]


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

    Parameters
    ----------
    features : as `build_features` returns them.
    flags : as `flag_alerts` returns them for the same rows, at the time of scoring.

    Returns
    -------
    alert_id, raised_at, model_version, probability (0 < p < 1), status ('model', 'baseline' or 'prior'), flood,
    visibility_only.
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
