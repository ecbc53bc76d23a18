"""A mixture of contenders with a guarantee: prediction with expert advice under log-loss.

Belongs here: the weights of contenders from what they forecast and what came of it, how much worse than the best
contender in hindsight the mixture can be, and the stored form of weights.
Does not belong here: making forecasts (`linear.py`, `baselines.py`, `competition.py`), measuring them
(`evaluation/evidence.py`).

A published probability is the weighted mean of the contenders' probabilities. Weights change at moments (cuts) only,
and use outcomes only once they count as known; between two moments many alerts are published under the same weights,
and the outcomes of these arrive moments later. So feedback comes late and in batches.

The method. At a moment, weight_i is proportional to prior_i * exp(-rate * L_i), where L_i is the sum of contender i's
log losses on the outcomes known so far; then a share of the weight is spread by the prior again, so that a contender
that was bad long ago can come back within a few batches (fixed share). The rate begins at 1, which is Bayes' rule, and
falls when batches show that Bayes' rule would be overconfident: one fan-out of 300 alerts, or two weeks published
before the first outcome, are not 300 independent reasons to believe one contender.

The guarantee. Let N contenders have equal prior weights, J batches of outcomes, rate r_J at the end and `share` a:

    loss of the mixture <= loss of contender i + (ln N + J * ln(1 / (1 - a))) / r_J + excess        for every i,

where all losses are sums of log losses in nats over the alerts whose outcomes are known, and `excess` is a sum that the
mixture itself measures: the loss published less the mix loss -(1/r) ln(sum_i w_i exp(-r * batch loss_i)) of the weights
that stood when the batch arrived. A contender to which the comparison switches m times costs m * ln(N / a) / r_J more.
The proof assumes nothing about alerts, outcomes, delays or contenders: with
Phi_r(L) = -(1/r) ln(sum_i prior_i exp(-r L_i)), every batch adds Phi_r(L + batch) - Phi_r(L) plus its excess to the
published loss by definition; Phi_r grows when r falls; and sharing leaves Phi as it is and raises no L_i by more than
ln(1 / (1 - a)) / r. The sum telescopes. Where each batch is one alert and no outcome is late, excess is zero at rate
1, and where batches of at most B alerts arrive before the next is published, it is at most zero at rates up to 1 / B
(Hoelder's inequality). So the worst case over all data is a bound of B * ln N; the rate is chosen so that the two
parts of the bound are about equal, which on tame data is far less.

The bound holds for whatever weights are published, because the excess is measured. In practice the outcomes of nearly
all alerts of a training's inner cuts arrive at once, at its end; there the weights above stay close to the prior. So a
training publishes stacked weights (`stacked`): those that make the outcomes known so far most likely, with the prior as
pseudo-outcomes. In replays of real incidents, developed on three cuts, their log-loss was 0.596, that of the
exponential weights 0.600.

Sources: Vovk 1998 (mixability of log-loss); Herbster & Warmuth 1998 (fixed share); Weinberger & Ordentlich 2002 and
Joulani, Gyorgy & Szepesvari 2013 (delayed feedback costs a factor of the delay); de Rooij, van Erven, Grunwald & Koolen
2014 (the rate from the measured gap); Dempster, Laird & Rubin 1977 and Smyth & Wolpert 1999 (stacked weights).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import clip_probability, log_losses

# Of the weight at each batch of outcomes that is spread by the prior again. A judgement: over a year of weekly
# batches it costs a contender that is always best 0.5 / rate nats in all, and a contender that was worthless can take
# over after evidence of ln(N / share), about 7 nats.
SHARE = 0.01
# The rate never falls below this: at 1 / 2,000 the weights would hardly move on any data that a year brings.
LEAST_RATE = 1 / 2_000
# The prior of stacked weights counts as so many outcomes. A judgement: ten independent ones say as much as the prior.
PSEUDO = 10.0
# Steps of expectation maximisation; what they have not settled by then, the outcomes hardly tell apart.
MOST_STEPS = 100


@dataclass(frozen=True)
class MixtureState:
    """What a mixture knows between two batches of outcomes.

    prior : float64 [contenders], sums to 1. losses : float64 [contenders], each contender's loss in the sense of the
    weights, shares included. rate : 0 < rate <= 1. excess, highest_excess : nats, measured so far and the most it was.
    batches : how many had outcomes. own : float64 [contenders], plain sums of log losses; published : of the mixture.
    """

    prior: np.ndarray
    losses: np.ndarray
    rate: float = 1.0
    excess: float = 0.0
    highest_excess: float = 0.0
    batches: int = 0
    own: np.ndarray = field(default_factory=lambda: np.zeros(0))
    published: float = 0.0
    spent: float = 0.0

    @classmethod
    def start(cls, contenders: int, prior: np.ndarray | None = None) -> MixtureState:
        """Before any outcome; the prior is equal weights unless given (positive, in any scale)."""
        if contenders < 1:
            raise ValueError("a mixture needs a contender")
        weights = np.ones(contenders) if prior is None else np.asarray(prior, dtype=np.float64)
        if weights.shape != (contenders,) or not (np.isfinite(weights) & (weights > 0)).all():
            raise ValueError("the prior needs one positive number per contender")
        return cls(weights / weights.sum(), np.zeros(contenders), own=np.zeros(contenders))

    @property
    def weights(self) -> np.ndarray:
        """float64 [contenders], positive, sums to 1."""
        return _normal(np.log(self.prior) - self.rate * self.losses)

    @property
    def bounds(self) -> np.ndarray:
        """By how many nats the mixture can have lost more than each contender, over all outcomes so far: float64."""
        return -np.log(self.prior) / self.rate + self.spent / self.rate + self.excess

    def learn(self, batch_losses: np.ndarray, published: float, share: float = SHARE) -> MixtureState:
        """After a batch of outcomes: each contender's sum of log losses on it, and that of the mixture as published."""
        if not np.isfinite(batch_losses).all():
            raise ValueError("a contender's loss is not finite")
        losses = self.losses + batch_losses
        mix = _potential(self.prior, losses, self.rate) - _potential(self.prior, self.losses, self.rate)
        excess = self.excess + published - mix
        highest = max(self.highest_excess, excess)
        # Shared at the rate at which the batch was learned; the potential stays as it is.
        if share > 0:
            logs = np.log(self.prior) - self.rate * losses
            total = _log_sum(logs)
            logs = np.logaddexp(np.log1p(-share) + logs, np.log(share) + np.log(self.prior) + total)
            losses = (np.log(self.prior) - logs) / self.rate
        rate = self.rate
        if len(self.prior) > 1 and highest > 0:
            rate = min(rate, max(LEAST_RATE, np.log(len(self.prior)) / highest))
        return MixtureState(
            self.prior, losses, rate, excess, highest, self.batches + 1, self.own + batch_losses,
            self.published + published, self.spent - np.log1p(-share),
        )  # fmt: skip


