"""Simulated worlds as tests and benchmarks look at them.

Belongs here: outcomes, teams and variants of a world, and what a cleaner must find in its export.
Does not belong here: making a world (`dagster_project/simulator`), and anything that production uses.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from dagster_project.simulator import MessyExport, World
from dagster_project.simulator.volume import DAY_US, microseconds


def history_of(world: World, horizon_days: float = 14, as_of: pd.Timestamp | None = None) -> pd.DataFrame:
    """The alerts with their outcomes, as `marts.alerts` joined with `marts.alert_outcomes`.

    Parameters
    ----------
    horizon_days : how long an action counts, from `raised_at`, its end included.
    as_of : time-zone-aware moment. Given: only alerts raised before it, and outcomes known later are
        null. None: every outcome, also those known only after the export; then mind `known_at` yourself.

    Returns
    -------
    DataFrame : the columns of `alerts`, and horizon_ends_at, outcome ("acted", "not_acted" or null),
        acted (1.0, 0.0 or nan), known_at (null when the outcome is).
    """
    frame = world.alerts.copy()
    raised = _as_us(frame["raised_at"])
    ends = raised + round(horizon_days * DAY_US)
    decisive = world.all_actions[world.all_actions["meaning"] != "neutral"]
    row = pd.Index(frame["alert_id"]).get_indexer(decisive["alert_id"])
    time = _as_us(decisive["acted_at"])
    fits = (row >= 0) & (time >= raised[row]) & (time <= ends[row])
    row, time = row[fits], time[fits]
    meaning = (decisive["meaning"] == "acted").to_numpy()[fits]
    # In order of time already; the first per alert decides.
    row, first = np.unique(row, return_index=True)
    acted, known = np.zeros(raised.size), ends.copy()
    acted[row], known[row] = meaning[first], time[first]
    frame["horizon_ends_at"] = _from_us(ends)
    known_at = _from_us(known)
    if as_of is not None:
        if as_of.tzinfo is None:
            raise ValueError(f"as_of = {as_of} has no time zone")
        unknown = known > microseconds(as_of)
        acted[unknown] = np.nan
        known_at = known_at.mask(unknown)
    outcome = np.where(acted == 1, "acted", "not_acted")
    frame["outcome"] = pd.Series(outcome, dtype="str").mask(np.isnan(acted))
    frame["acted"], frame["known_at"] = acted, known_at
    return frame if as_of is None else frame[frame["raised_at"] < as_of].reset_index(drop=True)


def without_floods(world: World) -> World:
    """The same company, to the byte, without its floods: every other alert and action stays."""
    keep = ~world.truth["is_flood"].to_numpy()
    ids = set(world.truth["alert_id"][~keep])

    def cut(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[keep].reset_index(drop=True)

    actions = world.all_actions[~world.all_actions["alert_id"].isin(ids)].reset_index(drop=True)
    return replace(
        world,
        alerts=cut(world.alerts),
        all_actions=actions,
        truth=cut(world.truth),
        facts=cut(world.facts),
        floods=world.floods.iloc[:0],
    )


def teams_of(world: World) -> pd.DataFrame:
    """`World.teams` with alerts, acted_share and best_reachable_auc, without floods and visibility-only rules."""
    headline = ~(world.truth["is_flood"] | world.truth["is_visibility_only"])
    truths = [world.truth[headline & (world.alerts["team"] == name)] for name in world.teams["name"]]
    return world.teams.assign(
        alerts=list(map(len, truths)),
        acted_share=[truth["acted"].mean() for truth in truths],
        best_reachable_auc=[best_reachable_auc(truth["probability"].to_numpy()) for truth in truths],
    )


def best_reachable_auc(probability: np.ndarray) -> float:
    """The AUC that the truth itself is expected to reach: no score on the same alerts does better on average.

    Each alert counts as `p` of an acted one and `1 - p` of one that is not, so no draw of outcomes enters.

    Parameters
    ----------
    probability : (N,) float64, true P(acted).

    Returns
    -------
    float in [0.5, 1], nan when one of the two outcomes has no mass.
    """
    levels, where = np.unique(np.asarray(probability, dtype=np.float64), return_inverse=True)
    count = np.bincount(where, minlength=levels.size).astype(np.float64)
    yes, no = levels * count, (1 - levels) * count
    mass = yes.sum() * no.sum()
    if mass <= 0:
        return float("nan")
    below = np.cumsum(no) - no
    return float((yes * (below + 0.5 * no)).sum() / mass)


def clean_rows(messy: MessyExport, table: str) -> int:
    """Rows of an export that a good cleaner keeps."""
    return messy.counts[table]["clean"]


def duplicate_rows(messy: MessyExport, table: str) -> int:
    """Further rows of alerts, actions or rules that are kept once."""
    return sum(messy.counts[table].get(kind, 0) for kind in ("identical_duplicate", "changed_duplicate"))


def rejected_rows(messy: MessyExport, table: str) -> int:
    """Rows that cannot be kept."""
    kinds = "empty_id", "unreadable_time", "future_time", "empty_rule", "orphan", "empty_type", "before_alert"
    return sum(messy.counts[table].get(kind, 0) for kind in kinds)


def _as_us(times: pd.Series) -> np.ndarray:
    """int64 microseconds since the epoch."""
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[us]").astype(np.int64)


def _from_us(us: np.ndarray) -> pd.Series:
    return pd.Series(us.astype("datetime64[us]")).dt.tz_localize("UTC")
