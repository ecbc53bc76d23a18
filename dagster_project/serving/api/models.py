"""The JSON that the service takes and answers, as pydantic models: they check requests and become OpenAPI's schemas.

Belongs here: fields with their limits and descriptions, and what is wrong with a request, in one line.
Does not belong here: paths and status codes (`openapi.py`), reading and writing (`scores.py`, `feedback.py`,
`closing.py`).

Only requests are checked here. Answers are built by heed itself; a test holds them against their models.
"""

from __future__ import annotations

import re
from datetime import datetime
from reprlib import Repr
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from dagster_project.serving.api.scores import MOST_ID_BYTES, MOST_IDS, is_possible_id
from dagster_project.serving.problem import Problem

MOST_TEXT = 200


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Request(_Document):
    example: ClassVar[str]

    @classmethod
    def read(cls, sent: Any) -> Self:
        """A checked request, from parsed JSON or the fields of a form.

        Raises Problem: 422, with the first thing that is wrong.
        """
        try:
            return cls.model_validate(sent)
        except ValidationError as error:
            raise cls._problem(error) from error

    @classmethod
    def _problem(cls, error: ValidationError) -> Problem:
        first = error.errors(include_url=False, include_context=False)[0]
        kind, remedy = first["type"], f"send {cls.example}"
        if not first["loc"]:
            return Problem(422, "what was sent cannot be read as a JSON object", remedy)
        field, *within = first["loc"]
        place = f"{field}[{within[0]}]" if within else str(field)
        if kind == "extra_forbidden":
            return Problem(422, f"there is no field {shown(field)}", f"send only {', '.join(cls.model_fields)}")
        if kind == "missing":
            return Problem(422, f"{place} is missing", remedy)
        # pydantic words it well, except that people do not read regular expressions.
        reason = "blank, or with NUL" if kind == "string_pattern_mismatch" else first["msg"]
        about = cls.model_fields[str(field)].description
        return Problem(422, f"{place} is {shown(first['input'])}: {reason[0].lower()}{reason[1:]}", f"{field}: {about}")


def shown(value: Any) -> str:
    """What was sent, quoted and cut, for a message."""
    return _QUOTED.repr(value)


_QUOTED = Repr()
_QUOTED.maxstring = _QUOTED.maxother = _QUOTED.maxlong = 60
_QUOTED.maxlist = _QUOTED.maxdict = _QUOTED.maxlevel = 2


def _alert_id(text: str) -> str:
    if not is_possible_id(text):
        raise PydanticCustomError("alert_id", f"an ID has at most {MOST_ID_BYTES:,} bytes")
    return text


# The patterns are part of the OpenAPI description, so Rust, Python and JavaScript have to agree on them. What counts as
# white space differs between the three: this is what any of them takes for it, and control characters.
_VISIBLE = r"[^\s\u0000-\u001f\u0085\ufeff]"
_NO_NUL = r"^[^\u0000]*$"
_NOT_BLANK = rf"^[^\u0000]*{_VISIBLE}[^\u0000]*$"


def _trimmed(text: str | None) -> str | None:
    return text.strip() if text and re.search(_VISIBLE, text) else None


AlertId = Annotated[str, Field(min_length=1, max_length=MOST_ID_BYTES, pattern=_NO_NUL), AfterValidator(_alert_id)]
RequiredText = Annotated[str, Field(min_length=1, max_length=MOST_TEXT, pattern=_NOT_BLANK), AfterValidator(str.strip)]
OptionalText = Annotated[Annotated[str, Field(max_length=MOST_TEXT, pattern=_NO_NUL)] | None, AfterValidator(_trimmed)]
_ID_TEXT = f"1 to {MOST_ID_BYTES:,} bytes of text without NUL"


class Wanted(_Request):
    """The alerts whose scores are asked for."""

    example = '{"alert_ids": ["..."]}'
    alert_ids: list[AlertId] = Field(
        min_length=1, max_length=MOST_IDS, description=f"1 to {MOST_IDS:,} alert IDs, each {_ID_TEXT}."
    )


