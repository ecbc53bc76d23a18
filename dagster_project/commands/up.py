"""Serve the Dagster UI and its daemon for this home.

Belongs here: starting and ending the processes of `heed up`, once per home; keeping the embedded warehouse alive;
restarting the process that holds heed's code for Dagster if it dies.
Does not belong here: what is scheduled (`automation.py`), the guard in front of the UI (`guard.py`).

The UI is served by this process, behind heed's guard. Dagster's daemon and its code server are children in a process
group of their own, with all runs that they start. A third child, the keeper, ends that group when a pipe from this
process closes: the kernel closes it however this process ends, also by kill -9.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.instance import dagster_home, dagster_instance
from dagster_project.logs import in_json, json_line
from dagster_project.private import private_directory
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import PROJECT, heed_home, load_settings

if TYPE_CHECKING:
    from starlette.types import ASGIApp

CHECK_SECONDS = 10.0
# The longest that runs may take to end in order, and that processes of a killed `heed up` may survive it.
STOP_SECONDS = 30
_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
_RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
# Dagster's responses set no such headers. It shows notebooks in frames of its own.
_HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
}
# Ends the process group $1 once standard input closes: first with the signal of Ctrl-C, after $2 fifths of a second by
# force. In sh, because it must outlive this process and use little memory.
_KEEPER = """trap '' INT TERM HUP
cat > /dev/null
kill -s INT -- "-$1"
left=$2
while [ "$left" -gt 0 ] && kill -s 0 -- "-$1"; do sleep 0.2; left=$((left - 1)); done
kill -s KILL -- "-$1"
"""


def serve_dagster(host: str, port: int, allowed_hosts: Sequence[str] = (), *, daemon: bool = True) -> int:
    """Run the UI and the daemon until they are stopped; returns the exit status.

    The address is loopback by default: the UI has no login of its own.

    port : 0 means any free one.
    allowed_hosts : further host names that requests may use, like a proxy's.
    daemon : False: only the UI, on the instance in DAGSTER_HOME, if a daemon runs elsewhere.
    Raises HeedError: the settings, the address or the warehouse do not allow it, or `heed up` runs for this home
        already.
    """
    from dagster_project.listening import address_of, is_loopback, listen

    load_settings()
    home = heed_home()
    stopping = threading.Event()
    with ExitStack() as stack:
        listening = stack.enter_context(listen(host, port, "up"))
        lock = stack.enter_context(_only_one(home)) if daemon else None
        warehouse = Warehouse(home)
        prepare(warehouse)  # this process remains a user of the embedded server while the UI is up
        os.environ.update({"HEED_HOME": str(home), "GX_ANALYTICS_ENABLED": "false", "PYTHONWARNINGS": "ignore"})
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: stopping.set())
        services = stack.enter_context(_Services.started(home, lock, stopping)) if lock is not None else None
        _say(f"the lineage is on {address_of(host, listening)}/asset-groups, the warehouse is {warehouse.describe()}")
        if not is_loopback(host):
            _say("it answers everybody who can reach this address: put a proxy with a login in front")
        ui = stack.enter_context(_serving(listening, [host, *allowed_hosts], services))
        # Where the UI listens on every interface, ask it on this machine's own.
        own_address = address_of("127.0.0.1" if host in ("0.0.0.0", "::") else host, listening)
        threading.Thread(target=keep_code_loaded, args=(f"{own_address}/graphql", stopping), daemon=True).start()
        while not stopping.wait(0.5):
            ended = "the UI" if not ui.is_alive() else services.ended() if services else None
            if ended:
                _say(f"{ended} ended by itself, so everything is stopped; see above for the reason", "error")
                return 1
    return 0


def _say(line: str, level: str = "info") -> None:
    print(json_line(line, level) if in_json() else f"heed: {line}", flush=True)


def _log_format() -> list[str]:
    """The options for the log format of Dagster's processes."""
    return ["--log-format", "json"] if in_json() else []


