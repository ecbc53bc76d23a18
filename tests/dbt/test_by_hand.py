"""dbt as its users start it: the commands of `dbt_project/README.md`, and what they leave in the database."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from dagster_project.resources.dbt.project import DBT_PROJECT
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.embedded import embedded_url, stop_server
from dagster_project.resources.warehouse.migrations import tables_of_dbt
from dagster_project.resources.warehouse.schema import prepare
from tests.conftest import PROJECT

pytestmark = pytest.mark.slow

BUILT = """
SELECT nspname || '.' || relname AS name, attname AS column, col_description(pg_class.oid, attnum) AS description
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace JOIN pg_attribute ON attrelid = pg_class.oid
WHERE nspname || '.' || relname = ANY($1) AND attnum > 0 AND NOT attisdropped
"""


@pytest.fixture(scope="module")
def built(open_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warehouse]:
    """An embedded warehouse on which the documented commands ran."""
    home = open_directory / "by hand"
    home.mkdir()
    warehouse = Warehouse(home, embedded_url(home))
    prepare(warehouse)
    [block] = re.findall(r"```sh\n(.*?)```", (DBT_PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    target = str(tmp_path_factory.mktemp("target"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HEED_", "DBT_"))}
    environment |= {
        "HEED_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "DBT_TARGET_PATH": target,  # else they write into the project
        "DBT_LOG_PATH": target,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }
    done = subprocess.run(
        ["bash", "-ec", block], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "All checks passed" in done.stdout
    assert (Path(target) / "catalog.json").exists()
    yield warehouse
    stop_server(home)


def test_the_documented_commands_build_every_table_with_a_comment_on_every_column(built: Warehouse) -> None:
    columns = built.read(BUILT, (tables_of_dbt(),))
    assert set(columns["name"]) == set(tables_of_dbt())
    bare = columns[columns["description"].isna()]
    assert bare.empty, bare.to_string()


def test_intermediate_models_keep_names_that_the_guard_of_foreign_tables_knows() -> None:
    assert {"staging.stg_spellings", "staging.changed_alerts", "staging.duplicate_rows"} <= set(tables_of_dbt())


@pytest.mark.parametrize("layer", ["staging", "intermediate", "marts", "reporting"])
def test_every_model_is_described(layer: str) -> None:
    folder = DBT_PROJECT / "models" / layer
    models = yaml.safe_load((folder / f"_{layer}.yml").read_text(encoding="utf-8"))["models"]
    assert {model["name"] for model in models} == {path.stem for path in folder.glob("*.sql")}
    assert all(model["description"] and all(column["description"] for column in model["columns"]) for model in models)


@pytest.mark.parametrize("path", sorted((DBT_PROJECT / "models").rglob("*.sql")), ids=lambda path: path.stem)
def test_refs_that_parsing_may_not_see_are_hinted(path: Path) -> None:
    """A ref inside a branch that only some runs take is a dependency of every run."""
    text = path.read_text(encoding="utf-8")
    hinted = set(re.findall(r"-- depends_on: \{\{ ref\('(\w+)'\) \}\}", text))
    in_branches = re.findall(r"\{%-? if (?:only_new|run_reads_new).*?\{%-? (?:else|endif)", text, re.DOTALL)
    outside = text
    for branch in in_branches:
        outside = outside.replace(branch, "")
    always = set(re.findall(r"ref\('(\w+)'\)", outside))
    assert set(re.findall(r"ref\('(\w+)'\)", " ".join(in_branches))) <= hinted | always
