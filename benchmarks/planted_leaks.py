"""Leaks planted into a world, one function each: what an audit must find.

Belongs here: the kinds of leak that `benchmarks/trust.py` and the tests plant.
Does not belong here: worlds (`audit_worlds.py`), and looking for leaks (`dagster_project/triage`).

Every function takes a world and gives what the audit gets: frame, history, the way to build features, forecasts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from benchmarks.audit_worlds import AuditWorld, audit_world, framed, rebuild
from dagster_project.triage.audit.recomputation import Rebuild

FOLDS = 4
HORIZON = timedelta(days=14)


@dataclass(frozen=True)
class Case:
    """What an audit gets."""

    frame: pd.DataFrame
    history: pd.DataFrame
    cut: pd.Timestamp
    rebuild: Rebuild
    forecasts: pd.DataFrame


def clean(world: AuditWorld) -> Case:
    """The world as it is."""
    ordered = world.frame.sort_values(["raised_at", "alert_id"], ignore_index=True)
    later = ordered.iloc[int(0.4 * len(ordered)) :]
    fold = np.arange(len(later)) * FOLDS // max(len(later), 1)
    forecasts = later[["alert_id", "raised_at", "acted"]].assign(fold=fold)
    return Case(world.frame, world.history, world.cut, rebuild, forecasts)


def _with_rebuild(world: AuditWorld, leaky: Rebuild) -> Case:
    first = world.history["raised_at"].min() - timedelta(days=1)
    features = leaky(world.history, first.to_pydatetime(warn=False), world.cut.to_pydatetime(warn=False))
    return replace(clean(replace(world, frame=framed(features, world.history, world.cut, world.truth))), rebuild=leaky)


def _with_attribute(world: AuditWorld, name: str, values: np.ndarray) -> Case:
    """`values` per row of the history (None: absent) as one more attribute, in history and frame."""
    history = world.history.copy()
    texts = []
    for text, value in zip(history["attributes"], values, strict=True):
        entry = json.loads(text)
        if value is not None:
            entry[name] = value
        texts.append(json.dumps(entry))
    history["attributes"] = texts
    frame = world.frame.drop(columns="attributes").merge(history[["alert_id", "attributes"]], on="alert_id")
    return clean(replace(world, history=history, frame=frame))


def _rng(world: AuditWorld) -> np.random.Generator:
    return np.random.default_rng(len(world.frame) + int(world.frame["acted"].sum()))


def _decided_by_people(world: AuditWorld) -> np.ndarray:
    history = world.history
    return (history["acted"].notna() & (history["known_at"] < history["raised_at"] + HORIZON)).to_numpy()


def all_time_averages(world: AuditWorld) -> Case:
    """The rule's share acted over all time, the future included, in place of its decayed rate."""

    def leaky(history: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
        made = rebuild(history, first, until)
        made["rule_decayed_acted_rate_hl28d"] = made["rule"].map(history.groupby("rule")["acted"].mean())
        return made

    return _with_rebuild(world, leaky)


def label_in_attributes(world: AuditWorld) -> Case:
    """An attribute that says whether somebody acted, wrong for one alert in twenty; open alerts say "no" as well."""
    acted = world.history["acted"].fillna(0.0).to_numpy() == 1
    flipped = _rng(world).random(len(acted)) < 0.05
    return _with_attribute(world, "state", np.where(acted ^ flipped, "handled", "waiting").astype(object))


def post_decision_column(world: AuditWorld) -> Case:
    """Minutes of handling, filled in for nine in ten alerts once somebody answered, whatever the answer was."""
    rng = _rng(world)
    filled = _decided_by_people(world) & (rng.random(len(world.history)) < 0.9)
    minutes = rng.integers(1, 60, len(filled)).astype(object)
    return _with_attribute(world, "handling_minutes", np.where(filled, minutes, None))


def target_encoding(world: AuditWorld) -> Case:
    """The share acted of each rule over the whole table, smoothed, as one more column."""
    frame = world.frame.copy()
    rate = frame["acted"].mean()
    table = frame.groupby("rule")["acted"].agg(["sum", "count"])
    frame["rule_encoded"] = frame["rule"].map((table["sum"] + 10 * rate) / (table["count"] + 10))
    return clean(replace(world, frame=frame))


def ids_that_encode_the_outcome(world: AuditWorld) -> Case:
    """Even numbers for alerts that were acted on, odd ones for others."""
    history = world.history.copy()
    acted = history["acted"].fillna(0.0).to_numpy() == 1
    old = history["alert_id"]
    history["alert_id"] = [f"al-{2 * i + (not a):08d}" for i, a in enumerate(acted)]
    new = dict(zip(old, history["alert_id"], strict=True))
    frame = world.frame.assign(alert_id=world.frame["alert_id"].map(new))
    return clean(replace(world, history=history, frame=frame))


def time_of_last_update(world: AuditWorld) -> Case:
    """When the alert's record last changed: its answer, or minutes after it was raised."""
    history = world.history
    seen = history["raised_at"] + pd.to_timedelta(_rng(world).integers(5, 600, len(history)), unit="s")
    updated = history["known_at"].where(_decided_by_people(world)).fillna(seen)
    return _with_attribute(world, "updated_at", updated.dt.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy(dtype=object))


def counts_that_include_the_alert(world: AuditWorld) -> Case:
    """The rule's counts of alerts raised include the alert itself."""

    def leaky(history: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
        made = rebuild(history, first, until)
        names = [name for name in made if name.startswith("rule_raised_count_")]
        made[names] += 1
        return made

    return _with_rebuild(world, leaky)


def counts_that_include_the_outcome(world: AuditWorld) -> Case:
    """The rule's counts of outcomes include the alert's own."""

    def leaky(history: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
        made = rebuild(history, first, until)
        own = made["alert_id"].map(history.set_index("alert_id")["acted"]).fillna(0.0).to_numpy()
        names = [name for name in made if name.startswith("rule_acted_count_")]
        made[names] = made[names].to_numpy() + own[:, None]
        return made

    return _with_rebuild(world, leaky)


def ties_in_time(world: AuditWorld) -> Case:
    """Outcomes known at the very moment of raising count: "<=" for "<"."""

    def leaky(history: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
        return rebuild(history.assign(known_at=history["known_at"] - timedelta(microseconds=1)), first, until)

    return _with_rebuild(world, leaky)


def outcomes_before_known_at(world: AuditWorld) -> Case:
    """Outcomes count from the moment of raising on, not from when they were known."""

    def leaky(history: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
        at_once = history["raised_at"] + timedelta(seconds=1)
        return rebuild(history.assign(known_at=at_once.where(history["acted"].notna())), first, until)

    return _with_rebuild(world, leaky)


def random_split(world: AuditWorld) -> Case:
    """Folds drawn at random instead of one after the other."""
    case = clean(world)
    fold = _rng(world).integers(0, FOLDS, len(case.forecasts))
    return replace(case, forecasts=case.forecasts.assign(fold=fold))


def duplicates_across_the_cut(world: AuditWorld) -> Case:
    """One later alert in twenty is a copy of an earlier one, outcome included, under a new id and time."""
    rng = _rng(world)
    frame = world.frame.sort_values("raised_at", ignore_index=True)
    later = np.flatnonzero(np.arange(len(frame)) > 0.5 * len(frame))
    copies = rng.choice(later, len(later) // 20, replace=False)
    sources = rng.integers(0, int(0.4 * len(frame)), len(copies))
    facts = ["rule", "entity", "team", "severity", "value", "threshold", "title", "attributes", "acted"]
    for name in facts:
        values = frame[name].to_numpy(dtype=object, copy=True)
        values[copies] = values[sources]
        frame[name] = pd.Series(values, index=frame.index).astype(frame[name].dtype)
    known = frame.set_index("alert_id")[facts]
    history = world.history.set_index("alert_id")
    same = history.index.intersection(known.index)
    for name in facts:
        history.loc[same, name] = known.loc[same, name]
    copied = history.reset_index()[list(world.history.columns)]
    first = copied["raised_at"].min() - timedelta(days=1)
    features = rebuild(copied, first.to_pydatetime(warn=False), world.cut.to_pydatetime(warn=False))
    return clean(replace(world, history=copied, frame=framed(features, copied, world.cut, world.truth)))


def facts_edited_later(world: AuditWorld) -> Case:
    """People raise the severity of what they act on; the warehouse holds the edited severity."""
    history = world.history.copy()
    edited = (history["acted"] == 1).to_numpy() & (_rng(world).random(len(history)) < 0.3)
    history.loc[edited, "severity"] = "critical"
    return replace(clean(world), history=history)


def _acted(world: AuditWorld) -> np.ndarray:
    return (world.history["acted"] == 1).to_numpy()


def _noted(share: float, of_others: float = 0.0) -> Callable[[AuditWorld], Case]:
    """A note on a share of the alerts that were acted on, and on a share of the others."""

    def plant(world: AuditWorld) -> Case:
        acted, chance = _acted(world), _rng(world).random(len(world.history))
        return _with_attribute(world, "note", np.where(chance < np.where(acted, share, of_others), "done", None))

    return plant


def _overwritten(column: str, share: float, value: str) -> Callable[[AuditWorld], Case]:
    """A column overwritten with one value for a share of the alerts that were acted on, in history and frame."""

    def plant(world: AuditWorld) -> Case:
        edited = _acted(world) & (_rng(world).random(len(world.history)) < share)
        texts = world.history[column].astype(object).mask(edited, value)
        history = world.history.assign(**{column: texts})
        frame = world.frame.drop(columns=column).merge(history[["alert_id", column]], on="alert_id")
        return clean(replace(world, history=history, frame=frame))

    return plant


def _answered_at(form: str) -> Callable[[AuditWorld], Case]:
    """When the alert was answered, as text in a country's own form."""

    def plant(world: AuditWorld) -> Case:
        texts = world.history["known_at"].dt.strftime(form).to_numpy(dtype=object)
        return _with_attribute(world, "answered", np.where(_decided_by_people(world), texts, None))

    return plant


PLANTED: dict[str, Callable[[AuditWorld], Case]] = {
    "all-time averages": all_time_averages,
    "label in attributes": label_in_attributes,
    "post-decision column filled after the fact": post_decision_column,
    "target encoding over the whole table": target_encoding,
    "ids that encode the outcome": ids_that_encode_the_outcome,
    "time of last update": time_of_last_update,
    "counts that include the alert itself": counts_that_include_the_alert,
    "counts that include its own outcome": counts_that_include_the_outcome,
    "ties in time": ties_in_time,
    "outcomes used before known_at": outcomes_before_known_at,
    "random instead of temporal split": random_split,
    "duplicates across the cut": duplicates_across_the_cut,
    "facts edited after the decision": facts_edited_later,
    "filled for 30% of the acted": _noted(0.3),
    "filled for 30% of the acted, with noise": _noted(0.3, 0.02),
    "filled for 10% of the acted": _noted(0.1),
    "severity overwritten for 20% of the acted": _overwritten("severity", 0.2, "escalated"),
    "team overwritten for 60% of the acted": _overwritten("team", 0.6, "second line"),
    "rule overwritten for 30% of the acted": _overwritten("rule", 0.3, "handled"),
    "answered at, day first": _answered_at("%d/%m/%Y %H:%M"),
    "answered at, month names": _answered_at("%d %b %Y %H:%M"),
    "answered at, 12-hour clock": _answered_at("%m/%d/%Y %I:%M:%S %p"),
}

# The check that is there for the kind; others may find it too.
CAUGHT_BY = {
    "all-time averages": "future removed",
    "label in attributes": "a single fact",
    "post-decision column filled after the fact": "known later",
    "target encoding over the whole table": "repeats the outcomes' chance",
    "ids that encode the outcome": "a single fact",
    "time of last update": "ids and times",
    "counts that include the alert itself": "features by definition",
    "counts that include its own outcome": "future removed",
    "ties in time": "features by definition",
    "outcomes used before known_at": "future removed",
    "random instead of temporal split": "split in time",
    "duplicates across the cut": "duplicates across the cut",
    "facts edited after the decision": "facts as they were raised",
    "filled for 30% of the acted": "values of one outcome",
    "filled for 30% of the acted, with noise": "values of one outcome",
    "filled for 10% of the acted": "values of one outcome",
    "severity overwritten for 20% of the acted": "values of one outcome",
    "team overwritten for 60% of the acted": "values of one outcome",
    "rule overwritten for 30% of the acted": "values of one outcome",
    "answered at, day first": "ids and times",
    "answered at, month names": "ids and times",
    "answered at, 12-hour clock": "ids and times",
}


def world_for(kind: str, seed: int, **more: object) -> AuditWorld:
    """A world in which that kind of leak can be planted: ties need moments that are shared."""
    return audit_world(seed, ties="10min" if kind == "ties in time" else None, **more)  # type: ignore[arg-type]
