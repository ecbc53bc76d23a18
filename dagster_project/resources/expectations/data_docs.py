"""Data Docs: Great Expectations' own HTML pages.

Belongs here: stored results, and the site built from them.
Does not belong here: validation, and what a result means (`results.py`).
"""

from __future__ import annotations

import fcntl
import html
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_project.resources.expectations.results import SuiteResult
from dagster_project.resources.expectations.suites import PROJECT, suite_names
from dagster_project.resources.expectations.validation import import_gx, load_suite

# Results kept per suite. Data Docs show them all; 20 runs of 9 suites build in a few seconds.
KEPT_RESULTS = 20


def store_result(result: SuiteResult, directory: Path) -> Path:
    """Keep a result for Data Docs, as `<directory>/results/<suite>/<time>.json`; the oldest beyond 20 are
    removed.

    The file is written completely or not at all. Returns its path.
    """
    folder = Path(directory) / "results" / result.suite_name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.validated_at.strftime('%Y%m%dT%H%M%S.%fZ')}.json"
    fresh = path.with_suffix(f".{os.getpid()}.part")
    fresh.write_text(json.dumps(result.document, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    os.replace(fresh, path)
    for old in sorted(folder.glob("*.json"))[:-KEPT_RESULTS]:
        old.unlink(missing_ok=True)
    return path


def data_docs_index(directory: Path) -> Path:
    """Where `build_data_docs(directory)` puts the first page, built or not."""
    return Path(directory) / "data_docs" / "index.html"


def build_data_docs(directory: Path) -> Path:
    """Build Great Expectations' static HTML site of all suites and the results stored under `directory`.

    One process at a time (a lock file); readers see the old site or the new one. Returns the path of the
    first page.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory / "data_docs.lock"):
        fresh, site = directory / "data_docs.part", directory / "data_docs"
        shutil.rmtree(fresh, ignore_errors=True)
        _write_site(directory, fresh)
        old = directory / "data_docs.old"
        shutil.rmtree(old, ignore_errors=True)
        if site.exists():
            site.rename(old)
        fresh.rename(site)
        shutil.rmtree(old, ignore_errors=True)
    return data_docs_index(directory)


def _write_site(directory: Path, target: Path) -> None:
    gx = import_gx()
    import yaml  # type: ignore[import-untyped]
    from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema
    from great_expectations.core.run_identifier import RunIdentifier
    from great_expectations.data_context.types.base import DataContextConfig, InMemoryStoreBackendDefaults
    from great_expectations.data_context.types.resource_identifiers import (
        ExpectationSuiteIdentifier,
        ValidationResultIdentifier,
    )

    config = yaml.safe_load((PROJECT / "great_expectations.yml").read_text(encoding="utf-8"))
    sites = config["data_docs_sites"]
    for site in sites.values():
        site["store_backend"]["base_directory"] = str(target.resolve())
    context = gx.get_context(
        mode="ephemeral",
        project_config=DataContextConfig(store_backend_defaults=InMemoryStoreBackendDefaults(), data_docs_sites=sites),
    )
    context.variables.progress_bars = {"globally": False}
    schema = ExpectationSuiteValidationResultSchema()
    for name in suite_names():
        context.suites.add(load_suite(name))
        for path in sorted((directory / "results" / name).glob("*.json")):
            document = json.loads(path.read_text(encoding="utf-8"))
            for entry in document["results"]:
                entry["result"] = _escaped(entry["result"])
            validated_at = datetime.strptime(path.stem, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
            result = schema.load(document)
            run_id = RunIdentifier(run_name=validated_at.isoformat(timespec="seconds"), run_time=validated_at)
            result.meta["run_id"] = run_id
            key = ValidationResultIdentifier(
                expectation_suite_identifier=ExpectationSuiteIdentifier(name=name),
                run_id=run_id,
                batch_identifier=name,
            )
            context.validation_results_store.set(key, result)
    context.build_data_docs()


def _escaped(value: Any) -> Any:
    """A JSON value with all texts escaped for HTML: Great Expectations writes values into its pages unescaped, and an
    alert's title or rule may be anything."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return value


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file. The system releases it however the process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
