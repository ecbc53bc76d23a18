"""The tables of heed by name: what Python reads from dbt's clean tables, and what it writes back.

Belongs here: the queries, the column order, the transaction in which rows are published.
Does not belong here: connections (`postgres.py`), models (`models.py`), features (`features.py`), and any
computation on the rows (`triage/`).

Time: every reader takes the as-of and returns nothing that was not known then: rows with raised_at < as_of, outcomes
with known_at <= as_of. This is the one place where the warehouse's clock is cut.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.resources.kept_history import KeptHistory
from dagster_project.resources.postgres import RUN_LOCK, Warehouse, append
from dagster_project.resources.watermarks import oldest_in_progress, passed_up_to

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Cursor

HISTORY_COLUMNS = (
    *("alert_id", "raised_at", "rule", "entity", "team", "severity", "value", "threshold", "title", "attributes"),
    *("loaded_at", "known_at", "acted", "horizon_ends_at"),
)
# What flags look at, beside the sources.
FLAGGED_BY = ("alert_id", "raised_at", "rule", "team", "known_at", "acted", "horizon_ends_at")
_CLOSED = """
SELECT alert_id FROM scoring.autoclose_decisions WHERE decision = 'close' AND mode = 'on' AND as_of <= $1
"""
# People may name a source that has too many values to be looked at unasked, and their word wins.
_NAMED_SOURCES = """
SELECT split_part(scope, ' = ', 1) AS name FROM quality.flag_overrides WHERE scope LIKE '% = %'
UNION SELECT where_name FROM quality.flood_days WHERE where_name IS NOT NULL
"""

BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


def read_history(
    warehouse: Warehouse, as_of: datetime, since: datetime = BEGINNING, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Alerts raised in [since, as_of) with their outcomes as known at `as_of`, in order of time and id.

    Of an alert that was decided to be closed nobody knows what would have become of it: its outcome stays unknown.
    The rows come from what is kept beside the warehouse (`kept_history.py`), brought up to date.

    columns : those that are needed, of the ones below, `alert_id` among them; None reads all. Attributes are most of
        the bytes.

    Returns
    -------
    Frame of alert_id, raised_at, rule, entity, team, severity, value, threshold, title, attributes (JSON text),
    loaded_at, known_at (NaT: not known at as_of), acted (1.0, 0.0, nan: not known), horizon_ends_at.
    """
    import pyarrow as pa

    names = list(columns or HISTORY_COLUMNS)
    # What is cut by comes along, whether it is wanted or not.
    table = KeptHistory(warehouse).read(
        since, as_of, list(dict.fromkeys(["alert_id", "raised_at", "known_at", *names]))
    )
    for position, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(position, column.name, table.column(position).cast(pa.string()))
    frame = table.to_pandas(split_blocks=True, self_destruct=True)
    del table
    return _as_known(warehouse, frame, as_of)[names]


def read_fact_changes(warehouse: Warehouse, as_of: datetime) -> pd.DataFrame:
    """Which facts later versions of alerts told otherwise, as known at `as_of`: alert_id, column_name."""
    if warehouse.value("SELECT to_regclass('marts.alert_fact_changes') IS NULL"):
        return pd.DataFrame({"alert_id": pd.Series([], dtype="str"), "column_name": pd.Series([], dtype="str")})
    return warehouse.read(
        "SELECT alert_id, column_name FROM marts.alert_fact_changes WHERE changed_at <= $1 OR changed_at IS NULL",
        (as_of,),
    )


def read_coded_history(
    warehouse: Warehouse, as_of: datetime, since: datetime = BEGINNING, columns: Sequence[str] = FLAGGED_BY
) -> pd.DataFrame:
    """As `read_history`, for flags and histories: texts that recur are categorical. Each attribute that is a source, or
    that an override or a flood names, has a categorical column `@name`; these take the place of `attributes`.

    columns : `alert_id`, `raised_at` and `known_at` among them.
    """
    from dagster_project.triage.floods import FloodSettings

    limit = FloodSettings().attribute_values
    named = set(warehouse.read(_NAMED_SOURCES)["name"])
    table = KeptHistory(warehouse).read_sources(since, as_of, columns, limit, named)
    return _as_known(warehouse, table.unify_dictionaries().to_pandas(), as_of)


def _as_known(warehouse: Warehouse, history: pd.DataFrame, as_of: datetime) -> pd.DataFrame:
    """Outcomes as they were known at a moment."""
    unknown = (history["known_at"] > as_of).to_numpy(dtype=bool, copy=True)
    closed = warehouse.read(_CLOSED, (as_of,))
    if len(closed):
        unknown |= history["alert_id"].isin(closed["alert_id"]).to_numpy()
    for name in ("known_at", "acted"):
        if name in history:
            history[name] = history[name].mask(unknown)
    return history


