"""Who may read: the token for reading, and the pages of other sites that may (CORS). The other guards stay."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.api.openapi import OPERATIONS
from dagster_project.serving.tokens import READING, WRITING, Token
from dagster_project.serving.writers import Writers
from dagster_project.settings import load_settings
from tests.conftest import Company
from tests.serving.conftest import HOSTILE_ID, Answer, Service, serving

READ, WRITE = "r" * 32, "w" * 32
ORIGIN = "https://alerts.example.com"
OTHERS = ("https://alerts.example.com.evil.example", "http://alerts.example.com", "https://example.com", "null")
SCORE = f"/alerts/{quote(HOSTILE_ID, safe='')}/score"
READABLE = ("/alerts", SCORE, SCORE.replace("/score", "/badge.svg"), "/health", "/health/fresh", "/openapi.json")


@pytest.fixture(scope="module")
def open_to_pages(copied: Warehouse, company: Company) -> Iterator[Service]:
    """With both tokens, and one origin."""
    with serving(
        copied,
        lambda: company.end + timedelta(minutes=10),
        writers=Writers(Token(WRITING, WRITE)),
        read_token=Token(READING, READ),
        origins=[ORIGIN],
    ) as running:
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def preflight(service: Service, path: str, method: str, origin: str = ORIGIN) -> Answer:
    asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization,content-type"}
    return service.ask(path, method="OPTIONS", headers={"Origin": origin, "Sec-Fetch-Site": "cross-site", **asked})


def send(service: Service, path: str, method: str, headers: dict[str, str]) -> Answer:
    body = {"alert_ids": [HOSTILE_ID]} if path == "/scores" else {"alert_id": HOSTILE_ID, "verdict": "useful"}
    return service.ask(path, method=method, body=body if method == "POST" else None, headers=headers)


def test_what_shows_alerts_needs_the_token_and_the_writing_one_opens_it_too(open_to_pages: Service) -> None:
    """The same list for every operation that there is, so that a new one cannot be forgotten."""
    needs = {op.name for op in OPERATIONS if op.access == "read"}
    assert needs == {"board", "alerts", "score", "badge", "scores", "metrics"}
    for op in OPERATIONS:
        path = op.path.replace("{alert_id}", quote(HOSTILE_ID, safe="")).replace("{name}", "none")
        answer = send(open_to_pages, path, op.method.upper(), {})
        assert (answer.status == 401) == (op.access != "open"), op.name
        if op.access == "read":
            assert answer.headers["www-authenticate"].startswith("Basic ")
            assert set(answer.json) == {"error", "remedy"}
            assert send(open_to_pages, path, op.method.upper(), bearer(READ + "r")).status == 401
            for token in (READ, WRITE):
                assert send(open_to_pages, path, op.method.upper(), bearer(token)).status == 200, op.name
    assert send(open_to_pages, "/feedback", "POST", bearer(READ)).status == 401
    assert send(open_to_pages, "/feedback", "POST", bearer(WRITE)).status == 201
    described = open_to_pages.ask("/openapi.json").json
    for op in OPERATIONS:
        operation = described["paths"][op.path][op.method]
        assert ("security" in operation) == ("401" in operation["responses"]) == (op.access != "open") or (
            op.name == "webhook"
        )


def test_a_page_of_the_origin_reads_as_a_browser_lets_it(open_to_pages: Service) -> None:
    """A browser asks first, without a token; then it sends the request, and shows the page an answer that names it."""
    foreign = {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site"}
    for path, method in (*((path, "GET") for path in READABLE), ("/scores", "POST")):
        asked = preflight(open_to_pages, path, method)
        assert asked.status == 200, path
        assert asked.headers["access-control-allow-origin"] == ORIGIN
        assert method in asked.headers["access-control-allow-methods"]
        assert "authorization" in asked.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-credentials" not in asked.headers
        answer = send(open_to_pages, path, method, {**foreign, **bearer(READ)})
        assert answer.status == 200, path
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "Origin" in answer.headers["vary"]
    refused = send(open_to_pages, "/scores", "POST", foreign)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)  # the page may see why


def test_the_other_guards_stay(open_to_pages: Service, service: Service) -> None:
    foreign = {"Origin": ORIGIN, "Sec-Fetch-Site": "cross-site", **bearer(WRITE)}
    for path in ("/feedback", "/closings/undo"):  # nor may the allowed origin write
        assert preflight(open_to_pages, path, "POST").status == 405
        answer = send(open_to_pages, path, "POST", foreign)
        assert answer.status == 403
        assert "access-control-allow-origin" not in answer.headers
    for path in ("/", "/metrics", "/static/board.css"):
        assert "access-control-allow-origin" not in send(open_to_pages, path, "GET", foreign).headers
    for origin in OTHERS:
        assert "access-control-allow-origin" not in preflight(open_to_pages, "/scores", "POST", origin).headers
        other = {**foreign, "Origin": origin}
        assert send(open_to_pages, "/scores", "POST", other).status == 403
        assert "access-control-allow-origin" not in send(open_to_pages, SCORE, "GET", other).headers
    assert send(open_to_pages, "/alerts", "GET", {**foreign, "Host": "rebound.example"}).status == 421
    # Without the setting, no page of another site reads anything.
    assert preflight(service, "/scores", "POST").status == 405
    assert send(service, "/scores", "POST", foreign).status == 403
    assert "access-control-allow-origin" not in send(service, SCORE, "GET", foreign).headers


@pytest.mark.parametrize(
    "origin",
    ["*", "alerts.example.com", "https://alerts.example.com/", "https://Alerts.example.com", "null", "https://*.a.com"],
)
def test_what_is_no_origin_is_refused(origin: str, tmp_path: Path) -> None:
    (tmp_path / "heed.toml").write_text(f'[serving]\norigins = ["{origin}"]\n')
    with pytest.raises(HeedError, match=r"heed\.toml:2: serving\.origins.*like 'https://alerts\.example\.com'"):
        load_settings(tmp_path / "heed.toml")


def test_origins_are_read(tmp_path: Path) -> None:
    (tmp_path / "heed.toml").write_text(f'[serving]\norigins = ["{ORIGIN}", "http://[::1]:3000"]\n')
    assert load_settings(tmp_path / "heed.toml").serving.origins == (ORIGIN, "http://[::1]:3000")
