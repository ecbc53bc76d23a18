"""Tests and freshness checks of dbt, from the artifacts of its last command.

Belongs here: joining run_results.json and sources.json with the nodes of manifest.json.
Does not belong here: what a result means (the preset).

The artifacts are those of one command, and the next one overwrites them: pull after each. They do not say what people
did.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.pulls.page import Asked, Page, Position, Stream
from dagster_project.settings import PullSource

# What of a node says something about an alert; a whole node has its SQL.
_OF_NODE = ("name", "resource_type", "attached_node", "column_name", "package_name", "tags", "source_name")


def streams(source: PullSource) -> list[Stream]:
    """The results in the folder `path`, dbt's `target`."""
    return [Stream(f"results {source.path}", "dbt", _results)]


def _results(asked: Asked, position: Position) -> Iterator[Page]:
    folder = Path(asked.source.path).expanduser()
    documents = {name: _document(folder / name) for name in ("run_results.json", "sources.json", "manifest.json")}
    manifest = documents.pop("manifest.json") or {}
    if not any(documents.values()):
        raise HeedError(f"{folder} has no run_results.json", "name the folder target of a dbt project as path")
    nodes = {**manifest.get("nodes", {}), **manifest.get("sources", {})}
    for name, document in documents.items():
        generated_at = (document or {}).get("metadata", {}).get("generated_at", "")
        if document is None or position.get(name) == generated_at:
            continue
        records = [_joined(result, nodes.get(result.get("unique_id"), {})) for result in document.get("results", [])]
        position = {**position, name: generated_at}
        yield Page(records, position)


def _joined(result: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    own = {name: node[name] for name in _OF_NODE if node.get(name)}
    own["severity"] = (node.get("config") or {}).get("severity")
    own["test"] = (node.get("test_metadata") or {}).get("name")
    return {**result, "node": own}


def _document(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise HeedError(f"{path} cannot be read as JSON ({type(error).__name__})", "let dbt write it again") from error
    return content if isinstance(content, dict) else None
