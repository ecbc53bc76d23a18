"""The steps from history to scores, each one function: production, backfill, replay and tests all call these.

Belongs here: how the pieces of `triage/` fit together at one as-of.
Does not belong here: any statistic (its own module), and where rows come from or go to (assets, `replay.py`).

Time: a caller passes a history that may reach further than the as-of; each step cuts it itself.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.triage.flags.exclusion import excluded_since, flag_alerts, known_by

if TYPE_CHECKING:
    from dagster_project.triage.learning.candidates import LearningSettings
    from dagster_project.triage.learning.training import Model


def training_frame(
    features: pd.DataFrame,
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    cut: datetime,
    training_days: float,
) -> pd.DataFrame:
    """What there is to learn from at `cut`: alerts raised in [cut - training_days, cut) whose outcome is known then.

    Returns the features with `acted` (0.0 or 1.0), `known_at`, `excluded` (flood or visibility-only as known at the
    cut; kept as rows so that evaluation can show both sides, left out by `train`) and `excluded_since` (when that
    was decided; null where it was not).
    """
    moment = pd.Timestamp(cut)
    known = history.loc[
        (history["known_at"] <= moment) & (history["raised_at"] < moment), ["alert_id", "acted", "known_at"]
    ]
    ids = pd.Index(known["alert_id"])
    if not ids.is_unique or not features["alert_id"].is_unique:
        raise ValueError("an alert_id occurs twice")
    first = moment - timedelta(days=training_days)
    place = ids.get_indexer(features["alert_id"])
    taught = ((features["raised_at"] < moment) & (features["raised_at"] >= first)).to_numpy(dtype=bool) & (place >= 0)
    # Found by their ids alone: the features are wide, and are copied once.
    frame = features[taught].reset_index(drop=True)
    outcomes = known[["acted", "known_at"]].iloc[place[taught]].reset_index(drop=True)
    decided = _decided(flood_days, moment)
    flags = flag_alerts(frame, decided, visibility_only, as_of=moment)
    since = excluded_since(frame, decided, visibility_only, moment).array
    marks = pd.DataFrame(
        {"excluded": (flags["flood"] | flags["visibility_only"]).to_numpy(), "excluded_since": since}, index=frame.index
    )
    return pd.concat([frame, outcomes, marks], axis=1)


def at_most_flagged(
    alerts: pd.DataFrame, flood_days: pd.DataFrame, visibility_only: pd.DataFrame, cut: datetime, most: int
) -> np.ndarray:
    """Which of the alerts `training_frame` needs, bool[alerts]: all but those that it would mark as excluded at the
    cut, and of these at most `most`, one in so many. The model does not learn from them, and evaluation looks at a part
    of them (its earlier cuts also learn from those that were flagged later): without this, a flood of millions would
    stand in memory whole wherever something is learned.

    alerts : in order of time, with what `flag_alerts` looks at.
    """
    moment = pd.Timestamp(cut)
    flags = flag_alerts(alerts, _decided(flood_days, moment), visibility_only, as_of=moment)
    flagged = (flags["flood"] | flags["visibility_only"]).to_numpy()
    needed = ~flagged
    needed[np.flatnonzero(flagged)[:: max(1, -(-int(flagged.sum()) // most))]] = True
    return needed


def _decided(flood_days: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """The floods that were decided at a moment. What is only suspected may still be cleared: an incident must not
    vanish from what is learned."""
    known = known_by(flood_days, moment)
    return known[known["status"] != "suspected"]


def untaught(as_of: datetime, settings: LearningSettings) -> Model:
    """The model of somebody who knows nothing yet: every alert gets the prior."""
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
    flags : as `flag_alerts` returns them for the same rows, at the moment of scoring.

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
    """What is said beside the scores: at most three sentences for each alert, the strongest first.

    Parameters are those of `score`. An alert of a flood has one reason, the flood: what else moved its score is beside
    the point, and to find that out for each of millions would hold up the scores of all others on the day of the flood.
    """
    flood = flags["flood"].to_numpy(dtype=bool)
    made = [[text] for text in flags["flag_reason"]]
    for row, said in zip(
        np.flatnonzero(~flood), model.reasons(features[~flood]) if not flood.all() else [], strict=True
    ):
        made[row] = said
    return made
