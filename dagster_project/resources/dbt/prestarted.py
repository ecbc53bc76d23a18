"""dbt in a process that has imported it before it is told what to do.

Belongs here: the program that waits (`python -m dagster_project.resources.dbt.prestarted`) and starting it
in time.
Does not belong here: what dbt is told (`dbt.py`).

Importing dbt takes 3 s of processor time, parsing the project 1.5 s, and 6 s where nothing was parsed before. When a
process does so while this one imports Dagster, or scores, nobody waits for it. It runs one command as the `dbt` program
would, and ends; it also ends when its starter has gone without telling it anything.
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
            _tell(process, {"home": str(warehouse.home), "environment": environment, "variables": variables})
            _waiting.append(process)


def run_dbt(arguments: Sequence[str], environment: Mapping[str, str], directory: Path) -> subprocess.Popen[bytes]:
    """`dbt` with these arguments, environment and working directory; its output is a pipe, its input is closed."""
    with _lock:
        process = _waiting.pop() if _waiting else _start()
    if process.poll() is not None:  # it was ended while it waited
        process = _start()
    _tell(process, {"arguments": list(arguments), "environment": dict(environment), "directory": str(directory)})
    assert process.stdin is not None
    process.stdin.close()
    process.args = ["dbt", *arguments]  # what messages name
    return process


def _tell(process: subprocess.Popen[bytes], what: Mapping[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(what).encode() + b"\n")
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
        told = json.loads(line)
        os.environ.clear()
        os.environ.update(told["environment"])
        if "arguments" not in told:
            manifest, parsed_as = _parse(told), told
            continue
        os.chdir(told["directory"])
        if not (parsed_as and _same_project(parsed_as, told)):
            manifest = None
        return 0 if dbtRunner(manifest=manifest).invoke(told["arguments"]).success else 1
    return 0


def _end_with(starter: int) -> None:
    """End when the starter is gone: what a killed run began must not go on beside the next one."""
    while os.getppid() == starter:
        time.sleep(0.2)
    os._exit(1)


def _parse(told: Mapping[str, Any]) -> Any:
    """dbt's manifest, or None where it cannot be had: then the command parses anew, and says what is wrong."""
    from dbt.cli.main import dbtRunner

    with dbt_directory(Path(told["home"])) as directory, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        places = ("--project-dir", str(DBT_PROJECT), "--profiles-dir", str(DBT_PROJECT))
        paths = ("--target-path", str(directory), "--log-path", str(directory))
        done = dbtRunner().invoke(["--quiet", "parse", "--no-write-json", *places, *paths, "--vars", told["variables"]])
    return done.result if done.success else None


def _same_project(parsed: Mapping[str, Any], told: Mapping[str, Any]) -> bool:
    """Whether what was parsed is what the command is about: the same warehouse, the same variables."""
    names = [name for name in told["environment"] if name.startswith("HEED_PG_")]
    same = all(told["environment"][name] == parsed["environment"].get(name) for name in names)
    return same and parsed["variables"] in told["arguments"]


if __name__ == "__main__":
    try:
        sys.exit(_wait_and_run())
    except KeyboardInterrupt:
        sys.exit(130)