def mix(forecasts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mixture's probability per alert: `forecasts` [alerts, contenders] in (0, 1), `weights` [contenders] or
    [alerts, contenders]."""
    p = clip_probability(forecasts)
    return clip_probability((p * weights).sum(axis=1))


def stacked(
    forecasts: np.ndarray, acted: np.ndarray, importance: np.ndarray, prior: np.ndarray, strength: float = PSEUDO
) -> np.ndarray:
    """The weights of greatest posterior density: float64 [contenders], positive, they sum to 1.

    forecasts : [alerts, contenders]. acted : 0.0 or 1.0. importance : how much each outcome counts. prior : sums to 1;
    it counts as `strength` outcomes, shared among the contenders as the prior says. Without outcomes it is the result.
    """
    if not len(acted):
        return prior
    p = clip_probability(forecasts)
    likelihood = np.where(acted[:, None] > 0, p, 1 - p)
    weights = prior
    for _ in range(MOST_STEPS):
        counts = weights * (likelihood.T @ (importance / (likelihood @ weights))) + strength * prior
        better = counts / counts.sum()
        done = np.abs(better - weights).max() < 1e-5
        weights = better
        if done:
            break
    return weights


@dataclass(frozen=True)
class Rolled:
    """What a mixture would have published.

    probability : float64 [alerts]. weights : float64 [batches of publication, contenders], those of each moment.
    state : after the outcomes that count as known at the end. final : the weights then.
    """

    probability: np.ndarray
    weights: np.ndarray
    state: MixtureState
    final: np.ndarray


def roll(
    forecasts: np.ndarray,
    acted: np.ndarray,
    made: np.ndarray,
    known: np.ndarray,
    moments: int,
    prior: np.ndarray | None = None,
    share: float = SHARE,
    importance: np.ndarray | None = None,
) -> Rolled:
    """Walk through moments 0, 1, ..., `moments` - 1: learn what is known by then, publish what is made then.

    Parameters
    ----------
    forecasts : [alerts, contenders], each made with what was known at the alert's moment.
    acted : 0.0 or 1.0. made : the moment at which each alert is published, from 0. known : the moment from which on its
        outcome may be used, after `made`; `moments` is the end, and later ones are never used.
    importance : how much each outcome counts for stacked weights; None publishes the exponential weights.

    An outcome is used at the first moment that is not before `known`, and nothing at a moment depends on outcomes known
    later. The order of alerts changes nothing but rounding.
    """
    if (known <= made).any():
        raise ValueError("an outcome cannot be used at the moment of its own forecast")
    losses = np.column_stack([log_losses(forecasts[:, i], acted) for i in range(forecasts.shape[1])])
    state = MixtureState.start(forecasts.shape[1], prior)
    probability, weights = np.zeros(len(acted)), []
    for moment in range(moments + 1):
        arrived = known == moment
        if arrived.any():
            state = state.learn(
                losses[arrived].sum(axis=0), float(log_losses(probability[arrived], acted[arrived]).sum()), share
            )
        seen = known <= moment
        current = state.weights
        if importance is not None:
            current = stacked(forecasts[seen], acted[seen], importance[seen], state.prior)
        if moment < moments:
            now = made == moment
            probability[now] = mix(forecasts[now], current)
            weights.append(current)
    return Rolled(probability, np.array(weights), state, current)


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


def _log_sum(logs: np.ndarray) -> float:
    highest = logs.max()
    return float(highest + np.log(np.exp(logs - highest).sum()))


def _normal(logs: np.ndarray) -> np.ndarray:
    return np.exp(logs - _log_sum(logs))


def _potential(prior: np.ndarray, losses: np.ndarray, rate: float) -> float:
    return -_log_sum(np.log(prior) - rate * losses) / rate
