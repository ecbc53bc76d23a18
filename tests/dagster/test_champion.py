"""The gate's step on a real warehouse: a champion that stays is recalibrated, as a version with its evidence."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
from upath import UPath

from dagster_project.assets.training import CANDIDATE_MODEL, CHAMPION_MODEL, TRAINING_SET, champion_model
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.stores.frames import FrameFile, FrameFiles
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Gate, Settings
from dagster_project.triage.audit import audit as auditing
from dagster_project.triage.evaluation import evidence, metrics
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.learning.calibration import Calibration
from dagster_project.triage.learning.settings import TREE_RECIPES, LearningSettings
from dagster_project.triage.learning.training import learn
from tests.triage.learning_world import START, world

pytestmark = pytest.mark.slow

LEARNING = LearningSettings(replicates=100, threads=1, tree_recipes=(replace(TREE_RECIPES[0], trees=60),))
TAUGHT = START + pd.Timedelta(days=70)
CUT = START + pd.Timedelta(days=120)


def _train_at(
    cut: pd.Timestamp, targets: Gate, frame: pd.DataFrame, warehouse: Warehouse, tmp_path: Path
) -> dict[str, str]:
    """The gate's step at a cut, with what the steps before it leave behind."""
    models = ModelStore(warehouse)
    as_of = cut.to_pydatetime()
    known = frame[frame["known_at"] <= cut].reset_index(drop=True)
    learned = learn(known, as_of, LEARNING)
    models.save(learned.model, as_of)
    models.save_evaluation(learned.model.version, as_of, evidence.measure(learned.forecasts, headline_only=True))
    handed_over = {"dagster/io_manager_key": "frame_files"}
    files = FrameFiles(UPath(tmp_path))
    FrameFile(UPath(tmp_path / "training_set.parquet")).write(known)
    FrameFile(UPath(tmp_path / "candidate_model.parquet")).write(learned.forecasts)
    made = dg.materialize(
        [champion_model, *(dg.AssetSpec(key, metadata=handed_over) for key in (TRAINING_SET, CANDIDATE_MODEL))],
        selection=[CHAMPION_MODEL],
        instance=dg.DagsterInstance.ephemeral(),
        resources={
            "frame_files": files,
            "warehouse": warehouse,
            "models": models,
            "settings": Settings(gate=targets),
        },
        tags={AS_OF_TAG: as_of.isoformat()},
    )
    assert models.newest(as_of) == learned.model.version, "a recalibrated champion is no candidate"
    materialization = made.asset_materializations_for_node("training__champion_model")[0]
    return {name: str(value.value) for name, value in materialization.metadata.items()}


def test_a_refused_candidate_leaves_a_champion_that_is_calibrated_anew(warehouse: Warehouse, tmp_path: Path) -> None:
    frame = world(2500)
    frame["horizon_ends_at"] = frame["raised_at"] + LEARNING.horizon
    models = ModelStore(warehouse)
    champion = learn(frame, TAUGHT.to_pydatetime(), LEARNING).model
    shifted = Calibration("shift", {"intercept": 2.0, "slope": 1.0})
    champion = replace(champion, overall=shifted)  # type: ignore[call-arg]
    models.save(champion, TAUGHT)
    models.decide(champion.version, TAUGHT, "promoted", ["it was the first"], {}, "gate")
    finding = {"check": "a check", "subject": "a column", "finding": "nothing", "verdict": "clean", "value": 0.1}
    findings = pd.DataFrame([{**finding, "low": np.nan, "high": np.nan, "limit": 0.5}])
    models.save_audit(champion.version, TAUGHT, auditing.Audit(findings, None, pd.DataFrame()))

    def train_at(cut: pd.Timestamp, targets: Gate) -> dict[str, str]:
        return _train_at(cut, targets, frame, warehouse, tmp_path)

    said = train_at(CUT, Gate(minimum_auc=1.0))
    assert said["decision"] == "refused"
    scoring = models.champion(CUT.to_pydatetime())
    assert scoring is not None
    assert scoring.model_version == said["champion"] != champion.version
    assert (scoring.trained, scoring.cut) == (TAUGHT.to_pydatetime(), CUT.to_pydatetime())
    assert "recalibrated" in scoring.reasons[0]
    stored = models.load(scoring.model_version)
    later = frame[frame["raised_at"] >= CUT]
    assert stored.predict(later).mean() < champion.predict(later).mean() - 0.05
    # Its evidence is of its own alerts, its audit that of the same trees.
    measured = models.evaluation(scoring.model_version)
    assert {"model", "constant_rate"} <= set(measured["contender"])
    row = evidence.row(measured, "model", "log_loss")
    past = FrameFile(UPath(tmp_path / "candidate_model.parquet")).read()
    past = past[(past["raised_at"] >= TAUGHT) & ~past["excluded"]]
    assert row is not None
    as_it_stood = champion.predict(frame[frame["alert_id"].isin(past["alert_id"])])
    assert row["value"] < metrics.log_loss(as_it_stood, past["acted"].to_numpy()) - 0.02
    assert models.audit(scoring.model_version) == models.audit(champion.version)
    # Again, later: a new map over the same trees takes the place of the old one; a person's way back is the map before.
    week = CUT + timedelta(days=7)
    train_at(week, Gate(minimum_auc=1.0))
    newer = models.champion(week.to_pydatetime())
    assert newer is not None
    assert newer.model_version not in (scoring.model_version, champion.version)
    assert models.load(newer.model_version).as_trained().version == champion.version
    assert models.succession(week.to_pydatetime()).previous() == scoring.model_version
    # A candidate that holds takes its place.
    assert train_at(week + timedelta(days=1), Gate())["decision"] == "promoted"


def test_a_champion_of_other_features_is_compared_on_what_it_published(warehouse: Warehouse, tmp_path: Path) -> None:
    frame = world(2500)
    frame["horizon_ends_at"] = frame["raised_at"] + LEARNING.horizon
    models = ModelStore(warehouse)
    others = replace(LEARNING, features=FeatureSettings(keys=("rule", "team")))
    champion = learn(frame, TAUGHT.to_pydatetime(), others).model
    models.save(champion, TAUGHT)
    models.decide(champion.version, TAUGHT, "promoted", ["it was the first"], {}, "gate")

    said = _train_at(CUT, Gate(), frame, warehouse, tmp_path)
    assert said["decision"] == "promoted"
    assert f"the champion {champion.version} was trained with other features" in said["reasons"]
    assert "keys were rule, team, now all, rule, entity, team, rule+entity, rule+team" in said["reasons"]
    assert "not compared: too few" in said["reasons"]
    assert "there was no champion" not in said["reasons"]

    # It published something, and all of it was wrong: the comparison is on these very scores.
    later = frame[frame["raised_at"] >= TAUGHT]
    rows = [
        (row.alert_id, row.raised_at, row.raised_at, champion.version, 0.02 if row.acted == 1 else 0.98)
        for row in later.itertuples()
    ]
    with warehouse.transaction() as cursor:
        cursor.executemany(
            """INSERT INTO scoring.alert_scores (alert_id, raised_at, as_of, scored_at, model_version, probability,
                                                 status, flood, visibility_only)
               VALUES ($1, $2, $3, now(), $4, $5, 'model', false, false)""",
            rows,
        )
    models.decide(champion.version, CUT + timedelta(hours=1), "rolled_back", ["a person"], {}, "anna")
    said = _train_at(CUT + timedelta(days=1), Gate(), frame, warehouse, tmp_path)
    assert said["decision"] == "promoted"
    assert "was trained with other features" in said["reasons"]
    assert "alerts that neither had seen it gained" in said["reasons"]
