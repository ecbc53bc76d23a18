"""Running Great Expectations suites on frames, and building their Data Docs.

Belongs here: reading the suites in `expectations/suites`, validating a frame in memory, results in heed's own
words, storing results, the static Data Docs site.
Does not belong here: what is expected (the suites), custom expectations (`expectations/plugins`), and Dagster
(`checks.py`).

Great Expectations takes 6 to 10 seconds to import, so it is imported inside the functions that need it:
names, descriptions and severities come straight from the JSON. Each validation uses an ephemeral context,
because several processes on one file context corrupt it.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import html
import importlib.util
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core import ExpectationSuite

PROJECT = Path(__file__).resolve().parents[2] / "expectations"
PLUGINS = "heed_expectations"
SAMPLE_ROWS = 10
SHOWN_VALUES = 5  # in a line that people read on a screen or in a message
# Runs whose results are kept per suite. Data Docs show them all; 20 runs of 9 suites build in a few seconds.
KEPT_RESULTS = 20

Severity = Literal["critical", "warning"]


class ExpectationCrashed(RuntimeError):
    """An expectation could not be evaluated. This is a bug or a wrong frame, and says nothing about the
    rows."""


class ExpectationsFailed(HeedError):
    """A critical expectation does not hold: what was about to be used or published must not be."""


@dataclass(frozen=True)
class CheckSpec:
    """One expectation as its readers know it; `check_name` is unique in its suite and a valid Dagster
    name."""

    check_name: str
    description: str
    severity: Severity
    notes: str
    expectation_type: str

    def __iter__(self) -> Iterator[str]:
        """`check_name, description, severity = spec`"""
        return iter((self.check_name, self.description, self.severity))


@dataclass(frozen=True)
class ExpectationOutcome:
    """How one expectation fared on one frame.

    Attributes
    ----------
    check_name, description, notes, severity : as in the suite.
    passed : whether it holds.
    observed : what was seen, where the expectation says so; else None.
    element_count, unexpected_count : rows looked at and unexpected ones; None for expectations about whole
        frames.
    unexpected_percent : 0 to 100, of the rows that the expectation is about (null values are usually left
        out).
    sample_rows : up to 10 unexpected rows: the ids and the columns concerned.
    values : up to 5 unexpected values of the first column concerned, the most frequent first, with how many rows hold
        each; empty where no value is held by two rows.
    details : what else the expectation gives, such as the table of flags.
    """

    check_name: str
    passed: bool
    severity: Severity
    observed: Any
    unexpected_count: int | None
    element_count: int | None
    unexpected_percent: float | None
    sample_rows: list[dict[str, Any]]
    description: str
    notes: str = ""
    details: dict[str, Any] = field(repr=False, compare=False, default_factory=dict)
    values: list[tuple[Any, int]] = field(default_factory=list)

    @property
    def critical_failure(self) -> bool:
        return not self.passed and self.severity == "critical"

    def in_words(self) -> str:
        """One line: the check, how many rows, which values, which rows."""
        if self.passed:
            return f"{self.check_name} holds"
        line = f"{self.check_name} ({self.severity})"
        if self.unexpected_count:
            line += f": {self.unexpected_count:,} of {self.element_count:,} rows"
            if self.values and self.values[0][1] > 1:  # else the sample rows say it
                line += f" ({', '.join(f'{value_in_words(value)}: {count:,}' for value, count in self.values)})"
            if self.sample_rows:
                shown = "; ".join(row_in_words(row) for row in self.sample_rows[:3])
                line += f", such as {shown}" if self.unexpected_count > 3 else f": {shown}"
        elif self.observed is not None:
            line += f": observed {_short(self.observed)}"
        return line


@dataclass(frozen=True)
class SuiteResult:
    """How a suite fared on one frame. `passed` means that every expectation holds, warnings included."""

    suite_name: str
    validated_at: datetime
    rows: int
    results: list[ExpectationOutcome]
    document: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def passed(self) -> bool:
        return all(outcome.passed for outcome in self.results)

    @property
    def failures(self) -> list[ExpectationOutcome]:
        return [outcome for outcome in self.results if not outcome.passed]

    @property
    def critical_failures(self) -> list[ExpectationOutcome]:
        return [outcome for outcome in self.results if outcome.critical_failure]

    def in_words(self) -> str:
        """One line that names what failed, critical first, and which rows."""
        if self.passed:
            return f"{self.suite_name}: all {len(self.results)} expectations hold on {self.rows:,} rows"
        worst_first = sorted(self.failures, key=lambda outcome: outcome.severity != "critical")
        what = "; ".join(outcome.in_words() for outcome in worst_first)
        return f"{self.suite_name}: {len(worst_first)} of {len(self.results)} expectations failed: {what}"

    def raise_if_critical(self) -> None:
        """Stop here when a critical expectation fails. Raises `ExpectationsFailed`, which names the rows."""
        if self.critical_failures:
            words = "; ".join(outcome.in_words() for outcome in self.critical_failures)
            raise ExpectationsFailed(
                f"{self.suite_name} stopped the run: {words}",
                f"mend these rows at their source, or correct expectations/suites/{self.suite_name}.json "
                "if they are right",
            )


# --------------------------------------------------------------------------------------------- suites as JSON


def suite_names() -> list[str]:
    """The names of all suites, in order."""
    return sorted(path.stem for path in (PROJECT / "suites").glob("*.json"))


@lru_cache
def _suite_text(name: str) -> str:
    path = PROJECT / "suites" / f"{name}.json"
    if path.parent != PROJECT / "suites" or not path.is_file():
        near = difflib.get_close_matches(name, suite_names(), n=1)
        raise HeedError(
            f"there is no expectation suite {name!r}" + (f" (did you mean {near[0]!r}?)" if near else ""),
            f"name one of: {', '.join(suite_names())}",
        )
    return path.read_text(encoding="utf-8")


def suite_document(name: str) -> dict[str, Any]:
    """The suite's JSON as it stands in `expectations/suites/<name>.json`; `HeedError` when there is none."""
    try:
        return cast("dict[str, Any]", json.loads(_suite_text(name)))
    except ValueError as error:
        raise HeedError(
            f"expectations/suites/{name}.json is not JSON ({error})", "correct the file, or restore it"
        ) from error


