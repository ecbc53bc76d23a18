"""More at once than on any other day: a thousand readers, a year that is backfilled, a day of ten million alerts.

    python -m benchmarks.load                                  # all of it; writes benchmarks/load.md
    python -m benchmarks.load --only readers backfill --kept /tmp/l.json    # and the rest later
    python -m benchmarks.load --batch 1e6 3e6 --out /tmp/l.md  # other days

Belongs here: one company, what is let loose on it, and what became of its rows, its readers and its memory. Does not
belong here: faults (`soak.py`), the speed of the service (`service.py`) and of an ordinary job (`job.py`).

readers : a thousand connections to `heed serve`, each of which asks for a score every other second, and as many
    sessions in SQL as the server has room for, each of which asks for the newest scores all the time, while `heed run`
    publishes: once without them, once with them.
backfill : `heed up` refreshes every minute and alerts keep arriving; the features of all days of a year are asked for
    in its UI as one backfill. Freshness is how old the newest published scores are.
batch : a file with a day's alerts, most of them raised by one rule, loaded and run; a fresh company for each size.
learning : the same, three weeks ago, and a new model is made.

Lost are alerts of the files that are not among the clean ones, and open alerts without a score.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2

from benchmarks.engine import machine
from benchmarks.job import PARTS, Stage, memory, watch
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import stop_server
from dagster_project.simulator import WorldConfig, export_messy, simulate

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
ALERTS, DAYS, SEED = 60_000, 365, 17
READERS, EVERY, SESSIONS = 1_000, 2.0, 60
ARRIVING, ARRIVES_EVERY = 200, 20.0
BATCHES = (1_000_000, 10_000_000)
LEARNING = 3_000_000
FLOODING = 0.9  # share of a day's alerts that one rule raises
_UNSCORED = """
SELECT count(*) FROM marts.alert_outcomes AS o
WHERE raised_at < (SELECT max(as_of) FROM scoring.publications)
  AND (known_at IS NULL OR known_at > (SELECT max(as_of) FROM scoring.publications))
  AND NOT EXISTS (SELECT FROM scoring.alert_scores AS s WHERE s.alert_id = o.alert_id)
