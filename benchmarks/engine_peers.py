"""What people would use instead of the timeline, each written as a good user of that tool would write it.

Belongs here: one function per peer, with the signature of `Contender`, and its imports inside it. Does not belong
here: data, timing and comparison (`benchmarks/engine.py`).

A peer gets the frame of `benchmarks.engine.standard_workload`, the declared features and the lookback, and returns the
columns named by `HistoryFeature.name` in the row order of the frame. The benchmark refuses an answer that differs.
A peer that cannot express a feature leaves its column out, and the table says how many it gave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

import pandas as pd

from dagster_project.triage.timeline import HistoryFeature

Contender = Callable[[pd.DataFrame, Sequence[HistoryFeature], timedelta], pd.DataFrame]

PEERS: dict[str, Contender] = {}