def check_specs(suite_name: str) -> list[CheckSpec]:
    """The expectations of a suite, in its order, without importing Great Expectations.

    Each unpacks as `(check_name, description, severity)`.
    """
    specs = [
        CheckSpec(
            check_name=entry["meta"]["check_name"],
            description=entry["description"],
            severity=entry["severity"],
            notes=entry["notes"],
            expectation_type=entry["type"],
        )
        for entry in suite_document(suite_name)["expectations"]
    ]
    names = [spec.check_name for spec in specs]
    for name in names:
        if names.count(name) > 1 or not re.fullmatch(r"[A-Za-z0-9_]+", name):
            raise HeedError(
                f"the check name {name!r} in expectations/suites/{suite_name}.json is invalid or not unique",
                "give each expectation its own meta.check_name of letters, digits and underscores",
            )
    return specs


def suite_checksum(name: str) -> str:
    """A checksum of what a suite expects: another one when its file changes."""
    return hashlib.sha256(_suite_text(name).encode()).hexdigest()[:16]


def required_columns(suite_name: str) -> list[str]:
    """The columns that the suite names, in order of first use. Families found by name pattern are not among
    them."""
    columns: dict[str, None] = {}
    for entry in suite_document(suite_name)["expectations"]:
        columns.update(dict.fromkeys(_columns_of(entry["kwargs"])))
    return list(columns)


def required_parameters(suite_name: str) -> set[str]:
    """The names of the parameters (`{"$PARAMETER": name}`) that the suite uses, defaults or not."""
    return set(re.findall(r'"\$PARAMETER":\s*"(\w+)"', _suite_text(suite_name)))


def _columns_of(kwargs: Mapping[str, Any]) -> list[str]:
    """The columns an expectation names. Every argument that names columns starts with `column`, theirs and
    ours."""
    named: list[str] = []
    for key, value in kwargs.items():
        if key.startswith("column"):
            named += [value] if isinstance(value, str) else [item for item in value if isinstance(item, str)]
    return named


def default_parameters() -> dict[str, Any]:
    """What parameters mean when nobody says otherwise. `cut` has no default: a forgotten cut must not pass as
    now."""
    return {
        "as_of": datetime.now(UTC).isoformat(),
        # Fewer acted alerts than this and a model does worse than the best simple rule.
        "minimum_acted": 50,
        "minimum_not_acted": 50,
        "flood_settings": {},
        "visibility_settings": {},
        "rules": [],
        "overrides": [],
    }


# -------------------------------------------------------------------------- Great Expectations, imported late


