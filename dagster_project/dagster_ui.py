"""Serving the Dagster UI and its daemon for this home.

Belongs here: starting `dagster dev` with the right home, keeping the embedded warehouse alive meanwhile, and starting
anew the process that holds heed's code for Dagster, when it died.
Does not belong here: what is scheduled (`automation.py`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from dagster_project.instance import dagster_home
from dagster_project.logs import in_json, json_line
from dagster_project.resources.postgres import Warehouse
from dagster_project.settings import PROJECT, heed_home, load_settings

LOOK_EVERY = 10.0  # seconds
_LOCATIONS = """{ workspaceOrError { ... on Workspace { locationEntries {
    name locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
_RELOAD = "mutation ($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"


def serve_dagster(host: str, port: int) -> int:
    """Run the UI and the daemon until they are stopped; returns the exit status of `dagster dev`.

    The address is loopback unless told otherwise: the UI has no login of its own.
    """
    load_settings()
    home = heed_home()
    warehouse = Warehouse(home)
    warehouse.prepare()  # this process stays a user of the embedded server as long as the UI is up
    dagster_home(home)
    where = f"the lineage is on http://{host}:{port}/asset-groups, the warehouse is {warehouse.describe()}"
    print(json_line(where) if in_json() else f"heed: {where}")
    program = Path(sys.executable).with_name("dagster")
    command = [str(program), "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", host, "-p", str(port)]
    command += ["--log-format", "json"] if in_json() else []
    environment = {**os.environ, "HEED_HOME": str(home), "GX_ANALYTICS_ENABLED": "false", "PYTHONWARNINGS": "ignore"}
    # In a group of their own: whoever ends this process, by whichever signal, means the daemon, the UI and their runs
    # as well, and all of them stop in order on what Ctrl-C would send them.
    started: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        for process in started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

    # Before they start: a shell that starts `heed up` in its background lets SIGINT be ignored, and they would inherit
    # that.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with subprocess.Popen(command, cwd=PROJECT, env=environment, process_group=0) as process:
        started.append(process)
        # The UI has no login and answers on every interface it listens on: asked is this machine.
        address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/graphql"
        threading.Thread(target=keep_code_loaded, args=(address, process), daemon=True).start()
        return process.wait()


def keep_code_loaded(address: str, process: subprocess.Popen[bytes]) -> None:
    """Have heed's code loaded again whenever its process is found dead, until `process` ends.

    `dagster dev` ends when its daemon or its UI ends, but not when the process dies that holds the code: it would stay
    up, and start no run any more. Code that cannot be loaded is another matter, and the UI shows why.

    address : of the UI's GraphQL interface.
    """
    dead: set[str] = set()
    while True:
        with suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_EVERY)
            return
        try:
            found = unreachable_code(address)
            for name in found & dead:  # twice in a row: a moment without an answer is no death
                ended = f"the process that holds heed's code for Dagster ended; {name} is loaded again"
                print(json_line(ended, "warning") if in_json() else f"heed: {ended}", flush=True)
                _ask(address, _RELOAD, name=name)
                found.remove(name)
            dead = found
        except (OSError, ValueError, LookupError, TypeError):  # no UI yet, or one that is just ending
            dead = set()


def unreachable_code(address: str) -> set[str]:
    """The names of code locations whose process gives no answer, as the UI at `address` sees them."""
    entries = _ask(address, _LOCATIONS)["workspaceOrError"]["locationEntries"]
    states = {each["name"]: each["locationOrLoadError"] or {} for each in entries}
    return {name for name, state in states.items() if "DagsterUserCodeUnreachableError" in state.get("message", "")}


def _ask(address: str, query: str, **variables: str) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(address, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        data: dict[str, Any] = json.load(answer)["data"]
        return data
