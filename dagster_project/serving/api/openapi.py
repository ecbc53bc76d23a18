"""The operations of the service: one table gives both the routes and their OpenAPI description.

Belongs here: paths, methods, status codes and what they mean.
Does not belong here: the JSON itself (`models.py`), what an operation does (`app.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import version
from types import UnionType
from typing import Any, Literal, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from dagster_project.serving.api import models
from dagster_project.serving.api.scores import MOST_IDS
from dagster_project.serving.board.filter import PARAMETERS
from dagster_project.serving.tokens import NO_TOKEN, READING, WRITING, Token
from dagster_project.serving.writers import Writers

# What an answer means, and what it holds: JSON by one of these models, text of a media type, or nothing.
Answer = tuple[str, type[BaseModel] | UnionType | str | None]

HTML, SVG, TEXT, JSON = "text/html", "image/svg+xml", "text/plain", "application/json"
_UNAVAILABLE: dict[int, Answer] = {503: ("The warehouse cannot be reached or holds no scores yet.", models.Error)}
_NO_SCORE: dict[int, Answer] = {404: ("No such alert, or no score for it; the text says which.", models.Error)}
_REFUSED: dict[int, Answer] = {
    403: ("Sent by a page of another site.", models.Error),
    413: ("The request is too large.", models.Error),
    422: ("The request cannot be read.", models.Error),
}
_FROM_FORM: dict[int, Answer] = {303: ("Written; the board's form leads back to the board.", None)}


_PATH = {"alert_id": "Percent-encoded.", "name": "As in heed.toml."}
_CHANGES = {
    "since": "`next` of the answer before. Without it: first the alerts that are open now, then all changes. 0: every "
    "alert ever scored.",
    "limit": f"Changes in the answer: 1 to {MOST_IDS:,}, else 500.",
}


@dataclass(frozen=True)
class Operation:
    """name : of the endpoint in `app.py`, of the operation in OpenAPI, and of the label in `/metrics`.

    access : what a request needs: the token for reading or writing, where one is set; open: nothing, or a signature.
    shared : pages of `serving.origins` may read it.
    """

    name: str
    method: str
    path: str
    summary: str
    answers: dict[int, Answer]
    body: type[BaseModel] | None = None
    query: dict[str, str] = field(default_factory=dict)
    access: Literal["read", "write", "open"] = "read"
    shared: bool = False

    @property
    def route(self) -> str:
        """The path as Starlette takes it."""
        return self.path.replace("{alert_id}", "{alert_id:alert}")

    def describe(self) -> dict[str, Any]:
        """The operation object of OpenAPI."""
        parameters = [(name, "path", about) for name, about in _PATH.items() if f"{{{name}}}" in self.path]
        # All are text. The board ignores a value that means nothing, so that a bookmark never breaks.
        parameters += [(name, "query", meaning) for name, meaning in self.query.items()]
        described: dict[str, Any] = {
            "operationId": self.name,
            "summary": self.summary,
            "parameters": [
                {"name": name, "in": place, "required": place == "path", "schema": {"type": "string"}}
                | {"description": meaning}
                for name, place, meaning in parameters
            ],
            "responses": {
                str(status): {"description": meaning, **_content(body)}
                for status, (meaning, body) in sorted(self.answers.items())
            },
        }
        if self.body is not None:
            described["requestBody"] = {"required": True, **_content(self.body)}
        return described


OPERATIONS = (
    Operation(
        *("board", "get", "/", "The board for triagers"),
        {200: ("A page.", HTML), 503: ("A page that says why.", HTML)},
        query=PARAMETERS,
    ),
    Operation(
        *("alerts", "get", "/alerts", "Changes of published scores since a cursor"),
        {
            200: ("Changes in the order of their publication, and the next cursor.", models.Changes),
            410: ("This warehouse did not give the cursor: it was restored, emptied or replaced.", models.Error),
            422: ("No cursor, or no limit.", models.Error),
            **_UNAVAILABLE,
        },
        query=_CHANGES,
        shared=True,
    ),
    Operation(
        *("score", "get", "/alerts/{alert_id}/score", "The newest score of an alert"),
        {200: ("The score.", models.FreshScore), **_NO_SCORE, **_UNAVAILABLE},
        shared=True,
    ),
    Operation(
        *("badge", "get", "/alerts/{alert_id}/badge.svg", "The score as a small picture"),
        {200: ("The badge.", SVG), 404: ("It says 'not scored'.", SVG), 503: ("It says 'unavailable'.", SVG)},
        shared=True,
    ),
    Operation(
        *("scores", "post", "/scores", "The newest scores of many alerts"),
        {200: ("Scores in the order asked for, and IDs without one.", models.Scores), **_REFUSED, **_UNAVAILABLE},
        body=models.Wanted,
        shared=True,
    ),
    Operation(
        *("feedback", "post", "/feedback", "Say that a score was useful, or wrong"),
        {201: ("Written.", models.Feedback), **_FROM_FORM, **_NO_SCORE}
        | {409: ("Its score is not shown: the alert was drawn at random.", models.Error), **_REFUSED, **_UNAVAILABLE},
        body=models.NewFeedback,
        access="write",
    ),
    Operation(
        *("undo", "post", "/closings/undo", "Take back heed's decision to close an alert; its rule is paused"),
        {201: ("Written.", models.Undo), **_FROM_FORM, 404: ("heed never decided to close it.", models.Error)}
        | {409: ("It was taken back before.", models.Error), **_REFUSED, **_UNAVAILABLE},
        body=models.NewUndo,
        access="write",
    ),
    Operation(
        *("webhook", "post", "/webhooks/{name}", "Alerts and actions from another system, in its own form, signed"),
        {
            **{200: ("Stored.", models.Received), 401: ("The signature is missing or wrong.", models.Error)},
            **{
                404: ("There is no such webhook in heed.toml.", models.Error),
                503: ("Not stored: send it again.", models.Error),
            },
            **_REFUSED,
        },
        body=models.PushedRows,
        access="open",
    ),
    Operation(
        *("health", "get", "/health", "Whether scores can be read, and how fresh they are"),
        {200: ("They can.", models.Health), **_UNAVAILABLE},
        access="open",
        shared=True,
    ),
    Operation(
        *("fresh", "get", "/health/fresh", "Whether scores can be read and are fresh"),
        {200: ("They are.", models.Health), 503: ("They are stale, or cannot be read.", models.Health | models.Error)},
        access="open",
        shared=True,
    ),
    Operation(
        *("metrics", "get", "/metrics", "Numbers for monitoring, in Prometheus' text format"), {200: ("Text.", TEXT)}
    ),
    Operation(
        *("openapi", "get", "/openapi.json", "This description"),
        {200: ("OpenAPI 3.1.", JSON)},
        access="open",
        shared=True,
    ),
)


def description(writers: Writers | None = None, read_token: Token = NO_TOKEN) -> dict[str, Any]:
    """The document that `GET /openapi.json` answers with.

    writers, read_token : what the service asks of those who write and read.
    """
    paths: dict[str, dict[str, Any]] = {}
    used = {op.body: None for op in OPERATIONS if op.body}
    for op in OPERATIONS:
        paths.setdefault(op.path, {})[op.method] = op.describe()
        used |= {body: None for _, body in op.answers.values() if isinstance(body, type)}
    _, schemas = models_json_schema(
        [(model, "validation") for model in used], ref_template="#/components/schemas/{model}"
    )
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "heed",
            "version": version("heed"),
            "description": "The probability that somebody will act on an alert, read from the warehouse.",
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
    _describe_access(document, writers or Writers(), read_token)
    return document


def _describe_access(document: dict[str, Any], writers: Writers, read_token: Token) -> None:
    schemes: dict[str, Any] = {}
    reading: list[dict[str, list[str]]] = []
    if read_token:
        schemes |= _token_schemes("readToken", "readPassword", f"The service's shared token for reading, {READING}")
        reading = [{"readToken": []}, {"readPassword": []}]
    writing: list[dict[str, list[str]]] = [{}]
    if writers.token:
        schemes |= _token_schemes("token", "password", f"The service's shared token, {WRITING}")
        writing = [{"token": []}, {"password": []}]
        reading += writing if reading else []
    without = {"401": {"description": "The token is missing or wrong.", **_content(models.Error)}}
    refusals = dict(without) if writers.token else {}
    if writers.user_header:
        about = "Who asks. The proxy in front sets it; a name in the request does not count."
        schemes["user"] = {"type": "apiKey", "in": "header", "name": writers.user_header, "description": about}
        text = "Sent by a page of another site, or without a name from the proxy."
        refusals["403"] = {"description": text, **_content(models.Error)}
        writing = [{**each, "user": []} for each in writing]
        document["components"]["schemas"]["NewUndo"]["required"].remove("who")
    if not schemes:
        return
    document["components"]["securitySchemes"] = schemes
    for op in OPERATIONS:
        described = document["paths"][op.path][op.method]
        if op.access == "write" and writing != [{}]:
            described["security"] = writing
            described["responses"] = dict(sorted({**described["responses"], **refusals}.items()))
        elif op.access == "read" and reading:
            described["security"] = reading
            described["responses"] = dict(sorted({**described["responses"], **without}.items()))


def _token_schemes(token: str, password: str, about: str) -> dict[str, Any]:
    return {
        token: {"type": "http", "scheme": "bearer", "description": f"{about}."},
        password: {"type": "http", "scheme": "basic", "description": f"{about}, as the password."},
    }


def _content(body: type[BaseModel] | UnionType | str | None) -> dict[str, Any]:
    if body is None:
        return {}
    if isinstance(body, str):
        return {"content": {body: {"schema": {"type": "object" if body == JSON else "string"}}}}
    references = [{"$ref": f"#/components/schemas/{model.__name__}"} for model in get_args(body) or (body,)]
    schema: dict[str, Any] = dict(references[0]) if len(references) == 1 else {"anyOf": references}
    return {"content": {JSON: {"schema": schema}}}
