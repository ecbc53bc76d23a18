"""Webhooks of other systems: signed, durable before the answer, and the same however often and in whatever order.

Payloads have the shapes that the systems document; the service is the real one, in a process of its own where it is
killed.
"""

import base64
import hashlib
import hmac
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from dagster_project.delivery.webhook import key_of, signature
from dagster_project.errors import HeedError
from dagster_project.listening import listen, server_of
from dagster_project.loading import load_file
from dagster_project.loading.presets import read_preset
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.serving.api.openapi import description
from dagster_project.serving.app import create_app
from dagster_project.serving.pool import Pool
from dagster_project.serving.webhooks.intake import Intake
from dagster_project.serving.webhooks.vendors import rows_of
from dagster_project.serving.webhooks.webhooks import Webhooks
from dagster_project.settings import Settings, Webhook
from tests.conftest import PROJECT

SECRET = "0123456789abcdef0123456789abcdef"
SIGNING = "whsec_" + base64.b64encode(SECRET.encode()).decode()
KINDS = ("alertmanager", "pagerduty", "grafana", "sentry", "github", "json")
SETTINGS = {
    "webhooks": {
        kind: {"kind": kind, "secret_from": "HEED_SIGNING" if kind == "json" else "HEED_SECRET"}
        | ({"timestamp_header": "X-Grafana-Alerting-Timestamp"} if kind == "grafana" else {})
        for kind in KINDS
    }
}


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_SECRET", SECRET)
    monkeypatch.setenv("HEED_SIGNING", SIGNING)


@dataclass
class Post:
    """A webhook as its system sends it."""

    kind: str
    payload: Any
    headers: dict[str, str]

    @property
    def body(self) -> bytes:
        return json.dumps(self.payload).encode()

    def signed(self, now: float | None = None) -> dict[str, str]:
        now = int(time.time() if now is None else now)
        digest = lambda text: hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()  # noqa: E731
        signatures: dict[str, dict[str, str]] = {
            "alertmanager": {"Authorization": f"Bearer {SECRET}"},
            "pagerduty": {"X-PagerDuty-Signature": f"v1={'0' * 64},v1={digest(self.body)}"},
            "grafana": {
                "X-Grafana-Alerting-Timestamp": str(now),
                "X-Grafana-Alerting-Signature": digest(f"{now}:".encode() + self.body),
            },
            "sentry": {"Sentry-Hook-Signature": digest(self.body)},
            "github": {"X-Hub-Signature-256": f"sha256={digest(self.body)}"},
        }
        if self.kind == "json":
            key = key_of(SIGNING, "")
            mine = {"webhook-id": "msg_1", "webhook-timestamp": str(now)}
            return {**mine, "webhook-signature": signature(key, "msg_1", now, self.body)}
        return {**signatures[self.kind], **self.headers}


def alertmanager(n: int, status: str = "firing") -> Post:
    return Post(
        "alertmanager",
        {
            "version": "4",
            "groupKey": '{}:{alertname="DiskFull"}',
            "status": status,
            "receiver": "heed",
            "groupLabels": {"alertname": "DiskFull"},
            "commonLabels": {},
            "commonAnnotations": {},
            "externalURL": "http://alertmanager:9093",
            "alerts": [
                {
                    "status": status,
                    "labels": {"alertname": "DiskFull", "instance": f"db-{n}", "severity": "page", "team": "storage"},
                    "annotations": {"summary": f"db-{n} is nearly full"},
                    "startsAt": "2026-03-01T10:00:00.5Z",
                    "endsAt": "2026-03-01T11:00:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
                    "generatorURL": "http://prometheus/graph",
                    "fingerprint": f"{n:016x}",
                }
            ],
        },
        {},
    )


