"""Messages arrive at least once, with one key each, whatever the receiver or the sender does in between."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.commands.demo import deliver_locally
from dagster_project.commands.doctor import _deliveries
from dagster_project.delivery import deliver as delivery
from dagster_project.delivery.deliver import deliver, plan, send_due, send_test
from dagster_project.delivery.webhook import key_of, signature
from dagster_project.errors import HeedError
from dagster_project.resources.stores.deliveries import put_back
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.settings import Settings
from tests.conftest import PROJECT
from tests.delivery.conftest import SECRET, VARIABLE, Receiver, Reply, Request, threshold, to


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_WAIT", timedelta(seconds=0.05))


def rows(warehouse: Warehouse, what: str = "outcome, count(*)", rest: str = "GROUP BY 1 ORDER BY 1") -> Any:
    return [
        tuple(row.values()) for row in warehouse.read_arrow(f"SELECT {what} FROM scoring.deliveries {rest}").to_pylist()
    ]


def test_the_signature_is_the_published_one() -> None:
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "X")
    signed = signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_scores_arrive_signed_and_only_once(outgoing: Warehouse, receiver: Receiver) -> None:
    settings = to(receiver, above=threshold(outgoing, 5))
    [result] = deliver(outgoing, settings)
    assert (result.delivered, result.waiting, result.failed, result.note) == (5, 0, 0, "")
    for request in receiver.requests:
        sent_at = int(request.headers["webhook-timestamp"])
        assert abs(sent_at - time.time()) < 60
        assert request.headers["webhook-signature"] == signature(
            key_of(SECRET, ""), request.headers["webhook-id"], sent_at, request.body
        )
    expected = outgoing.read_arrow(
        "SELECT alert_id, probability, probability_at_raise, flag_words FROM reporting.alert_scores_latest "
        "WHERE is_open AND probability IS NOT NULL ORDER BY probability DESC LIMIT 5"
    ).to_pylist()
    assert [{name: request.json["data"][name] for name in expected[0]} for request in receiver.requests] == expected
    assert f"{expected[0]['probability']:.0%} chance" in receiver.requests[0].json["data"]["text"]
    assert deliver(outgoing, settings)[0].delivered == 0
    assert len(receiver.requests) == 5


def test_held_out_alerts_never_leave_and_flagged_ones_say_so(outgoing: Warehouse, receiver: Receiver) -> None:
    deliver(outgoing, to(receiver, per_minute=6000))
    sent = set(receiver.alerts())
    open_alerts = outgoing.read("SELECT alert_id, status, flag_words FROM reporting.alert_scores_latest WHERE is_open")
    hidden = set(open_alerts.loc[open_alerts["status"] == "holdout", "alert_id"])
    assert hidden
    assert sent == set(open_alerts["alert_id"]) - hidden
    flagged = {r.json["data"]["alert_id"]: r.json["data"] for r in receiver.requests if r.json["data"]["flag_words"]}
    assert set(flagged) == set(open_alerts.loc[open_alerts["flag_words"].notna(), "alert_id"]) - hidden
    assert all(data["flag_words"].rstrip(".") in data["text"] for data in flagged.values())


@pytest.mark.parametrize(
    ("reply", "header"), [(Reply(500), {}), (Reply(503), {"Retry-After": "1"}), (Reply(429), {"Retry-After": "1"})]
)
def test_a_busy_receiver_gets_the_same_message_again(
    outgoing: Warehouse, receiver: Receiver, reply: Reply, header: dict[str, str]
) -> None:
    times: list[float] = []

    def answer(request: Request, number: int) -> Reply:
        times.append(time.monotonic())
        return Reply(reply.status, headers=header) if number == 0 else Reply()

    receiver.answer = answer
    [result] = deliver(outgoing, to(receiver, above=threshold(outgoing, 2)))
    assert result.delivered == 2
    assert len(receiver.requests) == 3
    assert receiver.keys()[0] in receiver.keys()[1:]
    first = receiver.keys().index(receiver.keys()[0], 1)
    assert receiver.requests[0].body == receiver.requests[first].body
    if header:  # and the other message waits too
        assert times[1] - times[0] >= 0.95
    assert rows(outgoing, "max(attempts)", "") == [(2,)]


def test_a_silent_receiver_holds_nothing_up(outgoing: Warehouse, new_receiver: Callable[[], Receiver]) -> None:
    silent, well = new_receiver(), new_receiver()
    silent.answer = lambda request, number: Reply(after=3)
    above = threshold(outgoing, 8)
    settings = Settings(
        destinations={
            "silent": to(silent, above=above).destinations["hook"],
            "well": to(well, above=above).destinations["hook"],
        }
    )
    started = time.monotonic()
    first, second = deliver(outgoing, settings, request_seconds=0.3)
    assert time.monotonic() - started < 5
    assert (first.delivered, first.waiting, first.note) == (0, 8, "no answer within 0.3 s")
    assert second.delivered == 8
    silent.answer = lambda request, number: Reply()
    time.sleep(0.2)
    assert send_due(outgoing, settings, ["silent"])[0].delivered == 8
    assert set(silent.keys()) == {key for (key,) in rows(outgoing, "message_id", "WHERE destination = 'silent'")}


def test_what_is_refused_ends_in_a_list_that_doctor_names(outgoing: Warehouse, receiver: Receiver) -> None:
    receiver.answer = lambda request, number: Reply(403, {"error": f"wrong key {SECRET}"})
    settings = to(receiver, above=threshold(outgoing, 3))
    [result] = deliver(outgoing, settings)
    assert (result.failed, result.waiting) == (3, 0)
    assert rows(outgoing) == [("failed", 3)]
    [finding] = _deliveries(outgoing, settings)
    assert finding.level == "warn"
    assert "3 messages could not be delivered (the newest: status 403" in finding.found
    assert SECRET not in finding.found
    assert finding.remedy == "Correct it, then `heed destinations --retry hook`"
    assert deliver(outgoing, settings)[0].failed == 0  # not again and again
    receiver.answer = lambda request, number: Reply()
    assert put_back(outgoing, "hook") == 3
    assert send_due(outgoing, settings, ["hook"])[0].delivered == 3
    assert set(receiver.keys()[:3]) == set(receiver.keys()[3:])


def test_after_a_day_it_is_given_up(outgoing: Warehouse, receiver: Receiver) -> None:
    receiver.answer = lambda request, number: Reply(500)
    settings = to(receiver, above=threshold(outgoing, 1))
    plan(outgoing, settings)
    with outgoing.transaction() as cursor:
        cursor.execute("UPDATE scoring.deliveries SET created_at = now() - interval '25 hours'")
    assert send_due(outgoing, settings, ["hook"])[0].failed == 1


def test_a_change_is_sent_and_replaces_what_waits(outgoing: Warehouse, receiver: Receiver) -> None:
    settings = to(receiver, above=threshold(outgoing, 1))
    plan(outgoing, settings)
    with outgoing.transaction() as cursor:  # as if it had been read as something else
        cursor.execute("UPDATE scoring.deliveries SET probability = 0.001")
    deliver(outgoing, settings)
    assert rows(outgoing, "version, outcome", "ORDER BY 1") == [(1, "superseded"), (2, "delivered")]
    assert len(receiver.requests) == 1


def test_a_decided_alert_is_not_sent(outgoing: Warehouse, receiver: Receiver) -> None:
    settings = to(receiver, above=threshold(outgoing, 1))
    plan(outgoing, settings)
    with outgoing.transaction() as cursor:
        cursor.execute("UPDATE scoring.deliveries SET alert_id = 'decided by now', probability = 1")
    deliver(outgoing, settings)
    assert "decided by now" not in receiver.alerts()
    assert ("superseded", 1) in rows(outgoing)


def test_the_rate_limit_holds_over_processes(outgoing: Warehouse, receiver: Receiver) -> None:
    settings = to(receiver, above=threshold(outgoing, 5), per_minute=3)
    assert deliver(outgoing, settings, seconds=0.5)[0].delivered == 3
    assert send_due(outgoing, settings, ["hook"], seconds=0.5)[0].delivered == 0
    with outgoing.transaction() as cursor:
        cursor.execute("UPDATE scoring.deliveries SET attempted_at = attempted_at - interval '1 minute'")
    assert send_due(outgoing, settings, ["hook"], seconds=0.5)[0].delivered == 2


def test_quiet_hours_send_nothing(outgoing: Warehouse, receiver: Receiver) -> None:
    now = datetime.now(UTC)
    hours = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    [result] = deliver(outgoing, to(receiver, quiet_hours=hours))
    assert (result.note, result.waiting, receiver.requests) == ("quiet hours", 0, [])


def test_a_missing_secret_loses_nothing(
    outgoing: Warehouse, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = to(receiver, above=threshold(outgoing, 2))
    monkeypatch.delenv(VARIABLE)
    [result] = deliver(outgoing, settings)
    assert (result.waiting, result.note.partition(";")[0]) == (2, f"{VARIABLE} is not set")
    assert [finding.level for finding in _deliveries(outgoing, settings)] == ["error", "ok"]
    monkeypatch.setenv(VARIABLE, SECRET)
    assert deliver(outgoing, settings)[0].delivered == 2


def test_two_processes_do_not_send_the_same_message(outgoing: Warehouse, receiver: Receiver) -> None:
    settings = to(receiver, above=threshold(outgoing, 6))
    plan(outgoing, settings)
    receiver.answer = lambda request, number: Reply(after=0.05)
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.append(send_due(outgoing, settings, ["hook"])[0].delivered))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(receiver.keys()) == sorted(set(receiver.keys()))
    assert sum(results) == len(receiver.requests) == 6


def test_a_killed_sender_loses_nothing_and_repeats_only_with_the_same_key(
    outgoing: Warehouse, receiver: Receiver, tmp_path: Path
) -> None:
    above = threshold(outgoing, 3)
    (tmp_path / "heed.toml").write_text(
        f'[destinations.hook]\nkind = "webhook"\nurl = "{receiver.url}"\nsecret_from = "{VARIABLE}"\n'
        f"above = {above!r}\n"
    )
    environment = {**os.environ, "HEED_HOME": str(tmp_path), URL_VARIABLE: outgoing.url()}
    # Killed between the outbox and the first request.
    code = (
        "import os; from dagster_project.delivery.deliver import plan; from dagster_project.settings import *;"
        "from dagster_project.resources.warehouse.connection import Warehouse;"
        "plan(Warehouse(heed_home()), load_settings()); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (rows(outgoing), receiver.requests) == ([("waiting", 3)], [])
    # Killed while the receiver has the message, and nobody knows whether it arrived.
    arrived = threading.Event()

    def answer(request: Request, number: int) -> Reply:
        arrived.set()
        return Reply(after=1.0 if number == 0 else 0.0)

    receiver.answer = answer
    sending = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.cli", "destinations", "--send"], cwd=PROJECT, env=environment
    )
    assert arrived.wait(30)
    sending.kill()
    sending.wait()
    assert rows(outgoing, "outcome, attempts", "ORDER BY probability DESC") == [
        ("waiting", 1),
        ("waiting", 0),
        ("waiting", 0),
    ]
    [result] = deliver(outgoing, to(receiver, above=above))
    assert result.delivered == 3
    assert len(receiver.requests) == 4
    assert receiver.keys()[0] == receiver.keys()[1]
    assert receiver.requests[0].body == receiver.requests[1].body
    assert len(set(receiver.keys())) == 3


def test_one_command_tries_lists_and_retries(
    outgoing: Warehouse, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "heed.toml").write_text(
        f'[destinations.hook]\nkind = "webhook"\nurl = "{receiver.url}"\nsecret_from = "{VARIABLE}"\nabove = 0.5\n'
    )
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, outgoing.url())
    run = lambda *arguments: CliRunner().invoke(main, ["destinations", *arguments])  # noqa: E731
    assert run("--test", "hook").output == "hook accepted a test message.\n"
    assert receiver.requests[0].json["data"]["status"] == "test"
    assert run().output == "hook (webhook): nothing was sent yet\n"
    assert run("--send").output == "hook: 0 delivered, 0 waiting, 0 given up\n"
    assert run("--retry", "hook").output == "0 messages to hook wait again.\n"
    assert json.loads(run("--json").output) == []
    receiver.answer = lambda request, number: Reply(401)
    with pytest.raises(HeedError, match="status 401"):
        send_test("hook", to(receiver))
    with pytest.raises(HeedError, match="no destination 'hok'"):
        send_test("hok", to(receiver))


def test_the_demo_ends_with_a_delivered_score(outgoing: Warehouse) -> None:
    started = time.monotonic()
    told = deliver_locally(outgoing)
    assert time.monotonic() - started < 3
    assert told.startswith("Delivered to a receiver on this machine (http://127.0.0.1:")
    assert "chance that somebody acts on this alert" in told
    assert "signature valid" in told
