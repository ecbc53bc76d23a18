"""dbt in a process that imports it and parses the project once, and forks for each command.

Belongs here: the program that waits (`python -m dagster_project.resources.dbt.prestarted`), and giving it commands.
Does not belong here: dbt's variables and directories (`project.py`).

Importing dbt takes 4 s of processor time, parsing the project 2 s, or 6 s if it was never parsed. A run gives dbt two
commands. The waiting process imports and parses for both, and while this one imports Dagster, so that nobody waits for
it. A command runs in a fork, which leaves nothing behind for the next one. All end when their starter is gone.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dagster_project.resources.dbt.project import DBT_ANYWHERE, DBT_PROJECT, dbt_directory, dbt_vars, newest_change

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings


@dataclass(frozen=True)
class _Server:
    """A process that waits for commands, and this end of the connection to it."""

    process: subprocess.Popen[bytes]
    connection: Connection


_idle: list[_Server] = []
_lock = threading.Lock()


def prepare_dbt(warehouse: Warehouse, settings: Settings) -> None:
    """Let a process import dbt and parse the project now, for this warehouse, unless one has. Does not wait."""
    request = {
        "home": str(warehouse.home),
        "environment": {**os.environ, **warehouse.dbt_environment(), **DBT_ANYWHERE},
        "variables": json.dumps(dbt_vars(settings)),
    }
    server = _take()
    try:
        server.connection.send(request)
    except OSError:  # it was killed while it waited
        server = _start()
        server.connection.send(request)
    _idle.append(server)


def run_dbt(arguments: Sequence[str], environment: Mapping[str, str], directory: Path) -> DbtProcess:
    """`dbt` with these arguments, environment and working directory; its output is a pipe, its input is closed."""
    request = {"arguments": list(arguments), "environment": dict(environment), "directory": str(directory)}
    output, its_output = os.pipe()
    server = _take()
    try:
        try:
            pid = _begin(server, request, its_output)
        except (OSError, EOFError):  # it was killed while it waited
            server = _start()
            pid = _begin(server, request, its_output)
    finally:
        os.close(its_output)
    return DbtProcess(["dbt", *arguments], output, pid, server)


class DbtProcess:
    """A running command: what dagster-dbt uses of a `subprocess.Popen`."""

    def __init__(self, args: list[str], output: int, pid: int, server: _Server) -> None:
        self.args, self.pid = args, pid
        self.stdout = open(output, "rb")  # noqa: SIM115  (its reader closes it)
        self.returncode: int | None = None
        self._server = server

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises subprocess.TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            try:
                if not self._server.connection.poll(timeout):
                    raise subprocess.TimeoutExpired(self.args, timeout or 0)
                self.returncode = int(self._server.connection.recv())
                _idle.append(self._server)
            except (OSError, EOFError):  # its server was killed, and it with it
                self.returncode = -signal.SIGKILL
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                # An interrupt ends the fork at once: PostgreSQL ends what it ran.
                os.kill(self.pid, signal.SIGTERM if number == signal.SIGINT else number)


def _take() -> _Server:
    with _lock:
        return _idle.pop() if _idle else _start()


def _start() -> _Server:
    ours, theirs = Pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.resources.dbt.prestarted", str(theirs.fileno()), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    return _Server(process, ours)


def _begin(server: _Server, request: Mapping[str, Any], output: int) -> int:
    """Give a command to a process that waits; the pid of the fork that runs it."""
    server.connection.send(request)
    send_handle(server.connection, output, server.process.pid)
    return int(server.connection.recv())


def _serve(connection: Connection, starter: int) -> NoReturn:
    # Ctrl-C reaches the whole group of processes: the command stops, and its starter ends this process.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    # A script that starts heed with `&` ignores interrupts, Dagster then ignores SIGTERM too, and both are inherited.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with(starter)
    from dbt.adapters.postgres import impl  # noqa: F401  (what the profile will ask for)
    from dbt.cli.main import dbtRunner  # noqa: F401
    from dbt.task import build  # noqa: F401  (dbt imports its tasks late)

    server, manifest, parsed_as = os.getpid(), None, None
    while True:
        try:
            request = connection.recv()
        except EOFError:  # its starter has ended
            _end(0)
        if "arguments" not in request:
            if parsed_as != (project := _project_of(request["environment"], request["variables"])):
                manifest, parsed_as = _parse(request), project
            continue
        output = recv_handle(connection)
        gc.freeze()  # the fork's collector need not look at, and so copy, what it shares with this process
        child = os.fork()
        if not child:
            variables = [each for each in request["arguments"] if parsed_as and each == parsed_as[0]]
            same = bool(variables) and parsed_as == _project_of(request["environment"], variables[0])
            connection.close()
            _run(request, output, manifest if same else None, server)
        os.close(output)
        connection.send(child)
        connection.send(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _run(request: Mapping[str, Any], output: int, manifest: Any, server: int) -> NoReturn:
    """Run the command in this fork, which ends with it."""
    from dbt.cli.main import dbtRunner

    status = 1
    try:
        _end_with(server)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.clear()
        os.environ.update(request["environment"])
        if manifest is None:  # the static parser has threads, which a fork lacks: it would wait for them for ever
            os.environ["DBT_STATIC_PARSER"] = "false"
        os.chdir(request["directory"])
        status = 0 if dbtRunner(manifest=manifest).invoke(request["arguments"]).success else 1
    except KeyboardInterrupt:
        status = 130
    finally:  # whatever happens, a fork must not go on as a second server
        _end(status)


def _end(status: int) -> NoReturn:
    """End at once, but for what was promised: taking apart all that dbt imported takes a second."""
    with suppress(Exception):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: what a killed run began must not go on during the next run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _parse(request: Mapping[str, Any]) -> Any:
    """dbt's manifest, or None if parsing fails: then the command parses again, and reports the error."""
    from dbt.cli.main import dbtRunner

    os.environ.clear()
    os.environ.update(request["environment"])
    with dbt_directory(Path(request["home"])) as directory, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        places = ("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT))
        paths = ("--target-path", str(directory), "--log-path", str(directory))
        result = dbtRunner().invoke(
            ["--quiet", "parse", "--no-write-json", *places, *paths, "--vars", request["variables"]]
        )
    return result.result if result.success else None


def _project_of(environment: Mapping[str, str], variables: str) -> tuple[str, dict[str, str], float]:
    """What a parse depends on: variables, warehouse, and the files of the dbt project."""
    warehouse = {name: value for name, value in environment.items() if name.startswith("HEED_PG_")}
    return variables, warehouse, newest_change()


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), int(sys.argv[2]))