@contextmanager
def _only_one(home: Path) -> Iterator[IO[str]]:
    """Lock this home for one `heed up`. Gives the lock file, which the daemon holds as well.

    Raises HeedError: it runs already, or processes that a killed one left behind do not end.
    """
    private_directory(home)
    with (home / "up.lock").open("a+") as lock:
        until = time.monotonic() + STOP_SECONDS + 10
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                lock.seek(0)
                pid = lock.read().strip()
                # The daemon holds the lock as well, and ends shortly after a `heed up` that was killed.
                if _is_alive(pid) or time.monotonic() > until:
                    raise HeedError(
                        f"`heed up` runs for {home} already (process {pid})", "use that one, or stop it first"
                    ) from None
                time.sleep(0.2)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another account's
        return True
    with suppress(OSError):  # a zombie does not count
        return Path(f"/proc/{int(pid)}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


class _Services:
    """The code server, the daemon and the keeper. workspace : the file that says where the code server listens."""

    def __init__(self, directory: Path, lock: IO[str], stopping: threading.Event) -> None:
        self.workspace = directory / "workspace.yaml"
        self._socket = directory / "code.sock"
        entry = {"grpc_server": {"socket": str(self._socket), "location_name": "heed"}}
        self.workspace.write_text(json.dumps({"load_from": [entry]}), encoding="utf-8")  # JSON is YAML
        self._code = self._start_code(group=0)
        self._group = self._code.pid
        self._keeper = subprocess.Popen(
            ["/bin/sh", "-c", _KEEPER, "heed-keeper", str(self._group), str(5 * STOP_SECONDS)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        # The daemon and the UI look for the code once, when they start, so it should be there.
        while not (stopping.is_set() or self._answers() or self._code.poll() is not None):
            time.sleep(0.1)
        self._daemon = subprocess.Popen(
            [sys.executable, "-m", "dagster._daemon", "run", "-w", str(self.workspace), *_log_format()],
            cwd=PROJECT,
            process_group=self._group,
            pass_fds=[lock.fileno()],  # never two daemons: the lock is held until the daemon is gone as well
        )

    @classmethod
    @contextmanager
    def started(cls, home: Path, lock: IO[str], stopping: threading.Event) -> Iterator[_Services]:
        """Start all three; end them when the block ends."""
        dagster_home(home)
        with tempfile.TemporaryDirectory(prefix="heed-up-") as name:  # its owner's only; a socket's path must be short
            services = cls(Path(name), lock, stopping)
            try:
                yield services
            finally:
                services.end()

    def ended(self) -> str | None:
        """Which process ended by itself; restarts a code server that had run for a while instead."""
        if self._daemon.poll() is not None:
            return "Dagster's daemon"
        if self._keeper.poll() is not None:
            return "the keeper of its processes"
        if self._code.poll() is not None:
            if time.monotonic() - self._code_began < CHECK_SECONDS:
                return "Dagster's code server"
            _say("Dagster's code server ended; restarting it", "warning")
            self._code = self._start_code(self._group)
        return None

    def end(self) -> None:
        """End them in order, with the runs that they started, and wait."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        while self._keeper.poll() is None:  # the keeper waits until ended processes are reaped
            self._daemon.poll()
            self._code.poll()
            time.sleep(0.1)
        with suppress(ProcessLookupError):  # when the keeper itself was killed
            os.killpg(self._group, signal.SIGKILL)

    def _start_code(self, group: int) -> subprocess.Popen[bytes]:
        self._socket.unlink(missing_ok=True)
        self._code_began = time.monotonic()
        command = [
            "code-server",
            "start",
            "--socket",
            str(self._socket),
            "--module-name",
            "dagster_project.definitions",
        ]
        return subprocess.Popen(
            [sys.executable, "-m", "dagster", *command, "--log-level", "warning", *_log_format()],
            cwd=PROJECT,
            process_group=group,
        )

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asking:
            try:
                asking.connect(str(self._socket))
            except OSError:
                return False
        return True


@contextmanager
def _serving(listening: socket.socket, hosts: Sequence[str], services: _Services | None) -> Iterator[threading.Thread]:
    """Serve the UI in a thread until the block ends."""
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    from dagster_project.listening import server_of

    workspace = services.workspace if services else PROJECT / "workspace.yaml"
    own = services is not None or not os.environ.get("DAGSTER_HOME")
    with (
        dagster_instance(heed_home()) if own else DagsterInstance.get() as instance,
        WorkspaceProcessContext(instance, WorkspaceFileTarget([str(workspace)]), version=__version__) as context,
    ):
        # As `dagster-webserver` does: 15 s per statement, an hour per connection, up to 20 more connections under load.
        instance.optimize_for_webserver(15_000, 3_600, 20)
        server = server_of(guarded(create_app_from_workspace_process_context(context), hosts), web_sockets=True)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)


def guarded(app: ASGIApp, hosts: Sequence[str]) -> ASGIApp:
    """Dagster's application behind heed's guard. hosts : further host names that requests may use."""
    from dagster_project.guard import Guard

    # Dagster would also run mutations from a GET to /graphql. Its own pages use POST.
    return Guard(app, hosts, _HEADERS, queries_by_post=["/graphql"])


def keep_code_loaded(address: str, stopping: threading.Event) -> None:
    """Reload heed's code whenever its process is found dead, until `stopping`.

    Dagster's code server still answers when the process that holds the code died, but no run would start any more.
    Code that cannot be loaded is left alone; the UI shows why.

    address : the UI's GraphQL endpoint.
    """
    dead: set[str] = set()
    while not stopping.wait(CHECK_SECONDS):
        try:
            unreachable = unreachable_code(address)
            for name in unreachable & dead:  # twice in a row: one missing answer does not mean that it is dead
                _say(f"the process that holds heed's code for Dagster ended; {name} is loaded again", "warning")
                _ask(address, _RELOAD, name=name)
                unreachable.remove(name)
            dead = unreachable
        except (OSError, ValueError, LookupError, TypeError):  # the UI is starting or ending
            dead = set()


def unreachable_code(address: str) -> set[str]:
    """The names of code locations whose process does not answer, according to the UI at `address`."""
    entries = _ask(address, _LOCATIONS)["workspaceOrError"]["locationEntries"]
    states = {each["name"]: each["locationOrLoadError"] or {} for each in entries}
    return {name for name, state in states.items() if "DagsterUserCodeUnreachableError" in state.get("message", "")}


def _ask(address: str, query: str, **variables: str) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
        return data
