"""Each role tries everything on every table of a warehouse whose whole job ran under such roles.

What is allowed stands here once more, by hand, so that a right that slips into the code shows.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
import pytest
import yaml
from click.testing import CliRunner
from psycopg2 import errors

from dagster_project.cli import main
from dagster_project.errors import HeedError
from dagster_project.resources.dbt.project import DBT_PROJECT
from dagster_project.resources.warehouse.migrations import schema_version
from dagster_project.resources.warehouse.roles import RIGHTS, WORK, missing_rights
from dagster_project.resources.warehouse.schema import initialise, prepare
from dagster_project.settings import Settings
from tests.conftest import LOGINS, Company

FOUND = ("flood_days", "visibility_only_rules", "flagged_alerts", "daily_volume_band", "checked_rows")
CHANGED = ("deliveries", "alert_changes")
JUDGED = ("model_evaluations", "reliability", "workload_curves", "audit_findings", "team_scorecards")


def allowed(role: str, schema: str, table: str) -> set[str]:
    """The statements that docs/operations.md promises."""
    read, add = {"SELECT"}, {"SELECT", "INSERT"}
    if role == "heed_loader":
        return (add | ({"UPDATE"} if table in ("loads", "pulls") else set())) if schema == "raw" else set()
    if role == "heed_transformer":
        if schema in ("staging", "marts", "reporting"):
            return {"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "DROP"}
        return set() if table == "holdout_salt" else read
    if role == "heed_scorer":
        return {
            "raw": read if table in ("loads", "undecodable_rows") else set(),
            "staging": set(),
            "marts": read,
            "reporting": read,
            "quality": add | {"DELETE"} if table in FOUND else read,
            "training": add | {"DELETE"} if table in JUDGED else add,
            "scoring": read if table == "feedback" else add | {"UPDATE"} if table in CHANGED else add,
        }[schema]
    if role == "heed_analyst":
        if schema == "raw":
            return read if table in ("loads", "undecodable_rows") else set()
        return set() if schema == "staging" or table == "holdout_salt" else read
    if schema == "scoring":
        return add if table == "feedback" else set() if table == "holdout_salt" else read
    if schema == "reporting":
        return read
    own = {
        "marts": ("alerts", "alert_outcomes", "rules", "load_reconciliation"),
        "training": ("model_versions", "team_scorecards"),
    }
    return read if table in own.get(schema, ()) else set()


# Each statement asks for its right, and changes nothing where it has it: no row fits.
STATEMENTS = {
    "SELECT": "SELECT * FROM {table} LIMIT 0",
    "INSERT": "INSERT INTO {table} SELECT (jsonb_populate_record(NULL::{table}, '{{}}')).* WHERE false",
    "UPDATE": "UPDATE {table} SET {column} = NULL WHERE false",
    "DELETE": "DELETE FROM {table} WHERE false",
    "TRUNCATE": "TRUNCATE {table}",
    "DROP": "DROP TABLE {table} CASCADE",
}


@contextmanager
def owner(company: Company) -> Iterator[Any]:
    """A cursor of the owner's, whose changes are undone."""
    connection = psycopg2.connect(company.warehouse.url())
    with connection.cursor() as cursor:
        yield cursor
    connection.rollback()
    connection.close()


def refused(cursor: Any, statement: str) -> bool:
    """Whether the right to a statement is missing; what it did is undone."""
    cursor.execute("SAVEPOINT attempt")
    try:
        cursor.execute(statement)
    except errors.InsufficientPrivilege:
        return True
    except psycopg2.Error:  # it got beyond rights: a view takes no rows
        return False
    finally:
        cursor.execute("ROLLBACK TO attempt")
    return False


