"""What showing a score does to people: alerts with a shown score against alerts that were held out at random.

Belongs here: the estimate of a difference between the two arms, its interval, and the joint question over score bands.
`reporting.score_influence` says the same in SQL; a test holds the two against each other, and
`benchmarks/influence.py` measures how often the intervals cover the truth.
Does not belong here: the draw (`resources/stores/scores.py`) and which alerts count (the view).

The draw is made alert by alert, independently of everything else, so the two arms differ by chance alone and a
difference of shares is an unbiased estimate of the mean effect. Alerts of one rule and day are alike, but each of them
may be in either arm: intervals need no clusters (Neyman 1923; Imbens and Rubin 2015, chapter 6). They assume that what
is shown for one alert changes nothing for another.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dagster_project.triage.evaluation.metrics import Z95, wilson_interval

# 95% points of chi-square with 1 to 4 degrees of freedom.
CHI_SQUARE_95 = (3.8415, 5.9915, 7.8147, 9.4877)
# Lower edges of the score bands. The lowest holds most alerts and the highest few: equal widths would leave little.
BAND_EDGES = (0.0, 0.1, 0.25, 0.5)


@dataclass(frozen=True)
class Difference:
    """Shown minus held out. chi_square : the squared difference over its variance if there were no effect."""

    value: float
    low: float
    high: float
    chi_square: float


def difference_of_shares(acted1: np.ndarray, n1: np.ndarray, acted0: np.ndarray, n0: np.ndarray) -> Difference:
    """The effect on the acted share, over strata within which the share held out was the same.

    Parameters
    ----------
    acted1, n1 : (S,) alerts acted on, and alerts, with a shown score, per stratum. acted0, n0 : the same, held out.
        Strata in which an arm is empty say nothing and are left out.

    Returns
    -------
    The difference weighted by n1 n0 / (n1 + n0), with Newcombe's interval (1998, method 10), combined over strata as
    Zou and Donner do (MOVER, 2008); nan where no stratum has both arms.
    """
    acted1, n1, acted0, n0 = (np.atleast_1d(np.asarray(each, dtype=np.float64)) for each in (acted1, n1, acted0, n0))
    both = (n1 > 0) & (n0 > 0)
    if not both.any():
        return Difference(*4 * (float("nan"),))
    acted1, n1, acted0, n0 = acted1[both], n1[both], acted0[both], n0[both]
    weight = n1 * n0 / (n1 + n0)
    total = weight.sum()
    share1, share0 = acted1 / n1, acted0 / n0
    (low1, high1), (low0, high0) = wilson_interval(acted1, n1), wilson_interval(acted0, n0)
    value = float(np.dot(weight, share1 - share0) / total)
    below = np.sqrt(np.sum(weight**2 * ((share1 - low1) ** 2 + (high0 - share0) ** 2))) / total
    above = np.sqrt(np.sum(weight**2 * ((high1 - share1) ** 2 + (share0 - low0) ** 2))) / total
    mean = (acted1 + acted0) / (n1 + n0)
    null = np.sum(weight**2 * mean * (1 - mean) * (1 / n1 + 1 / n0)) / total**2
    return Difference(value, value - below, value + above, float(value**2 / null) if null > 0 else float("nan"))


def difference_of_means(shown: np.ndarray, held_out: np.ndarray) -> Difference:
    """The effect on a measure such as hours, with Welch's variance; nan where an arm has fewer than two alerts."""
    if len(shown) < 2 or len(held_out) < 2:
        return Difference(*4 * (float("nan"),))
    value = float(np.mean(shown) - np.mean(held_out))
    variance = float(np.var(shown, ddof=1) / len(shown) + np.var(held_out, ddof=1) / len(held_out))
    half = Z95 * variance**0.5
    return Difference(value, value - half, value + half, value**2 / variance if variance > 0 else float("nan"))


def band_of(probability: np.ndarray) -> np.ndarray:
    """The number of the score band, 0 to 3."""
    return np.searchsorted(BAND_EDGES, probability, side="right") - 1


def acts_differently(chi_squares: list[float]) -> bool | None:
    """Whether people act differently, asked of all bands together at 5% false alarms; None: no band says anything.

    A score that people follow raises action where it is high and lowers it where it is low, and may change no total.
    """
    known = [each for each in chi_squares if np.isfinite(each)]
    return sum(known) > CHI_SQUARE_95[len(known) - 1] if known else None
