"""Content that nobody vetted stays content: nothing in it is executed, and it cannot leave its line, cell or page.

Its way through HTML is tested in `tests/serving`, through files in `tests/loading`, through dbt in `tests/dbt`;
`make fuzz` tries 100,000 inputs of each kind.
"""

import ast
import io
import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.fuzz import OTHER, SETTING, files, load, other_input, set_up
from dagster_project.commands.replay import without_formulas
from dagster_project.errors import HeedError, one_line
from dagster_project.settings import PROJECT

MODULES = sorted((PROJECT / "dagster_project").rglob("*.py")) + sorted((PROJECT / "expectations").rglob("*.py"))
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load"}
FORBIDDEN_METHODS = {"read_pickle", "from_string", "query", "eval"}  # of pandas and Jinja: they run text
OURS = {"chosen.query"}  # the board's own


def test_nothing_that_heed_reads_is_ever_executed() -> None:
    """Models are LightGBM's text and JSON, suites are JSON, settings are TOML; no module could run any of them."""
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path}: {name}" for name in names if name.split(".")[0] in FORBIDDEN_IMPORTS]
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                is_method = isinstance(node.func, ast.Attribute) and node.func.attr in FORBIDDEN_METHODS
                shell = [word for word in node.keywords if word.arg in ("shell", "allow_pickle")]
                if called not in OURS and (called in FORBIDDEN_CALLS or is_method or shell):
                    found.append(f"{path}:{node.lineno}: {called}")
    assert found == []
    for suite in (PROJECT / "expectations" / "suites").rglob("*.json"):
        assert "row_condition" not in json.dumps(json.loads(suite.read_text())), "pandas would evaluate it"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nheed: all is well", "a heed: all is well"),
        ("a\r\nb\tc\u2028d", "a b c d"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),
        ("half \ud800", r"half \ud800"),
        ("Prüfung äöü 警報 \xa0 é", "Prüfung äöü 警報 \xa0 é"),
    ],
)
def test_text_cannot_begin_a_line_or_steer_a_terminal(text: str, line: str) -> None:
    assert one_line(text) == line
    assert str(HeedError(text, "see there")) == f"{line}. See there."


def test_the_summary_shows_names_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_project.commands import summary

    out = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **options: Console(file=out, width=200, highlight=False))
    flood = {"day": "2025-05-01", "scope_kind": "rule", "scope": "[red]\x1b[31mname", "volume": 1, "expected": 1.0}
    summary.show(
        {
            "loaded": [],
            "stale_sources": [],
            "rejected": [],
            "fact_changes": [],
            "reopened": 0,
            "action_types": [],
            "not_known_at_raise": [],
            "floods": [{**flood, "status": "confirmed", "evidence": "[link=file:///etc]why\nnot"}],
            "cleared": 0,
            "visibility_only": [],
            "champion": None,
            "evaluation": [],
            "open_alerts": 0,
            "most_worth_attention": [],
        }
    )
    assert r"rule [red]\x1b[31mname" in out.getvalue()
    assert "[link=file:///etc]why not" in out.getvalue()


def test_a_csv_file_holds_no_formula() -> None:
    texts = ["=HYPERLINK('x')", "+1+1", "@SUM(A1)", "-cmd", "\t=1", "-12.5", "+3", "plain", "a=b", "é", None]
    made = without_formulas(pd.DataFrame({"alert_id": texts, "probability": range(len(texts))}))
    wanted = ["'=HYPERLINK('x')", "'+1+1", "'@SUM(A1)", "'-cmd", "'\t=1", "-12.5", "+3", "plain", "a=b", "é", None]
    assert [None if pd.isna(text) else text for text in made["alert_id"]] == wanted
    assert list(made["probability"]) == list(range(len(texts)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


@settings(max_examples=250)
@given(made=files())
def test_generated_files_are_read_or_refused_and_no_row_is_lost(folder: Path, made: tuple[str, str, bytes]) -> None:
    load(folder, *made)


@settings(max_examples=250)
@given(made=st.one_of(SETTING, OTHER))
def test_generated_settings_are_taken_as_written_or_refused(folder: Path, made: bytes | tuple[str, str]) -> None:
    if isinstance(made, bytes):
        set_up(folder, made)
    else:
        other_input(folder, *made)


def test_values_that_the_generators_found(folder: Path) -> None:
    """Each was once a traceback, or was lost or changed without a word."""
    for text in (b"x = " + b"[" * 3000, b"[gate]\nminimum_skill = false\n", b"[outcome]\nhorizon_days = '14'\n"):
        assert set_up(folder, text) == "refused"
    lines = [b'{"rule": "heed001word", "team": "heed002word", "team": ""}', b'{"rule": "", " rule ": "heed003word"}']
    assert load(folder, "rules", "export.jsonl", b"\n".join([b'{"rule": "a", "team": "b"}', *lines])) == "some rejected"
    other_input(folder, "address", "postgresql://\ud7fc")
