"""A column filled after the decision, through the whole job: named everywhere, and not in what scores."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dagster_project.automation import RETRAIN
from dagster_project.commands.report import read_evidence, write_report
from dagster_project.commands.run import run_job
from dagster_project.commands.summary import collect, show
from dagster_project.instance import dagster_instance
from dagster_project.loading import load_file
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Learning, Settings
from dagster_project.simulator import WorldConfig, simulate

pytestmark = pytest.mark.slow

END = datetime(2025, 6, 1, tzinfo=UTC)


def test_a_leak_is_named_and_what_scores_is_clean(
    empty_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse = Warehouse(tmp_path, empty_database)
    prepare(warehouse)
    world = simulate(WorldConfig(seed=5, alerts=2_000, days=90, end=END))
    handled = (world.truth["acted"] == 1).to_numpy() & (np.random.default_rng(1).random(len(world.alerts)) < 0.6)
    texts = [{**json.loads(t or "{}"), **({"handled_by": "anna"} if h else {})}
             for t, h in zip(world.alerts["attributes"], handled, strict=True)]  # fmt: skip
    alerts = world.alerts.assign(attributes=[json.dumps(t) for t in texts])
    for kind, frame in {"alerts": alerts, "actions": world.all_actions[world.all_actions["acted_at"] < END]}.items():
        frame.to_parquet(tmp_path / f"{kind}.parquet")
        load_file(kind, tmp_path / f"{kind}.parquet", warehouse.connect)
    settings = Settings(learning=Learning(training_days=90, threads=1))
    first = run_job(
        RETRAIN, END, settings=settings, warehouse=warehouse, instance=dagster_instance(tmp_path),
    )  # fmt: skip
    assert len(first.not_known_at_raise()) == 1
    assert first.not_known_at_raise()[0].startswith("attribute handled_by is withheld: ")
    assert "not known at the raise: attribute handled_by" in first.summary()
    models = ModelStore(warehouse)
    champion = models.champion(END)
    assert champion is not None
    stored = models.load(champion.model_version)
    assert [row["column"] for row in stored.evidence["withheld"]] == ["attribute handled_by"]
    assert all("@handled_by" not in column.of for column in stored.plan.columns)
    assert models.leaks(champion.model_version) == []
    found = collect(warehouse)
    assert [(row["subject"], row["verdict"]) for row in found["not_known_at_raise"]] == [
        ("attribute handled_by", "withheld")
    ]
    show(found)
    screen = capsys.readouterr().out
    assert "Not known at the raise: attribute handled_by" in screen
    assert screen.index("Not known at the raise") < screen.index("The model and the simple")
    write_report(read_evidence(warehouse, Settings(), END), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert 0 < page.index("Not known at the raise") < page.index("training.model_evaluations")
