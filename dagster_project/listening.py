"""How both HTTP servers listen: the socket, and how long they wait for a client.

Belongs here: binding an address, descriptors, time limits for requests and answers, uvicorn's configuration.
Does not belong here: who may send requests (`guard.py`), answers (`serving/app.py`, Dagster).
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import LOGGING_CONFIG
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dagster_project.errors import HeedError
from dagster_project.logs import server_logging

# A whole request must arrive within this time; the largest that is accepted, 8 MB, needs 2.2 Mbit/s.
REQUEST_SECONDS = 30.0
# A client that reads nothing of its answer for this long is cut off.
ANSWER_SECONDS = 30.0
# How long requests may take to finish when the server is stopped.
STOP_SECONDS = 5
# File descriptors to ask the system for: more than any machine has clients, too few to cost memory.
DESCRIPTORS = 65_536


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with time limits for incomplete requests and unread answers, which uvicorn lacks.

    uvicorn times out a connection only between two requests. Here a connection has `request_seconds` to send a whole
    request, however often it sends a byte. If more than `most_waiting` connections are waiting, the one that has
    waited longest is cut off. A real client sends its request in milliseconds, so held connections lock nobody out.
    """

    request_seconds = REQUEST_SECONDS
    answer_seconds = ANSWER_SECONDS
    most_waiting = 500
    # Waiting connections, longest first. Only one event loop changes it; `limited` gives each server its own.
    waiting: dict[PatientProtocol, asyncio.TimerHandle] = {}  # noqa: RUF012

    _upgraded = False
    _unread: asyncio.TimerHandle | None = None
    _answered: Any = None  # the request being answered; if several were sent at once, `cycle` is the last

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._upgraded or self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or self.cycle.more_body:
            self._wait()
        else:
            self._no_longer_waits()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle.response_complete or self.cycle.more_body):
            self._wait()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        self._upgraded = True
        self._no_longer_waits()
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self._unread or self.loop.call_later(self.answer_seconds, self._cut_off)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._was_read()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # Closing waits until the client has read everything, which may be never.
        self._unread = self._unread or self.loop.call_later(self.answer_seconds, self._cut_off)

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_longer_waits()
        self._is_gone()
        super().connection_lost(exc)
        self._was_read()

    def _wait(self) -> None:
        if self not in self.waiting:
            self.waiting[self] = self.loop.call_later(self.request_seconds, self._cut_off)
            if len(self.waiting) > self.most_waiting:
                next(iter(self.waiting))._cut_off()

    def _no_longer_waits(self) -> None:
        if timer := self.waiting.pop(self, None):
            timer.cancel()

    def _cut_off(self) -> None:
        self._no_longer_waits()
        self._is_gone()
        self.transport.abort()

    def _is_gone(self) -> None:
        """Stop all requests from writing: uvicorn tells only the last one, and the others would fail."""
        for cycle in (self._answered, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _was_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


def limited(**limits: float) -> type[PatientProtocol]:
    """The protocol for one server, with its own waiting connections. limits : overrides of the class's limits."""
    return type("Limited", (PatientProtocol,), {"waiting": {}, **limits})


def server_of(app: ASGIApp, *, web_sockets: bool = False, protocol: type[PatientProtocol] | None = None) -> Any:
    """uvicorn's server for an application; run it on a socket from `listen`."""
    if protocol is None:
        # Half of the descriptors; the others are for requests being answered and for the warehouse.
        protocol = limited(most_waiting=_more_descriptors() // 2)
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=protocol,
            ws="auto" if web_sockets else "none",
            log_level="warning",
            log_config=server_logging() or LOGGING_CONFIG,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            timeout_graceful_shutdown=STOP_SECONDS,
        )
    )


def _more_descriptors() -> int:
    """Raise this process's limit of open files as far as allowed, and return it. The default is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return DESCRIPTORS if soft == resource.RLIM_INFINITY else soft


def listen(host: str, port: int, command: str = "serve") -> socket.socket:
    """A listening socket; port 0 means any free one. command : of heed, for the remedy.

    Raises HeedError: the address is not one of this machine's, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise HeedError(f"{host!r} is not an address ({error.strerror})", "use one like 127.0.0.1") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise HeedError(
            f"{host} port {port} cannot be used ({error.strerror})",
            f"use another port: heed {command} --port {port + 1 if port < 65535 else 8081}",
        ) from error
    return listening


def address_of(host: str, listening: socket.socket) -> str:
    """The URL for a browser, like http://127.0.0.1:8080."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
