"""Running Great Expectations suites on frames.

Belongs here: importing Great Expectations, validating a frame in memory, and the outcomes.
Does not belong here: what is expected (the suites, `suites.py`), custom expectations (`expectations/plugins`), Data
Docs (`data_docs.py`), and Dagster (`checks.py`).

Great Expectations takes 6 to 10 seconds to import, so it is imported inside the functions that need it; names,
descriptions and severities come straight from the JSON (`suites.py`). Each validation uses an ephemeral context,
because several processes on one file context corrupt it.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from dagster_project.errors import HeedError
from dagster_project.resources.expectations.results import (
    SAMPLE_ROWS,
    SHOWN_VALUES,
    CheckSpec,
    ExpectationCrashed,
    ExpectationOutcome,
    SuiteResult,
    row_in_words,
)
from dagster_project.resources.expectations.suites import (
    PROJECT,
    check_specs,
    columns_of,
    default_parameters,
    required_parameters,
    suite_document,
)

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuite

PLUGINS = "heed_expectations"

_import_lock = threading.Lock()


def import_gx() -> Any:
    """Great Expectations with heed's expectations registered, silent and offline. Takes seconds the first time."""
    with _import_lock:
        # It reads this on import of its own settings, and would otherwise report usage over the network.
        os.environ["GX_ANALYTICS_ENABLED"] = "false"
        import great_expectations as gx

        if PLUGINS not in sys.modules:
            folder = PROJECT / "plugins" / PLUGINS
            spec = importlib.util.spec_from_file_location(
                PLUGINS, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[PLUGINS] = module
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[PLUGINS]
                raise
    return gx


def load_suite(name: str) -> ExpectationSuite:
    """The suite as Great Expectations' own object.

    Raises HeedError: no such suite, or an expectation in it is not valid. (Great Expectations only logs the latter and
        drops the expectation: a check would silently disappear.)
    """
    gx = import_gx()
    document = suite_document(name)
    for entry in document["expectations"]:
        _require_valid(gx, name, entry)
    return cast("ExpectationSuite", gx.ExpectationSuite(**document))


def _require_valid(gx: Any, suite_name: str, entry: dict[str, Any]) -> None:
    """Great Expectations raises on wrong arguments, but only logs an unknown type and leaves the expectation
    out."""
    logger = logging.getLogger("great_expectations.core.expectation_suite")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        kept, why = gx.ExpectationSuite(name=suite_name, expectations=[entry]).expectations, "its type is unknown"
    except Exception as error:
        kept, why = [], " ".join(str(error).split())[:300]
    finally:
        logger.disabled = was_disabled
    if not kept:
        raise HeedError(
            f"expectations/suites/{suite_name}.json: the expectation {entry['meta']['check_name']!r} "
            f"({entry['type']}) is not valid: {why}",
            "correct its type or its kwargs",
        )


def validate(
    suite_name: str,
    frame: pd.DataFrame,
    *,
    id_columns: Sequence[str] = ("alert_id",),
    parameters: Mapping[str, Any] | None = None,
) -> SuiteResult:
    """Run a suite on a frame.

    frame : the rows, not changed. Columns that the suite names must exist; others are ignored.
    id_columns : what names a row to a reader; those the frame lacks are left out.
    parameters : values for the suite's parameters (times as ISO 8601 text or datetime), over
        `default_parameters`.
    Returns: SuiteResult with one outcome per expectation, in the suite's order.
    Raises HeedError: the frame lacks a column, or a parameter is missing or unknown.
    Raises ExpectationCrashed: an expectation could not be evaluated. A crash is never reported as a failed expectation.
    """
    _require_columns(suite_name, frame)
    values = _parameters_for(suite_name, parameters or {})
    suite = load_suite(suite_name)
    validated_at = datetime.now(UTC)
    gx_result = _run(suite, frame, values)
    by_name = {result.expectation_config.meta["check_name"]: result for result in gx_result.results}
    outcomes = []
    for spec in check_specs(suite_name):
        result = by_name[spec.check_name]
        _raise_on_crash(suite_name, spec, result)
        outcomes.append(_outcome(spec, result, id_columns))
    return SuiteResult(
        suite_name=suite_name,
        validated_at=validated_at,
        rows=len(frame),
        results=outcomes,
        document=_document(gx_result, outcomes),
    )


def validate_parts(
    suite_name: str,
    parts: Iterable[pd.DataFrame],
    *,
    id_columns: Sequence[str] = ("alert_id",),
    parameters: Mapping[str, Any] | None = None,
) -> SuiteResult:
    """As `validate`, on rows that come in parts (at least one), so that they are never all in memory at once.

    What is expected of each row must hold in every part; counts are summed. What is expected of all rows together
    (enough of them, some that were acted on) must hold in one. Uniqueness is checked within each part only: where there
    may be several parts, the table itself must ensure it.
    """
    results = [validate(suite_name, part, id_columns=id_columns, parameters=parameters) for part in parts]
    if len(results) == 1:
        return results[0]
    worst = max(results, key=lambda result: (len(result.critical_failures), len(result.failures)))
    return SuiteResult(
        suite_name=suite_name,
        validated_at=results[0].validated_at,
        rows=sum(result.rows for result in results),
        results=[_together(outcomes) for outcomes in zip(*(result.results for result in results), strict=True)],
        document=worst.document,
    )


def _together(outcomes: Sequence[ExpectationOutcome]) -> ExpectationOutcome:
    """How one expectation fared on all parts."""
    unexpected, looked_at = (
        None if values[0] is None else sum(values)
        for values in (
            [getattr(outcome, name) for outcome in outcomes] for name in ("unexpected_count", "element_count")
        )
    )
    # A failure without unexpected rows is about all rows together.
    telling = [outcome for outcome in outcomes if outcome.passed != bool(unexpected)] or list(outcomes)
    observed = [outcome.observed for outcome in outcomes]
    return replace(
        telling[0],
        observed=sum(observed) if all(type(value) is int for value in observed) else telling[0].observed,
        unexpected_count=unexpected,
        element_count=looked_at,
        unexpected_percent=100 * unexpected / looked_at if unexpected is not None and looked_at else None,
        sample_rows=[row for outcome in outcomes for row in outcome.sample_rows][:SAMPLE_ROWS],
        values=_most_frequent(outcome.values for outcome in outcomes),
    )


def _most_frequent(parts: Iterable[list[tuple[Any, int]]]) -> list[tuple[Any, int]]:
    """Values of several parts as one list: the most frequent first, then in order of appearance."""
    counts: dict[Any, int] = {}
    for value, count in (each for part in parts for each in part):
        counts[value] = counts.get(value, 0) + count
    return sorted(counts.items(), key=lambda each: -each[1])[:SHOWN_VALUES]


def _require_columns(suite_name: str, frame: pd.DataFrame) -> None:
    columns = [str(column) for column in frame.columns]
    for entry in suite_document(suite_name)["expectations"]:
        for column in columns_of(entry["kwargs"]):
            if column not in columns:
                near = difflib.get_close_matches(column, columns, n=1)
                raise HeedError(
                    f"the rows for suite {suite_name!r} lack the column {column!r}"
                    + (f" (nearest: {near[0]!r})" if near else "")
                    + f", which its check {entry['meta']['check_name']!r} is about",
                    "add the column, or remove the check from the suite",
                )


def _parameters_for(suite_name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    needed = required_parameters(suite_name)
    if unknown := sorted(set(parameters) - needed):
        raise HeedError(
            f"the suite {suite_name!r} has no parameter {unknown[0]!r}",
            f"its parameters are: {', '.join(sorted(needed)) or 'none'}",
        )
    values = {name: value for name, value in default_parameters().items() if name in needed}
    values.update({name: _plain(value) for name, value in parameters.items()})
    if missing := sorted(needed - set(values)):
        raise HeedError(
            f"the suite {suite_name!r} needs the parameter {missing[0]!r}",
            f"pass parameters={{{missing[0]!r}: ...}} to the validation",
        )
    return values


def _plain(value: Any) -> Any:
    """Times as ISO 8601 text: the parameters travel as JSON."""
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    return value


def _run(suite: ExpectationSuite, frame: pd.DataFrame, parameters: dict[str, Any]) -> Any:
    """BASIC with unexpected rows gives counts and the first failing rows. SUMMARY would add an index list of
    all failing rows, which nobody reads, and take 1.7 times as long on 200,000 rows."""
    from great_expectations.data_context import set_context

    context = import_gx().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    try:
        batch = (
            context.data_sources.add_pandas("heed")
            .add_dataframe_asset("frame")
            .add_batch_definition_whole_dataframe("whole")
            .get_batch({"dataframe": frame})
        )
        return batch.validate(
            suite,
            result_format={
                "result_format": "BASIC",
                "include_unexpected_rows": True,
                "partial_unexpected_count": SAMPLE_ROWS,
            },
            expectation_parameters=parameters,
        )
    finally:
        # Great Expectations keeps its newest context as a global, and with it the frame and all its metrics.
        set_context(None)


def _raise_on_crash(suite_name: str, spec: CheckSpec, result: Any) -> None:
    """Great Expectations reports an exception as an unsuccessful expectation, under one of two shapes. A
    `HeedError` comes through the details and is raised as it is."""
    if isinstance(error := (result.result.get("details") or {}).get("error"), HeedError):
        raise error
    info = result.exception_info or {}
    infos = [info] if "raised_exception" in info else [entry for entry in info.values() if isinstance(entry, dict)]
    for entry in infos:
        if entry.get("raised_exception"):
            raise ExpectationCrashed(
                f"the check {spec.check_name!r} of suite {suite_name!r} could not be evaluated: "
                f"{entry.get('exception_message')}\n{entry.get('exception_traceback')}"
            )


def _outcome(spec: CheckSpec, result: Any, id_columns: Sequence[str]) -> ExpectationOutcome:
    seen = result.result
    passed = bool(result.success)
    count = seen.get("unexpected_count")
    observed = seen.get("observed_value")
    sample: list[dict[str, Any]] = []
    values: list[tuple[Any, int]] = []
    rows = seen.get("unexpected_rows")
    if rows is not None and len(rows):
        details = seen.get("details") or {}
        about = [*columns_of(result.expectation_config.kwargs), *details.get("columns", [])]
        shown = [c for c in dict.fromkeys([*id_columns, *about]) if c in rows.columns] or list(rows.columns)[:8]
        sample = [
            {str(column): readable(value) for column, value in row.items()}
            for row in rows[shown].head(SAMPLE_ROWS).to_dict("records")
        ]
        concerned = [column for column in about if column in rows.columns and column not in id_columns]
        if concerned:
            # Rows are a sample where there are many; heed's own expectations count all of them.
            held = details.get("values")
            if held is None and len(rows) == count:
                held = rows[concerned[0]].value_counts(dropna=False).head(SHOWN_VALUES).items()
            values = [(readable(value), int(number)) for value, number in held or []]
    percent = seen.get("unexpected_percent")
    details = seen.get("details")
    return ExpectationOutcome(
        check_name=spec.check_name,
        passed=passed,
        severity=spec.severity,
        observed=readable(observed) if not isinstance(observed, list) else [readable(v) for v in observed],
        unexpected_count=None if count is None else int(count),
        element_count=None if seen.get("element_count") is None else int(seen["element_count"]),
        unexpected_percent=None if percent is None else float(percent),
        sample_rows=sample,
        description=spec.description,
        notes=spec.notes,
        details={name: value for name, value in details.items() if name != "values"}
        if isinstance(details, dict)
        else {},
        values=values,
    )


def readable(value: Any) -> Any:
    """A value as JSON can hold it: null for everything missing, ISO 8601 for times, numbers as numbers."""
    import numpy as np
    import pandas as pd

    if isinstance(value, list | tuple | dict | np.ndarray):
        return json.dumps(value, default=str, ensure_ascii=False) if not isinstance(value, np.ndarray) else str(value)
    if value is None or value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None if np.isnan(value) else str(value)
    if isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _document(gx_result: Any, outcomes: list[ExpectationOutcome]) -> dict[str, Any]:
    """The result as Great Expectations stores it, with the failing rows in words instead of a frame."""
    by_name = {outcome.check_name: outcome for outcome in outcomes}
    for result in gx_result.results:
        outcome = by_name[result.expectation_config.meta["check_name"]]
        result.result.pop("unexpected_rows", None)
        result.result.pop("details", None)
        if "partial_unexpected_list" in result.result:
            result.result["partial_unexpected_list"] = [row_in_words(row) for row in outcome.sample_rows]
    # The batch's fingerprint and ids are random per run and say nothing about the rows.
    gx_result.meta = {"great_expectations_version": gx_result.meta["great_expectations_version"]}
    return cast("dict[str, Any]", gx_result.to_json_dict())
