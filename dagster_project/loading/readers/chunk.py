"""What readers hand on: chunks of rows as Arrow arrays of text, and the rows they reject.

Belongs here: the types that all readers share, and how a rejected row is kept.
Does not belong here: any one format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from dagster_project.loading.columns import ColumnPlan
from dagster_project.loading.readers import limits
from dagster_project.loading.values import joined

if TYPE_CHECKING:
    from dagster_project.loading.report import LoadWarning


@dataclass
class RejectedRow:
    """A row that could not be decoded: line (or row) number from 1, why, and its content as text."""

    line: int
    reason: str
    content: str


@dataclass
class Chunk:
    """Some rows of a file.

    Attributes
    ----------
    rows : number of decodable rows.
    contract : contract column -> string array[rows]; absent columns are absent here; empty cells are null.
    further : (name, JSON values as string array[rows], null where empty) of the columns that become attributes.
    rejected : undecodable rows among them.
    typed : contract columns that the file holds as numbers, not as text: no convention changes how they are written.
    """

    rows: int
    contract: dict[str, pa.Array]
    further: list[tuple[str, pa.Array]]
    rejected: list[RejectedRow] = field(default_factory=list)
    typed: frozenset[str] = frozenset()


class Reader:
    """A file's rows in chunks. `ignored` are the names of columns that are not loaded; `before_header` counts lines
    that are rejected and are no rows; `delimiter` is that of CSV."""

    ignored: tuple[str, ...] = ()
    before_header: int = 0
    delimiter: str = ""

    def chunks(self) -> Iterator[Chunk]:
        raise NotImplementedError

    def notes(self) -> Iterable[LoadWarning]:
        """What people should know of how the mapping fitted the file, after all chunks were read."""
        return ()


def contract_columns(plan: ColumnPlan, text_of: Callable[[int], pa.Array]) -> dict[str, pa.Array]:
    """The contract's columns, given the text of each column of the file."""
    contract = {name: text_of(at) for name, at in plan.contract.items()}
    contract |= {name: joined([text_of(at) for at in parts]) for name, parts in plan.composed.items()}
    return contract


def rejected_row(line: int, reason: str, content: bytes) -> RejectedRow:
    """A row as it is kept; bytes that are not text are written as \\xNN."""
    if len(content) > limits.MAX_RECORD_BYTES:
        reason = f"a line of more than {limits.MAX_RECORD_BYTES:,} bytes; the first {limits.CONTENT_BYTES:,} are kept"
    elif len(content) > limits.CONTENT_BYTES:
        reason += f"; {len(content):,} bytes, the first {limits.CONTENT_BYTES:,} are kept"
    text = content[: limits.CONTENT_BYTES].decode("utf-8", errors="backslashreplace").replace("\0", "\\x00")
    return RejectedRow(line, reason, text)
