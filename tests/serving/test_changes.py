"""`GET /alerts`: what changed since a cursor, while runs publish: nothing missed, nothing twice, today's number."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.resources.stores.scores import publish_scores
from dagster_project.resources.warehouse.connection import Warehouse
from tests.conftest import Company, create_database
from tests.serving.conftest import Service, serving

IDS = [f"pulled-{number}" for number in range(6)]


@pytest.fixture(scope="module")
def pulled(company: Company, server_url: str) -> Iterator[Service]:
    """The service on a copy of the company's warehouse with few of its alerts: these tests publish, and read all."""
    name = urlsplit(company.warehouse.url()).path.strip("/")
    warehouse = Warehouse(company.home, create_database(server_url, "pulled", name))
    with serving(warehouse, lambda: company.end + timedelta(minutes=10)) as running:
        running.rows(
            "DELETE FROM marts.alerts WHERE alert_id NOT IN (SELECT alert_id FROM scoring.alert_scores LIMIT 9)"
        )
        for table in ("marts.alert_outcomes", "scoring.alert_scores"):
            running.rows(f"DELETE FROM {table} WHERE alert_id NOT IN (SELECT alert_id FROM marts.alerts)")
        running.rows("TRUNCATE scoring.alert_changes, scoring.change_marks")
        publish(running, company.end + timedelta(minutes=1), {})
        yield running


@pytest.fixture
def whole(company: Company) -> Iterator[Service]:
    """The service on the company's own warehouse, for what only reads; nobody can copy it meanwhile."""
    with serving(company.warehouse, lambda: company.end + timedelta(minutes=10)) as running:
        yield running


def ask(service: Service, since: str | None = None, limit: int | None = None) -> Any:
    query = "&".join(f"{name}={value}" for name, value in (("since", since), ("limit", limit)) if value is not None)
    answer = service.ask(f"/alerts?{query}")
    assert answer.status == 200, answer.text
    return answer.json


class Puller:
    """A system that keeps what it was told, page by page."""

    def __init__(self, service: Service, since: str | None) -> None:
        self.service, self.cursor = service, since
        self.known: dict[str, Any] = {}
        self.told = 0

    def page(self, limit: int) -> bool:
        answer = ask(self.service, self.cursor, limit)
        ids = [change["alert_id"] for change in answer["changes"]]
        assert len(set(ids)) == len(ids) <= limit
        assert answer["more"] <= (len(ids) == limit)
        self.known |= {change["alert_id"]: change for change in answer["changes"]}
        self.cursor, self.told = answer["next"], self.told + len(ids)
        return bool(answer["more"])

    def drain(self, limit: int = 7) -> None:
        while self.page(limit):
            pass


def publish(service: Service, moment: datetime, scores: dict[str, float]) -> None:
    frame = pd.DataFrame(
        {
            "alert_id": list(scores),
            "raised_at": pd.Timestamp(moment),
            "model_version": "m",
            "probability": list(scores.values()),
            "status": "model",
            "flood": False,
            "visibility_only": False,
            "reasons": [["because"] for _ in scores],
        }
    )
    publish_scores(service.warehouse, [frame] if scores else [], moment, "m", len(scores))


REMOVE = "DELETE FROM marts.alerts WHERE alert_id = %s; DELETE FROM marts.alert_outcomes WHERE alert_id = %s;"
PUT = """INSERT INTO marts.alerts (alert_id, raised_at, rule) VALUES (%s, %s, 'r');
INSERT INTO marts.alert_outcomes (alert_id, raised_at, horizon_ends_at, outcome, known_at)
VALUES (%s, %s, %s, %s, %s)"""


def put(service: Service, alert_id: str, moment: datetime, outcome: str | None) -> None:
    """What dbt leaves of an alert."""
    known_at, ends = moment if outcome else None, moment + timedelta(days=14)
    service.rows(REMOVE + PUT, (*[alert_id] * 3, moment, alert_id, moment, ends, outcome, known_at))


def remove(service: Service, alert_id: str) -> None:
    service.rows(REMOVE, (alert_id, alert_id))


