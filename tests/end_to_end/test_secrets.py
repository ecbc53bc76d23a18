"""The password in the warehouse's address is planted once, and searched for in all that heed leaves behind.

Every test of the company loads, runs and serves with that password in its address (`tests/conftest.py`).
"""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.commands.run import run_job
from dagster_project.errors import HeedError
from dagster_project.instance import dagster_instance
from dagster_project.resources.dbt.project import DBT_PROJECT
from dagster_project.resources.warehouse.connection import Warehouse
from tests.conftest import PASSWORD, Company

pytestmark = pytest.mark.slow

PLANTED = PASSWORD.partition("%")[0]  # the part that is the same in an address and behind it


def places_below(*folders: Path) -> Iterator[str]:
    """The files that hold the planted word."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and PLANTED.encode() in path.read_bytes():
                yield str(path)


def tables_with_it(warehouse: Warehouse) -> Iterator[str]:
    tables = warehouse.read(
        "SELECT format('%I.%I', nspname, relname) AS name FROM pg_class "
        "JOIN pg_namespace AS space ON space.oid = relnamespace WHERE relkind IN ('r', 'v') AND nspname IN "
        "('raw', 'staging', 'marts', 'quality', 'training', 'scoring', 'reporting')"
    )["name"]
    assert len(tables) > 35
    for table in tables:
        if warehouse.value(f"SELECT EXISTS (SELECT 1 FROM {table} AS t WHERE strpos(t::text, $1) > 0)", (PLANTED,)):
            yield table


def test_what_the_job_left_behind_holds_no_secret(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PASSWORD in company.login("test_job").url()
    monkeypatch.setenv("HEED_HOME", str(company.home))
    monkeypatch.setenv("HEED_DATABASE_URL", company.login("test_analyst").url())
    for command in (["report", "--out", str(tmp_path / "report.html")], ["summary"], ["doctor"]):
        done = CliRunner().invoke(main, command)
        assert done.output
        assert PLANTED not in done.output
    assert (tmp_path / "report.html").stat().st_size > 10_000
    files = list(company.home.rglob("*"))
    assert any(path.suffix == ".db" for path in files), "Dagster's events are not where they are searched for"
    assert list((company.home / "logs").glob("*.log")), "there is no log to search"
    assert list(places_below(company.home, tmp_path, DBT_PROJECT)) == []
    assert list(tables_with_it(company.warehouse)) == []


def test_a_run_that_fails_in_dbt_and_its_tracebacks_hold_no_secret(company: Company, tmp_path: Path) -> None:
    humble = Warehouse(tmp_path, company.login("test_web").url())  # may read a little: dbt fails in its middle
    with dagster_instance(tmp_path) as instance, pytest.raises(HeedError) as failure:
        run_job("refresh_scores", company.end, settings=company.settings, warehouse=humble, instance=instance)
    assert PLANTED not in f"{failure.value} {failure.value.__cause__!r}"
    assert list(tmp_path.rglob("*.log"))
    assert list(places_below(tmp_path, DBT_PROJECT)) == []


UNUSABLE = {
    "nobody listens": f"postgresql://heed:{PASSWORD}@127.0.0.1:1/alerts",
    "no such host": f"postgresql://heed:{PASSWORD}@no-such-host.invalid/alerts",
    "a line instead of a URL": f"host=127.0.0.1 port=1 user=heed password={PLANTED} dbname=alerts",
    "a broken escape": f"postgresql://heed:{PLANTED}%zz@127.0.0.1/alerts",
    "a port that is none": f"postgresql://heed:{PLANTED}@127.0.0.1:port/alerts",
    "brackets": f"postgresql://heed:{PLANTED}[x@[::1/alerts",
    "an unknown parameter": f"postgresql://heed@127.0.0.1/alerts?pass={PLANTED}",
    "no address at all": f"{PLANTED}",
    "another protocol": f"mysql://heed:{PLANTED}@127.0.0.1/alerts",
    "no text": f"postgresql://heed:{PLANTED}\udcff@127.0.0.1:1/alerts",
}
COMMANDS = [
    *(["init"], ["run"], ["summary"], ["report"], ["champion"], ["doctor"], ["up"], ["serve", "--port", "0"], ["demo"]),
    ["rollback", "--who", "Ann", "--why", "because"],
    ["load", "--alerts", "alerts.csv"],
    ["replay", "--from", "2025-01-01", "--to", "2025-02-01", "--out", "scores.parquet"],
]


@pytest.mark.parametrize("address", UNUSABLE, ids=str)
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_an_unusable_address_is_one_line_without_the_secret(
    command: list[str], address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alerts.csv").write_text("alert_id,raised_at,rule\na,2025-01-01T00:00:00Z,r\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setitem(os.environ, "HEED_DATABASE_URL", UNUSABLE[address])
    done = CliRunner().invoke(main, command)
    assert PLANTED not in done.output
    assert PLANTED not in repr(done.exception)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit), repr(done.exception)
    said = [line for line in done.output.splitlines() if line.startswith(("heed: ", "ERROR ", " WARN "))]
    assert said, done.output
    assert list(places_below(tmp_path)) == []


SERVER_SAID = (
    'connection to server at "db.example.com" (10.0.0.1), port 5432 failed: FATAL: password authentication failed for '
    'user "heed"'
)


@pytest.mark.parametrize("password", ["a", "e", "password", "heed", "failed", "5432", "authentication"])
def test_a_short_password_is_not_shown_by_its_mask(password: str, tmp_path: Path) -> None:
    """Masking it wherever its letters stand would spell it out."""
    warehouse = Warehouse(tmp_path, f"postgresql://heed:{password}@db.example.com/alerts")
    said = str(warehouse.unreachable(SERVER_SAID))
    assert "***" not in said
    assert said == str(Warehouse(tmp_path, "postgresql://heed:other-1@db.example.com/alerts").unreachable(SERVER_SAID))


@pytest.mark.parametrize("password", ["a", "password", "planted-Zq7x", "planted%2FZq7x"])
def test_an_address_that_a_driver_quotes_is_masked(password: str, tmp_path: Path) -> None:
    url = f"postgresql://heed:{password}@db.example.com/alerts"
    warehouse = Warehouse(tmp_path, url)
    for quoted in (url, f"heed:{password}@db.example.com", f"user=heed password={password} host=db.example.com"):
        said = str(warehouse.unreachable(f"cannot use {quoted}"))
        assert f":{password}@" not in said
        assert f"password={password}" not in said
    assert "planted" not in str(Warehouse(tmp_path, url).unreachable(f"who is {unquote(password)}?"))
