"""Clients that are slow, silent or gone: they lock nobody out, and leave nothing in the log."""

import http.client
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from dagster_project.listening import PatientProtocol, limited
from dagster_project.resources.warehouse.connection import Warehouse
from tests.conftest import Company
from tests.serving.conftest import Service, serving

FULL = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF = b"POST /scores HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{"
HALVES = {
    "nothing": b"",
    "half a line": b"GET / HT",
    "half a head": b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-A: ",
    "half a body": HALF,
    "a half after a whole": FULL + HALF,
}


@pytest.fixture(scope="module")
def impatient(copied: Warehouse, company: Company) -> Iterator[tuple[Service, type[PatientProtocol]]]:
    protocol = limited(request_seconds=1.0, answer_seconds=1.0, most_waiting=20)
    with serving(copied, lambda: company.end, protocol=protocol) as running:
        yield running, protocol


def is_cut_off(client: socket.socket, within: float) -> bool:
    client.settimeout(within)
    try:
        while client.recv(65536):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith(("uvicorn", "asyncio"))]


def cannot_go_on_sending(client: socket.socket, part: bytes, every: float) -> bool:
    until = time.monotonic() + 30
    client.settimeout(30)
    with suppress(ConnectionError):
        while time.monotonic() < until:
            time.sleep(every)
            client.sendall(part)
        return False
    return True


@pytest.mark.parametrize("sent", HALVES.values(), ids=HALVES.keys())
def test_half_a_request_ends(impatient: tuple[Service, type[PatientProtocol]], sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", impatient[0].port)) as client:
        client.sendall(sent)
        assert is_cut_off(client, 20)


def test_a_byte_now_and_then_does_not_help(impatient: tuple[Service, type[PatientProtocol]]) -> None:
    with socket.create_connection(("127.0.0.1", impatient[0].port)) as client:
        client.sendall(HALVES["half a body"])
        assert cannot_go_on_sending(client, b" ", 0.2)


def test_a_client_that_reads_nothing_is_cut_off(
    impatient: tuple[Service, type[PatientProtocol]], caplog: pytest.LogCaptureFixture
) -> None:
    """In the middle of many requests in a row, and no traceback is left of those that were not answered."""
    caplog.set_level(logging.WARNING)
    service, _ = impatient
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", service.port))
        assert cannot_go_on_sending(client, FULL, 0.005)
    assert service.ask("/openapi.json").status == 200
    assert complaints(caplog) == []


def test_many_half_requests_lock_nobody_out(impatient: tuple[Service, type[PatientProtocol]]) -> None:
    service, protocol = impatient
    held = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(200)]
    try:
        for client in held:
            client.sendall(HALVES["half a head"])
        assert service.ask("/health").status == 200
        assert len(protocol.waiting) <= protocol.most_waiting
    finally:
        for client in held:
            client.close()


def test_a_kept_connection_goes_on(impatient: tuple[Service, type[PatientProtocol]]) -> None:
    """Requests of a whole second together, each of them in time."""
    connection = http.client.HTTPConnection("127.0.0.1", impatient[0].port, timeout=30)
    connection.connect()
    opened = connection.sock
    for _ in range(4):
        time.sleep(0.4)
        connection.request("POST", "/scores", json.dumps({"alert_ids": ["a"]}))
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
    assert connection.sock is opened
    connection.close()


def test_a_client_that_leaves_in_the_middle_is_no_fault(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for path in ("/scores", "/feedback", "/closings/undo"):
        with socket.create_connection(("127.0.0.1", service.port)) as client:
            client.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                "Content-Length: 500\r\n\r\n{".encode()
            )
            time.sleep(0.2)
    assert service.ask("/health").status == 200
    time.sleep(0.3)
    assert complaints(caplog) == []
