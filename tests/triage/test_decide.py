"""The decision about the champion, on models without trees: who is compared, who scores, and why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dagster_project.triage.audit.findings import LEAK, Finding
from dagster_project.triage.audit.withholding import Withholding
from dagster_project.triage.champion.decide import Outcome, Standing, decide_champion
from dagster_project.triage.champion.gate import Targets
from dagster_project.triage.evaluation import evidence
from dagster_project.triage.evaluation.contenders import CONSTANT, REPEAT_LAST
from dagster_project.triage.features.contract import FeatureSettings, contract, histories_about
from dagster_project.triage.learning.baselines import Baseline
from dagster_project.triage.learning.calibration import Calibration
from dagster_project.triage.learning.model import Model, Recalibration

FEATURES = FeatureSettings()
TRAINED = datetime(2025, 1, 1, tzinfo=UTC)
CUT = datetime(2025, 3, 1, tzinfo=UTC)
DAMAGE = "the champion old cannot be read (its row is cut off)"


def model(kind: str, cut: datetime, **changes: Any) -> Model:
    baseline = Baseline(CONSTANT, {"rate": 0.5})
    return replace(Model(kind, cut, contract(FEATURES), f"{kind} serves", baseline=baseline), **changes)


CHAMPION = model(CONSTANT, TRAINED)
CANDIDATE = model(REPEAT_LAST, CUT, evidence={"inner_cuts": [TRAINED.isoformat()]})


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    raised = pd.Series(pd.date_range(TRAINED, periods=400, freq="3h"))
    acted = (rng.random(400) < 0.5).astype(float)
    return pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(400)],
            "raised_at": raised,
            "known_at": raised + timedelta(hours=1),
            "rule": [f"rule {i % 4}" for i in range(400)],
            "acted": acted,
            "excluded": False,
        }
    )


def decided(frame: pd.DataFrame, standing: Standing | None, right: float = 0.7, **more: Any) -> Outcome:
    """The outcome for a candidate that gave what happened a probability of `right`."""
    facts = frame.drop(columns="known_at").assign(fold=0, rule_age_days=1.0)
    said = np.where(frame["acted"] == 1, right, 1 - right)
    forecasts = facts.assign(**{CONSTANT: 0.5, REPEAT_LAST: said})
    measured = evidence.measure(forecasts, headline_only=True)
    candidate = more.pop("candidate", CANDIDATE)
    return decide_champion(candidate, forecasts, measured, frame, standing, cut=CUT, horizon=timedelta(days=14), **more)


def test_without_a_champion_the_first_candidate_scores_whatever_it_misses(frame: pd.DataFrame) -> None:
    outcome = decided(frame, None, right=0.4, targets=Targets(minimum_skill=0.5))
    assert (outcome.decision.decision, outcome.scores, outcome.unusable) == ("promoted", CANDIDATE, "")
    assert "there was no champion" in outcome.decision.reasons[0]
    assert "nothing else does" in outcome.decision.reasons[1]


def test_the_better_one_scores(frame: pd.DataFrame) -> None:
    standing = Standing("old", CHAMPION)
    better, worse = decided(frame, standing), decided(frame, standing, right=0.3)
    assert (better.decision.decision, better.scores) == ("promoted", CANDIDATE)
    assert "gained" in better.decision.reasons[0]
    assert (worse.decision.decision, worse.scores) == ("refused", CHAMPION)
    assert any("lost to the champion" in reason for reason in worse.decision.reasons)


def test_what_a_version_says_that_knows_less_than_the_champion_refuses_nobody(frame: pd.DataFrame) -> None:
    early = replace(CANDIDATE, evidence={"inner_cuts": [(TRAINED - timedelta(days=1)).isoformat()]})
    outcome = decided(frame, Standing("old", CHAMPION), right=0.3, candidate=early, targets=Targets(minimum_skill=-9))
    assert outcome.decision.decision == "promoted"
    assert outcome.decision.evidence["compared_with_champion"] is None


def test_a_champion_is_compared_without_its_recalibration(frame: pd.DataFrame) -> None:
    shift = Calibration("shift", {"intercept": 5.0, "slope": 1.0})
    shifted = replace(CHAMPION, recalibration=Recalibration(shift, CUT, 10))
    assert shifted.predict(frame).mean() > 0.9
    assert decided(frame, Standing("old", shifted)).decision == decided(frame, Standing("old", CHAMPION)).decision


def test_a_champion_that_cannot_be_read_is_replaced_without_comparison(frame: pd.DataFrame) -> None:
    outcome = decided(frame, Standing("old", None, DAMAGE))
    assert (outcome.decision.decision, outcome.scores, outcome.unusable) == ("promoted", CANDIDATE, DAMAGE)
    assert outcome.decision.evidence["compared_with_champion"] is None


def test_a_champion_of_other_features_is_compared_on_its_published_scores(frame: pd.DataFrame) -> None:
    other = model(CONSTANT, TRAINED, contract=contract(FeatureSettings(keys=("rule", "team"))))
    perfect = frame[["alert_id"]].assign(probability=np.where(frame["acted"] == 1, 0.99, 0.01))
    outcome = decided(frame, Standing("old", other, published=lambda: perfect))
    # It wins the comparison, but cannot score any more.
    assert (outcome.decision.decision, outcome.scores) == ("promoted", CANDIDATE)
    assert "other features" in outcome.unusable
    assert "lost to the champion" in outcome.decision.reasons[0]


def test_a_champion_that_learned_from_a_leak_does_not_defend_its_place(frame: pd.DataFrame) -> None:
    read = sorted(histories_about(["rule"], FEATURES))[0]
    knowing = model(CONSTANT, TRAINED, baseline=Baseline(CONSTANT, {"rate": 0.5, "known": read}))
    withheld = Withholding({"rule": Finding("a check", "rule", "overwritten", 1.0, 0.5, LEAK)})
    outcome = decided(frame, Standing("old", knowing), right=0.3, withholding=withheld)
    assert (outcome.decision.decision, outcome.scores) == ("promoted", CANDIDATE)
    assert "the champion old learned from rule" in outcome.unusable


@pytest.mark.parametrize("standing", [None, Standing("old", CHAMPION)])
def test_a_candidate_with_a_leak_never_scores(frame: pd.DataFrame, standing: Standing | None) -> None:
    outcome = decided(frame, standing, leaks=["note: sees ahead"])
    assert outcome.decision.decision == "refused"
    assert outcome.scores == (standing.model if standing else None)


def test_what_a_person_withdrew_only_a_person_brings_back(frame: pd.DataFrame) -> None:
    rollback = {"decided_by": "anna", "reasons": ["it was worse"]}
    outcome = decided(frame, Standing("old", CHAMPION), withdrawn={CANDIDATE.version: rollback})
    assert (outcome.decision.decision, outcome.scores) == ("refused", CHAMPION)
    assert "anna rolled back from it (it was worse); only a person" in outcome.decision.reasons[0]
    assert outcome.decision.evidence["compared_with_champion"] is not None
