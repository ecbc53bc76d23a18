"""The board: what it shows, that text stays text, and that a person can use it in a browser."""

import html
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

import dagster_project.serving.board.board as board_module
from dagster_project.resources.stores.autoclose import read_states
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.board.board import Board
from dagster_project.serving.freshness import Freshness
from dagster_project.serving.pool import Pool
from tests.conftest import Company
from tests.serving.conftest import HOSTILE, HOSTILE_ID, REASON, Service, serving


def chances(text: str) -> list[float]:
    return [float(chance) for chance in re.findall(r'data-probability="([^"]+)"', text)]


def test_open_alerts_stand_in_order_a_hundred_a_page(service: Service) -> None:
    first = service.ask("/")
    assert first.status == 200
    assert first.text.count('<th role="rowheader"') == 100
    second = chances(service.ask("/?page=2").text)
    together = chances(first.text) + second
    assert together == sorted(together, reverse=True)
    [(wanted,)] = service.rows("SELECT count(*) FROM reporting.alert_scores_latest WHERE is_open")
    shown = re.search(r"([\d,]+) open alerts", first.text)
    assert shown is not None
    assert int(shown[1].replace(",", "")) == wanted


def test_text_from_outside_stays_text(service: Service) -> None:
    answer = service.ask("/?flag=new_rule")
    assert "<script>alert" not in answer.text
    assert "<img" not in answer.text
    for text in (HOSTILE["rule"], REASON[0].upper() + REASON[1:], HOSTILE["team"]):
        assert html.escape(text[:50], quote=False).replace('"', "&#34;").replace("'", "&#39;") in answer.text
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert " style=" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert "set-cookie" not in answer.headers
    hostile = service.ask("/?team=%22%3E%3Cscript%3Ealert(1)%3C/script%3E&by=%22%3E%3Cimg%20src=x%3E&threshold=%3Cb%3E")
    assert hostile.status == 200
    assert "<script>alert" not in hostile.text
    assert "<img" not in hostile.text


def test_the_page_is_made_for_keyboards_and_screen_readers(service: Service) -> None:
    text = service.ask("/").text
    assert '<html lang="en">' in text
    assert text.count("<h1") == 1
    assert 'class="skip"' in text
    names = re.findall(r'<button type="submit" name="verdict"[^>]*aria-label="([^"]+)"', text)
    assert len(names) == 2 * len(chances(text))  # a score that is not shown cannot be judged
    assert len(set(names)) == len(names), "two buttons have the same name"
    assert len(re.findall(r'<th role="rowheader" scope="row"', text)) == 100


def test_a_filter_that_finds_nothing_says_so(service: Service) -> None:
    text = service.ask("/?team=nobody").text
    assert "No open alert matches" in text
    assert '<option value="nobody" selected>' in text


def test_the_threshold_works_without_javascript(service: Service) -> None:
    text = service.ask("/?threshold=30").text
    assert 'value="30"' in text
    above, below = text.split('id="cut"')
    assert all(chance >= 0.3 for chance in chances(above))
    assert all(chance < 0.3 for chance in chances(below))


def test_it_says_where_the_past_comes_from(service: Service) -> None:
    assert "in the evaluation of" in service.ask("/").text


def test_a_publication_shows(service: Service) -> None:
    """The board keeps open alerts in memory only as long as nothing new was published; then it is read beside the
    requests, which on a busy machine takes a moment."""

    def shows(chance: float) -> bool:
        return chance in chances(service.ask("/").text)

    def soon(wanted: bool) -> bool:
        until = time.monotonic() + 20
        while shows(1.0) != wanted and time.monotonic() < until:
            time.sleep(0.05)
        return shows(1.0) == wanted

    assert soon(True)
    service.rows(
        "INSERT INTO scoring.alert_scores SELECT alert_id, raised_at, as_of + interval '1 minute', now(), 'next', "
        "0.00001, status, flood, visibility_only, reasons FROM scoring.alert_scores WHERE alert_id = %s",
        (HOSTILE_ID,),
    )
    publish = "INSERT INTO scoring.publications SELECT max(as_of) + interval '1 minute', now(), 'next', 1, 1 "
    service.rows(publish + "FROM scoring.publications")
    try:
        assert soon(False)
    finally:
        for table in ("alert_scores", "publications"):
            service.rows(f"DELETE FROM scoring.{table} WHERE model_version = 'next'")
    assert soon(True)


