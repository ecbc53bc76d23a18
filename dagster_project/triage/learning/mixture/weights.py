"""A pool of contenders with a guarantee: prediction with expert advice under log-loss.

Belongs here: the weights of contenders from what they forecast and what came of it, and how much worse than the best
contender in hindsight the pool can be.
Does not belong here: making forecasts (`linear.py`, `learning/baselines.py`, `learning/tree_blend.py`), measuring them
(`evaluation/evidence.py`), and the version that serves (`model.py`).

The pool's log-odds are the weighted mean of the contenders' log-odds (a logarithmic opinion pool; Genest and Zidek
1986). Its loss is convex in the weights, and never above the weighted mean of the contenders' losses.

The weights at a moment minimise

    loss of the pool on the outcomes known by then + strength * KL(weights || prior)

(follow the regularised leader with entropy; Shalev-Shwartz 2012, chapter 2). Outcomes count with an importance: a
rule-day of n alerts counts as sqrt(n), because its alerts are hardly independent. With few outcomes the prior holds.

The strength. Averages of forecasts are hard to beat (Clemen 1989), and where habits drift, what was best in one month
is not in the next: there the prior must hold. Where nothing drifts, one contender can be better than all others, and
weights must follow. The past tells which: at each moment the smallest strength serves whose weights have been better
than those of the largest at every moment that could tell, at least `TELLING` times. Where outcomes take long, few
moments can tell; there the outcomes known so far are walked through in `BLOCKS`, and a smaller strength has to be
better in each, by much.

The guarantee. Outcomes arrive in batches b = 1, 2, ..., each after its alerts were published with the weights u_b of an
earlier moment; w_b are the weights that know batches 1 to b, of strength S_b. For every contender i with prior weight
p_i, and B the last batch,

    loss of the pool <= loss of contender i + S_B * ln(1 / p_i) + sum over b of (loss_b(u_b) - loss_b(w_b))
                        + sum over b of (S_{b-1} - S_b) * KL(w_b || prior)

with losses weighted by importance. This is the lemma "be the leader" (Kalai and Vempala 2005), and needs no assumption
about alerts, contenders or delays: the sums, the price of weights that change, are measured. `Rolled.bounds` holds the
right-hand side less the loss of contender i.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import clip_probability, expit, log_losses, logit
from dagster_project.triage.learning.calibration import Calibration

# In units of importance, the largest first. With fixed 300, 30 and 10 the pool had a log-loss of 0.452, 0.461 and 0.475
# on package alerts, and of 0.613, 0.537 and 0.526 in simulated alerts whose words decide. Chosen by the past it had
# 0.452 and 0.526.
STRENGTHS = (300.0, 100.0, 30.0, 10.0)
TELLING = 2
# Blocks and the least share of the loss that a smaller strength must save, where few moments can tell. With 2% instead
# the log-loss on the service desk rose from 0.551 to 0.557; with 5% it fell from 0.60 to 0.50 in simulated alerts with
# 1,000 outcomes that two attributes decide together.
BLOCKS = 3
LEAST_SAVED = 0.05
FEWEST_IN_BLOCK = 20
# No contender moves the pool by more than this: "nobody acts" must not outvote all others by itself.
FLOOR = 1e-4
# How far the pool is moved away from the overall rate where much is known, and how many alerts are much. On both real
# sets, on four samples of them and on simulated companies of 3,000 to 30,000 alerts the log-loss fell by 0.001 to
# 0.010, on a fifth sample, of 100 to 1,000 alerts, it rose by 0.0004.
SHARPEN = 0.2
SHARPEN_SLOWLY = 2_000


def pool(forecasts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted mean of forecasts on the scale of log-odds.

    forecasts : float64 [alerts, contenders], probabilities. weights : float64 [contenders], sum to 1.
    Returns: probabilities, float64 [alerts].

    >>> pool(np.array([[0.5, 0.9]]), np.array([0.5, 0.5])).round(2).tolist()
    [0.75]
    """
    # Row by row the same sum in the same order, whatever the other rows are.
    return expit((np.ascontiguousarray(logit(clip_probability(forecasts, FLOOR))) * weights).sum(axis=1))


