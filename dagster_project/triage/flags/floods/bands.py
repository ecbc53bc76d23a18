"""The band: which volumes of a scope and day are to be expected, from earlier days alone.

Belongs here: weekday profile and trend of the company, and each scope's band by the compiled loop (`kernels.py`,
imported only when something is computed).
Does not belong here: what follows when a volume leaves its band (`levels.py`).

Counts are compared on the square-root scale, where Poisson noise is constant (Anscombe 1948), by median and median
absolute deviation (Hampel 1974); a negative-binomial predictive tail guards the band where data are few.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dagster_project.triage.flags.floods.history import FloodSettings, History


@dataclass
class Season:
    """What the whole company's volume does, as of each day: weekday of the day, factors of all weekdays, growth."""

    weekday: np.ndarray
    profile: np.ndarray
    slope: np.ndarray


def season_of(h: History, window: int) -> Season:
    weekday = ((h.calendar + 3) % 7).astype(np.int64)  # 1970-01-01 was a Thursday; Monday is 0
    totals = np.bincount(h.slot, minlength=len(h.calendar)).astype(float)
    profile = _profile(totals, weekday, window)
    return Season(weekday, profile, _slope(totals, weekday, profile, window))


def _slope(totals: np.ndarray, weekday: np.ndarray, profile: np.ndarray, window: int) -> np.ndarray:
    """Daily growth of the whole company's volume (natural log) as of each day, from earlier days only.

    The difference of the medians of the window's two halves, for days of equal weekday weight; floods and holidays
    of a few days do not move it. Shrunk where a company raises so few alerts that the medians are noise.
    """
    slope = np.zeros(len(totals))
    for today in range(28, len(totals)):
        low = max(0, today - window)
        half = (today - low) // 2
        level = (totals[low:today] + 0.375) / profile[today, weekday[low:today]]
        old, new = np.median(level[:half]), np.median(level[-half:])
        weight = (old + new) / (old + new + 20.0)
        slope[today] = weight * np.clip(np.log(new / old), -0.7, 0.7) / (len(level) - half)
    return slope


def _profile(totals: np.ndarray, weekday: np.ndarray, window: int) -> np.ndarray:
    """Weekday factors of the whole company as of each day, from earlier days only; shape (days, 7), mean
    about 1."""
    days = len(totals)
    profile = np.ones((days, 7))
    root = np.sqrt(totals + 0.375)
    for today in range(14, days):
        low = max(0, today - window)
        recent, which = root[low:today], weekday[low:today]
        middle = np.median(recent)
        for w in range(7):
            same = recent[which == w]
            # Two days of prior: a factor from a single Sunday is pulled two thirds of the way to 1.
            ratio = (np.median(same) / middle) ** 2 if len(same) else 1.0
            profile[today, w] = (len(same) * ratio + 2.0) / (len(same) + 2.0)
    return np.clip(profile, 0.05, 5.0)


def bands_of(
    starts: np.ndarray,
    slot: np.ndarray,
    count: np.ndarray,
    peak: np.ndarray,
    season: Season,
    alpha: np.ndarray,
    settings: FloodSettings,
    *,
    prior: tuple[np.ndarray, np.ndarray] | None = None,
    newly: np.ndarray | None = None,
    minimum_days: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The band of each (scope, day) cell; arguments and result are those of `kernels.compute_bands`.

    prior : mean and dispersion for scopes without a past; None: there is no prior. newly : None for zero.
    minimum_days : where it must be more than that of `settings`.
    """
    from dagster_project.triage.flags.floods.kernels import compute_bands

    days = len(season.weekday)
    return compute_bands(
        starts,
        slot,
        count,
        peak,
        season.weekday,
        season.profile,
        season.slope,
        *(prior or (np.full(days, np.nan), np.ones(days))),
        np.zeros(len(slot)) if newly is None else newly,
        alpha,
        settings.window_days,
        max(minimum_days, settings.minimum_days),
        settings.minimum_volume,
        settings.minimum_ratio,
        settings.band_width,
    )
