"""Closing: the threshold keeps its word, refuses when it must, and the monitors neither cry wolf nor sleep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from benchmarks import autoclose as autoclose_benchmark
from dagster_project.errors import HeedError
from dagster_project.triage.autoclose import (
    BLOCK,
    DOUBT,
    DOUBTED,
    FOUND,
    GRID,
    LEVEL,
    REFUSED,
    UNSEEN,
    WAITING,
    acted_needed,
    crowd_logs,
    decide,
    evidence,
    evidence_after,
    excess_logs,
    find_threshold,
    is_drawn,
    most_misses,
    shift_logs,
    watch,
)

BUDGETS = st.sampled_from([0.005, 0.02, 0.05, 0.2])
SCORES = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 400), st.floats(0.05, 5)).map(
    lambda drawn: list(np.random.default_rng(drawn[0]).random(drawn[1]) ** drawn[2])
)  # a seed, how many, and how near to zero


def logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_the_figures_that_are_promised() -> None:
    assert acted_needed(0, 0.02) == 149
    assert most_misses(148, 0.02) == -1
    assert most_misses(149, 0.02) == 0
    assert most_misses(1_000, 0.02) == 12


@given(st.integers(0, 30), BUDGETS)
def test_what_is_needed_is_exactly_the_binomial(missed: int, budget: float) -> None:
    needed = acted_needed(missed, budget)
    assert binom.cdf(missed, needed, budget) <= LEVEL < binom.cdf(missed, needed - 1, budget)
    assert most_misses(needed, budget) >= missed > most_misses(needed - 1, budget)


@given(SCORES, BUDGETS)
def test_the_threshold_is_the_last_of_the_unbroken_sequence(scores: list[float], budget: float) -> None:
    """Against the definition: p-value after p-value, from the lowest threshold up."""
    below_each = (np.array(scores)[None, :] < GRID[:, None]).sum(axis=1)
    wanted = None
    for threshold, p_value in zip(GRID, binom.cdf(below_each, len(scores), budget), strict=True):
        if p_value > LEVEL:
            break
        wanted = threshold
    found = find_threshold(np.array(scores), budget)
    assert found.threshold == wanted
    below = sum(score < GRID[0] for score in scores)
    if wanted is None:
        assert found.status == (WAITING if most_misses(len(scores), budget) < 0 else REFUSED)
        assert len(scores) + found.more == acted_needed(below, budget)
    else:
        assert found.upper is not None
        assert found.upper <= budget + 1e-12


@given(SCORES.filter(len), BUDGETS, st.data())
def test_more_misses_never_raise_the_threshold(scores: list[float], budget: float, data: st.DataObject) -> None:
    before = find_threshold(np.array(scores), budget).threshold or 0.0
    at = data.draw(st.integers(0, len(scores) - 1))
    scores[at] = data.draw(st.floats(0, scores[at]))
    assert (find_threshold(np.array(scores), budget).threshold or 0.0) <= before


@pytest.mark.parametrize("scores", [[1.1], [-0.1], [float("nan")]])
def test_impossible_scores_are_refused(scores: list[float]) -> None:
    with pytest.raises(HeedError, match="not between 0 and 1"):
        find_threshold(np.array(scores), 0.02)


@pytest.mark.parametrize("budget", [0.0, 1.0, -1.0, float("nan")])
def test_an_impossible_budget_is_refused(budget: float) -> None:
    with pytest.raises(HeedError, match="impossible"):
        find_threshold(np.zeros(1), budget)


def test_the_guarantee_holds_in_simulation() -> None:
    """The true miss rate is above 2% in at most 5% of samples: 2,000 of them, and three standard errors of luck."""
    rng = np.random.default_rng(7)
    true_rates = []
    for _ in range(2_000):
        found = find_threshold(logistic(rng.normal(size=500)), 0.02)
        threshold = found.threshold or 0.0
        true_rates.append(norm.cdf(np.log(threshold / (1 - threshold))) if threshold else 0.0)
    assert np.mean(np.array(true_rates) > 0.02) <= LEVEL + 3 * np.sqrt(LEVEL * (1 - LEVEL) / 2_000)
    assert np.mean(true_rates) > 0.005, "it closes next to nothing"


@given(st.floats(0.001, 0.4), st.floats(0, 1))
def test_the_check_sample_is_not_expected_to_grow_below_the_budget(budget: float, part: float) -> None:
    """The law behind watching after every run: no factor of the evidence has an expectation above 1."""
    truth = part * budget
    miss, kept = np.exp(excess_logs(np.array([True, False]), budget))
    assert (truth * miss + (1 - truth) * kept <= 1 + 1e-9).all()


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=3 * BLOCK))
def test_evidence_is_the_mixture_over_its_starts(steps: list[float]) -> None:
    """Against the definition, and 1 if nothing ever speaks for or against."""
    logs = np.array(steps)[:, None]
    starts = range(0, len(steps), BLOCK)
    wanted = sum(np.exp(logs[s:].sum()) / (k * (k + 1)) for k, s in enumerate(starts, 1)) + 1 / (len(starts) + 1)
    assert evidence(logs) == pytest.approx(wanted)
    assert evidence(0 * logs) == pytest.approx(1)


def test_ranks_are_uniform_also_among_ties() -> None:
    """The mean of each factor is 1: 20,000 ranks of scores that know five values only."""
    rng = np.random.default_rng(5)
    scores = rng.integers(1, 6, size=2_100) / 10
    factors = np.concatenate([np.exp(shift_logs(scores[:100], scores[100:], seed)) for seed in range(10)])
    assert (np.abs(factors.mean(axis=0) - 1) < 4 * factors.std(axis=0) / np.sqrt(2_000)).all()


def test_the_crowd_is_not_expected_to_grow_while_nothing_changes() -> None:
    """As for the shift: every alternative's factor has the mean 1 on exchangeable scores, also on few values."""
    rng = np.random.default_rng(6)
    for scores in (rng.random(4_100), rng.integers(1, 6, size=4_100) / 10):
        factors = np.concatenate([np.exp(crowd_logs(scores[:100], scores[100:], seed)) for seed in range(10)])
        assert (np.abs(factors.mean(axis=0) - 1) < 4 * factors.std(axis=0) / np.sqrt(4_000)).all()