def test_it_begins_with_the_open_alerts_and_their_number_is_that_of_the_view(whole: Service) -> None:
    """To the last digit, and whatever their flag; held-out alerts without a number, as everywhere."""
    puller = Puller(whole, None)
    puller.drain(limit=300)
    view = {
        row[0]: row
        for row in whole.rows(
            "SELECT alert_id, probability, status, flag_words, is_open FROM reporting.alert_scores_latest"
        )
    }
    assert set(puller.known) == {alert_id for alert_id, *_, is_open in view.values() if is_open}
    for alert_id, change in puller.known.items():
        score = change["score"]
        assert change["change"] == "scored"
        assert (alert_id, score["probability"], score["status"], score["flag_words"], True) == view[alert_id]
    statuses = {change["score"]["status"] for change in puller.known.values()}
    assert "holdout" in statuses
    assert any(change["score"]["flag_words"] for change in puller.known.values())
    everything = Puller(whole, "0")
    everything.drain(limit=1000)
    # Another test took alerts back that were scored before: they are gone.
    assert {each for each, change in everything.known.items() if change["change"] != "gone"} == set(view)
    assert puller.cursor == everything.cursor == ask(whole, puller.cursor)["next"]
    assert ask(whole, puller.cursor)["changes"] == []


STEP = st.one_of(
    st.tuples(st.just("publish"), st.dictionaries(st.sampled_from(IDS), st.sampled_from([0.1, 0.2, 0.3]), max_size=4)),
    st.tuples(st.just("decide"), st.tuples(st.sampled_from(IDS), st.sampled_from(["acted", "not_acted", None]))),
    st.tuples(st.just("remove"), st.sampled_from(IDS)),
    st.tuples(st.just("page"), st.integers(1, 3)),
)


@settings(max_examples=8)
@given(steps=st.lists(STEP, min_size=5, max_size=15), late=st.integers(0, 10))
def test_a_follower_of_the_cursor_ends_with_what_is_published(
    pulled: Service, company: Company, steps: list[Any], late: int
) -> None:
    """Whatever is published, decided, reopened, removed or put back between the pages, and whenever one began."""
    [(moment,)] = pulled.rows("SELECT max(as_of) FROM scoring.publications")
    state = "SELECT alert_id, (probability_at_raise, outcome)::text FROM reporting.alert_scores_latest"
    before = dict(pulled.rows(state))
    start = Puller(pulled, None)
    start.drain(limit=1000)
    early, newcomer = Puller(pulled, start.cursor), None
    for number, (kind, what) in enumerate(steps):
        moment += timedelta(seconds=1)
        if number == late:
            newcomer = Puller(pulled, None)
        if kind == "publish":
            for alert_id in what:
                put(pulled, alert_id, moment, None)  # only open alerts are scored
            publish(pulled, moment, what)
        elif kind == "decide":
            put(pulled, what[0], moment, what[1])
        elif kind == "remove":
            remove(pulled, what)
        else:
            early.page(what)
            if newcomer is not None:
                newcomer.page(what)
    publish(pulled, moment + timedelta(seconds=1), {})
    view = dict(pulled.rows("SELECT alert_id, probability_at_raise FROM reporting.alert_scores_latest"))
    outcomes = dict(pulled.rows("SELECT alert_id, outcome FROM reporting.alert_scores_latest"))
    for puller in filter(None, (early, newcomer)):
        puller.drain()
        for alert_id, change in puller.known.items():
            # What was last told of an alert is what is true of it now, but for the number, which is that of the moment.
            score = change["score"]
            assert (change["change"] == "gone") == (alert_id not in view)
            assert (score is None) == (alert_id not in view)
            if score is not None:
                assert (score["probability_at_raise"], score["outcome"]) == (view[alert_id], outcomes[alert_id])
                assert (change["change"] == "decided") == (score["outcome"] is not None)
        assert puller.page(1000) is False
        told = puller.told
        puller.drain()
        assert puller.told == told  # nothing twice
    after = dict(pulled.rows(state))
    assert {each for each in before | after if before.get(each) != after.get(each)} <= set(early.known)
    if newcomer is not None:
        assert {each for each in IDS if each in view and outcomes[each] is None} <= set(newcomer.known)


def test_nothing_is_missed_or_doubled_while_several_publish_at_once(pulled: Service) -> None:
    """Three publish without a pause; two pull pages of two, from before the first of them on."""
    [(moment,)] = pulled.rows("SELECT max(as_of) FROM scoring.publications")
    ids = [f"at-once-{number}" for number in range(9)]
    for alert_id in ids:
        put(pulled, alert_id, moment, None)
    begin = Puller(pulled, None)
    begin.drain(limit=1000)
    pullers, done = [Puller(pulled, begin.cursor) for _ in range(2)], threading.Event()
    [(first,)] = pulled.rows("SELECT max(last_position) FROM scoring.change_marks")

    def publisher(own: list[str], number: int) -> None:
        for step in range(8):
            later = moment + timedelta(seconds=3 * step + number + 1)
            publish(pulled, later, {alert_id: (1 + (step + k) % 7) / 10 for k, alert_id in enumerate(own)})

    def pull(puller: Puller) -> None:
        while not done.is_set():
            puller.page(2)

    writing = [threading.Thread(target=publisher, args=(ids[n::3], n)) for n in range(3)]
    reading = [threading.Thread(target=pull, args=(puller,)) for puller in pullers]
    for thread in (*reading, *writing):
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    for thread in reading:
        thread.join()
    [(last,)] = pulled.rows("SELECT max(last_position) FROM scoring.change_marks")
    assert last - first == 3 * 8 * 3  # each publication changed its three alerts, and no two share a position
    for puller in pullers:
        puller.drain(limit=2)
        assert puller.told <= last - first
        newest = dict(
            pulled.rows(
                "SELECT alert_id, probability_at_raise FROM reporting.alert_scores_latest WHERE alert_id = ANY(%s)",
                (ids,),
            )
        )
        assert {i: change["score"]["probability_at_raise"] for i, change in puller.known.items()} == newest
        told = puller.told
        puller.drain()
        assert puller.told == told


