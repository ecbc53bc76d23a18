"""Who may give feedback and take back closings, and under which name.

Belongs here: the header in which a proxy names the user.
Does not belong here: the token itself (`tokens.py`), pages of other sites (`guard.py`), what is written
(`feedback.py`, `closing.py`).

Both are off by default: anyone who can reach the service may then write, under any name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from dagster_project.serving.api.models import RequiredText, shown
from dagster_project.serving.problem import Problem
from dagster_project.serving.tokens import NO_TOKEN, Token, require

_NAME: TypeAdapter[str] = TypeAdapter(RequiredText)


@dataclass(frozen=True)
class Writers:
    """token : required of each writing request; empty: none is. user_header : the header in which a proxy names the
    user; empty: the name is taken from the request's body."""

    token: Token = NO_TOKEN
    user_header: str = ""

    def require_token(self, request: Request) -> None:
        """Raise `NotLoggedIn` unless the request brings the token."""
        if self.token:
            require(request, self.token)

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
