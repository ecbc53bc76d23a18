"""The leakage audit: planted leaks are caught, each by the check that is there for it; clean worlds are not accused."""

from collections.abc import Callable
from datetime import timedelta
from functools import cache

import numpy as np
import pandas as pd
import pytest

from benchmarks.audit_worlds import SETTINGS, AuditWorld, accused, audit_world, rebuild
from benchmarks.planted_leaks import CAUGHT_BY, HORIZON, PLANTED, Case, clean, world_for
from dagster_project.triage.audit.columns.encodings import repeated_chance
from dagster_project.triage.audit.columns.filled_in_later import dated_later, known_later
from dagster_project.triage.audit.findings import COLUMNS, Finding, table
from dagster_project.triage.audit.leakage import (
    AuditSettings,
    audit_leakage,
    duplicates,
    shuffled_outcomes,
    split_in_time,
)
from dagster_project.triage.audit.one_outcome import one_outcome
from dagster_project.triage.audit.recomputation import by_definition, facts_changed, future_removed, known_before
from dagster_project.triage.audit.reference_learner import reference_learner
from dagster_project.triage.audit.single_feature import (
    Rest,
    list_suspects,
    single_facts,
)

LEARNER = reference_learner(SETTINGS, rounds=20)

CHECKS: dict[str, Callable[[Case], list[Finding]]] = {
    "future removed": lambda case: future_removed(case.frame, case.history, case.rebuild, cuts=4),
    "features by definition": lambda case: by_definition(case.frame, case.history, SETTINGS, sample=60),
    "facts as they were raised": lambda case: facts_changed(case.frame, case.history),
    "a single fact": lambda case: single_facts(Rest.of(case.frame, LEARNER, SETTINGS)),
    "ids and times": lambda case: dated_later(case.frame, SETTINGS, case.cut, case.history),
    "repeats the outcomes' chance": lambda case: repeated_chance(case.frame, case.history, SETTINGS),
    "known later": lambda case: known_later(case.history, SETTINGS, case.cut, HORIZON),
    "duplicates across the cut": lambda case: duplicates(case.frame, SETTINGS),
    "values of one outcome": lambda case: one_outcome(Rest.of(case.frame, LEARNER, SETTINGS)),
    "split in time": lambda case: split_in_time(case.frame, case.forecasts),
}


@cache
def world(kind: str = "clean") -> AuditWorld:
    return world_for("ties in time" if kind == "ties in time" else "clean", seed=71, alerts=4_000, days=120)


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_leak_is_caught_by_the_check_for_it(kind: str) -> None:
    found = table(CHECKS[CAUGHT_BY[kind]](PLANTED[kind](world(kind))))
    assert (found["verdict"] == "leak").any(), found.to_string()


@pytest.mark.parametrize("kind", ["clean", "ties in time"])
def test_a_clean_world_is_not_accused(kind: str) -> None:
    case = clean(world(kind))
    settings = AuditSettings(shuffles=1, cuts=3, ties=4, sample=60)
    found = audit_leakage(
        case.frame, case.history, case.cut, rebuild=rebuild, forecasts=case.forecasts, settings=settings,
        fit_predict=LEARNER,
    )  # fmt: skip
    assert list(found.columns) == list(COLUMNS)
    assert not len(accused(found)), found.to_string()
    assert set(CHECKS) | {"shuffled outcomes"} == set(found["check"])
    assert (found["verdict"] == "clean").all(), found.to_string()


def test_a_strong_habit_is_not_a_leak() -> None:
    """In a copy-only world the rule's last outcome says nearly everything, honestly."""
    habits = clean(audit_world(5, alerts=4_000, days=120, predictability="copy_only"))
    assert {f.verdict for f in single_facts(Rest.of(habits.frame, LEARNER, SETTINGS))} == {"clean"}


def test_shuffled_outcomes_show_an_average_over_the_whole_table() -> None:
    """Features that are made of all outcomes follow them when they are shuffled; honest ones cannot."""

    def leaky(history: pd.DataFrame, first: object, until: object) -> pd.DataFrame:
        made = rebuild(history, first, until)  # type: ignore[arg-type]
        made["entity_decayed_acted_rate_hl28d"] = made["entity"].map(history.groupby("entity")["acted"].mean())
        return made

    case = clean(world())
    learner = reference_learner(SETTINGS, rounds=60)
    found = shuffled_outcomes(case.frame, case.history, case.cut, learner, leaky, AuditSettings(shuffles=2))
    assert found[0].verdict == "leak", found


