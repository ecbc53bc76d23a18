"""The code map leads to the code: every file that it links to defines what the link names.

Belongs here: links from the README to the code. Does not belong here: links between pages (`test_docs.py`).
"""

import ast
import re
from pathlib import Path

import pytest

from dagster_project.settings import PROJECT

PAGE = PROJECT / "docs" / "code-map.md"
ROWS = re.findall(r"^\| (.+\?) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
NAMED = [
    (name, (PAGE.parent / path).resolve())
    for _, answer in ROWS
    for name, path in re.findall(r"\[`([\w.]+)`\]\(([^)#]+)\)", answer)
]

# What a stranger asks first: from the README to the code in at most three steps (README, code map, code).
QUESTIONS = (
    "Where is a flood suspected?",
    "Where is a probability calibrated?",
    "Where do I add a history statistic?",
    "What writes `scoring.alert_scores`?",
    "Which SQL decides an outcome?",
    "Where is the holdout drawn?",
    "How does a feature file become invalid?",
    "Where does the board get its rows?",
    "Where is the run lock taken?",
    "Why only PostgreSQL?",
)


def defined_in(path: Path) -> set[str]:
    """What a file defines: functions, classes, methods, constants; macros of dbt; and the table that it is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return {path.stem, *re.findall(r"{%-? macro (\w+)\(", text)}
    names = set()
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize(("name", "path"), NAMED, ids=lambda value: getattr(value, "name", value))
def test_the_file_defines_what_the_link_names(name: str, path: Path) -> None:
    assert path.is_file(), f"{path} does not exist"
    assert name in defined_in(path), f"{path.relative_to(PROJECT)} does not define {name}"


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_readme_answers_in_three_steps(question: str) -> None:
    assert "](docs/code-map.md)" in (PROJECT / "README.md").read_text(encoding="utf-8")
    [answer] = [answer for asked, answer in ROWS if asked == question]
    assert re.search(r"\]\([^)]+\)", answer), f"the answer to {question!r} has no link"


def test_every_question_is_answered_with_a_link() -> None:
    assert len(ROWS) > 30
    assert [asked for asked, answer in ROWS if "](" not in answer] == []
