"""Faults during a load, real ones: killed processes, two loads at once, a file that changes. All or nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from loading_store import Store

from dagster_project.errors import HeedError
from dagster_project.loading import LoadProgress, LoadReport

HEADER = "alert_id,raised_at,rule\n"
ROWS = 3_000

# Loads, and stops for ever once a stage is reached, so that the kill strikes exactly there.
LOADER = """
import sys, time
from adbc_driver_postgresql import dbapi
from dagster_project.loading import load_file
from dagster_project.loading.readers import limits

url, path, stage = sys.argv[1:]
limits.BLOCK_BYTES = 10_000

def stop(at):
    if at.stage == stage and (stage != "reading" or at.rows > 1000):
        print("reached", flush=True)
        time.sleep(600)

load_file("alerts", path, lambda: dbapi.connect(url), progress=stop, progress_seconds=0)
"""


@pytest.fixture
def export(store: Store) -> Path:
    return store.write("a.csv", HEADER + "".join(f"{i},t,r{i % 7}\n" for i in range(ROWS)))


@pytest.mark.parametrize("stage", ["reading", "comparing", "committing"])
def test_a_killed_load_leaves_nothing_and_the_next_one_is_complete(store, export, stage):
    store.load("alerts", store.write("before.csv", HEADER + "0,t,older\n"))
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, store.url, str(export), stage],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "reached\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert store.rows("SELECT alert_id, rule FROM raw.alerts") == [("0", "older")]
    assert store.count("raw.loads") == 1
    report = store.load("alerts", export)  # waits, if it must, until the server has noticed the death
    assert (report.rows_read, report.rows_added) == (ROWS, ROWS)
    assert store.count() == ROWS + 1


def test_an_interrupt_leaves_nothing(store, export):
    def interrupt(at: LoadProgress) -> None:
        if at.stage == "comparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.load("alerts", export, progress=interrupt, progress_seconds=0)
    assert store.is_empty()
    assert store.load("alerts", export).rows_added == ROWS


def test_an_error_while_reading_is_raised_as_it_is_and_leaves_nothing(store, export):
    def fail(at: LoadProgress) -> None:
        if at.stage == "reading":
            raise RuntimeError("in the callback")

    with pytest.raises(RuntimeError, match="in the callback"):
        store.load("alerts", export, progress=fail, progress_seconds=0)
    assert store.is_empty()


def test_a_file_that_changes_while_it_is_read_is_refused(store, export):
    def append(at: LoadProgress) -> None:
        if at.stage == "reading":
            with export.open("a") as file:
                file.write("more,t,r\n")

    with pytest.raises(HeedError, match="changed while it was read"):
        store.load("alerts", export, progress=append, progress_seconds=0)
    assert store.is_empty()


def test_two_loads_at_once_follow_one_another(store, export):
    """Both bring the same ids: the second must wait and then find the first one's rows."""
    other = store.write("b.csv", export.read_text() + "last,t,r\n")
    waiting = threading.Event()
    reports: dict[str, LoadReport] = {}

    def second() -> None:
        def tell(at: LoadProgress) -> None:
            if at.stage == "waiting":
                assert "another load" in at.summary()
                waiting.set()

        reports["second"] = store.load("alerts", other, progress=tell)

    thread = threading.Thread(target=second)

    def first(at: LoadProgress) -> None:
        if at.stage == "comparing":
            thread.start()
            assert waiting.wait(60)

    reports["first"] = store.load("alerts", export, progress=first, progress_seconds=0)
    thread.join(60)
    assert reports["first"].rows_added == ROWS
    assert (reports["second"].rows_added, reports["second"].rows_unchanged) == (1, ROWS)


def test_progress_tells_rows_and_bytes(store, export, monkeypatch):
    from dagster_project.loading.readers import limits

    monkeypatch.setattr(limits, "BLOCK_BYTES", 10_000)
    told: list[LoadProgress] = []
    store.load("alerts", export, progress=told.append, progress_seconds=0)
    stages = [at.stage for at in told]
    assert stages.index("checking") < stages.index("reading") < stages.index("comparing")
    reading = [at for at in told if at.stage == "reading"]
    assert [at.rows for at in reading] == sorted(at.rows for at in reading)
    assert reading[-1].rows == ROWS
    assert reading[-1].bytes_read == reading[-1].bytes_total == export.stat().st_size
    assert all("\n" not in at.summary() for at in told)


def test_short_loads_say_nothing(store, export):
    told: list[LoadProgress] = []
    started = time.monotonic()
    store.load("alerts", export, progress=told.append, progress_seconds=60)
    assert time.monotonic() - started < 60
    assert told == []