def pagerduty(n: int, kind: str = "triggered", agent: str = "user_reference") -> Post:
    data: dict[str, Any] = {
        "id": f"PINC{n}",
        "type": "incident",
        "number": n,
        "status": kind,
        "incident_key": f"key-{n}",
        "created_at": "2026-03-01T10:00:00Z",
        "title": f"checkout {n} is down",
        "service": {"id": "PSVC", "summary": "checkout", "type": "service_reference"},
        "teams": [{"id": "PTEAM", "summary": "payments", "type": "team_reference"}],
        "urgency": "high",
        "priority": {"summary": "P1"},
    }
    if kind == "annotated":
        data = {"type": "incident_note", "id": "PNOTE", "content": "on it", "incident": {"id": f"PINC{n}"}}
    event = {
        "id": f"{kind}-{n}",
        "event_type": f"incident.{kind}",
        "resource_type": "incident",
        "occurred_at": "2026-03-01T10:05:00Z",
        "agent": {"id": "PUSER", "summary": "Ada", "type": agent},
        "data": data,
    }
    return Post("pagerduty", {"event": event}, {})


def grafana(n: int, status: str = "firing") -> Post:
    sent = alertmanager(n, status)
    sent.payload["alerts"][0] |= {"values": {"B": 91.5}, "silenceURL": "http://grafana/silence", "dashboardURL": ""}
    sent.payload["alerts"][0]["fingerprint"] = f"g{n:015x}"
    return Post("grafana", {**sent.payload, "orgId": 1, "state": "alerting", "title": "[FIRING:1]"}, {})


def sentry(n: int, action: str = "created") -> Post:
    issue = {
        "id": str(n),
        "shortId": f"WEB-{n}",
        "title": "TypeError: undefined",
        "culprit": "checkout.js in pay",
        "level": "error",
        "platform": "javascript",
        "type": "error",
        "project": {"id": "1", "slug": "web", "name": "Web"},
        "firstSeen": "2026-03-01T10:00:00.123000Z",
        "status": "unresolved",
    }
    payload = {"action": action, "data": {"issue": issue}, "actor": {"type": "user", "id": 1, "name": "Ada"}}
    headers = {"Sentry-Hook-Resource": "issue", "Sentry-Hook-Timestamp": "1772360400", "Request-ID": f"r{n}"}
    return Post("sentry", payload, headers)


def github(n: int, action: str = "created") -> Post:
    alert: dict[str, Any] = {
        "number": n,
        "state": "open",
        "dependency": {"package": {"ecosystem": "pip", "name": "django"}, "manifest_path": "requirements.txt"},
        "security_advisory": {"ghsa_id": "GHSA-rf4j-j272-fj86", "severity": "high", "summary": "A bypass"},
        "created_at": "2026-03-01T10:00:00Z",
        "updated_at": "2026-03-01T12:00:00Z",
        "html_url": f"https://github.com/acme/shop/security/dependabot/{n}",
        "dismissed_at": None,
    }
    if action == "dismissed":
        who = {"login": "ada"}
        alert |= {"dismissed_at": "2026-03-01T11:00:00Z", "dismissed_reason": "tolerable_risk", "dismissed_by": who}
    if action == "auto_dismissed":
        alert["auto_dismissed_at"] = "2026-03-01T11:30:00Z"
    payload = {"action": action, "alert": alert, "repository": {"full_name": "acme/shop"}, "sender": {"login": "ada"}}
    return Post("github", payload, {"X-GitHub-Event": "dependabot_alert", "X-GitHub-Delivery": f"guid-{n}"})


def plain(n: int) -> Post:
    alert = {"alert_id": f"own-{n}", "raised_at": "2026-03-01T10:00:00Z", "rule": "cpu", "attributes": {"zone": "a"}}
    action = {"action_id": f"act-{n}", "alert_id": f"own-{n}", "acted_at": "2026-03-01T10:30:00Z"}
    return Post("json", {"alerts": [alert], "actions": [{**action, "action_type": "acknowledged"}]}, {})


@dataclass
class Running:
    port: int
    warehouse: Warehouse

    def post(self, post: Post, headers: dict[str, str] | None = None, name: str = "") -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                "POST", f"/webhooks/{name or post.kind}", post.body, post.signed() if headers is None else headers
            )
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def table(self, name: str, columns: str, order: str = "1, 2, 3") -> list[tuple[Any, ...]]:
        rows = self.warehouse.read_arrow(f"SELECT {columns} FROM raw.{name} ORDER BY {order}").to_pylist()
        return [tuple(row.values()) for row in rows]


