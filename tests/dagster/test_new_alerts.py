"""The sensor on a real instance and a real warehouse: it asks once for what came, and never beside another run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from dagster_project.automation import REFRESH, WAREHOUSE_TAG, build_sensors
from dagster_project.instance import dagster_instance
from dagster_project.resources.moment import AS_OF_TAG, parse_moment
from dagster_project.resources.postgres import Warehouse
from dagster_project.settings import Settings

NOW = datetime.now(UTC)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dagster_instance(tmp_path) as made:
        yield made


def put(warehouse: Warehouse, statement: str, *values: object) -> None:
    with warehouse.transaction() as cursor:
        cursor.execute(statement, parameters=values)


def test_new_alerts_are_asked_for_once_and_not_beside_another_run(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    [sensor] = build_sensors(Settings())

    def tick() -> dg.RunRequest | str:
        context = dg.build_sensor_context(instance=instance, resources={"warehouse": warehouse})
        made = sensor(context)
        return str(made.skip_message) if isinstance(made, dg.SkipReason) else made

    assert "no alert was loaded" in tick()
    put(warehouse, "INSERT INTO raw.alerts (alert_id, loaded_at) VALUES ('a', $1)", NOW)
    assert "nothing was ever published" in tick()
    publish = "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES ($1, $1, 0, 0)"
    put(warehouse, publish, NOW + timedelta(seconds=1))
    assert "since the newest publication" in tick()

    put(warehouse, "INSERT INTO raw.alerts (alert_id, loaded_at) VALUES ('b', $1)", NOW + timedelta(minutes=1))
    first, second = tick(), tick()
    assert isinstance(first, dg.RunRequest)
    assert isinstance(second, dg.RunRequest)
    assert first.run_key == second.run_key, "the daemon would launch two runs for the same alerts"
    assert first.tags["heed/warehouse"] == "writer"
    assert abs(parse_moment(first.tags[AS_OF_TAG]) - datetime.now(UTC)) < timedelta(minutes=1)

    @dg.job(name=REFRESH)
    def another() -> None: ...

    run = instance.create_run_for_job(another, tags=WAREHOUSE_TAG, status=dg.DagsterRunStatus.STARTED)
    assert "under way" in tick()
    instance.delete_run(run.run_id)
    put(warehouse, publish, NOW + timedelta(minutes=2))
    assert "since the newest publication" in tick()
    # What came later has another key.
    put(warehouse, "INSERT INTO raw.alerts (alert_id, loaded_at) VALUES ('c', $1)", NOW + timedelta(minutes=3))
    third = tick()
    assert isinstance(third, dg.RunRequest)
    assert third.run_key != first.run_key
