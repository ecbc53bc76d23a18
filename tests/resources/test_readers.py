"""Readers that hold what they read: a run neither waits for them nor makes others wait."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import psycopg2
import pytest

from dagster_project.automation import REFRESH
from dagster_project.commands.run import run_job
from dagster_project.errors import HeedError
from dagster_project.resources.dbt.incremental import CLEAN_VARIABLE, PUBLISH
from dagster_project.resources.dbt.project import call_dbt, dbt_directory, dbt_environment, dbt_vars
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.migrations import schema_version
from dagster_project.resources.warehouse.run_lock import RUN_LOCK_VARIABLE
from dagster_project.resources.warehouse.schema import prepare, stored_version
from tests.conftest import Company

pytestmark = pytest.mark.slow

RELATIONS = """
SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
WHERE nspname IN ('raw', 'staging', 'marts', 'quality', 'training', 'scoring', 'reporting') AND relkind IN ('r', 'v')
ORDER BY 1
"""
WAITING = """
SELECT relation::regclass::text, mode, extract(epoch FROM clock_timestamp() - waitstart) FROM pg_locks
WHERE NOT granted AND relation IS NOT NULL
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(scope="module")
def own(company: Company, server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """A copy of the company's warehouse in a home of its own."""
    name = urlsplit(company.warehouse.url()).path.strip("/")
    connection = psycopg2.connect(server_url.format("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE with_readers TEMPLATE {name}")
    connection.close()
    return Warehouse(tmp_path_factory.mktemp("readers"), server_url.format("with_readers"))


@contextmanager
def reading(warehouse: Warehouse, relations: list[str]) -> Iterator[Any]:
    """A session that has read the relations and stays in its transaction."""
    connection = psycopg2.connect(warehouse.url(), application_name="a forgotten psql")
    try:
        with connection.cursor() as cursor:
            for relation in relations:
                cursor.execute(f"SELECT FROM {relation} LIMIT 0")
        yield connection
    finally:
        connection.close()


def rows(warehouse: Warehouse, query: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(warehouse.url())
    try:
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()
    finally:
        connection.close()


@contextmanager
def watching_locks(warehouse: Warehouse) -> Iterator[dict[tuple[str, str], float]]:
    """(relation, lock) -> the longest wait for it, in seconds, sampled all the time."""
    waits: dict[tuple[str, str], float] = {}
    ended = threading.Event()

    def watch() -> None:
        connection = psycopg2.connect(warehouse.url())
        connection.autocommit = True
        with connection.cursor() as cursor:
            while not ended.wait(0.05):
                cursor.execute(WAITING)
                for relation, mode, seconds in cursor.fetchall():
                    waits[relation, mode] = max(waits.get((relation, mode), 0.0), float(seconds or 0))
        connection.close()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


def test_a_run_that_reads_everything_waits_for_no_reader_and_keeps_no_reader_waiting(
    own: Warehouse, company: Company
) -> None:
    relations = [name for (name,) in rows(own, RELATIONS)]
    views = (
        "SELECT oid, relname FROM pg_class WHERE relnamespace = 'reporting'::regnamespace AND relkind = 'v' ORDER BY 2"
    )
    before = rows(own, views)
    as_of = company.end + timedelta(hours=1)
    started = time.monotonic()
    with reading(own, relations) as reader, watching_locks(own) as waits:
        # Whoever waits for ever is let go after a while, so that the test fails instead of hanging.
        rescue = threading.Timer(90, reader.close)
        rescue.start()
        outcome = run_job(
            REFRESH,
            as_of,
            settings=company.settings,
            warehouse=own,
            instance=company.instance,
            full_refresh=True,
        )
        was_open = not reader.closed
        rescue.cancel()
    assert waits == {}
    assert was_open, f"the run ended only when the reader was let go ({time.monotonic() - started:.0f} s)"
    assert outcome.metadata["scoring/alert_scores"]["open alerts"] > 0
    assert rows(own, views) == before
    assert rows(own, "SELECT max(as_of) FROM scoring.publications") == [(as_of,)]


@pytest.fixture
def build_view(own: Warehouse, company: Company, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, str]]:
    """Builds one reporting view with dbt, with little patience; gives dbt's exit status and output."""
    monkeypatch.setenv(CLEAN_VARIABLE, PUBLISH)

    def build() -> tuple[int, str]:
        with dbt_directory(own.home) as directory:
            variables = json.dumps({**dbt_vars(company.settings), "reader_patience": 2})
            places = ("--target-path", str(directory), "--log-path", str(directory), "--vars", variables)
            command = ("run", "--select", "monitoring_latest", *places)
            finished = call_dbt(command, dbt_environment(own, company.end))
        return finished.returncode, finished.stdout + finished.stderr

    return build


def test_a_view_that_has_to_change_is_replaced_or_the_run_names_who_holds_it(
    own: Warehouse, build_view: Callable[[], tuple[int, str]]
) -> None:
    definition = "SELECT pg_get_viewdef('reporting.monitoring_latest'::regclass)"
    [(right,)] = rows(own, definition)
    with psycopg2.connect(own.url()) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE OR REPLACE VIEW reporting.monitoring_latest AS {right.rstrip(';')} LIMIT 0")
    connection.close()
    [(wrong,)] = rows(own, definition)
    assert wrong != right
    with reading(own, ["reporting.monitoring_latest"]) as reader, watching_locks(own) as waits:
        pid = reader.info.backend_pid
        started = time.monotonic()
        status, said = build_view()
        assert status == 1
        assert time.monotonic() - started < 200  # dbt itself takes most of it on a busy machine
        assert f"reporting.monitoring_latest, whose definition has changed: it is held by pid {pid} (user " in said
        assert "application a forgotten psql, idle in transaction since 20" in said
        assert max(waits.values()) < 1.5, waits
    assert rows(own, definition) == [(wrong,)]
    assert build_view()[0] == 0
    assert rows(own, definition) == [(right,)]


def test_tables_of_another_version_are_not_waited_for_without_end(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_project.resources.warehouse.schema.CHANGE_SECONDS", 1.0)
    another = re.sub("schema.sql .*", "schema.sql of another text", schema_version()).replace("'", "''")
    with warehouse.transaction() as cursor:
        cursor.execute(f"COMMENT ON SCHEMA scoring IS '{another}'")
    with reading(warehouse, ["training.model_evaluations"]) as reader, watching_locks(warehouse) as waits:
        rescue = threading.Timer(20, reader.close)
        rescue.start()
        with pytest.raises(
            HeedError, match=rf"while others hold them: pid {reader.info.backend_pid} .*model_evaluations"
        ):
            prepare(warehouse)
        rescue.cancel()
        assert max(waits.values()) < 1.5, waits
    prepare(warehouse)
    assert stored_version(warehouse) == schema_version()


def test_a_writer_that_waits_names_whom_it_waits_for(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_project.resources.warehouse.connection.LOCK_SECONDS", 1)
    with reading(warehouse, []) as other:
        other.cursor().execute("LOCK TABLE scoring.publications IN SHARE MODE")
        rescue = threading.Timer(20, other.close)
        rescue.start()
        pid = other.info.backend_pid
        with pytest.raises(HeedError, match=rf"waited 1 s for a lock: pid {pid} \(user .*holds scoring.publications"):
            put(warehouse)
        rescue.cancel()
    put(warehouse)


def put(warehouse: Warehouse) -> None:
    with warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES (now(), now(), 0, 0)"
        )


def test_dbt_commits_nothing_once_the_turn_is_lost(
    own: Warehouse, build_view: Callable[[], tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_LOCK_VARIABLE, "1")  # no session of the server has this number, and none holds the lock
    status, said = build_view()
    assert status == 1
    assert "heed lost the run lock: the session that held it, pid 1, has ended" in said
    assert "\x1b" not in said


def test_a_dbt_test_that_failed_shows_what_it_found(company: Company) -> None:
    """The messy export holds numbers that cannot be read."""
    records = company.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey(["marts", "alerts"]), "unreadable_values"), limit=1
    )
    [record] = records
    assert record.event is not None
    evaluation = record.event.asset_check_evaluation
    assert evaluation is not None
    assert not evaluation.passed
    assert re.search(r"\d+ rows(:|, such as) \w+=", evaluation.description or "")
