"""All features of alerts, at once or in parts.

Belongs here: the order in which features are derived.
Does not belong here: how each one is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.features.contract import FeatureSettings, attribute_history_features, history_features_for
from dagster_project.triage.features.keys import key_codes
from dagster_project.triage.flags.exclusion import flag_alerts

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
    flood_days, visibility_only : flags with their times; a flood alert leaves the histories of others as soon as its
        flag was known.
    derive : computes history features in place of `history.history_features`, with the same result.

    Returns
    -------
    One row per alert in order of (raised_at, alert_id): the facts known at raise (`FACTS`) and one float column per
    history feature.
    """
    events, streams, wanted = _streams(history, flood_days, visibility_only, first, until, settings)
    history_columns = _derived(streams, streams[wanted], settings, derive)
    features = pd.concat([events.loc[wanted, list(FACTS)], history_columns], axis=1)
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
    """As `build_features`, in parts of at most `at_once` alerts (or all alerts of one time); at least one part.

    Parameters
    ----------
    history : in order of (raised_at, alert_id); of the facts it needs only those behind keys and flags.
    read_facts : returns `FACTS` of the alerts raised in [its first argument, its second), in that order.
    """
    events, streams, wanted = _streams(history, flood_days, visibility_only, first, until, settings)
    rows = np.flatnonzero(wanted)
    times = streams["raised_at"].to_numpy()[rows]
    begin = first
    for start, stop in _parts(times, at_once):
        end = until if stop == len(rows) else pd.Timestamp(times[stop]).tz_convert("UTC").to_pydatetime()
        facts = read_facts(begin, end)
        if not np.array_equal(facts["alert_id"], events["alert_id"].iloc[rows[start:stop]]):
            raise ValueError("the facts and the history are of different alerts")
        history_columns = _derived(streams, streams.iloc[rows[start:stop]], settings, derive)
        yield pd.concat([facts[list(FACTS)].reset_index(drop=True), history_columns.reset_index(drop=True)], axis=1)
        begin = end


def with_attribute_history(
    alerts: pd.DataFrame,
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    settings: FeatureSettings,
    derive: Callable[..., pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """The features `alerts` with the history of `settings.attribute_keys`, as `build_features` computes it.

    history : as in `build_features`, with the columns or attributes of the keys; every alert of `alerts` is in it.
    """
    wanted_features = attribute_history_features(settings)
    if not wanted_features or not len(alerts):
        return alerts.assign(**{f.name: np.float32(np.nan) for f in wanted_features})
    first, last = alerts["raised_at"].min(), alerts["raised_at"].max()
    keyed = replace(settings, keys=("rule", *(k for k in settings.attribute_keys if k != "rule")), attribute_keys=())
    events, streams, _ = _streams(
        history, flood_days, visibility_only, first.to_pydatetime(), last.to_pydatetime() + timedelta(seconds=1), keyed
    )
    wanted = events["alert_id"].isin(alerts["alert_id"]).to_numpy()
    from dagster_project.triage.features.history import history_features

    columns = (derive or history_features)(streams, streams[wanted], wanted_features, settings.lookback)
    place = pd.Index(events.loc[wanted, "alert_id"]).get_indexer(alerts["alert_id"])
    if (place < 0).any():
        raise ValueError("an alert is not in the history")
    columns = columns.iloc[place].set_axis(alerts.index)
    return pd.concat([alerts.drop(columns=list(columns), errors="ignore"), columns], axis=1)


def _parts(times: np.ndarray, at_once: int) -> Iterator[tuple[int, int]]:
    """Stretches [start, stop) of ascending times; equal times are never split."""
    start = 0
    while True:
        stop = start + at_once
        if stop >= len(times):
            yield start, len(times)
            return
        raised_at = times[stop]
        stop = int(np.searchsorted(times, raised_at, side="left"))
        if stop <= start:
            stop = int(np.searchsorted(times, raised_at, side="right"))
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
    """The alerts that histories reach, as they are and as the history engine takes them, and which of them were raised
    in [first, until)."""
    # The outcome of an older alert may become known within the lookback: such events count as well.
    since = first - settings.lookback
    reach = ((history["raised_at"] >= since) | (history["known_at"] >= since)) & (history["raised_at"] < until)
    events = history if reach.all() else history[reach]
    flags = flag_alerts(events, flood_days, visibility_only)
    wanted = (events["raised_at"] >= first).to_numpy()
    keys = key_codes(events, [*settings.keys, *settings.attribute_keys], wanted)
    streams = pd.concat([keys, events[["raised_at", "known_at", "acted"]]], axis=1)
    # Also for floods cleared since: until then they were out of every history, and a past day must not change.
    streams["excluded_from"] = flags["excluded_from"]
    streams["excluded_until"] = flags["excluded_until"]
    return events, streams, wanted


def _derived(
    streams: pd.DataFrame,
    at: pd.DataFrame,
    settings: FeatureSettings,
    derive: Callable[..., pd.DataFrame] | None,
) -> pd.DataFrame:
    from dagster_project.triage.features.history import history_features

    return (derive or history_features)(streams, at, history_features_for(settings), settings.lookback)