_import_lock = threading.Lock()


def _gx() -> Any:
    """Great Expectations with heed's expectations registered, silent and offline. Takes seconds the first
    time."""
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

    Raises
    ------
    HeedError : no such suite, or an expectation in it is not valid. (Great Expectations only logs the latter
        and goes on without the expectation: a check would silently disappear.)
    """
    gx = _gx()
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

    Parameters
    ----------
    frame : the rows. Columns that the suite names must exist; others do no harm. Not changed.
    id_columns : what names a row to a reader; those the frame lacks are left out.
    parameters : values for the suite's parameters (times as ISO 8601 text or datetime), over
        `default_parameters`.

    Returns
    -------
    SuiteResult with one outcome per expectation, in the suite's order.

    Raises
    ------
    HeedError : the frame lacks a column, or a parameter is missing or unknown.
    ExpectationCrashed : an expectation could not be evaluated. A crash is never reported as a failed
        expectation.
    """
    _require_columns(suite_name, frame)
    given = _parameters_for(suite_name, parameters or {})
    suite = load_suite(suite_name)
    validated_at = datetime.now(UTC)
    gx_result = _run(suite, frame, given)
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
    """As `validate`, on rows that come in parts, at least one, so that all of them never stand in memory at once.

    What is expected of each row must hold in every part; counts are summed. What is expected of the rows as a whole
    (enough of them, some that were acted on) must hold in one. That a value is unique is looked at within a part: where
    there may be several, the table itself must see to it.
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
    # Where no row is to blame, it is about the rows as a whole.
    told = [outcome for outcome in outcomes if outcome.passed != bool(unexpected)] or list(outcomes)
    observed = [outcome.observed for outcome in outcomes]
    return replace(
        told[0],
        observed=sum(observed) if all(type(value) is int for value in observed) else told[0].observed,
        unexpected_count=unexpected,
        element_count=looked_at,
        unexpected_percent=100 * unexpected / looked_at if unexpected is not None and looked_at else None,
        sample_rows=[row for outcome in outcomes for row in outcome.sample_rows][:SAMPLE_ROWS],
        values=_most_frequent(outcome.values for outcome in outcomes),
    )


def _most_frequent(parts: Iterable[list[tuple[Any, int]]]) -> list[tuple[Any, int]]:
    """Values of several parts as one list: the most frequent first, then in order of their appearance."""
    counts: dict[Any, int] = {}
    for value, count in (each for part in parts for each in part):
        counts[value] = counts.get(value, 0) + count
    return sorted(counts.items(), key=lambda each: -each[1])[:SHOWN_VALUES]


@dataclass(frozen=True)
class FoundFlags:
    """The flags as Great Expectations found them.

    Attributes
    ----------
    flood_days, visibility_only_rules : the tables, as `triage.flags.find_flags` makes them.
    alerts : the flags of each alert, as `triage.exclusion.flag_alerts` gives them from the two tables.
    result : the validation of the suite `alert_volume`; its unexpected rows are the flagged alerts.
    """

    flood_days: pd.DataFrame
    visibility_only_rules: pd.DataFrame
    alerts: pd.DataFrame
    result: SuiteResult


def find_flags(
    history: pd.DataFrame,
    rules: pd.DataFrame | None,
    as_of: datetime,
    flood_settings: Any = None,
    visibility_settings: Any = None,
    overrides: pd.DataFrame | None = None,
) -> FoundFlags:
    """What is unexpected in a history: `triage.flags.find_flags`, asked through the suite `alert_volume`.

    Parameters
    ----------
    history, rules, as_of, overrides : as `triage.flags.find_flags` takes them.
    flood_settings, visibility_settings : the dataclasses of the same names in `triage`, or None.

    What the expectations find unexpected *is* the flag: counts and sample rows in `result` are those of the alerts
    that `triage.exclusion.flag_alerts` flags by the two tables.
    """
    if rules is not None and "declared_visibility_only" in rules:
        # Thousands of rules that declare nothing would travel through every copy that is made of the parameters.
        rules = rules[rules["declared_visibility_only"].notna() & (rules["declared_visibility_only"] != False)]  # noqa: E712
    result = validate(
        "alert_volume",
        history,
        parameters={
            "as_of": as_of,
            "flood_settings": {} if flood_settings is None else asdict(flood_settings),
            "visibility_settings": {} if visibility_settings is None else asdict(visibility_settings),
            "rules": _records(rules),
            "overrides": _records(overrides),
        },
    )
    details = {outcome.check_name: outcome.details for outcome in result.results}
    floods, rules_told = details["daily_volume_within_seasonal_band"], details["rules_are_acted_on"]
    return FoundFlags(floods["table"], rules_told["table"], floods["alerts"], result)


def _records(frame: pd.DataFrame | None) -> list[dict[str, Any]]:
    """Rows as JSON can hold them: parameters travel as JSON."""
    if frame is None:
        return []
    return [{str(k): _readable(v) for k, v in row.items()} for row in frame.to_dict("records")]


def _require_columns(suite_name: str, frame: pd.DataFrame) -> None:
    columns = [str(column) for column in frame.columns]
    for entry in suite_document(suite_name)["expectations"]:
        for column in _columns_of(entry["kwargs"]):
            if column not in columns:
                near = difflib.get_close_matches(column, columns, n=1)
                raise HeedError(
                    f"the rows for suite {suite_name!r} lack the column {column!r}"
                    + (f" (nearest: {near[0]!r})" if near else "")
                    + f", which its check {entry['meta']['check_name']!r} is about",
                    "bring the column, or take the check out of the suite",
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
    all failing rows: 1.7 times as slow on 200,000 rows, and nobody reads it."""
    from great_expectations.data_context import set_context

    context = _gx().get_context(mode="ephemeral")
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
        # Great Expectations keeps its newest context for everybody, and with it the frame and every metric of it.
        set_context(None)


