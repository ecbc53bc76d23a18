"""`heed serve`: the process that listens.

Belongs here: what is prepared and checked before it listens, the socket, starting and stopping.
Does not belong here: what is answered (`app.py`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.logs import server_logging
from dagster_project.resources.postgres import Warehouse
from dagster_project.serving.problem import Problem
from dagster_project.settings import heed_home, load_settings

if TYPE_CHECKING:
    from dagster_project.serving.board import Board
    from dagster_project.serving.pool import Pool

# Requests that are being answered when the service is stopped may finish within this.
STOP_SECONDS = 5


def serve(host: str, port: int, allowed_hosts: Sequence[str], say: Callable[[str], None]) -> None:
    """Answer requests until interrupted.

    Raises
    ------
    HeedError
        The settings, the address or the warehouse do not allow it.
    """
    settings = load_settings()
    warehouse = Warehouse(heed_home())
    listening = listen(host, port)
    with listening:
        prepare(warehouse, say)
        import uvicorn
        from uvicorn.config import LOGGING_CONFIG

        from dagster_project.serving.app import create_app
        from dagster_project.serving.pool import Pool

        pool = Pool(warehouse)
        board = read_ahead(pool, settings.schedule.refresh_scores)
        hosts = allowed_names(host, allowed_hosts)
        config = uvicorn.Config(
            create_app(pool, settings.schedule.refresh_scores, hosts=hosts, board=board),
            log_level="warning",
            log_config=server_logging() or LOGGING_CONFIG,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=STOP_SECONDS,
        )
        shown = f"[{host}]" if ":" in host else host
        say(f"the board is on http://{shown}:{listening.getsockname()[1]}/, the warehouse is {warehouse.describe()}")
        if hosts is None:
            say("it answers whoever reaches this address: put a proxy with a login in front")
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:  # being stopped is how it ends
            pass
        finally:
            pool.close()


def read_ahead(pool: Pool, refresh_cron: str) -> Board:
    """The board with its open alerts, so that the first to ask does not wait for them; without them when there are
    none yet."""
    from dagster_project.serving.board import Board
    from dagster_project.serving.freshness import read_freshness
    from dagster_project.serving.pages import compile_pages

    compile_pages()
    board = Board(pool)
    with suppress(Problem):
        fresh = pool.read(lambda cursor: read_freshness(cursor, refresh_cron, datetime.now(UTC)))
        if fresh is not None:
            board.snapshot(fresh)
    return board


def prepare(warehouse: Warehouse, say: Callable[[str], None]) -> None:
    """Make the table for feedback where it is missing; a role that may only read serves without it.

    Raises
    ------
    HeedError
        The warehouse is not reachable.
    """
    from psycopg2.errors import InsufficientPrivilege

    if warehouse.value("SELECT to_regclass('scoring.feedback') IS NOT NULL"):
        return
    try:
        warehouse.prepare()
    except InsufficientPrivilege:
        say("this role may not make the table for feedback: scores are served, feedback is refused")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 means any free one.

    Raises
    ------
    HeedError
        The address is not this machine's, or the port is taken or not allowed.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
    except OSError as error:
        raise HeedError(f"{host!r} is no address ({error.strerror})", "write one like 127.0.0.1") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1024)
    except OSError as error:
        made.close()
        raise HeedError(
            f"{host} port {port} cannot be used ({error.strerror})", "name another one: heed serve --port 8081"
        ) from error
    return made


def allowed_names(host: str, more: Sequence[str]) -> list[str] | None:
    """The names by which the service may be called; None: any, because it is open to other machines."""
    if is_loopback(host):
        return ["localhost", "127.0.0.1", "[::1]", host, *more]
    return [host, "localhost", "127.0.0.1", "[::1]", *more] if more else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
