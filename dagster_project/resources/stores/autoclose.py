"""The tables of autoclose: people's requests, the results of tests, and one decision per alert.

Belongs here: reading and writing `scoring.autoclose_*`, and the state of a request at an as-of.
Does not belong here: the test, the monitors and the decision (`triage/autoclose.py`); what is refused
(`commands/autoclose.py`).

Scores are chances at the raise (`scoring.alert_scores`, the first of each alert), never the chance now.
Time: a request is in force from its `as_of` on. Readers return only what was known at the as-of they are given.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.resources.stores.history import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dagster_project.resources.warehouse.connection import Warehouse
    from dagster_project.triage.autoclose import Threshold, Watch

# People may have handled an alert that was first scored later than this: it is no longer new.
FRESH = timedelta(days=2)
# A rule is first-seen for as long as rules are observed before they may be flagged visibility-only.
FIRST_SEEN = timedelta(days=28)

ENABLED, DISABLED, UNDONE, STOPPED, NEVER, ALLOWED = "enabled", "disabled", "undone", "stopped", "never", "allowed"
HEED = "heed"


@dataclass(frozen=True)
class Request:
    """A request: mode 'shadow' or 'on', a maximum miss rate, and an end.

    counts_from : when the monitors last stopped closing for this rule. A new test ignores earlier alerts, which may
        differ from later ones.
    """

    request_id: int
    rule: str
    mode: str
    miss_rate: float
    since: datetime
    until: datetime
    who: str
    why: str
    counts_from: datetime = BEGINNING


@dataclass(frozen=True)
class RuleState:
    """The state of a rule: the request in force (None: none), and how the last one ended, in words."""

    rule: str
    request: Request | None
    is_never: bool
    ended: str | None


def read_states(warehouse: Warehouse, as_of: datetime) -> dict[str, RuleState]:
    """The state at `as_of` of each rule with any event."""
    states: dict[str, RuleState] = {}
    stops: dict[str, datetime] = {}
    rows = warehouse.read_arrow(
        "SELECT event_id, rule, event, request_id, mode, miss_rate, until, who, why, as_of "
        "FROM scoring.autoclose_events WHERE as_of <= $1 ORDER BY as_of, event_id",
        (as_of,),
    ).to_pylist()
    for row in rows:
        rule = row["rule"]
        old = states.get(rule, RuleState(rule, None, False, None))
        ended = f"{row['event']} by {row['who']}: {row['why']}"
        if row["event"] == ENABLED:
            number = row["request_id"] or row["event_id"]
            same = old.request is not None and old.request.request_id == number
            since = old.request.since if old.request is not None and same else row["as_of"]
            request = Request(
                number,
                rule,
                row["mode"],
                row["miss_rate"],
                since,
                row["until"],
                row["who"],
                row["why"],
                stops.get(rule, BEGINNING),
            )
            states[rule] = RuleState(rule, request, old.is_never, None)
        elif row["event"] == ALLOWED:
            states[rule] = RuleState(rule, old.request, False, old.ended)
        else:
            states[rule] = RuleState(rule, None, old.is_never or row["event"] == NEVER, ended)
            if row["event"] == STOPPED:
                stops[rule] = row["as_of"]
    for rule, state in states.items():
        if state.request is not None and state.request.until <= as_of:
            states[rule] = RuleState(
                rule, None, state.is_never, f"it ended at {state.request.until:%Y-%m-%d %H:%M} UTC"
            )
    return states


def append_event(warehouse: Warehouse, event: str, rule: str, as_of: datetime, **more: Any) -> int:
    """Record an event of a rule, and return the row's number.

    more : request_id, mode, miss_rate, until (datetime), alert_id, who, why.

    Raises HeedError: the login may not write there.
    """
    document = {"event": event, "rule": rule, "as_of": as_of, **more}
    table = "scoring.autoclose_events"
    if not warehouse.value("SELECT has_table_privilege($1, 'INSERT')", (table,)):
        raise HeedError(f"this login may not write to {table}", "use one in the role heed_scorer")
    with warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO scoring.autoclose_events "
            "(rule, event, request_id, mode, miss_rate, until, alert_id, who, why, as_of) "
            "SELECT rule, event, request_id, mode, miss_rate, until, alert_id, who, why, as_of "
            "FROM jsonb_populate_record(NULL::scoring.autoclose_events, $1::jsonb) RETURNING event_id",
            parameters=(json.dumps(document, default=lambda value: value.isoformat()),),
        )
        row = cursor.fetchone()
    assert row is not None
    return int(row[0])


# Every alert of a rule with its first score. `keep_open` says why it may not be closed whatever its score, as known at
# that score. The same reasons exclude it from the test, so that tested and decided alerts are alike.
_CONSIDERED = """
WITH unpredictable AS (
    SELECT team FROM (
        SELECT DISTINCT ON (team) team, status FROM training.team_scorecards
        WHERE as_of <= $1 ORDER BY team, as_of DESC
    ) AS newest WHERE status = 'unpredictable'
), beginning AS (SELECT min(raised_at) AS raised_at FROM marts.alerts WHERE rule = $2)
SELECT alerts.alert_id, alerts.raised_at, first.as_of AS first_as_of, first.probability, first.model_version,
       CASE WHEN first.flood THEN 'it belongs to a flood'
            WHEN first.visibility_only THEN 'its rule is visibility-only'
            WHEN first.status <> 'model' THEN 'its score comes from no model'
            WHEN holdout.arm = 'held out' THEN 'no score is shown for it'
            WHEN first.as_of - alerts.raised_at > $4::interval THEN 'it was scored late'
            WHEN first.as_of - beginning.raised_at < $5::interval THEN 'its rule is first-seen'
            WHEN alerts.team IN (SELECT team FROM unpredictable) THEN 'its team is unpredictable'
            WHEN EXISTS (SELECT FROM marts.actions WHERE actions.alert_id = alerts.alert_id
                         AND actions.acted_at <= first.as_of) THEN 'somebody has handled it'
       END AS keep_open,
       decided.request_id, decided.mode, decided.decision, decided.reason, decided.drawn,
       coalesce(outcomes.known_at <= $1 AND outcomes.outcome = 'acted', false) AS acted,
       outcomes.known_at, outcomes.horizon_ends_at
