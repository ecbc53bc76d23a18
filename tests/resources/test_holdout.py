"""The random holdout: drawn once, at the first score, at the share that is set, and not to be foretold."""

from datetime import UTC, datetime, timedelta

import pandas as pd

from dagster_project.resources.stores.scores import publish_scores, read_held_out, read_influenced
from dagster_project.resources.warehouse.connection import Warehouse

AS_OF = datetime(2025, 6, 1, tzinfo=UTC)


def scores(first: int, last: int, probability: float = 0.3) -> pd.DataFrame:
    numbers = range(first, last)
    return pd.DataFrame(
        {
            "alert_id": [f"al-{number:06d}" for number in numbers],
            "raised_at": pd.Timestamp(AS_OF),
            "model_version": "m",
            "probability": probability,
            "status": "model",
            "flood": False,
            "visibility_only": False,
            "reasons": [["because"]] * len(numbers),
        }
    )


def test_alerts_are_drawn_once_at_their_first_score(warehouse: Warehouse) -> None:
    publish_scores(warehouse, [scores(0, 50)], AS_OF, "m", 50)  # nothing is drawn, and people saw these
    publish_scores(warehouse, [scores(0, 2_000), scores(2_000, 4_000)], AS_OF + timedelta(hours=1), "m", 4_000, 0.1)
    drawn = warehouse.read("SELECT alert_id, arm, share, assigned_at FROM scoring.holdout ORDER BY alert_id")
    assert drawn["alert_id"].tolist() == [f"al-{number:06d}" for number in range(50, 4_000)]
    assert set(drawn["share"]) == {0.1}
    # 395 are to be expected; 5 standard deviations are 94.
    assert 300 < (drawn["arm"] == "held out").sum() < 490
    # Another share later, another score: what was drawn stands, and only newcomers are drawn at the new one.
    publish_scores(warehouse, [scores(0, 5_000, 0.4)], AS_OF + timedelta(hours=2), "m", 5_000, 0.5)
    again = warehouse.read("SELECT alert_id, arm, share, assigned_at FROM scoring.holdout ORDER BY alert_id")
    pd.testing.assert_frame_equal(again.head(len(drawn)), drawn)
    new = again.tail(len(again) - len(drawn))
    assert set(new["share"]) == {0.5}
    assert 400 < (new["arm"] == "held out").sum() < 600
    assert read_held_out(warehouse) == set(again.loc[again["arm"] == "held out", "alert_id"])
    assert warehouse.value("SELECT count(*) FROM scoring.alert_scores WHERE probability = 0.4") == 5_000
    # The same ids under another secret: another draw.
    with warehouse.transaction() as cursor:
        for statement in (
            "CREATE TEMPORARY TABLE before AS SELECT * FROM scoring.holdout",
            "TRUNCATE scoring.holdout, scoring.holdout_salt, scoring.alert_scores",
        ):
            cursor.execute(statement)
    publish_scores(warehouse, [scores(0, 5_000)], AS_OF, "m", 5_000, 0.5)
    other = warehouse.read("SELECT alert_id, arm AS other FROM scoring.holdout").merge(again, on="alert_id")
    same = (other["arm"] == other["other"])[other["share"] == 0.5].mean()
    assert 0.4 < same < 0.6


def test_outcomes_are_taken_for_influenced_once_people_are_seen_to_act_differently(warehouse: Warehouse) -> None:
    """By what the newest publication said, and never by one that is later than the moment."""
    moment = datetime(2025, 5, 1, tzinfo=UTC)

    def put(statement: str, *values: object) -> None:
        with warehouse.transaction() as cursor:
            cursor.execute(statement, parameters=values)

    assert len(read_influenced(warehouse, moment)) == 0
    add = "INSERT INTO scoring.holdout (alert_id, assigned_at, logged_at, share, arm) VALUES ($1, $2, now(), 0.05, $3)"
    put(add, "a", moment - timedelta(days=2), "shown")
    put(add, "b", moment - timedelta(days=2), "held out")
    put(add, "c", moment + timedelta(days=2), "shown")
    put("INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES ($1, now(), 0, 0)", moment)
    put("CREATE SCHEMA IF NOT EXISTS reporting")
    put("CREATE TABLE reporting.score_influence (measure text, scope text, people_act_differently text)")
    put("INSERT INTO reporting.score_influence VALUES ('acted share', 'all alerts', 'not seen')")
    put("INSERT INTO reporting.score_influence VALUES ('hours to the first decision', 'all alerts', 'yes')")
    assert len(read_influenced(warehouse, moment)) == 0
    put("UPDATE reporting.score_influence SET people_act_differently = 'yes'")
    assert list(read_influenced(warehouse, moment)) == ["a"]
    assert len(read_influenced(warehouse, moment - timedelta(days=1))) == 0