def sharpen(alerts: int, rate: float) -> Calibration:
    """The map over a pool that learned from so many alerts, of which the share `rate` was acted on.

    A mean of log-odds is too timid: what one contender knows and another does not is halved, although it should add up
    (Satopää et al. 2014). The log-odds of the overall rate, which all contenders know, stay; the distance from them
    grows by up to `SHARPEN`. Where little is known contenders are too bold themselves, and the mean is left alone.
    """
    slope = 1 + SHARPEN * alerts / (alerts + SHARPEN_SLOWLY)
    centre = float(logit(clip_probability(np.array([rate]), FLOOR))[0])
    return Calibration("platt", {"intercept": (1 - slope) * centre, "slope": slope})


def fit_weights(
    forecasts: np.ndarray,
    acted: np.ndarray,
    importance: np.ndarray,
    prior: np.ndarray,
    strength: float = STRENGTHS[0],
) -> np.ndarray:
    """The weights that minimise loss + strength * KL(weights || prior): float64 [contenders], positive, sum to 1.

    forecasts : float64 [alerts, contenders]. acted : 0.0 or 1.0. importance : of each outcome. The problem is convex.
    """
    if not len(acted):
        return prior
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    z = logit(clip_probability(forecasts, FLOOR))
    sign = np.where(acted > 0, -1.0, 1.0)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        weights = _softmax(theta)
        pooled = z @ weights
        ratio = theta - logsumexp(theta) - np.log(prior)
        value = float(np.dot(importance, np.logaddexp(0.0, sign * pooled)) + strength * np.dot(weights, ratio))
        gradient = z.T @ (importance * (expit(pooled) - acted)) + strength * ratio
        return value, weights * (gradient - np.dot(weights, gradient))

    best = minimize(objective, np.log(prior), jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-9})
    return _softmax(best.x)


@dataclass(frozen=True)
class Rolled:
    """What a pool would have published.

    probability : float64 [alerts]. weights : float64 [moments + 1, contenders]; the last row are the weights now.
    strength : of the weights now. bounds : float64 [contenders], see the top of the module. loss, losses : of the pool
        and of each contender, weighted by importance; on the outcomes known at the end.
    """

    probability: np.ndarray
    weights: np.ndarray
    strength: float
    bounds: np.ndarray
    loss: float
    losses: np.ndarray


def roll(
    forecasts: np.ndarray,
    acted: np.ndarray,
    published_at: np.ndarray,
    known_at: np.ndarray,
    moments: int,
    prior: np.ndarray,
    importance: np.ndarray,
    strengths: Sequence[float] = STRENGTHS,
) -> Rolled:
    """Walk through moments 0, 1, ..., `moments` - 1: learn what is known by then, publish what is due then.

    Parameters
    ----------
    forecasts : [alerts, contenders], in order of time, each made with what was known at the alert's moment.
    acted : 0.0 or 1.0. published_at : the moment of each alert, from 0. known_at : the moment from which on its outcome
        may be used, after `published_at`; `moments` is the end, and outcomes of later ones are never used.
    strengths : to choose from, the largest first.

    Nothing at a moment depends on outcomes known later.
    """
    if (known_at <= published_at).any():
        raise ValueError("an outcome cannot be used at the moment of its own forecast")
    seen = [known_at <= moment for moment in range(moments + 1)]
    paths = [
        [prior, *(fit_weights(forecasts[rows], acted[rows], importance[rows], prior, s) for rows in seen[1:])]
        for s in strengths
    ]
    published = np.array([_published(forecasts, published_at, path) for path in paths])
    losses_by_path = np.array([log_losses(p, acted) for p in published])
    ahead = importance * (losses_by_path[0] - losses_by_path)
    chosen = []
    for rows in seen:
        path = _chosen(ahead[:, rows], published_at[rows])
        if path is None:
            path = _chosen_in_blocks(forecasts[rows], acted[rows], importance[rows], prior, strengths)
        chosen.append(path)
    weights = [paths[path][moment] for moment, path in enumerate(chosen)]
    probability = _published(forecasts, published_at, weights)
    from scipy.special import rel_entr

    price = 0.0
    for moment in range(1, moments + 1):
        batch = known_at == moment
        after = log_losses(pool(forecasts[batch], weights[moment]), acted[batch])
        price += float(np.dot(importance[batch], log_losses(probability[batch], acted[batch]) - after))
        change = strengths[chosen[moment - 1]] - strengths[chosen[moment]]
        price += change * float(rel_entr(weights[moment], prior).sum())
    counted = known_at <= moments
    clipped = clip_probability(forecasts[counted], FLOOR)
    losses = np.array([float(np.dot(importance[counted], log_losses(p, acted[counted]))) for p in clipped.T])
    loss = float(np.dot(importance[counted], log_losses(probability[counted], acted[counted])))
    strength = strengths[chosen[-1]]
    return Rolled(probability, np.array(weights), strength, strength * np.log(1 / prior) + price, loss, losses)


