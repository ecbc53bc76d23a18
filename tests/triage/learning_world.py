"""A small world with known probabilities, and its history by brute force, for the tests of learning."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pandas as pd

from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.keys import key_values

START = pd.Timestamp("2024-01-01", tz="UTC")
HORIZON = pd.Timedelta(days=14)


def world(n: int = 1500, days: int = 150, seed: int = 0) -> pd.DataFrame:
    """A training frame: 12 rules with their own rates; severity and one attribute matter."""
    return _world(n, days, seed).copy()


@cache
def _world(n: int, days: int, seed: int) -> pd.DataFrame:
    """Made once in a process: the history by brute force takes seconds."""
    return with_history(facts(n, days, seed), FeatureSettings())


def facts(n: int, days: int, seed: int) -> pd.DataFrame:
    """`world` without its history columns."""
    rng = np.random.default_rng(seed)
    raised = START + pd.to_timedelta(np.sort(rng.integers(0, days * 86_400, n)), unit="s")
    rule = rng.integers(0, 12, n)
    severity = rng.choice(["low", "high"], n)
    kind = rng.choice(["spend", "clicks", "delivery"], n)
    rate = np.linspace(-3, 2, 12)[rule] + 1.5 * (severity == "high") - 1.5 * (kind == "clicks")
    truth = 1 / (1 + np.exp(-rate))
    acted = (rng.random(n) < truth).astype(float)
    delay = pd.to_timedelta(np.where(acted == 1, rng.exponential(86_400, n), 14 * 86_400).round(), unit="s")
    return pd.DataFrame(
        {
            "alert_id": [f"a{i:05d}" for i in range(n)],
            "raised_at": raised.astype("datetime64[us, UTC]"),
            "rule": [f"rule {r}" for r in rule],
            "entity": [f"campaign {e}" for e in rng.integers(0, 60, n)],
            "team": [f"team {r % 3}" for r in rule],
            "severity": severity,
            "value": rng.normal(10, 3, n),
            "threshold": 8.0,
            "title": None,
            "attributes": [
                json.dumps({"kind": k, "ticket": f"T-{i}", "budget": float(b)})
                for i, (k, b) in enumerate(zip(kind, rng.integers(1, 9, n), strict=True))
            ],
            "acted": acted,
            "known_at": (raised + np.minimum(delay, HORIZON)).astype("datetime64[us, UTC]"),
            "excluded": False,
            "truth": truth,
        }
    )


def with_history(frame: pd.DataFrame, settings: FeatureSettings) -> pd.DataFrame:
    """`frame` with its history columns, by their definition (quadratic per key; for small frames)."""
    keys = key_values(frame, settings.keys)
    raised = frame["raised_at"].astype("int64").to_numpy()
    known = frame["known_at"].astype("int64").to_numpy()
    acted = frame["acted"].to_numpy()
    columns: dict[str, np.ndarray] = {f.name: np.full(len(frame), np.nan) for f in history_features_for(settings)}
    for key in settings.keys:
        features = [f for f in history_features_for(settings) if f.key == key]
        for members in frame.groupby(keys[key].to_numpy()).indices.values():
            r, k, a = raised[members], known[members], acted[members]
            order = np.argsort(k, kind="stable")
            for row, t in zip(members, r, strict=True):
                before = order[k[order] < t]
                for f in features:
                    span = f.window.total_seconds() * 1e6 if f.window is not None else np.inf
                    recent = before[k[before] >= t - span]
                    acts = before[a[before] == 1]
                    earlier = r[r < t]
                    columns[f.name][row] = {
                        "raised_count": lambda e=earlier, s=span, t=t: (e >= t - s).sum(),
                        "known_count": lambda x=recent: len(x),
                        "acted_count": lambda x=recent, a=a: a[x].sum(),
                        "last_outcome": lambda b=before, a=a: a[b[-1]] if len(b) else np.nan,
                        "seconds_since_raised": lambda e=earlier, t=t: (t - e.max()) / 1e6 if len(e) else np.nan,
                        "seconds_since_acted": lambda x=acts, k=k, t=t: (t - k[x[-1]]) / 1e6 if len(x) else np.nan,
                        "decayed_acted_rate": lambda b=before, f=f, t=t, k=k, a=a: _decayed(b, k, a, t, f),
                    }[f.statistic]()
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def _decayed(before: np.ndarray, known: np.ndarray, acted: np.ndarray, t: int, feature: object) -> float:
    weight = 2.0 ** (-(t - known[before]) / (feature.half_life.total_seconds() * 1e6))  # type: ignore[attr-defined]
    return float(np.dot(weight, acted[before]) / weight.sum()) if len(before) else float("nan")