def test_a_deadline_is_not_written_down_later_and_a_due_answer_is() -> None:
    case = clean(world())
    due = case.frame.assign(due=case.frame["raised_at"] + timedelta(days=30))
    assert {f.verdict for f in dated_later(due, SETTINGS, case.cut)} == {"clean"}
    closed = case.frame.assign(closed=case.frame["known_at"] + timedelta(minutes=2))
    assert any(f.verdict == "leak" and f.subject == "closed" for f in dated_later(closed, SETTINGS, case.cut))


def test_an_attribute_that_comes_into_use_is_not_filled_in_later() -> None:
    history = clean(world()).history.copy()
    young = history["raised_at"] >= history["raised_at"].max() - timedelta(days=5)
    history["attributes"] = [
        text[:-1] + ', "new": "yes"}' if is_young else text
        for text, is_young in zip(history["attributes"], young, strict=True)
    ]
    assert {f.verdict for f in known_later(history, SETTINGS, world().cut, HORIZON)} == {"clean"}


def test_rows_that_came_late_are_stale_not_leaks() -> None:
    """Features stored before some actions were loaded know less than today's history: no leak, but worth a look."""
    case = clean(world())
    late = case.history["known_at"] - case.history["raised_at"] < timedelta(hours=2)
    then = case.history.copy()
    then.loc[late, ["acted", "known_at"]] = [np.nan, pd.NaT]
    first = case.history["raised_at"].min() - timedelta(days=1)
    stale = rebuild(then, first.to_pydatetime(warn=False), case.cut.to_pydatetime(warn=False))
    counted = [c for c in stale if c.endswith("count_90d")]
    frame = stale[["alert_id", "raised_at", "rule", "entity", "team", *counted]]
    found = future_removed(frame, case.history, rebuild, cuts=2, ties=0)
    assert {f.verdict for f in found} == {"suspicious"}


def test_history_before_a_moment_has_no_future() -> None:
    history = world().history
    moment = history["raised_at"].quantile(0.6)
    before = known_before(history, moment)
    assert (before["raised_at"] < moment).all()
    assert not (before["known_at"] >= moment).any()
    assert before["acted"].notna().sum() == (before["known_at"] < moment).sum()


def test_suspects_are_read_as_what_they_are() -> None:
    n = 200
    raised = pd.Series(pd.date_range("2024-01-01", periods=n, freq="h", tz="UTC"))
    epoch = (raised + timedelta(hours=1)).astype("datetime64[s, UTC]").astype("int64")
    frame = pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(n)],
            "raised_at": raised,
            "rule": "r",
            "value": 1.0,
            "attributes": [
                f'{{"ticket": "T-{i}", "at": {t}, "day": "2024-01-0{1 + i % 9}", "size": {i % 7}, "kind": "{i % 3}k"}}'
                for i, t in enumerate(epoch)
            ],
        }
    )
    kinds = {s.name: s.kind for s in list_suspects(frame, SETTINGS)}
    assert kinds == {
        "alert_id": "id", "value": "number", "attribute ticket": "id", "attribute at": "time",
        "attribute day": "time", "attribute size": "number", "attribute kind": "text",
    }  # fmt: skip
    at = next(s for s in list_suspects(frame, SETTINGS) if s.name == "attribute at")
    assert np.allclose(at.values, 3600)


def test_little_data_is_not_checked_and_never_an_error() -> None:
    case = clean(world())
    few = case.frame.head(30)
    found = audit_leakage(few, case.history.head(40), case.cut, rebuild=rebuild, fit_predict=LEARNER)
    assert not len(accused(found)), found.to_string()
    assert (found["verdict"] == "not checked").any()
    nothing = audit_leakage(case.frame.head(0), case.history.head(0), case.cut, rebuild=rebuild, fit_predict=LEARNER)
    assert not len(accused(nothing)), nothing.to_string()
