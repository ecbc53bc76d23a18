"""The steps from history to scores, each one function: production, backfill, replay and tests all call these.

Belongs here: how the pieces of `triage/` fit together at one as-of.
Does not belong here: any statistic (its own module), and where rows come from or go to (assets, `replay.py`).

Time: a caller passes a history that may reach further than the as-of; each step cuts it itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.triage.exclusion import excluded_since, flag_alerts, known_by
from dagster_project.triage.features import FeatureSettings, history_features_for, key_codes

if TYPE_CHECKING:
    from dagster_project.triage.model import LearningSettings, Model

FACTS = (
    "alert_id",
    "raised_at",
    "rule",
    "entity",
    "team",
    "severity",
    "value",
    "threshold",
    "title",
    "attributes",
)


def build_features(
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    first: datetime,
    until: datetime,
    settings: FeatureSettings,
    derive: Callable[..., pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """The features of the alerts raised in [first, until), each at its own `raised_at`.

    Parameters
    ----------
    history : alerts with `acted` and `known_at`, at least from `first - settings.lookback` on; in any order. What
        was known later than an alert's `raised_at` does not touch its features.
    flood_days, visibility_only : flags with their times; a flood alert leaves the histories of others from the
        moment at which its flag was known.
    derive : computes history features in the place of `timeline.history_features`, with its answers.

    Returns
    -------
    One row per alert in order of (raised_at, alert_id): the facts known at raise (`FACTS`) and one float column per
    history feature.
    """
    events, streams, wanted = _streams(history, flood_days, visibility_only, first, until, settings)
    made = _derived(streams, streams[wanted], settings, derive)
    features = pd.concat([events.loc[wanted, list(FACTS)], made], axis=1)
    return features.sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)


def build_features_in_parts(
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    first: datetime,
    until: datetime,
    settings: FeatureSettings,
    read_facts: Callable[[datetime, datetime], pd.DataFrame],
    at_once: int,
    derive: Callable[..., pd.DataFrame] | None = None,
) -> Iterator[pd.DataFrame]:
    """As `build_features`, in parts of at most `at_once` alerts, or of all alerts of a moment; at least one part.

    Parameters
    ----------
    history : in order of (raised_at, alert_id); of the facts it needs only those that keys and flags are made of.
    read_facts : gives `FACTS` of the alerts raised in [its first argument, its second), in that order.
    """
    events, streams, wanted = _streams(history, flood_days, visibility_only, first, until, settings)
    rows = np.flatnonzero(wanted)
    times = streams["raised_at"].to_numpy()[rows]
    begin = first
    for start, stop in _parts(times, at_once):
        end = until if stop == len(rows) else pd.Timestamp(times[stop]).tz_convert("UTC").to_pydatetime()
        facts = read_facts(begin, end)
        if not np.array_equal(facts["alert_id"], events["alert_id"].iloc[rows[start:stop]]):
            raise ValueError("the facts are those of other alerts than the history's")
        made = _derived(streams, streams.iloc[rows[start:stop]], settings, derive)
        yield pd.concat([facts[list(FACTS)].reset_index(drop=True), made.reset_index(drop=True)], axis=1)
        begin = end


def _parts(times: np.ndarray, at_once: int) -> Iterator[tuple[int, int]]:
    """Stretches [start, stop) of ascending times, none of which ends between equal ones."""
    start = 0
    while True:
        stop = start + at_once
        if stop >= len(times):
            yield start, len(times)
            return
        moment = times[stop]
        stop = int(np.searchsorted(times, moment, side="left"))
        if stop <= start:
            stop = int(np.searchsorted(times, moment, side="right"))
        yield start, stop
        if stop == len(times):
            return
        start = stop


def _streams(
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    first: datetime,
    until: datetime,
    settings: FeatureSettings,
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """The alerts that histories reach, as they are and as the timeline takes them, and which of them were raised in
    [first, until)."""
    # An outcome may be known within the lookback although its alert is older: those events count as well.
    since = first - settings.lookback
    reach = ((history["raised_at"] >= since) | (history["known_at"] >= since)) & (history["raised_at"] < until)
    events = history if reach.all() else history[reach]
    flags = flag_alerts(events, flood_days, visibility_only)
    wanted = (events["raised_at"] >= first).to_numpy()
    keys = key_codes(events, settings.keys, wanted)
    streams = pd.concat([keys, events[["raised_at", "known_at", "acted"]]], axis=1)
    # Also of what was cleared since: until then it was out of every history, and a past day must not change.
    streams["excluded_from"] = flags["excluded_from"]
    streams["excluded_until"] = flags["excluded_until"]
    return events, streams, wanted


def _derived(
    streams: pd.DataFrame,
    at: pd.DataFrame,
    settings: FeatureSettings,
    derive: Callable[..., pd.DataFrame] | None,
) -> pd.DataFrame:
    from dagster_project.triage.timeline import history_features

    return (derive or history_features)(streams, at, history_features_for(settings), settings.lookback)


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
    from dagster_project.triage.model import train

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
