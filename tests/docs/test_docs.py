"""The pages are true: their SQL runs, their links lead somewhere, their tables are whole, and what they name exists.

Belongs here: checks of README, CONTRIBUTING, CHANGELOG and `docs/` against the code. Does not belong here: wording, the
code map (`test_code_map.py`), the worked examples (`test_extending.py`).
"""

import json
import os
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
from dagster_project.loading.presets import preset_names
from dagster_project.resources.dbt.project import write_docs
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.migrations import SCHEMA_FILE
from dagster_project.settings import PROJECT, Settings
from tests.conftest import Company

DOCS = PROJECT / "docs"
PAGES = [*(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.glob("*.md"))]
MODELS = PROJECT / "dbt_project" / "models"
# Every page that people read, those beside code, examples and deployments included.
ALL_PAGES = sorted(
    {
        *PAGES,
        *(
            p
            for room in ("benchmarks", "deploy", "examples", "dagster_project")
            for p in (PROJECT / room).rglob("*.md")
        ),
    }
)
SOURCES = sorted(p for room in ("dagster_project", "expectations") for p in (PROJECT / room).rglob("*.py"))
SOURCES += sorted((PROJECT / "dbt_project").rglob("*.sql"))


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


def test_every_measurement_is_listed() -> None:
    listed = re.findall(r"\]\(\.\./benchmarks/([\w-]+\.md)\)", prose_of(DOCS / "measurements.md"))
    assert sorted(listed) == sorted(path.name for path in (PROJECT / "benchmarks").glob("*.md"))


def test_figures_in_the_readme_are_those_of_their_pages() -> None:
    section = prose_of(PROJECT / "README.md").split("## Measured")[1].split("\n## ")[0]
    rows = re.findall(r"^\| .+ \| (.+) \| \[\w+\]\((benchmarks/\w+\.md)\) \|$", section, flags=re.MULTILINE)
    assert len(rows) >= 5
    for figures, page in rows:
        text = (PROJECT / page).read_text(encoding="utf-8")
        for figure in re.findall(r"\d+ of \d+|\d+(?:\.\d+)?%?", figures):
            assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]\d)", text), f"{page} does not say {figure}"


Table = list[tuple[int, list[str]]]