@given(st.integers(1, 130), st.integers(1, 50))
def test_evidence_after_some_alerts_is_that_of_their_prefix(length: int, block: int) -> None:
    logs = np.random.default_rng(7).normal(-0.1, 1, size=(130, 3))
    assert evidence_after(logs, [0, length], block) == pytest.approx([1, evidence(logs[:length], block)])


def found_on(seed: int) -> tuple[float, np.ndarray]:
    before = logistic(np.random.default_rng(seed).normal(size=1_000))
    found = find_threshold(before, 0.02)
    assert found.status == FOUND
    assert found.threshold is not None
    return found.threshold, before


def test_a_drift_stops_closing_and_quiet_times_do_not() -> None:
    """200 acted alerts without a drift, then 100 with one of a standard deviation: it is heard after the quiet."""
    rng = np.random.default_rng(2)
    stopped = {0.0: 0, 1.0: 0}
    for drift in stopped:
        for seed in range(100):
            threshold, before = found_on(seed)
            scores = logistic(rng.normal(size=300) - drift * (np.arange(300) >= 200))
            checked = rng.random(300) < 0.2
            seen = checked | (scores >= threshold)
            stopped[drift] += watch(threshold, 0.02, before, scores[seen], checked[seen]).stop is not None
    assert stopped[0.0] <= 8
    assert stopped[1.0] >= 95


def test_the_check_sample_stops_alone() -> None:
    threshold, before = found_on(1)
    high = np.full(40, 0.9)
    said = watch(threshold, 0.02, before, np.r_[np.zeros(6), high], np.ones(46, bool))
    assert said.stop is not None
    assert said.stop.startswith("6 of 46 acted alerts of the check sample")
    assert watch(threshold, 0.02, before, np.array([]), np.array([], bool)).stop is None
    assert watch(threshold, 0.02, before, high, np.ones(40, bool)).stop is None, "higher scores are no harm"