def test_a_board_that_cannot_be_read_anew_is_said(copied: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old board is better than waiting, and worse than knowing: requests may see it only while a new one is read."""
    pool = Pool(copied)
    now = datetime.now(UTC)
    fresh = Freshness(now, now, None, now, now)
    later = replace(fresh, published_at=now + timedelta(minutes=1))
    board = Board(pool)
    before = board.snapshot(fresh)
    assert board.snapshot(fresh) is before
    with monkeypatch.context() as broken:
        broken.setattr(board_module, "_OPEN", "SELECT pg_sleep(0.3); SELECT 1 / 0")
        broken.setattr(board_module, "PATIENCE_SECONDS", 0.01)
        assert board.snapshot(later) is before
        assert board.snapshot(later) is before  # meanwhile
        until = time.monotonic() + 20

        def ask_again() -> None:
            while time.monotonic() < until:
                board.snapshot(later)

        with pytest.raises(psycopg2.errors.DivisionByZero):
            ask_again()
    pool.close()


def test_a_run_records_what_it_published(service: Service, company: Company) -> None:
    [(as_of, alerts, added)] = service.rows(
        "SELECT as_of, alerts, added FROM scoring.publications ORDER BY published_at LIMIT 1"
    )
    assert as_of == company.end
    assert alerts == added > 100


@pytest.mark.browser
def test_a_triager_filters_slides_and_gives_feedback(service: Service, browser: Any, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("dialog", lambda dialog: messages.append(dialog.message))
    page.goto(service.address)
    page.screenshot(path=tmp_path / "light.png")

    page.get_by_label("Flags").select_option("new_rule")
    page.get_by_label("Your name").fill("Ann")
    page.get_by_role("button", name="Show").click()
    row = page.locator("tr", has_text=HOSTILE["rule"][:30])
    assert row.count() == 1
    assert REASON[5:40] in row.inner_text()
    assert "flag=new_rule" in page.url

    # The slider moves by the keyboard; the figures and the line in the table follow it.
    page.goto(f"{service.address}/?by=Ann")
    slider = page.get_by_role("slider")
    slider.focus()
    before = page.locator("[data-step=waiting]").inner_text()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    at = int(slider.input_value())
    assert page.locator("output[data-step=threshold]").inner_text() == f"{at}%"
    live = {
        name: page.locator(f"#figures [data-step={name}]").inner_text()
        for name in ("waiting", "expected", "saved", "missed", "missed_of")
    }
    assert live["waiting"] != before
    below = page.evaluate("[...document.querySelectorAll('#cut ~ tr')].map(row => Number(row.dataset.probability))")
    above = page.evaluate(
        "[...document.querySelectorAll('tr[data-probability]:has(~ #cut)')].map(row => Number(row.dataset.probability))"
    )
    assert above
    assert min(above) >= at / 100 > max(below)

    # Feedback comes back to the same board, at the same threshold, and stands in the row.
    page.get_by_role("button", name=re.compile(r"^wrong")).first.click()
    page.wait_for_url(re.compile(rf"threshold={at}.*#a"))
    assert page.locator("tr:target").get_by_text("by Ann").count() == 1
    pressed = page.locator("tr:target button[aria-pressed=true]")
    assert pressed.inner_text() == "wrong"
    newest = "SELECT verdict, given_by FROM scoring.feedback WHERE alert_id = %s ORDER BY feedback_id DESC LIMIT 1"
    assert service.rows(newest, (HOSTILE_ID,)) == [("wrong", "Ann")]
    # What the page says without JavaScript is what the slider said.
    plain = browser.new_page(java_script_enabled=False)
    plain.goto(f"{service.address}/?threshold={at}")
    assert {name: plain.locator(f"#figures [data-step={name}]").inner_text() for name in live} == live

    for scheme, width in (("dark", 1280), ("light", 390)):
        other = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        other.on("console", lambda message: messages.append(message.text))
        other.goto(f"{service.address}/?threshold=40")
        assert other.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
        other.screenshot(path=tmp_path / f"{scheme}-{width}.png")
    assert messages == []


@pytest.fixture
def closing(service: Service, company: Company) -> Iterator[tuple[str, str]]:
    """(alert, rule): heed decided to close the open alert that scores lowest."""
    [(alert_id, rule)] = service.rows(
        "SELECT alert_id, rule FROM reporting.alert_scores_latest WHERE is_open AND probability IS NOT NULL "
        "ORDER BY probability LIMIT 1"
    )
    [(event,)] = service.rows(
        "INSERT INTO scoring.autoclose_events (rule, event, mode, miss_rate, until, who, why, as_of) "
        "VALUES (%s, 'enabled', 'on', 0.02, '2100-01-01', 'Bo', 'a test', %s) RETURNING event_id",
        (rule, company.end),
    )
    service.rows(
        "INSERT INTO scoring.autoclose_decisions (alert_id, rule, request_id, as_of, mode, decision, reason, "
        "probability, threshold, miss_rate, drawn, model_version, evidence) "
        "VALUES (%s, %s, %s, %s, 'on', 'close', 'below', 0.001, 0.01, 0.02, false, 'm', 'x')",
        (alert_id, rule, event, company.end),
    )
    yield alert_id, rule
    service.rows("DELETE FROM scoring.autoclose_events WHERE rule = %s", (rule,))
    service.rows("DELETE FROM scoring.autoclose_decisions WHERE alert_id = %s", (alert_id,))


def stands(service: Service, alert_id: str) -> tuple[Any, ...]:
    query = "SELECT may_be_closed, undone_at IS NOT NULL FROM reporting.autoclose_decisions WHERE alert_id = %s"
    return service.rows(query, (alert_id,))[0]


def test_a_decision_to_close_is_taken_back_once(service: Service, closing: tuple[str, str]) -> None:
    alert_id, rule = closing
    undo = {"alert_id": alert_id, "who": "Ada", "why": "it was real"}
    assert service.ask("/closings/undo", method="POST", body={**undo, "why": " "}).status == 422
    assert service.ask("/closings/undo", method="POST", body={**undo, "why": "\u001e\ufeff"}).status == 422
    assert service.ask("/closings/undo", method="POST", body={**undo, "mode": "on"}).status == 422
    assert service.ask("/closings/undo", method="POST", body={**undo, "alert_id": HOSTILE_ID}).status == 404
    other = {"Origin": "https://elsewhere.example"}
    assert service.ask("/closings/undo", method="POST", body=undo, headers=other).status == 403
    assert stands(service, alert_id) == (True, False)
    answer = service.ask("/closings/undo", method="POST", body=undo)
    assert (answer.status, answer.json) == (201, {**undo, "rule": rule})
    assert stands(service, alert_id) == (False, True)
    assert read_states(service.warehouse, datetime.now(UTC))[rule].request is None, "the rule is not paused"
    again = service.ask("/closings/undo", method="POST", body=undo)
    assert again.status == 409
    assert "'Ada'" in again.json["error"]


@pytest.mark.browser
def test_a_triager_undoes_a_closing(service: Service, closing: tuple[str, str], browser: Any, tmp_path: Path) -> None:
    alert_id, _ = closing
    # The board is read anew where open alerts changed; here the decision came without a publication.
    with serving(service.warehouse, lambda: datetime.now(UTC)) as fresh:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.goto(fresh.address)
        page.get_by_label("Flags").select_option("closing")
        page.get_by_role("button", name="Show").click()
        row = page.locator("tbody tr[data-probability]")
        assert row.count() == 1
        assert row.locator(".flag.closing").inner_text() == "to be closed"
        page.screenshot(path=tmp_path / "to-be-closed.png")
        row.get_by_label("Your name").fill("<b>Ada</b>")
        row.get_by_label("Why not?").fill("it was real")
        row.get_by_role("button", name=re.compile("^undo")).click()
        page.wait_for_url(re.compile("flag=closing.*#a"))
        closing_text = page.locator("tr:target .closing").inner_text()
        assert "taken back by <b>Ada</b>" in closing_text
        assert "it was real" in closing_text
        assert page.locator("tr:target").get_by_role("button", name=re.compile("^undo")).count() == 0
        page.screenshot(path=tmp_path / "taken-back.png")
        assert stands(service, alert_id) == (False, True)
        assert messages == []
