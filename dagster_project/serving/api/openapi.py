"""The OpenAPI description of the service, written by hand; a test holds it against the routes and against answers.

Belongs here: paths, parameters, schemas. Does not belong here: behaviour.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from dagster_project.serving.api.feedback import VERDICTS
from dagster_project.serving.api.scores import MOST_ID_BYTES, MOST_IDS
from dagster_project.serving.api.validation import BLANK, MOST_TEXT
from dagster_project.serving.board.board import AGES, FLAGS
from dagster_project.serving.writers import TOKEN_VARIABLE, Writers


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _time(description: str) -> dict[str, Any]:
    return _text(description, format="date-time")


def _or_null(schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


def _object(properties: dict[str, Any], description: str = "", optional: tuple[str, ...] = ()) -> dict[str, Any]:
    made: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }
    return {**made, "description": description} if description else made


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(description: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


# Also at most 1,000 bytes, which JSON Schema cannot say.
_TEXT_WITHOUT_NUL = {"pattern": "^[^\\u0000]*$"}
_ID_TEXT = {"minLength": 1, "maxLength": MOST_ID_BYTES, **_TEXT_WITHOUT_NUL}
_YES_NO = {"type": "boolean"}
_NUMBER = {"type": "number"}
_MISSING = {"404": _answer("No such alert, or no score of it; the text says which.", _ref("Error"))}
_DOWN = {"503": _answer("The warehouse is not there, or holds no scores yet.", _ref("Error"))}
_BAD = {"422": _answer("What was sent cannot be read.", _ref("Error"))}
_TOO_LARGE = {"413": _answer("More was sent than is read.", _ref("Error"))}
_FOREIGN = {"403": _answer("Sent by a page of another site.", _ref("Error"))}
_ID = {
    "name": "alert_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "Percent-encoded.",
}
_PICTURE = {"image/svg+xml": {"schema": {"type": "string"}}}

_SCORE = {
    "alert_id": _text("The alert."),
    "rule": _text("The rule that fired."),
    "entity": _or_null(_text("What the alert is about.")),
    "team": _or_null(_text("The team it was routed to.")),
    "severity": _or_null(_text("Severity in small letters.")),
    "title": _or_null(_text("Title or message.")),
    "raised_at": _time("When it was raised."),
    "probability": _or_null(
        {
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "description": "Actionability: the probability that somebody acts on the alert within the horizon. Null "
            "while an alert of the random holdout is open.",
        }
    ),
    "status": _text(
        "What gave the probability; holdout: none is shown, because the alert was drawn at random to measure what "
        "scores change.",
        enum=["model", "baseline", "prior", "holdout"],
    ),
    "reasons": {
        "type": "array",
        "maxItems": 3,
        "items": {"type": "string"},
        "description": "In words, the strongest first. Plain text that holds text from alerts: escape it.",
    },
    "flags": _object(
        {
            "flood": {**_YES_NO, "description": "Part of a burst that looks like a bug."},
            "visibility_only": {**_YES_NO, "description": "Nobody is expected to act on its rule."},
            "unpredictable_team": {**_YES_NO, "description": "The audit found the team's decisions unpredictable."},
            "new_rule": {**_YES_NO, "description": "Raised in the first week of its rule."},
        }
    ),
    "team_predictability": {"oneOf": [_ref("TeamPredictability"), {"type": "null"}]},
    "model_version": _text("The version that scored."),
    "as_of": _time("The moment at which the score stands: it knows nothing later."),
    "scored_at": _time("When it was written. A score is written only when it changes."),
    "is_open": {**_YES_NO, "description": "No outcome is known yet."},
    "outcome": _or_null(_text("acted or not_acted; null while it is not known.")),
    "known_at": _or_null(_time("When the outcome became known.")),
}


_SAID_TEXT = {"minLength": 1, "maxLength": MOST_TEXT, "pattern": f"^[^\\u0000]*[^{BLANK}][^\\u0000]*$"}
_UNDO = {
    "alert_id": _text("The alert.", **_ID_TEXT),
    "who": _text("Who takes it back.", **_SAID_TEXT),
    "why": _text("And why.", **_SAID_TEXT),
}

_QUERY = {
    "team": "A team's name; a blank for alerts without a team.",
    "rule": "A rule's name.",
    "age": f"One of {', '.join(name for name in AGES if name)}: days, or older than 7 days.",
    "flag": f"One of {', '.join(name for name in FLAGS if name)}.",
    "threshold": "Percent, 0 to 100: where the line in the table and the figures stand.",
    "page": "From 1.",
    "by": "A name for feedback.",
}


def description(writers: Writers | None = None) -> dict[str, Any]:
    """The document that `GET /openapi.json` answers with. writers : what the service asks of those who write."""
    document = _document()
    if writers is not None:
        _ask_of_writers(document, writers)
    return document


def _ask_of_writers(document: dict[str, Any], writers: Writers) -> None:
    schemes: dict[str, Any] = {}
    refusals: dict[str, Any] = {}
    needed: list[dict[str, list[str]]] = [{}]
    if writers.token:
        about = f"The service's shared token, {TOKEN_VARIABLE}"
        schemes["token"] = {"type": "http", "scheme": "bearer", "description": f"{about}."}
        schemes["password"] = {"type": "http", "scheme": "basic", "description": f"{about}, as the password."}
        refusals["401"] = _answer("The token is missing or wrong.", _ref("Error"))
        needed = [{"token": []}, {"password": []}]
    if writers.user_header:
        schemes["user"] = {
            "type": "apiKey",
            "in": "header",
            "name": writers.user_header,
            "description": "Who asks. The proxy in front sets it; a name in what is sent does not count.",
        }
        refusals["403"] = _answer("Sent by a page of another site, or without a name from the proxy.", _ref("Error"))
        needed = [{**each, "user": []} for each in needed]
        schemas = document["components"]["schemas"]
        schemas["NewUndo"] = {**schemas["NewUndo"], "required": ["alert_id", "why"]}
    if schemes:
        document["components"]["securitySchemes"] = schemes
        for path in ("/feedback", "/closings/undo"):
            request = document["paths"][path]["post"]
            request["security"] = needed
            request["responses"] = dict(sorted({**request["responses"], **refusals}.items()))


def _document() -> dict[str, Any]:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "heed",
            "version": version("heed"),
            "description": "The probability that somebody will act on an alert, read from the warehouse.",
        },
        "paths": {
            "/": {
                "get": {
                    "summary": "The board for triagers",
                    # A value that means nothing is read as none, so that a bookmark never breaks.
                    "parameters": [
                        {"name": name, "in": "query", "schema": {"type": "string"}, "description": meaning}
                        for name, meaning in _QUERY.items()
                    ],
                    "responses": {
                        "200": _answer("A page.", {"type": "string"}, "text/html"),
                        "503": _answer("A page that says why.", {"type": "string"}, "text/html"),
                    },
                }
            },
            "/alerts/{alert_id}/score": {
                "get": {
                    "summary": "The newest score of an alert",
                    "parameters": [_ID],
                    "responses": {"200": _answer("The score.", _ref("FreshScore")), **_MISSING, **_DOWN},
                }
            },
            "/alerts/{alert_id}/badge.svg": {
                "get": {
                    "summary": "The score as a small picture",
                    "parameters": [_ID],
                    "responses": {
                        status: {"description": said, "content": _PICTURE}
                        for status, said in (
                            ("200", "The badge."),
                            ("404", "A badge that says 'not scored'."),
                            ("503", "A badge that says 'unavailable'."),
                        )
                    },
                }
            },
            "/scores": {
                "post": {
                    "summary": "The newest scores of many alerts",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("Wanted")}}},
                    "responses": {
                        "200": _answer("Scores in the order asked for; ids without one are listed.", _ref("Scores")),
                        **_FOREIGN,
                        **_TOO_LARGE,
                        **_BAD,
                        **_DOWN,
                    },
                }
            },
            "/feedback": {
                "post": {
                    "summary": "Say that a score was useful, or wrong",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("NewFeedback")}}},
                    "responses": {
                        "201": _answer("Written.", _ref("Feedback")),
                        "303": {"description": "Written; from the board's form."},
                        **_FOREIGN,
                        **_MISSING,
                        "409": _answer("Its score is not shown: it was drawn at random.", _ref("Error")),
                        **_TOO_LARGE,
                        **_BAD,
                        **_DOWN,
                    },
                }
            },
            "/closings/undo": {
                "post": {
                    "summary": "Take back that heed decided to close an alert; its rule is paused",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("NewUndo")}}},
                    "responses": {
                        "201": _answer("Written.", _ref("Undo")),
                        "303": {"description": "Written; from the board's form."},
                        **_FOREIGN,
                        "404": _answer("heed never decided to close it.", _ref("Error")),
                        "409": _answer("It was taken back before.", _ref("Error")),
                        **_TOO_LARGE,
                        **_BAD,
                        **_DOWN,
                    },
                }
            },
            "/health": {
                "get": {
                    "summary": "Whether scores can be read, and how fresh they are",
                    "responses": {"200": _answer("They can.", _ref("Health")), **_DOWN},
                }
            },
            "/health/fresh": {
                "get": {
                    "summary": "Whether scores can be read and are fresh",
                    "responses": {"200": _answer("They are.", _ref("Health")), **_DOWN},
                }
            },
            "/metrics": {
                "get": {
                    "summary": "Numbers for monitoring, in Prometheus' text format",
                    "responses": {
                        "200": {"description": "Text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
                    },
                }
            },
            "/openapi.json": {
                "get": {
                    "summary": "This description",
                    "responses": {"200": _answer("OpenAPI 3.1.", {"type": "object"})},
                }
            },
        },
        "components": {
            "schemas": {
                "Error": _object({"error": _text("What is wrong."), "remedy": _text("What to do about it.")}),
                "Freshness": _object(
                    {
                        "as_of": _time("The moment at which the newest published scores stand."),
                        "published_at": _time("When they were written."),
                        "age_seconds": {"type": "integer", "description": "Seconds since as_of."},
                        "stale": {
                            **_YES_NO,
                            "description": "Two scheduled refreshes have passed without a publication.",
                        },
                        "stale_before": _time("Scores that stand earlier than this are stale."),
                    }
                ),
                "TeamPredictability": _object(
                    {
                        "status": _text("Of the audit.", enum=["predictable", "partly", "unpredictable", "too few"]),
                        "reason": _text("Why, in words."),
                        "skill": _or_null(
                            {**_NUMBER, "description": "Log-loss skill over the team's own constant share."}
                        ),
                        "auc": _or_null({**_NUMBER, "description": "0.5 is a coin."}),
                        "as_of": _time("The moment of the audit."),
                    },
                    "How well the team's decisions can be foreseen, by the version that scored.",
                ),
                "Score": _object(_SCORE),
                "FreshScore": _object({**_SCORE, "freshness": _ref("Freshness")}),
                "Wanted": _object(
                    {
                        "alert_ids": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": MOST_IDS,
                            "items": {"type": "string", **_ID_TEXT},
                        }
                    }
                ),
                "Scores": _object(
                    {
                        "scores": {"type": "array", "items": _ref("Score")},
                        "unknown": {
                            "type": "array",
                            "items": {"type": "string"},
                            "description": "Ids without a score.",
                        },
                        "freshness": _ref("Freshness"),
                    }
                ),
                "NewFeedback": _object(
                    {
                        "alert_id": _text("The alert.", **_ID_TEXT),
                        "verdict": _text("About the score, not the alert.", enum=list(VERDICTS)),
                        "model_version": _or_null(
                            _text("Whose score; the newest by default.", maxLength=MOST_TEXT, **_TEXT_WITHOUT_NUL)
                        ),
                        "given_by": _or_null(_text("Who says so.", maxLength=MOST_TEXT, **_TEXT_WITHOUT_NUL)),
                    },
                    optional=("model_version", "given_by"),
                ),
                "Feedback": _object(
                    {
                        "feedback_id": {"type": "integer"},
                        "alert_id": _text("The alert."),
                        "model_version": _text("Whose score."),
                        "verdict": _text("useful or wrong.", enum=list(VERDICTS)),
                        "given_by": _or_null(_text("Who says so.")),
                        "given_at": _time("When."),
                    }
                ),
                "NewUndo": _object(_UNDO),
                "Undo": _object({**_UNDO, "rule": _text("The rule, which is paused.")}),
                "Health": _object(
                    {
                        "status": _text("ok or stale.", enum=["ok", "stale"]),
                        "model_version": _or_null(_text("The version that scored last.")),
                        "freshness": _ref("Freshness"),
                    }
                ),
            }
        },
    }
