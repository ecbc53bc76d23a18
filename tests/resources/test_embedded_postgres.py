"""The embedded server's life: shared by processes, stopped by the last, whatever became of the others."""

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.embedded import (
    _place,
    _reachable,
    _Server,
    embedded_url,
    running_server_pid,
    stop_server,
)
from tests.conftest import PROJECT

USER = """
import sys, time
from pathlib import Path
from dagster_project.resources.warehouse.embedded import embedded_url
from dagster_project.resources.warehouse.connection import Warehouse
home = Path(sys.argv[1])
assert Warehouse(home).value("SELECT 1") == 1
print("using", flush=True)
sys.stdin.readline()
"""


def start_user(home: Path) -> subprocess.Popen:
    user = subprocess.Popen(
        [sys.executable, "-c", USER, str(home)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env={name: value for name, value in os.environ.items() if not name.startswith("HEED_")},
    )
    assert user.stdout is not None
    assert user.stdout.readline() == "using\n"
    return user


def wait_until_stopped(home: Path) -> bool:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if running_server_pid(home) is None:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def home(open_directory: Path, tmp_path: Path) -> Path:
    made = open_directory / tmp_path.name
    made.mkdir()
    return made


def test_users_share_one_server_and_the_last_one_stops_it(home: Path) -> None:
    first, second = start_user(home), start_user(home)
    pid = running_server_pid(home)
    assert pid is not None
    first.communicate("\n", timeout=30)
    assert running_server_pid(home) == pid, "the server stopped although somebody used it"
    second.communicate("\n", timeout=30)
    assert wait_until_stopped(home)


def test_a_killed_user_is_not_a_user_any_more(home: Path) -> None:
    killed, survivor = start_user(home), start_user(home)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    survivor.communicate("\n", timeout=30)
    assert wait_until_stopped(home), "a killed process still counts as a user"


def test_a_killed_server_starts_again_with_its_data(home: Path) -> None:
    user = start_user(home)
    pid = running_server_pid(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    user.communicate("\n", timeout=30)
    again = start_user(home)
    assert running_server_pid(home) not in (None, pid)
    again.communicate("\n", timeout=30)


def test_a_stale_pid_file_of_another_process_is_not_mistaken_for_the_server(home: Path) -> None:
    user = start_user(home)
    user.communicate("\n", timeout=30)
    assert wait_until_stopped(home)
    (home / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n/elsewhere\n")
    assert running_server_pid(home) is None
    start_user(home).communicate("\n", timeout=30)


def test_a_home_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    from dagster_project.resources.warehouse.embedded import embedded_url

    (tmp_path / "file").write_text("")
    with pytest.raises(HeedError, match="cannot be written"):
        embedded_url(tmp_path / "file" / "home")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts a server under another account")
def test_a_home_that_the_server_cannot_reach_keeps_its_permissions(tmp_path: Path) -> None:
    import pwd

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    account = pwd.getpwnam("nobody")
    assert not _reachable(closed / ".heed", account)
    assert _place(closed / ".heed", account).parent == Path("/var/lib/heed")
    assert closed.stat().st_mode & 0o777 == 0o700


@pytest.fixture
def long_home(open_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose path is too long for a socket, and a temporary folder as a system has it: open, and sticky."""
    folder = open_directory / f"tmp-{tmp_path.name}"[:40]
    folder.mkdir()
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    made = open_directory / tmp_path.name / ("x" * 100)
    made.mkdir(parents=True)
    return made


def in_the_way(server: _Server, kind: str) -> None:
    """What another account could have put where the socket's directory is to be."""
    place = server._socket_directory()
    if kind == "a link":
        target = place.with_name("elsewhere")
        target.mkdir(mode=0o700)
        place.symlink_to(target)
    elif kind == "a file":
        place.write_text("")
    else:
        place.mkdir()
        place.chmod(0o777 if kind == "open to others" else 0o700)
    if kind == "another account's":
        os.chown(place, 12345, 12345)


@pytest.mark.parametrize("kind", ["a link", "a file", "open to others", "another account's"])
def test_a_socket_directory_that_others_made_is_refused(long_home: Path, kind: str) -> None:
    if kind == "another account's" and os.geteuid() != 0:
        pytest.skip("only root gives a directory to another account")
    server = _Server(long_home)
    in_the_way(server, kind)
    with pytest.raises(HeedError, match="the socket of the embedded PostgreSQL would be in"):
        embedded_url(long_home)
    assert running_server_pid(long_home) is None


def test_a_temporary_folder_where_others_may_replace_it_is_refused(long_home: Path) -> None:
    Path(tempfile.gettempdir()).chmod(0o777)
    with pytest.raises(HeedError, match="where others may replace it"):
        embedded_url(long_home)


def test_a_long_home_has_its_socket_in_a_directory_of_its_own(long_home: Path) -> None:
    server = _Server(long_home)
    try:
        embedded_url(long_home)
        place = server._socket_directory()
        assert (place / ".s.PGSQL.5432").exists()
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        place.chmod(0o755)
        with pytest.raises(HeedError, match="open to others"):
            server.ensure_running()
    finally:
        stop_server(long_home)
