"""Who may write, and under which name: the shared token, and the header of a proxy."""

import base64
import html
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.api.openapi import description
from dagster_project.serving.tokens import NO_TOKEN, READING, WRITING, Token
from dagster_project.serving.writers import Writers
from dagster_project.settings import load_settings
from tests.conftest import Company
from tests.serving.conftest import HOSTILE_ID, Answer, Service, serving

TOKEN = "0123456789abcdef0123456789abcdef"
HEADER = "X-Forwarded-User"
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
BASIC = {"Authorization": "Basic " + base64.b64encode(f"Ann:{TOKEN}".encode()).decode()}
BEARER = {"Authorization": f"Bearer {TOKEN}"}
PROXY = {HEADER: "Jürgen Ångström".encode().decode("latin-1")}


@pytest.fixture(scope="module")
def with_token(copied: Warehouse, company: Company) -> Iterator[Service]:
    with serving(
        copied, lambda: company.end + timedelta(minutes=10), writers=Writers(Token(WRITING, TOKEN))
    ) as running:
        yield running


@pytest.fixture(scope="module")
def with_proxy(copied: Warehouse, company: Company) -> Iterator[Service]:
    with serving(copied, lambda: company.end + timedelta(minutes=10), writers=Writers(NO_TOKEN, HEADER)) as running:
        yield running


@pytest.fixture(scope="module")
def with_both(copied: Warehouse, company: Company) -> Iterator[Service]:
    with serving(
        copied, lambda: company.end + timedelta(minutes=10), writers=Writers(Token(WRITING, TOKEN), HEADER)
    ) as running:
        yield running


def feedback(service: Service, headers: dict[str, str], **parts: str) -> Answer:
    return service.ask(
        "/feedback", method="POST", body={"alert_id": HOSTILE_ID, "verdict": "useful", **parts}, headers=headers
    )


def feedback_rows(service: Service) -> int:
    return service.rows("SELECT count(*) FROM scoring.feedback")[0][0]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}0"},
        {"Authorization": "Bearer "},
        {"Authorization": TOKEN},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode()},
        {"Authorization": "Bearer \xff\xfe"},
        {"X-Token": TOKEN},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/feedback", "/closings/undo"])
def test_without_the_token_nothing_is_written(with_token: Service, headers: dict[str, str], path: str) -> None:
    before = feedback_rows(with_token)
    body = {"alert_id": HOSTILE_ID, "verdict": "useful", "who": "Ann", "why": "because"}
    answer = with_token.ask(path, method="POST", body=body, headers=headers)
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Basic ")
    assert set(answer.json) == {"error", "remedy"}
    assert TOKEN not in answer.text
    assert feedback_rows(with_token) == before


@pytest.mark.parametrize("headers", [BEARER, BASIC], ids=["bearer", "basic"])
def test_with_the_token_it_is_written_under_the_name_that_was_sent(
    with_token: Service, headers: dict[str, str]
) -> None:
    answer = feedback(with_token, headers, given_by="Ada")
    assert (answer.status, answer.json["given_by"]) == (201, "Ada")
    undo = {"alert_id": HOSTILE_ID, "who": "Ada", "why": "because"}
    assert with_token.ask("/closings/undo", method="POST", body=undo, headers=headers).status == 404  # none is closed


def test_the_token_does_not_let_other_sites_in(with_token: Service) -> None:
    assert feedback(with_token, {**BASIC, "Origin": "https://elsewhere.example"}).status == 403


def test_reading_needs_neither(with_both: Service) -> None:
    for path in ("/", "/health", "/openapi.json", "/static/board.css"):
        assert with_both.ask(path).status == 200
    assert with_both.ask("/scores", method="POST", body={"alert_ids": [HOSTILE_ID]}).status == 200


def test_the_name_comes_from_the_proxy_and_from_nowhere_else(with_proxy: Service) -> None:
    answer = feedback(with_proxy, PROXY, given_by="Somebody Else")
    assert (answer.status, answer.json["given_by"]) == (201, "Jürgen Ångström")
    assert with_proxy.rows("SELECT given_by FROM scoring.feedback ORDER BY feedback_id DESC LIMIT 1") == [
        ("Jürgen Ångström",)
    ]
    undo = {"alert_id": HOSTILE_ID, "why": "because"}
    assert with_proxy.ask("/closings/undo", method="POST", body=undo, headers=PROXY).status == 404  # a name is there


