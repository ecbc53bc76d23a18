"""Warnings about a file, from its columns as they are read: counted, with an example and what to do.

Belongs here: what single columns show that would change what people conclude.
Does not belong here: changes to rows (`values.py`), refusals (`readers/`), and questions about times or other rows
(`staged.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from dagster_project.loading.contract import NUMBERS, Kind, shown
from dagster_project.loading.report import LoadWarning
from dagster_project.loading.values import BLANKS, NumberEvidence

if TYPE_CHECKING:
    from dagster_project.loading.readers.chunk import Chunk

TIMES: dict[Kind, str] = {"alerts": "raised_at", "actions": "acted_at", "rules": "created_at"}
# Columns whose texts name something: a placeholder there would become a rule, a team or an id.
_NAMES = ("rule", "entity", "team", "severity", "alert_id", "action_id", "action_type", "actor")
# How systems write that a cell is empty. Not NA, which is also North America.
PLACEHOLDERS = (
    *("null", "NULL", "Null", "(null)", "none", "None", "NONE", "(none)", "nan", "NaN", "NAN", "n/a", "N/A", "#N/A"),
    *("-", "--", "?", "undefined", "(empty)", "\\N"),
)
# How spreadsheets write long numbers, keeping 6 to 15 digits.
_SCIENTIFIC = r"^[-+]?[0-9](?:[.,][0-9]+)?[eE][+]?[0-9]+$"
_NUMBER = r"^[-+]?(?:[0-9]+[.]?[0-9]*|[.][0-9]+)(?:[eE][-+]?[0-9]{1,3})?$"
# Times with an offset that staging certainly reads. All others are checked one by one in the warehouse.
_DAY = (
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
SURE_TIME = (
    f"^[12][0-9]{{3}}-{_DAY}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:[.][0-9]{{1,9}})?"
    "(?:Z|[+-]0[0-9]:?[0-5][0-9])$"
)
EXAMPLES_SHOWN = 3


@dataclass
class Observed:
    """What the columns of a file show while it is read. Each chunk is passed twice: as it is in the file, for its
    numbers, and as it is loaded."""

    kind: Kind
    rows: int = 0
    numbers: dict[str, NumberEvidence] = field(default_factory=dict)
    unreadable_numbers: Counter[str] = field(default_factory=Counter)
    placeholders: dict[str, Counter[str]] = field(default_factory=dict)
    scientific: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    undecodable: Counter[str] = field(default_factory=Counter)
    first_line: dict[str, int] = field(default_factory=dict)
    unsure_times: int = 0

    def as_in_file(self, chunk: Chunk) -> None:
        """Note how numbers are written."""
        for name in NUMBERS:
            if name in chunk.contract and name not in chunk.typed:
                self.numbers.setdefault(name, NumberEvidence()).add(chunk.contract[name])

    def as_loaded(self, chunk: Chunk) -> None:
        """Note the texts that go into the raw tables."""
        self.rows += chunk.rows
        for row in chunk.rejected:
            reason = row.reason.split(";")[0]
            self.undecodable[reason] += 1
            self.first_line.setdefault(reason, row.line)
        for name in NUMBERS:
            if name in chunk.contract:
                self._count(self.unreadable_numbers, name, chunk.contract[name], _NUMBER, matching=False)
        for name in _NAMES:
            if name in chunk.contract:
                texts = chunk.contract[name]
                empty = texts.filter(pc.is_in(texts, pa.array(PLACEHOLDERS)))
                if len(empty):
                    self.placeholders.setdefault(name, Counter()).update(empty.to_pylist())
                if name.endswith("_id"):
                    self._count(self.scientific, name, texts, _SCIENTIFIC, matching=True)
        time = chunk.contract.get(TIMES.get(self.kind, ""))
        if time is not None:
            self.unsure_times += int(pc.sum(pc.invert(pc.match_substring_regex(time, SURE_TIME))).as_py() or 0)

    def _count(self, counts: Counter[str], name: str, texts: pa.Array, pattern: str, *, matching: bool) -> None:
        matches = pc.match_substring_regex(pc.utf8_trim(texts, BLANKS), pattern)
        cells = texts.filter(pc.fill_null(matches if matching else pc.invert(matches), False))
        if len(cells):
            counts[name] += len(cells)
            self.examples.setdefault(f"{pattern} {name}", cells[0].as_py())

    def warnings(self, decimals: dict[str, str], delimiter: str) -> Iterator[LoadWarning]:
        """Warnings that follow from the columns alone. `decimals` : how numbers were read."""
        if self.undecodable:
            rows = self.undecodable.total()
            yield LoadWarning(
                "undecodable_rows",
                rows,
                f"{rows:,} of {self.rows + rows:,} rows are undecodable and were rejected: {self.reasons()}",
                f"they are in raw.undecodable_rows; {self.mend()} and load the file again",
            )
        for name, count in self.scientific.items():
            yield LoadWarning(
                "cut_ids",
                count,
                f"{values_of(count, name)}, such as {shown(self.examples[f'{_SCIENTIFIC} {name}'])}, lost digits in a "
                "spreadsheet or a floating-point column, so different rows may share one id",
                "export the ids as text, straight from the system that made them",
            )
        for name, texts in self.placeholders.items():
            some = ", ".join(f"{count:,} {shown(text)}" for text, count in texts.most_common(EXAMPLES_SHOWN))
            listed = ", ".join(f'"{text}"' for text, _ in texts.most_common())
            yield LoadWarning(
                "placeholders",
                texts.total(),
                f"{values_of(texts.total(), name)} may mean an empty cell ({some}) and will be read as a name",
                f"if it does, write empty = [{listed}] under [{self.kind}] in the mapping",
            )
        yield from self._about_numbers(decimals, delimiter)

    def reasons(self) -> str:
        """Why rows were undecodable, the most frequent first."""
        some = self.undecodable.most_common(EXAMPLES_SHOWN)
        return ", ".join(f"{count:,} {reason} (first on line {self.first_line[reason]:,})" for reason, count in some)

    def mend(self) -> str:
        """How to make the most frequent kind of undecodable row readable."""
        reason = self.undecodable.most_common(1)[0][0]
        if "UTF-8" in reason:
            return 'write its encoding in the mapping, like encoding = "cp1252",'
        if "backslash" in reason:
            return 'write a quote inside a quoted field as ""'
        if "field" in reason or "quote" in reason:
            return 'give each row as many fields as the header, and quote with " (a quote inside is written "")'
        if "header" in reason:
            return "remove the lines before the header, or say skip_lines in the mapping,"
        return "export it without such rows"

    def _about_numbers(self, decimals: dict[str, str], delimiter: str) -> Iterator[LoadWarning]:
        say = f'write decimal = "," or decimal = "." under [{self.kind}] in the mapping'
        for name, evidence in self.numbers.items():
            example = lambda key, column=evidence: shown(column.examples[key])  # noqa: E731
            if evidence.contradictory() and name not in decimals:
                yield LoadWarning(
                    "contradictory_decimals",
                    evidence.settled.total(),
                    f"{name} has {evidence.settled[',']:,} numbers with a decimal comma ({example('settled ,')}) and "
                    f"{evidence.settled['.']:,} with a decimal point ({example('settled .')})",
                    f"export them in one way, or {say}",
                )
            elif name not in decimals and evidence.ambiguous[","]:
                count = evidence.ambiguous[","]
                yield LoadWarning(
                    "ambiguous_decimals",
                    count,
                    f"{values_of(count, name)}, such as {example('ambiguous ,')}, cannot be read: nothing in the file "
                    "says whether the comma is for decimals or thousands",
                    say,
                )
            elif name not in decimals and evidence.ambiguous["."] and not evidence.settled["."] and delimiter == ";":
                count = evidence.ambiguous["."]
                yield LoadWarning(
                    "ambiguous_decimals",
                    count,
                    f"{values_of(count, name)}, such as {example('ambiguous .')}, will be read with a decimal point, "
                    "though the file is separated by semicolons, as files with decimal commas are",
                    say,
                )
        for name, count in self.unreadable_numbers.items():
            yield LoadWarning(
                "unreadable_numbers",
                count,
                f"{values_of(count, name)}, such as {shown(self.examples[f'{_NUMBER} {name}'])}, cannot be read as a "
                "number and will be empty",
                f"export it as a plain number, or map another column to {name}",
            )


def values_of(count: int, name: str) -> str:
    return f"{count:,} value{'s' if count != 1 else ''} of {name}"
