"""Rooms import each other in one direction, files never in a circle, and every module says what belongs in it."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import PROJECT

PACKAGE = PROJECT / "dagster_project"
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))

# Lower rooms never import higher ones.
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
    "delivery": 4,
    "instance": 4,
    "checks": 4,
    "assets": 5,
    "automation": 6,
    "definitions": 7,
    "serving": 8,
    "commands": 9,
    "cli": 10,
}
# A reader finds a module in a folder of a dozen, and reads one of 450 lines in a sitting.
MOST_MODULES = 12
MOST_LINES = 450
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
        assert other == room or LEVEL[other] < LEVEL[room], f"{room} imports {other}, which is on the same level"


def module_of(path: Path) -> str:
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules() -> dict[str, set[str]]:
    """Which modules of the package each module imports, imports inside functions included."""
    modules = {module_of(path) for path in MODULES}
    imports: dict[str, set[str]] = {}
    for path in MODULES:
        own, names = module_of(path), set[str]()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    names.add(submodule if submodule in modules else node.module)
        imports[own] = (names & modules) - {own}
    return imports


def test_no_import_circle_between_files() -> None:
    with_own = imported_modules()
    assert sum(map(len, with_own.values())) > 300  # the imports were found
    try:
        list(TopologicalSorter(with_own).static_order())
    except CycleError as error:
        raise AssertionError("these modules import each other: " + " -> ".join(error.args[1])) from error


@pytest.mark.parametrize("folder", sorted({path.parent for path in MODULES}), ids=lambda path: path.name)
def test_a_folder_holds_no_more_than_a_dozen_modules(folder: Path) -> None:
    assert len(list(folder.glob("*.py"))) <= MOST_MODULES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_long_module_says_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if text.count("\n") > MOST_LINES:
        assert "Long because" in (ast.get_docstring(ast.parse(text)) or ""), f"{path} has more than {MOST_LINES} lines"


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
