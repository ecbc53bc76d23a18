"""What every test shares: a real PostgreSQL for the session, a database of its own for whoever asks, a fresh home.

The server is the embedded one, or the system's own (`--postgres system`), started on a directory of this session.
"""

import itertools
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from dagster import DagsterInstance
from hypothesis import HealthCheck, settings

from dagster_project.commands.run import JobOutcome, run_job
from dagster_project.instance import dagster_instance
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.resources.warehouse.embedded import SERVER_SETTINGS, embedded_url, stop_server
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings
from dagster_project.simulator import World
from tests.triage import learning_world

# The same examples on every run: a failure on one machine is a failure on all of them.
settings.register_profile(
    "heed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=100
)
settings.load_profile("heed")

# No power cut has to be survived by a server that goes with the session; the tests of faults have servers of their own.
NOTHING_TO_KEEP = ("fsync", "synchronous_commit", "full_page_writes")

PROJECT = Path(__file__).resolve().parent.parent
REAL_ALERTS = PROJECT.parent / "shared" / "data" / "wolfi"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres",
        choices=("embedded", "system"),
        default="embedded",
        help="which server the tests use: the embedded one, or the system's PostgreSQL on a directory of its own",
    )


# The groups of `make test` that take longest, in the order in which they begin: none begins last and runs alone.
LONG = (
    "company",
    "tests/end_to_end/",
    "tests/dbt/",
    "learning",
    "tests/dagster/",
    "tests/resources/",
    "tests/serving/",
)


def group_of(item: pytest.Item) -> str:
    """What one worker of `make test` runs together: the tests of a file, all that ask for the company, whose making
    takes longer than any file of tests, and all that learn from the same small world."""
    if {"company", "scored_company"} & set(getattr(item, "fixturenames", ())):
        return "company"
    if getattr(getattr(item, "module", None), "world", None) is learning_world.world:
        return "learning"
    return item.path.relative_to(PROJECT).as_posix()


