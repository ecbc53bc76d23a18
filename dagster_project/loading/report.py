"""What a load tells people: progress while it runs, warnings, and a report at its end.

Belongs here: the counts of a load, and how they are put in words.
Does not belong here: counting (`load.py`), warnings about a file (`observed.py`, `staged.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from dagster_project.loading.contract import Kind

if TYPE_CHECKING:
    from dagster_project.loading.readers.source import SourceFile

Stage = Literal["checking", "waiting", "reading", "comparing", "committing"]


@dataclass(frozen=True)
class LoadProgress:
    """How far a load is.

    Attributes
    ----------
    rows : rows read so far. bytes_read, bytes_total : of the file on disk. seconds : since the start.
    """

    kind: Kind
    file: str
    stage: Stage
    rows: int
    bytes_read: int
    bytes_total: int
    seconds: float

    def summary(self) -> str:
        """One line in words."""
        share = f"{100 * self.bytes_read / max(self.bytes_total, 1):.0f}%"
        return {
            "checking": f"checking {self.file}, {share}",
            "waiting": "waiting for another load to finish",
            "reading": f"{self.rows:,} rows read, {share} of {self.file}",
            "comparing": f"{self.rows:,} rows read, comparing them with rows loaded before",
            "committing": f"{self.rows:,} rows read, finishing",
        }[self.stage]


@dataclass(frozen=True)
class LoadWarning:
    """Something about a file that people should know.

    Attributes
    ----------
    name : the kind of warning, for machines. rows : how many rows it concerns. cause, remedy : in words.
    is_note : it went as the mapping says; people should see the count.
    """

    name: str
    rows: int
    cause: str
    remedy: str
    is_note: bool = False

    def line(self) -> str:
        """One line in words."""
        return f"{self.cause}; {self.remedy}"


@dataclass(frozen=True)
class LoadReport:
    """What a load did. rows_read = rows_added + rows_unchanged + rows_undecodable.

    Attributes
    ----------
    already_loaded : this content was loaded before, so nothing was read or changed; the counts say what it held.
    ignored_columns : columns of the file that were not loaded.
    load_id : the row in raw.loads.
    rows_of_loaded_ids : rows added whose id had been loaded before with other content.
    warnings : with counts.
    decimals : number column -> decimal sign, where the file's numbers were not written plainly.
    """

    file: str
    kind: Kind
    rows_read: int
    rows_added: int
    rows_unchanged: int
    rows_undecodable: int
    seconds: float
    already_loaded: bool
    ignored_columns: tuple[str, ...] = ()
    load_id: int | None = None
    rows_of_loaded_ids: int = 0
    warnings: tuple[LoadWarning, ...] = ()
    decimals: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line in words."""
        kind = self.kind.replace("_", " ")
        if self.already_loaded:
            rejected = f", {self.rows_undecodable:,} of them undecodable" if self.rows_undecodable else ""
            return f"{self.file}: loaded before ({self.rows_read:,} {kind}{rejected}), nothing changed"
        if self.rows_read == 0:
            return f"{self.file}: a header and no rows, nothing to add"
        line = f"{self.file}: {self.rows_read:,} {kind} read in {self.seconds:.1f} s, {self.rows_added:,} added"
        if self.rows_unchanged:
            line += f", {self.rows_unchanged:,} unchanged"
        if self.rows_of_loaded_ids and self.kind == "alerts":
            line += (
                f", {self.rows_of_loaded_ids:,} of them tell other facts of alerts that were loaded before: heed uses "
                "those loaded first (load with --correction where these are right)"
            )
        if self.rows_undecodable:
            line += f", {self.rows_undecodable:,} undecodable and rejected (raw.undecodable_rows)"
        if self.decimals:
            signs = {",": "decimal commas", ".": "decimal points and thousands separators"}
            line += "; " + ", ".join(f"{name} read with {signs[sign]}" for name, sign in self.decimals.items())
        if self.ignored_columns:
            line += f"; columns not loaded: {', '.join(self.ignored_columns[:12])}"
        return line

    def to_document(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {**asdict(self), "ignored_columns": list(self.ignored_columns)}


class ProgressTeller:
    """Reports progress at most every so many seconds; short loads report nothing."""

    def __init__(
        self, kind: Kind, source: SourceFile, progress: Callable[[LoadProgress], None] | None, every: float
    ) -> None:
        self.kind, self.source, self.progress, self.every = kind, source, progress, every
        self.started = self.reported = time.monotonic()
        self.rows = 0

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def __call__(self, stage: Stage, *, whatever_the_time: bool = False) -> None:
        now = time.monotonic()
        if self.progress is None or (now - self.reported < self.every and not whatever_the_time):
            return
        self.reported = now
        read = self.source.bytes_read() if stage in ("checking", "reading") else self.source.bytes_total
        self.progress(
            LoadProgress(
                self.kind, str(self.source.path), stage, self.rows, read, self.source.bytes_total, self.seconds()
            )
        )
