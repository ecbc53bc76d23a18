"""The team scorecard: what it says of teams whose decisions are known to be predictable, or not."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.audit_worlds import SETTINGS, audit_world
from benchmarks.worlds import best_reachable_auc
from dagster_project.triage.audit.reference_learner import reference_learner
from dagster_project.triage.audit.scorecard import (
    COLUMNS,
    REACH,
    REACH_MOST,
    STATUSES,
    ScorecardSettings,
    auc_of,
    distance,
    learning_reach,
    team_scorecard,
)
from dagster_project.triage.evaluation import metrics

CARD = ScorecardSettings(SETTINGS, replicates=100)


def teams_of(spreads: dict[str, float], each: int = 1_500, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Forecasts that are the truth blurred a little, for teams whose log-odds scatter by `spreads`; and the truth."""
    rng = np.random.default_rng(seed)
    parts, truths = [], []
    for name, spread in spreads.items():
        z = -1.2 + spread * rng.normal(size=each)
        truth = metrics.expit(z)
        truths.append(truth)
        parts.append(
            pd.DataFrame(
                {
                    "alert_id": [f"{name}-{i}" for i in range(each)],
                    "raised_at": pd.Timestamp("2024-01-01", tz="UTC")
                    + pd.to_timedelta(np.sort(rng.integers(0, 60 * 86_400, each)), unit="s"),
                    "rule": rng.choice(["a", "b", "c", "d"], each),
                    "entity": rng.choice([f"e{i}" for i in range(100)], each),
                    "team": name,
                    "severity": "high",
                    "acted": (rng.random(each) < truth).astype(float),
                    "excluded": False,
                    "model": metrics.expit(-1.2 + 0.8 * (z + 1.2) + 0.4 * spread * rng.normal(size=each)),
                }
            )
        )
    made = pd.concat(parts, ignore_index=True)
    return made, pd.Series(np.concatenate(truths), index=made["alert_id"])


def test_statuses_follow_from_what_teams_do() -> None:
    forecasts, truth = teams_of({"clear": 3.0, "some": 0.7, "dice": 0.0})
    few = forecasts[forecasts["team"] == "clear"].head(40).assign(team="new")
    few["alert_id"] = "new-" + few["alert_id"]
    card = team_scorecard(pd.concat([forecasts, few]), settings=CARD).set_index("team")
    assert list(card.reset_index().columns) == list(COLUMNS)
    assert card["status"].to_dict() == {
        "clear": "predictable", "some": "partly", "dice": "unpredictable", "new": "too few",
    }  # fmt: skip
    assert np.isnan(card.loc["new", ["skill", "auc", "ceiling"]].astype(float)).all()
    for name in ("clear", "some", "dice"):
        row = card.loc[name]
        assert row["skill_low"] <= row["skill"] <= row["skill_high"]
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
        best = best_reachable_auc(truth[forecasts["alert_id"][forecasts["team"] == name]].to_numpy())
        assert row["ceiling_low"] - 0.01 <= best <= row["ceiling_high"] + 0.01
        assert abs(row["ceiling"] - best) < 0.06
    assert card.loc["dice", "skill"] < 0 < card.loc["some", "skill"]


def test_excluded_alerts_and_alerts_without_a_team_do_not_count() -> None:
    forecasts, _ = teams_of({"clear": 3.0, "some": 0.7})
    more = forecasts.assign(alert_id="x" + forecasts["alert_id"], model=0.999)
    card = team_scorecard(pd.concat([forecasts, more.assign(excluded=True)]), settings=CARD)
    pd.testing.assert_frame_equal(card, team_scorecard(forecasts, settings=CARD))
    assert len(team_scorecard(forecasts.assign(team=None), settings=CARD)) == 0
    assert len(team_scorecard(forecasts.head(0), settings=CARD)) == 0


def test_inconsistency_is_zero_for_the_consistent_and_one_for_dice() -> None:
    forecasts, _ = teams_of({"dice": 0.0, "strict": 0.0}, each=3_000)
    strict = forecasts["team"] == "strict"
    by_entity = pd.factorize(forecasts["entity"])[0] % 4 == 0
    forecasts.loc[strict, "acted"] = by_entity[strict].astype(float)
    card = team_scorecard(forecasts, settings=CARD).set_index("team")
    assert card.loc["strict", "inconsistency"] == 0.0
    assert card.loc["dice", "inconsistency_low"] < 1.0 < card.loc["dice", "inconsistency_high"]
    assert card.loc["dice", "same_facts_pairs"] > 500


def test_an_auc_and_its_distance_are_two_ways_to_say_one_thing() -> None:
    assert auc_of(distance(np.array([0.5, 0.7, 0.95]))) == pytest.approx([0.5, 0.7, 0.95])
    assert distance(0.5) == pytest.approx(0.0)


def test_the_reach_is_measured_on_a_learning_curve() -> None:
    world = audit_world(4, alerts=3_500, days=120)
    learner = reference_learner(SETTINGS, rounds=20)
    reach = learning_reach(world.frame, fit_predict=learner, settings=CARD)
    assert 1.02 < reach <= REACH_MOST
    assert learning_reach(world.frame.head(200), fit_predict=learner, settings=CARD) == REACH
    noise = audit_world(4, alerts=3_500, days=120, predictability="noise")
    assert learning_reach(noise.frame, fit_predict=learner, settings=CARD) == REACH


def test_teams_of_pure_noise_are_not_called_predictable() -> None:
    forecasts, _ = teams_of({f"team {i}": 0.0 for i in range(8)}, each=800, seed=5)
    card = team_scorecard(forecasts, settings=CARD)
    assert set(card["status"]) <= {"unpredictable", "too few"} <= set(STATUSES)
