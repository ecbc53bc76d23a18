"""The parts of the service that need no warehouse: staleness, filters, figures, and how it starts."""

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.listening import is_loopback
from dagster_project.resources.warehouse.embedded import SERVER_SETTINGS
from dagster_project.serving.board.board import (
    NO_TEAM,
    Filter,
    OpenAlert,
    Past,
    Snapshot,
    in_their_places,
    turn_to,
    wilson,
)
from dagster_project.serving.board.pages import age
from dagster_project.serving.freshness import cron_firings, stale_before

NOW = datetime(2025, 6, 4, 12, 40, tzinfo=UTC)  # a Wednesday


@pytest.mark.parametrize(
    ("line", "firings"),
    [
        ("*/15 * * * *", ["06-04 12:30", "06-04 12:15", "06-04 12:00"]),
        ("0 3 * * 1", ["06-02 03:00", "05-26 03:00", "05-19 03:00"]),
        ("0 3 * * MON-FRI", ["06-04 03:00", "06-03 03:00", "06-02 03:00"]),
        ("5,35 8-9/1 1 * *", ["06-01 09:35", "06-01 09:05", "06-01 08:35"]),
        ("0 0 1 * sun", ["06-01 00:00", "05-25 00:00", "05-18 00:00"]),
        ("0 0 * jan 7", ["01-26 00:00", "01-19 00:00", "01-12 00:00"]),
        ("40 12 * * *", ["06-04 12:40", "06-03 12:40", "06-02 12:40"]),
    ],
)
def test_cron_lines_are_read_backwards(line: str, firings: list[str]) -> None:
    assert [f"{moment:%m-%d %H:%M}" for moment in islice(cron_firings(line, NOW), 3)] == firings


def test_scores_are_stale_once_two_refreshes_were_missed() -> None:
    assert stale_before("*/15 * * * *", NOW) == NOW.replace(minute=15)
    # Over a quiet weekend nothing was to be refreshed, so nothing is stale.
    assert stale_before("0 8 * * 1-5", datetime(2025, 6, 8, 20, 0, tzinfo=UTC)) == datetime(2025, 6, 5, 8, tzinfo=UTC)
    assert stale_before("0 0 L * *", NOW) == NOW - timedelta(days=1)
    assert stale_before("0 0 31 2 *", NOW) == NOW - timedelta(days=1)


def alert(number: int, **changed: object) -> OpenAlert:
    facts: dict[str, object] = {
        "alert_id": f"alert-{number:03d}",
        "raised_at": NOW - timedelta(hours=number),
        "rule": "rule",
        "team": "Search",
        "probability": 1 - number / 1000,
        "flood": False,
        "visibility_only": False,
        "unpredictable_team": False,
        "new_rule": False,
    }
    return OpenAlert(**{**facts, **changed})  # type: ignore[arg-type]


def snapshot(*alerts: OpenAlert, past: Past | None = None) -> Snapshot:
    return Snapshot(alerts, past or Past(), ("Search",), ("other", "rule"), False)


def test_held_out_alerts_stand_at_random_places_that_stay() -> None:
    shown = [alert(number) for number in range(999, 0, -1)]
    held_out = [replace(alert(number), alert_id=f"held {number}", probability=None) for number in range(400)]
    placed = in_their_places([*shown, *held_out])
    assert [each for each in placed if each.probability is not None] == shown
    places = [at / len(placed) for at, each in enumerate(placed) if each.probability is None]
    assert abs(sum(places) / 400 - 0.5) < 4 * 12**-0.5 / 400**0.5
    assert in_their_places([*held_out[::-1], *shown]) == placed
    figures = turn_to(snapshot(*placed), Filter(threshold=50), NOW)
    assert figures.matching == 1399
    assert figures.workload.waiting[100].startswith("999 of 999")


