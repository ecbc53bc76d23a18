"""Closing on a real warehouse: refused for want of outcomes, in shadow, on, undone, and stopped by itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import psycopg2
import pytest
from click.testing import CliRunner
from psycopg2.extras import execute_values

from dagster_project.assets.autoclose import autoclose_decisions
from dagster_project.cli import main
from dagster_project.resources.as_of import AS_OF_TAG
from dagster_project.resources.stores.autoclose import read_states
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.stores.scores import publish_scores
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.triage.autoclose import DOUBTED
from tests.conftest import PASSWORD, Company

pytestmark = pytest.mark.slow

NOW = datetime(2025, 6, 1, tzinfo=UTC)  # the company's end
DAY = timedelta(days=1)
LOWER = 7  # of 40 acted alerts: enough for a doubt, too few to stop


class Place:
    """A copy of the company's warehouse, to which rules of known scores and outcomes are added. Work is done by a
    login with the least rights."""

    def __init__(self, company: Company, name: str) -> None:
        self.company = company
        url = company.warehouse.url()
        admin = psycopg2.connect(re.sub(r"/test_\d+", "/postgres", url))
        admin.autocommit = True
        with admin.cursor() as cursor:
            [database] = re.findall(r"/(test_\d+)", url)
            cursor.execute(f"CREATE DATABASE {name} TEMPLATE {database}")
        admin.close()
        self.owner = Warehouse(company.home, re.sub(r"/test_\d+", f"/{name}", url))
        self.url = re.sub("//[^@]*@", lambda _: f"//test_job:{PASSWORD}@", self.owner.url())
        self.job = Warehouse(company.home, self.url)
        self.number = 0

    def raise_alerts(
        self, rule: str, at: list[datetime], scores: np.ndarray, acted: np.ndarray, **more: Any
    ) -> list[str]:
        """Clean alerts of a rule, acted upon after an hour or never, and scored five minutes after they were raised, or
        at `as_of`. Returns their ids."""
        as_of = more.get("as_of")
        ids = [f"{rule}-{self.number + n:05d}" for n in range(len(at))]
        self.number += len(at)
        connection = psycopg2.connect(self.owner.url())
        with connection, connection.cursor() as cursor:
            execute_values(
                cursor,
                "INSERT INTO marts.alerts (alert_id, raised_at, rule, team) VALUES %s",
                [(i, t, rule, more.get("team", "desk")) for i, t in zip(ids, at, strict=True)],
            )
            outcomes = [
                (i, t, t + 14 * DAY, *(("acted", t + DAY / 24) if a else ("not_acted", t + 14 * DAY)))
                for i, t, a in zip(ids, at, acted, strict=True)
            ]
            execute_values(
                cursor,
                "INSERT INTO marts.alert_outcomes (alert_id, raised_at, horizon_ends_at, outcome, known_at) VALUES %s",
                outcomes,
            )
            if not as_of:
                execute_values(
                    cursor,
                    "INSERT INTO scoring.alert_scores (alert_id, raised_at, as_of, scored_at, model_version, "
                    "probability, status, flood, visibility_only) VALUES %s",
                    [
                        (i, t, t + DAY / 288, t + DAY / 288, "m", float(p), "model", False, False)
                        for i, t, p in zip(ids, at, scores, strict=True)
                    ],
                )
        connection.close()
        if as_of:
            frame = pd.DataFrame({"alert_id": ids, "raised_at": at, "probability": scores})
            frame = frame.assign(model_version="m", status="model", flood=False, visibility_only=False)
            frame["flood"] = frame["alert_id"].isin(ids[: more.get("flooded", 0)])
            publish_scores(self.job, [frame.assign(reasons=[["because"]] * len(ids))], as_of, "m1", len(ids))
        return ids

    def step(self, as_of: datetime) -> None:
        resources = {"warehouse": self.job, "settings": self.company.settings}
        dg.materialize([autoclose_decisions], resources=resources, tags={AS_OF_TAG: as_of.isoformat()})

    def decisions(self, as_of: datetime) -> pd.DataFrame:
        return self.job.read("SELECT * FROM scoring.autoclose_decisions WHERE as_of = $1 ORDER BY alert_id", (as_of,))


@pytest.fixture(scope="module")
def place(company: Company) -> Iterator[Place]:
    made = Place(company, "closing")
    rng = np.random.default_rng(11)
    for rule, alerts, acted_share in (("noisy", 3_000, 0.2), ("small", 250, 0.2), ("wavering", 3_000, 0.2)):
        acted = rng.random(alerts) < acted_share
        made.raise_alerts(rule, days_between(rng, alerts), scores_of(rng, acted), acted)
        made.raise_alerts(rule, [NOW - 300 * DAY], np.array([0.5]), np.array([False]))  # no first-seen rule
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(URL_VARIABLE, made.url)
        yield made


def days_between(rng: np.random.Generator, number: int) -> list[datetime]:
    return [NOW - 16 * DAY - 100 * DAY * float(part) for part in np.sort(rng.random(number))[::-1]]


def scores_of(rng: np.random.Generator, acted: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(3.0 - 2.2 * acted - rng.normal(size=len(acted))))


def said(*arguments: str, why: str = "too many") -> Any:
    who = [] if arguments[0] == "list" else ["--who", "Ada", "--why", why]
    return CliRunner().invoke(main, ["autoclose", *arguments, *who])


def enabled(rule: str, mode: str, as_of: datetime, miss_rate: str = "0.02") -> dict[str, Any]:
    done = said(
        *("enable", rule, "--max-miss-rate", miss_rate, "--until", "2026-01-01", "--mode", mode),
        *("--as-of", as_of.isoformat(), "--json"),
    )
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_too_few_acted_alerts_are_refused_with_how_many_are_missing(place: Place) -> None:
    made = enabled("small", "on", NOW)
    known = place.job.value(
        "SELECT count(*) FROM marts.alert_outcomes JOIN marts.alerts USING (alert_id) "
        "WHERE rule = 'small' AND outcome = 'acted'"
    )
    assert 30 < known < 157
    assert (made["status"], made["more"]) == ("waiting", 157 - known)
    place.raise_alerts("small", [NOW] * 3, np.full(3, 1e-5), np.zeros(3, bool), as_of=NOW + DAY / 24)
    place.step(NOW + DAY / 24)
    assert place.decisions(NOW + DAY / 24).empty, "nothing is decided until the test can be made"
    for arguments, message in (
        (("enable", "no such rule", "--max-miss-rate", "0.02", "--until", "2027-01-01"), "raised no alert"),
        (("enable", "small", "--max-miss-rate", "2", "--until", "2027-01-01"), "a miss rate of 2 is impossible"),
        (("enable", "small", "--max-miss-rate", "0.02", "--until", "2025-01-01"), "is past"),
        (("undo", "small"), "never decided to close"),
        (("never", "noisy", "--remove"), "is not on the list"),
    ):
        done = said(*arguments)
        assert done.exit_code == 1
        assert message in done.output
        assert done.output.count("\n") == 1, "one line"
    assert said("never", "small", "--as-of", (NOW + DAY / 12).isoformat()).exit_code == 0
    done = said("enable", "small", "--max-miss-rate", "0.02", "--until", "2027-01-01")
    assert done.exit_code == 1
    assert "never closed" in done.output


def test_from_shadow_to_on_and_back_by_one_word(place: Place) -> None:
    rng = np.random.default_rng(12)
    made = enabled("noisy", "shadow", NOW)
    assert made["status"] == "found"
    tests = place.job.read("SELECT * FROM scoring.autoclose_tests WHERE status = 'found'")
    threshold, request = float(tests["threshold"].iloc[0]), int(tests["request_id"].iloc[0])
    assert 0.01 < threshold < 0.3

    # In shadow: decided alert by alert, once, and nothing may be closed.
    at = NOW + DAY
    acted = rng.random(400) < 0.2
    ids = place.raise_alerts("noisy", [at - DAY / 24] * 400, scores_of(rng, acted), acted, as_of=at, flooded=20)
    with place.owner.transaction() as cursor:  # somebody looked at these before they were scored
        cursor.execute(
            "INSERT INTO marts.actions (action_id, alert_id, acted_at, action_type, meaning) "
            "SELECT 'seen ' || alert_id, alert_id, raised_at + interval '1 minute', 'seen', 'neutral' "
            "FROM marts.alerts WHERE alert_id = ANY($1)",
            parameters=(ids[20:30],),
        )
    place.step(at)
    place.step(at)
    shadow = place.decisions(at)
    assert shadow["alert_id"].tolist() == ids
    assert set(shadow["mode"]) == {"shadow"}
    assert set(shadow["reason"].head(20)) == {"it belongs to a flood"}
    assert set(shadow["reason"].iloc[20:30]) == {"somebody has handled it"}
    rest = shadow.iloc[30:]
    expected = np.where(
        rest["drawn"],
        "check sample",
        np.where(rest["probability"] < threshold, "below the threshold", "not below the threshold"),
    )
    assert (rest["reason"] == expected).all()
    assert ((shadow["decision"] == "close") == (shadow["reason"] == "below the threshold")).all()
    assert 0.1 < rest["drawn"].mean() < 0.3
    assert re.match(r"of \d+ acted alerts \d+ scored below", shadow["evidence"].iloc[0])
    assert not place.job.read("SELECT may_be_closed FROM reporting.autoclose_decisions")["may_be_closed"].any()

    # On: another mode keeps the test.
    enabled("noisy", "on", at + DAY / 24)
    state = read_states(place.job, at + DAY)["noisy"].request
    assert state is not None
    assert (state.request_id, state.mode, state.since) == (request, "on", NOW)
    at += DAY
    acted = rng.random(400) < 0.2
    place.raise_alerts("noisy", [at - DAY / 24] * 400, scores_of(rng, acted), acted, as_of=at)
    place.step(at)
    view = place.job.read("SELECT * FROM reporting.autoclose_decisions WHERE as_of = $1", (at,))
    decided = place.decisions(at).set_index("alert_id")
    closed = decided.index[decided["decision"] == "close"]
    assert len(closed) > 50
    shown = view.set_index("alert_id")
    acted_on = shown["outcome"] == "acted"
    assert (shown["may_be_closed"] == (shown.index.isin(closed) & ~acted_on)).all()

    # What was closed teaches nothing: its outcome is nobody's decision.
    history = read_history(place.job, NOW + 60 * DAY, at - DAY).set_index("alert_id")
    assert history.loc[closed, "acted"].isna().all()
    assert history.loc[decided.index.difference(closed), "acted"].notna().all()

    # One word takes it back, and pauses the rule.
    first = str(shown.index[shown["may_be_closed"]][0])
    done = said("undo", "noisy", "--alert", first, "--as-of", (at + DAY / 24).isoformat(), "--json")
    assert json.loads(done.output) == {"rule": "noisy", "taken_back": 1}
    view = place.job.read("SELECT * FROM reporting.autoclose_decisions").set_index("alert_id")
    assert not view.loc[first, "may_be_closed"]
    assert view["may_be_closed"].sum() == shown["may_be_closed"].sum() - 1
    later = at + DAY / 12
    place.raise_alerts("noisy", [later - DAY / 24] * 5, np.full(5, 1e-5), np.zeros(5, bool), as_of=later)
    place.step(later)
    assert place.decisions(later).empty
    assert "paused" in said("undo", "noisy", "--as-of", later.isoformat()).output
    assert not place.job.read("SELECT may_be_closed FROM reporting.autoclose_decisions")["may_be_closed"].any()
    said("never", "small", "--as-of", later.isoformat())  # the test before may have said so already
    listed = {row["rule"]: row for row in json.loads(said("list", "--json", "--as-of", later.isoformat()).output)}
    assert listed["noisy"]["mode"] == "off"
    assert listed["noisy"]["ended"] == "undone by Ada: too many"
    assert listed["small"]["never"]


def test_closing_stops_by_itself_when_acted_alerts_score_lower(place: Place) -> None:
    rng = np.random.default_rng(13)
    start = NOW + 10 * DAY
    enabled("noisy", "on", start)
    request = read_states(place.job, start)["noisy"].request
    assert request is not None
    acted = np.ones(150, bool)
    for number in (1, 2):
        at = start + number * DAY
        scores = scores_of(rng, acted) if number == 1 else scores_of(rng, ~acted)  # then as others did before
        place.raise_alerts("noisy", [at - DAY / 24] * 150, scores, acted, as_of=at)
        # The action comes an hour after the alert: at the moment of the decision it is not known.
        place.step(at)
        assert len(place.decisions(at)) == 150
    at = start + 4 * DAY
    place.raise_alerts("noisy", [at] * 5, np.full(5, 1e-5), np.zeros(5, bool), as_of=at + DAY / 24)
    place.step(at + DAY / 24)
    assert place.decisions(at + DAY / 24).empty
    said_by_heed = place.job.read("SELECT who, why, request_id FROM scoring.autoclose_events WHERE event = 'stopped'")
    assert said_by_heed[["who", "request_id"]].values.tolist() == [["heed", request.request_id]]
    assert re.search("score lower than before|of the check sample", said_by_heed["why"].iloc[0])

    # A new test rests on what came after the stop, and on nothing before.
    made = enabled("noisy", "on", at + DAY)
    assert (made["status"], made["more"]) == ("waiting", 157)


def test_alerts_stay_open_while_the_monitors_doubt_and_no_longer(place: Place) -> None:
    rng = np.random.default_rng(14)
    start = NOW + 40 * DAY
    assert enabled("wavering", "shadow", start)["status"] == "found"

    def day(number: int, lower: int) -> pd.DataFrame:
        """150 alerts of which 40 are acted upon, `lower` of these scoring like the others: as decided."""
        at, acted = start + number * DAY, np.arange(150) < 40
        scores = scores_of(rng, acted & (np.arange(150) >= lower))
        place.raise_alerts("wavering", [at - DAY / 24] * 150, scores, acted, as_of=at)
        place.step(at)
        return place.decisions(at)

    ordinary = "below the threshold"
    assert set(day(1, 0)["reason"]) == {ordinary, "not below the threshold", "check sample"}
    day(2, LOWER)
    doubted = day(3, 0)
    assert set(doubted["reason"]) == {DOUBTED, "not below the threshold", "check sample"}
    assert (doubted["decision"] == "leave open").all()
    listed = {row["rule"]: row for row in json.loads(said("list", "--json").output)}
    assert listed["wavering"]["open_in_doubt"] == (doubted["reason"] == DOUBTED).sum()
    for number in range(4, 10):
        if (day(number, 0)["reason"] == ordinary).any():
            break
    else:
        pytest.fail("the doubts never go")
    assert place.job.read("SELECT FROM scoring.autoclose_events WHERE rule = 'wavering' AND event = 'stopped'").empty
