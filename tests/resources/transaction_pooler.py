"""A pooler in transaction mode, as small as one can be.

It speaks PostgreSQL's protocol between real clients and the real server, and lends a server session to a client for one
transaction at a time, the one last returned first (as PgBouncer does). No passwords, no COPY, no cancelling.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError
        data += part
    return data


def _message(connection: socket.socket) -> bytes:
    head = _exactly(connection, 5)
    return head + _exactly(connection, struct.unpack("!i", head[1:])[0] - 4)


class _Pooler:
    def __init__(self, server: Path) -> None:
        self._server = server
        self._idle: list[socket.socket] = []
        self._greeting = b""

    def _begin(self, startup: bytes) -> socket.socket:
        session = socket.socket(socket.AF_UNIX)
        session.connect(str(self._server))
        session.sendall(startup)
        greeting = message = b""
        while not greeting or message[:1] != b"Z":
            message = _message(session)
            greeting += message
        self._greeting = greeting
        return session

    def serve(self, client: socket.socket) -> None:
        with suppress(ConnectionError, OSError), client:
            while True:
                size = _exactly(client, 4)
                startup = size + _exactly(client, struct.unpack("!i", size)[0] - 4)
                if struct.unpack("!i", startup[4:8])[0] not in (80877103, 80877104):  # asks for TLS or GSS
                    break
                client.sendall(b"N")
            if not self._idle:
                self._idle.append(self._begin(startup))
            client.sendall(self._greeting)
            session: socket.socket | None = None
            while True:
                message = _message(client)
                if message[:1] == b"X":
                    return
                if session is None:
                    session = self._idle.pop() if self._idle else self._begin(startup)
                session.sendall(message)
                if message[:1] not in (b"Q", b"S"):
                    continue
                answer = b""
                while answer[:1] != b"Z":
                    answer = _message(session)
                    client.sendall(answer)
                if answer[5:] == b"I":
                    self._idle.append(session)
                    session = None


@contextmanager
def transaction_pooler(server: Path, directory: Path) -> Iterator[None]:
    """A pooler whose socket stands in `directory`, before the server whose socket is `server`."""
    pooler = _Pooler(server)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / server.name))
        listening.listen()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    threading.Thread(target=pooler.serve, args=(client,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
