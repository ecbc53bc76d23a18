"""The evidence that a training leaves behind, and what the gate makes of it."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from dagster_project.triage.champion import gate
from dagster_project.triage.evaluation import evidence
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.learning.baselines import names_for
from dagster_project.triage.learning.model import Model
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.learning.training import Learned, learn
from tests.triage.learning_world import START, world

CUT = (START + pd.Timedelta(days=130)).to_pydatetime()
SETTINGS = LearningSettings(replicates=100, threads=1, tree_recipes=(replace(TREE_RECIPES[0], trees=120),))


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    made = world(2500)
    # One rule is excluded, and that was decided in the middle of the inner cuts.
    made["excluded"] = made["rule"] == "rule 3"
    made["excluded_since"] = pd.Timestamp(START + pd.Timedelta(days=100)).as_unit("us")
    return made


@pytest.fixture(scope="module")
def learned(frame: pd.DataFrame) -> Learned:
    return learn(frame, CUT, SETTINGS)


@pytest.fixture(scope="module")
def table(learned: Learned) -> pd.DataFrame:
    return evidence.measure(learned.forecasts)


def test_every_contender_forecasts_every_alert_of_the_inner_cuts(learned: Learned) -> None:
    forecasts = learned.forecasts
    assert evidence.contenders(forecasts) == [MODEL, *names_for(SETTINGS.features)]
    assert forecasts["alert_id"].is_unique
    assert forecasts[evidence.contenders(forecasts)].notna().all().all()
    assert forecasts["raised_at"].is_monotonic_increasing
    assert forecasts["fold"].is_monotonic_increasing
    assert (forecasts["raised_at"] + SETTINGS.horizon <= CUT).all()
    assert forecasts["excluded"].any()


def test_forecasts_of_an_inner_cut_know_nothing_later(frame: pd.DataFrame, learned: Learned) -> None:
    """Falsify every outcome that was not known at the last inner cut: earlier forecasts do not move."""
    forecasts = learned.forecasts
    last = pd.Timestamp(learned.model.evidence["inner_cuts"][-1])
    other = frame.copy()
    later = other["known_at"] > last
    other.loc[later, "acted"] = 1.0 - other.loc[later, "acted"]
    again = learn(other, CUT, SETTINGS).forecasts
    assert np.array_equal(forecasts["alert_id"], again["alert_id"])
    for contender in evidence.contenders(forecasts):
        assert np.array_equal(forecasts[contender], again[contender]), contender


def test_a_flag_decided_later_does_not_reach_back(frame: pd.DataFrame) -> None:
    """At inner cuts before the flag was decided, its alerts taught; with a flag from ever they did not."""
    ever = frame.assign(excluded_since=frame["raised_at"].min())
    now, before = learn(frame, CUT, SETTINGS).forecasts, learn(ever, CUT, SETTINGS).forecasts
    cut = pd.Timestamp(START + pd.Timedelta(days=100))
    changed = (now["constant_rate"] != before["constant_rate"]).groupby(now["fold"]).all()
    first = now.groupby("fold")["raised_at"].min()
    assert changed[first[first < cut - timedelta(days=5)].index].all()
    assert not changed[first[first > cut].index].any()


def test_the_headline_leaves_flagged_alerts_out_and_shows_them_beside(learned: Learned, table: pd.DataFrame) -> None:
    assert list(table.columns) == list(evidence.COLUMNS)
    alerts = table.groupby("slice")["alerts"].max()
    flagged = int(learned.forecasts["excluded"].sum())
    assert alerts["all"] - alerts["unflagged"] == flagged
    assert alerts["last cut"] < alerts["unflagged"]
    assert {"team", "severity", "month", "rule age"} <= set(table["slice"])
    found = evidence.row(table, MODEL, "log_loss_skill_over_constant")
    assert found is not None
    assert 0 < found["low"] < found["value"] < found["high"] < 1
    assert evidence.row(table, "nobody", "log_loss") is None


def test_nothing_to_measure_is_an_empty_table() -> None:
    assert list(evidence.measure(pd.DataFrame()).columns) == list(evidence.COLUMNS)


def test_the_first_candidate_scores_whatever_it_misses(learned: Learned, table: pd.DataFrame) -> None:
    made = gate.judge(learned.model, table, gate.Targets(minimum_auc=0.999), has_champion=False)
    assert made.decision == "promoted"
    assert any("AUC" in reason and "nothing else does" in reason for reason in made.reasons)


def test_a_missed_target_refuses(learned: Learned, table: pd.DataFrame) -> None:
    met = gate.judge(learned.model, table, gate.Targets(), has_champion=True)
    assert met.decision == "promoted"
    assert met.evidence["targets"]["minimum_skill"]["met"]
    for targets in (
        gate.Targets(minimum_skill=0.99),
        gate.Targets(minimum_auc=0.999),
        gate.Targets(maximum_decile_error=1e-6),
        gate.Targets(minimum_workload_saved=0.999),
    ):
        made = gate.judge(learned.model, table, targets, has_champion=True)
        assert made.decision == "refused"
        assert len(made.reasons) == 1
        assert "is agreed" in made.reasons[0]


def _tilted(model: Model, by: float) -> Model:
    """The same model, saying something else."""
    from dagster_project.triage.learning.calibration import Calibration

    shifted = Calibration("shift", {"intercept": by, "slope": 1.0})
    return replace(model, overall=shifted)  # type: ignore[call-arg]


def test_a_candidate_that_loses_to_the_champion_is_refused(
    frame: pd.DataFrame, learned: Learned, table: pd.DataFrame
) -> None:
    early = (START + pd.Timedelta(days=70)).to_pydatetime()
    champion = learn(frame, early, SETTINGS).model
    fair = gate.compare(learned.model, learned.forecasts, champion, frame)
    assert fair is not None
    assert fair.low < 0 < fair.high or fair.low > 0
    assert gate.judge(learned.model, table, gate.Targets(), True, fair).decision == "promoted"
    # A champion that says nonsense loses, and forecasts that are nonsense lose to it.
    assert gate.compare(learned.model, learned.forecasts, _tilted(champion, 4.0), frame).low > 0  # type: ignore[union-attr]
    nonsense = learned.forecasts.assign(model=np.where(learned.forecasts["acted"] > 0, 0.05, 0.95))
    lost = gate.compare(learned.model, nonsense, champion, frame)
    assert lost is not None
    made = gate.judge(learned.model, table, gate.Targets(), True, lost)
    assert made.decision == "refused"
    assert "lost to the champion" in made.reasons[0]


def test_a_champion_of_yesterday_cannot_be_compared_yet(frame: pd.DataFrame, learned: Learned) -> None:
    yesterday = replace(learned.model, cut=CUT - timedelta(days=1))
    assert gate.compare(learned.model, learned.forecasts, yesterday, frame) is None
