"""Which pages of other sites may read scores in a browser (CORS): those of the origins in `serving.origins`.

Belongs here: the origins, the addresses that are shared, the answers to a browser's questions.
Does not belong here: what other sites may never do (`guard.py`), tokens (`tokens.py`).

Off by default. Only reading is shared: no page of another site may give feedback or take back a closing, whatever its
origin. A browser asks before it sends a token or JSON (a preflight), and without a token, as it must.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

# How long a browser may remember an answer: a taken-away origin keeps nothing for longer.
REMEMBERED_SECONDS = 600


class Sharing:
    """An ASGI application around the service. routes : the shared addresses, as Starlette writes them."""

    def __init__(self, app: ASGIApp, origins: Iterable[str], routes: Iterable[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)
        self._routes: list[re.Pattern[str]] = [compile_path(route)[0] for route in routes]
        self._shared = CORSMiddleware(
            app,
            allow_origins=sorted(self._origins),
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization", "Content-Type"),
            max_age=REMEMBERED_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._shared if self.is_shared(scope) else self._app)(scope, receive, send)

    def is_shared(self, scope: Scope) -> bool:
        """Whether a page of one of the origins asks for an address that it may read."""
        return (
            scope["type"] == "http"
            and Headers(scope=scope).get("origin") in self._origins
            and any(route.match(scope["path"]) for route in self._routes)
        )
