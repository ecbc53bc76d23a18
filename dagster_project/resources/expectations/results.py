"""The results of suites, in heed's own words.

Belongs here: the outcomes of expectations, and the errors they raise.
Does not belong here: running a suite (`validation.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from dagster_project.errors import HeedError

SAMPLE_ROWS = 10

SHOWN_VALUES = 5  # in a line that people read on a screen or in a message

Severity = Literal["critical", "warning"]


class ExpectationCrashed(RuntimeError):
    """An expectation could not be evaluated. This is a bug or a wrong frame, and says nothing about the rows."""


class ExpectationsFailed(HeedError):
    """A critical expectation does not hold: the rows must not be used or published."""


@dataclass(frozen=True)
class CheckSpec:
    """One expectation as people see it; `check_name` is unique in its suite and a valid Dagster name."""

    check_name: str
    description: str
    severity: Severity
    notes: str
    expectation_type: str

    def __iter__(self) -> Iterator[str]:
        """`check_name, description, severity = spec`"""
        return iter((self.check_name, self.description, self.severity))


@dataclass(frozen=True)
class ExpectationOutcome:
    """How one expectation fared on one frame.

    Attributes
    ----------
    check_name, description, notes, severity : as in the suite.
    passed : whether it holds.
    observed : the observed value, where the expectation has one; else None.
    element_count, unexpected_count : rows looked at and unexpected ones; None for expectations about whole
        frames.
    unexpected_percent : 0 to 100, of the rows that the expectation is about (null values are usually left
        out).
    sample_rows : up to 10 unexpected rows: the ids and the columns concerned.
    values : up to 5 unexpected values of the first column concerned, the most frequent first, with how many rows hold
        each; empty where no value is held by two rows.
    details : what else the expectation returns, such as the table of flags.
    """

    check_name: str
    passed: bool
    severity: Severity
    observed: Any
    unexpected_count: int | None
    element_count: int | None
    unexpected_percent: float | None
    sample_rows: list[dict[str, Any]]
    description: str
    notes: str = ""
    details: dict[str, Any] = field(repr=False, compare=False, default_factory=dict)
    values: list[tuple[Any, int]] = field(default_factory=list)

    @property
    def critical_failure(self) -> bool:
        return not self.passed and self.severity == "critical"

    def in_words(self) -> str:
        """One line: the check, how many rows, which values, which rows."""
        if self.passed:
            return f"{self.check_name} holds"
        line = f"{self.check_name} ({self.severity})"
        if self.unexpected_count:
            line += f": {self.unexpected_count:,} of {self.element_count:,} rows"
            if self.values and self.values[0][1] > 1:  # else the sample rows say it
                line += f" ({', '.join(f'{value_in_words(value)}: {count:,}' for value, count in self.values)})"
            if self.sample_rows:
                shown = "; ".join(row_in_words(row) for row in self.sample_rows[:3])
                line += f", such as {shown}" if self.unexpected_count > 3 else f": {shown}"
        elif self.observed is not None:
            line += f": observed {_short(self.observed)}"
        return line


@dataclass(frozen=True)
class SuiteResult:
    """How a suite fared on one frame. `passed` means that every expectation holds, warnings included."""

    suite_name: str
    validated_at: datetime
    rows: int
    results: list[ExpectationOutcome]
    document: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.results)

    @property
    def failures(self) -> list[ExpectationOutcome]:
        return [outcome for outcome in self.results if not outcome.passed]

    @property
    def critical_failures(self) -> list[ExpectationOutcome]:
        return [outcome for outcome in self.results if outcome.critical_failure]

    def in_words(self) -> str:
        """One line that names what failed, critical first, and which rows."""
        if self.passed:
            return f"{self.suite_name}: all {len(self.results)} expectations hold on {self.rows:,} rows"
        worst_first = sorted(self.failures, key=lambda outcome: outcome.severity != "critical")
        what = "; ".join(outcome.in_words() for outcome in worst_first)
        return f"{self.suite_name}: {len(worst_first)} of {len(self.results)} expectations failed: {what}"

    def raise_if_critical(self) -> None:
        """Raise `ExpectationsFailed`, which names the rows, if a critical expectation failed."""
        if self.critical_failures:
            words = "; ".join(outcome.in_words() for outcome in self.critical_failures)
            raise ExpectationsFailed(
                f"{self.suite_name} stopped the run: {words}",
                f"correct these rows at their source, or correct expectations/suites/{self.suite_name}.json "
                "if they are right",
            )


def _short(value: Any, limit: int = 80) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def value_in_words(value: Any) -> str:
    """A value as part of one line, shortened to 40 characters."""
    if value is None:
        return "null"
    return repr(value[:40]) if isinstance(value, str) and not value.strip() else _short(value, 40)


def row_in_words(row: Mapping[str, Any]) -> str:
    """A row as part of one line: column=value, each value shortened."""
    return ", ".join(f"{column}={value_in_words(value)}" for column, value in row.items())
