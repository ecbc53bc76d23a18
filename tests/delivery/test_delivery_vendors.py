"""Destinations of other companies: local servers that check what theirs check, and answer in their published shape."""

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dagster_project.delivery import deliver as delivery
from dagster_project.delivery.deliver import deliver, send_test
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Destination, Settings
from tests.delivery.conftest import VARIABLE, Receiver, Reply, Request, threshold

TOKEN = "y_NbAkKc66ryYTWUXYEu"
SYS_ID = "9d385017c611228701d22104cc95c371"


@pytest.fixture(autouse=True)
def _token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    monkeypatch.setattr(delivery, "FIRST_WAIT", timedelta(seconds=0.05))


def one(receiver: Receiver, above: float, **values: Any) -> Settings:
    values = {"url": receiver.url, "secret_from": VARIABLE, "above": above, **values}
    return Settings(destinations={"there": Destination(**values)})


class Comments:
    """The comments of one system. lost : the first answers that are written but never reach the sender."""

    def __init__(self, is_allowed: Callable[[Request], bool], text: Callable[[Any], str], shape: Callable[..., Any]):
        self.written: list[str] = []
        self.paths: list[str] = []
        self.lost = 1
        self._is_allowed, self._text, self._shape = is_allowed, text, shape

    def __call__(self, request: Request, number: int) -> Reply:
        if not self._is_allowed(request):
            return Reply(401, {"error": {"message": "Unauthorized"}})
        self.paths.append(request.path)
        if request.method == "GET":
            return Reply(200, self._shape(self.written, many=True))
        self.written.append(self._text(request.json))
        if self.lost:
            self.lost -= 1
            return Reply(504)
        return Reply(201, self._shape(self.written[-1:], many=False))


def pagerduty() -> Comments:
    def shape(notes: list[str], many: bool) -> Any:
        listed = [{"id": f"P{n}", "content": text, "user": {"type": "user_reference"}} for n, text in enumerate(notes)]
        return {"notes": listed} if many else {"note": listed[0]}

    def allowed(request: Request) -> bool:
        headers = request.headers
        return (
            headers.get("authorization") == f"Token token={TOKEN}"
            and headers.get("accept") == "application/vnd.pagerduty+json;version=2"
            and "@" in headers.get("from", "")
        )

    return Comments(allowed, lambda body: body["note"]["content"], shape)


def jira() -> Comments:
    basic = base64.b64encode(f"ada@example.com:{TOKEN}".encode()).decode()

    def shape(comments: list[str], many: bool) -> Any:
        listed = [{"id": str(n), "body": text} for n, text in enumerate(comments)]
        return {"startAt": 0, "maxResults": 50, "total": len(listed), "comments": listed} if many else listed[0]

    return Comments(lambda r: r.headers.get("authorization") == f"Basic {basic}", lambda body: body["body"], shape)


def sentry() -> Comments:
    def shape(comments: list[str], many: bool) -> Any:
        listed = [{"id": str(n), "type": "note", "data": {"text": text}} for n, text in enumerate(comments)]
        return listed if many else listed[0]

    return Comments(lambda r: r.headers.get("authorization") == f"Bearer {TOKEN}", lambda body: body["text"], shape)


@pytest.mark.parametrize(
    ("kind", "server", "user", "path"),
    [
        ("pagerduty", pagerduty, "ada@example.com", "/incidents/{}/notes"),
        ("jira", jira, "ada@example.com", "/rest/api/2/issue/{}/comment"),
        ("sentry", sentry, "", "/api/0/issues/{}/comments/"),
    ],
)
def test_a_comment_whose_answer_was_lost_is_not_written_twice(
    outgoing: Warehouse, receiver: Receiver, kind: str, server: Callable[[], Comments], user: str, path: str
) -> None:
    receiver.answer = comments = server()
    [result] = deliver(outgoing, one(receiver, threshold(outgoing, 3), kind=kind, user=user))
    assert (result.delivered, result.failed, result.note) == (3, 0, "")
    assert len(comments.written) == len(set(comments.written)) == 3
    assert all(text.startswith("heed: ") and text.endswith("]") for text in comments.written)
    alerts = outgoing.read("SELECT alert_id FROM scoring.deliveries ORDER BY probability DESC")["alert_id"]
    assert {each.split("?")[0] for each in comments.paths} == {path.format(alert) for alert in alerts}


