"""The Dagster UI behind heed's guard, asked as a page of another site would ask it; and who may start it when.

The UI is Dagster's own, on a real socket, with an instance of its own. It knows no code: what it is asked to change
belongs to the instance. `heed up` as a whole is started, used and killed in `tests/faults/test_processes.py`.
"""

import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from click.testing import CliRunner
from dagster import DagsterInstance
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.app import create_app_from_workspace_process_context
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dagster_project.cli import main
from dagster_project.commands.up import guarded
from dagster_project.instance import dagster_instance
from dagster_project.listening import listen, server_of
from tests.conftest import PROJECT

LIMIT = 'mutation { setConcurrencyLimit(concurrencyKey: "stolen", limit: 1) }'


@dataclass(frozen=True)
class Ui:
    port: int
    instance: DagsterInstance

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text

    def post(self, query: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
        kind = {"Content-Type": "application/json"}
        return self.ask("POST", "/graphql", json.dumps({"query": query}), {**kind, **(headers or {})})

    def was_changed(self) -> bool:
        return bool(self.instance.event_log_storage.get_concurrency_keys())


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    home = tmp_path_factory.mktemp("ui")
    with (
        pytest.MonkeyPatch.context() as patch,
        dagster_instance(home) as instance,
        WorkspaceProcessContext(instance, EmptyWorkspaceTarget()) as context,
        listen("127.0.0.1", 0, "up") as listening,
    ):
        patch.setenv("DAGSTER_HOME", str(home / "dagster"))
        app = guarded(create_app_from_workspace_process_context(context), ["heed.example.com"])
        server = server_of(app, web_sockets=True)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield Ui(listening.getsockname()[1], instance)
        server.should_exit = True
        thread.join(30)


ASKED = f"/graphql?query={quote(LIMIT)}"
ELSEWHERE = {"Origin": "https://elsewhere.example"}


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", ASKED, None, {}, 405),  # what <img src> sends where a browser tells nothing more
        ("GET", ASKED, None, {"Sec-Fetch-Site": "cross-site"}, 405),
        ("GET", ASKED, None, {"Sec-Fetch-Site": "none", "Accept": "text/html"}, 405),
        ("HEAD", ASKED, None, {}, 405),
        ("POST", ASKED, "", {**ELSEWHERE, "Content-Type": "text/plain"}, 403),
        ("POST", "/graphql", LIMIT, {"Sec-Fetch-Site": "same-site", "Content-Type": "application/graphql"}, 403),
        ("POST", "/graphql", json.dumps({"query": LIMIT}), {"Origin": "null", "Content-Type": "application/json"}, 403),
        ("POST", "/report_asset_materialization/stolen", "{}", {**ELSEWHERE, "Content-Type": "text/plain"}, 403),
        ("GET", "/", None, {"Host": "rebound.example"}, 421),
        ("POST", "/graphql", LIMIT, {"Host": "rebound.example:3000", "Content-Type": "application/graphql"}, 421),
        ("GET", "/server_info", None, {"Host": ""}, 421),
    ],
    ids=str,
)
def test_a_page_of_another_site_changes_and_reads_nothing(
    ui: Ui, method: str, path: str, body: str | None, headers: dict[str, str], status: int
) -> None:
    answer = ui.ask(method, path, body, headers)
    assert answer[0] == status
    if method != "HEAD":
        assert set(json.loads(answer[1])) == {"error", "remedy"}
    assert not ui.was_changed()
    assert not ui.instance.get_asset_keys()


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://elsewhere.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}], ids=str
)
def test_a_page_of_another_site_opens_no_web_socket(ui: Ui, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{ui.port}/graphql", additional_headers=headers, subprotocols=["graphql-ws"])  # type: ignore[list-item]
    assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus):
        connect(f"ws://rebound.example:{ui.port}/graphql", sock=socket.create_connection(("127.0.0.1", ui.port)))


def test_its_own_pages_and_programs_do_all(ui: Ui) -> None:
    own = {"Origin": f"http://127.0.0.1:{ui.port}"}
    with connect(f"ws://127.0.0.1:{ui.port}/graphql", origin=own["Origin"], subprotocols=["graphql-ws"]) as opened:  # type: ignore[arg-type, list-item]
        opened.send(json.dumps({"type": "connection_init"}))
        assert json.loads(opened.recv(10)) == {"type": "connection_ack"}
    for headers in ({}, own, {"Sec-Fetch-Site": "same-origin"}, {"Host": "heed.example.com"}, {"Host": "10.1.2.3:80"}):
        assert ui.post("{ version }", headers)[0] == 200
    status, page = ui.ask("GET", "/runs", None, {"Host": f"localhost:{ui.port}"})
    assert (status, "<html" in page) == (200, True)
    assert ui.ask("GET", "/graphql", None, {"Accept": "text/html"})[0] == 200
    assert not ui.was_changed()
    assert ui.post(LIMIT, own)[0] == 200
    assert ui.was_changed()


def test_no_other_site_shows_it_in_a_frame(ui: Ui) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", ui.port, timeout=60)
    connection.request("GET", "/")
    headers = connection.getresponse().headers
    connection.close()
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "nonce-" in headers["content-security-policy"]


def test_a_taken_port_is_one_line_before_anything_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_HOME", str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = CliRunner().invoke(main, ["up", "--port", str(taken.getsockname()[1])])
    assert done.exit_code == 1
    assert done.output.startswith("heed: 127.0.0.1 port ")
    assert done.output.count("\n") == 1
    assert not (tmp_path / "home").exists()


def test_a_second_one_of_a_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    with (tmp_path / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        done = CliRunner().invoke(main, ["up", "--port", "0"])
    assert done.exit_code == 1
    assert f"already (process {os.getpid()})" in done.output
    assert done.output.count("\n") == 1
    assert not (tmp_path / "postgres").exists()


PARENT = """
import subprocess, sys, time
from dagster_project.commands.up import _KEEPER
stubborn = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
first = subprocess.Popen(["sleep", "600"], process_group=0)
subprocess.Popen([sys.executable, "-c", stubborn], process_group=first.pid).pid
keeper = ["/bin/sh", "-c", _KEEPER, "keeper", str(first.pid), "5"]
subprocess.Popen(keeper, stdin=subprocess.PIPE, process_group=0)
print(first.pid, flush=True)
time.sleep(600)
"""


def test_what_a_killed_parent_started_ends(tmp_path: Path) -> None:
    """Also a process that ignores Ctrl-C."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    [group] = [int(line) for line in said - {"up"}]
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 30
    while members := [pid for pid in alive() if group_of(pid) == group]:
        assert time.monotonic() < until, members
        time.sleep(0.05)


def alive() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def group_of(pid: int) -> int | None:
    """The process group of one that lives."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return int(fields[2]) if fields[0] != "Z" else None
