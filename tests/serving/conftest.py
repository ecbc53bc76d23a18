"""A running service on the warehouse of the simulated company, and a warehouse with hostile names in it.

The service is the real one, on a real socket, in a thread of the tests' own process.
"""

import http.client
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from dagster_project.listening import PatientProtocol, listen, server_of
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.app import create_app
from dagster_project.serving.pool import Pool
from dagster_project.serving.writers import Writers
from tests.conftest import Company

CHROMIUM = Path("/usr/bin/chromium")
CRON = "*/15 * * * *"
HOSTILE_ID = """a/b'"><img src=x onerror=alert(1)>/\nscore?x=%41#é"""
HOSTILE = {
    "rule": "<script>alert('rule')</script>'; DROP TABLE scoring.feedback; --",
    "team": "O'Neil & <b>Söhne</b> {{ 7*7 }}",
}
REASON = "the rule is \"<script>alert('reason')</script>\" (raises the score)"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Service:
    port: int
    warehouse: Warehouse

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, *, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = body if isinstance(body, (bytes, str, type(None))) else json.dumps(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, sent, {**kind, **(headers or {})})
        response = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def rows(self, query: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(self.warehouse.url())
        with connection, connection.cursor() as cursor:
            cursor.execute(query, parameters)
            result = cursor.fetchall() if cursor.description else []
        connection.close()
        return result


@contextmanager
def serving(
    warehouse: Warehouse,
    clock: Callable[[], datetime],
    hosts: list[str] | None = None,
    writers: Writers | None = None,
    protocol: type[PatientProtocol] | None = None,
    **access: Any,
) -> Iterator[Service]:
    pool = Pool(warehouse)
    app = create_app(pool, CRON, hosts=hosts or (), clock=clock, writers=writers, **access)
    server = server_of(app, protocol=protocol)
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Service(listening.getsockname()[1], warehouse)
        server.should_exit = True
        thread.join(timeout=10)
    pool.close()


@pytest.fixture(scope="session")
def copied(company: Company, server_url: str) -> Warehouse:
    """A copy of the company's warehouse, with `HOSTILE` in it: these tests write."""
    name = urlsplit(company.warehouse.url()).path.strip("/")
    connection = psycopg2.connect(server_url.format("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE served TEMPLATE {name}")
    connection.close()
    warehouse = Warehouse(company.home, server_url.format("served"))
    raised = company.end - timedelta(hours=1)
    rows = {
        "marts.alerts": {"title": None, **HOSTILE, "raised_at": raised},
        "marts.alert_outcomes": {"raised_at": raised, "outcome": None, "known_at": None},
        "marts.rules": {"first_raised_at": raised, **HOSTILE},
        "scoring.alert_scores": {"raised_at": raised, "reasons": [REASON], "probability": 1.0, "flood": False},
    }
    with warehouse.transaction() as cursor:
        for table, values in rows.items():
            changed = json.dumps({**values, "alert_id": HOSTILE_ID}, default=str)
            cursor.execute(
                f"INSERT INTO {table} SELECT (jsonb_populate_record(one, $1::text::jsonb)).* "
                f"FROM {table} AS one LIMIT 1",
                parameters=(changed,),
            )
    return warehouse


@pytest.fixture(scope="module")
def service(copied: Warehouse, company: Company) -> Iterator[Service]:
    """Ten minutes after the company's run: its scores are fresh."""
    with serving(copied, lambda: company.end + timedelta(minutes=10)) as running:
        yield running


@pytest.fixture
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists() and not os.environ.get("CI"):  # there .ci/run installs it, and its absence is a failure
        pytest.skip("Chromium is not installed here (Debian's package chromium); .ci/run installs it and does not skip")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        started = player.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield started
        started.close()
