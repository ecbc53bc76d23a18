"""The shared tokens of the service: what a request must carry to read or to write.

Belongs here: which tokens are accepted, and how a request carries one.
Does not belong here: names of people (`writers.py`), pages of other sites (`guard.py`, `sharing.py`).

Both are off by default: anyone who reaches the service may then read and write.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dagster_project.errors import HeedError
from dagster_project.serving.problem import Problem

WRITING, READING = "HEED_SERVE_TOKEN", "HEED_READ_TOKEN"
# 96 bits in the densest usual writing, base64: nobody guesses that over a network.
LEAST_TOKEN = 16


class NotLoggedIn(Problem):
    """401: the token is missing or wrong."""


@dataclass(frozen=True)
class Token:
    """A token from the environment. variable : where it is. value : empty: none is required."""

    variable: str = WRITING
    value: str = ""

    @classmethod
    def of(cls, variable: str, text: str | None) -> Token:
        """From the environment.

        Raises HeedError: the token is too short to keep anybody out, or contains what no header can carry.
        """
        token = (text or "").strip()
        if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
            raise HeedError(
                f"{variable} is not at least {LEAST_TOKEN} ASCII characters without blanks",
                "generate one with `openssl rand -hex 32`, or unset it",
            )
        return cls(variable, token)

    def __bool__(self) -> bool:
        return bool(self.value)


NO_TOKEN = Token()


def require(request: Request, *tokens: Token) -> None:
    """Raise `NotLoggedIn` unless the request brings one of the tokens.

    Programs and proxies send it as `Authorization: Bearer TOKEN`, browsers as the password of HTTP Basic, for which
    they ask by themselves. The user name of Basic is ignored: all share one token.
    """
    sent, accepted = _token_of(request), False
    for token in tokens:
        accepted |= bool(token) and hmac.compare_digest(sent, token.value.encode())
    if not accepted:
        names = " or ".join(token.variable for token in tokens if token)
        raise NotLoggedIn(
            401,
            "the token is missing or wrong",
            f"send `Authorization: Bearer` with the value of {names}, or log in with it as the password",
        )


class OnlyWithToken:
    """An ASGI application around an operation that reads."""

    def __init__(self, app: ASGIApp, tokens: tuple[Token, ...]) -> None:
        self._app, self._tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        require(Request(scope), *self._tokens)
        await self._app(scope, receive, send)


def _token_of(request: Request) -> bytes:
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip().encode("latin-1")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except binascii.Error:
            pass
    return b""
