"""The rooms import each other in one direction only, and every module says what belongs in it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PACKAGE = PROJECT / "dagster_project"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Lower rooms never import higher ones. `simulator`, `errors` and `settings` are below everything but `triage`'s purity.
LEVEL = {
    "errors": 0,
    "logs": 0,
    "guard": 1,
    "listening": 1,
    "private": 1,
    "triage": 1,
    "simulator": 1,
    "reporting": 1,
    "settings": 2,
    "resources": 3,
    "loading": 4,
    "instance": 4,
    "checks": 4,
    "assets": 5,
    "pruning": 5,
    "automation": 6,
    "definitions": 7,
    "running": 8,
    "replaying": 8,
    "summary": 8,
    "report": 8,
    "champion": 8,
    "autoclosing": 8,
    "serving": 8,
    "dagster_ui": 8,
    "doctor": 9,  # what `heed serve` calls stale, it calls stale
    "demo": 9,
    "warming": 9,
    "cli": 10,
}
FORBIDDEN_IN_TRIAGE = {"dagster", "dagster_dbt", "great_expectations", "adbc_driver_postgresql", "psycopg2", "pyarrow"}


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.level:
                base = path.relative_to(PROJECT).with_suffix("").parts[: -node.level]
                found.add(".".join((*base, node.module)))
            else:
                found.add(node.module)
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports_of(path):
        if not name.startswith("dagster_project."):
            continue
        other = name.split(".")[1]
        assert LEVEL[other] <= LEVEL[room], f"{room} imports {other}"
        if other != room:
            assert LEVEL[other] < LEVEL[room] or {room, other} <= {"running", "replaying", "summary"}, (
                f"{room} imports {other}, which stands beside it"
            )


@pytest.mark.parametrize("path", sorted((PACKAGE / "triage").rglob("*.py")), ids=lambda path: path.name)
def test_the_domain_is_pure(path: Path) -> None:
    for name in imports_of(path):
        assert name.split(".")[0] not in FORBIDDEN_IN_TRIAGE, f"{path.name} imports {name}"
        assert not name.startswith("dagster_project.") or name.split(".")[1] in ("triage", "errors")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_belongs_in_it(path: Path) -> None:
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert said, f"{path} has no docstring"
    if path.name != "__init__.py":
        assert "Belongs here:" in said, f"{path} does not say what belongs in it"


def test_the_command_answers_without_loading_the_stack() -> None:
    """`heed --help` is for a person who waits: nothing heavy is imported for it."""
    heavy = "pandas", "dagster", "lightgbm", "great_expectations", "dbt", "numba"
    code = f"import sys, dagster_project.cli; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"
