"""One Great Expectations suite -> Dagster asset checks, one check per expectation.

Belongs here: how an expectation shows in Dagster: name, description, severity, whether it blocks, metadata.
Does not belong here: what is expected (`expectations/suites`), running a suite
(`resources/expectations/validation.py`), and which asset has which suite (`definitions.py` and the assets).

A critical expectation becomes a blocking check with severity ERROR: when it fails, Dagster stops everything
downstream. A warning becomes a check that reports and does not block. An expectation that cannot be evaluated
raises: Dagster shows a failed step with its traceback, not a failed check.

Two ways to use a suite:

- on rows that are about to be published: give the asset `check_specs=suite_check_specs(...)` and
  `yield from check_before_publishing(...)` before it writes;
- on a table that something else wrote (dbt): `checks_for(...)` returns a separate check, which reads the table.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from dagster_project.resources.expectations.data_docs import build_data_docs, data_docs_index, store_result
from dagster_project.resources.expectations.results import ExpectationOutcome, SuiteResult
from dagster_project.resources.expectations.suites import check_specs
from dagster_project.resources.expectations.validation import validate_parts
from dagster_project.settings import heed_home

CoercibleToAssetKey = dg.AssetKey | str | Sequence[str]


@dataclass(frozen=True)
class RowsToCheck:
    """What a check reads. parts : the rows, in parts of which one at a time is in memory (`validate_parts`).
    parameters : the suite's. what : which rows these are, in words. passed : called when every critical expectation
    holds."""

    parts: Iterable[pd.DataFrame]
    parameters: Mapping[str, Any] | None = None
    what: str = ""
    passed: Callable[[], None] = lambda: None


Load = Callable[[Any], RowsToCheck | pd.DataFrame | tuple[pd.DataFrame, Mapping[str, Any]]]


def suite_check_specs(suite_name: str, asset_key: CoercibleToAssetKey) -> list[dg.AssetCheckSpec]:
    """The asset checks of a suite, in its order; critical ones block. Does not import Great Expectations."""
    return [
        dg.AssetCheckSpec(
            name=spec.check_name,
            asset=dg.AssetKey.from_coercible(asset_key),
            description=f"{spec.description} {spec.notes}".strip(),
            blocking=spec.severity == "critical",
            metadata={"suite": suite_name, "expectation": spec.expectation_type, "severity": spec.severity},
        )
        for spec in check_specs(suite_name)
    ]


def check_before_publishing(
    suite_name: str,
    asset_key: CoercibleToAssetKey,
    parts: Iterable[pd.DataFrame],
    *,
    id_columns: Sequence[str] = ("alert_id",),
    parameters: Mapping[str, Any] | None = None,
    results_dir: Path | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Yield one result per expectation of the suite, then raise `ExpectationsFailed` if a critical one failed.

    For an asset that writes by itself: the results are recorded, and what it would write afterwards is not written.

    parts, id_columns, parameters : as `validate_parts` takes them, with its errors.
    results_dir : where results are kept for Data Docs; default `expectations` under heed's state directory.
    """
    result = _validate_and_keep(suite_name, parts, id_columns, parameters, results_dir)
    yield from check_results(result, asset_key, results_dir=results_dir)
    result.raise_if_critical()


def nothing_to_check(suite_name: str, asset_key: CoercibleToAssetKey) -> Iterator[dg.AssetCheckResult]:
    """Passing results for a run in which there were no rows to check."""
    for spec in suite_check_specs(suite_name, asset_key):
        yield dg.AssetCheckResult(asset_key=spec.asset_key, check_name=spec.name, passed=True, metadata={"rows": 0})


def check_results(
    result: SuiteResult, asset_key: CoercibleToAssetKey, *, results_dir: Path | None = None, what: str = ""
) -> Iterator[dg.AssetCheckResult]:
    """The outcomes of a validation as Dagster check results. what : which rows were looked at, in words."""
    link = dg.MetadataValue.path(str(data_docs_index(results_dir or default_results_dir())))
    for outcome in result.results:
        yield dg.AssetCheckResult(
            asset_key=dg.AssetKey.from_coercible(asset_key),
            check_name=outcome.check_name,
            passed=outcome.passed,
            severity=(dg.AssetCheckSeverity.ERROR if outcome.severity == "critical" else dg.AssetCheckSeverity.WARN),
            description=outcome.description if outcome.passed else outcome.in_words(),
            metadata={**_metadata(result, outcome), **({"which rows": what} if what else {}), "data docs": link},
        )


