"""Expectations about single columns and pairs of columns.

Belongs here: what holds row by row and needs no knowledge of features. Does not belong here: anything that
Great Expectations already has (uniqueness, nulls, sets, ranges of numbers): use theirs in the suites.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from great_expectations.core.suite_parameters import SuiteParameterDict

from .rows import RowsExpectation, Unexpected, as_times, frame_metric

# A time or a number that is written into the suite, or passed at validation as {"$PARAMETER": "name"}.
TimeOrParameter = str | SuiteParameterDict


# json.loads spends a third of its time checking its options.
_decode = json.JSONDecoder().decode


def _json_verdicts(column: pd.Series, accept: Callable[[Any], bool]) -> np.ndarray:
    """For each value, does `accept(parsed)` hold? Nulls are accepted; what is not JSON is not.

    Equal texts are parsed once: alerts of one rule often share theirs.
    """
    known: dict[str | bytes, bool] = {}

    def judge(value: Any) -> bool:
        if not isinstance(value, str | bytes):
            return accept(value)
        verdict = known.get(value)
        if verdict is None:
            try:
                verdict = accept(_decode(value if isinstance(value, str) else value.decode()))
            except (ValueError, RecursionError):  # the latter: thousands of brackets in a row
                verdict = False
            known[value] = verdict
        return verdict

    present = column.notna().to_numpy()
    verdicts = np.ones(len(column), dtype=bool)
    verdicts[present] = [judge(value) for value in column[present].tolist()]
    return verdicts


@frame_metric("heed.json_objects", "column")
def find_values_that_are_not_json_objects(frame: pd.DataFrame, *, column: str) -> Unexpected:
    """Values that are neither null, nor a dictionary, nor the text of a JSON object."""
    return Unexpected(~_json_verdicts(frame[column], lambda value: isinstance(value, dict)), columns=(column,))


class ExpectColumnValuesToBeJsonObjects(RowsExpectation):
    """Expect each value to be a JSON object (`{...}`), as text or already parsed. Nulls pass.

    Stricter than `expect_column_values_to_be_json_parseable`: a number, a string or an array is JSON too, but
    features read attributes by name.

    Args:
        column (str): The column.
    """

    column: str
    metric_dependencies = ("heed.json_objects",)
    success_keys = ("column",)
    args_keys = ("column",)


@frame_metric("heed.json_text_arrays", "column", "min_items", "max_items")
def find_values_that_are_not_arrays_of_texts(
    frame: pd.DataFrame, *, column: str, min_items: int = 0, max_items: int | None = None
) -> Unexpected:
    """Values that are not a JSON array of non-blank texts, of the length asked for. Null counts as
    unexpected."""

    def accept(value: Any) -> bool:
        if isinstance(value, np.ndarray):
            value = value.tolist()
        return (
            isinstance(value, list | tuple)
            and min_items <= len(value) <= (len(value) if max_items is None else max_items)
            and all(isinstance(item, str) and item.strip() for item in value)
        )

    missing = frame[column].isna().to_numpy()
    return Unexpected(missing | ~_json_verdicts(frame[column], accept), columns=(column,))


class ExpectColumnValuesToBeJsonTextArrays(RowsExpectation):
    """Expect each value to be an array of non-blank texts, as JSON text or already parsed. Null does not
    pass.

    Args:
        column (str): The column.
        min_items (int): The fewest texts that an array may hold.
        max_items (int): The most.
    """

    column: str
    min_items: int = 0
    max_items: int | None = None
    metric_dependencies = ("heed.json_text_arrays",)
    success_keys = ("column", "min_items", "max_items")
    args_keys = ("column",)


@frame_metric("heed.finite", "column")
def find_infinite_values(frame: pd.DataFrame, *, column: str) -> Unexpected:
    """Values that are plus or minus infinity. Missing values are not infinite."""
    numbers = pd.to_numeric(frame[column]).to_numpy(dtype="float64", na_value=np.nan)
    return Unexpected(np.isinf(numbers), columns=(column,))


class ExpectColumnValuesToBeFinite(RowsExpectation):
    """Expect each value of a numeric column to be finite. Nulls (and NaN, which is null in pandas) pass.

    Args:
        column (str): The column.
    """

    column: str
    metric_dependencies = ("heed.finite",)
    success_keys = ("column",)
    args_keys = ("column",)


@frame_metric("heed.times_between", "column", "earliest", "latest")
def find_times_outside(
    frame: pd.DataFrame, *, column: str, earliest: str | None = None, latest: str | None = None
) -> Unexpected:
    """Times before `earliest` or after `latest` (both included in what is allowed). Nulls pass."""
    times = as_times(frame[column])
    outside = np.zeros(len(frame), dtype=bool)
    if earliest is not None:
        outside |= (times < pd.Timestamp(earliest)).to_numpy()
    if latest is not None:
        outside |= (times > pd.Timestamp(latest)).to_numpy()
    observed = None if times.isna().all() else f"{times.min().isoformat()} to {times.max().isoformat()}"
    return Unexpected(outside, columns=(column,), observed=observed)


class ExpectColumnTimesToBeBetween(RowsExpectation):
    """Expect each time to lie between two times, both included. Nulls pass.

    Great Expectations' own range expectation compares against numbers and naive datetimes; heed's times all
    carry UTC.

    Args:
        column (str): The column of times.
        earliest (str): ISO 8601 with an offset; or a suite parameter.
        latest (str): ISO 8601 with an offset; or a suite parameter.
    """

    column: str
    earliest: TimeOrParameter | None = None
    latest: TimeOrParameter | None = None
    metric_dependencies = ("heed.times_between",)
    success_keys = ("column", "earliest", "latest")
    args_keys = ("column",)


@frame_metric("heed.times_ordered", "column_A", "column_B", "or_equal", "tolerance_seconds")
def find_times_out_of_order(
    frame: pd.DataFrame,
    *,
    column_A: str,
    column_B: str,
    or_equal: bool = True,
    tolerance_seconds: float = 0.0,
) -> Unexpected:
    """Rows whose time A lies after time B by more than the tolerance (or at it, unless `or_equal`). Nulls
    pass."""
    latest = as_times(frame[column_B]) + pd.Timedelta(seconds=tolerance_seconds)
    earlier = as_times(frame[column_A])
    wrong = (earlier > latest) if or_equal else (earlier >= latest)
    return Unexpected(wrong.to_numpy(), columns=(column_A, column_B))


class ExpectTimesToBeOrdered(RowsExpectation):
    """Expect time A not to lie after time B. A row where either is null passes.

    Args:
        column_A (str): The column that comes first in time.
        column_B (str): The column that comes second.
        or_equal (bool): Whether both may be the same time.
        tolerance_seconds (float): By how much A may lie after B, for clocks that differ.
    """

    column_A: str
    column_B: str
    or_equal: bool = True
    tolerance_seconds: float = 0.0
    metric_dependencies = ("heed.times_ordered",)
    success_keys = ("column_A", "column_B", "or_equal", "tolerance_seconds")
    args_keys = ("column_A", "column_B")


@frame_metric("heed.null_together", "column_list")
def find_rows_null_in_some_columns_only(frame: pd.DataFrame, *, column_list: list[str]) -> Unexpected:
    """Rows where some of the columns are null and others are not."""
    nulls = frame[list(column_list)].isna().to_numpy()
    return Unexpected(nulls.any(axis=1) & ~nulls.all(axis=1), columns=tuple(column_list))


class ExpectColumnsToBeNullTogether(RowsExpectation):
    """Expect the columns to be all null or all present in each row.

    Args:
        column_list (list of str): At least two columns.
    """

    column_list: list[str]
    metric_dependencies = ("heed.null_together",)
    success_keys = ("column_list",)
    args_keys = ("column_list",)


@frame_metric("heed.present_where", "column", "column_where", "value_set")
def find_missing_values_where(
    frame: pd.DataFrame, *, column: str, column_where: str, value_set: list[Any]
) -> Unexpected:
    """Rows whose `column_where` is one of `value_set` and whose `column` is null."""
    concerned = frame[column_where].isin(list(value_set)).to_numpy()
    return Unexpected(concerned & frame[column].isna().to_numpy(), columns=(column, column_where))


class ExpectColumnValuesToBePresentWhere(RowsExpectation):
    """Expect a column to be present in those rows where another column has one of the given values.

    Args:
        column (str): The column that must not be null.
        column_where (str): The column that decides which rows are concerned.
        value_set (list): Its values that do.
    """

    column: str
    column_where: str
    value_set: list[Any]
    metric_dependencies = ("heed.present_where",)
    success_keys = ("column", "column_where", "value_set")
    args_keys = ("column", "column_where")


@frame_metric("heed.enough_of_value", "column", "value", "min_count")
def count_rows_with_value(frame: pd.DataFrame, *, column: str, value: Any, min_count: int) -> Unexpected:
    """How many rows have the value? A question about the frame: no single row is unexpected."""
    count = int((frame[column] == value).sum())
    nothing = np.zeros(len(frame), dtype=bool)
    return Unexpected(nothing, columns=(column,), observed=count, holds=count >= int(min_count))


class ExpectEnoughRowsWithValue(RowsExpectation):
    """Expect at least `min_count` rows to have a given value. The observed value is their number.

    Args:
        column (str): The column.
        value (str, int, float or bool): The value that is counted.
        min_count (int): The fewest rows; or a suite parameter.
    """

    column: str
    value: bool | int | float | str
    min_count: int | SuiteParameterDict
    metric_dependencies = ("heed.enough_of_value",)
    success_keys = ("column", "value", "min_count")
    args_keys = ("column", "value")