# As the macro reject_reasons in dbt_project has it.
_OTHER_ALERT = "the id belongs to another alert (raised at another time)"


def shared_ids_in_words(warehouse: Warehouse) -> str:
    """How many rows were rejected because they have the id of another alert, with examples; empty: none."""
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
    some = warehouse.read_arrow(
        "SELECT DISTINCT row_id FROM marts.rejected_rows WHERE source = 'alerts' AND reason = $1 ORDER BY 1 LIMIT 3",
        (_OTHER_ALERT,),
    ).to_pylist()
    examples = ", ".join(row["row_id"][:60] for row in some)
    return (
        f"{rows:,} rows have the id of an alert that was raised at another time, and were rejected ({ids:,} ids, for "
        f"example {examples}). Give alerts an id that is unique, of several columns where none is, and load again"
    )


def unchecked_rows(
    warehouse: Warehouse, table: str, suite: str, expectations: str, witness: str, *, whole: bool = False
) -> tuple[Iterator[pd.DataFrame], bool, int]:
    """The rows of a clean table that were written since all of it passed a suite, told by their transactions (xmin).

    Parameters
    ----------
    table : the qualified table, written by heed's own code.
    expectations : a checksum of what the suite expects; rows that passed something else have not passed.
    witness : a condition. One row that fulfils it, and one row at all, come along, so that what is expected of the
        table as a whole ("some were acted on") is not asked of a few new rows.
    whole : read the whole table in any case.

    Returns
    -------
    rows in parts, at least one; whether they are the whole table; and the transaction up to which the table has passed
    when they do: for `remember_checked`.
    """
    now = oldest_in_progress(warehouse)
    passed = None if whole else passed_up_to(warehouse, suite, expectations)
    is_whole = passed is None
    query, values = f"SELECT * FROM {table}", list[str]()
    if passed is not None:
        query += (
            f" WHERE age(xmin) <= age($1::text::xid) OR ctid IN ("
            f"(SELECT ctid FROM {table} LIMIT 1) UNION (SELECT ctid FROM {table} WHERE {witness} LIMIT 1))"
        )
        values = [str(passed % 2**32)]
    return (part.to_pandas() for part in warehouse.read_parts(query, values)), is_whole, now


def read_influenced(warehouse: Warehouse, as_of: datetime) -> pd.Series:
    """Ids of the alerts whose outcome a shown score may have changed; empty while nobody is seen to act differently.

    Whether people do is what the holdout says (`reporting.score_influence`, at 5% false alarms) as of the newest
    publication; one that is later than `as_of` says nothing here. Without a holdout nothing can be said.
    """
    nobody = pd.Series([], dtype="str", name="alert_id")
    if warehouse.value("SELECT to_regclass('reporting.score_influence') IS NULL"):
        return nobody
    seen = warehouse.value(
        "SELECT bool_or(people_act_differently = 'yes' AND measure = 'acted share') FROM reporting.score_influence "
        "WHERE (SELECT max(as_of) FROM scoring.publications) <= $1",
        (as_of,),
    )
    if not seen:
        return nobody
    return warehouse.read(
        "SELECT alert_id FROM scoring.holdout WHERE arm = 'shown' AND assigned_at <= $1 ORDER BY alert_id", (as_of,)
    )["alert_id"]


def read_rules(warehouse: Warehouse) -> pd.DataFrame:
    """What is declared about rules: rule, title, team, declared_visibility_only, created_at."""
    return warehouse.read(
        "SELECT rule, title, team, declared_visibility_only, created_at FROM marts.rules ORDER BY rule"
    )


def read_overrides(warehouse: Warehouse, as_of: datetime) -> pd.DataFrame:
    """What people had said about flags by `as_of`, with who, why, since when and until when."""
    return warehouse.read(
        "SELECT flag, action, scope_kind, scope, day::text AS day, until, who, why, created_at "
        "FROM quality.flag_overrides WHERE created_at <= $1 ORDER BY created_at, flag, scope",
        (as_of,),
    )