@pytest.mark.parametrize("value", [None, "", "  ", "x" * 201], ids=["none", "empty", "blank", "long"])
def test_without_one_name_from_the_proxy_nothing_is_written(with_proxy: Service, value: str | None) -> None:
    before = feedback_rows(with_proxy)
    answer = feedback(with_proxy, {} if value is None else {HEADER: value}, given_by="Ann")
    assert answer.status == 403
    assert HEADER in answer.json["error"]
    undo = {"alert_id": HOSTILE_ID, "who": "Ann", "why": "because"}
    assert with_proxy.ask("/closings/undo", method="POST", body=undo).status == 403
    assert feedback_rows(with_proxy) == before


def test_a_second_name_is_the_clients_own(with_proxy: Service) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", with_proxy.port, timeout=30)
    connection.putrequest("POST", "/feedback")
    body = f'{{"alert_id": "{"a"}", "verdict": "useful"}}'.encode()
    for name, value in ((HEADER, "Root"), (HEADER, "Ann"), ("Content-Length", str(len(body)))):
        connection.putheader(name, value)
    connection.endheaders(body)
    assert connection.getresponse().status == 403
    connection.close()


def test_with_both_the_proxy_has_to_show_the_token(with_both: Service) -> None:
    assert feedback(with_both, PROXY).status == 401
    assert feedback(with_both, BEARER).status == 403
    assert feedback(with_both, {**PROXY, **BEARER}).json["given_by"] == "Jürgen Ångström"


def forms(page: str, action: str) -> list[dict[str, str]]:
    """The hidden fields of the board's forms."""
    return [
        {name: html.unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)}
        for form in re.findall(rf'<form method="post" action="{action}">(.*?)</form>', page, re.DOTALL)
    ]


@pytest.mark.parametrize("by", ["", "Somebody Else"])
def test_the_boards_forms_work_with_both(with_both: Service, by: str) -> None:
    page = with_both.ask(f"/?{urlencode({'by': by})}", headers=PROXY)
    assert page.status == 200
    assert "Signed in as <bdi>Jürgen Ångström</bdi>" in page.text
    assert 'name="by"' not in page.text
    fields = forms(page.text, "/feedback")[0]
    assert "given_by" not in fields
    sent = urlencode({**fields, "verdict": "useful"})
    assert with_both.ask("/feedback", method="POST", body=sent, headers={**FORM, **PROXY}).status == 401
    answer = with_both.ask("/feedback", method="POST", body=sent, headers={**FORM, **PROXY, **BASIC})
    assert answer.status == 303
    shown = with_both.ask("/", headers=PROXY).text
    assert "“useful” noted by <bdi>Jürgen Ångström</bdi>" in shown


def test_the_board_says_when_nobody_is_signed_in(with_proxy: Service) -> None:
    assert "Not signed in: feedback is not accepted" in with_proxy.ask("/").text


def test_the_description_says_what_is_asked_for(with_both: Service, with_token: Service) -> None:
    document = with_both.ask("/openapi.json").json
    assert set(document["components"]["securitySchemes"]) == {"token", "password", "user"}
    assert document["components"]["securitySchemes"]["user"]["name"] == HEADER
    for path in ("/feedback", "/closings/undo"):
        request = document["paths"][path]["post"]
        assert request["security"] == [{"token": [], "user": []}, {"password": [], "user": []}]
        assert {"401", "403"} <= set(request["responses"])
    assert document["components"]["schemas"]["NewUndo"]["required"] == ["alert_id", "why"]
    assert "security" not in document["paths"]["/scores"]["post"]
    assert set(with_token.ask("/openapi.json").json["components"]["securitySchemes"]) == {"token", "password"}
    assert "securitySchemes" not in description()["components"]


@pytest.mark.parametrize("variable", [WRITING, READING])
@pytest.mark.parametrize("token", ["short", "with blanks in it, and long", "ä" * 20, "line\nbreak" * 4])
def test_a_token_that_keeps_nobody_out_is_refused(token: str, variable: str) -> None:
    with pytest.raises(HeedError, match=variable) as refused:
        Token.of(variable, token)
    assert token not in str(refused.value)
    assert not Token.of(variable, "")
    assert not Token.of(variable, None)


@pytest.mark.parametrize("name", ["X Forwarded", "X-User:", "Authorization", "cookie", "X_Ü"])
def test_an_impossible_header_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "heed.toml").write_text(f"[serving]\nuser_header = {name!r}\n")
    with pytest.raises(HeedError, match=r"heed\.toml:2: serving\.user_header"):
        load_settings(tmp_path / "heed.toml")