@pytest.mark.parametrize(
    ("change", "stops"),
    [
        ("nothing", False),
        ("a new kind among the lowest hundredth", True),
        ("acted alerts score like the others", True),
        ("all score higher", False),
    ],
)
def test_the_crowd_stops_without_any_outcome(change: str, stops: bool) -> None:
    rng = np.random.default_rng(3)
    threshold, before = found_on(1)
    others = 5_667  # 15% are acted on
    all_before = np.r_[before, logistic(rng.normal(-2, size=others))]
    new = np.r_[logistic(rng.normal(size=150)), logistic(rng.normal(-2, size=850))]
    if change.startswith("a new kind"):
        new[:50] = np.quantile(all_before, 0.005)
    elif change.startswith("acted"):
        new[:150] = logistic(rng.normal(-2, size=150))
    elif change.startswith("all"):
        new = logistic(np.log(new / (1 - new)) + 1)
    nobody = np.array([]), np.array([], bool)
    said = watch(threshold, 0.02, before, *nobody, rng.permutation(all_before), rng.permutation(new))
    assert (said.stop is not None) == stops
    if stops:
        assert said.stop is not None
        assert said.stop.startswith("alerts score differently than before the test")


def test_the_benchmark_sees_what_watch_does() -> None:
    """It makes the monitors' sequences once; production makes them in each run."""
    rng = np.random.default_rng(4)
    threshold, before = found_on(2)
    known = np.sort(rng.uniform(0, autoclose_benchmark.DAYS, 300))
    scores = logistic(rng.normal(size=300) - 1.0 * (known > 60))
    checked = rng.random(300) < 0.2
    all_before, all_scores = logistic(rng.normal(-2, size=1_000)), logistic(rng.normal(-2, size=1_500))
    all_day = np.sort(rng.uniform(0, autoclose_benchmark.DAYS, 1_500))
    looks, evidence_then = autoclose_benchmark.monitor(
        threshold, before, scores, checked, known, all_before, all_scores, all_day, 5
    )
    stops = int(np.flatnonzero(evidence_then >= 1 / LEVEL)[0])
    doubts = int(np.flatnonzero(evidence_then >= DOUBT)[0])
    for look in (doubts - 1, doubts, stops - 1, stops):
        so_far, crowd = known <= looks[look], all_day <= looks[look]
        said = watch(threshold, 0.02, before, scores[so_far], checked[so_far], all_before, all_scores[crowd], seed=5)
        assert said.evidence == pytest.approx(evidence_then[look])
        assert (said.stop is not None) == (look == stops)
        assert (said.doubt is not None) == (look != doubts - 1)


def test_a_reason_to_stay_open_comes_first_and_the_draw_before_the_score() -> None:
    assert decide(0.0, 0.1, False, None) == ("close", "below the threshold")
    assert decide(0.1, 0.1, False, None) == ("leave open", "not below the threshold")
    assert decide(0.0, 0.1, True, None) == decide(0.9, 0.1, True, None) == ("leave open", "check sample")
    assert decide(0.01, 0.1, False, None, lowest=0.02) == ("leave open", UNSEEN)
    assert decide(0.02, 0.1, False, None, lowest=0.02) == ("close", "below the threshold")
    assert decide(0.02, 0.1, False, None, in_doubt=True) == ("leave open", DOUBTED)
    assert decide(0.1, 0.1, False, None, in_doubt=True) == ("leave open", "not below the threshold")
    assert decide(0.0, 0.1, False, "a flood") == decide(0.0, 0.1, True, "a flood") == ("leave open", "a flood")


def test_the_check_sample_is_a_random_share_whatever_the_score() -> None:
    ids = [f"alert-{n}" for n in range(20_000)]
    drawn = [is_drawn(each, "salt", 0.1) for each in ids]
    assert abs(np.mean(drawn) - 0.1) < 4 * np.sqrt(0.09 / 20_000)
    assert drawn == [is_drawn(each, "salt", 0.1) for each in ids]
    assert drawn != [is_drawn(each, "pepper", 0.1) for each in ids]
    assert all(is_drawn(each, "salt", 0.2) for each, was in zip(ids, drawn, strict=True) if was)
