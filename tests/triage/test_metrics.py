"""Measures and their bootstrap, against scikit-learn and brute force."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, brier_score_loss, log_loss, roc_auc_score

from dagster_project.triage.evaluation import metrics


@st.composite
def forecasts(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = draw(st.integers(2, 60))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    # Few distinct values: ties are the interesting case.
    p = rng.integers(1, draw(st.sampled_from([3, 10, 1000])), n) / 1001
    y = (rng.random(n) < 0.4).astype(float)
    y[:2] = [0.0, 1.0]
    return p, y, rng.integers(0, 4, n).astype(float) + (np.arange(n) < 2)


@given(forecasts())
def test_measures_equal_scikit_learn_with_ties_and_weights(case: tuple[np.ndarray, ...]) -> None:
    p, y, w = case
    assert metrics.log_loss(p, y, w) == pytest.approx(log_loss(y, p, sample_weight=w), rel=1e-9)
    assert np.average(metrics.squared_errors(p, y), weights=w) == pytest.approx(
        brier_score_loss(y, p, sample_weight=w), rel=1e-9
    )
    assert metrics.roc_auc(p, y, w) == pytest.approx(roc_auc_score(y, p, sample_weight=w), rel=1e-9)
    expected = average_precision_score(y, p, sample_weight=w)
    assert metrics.Ranking(p, y).pr_auc(w) == pytest.approx(expected, rel=1e-9)


@given(forecasts())
def test_weights_mean_repeated_alerts(case: tuple[np.ndarray, ...]) -> None:
    p, y, w = case
    again = np.repeat(np.arange(len(p)), w.astype(int))
    for rate in (0.0, 0.02, 0.2):
        weighted = metrics.Ranking(p, y).workload_saved(rate, w)
        assert weighted == pytest.approx(metrics.Ranking(p[again], y[again]).workload_saved(rate))
    line = metrics.CalibrationLine(p, y)(w)
    assert line == pytest.approx(metrics.CalibrationLine(p[again], y[again])(), rel=1e-5, nan_ok=True)


@given(forecasts(), st.sampled_from([0.0, 0.01, 0.1, 0.3]))
def test_workload_saved_is_the_best_single_threshold(case: tuple[np.ndarray, ...], miss_rate: float) -> None:
    p, y, _ = case
    best = max((np.mean(p < t) for t in [*p, np.inf] if y[p < t].sum() <= miss_rate * y.sum() + 1e-9), default=0.0)
    assert metrics.Ranking(p, y).workload_saved(miss_rate) == pytest.approx(best)


def test_one_class_has_no_ranking_and_no_slope() -> None:
    p, y = np.array([0.2, 0.4]), np.zeros(2)
    assert np.isnan(metrics.roc_auc(p, y))
    assert np.isnan(metrics.Ranking(p, y).pr_auc())
    assert np.isnan(metrics.Ranking(p, y).workload_saved(0.01))
    assert np.isnan(metrics.CalibrationLine(p, y)()[1])
    assert np.isnan(metrics.log_loss(np.zeros(0), np.zeros(0)))


def test_calibration_line_is_the_logistic_regression_and_pooling_hardly_moves_it() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(0, 1.5, 6_000)
    y = (rng.random(6_000) < metrics.expit(0.3 + 0.6 * x)).astype(float)
    p = metrics.expit(x)
    fitted = LogisticRegression(C=1e9, tol=1e-10).fit(x[:, None], y)
    intercept, slope = metrics.CalibrationLine(p, y, bins=len(p))()
    assert slope == pytest.approx(fitted.coef_[0, 0], abs=1e-4)
    assert intercept == pytest.approx(fitted.intercept_[0], abs=1e-4)
    pooled = metrics.CalibrationLine(p, y)()
    assert pooled == pytest.approx((intercept, slope), abs=1e-3)


def test_decile_error_of_a_perfect_and_of_a_shifted_forecast() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0.1, 0.7, 50_000)
    y = (rng.random(50_000) < p).astype(float)
    assert metrics.decile_error(p, y) < 0.01
    assert metrics.decile_error(p + 0.2, y) == pytest.approx(0.2, abs=0.01)
    assert len(np.unique(metrics.equal_count_bins(p))) == 10
    assert len(np.unique(metrics.equal_count_bins(np.full(7, 0.3)))) == 1


def test_precision_of_the_first_of_a_day() -> None:
    p = np.array([0.9, 0.8, 0.1, 0.2, 0.3])
    y = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    day = np.array(["a", "a", "a", "b", "b"])
    assert y[metrics.first_per_day(p, day, 1)].mean() == 1.0
    assert y[metrics.first_per_day(p, day, 2)].mean() == 0.5
    assert metrics.first_per_day(p, day, 9).all()


@given(whole=st.integers(1, 5_000), data=st.data())
def test_the_interval_of_a_share_is_wilsons(whole: int, data: st.DataObject) -> None:
    part = data.draw(st.integers(0, whole))
    reference = binomtest(part, whole).proportion_ci(method="wilson")
    low, high = metrics.wilson_interval(part, whole)
    assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-7)
    assert 0 <= low <= part / whole + 1e-12
    assert part / whole - 1e-12 <= high <= 1
    lows, highs = metrics.wilson_interval(np.array([part, 0]), np.array([whole, 0]))
    assert (lows[0], highs[0]) == (low, high)
    assert (lows[1], highs[1]) == metrics.wilson_interval(0, 0) == (0.0, 1.0)


def test_block_bootstrap_knows_that_alerts_of_a_block_are_one_piece_of_evidence() -> None:
    rng = np.random.default_rng(11)
    blocks = np.repeat(np.arange(40), 50)
    value = np.repeat(rng.normal(0, 1, 40), 50)
    low, high = metrics.interval(lambda w: np.dot(w, value) / w.sum(), blocks, 800, 1)
    # The mean of 40 independent values has a standard error of 1 / sqrt(40) = 0.16; of 2,000, 0.02.
    assert 0.4 < high - low < 0.9
    assert low < value.mean() < high
    again = metrics.interval(lambda w: np.dot(w, value) / w.sum(), blocks, 800, 1)
    assert (low, high) == again


def test_no_interval_when_most_replicates_are_undefined() -> None:
    assert np.isnan(metrics.percentile_interval(np.array([1.0, np.nan, np.nan]))).all()
    assert np.isnan(metrics.percentile_interval(np.zeros(0))).all()