@pytest.mark.parametrize(
    "since", ["", "x", "1", "-1", "1-1", "01-1-0123456789ab", "1-1-0123456789AB", "%00", "9" * 400]
)
def test_a_cursor_that_was_never_given_is_refused_in_one_line(pulled: Service, since: str) -> None:
    answer = pulled.ask(f"/alerts?since={since}")
    assert (answer.status, set(answer.json)) == (422, {"error", "remedy"})
    assert "no cursor" in answer.json["error"]
    assert "without `since`" in answer.json["remedy"]
    assert len(answer.text) < 500


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "x", "1.5", "", "٣"])
def test_an_impossible_limit_is_refused(pulled: Service, limit: str) -> None:
    answer = pulled.ask(f"/alerts?limit={quote(limit)}")
    assert (answer.status, answer.json["remedy"]) == (422, "send a whole number from 1 to 1,000")


def test_a_cursor_of_a_warehouse_that_was_restored_since_is_refused(pulled: Service) -> None:
    """Also once the restored one has come further than the cursor, with other changes."""
    [(moment,)] = pulled.rows("SELECT max(as_of) FROM scoring.publications")
    moment += timedelta(seconds=1)
    put(pulled, IDS[0], moment, None)
    publish(pulled, moment, {IDS[0]: 0.4})
    before = Puller(pulled, None)
    before.drain(limit=1000)
    publish(pulled, moment + timedelta(seconds=1), {IDS[0]: 0.5})
    lost = Puller(pulled, before.cursor)
    lost.drain()
    begun = ask(pulled, None, 1)["next"]  # in the middle of the open alerts, as they were before it was restored
    # As a dump of before the last publication leaves it.
    backup = "SELECT max(last_position) FROM scoring.change_marks"
    pulled.rows(f"DELETE FROM scoring.change_marks WHERE last_position = ({backup})")
    pulled.rows("DELETE FROM scoring.alert_changes WHERE alert_id = %s", (IDS[0],))
    for cursor in (lost.cursor, begun):
        assert pulled.ask(f"/alerts?since={cursor}").status == 410
    publish(pulled, moment + timedelta(seconds=2), {IDS[0]: 0.6})
    for cursor in (lost.cursor, begun):
        answer = pulled.ask(f"/alerts?since={cursor}")
        assert answer.status == 410
        assert "restored" in answer.json["error"]
        assert "without `since`" in answer.json["remedy"]
    assert [change["alert_id"] for change in ask(pulled, before.cursor)["changes"]] == [IDS[0]]  # older than the dump


def test_scores_of_an_earlier_version_are_all_there_at_the_first_publication(pulled: Service) -> None:
    """That one recorded no changes; until heed publishes again there are none to give."""
    pulled.rows("TRUNCATE scoring.alert_changes, scoring.change_marks")
    assert ask(pulled) | {"freshness": None} == {"changes": [], "next": "0", "more": False, "freshness": None}
    [(moment,)] = pulled.rows("SELECT max(as_of) FROM scoring.publications")
    publish(pulled, moment + timedelta(seconds=1), {})
    puller = Puller(pulled, "0")
    puller.drain(limit=1000)
    assert set(puller.known) == {row[0] for row in pulled.rows("SELECT alert_id FROM reporting.alert_scores_latest")}


def test_a_run_for_an_earlier_moment_changes_nothing_that_is_read(pulled: Service) -> None:
    [(moment,)] = pulled.rows("SELECT max(as_of) FROM scoring.publications")
    put(pulled, IDS[1], moment, None)
    publish(pulled, moment + timedelta(seconds=1), {IDS[1]: 0.4})
    puller = Puller(pulled, None)
    puller.drain(limit=1000)
    publish(pulled, datetime(2025, 5, 1, tzinfo=UTC), {IDS[1]: 0.9})
    assert ask(pulled, puller.cursor)["changes"] == []