@contextmanager
def receiving(warehouse: Warehouse, settings: Settings) -> Iterator[Running]:
    pool = Pool(warehouse)
    webhooks = Webhooks.of(settings, warehouse.connect)
    server = server_of(create_app(pool, "*/15 * * * *", webhooks=webhooks))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield Running(listening.getsockname()[1], warehouse)
        server.should_exit = True
        thread.join(timeout=10)
    pool.close()


@pytest.fixture
def service(warehouse: Warehouse) -> Iterator[Running]:
    with receiving(warehouse, Settings.model_validate(SETTINGS)) as running:
        yield running


RAISED = [alertmanager(1), pagerduty(1), grafana(1), sentry(1), github(1), plain(1)]


def test_each_system_raises_alerts(service: Running) -> None:
    for post in RAISED:
        assert service.post(post) == (200, {"alerts": 1, "actions": int(post.kind == "json"), "ignored": 0})
    columns = "alert_id, raised_at, rule, entity, team, severity, title, attributes"
    assert {row[0]: row[1:7] for row in service.table("alerts", columns)} == {
        f"{1:016x}|2026-03-01T10:00:00.5Z": (
            *("2026-03-01T10:00:00.500000Z", "DiskFull", "db-1", "storage", "page", "db-1 is nearly full"),
        ),
        f"g{1:015x}|2026-03-01T10:00:00.5Z": (
            *("2026-03-01T10:00:00.500000Z", "DiskFull", "db-1", "storage", "page", "db-1 is nearly full"),
        ),
        "PINC1": ("2026-03-01T10:00:00Z", "checkout # is down", "checkout", "payments", "P1", "checkout 1 is down"),
        "1": ("2026-03-01T10:00:00.123000Z", "error", "checkout.js in pay", "web", "error", "TypeError: undefined"),
        "acme/shop|dependabot|1": (
            *("2026-03-01T10:00:00Z", "GHSA-rf4j-j272-fj86", "django", "acme/shop", "high", "A bypass"),
        ),
        "own-1": ("2026-03-01T10:00:00Z", "cpu", None, None, None, None),
    }
    attributes = {row[0]: json.loads(row[7] or "{}") for row in service.table("alerts", columns)}
    assert attributes["own-1"] == {"zone": "a"}
    assert attributes["PINC1"] == {"urgency": "high"}


@pytest.mark.parametrize(
    ("post", "said"),
    [
        (alertmanager(1, "resolved"), ("2026-03-01T11:00:00Z", "closed-by-machine", None)),
        (pagerduty(1, "acknowledged"), ("2026-03-01T10:05:00Z", "acknowledged", "Ada")),
        (pagerduty(1, "resolved"), ("2026-03-01T10:05:00Z", "resolved", "Ada")),
        (pagerduty(1, "resolved", "service_reference"), ("2026-03-01T10:05:00Z", "closed-by-machine", "Ada")),
        (pagerduty(1, "reopened"), ("2026-03-01T10:05:00Z", "reopened", "Ada")),
        (pagerduty(1, "annotated"), ("2026-03-01T10:05:00Z", "annotated", "Ada")),
        (sentry(1, "resolved"), ("2026-03-01T10:20:00+00:00", "resolved", "Ada")),
        (sentry(1, "unresolved"), ("2026-03-01T10:20:00+00:00", "reopened", "Ada")),
        (sentry(1, "archived"), ("2026-03-01T10:20:00+00:00", "archived", "Ada")),
        (github(1, "dismissed"), ("2026-03-01T11:00:00Z", "tolerable_risk", "ada")),
        (github(1, "reintroduced"), ("2026-03-01T12:00:00Z", "reopened", "ada")),
        (github(1, "auto_dismissed"), ("2026-03-01T11:30:00Z", "closed-by-machine", None)),
    ],
    ids=lambda value: value.kind if isinstance(value, Post) else value[1],
)
def test_what_was_done_becomes_an_action_of_its_alert(
    service: Running, post: Post, said: tuple[str, str, str | None]
) -> None:
    raised = next(each for each in RAISED if each.kind == post.kind)
    assert service.post(post)[1] == {"alerts": 0, "actions": 1, "ignored": 0}  # before its alert
    service.post(raised)
    assert service.table("actions", "acted_at, action_type, actor") == [said]
    assert service.table("actions", "alert_id, 1, 2") == service.table("alerts", "alert_id, 1, 2")


