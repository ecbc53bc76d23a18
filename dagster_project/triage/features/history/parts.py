"""History features in parts, each computed on its own, on any machine.

Belongs here: cutting a computation into parts by the values of a key, what one part computes, and putting the
answers together.
Does not belong here: where parts are computed (`resources/cluster.py`), the computation itself (`engine.py`).

All rows and events of one value of a key are in one part, and a number depends on nothing else: the answer is the
same, byte for byte, with any number of parts. The key that all alerts share is one part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.features.history.definition import HistoryFeature
from dagster_project.triage.features.history.engine import history_features
from dagster_project.triage.features.history.inputs import check, encode

# Rows and events in a part, at least: a machine computes this many in about 0.1 s (14 features), and sending them takes
# as long again. Smaller parts would mostly wait for messages.
WORTH_A_PART = 200_000

EVENT_COLUMNS = ("raised_at", "known_at", "acted", "excluded_from", "excluded_until")


@dataclass(frozen=True)
class Part:
    """Some values of one key: everything that its features need.

    rows : positions in the full `at` that this part answers for.
    events, at : as `history_features` takes them; the key's values are int32 codes, and rows without a value are
        left out.
    features : all of one key. lookback : that of the full computation.
    """

    rows: np.ndarray
    events: pd.DataFrame
    at: pd.DataFrame
    features: tuple[HistoryFeature, ...]
    lookback: timedelta


def compute_part(part: Part) -> np.ndarray:
    """The features of one part: float32 (rows, features). One thread: many parts run at the same time."""
    table = history_features(part.events, part.at, part.features, part.lookback, threads=1)
    return table.to_numpy(dtype=np.float32)


def cut_into_parts(
    events: pd.DataFrame,
    at: pd.DataFrame,
    features: Sequence[HistoryFeature],
    lookback: timedelta,
    most_parts: int,
    least: int = WORTH_A_PART,
) -> Iterator[Part]:
    """The parts of a computation, one at a time: each is a copy of what it needs.

    most_parts : at most this many per key. least : rows and events that a part has at least, unless a key has fewer.

    The values of a key are dealt by their number of rows and events, most frequent first: a hash would put several of
    the few that hold most of the work into one part (rules are Zipf distributed).
    """
    features = list(features)
    check(events, at, features, lookback)
    columns = [c for c in EVENT_COLUMNS if c in events.columns]
    for key in dict.fromkeys(f.key for f in features):
        mine = tuple(f for f in features if f.key == key)
        at_codes, event_codes, n = encode(at[key], at[key] if events is at else events[key])
        sizes = np.bincount(at_codes[at_codes >= 0], minlength=n) + np.bincount(
            event_codes[event_codes >= 0], minlength=n
        )
        count = int(max(1, min(most_parts, n, sizes.sum() // max(1, least))))
        part_of = np.empty(n + 1, np.int32)
        part_of[np.argsort(-sizes, kind="stable")] = np.arange(n, dtype=np.int32) % count
        part_of[n] = -1  # code -1: no value
        at_parts, event_parts = part_of[at_codes], part_of[event_codes]
        for number in range(count):
            rows = np.flatnonzero(at_parts == number)
            if not len(rows):
                continue
            past = np.flatnonzero(event_parts == number)
            yield Part(
                rows,
                events[columns].take(past).assign(**{key: event_codes[past]}),
                at[["raised_at"]].take(rows).assign(**{key: at_codes[rows]}),
                mine,
                lookback,
            )


def in_parts(
    events: pd.DataFrame,
    at: pd.DataFrame,
    features: Sequence[HistoryFeature],
    lookback: timedelta,
    compute: Callable[[Iterable[Part]], Iterable[tuple[Part, np.ndarray]]],
    most_parts: int,
    least: int = WORTH_A_PART,
) -> pd.DataFrame:
    """What `history_features` returns, byte for byte, computed in parts.

    compute : answers parts with (the part, what `compute_part` makes of it), in any order; takes them one at a time.
    most_parts, least : as in `cut_into_parts`. Errors are those of `history_features`.
    """
    features = list(features)
    place = {f.name: i for i, f in enumerate(features)}
    out = np.full((len(features), len(at)), np.nan, dtype=np.float32)
    for part, values in compute(cut_into_parts(events, at, features, lookback, most_parts, least)):
        for column, feature in enumerate(part.features):
            out[place[feature.name], part.rows] = values[:, column]
    return pd.DataFrame(out.T, index=at.index, columns=[f.name for f in features], copy=False)
