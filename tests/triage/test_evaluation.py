"""The table of contenders, its intervals and its refusals."""

import numpy as np
import pandas as pd
import pytest

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.measures import EvaluationSettings, evaluate, evaluate_slices

SETTINGS = EvaluationSettings(replicates=60)


def case(n: int = 600, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.02, 0.9, n)
    y = (rng.random(n) < truth).astype(float)
    contenders = {
        "model": truth,
        "constant_rate": np.full(n, y.mean()),
        "rate_per_rule": np.clip(truth + rng.normal(0, 0.2, n), 0.01, 0.99),
        "always_no_action": np.full(n, 1e-3),
    }
    return contenders, y, rng.integers(0, 60, n)


def cell(table: pd.DataFrame, contender: str, metric: str) -> pd.Series:
    return table[(table["contender"] == contender) & (table["metric"] == metric)].iloc[0]


def test_values_are_the_measures_and_lie_in_their_intervals() -> None:
    p, y, blocks = case()
    table = evaluate(
        p,
        y,
        blocks,
        day=blocks,
        baselines=["constant_rate", "rate_per_rule", "always_no_action"],
        settings=SETTINGS,
    )
    assert list(table.columns) == ["contender", "metric", "value", "low", "high", "alerts", "acted"]
    assert cell(table, "model", "log_loss")["value"] == pytest.approx(metrics.log_loss(p["model"], y))
    assert cell(table, "model", "roc_auc")["value"] == pytest.approx(metrics.roc_auc(p["model"], y))
    saved = cell(table, "model", "workload_saved_at_5%_missed")["value"]
    assert saved == pytest.approx(metrics.Ranking(p["model"], y).workload_saved(0.05))
    best = cell(table, "model", "log_loss_skill_over_best_baseline")
    expected = 1 - metrics.log_loss(p["model"], y) / metrics.log_loss(p["rate_per_rule"], y)
    assert best["value"] == pytest.approx(expected)
    known = table.dropna(subset=["low"])
    assert len(known) > 40
    assert (known["low"] <= known["value"] + 1e-9).mean() > 0.95
    assert (known["high"] >= known["value"] - 1e-9).mean() > 0.95


def test_always_no_cannot_win() -> None:
    p, y, blocks = case()
    table = evaluate(p, y, blocks, baselines=["constant_rate", "always_no_action"], settings=SETTINGS)
    assert cell(table, "always_no_action", "log_loss_skill_over_constant")["value"] < 0
    assert cell(table, "always_no_action", "roc_auc")["value"] == 0.5
    assert cell(table, "always_no_action", "workload_saved_at_1%_missed")["value"] == 0
    prevalence = cell(table, "always_no_action", "prevalence")["value"]
    assert cell(table, "always_no_action", "pr_auc")["value"] == pytest.approx(prevalence)
    assert cell(table, "constant_rate", "log_loss_skill_over_constant")["value"] == 0


def test_alerts_without_outcome_are_left_out_for_everybody() -> None:
    p, y, blocks = case()
    unknown = y.copy()
    unknown[:100] = np.nan
    table = evaluate(p, unknown, blocks, settings=SETTINGS)
    only = evaluate({k: v[100:] for k, v in p.items()}, y[100:], blocks[100:], settings=SETTINGS)
    pd.testing.assert_frame_equal(table, only)
    assert set(table["alerts"]) == {500}


def test_too_few_is_said_instead_of_a_number() -> None:
    p, y, blocks = case()
    few = np.flatnonzero(y == 1)[:9]
    chosen = np.r_[few, np.flatnonzero(y == 0)]
    table = evaluate({k: v[chosen] for k, v in p.items()}, y[chosen], blocks[chosen], settings=SETTINGS)
    assert table["value"].isna().all()
    one_block = evaluate(p, y, np.zeros(len(y)), settings=SETTINGS)
    assert one_block["value"].isna().all()
    nothing = evaluate({"model": np.zeros(0)}, np.zeros(0), np.zeros(0), settings=SETTINGS)
    assert nothing["value"].isna().all()


def test_slices_stand_beside_the_whole() -> None:
    p, y, blocks = case()
    team = np.where(np.arange(len(y)) < 590, "busy", "quiet").astype(object)
    team[:5] = None
    table = evaluate_slices(p, y, blocks, {"team": team}, settings=SETTINGS)
    assert set(table["slice_value"]) == {"", "busy", "quiet"}
    busy = table[table["slice_value"] == "busy"]
    assert set(busy["alerts"]) == {585}
    assert table[table["slice_value"] == "quiet"]["value"].isna().all()


def test_incomplete_predictions_are_a_bug() -> None:
    p, y, blocks = case(50)
    p["model"][3] = np.nan
    with pytest.raises(ValueError, match="incomplete"):
        evaluate(p, y, blocks, settings=SETTINGS)


def test_replicates_by_bins_agree_with_replicates_by_alerts() -> None:
    """The interval's ends come from binned ranks; every alert by itself gives the same to 0.001."""
    p, y, blocks = case(5000, seed=2)
    settings = EvaluationSettings(replicates=40)
    table = evaluate({"model": p["model"]}, y, blocks, settings=settings)
    exact: dict[str, list[float]] = {"roc_auc": [], "pr_auc": [], "calibration_slope": [], "log_loss": []}
    codes = pd.factorize(blocks)[0]
    ranking, line = metrics.Ranking(p["model"], y), metrics.CalibrationLine(p["model"], y)
    for drawn in metrics.bootstrap_weights(codes, settings.replicates, settings.seed):
        w = drawn[codes]
        exact["roc_auc"].append(ranking.roc_auc(w))
        exact["pr_auc"].append(ranking.pr_auc(w))
        exact["calibration_slope"].append(line(w)[1])
        exact["log_loss"].append(metrics.log_loss(p["model"], y, w))
    for metric, values in exact.items():
        low, high = metrics.percentile_interval(np.array(values))
        row = cell(table, "model", metric)
        assert row["low"] == pytest.approx(low, abs=2e-3 if metric == "calibration_slope" else 1e-3)
        assert row["high"] == pytest.approx(high, abs=2e-3 if metric == "calibration_slope" else 1e-3)


def test_a_constant_forecast_has_no_calibration_line() -> None:
    p, y, blocks = case()
    table = evaluate({"constant_rate": p["constant_rate"]}, y, blocks, settings=SETTINGS)
    assert np.isnan(cell(table, "constant_rate", "calibration_slope")["value"])
    assert np.isnan(cell(table, "constant_rate", "calibration_slope")["low"])
