"""What removes rows asks the warehouse that holds them, and nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.cli import main
from dagster_project.commands import demo
from dagster_project.errors import HeedError
from dagster_project.instance import dagster_instance
from dagster_project.loading import load_file
from dagster_project.resources.retention import prune
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.resources.warehouse.migrations import own_tables
from dagster_project.resources.warehouse.reset import holds_nothing, reset_demo, simulated_company
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings

pytestmark = pytest.mark.slow

COMPANY = {"alerts": 3, "days": 1, "seed": 0, "end": "2025-06-01T00:00:00+00:00"}
OTHER = "scoring.alert_scores"

# PostgreSQL itself writes down what removes rows, whoever sends it and however: each row, and each TRUNCATE.
WITNESS = """
CREATE TABLE public.removed (name text, row jsonb);
CREATE FUNCTION public.witness() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.removed
    VALUES (TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME, CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) END);
    RETURN OLD;
END $$;
"""


def rows_file(folder: Path, kind: str, ids: list[str]) -> Path:
    path = folder / f"{kind}-{'-'.join(ids)}.csv"
    if kind == "alerts":
        lines = ["alert_id,raised_at,rule", *(f"{each},2025-05-31T10:00:00Z,disk full" for each in ids)]
    else:
        lines = [
            "action_id,alert_id,acted_at,action_type",
            *(f"x{each},{each},2025-05-31T11:00:00Z,fixed" for each in ids),
        ]
    path.write_text("\n".join(lines) + "\n")
    return path


def do(warehouse: Warehouse, *statements: str) -> None:
    connection = psycopg2.connect(warehouse.url())
    with connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def count(warehouse: Warehouse, table: str) -> int:
    return int(warehouse.value(f"SELECT count(*) FROM {table}"))


def counts(warehouse: Warehouse) -> dict[str, int]:
    """The rows of each of heed's own tables, by one question: a connection for each would take longer than the rest."""
    each = (f"SELECT '{name}' AS name, count(*) AS rows FROM {name}" for name in own_tables())
    return dict(warehouse.read(" UNION ALL ".join(each)).itertuples(index=False))


FEEDBACK = "INSERT INTO scoring.feedback (alert_id, model_version, verdict) VALUES ('a1', 'v', 'wrong')"
CLOSING = (
    "INSERT INTO scoring.autoclose_events (rule, event, who, why, as_of) "
    "VALUES ('disk full', 'never', 'Ada', 'a reason', now())"
)


@pytest.fixture
def real(warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    """Real rows, with what people said about them, seen from a home in which `heed demo` once ran."""
    for kind in ("alerts", "actions"):
        load_file(kind, rows_file(tmp_path, kind, ["a1", "a2"]), warehouse.connect)
    do(warehouse, FEEDBACK, CLOSING)
    (tmp_path / "demo.json").write_text(json.dumps({**COMPANY, "done": True}))
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, warehouse.url())
    return warehouse


def test_a_load_from_a_home_of_the_demo_leaves_real_rows(real: Warehouse, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["load", "--alerts", str(rows_file(tmp_path, "alerts", ["a3"]))])
    assert outcome.exit_code == 0, outcome.output
    assert count(real, "raw.alerts") == 3
    assert count(real, "scoring.feedback") == count(real, "scoring.autoclose_events") == 1


def test_another_demo_from_a_home_of_the_demo_leaves_real_rows(real: Warehouse) -> None:
    outcome = CliRunner().invoke(main, ["demo", "--seed", "5", "--alerts", "300", "--days", "30"])
    assert outcome.exit_code == 1
    assert "holds rows of your own" in outcome.output
    assert count(real, "raw.alerts") == count(real, "raw.actions") == 2
    assert count(real, "scoring.feedback") == count(real, "scoring.autoclose_events") == 1


def simulate(warehouse: Warehouse, folder: Path) -> None:
    for kind in ("alerts", "actions"):
        load_file(kind, rows_file(folder, kind, ["s1", "s2"]), warehouse.connect, simulation=COMPANY)


