"""Closing alerts with a bounded miss rate: which threshold may be used, when to refuse, and when to stop.

Belongs here: the test that finds a threshold, how many acted alerts it needs, the draw of the check sample, the
decision about one alert, and the three monitors that pause and stop.
Does not belong here: who asked for it, undoing and tables (`resources/stores/autoclose.py`), and what a score is
(`pipeline.py`).

The score is an alert's first one, its chance at the raise: it is known when the alert comes, and does not fall while
nobody looks. The chance now, which readers see, would close whatever has waited long enough.

The miss rate of a threshold is the share of a rule's acted alerts whose first score lies below it: those that would
have been closed although somebody acts. Learn-then-Test (Angelopoulos, Bates, Candès, Jordan, Lei: arXiv:2110.01052):
each threshold of a grid that was fixed beforehand is the hypothesis "its miss rate is above the budget". Its p-value is
the exact binomial one. They are tested from the lowest threshold up, each at the full level, until the first is not
rejected (fixed-sequence testing, which keeps the family-wise error). The last one rejected is the threshold: its miss
rate is above the budget with a probability of at most `LEVEL`, as long as the future is like the past.

Three monitors watch whether it is: the check sample, the scores of acted alerts, and the scores of all alerts, which
are known days before their outcomes. All are e-processes, and so is their mean, however they depend on each other: it
stays below 1 / level forever with a probability of 1 - level (Ville), so that one may look after every run. Each is a
mixture over alternatives and over their starting times, so that a long quiet time does not make it insensitive (the
mixture of e-detectors: Shin, Ramdas, Rinaldo, arXiv:2203.03532). Well before the evidence is enough to stop, it is
enough to doubt: alerts then stay open until the doubt is gone.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from scipy.special import ndtri
from scipy.stats import beta, binom

from dagster_project.errors import HeedError

LEVEL = 0.05
# Steps of 2.2% up to one half: an alert that is more likely acted upon than not is never closed. A finer grid costs no
# confidence in fixed-sequence testing. It starts low because a rule on which 1% are acted has its threshold near 0.1%.
GRID = np.geomspace(1e-4, 0.5, 400)
# This share of the alerts below the threshold stays open, drawn at random. With 10%, the realised miss rate of a
# stationary rule exceeded 2% in 7.0% of 200 simulated runs, and in 13% to 18% under the mildest drifts; with 20% in
# 3.5%, and 5.5% to 11%. benchmarks/autoclose.md has the figures of the present code.
CHECK_SHARE = 0.20
# The test may spend the allowed miss rate except this part, which is reserved for changes that are too small to see:
# without it 11.5% of 200 simulated runs under the mildest slide exceeded, and 9.0% with it.
RESERVE = 0.05
# Alternatives of the check sample, as multiples of the budget.
EXCESSES = np.array([1.5, 2.0, 3.0, 5.0])
# Alternatives of the shift: the scores of acted alerts fall by this many of their own standard deviations. On the same
# runs a band of scores just above the threshold, watched by its count alone, let 56% to 70% of drifting runs exceed.
SHIFTS = np.array([0.25, 0.5, 1.0])
# Alternatives of the crowd: (share, factor): the factor by which the number of alerts changes among the lowest share of
# scores (a new kind that scores low) or among the highest (acted alerts that fell). The last one is a shift of all.
LOWEST = np.array([(0.001, 30.0), (0.003, 10.0), (0.01, 4.0), (0.03, 2.5), (0.1, 1.5), (0.3, 1.2)])
HIGHEST = np.array([(0.1, 0.3), (0.2, 0.5)])
ALL_SHIFT = 0.5
# An alternative may begin with every BLOCK-th alert; start number k has the weight 1 / (k (k + 1)).
BLOCK, CROWD_BLOCK = 20, 200
# The crowd is compared with at most this many of the latest alerts before the test.
MOST_BEFORE = 5_000
# With this much evidence alerts stay open until it is less, or enough to stop. Without a change that is about 1% of
# the time; after a sudden deep fall of acted alerts' scores 12.5% of 200 simulated runs exceeded without it, 4.5% with.
DOUBT = 2.0

FOUND, WAITING, REFUSED = "found", "waiting", "refused"
CLOSE, LEAVE_OPEN = "close", "leave open"
BELOW, ABOVE, DRAWN = "below the threshold", "not below the threshold", "check sample"
UNSEEN = "it scores lower than any alert before the test"
DOUBTED = "below the threshold, but the monitors have doubts"


@dataclass(frozen=True)
class Threshold:
    """The result of the test.

    status : 'found'; 'waiting': there are too few acted alerts for any threshold; 'refused': there are enough, and
        too many of them lie below even the lowest threshold.
    threshold : alerts with a score strictly below it may be closed; None unless found.
    acted, missed : acted alerts known, and those of them below the threshold (unless found: below the lowest).
    upper : 95% upper bound of the miss rate (Clopper-Pearson); None without acted alerts.
    more : acted alerts that are still missing, if none of them lies below the lowest threshold; 0 when found.
    """

    status: str
    threshold: float | None
    acted: int
    missed: int
    upper: float | None
    more: int

    def sentence(self, budget: float) -> str:
        """In plain words."""
        if self.threshold is not None and self.upper is not None:
            return (
                f"of {self.acted:,} acted alerts {self.missed:,} scored below {self.threshold:.2%}: the miss rate is "
                f"at most {self.upper:.2%} with 95% confidence, and {budget:.2%} is allowed"
            )
        if self.status == WAITING:
            return f"{self.acted:,} acted alerts are known, {self.more:,} more are needed for {budget:.2%}"
        return (
            f"{self.missed:,} of {self.acted:,} acted alerts scored below {GRID[0]:.2%}, the lowest threshold there "
            f"is: {self.more:,} more acted alerts above it are needed"
        )


def most_misses(acted: int, budget: float, level: float = LEVEL) -> int:
    """The most misses among `acted` alerts with which a miss rate of `budget` or more is rejected; -1: not even none.

    The largest k with P(Binomial(acted, budget) <= k) <= level.
    """
    _require(budget, acted)
    k = int(binom.ppf(level, acted, budget)) if acted else 0
    while k >= 0 and binom.cdf(k, acted, budget) > level:
        k -= 1
    return k


def acted_needed(missed: int, budget: float, level: float = LEVEL) -> int:
    """The fewest acted alerts of which `missed` may lie below a threshold: the least n with most_misses(n) >= missed.

    149 for no miss, 2% and 95%.
    """
    _require(budget, missed)
    low, high = missed, missed + 1
    while binom.cdf(missed, high, budget) > level:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binom.cdf(missed, middle, budget) <= level else (middle, high)
    return high


def find_threshold(scores: np.ndarray, budget: float, level: float = LEVEL, grid: np.ndarray = GRID) -> Threshold:
    """The highest threshold of the grid whose miss rate is at most `budget` with confidence 1 - level.

    scores : float[acted alerts], 0 to 1: the first score of each acted alert, by a model that had not learned from it.
        All of them a whole horizon old, none flagged, and whether an alert is among them must not depend on its score.
    budget : the highest miss rate allowed, above 0 and below 1.
    Raises HeedError: Impossible scores or an impossible budget.

    More misses never raise the threshold: lowering a score raises counts below, and the allowed count depends on how
    many scores there are alone.
    """
    _require(budget, 0)
    scores = np.sort(np.asarray(scores, float))
    if len(scores) and not (scores[0] >= 0 and scores[-1] <= 1):  # also false for nan
        raise HeedError("a score is not between 0 and 1", "score the alerts again")
    acted = len(scores)
    below = np.searchsorted(scores, grid, side="left")
    allowed = most_misses(acted, budget, level)
    # p-value <= level is the same as below <= allowed, and counts rise along the grid: the sequence stops at the
    # first count above it.
    passed = int(np.searchsorted(below, allowed, side="right"))
    if passed == 0:
        lowest = int(below[0])
        more = max(acted_needed(lowest, budget, level) - acted, 0)
        status = WAITING if allowed < 0 else REFUSED
        return Threshold(status, None, acted, lowest, _upper(lowest, acted, level), more)
    missed = int(below[passed - 1])
    return Threshold(FOUND, float(grid[passed - 1]), acted, missed, _upper(missed, acted, level), 0)


def _upper(count: int, of: int, level: float) -> float | None:
    if of == 0:
        return None
    return 1.0 if count >= of else float(beta.ppf(1 - level, count + 1, of - count))


def _require(budget: float, count: int) -> None:
    if not 0 < budget < 1:
        raise HeedError(f"a miss rate of {budget} is impossible", "name one above 0 and below 1, like 0.02")
    if count < 0:
        raise HeedError(f"{count} alerts are impossible", "count them again")


def is_drawn(alert_id: str, salt: str, share: float = CHECK_SHARE) -> bool:
    """Whether the alert belongs to the check sample: at random, whatever its score, the same at each call."""
    drawn = blake2b(f"{salt}\0{alert_id}".encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(drawn, "big") < share * 2**64


def decide(
    probability: float,
    threshold: float,
    drawn: bool,
    keep_open: str | None,
    lowest: float = 0.0,
    in_doubt: bool = False,
) -> tuple[str, str]:
    """The decision about one alert and its reason: ('close' or 'leave open', why).

    keep_open : why it stays open whatever its score; None: nothing prevents closing. The draw comes before the
    score, so that the check sample is a fair one. lowest : the lowest score of any alert, acted or not, from before the
    test: nothing is known of alerts below it. in_doubt : whether the monitors have doubts.
    """
    if keep_open is not None:
        return LEAVE_OPEN, keep_open
    if drawn:
        return LEAVE_OPEN, DRAWN
    if probability < lowest:
        return LEAVE_OPEN, UNSEEN
    if probability >= threshold:
        return LEAVE_OPEN, ABOVE
    return (LEAVE_OPEN, DOUBTED) if in_doubt else (CLOSE, BELOW)


def evidence(logs: np.ndarray, block: int = BLOCK) -> float:
    """The e-process of a sequence of log e-values now: the last of `evidence_after`; 1 for no alert."""
    return float(evidence_after(logs, [len(logs)], block)[0])


def evidence_after(logs: np.ndarray, lengths: Sequence[int], block: int = BLOCK) -> np.ndarray:
    """The e-process of a sequence of log e-values, mixed over alternatives and over when they begin.

    logs : float[alerts in order of time, alternatives]: each the logarithm of a number of expectation at most 1 given
        what came before, if nothing changed. block : an alternative may begin with every `block`-th alert.
    lengths : after how many alerts. Returns float[lengths], the process's value after each.
    """
    total = np.vstack([np.zeros((1, logs.shape[1])), np.cumsum(logs, axis=0)])
    values = np.ones(len(lengths))
    for position, length in enumerate(lengths):
        starts = np.arange(0, length, block)
        number = np.arange(1, len(starts) + 1)
        grown = np.exp(np.minimum(total[length] - total[starts], 300)).mean(axis=1)
        # Starts that are still to come hold the rest of the stake.
        values[position] = (grown / (number * (number + 1))).sum() + 1 / (len(starts) + 1)
    return values


def excess_logs(missed: np.ndarray, budget: float) -> np.ndarray:
    """Log likelihood ratios of each alternative to a miss rate of `budget`, per acted alert of the check sample.

    missed : bool[alerts]. The expectation of a ratio rises with the true miss rate and is 1 at `budget`.
    """
    others = np.minimum(EXCESSES * budget, (1 + budget) / 2)
    hit, other = np.log(others / budget), np.log((1 - others) / (1 - budget))
    return np.where(np.asarray(missed, bool)[:, None], hit, other)


def conformal_ranks(before: np.ndarray, scores: np.ndarray, seed: int) -> np.ndarray:
    """The rank of each new score among all before it, from 0 (lowest) to 1, ties broken at random.

    Ranks are uniform and independent of the ranks before, as long as old and new scores are exchangeable (conformal
    test martingales: Vovk, Gammerman, Shafer, 2005).

    before : float[n]. scores : float[new ones, in order of time]. seed : of the ties.
    """
    earlier = np.sort(np.asarray(before, float)).tolist()
    random = np.random.default_rng(seed).random(len(scores))
    rank = np.empty(len(scores))
    for number, score in enumerate(np.asarray(scores, float).tolist()):
        less, upto = bisect_left(earlier, score), bisect_right(earlier, score)
        rank[number] = (less + random[number] * (upto - less + 1)) / (len(earlier) + 1)
        earlier.insert(upto, score)
    return rank


def shift_logs(before: np.ndarray, scores: np.ndarray, seed: int) -> np.ndarray:
    """Log e-values of each shift, per new acted alert: its rank, as a normal score z, is compared with a normal
    distribution that lies lower.

    before : float[acted alerts that the threshold was found on]. scores, seed : as for `conformal_ranks`.
    """
    return _shifted(conformal_ranks(before, scores, seed), SHIFTS)


def crowd_logs(before: np.ndarray, scores: np.ndarray, seed: int) -> np.ndarray:
    """Log e-values of each alternative of the crowd, per new alert, whatever its outcome.

    before : float[alerts before the test]. scores, seed : as for `conformal_ranks`.
    """
    rank = conformal_ranks(before, scores, seed)
    shares, factors = np.vstack([LOWEST, HIGHEST]).T
    inside = np.hstack([rank[:, None] <= LOWEST[:, 0], rank[:, None] > 1 - HIGHEST[:, 0]])
    logs = np.where(inside, np.log(factors), np.log((1 - factors * shares) / (1 - shares)))
    return np.hstack([logs, _shifted(rank, np.array([ALL_SHIFT]))])


def _shifted(rank: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    z = ndtri(np.clip(rank, 1e-12, 1 - 1e-12))
    return -shifts * z[:, None] - shifts**2 / 2


@dataclass(frozen=True)
class Watch:
    """The monitors' result on the alerts decided since the threshold was found.

    checked, missed : acted alerts of the check sample, and those below the threshold.
    above : acted alerts at or above the threshold.
    check_evidence, shift_evidence, crowd_evidence : the e-processes. stop : why to stop; None: go on.
    """

    checked: int
    missed: int
    above: int
    check_evidence: float
    shift_evidence: float
    crowd_evidence: float
    stop: str | None

    @property
    def evidence(self) -> float:
        """Evidence of a change for the worse: the mean of the three, an e-process itself."""
        return mean_evidence(self.check_evidence, self.shift_evidence, self.crowd_evidence)

    @property
    def doubt(self) -> str | None:
        """Why alerts stay open for now, in words; None: no doubt."""
        if self.evidence < DOUBT:
            return None
        return f"the monitors' evidence of a change is {self.evidence:.1f}; at {1 / LEVEL:.0f} closing stops"


def mean_evidence(check: Any, shift: Any, crowd: Any) -> Any:
    """The evidence of the three monitors together, numbers or arrays."""
    return (check + shift + crowd) / 3


def watch(
    threshold: float,
    budget: float,
    before: np.ndarray,
    scores: np.ndarray,
    checked: np.ndarray,
    all_before: np.ndarray | None = None,
    all_scores: np.ndarray | None = None,
    *,
    seed: int = 0,
    level: float = LEVEL,
) -> Watch:
    """Whether later alerts still agree with those that the threshold was found on.

    Three monitors, whose mean is looked at. The check sample: does its miss rate exceed the budget? It is small,
    so harm would show late. The shift: do acted alerts at or above the threshold, all of which are seen, score lower
    than before? A drift towards the threshold shows there long before the misses do. The crowd: do all alerts together
    score lower than before, are there more among the lowest, or fewer among the highest? It needs no outcome.

    threshold : in use. budget : the miss rate allowed. before : float: the scores it was found on.
    scores, checked : float and bool[acted alerts seen, in the order in which they became known]: those that were not
        closed. checked: drawn for the check sample (all of them, where nothing was closed).
    all_before, all_scores : float: the scores of all alerts, whatever their outcome: before the test, and decided
        since, in order of time. None: the crowd is not watched.
    """
    scores, checked = np.asarray(scores, float), np.asarray(checked, bool)
    before = np.asarray(before, float)
    below = scores < threshold
    missed = below[checked]
    check = evidence(excess_logs(missed, budget))
    shift = evidence(shift_logs(before[before >= threshold], scores[~below], seed))
    crowd = 1.0
    if all_before is not None and all_scores is not None:
        crowd = evidence(crowd_logs(all_before, all_scores, seed), CROWD_BLOCK)
    stop = None
    if mean_evidence(check, shift, crowd) >= 1 / level:
        # The strongest one is named.
        if check >= max(shift, crowd):
            stop = (
                f"{int(missed.sum()):,} of {len(missed):,} acted alerts of the check sample scored below the threshold"
            )
        elif shift >= crowd or all_before is None or all_scores is None:
            stop = (
                f"acted alerts score lower than before: the median of the last {min(BLOCK, int((~below).sum())):,} is "
                f"{np.median(scores[~below][-BLOCK:]):.1%}, it was {np.median(before[before >= threshold]):.1%}"
            )
        else:
            recent = all_scores[-CROWD_BLOCK:]
            stop = (
                f"alerts score differently than before the test: {np.mean(recent < threshold):.0%} of the last "
                f"{len(recent):,} are below the threshold, it was {np.mean(all_before < threshold):.0%}"
            )
    return Watch(int(checked.sum()), int(missed.sum()), int((~below).sum()), check, shift, crowd, stop)
