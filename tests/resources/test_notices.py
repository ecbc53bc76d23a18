"""Who is told that a run failed: one message per failure and one when it works again, to a real receiver."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from dagster_project.automation import REFRESH, SENSORS, WAREHOUSE_TAG
from dagster_project.cli import main
from dagster_project.errors import HeedError
from dagster_project.instance import dagster_instance
from dagster_project.resources import notices
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.notices import FAILED, SUCCEEDED, RunEnd, run_ended, send
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.resources.warehouse.run_lock import COMMAND_TAG
from dagster_project.settings import Settings

VARIABLE = "HEED_NOTIFY_URLS"
AS_OF = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What a webhook received, in order; HEED_NOTIFY_URLS names it."""
    messages: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(VARIABLE, f"json://127.0.0.1:{server.server_port}/hook")
        yield messages
        server.shutdown()


def end(number: int, status: str, job: str = REFRESH) -> RunEnd:
    return RunEnd(f"run-{number}", job, AS_OF, status, "scoring the open alerts: the disk is full" * (status == FAILED))


def test_one_message_per_failure_and_one_when_it_works_again(
    warehouse: Warehouse, received: list[dict[str, Any]]
) -> None:
    said: list[str] = []

    def tell(one: RunEnd) -> list[str]:
        before = len(received)
        run_ended(warehouse, Settings(), one, said.append)
        return [message["title"] for message in received[before:]]

    assert tell(end(0, SUCCEEDED)) == []
    assert tell(end(1, FAILED)) == ["heed: refresh_scores failed"]
    assert "the disk is full" in received[-1]["message"]
    assert tell(end(1, FAILED)) == []  # a sensor learns of the same run
    assert tell(end(2, SUCCEEDED, "retrain")) == []
    assert tell(end(3, FAILED)) == ["heed: refresh_scores failed"]
    assert tell(end(4, SUCCEEDED)) == ["heed: refresh_scores works again"]
    assert tell(end(4, SUCCEEDED)) == []
    assert tell(end(5, SUCCEEDED)) == []
    assert said == []
    assert warehouse.value("SELECT count(*) FROM scoring.run_ends") == 6


def test_it_is_told_also_where_the_warehouse_is_away(tmp_path: Path, received: list[dict[str, Any]]) -> None:
    nowhere = Warehouse(tmp_path, f"postgresql://somebody@/alerts?host={tmp_path}")
    said: list[str] = []
    run_ended(nowhere, Settings(), end(1, FAILED), said.append)
    assert [message["title"] for message in received] == ["heed: refresh_scores failed"]
    assert said == ["how the run ended could not be recorded (HeedError)"]


def test_a_destination_that_does_not_answer_holds_nothing_up_and_no_address_is_shown(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "SEND_SECONDS", 0.3)

    class Silent(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(3)

    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv(VARIABLE, f"json://user:secret@127.0.0.1:{server.server_port}, nonsense://secret")
        said: list[str] = []
        run_ended(warehouse, Settings(), end(1, FAILED), said.append)
        [line] = said
        assert "did not answer within" in line
        assert "destination 2 of HEED_NOTIFY_URLS (nonsense) is not an address" in line
        assert "secret" not in line
        server.shutdown()


def test_without_destinations_a_test_says_so(monkeypatch: pytest.MonkeyPatch, received: list[dict[str, Any]]) -> None:
    assert CliRunner().invoke(main, ["notify", "--test"]).output == "Sent to 1.\n"
    assert received[0]["title"] == "heed: a test"
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(HeedError, match="HEED_NOTIFY_URLS is not set"):
        send(Settings(), "title", "text")


def test_sensors_tell_of_runs_that_dagster_launched(
    warehouse: Warehouse, received: list[dict[str, Any]], tmp_path: Path
) -> None:
    sensors = {sensor.name: sensor for sensor in SENSORS}
    with dagster_instance(tmp_path) as instance:
        for name, kind in (("run_failed", "PIPELINE_FAILURE"), ("run_succeeded", "PIPELINE_SUCCESS")):
            run = instance.create_run_for_job(
                dg.GraphDefinition(name=REFRESH).to_job(), tags={AS_OF_TAG: AS_OF.isoformat(), **WAREHOUSE_TAG}
            )
            if name == "run_failed":
                instance.report_run_failed(run, "the disk is full")
            event = dg.DagsterEvent(event_type_value=kind, job_name=REFRESH)
            resources = {"warehouse": warehouse, "settings": Settings()}
            context = dg.build_run_status_sensor_context(name, event, instance, run, resources=resources)
            sensors[name](context)
    assert [message["title"] for message in received] == [
        "heed: refresh_scores failed",
        "heed: refresh_scores works again",
    ]
    assert "the disk is full" in received[0]["message"]


def test_a_run_that_was_cut_off_is_told_by_whoever_finds_it(
    warehouse: Warehouse, received: list[dict[str, Any]], tmp_path: Path
) -> None:
    with dagster_instance(tmp_path) as instance:
        instance.create_run_for_job(
            dg.GraphDefinition(name=REFRESH).to_job(),
            tags={AS_OF_TAG: AS_OF.isoformat(), **WAREHOUSE_TAG, **COMMAND_TAG},
            status=dg.DagsterRunStatus.STARTED,
        )
        for _ in range(2):
            notices.tell_of_abandoned_runs(instance, warehouse, Settings(), lambda line: None)
    [message] = received
    assert "was cut off: its process ended without a message" in message["message"]


def test_a_command_that_fails_tells_and_logs_in_json(
    warehouse: Warehouse, received: list[dict[str, Any]], tmp_path: Path
) -> None:
    environment = {"HEED_HOME": str(tmp_path), URL_VARIABLE: warehouse.url(), "HEED_LOG_FORMAT": "json"}
    result = CliRunner().invoke(main, ["run"], env=environment)
    assert result.exit_code == 1
    lines = [json.loads(line) for line in result.stderr.splitlines()]
    assert {"time", "level", "message"} <= lines[-1].keys()
    assert (lines[-1]["level"], lines[-1]["message"]) == ("error", "raw.alerts holds no alerts")
    assert [message["title"] for message in received] == ["heed: run failed"]
    assert "raw.alerts holds no alerts" in received[0]["message"]
