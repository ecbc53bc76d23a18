"""The service on a warehouse of 700,000 scored alerts, 100,000 of them open: how fast it is, and what breaks it.

    python -m benchmarks.service                                   # everything; about an hour
    python -m benchmarks.service --home DIR --only board           # one part; the page comes with the last of the three
    python -m benchmarks.service --only requests --requests 5000   # fewer generated requests

`make benchmark-service` runs it in an environment that has Schemathesis, which makes requests from the service's own
OpenAPI description. What the parts found is kept in `service.json` in the home; the page is written from it as soon as
all three have been run on the code as it is. Generated requests go on where they were broken off.

Belongs here: the warehouse, requests at a given rate, the generated requests, the table `benchmarks/service.md`. Does
not belong here: anything timed in a test.

board : the first page, as soon as `heed serve` says that it is there, then other pages, filters and thresholds, and the
    first page right after a publication.
rate : requests arrive at fixed moments whether earlier ones are answered or not, so that waiting counts. Of twenty,
    sixteen ask for a score, two for a badge, one for fifty scores, one for the health. Connections are kept.
requests : Schemathesis with its default checks: no 500, answers as described (status, type, schema), what is allowed
    is accepted, what is not is refused. Half of the ids are those of alerts that exist. Answers of the service are
    counted, not what Schemathesis says it made. Cases that are the same in each round are sent in the first one only.

Service, warehouse and whoever asks share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import http.client
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from dagster_project.resources.warehouse.embedded import stop_server

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("board", "rate", "requests")
OPEN, SCORED = 100_000, 700_000
RATE, SECONDS, CONNECTIONS = 500, 60, 24
SEED = 1
# Schemathesis keeps what it made: with 4,000 examples an operation a round once stood for 25 minutes, at 6 GB.
EXAMPLES, ROUND_SECONDS = 150, 300

# Made of the simulated company's alerts: their texts, at other times, under other ids, scored twice each.
_FILL = """
CREATE TEMPORARY TABLE pattern AS
    SELECT row_number() OVER (ORDER BY alert_id) - 1 AS n, alerts.*, reasons, model_version, status, flood,
           visibility_only
    FROM marts.alerts AS alerts JOIN (
        SELECT DISTINCT ON (alert_id) * FROM scoring.alert_scores ORDER BY alert_id, as_of DESC) AS s
    USING (alert_id, raised_at);
CREATE TEMPORARY TABLE made AS
    SELECT 'bench-' || lpad(i::text, 7, '0') AS made_id, i < %(open)s AS is_open, pattern.*,
           (SELECT max(as_of) FROM scoring.publications) - interval '1 day' * CASE
               WHEN i < %(open)s THEN 14.0 * i / %(open)s ELSE 14 + 350.0 * i / %(all)s END AS at,
           (hashint8(i) & 1048575) / 1048576.0 AS chance
    FROM generate_series(0, %(all)s - 1) AS i
    JOIN pattern ON n = (hashint8(7 * i + 1) & 2147483647) %% (SELECT count(*) FROM pattern);
INSERT INTO marts.alerts (alert_id, raised_at, rule, entity, team, severity, value, threshold, title, attributes,
                          loaded_at)
    SELECT made_id, at, rule, entity, team, severity, value, threshold, title, attributes, loaded_at FROM made
    ORDER BY at;
INSERT INTO marts.alert_outcomes (alert_id, raised_at, horizon_ends_at, outcome, known_at)
    SELECT made_id, at, at + interval '14 days',
           CASE WHEN is_open THEN NULL WHEN chance > 0.8 THEN 'acted' ELSE 'not_acted' END,
           CASE WHEN NOT is_open THEN at + interval '14 days' END FROM made ORDER BY at;
INSERT INTO scoring.alert_scores (alert_id, raised_at, as_of, scored_at, model_version, probability, status, flood,
                                  visibility_only, reasons)
    SELECT made_id, at, at + day * interval '1 day', at + day * interval '1 day', model_version,
           (chance + 0.01 * day) / 1.1, status, flood, visibility_only, reasons
    FROM made, generate_series(0, 1) AS day ORDER BY at, day;
"""
_PUBLISH = """
INSERT INTO scoring.publications (as_of, published_at, model_version, alerts, added)
SELECT as_of + interval '1 second', now(), model_version, alerts, 0
FROM scoring.publications ORDER BY as_of DESC LIMIT 1
"""


def sql(statements: str, parameters: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run statements on the warehouse of HEED_HOME."""
    import psycopg2

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import heed_home

    connection = psycopg2.connect(Warehouse(heed_home()).url())
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statements, parameters)
        found = cursor.fetchall() if cursor.description else []
    connection.close()
    return found


