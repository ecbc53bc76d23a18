"""The sensors on a real instance and a real warehouse: it asks once for what came, and never beside another run."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from dagster_project import automation
from dagster_project.automation import REFRESH, WAREHOUSE_TAG, damaged_champion, new_alerts
from dagster_project.instance import dagster_instance
from dagster_project.resources.as_of import AS_OF_TAG, parse_moment
from dagster_project.resources.failures import what_stopped
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.abandoned_runs import close_abandoned_runs
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import COMMAND_TAG, run_lock
from dagster_project.settings import Features, Settings
from dagster_project.triage.features.contract import contract
from dagster_project.triage.pipeline import prior_model

NOW = datetime.now(UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as made:
        yield made


def put(warehouse: Warehouse, statement: str, *values: object) -> None:
    with warehouse.transaction() as cursor:
        cursor.execute(statement, parameters=values)


def test_new_alerts_are_asked_for_once_and_not_beside_another_run(
    warehouse: Warehouse, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tick() -> dg.RunRequest | str:
        context = dg.build_sensor_context(instance=instance, resources={"warehouse": warehouse, "settings": Settings()})
        made = new_alerts(context)
        return str(made.skip_message) if isinstance(made, dg.SkipReason) else made

    assert "no alert was loaded" in tick()
    put(warehouse, "INSERT INTO raw.alerts (alert_id, loaded_at) VALUES ('a', $1)", NOW)
    assert "nothing was published yet" in tick()
    publish = "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES ($1, $1, 0, 0)"
    put(warehouse, publish, NOW + timedelta(seconds=1))
    assert "since the newest publication" in tick()
    # A clock that was ahead must not make it deaf until that moment comes.
    put(warehouse, publish, NOW + timedelta(hours=2))

    put(warehouse, "INSERT INTO raw.alerts (alert_id, loaded_at) VALUES ('b', $1)", NOW + timedelta(seconds=20))
    first, second = tick(), tick()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key == second.run_key, "the daemon would launch two runs for the same alerts"
    assert first.tags["heed/warehouse"] == "writer"
    assert abs(parse_moment(first.tags[AS_OF_TAG]) - datetime.now(UTC)) < timedelta(minutes=1)

    @dg.job(name=REFRESH)
    def another() -> None: ...

    run = instance.create_run_for_job(another, tags=WAREHOUSE_TAG, status=dg.DagsterRunStatus.STARTED)
    assert "in progress" in tick()
    instance.delete_run(run.run_id)

    failed = instance.create_run_for_job(another, tags=first.tags, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(failed)
    assert f"run {failed.run_id[:8]} failed" in tick(), "it must not fail in a loop"
    with monkeypatch.context() as later:
        later.setattr(automation, "RETRY_AFTER", timedelta(0))
        again = tick()
        assert isinstance(again, dg.RunRequest)
        assert again.run_key != first.run_key, "the daemon would not launch it"
    put(warehouse, publish, NOW + timedelta(seconds=21))
    assert "since the newest publication" in tick()
    # What came later has another key.
    put(warehouse, "INSERT INTO raw.alerts (alert_id, loaded_at) VALUES ('c', $1)", NOW + timedelta(minutes=3))
    third = tick()
    assert isinstance(third, dg.RunRequest)
    assert third.run_key != first.run_key


def test_a_champion_that_cannot_score_asks_for_learning(warehouse: Warehouse) -> None:
    def tick(settings: Settings | None = None) -> dg.RunRequest | str:
        resources = {"warehouse": warehouse, "settings": settings or Settings()}
        made = damaged_champion(dg.build_sensor_context(resources=resources))
        return str(made.skip_message) if isinstance(made, dg.SkipReason) else made

    assert "no champion" in tick()
    model = prior_model(NOW - timedelta(days=1), Settings().learning_settings())
    model = replace(model, contract=contract(Settings().feature_settings()))
    models = ModelStore(warehouse)
    models.save(model, model.cut)
    models.decide(model.version, NOW, "promoted", [], {}, "gate")
    assert "can be read" in tick()
    asked = tick(Settings(features=Features(keys=("rule", "severity"))))
    assert isinstance(asked, dg.RunRequest)
    assert "other features" in str(asked.run_key)
    put(warehouse, "UPDATE training.model_versions SET document = document - 'calibration'")
    asked = tick()
    assert isinstance(asked, dg.RunRequest)
    assert model.version in str(asked.run_key)


def test_a_run_whose_process_is_gone_holds_up_nobody(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    """Closed as failed, in one line; one that lives, or has only just begun, is left alone."""

    @dg.job(name=REFRESH)
    def work() -> None: ...

    def begun(tags: dict[str, str]) -> str:
        return instance.create_run_for_job(work, tags=tags, status=dg.DagsterRunStatus.STARTED).run_id

    dead, living = begun({**WAREHOUSE_TAG, **COMMAND_TAG}), begun({**WAREHOUSE_TAG, **COMMAND_TAG})
    young = begun(WAREHOUSE_TAG)  # just launched by the daemon: it has not asked for the run lock yet
    with run_lock(warehouse, living):
        assert set(close_abandoned_runs(instance, warehouse)) == {dead}
        run = instance.get_run_by_id(dead)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE
        assert "was cut off: its process ended without a message" in what_stopped(instance, dead)
        assert close_abandoned_runs(instance, warehouse) == {}
    assert set(close_abandoned_runs(instance, warehouse)) == {living}
    assert instance.get_run_by_id(young).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]
