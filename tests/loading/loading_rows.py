"""Rows of a file as the staging table would get them, without a warehouse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dagster_project.loading import Mapping
from dagster_project.loading.readers import SourceFile, open_reader
from dagster_project.loading.rows import incoming_batch


def read_rows(path: Path, kind: Any = "alerts", mapping: Mapping | None = None) -> list[dict[str, Any]]:
    """All rows, decodable or not, as dictionaries of what is not null."""
    source = SourceFile(path)
    rows: list[dict[str, Any]] = []
    try:
        for chunk in open_reader(kind, source, mapping).chunks():
            for row in incoming_batch(kind, chunk, len(rows)).to_pylist():
                rows.append({name: value for name, value in row.items() if value is not None})
    finally:
        source.close()
    return rows


def decoded(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The decodable rows, contract columns only."""
    own = ("seq", "line", "row_hash")
    return [{k: v for k, v in row.items() if k not in own} for row in rows if "reason" not in row]


def rejected(rows: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """(line, reason, content) of the undecodable rows."""
    return [(row["line"], row["reason"], row["content"]) for row in rows if "reason" in row]
