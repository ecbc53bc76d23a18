"""Serving the Dagster UI and its daemon for this home.

Belongs here: starting `dagster dev` with the right home, and keeping the embedded warehouse alive meanwhile.
Does not belong here: what is scheduled (`automation.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from dagster_project.instance import dagster_home
from dagster_project.resources.postgres import Warehouse
from dagster_project.settings import PROJECT, heed_home, load_settings


def serve_dagster(host: str, port: int) -> int:
    """Run the UI and the daemon until they are stopped; returns the exit status of `dagster dev`.

    The address is loopback unless told otherwise: the UI has no login of its own.
    """
    load_settings()
    home = heed_home()
    warehouse = Warehouse(home)
    warehouse.prepare()  # this process stays a user of the embedded server as long as the UI is up
    dagster_home(home)
    print(f"heed: the lineage is on http://{host}:{port}/asset-groups, the warehouse is {warehouse.describe()}")
    program = Path(sys.executable).with_name("dagster")
    command = [str(program), "dev", "-w", str(PROJECT / "workspace.yaml"), "-h", host, "-p", str(port)]
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
        return process.wait()