def code_scanning(n: int, action: str = "created") -> Post:
    sent = github(n, action)
    for name in ("dependency", "security_advisory"):
        del sent.payload["alert"][name]
    sent.payload["alert"] |= {
        "html_url": f"https://github.com/acme/shop/security/code-scanning/{n}",
        "rule": {"id": "py/sqli", "description": "SQL injection", "severity": "error"},
        "tool": {"name": "CodeQL"},
        "most_recent_instance": {"ref": "refs/heads/main", "location": {"path": "shop/cart.py"}},
    }
    return Post("github", sent.payload, {**sent.headers, "X-GitHub-Event": "code_scanning_alert"})


def of_api(post: Post) -> Any:
    """The record that the system's API has of what a webhook raised or decided, in the API's own spelling."""
    if post.kind == "pagerduty":
        data = {**pagerduty(1).payload["event"]["data"], "summary": "[#1] checkout 1 is down"}
        by = post.payload["event"]["agent"]
        return {**data, "status": "resolved", "last_status_change_at": "2026-03-01T10:05:00Z"} | (
            {"last_status_change_by": by}
            if "resolved" in post.payload["event"]["event_type"]
            else {"status": "triggered"}
        )
    if post.kind == "alertmanager":  # milliseconds, always three digits; its webhook has as many as there are
        return {**post.payload["alerts"][0], "startsAt": "2026-03-01T10:00:00.500Z"}
    if post.kind == "grafana":
        return {**post.payload["alerts"][0], "startsAt": "2026-03-01T11:00:00.5+01:00"}
    if post.kind == "github":  # of one repository, which it does not name
        return {**post.payload["alert"], "url": "https://api.github.com/repositories/1/alerts/1"}
    return {**post.payload["data"]["issue"], "activity": []}


