"""The worked examples of docs/extending.md work: their edits fit the code, and their checks hold.

Belongs here: applying the page to a copy of the project and running what it says. Does not belong here: what the parts
that it extends do (`tests/triage`, `tests/expectations`, `tests/dbt`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from dbt.cli.main import dbtRunner

from dagster_project.resources.dbt.project import dbt_environment, dbt_vars
from dagster_project.resources.expectations import suites, validation
from dagster_project.settings import PROJECT
from tests.conftest import Company
from tests.docs.test_docs import Block, blocks_of

PAGE = PROJECT / "docs" / "extending.md"
MODEL = "open_alerts_per_rule"
EDIT = re.compile(r"--- (\S+)\n(.*)", flags=re.DOTALL)
APPEND = re.compile(r"(?:#|--) append to (\S+)\n(.*)", flags=re.DOTALL)

# Compiling the loops takes 10 s of processor time, and running them as plain Python on three rows takes none.
RUN_LOOPS_AS_PYTHON = """
import dagster_project.triage.compiled as compiled
compiled.compiled = lambda signature: lambda loop: loop
import dagster_project.triage.features.history.kernels as kernels
kernels._fetch_for_writing = lambda array, position: None
"""


def sections() -> dict[str, list[Block]]:
    """The blocks of the page by the heading above them."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    by_heading: dict[str, list[Block]] = {}
    for block in blocks_of(PAGE):
        heading = next(line for line in reversed(lines[: block.line]) if line.startswith("## "))
        by_heading.setdefault(heading.removeprefix("## "), []).append(block)
    return by_heading


SECTIONS = sections()


def edit(project: Path, block: Block) -> bool:
    """Apply a block that edits a file; False where it is none."""
    if (found := EDIT.match(block.text)) and block.language == "diff":
        path, lines = project / found[1], found[2].splitlines()
        before = "\n".join(line[1:] for line in lines if line[:1] in (" ", "-")) + "\n"
        after = "\n".join(line[1:] for line in lines if line[:1] in (" ", "+")) + "\n"
        text = path.read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{block.name}: {found[1]} has {text.count(before)} such places"
        path.write_text(text.replace(before, after), encoding="utf-8")
        return True
    if found := APPEND.match(block.text):
        with (project / found[1]).open("a", encoding="utf-8") as file:
            file.write(found[2] + "\n")
        return True
    return False


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with every edit of the page."""
    copy = tmp_path_factory.mktemp("extended")
    for room in ("dagster_project", "expectations", "dbt_project"):
        # With Python's compiled modules: the times of files are copied, so those of unchanged files are valid.
        shutil.copytree(PROJECT / room, copy / room, ignore=shutil.ignore_patterns("*.nbi", "*.nbc", "target", "logs"))
    for name in ("pyproject.toml", "heed.toml"):
        shutil.copy(PROJECT / name, copy)
    for blocks in SECTIONS.values():
        for block in blocks:
            if not edit(copy, block) and block.language == "toml":
                (copy / "example.toml").write_text(block.text, encoding="utf-8")
    return copy


def test_the_page_has_its_six_examples() -> None:
    wanted = [
        "A history statistic",
        "A raise-time feature",
        "A history key",
        "An expectation",
        "A dbt model",
        "A baseline",
    ]
    assert list(SECTIONS) == wanted
    checked = [any(b.language == "python" and not APPEND.match(b.text) for b in blocks) for blocks in SECTIONS.values()]
    assert checked == [True, True, True, True, False, True]  # the dbt model is checked below, on a warehouse


def checks_of(*headings: str) -> list[Block]:
    """The blocks that are run, of the sections with these headings."""
    blocks = [block for heading in headings for block in SECTIONS[heading]]
    return [block for block in blocks if block.language == "python" and not APPEND.match(block.text)]


def test_the_examples_hold(extended: Path) -> None:
    """The checks in one process, each in a scope of its own, on the extended copy."""
    checks = checks_of("A history statistic", "A raise-time feature", "A history key", "A baseline")
    program = RUN_LOOPS_AS_PYTHON + "".join(
        f"\nprint({block.name!r})\ndef check():\n{textwrap.indent(block.text, '    ')}\ncheck()\n" for block in checks
    )
    environment = {**os.environ, "PYTHONPATH": str(extended), "HEED_SETTINGS": str(extended / "example.toml")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=extended, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"after {done.stdout}\n{done.stderr}"
    assert done.stdout.split() == [block.name for block in checks]


@pytest.fixture
def extended_expectations(extended: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The suites and the plugins of the extended copy. In this process: importing Great Expectations takes 12 s of
    processor time, and it is here already where other tests ran before."""

    def forget() -> None:
        for cached in vars(suites).values():
            if hasattr(cached, "cache_clear"):
                cached.cache_clear()
        for name in [name for name in sys.modules if name.partition(".")[0] == validation.PLUGINS]:
            del sys.modules[name]

    monkeypatch.setattr(suites, "PROJECT", extended / "expectations")
    monkeypatch.setattr(validation, "PROJECT", extended / "expectations")
    forget()
    yield
    forget()  # what comes next registers the project's own again


def test_the_expectation_holds(extended_expectations: None) -> None:
    [check] = checks_of("An expectation")
    exec(compile(check.text, check.name, "exec"), {})


def test_the_dbt_model_answers(extended: Path, company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """dbt compiles the model, and its query has the columns and types of its contract."""
    target = extended / "target"
    target.mkdir()
    for parsed in (company.home / "dbt").glob("partial_parse.msgpack"):  # saves half of dbt's time
        shutil.copy(parsed, target)
    for name, value in dbt_environment(company.warehouse, company.end).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DBT_LOG_PATH", str(target))
    project = str(extended / "dbt_project")
    places = ["--project-dir", project, "--profiles-dir", project, "--target-path", str(target)]
    variables = ["--vars", json.dumps(dbt_vars(company.settings))]
    before = os.getcwd()
    try:
        result = dbtRunner().invoke(["--quiet", "compile", "--select", MODEL, *places, *variables])
    finally:
        os.chdir(before)
    assert result.success, result.exception
    [compiled] = (target / "compiled").rglob(f"{MODEL}.sql")
    rows = company.login("test_analyst").read(compiled.read_text(encoding="utf-8"))
    reporting = (extended / "dbt_project" / "models" / "reporting" / "_reporting.yml").read_text(encoding="utf-8")
    [contract] = [model for model in yaml.safe_load(reporting)["models"] if model["name"] == MODEL]
    assert list(rows.columns) == [column["name"] for column in contract["columns"]]
    assert len(rows) > 5
    assert rows["open_alerts"].sum() > 100
