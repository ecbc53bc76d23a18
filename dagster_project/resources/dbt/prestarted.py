"""dbt in a process that imports it before the command is known.

Belongs here: the program that waits (`python -m dagster_project.resources.dbt.prestarted`), and starting it in time.
Does not belong here: dbt's variables and directories (`project.py`).

Importing dbt takes 3 s of processor time, parsing the project 1.5 s, or 6 s if it was never parsed. When another
process does this while this one imports Dagster, or scores, nobody waits for it. It runs one command as the `dbt`
program would, and ends; it also ends when its starter is gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.resources.dbt.project import DBT_ANYWHERE, DBT_PROJECT, dbt_directory, dbt_vars

if TYPE_CHECKING:
    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.settings import Settings

_waiting: list[subprocess.Popen[bytes]] = []
_lock = threading.Lock()


def prepare_dbt(warehouse: Warehouse, settings: Settings) -> None:
    """Let one dbt process import and parse now, for this warehouse. Does nothing when one is waiting already."""
    with _lock:
        if not _waiting:
            process = _start()
            environment = {**os.environ, **warehouse.dbt_environment(), **DBT_ANYWHERE}
            variables = json.dumps(dbt_vars(settings))
            _send(process, {"home": str(warehouse.home), "environment": environment, "variables": variables})
            _waiting.append(process)


def run_dbt(arguments: Sequence[str], environment: Mapping[str, str], directory: Path) -> subprocess.Popen[bytes]:
    """`dbt` with these arguments, environment and working directory; its output is a pipe, its input is closed."""
    with _lock:
        process = _waiting.pop() if _waiting else _start()
    if process.poll() is not None:  # it was killed while it waited
        process = _start()
    _send(process, {"arguments": list(arguments), "environment": dict(environment), "directory": str(directory)})
    assert process.stdin is not None
    process.stdin.close()
    process.args = ["dbt", *arguments]  # what messages name
    return process


def _send(process: subprocess.Popen[bytes], request: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "dagster_project.resources.dbt.prestarted"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def _wait_and_run() -> int:
    from dbt.adapters.postgres import impl  # noqa: F401  (what the profile will ask for)
    from dbt.cli.main import dbtRunner
    from dbt.task import build  # noqa: F401  (dbt imports its tasks late)

    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    manifest, parsed_as = None, None
    for line in sys.stdin:
        request = json.loads(line)
        os.environ.clear()
        os.environ.update(request["environment"])
        if "arguments" not in request:
            manifest, parsed_as = _parse(request), request
            continue
        os.chdir(request["directory"])
        if not (parsed_as and _same_project(parsed_as, request)):
            manifest = None
        return 0 if dbtRunner(manifest=manifest).invoke(request["arguments"]).success else 1
    return 0


def _end_with(starter: int) -> None:
    """End when the starter is gone: what a killed run began must not go on during the next run."""
    while os.getppid() == starter:
        time.sleep(0.2)
    os._exit(1)


def _parse(request: Mapping[str, Any]) -> Any:
    """dbt's manifest, or None if parsing fails: then the command parses again, and reports the error."""
    from dbt.cli.main import dbtRunner

    with dbt_directory(Path(request["home"])) as directory, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        places = ("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT))
        paths = ("--target-path", str(directory), "--log-path", str(directory))
        result = dbtRunner().invoke(
            ["--quiet", "parse", "--no-write-json", *places, *paths, "--vars", request["variables"]]
        )
    return result.result if result.success else None


def _same_project(parsed: Mapping[str, Any], request: Mapping[str, Any]) -> bool:
    """Whether the parsed project is the one of the command: the same warehouse, the same variables."""
    names = [name for name in request["environment"] if name.startswith("HEED_PG_")]
    same = all(request["environment"][name] == parsed["environment"].get(name) for name in names)
    return same and parsed["variables"] in request["arguments"]


if __name__ == "__main__":
    try:
        sys.exit(_wait_and_run())
    except KeyboardInterrupt:
        sys.exit(130)
