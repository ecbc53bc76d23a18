"""No figure without a source: what the report and the board show is what the queries of docs/analysts.md say.

Belongs here: following the pages' numbers back. Does not belong here: whether a number is right (`tests/triage`).
"""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extras import RealDictCursor

from dagster_project.commands.report import read_evidence, write_report
from dagster_project.resources.stores.scores import read_workload
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.board.board import read_snapshot
from dagster_project.serving.board.filter import Filter, select_page
from dagster_project.settings import PROJECT, Settings
from dagster_project.triage.evaluation.workload import at_threshold
from tests.conftest import Company

SECTION = "## Where the numbers of the report and the board come from\n"
NUMBER = re.compile(r"−?\d[\d,]*(?:\.\d+)?%?")
WITH_INTERVAL = re.compile(rf"({NUMBER.pattern})\s+\[?({NUMBER.pattern})(?: to |, )({NUMBER.pattern})\]?")
# Not figures: moments, and the names of versions and contracts.
NAMES = re.compile(
    r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d UTC)?|\d\d:\d\d UTC|\b(?:\w+-\d{8}T\w+-)?(?:[0-9a-f]{4})?[0-9a-f]{12}\b"
)


def queries() -> list[str]:
    page = (PROJECT / "docs" / "analysts.md").read_text(encoding="utf-8")
    section = page.partition(SECTION)[2].partition("\n## ")[0]
    return re.findall(r"```sql\n(.*?)```", section, flags=re.DOTALL)


class Cells(HTMLParser):
    """The texts of the cells of all tables."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "td":
            self.inside = True
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.texts[-1] += f" {data}"


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, str) and value[:1] in ("{", "["):
        value = json.loads(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif value is not None and value == value:
        yield value


FORMATS: list[tuple[float, int, str]] = [(1, digits, "") for digits in range(5)] + [(100, 0, "%"), (100, 1, "%")]


def spell(value: float, scale: float, digits: int, unit: str) -> str:
    rounded = round(scale * value, digits) + 0.0  # no minus sign before a zero
    return f"{rounded:,.{digits}f}{unit}".replace("-", "−")


def spellings(value: Any) -> set[str]:
    """How a page may write a value; the numbers of a text are what they are."""
    if isinstance(value, str):
        return set(NUMBER.findall(NAMES.sub(" ", value)))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return set()
    return {spell(value, *how) for how in FORMATS}


def measured(row: dict[str, Any]) -> Iterator[tuple[float, float, float]]:
    """(value, low, high) of a row, and of what stands in its documents."""
    for name, value in row.items():
        document = json.loads(value) if isinstance(value, str) and value[:1] == "{" else value
        if isinstance(document, dict):
            yield from measured(document)
        low, high = (row.get(f"{name}_{end}", row.get(end)) for end in ("low", "high"))
        if all(isinstance(each, (int, float)) for each in (value, low, high)):
            yield value, low, high


def found(warehouse: Warehouse) -> Iterator[dict[str, Any]]:
    """Every row of every query."""
    for query in queries():
        for row in warehouse.read_arrow(query).to_pylist():
            yield {name: float(v) if isinstance(v, Decimal) else v for name, v in row.items()}


def test_every_number_in_the_tables_of_the_report_has_a_source(company: Company, tmp_path: Path) -> None:
    write_report(read_evidence(company.warehouse, Settings()), tmp_path / "report.html")
    cells = Cells()
    cells.feed(re.sub(r"<svg.*?</svg>", "", (tmp_path / "report.html").read_text(encoding="utf-8"), flags=re.DOTALL))
    rows = list(found(company.warehouse))
    known = {text for row in rows for value in leaves(row) for text in spellings(value)}
    texts = [NAMES.sub(" ", text) for text in cells.texts]
    assert not [(token, text) for text in texts for token in NUMBER.findall(text) if token not in known]
    # A value stands with its own interval, not with another's.
    together = {tuple(spell(end, *how) for end in ends) for row in rows for ends in measured(row) for how in FORMATS}
    shown = [match.groups() for text in texts if (match := WITH_INTERVAL.fullmatch(text.strip()))]
    assert len(shown) > 150
    assert not [ends for ends in shown if ends not in together]


def test_every_figure_beside_the_slider_has_a_source(company: Company) -> None:
    threshold = 10  # that of the page's query
    connection = psycopg2.connect(company.warehouse.url())
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        snapshot = read_snapshot(cursor)
    connection.close()
    board = select_page(snapshot, Filter(threshold=threshold), datetime.now(UTC)).workload
    read = {query: company.warehouse.read(query) for query in queries()}
    row = next(frame for query, frame in read.items() if "would_wait" in query).iloc[0]
    assert board.waiting[threshold].startswith(f"{int(row['would_wait']):,} of {int(row['with_a_shown_score']):,} (")
    assert abs(float(board.expected[threshold].split()[1]) - (row["actions_to_expect_among_them"] or 0)) < 1
    below = at_threshold(read_workload(company.warehouse), threshold / 100)
    assert board.saved_of[threshold].startswith(f"{below.alerts_below:,} of {below.alerts:,} past alerts")
    assert board.missed_of[threshold].startswith(f"{below.acted_below:,} of {below.acted:,} past actions")
