"""`heed serve`: the process that listens.

Belongs here: preparing, starting and stopping it.
Does not belong here: answers (`app.py`), the socket and its limits (`listening.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.serving.problem import Problem
from dagster_project.serving.tokens import READING, WRITING, Token
from dagster_project.serving.webhooks.webhooks import Webhooks
from dagster_project.serving.writers import Writers
from dagster_project.settings import heed_home, load_settings

if TYPE_CHECKING:
    from dagster_project.serving.board.board import Board
    from dagster_project.serving.pool import Pool


def serve(host: str, port: int, allowed_hosts: Sequence[str], say: Callable[[str], None]) -> None:
    """Answer requests until interrupted.

    Raises HeedError: the settings, the address or the warehouse prevent it.
    """
    settings = load_settings()
    read_token, token = (Token.of(name, os.environ.get(name)) for name in (READING, WRITING))
    warehouse = Warehouse(heed_home())
    webhooks = Webhooks.of(settings, warehouse.connect)
    from dagster_project.listening import address_of, is_loopback, listen, server_of

    with listen(host, port) as listening:
        prepare_feedback(warehouse, say)
        from dagster_project.serving.app import create_app
        from dagster_project.serving.pool import Pool

        pool = Pool(warehouse)
        board = preload_board(pool, settings.schedule.refresh_scores)
        app = create_app(
            pool,
            settings.schedule.refresh_scores,
            hosts=[host, *allowed_hosts],
            board=board,
            writers=Writers(token, settings.serving.user_header),
            webhooks=webhooks,
            read_token=read_token,
            origins=settings.serving.origins,
        )
        say(f"the board is on {address_of(host, listening)}/, the warehouse is {warehouse.describe()}")
        if not is_loopback(host):
            say("it answers anyone who can reach this address: put a proxy with a login in front")
        try:
            server_of(app).run(sockets=[listening])
        except KeyboardInterrupt:  # the usual way to stop it
            pass
        finally:
            pool.close()


def preload_board(pool: Pool, refresh_cron: str) -> Board:
    """The board with its open alerts, so that the first request does not wait for them; empty without scores."""
    from dagster_project.serving.board.board import Board
    from dagster_project.serving.board.pages import compile_pages
    from dagster_project.serving.freshness import read_freshness

    compile_pages()
    board = Board(pool)
    with suppress(Problem):
        fresh = pool.read(lambda cursor: read_freshness(cursor, refresh_cron, datetime.now(UTC)))
        if fresh is not None:
            board.snapshot(fresh)
    return board


def prepare_feedback(warehouse: Warehouse, say: Callable[[str], None]) -> None:
    """Create the table for feedback if it is missing; a login that may only read serves scores without it.

    Raises HeedError: the warehouse is not reachable.
    """
    if warehouse.value("SELECT to_regclass('scoring.feedback') IS NOT NULL"):
        return
    try:
        prepare(warehouse)
    except HeedError as error:
        say(f"serving scores, refusing feedback: {error.cause}; {error.remedy}")