def make_warehouse(home: Path) -> None:
    """A company whose whole job ran, then many more alerts. Nothing is done where it stands already."""
    if not (home / "filled").exists():
        subprocess.run([heed(), "demo", "--alerts", "6000", "--days", "120"], check=True, stdout=subprocess.DEVNULL)
        sql(_FILL, {"open": OPEN, "all": SCORED})
        sql("VACUUM ANALYZE")
        (home / "filled").touch()


def heed() -> str:
    """The command of the environment that has heed: the peers' environment lacks it."""
    beside = Path(sys.executable).with_name("heed")
    return str(beside if beside.exists() else ROOT / ".venv" / "bin" / "heed")


@contextmanager
def service() -> Iterator[tuple[int, float]]:
    """`heed serve` on a free port: the port, and how many seconds it took until it said so."""
    started = time.perf_counter()
    process = subprocess.Popen([heed(), "serve", "--port", "0"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if found := re.search(r"127\.0\.0\.1:(\d+)", line):
                break
        else:
            raise SystemExit("heed serve did not start")
        yield int(found[1]), time.perf_counter() - started
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)


def get(port: int, path: str) -> tuple[float, int, bytes]:
    """Milliseconds until the whole answer was there, on a connection of its own."""
    started = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return 1000 * (time.perf_counter() - started), answer.status, body


def measure_board(rng: random.Random) -> Iterator[tuple[str, str]]:
    with service() as (port, seconds):
        yield "seconds until `heed serve` is ready", f"{seconds:.1f}"
        first, status, body = get(port, "/")
        shown = int(re.search(rb"([\d,]+) open alert", body)[1].replace(b",", b""))  # type: ignore[index]
        assert status == 200
        assert shown >= OPEN
        yield f"first page after the start, {shown:,} open alerts, ms", f"{first:.0f}"
        rules = [rule for (rule,) in sql("SELECT rule FROM marts.rules ORDER BY 1")]
        times = []
        for _ in range(200):
            filters = {"rule": rng.choice(["", *rules]), "flag": rng.choice(["", "none", "flood"])}
            age = rng.choice(["", "1", "7"])
            query = "&".join(f"{name}={quote(value)}" for name, value in {**filters, "age": age}.items() if value)
            taken, status, _ = get(port, f"/?{query}&page={rng.choice([1, 1, 2, 500])}&threshold={rng.randrange(101)}")
            assert status == 200
            times.append(taken)
        yield "200 pages with filters, ms: median, 99%, most", _spread(times)
        times = []
        for _ in range(10):
            sql(_PUBLISH)
            times.append(get(port, "/")[0])
            time.sleep(1)
        yield "first page right after a publication, 10 of them, ms: median, 99%, most", _spread(times)


def _spread(times: list[float]) -> str:
    median, most = np.percentile(times, [50, 99])
    return f"{median:.0f}, {most:.0f}, {max(times):.0f}"


def _requests(rng: random.Random, count: int, port: int) -> list[bytes]:
    def one(at: int) -> bytes:
        number = rng.randrange(SCORED)
        ids = [f"bench-{(number + each) % SCORED:07d}" for each in range(50)]
        head = f" HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        if at % 20 == 0:
            body = json.dumps({"alert_ids": ids})
            kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            return f"POST /scores{head}{kind}{body}".encode()
        path = {1: "/health", 2: f"/alerts/{ids[0]}/badge.svg", 12: f"/alerts/{ids[0]}/badge.svg"}
        return f"GET {path.get(at % 20, f'/alerts/{ids[0]}/score')}{head}\r\n".encode()

    return [one(at) for at in range(count)]


async def _send(port: int, requests: list[bytes], rate: float) -> tuple[list[float], list[int], float]:
    """Send each request at its moment. Returns milliseconds from that moment to the answer's end, statuses, seconds."""
    times, statuses = [0.0] * len(requests), [0] * len(requests)
    queue: asyncio.Queue[tuple[int, float]] = asyncio.Queue()

    async def worker() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            at, due = await queue.get()
            if at < 0:
                writer.close()
                return
            writer.write(requests[at])
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]))  # type: ignore[index]
            times[at], statuses[at] = 1000 * (time.perf_counter() - due), int(head[9:12])

    workers = [asyncio.create_task(worker()) for _ in range(CONNECTIONS)]
    await asyncio.sleep(0.2)
    started = time.perf_counter()
    for at in range(len(requests)):
        due = started + at / rate
        wait = due - time.perf_counter()
        if wait > 0:
            await asyncio.sleep(wait)
        queue.put_nowait((at, due))
    for _ in workers:
        queue.put_nowait((-1, 0.0))
    await asyncio.gather(*workers)
    return times, statuses, time.perf_counter() - started


