"""The HTTP service: routes, what they answer, and what protects them.

Belongs here: reading requests, status codes, headers, the form of errors, the guard against other sites.
Does not belong here: SQL (`scores.py`, `board.py`, `feedback.py`), markup (`pages.py`), the process (`server.py`).

There is no login and there are no cookies. The service binds to loopback by default; whoever opens it further puts a
proxy with a login in front.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, MutableMapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from psycopg2.extensions import cursor as Cursor
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from dagster_project.serving.badge import badge
from dagster_project.serving.board import Board, Filter, turn_to
from dagster_project.serving.closing import Undo, closings, undo
from dagster_project.serving.feedback import Feedback, give, newest_feedback
from dagster_project.serving.freshness import Freshness, read_freshness
from dagster_project.serving.metrics import CONTENT_TYPE, Metrics
from dagster_project.serving.openapi import description
from dagster_project.serving.pages import board_page, problem_page, row_name
from dagster_project.serving.pool import Pool
from dagster_project.serving.problem import Problem
from dagster_project.serving.scores import read_score, read_scores, wanted_ids

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
    hosts: Iterable[str] | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    board: Board | None = None,
) -> ASGIApp:
    """The service.

    Parameters
    ----------
    pool : connections to the warehouse.
    refresh_cron : when scores are refreshed; tells fresh from stale.
    hosts : names by which it may be called; None: by any. A service on loopback must name them: otherwise a page of
        another site could reach it by a name of its own that resolves to this machine.
    clock : what time it is.
    board : the open alerts, when they were read already.
    """
    metrics = Metrics(pool, refresh_cron, clock)
    endpoints = _Endpoints(pool, refresh_cron, clock, board or Board(pool), metrics)
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
    return _Guard(app, frozenset(name.lower() for name in hosts) if hosts is not None else None, metrics)


_About = TypeVar("_About", Feedback, Undo)


class _Endpoints:
    """The answers. Those that are not async run in threads, because the warehouse's driver waits."""

    def __init__(
        self, pool: Pool, refresh_cron: str, clock: Callable[[], datetime], board: Board, metrics: Metrics
    ) -> None:
        self._pool = pool
        self._cron = refresh_cron
        self._clock = clock
        self._board = board
        self._metrics = metrics

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
        _refuse_other_sites(request)
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
        return await self._write(request, Feedback.of, give)

    async def undo(self, request: Request) -> Response:
        return await self._write(request, Undo.of, undo)

    async def _write(
        self, request: Request, read: Callable[[Any], _About], write: Callable[[Pool, _About], dict[str, Any]]
    ) -> Response:
        """Something people say about one alert: as JSON, or by a form of the board, to which it then leads back."""
        _refuse_other_sites(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _body(request, MOST_FORM_BYTES)
        if kind != "application/x-www-form-urlencoded":
            return JSONResponse(await run_in_threadpool(write, self._pool, read(_json(body))), 201)
        given = {name: values[-1] for name, values in _form(body).items()}
        back = given.pop("back", "")
        if "quoted_id" in given:  # a form would change the line breaks of an id
            given["alert_id"] = unquote(given.pop("quoted_id"))
        said = read(given)
        await run_in_threadpool(write, self._pool, said)
        # Only the query comes from the form, and it is written anew: the answer cannot lead to another site.
        query = urlencode(parse_qsl(back, max_num_fields=20))
        return RedirectResponse(f"/?{query}#{row_name(said.alert_id)}", 303)

    def board(self, request: Request) -> Response:
        wanted = Filter.of(request.query_params)

        def work(cursor: Cursor) -> str:
            page = turn_to(snapshot, wanted, fresh.now)
            found = read_scores(cursor, page.alert_ids)
            said = newest_feedback(cursor, page.alert_ids)
            return board_page(page, snapshot, fresh, found, said, closings(cursor, page.alert_ids))

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
        return JSONResponse(description())


def _error(status: int, cause: str, remedy: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"error": cause, "remedy": remedy}, status, headers)


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return _error(error.status, error.cause, error.remedy)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return _error(404, "there is nothing at this address", "see /openapi.json for what there is", headers)
    if error.status_code == 405:
        allowed = headers.get("Allow", "another method")
        return _error(405, f"{request.method} is not possible here", f"use {allowed}", headers)
    return _error(error.status_code, error.detail, "see /openapi.json", headers)


def _on_bug(request: Request, error: Exception) -> Response:
    return _error(500, "the service failed to answer", "see what `heed serve` printed, and report it")


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


def _refuse_other_sites(request: Request) -> None:
    """Browsers say from where a request comes; programs say nothing and are nobody's stolen session.

    Raises
    ------
    Problem
        403: a page of another site sent it.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:  # no page can forge it, and it holds behind a proxy that changes the host's name
        foreign = site not in ("same-origin", "none")
    else:
        foreign = origin is not None and urlsplit(origin).netloc.lower() != request.headers.get("host", "").lower()
    if foreign:
        raise Problem(403, "a page of another site sent this", "send it from the board, or from a program")


class _Guard:
    """Around everything: refuses names that are not the service's own, and adds headers to each answer."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str] | None, metrics: Metrics) -> None:
        self._app = app
        self._hosts = hosts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        see = self._metrics.timed(scope)

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in _HEADERS.items() if k.lower().encode() not in there),
                ]
            await send(message)
            see(message)

        if self._hosts is not None and _host_name(scope) not in self._hosts:
            answer = _error(
                421, "the service is not called by this name", "use its address, or start it with --allowed-host NAME"
            )
            await answer(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)


def _host_name(scope: Scope) -> str:
    host = next((value for name, value in scope["headers"] if name == b"host"), b"").decode("latin-1").lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]