def test_an_unknown_issue_is_given_up_and_the_others_are_not(outgoing: Warehouse, receiver: Receiver) -> None:
    comments = jira()
    comments.lost = 0

    def answer(request: Request, number: int) -> Reply:
        if number == 0:
            return Reply(404, {"errorMessages": ["Issue does not exist or you do not have permission to see it."]})
        return comments(request, number)

    receiver.answer = answer
    [result] = deliver(outgoing, one(receiver, threshold(outgoing, 2), kind="jira", user="ada@example.com"))
    assert (result.delivered, result.failed) == (1, 1)
    assert "Issue does not exist" in result.note


@pytest.mark.parametrize("by_number", [True, False])
def test_servicenow_gets_the_field_of_the_record(outgoing: Warehouse, receiver: Receiver, by_number: bool) -> None:
    record: dict[str, str] = {}

    def answer(request: Request, number: int) -> Reply:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Reply(401, {"error": {"message": "User Not Authenticated"}, "status": "failure"})
        if request.method == "GET":
            assert request.path.startswith("/api/now/table/incident?sysparm_query=number%3D")
            return Reply(200, {"result": [{"sys_id": SYS_ID}]})
        assert (request.method, request.path) == ("PATCH", f"/api/now/table/incident/{SYS_ID}")
        record.update(request.json)
        return Reply(200, {"result": {"sys_id": SYS_ID, **record}})

    receiver.answer = answer
    if not by_number:
        with outgoing.transaction() as cursor:
            cursor.execute(
                "UPDATE marts.alerts SET attributes = coalesce(attributes::jsonb, '{}') || jsonb_build_object("
                "'sys_id', $1::text) WHERE alert_id IN (SELECT alert_id FROM reporting.alert_scores_latest "
                "WHERE is_open AND probability IS NOT NULL ORDER BY probability DESC LIMIT 1)",
                parameters=(SYS_ID,),
            )
    settings = one(
        receiver,
        threshold(outgoing, 1),
        kind="servicenow",
        field="u_actionability",
        id_from="" if by_number else "sys_id",
    )
    [result] = deliver(outgoing, settings)
    assert (result.delivered, result.note) == (1, "")
    assert [request.method for request in receiver.requests] == (["GET", "PATCH"] if by_number else ["PATCH"])
    chance = outgoing.value("SELECT probability FROM scoring.deliveries")
    assert record == {"u_actionability": f"{100 * chance:.0f}"}


def test_an_alert_without_the_id_of_the_other_system_is_listed(outgoing: Warehouse, receiver: Receiver) -> None:
    settings = one(receiver, threshold(outgoing, 1), kind="sentry", id_from="sentry_issue")
    [result] = deliver(outgoing, settings)
    assert (result.failed, result.note) == (1, "the alert has no attribute sentry_issue")
    assert receiver.requests == []


def test_slack_and_others_get_a_text(outgoing: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Apprise: its generic JSON service here; it speaks Slack, mail and the others itself."""
    monkeypatch.setenv("HEED_CHAT", f"json://user:{TOKEN}@127.0.0.1:{receiver.port}/hook")
    above = threshold(outgoing, 2)
    settings = Settings(destinations={"chat": Destination(kind="apprise", url_from="HEED_CHAT", above=above)})
    receiver.answer = lambda request, number: Reply(500 if number == 0 else 200)
    assert deliver(outgoing, settings)[0].delivered == 2
    assert len(receiver.requests) == 3
    sent = [json.loads(request.body) for request in receiver.requests]
    assert sent[-1]["title"].split("%")[0].isdigit()
    assert "chance that somebody acts on this alert" in sent[-1]["message"]
    send_test("chat", settings)
    assert "test" in receiver.requests[-1].json["message"]


def test_a_server_that_says_when_by_a_date(outgoing: Warehouse, receiver: Receiver) -> None:
    from email.utils import format_datetime

    receiver.answer = lambda request, number: Reply(
        429, headers={"Retry-After": format_datetime(datetime.now(UTC) + timedelta(minutes=5), usegmt=True)}
    )
    [result] = deliver(outgoing, one(receiver, threshold(outgoing, 2), kind="sentry"), seconds=1)
    assert (result.waiting, len(receiver.requests)) == (2, 1)
    waits = outgoing.read(
        "SELECT extract(epoch FROM next_attempt_at - now())::double precision AS s FROM scoring.deliveries"
    )["s"]
    assert waits.between(290, 301).all()