FROM marts.alerts AS alerts
CROSS JOIN beginning
JOIN marts.alert_outcomes AS outcomes ON outcomes.alert_id = alerts.alert_id
JOIN LATERAL (
    SELECT * FROM scoring.alert_scores AS scores
    WHERE scores.alert_id = alerts.alert_id AND scores.as_of <= $1 ORDER BY scores.as_of, scores.scored_at LIMIT 1
) AS first ON true
LEFT JOIN scoring.holdout AS holdout ON holdout.alert_id = alerts.alert_id
LEFT JOIN scoring.autoclose_decisions AS decided ON decided.alert_id = alerts.alert_id AND decided.as_of <= $1
WHERE alerts.rule = $2 AND alerts.raised_at >= $3 AND alerts.raised_at < $1
ORDER BY outcomes.known_at, alerts.alert_id
"""


def _considered(warehouse: Warehouse, rule: str, as_of: datetime, since: datetime) -> pd.DataFrame:
    hours = [f"{span.total_seconds() / 3600:g} hours" for span in (FRESH, FIRST_SEEN)]
    return warehouse.read(_CONSIDERED, (as_of, rule, max(since, BEGINNING), *hours))


def threshold_of(warehouse: Warehouse, request: Request, as_of: datetime, days: float) -> tuple[Threshold, np.ndarray]:
    """The result of a request's test, and the scores it is based on: the stored result, or a new one while waiting.

    days : how far back acted alerts count. While there are too few, only their number is recorded; once there are
    enough, the test is run, once for the whole request.
    """
    from dagster_project.triage.autoclose import RESERVE, WAITING, Threshold, find_threshold

    stored = warehouse.read_arrow(
        "SELECT status, threshold, acted, missed, upper, more, scores::text AS scores FROM scoring.autoclose_tests "
        "WHERE request_id = $1 AND as_of <= $2 ORDER BY as_of DESC, tested_at DESC LIMIT 1",
        (request.request_id, as_of),
    ).to_pylist()
    before = [(Threshold(**{k: v for k, v in row.items() if k != "scores"}), row["scores"]) for row in stored]
    if before and before[0][0].status != WAITING:
        return before[0][0], np.array(json.loads(before[0][1] or "[]"), float)
    rows = _considered(warehouse, request.rule, as_of, max(as_of - timedelta(days=days), request.counts_from))
    # While closing was on, only the check sample was seen regardless of its score.
    seen = (rows["mode"] != "on") | rows["drawn"].eq(True)
    matured = rows["acted"].astype(bool) & (rows["horizon_ends_at"] <= pd.Timestamp(as_of))
    scores = np.sort(rows.loc[rows["keep_open"].isna() & matured & seen, "probability"].to_numpy(float))
    threshold = find_threshold(scores, (1 - RESERVE) * request.miss_rate)
    if not before or before[0][0].acted != threshold.acted:
        document = {
            **asdict(threshold),
            "request_id": request.request_id,
            "as_of": as_of.isoformat(),
            "finding": threshold.sentence(request.miss_rate),
            "scores": None if threshold.threshold is None else scores.tolist(),
        }
        names = "request_id, as_of, status, threshold, acted, missed, upper, more, finding, scores"
        with warehouse.transaction() as cursor:
            cursor.execute(
                f"INSERT INTO scoring.autoclose_tests ({names}) SELECT {names} "
                "FROM jsonb_populate_record(NULL::scoring.autoclose_tests, $1::jsonb)",
                parameters=(json.dumps(document),),
            )
    return threshold, scores


def scores_before(warehouse: Warehouse, request: Request, days: float) -> np.ndarray:
    """The first scores of alerts before the test of a request, whatever their outcome, except those that are kept open.

    The latest ones, in order of time. days : how far back they count.
    """
    from dagster_project.triage.autoclose import MOST_BEFORE

    tested = warehouse.value(
        "SELECT max(as_of) FROM scoring.autoclose_tests WHERE request_id = $1", (request.request_id,)
    )
    if tested is None:
        return np.zeros(0)
    rows = _considered(warehouse, request.rule, tested, max(tested - timedelta(days=days), request.counts_from))
    rows = rows[rows["keep_open"].isna()].sort_values(["first_as_of", "alert_id"], kind="stable")
    return rows["probability"].to_numpy(float)[-MOST_BEFORE:]


def watch_request(
    warehouse: Warehouse,
    request: Request,
    threshold: Threshold,
    before: np.ndarray,
    all_before: np.ndarray,
    as_of: datetime,
) -> Watch:
    """What the monitors say at `as_of` about decisions under a request.

    before, all_before : the scores of acted alerts that the test is based on, and `scores_before`.
    """
    from dagster_project.triage.autoclose import ABOVE, BELOW, CLOSE, DOUBTED, DRAWN, UNSEEN, watch

    rows = _considered(warehouse, request.rule, as_of, request.since - FRESH)
    own = rows[(rows["request_id"] == request.request_id) & rows["reason"].isin([BELOW, ABOVE, DRAWN, UNSEEN, DOUBTED])]
    # Closed alerts are censored, even if somebody acted on them.
    seen = own[own["acted"].astype(bool) & ~((own["mode"] == "on") & (own["decision"] == CLOSE))]
    checked = seen["drawn"].eq(True) | (seen["mode"] == "shadow")
    assert threshold.threshold is not None
    return watch(
        threshold.threshold,
        request.miss_rate,
        before,
        seen["probability"].to_numpy(float),
        checked.to_numpy(bool),
        all_before,
        own.sort_values(["first_as_of", "alert_id"], kind="stable")["probability"].to_numpy(float),
        seed=request.request_id,
    )


def decide_new_alerts(
    warehouse: Warehouse,
    request: Request,
    threshold: Threshold,
    all_before: np.ndarray,
    as_of: datetime,
    in_doubt: bool = False,
) -> pd.DataFrame:
    """Decide on the alerts that this run scores for the first time, store the decisions, and return them.

    all_before : `scores_before`. in_doubt : `Watch.doubt` of the monitors.
    """
    from dagster_project.triage.autoclose import decide, is_drawn

    assert threshold.threshold is not None
    rows = _considered(warehouse, request.rule, as_of, as_of - FRESH)
    new = rows[(rows["first_as_of"] == pd.Timestamp(as_of)) & rows["request_id"].isna()].reset_index(drop=True)
    if new.empty:
        return new
    salt = _salt(warehouse)
    drawn = [is_drawn(alert_id, salt) for alert_id in new["alert_id"]]
    keep = [why if isinstance(why, str) else None for why in new["keep_open"]]
    lowest = float(all_before.min()) if len(all_before) else 0.0
    decisions = [
        decide(float(score), threshold.threshold, is_checked, why, lowest, in_doubt)
        for score, is_checked, why in zip(new["probability"], drawn, keep, strict=True)
    ]
    new = new.assign(drawn=drawn, decision=[each for each, _ in decisions], reason=[why for _, why in decisions])
    documents = [
        {
            **dict(zip(("alert_id", "probability", "model_version", "drawn", "decision", "reason"), row, strict=True)),
            "rule": request.rule,
            "request_id": request.request_id,
            "as_of": as_of.isoformat(),
            "mode": request.mode,
            "threshold": threshold.threshold,
            "miss_rate": request.miss_rate,
            "evidence": threshold.sentence(request.miss_rate),
        }
        for row in new[["alert_id", "probability", "model_version", "drawn", "decision", "reason"]].itertuples(
            index=False, name=None
        )
    ]
    names = ", ".join(documents[0])
    with warehouse.transaction() as cursor:
        cursor.execute(
            f"INSERT INTO scoring.autoclose_decisions ({names}) SELECT {names} "
            "FROM jsonb_populate_recordset(NULL::scoring.autoclose_decisions, $1::jsonb) ON CONFLICT DO NOTHING",
            parameters=(json.dumps(documents),),
        )
    return new


def _salt(warehouse: Warehouse) -> str:
    """The secret of the check sample's draws, derived from that of the holdout."""
    with warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO scoring.holdout_salt (salt) VALUES (gen_random_uuid()::text || gen_random_uuid()::text) "
            "ON CONFLICT DO NOTHING"
        )
    return f"{warehouse.value('SELECT salt FROM scoring.holdout_salt')}/autoclose"


def rule_facts(warehouse: Warehouse, rule: str) -> dict[str, Any] | None:
    """The number of a rule's alerts and whether it is visibility-only now; None: it raised none."""
    rows: Sequence[dict[str, Any]] = warehouse.read_arrow(
        "SELECT count(*) AS alerts, EXISTS (SELECT FROM quality.visibility_only_rules AS flagged "
        "WHERE flagged.rule = $1 AND flagged.status <> 'released') AS visibility_only "
        "FROM marts.alerts WHERE rule = $1",
        (rule,),
    ).to_pylist()
    return rows[0] if rows[0]["alerts"] else None
