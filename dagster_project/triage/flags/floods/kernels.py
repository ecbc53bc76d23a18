"""The compiled loop of the flood band: each scope's usual volume from its earlier days.

Belongs here: the loop over arrays that numba compiles, without checks of input, and the constants it is compiled with.
Does not belong here: what the whole company's volume does (`bands.py`) and what follows from a volume above its band
(`levels.py`).

Importing this module compiles the loop, or loads it from numba's cache (`triage/compiled.py`).
"""

from __future__ import annotations

import math

import numpy as np
from numba import types

from dagster_project.triage.compiled import compiled, read_only

I8, F8 = read_only(types.int64), read_only(types.float64)


@compiled(types.float64(types.int64, types.float64, types.float64))
def _tail(k, mean, dispersion):
    """P(X >= k) of a negative binomial with this mean and variance mean + dispersion * mean^2."""
    size = 1.0 / dispersion
    share = mean / (size + mean)
    log_term = (
        math.lgamma(k + size)
        - math.lgamma(size)
        - math.lgamma(k + 1.0)
        + size * math.log(size / (size + mean))
        + k * math.log(share)
    )
    term = math.exp(log_term)
    total = term
    j = k
    for _ in range(200_000):
        term *= (j + size) / (j + 1.0) * share
        total += term
        j += 1
        if term < 1e-6 * total:
            break
    return total


