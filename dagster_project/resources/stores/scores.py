"""Published scores: append-only, each publication in one transaction.

Belongs here: publishing and reading scores, recording what a publication changed, drawing the holdout, storing
monitoring readings.
Does not belong here: how a score is computed (`triage/pipeline.py`), giving changes out (`serving/api/changes.py`).
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
    """Ids of the alerts whose outcome a shown score may have changed; empty unless people act differently on them.

    The holdout tells whether they do (`reporting.score_influence`, at 5% false alarms) as of the newest publication,
    which is ignored if it is later than `as_of`. Without a holdout, the result is empty.
    """
    none = pd.Series([], dtype="str", name="alert_id")
    if warehouse.value("SELECT to_regclass('reporting.score_influence') IS NULL"):
        return none
    is_influenced = warehouse.value(
        "SELECT bool_or(people_act_differently = 'yes' AND measure = 'acted share') FROM reporting.score_influence "
        "WHERE (SELECT max(as_of) FROM scoring.publications) <= $1",
        (as_of,),
    )
    if not is_influenced:
        return none
    return warehouse.read(
        "SELECT alert_id FROM scoring.holdout WHERE arm = 'shown' AND assigned_at <= $1 ORDER BY alert_id", (as_of,)
    )["alert_id"]


# The draw is a number in [0, 1) from a keyed hash: always the same for an alert, independent of its facts, and
# unpredictable without the salt. A double holds its 52 bits exactly. Alerts that were scored before draws began were
# shown with their scores, so they are never drawn.
_DRAW = """incoming.alert_id, this_run.as_of, now(), this_run.share,
           CASE WHEN ('x' || left(encode(sha256(convert_to(salt || incoming.alert_id, 'UTF8')), 'hex'), 13))
                     ::bit(52)::bigint / 4503599627370496.0 < this_run.share THEN 'held out' ELSE 'shown' END
    FROM pg_temp.incoming CROSS JOIN pg_temp.this_run CROSS JOIN scoring.holdout_salt
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
    """Which of these scores differ from the newest published score of their alert.

    scores : as for `publish_scores`, of alerts that are open at `as_of`; reasons are not compared.
    Returns: bool, one per row: what `publish_scores` would add.
    """
    compared = ["model_version", "probability", "status", "flood", "visibility_only"]
    raised = scores["raised_at"]
    newest = warehouse.read(_NEWEST_SCORES, (as_of, raised.min(), raised.max()))
    both = scores[["alert_id", *compared]].merge(newest, on="alert_id", how="left", suffixes=("", "_newest"))
    same = np.ones(len(scores), dtype=bool)
    for name in compared:
        same &= (both[name] == both[f"{name}_newest"]).to_numpy(dtype=bool, na_value=False)
    return ~same


def publish_scores(
    warehouse: Warehouse,
    parts: Iterable[pd.DataFrame],
    as_of: datetime,
    model_version: str | None,
    open_alerts: int,
    holdout_share: float = 0.0,
) -> int:
    """Append the scores that are new or changed, in one transaction, and return how many were added.

    A score is new when the alert has none yet, or its newest one differs in model version, probability, status or
    flags. Publishing the same scores again therefore adds nothing, and readers see all of a run's scores or none.

    parts : frames, perhaps none, of alert_id, raised_at, model_version, probability, status, flood, visibility_only,
        reasons (list of str). One part is in memory at a time.
    as_of : the as-of of the scores.
    model_version, open_alerts : the model that scored (None: none), and how many open alerts it scored; `parts` may
        contain only those whose score may have changed.
    holdout_share : chance, 0 to 1, that an alert is held out when it is first scored: its score is stored like any
        other, and the reporting views hide it until its outcome is known. 0 draws nothing. The draw is logged in
        `scoring.holdout`, in the same transaction, for both arms.

    The same transaction records the publication, even if no score is new: it tells readers how fresh scores are. It
    also records which alerts changed for those who pull, by score or by outcome, since the last publication.
    """
    added = 0
    with warehouse.transaction() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock($1)", parameters=(PUBLISH_LOCK,))
        cursor.fetchall()
        cursor.execute(
            "CREATE TEMPORARY TABLE this_run ON COMMIT DROP AS SELECT $1::timestamptz AS as_of, "
            "$2::double precision AS share",
            parameters=(as_of, holdout_share),
        )
        cursor.execute("CREATE TEMPORARY TABLE added (alert_id text) ON COMMIT DROP")
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
        _record_changes(cursor)
    return added


