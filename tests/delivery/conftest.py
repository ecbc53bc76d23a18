"""Real HTTP servers on this machine that answer as they are told, and a warehouse with scores to deliver."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import pytest

from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Destination, Settings
from tests.conftest import Company

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VARIABLE = "HEED_TEST_SECRET"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    status: int = 204
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    after: float = 0.0


@dataclass
class Receiver:
    """A server, what it received, and how it answers: `answer` decides from the request and the number before it."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    answer: Callable[[Request, int], Reply] = lambda request, number: Reply()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def alerts(self) -> list[str]:
        return [request.json["data"]["alert_id"] for request in self.requests]

    def keys(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.command, self.path, headers, self.rfile.read(length))
            number = len(receiver.requests)
            receiver.requests.append(request)
            reply = receiver.answer(request, number)
            time.sleep(reply.after)
            body = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in {**reply.headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = do_PUT = handle_one

        def log_message(self, format: str, *arguments: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        receiver.port = server.server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield receiver
        server.shutdown()


@pytest.fixture
def new_receiver() -> Iterator[Callable[[], Receiver]]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(receiving())


@pytest.fixture
def receiver(new_receiver: Callable[[], Receiver]) -> Receiver:
    return new_receiver()


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)


@pytest.fixture(scope="session")
def scores(company: Company, server_url: str) -> Warehouse:
    """A copy of the company's warehouse: these tests write."""
    connection = psycopg2.connect(server_url.format("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE delivered TEMPLATE {urlsplit(company.warehouse.url()).path.strip('/')}")
    connection.close()
    return Warehouse(company.home, server_url.format("delivered"))


@pytest.fixture
def outgoing(scores: Warehouse) -> Warehouse:
    """The same with nothing delivered yet."""
    with scores.transaction() as cursor:
        cursor.execute("TRUNCATE scoring.deliveries")
    return scores


def threshold(warehouse: Warehouse, number: int) -> float:
    """A probability that exactly `number` open alerts reach."""
    rows = warehouse.read(
        "SELECT probability FROM reporting.alert_scores_latest WHERE is_open AND probability IS NOT NULL "
        "ORDER BY probability DESC"
    )["probability"]
    assert rows[number - 1] > rows[number]
    return float(rows[number - 1])


def to(receiver: Receiver, **rules: Any) -> Settings:
    """Settings with one signed webhook."""
    return Settings(destinations={"hook": Destination(kind="webhook", url=receiver.url, secret_from=VARIABLE, **rules)})
