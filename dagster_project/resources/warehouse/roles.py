"""Who may do what in the warehouse: five roles, each with only the rights that its work needs.

Belongs here: the roles, their rights as data, creating and granting them (`heed init`), and finding missing ones.
Does not belong here: logins and passwords (the server's owner creates them), the tables (`schema.sql`, dbt).

The roles cannot log in. A process logs in as a member of the roles whose work it does: `heed run` cleans, learns and
scores, so its login is in heed_transformer and heed_scorer. Roles belong to a whole server, rights to one database.

dbt's tables belong to heed_transformer under any login: dbt takes on that role (`role` in profiles.yml), so that a new
login can replace what an old one built. dbt itself grants the readers of what it builds, in the transaction that puts
a table or view in place (`grants` in dbt_project.yml); a test checks that both lists are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dagster_project.resources.warehouse.connection import Warehouse, quoted
from dagster_project.resources.warehouse.role_names import TRANSFORMER

if TYPE_CHECKING:
    from psycopg2.extensions import cursor as Cursor

    from dagster_project.settings import Settings

LOADER, SCORER = "heed_loader", "heed_scorer"
ANALYST, SERVER = "heed_analyst", "heed_server"

WORK = {
    LOADER: "loads files (`heed load`)",
    TRANSFORMER: "cleans and publishes (dbt)",
    SCORER: "flags, learns and scores (`heed run`, with heed_transformer)",
    ANALYST: "reads results and evidence (SQL, `heed report`, `heed summary`)",
    SERVER: "serves scores and takes feedback (`heed serve`)",
}
BUILT_BY_DBT = ("staging", "marts", "reporting")


@dataclass(frozen=True)
class Right:
    """What a role may do with tables of a schema, in addition to USAGE of the schema.

    tables : empty: all of them except those in `but`.
    """

    role: str
    schema: str
    privileges: tuple[str, ...]
    tables: tuple[str, ...] = ()
    but: tuple[str, ...] = ()


_READ = ("SELECT",)
_ADD = ("SELECT", "INSERT")
# About closing the service may do one thing: undo it. The function runs with the rights of its owner.
UNDO = "scoring.undo_closing(text, text, text)"
# With the salt one can predict which alerts are held out; only scoring draws.
_SALT = ("holdout_salt",)
_EVIDENCE = ("model_evaluations", "reliability", "workload_curves", "audit_findings", "team_scorecards")

RIGHTS: tuple[Right, ...] = (
    # Loading compares with existing rows, adds, and closes its own entry in raw.loads; a pull keeps its position.
    # It changes no rows and deletes nothing.
    Right(LOADER, "raw", _ADD),
    Right(LOADER, "raw", ("UPDATE",), ("loads", "pulls")),
    Right(TRANSFORMER, "raw", _READ),
    Right(TRANSFORMER, "quality", _READ),
    Right(TRANSFORMER, "training", _READ),
    Right(TRANSFORMER, "scoring", _READ, but=_SALT),
    Right(SCORER, "raw", _READ, ("loads", "undecodable_rows")),
    Right(SCORER, "marts", _READ),
    Right(SCORER, "reporting", _READ),
    Right(SCORER, "quality", _READ),
    # Each run replaces the flags; overrides belong to people, and heed only reads them.
    Right(
        SCORER,
        "quality",
        ("INSERT", "DELETE"),
        ("flood_days", "visibility_only_rules", "flagged_alerts", "daily_volume_band", "checked_rows"),
    ),
    Right(SCORER, "training", _ADD),
    # Evidence is replaced when a version is judged again at the same as-of; versions and decisions are not.
    Right(SCORER, "training", ("DELETE",), _EVIDENCE),
    Right(SCORER, "scoring", _ADD, but=("feedback",)),
    Right(SCORER, "scoring", _READ, ("feedback",)),
    # How the sending of a message went, and the newest change of an alert.
    Right(SCORER, "scoring", ("UPDATE",), ("deliveries", "alert_changes")),
    Right(ANALYST, "raw", _READ, ("loads", "undecodable_rows")),
    Right(ANALYST, "marts", _READ),
    Right(ANALYST, "quality", _READ),
    Right(ANALYST, "training", _READ),
    Right(ANALYST, "scoring", _READ, but=_SALT),
    Right(ANALYST, "reporting", _READ),
    Right(SERVER, "marts", _READ, ("alerts", "alert_outcomes", "rules", "load_reconciliation")),
    Right(SERVER, "reporting", _READ),
    Right(SERVER, "training", _READ, ("model_versions", "team_scorecards")),
    Right(SERVER, "scoring", _READ, but=_SALT),
    Right(SERVER, "scoring", ("INSERT",), ("feedback",)),
)


def create_roles(cursor: Cursor, settings: Settings) -> list[str]:
    """Create missing roles, and grant what each one needs. Safe to run again.

    What dbt built before is handed over to heed_transformer.

    Returns: Statements left to the owner: grants on the user's own tables that this login may not make.
    """
    for role in WORK:
        cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,))
        if cursor.fetchone() is None:
            cursor.execute(f"CREATE ROLE {role} NOLOGIN")
    cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
    [is_superuser] = cursor.fetchone() or [False]
    if not is_superuser:  # only a member may hand over to a role
        cursor.execute(f"GRANT {TRANSFORMER} TO CURRENT_USER")
    for schema in BUILT_BY_DBT:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        cursor.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {TRANSFORMER}")
    _hand_over(cursor)
    grant(cursor)
    return _grant_own_tables(cursor, settings)


def grant(cursor: Cursor) -> None:
    """Grant every right on existing tables. What dbt has yet to build, dbt grants when it builds it."""
    database = _identifier(cursor, "SELECT current_database()")
    # Loading and bulk writing use temporary tables. Servers often revoke that right from PUBLIC.
    cursor.execute(f"GRANT TEMPORARY ON DATABASE {database} TO {LOADER}, {TRANSFORMER}, {SCORER}")
    for schema, role in sorted({(right.schema, right.role) for right in RIGHTS}):
        cursor.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
    for right in RIGHTS:
        tables = [quoted(right.schema, name) for name in _tables(cursor, right)]
        if tables:
            cursor.execute(f"GRANT {', '.join(right.privileges)} ON {', '.join(tables)} TO {right.role}")
    cursor.execute(f"GRANT EXECUTE ON FUNCTION {UNDO} TO {SERVER}")


def missing_rights(warehouse: Warehouse) -> Iterator[str]:
    """What each role lacks, one sentence per right; nothing if `heed init` was never run."""
    if not warehouse.has_roles():
        return
    text = lambda names: "ARRAY[" + ", ".join(f"'{name}'" for name in names) + "]::text[]"  # noqa: E731
    wanted = ", ".join(
        f"('{right.role}', '{right.schema}', '{privilege}', {text(right.tables)}, {text(right.but)})"
        for right in RIGHTS
        for privilege in right.privileges
    )
    lacking = warehouse.read_arrow(
        f"""SELECT role, privilege, schema, relname::text AS name
            FROM (VALUES {wanted}) AS wanted (role, schema, privilege, tables, but)
            JOIN pg_class ON relnamespace = to_regnamespace(schema) AND relkind IN ('r', 'p', 'v', 'm')
            WHERE (relname = ANY(tables) OR tables = '{{}}') AND relname <> ALL(but)
              AND NOT (has_schema_privilege(role, relnamespace, 'USAGE')
                       AND has_table_privilege(role, pg_class.oid, privilege))
            ORDER BY 1, 3, 4, 2"""
    )
    for row in lacking.to_pylist():
        yield f"{row['role']} lacks {row['privilege']} on {row['schema']}.{row['name']}"
    # Not by `to_regprocedure`, which fails in a schema that the login may not use.
    undo = (
        "SELECT has_function_privilege($1, pg_proc.oid, 'EXECUTE') FROM pg_proc "
        "JOIN pg_namespace AS space ON space.oid = pronamespace WHERE nspname || '.' || proname = $2"
    )
    if warehouse.value(undo, (SERVER, UNDO.partition("(")[0])) is False:
        yield f"{SERVER} lacks EXECUTE on {UNDO}"


def _tables(cursor: Cursor, right: Right) -> list[str]:
    cursor.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%s) AND relkind IN ('r', 'p', 'v', 'm') "
        "ORDER BY 1",
        (right.schema,),
    )
    existing = [name for (name,) in cursor.fetchall()]
    return [name for name in existing if (name in right.tables if right.tables else name not in right.but)]


def _hand_over(cursor: Cursor) -> None:
    """Make heed_transformer the owner of what dbt built under another login; dbt could not replace it otherwise."""
    cursor.execute(
        "SELECT format('ALTER %%s %%I.%%I OWNER TO %%I', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN "
        "'MATERIALIZED VIEW' ELSE 'TABLE' END, nspname, relname, %(role)s) FROM pg_class "
        "JOIN pg_namespace AS space ON space.oid = relnamespace WHERE nspname = ANY(%(schemas)s) "
        "AND relkind IN ('r', 'p', 'v', 'm') AND relowner <> %(role)s::regrole UNION ALL "
        "SELECT format('ALTER ROUTINE %%s OWNER TO %%I', pg_proc.oid::regprocedure, %(role)s) FROM pg_proc "
        "JOIN pg_namespace AS space ON space.oid = pronamespace WHERE nspname = ANY(%(schemas)s) "
        "AND proowner <> %(role)s::regrole",
        {"role": TRANSFORMER, "schemas": list(BUILT_BY_DBT)},
    )
    for (statement,) in cursor.fetchall():
        cursor.execute(statement)


def _grant_own_tables(cursor: Cursor, settings: Settings) -> list[str]:
    """Let dbt read the user's own tables. Returns the statements that their owner has to run."""
    from psycopg2 import errors

    source, undone = settings.source, []
    if source.database_schema == "raw":
        return []
    names = [source.alerts, source.actions, source.rules, "action_types"]
    wanted = [f"USAGE ON SCHEMA {quoted(source.database_schema)}"]
    for name in names:
        place = quoted(source.database_schema, name)
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (place,))
        if (cursor.fetchone() or [False])[0]:
            wanted.append(f"SELECT ON {place}")
    for right in wanted:
        cursor.execute("SAVEPOINT own")
        try:
            cursor.execute(f"GRANT {right} TO {TRANSFORMER}")
        except (errors.InsufficientPrivilege, errors.InvalidSchemaName):
            cursor.execute("ROLLBACK TO own")
            undone.append(f"GRANT {right} TO {TRANSFORMER}")
    return undone


def _identifier(cursor: Cursor, query: str) -> str:
    cursor.execute(query)
    [name] = cursor.fetchone() or [""]
    return quoted(name)
