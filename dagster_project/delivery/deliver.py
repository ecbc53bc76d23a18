"""Deliver scores: write what is to be said into the outbox, then send what is due.

Belongs here: the order of both, time limits, retries, and the rate limit.
Does not belong here: rules (`rules.py`), tables (`resources/stores/deliveries.py`), one kind's requests.

Delivery is at least once. A message is in the outbox before it is sent, with its idempotency key, and leaves it when
the destination has accepted it. What is to be said follows from the newest scores and from the outbox alone, so a
process that dies anywhere between publication and delivery loses nothing: the next one continues.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from dagster_project.delivery import chat, jira, pagerduty, sentry, servicenow, webhook
from dagster_project.delivery.http import SECONDS, Client, NotDelivered, Outcome
from dagster_project.delivery.message import Waiting, document, example
from dagster_project.delivery.rules import Said, is_quiet, to_say
from dagster_project.errors import HeedError, one_line
from dagster_project.resources.stores.deliveries import (
    NewMessage,
    enqueue,
    last_messages,
    open_scores,
    outbox,
    withdraw_all_but,
)

if TYPE_CHECKING:
    from dagster_project.resources.stores.deliveries import Outbox
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Destination, Settings

Send = Callable[[Waiting, "Destination", str, str, Client], Outcome]
SENDERS: dict[str, Send] = {
    "webhook": webhook.send,
    "apprise": chat.send,
    "pagerduty": pagerduty.send,
    "jira": jira.send,
    "servicenow": servicenow.send,
    "sentry": sentry.send,
}
# A run holds the run lock meanwhile, and the next refresh comes in 15 minutes: what is left by then is sent after it.
RUN_SECONDS = 60.0
FIRST_WAIT = timedelta(seconds=2)  # doubled from attempt to attempt
LONGEST_WAIT = timedelta(hours=1)
# A day: an outage of a night or a token that somebody renews in the morning costs no message.
GIVE_UP_AFTER = timedelta(days=1)
# After so many attempts in a row that met no answer, the rest waits for the next run: each would wait for its time-out.
MOST_SILENT = 3


@dataclass
class Delivered:
    """What happened for one destination. note : what a person should know; empty: nothing."""

    destination: str
    new: int = 0
    delivered: int = 0
    failed: int = 0
    waiting: int = 0
    note: str = ""

    def line(self) -> str:
        """One line for people."""
        counts = f"{self.delivered} delivered, {self.waiting} waiting, {self.failed} given up"
        return one_line(f"{self.destination}: {counts}" + (f" ({self.note})" if self.note else ""))

    def to_document(self) -> dict[str, Any]:
        """The same for machines."""
        return asdict(self)


def deliver(
    warehouse: Warehouse, settings: Settings, *, seconds: float = RUN_SECONDS, request_seconds: float = SECONDS
) -> list[Delivered]:
    """Write what is to be said to each destination into the outbox, and send what is due; one result per destination.

    seconds : for how long at most; destinations are served at the same time, and do not hold each other up.
    request_seconds : the time-out of one request.
    """
    names = list(settings.destinations)
    withdraw_all_but(warehouse, names)
    if not names:
        return []
    plan(warehouse, settings)
    return send_due(warehouse, settings, names, seconds=seconds, request_seconds=request_seconds)


def plan(warehouse: Warehouse, settings: Settings) -> dict[str, int]:
    """Write messages into the outbox, and return how many per destination; none in its quiet hours."""
    now = datetime.now(UTC)
    scores = open_scores(warehouse)
    shown = [score["alert_id"] for score in scores]
    written = {}
    for name, rules in settings.destinations.items():
        if is_quiet(now, rules):
            continue
        sent = {alert: Said(*last) for alert, last in last_messages(warehouse, name).items()}
        messages = [_message(score, sent.get(score["alert_id"]), rules, now) for score in to_say(scores, sent, rules)]
        written[name] = enqueue(warehouse, name, messages, shown)
    return written


def _message(score: Mapping[str, Any], before: Said | None, rules: Destination, now: datetime) -> NewMessage:
    target = str(score["alert_id"])
    if rules.id_from:
        value = json.loads(score["attributes"] or "{}").get(rules.id_from)
        target = "" if value is None else str(value)
    return NewMessage(
        alert_id=score["alert_id"],
        version=before.version + 1 if before else 1,
        message_id=f"msg_{uuid.uuid4().hex}",
        target=target,
        message=document(dict(score), now),
        probability=score["probability"],
        flag_words=score["flag_words"],
        model_version=score["model_version"],
        as_of=score["as_of"],
    )


def send_due(
    warehouse: Warehouse,
    settings: Settings,
    names: Sequence[str],
    *,
    seconds: float = RUN_SECONDS,
    request_seconds: float = SECONDS,
) -> list[Delivered]:
    """Send what is due to these destinations, at the same time; nothing in a destination's quiet hours."""

    def serve(name: str) -> Delivered:
        result = Delivered(name)
        try:
            _serve(warehouse, name, settings.destinations[name], result, time.monotonic() + seconds, request_seconds)
        except HeedError as error:
            result.note = f"{error.cause}; {error.remedy}"
        except Exception as error:  # one destination does not take the others, or the run, with it
            result.note = f"stopped by {type(error).__name__}"
        return result

    from dagster_project.resources.stores.deliveries import summary

    with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
        results = list(pool.map(serve, names))
    counts = {(row["destination"], row["outcome"]): row["messages"] for row in summary(warehouse)}
    for result in results:
        result.waiting = counts.get((result.destination, "waiting"), 0)
    return results