def test_a_simulated_company_makes_way_whatever_the_home_says(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate(warehouse, tmp_path)
    do(warehouse, FEEDBACK.replace("a1", "s1"), "CREATE TABLE raw.of_somebody AS SELECT 1 AS one")
    assert simulated_company(warehouse) == COMPANY
    monkeypatch.setenv("HEED_HOME", str(tmp_path / "another home"))
    monkeypatch.setenv(URL_VARIABLE, warehouse.url())
    outcome = CliRunner().invoke(main, ["load", "--alerts", str(rows_file(tmp_path, "alerts", ["a1"]))])
    assert outcome.exit_code == 0, outcome.output
    assert warehouse.read("SELECT alert_id FROM raw.alerts")["alert_id"].tolist() == ["a1"]
    assert count(warehouse, "scoring.feedback") == count(warehouse, "raw.actions") == 0
    assert count(warehouse, "raw.of_somebody") == 1


OWN_ROWS = (
    ("raw.alerts", "(alert_id, raised_at, rule) VALUES ('own', '2025-05-01', 'r')", "rows in raw.alerts"),
    ("raw.actions", "(action_id, load_id) VALUES ('own', 99)", "rows in raw.actions"),
    ("raw.loads", "(load_id, kind, file, sha256) VALUES (99, 'alerts', 'own.csv', 'x')", "1 loads"),
    ("scoring.feedback", "(alert_id, model_version, verdict) VALUES ('own', 'v', 'wrong')", "about other alerts"),
)


def test_one_row_of_ones_own_keeps_everything(warehouse: Warehouse, tmp_path: Path) -> None:
    simulate(warehouse, tmp_path)
    for table, row, named in OWN_ROWS:
        do(warehouse, f"INSERT INTO {table} {row}")
        before = counts(warehouse)
        with pytest.raises(HeedError, match=named):
            reset_demo(warehouse)
        with pytest.raises(HeedError, match="simulated company"):
            load_file("alerts", rows_file(tmp_path, "alerts", ["a7"]), warehouse.connect)
        assert counts(warehouse) == before
        do(warehouse, f"DELETE FROM {table} AS t WHERE to_jsonb(t)::text ~ '\"own|own.csv|: 99'")
    reset_demo(warehouse)
    assert holds_nothing(warehouse)


def test_simulated_rows_do_not_join_real_ones(real: Warehouse, tmp_path: Path) -> None:
    with pytest.raises(HeedError, match="rows of your own"):
        simulate(real, tmp_path)
    assert count(real, "raw.alerts") == 2


def test_tables_of_others_are_not_taken_for_heeds(new_database: Callable[[], str], tmp_path: Path) -> None:
    """A company's own dbt builds schemas of the same names: what heed would replace is refused before it is touched."""
    other = Warehouse(tmp_path, new_database())
    do(other, "CREATE SCHEMA staging; CREATE TABLE staging.stg_alerts AS SELECT 'mine' AS alert_id")
    with pytest.raises(HeedError, match=r"staging\.stg_alerts, which heed did not create"):
        prepare(other)
    assert count(other, "staging.stg_alerts") == 1
    assert other.value("SELECT to_regnamespace('scoring') IS NULL")


OPERATIONS = st.lists(
    st.sampled_from(["load", "load again", "load simulated", "demo", "empty", "prune", "own row", "feedback"]),
    min_size=2,
    max_size=8,
)


@pytest.fixture(scope="module")
def watched(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    made = Warehouse(tmp_path_factory.mktemp("watched"), new_database())
    prepare(made)
    do(made, WITNESS)
    for name in own_tables():
        for when in ("DELETE ON {} FOR EACH ROW", "TRUNCATE ON {} FOR EACH STATEMENT"):
            word = when.split()[0].lower()
            do(
                made,
                f"CREATE TRIGGER witness_{word} BEFORE {when.format(name)} EXECUTE FUNCTION public.witness()",
            )
    return made


@settings(max_examples=8)
@given(OPERATIONS)
def test_nothing_removes_rows_where_the_warehouse_does_not_allow_it(watched: Warehouse, operations: list[str]) -> None:
    """Any sequence of loads, demos and prunes: what PostgreSQL saw removed was simulated, or superseded by policy."""
    home = watched.home
    now = datetime.now(UTC)
    do(watched, f"TRUNCATE {', '.join(own_tables())}", "TRUNCATE public.removed")
    (home / "demo.json").write_text(json.dumps(COMPANY))  # what an older heed believed
    with pytest.MonkeyPatch.context() as patch, dagster_instance(home) as instance:
        patch.setenv("HEED_HOME", str(home))
        patch.setenv(URL_VARIABLE, watched.url())
        patch.setattr(demo, "run_whole_job", _stop)
        patch.setattr(demo, "prepare_dbt", lambda *_: None)  # a process that would wait for the job
        for number, operation in enumerate(operations):
            real = bool(
                watched.value(
                    "SELECT EXISTS (SELECT FROM raw.loads WHERE simulation IS NULL) "
                    "OR EXISTS (SELECT FROM raw.alerts WHERE load_id IS NULL)"
                )
            )
            path = rows_file(home, "alerts", ["a1" if operation == "load again" else f"n{number}"])
            do(watched, "TRUNCATE public.removed")
            if operation in ("load", "load again"):
                CliRunner().invoke(main, ["load", "--alerts", str(path)])
            elif operation == "demo":
                CliRunner().invoke(main, ["demo", "--seed", str(number), "--alerts", "40", "--days", "10"])
            elif operation == "load simulated":
                _try(lambda path=path: load_file("alerts", path, watched.connect, simulation=COMPANY))
            elif operation == "empty":
                _try(lambda: reset_demo(watched))
            elif operation == "prune":
                prune(watched, Settings(), instance, now=now)
            elif operation == "own row":
                do(watched, f"INSERT INTO raw.alerts (alert_id, raised_at, rule) VALUES ('o{number}', '2025', 'r')")
            else:
                do(watched, FEEDBACK, *_scores(f"f{number}", now))
            removed = watched.read("SELECT name, row::text AS row FROM public.removed")
            if real:
                assert set(removed["name"]) <= {OTHER}, (
                    f"{operation} removed {set(removed['name'])} of a real warehouse"
                )
            if operation not in ("prune",):
                assert not real or removed.empty, operation
            for text in removed.loc[removed["name"] == OTHER, "row"].dropna():
                assert json.loads(text)["probability"] == 0.5, "neither the first nor the newest score of an alert goes"


def _scores(alert: str, now: datetime) -> list[str]:
    """The first, a superseded and the newest score of an alert, all of them older than any policy keeps."""
    return [
        f"INSERT INTO scoring.alert_scores VALUES ('{alert}', '2020-01-01', '{now - timedelta(days=age)}', now(), 'w', "
        f"{probability}, 'model', false, false, '[]')"
        for age, probability in ((1500, 0.1), (1400, 0.5), (1300, 0.9))
    ]


def _stop(*_: object, **__: object) -> None:
    raise HeedError("no job is run here", "none")


def _try(attempt: Callable[[], object]) -> None:
    with suppress(HeedError):
        attempt()


def test_an_empty_warehouse_is_told_from_one_with_work(warehouse: Warehouse) -> None:
    assert holds_nothing(warehouse)
    do(warehouse, CLOSING)
    assert not holds_nothing(warehouse)
