"""One small company that lives through faults: its truth, its commands, its readers, and what it lost.

Belongs here: bringing new alerts, starting and killing real commands, reading as analysts do meanwhile, and counting.
Does not belong here: which faults there are (the tests beside).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg2
from dagster import DagsterRunStatus, RunsFilter

from benchmarks.worlds import history_of
from dagster_project.commands.doctor import Finding, examine
from dagster_project.instance import dagster_instance
from dagster_project.resources.failures import STEP_WORDS
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import embedded_url
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from dagster_project.simulator import WorldConfig, simulate
from tests.conftest import PROJECT

DAYS = 70
PART = 8  # what comes at a time
PATIENCE = 150.0


class Command:
    """A `heed` command under way, in a process group of its own."""

    def __init__(self, soak: Soak, pid: int, output: Path) -> None:
        self._soak, self.pid, self._output = soak, pid, output
        self.status: int | None = None

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    def reaches(self, step: str) -> Command:
        """Wait until a step has begun."""
        self._until(lambda: f"s  {STEP_WORDS[step]}" in self.said, f"reach {step}")
        return self

    def says(self, words: str) -> Command:
        self._until(lambda: words in self.said, f"say {words!r}")
        return self

    def is_blocked_at(self, table: str) -> Command:
        """Wait until it waits for a lock on a table that the test holds."""
        query = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = to_regclass(%s))"
        self._until(lambda: self._soak.value(query, table), f"want {table}")
        return self

    def kill(self) -> None:
        """kill -9, with all that it started."""
        os.killpg(self.pid, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def kill_alone(self) -> None:
        """kill -9, the command only: dbt goes on until it notices."""
        os.kill(self.pid, signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def wait(self) -> int:
        """Its exit status, once it has ended; negative for a signal. Other threads may begin others meanwhile."""
        while self.status is None:
            if self._has_ended():
                self.status = int(self._soak.order({"wait": self.pid}))
            else:
                time.sleep(0.02)
        return self.status

    def _has_ended(self) -> bool:
        """Whether it waits to be asked for its exit status."""
        return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"

    def succeeds(self) -> str:
        assert self.wait() == 0, self.said
        return self.said

    def fails(self) -> str:
        """Wait for its failure, and return the one line that says why."""
        assert self.wait() == 1, self.said
        lines = [line for line in self.said.splitlines() if line.startswith("heed: ")]
        assert len(lines) == 1, self.said
        assert "Traceback" not in self.said, self.said
        return lines[0]

    def _until(self, reached: Any, what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not reached():
            assert time.monotonic() < until, f"did not {what}: {self.said}"
            assert not self._has_ended(), f"ended before it could {what}: {self.said}"
            time.sleep(0.02)


@dataclass
class Soak:
    """A home in which faults happen one after the other."""

    home: Path
    has_own_disk: bool = False
    alerts: int = 2_000
    parts: int = 48  # what comes between faults: the last 384 alerts
    settings: str = ""
    url: str = ""
    brought: int = 0
    violations: list[str] = field(default_factory=list)
    reads: int = 0

    def __post_init__(self) -> None:
        end = datetime.now(UTC).replace(microsecond=0)
        self.world = simulate(WorldConfig(seed=5, alerts=self.alerts, days=DAYS, end=end))
        self.truth = history_of(self.world, 14, pd.Timestamp(end)).sort_values("raised_at", kind="stable")
        self.home.mkdir(parents=True, exist_ok=True)
        self.files = self.home.parent / "files"  # beside the home: they stay writable when its disk is full
        self.files.mkdir()
        settings = f"[learning]\ntraining_days = {DAYS}\n[holdout]\nshare = 0\n{self.settings}"
        (self.home / "heed.toml").write_text(settings)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HEED_", "DAGSTER_"))},
            "HEED_HOME": str(self.home),
        }
        self._zygote = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
            env=self.environment,
        )
        self._one_order = threading.Lock()
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read_on, daemon=True)

    def begin(self) -> None:
        """Load most of the company, run the whole job once, and let readers in."""
        assert self._answer() == "ready"
        self.url = embedded_url(self.home)
        self.load(self.truth["alert_id"].iloc[: -self.parts * PART], "base").succeeds()
        self.run().succeeds()
        self._reader.start()

    def close(self) -> None:
        self._stop.set()
        if self._reader.is_alive():
            self._reader.join()
        assert self._zygote.stdin is not None
        self._zygote.stdin.close()
        self._zygote.wait()

    # commands

    def order(self, what: dict[str, Any]) -> str:
        assert self._zygote.stdin is not None
        with self._one_order:
            self._zygote.stdin.write(json.dumps(what) + "\n")
            self._zygote.stdin.flush()
            return self._answer()

    def _answer(self) -> str:
        assert self._zygote.stdout is not None
        return self._zygote.stdout.readline().strip()

    def start(self, *arguments: str, file_limit: int = 0) -> Command:
        output = self.files / f"command-{time.monotonic_ns()}.txt"
        order = {"arguments": arguments, "environment": self.environment, "output": str(output)}
        return Command(self, int(self.order({**order, "file_limit": file_limit})), output)

    def run(self, *arguments: str) -> Command:
        return self.start("run", *arguments)

    def load(self, alerts: pd.Series, name: str) -> Command:
        """Begin to load these alerts and what was done with them."""
        chosen = set(alerts)
        files = []
        for kind, frame in (("alerts", self.world.alerts), ("actions", self.world.actions)):
            path = self.files / f"{name}-{kind}.csv"
            frame[frame["alert_id"].isin(chosen)].to_csv(path, index=False)
            files += [f"--{kind}", str(path)]
        self.loaded = getattr(self, "loaded", set()) | chosen
        return self.start("load", *files)

    def part(self) -> pd.Series:
        """The next alerts that come."""
        first = len(self.truth) - (self.parts - self.brought) * PART
        self.brought += 1
        return self.truth["alert_id"].iloc[first : first + PART]

    def bring(self) -> None:
        """Load the next alerts until one is still open, so that the run under fault has something to publish."""
        still_open = set(self.truth.loc[self.truth["acted"].isna(), "alert_id"])
        coming = [self.part()]
        while not still_open & set(coming[-1]):
            coming.append(self.part())
        self.load(pd.concat(coming), f"part-{self.brought}").succeeds()

    # the warehouse, as the test sees it

    @contextmanager
    def session(self) -> Iterator[Any]:
        connection = psycopg2.connect(self.url, application_name="the test")
        try:
            with connection.cursor() as cursor:
                yield cursor
            connection.commit()
        finally:
            connection.close()

    def value(self, query: str, *values: Any) -> Any:
        with self.session() as cursor:
            cursor.execute(query, values)
            row = cursor.fetchone()
        return row[0] if row else None

    def do(self, statement: str, *values: Any) -> None:
        with self.session() as cursor:
            cursor.execute(statement, values)

    @contextmanager
    def writers_wait(self, table: str, mode: str = "SHARE ROW EXCLUSIVE") -> Iterator[None]:
        """Let whoever writes to a table wait, as long as this lasts. Readers pass."""
        with self.session() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield

    # what readers see

    def _read_on(self) -> None:
        """Read as analysts do, all the time: each answer must be one whole state, and none older than the last."""
        newest, most = datetime.min.replace(tzinfo=UTC), 0
        while not self._stop.wait(0.05):
            try:
                connection = psycopg2.connect(self.url, application_name="an analyst")
            except psycopg2.OperationalError:
                continue  # the server is away: nobody reads anything
            try:
                with connection, connection.cursor() as cursor:
                    while not self._stop.wait(0.4):
                        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                        cursor.execute(_WHOLE)
                        shown, scored, as_of, missing, unbalanced = cursor.fetchone()
                        cursor.execute("COMMIT")
                        self.reads += 1
                        if shown != scored:
                            self.violations.append(f"{shown} of {scored} scored alerts are shown")
                        if missing:
                            self.violations.append(f"{missing} publications without all of their scores")
                        if unbalanced:
                            self.violations.append(f"{unbalanced} tables do not reconcile")
                        if as_of < newest or shown < most:
                            self.violations.append("an older state came back")
                        newest, most = as_of, shown
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                pass  # it went away while it answered
            except psycopg2.Error as error:
                self.violations.append(" ".join(str(error).split()))
            finally:
                with suppress(psycopg2.Error):
                    connection.close()

    # what became of it

    def doctor(self, what: str) -> Finding | None:
        """What `heed doctor` says about something: one line."""
        before = os.environ.get("HEED_HOME")
        os.environ["HEED_HOME"] = str(self.home)
        try:
            found = [finding for finding in examine() if finding.what == what]
        finally:
            os.environ["HEED_HOME"] = before or ""
        assert len(found) < 2
        assert all("\n" not in finding.line() for finding in found)
        return found[0] if found else None

    def recovers(self, *, cut_off: bool = False, within: Command | None = None) -> tuple[float, int]:
        """An ordinary run, without a hand: (seconds it took, what is lost)."""
        began = time.monotonic()
        said = (within or self.run()).succeeds()
        seconds = time.monotonic() - began
        lost = self.lost()
        with dagster_instance(self.home) as instance:
            stuck = instance.get_run_records(
                RunsFilter(tags=WAREHOUSE_TAG, statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.NOT_STARTED])
            )
            runs = [r.dagster_run for r in instance.get_run_records(RunsFilter(tags=WAREHOUSE_TAG), limit=2)]
            assert not stuck, [(r.dagster_run.run_id, r.dagster_run.status, r.dagster_run.tags) for r in stuck] + [said]
            assert runs[0].status == DagsterRunStatus.SUCCESS
            if cut_off:
                assert runs[1].status == DagsterRunStatus.FAILURE
        if cut_off:
            assert "was cut off: its process ended without a message" in said
            finding = self.doctor("runs")
            assert finding is not None
            assert finding.level == "ok"
            assert f"before it, run {runs[1].run_id[:8]}" in finding.found
            assert "was cut off" in finding.found
        return seconds, lost

    def lost(self) -> int:
        """`missing`, after making sure that readers saw nothing that was not whole."""
        missing = self.missing()
        assert not self.violations, self.violations[:5]
        return missing

    def missing(self) -> int:
        """Rows and scores that should be there and are not."""
        tables = Warehouse(self.home).read("SELECT * FROM marts.load_reconciliation").set_index("source")
        actions = int(self.world.actions["alert_id"].isin(self.loaded).sum())
        lost = 0
        for source, expected in (("alerts", len(self.loaded)), ("actions", actions)):
            row = tables.loc[source]
            lost += abs(expected - int(row["raw_rows"])) + abs(expected - int(row["clean_rows"]))
        as_of = self.value("SELECT max(as_of) FROM scoring.publications WHERE as_of <= now() + interval '1 minute'")
        still_open = self.truth[
            self.truth["alert_id"].isin(self.loaded) & self.truth["acted"].isna() & (self.truth["raised_at"] < as_of)
        ]
        still_open = set(still_open.loc[still_open["raised_at"] + timedelta(days=14) > as_of, "alert_id"])
        shown = Warehouse(self.home).read(
            "SELECT alert_id FROM reporting.alert_scores_latest WHERE is_open AND probability IS NOT NULL"
        )
        return lost + len(still_open ^ set(shown["alert_id"]))


@contextmanager
def a_crowd(url: str, taken: list[Any]) -> Iterator[None]:
    """Others hold every connection, and take each one that is given back: the run cannot live on its own."""
    over = threading.Event()

    def take() -> None:
        while not over.is_set():
            try:
                taken.append(psycopg2.connect(url, application_name="a crowd"))
            except psycopg2.OperationalError:
                over.wait(0.02)

    thread = threading.Thread(target=take)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for connection in taken:
            connection.close()


def damage(file: Path, number: int) -> None:
    """Truncate, overwrite or delete a file, in turn."""
    content = file.read_bytes()
    if number % 3 == 0:
        file.write_bytes(content[: len(content) // 2])
    elif number % 3 == 1:
        file.write_bytes(content[:200] + bytes(len(content) - 200))
    else:
        file.unlink()


# What the champion's row is made of, cut in half.
TRUNCATE = (
    "UPDATE training.model_versions SET booster = left(booster, length(booster) / 2), "
    "document = CASE WHEN booster IS NULL THEN document - 'calibration' ELSE document END WHERE model_version = %s"
)
NEWEST_CHAMPION = (
    "SELECT model_version FROM training.champion_decisions WHERE decision = 'promoted' ORDER BY as_of DESC LIMIT 1"
)

# One statement, one snapshot: what is shown, beside what was published.
_WHOLE = """
SELECT (SELECT count(*) FROM reporting.alert_scores_latest) AS shown,
       (SELECT count(DISTINCT alert_id) FROM scoring.alert_scores) AS scored,
       (SELECT max(as_of) FROM scoring.publications) AS as_of,
       (SELECT count(*) FROM (SELECT as_of, sum(added) AS added FROM scoring.publications GROUP BY as_of) AS published
        WHERE added <> (SELECT count(*) FROM scoring.alert_scores AS s WHERE s.as_of = published.as_of)) AS missing,
       (SELECT count(*) FROM marts.load_reconciliation
        WHERE raw_rows <> clean_rows + duplicate_rows + rejected_rows) AS unbalanced
"""
