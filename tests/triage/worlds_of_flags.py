"""Small companies with floods, incidents and quiet rules, for the tests of the flags.

Belongs here: a generator that draws alerts with known truth, with numpy only.
Does not belong here: the simulator of the demo and the benchmarks.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

DAY = 86_400_000_000
START = pd.Timestamp("2024-01-01", tz="UTC")


def company(
    seed: int,
    days: int = 90,
    rules: int = 12,
    mean: float = 8.0,
    acted: float = 0.4,
    floods: tuple[tuple[int, int, float], ...] = (),
    incidents: tuple[tuple[int, int, float], ...] = (),
    gap: tuple[int, int] | None = None,
    growth: float = 1.0,
) -> pd.DataFrame:
    """One row per alert with its outcome and the truth.

    floods, incidents : (day, rule, multiple of the usual volume). gap : first and last day without any alert.
    growth : volume of the last day over that of the first. Weekends have half the volume.
    """
    random = np.random.default_rng(seed)
    usual = mean * random.lognormal(0, 0.5, rules)
    day = np.repeat(np.arange(days), rules)
    rule = np.tile(np.arange(rules), days)
    week = np.where((START.weekday() + day) % 7 >= 5, 0.5, 1.0)
    number = random.poisson(usual[rule] * week * growth ** (day / days))
    if gap:
        number[(gap[0] <= day) & (day <= gap[1])] = 0
    parts = [(day, rule, number, np.full(len(day), acted), np.full(len(day), "usual", dtype=object))]
    for kind, bursts, share in (("flood", floods, 0.01), ("incident", incidents, max(0.7, acted))):
        if bursts:
            at, which, multiple = (np.array(column) for column in zip(*bursts, strict=True))
            extra = np.round(usual[which] * (multiple - 1)).astype(int)
            parts.append((at, which, extra, np.full(len(at), share), np.full(len(at), kind, dtype=object)))
    number = np.concatenate([part[2] for part in parts])
    day, rule, _, share, kind = (np.repeat(np.concatenate([part[i] for part in parts]), number) for i in range(5))
    total = len(day)
    acts = random.random(total) < share
    # Half of the alerts nobody acts on are dismissed; the rest say nothing until the horizon ends.
    soon = acts | (random.random(total) < 0.5)
    lag = np.where(soon, random.exponential(1.0, total).clip(0.01, 14), 14.0)
    offset = day * DAY + random.integers(0, DAY, total)
    table = pd.DataFrame(
        {
            "raised_at": START + pd.to_timedelta(offset, unit="us"),
            "rule": [f"rule {r}" for r in rule],
            "team": [f"team {r % 3}" for r in rule],
            "attributes": [json.dumps({"site": f"s{r % 2}", "serial": int(d)}) for r, d in zip(rule, day, strict=True)],
            "acted": acts.astype(float),
            "lag": lag,
            "kind": kind,
        }
    )
    table["raised_at"] = table["raised_at"].dt.as_unit("us")
    table["known_at"] = table["raised_at"] + pd.to_timedelta((table.pop("lag") * 86_400e6).astype("int64"), unit="us")
    table["horizon_ends_at"] = table["raised_at"] + pd.Timedelta(days=14)
    table["alert_id"] = [f"a{number}" for number in range(len(table))]
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Fails unless two tables of flags are equal, type by type; lists and nulls included."""
    assert list(one.columns) == list(other.columns)
    assert len(one) == len(other)
    for column in one.columns:
        assert one[column].dtype == other[column].dtype, column
        left, right = one[column].to_list(), other[column].to_list()
        for a, b in zip(left, right, strict=True):
            both_null = not isinstance(a, list) and pd.isna(a) and pd.isna(b)
            assert both_null or a == b, (column, a, b)
