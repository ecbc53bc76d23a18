"""Rows that a mapping makes of a file, without a warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster_project.loading import Mapping
from dagster_project.loading.readers import SourceFile, open_reader
from dagster_project.loading.report import LoadWarning


def rows_and_notes(
    path: Path, mapping: Mapping | None, kind: Any = "alerts", *, decisions_only: bool = False
) -> tuple[list[dict[str, Any]], list[LoadWarning]]:
    """The rows as dictionaries, attributes with a + in front; and what the reader notes."""
    layouts = mapping.layouts if mapping else {}
    source = SourceFile(path, layouts.get("alerts" if decisions_only else kind))
    rows: list[dict[str, Any]] = []
    try:
        reader = open_reader(kind, source, mapping, decisions_only=decisions_only)
        for chunk in reader.chunks():
            columns = {name: texts.to_pylist() for name, texts in chunk.contract.items()}
            columns |= {f"+{name}": texts.to_pylist() for name, texts in chunk.further}
            for at in range(chunk.rows):
                rows.append({name: values[at] for name, values in columns.items() if values[at] is not None})
        return rows, list(reader.notes())
    finally:
        source.close()


def alerts_of(path: Path, mapping: Mapping | None) -> list[dict[str, Any]]:
    return rows_and_notes(path, mapping)[0]


def actions_of(path: Path, mapping: Mapping) -> list[dict[str, Any]]:
    if not mapping.has_decisions():
        return []
    return rows_and_notes(path, mapping, "actions", decisions_only=True)[0]
