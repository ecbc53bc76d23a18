"""The HTTP service: routes, what they answer, and what protects them.

Belongs here: reading requests, status codes, headers, the form of errors.
Does not belong here: SQL (`api/scores.py`, `board/board.py`, `feedback.py`), markup (`board/pages.py`), who may
write (`writers.py`), the guard against other sites (`guard.py`), the process (`server.py`).

There are no cookies. The service binds to loopback by default; a proxy with a login goes in front of one that is open
to a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode

from psycopg2.extensions import cursor as Cursor
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from dagster_project.guard import Guard, refusal
from dagster_project.serving.api.closing import Undo, closings, undo
from dagster_project.serving.api.feedback import Feedback, give, newest_feedback
from dagster_project.serving.api.openapi import description
from dagster_project.serving.api.scores import read_score, read_scores, wanted_ids
from dagster_project.serving.board.badge import badge
from dagster_project.serving.board.board import Board, Filter, turn_to
from dagster_project.serving.board.pages import board_page, problem_page, row_name
from dagster_project.serving.freshness import Freshness, read_freshness
from dagster_project.serving.metrics import CONTENT_TYPE, Counted, Metrics
from dagster_project.serving.pool import Pool
from dagster_project.serving.problem import Problem
from dagster_project.serving.writers import NotLoggedIn, Writers

STATIC = Path(__file__).parent / "static"
# A thousand ids of the longest kind, each byte escaped as JSON allows, are below this.
MOST_BYTES = 8 * 1024**2
MOST_FORM_BYTES = 64 * 1024
BADGE_SECONDS = 60

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
_BADGE_HEADERS = {
    # Other systems' pages embed it, at other addresses.
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": f"private, max-age={BADGE_SECONDS}",
}


class AlertId(Convertor[str]):
    """Any id, also one that holds slashes or line breaks."""

    regex = r"[\s\S]+?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("alert", AlertId())


def create_app(
    pool: Pool,
    refresh_cron: str,
    *,
    hosts: Iterable[str] = (),
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    board: Board | None = None,
    writers: Writers | None = None,
) -> ASGIApp:
    """The service.

    Parameters
    ----------
    pool : connections to the warehouse.
    refresh_cron : when scores are refreshed; tells fresh from stale.
    hosts : names by which it may be called, beyond addresses and `localhost`.
    clock : what time it is.
    board : the open alerts, when they were read already.
    writers : who may give feedback and take back closings; by default everybody, under any name.
    """
    metrics = Metrics(pool, refresh_cron, clock)
    endpoints = _Endpoints(pool, refresh_cron, clock, board or Board(pool), metrics, writers or Writers())
    app = Starlette(
        routes=[
            Route("/", endpoints.board),
            Route("/alerts/{alert_id:alert}/score", endpoints.score),
            Route("/alerts/{alert_id:alert}/badge.svg", endpoints.badge),
            Route("/scores", endpoints.scores, methods=["POST"]),
            Route("/feedback", endpoints.feedback, methods=["POST"]),
            Route("/closings/undo", endpoints.undo, methods=["POST"]),
            Route("/health", endpoints.health),
            Route("/health/fresh", endpoints.fresh),
            Route("/metrics", endpoints.metrics),
            Route("/openapi.json", endpoints.openapi),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        exception_handlers={Problem: _on_problem, HTTPException: _on_http, 500: _on_bug},
    )
    return Counted(Guard(app, hosts, _HEADERS), metrics)


_About = TypeVar("_About", Feedback, Undo)


class _Endpoints:
    """The answers. Those that are not async run in threads, because the warehouse's driver waits."""

    def __init__(
        self,
        pool: Pool,
        refresh_cron: str,
        clock: Callable[[], datetime],
        board: Board,
        metrics: Metrics,
        writers: Writers,
    ) -> None:
        self._pool = pool
        self._cron = refresh_cron
        self._clock = clock
        self._board = board
        self._metrics = metrics
        self._writers = writers

    def _freshness(self, cursor: Cursor) -> Freshness:
        found = read_freshness(cursor, self._cron, self._clock())
        if found is None:
            raise Problem(503, "the warehouse holds no published scores yet", "run `heed run`, then ask again")
        return found

    def score(self, request: Request) -> Response:
        alert_id = request.path_params["alert_id"]

        def work(cursor: Cursor) -> dict[str, Any]:
            fresh = self._freshness(cursor)
            return {**read_score(cursor, alert_id), "freshness": fresh.to_document()}

        return JSONResponse(self._pool.read(work))

    def badge(self, request: Request) -> Response:
        alert_id = request.path_params["alert_id"]

        def work(cursor: Cursor) -> str:
            fresh = self._freshness(cursor)
            return badge(read_score(cursor, alert_id), stale=fresh.is_stale)

        status = 200
        try:
            drawn = self._pool.read(work)
        except Problem as problem:  # an <img> shows no text: the picture itself says it
            status = problem.status
            drawn = badge(None, instead="not scored" if status == 404 else "unavailable")
        return Response(drawn, status, _BADGE_HEADERS, "image/svg+xml")

    async def scores(self, request: Request) -> Response:
        ids = wanted_ids(_json(await _body(request, MOST_BYTES)))

        def work(cursor: Cursor) -> dict[str, Any]:
            fresh = self._freshness(cursor)
            found = read_scores(cursor, ids)
            return {
                "scores": [found[each] for each in ids if each in found],
                "unknown": [each for each in ids if each not in found],
                "freshness": fresh.to_document(),
            }

        return JSONResponse(await run_in_threadpool(self._pool.read, work))

    async def feedback(self, request: Request) -> Response:
        return await self._write(request, Feedback.of, give, "given_by")

    async def undo(self, request: Request) -> Response:
        return await self._write(request, Undo.of, undo, "who")

    async def _write(
        self, request: Request, read: Callable[[Any], _About], write: Callable[[Pool, _About], dict[str, Any]], by: str
    ) -> Response:
        """Something people say about one alert: as JSON, or by a form of the board, to which it then leads back.

        by : the part that holds who says it.
        """
        self._writers.require_token(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _body(request, MOST_FORM_BYTES)
        if kind != "application/x-www-form-urlencoded":
            said = read(self._writers.named(request, _json(body), by))
            return JSONResponse(await run_in_threadpool(write, self._pool, said), 201)
        given = {name: values[-1] for name, values in _form(body).items()}
        back = given.pop("back", "")
        if "quoted_id" in given:  # a form would change the line breaks of an id
            given["alert_id"] = unquote(given.pop("quoted_id"))
        said = read(self._writers.named(request, given, by))
        await run_in_threadpool(write, self._pool, said)
        # Only the query comes from the form, and it is written anew: the answer cannot lead to another site.
        query = urlencode(parse_qsl(back, max_num_fields=20))
        return RedirectResponse(f"/?{query}#{row_name(said.alert_id)}", 303)

    def board(self, request: Request) -> Response:
        wanted = Filter.of(request.query_params)
        signed_in = self._writers.signed_in(request)

        def work(cursor: Cursor) -> str:
            page = turn_to(snapshot, wanted, fresh.now)
            found = read_scores(cursor, page.alert_ids)
            said = newest_feedback(cursor, page.alert_ids)
            return board_page(page, snapshot, fresh, found, said, closings(cursor, page.alert_ids), signed_in)

        try:
            fresh = self._pool.read(self._freshness)
            snapshot = self._board.snapshot(fresh)
            return HTMLResponse(self._pool.read(work))
        except Problem as problem:
            return HTMLResponse(problem_page(problem.status, problem.cause, problem.remedy), problem.status)

    def health(self, request: Request) -> Response:
        """Whether the service can answer: for load balancers. Stale scores are served, and say that they are stale."""
        return self._health(stale=200)

    def fresh(self, request: Request) -> Response:
        """Whether its answers are fresh as well: for monitoring."""
        return self._health(stale=503)

    def _health(self, stale: int) -> Response:
        fresh = self._pool.read(self._freshness)
        return JSONResponse(
            {
                "status": "stale" if fresh.is_stale else "ok",
                "model_version": fresh.model_version,
                "freshness": fresh.to_document(),
            },
            stale if fresh.is_stale else 200,
        )

    def metrics(self, request: Request) -> Response:
        return Response(self._metrics.page(), headers={"Content-Type": CONTENT_TYPE})

    def openapi(self, request: Request) -> Response:
        return JSONResponse(description(self._writers))


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    # Browsers ask for a login when they are told that there is one, and repeat the form.
    headers = {"WWW-Authenticate": 'Basic realm="heed", charset="UTF-8"'} if isinstance(error, NotLoggedIn) else None
    return refusal(error.status, error.cause, error.remedy, headers)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return refusal(404, "there is nothing at this address", "see /openapi.json for what there is", headers)
    if error.status_code == 405:
        allowed = headers.get("Allow", "another method")
        return refusal(405, f"{request.method} is not possible here", f"use {allowed}", headers)
    return refusal(error.status_code, error.detail, "see /openapi.json", headers)


def _on_bug(request: Request, error: Exception) -> Response:
    return refusal(500, "the service failed to answer", "see what `heed serve` printed, and report it")


async def _body(request: Request, most: int) -> bytes:
    made = bytearray()
    async for part in request.stream():
        made += part
        if len(made) > most:
            raise Problem(413, f"more than {most:,} bytes were sent", "send less at a time")
    return bytes(made)


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(422, "what was sent is not JSON", "send one JSON object, in UTF-8") from error


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=20, errors="strict")
    except ValueError as error:
        raise Problem(422, "the form cannot be read", "send it as the board does") from error