def _raise_on_crash(suite_name: str, spec: CheckSpec, result: Any) -> None:
    """Great Expectations reports an exception as an unsuccessful expectation, under one of two shapes. What a user
    can mend comes through the details, as it was raised."""
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
        about = [*_columns_of(result.expectation_config.kwargs), *details.get("columns", [])]
        shown = [c for c in dict.fromkeys([*id_columns, *about]) if c in rows.columns] or list(rows.columns)[:8]
        sample = [
            {str(column): _readable(value) for column, value in row.items()}
            for row in rows[shown].head(SAMPLE_ROWS).to_dict("records")
        ]
        concerned = [column for column in about if column in rows.columns and column not in id_columns]
        if concerned:
            # Rows are a sample where there are many; heed's own expectations count all of them.
            held = details.get("values")
            if held is None and len(rows) == count:
                held = rows[concerned[0]].value_counts(dropna=False).head(SHOWN_VALUES).items()
            values = [(_readable(value), int(number)) for value, number in held or []]
    percent = seen.get("unexpected_percent")
    details = seen.get("details")
    return ExpectationOutcome(
        check_name=spec.check_name,
        passed=passed,
        severity=spec.severity,
        observed=_readable(observed) if not isinstance(observed, list) else [_readable(v) for v in observed],
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


def _readable(value: Any) -> Any:
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


def _short(value: Any, limit: int = 80) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def value_in_words(value: Any) -> str:
    """A value as part of one line, shortened to 40 characters."""
    if value is None:
        return "null"
    return repr(value[:40]) if isinstance(value, str) and not value.strip() else _short(value, 40)


def row_in_words(row: Mapping[str, Any]) -> str:
    """A row as part of one line: column=value, each value shortened."""
    return ", ".join(f"{column}={value_in_words(value)}" for column, value in row.items())


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


# -------------------------------------------------------------------------------------------------- Data Docs


def store_result(result: SuiteResult, directory: Path) -> Path:
    """Keep a result for Data Docs, as `<directory>/results/<suite>/<time>.json`; the oldest beyond 20 are
    removed.

    The file appears whole or not at all. Returns its path.
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
    gx = _gx()
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
            made_at = datetime.strptime(path.stem, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
            result = schema.load(document)
            run_id = RunIdentifier(run_name=made_at.isoformat(timespec="seconds"), run_time=made_at)
            result.meta["run_id"] = run_id
            key = ValidationResultIdentifier(
                expectation_suite_identifier=ExpectationSuiteIdentifier(name=name),
                run_id=run_id,
                batch_identifier=name,
            )
            context.validation_results_store.set(key, result)
    context.build_data_docs()


def _escaped(value: Any) -> Any:
    """All texts in a JSON value as they may stand in HTML: Great Expectations writes values into its pages as they
    are, and an alert's title or rule may be anything."""
    if isinstance(value, str):
        return html.escape(value)
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    return value


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file. The system releases it when the process ends, however it ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