def read_flags(warehouse: Warehouse) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The flags as last published, with the times at which each became known: (flood_days, visibility_only_rules)."""
    from dagster_project.triage.floods import FLOOD_COLUMNS
    from dagster_project.triage.visibility import VISIBILITY_COLUMNS

    flood_days = warehouse.read(
        f"SELECT {', '.join(FLOOD_COLUMNS)} FROM quality.flood_days ORDER BY day, scope_kind, scope, recorded_at"
    )
    flood_days["rules"] = [json.loads(rules) for rules in flood_days["rules"]]
    visibility_only = warehouse.read(
        f"SELECT {', '.join(VISIBILITY_COLUMNS)} FROM quality.visibility_only_rules ORDER BY rule, detected_at"
    )
    return flood_days, visibility_only


def replace_flags(
    warehouse: Warehouse,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    flagged: pd.DataFrame,
    band: pd.DataFrame,
) -> None:
    """Publish the flags as they stand now: all tables in one transaction, the old ones until it commits.

    Parameters
    ----------
    flood_days, visibility_only : as `triage.flags.find_flags` makes them.
    flagged : alert_id, raised_at, flood, visibility_only, reason of the alerts that a flag holds.
    band : as `triage.floods.daily_band` makes it.
    """
    times = ("burst_from", "burst_until", "detected_at", "decided_at", "recorded_at", "superseded_at", "released_at")
    # Casts that change nothing where the type is right, and make a column of unknowns fit.
    casts = {"day": "day::date", "rules": "rules::jsonb", **{name: f"{name}::timestamptz" for name in times}}
    rules = [json.dumps(list(rules), ensure_ascii=False) for rules in flood_days["rules"]]
    floods = flood_days.assign(rules=pd.Series(rules, dtype="str", index=flood_days.index))
    with warehouse.transaction() as cursor:
        for table, rows in (
            ("quality.flood_days", floods),
            ("quality.visibility_only_rules", visibility_only),
            ("quality.flagged_alerts", flagged),
            ("quality.daily_volume_band", band),
        ):
            cursor.execute(f"DELETE FROM {table}")
            append(
                cursor,
                table,
                _arrow(rows),
                columns=", ".join(rows.columns),
                select=", ".join(casts.get(name, name) for name in rows.columns) + " FROM pg_temp.incoming",
            )


# The draw is a number in [0, 1) from a keyed hash: the same for an alert whenever it is asked, independent of what the
# alert says, and not to be foretold without the salt. 52 bits are what a double holds exactly. Alerts that were scored
# before, when nothing was drawn, have been seen with their scores: they never join.
_DRAW = """incoming.alert_id, run_moment.as_of, now(), run_moment.share,
           CASE WHEN ('x' || left(encode(sha256(convert_to(salt || incoming.alert_id, 'UTF8')), 'hex'), 13))
                     ::bit(52)::bigint / 4503599627370496.0 < run_moment.share THEN 'held out' ELSE 'shown' END
    FROM pg_temp.incoming CROSS JOIN pg_temp.run_moment CROSS JOIN scoring.holdout_salt
    WHERE NOT EXISTS (SELECT FROM scoring.alert_scores AS s WHERE s.alert_id = incoming.alert_id)"""


_NEWEST_SCORES = """
SELECT outcomes.alert_id, newest.model_version, newest.probability, newest.status, newest.flood,
       newest.visibility_only
