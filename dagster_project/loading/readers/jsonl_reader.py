"""JSON lines to chunks of rows.

Belongs here: one object a line, with keys that differ from line to line.
Does not belong here: what text is JSON that PostgreSQL can hold (`arrow_text.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from dagster_project.errors import HeedError
from dagster_project.loading.columns import ColumnPlan, plan_columns
from dagster_project.loading.contract import COLUMNS, NUMBERS, OWN_COLUMNS, Kind, normal_name, shown
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.readers import arrow_text, limits
from dagster_project.loading.readers.chunk import Chunk, Reader, RejectedRow, contract_columns, rejected_row
from dagster_project.loading.readers.source import BYTE_ORDER_MARK, SourceFile


class JsonLinesReader(Reader):
    """One JSON object a line. Columns may differ from line to line; the required ones must occur near the start."""

    def __init__(self, kind: Kind, source: SourceFile, mapping: Mapping) -> None:
        self.kind, self.source, self.mapping = kind, source, mapping
        self._stream = source.stream()
        self._plans: dict[tuple[str, ...], ColumnPlan] = {}
        self._first = source.read(self._stream)
        names: dict[str, str] = {}  # spellings may differ from line to line: the first of each contract column counts
        for line in self._first.removeprefix(BYTE_ORDER_MARK).split(b"\n")[:1000]:
            content = json_object(line)
            if isinstance(content, dict):
                for name in content:
                    normal = normal_name(name)
                    names.setdefault(normal if normal in COLUMNS[kind] else name, name)
        if not names:
            jq = ".[]" if self._first.removeprefix(BYTE_ORDER_MARK).lstrip().startswith(b"[") else "."
            raise HeedError(
                f"{source.path} holds no JSON object on its first lines",
                f"write one object a line, for example with `jq -c '{jq}' FILE > NEW_FILE.jsonl`; nothing was loaded",
            )
        # Values may be left out on any line, so only the names as a whole must satisfy the contract.
        self._file_plan = plan_columns(kind, list(names.values()), mapping, source.name)
        self.ignored = self._file_plan.ignored

    def chunks(self) -> Iterator[Chunk]:
        first = 1
        for lines in self._lines():
            for at in range(0, len(lines), limits.CHUNK_ROWS):
                some = lines[at : at + limits.CHUNK_ROWS]
                yield self._chunk(some, first)
                first += len(some)

    def _lines(self) -> Iterator[list[bytes]]:
        """Lines in groups. A line that is too long is cut, and rejected later."""
        rest, block = b"", self._first.removeprefix(BYTE_ORDER_MARK)
        while block:
            *lines, rest = (rest + block).split(b"\n")
            rest = rest[: limits.MAX_RECORD_BYTES + 1]
            if lines:
                yield lines
            block = self.source.read(self._stream)
        if rest:
            yield [rest]

    def _chunk(self, lines: list[bytes], first: int) -> Chunk:
        objects, rejected = [], []
        for number, line in enumerate(lines, first):
            content = json_object(line)
            if isinstance(content, dict):
                content = self._plan(tuple(content)).twice or content
            if isinstance(content, dict):
                objects.append(content)
            elif content is not None:
                rejected.append(rejected_row(number, content, line))
        return self._rows(objects, rejected)

    def _rows(self, objects: list[dict[str, Any]], rejected: list[RejectedRow]) -> Chunk:
        keys = {tuple(content) for content in objects}
        if len(keys) == 1:  # the usual case, three times as fast
            plan = self._plan(keys.pop())
            columns: list[Sequence[Any]] = list(zip(*(content.values() for content in objects), strict=True))
        else:
            plan, columns = self._aligned(objects)
        absent = pa.nulls(len(objects), pa.string())
        contract = contract_columns(plan, lambda at: arrow_text.texts_of(columns[at]) if at >= 0 else absent)
        further = {name: arrow_text.json_of(columns[at]) for name, at in plan.attributes}
        typed = frozenset(
            name
            for name, at in plan.contract.items()
            if name in NUMBERS and any(isinstance(v, int | float) and v == v for v in columns[at])  # v == v: not NaN
        )
        return Chunk(len(objects), contract, sorted(further.items()), rejected, typed)

    def _aligned(self, objects: list[dict[str, Any]]) -> tuple[ColumnPlan, list[Sequence[Any]]]:
        """Objects with different keys as columns, None where a line has no value; and the plan of these columns."""
        columns: list[list[Any]] = []
        contract: dict[Any, int] = {}
        attributes: dict[Any, int] = {}
        parts: dict[Any, int] = {}
        for row, content in enumerate(objects):
            plan, values = self._plan(tuple(content)), list(content.values())
            pieces = [((name, i), at) for name, ats in plan.composed.items() for i, at in enumerate(ats) if at >= 0]
            for places, uses in ((contract, plan.contract.items()), (attributes, plan.attributes), (parts, pieces)):
                for use, at in uses:
                    if use not in places:
                        places[use] = len(columns)
                        columns.append([None] * len(objects))
                    columns[places[use]][row] = values[at]
        composed = {
            name: tuple(parts.get((name, i), -1) for i in range(len(ats)))
            for name, ats in self._file_plan.composed.items()
        }
        return ColumnPlan(contract, tuple(attributes.items()), (), composed=composed), list(columns)

    def _plan(self, names: tuple[str, ...]) -> ColumnPlan:
        """The plan for a line with these keys: the whole file's decisions, applied to the keys that are here."""
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plan_for(names)
            if len(self._plans) < 10_000:
                self._plans[names] = plan
        return plan

    def _plan_for(self, names: tuple[str, ...]) -> ColumnPlan:
        mapped = self.mapping.columns.get(self.kind, {})
        left_out = self.mapping.ignored.get(self.kind, ())
        joins = self.mapping.composed.get(self.kind, {})
        places = {normal_name(name): at for at, name in reversed(list(enumerate(names)))}
        # -1: not on this line.
        composed = {name: tuple(places.get(normal_name(part), -1) for part in parts) for name, parts in joins.items()}
        joined_parts = {at for parts in composed.values() for at in parts}
        wanted = {normal_name(column): name for name, column in mapped.items()}
        dropped = {normal_name(column) for column in left_out}
        contract: dict[str, int] = {}
        attributes: list[tuple[str, int]] = []
        twice = ""
        for at, name in enumerate(names):
            normal = normal_name(name)
            is_contract = normal in COLUMNS[self.kind] and normal not in mapped and normal not in composed
            target = wanted.get(normal) or (normal if is_contract else None)
            if normal in dropped or (target is None and at in joined_parts):
                continue
            if target is not None and target in contract:
                twice = f"{target} twice, as {shown(names[contract[target]])} and {shown(name)}"
            elif target is not None:
                contract[target] = at
            elif name not in OWN_COLUMNS and "attributes" in COLUMNS[self.kind]:
                attribute = name.strip() or f"unnamed_{at + 1}"
                if attribute in dict(attributes):
                    twice = f"{shown(attribute)} twice, with and without blanks around it"
                attributes.append((attribute, at))
        return ColumnPlan(contract, tuple(attributes), (), twice, composed)


def json_object(line: bytes) -> dict[str, Any] | str | None:
    """A line's object; or why it is none; or None for an empty line."""
    if not line.strip():
        return None
    if len(line) > limits.MAX_RECORD_BYTES:
        return f"a line of more than {limits.MAX_RECORD_BYTES:,} bytes; its start is kept"
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    content = arrow_text.parse_json(text, nan=True)
    if isinstance(content, arrow_text.NotJson):
        return content.reason
    return content if isinstance(content, dict) else "not a JSON object"