def credentials(destination: Destination) -> tuple[str, str]:
    """The address and the secret of a destination, the latter from the environment.

    Raises
    ------
    HeedError
        A variable that the settings name is not set.
    """

    def variable(name: str) -> str:
        value = os.environ.get(name, "").strip()
        if name and not value:
            raise HeedError(f"{name} is not set", "set it in heed's environment; docs/destinations.md says to what")
        return value

    address = variable(destination.url_from) or destination.url
    secret = variable(destination.secret_from)
    if destination.kind == "webhook":
        webhook.key_of(secret, destination.secret_from)
    elif not (secret.isascii() and secret.isprintable()):
        raise HeedError(f"{destination.secret_from} has characters that no header can carry", "copy it again")
    return address if destination.kind in ("webhook", "apprise") else address.rstrip("/"), secret


def _serve(
    warehouse: Warehouse, name: str, rules: Destination, result: Delivered, until: float, request_seconds: float
) -> None:
    if is_quiet(datetime.now(UTC), rules):
        result.note = "quiet hours"
        return
    address, secret = credentials(rules)
    with outbox(warehouse, name) as box, Client(secret, request_seconds) as client:
        if box is None:
            result.note = "another process is sending"
            return
        pace = _Pace(rules.per_minute, box.attempts_since(60))
        silent = 0
        while (row := box.next()) is not None:
            wait = max(row["wait"], pace.wait())
            if wait > 0:
                if time.monotonic() + wait > until:
                    return
                time.sleep(wait)
                continue
            if time.monotonic() > until:
                return
            waiting = Waiting(*(row[field] for field in Waiting.__dataclass_fields__))
            box.begin(waiting.delivery_id)
            pace.count()
            outcome = attempt(waiting, rules, address, secret, client)
            _record(box, waiting, row["age"], outcome, result)
            silent = silent + 1 if outcome.kind == "again" and not outcome.retry_after else 0
            if silent >= MOST_SILENT:
                result.note = outcome.detail
                return


def attempt(row: Waiting, rules: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Send one message once."""
    if not row.target:
        return Outcome("failed", f"the alert has no attribute {rules.id_from}")
    try:
        return SENDERS[rules.kind](row, rules, address, secret, client)
    except NotDelivered as error:
        return error.outcome


def _record(box: Outbox, row: Waiting, age: float, outcome: Outcome, result: Delivered) -> None:
    if outcome.kind == "again" and age < GIVE_UP_AFTER.total_seconds():
        wait = outcome.retry_after or min(FIRST_WAIT.total_seconds() * 2**row.attempts, LONGEST_WAIT.total_seconds())
        box.again(row.delivery_id, outcome.detail, wait, everything=bool(outcome.retry_after))
    elif outcome.kind == "delivered":
        result.delivered += 1
        box.end(row.delivery_id, "delivered", outcome.detail)
    else:
        result.failed += 1
        result.note = outcome.detail
        box.end(row.delivery_id, "failed", outcome.detail)


class _Pace:
    """At most so many attempts in any minute. ages : seconds since those of the last minute, the oldest first."""

    def __init__(self, per_minute: int, ages: list[float]) -> None:
        now = time.monotonic()
        self._times: deque[float] = deque((now - age for age in ages), maxlen=per_minute)

    def wait(self) -> float:
        """Seconds until the next attempt is allowed."""
        if len(self._times) < cast(int, self._times.maxlen):
            return 0.0
        return self._times[0] + 60 - time.monotonic()

    def count(self) -> None:
        """An attempt begins."""
        self._times.append(time.monotonic())


def send_test(name: str, settings: Settings, target: str = "") -> None:
    """Send one test message now, without the outbox.

    target : what the destination calls the alert to comment on; only webhooks and chats can do without.

    Raises
    ------
    HeedError
        There is no such destination, or it did not accept the message.
    """
    rules = settings.destinations.get(name)
    if rules is None:
        known = ", ".join(settings.destinations) or "none"
        raise HeedError(f"there is no destination {name!r} in heed.toml", f"name one of: {known}")
    if not target and rules.kind not in ("webhook", "apprise"):
        raise HeedError(
            f"{name} comments on alerts of another system", "say which one with --on, like --on PROJ-1 for Jira"
        )
    address, secret = credentials(rules)
    message_id = f"msg_{uuid.uuid4().hex}"
    row = Waiting(0, "heed-test", target or "heed-test", message_id, example(datetime.now(UTC)), 0)
    with Client(secret) as client:
        outcome = attempt(row, rules, address, secret, client)
    if outcome.kind != "delivered":
        raise HeedError(f"{name} did not accept the test message ({outcome.detail})", "correct it in heed.toml")
