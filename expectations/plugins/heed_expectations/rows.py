"""The base of heed's expectations: for each row of a frame, is it expected or not?

Belongs here: the machinery that turns a boolean mask over rows into what Great Expectations stores, shows and
renders. Does not belong here: any particular expectation.

To write one, give a function that looks at a frame and returns `Unexpected`, register it as a metric, and
name it::

    @frame_metric("heed.weights_are_positive", "column")
    def find_weights_that_are_not_positive(frame, *, column):
        return Unexpected(frame[column].to_numpy() <= 0, columns=(column,))

    class ExpectWeightsToBePositive(RowsExpectation):
        column: str
        metric_dependencies = ("heed.weights_are_positive",)
        success_keys = ("column",)

Great Expectations registers the class under its name in snake case. Only pandas frames are supported: heed
validates frames that are already in memory.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from great_expectations.core.metric_domain_types import MetricDomainTypes
from great_expectations.core.result_format import ResultFormat
from great_expectations.execution_engine import PandasExecutionEngine
from great_expectations.expectations.expectation import BatchExpectation
from great_expectations.expectations.expectation_configuration import parse_result_format
from great_expectations.expectations.metrics.metric_provider import metric_value
from great_expectations.expectations.metrics.table_metric_provider import TableMetricProvider

from dagster_project.errors import HeedError

T = TypeVar("T")

# How many of the most frequent unexpected values are reported.
MOST_VALUES = 5


@dataclass(frozen=True)
class Unexpected:
    """The unexpected rows of a frame.

    Attributes
    ----------
    mask : bool array, one per row of the frame: True where the row is unexpected.
    columns : the columns to show with a failing row's ids.
    observed : one JSON-able value or short text; shown whether the expectation holds or not.
    holds : for questions about the whole frame, the answer; None means "holds when no row is unexpected".
    details : anything else for the result. Must be JSON-able, except for frames, which the caller takes out.
    """

    mask: np.ndarray
    columns: tuple[str, ...] = ()
    observed: Any = None
    holds: bool | None = None
    details: dict[str, Any] = field(default_factory=dict)


def frame_metric(metric_name: str, *value_keys: str) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Register `look(frame, **kwargs)` as the pandas metric `metric_name`. Two expectations that ask for it with
    equal arguments in one validation get one computation.

    metric_name : unique in the process; start it with `heed.`.
    value_keys : the expectation's fields that the function wants, as keyword arguments; null ones are left out.
    """

    def register(look: Callable[..., T]) -> Callable[..., T]:
        @metric_value(engine=PandasExecutionEngine)
        def _pandas(cls, execution_engine, metric_domain_kwargs, metric_value_kwargs, metrics, runtime_configuration):
            frame, _, _ = execution_engine.get_compute_domain(
                domain_kwargs=metric_domain_kwargs, domain_type=MetricDomainTypes.TABLE
            )
            wanted = metric_value_kwargs or {}
            try:
                return look(frame, **{key: wanted[key] for key in value_keys if wanted.get(key) is not None}), frame
            except HeedError as error:  # must reach the user as it is, not as a crash of GX
                return error, frame

        # Great Expectations registers a metric when its class is created.
        type(
            look.__name__,
            (TableMetricProvider,),
            {
                "__doc__": look.__doc__,
                "metric_name": metric_name,
                "value_keys": tuple(value_keys),
                "_pandas": _pandas,
            },
        )
        return look

    return register


class RowsExpectation(BatchExpectation, ABC):
    """Base class: an expectation about a whole frame that can name each unexpected row.

    A subclass sets `metric_dependencies` to one metric made with `frame_metric`, declares its arguments as
    fields and repeats their names in `success_keys`. Results look like those of Great Expectations' own map
    expectations (`element_count`, `unexpected_count`, `unexpected_percent`, `partial_unexpected_list`, and
    `unexpected_rows` when the result format asks for it), with `observed_value` and `details` where a metric
    gives them.
    """

    domain_keys: ClassVar[tuple[str, ...]] = ("batch_id",)

    @classmethod
    def is_abstract(cls) -> bool:
        """Without a metric there is nothing to register."""
        return not cls.metric_dependencies

    def find(self, value: Any, frame: pd.DataFrame) -> Unexpected:
        """The unexpected rows, from the metric's value. By default that is the value itself."""
        return value

    def _validate(self, metrics, runtime_configuration=None, execution_engine=None):
        asked = parse_result_format(self._get_result_format(runtime_configuration=runtime_configuration))
        value, frame = metrics[self.metric_dependencies[0]]
        if isinstance(value, HeedError):
            return {"success": False, "result": {"details": {"error": value}}}
        unexpected = self.find(value, frame)
        # A mask of the wrong length would silently point at the wrong rows.
        if len(unexpected.mask) != len(frame):
            raise ValueError(f"{type(self).__name__} looked at {len(frame)} rows and returned {len(unexpected.mask)}")
        count = int(unexpected.mask.sum())
        success = count == 0 if unexpected.holds is None else bool(unexpected.holds)
        if asked["result_format"] == ResultFormat.BOOLEAN_ONLY:
            return {"success": success}
        limit = None if asked["result_format"] == ResultFormat.COMPLETE else asked["partial_unexpected_count"]
        where = np.flatnonzero(unexpected.mask)[:limit]
        shown = list(unexpected.columns) or list(frame.columns)
        result: dict[str, Any] = {
            "element_count": len(frame),
            "unexpected_count": count,
            "unexpected_percent": 100.0 * count / len(frame) if len(frame) else None,
            "partial_unexpected_list": frame[shown].iloc[where[:20]].astype(str).to_dict("records"),
            "details": {"columns": list(unexpected.columns), **unexpected.details},
        }
        if count and unexpected.columns:
            held = frame[unexpected.columns[0]].iloc[np.flatnonzero(unexpected.mask)].value_counts(dropna=False)
            result["details"]["values"] = list(held.head(MOST_VALUES).items())
        if unexpected.observed is not None:
            result["observed_value"] = unexpected.observed
        if asked["include_unexpected_rows"]:
            result["unexpected_rows"] = frame.iloc[where]
        return {"success": success, "result": result}


def as_times(column: pd.Series) -> pd.Series:
    """The column as `datetime64[us, UTC]`; texts are parsed, a column of nulls only becomes a column of
    missing times.

    Raises ValueError: a text that is not a time; reading it as missing would let a check pass on invalid data.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        return column
    return pd.to_datetime(column, utc=True).astype("datetime64[us, UTC]")