FROM marts.alert_outcomes AS outcomes
CROSS JOIN LATERAL (
    SELECT s.model_version, s.probability, s.status, s.flood, s.visibility_only
    FROM scoring.alert_scores AS s
    WHERE s.alert_id = outcomes.alert_id AND s.as_of <= $1
    ORDER BY s.as_of DESC, s.scored_at DESC LIMIT 1
) AS newest
WHERE outcomes.raised_at BETWEEN $2 AND $3 AND (outcomes.known_at IS NULL OR outcomes.known_at > $1)
"""


def scores_that_differ(warehouse: Warehouse, scores: pd.DataFrame, as_of: datetime) -> np.ndarray:
    """Which of these scores say something that the newest published score of their alert does not say.

    Parameters
    ----------
    scores : as `publish_scores` takes them, of alerts that are open at `as_of`; the reasons are not looked at.

    Returns
    -------
    bool, one per row: what `publish_scores` would add.
    """
    said = ["model_version", "probability", "status", "flood", "visibility_only"]
    raised = scores["raised_at"]
    standing = warehouse.read(_NEWEST_SCORES, (as_of, raised.min(), raised.max()))
    beside = scores[["alert_id", *said]].merge(standing, on="alert_id", how="left", suffixes=("", "_standing"))
    same = np.ones(len(scores), dtype=bool)
    for name in said:
        same &= (beside[name] == beside[f"{name}_standing"]).to_numpy(dtype=bool, na_value=False)
    return ~same


def publish_scores(
    warehouse: Warehouse,
    parts: Iterable[pd.DataFrame],
    as_of: datetime,
    model_version: str | None,
    open_alerts: int,
    holdout_share: float = 0.0,
) -> int:
    """Append the scores that say something new, in one transaction, and return how many were added.

    A score is new when the alert has none yet, or its newest one differs in model version, probability, status or
    flags. Publishing the same scores again therefore adds nothing, and readers see all of a run's scores or none.

    Parameters
    ----------
    parts : frames, perhaps none, of alert_id, raised_at, model_version, probability, status, flood, visibility_only,
        reasons (list of str). One of them at a time stands in memory.
    as_of : the moment at which the scores stand.
    model_version, open_alerts : the model that scored (None: nothing did), and how many open alerts it scored; `parts`
        may hold only those whose score may have changed.
    holdout_share : chance, 0 to 1, that an alert which is scored for the first time is held out: its score is stored
        like any other, and the reporting views do not show it until its outcome is known. 0 draws nothing. The draw is
        logged in `scoring.holdout`, in the same transaction, for alerts of both arms.

    The publication itself is recorded in the same transaction, also when nothing was new: readers tell fresh scores
    from stale ones by it.
    """
    added = 0
    with warehouse.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock($1)", parameters=(RUN_LOCK,))
        cursor.fetchall()
        cursor.execute(
            "CREATE TEMPORARY TABLE run_moment ON COMMIT DROP AS SELECT $1::timestamptz AS as_of, "
            "$2::double precision AS share",
            parameters=(as_of, holdout_share),
        )
        if holdout_share > 0:
            cursor.execute(
                "INSERT INTO scoring.holdout_salt (salt) VALUES (gen_random_uuid()::text || gen_random_uuid()::text) "
                "ON CONFLICT DO NOTHING"
            )
        for scores in parts:
            added += _append_scores(cursor, scores, holdout_share)
        cursor.execute(
            "INSERT INTO scoring.publications (as_of, published_at, model_version, alerts, added) "
            "VALUES ($1, now(), $2, $3, $4)",
            parameters=(as_of, model_version, open_alerts, added),
        )
    return added


def _append_scores(cursor: Cursor, scores: pd.DataFrame, holdout_share: float) -> int:
    if holdout_share > 0:
        append(
            cursor,
            "scoring.holdout",
            _arrow(scores[["alert_id"]]),
            columns="alert_id, assigned_at, logged_at, share, arm",
            select=_DRAW,
            conflict="ON CONFLICT DO NOTHING",
        )
    rows = scores.assign(reasons=[json.dumps(list(reasons), ensure_ascii=False) for reasons in scores["reasons"]])
    return append(
        cursor,
        "scoring.alert_scores",
        _arrow(rows),
        columns="alert_id, raised_at, as_of, scored_at, model_version, probability, status, flood, "
        "visibility_only, reasons",
        select="""incoming.alert_id, incoming.raised_at, run_moment.as_of, now(), incoming.model_version,
                  incoming.probability, incoming.status, incoming.flood, incoming.visibility_only,
                  incoming.reasons::jsonb
           FROM pg_temp.incoming CROSS JOIN pg_temp.run_moment
           LEFT JOIN LATERAL (
               SELECT s.model_version, s.probability, s.status, s.flood, s.visibility_only
               FROM scoring.alert_scores AS s
               WHERE s.alert_id = incoming.alert_id AND s.as_of <= run_moment.as_of
               ORDER BY s.as_of DESC, s.scored_at DESC LIMIT 1
           ) AS newest ON true
           WHERE (newest.model_version, newest.probability, newest.status, newest.flood,
                  newest.visibility_only)
                 IS DISTINCT FROM (incoming.model_version, incoming.probability, incoming.status,
                                   incoming.flood, incoming.visibility_only)""",
    )


def read_held_out(warehouse: Warehouse) -> set[str]:
    """The alerts for which no score is shown until their outcome is known, decided ones included."""
    return set(warehouse.read("SELECT alert_id FROM scoring.holdout WHERE arm = 'held out'")["alert_id"])


def read_first_scores(warehouse: Warehouse, as_of: datetime, since: datetime) -> pd.DataFrame:
    """The first score, given by `as_of`, of each alert raised since: alert_id, raised_at, probability, as_of."""
    return warehouse.read(
        "SELECT DISTINCT ON (alert_id) alert_id, raised_at, probability, as_of FROM scoring.alert_scores "
        "WHERE as_of <= $1 AND raised_at >= $2 ORDER BY alert_id, as_of, scored_at",
        (as_of, since),
    )


def append_monitoring(warehouse: Warehouse, readings: pd.DataFrame, as_of: datetime, model_version: str | None) -> None:
    """Keep readings as `triage.monitoring.Reading.to_row` gives them; missing numbers become null."""
    numbers = ("value", "limit_value", "low", "high")
    with warehouse.transaction() as cursor:
        append(
            cursor,
            "scoring.monitoring",
            _arrow(readings.assign(as_of=pd.Timestamp(as_of), model_version=model_version)),
            columns=", ".join((*readings.columns, "as_of", "model_version", "measured_at")),
            select=", ".join(f"nullif({name}, 'NaN')" if name in numbers else name for name in readings.columns)
            + ", as_of, model_version, now() FROM pg_temp.incoming",
        )


def _arrow(frame: pd.DataFrame) -> pa.Table:
    """The frame for bulk writing; a column in which nothing is known is text, since Arrow's null has no SQL type."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    for position, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(pa.string()))
    return table
