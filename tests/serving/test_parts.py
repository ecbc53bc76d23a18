"""The parts of the service that need no warehouse: staleness, filters, figures, and how it starts."""

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from dagster._utils.schedules import reverse_cron_string_iterator
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.cli import main
from dagster_project.listening import is_loopback
from dagster_project.resources.warehouse.embedded import SERVER_SETTINGS
from dagster_project.serving.board.board import OpenAlert, Snapshot, in_board_order
from dagster_project.serving.board.filter import NO_TEAM, PARAMETERS, Filter, select_page
from dagster_project.serving.board.pages import age
from dagster_project.serving.board.workload import Past, wilson_interval
from dagster_project.serving.freshness import OTHERWISE_STALE_AFTER, stale_before
from dagster_project.triage.evaluation.workload import workload_curve

NOW = datetime(2025, 6, 4, 12, 40, tzinfo=UTC)  # a Wednesday


def cron_field(low: int, high: int, *names: str) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, high)).map(lambda each: f"{each[0]}/{each[1]}")
    parts = st.lists(st.one_of(number.map(str), st.sampled_from(names or ("*",)), span, step), min_size=1, max_size=3)
    return st.one_of(st.just("*"), parts.map(",".join))


CRON_LINES = st.tuples(
    *(cron_field(0, 59), cron_field(0, 23), cron_field(1, 31)),
    *(cron_field(1, 12, "jan", "FEB"), cron_field(0, 7, "mon", "SUN")),
).map(" ".join)


@settings(max_examples=150)
@given(line=CRON_LINES, now=st.datetimes(datetime(2019, 1, 1), datetime(2031, 1, 1)), on_the_minute=st.booleans())
def test_two_refreshes_ago_is_when_dagster_fired_the_last_but_one(
    line: str, now: datetime, on_the_minute: bool
) -> None:
    now = now.replace(tzinfo=UTC, fold=0)
    if on_the_minute:
        now = now.replace(second=0, microsecond=0)
    limit = stale_before(line, now)
    if limit != now - OTHERWISE_STALE_AFTER:  # a line that never fires
        assert list(islice(reverse_cron_string_iterator(now.timestamp(), line, "UTC"), 2))[-1] == limit


def test_scores_are_stale_once_two_refreshes_were_missed() -> None:
    assert stale_before("*/15 * * * *", NOW) == NOW.replace(minute=15)
    # Over a quiet weekend nothing was to be refreshed, so nothing is stale.
    assert stale_before("0 8 * * 1-5", datetime(2025, 6, 8, 20, 0, tzinfo=UTC)) == datetime(2025, 6, 5, 8, tzinfo=UTC)
    assert stale_before("0 0 L * *", NOW) == datetime(2025, 4, 30, tzinfo=UTC)
    assert stale_before("0 0 31 2 *", NOW) == NOW - OTHERWISE_STALE_AFTER
    assert stale_before("not a cron line", NOW) == NOW - OTHERWISE_STALE_AFTER


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
    placed = in_board_order([*shown, *held_out])
    assert [each for each in placed if each.probability is not None] == shown
    places = [at / len(placed) for at, each in enumerate(placed) if each.probability is None]
    assert abs(sum(places) / 400 - 0.5) < 4 * 12**-0.5 / 400**0.5
    assert in_board_order([*held_out[::-1], *shown]) == placed
    figures = select_page(snapshot(*placed), Filter(threshold=50), NOW)
    assert figures.matching == 1399
    assert figures.workload.waiting[100].startswith("999 of 999")


def test_pages_hold_a_hundred_and_the_last_one_is_the_last() -> None:
    all_of_them = snapshot(*(alert(number) for number in range(250)))
    sizes = [len(select_page(all_of_them, Filter(page=page), NOW).alert_ids) for page in (1, 2, 3, 99)]
    assert sizes == [100, 100, 50, 50]
    assert select_page(all_of_them, Filter(page=99), NOW).filter.page == 3
    assert select_page(snapshot(), Filter(), NOW).matching == 0


def test_filters() -> None:
    alerts = snapshot(
        alert(1),
        alert(30, flood=True),
        alert(100, team=None),
        alert(200, rule="other", new_rule=True),
    )
    names = lambda chosen: [int(each[-3:]) for each in select_page(alerts, chosen, NOW).alert_ids]  # noqa: E731
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
    assert set(PARAMETERS) == set(vars(Filter()))
    odd = Filter.of({"age": "99", "flag": "alert_id", "threshold": "1e9", "page": "-3", "team": "gone"})
    assert odd == Filter(team="gone")
    assert Filter.of({"threshold": "٣", "page": "٣"}) == Filter()
    again = Filter(team="A & B", threshold=20, page=2)
    assert again.query(page=3) == "team=A+%26+B&threshold=20&page=3"


def test_the_figures_count_what_lies_below() -> None:
    forecasts = np.minimum(np.arange(100), 50) / 100
    past = Past("scores", workload_curve(forecasts, (np.arange(100) >= 10) & (np.arange(100) < 50)))
    page = select_page(snapshot(alert(0), alert(500), alert(900), past=past), Filter(threshold=50), NOW)
    figures = page.workload
    assert figures.waiting[50] == "1 of 3 (33.3%)"  # exactly 50% is not below 50%
    assert figures.expected[50] == "about 0.1 of 1.6"
    assert figures.saved[50] == "50.0%"
    assert figures.saved[51] == "100.0%"
    assert figures.missed[30] == "50.0%"
    assert figures.missed_of[30].startswith("20 of 40 past actions; 95% interval 35.2% to 64.8%")
    assert past.start() == 12  # 2 of 40 are 5%
    assert select_page(snapshot(alert(0)), Filter(), NOW).workload.missed[20] == "not known yet"


def test_wilson_holds_at_the_edges() -> None:
    assert wilson_interval(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-4)
    assert wilson_interval(100, 100) == pytest.approx((0.9630, 1.0), abs=1e-4)


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