def test_each_role_may_do_its_own_work_and_nothing_else(company: Company) -> None:
    wrong = []
    with owner(company) as cursor:
        cursor.execute(
            "SELECT schemaname, relname, relkind, attname FROM pg_class "
            "JOIN pg_namespace AS space ON space.oid = relnamespace "
            "JOIN (SELECT nspname AS schemaname FROM pg_namespace) AS named ON schemaname = nspname "
            "JOIN pg_attribute ON attrelid = pg_class.oid AND attnum = 1 "
            "WHERE nspname = ANY(%s) AND relkind IN ('r', 'v') ORDER BY 1, 2",
            (["raw", "staging", "marts", "quality", "training", "scoring", "reporting"],),
        )
        tables = cursor.fetchall()
        assert len(tables) > 35
        for role in WORK:
            cursor.execute(f"SET LOCAL ROLE {role}")
            for schema, name, kind, column in tables:
                for what, statement in STATEMENTS.items():
                    if kind == "v" and what != "SELECT":
                        continue
                    denied = refused(cursor, statement.format(table=f'{schema}."{name}"', column=f'"{column}"'))
                    if denied == (what in allowed(role, schema, name)):
                        wrong.append(f"{role} {'may not' if denied else 'may'} {what} {schema}.{name}")
            cursor.execute("RESET ROLE")
    assert wrong == []


def test_only_the_service_takes_back_a_closing_and_it_enables_none(company: Company) -> None:
    with owner(company) as cursor:
        undo = "SELECT scoring.undo_closing('an alert', 'Ada', 'a test')"
        columns = "(rule, event, who, why, as_of) VALUES ('r', 'allowed', 'a', 'b', now())"
        enable = f"INSERT INTO scoring.autoclose_events {columns}"
        for role in WORK:
            cursor.execute(f"SET LOCAL ROLE {role}")
            assert refused(cursor, undo) == (role != "heed_server"), role
            assert refused(cursor, enable) == (role != "heed_scorer"), role
            cursor.execute("RESET ROLE")


@pytest.mark.parametrize("role", WORK)
def test_no_role_reaches_beyond_its_schemas(company: Company, role: str) -> None:
    beyond = [
        "CREATE SCHEMA another",
        "CREATE ROLE another",
        f"ALTER ROLE {role} SUPERUSER",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY (SELECT 1) TO '/tmp/heed-role-test'",
        "SELECT pg_read_file('/etc/hostname')",
        "SELECT * FROM pg_authid",
        "DROP SCHEMA scoring CASCADE",
        "ALTER TABLE scoring.alert_scores DROP COLUMN reasons",
        "CREATE INDEX ON scoring.alert_scores (as_of)",
        *(f"CREATE TABLE {schema}.another (a int)" for schema in ("raw", "quality", "training", "scoring")),
    ]
    if role != "heed_transformer":
        beyond += [
            *(f"CREATE TABLE {schema}.another (a int)" for schema in ("staging", "marts", "reporting")),
            "CREATE OR REPLACE FUNCTION staging.read_double(value text) RETURNS float8 LANGUAGE sql AS 'SELECT 1.0'",
            "DROP VIEW reporting.alert_scores_latest CASCADE",
            "SET ROLE heed_transformer",
        ]
    with owner(company) as cursor:
        cursor.execute(f"SET LOCAL SESSION AUTHORIZATION {role}")
        assert [statement for statement in beyond if not refused(cursor, statement)] == []


def test_the_job_ran_with_no_more_than_its_roles(company: Company) -> None:
    """The company of the tests was loaded and run by logins that have these roles and nothing else."""
    with owner(company) as cursor:
        cursor.execute(
            "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles "
            "WHERE rolname = ANY(%s)",
            ([*LOGINS, *WORK],),
        )
        powers = dict(cursor.fetchall())
        assert set(powers) == {*LOGINS, *WORK}
        assert not any(powers.values())
        cursor.execute(
            "SELECT DISTINCT nspname, relowner::regrole::text FROM pg_class "
            "JOIN pg_namespace AS space ON space.oid = relnamespace WHERE nspname IN ('staging', 'marts', 'reporting')"
        )
        assert {who for _, who in cursor.fetchall()} == {"heed_transformer"}
        cursor.execute("SELECT count(*) FROM scoring.alert_scores")
        assert cursor.fetchone()[0] > 100


