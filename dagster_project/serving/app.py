"""The HTTP service: what each operation answers, and what protects it.

Belongs here: reading requests, headers, the form of errors.
Does not belong here: routes and status codes (`api/openapi.py`), checking JSON (`api/models.py`), SQL
(`api/scores.py`, `api/feedback.py`, `board/board.py`), markup (`board/pages.py`), who may write (`writers.py`), the
guard against other sites (`guard.py`), whom it lets read all the same (`sharing.py`), the process (`server.py`).

Starlette without FastAPI: these requests fit FastAPI badly (a form and JSON at one address, JSON of any content type,
the token before the body, HEAD), and it costs 0.1 to 0.4 ms a request and 0.6 s at the start.

There are no cookies. The service binds to loopback by default. To open it to a network, put a proxy with a login in
front.
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
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from dagster_project.guard import Guard, refusal
from dagster_project.serving.api.changes import read_changes, read_limit
from dagster_project.serving.api.closing import closings, undo
from dagster_project.serving.api.feedback import give, newest_feedback
from dagster_project.serving.api.models import NewFeedback, NewUndo, Wanted
from dagster_project.serving.api.openapi import OPERATIONS, Operation, description
from dagster_project.serving.api.scores import read_score, read_scores
from dagster_project.serving.board.badge import badge
from dagster_project.serving.board.board import Board
from dagster_project.serving.board.filter import Filter, select_page
from dagster_project.serving.board.pages import board_page, problem_page, row_name
from dagster_project.serving.freshness import Freshness, require_freshness
from dagster_project.serving.metrics import CONTENT_TYPE, Counted, Metrics
from dagster_project.serving.pool import Pool
from dagster_project.serving.problem import Problem
from dagster_project.serving.sharing import Sharing
from dagster_project.serving.tokens import NO_TOKEN, NotLoggedIn, OnlyWithToken, Token
from dagster_project.serving.webhooks.webhooks import Webhooks
from dagster_project.serving.writers import Writers

STATIC = Path(__file__).parent / "static"
# A thousand of the longest IDs, each byte escaped as JSON allows, fit.
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
    # Pages of other systems embed it.
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": f"private, max-age={BADGE_SECONDS}",
    "Vary": "Origin, Authorization",  # what a cache keeps must fit who asks
}


class AlertId(Convertor[str]):
    """Any ID, including one with slashes or line breaks."""

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
    webhooks: Webhooks | None = None,
    read_token: Token = NO_TOKEN,
    origins: Iterable[str] = (),
) -> ASGIApp:
    """The service.

    pool : connections to the warehouse.
    refresh_cron : when scores are refreshed; decides whether they are stale.
    hosts : names by which it may be called, in addition to IP addresses and `localhost`.
    clock : the time now.
    board : the open alerts, if they were read already.
    writers : who may give feedback and take back closings; by default everybody, under any name.
    webhooks : the systems that push alerts and actions; by default none.
    read_token : required of those who read, unless they bring the token for writing; by default nobody needs one.
    origins : whose pages may read; by default no other site's.
    """
    metrics, writers = Metrics(pool, refresh_cron, clock), writers or Writers()
    endpoints = _Endpoints(
        pool, refresh_cron, clock, board or Board(pool), metrics, writers, webhooks or Webhooks(), read_token
    )
    guarded = [Middleware(OnlyWithToken, tokens=(read_token, writers.token))] if read_token else []

    def route(op: Operation) -> Route:
        middleware = guarded if op.access == "read" else []
        return Route(op.route, getattr(endpoints, op.name), methods=[op.method], middleware=middleware)

    app = Starlette(
        routes=[*map(route, OPERATIONS), Mount("/static", StaticFiles(directory=STATIC))],
        exception_handlers={Problem: _on_problem, HTTPException: _on_http, 500: _on_bug},
    )
    sharing = Sharing(app, origins, [op.route for op in OPERATIONS if op.shared])
    return Counted(Guard(sharing, hosts, _HEADERS, is_shared=sharing.is_shared), metrics)


_Statement = TypeVar("_Statement", NewFeedback, NewUndo)


class _Endpoints:
    """One method per operation. Those that are not async run in threads, because the warehouse's driver blocks."""

    def __init__(
        self,
        pool: Pool,
        refresh_cron: str,
        clock: Callable[[], datetime],
        board: Board,
        metrics: Metrics,
        writers: Writers,
        webhooks: Webhooks,
        read_token: Token,
    ) -> None:
        self._pool = pool
        self._cron = refresh_cron
        self._clock = clock
        self._board = board
        self._metrics = metrics
        self._writers = writers
        self._webhooks = webhooks
        self._read_token = read_token

    def _freshness(self, cursor: Cursor) -> Freshness:
        return require_freshness(cursor, self._cron, self._clock())

    def alerts(self, request: Request) -> Response:
        since, limit = request.query_params.get("since"), read_limit(request.query_params.get("limit"))

        def work(cursor: Cursor) -> dict[str, Any]:
            fresh = self._freshness(cursor)
            return {**read_changes(cursor, since, limit), "freshness": fresh.to_document()}

        return JSONResponse(self._pool.read(work))

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
            picture = self._pool.read(work)
        except Problem as problem:  # an <img> shows no text, so the picture has to say it
            status = problem.status
            picture = badge(None, instead="not scored" if status == 404 else "unavailable")
        return Response(picture, status, _BADGE_HEADERS, "image/svg+xml")

    async def scores(self, request: Request) -> Response:
        wanted = Wanted.read(_json(await _body(request, MOST_BYTES)))
        ids = list(dict.fromkeys(wanted.alert_ids))

        def work(cursor: Cursor) -> dict[str, Any]:
            fresh = self._freshness(cursor)
            scores = read_scores(cursor, ids)
            return {
                "scores": [scores[each] for each in ids if each in scores],
                "unknown": [each for each in ids if each not in scores],
                "freshness": fresh.to_document(),
            }

        return JSONResponse(await run_in_threadpool(self._pool.read, work))

    async def webhook(self, request: Request) -> Response:
        name = request.path_params["name"]
        received = self._webhooks.check(name, request.headers, await _body(request, MOST_BYTES))
        return JSONResponse(await received.written())

    async def feedback(self, request: Request) -> Response:
        return await self._write(request, NewFeedback, give, "given_by")

    async def undo(self, request: Request) -> Response:
        return await self._write(request, NewUndo, undo, "who")

    async def _write(
        self, request: Request, model: type[_Statement], write: Callable[[Pool, _Statement], dict[str, Any]], by: str
    ) -> Response:
        """Write what somebody says about one alert, as JSON or by a form of the board, to which the answer leads back.

        by : the field that says who says it.
        """
        self._writers.require_token(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        body = await _body(request, MOST_FORM_BYTES)
        if kind != "application/x-www-form-urlencoded":
            statement = model.read(self._writers.named(request, _json(body), by))
            return JSONResponse(await run_in_threadpool(write, self._pool, statement), 201)
        fields = {name: values[-1] for name, values in _form(body).items()}
        back = fields.pop("back", "")
        if "quoted_id" in fields:  # a form would change the line breaks of an ID
            fields["alert_id"] = unquote(fields.pop("quoted_id"))
        statement = model.read(self._writers.named(request, fields, by))
        await run_in_threadpool(write, self._pool, statement)
        # Only the query comes from the form, and it is encoded again: the answer cannot lead to another site.
        query = urlencode(parse_qsl(back)[:20])
        return RedirectResponse(f"/?{query}#{row_name(statement.alert_id)}", 303)

    def board(self, request: Request) -> Response:
        wanted = Filter.of(request.query_params)
        signed_in = self._writers.signed_in(request)

        def work(cursor: Cursor) -> str:
            page = select_page(snapshot, wanted, fresh.now)
            scores, feedback = read_scores(cursor, page.alert_ids), newest_feedback(cursor, page.alert_ids)
            return board_page(page, snapshot, fresh, scores, feedback, closings(cursor, page.alert_ids), signed_in)

        try:
            fresh = self._pool.read(self._freshness)
            snapshot = self._board.snapshot(fresh)
            return HTMLResponse(self._pool.read(work))
        except Problem as problem:
            return HTMLResponse(problem_page(problem.status, problem.cause, problem.remedy), problem.status)

    def health(self, request: Request) -> Response:
        """For load balancers: whether the service can answer. It also serves stale scores, and says so."""
        return self._health(stale=200)

    def fresh(self, request: Request) -> Response:
        """For monitoring: whether the scores are fresh as well."""
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
        return JSONResponse(description(self._writers, self._read_token))


def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    # With this header, browsers ask for a login and send the form again.
    headers = {"WWW-Authenticate": 'Basic realm="heed", charset="UTF-8"'} if isinstance(error, NotLoggedIn) else None
    return refusal(error.status, error.cause, error.remedy, headers)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 404:
        return refusal(404, "there is nothing at this address", "see /openapi.json for the addresses", headers)
    if error.status_code == 405:
        allowed = headers.get("Allow", "another method")
        return refusal(405, f"{request.method} is not allowed here", f"use {allowed}", headers)
    return refusal(error.status_code, error.detail, "see /openapi.json", headers)


def _on_bug(request: Request, error: Exception) -> Response:
    return refusal(500, "the service failed to answer", "see what `heed serve` printed, and report it")


async def _body(request: Request, most: int) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise Problem(413, f"more than {most:,} bytes were sent", "send less at a time")
    return bytes(body)


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