@pytest.mark.parametrize(
    ("raised", "decided", "preset"),
    [
        (pagerduty(1), pagerduty(1, "resolved"), "pagerduty"),
        (alertmanager(1), alertmanager(1, "resolved"), "alertmanager"),
        (grafana(1), grafana(1, "resolved"), "grafana"),
        (sentry(1), None, "sentry"),
        (github(1), github(1, "dismissed"), "github-dependabot"),
        (code_scanning(1), code_scanning(1, "dismissed"), "github-code-scanning"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_webhook_and_a_file_of_its_system_make_the_same_rows(
    service: Running, tmp_path: Path, raised: Post, decided: Post | None, preset: str
) -> None:
    mapping = read_preset(preset)
    service.post(raised)
    (tmp_path / "raised.json").write_text(json.dumps([of_api(raised)]))
    load = load_file("alerts", tmp_path / "raised.json", service.warehouse.connect, mapping=mapping)
    assert (load.rows_read, load.rows_added) == (1, 0), service.table("alerts", "*")
    if decided is None:  # its webhook says when it was sent, its API when it was decided: two actions, one outcome
        return
    (tmp_path / "decided.json").write_text(json.dumps([of_api(decided)]))
    actions = {"decisions_only": True, "mapping": mapping}
    first = load_file("actions", tmp_path / "decided.json", service.warehouse.connect, **actions)
    assert service.post(decided)[1] == {"alerts": 0, "actions": 1, "ignored": 0}
    assert first.rows_added == 1
    assert len(service.table("actions", "action_id, action_type, actor")) == 1


def test_webhooks_that_arrive_together_are_loaded_together_and_once(warehouse: Warehouse) -> None:
    loads: list[int] = []

    def connect() -> Any:
        loads.append(1)
        return warehouse.connect()

    intake, rows = Intake(connect, "UTC"), rows_of("json", plain(1).payload, {})
    for done in [intake.write(rows) for _ in range(50)]:
        done.result(30)
    assert len(loads) < 20
    for table in ("alerts", "actions"):
        assert warehouse.value(f"SELECT count(*) FROM raw.{table}") == 1


def test_what_means_nothing_is_counted(service: Running) -> None:
    ping = Post("github", {"zen": "Keep it logically awesome."}, {"X-GitHub-Event": "ping"})
    assert service.post(ping) == (200, {"alerts": 0, "actions": 0, "ignored": 1})
    assert service.post(pagerduty(1, "priority_updated"))[1]["ignored"] == 1


@pytest.mark.parametrize("post", RAISED, ids=lambda post: post.kind)
def test_a_wrong_signature_changes_nothing(service: Running, post: Post) -> None:
    right = post.signed()
    for name in right:
        for wrong in ({**right, name: right[name][:-1] + ("0" if right[name][-1] != "0" else "1")}, {}):
            if name in post.headers:
                continue
            status, answer = service.post(post, wrong)
            assert (status, answer["error"]) == (401, "the signature is missing or wrong")
    assert service.table("alerts", "1, 2, 3") == []


@pytest.mark.parametrize("post", [grafana(1), plain(1)], ids=lambda post: post.kind)
def test_an_old_signature_is_not_taken(service: Running, post: Post) -> None:
    assert service.post(post, post.signed(time.time() - 400))[0] == 401
    assert service.post(post, post.signed(time.time() + 400))[0] == 401
    assert service.post(post, post.signed(time.time() - 200))[0] == 200


@pytest.mark.parametrize(
    ("post", "status", "error"),
    [
        (Post("pagerduty", {"event": {"event_type": "incident.triggered", "data": {}}}, {}), 422, "has no 'id'"),
        (Post("alertmanager", {"alerts": 3}, {}), 422, "alerts is not a list"),
        (Post("json", [1], {}), 422, "a webhook is a JSON object"),
        (Post("json", {"alerts": [{"alert_id": "a"}]}, {}), 422, "missing"),
        (
            Post("github", {"action": "created", "alert": {"number": 1}}, {"X-GitHub-Event": "dependabot_alert"}),
            422,
            "",
        ),
    ],
)
def test_what_cannot_be_read_is_named(service: Running, post: Post, status: int, error: str) -> None:
    answered, answer = service.post(post)
    assert answered == status
    assert error in answer.get("error", "")


def test_own_rows_are_taken_as_the_description_says(service: Running) -> None:
    document = description()
    schema = {"$ref": "#/components/schemas/PushedRows", "components": document["components"]}
    valid = Draft202012Validator(schema).is_valid
    texts: list[Any] = [None, 7, 7.5, True, "", " ", "a", "a\0", "x" * 1001, {"a": 1}, []]
    alert, action = plain(1).payload["alerts"][0], plain(1).payload["actions"][0]
    bodies: list[Any] = [{"alerts": [{**alert, name: each}]} for name in (*alert, "value", "more") for each in texts]
    bodies += [{"actions": [{**action, name: each}]} for name in (*action, "actor") for each in texts]
    outcomes = [(valid(body), service.post(Post("json", body, {}))[0]) for body in [{}, *bodies]]
    assert {(allowed, status != 422) for allowed, status in outcomes} == {(True, True), (False, False)}


def test_text_that_no_table_can_hold_is_refused(service: Running) -> None:
    post = pagerduty(1)
    post.payload["event"]["data"]["title"] = "a\x00b"
    assert service.post(post)[0] == 422
    post.payload["event"]["data"]["title"] = "\ud800"
    assert service.post(post)[0] == 422
    assert service.post(plain(2), name="nobody")[0] == 404


def test_a_short_or_missing_secret_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(webhooks={"gh": Webhook(kind="github", secret_from="HEED_SHORT")})
    for secret in ("", "short"):
        monkeypatch.setenv("HEED_SHORT", secret)
        with pytest.raises(HeedError, match="HEED_SHORT, the secret of the webhook gh"):
            Webhooks.of(settings, Warehouse(tmp_path).connect)


def story(n: int) -> list[Post]:
    """What happens to one incident, issue, and alert of each system."""
    return [
        *(pagerduty(n), pagerduty(n, "acknowledged"), pagerduty(n, "annotated"), pagerduty(n, "resolved")),
        *(alertmanager(n), alertmanager(n, "resolved"), sentry(n), sentry(n, "resolved")),
        *(github(n), github(n, "dismissed"), grafana(n), grafana(n, "resolved"), plain(n)),
    ]


def right_rows(number: int) -> dict[str, tuple[int, int]]:
    """Rows and different ids, per table, after so many stories."""
    return {"alerts": (6 * number, 6 * number), "actions": (8 * number, 8 * number)}


def test_a_flood_with_duplicates_reordering_forgeries_and_a_kill_loses_and_doubles_nothing(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    lines = [
        f"[webhooks.{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in webhook.items())
        for name, webhook in SETTINGS["webhooks"].items()
    ]
    (tmp_path / "heed.toml").write_text("\n".join(lines))
    environment = {**os.environ, "HEED_HOME": str(tmp_path), URL_VARIABLE: warehouse.url()}
    number, shuffled = 8, random.Random(5)
    posts = [post for n in range(number) for post in story(n)]
    sent = [*posts, *shuffled.sample(posts, 30)]
    shuffled.shuffle(sent)
    forged = shuffled.sample(posts, 20)

    def start() -> tuple[subprocess.Popen[str], Running]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", "serve", "--port", "0"],
            cwd=PROJECT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        return process, Running(int(line.split("http://127.0.0.1:")[1].split("/")[0]), warehouse)

    def attempt(running: Running, post: Post) -> bool:
        try:
            return running.post(post)[0] == 200
        except (OSError, HTTPException):
            return False

    process, running = start()
    try:
        with ThreadPoolExecutor(16) as pool:
            answers = [pool.submit(attempt, running, post) for post in sent]
            while sum(answer.done() for answer in answers) < len(sent) // 3:
                time.sleep(0.01)
            process.kill()
            unanswered = [post for post, answer in zip(sent, answers, strict=True) if not answer.result()]
        process.wait()
        assert 0 < len(unanswered) < len(sent)
        answered = [post for post, answer in zip(sent, answers, strict=True) if answer.result()]
        committed = {row[0] for row in running.table("alerts", "alert_id, 1, 2")}
        raised = {
            f"PINC{p.payload['event']['data']['number']}"
            for p in answered
            if p.kind == "pagerduty" and p.payload["event"]["event_type"] == "incident.triggered"
        }
        assert raised <= committed  # durable before the answer
        process, running = start()
        with ThreadPoolExecutor(16) as pool:
            # A sender repeats what was not answered, and somebody replays what was.
            again = [*unanswered, *shuffled.sample(answered, 10)]
            assert all(pool.map(lambda post: attempt(running, post), again))
            refused = pool.map(lambda post: running.post(post, {**post.signed(), **_FORGERIES})[0], forged)
            assert set(refused) == {401}
    finally:
        process.kill()
        process.wait()
    rows = {
        table: tuple(running.table(table, f"count(*) AS n, count(DISTINCT {key}) AS ids", "1")[0])
        for table, key in (("alerts", "alert_id"), ("actions", "action_id"))
    }
    assert rows == right_rows(number)
    kept = warehouse.value("SELECT count(*) FROM raw.undecodable_rows")
    assert kept == 0


_FORGERIES = {
    "Authorization": "Bearer wrong",
    "X-PagerDuty-Signature": "v1=00",
    "X-Grafana-Alerting-Signature": "00",
    "Sentry-Hook-Signature": "00",
    "X-Hub-Signature-256": "sha256=00",
    "webhook-signature": "v1,00",
}