"""
_BACKFILL = """
mutation ($config: RunConfigData!) { launchRun(executionParams: { mode: "default", runConfigData: $config, selector: {
    repositoryLocationName: "heed", repositoryName: "__repository__", jobName: "__ASSET_JOB",
    assetSelection: [{path: ["features", "alert_features"]}]}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""
_STATE = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


class Company:
    """A company that heed has scored, in a home of its own; files of further alerts for it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True)
        home.chmod(0o755)  # the embedded server may run under another account
        (home / "heed.toml").write_text('[schedule]\nrefresh_scores = "* * * * *"\n')
        self.environment = {**os.environ, "HEED_HOME": str(home)}
        self.warehouse = Warehouse(home)
        self.end = datetime.now(UTC).replace(microsecond=0)
        self.loaded = 0
        self._files = 0
        folder = home / "export"
        folder.mkdir()
        world = simulate(WorldConfig(seed=SEED, alerts=ALERTS, days=DAYS, end=self.end))
        self.rules = sorted(world.alerts["rule"].unique())
        export_messy(world, folder, SEED)
        kinds = ("alerts", "actions", "rules", "action_types")
        self.heed(
            "load",
            *(word for kind in kinds for word in (f"--{kind.replace('_', '-')}", str(*folder.glob(f"{kind}.csv*")))),
        )
        self.heed("run", "--retrain")
        self.before = self.clean()

    def heed(self, *words: str) -> str:
        """Run a command of heed to its end."""
        command = [sys.executable, "-m", "dagster_project.cli", *words]
        done = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"heed {words[0]} ended with exit status {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout

    def watched(self, *words: str) -> tuple[float, dict[str, int]]:
        """As `heed`, watched: seconds, and the most memory in bytes, by part, of the command and what it starts."""
        started, most = time.monotonic(), dict.fromkeys((*PARTS, "heed and dbt", "all"), 0)
        log = self.home / "command.log"
        with log.open("w") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster_project.cli", *words],
                cwd=ROOT,
                env=self.environment,
                stdout=said,
                stderr=said,
            )
            while process.poll() is None:
                for part, size in memory(process.pid).items():
                    most[part] = max(most[part], size)
                time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"heed {words[0]} ended with exit status {process.returncode}: {log.read_text()[-2000:]}")
        return time.monotonic() - started, most

    def clean(self) -> int:
        return int(self.warehouse.value("SELECT count(*) FROM marts.alerts"))

    def file(self, rows: int, begin: datetime, end: datetime, flooding: float) -> Path:
        """A CSV file of new alerts raised in [begin, end), `flooding` of them by one rule."""
        import pyarrow as pa
        import pyarrow.csv

        self._files += 1
        rng = np.random.default_rng(self._files)
        path = self.home / f"more-{self._files}.csv"
        span = int((end - begin).total_seconds() * 1e6)
        with pyarrow.csv.CSVWriter(path, _SCHEMA) as writer:
            for first in range(0, rows, 500_000):
                count = min(500_000, rows - first)
                rule = np.where(rng.random(count) < flooding, 0, rng.integers(0, len(self.rules), count))
                raised = np.datetime64(begin.replace(tzinfo=None), "us") + rng.integers(0, span, count)
                columns = [
                    np.char.add(f"more-{self._files}-", np.arange(first, first + count).astype("U9")),
                    np.char.add(np.datetime_as_string(raised, unit="us"), "Z"),
                    np.array(self.rules)[rule],
                    np.char.add("host-", rng.integers(0, 20_000, count).astype("U5")),
                    np.full(count, "high"),
                    rng.normal(size=count),
                ]
                writer.write_table(pa.table(columns, schema=_SCHEMA))
        self.loaded += rows
        return path

    def lost(self) -> int:
        """Alerts of the files that are not clean, and open ones without a score."""
        return self.before + self.loaded - self.clean() + int(self.warehouse.value(_UNSCORED))

    def age(self) -> float:
        """Seconds since the as-of of the newest published scores."""
        return float(
            self.warehouse.value("SELECT extract(epoch FROM now() - max(as_of))::float8 FROM scoring.publications")
        )

    def remove(self) -> None:
        stop_server(self.home)
        shutil.rmtree(self.home, ignore_errors=True)


def _schema() -> Any:
    import pyarrow as pa

    texts = ("alert_id", "raised_at", "rule", "entity", "severity")
    return pa.schema([*((name, pa.string()) for name in texts), ("value", pa.float64())])


_SCHEMA = _schema()


@contextmanager
def unit(company: Company, name: str, ready: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`heed up` or `heed serve` on a free port, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = company.home / f"{name}.log"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", name, "--port", str(port)],
            cwd=ROOT,
            env=company.environment,
            stdout=said,
            stderr=said,
            text=True,
        )
    try:
        until = time.monotonic() + 120
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5):
                break
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"heed {name} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.2)
        yield process, port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


# A thousand readers


async def crowd(port: int, ids: list[str], over: threading.Event) -> tuple[list[float], dict[int, int]]:
    """Milliseconds of each answer, and how many came with which status, until `over`."""
    times: list[float] = []
    statuses: dict[int, int] = {}

    async def reader(number: int) -> None:
        rng = random.Random(number)
        await asyncio.sleep(EVERY * rng.random())
        incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
        while not over.is_set():
            began = time.perf_counter()
            outgoing.write(f"GET /alerts/{rng.choice(ids)}/score HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            try:
                head = await incoming.readuntil(b"\r\n\r\n")
                await incoming.readexactly(int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]))  # type: ignore[index]
                status = int(head[9:12])
            except (OSError, asyncio.IncompleteReadError):
                status = 0  # it was hung up on
                incoming, outgoing = await asyncio.open_connection("127.0.0.1", port)
            times.append(1000 * (time.perf_counter() - began))
            statuses[status] = statuses.get(status, 0) + 1
            await asyncio.sleep(max(0.0, EVERY - (time.perf_counter() - began)))
        outgoing.close()

    await asyncio.gather(*(reader(number) for number in range(READERS)))
    return times, statuses


def session(url: str, over: threading.Event, answers: list[int], failures: list[str]) -> None:
    """One analyst who asks again and again, each time for one whole state."""
    newest = datetime.min.replace(tzinfo=UTC)
    try:
        connection = psycopg2.connect(url)
        connection.autocommit = True
        with closing(connection), connection.cursor() as cursor:
            while not over.wait(0.5):
                cursor.execute("SELECT count(*), max(as_of) FROM reporting.alert_scores_latest WHERE is_open")
                _, as_of = cursor.fetchone()
                if as_of is None or as_of < newest:
                    failures.append("an older state came back")
                newest = as_of or newest
                answers.append(1)
    except psycopg2.Error as error:
        failures.append(" ".join(str(error).split()))


def readers(company: Company) -> Iterator[tuple[str, str]]:
    def bring() -> None:
        now = datetime.now(UTC)
        company.heed("load", "--alerts", str(company.file(ARRIVING, now - timedelta(minutes=1), now, 0.0)))

    bring()
    alone = company.watched("run", "--no-retrain")[0]
    bring()
    ids = list(
        company.warehouse.read("SELECT alert_id FROM scoring.alert_scores ORDER BY random() LIMIT 5000")["alert_id"]
    )
    over, answers, failures = threading.Event(), [], []
    url = company.warehouse.url()
    with unit(company, "serve", "/health") as (process, port):
        made: list[Any] = []
        threads = [threading.Thread(target=lambda: made.append(asyncio.run(crowd(port, ids, over))))]
        threads += [threading.Thread(target=session, args=(url, over, answers, failures)) for _ in range(SESSIONS)]
        for thread in threads:
            thread.start()
        time.sleep(10)
        beside = company.watched("run", "--no-retrain")[0]
        time.sleep(10)
        held = int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) * 1024  # type: ignore[index]
        over.set()
        for thread in threads:
            thread.join()
    times, statuses = made[0]
    said = ", ".join(f"{count:,} of {status}" for status, count in sorted(statuses.items()))
    median, most = np.percentile(times, [50, 99])
    yield f"{READERS:,} readers of `heed serve`: answers by status", said
    yield "ms until an answer: median, 99%, most", f"{median:.0f}, {most:.0f}, {max(times):.0f}"
    yield "memory of `heed serve` with them, MB", f"{held / 1e6:.0f}"
    yield (
        f"{SESSIONS} sessions in SQL beside them: answers; older states or errors",
        f"{len(answers):,}; {len(failures)}",
    )
    yield "seconds of a refresh without readers; with all of them", f"{alone:.0f}; {beside:.0f}"
    yield "lost", str(company.lost())


# A year that is backfilled


def backfill(company: Company) -> Iterator[tuple[str, str]]:
    ages: list[tuple[float, float]] = []
    over = threading.Event()

    def arrive() -> None:
        while not over.wait(ARRIVES_EVERY):
            now = datetime.now(UTC)
            company.heed("load", "--alerts", str(company.file(ARRIVING, now - timedelta(minutes=1), now, 0.0)))

    def look() -> None:
        while not over.wait(1.0):
            ages.append((time.monotonic(), company.age()))

    with unit(company, "up", "/server_info") as (_, port):

        def ask(query: str, **variables: Any) -> Any:
            body = json.dumps({"query": query, "variables": variables})
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
            connection.close()
            return answer["data"]

        # Schedules are on as soon as the daemon has looked; the first refreshes are the ordinary case.
        threads = [threading.Thread(target=each) for each in (arrive, look)]
        for thread in threads:
            thread.start()
        time.sleep(180)
        asked = time.monotonic()
        first, last = ((company.end - timedelta(days=back)).date().isoformat() for back in (DAYS - 1, 0))
        days = {"first_day": first, "last_day": last}
        launched = ask(_BACKFILL, config={"ops": {"features__alert_features": {"config": days}}})["launchRun"]
        if launched["__typename"] != "LaunchRunSuccess":
            raise SystemExit(f"the backfill was refused: {launched}")
        status = "REQUESTED"
        while not status.startswith(("SUCCESS", "FAIL", "CANCEL")) and time.monotonic() < asked + 1800:
            time.sleep(1)
            status = ask(_STATE, id=launched["run"]["runId"])["runOrError"]["status"]
        ended = time.monotonic()
        time.sleep(120)
        over.set()
        for thread in threads:
            thread.join()
        # What came last is scored by the schedule as well.
        until = time.monotonic() + 180
        while company.lost() and time.monotonic() < until:
            time.sleep(1)
    files = len(list(company.home.glob("features/*/day=*.parquet")))
    before, during, after = (
        max((age for at, age in ages if first <= at < last), default=float("nan"))
        for first, last in ((asked - 90, asked), (asked, ended), (ended + 60, ended + 120))
    )
    yield f"{DAYS} days of features as one backfill, beside a refresh each minute: how it ended", status.lower()
    yield "seconds from asking to its end; files of days", f"{ended - asked:.0f}; {files}"
    yield (
        "oldest newest scores, seconds: before, meanwhile, from a minute after",
        f"{before:.0f}, {during:.0f}, {after:.0f}",
    )
    yield "alerts that arrived meanwhile", f"{company.loaded:,}"
    yield "lost", str(company.lost())


# A day of millions


def batch(company: Company, rows: int) -> Iterator[tuple[str, str]]:
    now = datetime.now(UTC)
    path = company.file(rows, now - timedelta(hours=20), now, FLOODING)
    size = path.stat().st_size
    load_seconds, load_most = company.watched("load", "--alerts", str(path))
    path.unlink()
    first, _ = watch(company.home, "--no-retrain")
    company.heed("load", "--alerts", str(company.file(1_000, now, datetime.now(UTC), 0.0)))
    second, _ = watch(company.home, "--no-retrain")
    named = company.warehouse.value("SELECT count(*) FROM quality.flood_days WHERE day >= current_date - 1")
    yield f"{rows:,} alerts of a day, {size / 1e9:.2f} GB: seconds to load", f"{load_seconds:.0f}"
    yield "most memory meanwhile: heed, PostgreSQL, GB", _sizes(load_most)
    yield from _refresh("the refresh that scores them", first)
    yield from _refresh("the next refresh, with 1,000 new alerts", second)
    yield "floods named on that day", str(named)
    yield "lost", str(company.lost())


def learning(company: Company, rows: int) -> Iterator[tuple[str, str]]:
    """The day was three weeks ago: the outcomes of its alerts are known."""
    begin = company.end - timedelta(days=21)
    path = company.file(rows, begin, begin + timedelta(hours=20), FLOODING)
    company.heed("load", "--alerts", str(path))
    path.unlink()
    stages, _ = watch(company.home, "--retrain")
    taught = company.warehouse.value(
        "SELECT jsonb_path_query_first(document, '$.**.alerts.mature')::int FROM training.model_versions "
        "ORDER BY created_at DESC LIMIT 1"
    )
    yield from _refresh("the run that cleans the day and learns", stages)
    yield "alerts that the newest model learned from", f"{taught:,}"
    yield "lost", str(company.lost())


def _refresh(which: str, stages: list[Stage]) -> Iterator[tuple[str, str]]:
    """What a watched refresh took, and where it took it."""
    yield f"seconds of {which}", f"{sum(stage.seconds for stage in stages):.0f}"
    longest = sorted(stages, key=lambda stage: -stage.seconds)[:4]
    yield "of them, the longest", "; ".join(f"{stage.name} {stage.seconds:.0f}" for stage in longest)
    most = {part: max(stage.most.get(part, 0) for stage in stages) for part in ("heed and dbt", "PostgreSQL")}
    yield "most memory meanwhile: heed and dbt, PostgreSQL, GB", _sizes(most)
    hungriest = sorted(stages, key=lambda stage: -stage.most.get("heed and dbt", 0))[:3]
    yield (
        "heed and dbt, the steps that held most, GB",
        "; ".join(f"{stage.name} {stage.most['heed and dbt'] / 1e9:.1f}" for stage in hungriest),
    )


def _sizes(most: dict[str, int]) -> str:
    return f"{most['heed and dbt'] / 1e9:.1f}, {most['PostgreSQL'] / 1e9:.1f}"


def page(found: dict[str, list[tuple[str, str]]]) -> str:
    where = machine()
    lines = [
        "# More at once than on any other day",
        "",
        f"Made by `make benchmark-load`; {where['cpu']}, {where['cpus']} CPUs, {where['memory_bytes'] / 2**30:.0f} "
        f"GiB, {where['system']}, Python {where['python']}. A company of {ALERTS:,} alerts over {DAYS} days, seed "
        f"{SEED}. GB is 10^9 bytes, of resident memory. What is measured stands in `benchmarks/load.py`.",
    ]
    for name, rows in found.items():
        lines += ["", f"## {name.capitalize()}", "", "| what | figure |", "|---|---:|"]
        lines += [f"| {what} | {figure} |" for what, figure in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("readers", "backfill", "batch", "learning")
    parser.add_argument("--only", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--batch", type=float, nargs="+", default=list(BATCHES), help="alerts of the day of `batch`")
    parser.add_argument("--learning", type=float, default=LEARNING, help="alerts of the day of `learning`")
    parser.add_argument("--kept", type=Path, help="a file with the figures of earlier calls, to which these are added")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    measures: dict[str, Callable[[Company], Iterator[tuple[str, str]]]] = {}
    if "readers" in asked.only:
        measures["a thousand readers"] = readers
    if "backfill" in asked.only:
        measures["a year is backfilled"] = backfill
    if "batch" in asked.only:
        for rows in map(int, asked.batch):
            measures[f"a day of {rows:,} alerts"] = lambda company, rows=rows: batch(company, rows)
    if "learning" in asked.only:
        rows = int(asked.learning)
        measures[f"what is learned after a day of {rows:,} alerts"] = lambda company: learning(company, rows)
    found: dict[str, list[tuple[str, str]]] = {}
    if asked.kept and asked.kept.exists():
        found = json.loads(asked.kept.read_text())
    with tempfile.TemporaryDirectory(prefix="heed-load-") as folder:
        Path(folder).chmod(0o755)
        for name, measure in measures.items():
            company = Company(Path(folder) / "home")
            try:
                found[name] = []
                for what, figure in measure(company):
                    print(f"{what}: {figure}", flush=True)
                    found[name].append((what, figure))
            finally:
                company.remove()
            if asked.kept:
                asked.kept.write_text(json.dumps(found))
    asked.out.write_text(page(found))


if __name__ == "__main__":
    main()
