"""Who may give feedback and take back closings, and under which name.

Belongs here: the shared token, and the header in which a proxy says who asks.
Does not belong here: pages of other sites (`guard.py`), what is written (`feedback.py`, `closing.py`).

Both are off by default: then everybody who reaches the service may write, under any name. Reading needs neither.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from dagster_project.errors import HeedError
from dagster_project.serving.api.validation import shown, text_of
from dagster_project.serving.problem import Problem

TOKEN_VARIABLE = "HEED_SERVE_TOKEN"
# 96 bits in the densest usual writing, base64: nobody guesses that over a network.
LEAST_TOKEN = 16


class NotLoggedIn(Problem):
    """401: the token is missing or wrong."""


@dataclass(frozen=True)
class Writers:
    """token : what must come with each writing request; empty: nothing. user_header : the header that holds the name of
    whoever asks, set by a proxy; empty: the name is taken from what was sent."""

    token: str = ""
    user_header: str = ""

    @classmethod
    def of(cls, token: str | None, user_header: str) -> Writers:
        """From the environment and the settings.

        Raises
        ------
        HeedError
            The token is too short to keep anybody out, or holds what no header can carry.
        """
        token = (token or "").strip()
        if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
            raise HeedError(
                f"{TOKEN_VARIABLE} is not at least {LEAST_TOKEN} ASCII characters without blanks",
                "make one with `openssl rand -hex 32`, or unset it",
            )
        return cls(token, user_header)

    def require_token(self, request: Request) -> None:
        """Raise `NotLoggedIn` unless the request brings the token.

        As `Authorization: Bearer TOKEN` from programs and proxies, or as the password of HTTP Basic, for which browsers
        ask by themselves. The user name of Basic is not believed: all share one token.
        """
        if self.token and not hmac.compare_digest(_token_of(request), self.token.encode()):
            raise NotLoggedIn(
                401,
                "the token is missing or wrong",
                f"send `Authorization: Bearer` with the value of {TOKEN_VARIABLE}, or log in with it as the password",
            )

    def signed_in(self, request: Request) -> str | None:
        """The name that the proxy gave; '' when it gave none that can be believed; None: no proxy is asked for it."""
        if not self.user_header:
            return None
        names = request.headers.getlist(self.user_header)
        if len(names) != 1:  # two: one of them was sent by the client
            return ""
        raw = names[0].encode("latin-1")  # as the server read it
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = names[0]
        try:
            return text_of({"name": name}, "name") or ""
        except Problem:
            return ""

    def named(self, request: Request, given: Any, by: str) -> Any:
        """What was sent, with the proxy's name in the part `by`, whatever it held; unchanged where no proxy is asked.

        Raises
        ------
        Problem
            403: the proxy did not say who asks.
        """
        name = self.signed_in(request)
        if name is None or not isinstance(given, Mapping):
            return given
        if not name:
            raise Problem(
                403,
                f"it is not known who asks: there is not one name in the header {shown(self.user_header)}",
                "ask through the proxy, which sets it from its login",
            )
        return {**given, by: name}


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
