"""Notify people that a run failed, and that the job works again.

Belongs here: recording how runs ended (`scoring.run_ends`), choosing the message, and sending it with Apprise.
Does not belong here: why a run failed (`failures.py`), and the callers (`commands/run.py`, `automation.py`).

There is one message per failed run, and one when the same job works again. Several processes may learn that a run
ended (the command that ran it, a sensor, the next run that finds it cut off): the first to record it sends the message.
If the warehouse is unreachable, nothing can be recorded, and the message is still sent.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError, one_line
from dagster_project.resources.as_of import AS_OF_TAG, parse_moment
from dagster_project.resources.warehouse.abandoned_runs import close_abandoned_runs

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings

Say = Callable[[str], None]

SUCCEEDED, FAILED = "succeeded", "failed"
# The run has ended by then; its command waits no longer than this for a slow destination.
SEND_SECONDS = 20.0
MOST_CHARACTERS = 1500  # the limit of the strictest services

_RECORD = """
INSERT INTO scoring.run_ends (run_id, job, as_of, status, what) VALUES ($1, $2, $3::timestamptz, $4, $5)
ON CONFLICT DO NOTHING RETURNING ended_at
"""
_BEFORE = """
SELECT run_id, status, ended_at FROM scoring.run_ends WHERE job = $1 AND run_id <> $2 ORDER BY ended_at DESC LIMIT 1
"""


@dataclass(frozen=True)
class RunEnd:
    """How a run ended. status : SUCCEEDED or FAILED. what : why it failed, in one line."""

    run_id: str
    job: str
    as_of: datetime | None
    status: str
    what: str = ""


def end_of(run: DagsterRun, status: str, what: str = "") -> RunEnd:
    """The end of a Dagster run."""
    as_of = parse_moment(run.tags[AS_OF_TAG]) if AS_OF_TAG in run.tags else None
    return RunEnd(run.run_id, run.job_name, as_of, status, what)


def tell_of_abandoned_runs(instance: DagsterInstance, warehouse: Warehouse, settings: Settings, say: Say) -> None:
    """Close runs whose process is gone, and notify about them, which they could not do themselves."""
    for run_id, what in close_abandoned_runs(instance, warehouse).items():
        say(f"run {run_id[:8]} was cut off: {what}")
        run = instance.get_run_by_id(run_id)
        if run is not None:
            run_ended(warehouse, settings, end_of(run, FAILED, f"run {run_id[:8]} was cut off: {what}"), say)


def run_ended(warehouse: Warehouse, settings: Settings, end: RunEnd, say: Say = lambda line: None) -> None:
    """Record how a run ended, and send a message if needed. Never raises, so that it cannot fail the run."""
    try:
        message = _message(warehouse, end)
    except Exception as error:  # the warehouse may be why the run failed
        say(f"how the run ended could not be recorded ({type(error).__name__})")
        message = _failure(end) if end.status == FAILED else None
    if message is None:
        return
    try:
        if destinations(settings):
            send(settings, *message)
    except Exception as error:
        reason = one_line(error.cause) if isinstance(error, HeedError) else type(error).__name__
        say(f"nobody could be notified: {reason}")


def _message(warehouse: Warehouse, end: RunEnd) -> tuple[str, str] | None:
    """Record the end. Returns (title, text) to send; None: another process recorded it, or there is nothing to say."""
    with warehouse.unguarded().transaction() as cursor:
        cursor.execute(_RECORD, parameters=(end.run_id, end.job, end.as_of, end.status, end.what))
        if cursor.fetchone() is None:
            return None
        if end.status == FAILED:
            return _failure(end)
        cursor.execute(_BEFORE, parameters=(end.job, end.run_id))
        before = cursor.fetchone()
    if before is None or before[1] != FAILED:
        return None
    since = before[2].astimezone(UTC)
    text = f"Run {end.run_id[:8]} succeeded. Run {before[0][:8]} had failed at {since:%Y-%m-%d %H:%M} UTC."
    return f"heed: {end.job} works again", text


def _failure(end: RunEnd) -> tuple[str, str]:
    text = f"{end.what or 'the reason is unknown'}. Published scores stay as they are. `heed doctor` tells more."
    return f"heed: {end.job} failed", one_line(text)[:MOST_CHARACTERS]


def destinations(settings: Settings) -> list[str]:
    """The addresses to send to, from the environment: they hold secrets, so never log them."""
    return os.environ.get(settings.notify.urls_from, "").replace(",", " ").split()


def send(settings: Settings, title: str, text: str) -> int:
    """Send a message to every destination, and return how many there are.

    Raises HeedError: there is no destination, an address is invalid, or a destination did not accept it in time. Quotes
        no address.
    """
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its messages contain addresses
    variable = settings.notify.urls_from
    urls = destinations(settings)
    if not urls:
        raise HeedError(f"there is nobody to notify: {variable} is not set", f"set {variable}, see docs/operations.md")
    failures: list[str] = []
    threads = []
    for number, url in enumerate(urls, 1):
        name = f"destination {number} of {variable} ({url.partition(':')[0][:20]})"
        destination = apprise.Apprise.instantiate(url)
        if destination is None:
            failures.append(f"{name} is not an address that Apprise knows")
            continue

        def deliver(name: str = name, service: Any = destination) -> None:
            try:
                if not service.notify(title=title, body=text):
                    failures.append(f"{name} did not accept the message")
            except Exception as error:
                failures.append(f"{name} did not accept the message ({type(error).__name__})")

        thread = threading.Thread(target=deliver, name=name, daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join(SEND_SECONDS)
        if thread.is_alive():
            failures.append(f"{thread.name} did not answer within {SEND_SECONDS:.0f} s")
    if failures:
        raise HeedError("; ".join(failures), f"correct {variable}, and try it with `heed notify --test`")
    return len(urls)