# Positions follow the order of commits, whatever the clocks say: each publication holds PUBLISH_LOCK until it has
# committed, and takes the numbers after the last one that it sees. `changed` are the alerts with a score of this
# publication, unless they have one of a later as-of; and those whose outcome differs from what was last recorded. That
# compares all scored alerts, so it also finds what an earlier run decided and did not come to publish.
_CHANGES = """
WITH changed AS (
    {changed}
    UNION
    SELECT known.alert_id FROM scoring.alert_changes AS known
    LEFT JOIN marts.alert_outcomes AS outcomes ON outcomes.alert_id = known.alert_id
    WHERE (outcomes.alert_id IS NULL, outcomes.outcome, outcomes.known_at)
          IS DISTINCT FROM (known.change = 'gone', known.outcome, known.known_at)
),
recorded AS (
    INSERT INTO scoring.alert_changes (alert_id, position, change, outcome, known_at)
    SELECT changed.alert_id,
           (SELECT coalesce(max(last_position), 0) FROM scoring.change_marks)
               + row_number() OVER (ORDER BY changed.alert_id),
           CASE WHEN outcomes.alert_id IS NULL THEN 'gone' WHEN outcomes.outcome IS NOT NULL THEN 'decided'
                WHEN known.outcome IS NOT NULL THEN 'reopened' ELSE 'scored' END,
           outcomes.outcome, outcomes.known_at
    FROM changed
    LEFT JOIN marts.alert_outcomes AS outcomes ON outcomes.alert_id = changed.alert_id
    LEFT JOIN scoring.alert_changes AS known ON known.alert_id = changed.alert_id
    ON CONFLICT (alert_id) DO UPDATE SET position = excluded.position, change = excluded.change,
        outcome = excluded.outcome, known_at = excluded.known_at
    RETURNING position
)
INSERT INTO scoring.change_marks (last_position) SELECT max(position) FROM recorded HAVING count(*) > 0
"""
_ADDED = """SELECT added.alert_id FROM pg_temp.added AS added CROSS JOIN pg_temp.this_run
    WHERE NOT EXISTS (
        SELECT FROM scoring.alert_scores AS s WHERE s.alert_id = added.alert_id AND s.as_of > this_run.as_of)"""
# The first time, also where an earlier version of heed published scores and recorded no changes.
_EVERY = """SELECT outcomes.alert_id FROM marts.alert_outcomes AS outcomes
    WHERE EXISTS (SELECT FROM scoring.alert_scores AS s WHERE s.alert_id = outcomes.alert_id)"""


def _record_changes(cursor: Cursor) -> None:
    cursor.execute("SELECT to_regclass('marts.alert_outcomes') IS NOT NULL, EXISTS (SELECT FROM scoring.change_marks)")
    is_cleaned, is_begun = cursor.fetchone() or (False, False)
    if is_cleaned:
        cursor.execute("ANALYZE pg_temp.added")
        cursor.execute(_CHANGES.format(changed=_ADDED if is_begun else _EVERY))


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
        select="""incoming.alert_id, incoming.raised_at, this_run.as_of, now(), incoming.model_version,
                  incoming.probability, incoming.status, incoming.flood, incoming.visibility_only,
                  incoming.reasons::jsonb
           FROM pg_temp.incoming CROSS JOIN pg_temp.this_run
           LEFT JOIN LATERAL (
               SELECT s.model_version, s.probability, s.status, s.flood, s.visibility_only
               FROM scoring.alert_scores AS s
               WHERE s.alert_id = incoming.alert_id AND s.as_of <= this_run.as_of
               ORDER BY s.as_of DESC, s.scored_at DESC LIMIT 1
           ) AS newest ON true
           WHERE (newest.model_version, newest.probability, newest.status, newest.flood,
                  newest.visibility_only)
                 IS DISTINCT FROM (incoming.model_version, incoming.probability, incoming.status,
                                   incoming.flood, incoming.visibility_only)""",
        keep="alert_id",
    )


def read_held_out(warehouse: Warehouse) -> set[str]:
    """The alerts that were held out, including those whose outcome is known by now."""
    return set(warehouse.read("SELECT alert_id FROM scoring.holdout WHERE arm = 'held out'")["alert_id"])


def read_first_scores(warehouse: Warehouse, as_of: datetime, since: datetime) -> pd.DataFrame:
    """The first score up to `as_of` of each alert raised since `since`: alert_id, raised_at, probability, as_of,
    flagged (flood or visibility-only as known then)."""
    return warehouse.read(
        "SELECT DISTINCT ON (alert_id) alert_id, raised_at, probability, as_of, flood OR visibility_only AS flagged "
        "FROM scoring.alert_scores "
        "WHERE as_of <= $1 AND raised_at >= $2 ORDER BY alert_id, as_of, scored_at",
        (as_of, since),
    )


def append_monitoring(warehouse: Warehouse, readings: pd.DataFrame, as_of: datetime, model_version: str | None) -> None:
    """Store readings in the form of `triage.monitoring.Reading.to_row`; missing numbers become null."""
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
    """The frame for bulk writing. A column without any value becomes text, since Arrow's null type has no SQL type."""
    import pyarrow as pa

    table = pa.Table.from_pandas(frame, preserve_index=False)
    for position, field in enumerate(table.schema):
        if pa.types.is_null(field.type):
            table = table.set_column(position, field.name, table.column(position).cast(pa.string()))
    return table


def read_workload(warehouse: Warehouse) -> pd.DataFrame:
    """`reporting.triage_workload`, as `workload_curve` gives a curve.

    Empty while too few outcomes are known, and before the first run has made the view.
    """
    if warehouse.value("SELECT to_regclass('reporting.triage_workload') IS NULL"):
        return pd.DataFrame()
    return warehouse.read(
        "SELECT threshold, alerts, acted, alerts_below, acted_below FROM reporting.triage_workload "
        "WHERE share_missed IS NOT NULL ORDER BY threshold"
    )
