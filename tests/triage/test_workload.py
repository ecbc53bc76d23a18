"""What a threshold saves and misses is counted, never interpolated."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.workload import at_promise, at_threshold, workload_curve

forecasts = st.lists(st.tuples(st.floats(0.0, 1.0) | st.sampled_from([0.1, 0.5]), st.integers(0, 1)), max_size=80)


@given(forecasts, st.integers(2, 100))
def test_every_row_is_counted_exactly(pairs: list[tuple[float, int]], most: int) -> None:
    p, y = np.array([a for a, _ in pairs]), np.array([float(b) for _, b in pairs])
    curve = workload_curve(p, y, most)
    assert curve["threshold"].is_monotonic_increasing
    assert curve["threshold"].iloc[-1] == 1
    assert len(curve) <= most + 1
    for row in curve.itertuples():
        assert row.alerts_below == (p < row.threshold).sum()
        assert row.acted_below == y[p < row.threshold].sum()
    assert (curve["alerts"] == len(p)).all()
    assert (curve["acted"] == y.sum()).all()


@given(forecasts, st.floats(0.0, 1.0))
def test_any_threshold_reads_its_own_count(pairs: list[tuple[float, int]], threshold: float) -> None:
    p, y = np.array([a for a, _ in pairs]), np.array([float(b) for _, b in pairs])
    row = at_threshold(workload_curve(p, y), threshold)
    assert row["alerts_below"] == (p < threshold).sum()
    assert row["acted_below"] == y[p < threshold].sum()


@given(forecasts, st.sampled_from([0.0, 0.01, 0.05, 0.2, 0.5]))
def test_a_promise_is_the_best_that_keeps_it(pairs: list[tuple[float, int]], missed: float) -> None:
    p, y = np.array([a for a, _ in pairs]), np.array([float(b) for _, b in pairs])
    row = at_promise(workload_curve(p, y), missed)
    if not y.any():
        assert row["alerts_below"] == 0
        return
    best = max((p < t).sum() for t in [*p, 1.0] if y[p < t].sum() <= missed * y.sum() * (1 + 1e-12))
    assert row["alerts_below"] == best


def test_many_forecasts_make_a_short_curve_that_agrees_with_the_report() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(20_000)
    y = (rng.random(20_000) < p).astype(float)
    curve = workload_curve(p, y)
    assert len(curve) <= 1_001
    for missed in (0.01, 0.02, 0.05):
        row = at_promise(curve, missed)
        assert row["share_missed"] <= missed
        assert abs(row["share_below"] - metrics.workload_saved(p, y, missed)) < 0.002


def test_unknown_outcomes_count_nowhere() -> None:
    curve = workload_curve(np.array([0.1, np.nan, 0.3]), np.array([1.0, 1.0, np.nan]))
    assert curve["alerts"].iloc[0] == 1
    assert curve["share_missed"].tolist() == [0.0, 1.0]
    assert workload_curve(np.array([]), np.array([]))["share_missed"].isna().all()
