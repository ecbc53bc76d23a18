"""HTTP for all pulls: dlt's REST client, and its errors in one line.

Belongs here: time limits, retries, and what an answer that is no success means.
Does not belong here: addresses, pages and positions of one system (its module).

dlt's client waits as `Retry-After` says, or longer each time, and gives up after five attempts. The rest of dlt is not
used: its pipelines save the position when records were fetched, not when they are in `raw`, and dagster-dlt drops
what was fetched and not loaded before it runs again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError, one_line

if TYPE_CHECKING:
    import requests
    from dlt.sources.helpers.rest_client import RESTClient

SECONDS = 60.0  # for the connection, and for each part of the answer: some searches are slow
BACKOFF_SECONDS = 1.0  # after the first failure; twice as long after each further one
MOST_PATIENCE = 900.0  # GitHub's secondary limits ask for minutes; who asks for more gets the next pull
REMEDY = "install the clients: pip install 'heed[pull]'"


def client(url: str, *, headers: dict[str, str] | None = None, auth: tuple[str, str] | None = None) -> RESTClient:
    """A client for the addresses below `url`. auth : user and password.

    Raises
    ------
    HeedError
        dlt is not installed.
    """
    import os

    # Before its import: dlt otherwise reports to its makers that it is used.
    os.environ.setdefault("RUNTIME__DLTHUB_TELEMETRY", "false")
    try:
        from dlt.sources.helpers import requests as dlt_requests
        from dlt.sources.helpers.rest_client import RESTClient
        from requests.auth import HTTPBasicAuth
    except ImportError as error:
        raise HeedError("heed pull needs dlt, which is not installed", REMEDY) from error
    session = dlt_requests.Client(
        request_timeout=SECONDS,
        raise_for_status=False,
        request_backoff_factor=BACKOFF_SECONDS,
        request_max_retry_delay=MOST_PATIENCE,
    ).session
    session.trust_env = False  # nothing of ~/.netrc
    basic = HTTPBasicAuth(*auth) if auth else None
    return RESTClient(url, headers={"Accept": "application/json", **(headers or {})}, auth=basic, session=session)


def ask(client: RESTClient, path: str, params: dict[str, Any] | None = None) -> requests.Response:
    """The successful answer to a GET. path : below the client's address, or a whole address on the same host.

    Raises
    ------
    Refused
        Status 4xx: asking again would be the same.
    HeedError
        It cannot be reached, or answers with errors only.
    """
    import requests

    base = str(client.base_url).rstrip("/")
    if path.startswith("http") and _host(path) != _host(base):
        raise HeedError(f"{base} names a next page on another host", "check url of the source: tokens go to one host")
    try:
        answer = client.get(path, params=params)
    except requests.Timeout as error:
        raise HeedError(f"{base} did not answer within {SECONDS:g} s", _LATER) from error
    except requests.RequestException as error:
        response = getattr(error, "response", None)
        if response is None:
            raise HeedError(f"{base} cannot be reached ({type(error).__name__})", _LATER) from error
        answer = response
    if answer.ok:
        return answer
    text = one_line(f"{base} answers with status {answer.status_code}: {answer.text[:200]}".rstrip(": "))
    if answer.status_code in (401, 403):
        raise Refused(text, "check the secret of the source and what it may read", answer.status_code)
    if 400 <= answer.status_code < 500 and answer.status_code != 429:
        raise Refused(text, "check the settings of the source", answer.status_code)
    raise HeedError(text, _LATER)


class Refused(HeedError):
    """A request that would be refused again. status : of the answer."""

    def __init__(self, cause: str, remedy: str, status: int) -> None:
        super().__init__(cause, remedy)
        self.status = status


def listed(answer: requests.Response, key: str = "") -> list[dict[str, Any]]:
    """The records of an answer: a list, or the one under `key`.

    Raises
    ------
    HeedError
        There is none.
    """
    try:
        content = answer.json()
        records = content[key] if key else content
    except (ValueError, KeyError, TypeError) as error:
        raise HeedError(f"{answer.url.split('?')[0]} does not answer with a list", "check url of the source") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise HeedError(f"{answer.url.split('?')[0]} does not answer with a list", "check url of the source")
    return records


_LATER = "nothing is lost: the next pull goes on from here"


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    return urlsplit(url).netloc