# First: xdist reads the groups in the same hook, and would otherwise read them before they are set.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests, since workers share nothing: each has a server and a home of its own."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))

    def order(item: pytest.Item) -> int:
        group = group_of(item)
        return next((number for number, name in enumerate(LONG) if group.startswith(name)), len(LONG))

    items.sort(key=order)


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests see no settings of their machine, and never write into the project's own home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (URL_VARIABLE, "HEED_SETTINGS", "DAGSTER_HOME"):
            patch.delenv(name, raising=False)
        patch.setenv("HEED_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("GX_ANALYTICS_ENABLED", "false")
        patch.setenv("DBT_SEND_ANONYMOUS_USAGE_STATS", "false")
        yield


@pytest.fixture(scope="session")
def open_directory() -> Iterator[Path]:
    """A directory that the server's account can reach, also when the tests run as root."""
    directory = Path(tempfile.mkdtemp(prefix="heed-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest, open_directory: Path) -> Iterator[str]:
    """The URL of the session's server, without a database: `postgresql://...` with `{}` where its name goes."""
    if request.config.getoption("--postgres") == "embedded":
        home = open_directory / "server"
        home.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            for name in NOTHING_TO_KEEP:
                patch.setitem(SERVER_SETTINGS, name, "off")
            url = embedded_url(home)
        yield url.replace("/heed?", "/{}?")
        stop_server(home)
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not programs:
        assert not os.environ.get("CI"), ".ci/run should have installed PostgreSQL, and did not"
        pytest.skip("the system has no PostgreSQL server; .ci/run installs one and does not skip")
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
    data = open_directory / "system"
    data.mkdir(mode=0o700)
    if account:
        os.chown(data, account.pw_uid, account.pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(programs[-1] / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=account.pw_uid if account else None,
            group=account.pw_gid if account else None,
            extra_groups=[] if account else None,
        )

    unsafe = " ".join(f"-c {name}=off" for name in NOTHING_TO_KEEP)
    run("initdb", "-D", str(data), "-U", "tester", "--auth=trust", "--encoding=UTF8")
    run(
        "pg_ctl",
        "-D",
        str(data),
        "-w",
        "-l",
        str(data / "log"),
        "-o",
        f"-k {data} -c listen_addresses='' {unsafe}",
        "start",
    )
    yield f"postgresql://tester@/{{}}?host={data}"
    run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")


@pytest.fixture(scope="session")
def new_database(server_url: str) -> Callable[[], str]:
    """Creates an empty database and returns its URL."""
    numbers = itertools.count(1)
    return lambda: create_database(server_url, f"test_{next(numbers)}")


@pytest.fixture
def empty_database(server_url: str) -> str:
    """The URL of an empty database. All tests use the same name: dbt parses its project again for another one."""
    return create_database(server_url, "test_again")


def create_database(server_url: str, name: str, template: str = "template1") -> str:
    """A new database, empty or a copy of another to which nobody is connected; returns its URL.

    It replaces the one that an earlier test had under this name.
    """
    connection = psycopg2.connect(server_url.format("postgres"))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    connection.close()
    return server_url.format(name)


@pytest.fixture(scope="session")
def prepared_database(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Creates a database of this name with heed's own tables, empty, and returns its URL: a copy is made sooner."""
    url = create_database(server_url, "prepared")
    prepare(Warehouse(tmp_path_factory.mktemp("prepared"), url))
    return lambda name: create_database(server_url, name, "prepared")


@pytest.fixture(scope="session")
def new_prepared_database(prepared_database: Callable[[str], str]) -> Callable[[], str]:
    """The same, with another name each time."""
    numbers = itertools.count(1)
    return lambda: prepared_database(f"prepared_{next(numbers)}")


@pytest.fixture
def warehouse(prepared_database: Callable[[str], str], tmp_path: Path) -> Warehouse:
    """An empty warehouse with heed's own tables, in a home of its own."""
    made = Warehouse(tmp_path, prepared_database("prepared_again"))
    prepare(made)
    return made


# Stands in the address of every login below; nothing may ever show it (tests/end_to_end/test_secrets.py).
PASSWORD = "planted-Zq7x%2Fsecret"
LOGINS = {
    "test_loader": ("heed_loader",),
    "test_job": ("heed_transformer", "heed_scorer"),
    "test_analyst": ("heed_analyst",),
    "test_web": ("heed_server",),
}


def with_roles(warehouse: Warehouse) -> Callable[[str], Warehouse]:
    """Run `heed init`, and return what makes the same warehouse as a login sees it that has just those roles."""
    from dagster_project.resources.warehouse.schema import initialise

    assert initialise(warehouse, Settings()) == []
    connection = psycopg2.connect(warehouse.url())
    with connection, connection.cursor() as cursor:
        for login, roles in LOGINS.items():
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (login,))
            if cursor.fetchone() is None:
                cursor.execute(f"CREATE ROLE {login} LOGIN IN ROLE {', '.join(roles)}")
    connection.close()
    return lambda login: Warehouse(
        warehouse.home, re.sub("//[^@]*@", lambda _: f"//{login}:{PASSWORD}@", warehouse.url())
    )


@pytest.fixture(scope="session")
def real_alerts() -> Path:
    """The directory of the real alerts; they are not part of the project."""
    if not (REAL_ALERTS / "alerts.csv.gz").exists():
        pytest.skip("the real alerts are not here: they are kept beside the project, not in it")
    return REAL_ALERTS


@dataclass(frozen=True)
class Company:
    """A simulated company whose whole job has run, in a home and a database of its own.

    warehouse : as the owner of the database sees it. login : as a login with the least rights sees it; all that was
    loaded and run was loaded and run by such logins.
    """

    home: Path
    warehouse: Warehouse
    login: Callable[[str], Warehouse]
    world: World
    put_in: Any
    end: datetime
    instance: DagsterInstance
    settings: Settings

    def run(self, job: str, as_of: datetime) -> JobOutcome:
        """Run a job once more."""
        return run_job(
            job,
            as_of,
            settings=self.settings,
            warehouse=self.login("test_job"),
            instance=self.instance,
        )


@pytest.fixture(scope="session")
def company(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Company:
    """Six thousand messy alerts over 120 days, loaded, cleaned, flagged, learned from, scored and published."""
    from dagster_project.loading import load_file
    from dagster_project.simulator import WorldConfig, export_messy, simulate

    home = tmp_path_factory.mktemp("company")
    warehouse = Warehouse(home, new_database())
    login = with_roles(warehouse)
    end = datetime(2025, 6, 1, tzinfo=UTC)
    world = simulate(WorldConfig(seed=3, alerts=6_000, days=120, end=end))
    put_in = export_messy(world, home, 3)
    for kind in ("alerts", "actions", "rules", "action_types"):
        load_file(kind, next(home.glob(f"{kind}.csv*")), login("test_loader").connect)
    made = Company(
        home,
        warehouse,
        login,
        world,
        put_in,
        end,
        dagster_instance(home),
        Settings(learning={"training_days": 120, "threads": 1}),
    )
    # The holdout's draw is secret and made anew for each warehouse; that of the tests is the same every time.
    with warehouse.transaction() as cursor:
        cursor.execute("INSERT INTO scoring.holdout_salt (salt) VALUES ('of the tests')")
    made.run("retrain", end)
    return made


@pytest.fixture(scope="session")
def scored_company(company: Company) -> Warehouse:
    """The warehouse of a company whose whole job has run. Tests read it and do not change it."""
    return company.warehouse