def _published(forecasts: np.ndarray, published_at: np.ndarray, weights: Sequence[np.ndarray]) -> np.ndarray:
    """The pool's probabilities, each with the weights of its moment."""
    probability = np.zeros(len(forecasts))
    for moment in np.unique(published_at):
        now = published_at == moment
        probability[now] = pool(forecasts[now], weights[moment])
    return probability


def _chosen(ahead: np.ndarray, published_at: np.ndarray) -> int | None:
    """The path of the smallest strength that was ahead of the first at every moment that could tell; None if too few
    moments could.

    ahead : float64 [paths, alerts], by how much the loss was lower than that of the first path.
    """
    best = None
    for path in range(1, len(ahead)):
        by_moment = np.bincount(published_at, ahead[path])
        telling = by_moment[np.abs(by_moment) > 1e-9]
        if len(telling) >= TELLING:
            best = path if (telling > 0).all() else (best or 0)
    return best


def _chosen_in_blocks(
    forecasts: np.ndarray, acted: np.ndarray, importance: np.ndarray, prior: np.ndarray, strengths: Sequence[float]
) -> int:
    """The path of the smallest strength whose weights, fitted on the blocks before, lose clearly less in every block.

    Clearly: by `LEAST_SAVED` of the loss, and by two standard errors.
    """
    if len(acted) < BLOCKS * FEWEST_IN_BLOCK:
        return 0
    mass = np.cumsum(importance)
    block = np.minimum((mass / mass[-1] * BLOCKS).astype(np.int64), BLOCKS - 1)

    def losses(strength: float) -> np.ndarray:
        later = []
        for number in range(1, BLOCKS):
            past, now = block < number, block == number
            weights = fit_weights(forecasts[past], acted[past], importance[past], prior, strength)
            later.append(importance[now] * log_losses(pool(forecasts[now], weights), acted[now]))
        return np.concatenate(later)

    first, best = losses(strengths[0]), 0
    for path in range(1, len(strengths)):
        saved = first - losses(strengths[path])
        clearly = saved.sum() > max(LEAST_SAVED * first.sum(), 2 * np.sqrt(np.dot(saved, saved)))
        if clearly and (np.bincount(block[block > 0], saved)[1:] > 0).all():
            best = path
    return best


def weights_to_document(names: Sequence[str], weights: np.ndarray) -> dict[str, float]:
    """JSON-able weights by contender."""
    return {name: float(weight) for name, weight in zip(names, weights, strict=True)}


def weights_from_document(document: Any) -> tuple[list[str], np.ndarray]:
    """The weights of `weights_to_document`; `HeedError` when they are malformed."""
    try:
        names = [str(name) for name in document]
        weights = np.array([float(document[name]) for name in document], dtype=np.float64)
        sound = len(names) > 0 and np.isfinite(weights).all() and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6
    except (KeyError, TypeError, ValueError) as error:
        raise HeedError(f"the stored weights are malformed ({error!r})", "train again") from error
    if not sound:
        raise HeedError("the stored weights are malformed (negative, or their sum is not one)", "train again")
    return names, weights


def _softmax(theta: np.ndarray) -> np.ndarray:
    weights = np.exp(theta - theta.max())
    return weights / weights.sum()
