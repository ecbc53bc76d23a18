"""Serving the Dagster UI and its daemon for this home.

Belongs here: starting `dagster dev` with the right home, and keeping the embedded warehouse alive meanwhile.
Does not belong here: what is scheduled (`automation.py`).
"""

from __future__ import annotations

import os
import subprocess
import sys
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
    with subprocess.Popen(command, cwd=PROJECT, env=environment) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the terminal sent it to dagster as well, which is stopping
                continue
