"""Features of the alert itself.

Belongs here: numbers computed from the facts known when the alert was raised.
Does not belong here: its history (`history/`), attributes (`attributes.py`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

# Words people use for urgency, from least to most. Numbered levels count the other way round: P1 and sev1 are worst.
SEVERITY_LEVELS = {
    **dict.fromkeys(("debug", "trace", "none", "negligible", "unknown"), 0.0),
    **dict.fromkeys(("info", "information", "informational", "notice", "p5", "sev5", "s5"), 1.0),
    **dict.fromkeys(("low", "minor", "p4", "sev4", "s4"), 2.0),
    **dict.fromkeys(("medium", "moderate", "warn", "warning", "normal", "p3", "sev3", "s3"), 3.0),
    **dict.fromkeys(("high", "major", "error", "severe", "important", "p2", "sev2", "s2"), 4.0),
    **dict.fromkeys(
        (
            "critical",
            "crit",
            "fatal",
            "emergency",
            "emerg",
            "alert",
            "urgent",
            "disaster",
            "blocker",
            "p1",
            "sev1",
            "s1",
        ),
        5.0,
    ),
    **dict.fromkeys(("p0", "sev0", "s0"), 6.0),
}

RAISE_TIME_FEATURES = (
    "value",
    "threshold",
    "value_over_threshold",
    "severity_level",
    "hour",
    "weekday",
    "title_length",
)


def raise_time_features(alerts: pd.DataFrame) -> pd.DataFrame:
    """Facts known when the alert was raised: float64 columns `RAISE_TIME_FEATURES`, nan where not known.

    value, threshold : arcsinh of the column, so that one enormous value does not own the scale.
    value_over_threshold : arcsinh((value - threshold) / |threshold|): signed excess in thresholds; nan at
    threshold 0.
    severity_level : 0 (debug) to 6 (P0) for words of `SEVERITY_LEVELS`, case and blanks ignored.
    hour : hour of day in UTC with its fraction. weekday : 0 is Monday.
    title_length : characters of the title.

    `alerts` needs `raised_at` (datetime, UTC); every other column may be absent.

    >>> alerts = pd.DataFrame({"raised_at": pd.to_datetime(["2026-03-02 09:30"], utc=True), "severity": ["P1"]})
    >>> raise_time_features(alerts)[["severity_level", "hour", "weekday"]].to_dict("records")
    [{'severity_level': 5.0, 'hour': 9.5, 'weekday': 0.0}]
    """
    n = len(alerts)

    def number(name: str) -> np.ndarray:
        if name not in alerts:
            return np.full(n, np.nan)
        values = pd.to_numeric(alerts[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        return np.where(np.isfinite(values), values, np.nan)

    value, threshold = number("value"), number("threshold")
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        excess = np.where(threshold != 0, (value - threshold) / np.abs(threshold), np.nan)
    raised = alerts["raised_at"].dt
    columns = {
        "value": np.arcsinh(value),
        "threshold": np.arcsinh(threshold),
        "value_over_threshold": np.where(np.isfinite(excess), np.arcsinh(excess), np.nan),
        "severity_level": _severity_level(alerts["severity"]) if "severity" in alerts else np.full(n, np.nan),
        "hour": (raised.hour + raised.minute / 60.0).to_numpy(dtype=np.float64),
        "weekday": raised.weekday.to_numpy(dtype=np.float64),
        "title_length": _length(alerts["title"]) if "title" in alerts else np.full(n, np.nan),
    }
    return pd.DataFrame(columns, index=alerts.index)[list(RAISE_TIME_FEATURES)]


def _severity_level(severity: pd.Series) -> np.ndarray:
    codes, words = pd.factorize(severity)
    level = [SEVERITY_LEVELS.get(str(w).strip().lower().replace("-", "").replace(" ", ""), np.nan) for w in words]
    return np.asarray([*level, np.nan], dtype=np.float64)[codes]


def _length(text: pd.Series) -> np.ndarray:
    codes, words = pd.factorize(text)
    return np.asarray([*(float(len(str(w))) for w in words), np.nan], dtype=np.float64)[codes]
