"""Protects both HTTP servers, `heed serve` and the Dagster UI of `heed up`, against pages of other sites.

Belongs here: the names a server answers to, requests from other sites, security headers, and clients that disconnect in
the middle of a request.
Does not belong here: answers (`serving/app.py`, Dagster), sockets and timeouts (`listening.py`).

Neither server has a login by default, so a browser on the same machine is the way in: any page that it shows can send
requests to loopback. Three rules prevent this. Host names other than the server's own are refused: a page could
otherwise resolve its own name to this machine and read the answers. Requests that change something are refused when a
page of another site sends them, as is every WebSocket. GET never changes anything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

READING = frozenset({"GET", "HEAD", "OPTIONS"})
LOCAL_NAMES = ("localhost",)


class Guard:
    """An ASGI application around another one.

    app : the application to protect.
    hosts : names by which it may be called, in addition to IP addresses and `localhost`. An IP address needs no
        permission: a page at an address came from that address, so no other site can pretend to be it.
    headers : added to each answer that does not set them itself.
    queries_by_post : paths that accept statements in `query`, only by POST.
    is_shared : whether a request only reads, and a page of another site that may read sends it; by default none may.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: Iterable[str],
        headers: Mapping[str, str],
        queries_by_post: Iterable[str] = (),
        is_shared: Callable[[Scope], bool] = lambda scope: False,
    ) -> None:
        self.inner = app
        self._hosts = frozenset(name.lower() for name in (*LOCAL_NAMES, *hosts))
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        self._queries_by_post = frozenset(queries_by_post)
        self._is_shared = is_shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.inner(scope, receive, send)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(header for header in self._headers if header[0] not in present),
                ]
            await send(message)

        refused = self._refused(scope)
        if refused is not None and scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": "refused"})
        elif refused is not None:
            await refused(scope, receive, send_with_headers)
        else:
            with suppress(ClientDisconnect):  # it left before it had sent everything: nobody waits for an answer
                await self.inner(scope, receive, send_with_headers)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if not _may_be_called(headers.get("host", ""), self._hosts):
            return refusal(
                421, "the service is not called by this name", "use its address, or start it with --allowed-host NAME"
            )
        writes = scope["type"] == "websocket" or scope["method"] not in READING
        if writes and is_foreign(headers) and not self._is_shared(scope):
            return refusal(403, "a page of another site sent this", "send it from the service's own pages or a program")
        if (
            scope["type"] == "http"
            and scope["method"] != "POST"
            and scope["path"] in self._queries_by_post
            and "query" in parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        ):
            return refusal(405, "a query is not accepted in an address", "send it by POST", {"Allow": "POST"})
        return None


def refusal(status: int, cause: str, remedy: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """A JSON answer that says what is wrong and what to do about it."""
    return JSONResponse({"error": cause, "remedy": remedy}, status, headers)


def is_foreign(headers: Headers) -> bool:
    """Whether a page of another site sent a request with these headers.

    Browsers say where a request comes from. Programs do not, and they have no user's session to abuse.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:  # no page can forge it, and it is right behind a proxy that changes the host name
        return site not in ("same-origin", "none")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    except ValueError:  # not from a browser
        return True


def _may_be_called(host: str, names: frozenset[str]) -> bool:
    """Whether a `Host` header holds one of these names, or an IP address."""
    host = host.lower()
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
