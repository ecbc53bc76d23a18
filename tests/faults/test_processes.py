"""Processes of heed: killed at each stage, with all that they started; two at once; one too late; one ahead of time."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

import psycopg2
import pytest

from dagster_project.automation import REFRESH
from dagster_project.commands.up import unreachable_code
from dagster_project.definitions import build_defs
from dagster_project.instance import dagster_instance
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.failures import what_stopped
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from dagster_project.settings import load_settings
from tests.conftest import PROJECT
from tests.faults.conftest import Row
from tests.faults.soak import Soak


def test_killed_while_it_loads(soak: Soak, row: Row) -> None:
    part = soak.part()
    before = soak.value("SELECT count(*) FROM raw.alerts")
    with soak.writers_wait("raw.alerts"):
        soak.load(part, "killed").is_blocked_at("raw.alerts").kill()
    assert soak.value("SELECT count(*) FROM raw.alerts") == before
    soak.load(part, "killed").succeeds()
    row("killed while loading", "kill -9 before the commit", soak.recovers())


def test_killed_while_dbt_cleans(soak: Soak, row: Row) -> None:
    """Between two tables: alerts are new, their outcomes are old."""
    soak.bring()
    with soak.writers_wait("marts.alert_outcomes"):
        soak.run().is_blocked_at("marts.alert_outcomes").kill()
    finding = soak.doctor("runs")
    assert finding is not None
    assert finding.level == "error"
    assert "was cut off: its process ended without a message in the step clean" in finding.found
    row("killed in dbt", "kill -9 between two tables", soak.recovers(cut_off=True))


def test_killed_alone_while_dbt_cleans(soak: Soak, row: Row) -> None:
    """The run dies, dbt lives on for a moment: the next run must not meet it."""
    soak.bring()
    with soak.writers_wait("marts.alert_outcomes"):
        soak.run().is_blocked_at("marts.alert_outcomes").kill_alone()
        time.sleep(1)
    row("killed, dbt not", "kill -9 of the run alone", soak.recovers(cut_off=True))


def test_killed_while_features_are_derived(soak: Soak, row: Row) -> None:
    soak.bring()
    soak.run().reaches("features__alert_features").kill()
    row("killed in features", "kill -9 at the step's start", soak.recovers(cut_off=True))


def test_killed_while_it_learns(soak: Soak, row: Row) -> None:
    soak.bring()
    soak.run("--retrain").reaches("training__candidate_model").kill()
    row("killed while learning", "kill -9 at the step's start", soak.recovers(cut_off=True))


def test_killed_while_the_gate_decides(soak: Soak, row: Row) -> None:
    """A candidate stands, nothing was decided about it: the champion before scores."""
    soak.bring()
    champion = soak.value("SELECT model_version FROM training.champion_decisions ORDER BY decision_id DESC LIMIT 1")
    with soak.writers_wait("training.champion_decisions"):
        soak.run("--retrain").is_blocked_at("training.champion_decisions").kill()
    row("killed at the gate", "kill -9 before the decision", soak.recovers(cut_off=True))
    assert soak.value("SELECT count(*) FROM training.model_versions") == 2
    assert soak.value("SELECT model_version FROM scoring.publications ORDER BY as_of DESC LIMIT 1") == champion


def test_killed_while_it_publishes(soak: Soak, row: Row) -> None:
    """All scores are written, their publication is not yet: readers keep the scores of before, all of them."""
    soak.bring()
    before = soak.value("SELECT count(*) FROM scoring.alert_scores")
    with soak.writers_wait("scoring.publications"):
        soak.run().is_blocked_at("scoring.publications").kill()
    assert soak.value("SELECT count(*) FROM scoring.alert_scores") == before
    row("killed in publication", "kill -9 before the commit", soak.recovers(cut_off=True))
    assert soak.value("SELECT count(*) FROM scoring.alert_scores") > before


def test_killed_while_dbt_publishes(soak: Soak, row: Row) -> None:
    soak.bring()
    command = soak.run().reaches("reporting")
    time.sleep(1)  # views are being built
    command.kill()
    row("killed in reporting", "kill -9 while views are built", soak.recovers(cut_off=True))


def test_two_runs_at_once(soak: Soak, row: Row) -> None:
    """Two schedulers start the same job: the second waits, and stands at a later moment than the first."""
    soak.bring()
    first, second = soak.run(), soak.run()
    began = datetime.now(UTC)
    said = [first.succeeds(), second.succeeds()]
    assert sum("waiting: run" in text for text in said) == 1
    assert soak.value("SELECT count(DISTINCT as_of) FROM scoring.publications WHERE published_at > %s", began) == 2
    row("two runs at once", "two schedulers, one job", soak.recovers(within=second))


def test_a_run_is_overtaken(soak: Soak, row: Row) -> None:
    """A scheduled run that gets the run lock after a later one has published ends, and publishes nothing."""
    soak.bring()
    tick = datetime.now(UTC)
    recovered = soak.recovers()
    before = soak.value("SELECT count(*) FROM scoring.publications")
    warehouse, settings = Warehouse(soak.home), load_settings(soak.home / "heed.toml")
    job = build_defs(settings=settings, warehouse=warehouse).resolve_job_def(REFRESH)
    tags = {AS_OF_TAG: tick.isoformat(), **WAREHOUSE_TAG, "dagster/schedule_name": "refresh_scores_schedule"}
    with dagster_instance(soak.home) as instance:
        late = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
        assert not late.success
        assert "it was overtaken" in what_stopped(instance, late.run_id)
    assert soak.value("SELECT count(*) FROM scoring.publications") == before
    row("a run is overtaken", "it gets the run lock after a later one", (recovered[0], soak.lost()))


def test_the_clock_goes_back(soak: Soak, row: Row) -> None:
    """A run stood two hours ahead; then the clock is right again."""
    ahead = datetime.now(UTC) + timedelta(hours=2)
    soak.run("--no-retrain", "--as-of", ahead.isoformat()).succeeds()
    finding = soak.doctor("clock")
    assert finding is not None
    assert finding.level == "warn"
    soak.bring()
    row("the clock goes back", "a run stood 2 h ahead before", soak.recovers())
    scores = soak.doctor("scores")
    assert scores is not None
    assert f"{ahead:%H:%M}" not in scores.found, "a publication in the future must not hide stale scores"


def test_the_code_server_is_killed(soak: Soak, row: Row) -> None:
    """`heed up` goes on without the process that holds its code, has it started anew, and its sensor asks for a run."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = f"http://127.0.0.1:{port}/graphql"
    with (soak.files / "up.log").open("wb") as log:
        command = [sys.executable, "-m", "dagster_project.cli", "up", "--port", str(port)]
        up = subprocess.Popen(
            command, cwd=PROJECT, env=soak.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:

        def until(what: str, reached: Callable[[], bool]) -> None:
            patience = time.monotonic() + 150
            while True:
                with suppress(OSError, psycopg2.Error):
                    if reached():
                        return
                assert time.monotonic() < patience, f"not {what}: {(soak.files / 'up.log').read_text()[-2000:]}"
                assert up.poll() is None
                time.sleep(0.2)

        until("up", lambda: not unreachable_code(address))
        killed = [pid for pid in session_of(up.pid) if b"grpc" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        assert killed
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        until("noticed", lambda: bool(unreachable_code(address)))
        until("loaded again", lambda: not unreachable_code(address))
        soak.bring()
        published = "SELECT max(as_of) > (SELECT max(loaded_at) FROM raw.alerts) FROM scoring.publications"
        until("published", lambda: bool(soak.value(published)))
        until("complete", lambda: soak.missing() == 0)  # the sensor may ask while the actions are still being loaded
        row("code server killed", "kill -9 under `heed up`", (time.monotonic() - began, soak.lost()))
    finally:
        up.terminate()
        up.wait(60)
    assert "is loaded again" in (soak.files / "up.log").read_text()
    for _ in range(100):
        if not session_of(up.pid):
            break
        time.sleep(0.1)
    left = [Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ") for pid in session_of(up.pid)]
    assert not left, "SIGTERM ends all that it started"


def test_heed_up_is_killed(soak: Soak, row: Row) -> None:
    """Daemon, code server, UI and a run under way end with it, nobody else may start one meanwhile, and the next one
    takes over; another site's pages never get through to it."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    address = f"http://127.0.0.1:{port}/graphql"
    command = [sys.executable, "-m", "dagster_project.cli", "up", "--port", str(port)]

    def start(name: str) -> subprocess.Popen[bytes]:
        with (soak.files / name).open("wb") as log:
            return subprocess.Popen(
                command, cwd=PROJECT, env=soak.environment, stdout=log, stderr=log, start_new_session=True
            )

    def until(what: str, reached: Callable[[], bool]) -> None:
        patience = time.monotonic() + 150
        while True:
            with suppress(OSError, ValueError, KeyError):
                if reached():
                    return
            assert time.monotonic() < patience, f"not {what}: {(soak.files / 'killed-up.log').read_text()[-2000:]}"
            time.sleep(0.2)

    first = start("killed-up.log")
    started = [first]
    try:
        until("up", lambda: not unreachable_code(address))
        stolen = quote('mutation { setConcurrencyLimit(concurrencyKey: "stolen", limit: 1) }')
        for headers, status in (({}, 405), ({"Origin": "https://elsewhere.example", "Host": "localhost"}, 405)):
            with pytest.raises(HTTPError) as refused:
                urlopen(Request(f"{address}?query={stolen}", headers=headers), timeout=30)
            assert refused.value.code == status
        for options in (["--port", str(port)], ["--port", "0"]):  # a taken port; a taken home
            second = subprocess.run([*command[:4], *options], cwd=PROJECT, env=soak.environment, capture_output=True)
            assert second.returncode == 1
            assert second.stderr.startswith(b"heed: ")
            assert second.stderr.count(b"\n") == 1
        soak.bring()
        with soak.writers_wait("marts.alert_outcomes"):
            until("refreshing", lambda: any(b"dbt" in arguments_of(pid) for pid in session_of(first.pid)))
            began = time.monotonic()
            first.send_signal(signal.SIGKILL)
            first.wait()
            started.append(start("next-up.log"))  # while what the first one started is still ending
            until("ended", lambda: not session_of(first.pid))
        until("up again", lambda: not unreachable_code(address))
        lasted = time.monotonic() - began
    finally:
        for process in started:
            process.terminate()
            process.wait(90)
    assert [process.returncode for process in started] == [-signal.SIGKILL, 0]
    until("ended", lambda: not session_of(started[1].pid))
    row("heed up killed", "kill -9 of `heed up` alone, in a refresh", (lasted, soak.recovers()[1]))


def arguments_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def session_of(leader: int) -> list[int]:
    """The processes of a session that are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry.name))
    return found