def checks_for(
    suite_name: str,
    asset_key: CoercibleToAssetKey,
    load: Load,
    *,
    id_columns: Sequence[str] = ("alert_id",),
    results_dir: Path | None = None,
    required_resource_keys: Iterable[str] = (),
    name: str | None = None,
) -> dg.AssetChecksDefinition:
    """A separate check for a table that something else writes.

    load : called with the check's context (`context.resources` holds `required_resource_keys`); returns the
        rows, or the rows and the suite's parameters, or `RowsToCheck`.
    name : of the step; default `<suite>_suite`.
    """

    @dg.multi_asset_check(
        name=name or f"{suite_name}_suite",
        specs=suite_check_specs(suite_name, asset_key),
        required_resource_keys=set(required_resource_keys),
    )
    def suite_checks(context: dg.AssetCheckExecutionContext):
        loaded = load(context)
        if not isinstance(loaded, RowsToCheck):
            frame, parameters = loaded if isinstance(loaded, tuple) else (loaded, None)
            loaded = RowsToCheck([frame], parameters)
        result = _validate_and_keep(suite_name, loaded.parts, id_columns, loaded.parameters, results_dir)
        yield from check_results(result, asset_key, results_dir=results_dir, what=loaded.what)
        if not result.critical_failures:
            loaded.passed()

    return suite_checks


def data_docs_job(results_dir: Path | None = None) -> dg.JobDefinition:
    """A job that builds the Data Docs site on demand. It logs and records where the first page is."""

    @dg.op(name="build_data_docs", description="Build Great Expectations' HTML site from the stored results.")
    def build(context: dg.OpExecutionContext) -> None:
        index = build_data_docs(results_dir or default_results_dir())
        context.log.info(f"Data Docs: {index}")
        context.add_output_metadata({"data docs": dg.MetadataValue.path(str(index))})

    @dg.job(name="data_docs", executor_def=dg.in_process_executor)
    def job() -> None:
        build()

    return job


def default_results_dir() -> Path:
    """Where validation results and Data Docs are: `expectations` under heed's state directory."""
    return heed_home() / "expectations"


def _validate_and_keep(
    suite_name: str,
    parts: Iterable[pd.DataFrame],
    id_columns: Sequence[str],
    parameters: Mapping[str, Any] | None,
    results_dir: Path | None,
) -> SuiteResult:
    result = validate_parts(suite_name, parts, id_columns=id_columns, parameters=parameters)
    store_result(result, results_dir or default_results_dir())
    return result


def _metadata(result: SuiteResult, outcome: ExpectationOutcome) -> dict[str, Any]:
    metadata: dict[str, Any] = {"suite": result.suite_name, "rows": result.rows}
    if outcome.unexpected_count is not None:
        metadata["unexpected rows"] = outcome.unexpected_count
    if outcome.unexpected_percent is not None:
        metadata["unexpected percent"] = round(outcome.unexpected_percent, 4)
    if outcome.observed is not None:
        metadata["observed"] = (
            outcome.observed if isinstance(outcome.observed, int | float | str) else json.dumps(outcome.observed)
        )
    if outcome.sample_rows:
        metadata["sample of failing rows"] = dg.MetadataValue.md(markdown_table(outcome.sample_rows))
    if outcome.notes:
        metadata["why this severity"] = outcome.notes
    return metadata


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table. Values are escaped and cut to 80 characters."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [
        "| " + " | ".join(map(_cell, columns)) + " |",
        "|" + " --- |" * len(columns),
        *("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |" for row in rows),
    ]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = "null" if value is None else " ".join(str(value).split())
    text = text if len(text) <= 80 else text[:79] + "…"
    for character in "\\`*_[]<>|":
        text = text.replace(character, "\\" + character)
    return text
