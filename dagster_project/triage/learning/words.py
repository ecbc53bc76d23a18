"""History of words: what became of earlier alerts that have a word of this alert.

Belongs here: dealing alerts to their words, and what the histories of an alert's words say together.
Does not belong here: history of one key (`timeline`, which does the counting here too), splitting a text into words
(`sparse.words`).

The share acted of a word is that of all outcomes known strictly before the alert was raised, of alerts with the word
in the same column; words are those of `sparse.words`: single ones and pairs of neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.learning.sparse import word_codes
from dagster_project.triage.metrics import logit
from dagster_project.triage.timeline import HistoryFeature, history_features

# How many alerts at the overall rate the rate of a word is mixed with. A judgement: most words are rare, and the most
# extreme of ten words of which each has three outcomes says little.
STRENGTH = 5.0
STATISTICS = ("word_mean", "word_highest", "word_lowest", "word_known")
# An alert's words beyond so many are not looked at: the time it takes is one history per word.
MOST_WORDS = 24


def word_history(
    events: pd.DataFrame, at: pd.DataFrame, columns: Sequence[str], lookback: timedelta, threads: int | None = None
) -> pd.DataFrame:
    """What the histories of each alert's words say.

    Parameters
    ----------
    events, at : as `timeline.history_features` takes them, with the text `columns` ("title", "@message", ...); of
        attributes the frames have the column `attributes`. lookback : older outcomes do not count.

    Returns
    -------
    float32 [rows of `at`], with its index:

        ============ ======== ================================================================================
        word_mean    log-odds mean over the alert's words of the shrunk share acted, less the overall share known then
        word_highest log-odds the highest of them; word_lowest : the lowest
        word_known   count    known outcomes of the word that has most of them
        ============ ======== ================================================================================
    nan for an alert without words.
    """
    both = at if events is at else pd.concat([events, at], ignore_index=True)
    rows, codes, _ = word_codes(both, columns, MOST_WORDS)
    made = pd.DataFrame(np.full((len(at), len(STATISTICS)), np.nan, np.float32), at.index, list(STATISTICS))
    first = 0 if events is at else len(events)
    asked = np.unique(codes[rows >= first])
    if not len(asked):
        return made
    # Words that no row asks about need no history.
    place = np.full(int(codes.max()) + 1, -1)
    place[asked] = np.arange(len(asked))
    codes = place[codes]
    rows, codes = rows[codes >= 0], codes[codes >= 0]
    times = [c for c in ("known_at", "acted", "excluded_from", "excluded_until") if c in events]
    told = events[["raised_at", *times]]
    of_event = rows < len(events)
    of_row = rows >= first
    exploded = told.iloc[rows[of_event]].assign(word=codes[of_event]).reset_index(drop=True)
    asking = at[["raised_at"]].iloc[rows[of_row] - first].assign(word=codes[of_row]).reset_index(drop=True)
    wanted = [HistoryFeature("word", "known_count"), HistoryFeature("word", "acted_count")]
    counts = history_features(exploded, asking, wanted, lookback, threads=threads).to_numpy(np.float64)
    overall = [HistoryFeature("all", "known_count"), HistoryFeature("all", "acted_count")]
    every = history_features(
        told.assign(all=np.zeros(len(told), np.int64)), at[["raised_at"]].assign(all=np.zeros(len(at), np.int64)),
        overall, lookback, threads=threads,
    ).to_numpy(np.float64)  # fmt: skip
    rate = ((every[:, 1] + 0.5) / (every[:, 0] + 1.0))[rows[of_row] - first]
    odds = logit((counts[:, 1] + STRENGTH * rate) / (counts[:, 0] + STRENGTH)) - logit(rate)
    starts = np.flatnonzero(np.r_[True, np.diff(rows[of_row]) > 0])
    present = (rows[of_row] - first)[starts]
    sizes = np.diff(np.r_[starts, len(odds)])
    values = np.column_stack(
        [
            np.add.reduceat(odds, starts) / sizes,
            np.maximum.reduceat(odds, starts),
            np.minimum.reduceat(odds, starts),
            np.maximum.reduceat(counts[:, 0], starts),
        ]
    )
    out = made.to_numpy(copy=True)
    out[present] = values
    return pd.DataFrame(out, at.index, list(STATISTICS))
