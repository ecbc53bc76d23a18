"""Was the burst a bug? The verdict and its time, from what people did.

Belongs here: locating the burst within its day, and the Bayes factor between "only the usual alerts are acted on" and
"acted on as usual or more", both Beta-Binomial.
Does not belong here: volumes (`levels.py`), and decisions by people (`overrides.py`).
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import betaln, gammaln

from dagster_project.triage.flags.floods.history import DAY, NEVER, FloodSettings, History
from dagster_project.triage.flags.floods.levels import Cells, Flood

BINS = 96
"""Quarters of an hour: the resolution at which a burst's begin and end are determined within its day."""


def usual_day_of(
    h: History, cells: Cells, rule_starts: np.ndarray, flood: Flood, alerts: np.ndarray, window_days: int
) -> np.ndarray:
    """What the rules of these alerts usually raise on such a day, in each of its `BINS`."""
    begin = int(h.calendar[flood.slot]) * DAY
    hours = np.zeros(24)
    usual = 0.0
    for r in np.unique(h.rule[alerts]):
        first, last = rule_starts[r], rule_starts[r + 1]
        own = cells.order[cells.start[first] : cells.stop[last - 1]]
        past = own[slice(*np.searchsorted(h.raised[own], [begin - window_days * DAY, begin]))]
        hours += np.bincount(h.raised[past] % DAY * 24 // DAY, minlength=24)
        usual += cells.own[first + np.searchsorted(cells.slot[first:last], flood.slot)]
    # A day's worth of alerts, spread evenly, represents what the past did not show.
    share = np.repeat((hours + 1.0) / (hours.sum() + 24.0), BINS // 24) / (BINS // 24)
    return share * max(usual, 0.5)


def find_burst(h: History, cells: Cells, rule_starts: np.ndarray, flood: Flood, window_days: int) -> None:
    """Once the day is over, determine when the burst began and ended, so that genuine alerts around it are not flagged.

    The likeliest window of a Poisson stream on top of the hours at which the same rules usually raise.
    Sets `burst` and `genuine`; leaves them unchanged while the day lasts.
    """
    begin = int(h.calendar[flood.slot]) * DAY
    members = flood.members[flood.left == NEVER]
    if h.as_of < begin + DAY or len(members) == 0:
        return
    usual_in_bin = usual_day_of(h, cells, rule_starts, flood, members, window_days)
    usual_in_bin *= min(1.0, len(members) / usual_in_bin.sum())
    bins = (h.raised[members] % DAY * BINS // DAY).astype(np.int64)
    count = np.bincount(bins, minlength=BINS).astype(float)
    first, last = _likeliest_stream(count, usual_in_bin)[1:]
    # A bug may pause. The rest of the day is searched again until chance explains it.
    while True:
        rest = count.copy()
        rest[first:last] = usual_in_bin[first:last]
        gain, begins, ends = _likeliest_stream(rest, usual_in_bin)
        if gain < SECOND_STREAM or (first <= begins and ends <= last):
            break
        first, last = min(first, begins), max(last, ends)
    width = DAY // BINS
    flood.burst = begin + first * width, begin + last * width - 1
    flood.genuine = float(usual_in_bin[first:last].sum())


SECOND_STREAM = 12.0
"""Log likelihood that a further stream on the same day must gain: the best of some 4,600 windows and ten rates gains
about 8 by chance."""


def _likeliest_stream(count: np.ndarray, usual: np.ndarray) -> tuple[float, int, int]:
    """The window (bins, half open) in which a constant stream on top of the usual explains the counts best, and its
    gain in log likelihood.
    """
    best = -math.inf, 0, len(count)
    # Rates are tried from one alert in five hours upwards.
    for rate in 0.05 * 1.6 ** np.arange(int(math.log(max(2.0, 20.0 * count.max())) / math.log(1.6)) + 2):
        gain = np.concatenate([[0.0], np.cumsum(count * np.log1p(rate / usual) - rate)])
        lowest = np.minimum.accumulate(gain)
        last = int(np.argmax(gain - lowest))
        if gain[last] - lowest[last] > best[0]:
            best = float(gain[last] - lowest[last]), int(np.argmin(gain[: last + 1])), last
    return best


def usual_share_of(
    h: History, excluded: tuple[np.ndarray, np.ndarray], by_rule: Cells, rule_starts: np.ndarray, flood: Flood
) -> tuple[float, float]:
    """The acted share to expect of a flood's alerts, from their rules' past in its scope, as known when its day began.

    Floods of earlier days are left out unless they were cleared by then. Returns the share and the number of
    decided alerts behind it (at most 50 are counted).
    """
    begin = int(h.calendar[flood.slot]) * DAY
    recent = slice(np.searchsorted(h.raised, begin - 180 * DAY), np.searchsorted(h.raised, begin))
    since, until = excluded
    usable = (h.known[recent] <= begin) & ((since[recent] > begin) | (until[recent] <= begin))
    everywhere = (float(h.acted[recent][usable].sum()) + 1.0) / (usable.sum() + 4.0)
    share, support = 0.0, 0.0
    rule, number = np.unique(h.rule[flood.members], return_counts=True)
    for r, n in zip(rule, number, strict=True):
        own = by_rule.order[by_rule.start[rule_starts[r]] : by_rule.stop[rule_starts[r + 1] - 1]]
        own = own[slice(*np.searchsorted(h.raised[own], [begin - 180 * DAY, begin]))]
        own = own[(h.known[own] <= begin) & ((since[own] > begin) | (until[own] <= begin))]
        usual = (float(h.acted[own].sum()) + 5.0 * everywhere) / (len(own) + 5.0)
        if flood.within is not None:
            # What is usual for this team or source may differ from the rest of the rule's alerts.
            own = own[flood.within[0][own] == flood.within[1]]
            usual = (float(h.acted[own].sum()) + 5.0 * usual) / (len(own) + 5.0)
        share += n * usual
        support += n * len(own)
    return share / number.sum(), min(50.0, support / number.sum() + 5.0)


def _beta_binomial(k: np.ndarray, n: int, mean: float, strength: float) -> np.ndarray:
    """Log probability of k of n under a Beta-Binomial with this mean and strength (its two parameters'
    sum)."""
    mean = min(max(mean, 1e-4), 1 - 1e-4)
    a, b = mean * strength, (1 - mean) * strength
    choose = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return choose + betaln(k + a, n - k + b) - betaln(a, b)


def _incident_evidence(
    volume: int,
    expected: float,
    usual: float,
    support: float,
    watched: bool = False,
    only: float | None = None,
    by_chance: float = 0.0,
) -> np.ndarray:
    """Log Bayes factor of "an incident" over "a bug", for each number of acted alerts 0..volume (or `only` one).

    A bug: only the alerts that would have come anyway are acted on, at the usual share. An incident: acted on
    as usual, or more. by_chance : odds of such a volume by chance against a bug; a busy day is acted on as usual.
    """
    k = np.arange(volume + 1, dtype=float) if only is None else np.array([only])
    genuine = min(1.0, expected / volume)
    # How far the usual share may be off, and how far a bug's alerts may be acted on after all: 1.5% +- 1.5%.
    mean = usual * genuine + 0.015
    deviation = genuine * math.sqrt(usual * (1 - usual) / (support + 1)) + 0.015
    bug = _beta_binomial(k, volume, mean, max(2.0, mean * (1 - mean) / deviation**2 - 1))
    as_usual = _beta_binomial(k, volume, usual, support)
    more = _beta_binomial(k, volume, (1.0 + usual) / 2.0, 4.0)
    if watched:
        # The alternative to a bug is then a busy day by chance, which is acted on as usual; but what is usual differs
        # from day to day (weekends, holidays, who is on duty) by more than its sample size suggests.
        return _beta_binomial(k, volume, usual, min(support, 15.0)) - bug
    return np.logaddexp(math.log(0.1 + by_chance) + as_usual, math.log(0.9) + more) - bug


def in_burst(h: History, flood: Flood) -> np.ndarray:
    """The flood's alerts, without those of rules with a flood of their own and those outside the burst's time."""
    members = flood.members[flood.left == NEVER]
    if flood.burst is None:
        return members
    raised = h.raised[members]
    return members[(flood.burst[0] <= raised) & (raised <= flood.burst[1])]


def cleared_early(
    h: History, flood: Flood, usual_in_bin: np.ndarray, usual: float, support: float, odds: float
) -> tuple[int, float] | None:
    """When, on the day itself, enough of a rule's alerts are acted on to rule out a bug; None if never.

    Evaluated whenever an outcome becomes known, with the alerts and the usual volume of the day until then. A Bayes
    factor may be evaluated at any time: under a bug it ever passes the odds with probability 1 / odds (Ville).
    """
    begin = int(h.calendar[flood.slot]) * DAY
    known, acted = h.known[flood.members], h.acted[flood.members]
    by_time = np.argsort(known, kind="stable")
    known, acted = known[by_time], acted[by_time]
    looks = np.flatnonzero((known < min(begin + DAY, h.as_of + 1)) & (known != NEVER))
    if len(looks) == 0:
        return None
    times, so_far = known[looks], np.cumsum(acted[looks])
    # Of several outcomes at one time, only the last look has seen all; and no look before it was suspected.
    final = np.append(times[1:] != times[:-1], True) & (times >= flood.detected)
    times, so_far, number = times[final], so_far[final], (looks + 1)[final]
    volume = np.searchsorted(h.raised[flood.members], times)
    until = np.interp(times - begin, np.arange(BINS + 1) * (DAY // BINS), np.append(0.0, np.cumsum(usual_in_bin)))
    for time, k, n, v, genuine in zip(times, so_far, number, volume, until, strict=True):
        if k >= 2 and _incident_evidence(int(v), float(genuine), usual, support, only=float(k))[0] >= math.log(odds):
            return int(time), float(k / n)
    return None


def decide_flood(
    h: History, flood: Flood, usual: float, support: float, settings: FloodSettings
) -> tuple[str, int, float]:
    """Status, time of the decision and acted share then.

    On the day itself only `cleared_early` decides. Acted outcomes only add up, so the Bayes factor for the alerts
    acted on so far is a lower limit, and the one for "all open ones will be acted on" an upper limit: either passing
    the odds decides early.
    """
    end = (int(h.calendar[flood.slot]) + 1) * DAY
    if h.as_of < end:
        return "suspected", NEVER, math.nan
    members = in_burst(h, flood)
    volume = len(members)
    watched = flood.detected == NEVER
    if volume == 0 or (watched and volume < settings.minimum_volume):
        return "cleared", end, math.nan
    # At the edge of the band chance is as likely against a bug as for volumes that are only watched, and less likely
    # the further beyond it the volume is; by half of the tail's log, because the tail's own spread is an estimate.
    by_chance = settings.decision_odds * math.exp(min(flood.chance, 0.0) / 2)
    evidence = _incident_evidence(volume, flood.genuine, usual, support, watched, by_chance=by_chance)
    # The factor rises with the number of acted alerts; enforce it against rounding in the far tails.
    evidence = np.maximum.accumulate(evidence)
    limit = math.log(settings.decision_odds)
    if watched:
        limit = max(limit, flood.chance)
    enough = int(np.searchsorted(evidence, limit, side="left"))
    too_few = int(np.searchsorted(evidence, -limit, side="right")) - 1
    even = int(np.searchsorted(evidence, 0.0, side="left")) if not watched else too_few + 1
    known, acted = h.known[members], h.acted[members]
    by_time = np.argsort(known, kind="stable")
    known, acted = known[by_time], acted[by_time]
    decided = int(np.searchsorted(known, h.as_of, side="right"))
    so_far = np.concatenate([[0.0], np.cumsum(acted[:decided])])
    still_open = volume - np.arange(decided + 1)
    clear = so_far >= enough
    confirm = so_far + still_open <= too_few
    last = np.zeros(decided + 1, bool)
    last[-1] = decided == volume
    settled = np.flatnonzero(clear | confirm | last)
    if len(settled) == 0:
        return "suspected", NEVER, math.nan
    at = int(settled[0])
    decided_at = end if at == 0 else max(end, int(known[at - 1]))
    # All outcomes of that time count, not only the one that tipped it.
    at = int(np.searchsorted(known[:decided], decided_at, side="right"))
    status = "cleared" if so_far[at] >= (even if at == volume else enough) else "confirmed"
    return status, decided_at, float(so_far[at] / at) if at else math.nan