def test_pages_hold_a_hundred_and_the_last_one_is_the_last() -> None:
    all_of_them = snapshot(*(alert(number) for number in range(250)))
    sizes = [len(turn_to(all_of_them, Filter(page=page), NOW).alert_ids) for page in (1, 2, 3, 99)]
    assert sizes == [100, 100, 50, 50]
    assert turn_to(all_of_them, Filter(page=99), NOW).filter.page == 3
    assert turn_to(snapshot(), Filter(), NOW).matching == 0


def test_filters() -> None:
    alerts = snapshot(
        alert(1),
        alert(30, flood=True),
        alert(100, team=None),
        alert(200, rule="other", new_rule=True),
    )
    names = lambda chosen: [int(each[-3:]) for each in turn_to(alerts, chosen, NOW).alert_ids]  # noqa: E731
    assert names(Filter(team="Search")) == [1, 30, 200]
    assert names(Filter(team=NO_TEAM)) == [100]
    assert names(Filter(rule="other")) == [200]
    assert names(Filter(age="1")) == [1]
    assert names(Filter(age="3")) == [1, 30]
    assert names(Filter(age="older")) == [200]
    assert names(Filter(flag="none")) == [1, 100]
    assert names(Filter(flag="flood")) == [30]
    assert names(Filter(flag="new_rule", team="Search")) == [200]


def test_a_bookmark_that_means_nothing_is_no_error() -> None:
    odd = Filter.of({"age": "99", "flag": "alert_id", "threshold": "1e9", "page": "-3", "team": "gone"})
    assert odd == Filter(team="gone")
    assert Filter.of({"threshold": "٣", "page": "٣"}) == Filter()
    again = Filter(team="A & B", threshold=20, page=2)
    assert again.query(page=3) == "team=A+%26+B&threshold=20&page=3"


def test_the_figures_count_what_lies_below() -> None:
    below = tuple(min(step, 50) for step in range(101))
    past = Past("scores", 100, 40, below, tuple(max(0, min(step, 50) - 10) for step in range(101)))
    page = turn_to(snapshot(alert(0), alert(500), alert(900), past=past), Filter(threshold=50), NOW)
    figures = page.workload
    assert figures.waiting[50] == "1 of 3 (33.3%)"  # exactly 50% is not below 50%
    assert figures.expected[50] == "about 0.1 of 1.6"
    assert figures.saved[50] == "50.0%"
    assert figures.missed[30] == "50.0%"
    assert figures.missed_of[30].startswith("20 of 40 past actions; 95% interval 35.2% to 64.8%")
    assert past.start() == 12  # 2 of 40 are 5%
    assert turn_to(snapshot(alert(0)), Filter(), NOW).workload.missed[20] == "not known yet"


def test_wilson_holds_at_the_edges() -> None:
    assert wilson(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-4)
    assert wilson(100, 100) == pytest.approx((0.9630, 1.0), abs=1e-4)


@pytest.mark.parametrize(
    ("minutes", "words"),
    [
        (0.2, "a moment"),
        (1, "a minute"),
        (119, "119 minutes"),
        (150, "2 hours"),
        (60 * 47, "47 hours"),
        (4320, "3 days"),
    ],
)
def test_ages_in_words(minutes: float, words: str) -> None:
    assert age(timedelta(minutes=minutes)) == words


@pytest.mark.parametrize("command", ["up", "serve"])
def test_whoever_says_nothing_is_reached_by_this_machine_only(command: str) -> None:
    [host] = [each for each in main.commands[command].params if each.name == "host"]
    assert is_loopback(str(host.default))
    assert SERVER_SETTINGS["listen_addresses"] == ""


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(main, ["serve", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1
    assert done.output.startswith("heed: 127.0.0.1 port ")
    assert done.output.count("\n") == 1


def test_an_unreachable_warehouse_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_DATABASE_URL", f"postgresql://somebody:secret@/alerts?host={tmp_path}")
    done = CliRunner().invoke(main, ["serve", "--port", "0"])
    assert done.exit_code == 1
    assert "the warehouse is not reachable" in done.output
    assert "secret" not in done.output
    assert done.output.count("\n") == 1
