"""A champion that stays is recalibrated on its forecasts since training, and on nothing else."""

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from dagster_project.triage.champion.recalibration import forecasts_since, in_words, recalibrate
from dagster_project.triage.evaluation import evidence, metrics
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.evaluation.evidence import FACTS
from dagster_project.triage.learning.calibration import Calibration, uninfluenced
from dagster_project.triage.learning.mixture.model import read_model
from dagster_project.triage.learning.model import Model
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.learning.training import learn, train
from tests.triage.learning_world import START, world

SETTINGS = LearningSettings(replicates=100, threads=1, tree_recipes=(replace(TREE_RECIPES[0], trees=120),))
HORIZON = SETTINGS.horizon
TAUGHT = (START + pd.Timedelta(days=70)).to_pydatetime()
CUT = (START + pd.Timedelta(days=120)).to_pydatetime()


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    made = world(2500)
    made["excluded"] = made["rule"] == "rule 3"
    made["excluded_since"] = pd.Timestamp(START + pd.Timedelta(days=100)).as_unit("us")
    return made


@pytest.fixture(scope="module")
def champion(frame: pd.DataFrame) -> Model:
    """Trees that say too much: since they were taught, people act less."""
    made = train(frame, TAUGHT, SETTINGS)
    assert made.status == "model"
    shifted = Calibration("shift", {"intercept": 2.0, "slope": 1.0})
    return replace(made, overall=shifted)  # type: ignore[call-arg]


def later(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[(frame["raised_at"] >= CUT) & ~frame["excluded"]]


def test_scores_come_right_and_keep_their_order(frame: pd.DataFrame, champion: Model) -> None:
    again = recalibrate(champion, frame, CUT, HORIZON)
    facts = later(frame)
    before, after = champion.predict(facts), again.predict(facts)
    acted = facts["acted"].to_numpy()
    assert metrics.decile_error(after, acted) < metrics.decile_error(before, acted) / 2
    assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
    assert again.recalibration is not None
    assert str(again.recalibration.alerts) in in_words(again)
    assert again.version != champion.version
    assert again.cut == champion.cut
    assert again.as_trained().version == champion.version
    # A second one takes the place of the first.
    assert recalibrate(again, frame, CUT, HORIZON).version == again.version


def test_only_known_and_over_alerts_since_it_was_taught_count(frame: pd.DataFrame, champion: Model) -> None:
    other = frame.copy()
    over = other["raised_at"] + pd.Timedelta(HORIZON) <= CUT
    counts = over & (other["raised_at"] >= TAUGHT) & ~other["excluded"]
    other.loc[~counts, "acted"] = 1.0 - other.loc[~counts, "acted"]
    again = recalibrate(champion, frame, CUT, HORIZON)
    assert again.recalibration is not None
    assert again.recalibration.alerts == counts.sum()
    assert recalibrate(champion, other, CUT, HORIZON).version == again.version
    turned = frame.assign(acted=frame["acted"].where(~counts, 1.0 - frame["acted"]))
    assert recalibrate(champion, turned, CUT, HORIZON).version != again.version


def test_nothing_changes_where_nothing_pays(frame: pd.DataFrame, champion: Model) -> None:
    early = TAUGHT + timedelta(days=15)  # the horizon of hardly any alert is over
    assert recalibrate(champion, frame, early, HORIZON).version == champion.version
    baseline = learn(frame.head(40), CUT, SETTINGS).model
    assert baseline.status == "baseline"
    assert recalibrate(baseline, frame, CUT, HORIZON) is not None
    assert recalibrate(baseline, frame, CUT, HORIZON).version == baseline.version


def test_it_is_stored_exactly_and_older_versions_keep_their_names(frame: pd.DataFrame, champion: Model) -> None:
    again = recalibrate(champion, frame, CUT, HORIZON)
    read = read_model(*again.to_document())
    assert read.version == again.version
    assert read.recalibration == again.recalibration
    assert np.array_equal(read.predict(later(frame)), again.predict(later(frame)))
    assert "recalibration" not in champion.to_document()[1]


def test_its_evidence_knows_nothing_later(frame: pd.DataFrame, champion: Model) -> None:
    """What it would have said at each inner cut comes from outcomes that were known and over then."""
    learned = learn(frame, CUT, SETTINGS)
    cuts = [datetime.fromisoformat(moment) for moment in learned.model.evidence["inner_cuts"]]
    made = forecasts_since(champion, learned.forecasts, cuts, frame, HORIZON)
    assert list(made.columns) == list(learned.forecasts.columns)
    assert set(made.columns[: list(made.columns).index(MODEL)]) <= set(FACTS)
    assert (made["raised_at"] >= TAUGHT).all()
    clean = made[~made["excluded"] & (made["fold"] == made["fold"].max())]
    as_it_stood = champion.predict(frame[frame["alert_id"].isin(clean["alert_id"])])
    acted = clean["acted"].to_numpy()
    assert metrics.log_loss(clean[MODEL].to_numpy(), acted) < metrics.log_loss(as_it_stood, acted) - 0.02
    other = frame.copy()
    unknown = other["raised_at"] + pd.Timedelta(HORIZON) > cuts[-1]
    other.loc[unknown, "acted"] = 1.0 - other.loc[unknown, "acted"]
    pd.testing.assert_frame_equal(forecasts_since(champion, learned.forecasts, cuts, other, HORIZON), made)


def test_a_map_asks_alerts_whose_score_nobody_saw(frame: pd.DataFrame) -> None:
    """People act on everything whose score they see: only held-out alerts still say what would happen without."""
    rng = np.random.default_rng(1)
    shown = (rng.random(len(frame)) < 0.6) & (frame["raised_at"] >= START + pd.Timedelta(days=20)).to_numpy()
    touched = frame.assign(acted=np.where(shown, 1.0, frame["acted"]))
    told = touched.assign(influenced=shown)
    facts = later(frame)
    truth, naive, asked = (
        facts["truth"].to_numpy(),
        train(touched, CUT, SETTINGS).predict(facts),
        train(told, CUT, SETTINGS).predict(facts),
    )
    assert naive.mean() > truth.mean() + 0.2
    assert abs(asked.mean() - truth.mean()) < (naive.mean() - truth.mean()) / 2
    # A champion that stays is asked in the same way, and the evidence has a part of its own.
    champion = train(touched, TAUGHT, SETTINGS)
    again = recalibrate(champion, told, CUT, HORIZON)
    assert abs(again.predict(facts).mean() - truth.mean()) < (naive.mean() - truth.mean()) / 2
    forecasts = learn(told, CUT, SETTINGS).forecasts
    measured = evidence.measure(forecasts)
    part = measured[(measured["slice"] == "not influenced") & (measured["contender"] == MODEL)]
    assert part["alerts"].max() == (~forecasts["influenced"] & ~forecasts["excluded"]).sum()
    assert "not influenced" not in set(evidence.measure(forecasts.assign(influenced=True))["slice"])
    # Too few of them, and all alerts are asked: their map would follow noise.
    assert uninfluenced(np.arange(1000) >= 100, np.arange(1000) % 2.0).all()