def cells_of(row: str) -> list[str]:
    """The cells of a row, as GitHub cuts them: at each `|` that is not escaped."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row.strip())[1:-1]]


def tables_of(page: Path) -> Iterator[tuple[Table, str]]:
    """Each table (line numbers and cells, the header first), and the line right after it."""
    blanked = re.sub(
        r"^( *)```.*?^\1```$",
        lambda block: "\n" * block[0].count("\n"),
        page.read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    )
    table: Table = []
    for number, line in enumerate([*blanked.splitlines(), ""], start=1):
        if line.lstrip().startswith("|"):
            table.append((number, cells_of(line)))
        elif table:
            yield table, line
            table = []


TABLES = [(page, table, after) for page in ALL_PAGES for table, after in tables_of(page)]


def faults_of(table: Table, after: str) -> list[str]:
    """What keeps a table from being read as it was meant."""
    (first, header), *rows = table
    faults = [] if rows and all(re.fullmatch(r":?-+:?", cell) for cell in rows[0][1]) else [f"line {first}: no rule"]
    faults += [f"line {n}: {len(row)} cells, not {len(header)}" for n, row in rows if len(row) != len(header)]
    faults += [f"line {n}: an empty row" for n, row in rows if not any(row)]
    if after.strip():
        faults.append(f"line {rows[-1][0] + 1 if rows else first + 1}: text right after the table")
    names = [row[0] for _, row in rows if re.fullmatch(r"`[\w.]+`", row[0] if row else "")]
    faults += [f"{name} has two rows" for name in sorted(set(names)) if names.count(name) > 1]
    return faults


def test_tables_are_whole() -> None:
    assert len(TABLES) > 60
    faults = {
        f"{page.relative_to(PROJECT)}, {fault}" for page, table, after in TABLES for fault in faults_of(table, after)
    }
    assert faults == set()


@pytest.mark.parametrize(
    ("lines", "after", "fault"),
    [
        (["| job | does |", "|---|---|", "| `a` | b | `x.y` | 0 |"], "", "4 cells, not 2"),
        (["| job | does |", "|---|---|", "| `a` |"], "", "1 cells, not 2"),
        (["| job | does |", "| `a` | b |"], "", "no rule"),
        (["| job | does |", "|---|---|", "| `a` | b |"], "## A heading", "text right after the table"),
        (["| job | does |", "|---|---|", "| `a` | b |", "| `a` | c |"], "", "`a` has two rows"),
    ],
)
def test_a_broken_table_is_seen(lines: list[str], after: str, fault: str) -> None:
    table = [(number, cells_of(line)) for number, line in enumerate(lines, start=1)]
    assert any(fault in each for each in faults_of(table, after))


def test_a_setting_has_its_row_in_the_table_of_settings_only() -> None:
    settings = {f"`{section}.{name}`" for section, values in Settings().model_dump().items() for name in values}
    headers = {
        (page.name, tuple(table[0][1])) for page, table, _ in TABLES for _, row in table if row and row[0] in settings
    }
    assert headers == {("data-engineer.md", ("setting", "default", "limits", "meaning"))}


def files_of_the_project() -> set[str]:
    """Every file, by its path in the project; without environments, caches and the home."""
    files = set()
    for folder, below, names in os.walk(PROJECT):
        below[:] = [name for name in below if not name.startswith((".", "__")) and name not in ("target", "logs")]
        files |= {os.path.relpath(os.path.join(folder, name), PROJECT) for name in names}
    return files


FILES = files_of_the_project()
FILE = r"[\w./-]*\w\.(?:py|sql|md|json|toml|yml|yaml|j2)"
ROOMS = "benchmarks|dagster_project|dbt_project|deploy|docs|examples|expectations|scripts|tests|triage"
# Files of the reader, and of other tools: the project does not hold them.
OTHERS = {"0002_what_it_does.sql", "mapping.toml", "deploy/kubernetes/heed.toml"}


def claims_about_files(text: str) -> set[str]:
    """Paths that a text names: in backticks, or beginning with a room of the project."""
    return {*re.findall(rf"`({FILE})`", text), *re.findall(rf"(?<![\w./-])((?:{ROOMS})/{FILE})", text)}


def is_there(name: str) -> bool:
    return bool({name, Path(name).name} & OTHERS) or any(f == name or f.endswith(f"/{name}") for f in FILES)


@pytest.mark.parametrize("room", ["pages", "sources"])
def test_files_that_texts_name_exist(room: str) -> None:
    texts = {
        p: prose_of(p) if room == "pages" else p.read_text(encoding="utf-8")
        for p in (ALL_PAGES if room == "pages" else SOURCES)
    }
    named = {
        (str(path.relative_to(PROJECT)), name) for path, text in texts.items() for name in claims_about_files(text)
    }
    assert len(named) > 50
    assert {(path, name) for path, name in named if not is_there(name.removeprefix("../"))} == set()


def test_nothing_is_said_to_be_missing_that_may_have_been_built_since() -> None:
    """What is planned stands in one place, the README's "Not yet"; elsewhere it would go stale unseen."""
    stale = re.compile(
        r"\b(?:is|are)\s+not\s+(?:yet\s+)?(?:built|implemented)\s*[.;]|\b(?:is|are)\s+not\s+(?:there|built)\s+yet\b"
    )
    pages = {path: prose_of(path).split("## Not yet")[0] for path in PAGES if path.name != "CHANGELOG.md"}
    sources = {path: path.read_text(encoding="utf-8") for path in SOURCES}
    assert {(p.name, hit) for p, text in (pages | sources).items() for hit in stale.findall(text)} == set()


def test_tests_that_the_pages_name_exist() -> None:
    known = {
        name
        for path in (PROJECT / "tests").rglob("*.py")
        for name in (path.stem, *re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
    }
    named = {(p.name, name) for p in PAGES for name in re.findall(r"`(test_\w+)(?:\.\.\.)?`", prose_of(p))}
    assert len(named) > 50
    assert {(page, name) for page, name in named if not any(each.startswith(name) for each in known)} == set()


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


def test_the_minutes_of_each_preset_are_those_that_were_measured() -> None:
    page = (PROJECT / "benchmarks" / "connect.md").read_text(encoding="utf-8")
    measured = dict(re.findall(r"^\| `([\w-]+)` \|.* \| ([\d.]+) \| [\d.]+ \|$", page, flags=re.MULTILINE))
    table = (DOCS / "connect.md").read_text(encoding="utf-8")
    quoted = dict(re.findall(r"^\| `([\w-]+)` \|.* \| ([\d.]+|–) \|$", table, flags=re.MULTILINE))
    assert measured
    assert quoted == {name: measured.get(name, "–") for name in preset_names()}