def test_init_again_changes_nothing_and_doctor_names_what_is_missing(
    company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = "SELECT string_agg(concat_ws(' ', oid, relowner, relacl), ';' ORDER BY oid) FROM pg_class"
    before = company.warehouse.value(rights)
    assert initialise(company.warehouse, Settings()) == []
    assert company.warehouse.value(rights) == before
    assert list(missing_rights(company.warehouse)) == []
    with company.warehouse.transaction() as cursor:
        cursor.execute("REVOKE INSERT ON scoring.alert_scores FROM heed_scorer")
    try:
        assert list(missing_rights(company.warehouse)) == ["heed_scorer lacks INSERT on scoring.alert_scores"]
        monkeypatch.setenv("HEED_DATABASE_URL", company.login("test_job").url())
        monkeypatch.setenv("HEED_HOME", str(company.home))
        done = CliRunner().invoke(main, ["doctor", "--json"])
        [found] = [each for each in json.loads(done.output) if each["what"] == "rights"]
        assert (found["status"], found["found"]) == ("wrong", "heed_scorer lacks INSERT on scoring.alert_scores")
        assert "heed init" in found["remedy"]
    finally:
        assert initialise(company.warehouse, Settings()) == []
    done = CliRunner().invoke(main, ["doctor", "--json"])
    [found] = [each for each in json.loads(done.output) if each["what"] == "rights"]
    assert found["found"] == "this login has heed_scorer, heed_transformer; no role lacks a right"


def test_a_login_without_the_right_is_told_what_to_do(company: Company) -> None:
    with pytest.raises(HeedError, match="heed init"):
        initialise(company.login("test_web"), Settings())
    prepare(company.login("test_web"))  # the tables stand, made by this version: nothing to do
    with company.warehouse.transaction() as cursor:
        another = re.sub("schema.sql .*", "schema.sql of another text", schema_version()).replace("'", "''")
        cursor.execute(f"COMMENT ON SCHEMA scoring IS '{another}'")
    try:
        with pytest.raises(HeedError, match="another version"):
            prepare(company.login("test_web"))
    finally:
        prepare(company.warehouse)


@pytest.mark.parametrize(("login", "command"), [("test_analyst", "report"), ("test_analyst", "summary")])
def test_readers_can_read_with_their_role(
    company: Company, login: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("HEED_DATABASE_URL", company.login(login).url())
    monkeypatch.setenv("HEED_HOME", str(company.home))
    arguments = [command, "--json", *(["--out", str(tmp_path / "report.html")] if command == "report" else [])]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    json.loads(done.output)


def test_dbt_grants_what_the_roles_say() -> None:
    """Readers of what dbt builds stand in dbt_project.yml; both lists are one."""
    models = yaml.safe_load((DBT_PROJECT / "dbt_project.yml").read_text())["models"]["heed"]
    assert "+grants" not in models["staging"]
    for schema in ("marts", "reporting"):
        everywhere = set(models[schema]["+grants"]["select"])
        assert everywhere == {right.role for right in RIGHTS if right.schema == schema and not right.tables}
        named = {name: set(part["+grants"]["select"]) for name, part in models[schema].items() if name[0] != "+"}
        some = [right for right in RIGHTS if right.schema == schema and right.tables]
        assert named == {name: everywhere | {right.role for right in some} for right in some for name in right.tables}


def test_a_warehouse_without_roles_works_as_before(warehouse: Any) -> None:
    assert not warehouse.has_roles()
    assert warehouse.dbt_environment()["HEED_PG_ROLE"] == ""
    assert list(missing_rights(warehouse)) == []


def test_init_says_how_to_make_logins(warehouse: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("HEED_DATABASE_URL", warehouse.url())
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["init"])
    assert done.exit_code == 0, done.output
    assert "IN ROLE heed_loader, heed_transformer, heed_scorer;" in done.output
    assert warehouse.has_roles()
    assert warehouse.dbt_environment()["HEED_PG_ROLE"] == "heed_transformer"
