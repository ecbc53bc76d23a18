"""Who may give feedback and take back closings, and under which name.

Belongs here: the shared token, and the header in which a proxy names the user.
Does not belong here: pages of other sites (`guard.py`), what is written (`feedback.py`, `closing.py`).

Both are off by default: anyone who can reach the service may then write, under any name. Reading needs neither.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from dagster_project.errors import HeedError
from dagster_project.serving.api.models import RequiredText, shown
from dagster_project.serving.problem import Problem

TOKEN_VARIABLE = "HEED_SERVE_TOKEN"
# 96 bits in the densest usual writing, base64: nobody guesses that over a network.
LEAST_TOKEN = 16
_NAME: TypeAdapter[str] = TypeAdapter(RequiredText)


class NotLoggedIn(Problem):
    """401: the token is missing or wrong."""


@dataclass(frozen=True)
class Writers:
    """token : required of each writing request; empty: none is. user_header : the header in which a proxy names the
    user; empty: the name is taken from the request's body."""

    token: str = ""
    user_header: str = ""

    @classmethod
    def of(cls, token: str | None, user_header: str) -> Writers:
        """From the environment and the settings.

        Raises HeedError: the token is too short to keep anybody out, or contains what no header can carry.
        """
        token = (token or "").strip()
        if token and (len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
            raise HeedError(
                f"{TOKEN_VARIABLE} is not at least {LEAST_TOKEN} ASCII characters without blanks",
                "generate one with `openssl rand -hex 32`, or unset it",
            )
        return cls(token, user_header)

    def require_token(self, request: Request) -> None:
        """Raise `NotLoggedIn` unless the request brings the token.

        Programs and proxies send it as `Authorization: Bearer TOKEN`, browsers as the password of HTTP Basic, for which
        they ask by themselves. The user name of Basic is ignored: all share one token.
        """
        if self.token and not hmac.compare_digest(_token_of(request), self.token.encode()):
            raise NotLoggedIn(
                401,
                "the token is missing or wrong",
                f"send `Authorization: Bearer` with the value of {TOKEN_VARIABLE}, or log in with it as the password",
            )

    def signed_in(self, request: Request) -> str | None:
        """The name that the proxy gave; '' if it gave none, or more than one; None: names do not come from a proxy."""
        if not self.user_header:
            return None
        names = request.headers.getlist(self.user_header)
        if len(names) != 1:  # of two, one was sent by the client
            return ""
        raw = names[0].encode("latin-1")  # as the server read it
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            name = names[0]
        try:
            return _NAME.validate_python(name)
        except ValidationError:
            return ""

    def named(self, request: Request, sent: Any, by: str) -> Any:
        """What was sent, with the proxy's name in the field `by`; unchanged if names do not come from a proxy.

        Raises Problem: 403: the proxy did not name the user.
        """
        name = self.signed_in(request)
        if name is None or not isinstance(sent, Mapping):
            return sent
        if not name:
            raise Problem(
                403,
                f"it is not known who asks: the header {shown(self.user_header)} does not hold exactly one name",
                "ask through the proxy, which sets it from its login",
            )
        return {**sent, by: name}


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
