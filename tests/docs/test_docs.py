"""The pages are true: their SQL runs, their links lead somewhere, and what they name exists.

Belongs here: checks of README, CONTRIBUTING, CHANGELOG and `docs/` against the code. Does not belong here: wording.
"""

import json
import re
import shlex
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
import yaml

from dagster_project.cli import main
from dagster_project.resources.dbt.project import write_docs
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.migrations import SCHEMA_FILE
from dagster_project.settings import PROJECT, Settings
from tests.conftest import Company

DOCS = PROJECT / "docs"
PAGES = [*(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.glob("*.md"))]
MODELS = PROJECT / "dbt_project" / "models"


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the line of its fence, its language, and its text without indentation."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks_of(page: Path) -> Iterator[Block]:
    fence, inside, at = None, [], 0
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        opened = re.match(r"( *)```(\w*)$", line)
        if fence is None and opened:
            fence, inside, at = opened, [], number
        elif fence is not None and line == f"{fence[1]}```":
            yield Block(page, at, fence[2], "\n".join(inside))
            fence = None
        elif fence is not None:
            inside.append(line.removeprefix(fence[1]))
    assert fence is None, f"{page.name}:{at} is never closed"


def prose_of(page: Path) -> str:
    """The page with its fenced blocks blanked out."""
    return re.sub(r"^( *)```.*?^\1```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SQL = [block for block in BLOCKS if block.language == "sql"]


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = re.findall(r"^#{1,6} (.+)$", prose_of(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


def known_tables() -> set[str]:
    """Every schema.table that heed or dbt makes."""
    made = set(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+\.\w+)", SCHEMA_FILE.read_text(encoding="utf-8")))
    return made | {f"{path.parent.name}.{path.stem}" for path in MODELS.rglob("*.sql")}


@pytest.mark.parametrize("block", SQL, ids=lambda block: block.name)
def test_every_query_runs(block: Block, company: Company) -> None:
    found = company.login("test_analyst").read(block.text.strip().removesuffix(";"))
    assert len(found.columns) > 0


@pytest.mark.parametrize(
    "heading",
    ["1. Which open", "2. Which version", "3. Is it better", "4. How good", "6. For which teams", "10. Which rules"],
)
def test_questions_that_always_have_an_answer_get_one(heading: str, scored_company: Warehouse) -> None:
    """A query may run and say nothing because a name in it is wrong: these may not be empty after a whole job."""
    page = DOCS / "analysts.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    at = next(number for number, line in enumerate(lines, start=1) if line.startswith(f"### {heading}"))
    block = next(block for block in SQL if block.page == page and block.line > at)
    assert len(scored_company.read(block.text)) > 0


def test_one_command_describes_every_table(company: Company, tmp_path: Path) -> None:
    write_docs(company.warehouse, Settings(), company.end, tmp_path / "tables.html")
    text = (tmp_path / "tables.html").read_text(encoding="utf-8")
    assert all(f'"name": "{path.stem}"' in text or f'"name":"{path.stem}"' in text for path in MODELS.rglob("*.sql"))
    described = yaml.safe_load((MODELS / "reporting" / "_reporting.yml").read_text(encoding="utf-8"))["models"]
    assert all(json.dumps(model["description"])[1:-1] in text for model in described)
    assert not list((company.warehouse.home / "dbt").glob("*/manifest.json")), "it leaves nothing behind"


def test_analysts_have_ten_questions_with_one_query_each() -> None:
    page = DOCS / "analysts.md"
    parts = re.split(r"^### ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert [int(part.split(".")[0]) for part in parts] == list(range(1, 11))
    assert all(part.count("```sql\n") == 1 for part in parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{page.name} links to {target}, which does not exist"
        assert to.is_relative_to(PROJECT), f"{page.name} links out of the project: {target}"
        if anchor:
            assert anchor in anchors_of(to), f"{page.name} links to {target}, and there is no such heading"


def test_every_page_is_reached_from_the_readme() -> None:
    linked = set(re.findall(r"\]\((docs/[\w-]+\.md)", prose_of(PROJECT / "README.md")))
    assert linked == {f"docs/{path.name}" for path in DOCS.glob("*.md")}


def documented_settings() -> dict[str, str]:
    page = (DOCS / "data-engineer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.\w+)` \| `([^`]+)` \| ([^|]*) \| ([^|]+) \|$", page, flags=re.MULTILINE)
    assert all(meaning.strip() for *_, meaning in rows)
    return {name: default for name, default, *_ in rows}


def test_every_setting_is_documented_with_its_default() -> None:
    wanted = {
        f"{section}.{name}": json.loads(json.dumps(value))
        for section, values in Settings().model_dump().items()
        for name, value in values.items()
    }
    assert {name: tomllib.loads(f"x = {text}")["x"] for name, text in documented_settings().items()} == wanted


def commands_in(block: Block) -> Iterator[list[str]]:
    for line in re.sub(r"\\\n", " ", block.text).splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a quotation over several lines: a program of its own
            continue
        while words and re.match(r"\w+=", words[0]):
            words.pop(0)
        if words:
            yield words


COMMANDS = [words for block in BLOCKS if block.language == "sh" for words in commands_in(block)]


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "heed"], ids=" ".join)
def test_commands_and_their_options_exist(words: list[str]) -> None:
    if words[1].startswith("-"):
        assert words[1] in ("--help", "--version")
        return
    command = main.commands.get(words[1])
    assert command is not None, f"there is no command heed {words[1]}"
    if isinstance(command, click.Group):
        command = command.commands.get(words[2])
        assert command is not None, f"there is no command heed {words[1]} {words[2]}"
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    assert {word for word in words if word.startswith("--")} <= known
    required = {option.opts[0] for option in command.params if isinstance(option, click.Option) and option.required}
    assert required <= set(words)


def test_commands_in_the_text_exist() -> None:
    planned = set(re.findall(r"`heed (\w+)`", (PROJECT / "README.md").read_text().split("## Not yet")[1]))
    assert planned.isdisjoint(main.commands), "what the README calls planned is there: move it"
    for page in PAGES:
        for name in re.findall(r"`heed (\w[\w-]*)", prose_of(page)):
            assert name in main.commands or (page.name == "README.md" and name in planned), f"{page.name}: heed {name}"


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = {words[1] for words in COMMANDS if words[0] == "make" and len(words) > 1}
    named |= {name for page in PAGES for name in re.findall(r"`make ([\w-]+)", prose_of(page))}
    assert {"demo", "test", "up"} <= named <= targets


def test_tables_that_the_pages_name_exist() -> None:
    known = known_tables()
    schemas = "|".join(sorted({table.split(".")[0] for table in known}))
    named = {
        (page.name, table)
        for page in PAGES
        for table in re.findall(rf"(?<![\w/.])((?:{schemas})\.[a-z_]+)\b", page.read_text(encoding="utf-8"))
        if not table.endswith(".py")
    }
    assert len(named) > 20
    assert {(page, table) for page, table in named if table not in known} == set()


def test_the_alert_ui_page_describes_every_column_of_its_view() -> None:
    contract = yaml.safe_load((MODELS / "reporting" / "_reporting.yml").read_text(encoding="utf-8"))
    view = next(model for model in contract["models"] if model["name"] == "alert_scores_latest")
    page = (DOCS / "alert-ui.md").read_text(encoding="utf-8")
    table = page.split("## Columns")[1].split("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]+`) \|", table, flags=re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)} == {
        column["name"] for column in view["columns"]
    }


def test_reporting_views_are_all_introduced_to_analysts() -> None:
    page = (DOCS / "analysts.md").read_text(encoding="utf-8")
    for stage in ("reporting", "marts"):
        for path in (MODELS / stage).glob("*.sql"):
            assert f"| `{stage}.{path.stem}` |" in page


def test_the_picture_is_small_self_contained_and_names_real_tables() -> None:
    file = DOCS / "lineage.svg"
    assert file.stat().st_size < 20_000
    root = ElementTree.parse(file).getroot()
    assert not [key for element in root.iter() for key in element.attrib if key.endswith("href")]
    names = {name.split(".")[1] for name in known_tables()}
    in_files = {
        "alert_features",
        "training_set",
        "candidate_model",
        "model_evaluation",
        "model_audit",
        "champion_model",
    }
    jobs = {"refresh_scores"}
    shown = {
        word
        for element in root.iter("{http://www.w3.org/2000/svg}text")
        for word in re.findall(r"[a-z]+(?:_[a-z]+)+", element.text or "")
    }
    assert len(shown) > 20
    assert shown <= names | in_files | jobs