Cell = Annotated[str, Field(max_length=10_000, pattern=_NO_NUL)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
RequiredCell = Annotated[str, Field(min_length=1, max_length=1_000, pattern=_NOT_BLANK)]


class PushedAlert(_Document):
    """A row of `raw.alerts`. `attributes`: further facts that were known when it was raised."""

    alert_id: RequiredCell
    raised_at: RequiredCell
    rule: RequiredCell
    entity: Cell | None = None
    team: Cell | None = None
    severity: Cell | None = None
    value: Cell | Number | None = None
    threshold: Cell | Number | None = None
    title: Cell | None = None
    attributes: dict[str, Any] | None = None


class PushedAction(_Document):
    """A row of `raw.actions`."""

    action_id: RequiredCell
    alert_id: RequiredCell
    acted_at: RequiredCell
    action_type: RequiredCell
    actor: Cell | None = None


class PushedRows(_Request):
    """Alerts, and what was done about them, in heed's own form."""

    example = '{"alerts": [{"alert_id": "...", "raised_at": "...", "rule": "..."}], "actions": []}'
    alerts: list[PushedAlert] = Field([], max_length=10_000, description="at most 10,000 alerts.")
    actions: list[PushedAction] = Field([], max_length=10_000, description="at most 10,000 actions.")


class Received(_Document):
    """What a webhook said. It is stored, now or before: the same one again changes nothing."""

    alerts: int = Field(description="Alerts in it.")
    actions: int = Field(description="Actions in it.")
    ignored: int = Field(description="Events in it that are neither.")


class NewFeedback(_Request):
    """What somebody says about a score. model_version None: the newest score."""

    example = '{"alert_id": "...", "verdict": "useful"}'
    alert_id: AlertId = Field(description=f"The alert's ID: {_ID_TEXT}.")
    verdict: Literal["useful", "wrong"] = Field(description="About the score, not the alert: useful or wrong.")
    model_version: OptionalText = Field(
        None, description=f"The version whose score it is, at most {MOST_TEXT} characters; by default the newest."
    )
    given_by: OptionalText = Field(None, description=f"Who says so, at most {MOST_TEXT} characters; optional.")


class NewUndo(_Request):
    """heed's decision to close an alert, taken back."""

    example = '{"alert_id": "...", "who": "...", "why": "..."}'
    alert_id: AlertId = Field(description=f"The alert's ID: {_ID_TEXT}.")
    who: RequiredText = Field(description=f"Who takes it back: 1 to {MOST_TEXT} characters.")
    why: RequiredText = Field(description=f"Why: 1 to {MOST_TEXT} characters.")


class Error(_Document):
    error: str = Field(description="What is wrong.")
    remedy: str = Field(description="What to do about it.")


class Freshness(_Document):
    as_of: datetime = Field(description="The newest published scores use data through this time.")
    published_at: datetime = Field(description="When they were written.")
    age_seconds: int = Field(description="Seconds since as_of.")
    stale: bool = Field(description="Two scheduled refreshes have passed without a publication.")
    stale_before: datetime = Field(description="Scores with an earlier as_of are stale.")


class Flags(_Document):
    flood: bool = Field(description="Part of a burst that looks like a bug.")
    visibility_only: bool = Field(description="Nobody is expected to act on its rule.")
    unpredictable_team: bool = Field(description="The audit found the team's decisions unpredictable.")
    new_rule: bool = Field(description="Raised in the first week of its rule.")


class TeamPredictability(_Document):
    """How well the team's decisions can be predicted, for the version that scored."""

    status: Literal["predictable", "partly", "unpredictable", "too few"] = Field(description="The audit's verdict.")
    reason: str = Field(description="Why, in words.")
    skill: float | None = Field(description="Log-loss skill over the team's own constant rate.")
    auc: float | None = Field(description="0.5 is no better than a coin.")
    as_of: datetime = Field(description="When the audit was made.")


class Score(_Document):
    alert_id: str
    rule: str = Field(description="The rule that fired.")
    entity: str | None = Field(description="What the alert is about.")
    team: str | None = Field(description="The team it was routed to.")
    severity: str | None = Field(description="Severity, in lower case.")
    title: str | None = Field(description="Title or message.")
    raised_at: datetime
    probability: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="Actionability now: the probability that somebody acts on the alert within the horizon, given "
        "that nobody has decided it by read_at. For a flagged alert, the share of its kind that is still acted on. "
        "Null while an alert of the random holdout is open."
    )
    probability_at_raise: Annotated[float, Field(ge=0, le=1)] | None = Field(
        description="The probability from what was known when the alert was raised."
    )
    low: float | None = Field(description="For a flagged alert: lower end of the 95% interval of its kind's share.")
    high: float | None = Field(description="Upper end of the same interval.")
    flag_words: str | None = Field(description="What is true of open alerts with this flag, in words.")
    read_at: datetime = Field(
        description="The time for which probability is given: now, at most an hour after the newest publication."
    )
    status: Literal["model", "baseline", "prior", "holdout"] = Field(
        description="What produced the probability. holdout: none is shown; the alert was drawn at random to measure "
        "what scores change."
    )
    reasons: list[str] = Field(
        max_length=4,
        description="In words, the strongest first; before them, where waiting has changed the chance, how long nobody "
        "has decided. Contains text from alerts: escape it.",
    )
    flags: Flags
    team_predictability: TeamPredictability | None
    model_version: str = Field(description="The version that scored.")
    as_of: datetime = Field(description="The score uses data through this time.")
    scored_at: datetime = Field(description="When it was written. A score is written only when it changes.")
    is_open: bool = Field(description="No outcome is known yet.")
    outcome: str | None = Field(description="acted or not_acted; null until it is known.")
    known_at: datetime | None = Field(description="When the outcome became known.")


class FreshScore(Score):
    freshness: Freshness


class Scores(_Document):
    scores: list[Score] = Field(description="In the order asked for.")
    unknown: list[str] = Field(description="IDs without a score.")
    freshness: Freshness


class Change(_Document):
    alert_id: str
    change: Literal["scored", "decided", "reopened", "gone"] = Field(
        description="The newest change: scored, for the first time or differently; decided, or decided differently; "
        "reopened; gone: it was taken out of the source. An alert that you do not know is new, whatever this says."
    )
    score: Score | None = Field(description="Its newest score, for this moment; null where the alert is gone.")


class Changes(_Document):
    changes: list[Change] = Field(description="In the order of their publication, each alert at its newest change.")
    next: str = Field(description="The cursor to send as `since`. Opaque: do not compare or calculate with it.")
    more: bool = Field(description="There are more changes already: ask again at once.")
    freshness: Freshness


class OpenAlerts(_Document):
    alerts: list[Score] = Field(
        description="In the order of the board: by probability, flagged alerts last; those without a number at random "
        "places."
    )
    matching: int = Field(description="Open alerts in all that were asked for.")
    freshness: Freshness


class Feedback(_Document):
    feedback_id: int
    alert_id: str
    model_version: str = Field(description="The version whose score it is.")
    verdict: Literal["useful", "wrong"]
    given_by: str | None
    given_at: datetime


class Undo(_Document):
    alert_id: str
    who: str
    why: str
    rule: str = Field(description="The rule, which is now paused.")


class Health(_Document):
    status: Literal["ok", "stale"]
    model_version: str | None = Field(description="The version that scored last.")
    freshness: Freshness
