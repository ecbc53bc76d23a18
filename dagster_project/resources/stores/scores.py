"""Published scores: append-only, in one transaction.

Belongs here: publishing scores, the holdout's draw, monitoring's rows.
Does not belong here: how a score is computed (`triage/pipeline.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dagster_project.resources.warehouse.connection import Warehouse, append
from dagster_project.resources.warehouse.locks import PUBLISH_LOCK

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Cursor


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
        cursor.execute("SELECT pg_advisory_xact_lock($1)", parameters=(PUBLISH_LOCK,))
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
            to_arrow(scores[["alert_id"]]),
            columns="alert_id, assigned_at, logged_at, share, arm",
            select=_DRAW,
            conflict="ON CONFLICT DO NOTHING",
        )
    rows = scores.assign(reasons=[json.dumps(list(reasons), ensure_ascii=False) for reasons in scores["reasons"]])
    return append(
        cursor,
        "scoring.alert_scores",
        to_arrow(rows),
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
            to_arrow(readings.assign(as_of=pd.Timestamp(as_of), model_version=model_version)),
            columns=", ".join((*readings.columns, "as_of", "model_version", "measured_at")),
            select=", ".join(f"nullif({name}, 'NaN')" if name in numbers else name for name in readings.columns)
            + ", as_of, model_version, now() FROM pg_temp.incoming",
        )


def to_arrow(frame: pd.DataFrame) -> pa.Table:
    """The frame for bulk writing; a column in which nothing is known is text, since Arrow's null has no SQL type."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    for position, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(pa.string()))
    return table