def measure_rate(rng: random.Random, rate: int, seconds: int) -> Iterator[tuple[str, str]]:
    with service() as (port, _):
        asyncio.run(_send(port, _requests(rng, 500, port), 100))  # connections open, statements planned
        times, statuses, took = asyncio.run(_send(port, _requests(rng, rate * seconds, port), rate))
        failed = sum(status != 200 for status in statuses)
        yield f"{rate} requests a second for {seconds} s: answered a second", f"{len(times) / took:.0f}"
        yield "of them not answered with 200", str(failed)
        half, most, worst = np.percentile(times, [50, 99, 99.9])
        yield (
            "ms from the moment due to the end of the answer: median, 99%, 99.9%",
            f"{half:.1f}, {most:.1f}, {worst:.1f}",
        )
        times, _, took = asyncio.run(_send(port, _requests(rng, 10_000, port), 1e9))
        yield "10,000 requests as fast as they go: answered a second", f"{len(times) / took:.0f}"


def measure_requests(requests: int, home: Path, state: dict[str, Any]) -> Iterator[tuple[str, str]]:
    program = Path(sys.executable).with_name("schemathesis")
    if not program.exists():
        raise SystemExit("Schemathesis is not installed here: make benchmark-service has it")
    rounds: list[dict[str, Any]] = state["rounds"]
    with service() as (port, _):
        while sum(each["answered"] for each in rounds) < requests:
            # Six of the seven operations take input.
            left = requests - sum(each["answered"] for each in rounds)
            before = sql("SELECT count(*) FROM scoring.feedback")[0][0]
            made = one_round(program, port, home, SEED + len(rounds), max(20, min(EXAMPLES, left // 6)))
            made["feedback"] = sql("SELECT count(*) FROM scoring.feedback")[0][0] - before
            rounds.append(made)
            keep(home, state)
            broken_off = [each["seed"] for each in rounds if each["broken_off"]]
            if len(broken_off) > 20 or get(port, "/health")[1] != 200:
                raise SystemExit(f"rounds of these seeds were broken off: {broken_off}")
            told = f"{sum(each['answered'] for each in rounds):,} answers in {len(rounds)} rounds"
            print(f"  {told}, {sum(each['seconds'] for each in rounds):.0f} s", file=sys.stderr, flush=True)
        health = get(port, "/health")[1]
    ended = [each for each in rounds if not each["broken_off"]]
    answers = [line for each in ended for line in answers_of(home, each["seed"]).read_text().splitlines()]
    statuses = Counter(int(line[:3]) for line in answers)
    last = SEED + len(rounds) - 1
    yield f"requests generated from the OpenAPI description and answered, seeds {SEED} to {last}", f"{len(answers):,}"
    yield "of them different in method, address or body", f"{len({line.split()[1] for line in answers}):,}"
    yield "answers by status", ", ".join(f"{number:,} of {status}" for status, number in sorted(statuses.items()))
    yield "rounds that made them", str(len(ended))
    yield (
        "rounds in which any check failed (a 500, or an answer that is not as described)",
        str(sum(each["failed"] for each in ended)),
    )
    yield (
        f"rounds that Schemathesis did not end within {ROUND_SECONDS} s; their requests do not count",
        str(len(rounds) - len(ended)),
    )
    feedback = sum(each["feedback"] for each in rounds)
    yield "feedback that they wrote; status of /health afterwards", f"{feedback:,}; {health}"
    yield "seconds that took", f"{sum(each['seconds'] for each in rounds):.0f}"


def answers_of(home: Path, seed: int) -> Path:
    """Where a round writes its answers, a line each."""
    return home / "answers" / str(seed)


def one_round(program: Path, port: int, home: Path, seed: int, examples: int) -> dict[str, Any]:
    """Generated requests of one seed, in a process of their own: how many were answered and how it ended."""
    answers = answers_of(home, seed)
    answers.parent.mkdir(exist_ok=True)
    answers.unlink(missing_ok=True)
    # Examples and coverage are the same cases whatever the seed.
    phases = "examples,coverage,fuzzing,stateful" if seed == SEED else "fuzzing,stateful"
    hooks = {"SCHEMATHESIS_HOOKS": "benchmarks.service_hooks", "HEED_ANSWERS": str(answers), "PYTHONPATH": str(ROOT)}
    made = {"seed": seed, "answered": 0, "failed": False, "broken_off": False}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [
                    *(str(program), "run", f"http://127.0.0.1:{port}/openapi.json", "--no-color", "--phases", phases),
                    *("--seed", str(seed), "--max-examples", str(examples), "--workers", "2"),
                    *("--continue-on-failure", "--suppress-health-check", "all", "--request-timeout", "30"),
                ],
                env={**os.environ, **hooks},
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=ROUND_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            print(f"  the round of seed {seed} was broken off", file=sys.stderr, flush=True)
            print((error.stdout or b"")[-20_000:].decode(errors="replace"), file=sys.stderr, flush=True)
            return {**made, "broken_off": True, "seconds": time.perf_counter() - started}
    said = done.stdout + done.stderr
    if not answers.exists() or re.search(r"[\d,]+ generated", said) is None:
        raise SystemExit(said[-4000:])
    if done.returncode != 0:
        print(said[-20_000:], file=sys.stderr)
    answered = len(answers.read_text().splitlines())
    return {**made, "answered": answered, "failed": done.returncode != 0, "seconds": time.perf_counter() - started}


def code() -> str:
    """The commit, and what was changed since beside the pages that benchmarks write."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    changed = git("diff", "HEAD", "--", ".", ":!benchmarks/*.md")
    commit = git("rev-parse", "--short=12", "HEAD").strip()
    return f"{commit} and changes {hashlib.blake2b(changed.encode(), digest_size=4).hexdigest()}" if changed else commit


def kept(home: Path) -> dict[str, Any]:
    """What was found on the code as it is: the rounds of requests, and by part the machine and the rows."""
    file = home / "service.json"
    state: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    now = code()
    return state if state.get("code") == now else {"code": now, "rounds": [], "parts": {}}


def keep(home: Path, state: dict[str, Any]) -> None:
    (home / "service.json.new").write_text(json.dumps(state, indent=1))
    (home / "service.json.new").replace(home / "service.json")


def machine() -> str:
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    return (
        f"{model[1] if model else platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"uvicorn {version('uvicorn')}, load average at the start {os.getloadavg()[0]:.1f}"
    )


def page(state: dict[str, Any]) -> str:
    parts = [state["parts"][part] for part in PARTS]
    rows = "\n".join(f"| {what} | {figure} |" for part in parts for what, figure in part["rows"])
    machines = " ".join(f"{part}: {state['parts'][part]['machine']}." for part in PARTS)
    return (
        f"# The service: {SCORED:,} scored alerts, {OPEN:,} of them open\n\n{machines} Commit {state['code']}. "
        "Service, warehouse and whoever asks share the machine. `make benchmark-service` makes this page again.\n\n"
        f"| what | figure |\n|---|---:|\n{rows}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=RATE)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--home", type=Path, help="keep the warehouse and what was found here, for the next time")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "service.md")
    arguments = parser.parse_args()
    home = (arguments.home or Path(tempfile.mkdtemp(prefix="heed-benchmark-"))).resolve()
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o755)  # the embedded server may run under another account
    os.environ["HEED_HOME"] = str(home)
    state = kept(home)
    try:
        make_warehouse(home)
        for part in arguments.only:
            told, rows = machine(), []
            measured = {
                "board": lambda: measure_board(random.Random(SEED)),
                "rate": lambda: measure_rate(random.Random(SEED), arguments.rate, arguments.seconds),
                "requests": lambda: measure_requests(arguments.requests, home, state),
            }[part]()
            for what, figure in measured:
                rows.append([what, figure])
                print(f"{what}: {figure}", flush=True)
            state["parts"][part] = {"machine": told, "rows": rows}
            keep(home, state)
    finally:
        stop_server(home)
        if arguments.home is None:
            shutil.rmtree(home, ignore_errors=True)
    if missing := [part for part in PARTS if part not in state["parts"]]:
        print(f"no page yet: nothing of {', '.join(missing)} with the code as it is ({state['code']})")
    else:
        arguments.out.write_text(page(state), encoding="utf-8")


if __name__ == "__main__":
    main()
