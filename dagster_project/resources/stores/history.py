"""Alerts with their outcomes, as they were known at an as-of.

Belongs here: reading the clean history, cut at the as-of, and what cleaning says about facts and ids of alerts.
Does not belong here: the files it comes from (`history_cache.py`), and any computation on the rows (`triage/`).

Time: every reader takes the as-of and returns only what was known then: rows with raised_at < as_of, outcomes with
known_at <= as_of. This is the only place where history is cut at the as-of.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from dagster_project.resources.stores.history_cache import HistoryCache
from dagster_project.resources.warehouse.connection import Warehouse

HISTORY_COLUMNS = (
    *("alert_id", "raised_at", "rule", "entity", "team", "severity", "value", "threshold", "title", "attributes"),
    *("loaded_at", "known_at", "acted", "horizon_ends_at"),
)
# The columns that flagging reads, in addition to the sources.
FLAGGED_BY = ("alert_id", "raised_at", "rule", "team", "known_at", "acted", "horizon_ends_at")
# What the history of attributes is computed from.
ATTRIBUTES_FROM = (*FLAGGED_BY, "entity", "severity", "attributes")
_CLOSED = """
SELECT alert_id FROM scoring.autoclose_decisions WHERE decision = 'close' AND mode = 'on' AND as_of <= $1
"""
# Sources with too many values are not examined unless a person names them.
_NAMED_SOURCES = """
SELECT split_part(scope, ' = ', 1) AS name FROM quality.flag_overrides WHERE scope LIKE '% = %'
UNION SELECT where_name FROM quality.flood_days WHERE where_name IS NOT NULL
"""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def read_history(
    warehouse: Warehouse, as_of: datetime, since: datetime = BEGINNING, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Alerts raised in [since, as_of) with their outcomes as known at `as_of`, in order of time and id.

    The outcome of an alert that heed decided to close stays unknown: it says nothing about what people would have
    done. The rows come from the history cache, which is refreshed first.

    columns : the columns to read, including `alert_id`; None reads all. Attributes are most of the bytes.

    Returns: Frame of alert_id, raised_at, rule, entity, team, severity, value, threshold, title, attributes (JSON
        text), loaded_at, known_at (NaT: not known at as_of), acted (1.0, 0.0, nan: not known), horizon_ends_at.
    """
    import pyarrow as pa

    names = list(columns or HISTORY_COLUMNS)
    # The columns needed for cutting are read in any case.
    table = HistoryCache(warehouse).read(
        since, as_of, list(dict.fromkeys(["alert_id", "raised_at", "known_at", *names]))
    )
    for position, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(position, column.name, table.column(position).cast(pa.string()))
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    return _as_known(warehouse, frame, as_of)[names]


def read_fact_changes(warehouse: Warehouse, as_of: datetime) -> pd.DataFrame:
    """Facts that differ in later versions of an alert, as known at `as_of`: alert_id, column_name."""
    if warehouse.value("SELECT to_regclass('marts.alert_fact_changes') IS NULL"):
        return pd.DataFrame({"alert_id": pd.Series([], dtype="str"), "column_name": pd.Series([], dtype="str")})
    return warehouse.read(
        "SELECT alert_id, column_name FROM marts.alert_fact_changes WHERE changed_at <= $1 OR changed_at IS NULL",
        (as_of,),
    )


def read_coded_history(
    warehouse: Warehouse, as_of: datetime, since: datetime = BEGINNING, columns: Sequence[str] = FLAGGED_BY
) -> pd.DataFrame:
    """As `read_history`, with recurring texts as categoricals, for flags and history features.

    Each attribute that is a source, or that an override or a flood names, has a categorical column `@name`; these
    replace `attributes`.

    columns : must include `alert_id`, `raised_at` and `known_at`.
    """
    from dagster_project.triage.flags.floods import FloodSettings

    limit = FloodSettings().attribute_values
    always = set(warehouse.read(_NAMED_SOURCES)["name"])
    table = HistoryCache(warehouse).read_sources(since, as_of, columns, limit, always)
    return _as_known(warehouse, table.unify_dictionaries().to_pandas(), as_of)


def _as_known(warehouse: Warehouse, history: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """The history with outcomes that were not known at `as_of` blanked."""
    unknown = (history["known_at"] > as_of).to_numpy(dtype=bool, copy=True)
    closed = warehouse.read(_CLOSED, (as_of,))
    if len(closed):
        unknown |= history["alert_id"].isin(closed["alert_id"]).to_numpy()
    for name in ("known_at", "acted"):
        if name in history:
            history[name] = history[name].mask(unknown)
    return history


# The text in the dbt macro reject_reasons.
_OTHER_ALERT = "the id belongs to another alert (raised at another time)"


def shared_ids_in_words(warehouse: Warehouse) -> str:
    """The number of rows rejected because they have the id of another alert, with examples; empty: none."""
    rows, ids = (
        warehouse.read_arrow(
            "SELECT count(*) AS rows, count(DISTINCT row_id) AS ids FROM marts.rejected_rows "
            "WHERE source = 'alerts' AND reason = $1",
            (_OTHER_ALERT,),
        )
        .to_pylist()[0]
        .values()
    )
    if not rows:
        return ""
    ids_shown = warehouse.read_arrow(
        "SELECT DISTINCT row_id FROM marts.rejected_rows WHERE source = 'alerts' AND reason = $1 ORDER BY 1 LIMIT 3",
        (_OTHER_ALERT,),
    ).to_pylist()
    examples = ", ".join(row["row_id"][:60] for row in ids_shown)
    return (
        f"{rows:,} rows have the id of an alert that was raised at another time, and were rejected ({ids:,} ids, for "
        f"example {examples}). Give alerts a unique id, if necessary from several columns, and load again"
    )