@compiled(types.float64(types.float64[::1], types.int64))
def _median(values, n):
    """Median of the first n values; sorts them in place. By insertion: compiles in a tenth of numpy's sort, and is as
    fast on eight weeks."""
    for i in range(1, n):
        x = values[i]
        j = i - 1
        while j >= 0 and values[j] > x:
            values[j + 1] = values[j]
            j -= 1
        values[j + 1] = x
    return values[n // 2] if n % 2 else 0.5 * (values[n // 2] + values[n // 2 - 1])


SUSPECTED_SHARE = 0.02
"""Of the tail probability that `false_alarms` allows, the share at which volume alone makes a flood suspected. A tail
is as good as the spread behind it, which is an estimate: with 1, 12% of simulated companies without floods (half a
year each) had something suspected at some moment, with 0.1 3% and with 0.02 none of 60, while 97.7%, 97.3% and 96.5%
of flood alerts were flagged on their day. What lies between is watched (benchmarks/flags.py, development worlds)."""
WATCHED_WIDTH = 2.5
WATCHED_CHANCE = 1e-3
"""Volumes above this band and below this chance are watched: too usual to be suspected by volume alone, they become
floods when their outcomes make up for what the volume lacks."""


@compiled(
    types.Tuple([types.float64[::1]] * 4 + [types.int64[::1], types.float64[::1]])(
        I8, I8, I8, I8,
        I8, read_only(types.float64, 2), F8,
        F8, F8, F8, F8,
        types.int64, types.int64, types.int64, types.float64, types.float64,
    )
)  # fmt: skip
def compute_bands(
    starts, slot, count, peak,
    weekday, profile, slope,
    prior_mean, prior_dispersion, newly, alpha,
    window, minimum_days, minimum_volume, minimum_ratio, width,
):  # fmt: skip
    """The band of each (scope, day) cell, from that scope's earlier days.

    starts : int64[scopes + 1], where the cells of each scope begin, in order of day.
    slot, count, peak : int64[cells]: the day; what later days learn from; the highest running count of the day.
    weekday : int64[days]. profile : float64[days, 7]. slope : float64[days]; as in `bands.Season`.
    prior_mean, prior_dispersion : float64[days]; a nan mean means that there is no prior.
    newly : float64[cells], expected of rules that the past does not hold yet.
    alpha : float64[days], tail probability allowed to one scope.
    window, minimum_days, minimum_volume, minimum_ratio, width : as in `FloodSettings` (width: `band_width`).
    Returns: One number per cell: expected; dispersion; robust deviation (square-root scale); own (expected by the
        scope's own past alone; 0 without any); needed (the count that is unexpected; 0 if the day stayed below it);
        chance (log of how many times more likely by chance the volume is than is allowed, where it is unexpected or
        watched; nan elsewhere).
    """
    cells = len(slot)
    expected = np.full(cells, np.nan)
    spread = np.full(cells, np.nan)
    deviation = np.full(cells, np.nan)
    own = np.zeros(cells)
    needed = np.zeros(cells, np.int64)
    log_chance = np.full(cells, np.nan)
    flagged = np.zeros(cells, np.bool_)
    decay = 0.5 ** (1.0 / 28.0)
    value = np.empty(window)
    root = np.empty(window)
    weight = np.empty(window)
    day_of_week = np.empty(window, np.int64)
    factors = np.empty(7)
    for s in range(len(starts) - 1):
        first_cell = starts[s]
        if starts[s + 1] == first_cell:
            continue
        first = slot[first_cell]
        for i in range(first_cell, starts[s + 1]):
            today = slot[i]
            # Flagged on most days of the last three weeks is no burst any more but the new normal: start again
            # there.
            recent = 0
            since = today
            k = i - 1
            while k >= first_cell and slot[k] >= today - 21:
                if flagged[k]:
                    recent += 1
                    since = slot[k]
                k -= 1
            if recent >= 10:
                first = since
                k = i - 1
                while k >= first_cell and slot[k] >= since:
                    flagged[k] = False
                    k -= 1
            low = max(first, today - window)
            # Fill the window, zeros included, flagged days left out.
            n = 0
            k = i - 1
            for d in range(today - 1, low - 1, -1):
                c = 0.0
                if k >= first_cell and slot[k] == d:
                    skip = flagged[k]
                    c = float(count[k])
                    k -= 1
                    if skip:
                        continue
                value[n] = c * math.exp(slope[today] * (today - d))
                weight[n] = decay ** (today - d)
                day_of_week[n] = weekday[d]
                n += 1
            mean_before = prior_mean[today]
            has_prior = not np.isnan(mean_before)
            if n < minimum_days and not has_prior:
                continue
            if n < minimum_days:
                # A first week says little, and nothing about the days of the week it has not seen.
                n = 0
            level = 0.0
            robust = 0.5
            own_dispersion = 0.0
            weights = 0.0
            factor = profile[today, weekday[today]]
            if n > 0:
                # A first level, robust, by the company's weekdays.
                for j in range(n):
                    factors[day_of_week[j]] = profile[today, day_of_week[j]]
                    root[j] = math.sqrt(value[j] / profile[today, day_of_week[j]] + 0.375)
                middle = _median(root, n)
                for j in range(n):
                    root[j] = abs(math.sqrt(value[j] / profile[today, day_of_week[j]] + 0.375) - middle)
                cap = (middle + 4.0 * max(0.5, 1.4826 * _median(root, n))) ** 2
                total = 0.0
                for j in range(n):
                    weights += weight[j]
                    total += weight[j] * min(value[j] / profile[today, day_of_week[j]], cap)
                level = total / weights
                # The scope's own weekdays, by their medians, as far as its numbers bear them.
                for w in range(7):
                    same = 0
                    for j in range(n):
                        if day_of_week[j] == w:
                            root[same] = value[j]
                            same += 1
                    factors[w] = profile[today, w]
                    if same >= 3:
                        usual = same * level * profile[today, w]
                        # The median of a Poisson count lies about a third below its mean.
                        factors[w] = (
                            (30.0 * factors[w] + usual * (_median(root, same) + 0.33) / level) / (30.0 + usual)
                            if level > 0
                            else factors[w]
                        )
                factor = factors[weekday[today]]
                # The level again by those weekdays; what is left over then makes the band (by its median) and the
                # tail (by its square).
                total = 0.0
                scale = 0.0
                for j in range(n):
                    usual = level * factors[day_of_week[j]]
                    cap = (math.sqrt(usual + 0.375) + 4.0 * max(0.5, 0.25 * math.sqrt(usual))) ** 2
                    value[j] = min(value[j], cap)
                    total += weight[j] * value[j]
                    scale += weight[j] * factors[day_of_week[j]]
                level = total / max(scale, 1e-9)
                left_over = 0.0
                squares = 0.0
                for j in range(n):
                    usual = level * factors[day_of_week[j]]
                    root[j] = abs(math.sqrt(value[j] + 0.375) - math.sqrt(usual + 0.375))
                    left_over += weight[j] * ((value[j] - usual) ** 2 - usual)
                    squares += weight[j] * usual**2
                robust = max(0.5, 1.4826 * _median(root, n))
                if squares > 0:
                    own_dispersion = min(5.0, max(0.0, left_over / squares))
            own[i] = level * factor * n / (n + 1.0)
            # A dispersion from few alerts says little: lean on a prior of 0.15 by the information that is
            # there.
            information = n * level / (1.0 + level)
            dispersion = (information * own_dispersion + 15.0 * 0.15) / (information + 15.0)
            # Gamma posterior of the level; overdispersed days tell less than Poisson days.
            effective = weights / (1.0 + dispersion * level)
            if has_prior:
                shape = 1.0 / prior_dispersion[today]
                rate = shape / mean_before
            else:
                shape = 0.5
                rate = 0.5 / max(level, 1.0 / window)
            shape += effective * level
            rate += effective
            mean = shape / rate * factor + newly[i]
            # What new rules add varies by itself, not as the scope's past did.
            base = mean - newly[i]
            total_dispersion = ((dispersion + 1.0 / shape) * base**2 + 0.3 * newly[i] ** 2) / mean**2
            expected[i] = mean
            spread[i] = total_dispersion
            deviation[i] = robust
            edge = (math.sqrt(mean + 0.375) + width * robust) ** 2
            # A rule that peaks on this weekday again and again is weekly, not flooded: its median on that weekday,
            # flagged or not, is usual there. Of a young scope that raises on most days one such day has to do,
            # else each weekly rule begins with a false alarm.
            same = min(window, today - slot[first_cell]) // 7
            for j in range(same):
                root[j] = 0.0
            j = 0
            k = i - 1
            while k >= first_cell and j < same:
                if weekday[slot[k]] == weekday[today] and slot[k] >= today - window:
                    root[j] = float(count[k])
                    j += 1
                k -= 1
            weekly = 0.0
            if same > 0:
                _median(root, same)
                if same >= 3:
                    weekly = root[(same - 1) // 2]
                elif i - first_cell >= (today - slot[first_cell]) / 2:
                    weekly = root[same - 1]
            if weekly > edge:
                mean = weekly
                if same < 3:
                    # One or two such days say little about the next.
                    total_dispersion = max(total_dispersion, 0.5)
                    spread[i] = total_dispersion
                expected[i] = mean
                own[i] = mean
                edge = (math.sqrt(mean + 0.375) + width * robust) ** 2
            least = max(float(minimum_volume), math.ceil(minimum_ratio * mean), math.ceil(edge))
            if peak[i] < minimum_volume or peak[i] < minimum_ratio * mean:
                continue
            chance = _tail(peak[i], mean, total_dispersion)
            if peak[i] < least or chance > SUSPECTED_SHARE * alpha[today]:
                edge = (math.sqrt(mean + 0.375) + WATCHED_WIDTH * robust) ** 2
                if same >= 3 and peak[i] >= edge and chance < WATCHED_CHANCE:
                    log_chance[i] = math.log(max(chance, alpha[today]) / alpha[today])
                continue
            below = int(least) - 1
            above = peak[i]
            while above - below > 1:
                k = (above + below) // 2
                if _tail(k, mean, total_dispersion) <= SUSPECTED_SHARE * alpha[today]:
                    above = k
                else:
                    below = k
            needed[i] = above
            flagged[i] = True
            log_chance[i] = math.log(max(chance, 1e-300) / alpha[today])
    return expected, spread, deviation, own, needed, log_chance
