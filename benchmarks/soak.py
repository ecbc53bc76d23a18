"""An hour of random faults against a running `heed up` and `heed serve`, and what was lost.

    python -m benchmarks.soak                            # 60 minutes with seed 11; writes benchmarks/soak.md
    python -m benchmarks.soak --minutes 15 --seed 3 --out /tmp/soak.md

Belongs here: an operator's machine (units that are started anew when they end, alerts that keep arriving, readers who
read all the time), faults at random moments, and the table of them. Does not belong here: the same faults at chosen
moments, which are tests (`tests/faults`); single promises (`docs/operations.md`).

Each kind of fault comes once, in an order drawn with the seed, then kinds are drawn at random. A fault has been
recovered from when alerts that were loaded after it are among published scores, brought there by the schedules and
sensors alone. Then is counted: rows that were loaded and are not in raw and clean tables, open alerts without a
score, and states that a reader saw and that were not whole. An arrival that was refused is loaded again, as whoever
sends alerts would do; it must have been refused in one line.

As root, heed's home is a disk of its own in memory, which one of the faults fills; otherwise that fault is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
from dagster import DagsterEventType, DagsterRunStatus, RunsFilter

from dagster_project.instance import dagster_instance
from dagster_project.resources.failures import what_stopped
from dagster_project.resources.warehouse.abandoned_runs import abandoned_runs
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import running_server_pid, stop_server
from dagster_project.resources.warehouse.run_lock import WAREHOUSE_TAG
from tests.faults.conftest import mount, unmount
from tests.faults.soak import NEWEST_CHAMPION, PART, TRUNCATE, Soak, a_crowd, damage

ROOT = Path(__file__).resolve().parents[1]
PAGE = Path(__file__).with_suffix(".md")
ALERTS, PARTS = 8_000, 400
ARRIVAL_SECONDS = 15.0
RESTART_SECONDS = 5.0
PATIENCE = 900.0  # a fault that took longer than this was not recovered from
SETTINGS = '[schedule]\nrefresh_scores = "*/3 * * * *"\nretrain = "7,27,47 * * * *"\nprune = "17,37,57 * * * *"\n'
READERS = ("an analyst", "the test")


class Unit:
    """A process that is started anew when it ends, with all that it left behind: what systemd does with our units."""

    def __init__(self, life: Life, name: str, *arguments: str) -> None:
        self._life, self.name, self._arguments = life, name, arguments
        self.log = life.soak.files / f"{name}.log"
        self.starts = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while not self._over.is_set():
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "dagster_project.cli", self.name, *self._arguments]
                self.process = subprocess.Popen(
                    command, cwd=ROOT, env=self._life.soak.environment, stdout=log, stderr=log, start_new_session=True
                )
            self.starts += 1
            self.process.wait()
            for pid in self.members():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._over.wait(RESTART_SECONDS)

    def members(self, *words: str) -> list[int]:
        """The processes of its session whose command line holds all of these words."""
        found = []
        for entry in Path("/proc").iterdir():
            if self.process is None or not entry.name.isdigit():
                continue
            with suppress(OSError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if int(fields[3]) == self.process.pid and fields[0] != "Z" and all(word in line for word in words):
                    found.append(int(entry.name))
        return found

    def kill(self, *words: str) -> int:
        """kill -9 those of its processes; how many."""
        killed = self.members(*words)
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(killed)

    def stop(self) -> bool:
        """SIGTERM to its first process alone; whether nothing of it was left within a minute."""
        self._over.set()
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        until = time.monotonic() + 60
        while self.members() and time.monotonic() < until:
            time.sleep(0.2)
        left = self.members()
        self.kill()
        self._thread.join()
        return not left


class Life:
    """The company, its units and its readers, while faults come."""

    def __init__(self, home: Path, seed: int, *, has_own_disk: bool) -> None:
        self.soak = Soak(home, has_own_disk=has_own_disk, alerts=ALERTS, parts=PARTS, settings=SETTINGS)
        self.random = random.Random(seed)
        self.calm = threading.Lock()  # held while something arrives, and while is counted
        self.refused: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.ended: tuple[Counter[str], Counter[str], int] = Counter(), Counter(), 0
        self._over = threading.Event()
        self._told = 0

    def begin(self) -> None:
        self.soak.begin()
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            ports = one.getsockname()[1], other.getsockname()[1]
        self.up, self.serve = Unit(self, "up", "--port", str(ports[0])), Unit(self, "serve", "--port", str(ports[1]))
        self._address = f"http://127.0.0.1:{ports[1]}"
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._arrive, self._ask)]
        for thread in self._threads:
            thread.start()

    def end(self) -> bool:
        """Stop everything; whether the units stopped in order."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        in_order = [unit.stop() for unit in (self.up, self.serve)]
        self.soak.close()
        return all(in_order)

    # what goes on meanwhile

    def arrive(self) -> None:
        """The next alerts, loaded until they are taken."""
        with self.calm:
            if self.soak.brought == self.soak.parts:
                return
            part, name = self.soak.part(), f"part-{self.soak.brought}"
            while True:
                command = self.soak.load(part, name)
                if command.wait() == 0:
                    return
                lines = command.said.strip().splitlines()
                if command.status != 1 or "Traceback" in command.said or not lines[-1].startswith("heed: "):
                    self.soak.violations.append(f"an arrival ended with {command.status}: {lines[-1:]}")
                self.refused[lines[-1][:160] if lines else ""] += 1
                time.sleep(2)

    def _arrive(self) -> None:
        while not self._over.wait(ARRIVAL_SECONDS):
            self.arrive()

    def _ask(self) -> None:
        """Ask the service all the time: it answers, or says why not, and never breaks."""
        alerts = list(self.soak.truth["alert_id"].iloc[-50:])
        while not self._over.wait(1.0):
            path = self.random_path(alerts)
            try:
                with urllib.request.urlopen(self._address + path, timeout=30) as answer:
                    status = answer.status
            except urllib.error.HTTPError as error:
                status = error.code
            except OSError:
                status = 0  # it is not there: it starts anew
            self.answers[status] += 1
            if status not in (0, 200, 404, 503):
                self.soak.violations.append(f"the service answered {status} to {path}")

    def random_path(self, alerts: list[str]) -> str:
        number = int(time.monotonic() * 10)
        return ("/", "/health", f"/alerts/{alerts[number % len(alerts)]}/score")[number % 3]

    def amid_a_run(self) -> str:
        """Wait for a run of the daemon, then for a random moment in it; says where it stands."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            before = self._run_under_way()
            if before is None:
                time.sleep(0.3)
                continue
            time.sleep(self.random.uniform(0, 12))
            if self._run_under_way() == before:
                return self._step(before)
        return "in no run"

    def _run_under_way(self) -> str | None:
        with suppress(psycopg2.Error):
            return self.soak.value(
                "SELECT substr(application_name, 10) FROM pg_stat_activity "
                "WHERE starts_with(application_name, 'heed run ')"
            )
        return None

    def _step(self, run_id: str) -> str:
        with dagster_instance(self.soak.home) as instance:
            entries = instance.all_logs(run_id, of_type=DagsterEventType.STEP_START)
        steps = [str(entry.dagster_event.step_key) for entry in entries if entry.dagster_event is not None]
        return f"in {steps[-1].replace('__', '/')}" if steps else "before its first step"

    # what became of it

    def recovers(self, began: float) -> tuple[float | None, int]:
        """(Seconds from `began` until what arrived after it was published, or None if it never was; what is lost)."""
        self.arrive()
        self.calm.acquire()
        try:
            until, loaded = began + PATIENCE, None
            while True:
                with suppress(psycopg2.Error):
                    loaded = loaded or self.soak.value("SELECT max(loaded_at)::timestamptz FROM raw.alerts")
                    published = "SELECT max(as_of) > %s FROM scoring.publications WHERE as_of <= now()"
                    if loaded and self.soak.value(published, loaded):
                        break
                if time.monotonic() > until:
                    return None, self.soak.missing()
                time.sleep(0.3)
            seconds = time.monotonic() - began
            # A run that publishes while is counted moves the line between open and not; what is lost stays lost.
            missing = 1
            for _ in range(5):
                with suppress(Exception):
                    missing = self.soak.missing()
                if not missing:
                    break
                time.sleep(2)
            before, self._told = self._told, len(self.soak.violations)
            return seconds, missing + self._told - before
        finally:
            self.calm.release()


# Faults: each does its work, returns how it was injected, and leaves nothing of itself behind but what it broke.


def the_run_is_killed(life: Life) -> str:
    where = life.amid_a_run()
    life.up.kill("multiprocessing", "spawn")
    return f"kill -9 of the run's processes {where}"


def the_code_server_is_killed(life: Life) -> str:
    return f"kill -9 of {life.up.kill('dagster', 'grpc') or life.up.kill('code-server')} code servers"


def the_daemon_is_killed(life: Life) -> str:
    where = life.amid_a_run()
    life.up.kill("daemon", "run")
    return f"kill -9 of the daemon, a run {where}"


def everything_is_killed(life: Life) -> str:
    where = life.amid_a_run()
    killed = life.up.kill() + life.serve.kill()
    return f"kill -9 of all {killed} processes, a run {where}"


def postgres_is_killed(life: Life) -> str:
    where = life.amid_a_run()
    if (pid := running_server_pid(life.soak.home)) is not None:
        os.kill(pid, signal.SIGKILL)
    return f"kill -9 of the server, a run {where}"


def postgres_is_stopped(life: Life) -> str:
    where = life.amid_a_run()
    if (pid := running_server_pid(life.soak.home)) is not None:
        os.kill(pid, signal.SIGINT)
    return f"fast shutdown, a run {where}"


def sessions_are_ended(life: Life) -> str:
    where = life.amid_a_run()
    ended = life.soak.value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> ALL (%s)",
        list(READERS),
    )
    return f"{ended} sessions ended, a run {where}"


def connections_run_out(life: Life) -> str:
    where = life.amid_a_run()
    taken: list[object] = []
    with a_crowd(life.soak.url, taken):
        time.sleep(20)
    return f"{len(taken)} others hold them for 20 s, a run {where}"


def the_disk_is_full(life: Life) -> str:
    where = life.amid_a_run()
    filler = life.soak.home / "filler"
    until = time.monotonic() + 15
    try:
        with filler.open("wb", buffering=0) as file:
            block = 2**20
            while time.monotonic() < until:
                try:
                    file.write(bytes(block))
                except OSError:
                    block = 2**12
                    time.sleep(0.01)
    finally:
        filler.unlink()
    return f"a file fills it for 15 s, a run {where}"


def feature_files_are_damaged(life: Life) -> str:
    where = life.amid_a_run()
    files = sorted(life.soak.home.glob("features/*/day=*.parquet"))
    for number, file in enumerate(files):
        with suppress(FileNotFoundError):
            damage(file, number)
    return f"all {len(files)} truncated, overwritten or deleted, a run {where}"


def the_champion_is_truncated(life: Life) -> str:
    champion = life.soak.value(NEWEST_CHAMPION)
    life.soak.do(TRUNCATE, champion)
    return "half of its row is cut off"


def a_dbt_model_fails(life: Life) -> str:
    began = time.time()
    life.soak.do("ALTER TABLE marts.alerts ADD CONSTRAINT nothing_more CHECK (false) NOT VALID")
    try:
        life.arrive()
        until = time.monotonic() + PATIENCE
        failed = RunsFilter(
            tags=WAREHOUSE_TAG,
            statuses=[DagsterRunStatus.FAILURE],
            created_after=datetime.fromtimestamp(began, UTC),
        )
        with dagster_instance(life.soak.home) as instance:
            while not instance.get_run_records(failed, limit=1) and time.monotonic() < until:
                time.sleep(0.5)
    finally:
        life.soak.do("ALTER TABLE marts.alerts DROP CONSTRAINT nothing_more")
    return "a constraint refuses its rows until a run failed"


def a_command_runs_beside(life: Life) -> str:
    where = life.amid_a_run()
    life.soak.run().succeeds()
    return f"`heed run` beside a run {where}"


def loading_is_killed(life: Life) -> str:
    with life.calm:
        part = life.soak.part()
        with life.soak.writers_wait("raw.alerts"):
            life.soak.load(part, "killed").is_blocked_at("raw.alerts").kill()
        life.soak.load(part, "killed").succeeds()
    return "kill -9 before its commit, then again"


def the_run_is_frozen(life: Life) -> str:
    where = life.amid_a_run()
    frozen = life.up.members("multiprocessing", "spawn")
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        if number == signal.SIGSTOP:
            time.sleep(30)
    return f"stopped for 30 s {where}"


def the_clock_is_ahead(life: Life) -> str:
    ahead = datetime.now(UTC) + timedelta(hours=2)
    life.soak.run("--no-retrain", "--as-of", ahead.isoformat()).succeeds()
    return "a run stands 2 h ahead"


FAULTS: tuple[Callable[[Life], str], ...] = (
    the_run_is_killed,
    the_code_server_is_killed,
    the_daemon_is_killed,
    everything_is_killed,
    postgres_is_killed,
    postgres_is_stopped,
    sessions_are_ended,
    connections_run_out,
    the_disk_is_full,
    feature_files_are_damaged,
    the_champion_is_truncated,
    a_dbt_model_fails,
    a_command_runs_beside,
    loading_is_killed,
    the_run_is_frozen,
    the_clock_is_ahead,
)


def live_through(life: Life, minutes: float, faults: list[Callable[[Life], str]]) -> list[list[str]]:
    """Rows of the table: fault, how it was injected, recovered in, lost."""
    until, rows = time.monotonic() + 60 * minutes, []
    coming = life.random.sample(faults, len(faults))
    while time.monotonic() < until:
        fault = coming.pop() if coming else life.random.choice(faults)
        time.sleep(life.random.uniform(0, 10))
        began = time.monotonic()
        try:
            injected = fault(life)
        except (AssertionError, psycopg2.Error) as error:  # it met what another fault left: that is a finding
            injected = f"could not be: {' '.join(str(error).split())[-200:]}"
            life.soak.violations.append(f"{fault.__name__} {injected}")
        began = time.monotonic()
        seconds, lost = life.recovers(began)
        row = [
            fault.__name__.replace("_", " "),
            injected,
            f"{seconds:.0f} s" if seconds is not None else "not recovered",
            str(lost),
        ]
        rows.append(row)
        print(" | ".join(row), flush=True)
    return rows


def ended_runs(life: Life) -> tuple[Counter[str], Counter[str], int]:
    """(Runs by status, causes of those that failed, runs that hang)."""
    warehouse = Warehouse(life.soak.home)
    statuses: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    with dagster_instance(life.soak.home) as instance:
        until = time.monotonic() + 180
        while (hanging := abandoned_runs(instance, warehouse)) and time.monotonic() < until:
            time.sleep(2)  # the sensor closes them within a minute
        for record in instance.get_run_records(RunsFilter(tags=WAREHOUSE_TAG)):
            run = record.dagster_run
            statuses[run.status.value.lower()] += 1
            if run.status == DagsterRunStatus.FAILURE:
                what = what_stopped(instance, run.run_id)
                if not what or "\n" in what:
                    life.soak.violations.append(f"run {run.run_id[:8]} failed and does not say why in one line")
                causes[what[:110]] += 1
    return statuses, causes, len(hanging)


def page(life: Life, rows: list[list[str]], asked: argparse.Namespace, seconds: float, in_order: bool) -> str:
    statuses, causes, hanging = life.ended
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    recovered = [float(row[2].removesuffix(" s")) for row in rows if row[2] != "not recovered"]
    lost = sum(int(row[3]) for row in rows) + len(rows) - len(recovered)
    answers = ", ".join(f"{count:,} x {status or 'nobody'}" for status, count in sorted(life.answers.items()))
    said = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    return "\n".join(
        [
            "# An hour of faults" if asked.minutes == 60 else f"# {asked.minutes:.0f} minutes of faults",
            "",
            f"Made by `make soak MINUTES={asked.minutes:.0f} SEED={asked.seed}`; {os.cpu_count()} CPUs, {memory:.0f} "
            f"GiB, {platform.system()}, Python {platform.python_version()}. {ALERTS:,} alerts in all; {PART} arrive "
            f"every {ARRIVAL_SECONDS:.0f} s. "
            "`heed up` refreshes every 3 minutes and whenever alerts came, and learns every 20. It and `heed serve` "
            f"are started anew {RESTART_SECONDS:.0f} s after they end, as systemd does; nothing else is done by hand.",
            "",
            f"**{len(rows)} faults in {seconds / 60:.0f} minutes; lost: {lost}.** Readers read {life.soak.reads:,} "
            f"states, {len(life.soak.violations)} of them or of what was said meanwhile not as promised. "
            f"Recovered in {statistics.median(recovered):.0f} s (median), {max(recovered):.0f} s at most, from the end "
            "of the fault until alerts that came after it stood among published scores.",
            "",
            f"- Runs: {said}; {hanging} hang. Each that failed says why in one line.",
            f"- Arrivals: {life.soak.brought}, of {PART} alerts each; {life.refused.total()} attempts were refused, "
            "each in one line, and loaded again.",
            f"- Answers of the service: {answers}.",
            f"- Started: `heed up` {life.up.starts} times, `heed serve` {life.serve.starts} times. At the end both "
            f"were sent SIGTERM and {'left no process' if in_order else 'LEFT PROCESSES'}.",
            "",
            "| fault | injected | recovered in | lost |",
            "|---|---|---:|---:|",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            "What the failed runs said:",
            "",
            *(f"- {count} x {cause}" for cause, count in causes.most_common()),
            *(["", "Not as promised:", "", *(f"- {each[:300]}" for each in life.soak.violations)])[
                : None if life.soak.violations else 0
            ],
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--only", nargs="+", metavar="FAULT", help="only these kinds, like the_run_is_killed")
    parser.add_argument("--out", type=Path, default=PAGE)
    asked = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="heed-soak-"))
    directory.chmod(0o755)
    home = directory / "home"
    home.mkdir()
    disk = mount(home, "3g")
    faults = [each for each in FAULTS if (disk or each is not the_disk_is_full)]
    if asked.only:
        faults = [each for each in faults if each.__name__ in asked.only]
    life = Life(home, asked.seed, has_own_disk=disk)
    began = time.monotonic()
    try:
        life.begin()
        rows = live_through(life, asked.minutes, faults)
        seconds = time.monotonic() - began
        life.ended = ended_runs(life)
        in_order = life.end()
        asked.out.write_text(page(life, rows, asked, seconds, in_order))
        print(asked.out.read_text())
        if life.soak.violations or any(row[3] != "0" or row[2] == "not recovered" for row in rows):
            raise SystemExit(1)
    finally:
        for unit in (getattr(life, "up", None), getattr(life, "serve", None)):
            if unit is not None:
                unit._over.set()
                unit.kill()
        stop_server(home)
        if disk:
            unmount(home)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
