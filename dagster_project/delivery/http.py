"""One small HTTP client for all destinations that speak HTTP.

Belongs here: sending a request with time limits, and reading from the answer whether to try again and when.
Does not belong here: addresses, headers and bodies of one system (its own module).

requests: apprise needs it anyway, it is thread-safe enough for one session per destination, and its adapters keep the
connection open. Its own retries are off, because attempts are recorded in the warehouse.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import requests

from dagster_project.errors import one_line

SECONDS = 10.0  # for the connection, and for each part of the answer
MOST_BYTES = 1_000_000  # of an answer: issues and incidents are far smaller
# Try again: the server was busy, slow or broken. Any other status of 400 or more would be the same the next time.
_AGAIN = {408, 425, 429}
# A server that asks for more patience than a day is asked once a day.
MOST_PATIENCE = 86_400.0


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. retry_after : seconds for which the server wants to be left alone; 0: it did not say."""

    kind: Literal["delivered", "again", "failed"]
    detail: str = ""
    retry_after: float = 0.0


DELIVERED = Outcome("delivered")


class NotDelivered(Exception):
    """A request did not succeed."""

    def __init__(self, outcome: Outcome, status: int = 0) -> None:
        super().__init__(outcome.detail)
        self.outcome, self.status = outcome, status


class Client:
    """A session with one destination. secret : never shown in what an answer quotes."""

    def __init__(self, secret: str = "", seconds: float = SECONDS) -> None:
        self._secret, self._seconds = secret, seconds
        self._session = requests.Session()
        self._session.auth = lambda request: request  # nothing of ~/.netrc

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def ask(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None = None, json: Any = None
    ) -> Any:
        """The JSON of a successful answer; None if it has none.

        Redirects are not followed: a signed message or a token belongs to one address.

        Raises
        ------
        NotDelivered
            Whether to try again, and why.
        """
        try:
            with self._session.request(
                method,
                url,
                headers=dict(headers),
                data=body,
                json=json,
                timeout=self._seconds,
                allow_redirects=False,
                stream=True,
            ) as answer:
                content = self._content(answer)
                if 200 <= answer.status_code < 300:
                    return _json(content)
                raise NotDelivered(self._judge(answer, content), answer.status_code)
        except requests.Timeout as error:
            raise NotDelivered(Outcome("again", f"no answer within {self._seconds:g} s")) from error
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema) as error:
            raise NotDelivered(Outcome("failed", "its address is not one")) from error
        except requests.RequestException as error:  # their texts quote the address
            raise NotDelivered(Outcome("again", f"no connection ({type(error).__name__})")) from error

    def _content(self, answer: requests.Response) -> bytes:
        until, content = time.monotonic() + self._seconds, b""
        for part in answer.iter_content(65_536):
            content += part
            if time.monotonic() > until or len(content) > MOST_BYTES:
                raise requests.Timeout
        return content

    def _judge(self, answer: requests.Response, content: bytes) -> Outcome:
        text = content[:300].decode("utf-8", "replace")
        if self._secret:
            text = text.replace(self._secret, "***")
        detail = one_line(f"status {answer.status_code}: {text}".rstrip(": "))
        if answer.status_code in _AGAIN or answer.status_code >= 500:
            return Outcome("again", detail, _retry_after(answer.headers.get("Retry-After", "")))
        return Outcome("failed", detail)


def _retry_after(text: str) -> float:
    """The header, which is a number of seconds or a date, as seconds from now; 0 if it is missing or neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return 0.0
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MOST_PATIENCE) if seconds == seconds else 0.0


def _json(content: bytes) -> Any:
    import json

    try:
        return json.loads(content)
    except ValueError:
        return None
