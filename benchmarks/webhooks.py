"""10,000 webhooks at 200 a second, through faults: what is lost, wrong, or doubled?

    python -m benchmarks.webhooks                                  # writes benchmarks/webhooks.md
    python -m benchmarks.webhooks --webhooks 1000 --out /tmp/page.md

Belongs here: a sender that keeps its rate and repeats what was not answered, faults at random moments, and the
comparison of `raw` with what was sent. Does not belong here: payloads (`tests/serving/test_webhooks.py`), one promise
at a time (the same file).

The service is the real `heed serve` on a home of its own. All six kinds of webhook take part, signed as their systems
sign, in random order, so that many actions come before their alert. What the rows have to be is written down here by
hand, from the payloads, and not computed by heed.

heed itself answers 503 where it cannot keep up. What lies between two systems does worse, so the sender plays a proxy
that at random (a) answers 429 and passes nothing on, (b) answers 500 and passes nothing on, (c) passes on, and answers
500 all the same, (d) passes on, and lets the sender wait until it gives up. In (c) and (d) heed has taken a webhook of
which the sender believes that it was not taken. A sender comes back for each.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine import machine
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import stop_server
from dagster_project.resources.warehouse.schema import prepare
from tests.serving.test_webhooks import SECRET, SETTINGS, SIGNING, Post, story

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
WEBHOOKS, RATE, SEED = 10_000, 200.0, 7
DUPLICATES = 0.05
KILLS = 2
FAULTS = {"429": 0.02, "500": 0.02, "500 after it was taken": 0.02, "no answer after it was taken": 0.02}
SENDERS = 500  # of a rate of 200 a second, each may wait two seconds and more for its commit
GIVE_UP_SECONDS = 10.0  # a sender waits this long for an answer, as many systems do
FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
PATIENCE = 900.0  # a run that is not through after this long has lost what is missing
SECRETS = {"HEED_SECRET": SECRET, "HEED_SIGNING": SIGNING}

Row = tuple[Any, ...]


def right_rows(n: int) -> tuple[list[Row], list[Row]]:
    """What the story of number `n` has to leave, by hand.

    Returns alerts as (id, raised_at, rule, entity), and actions as (alert id, acted_at, type, actor).
    """
    day = "2026-03-01T"
    prometheus, dashboard = f"{n:016x}|{day}10:00:00.5Z", f"g{n:015x}|{day}10:00:00.5Z"
    advisory = f"acme/shop|dependabot|{n}"
    alerts: list[Row] = [
        (prometheus, f"{day}10:00:00.500000Z", "DiskFull", f"db-{n}"),
        (dashboard, f"{day}10:00:00.500000Z", "DiskFull", f"db-{n}"),
        (f"PINC{n}", f"{day}10:00:00Z", "checkout # is down", "checkout"),
        (str(n), f"{day}10:00:00.123000Z", "error", "checkout.js in pay"),
        (advisory, f"{day}10:00:00Z", "GHSA-rf4j-j272-fj86", "django"),
        (f"own-{n}", f"{day}10:00:00Z", "cpu", None),
    ]
    actions: list[Row] = [
        (prometheus, f"{day}11:00:00Z", "closed-by-machine", None),
        (dashboard, f"{day}11:00:00Z", "closed-by-machine", None),
        *((f"PINC{n}", f"{day}10:05:00Z", what, "Ada") for what in ("acknowledged", "annotated", "resolved")),
        (str(n), f"{day}10:20:00+00:00", "resolved", "Ada"),
        (advisory, f"{day}11:00:00Z", "tolerable_risk", "ada"),
        (f"own-{n}", f"{day}10:30:00Z", "acknowledged", None),
    ]
    return alerts, actions


class Service:
    """`heed serve`, which is killed and started again on the same port."""

    def __init__(self, home: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._home = home
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> float:
        """Start it; the seconds until it listens."""
        started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", "serve", "--port", str(self.port)],
            cwd=ROOT,
            env={**os.environ, **SECRETS, "HEED_HOME": str(self._home)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if "http://" not in self._process.stdout.readline():
            raise SystemExit("heed serve did not start")
        return time.monotonic() - started

    def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


@dataclass
class Sender:
    """Sends each webhook when it is due, and again until it is answered with 200.

    answers : of all attempts. begun : when each first attempt was made. seconds : from the moment due to the 200.
    """

    port: int
    random: random.Random
    answers: Counter[str] = field(default_factory=Counter)
    begun: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _due: list[tuple[float, int, int, Post]] = field(default_factory=list)
    _open: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, posts: list[Post], rate: float, beginning: float) -> None:
        """Send all of them; returns when each was answered, or PATIENCE has passed."""
        self._due = [(beginning + number / rate, number, 0, post) for number, post in enumerate(posts)]
        heapq.heapify(self._due)
        self._open = len(posts)
        self._beginning, self._rate = beginning, rate
        threads = [threading.Thread(target=self._work) for _ in range(SENDERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _next(self) -> tuple[float, int, int, Post] | None:
        with self._lock:
            return heapq.heappop(self._due) if self._due else None

    def _work(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=GIVE_UP_SECONDS)
        while self._open and time.monotonic() < self._beginning + PATIENCE:
            following = self._next()
            if following is None:
                time.sleep(0.05)  # others are under way, and may have to be repeated
                continue
            due, number, attempt, post = following
            time.sleep(max(0.0, due - time.monotonic()))
            if not attempt:
                self.begun.append(time.monotonic())
            answer = self._attempt(connection, post)
            with self._lock:
                self.answers[answer] += 1
                if answer == "200":
                    self._open -= 1
                    self.seconds.append(time.monotonic() - (self._beginning + number / self._rate))
                elif answer[0] == "4" and answer != "429":
                    self._open -= 1
                    self.refused.append(f"{answer} to a webhook of {post.kind}")
                else:
                    wait = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt)
                    heapq.heappush(self._due, (time.monotonic() + wait, number, attempt + 1, post))
        connection.close()

    def _attempt(self, connection: HTTPConnection, post: Post) -> str:
        fault = self.random.choices([*FAULTS, ""], [*FAULTS.values(), 1 - sum(FAULTS.values())])[0]
        if fault in ("429", "500"):
            return fault
        try:
            connection.request("POST", f"/webhooks/{post.kind}", post.body, post.signed())
            if fault == "no answer after it was taken":
                connection.close()
                return fault
            response = connection.getresponse()
            response.read()
            return fault or str(response.status)
        except (OSError, HTTPException) as error:
            connection.close()
            return "no answer" if isinstance(error, TimeoutError) else "no connection, or a cut one"


def compare(warehouse: Warehouse, stories: int) -> dict[str, dict[str, int]]:
    """Rows of `raw` against what they have to be, for each table."""
    columns = {"alerts": "alert_id, raised_at, rule, entity", "actions": "alert_id, acted_at, action_type, actor"}
    right = [right_rows(n) for n in range(stories)]
    result = {}
    for table, expected in (
        ("alerts", Counter(row for alerts, _ in right for row in alerts)),
        ("actions", Counter(row for _, actions in right for row in actions)),
    ):
        rows = [
            tuple(row.values()) for row in warehouse.read_arrow(f"SELECT {columns[table]} FROM raw.{table}").to_pylist()
        ]
        there = Counter(rows)
        result[table] = {
            "expected": expected.total(),
            "there": there.total(),
            "lost": sum(1 for row in expected if row not in there),
            "wrong": sum(1 for row in there if row not in expected),
            "doubled": sum(count - expected[row] for row, count in there.items() if 0 < expected[row] < count),
        }
    undecodable = int(warehouse.value("SELECT count(*) FROM raw.undecodable_rows"))
    result["alerts"]["wrong"] += undecodable
    return result


def run(number: int, rate: float, seed: int) -> dict[str, Any]:
    """Send, kill, and compare."""
    stories = round(number * (1 - DUPLICATES) / len(story(0)))
    shuffled = random.Random(seed)
    posts = [post for n in range(stories) for post in story(n)]
    duplicates = shuffled.sample(posts, number - len(posts))
    sent = [*posts, *duplicates]
    shuffled.shuffle(sent)
    kills = sorted(shuffled.uniform(0.1, 0.9) * number / rate for _ in range(KILLS))
    with tempfile.TemporaryDirectory(prefix="heed-webhooks-") as name:
        home = Path(name)
        tables = [
            f"[webhooks.{kind}]\n" + "".join(f'{key} = "{value}"\n' for key, value in webhook.items())
            for kind, webhook in SETTINGS["webhooks"].items()
        ]
        (home / "heed.toml").write_text("\n".join(tables))
        warehouse = Warehouse(home)
        service, load_at_start = None, os.getloadavg()[0]
        try:
            prepare(warehouse)
            service = Service(home)
            sender = Sender(service.port, random.Random(seed + 1))
            beginning = time.monotonic() + 1.0
            sending = threading.Thread(target=sender.send, args=(sent, rate, beginning))
            sending.start()
            restarts = []
            for moment in kills:
                time.sleep(max(0.0, beginning + moment - time.monotonic()))
                service.kill()
                restarts.append(service.start())
            sending.join()
            seconds = time.monotonic() - beginning
            rows = compare(warehouse, stories)
        finally:
            if service is not None:
                with suppress(ProcessLookupError):
                    service.kill()
            stop_server(home)
    begun = np.diff([min(sender.begun), max(sender.begun)])[0]
    return {
        "sent": len(sent),
        "different": len(posts),
        "rate": (len(sender.begun) - 1) / float(begun),
        "seconds": seconds,
        "kills": kills,
        "restarts": restarts,
        "answers": sender.answers,
        "refused": sender.refused,
        "unanswered": len(sent) - sender.answers["200"],
        "milliseconds": [1000 * float(each) for each in np.percentile(sender.seconds, (50, 90, 99, 100))],
        "rows": rows,
        "load_at_start": load_at_start,
    }


def page(found: dict[str, Any], rate: float, seed: int) -> str:
    total = {what: sum(table[what] for table in found["rows"].values()) for what in ("lost", "wrong", "doubled")}
    where = machine()
    kills = " and ".join(f"{moment:.1f} s" for moment in found["kills"])
    restarts = ", ".join(f"{each:.1f}" for each in found["restarts"])
    answers = ", ".join(f"{count:,} times {answer}" for answer, count in found["answers"].most_common())
    share = found["rate"] / rate
    shortfall = "" if share > 0.98 else f" That is less than asked for: the machine was too busy for {rate:.0f}."
    lines = [
        f"# {found['sent']:,} webhooks at {rate:.0f} a second, through faults",
        "",
        f"**Lost {total['lost']}, wrong {total['wrong']}, doubled {total['doubled']}.** "
        f"`make benchmark-webhooks` makes this page again (seed {seed}).",
        "",
        f"Signed webhooks of all six kinds to the real `heed serve` on a clean home: {found['different']:,} different "
        f"ones, {found['sent'] - found['different']:,} duplicates, in random order, so that many actions come before "
        f"their alert. The service was killed with SIGKILL {kills} after the first webhook, and started again. Each "
        f"attempt met one of these at random, {sum(FAULTS.values()):.0%} in all: "
        + ", ".join(f"{name} ({share:.0%})" for name, share in FAULTS.items())
        + ". The sender came back after each until it got 200. Then the rows of `raw` were compared with rows that are "
        "written down by hand from the payloads.",
        "",
        f"{where['cpu']}, {where['cpus']} CPUs, which sender, service, warehouse and other work shared: load average "
        f"{found['load_at_start']:.1f} at the start.",
        "",
        "| what | alerts | actions |",
        "|---|--:|--:|",
        *(
            f"| {words} | {found['rows']['alerts'][what]:,} | {found['rows']['actions'][what]:,} |"
            for what, words in (
                ("expected", "rows that have to be there"),
                ("there", "rows that are there"),
                ("lost", "lost: missing"),
                ("wrong", "wrong: there, and not as they have to be"),
                ("doubled", "doubled: there more than once"),
            )
        ),
        "",
        "| what | figure |",
        "|---|--:|",
        f"| webhooks begun a second | {found['rate']:.0f} |",
        f"| seconds until the last was answered with 200 | {found['seconds']:.0f} |",
        f"| never answered with 200 | {found['unanswered']:,} |",
        f"| attempts | {found['answers'].total():,} |",
        "| ms from the moment due to the 200, repeats and restarts included: median, 90%, 99%, most | "
        + ", ".join(f"{each:,.0f}" for each in found["milliseconds"])
        + " |",
        f"| seconds from each kill to a service that listens | {restarts} |",
        "",
        f"What the sender got: {answers}.{shortfall}",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhooks", type=int, default=WEBHOOKS)
    parser.add_argument("--rate", type=float, default=RATE)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    result = run(asked.webhooks, asked.rate, asked.seed)
    asked.out.write_text(page(result, asked.rate, asked.seed), encoding="utf-8")
    print(asked.out.read_text(encoding="utf-8"))
    bad = sum(table[what] for table in result["rows"].values() for what in ("lost", "wrong", "doubled"))
    if bad or result["refused"]:
        raise SystemExit(f"{bad} rows are not right; refused: {Counter(result['refused'])}")


if __name__ == "__main__":
    main()
