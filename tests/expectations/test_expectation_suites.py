"""Every suite passes on good rows, and every expectation of every suite fails on rows with exactly its fault.

Belongs here: suites and `resources/expectations/validation.py`, with the real Great Expectations.
Does not belong here: Dagster (`test_expectation_checks.py`).
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dagster_project.errors import HeedError
from dagster_project.resources.expectations import data_docs, flags, results, suites
from dagster_project.resources.expectations import validation as ex

AS_OF = "2025-03-01T00:00:00+00:00"
START = pd.Timestamp("2025-01-01", tz="UTC")
N = 200
PARAMETERS = {
    "alert_outcomes": {"as_of": AS_OF},
    "alert_scores": {"as_of": AS_OF},
    "alert_volume": {"as_of": AS_OF},
    "training_set": {"cut": AS_OF},
}
IDS = {"clean_actions": ("action_id",), "flood_days": ("day", "scope"), "visibility_only_rules": ("rule",)}


def text(values) -> pd.Series:
    return pd.Series(list(values), dtype="str")


def times(offset: str = "0s", n: int = N) -> pd.Series:
    moments = START + pd.to_timedelta(np.arange(n), "h") + pd.Timedelta(offset)
    return pd.Series(moments.astype("datetime64[us, UTC]"))


def clean_alerts() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "alert_id": text(f"a{i}" for i in range(N)),
            "raised_at": times(),
            "rule": text(f"rule {i % 7}" for i in range(N)),
            "entity": text([None] * N),
            "team": text("ads" for _ in range(N)),
            "severity": text("high" for _ in range(N)),
            "value": np.where(np.arange(N) % 5 == 0, np.nan, np.arange(N) / 7),
            "threshold": np.full(N, 3.0),
            "title": text(f"title {i}" for i in range(N)),
            "attributes": text(None if i % 9 == 0 else json.dumps({"region": f"r{i % 4}"}) for i in range(N)),
            "loaded_at": times("2h"),
        }
    )


def clean_actions() -> pd.DataFrame:
    meanings = ["acted", "dismissed", "neutral"]
    return pd.DataFrame(
        {
            "action_id": text(f"act{i}" for i in range(N)),
            "alert_id": text(f"a{i // 2}" for i in range(N)),
            "acted_at": times("30min"),
            "action_type": text(["paused", "dismissed", "seen"][i % 3] for i in range(N)),
            "meaning": text(meanings[i % 3] for i in range(N)),
            "actor": text([None] * N),
            "loaded_at": times("2h"),
        }
    )


def alert_outcomes() -> pd.DataFrame:
    outcome = text(["acted", "not_acted", None][i % 3] for i in range(N))
    known = times("1h").where(outcome == "acted", times("14D"))
    return pd.DataFrame(
        {
            "alert_id": text(f"a{i}" for i in range(N)),
            "raised_at": times(),
            "horizon_ends_at": times("14D"),
            "outcome": outcome,
            "known_at": known.where(outcome.notna()),
            "decided_by": text(f"act{i}" if i % 3 == 0 else None for i in range(N)),
        }
    )


def alert_features() -> pd.DataFrame:
    columns: dict[str, object] = {
        "alert_id": text(f"a{i}" for i in range(N)),
        "raised_at": times(),
        "rule": text(f"rule {i % 7}" for i in range(N)),
    }
    for key in ("rule", "entity", "rule+entity"):
        present = np.ones(N) if key == "rule" else np.where(np.arange(N) % 10 == 0, np.nan, 1.0)
        for days, count in (("1h", 1), ("7d", 4), ("28d", 9)):
            columns[f"{key}_raised_count_{days}"] = count * present
        for days, count in (("7d", 3), ("28d", 8), ("90d", 20)):
            columns[f"{key}_known_count_{days}"] = count * present
            columns[f"{key}_acted_count_{days}"] = (count // 2) * present
        columns[f"{key}_last_outcome"] = (np.arange(N) % 2) * present
        columns[f"{key}_seconds_since_raised"] = 60.0 * present
        columns[f"{key}_seconds_since_acted"] = 600.0 * present
        columns[f"{key}_decayed_acted_rate_hl7d"] = 0.4 * present
    columns["value_over_threshold"] = np.where(np.arange(N) % 5 == 0, np.nan, 1.5)
    return pd.DataFrame(columns)


def training_set() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "alert_id": text(f"a{i}" for i in range(N)),
            "raised_at": times(),
            "known_at": times("14D"),
            "acted": np.where(np.arange(N) % 3 == 0, 1.0, 0.0),
            "excluded": np.zeros(N, dtype=bool),
        }
    )


def alert_scores() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "alert_id": text(f"a{i}" for i in range(N)),
            "raised_at": times(),
            "model_version": text("m1" for _ in range(N)),
            "probability": np.linspace(0.01, 0.99, N),
            "status": text(["model", "baseline", "prior"][i % 3] for i in range(N)),
            "flood": np.zeros(N, dtype=bool),
            "visibility_only": np.zeros(N, dtype=bool),
            "reasons": [["often acted on", "night"] if i % 2 else ["new rule"] for i in range(N)],
        }
    )


def flood_days() -> pd.DataFrame:
    n = 6
    status = ["suspected", "confirmed", "cleared"] * 2
    return pd.DataFrame(
        {
            "day": [pd.Timestamp("2025-01-05").date() + pd.Timedelta(days=i) for i in range(n)],
            "scope_kind": text(["rule", "team"] * 3),
            "scope": text(f"scope {i}" for i in range(n)),
            "volume": np.full(n, 40),
            "expected": np.full(n, 3.5),
            "acted_share": [np.nan, 0.0, 0.7] * 2,
            "status": text(status),
            "evidence": text("40 alerts where 3.5 are usual" for _ in range(n)),
            "detected_at": times(n=n),
            "decided_at": times("5D", n=n).where(pd.Series(status) != "suspected"),
            "recorded_at": times(n=n),
        }
    )


def visibility_only_rules() -> pd.DataFrame:
    n = 4
    return pd.DataFrame(
        {
            "rule": text(f"rule {i}" for i in range(n)),
            "alerts_decided": np.full(n, 300),
            "acted": [0, 0, 1, 300],
            "upper_bound": [0.01, 0.02, 0.5, 1.0],
            "status": text(["declared", "inferred", "released", "released"]),
            "basis": text(["declared", "inferred", "inferred", "override"]),
            "evidence": text("none of 300 was acted on" for _ in range(n)),
            "detected_at": times(n=n),
            "decided_at": times(n=n),
            "released_at": times("9D", n=n).where(pd.Series([False, False, True, True])),
        }
    )


def alert_volume() -> pd.DataFrame:
    """A history: three rules of two teams, about ten alerts a day each over 60 days, every third one acted on."""
    random = np.random.default_rng(11)
    frames = []
    for rule in range(3):
        day = np.repeat(np.arange(60), random.poisson(10, 60))
        raised = pd.Timestamp("2024-12-01", tz="UTC") + pd.to_timedelta(
            day * 86_400_000_000 + random.integers(0, 86_400_000_000, len(day)), unit="us"
        )
        frames.append(pd.DataFrame({"raised_at": raised.as_unit("us"), "rule": f"rule {rule}", "team": f"t{rule % 2}"}))
    frame = pd.concat(frames, ignore_index=True).sort_values("raised_at", ignore_index=True)
    frame["alert_id"] = [f"a{i}" for i in range(len(frame))]
    frame["acted"] = (np.arange(len(frame)) % 3 == 0).astype(float)
    frame["known_at"] = frame["raised_at"] + pd.Timedelta("1D")
    return frame


def with_burst(frame: pd.DataFrame, acted: float = 0.0, alerts: int = 200) -> pd.DataFrame:
    """One rule raises many more alerts than usual on one day."""
    raised = pd.Timestamp("2025-01-15", tz="UTC") + pd.to_timedelta(np.arange(alerts) * 400, unit="s").as_unit("us")
    burst = pd.DataFrame(
        {
            "alert_id": [f"burst{i}" for i in range(alerts)],
            "raised_at": raised,
            "rule": "rule 1",
            "team": "t1",
            "acted": acted,
            "known_at": raised + pd.Timedelta("1D"),
        }
    )
    return pd.concat([frame, burst], ignore_index=True)


GOOD: dict[str, Callable[[], pd.DataFrame]] = {
    f.__name__: f
    for f in (
        clean_alerts,
        clean_actions,
        alert_outcomes,
        alert_features,
        training_set,
        alert_scores,
        flood_days,
        visibility_only_rules,
        alert_volume,
    )
}


def put(column: str, value, row: int = 3):
    """A fault: one cell gets another value."""

    def fault(frame: pd.DataFrame) -> pd.DataFrame:
        if value is None or isinstance(value, list):
            frame[column] = frame[column].astype(object)
        frame.at[row, column] = value
        return frame

    return fault


def shift(column: str, by: str, row: int = 1):
    """A fault: one time moves."""

    def fault(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = frame.loc[row, column] + pd.Timedelta(by)
        return frame

    return fault


def move(column: str, other: str, by: str, row: int = 1):
    """A fault: one time is set relative to another column's."""

    def fault(frame: pd.DataFrame) -> pd.DataFrame:
        frame.loc[row, column] = frame.loc[row, other] + pd.Timedelta(by)
        return frame

    return fault


def fill(column: str, value):
    """A fault of the whole column."""

    def fault(frame: pd.DataFrame) -> pd.DataFrame:
        frame[column] = value
        return frame

    return fault


def empty(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[:0]


# (suite, check) -> (the fault, how many rows are at fault or None for questions about the frame, checks that
# must fail with it because they are about the same fault)
FAULTS: dict[tuple[str, str], tuple[Callable[[pd.DataFrame], pd.DataFrame], int | None, set[str]]] = {
    ("clean_alerts", "there_are_alerts"): (empty, None, set()),
    ("clean_alerts", "alert_ids_are_present"): (put("alert_id", None), 1, set()),
    ("clean_alerts", "alert_ids_are_unique"): (put("alert_id", "a4"), 2, set()),
    ("clean_alerts", "alert_ids_are_not_blank"): (put("alert_id", " \t"), 1, set()),
    ("clean_alerts", "raised_at_is_present"): (put("raised_at", pd.NaT), 1, set()),
    ("clean_alerts", "raised_at_is_plausible"): (put("raised_at", pd.Timestamp(0, tz="UTC")), 1, set()),
    ("clean_alerts", "alerts_were_raised_before_they_were_loaded"): (shift("raised_at", "27h"), 1, set()),
    ("clean_alerts", "rule_is_present"): (put("rule", None), 1, set()),
    ("clean_alerts", "rule_is_not_blank"): (put("rule", ""), 1, set()),
    ("clean_alerts", "value_is_finite"): (put("value", -np.inf), 1, set()),
    ("clean_alerts", "threshold_is_finite"): (put("threshold", np.inf), 1, set()),
    ("clean_alerts", "attributes_are_json_objects"): (put("attributes", '["no", "object"]'), 1, set()),
    ("clean_alerts", "loaded_at_is_present"): (put("loaded_at", pd.NaT), 1, set()),
    ("clean_actions", "there_are_actions"): (empty, None, {"some_actions_mean_acted"}),
    ("clean_actions", "action_ids_are_present"): (put("action_id", None), 1, set()),
    ("clean_actions", "action_ids_are_unique"): (put("action_id", "act9"), 2, set()),
    ("clean_actions", "actions_name_their_alert"): (put("alert_id", None), 1, set()),
    ("clean_actions", "acted_at_is_present"): (put("acted_at", pd.NaT), 1, set()),
    ("clean_actions", "acted_at_is_plausible"): (
        put("acted_at", pd.Timestamp("1999-12-31", tz="UTC")),
        1,
        set(),
    ),
    ("clean_actions", "actions_happened_before_they_were_loaded"): (shift("acted_at", "26h"), 1, set()),
    ("clean_actions", "action_type_is_present"): (put("action_type", None), 1, set()),
    ("clean_actions", "meaning_is_present"): (put("meaning", None), 1, set()),
    ("clean_actions", "meaning_is_known"): (put("meaning", "Acted"), 1, set()),
    ("clean_actions", "some_actions_mean_acted"): (fill("meaning", "neutral"), None, set()),
    ("alert_outcomes", "alert_ids_are_present"): (put("alert_id", None), 1, set()),
    ("alert_outcomes", "alert_ids_are_unique"): (put("alert_id", "a4"), 2, set()),
    ("alert_outcomes", "raised_at_is_present"): (put("raised_at", pd.NaT), 1, set()),
    ("alert_outcomes", "horizon_end_is_present"): (put("horizon_ends_at", pd.NaT), 1, set()),
    ("alert_outcomes", "horizon_ends_after_the_alert"): (
        move("horizon_ends_at", "raised_at", "0s", 2),
        1,
        set(),
    ),
    ("alert_outcomes", "outcome_is_known_word"): (put("outcome", "ignored", 1), 1, set()),
    ("alert_outcomes", "outcome_and_known_at_go_together"): (put("known_at", pd.NaT), 1, set()),
    ("alert_outcomes", "known_after_raised"): (move("known_at", "raised_at", "-1us"), 1, set()),
    ("alert_outcomes", "known_by_the_end_of_the_horizon"): (
        move("known_at", "horizon_ends_at", "1us"),
        1,
        set(),
    ),
    ("alert_outcomes", "known_by_as_of"): (
        lambda frame: frame.assign(
            known_at=frame["known_at"].where(frame.index != 1, pd.Timestamp(AS_OF) + pd.Timedelta("1us")),
            horizon_ends_at=frame["horizon_ends_at"].where(frame.index != 1, pd.Timestamp("2025-04-01", tz="UTC")),
        ),
        1,
        set(),
    ),
    ("alert_outcomes", "acted_names_its_action"): (put("decided_by", None), 1, set()),
    ("alert_outcomes", "some_alerts_were_acted_on"): (
        lambda frame: frame.assign(outcome=frame["outcome"].replace("acted", "not_acted")),
        None,
        set(),
    ),
    ("alert_features", "alert_ids_are_present"): (put("alert_id", None), 1, set()),
    ("alert_features", "alert_ids_are_unique"): (put("alert_id", "a4"), 2, set()),
    ("alert_features", "raised_at_is_present"): (put("raised_at", pd.NaT), 1, set()),
    ("alert_features", "rule_is_present"): (put("rule", None), 1, set()),
    ("alert_features", "history_counts_are_counts"): (put("entity_raised_count_1h", -1.0), 1, set()),
    ("alert_features", "acted_is_part_of_known"): (put("rule+entity_acted_count_7d", 3.0 + 1), 1, set()),
    ("alert_features", "longer_windows_hold_shorter_ones"): (put("rule_raised_count_28d", 3.0), 1, set()),
    ("alert_features", "rates_are_probabilities"): (put("rule_decayed_acted_rate_hl7d", 1.0001), 1, set()),
    ("alert_features", "waiting_times_are_positive"): (put("rule_seconds_since_acted", 0.0), 1, set()),
    ("alert_features", "features_are_finite"): (put("value_over_threshold", np.inf), 1, set()),
    ("training_set", "alert_ids_are_present"): (put("alert_id", None), 1, set()),
    ("training_set", "alert_ids_are_unique"): (put("alert_id", "a4"), 2, set()),
    ("training_set", "raised_at_is_present"): (put("raised_at", pd.NaT), 1, set()),
    ("training_set", "known_at_is_present"): (put("known_at", pd.NaT), 1, set()),
    ("training_set", "known_by_the_cut"): (
        put("known_at", pd.Timestamp(AS_OF) + pd.Timedelta("1us")),
        1,
        set(),
    ),
    ("training_set", "known_after_raised"): (move("known_at", "raised_at", "-1us"), 1, set()),
    ("training_set", "labels_are_present"): (put("acted", np.nan), 1, set()),
    ("training_set", "labels_are_zero_or_one"): (put("acted", 0.5), 1, set()),
    ("training_set", "nothing_excluded_is_learnt_from"): (put("excluded", True), 1, set()),
    ("training_set", "enough_acted"): (
        lambda frame: frame[(frame["acted"] == 0) | (frame.index < 140)],
        None,
        set(),
    ),
    ("training_set", "enough_not_acted"): (
        lambda frame: frame.assign(acted=np.where(frame.index < 49, 0.0, 1.0)),
        None,
        set(),
    ),
    ("training_set", "both_classes"): (fill("acted", 1.0), None, {"enough_not_acted"}),
    ("alert_scores", "alert_ids_are_present"): (put("alert_id", None), 1, set()),
    ("alert_scores", "one_score_per_alert_and_version"): (put("alert_id", "a4"), 2, set()),
    ("alert_scores", "raised_at_is_present"): (put("raised_at", pd.NaT), 1, set()),
    ("alert_scores", "alerts_were_raised_by_as_of"): (
        put("raised_at", pd.Timestamp(AS_OF) + pd.Timedelta("1us")),
        1,
        set(),
    ),
    ("alert_scores", "probability_is_present"): (put("probability", np.nan), 1, set()),
    ("alert_scores", "probability_is_between_zero_and_one"): (put("probability", 1.0), 1, set()),
    ("alert_scores", "status_is_present"): (put("status", None), 1, set()),
    ("alert_scores", "status_is_known"): (put("status", "guess"), 1, set()),
    ("alert_scores", "model_version_is_present"): (put("model_version", None), 1, set()),
    ("alert_scores", "model_version_is_not_blank"): (put("model_version", ""), 1, set()),
    ("alert_scores", "flood_flag_is_present"): (put("flood", None), 1, set()),
    ("alert_scores", "visibility_only_flag_is_present"): (put("visibility_only", None), 1, set()),
    ("alert_scores", "reasons_are_given"): (put("reasons", []), 1, set()),
    ("flood_days", "day_is_present"): (put("day", None), 1, set()),
    ("flood_days", "scope_is_present"): (put("scope", None), 1, set()),
    ("flood_days", "scope_is_not_blank"): (put("scope", " "), 1, set()),
    ("flood_days", "one_row_per_day_scope_and_view"): (
        lambda frame: pd.concat([frame, frame.tail(1)], ignore_index=True),
        2,
        set(),
    ),
    ("flood_days", "status_is_known"): (put("status", "maybe", 0), 1, set()),
    ("flood_days", "status_is_present"): (put("status", None, 0), 1, set()),
    ("flood_days", "volume_is_not_negative"): (put("volume", -1), 1, set()),
    ("flood_days", "expected_is_not_negative"): (put("expected", -0.1), 1, set()),
    ("flood_days", "acted_share_is_a_share"): (put("acted_share", 1.1), 1, set()),
    ("flood_days", "detected_at_is_present"): (put("detected_at", pd.NaT), 1, set()),
    ("flood_days", "decided_after_detected"): (move("decided_at", "detected_at", "-1us"), 1, set()),
    ("flood_days", "decisions_have_a_time"): (put("decided_at", pd.NaT, 1), 1, set()),
    ("flood_days", "evidence_is_given"): (put("evidence", None), 1, set()),
    ("visibility_only_rules", "rule_is_present"): (put("rule", None), 1, set()),
    ("visibility_only_rules", "detected_at_is_present"): (put("detected_at", pd.NaT), 1, set()),
    ("visibility_only_rules", "status_is_present"): (put("status", None), 1, set()),
    ("visibility_only_rules", "status_is_known"): (put("status", "hidden"), 1, set()),
    ("visibility_only_rules", "one_row_per_rule_and_episode"): (
        lambda frame: pd.concat([frame, frame.tail(1)], ignore_index=True),
        2,
        set(),
    ),
    ("visibility_only_rules", "released_rules_have_a_time"): (put("released_at", pd.NaT), 1, set()),
    ("visibility_only_rules", "upper_bound_is_a_share"): (put("upper_bound", 1.01), 1, set()),
    ("visibility_only_rules", "acted_is_a_count"): (put("acted", -1), 1, set()),
    ("visibility_only_rules", "alerts_decided_is_a_count"): (
        put("alerts_decided", -1, 0),
        1,
        {"acted_is_part_of_decided"},
    ),
    ("visibility_only_rules", "acted_is_part_of_decided"): (put("acted", 301), 1, set()),
    ("visibility_only_rules", "decided_after_detected"): (
        move("decided_at", "detected_at", "-1us"),
        1,
        set(),
    ),
    ("visibility_only_rules", "released_after_decided"): (
        move("released_at", "decided_at", "-1us", 2),
        1,
        set(),
    ),
    ("visibility_only_rules", "evidence_is_given"): (put("evidence", None), 1, set()),
    ("alert_volume", "daily_volume_within_seasonal_band"): (with_burst, None, set()),
    ("alert_volume", "rules_are_acted_on"): (
        lambda frame: frame.assign(acted=frame["acted"].where(frame["rule"] != "rule 2", 0.0)),
        None,
        set(),
    ),
}


def run(suite: str, frame: pd.DataFrame) -> results.SuiteResult:
    return ex.validate(suite, frame, parameters=PARAMETERS.get(suite), id_columns=IDS.get(suite, ("alert_id",)))


@pytest.mark.parametrize("suite", sorted(GOOD))
def test_good_rows_pass(suite):
    result = run(suite, GOOD[suite]())
    assert result.passed, result.in_words()
    assert [outcome.check_name for outcome in result.results] == [s.check_name for s in suites.check_specs(suite)]
    assert "all" in result.in_words()


@pytest.mark.parametrize(("suite", "check"), sorted(FAULTS))
def test_each_expectation_fails_on_its_fault_and_only_there(suite, check):
    fault, rows, companions = FAULTS[suite, check]
    result = run(suite, fault(GOOD[suite]()))
    assert {outcome.check_name for outcome in result.failures} == {check} | companions, result.in_words()
    [outcome] = [outcome for outcome in result.results if outcome.check_name == check]
    if rows is not None:
        assert outcome.unexpected_count == rows
        assert len(outcome.sample_rows) == rows
        assert set(IDS.get(suite, ("alert_id",))) <= set(outcome.sample_rows[0])
    assert check in result.in_words()
    assert bool(result.critical_failures) == any(o.severity == "critical" for o in result.failures)


def test_every_expectation_of_every_suite_has_a_fault():
    everything = {(suite, spec.check_name) for suite in suites.suite_names() for spec in suites.check_specs(suite)}
    assert everything == set(FAULTS)
    assert sorted(GOOD) == suites.suite_names()


@pytest.mark.parametrize("suite", suites.suite_names())
def test_suites_round_trip_through_great_expectations_unchanged(suite):
    document = suites.suite_document(suite)
    assert ex.load_suite(suite).to_json_dict() == document
    assert document["name"] == suite


@pytest.mark.parametrize("suite", suites.suite_names())
def test_every_expectation_says_what_and_why(suite):
    for spec in suites.check_specs(suite):
        assert spec.description.endswith(".")
        assert spec.severity in ("critical", "warning")
        assert spec.notes.startswith({"critical": "Critical", "warning": "A warning"}[spec.severity])


def test_great_expectations_opens_the_project_itself(tmp_path, monkeypatch):
    """The folder is a project of its own: a data engineer can read and edit the suites with GX alone."""
    gx = ex.import_gx()
    shutil.copytree(suites.PROJECT, tmp_path / "expectations")
    monkeypatch.setattr(sys, "path", list(sys.path))
    context = gx.get_context(context_root_dir=tmp_path / "expectations")
    opened = {suite.name: suite for suite in context.suites.all()}
    assert sorted(opened) == suites.suite_names()
    for name, suite in opened.items():
        assert suite.to_json_dict() == suites.suite_document(name)
    found = importlib.machinery.PathFinder.find_spec(ex.PLUGINS, sys.path)
    assert found.origin == str(tmp_path / "expectations" / "plugins" / ex.PLUGINS / "__init__.py")


def test_check_specs_unpack_to_name_description_severity():
    name, description, severity = suites.check_specs("clean_alerts")[1]
    assert (name, severity) == ("alert_ids_are_present", "critical")
    assert description == "Every alert has an id."


def test_a_failure_names_its_rows():
    frame = clean_alerts()
    frame.loc[[3, 5], "rule"] = " "
    result = run("clean_alerts", frame)
    words = "rule_is_not_blank (critical): 2 of 200 rows (' ': 2): alert_id=a3, rule=' '; alert_id=a5, rule=' '"
    assert words in result.in_words()
    with pytest.raises(results.ExpectationsFailed, match="alert_id=a3"):
        result.raise_if_critical()


def test_samples_stop_at_ten_rows_and_counts_do_not():
    result = run("clean_alerts", clean_alerts().assign(attributes="1"))
    [outcome] = result.failures
    assert outcome.unexpected_count == N
    assert outcome.unexpected_percent == 100.0
    assert len(outcome.sample_rows) == 10
    assert outcome.sample_rows[0] == {"alert_id": "a0", "attributes": "1"}


def test_a_warning_does_not_stop():
    result = run("clean_alerts", clean_alerts().assign(value=np.inf))
    assert not result.passed
    assert not result.critical_failures
    result.raise_if_critical()


def test_rows_in_parts_fare_as_they_do_together():
    frame = clean_alerts()
    frame.loc[[3, 150], "rule"] = " "
    frame.loc[140:, "value"] = np.inf
    parts = [frame[:60], frame[60:61], frame[61:190], frame[190:]]
    whole = run("clean_alerts", frame)
    together = ex.validate_parts("clean_alerts", (part.reset_index(drop=True) for part in parts))
    assert together.rows == whole.rows == N
    for one, other in zip(together.results, whole.results, strict=True):
        assert replace(one, observed=None) == replace(other, observed=None)
    assert together.results[0].observed == N
    assert "rule_is_not_blank (critical): 2 of 200 rows (' ': 2): alert_id=a3" in together.in_words()
    assert ex.validate_parts("clean_alerts", [clean_alerts()]).passed


def test_what_is_expected_of_the_whole_must_hold_in_one_part_only():
    acted = alert_outcomes()
    calm = acted.assign(outcome="not_acted", known_at=acted["horizon_ends_at"], decided_by=text([None] * N))
    for parts, passes in (([calm, acted], True), ([calm, calm], False)):
        result = ex.validate_parts("alert_outcomes", parts, parameters=PARAMETERS["alert_outcomes"])
        assert {outcome.check_name for outcome in result.failures} == (
            set() if passes else {"some_alerts_were_acted_on"}
        ), result.in_words()


def test_a_missing_column_is_named_with_its_nearest():
    with pytest.raises(HeedError, match=r"lack the column 'raised_at' \(nearest: 'raised_on'\)"):
        run("clean_alerts", clean_alerts().rename(columns={"raised_at": "raised_on"}))


def test_an_unknown_suite_is_named_with_its_nearest():
    with pytest.raises(HeedError, match="did you mean 'clean_alerts'"):
        suites.check_specs("clean_alert")
    with pytest.raises(HeedError, match="no expectation suite"):
        suites.check_specs("../great_expectations")


def test_a_forgotten_cut_is_an_error_and_as_of_is_now():
    with pytest.raises(HeedError, match="needs the parameter 'cut'"):
        ex.validate("training_set", training_set())
    with pytest.raises(HeedError, match="has no parameter 'cutoff'"):
        ex.validate("training_set", training_set(), parameters={"cutoff": AS_OF})
    future = alert_outcomes()
    future.loc[1, ["known_at", "horizon_ends_at"]] = pd.Timestamp.now(tz="UTC") + pd.Timedelta("1D")
    [outcome] = ex.validate("alert_outcomes", future).failures
    assert outcome.check_name == "known_by_as_of"


def test_parameters_may_be_datetimes():
    cut = pd.Timestamp(AS_OF).to_pydatetime()
    assert ex.validate("training_set", training_set(), parameters={"cut": cut}).passed
    assert not ex.validate("training_set", training_set(), parameters={"cut": cut, "minimum_acted": 68}).passed


def test_a_crash_is_not_a_failure():
    """Times that cannot be read are no late times: the check says that it could not be evaluated."""
    frame = alert_outcomes()
    frame["known_at"] = "the day before yesterday"
    with pytest.raises(results.ExpectationCrashed, match="could not be evaluated"):
        run("alert_outcomes", frame)


def test_a_crash_inside_great_expectations_own_metric_is_not_a_failure():
    frame = alert_scores()
    frame["probability"] = [{"not": "a number"}] * N
    with pytest.raises(results.ExpectationCrashed, match="probability_is_between_zero_and_one"):
        run("alert_scores", frame)


@pytest.mark.parametrize("change", [{"kwargs": {"colum": "alert_id"}}, {"type": "expect_the_unexpected"}])
def test_an_invalid_expectation_is_not_silently_left_out(change, tmp_path, monkeypatch):
    (tmp_path / "suites").mkdir()
    document = suites.suite_document("training_set")
    document["expectations"][0].update(change)
    (tmp_path / "suites" / "training_set.json").write_text(json.dumps(document))
    ex.import_gx()
    monkeypatch.setattr(suites, "PROJECT", tmp_path)
    suites._suite_text.cache_clear()
    try:
        with pytest.raises(HeedError, match=r"'alert_ids_are_present' .* is not valid"):
            ex.load_suite("training_set")
    finally:
        suites._suite_text.cache_clear()


@pytest.mark.parametrize("suite", sorted(set(GOOD) - {"alert_features"}))
def test_no_rows_are_no_crash(suite):
    result = run(suite, GOOD[suite]().iloc[:0])
    assert not result.critical_failures, result.in_words()


def test_features_without_history_columns_do_not_pass_unseen():
    result = run("alert_features", alert_features()[["alert_id", "raised_at", "rule"]])
    assert {o.check_name for o in result.critical_failures} == {
        "history_counts_are_counts",
        "acted_is_part_of_known",
        "longer_windows_hold_shorter_ones",
        "rates_are_probabilities",
        "waiting_times_are_positive",
        "features_are_finite",
    }
    assert "no history count column" in result.in_words()


def test_a_history_is_missing_for_all_windows_or_none():
    """An alert without the key has no history: good. A single missing count: a fault."""
    frame = alert_features()
    frame.loc[7, "entity_known_count_28d"] = np.nan
    [outcome] = run("alert_features", frame).failures
    assert outcome.check_name == "history_counts_are_counts"
    assert outcome.observed == "entity_known_count_28d: 1 rows"


@pytest.mark.parametrize(
    ("attributes", "good"),
    [
        ('{"a": 1}', True),
        ({"a": 1}, True),
        (None, True),
        ("{}", True),
        ("", False),
        ("null", False),
        ("{'a': 1}", False),
        ("[" * 100_000, False),
        (3.5, False),
        ('"x"', False),
    ],
)
def test_json_objects(attributes, good):
    frame = clean_alerts()
    frame["attributes"] = frame["attributes"].astype(object)
    frame.at[3, "attributes"] = attributes
    result = run("clean_alerts", frame)
    assert [o.check_name for o in result.failures] == ([] if good else ["attributes_are_json_objects"])


@pytest.mark.parametrize(
    ("reasons", "good"),
    [
        ('["one"]', True),
        (["a", "b", "c"], True),
        (np.array(["a", "b"], dtype=object), True),
        (["a", "b", "c", "d"], False),
        ([" "], False),
        ([1], False),
        ("one", False),
        (None, False),
    ],
)
def test_reasons(reasons, good):
    frame = alert_scores()
    frame.at[3, "reasons"] = reasons
    assert [o.check_name for o in run("alert_scores", frame).failures] == ([] if good else ["reasons_are_given"])


def test_hostile_rule_names_are_shown_and_do_no_harm():
    frame = clean_alerts()
    frame.loc[3, "rule"] = "Robert'); DROP TABLE alerts;-- $PARAMETER ${x} | <b>🚨</b>" + "x" * 10_000
    frame.loc[3, "attributes"] = "$column <script>"
    result = run("clean_alerts", frame)
    assert [o.check_name for o in result.failures] == ["attributes_are_json_objects"]
    assert "$column <script>" in result.in_words()
    assert len(result.in_words()) < 1000


def test_the_frame_is_not_changed():
    frame = alert_features()
    before = frame.copy(deep=True)
    run("alert_features", frame)
    pd.testing.assert_frame_equal(frame, before)


def test_200_000_rows_pass_together():
    n = 200_000
    frame = clean_alerts().iloc[np.arange(n) % N].reset_index(drop=True)
    frame["alert_id"] = text(f"a{i}" for i in range(n))
    frame["attributes"] = text(f'{{"n": {i}}}' for i in range(n))
    assert run("clean_alerts", frame).passed


def test_progress_and_usage_reports_are_off(capfd):
    run("clean_alerts", clean_alerts())
    shown = capfd.readouterr()
    assert "Calculating Metrics" not in shown.err + shown.out
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"


def test_data_docs_show_every_suite_and_the_failing_rows(tmp_path):
    frame = clean_alerts()
    frame.loc[3, "rule"] = " "
    data_docs.store_result(run("clean_alerts", frame), tmp_path)
    data_docs.store_result(run("alert_scores", alert_scores()), tmp_path)
    index = data_docs.build_data_docs(tmp_path)
    assert index == data_docs.data_docs_index(tmp_path)
    page = index.read_text()
    for suite in suites.suite_names():
        assert suite in page
        assert suites.check_specs(suite)[0].description in (index.parent / "expectations" / f"{suite}.html").read_text()
    [shown] = (index.parent / "validations" / "clean_alerts").rglob("*.html")
    assert "alert_id=a3" in shown.read_text()
    assert "No rule is empty or blank." in shown.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data_docs", "data_docs.lock", "results"]


def test_data_docs_show_hostile_values_as_text(tmp_path):
    frame = clean_alerts()
    frame.loc[3, "attributes"] = "<script>x()</script> $column"
    actions = clean_actions()
    actions["meaning"] = "<img src=x>"
    data_docs.store_result(run("clean_alerts", frame), tmp_path)
    data_docs.store_result(run("clean_actions", actions), tmp_path)
    index = data_docs.build_data_docs(tmp_path)
    pages = "".join(page.read_text() for page in (index.parent / "validations").rglob("*.html"))
    assert "&lt;script&gt;x()&lt;/script&gt; $column" in pages
    assert "&lt;img src=x&gt;" in pages
    assert "<script>x()" not in pages
    assert "<img src=x>" not in pages


def test_data_docs_are_replaced_and_old_results_go(tmp_path, monkeypatch):
    monkeypatch.setattr(data_docs, "KEPT_RESULTS", 2)
    for _ in range(3):
        data_docs.store_result(run("flood_days", flood_days()), tmp_path)
    assert len(list((tmp_path / "results" / "flood_days").glob("*.json"))) == 2
    data_docs.build_data_docs(tmp_path)
    (tmp_path / "data_docs" / "stale.html").write_text("old")
    index = data_docs.build_data_docs(tmp_path)
    assert not (tmp_path / "data_docs" / "stale.html").exists()
    assert len(list((index.parent / "validations" / "flood_days").rglob("*.html"))) == 2


def test_data_docs_wait_for_another_process(tmp_path):
    import fcntl
    import threading

    (tmp_path / "data_docs.lock").touch()
    with (tmp_path / "data_docs.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        builder = threading.Thread(target=data_docs.build_data_docs, args=(tmp_path,))
        builder.start()
        builder.join(1.0)
        assert builder.is_alive()
        assert not data_docs.data_docs_index(tmp_path).exists()
        fcntl.flock(other, fcntl.LOCK_UN)
    builder.join(30)
    assert data_docs.data_docs_index(tmp_path).exists()


def test_the_check_names_stand():
    """Dagster keeps the history of a check under its name: a renamed check loses it, so renaming shows
    here."""
    stored = json.loads((Path(__file__).parent / "check_names.json").read_text())
    assert {suite: [s.check_name for s in suites.check_specs(suite)] for suite in suites.suite_names()} == stored
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for names in stored.values() for name in names)


def test_what_is_unexpected_is_the_flag():
    from dagster_project.triage.flags.exclusion import flag_alerts
    from dagster_project.triage.flags.find import find_flags

    history = with_burst(alert_volume())
    history["acted"] = history["acted"].where(history["rule"] != "rule 2", 0.0)
    as_of = pd.Timestamp(AS_OF).to_pydatetime()
    found = flags.find_flags(history, None, as_of)
    flood_days, visibility_only = find_flags(history, None, as_of)
    pd.testing.assert_frame_equal(found.flood_days, flood_days)
    pd.testing.assert_frame_equal(found.visibility_only_rules, visibility_only)
    flagged = flag_alerts(history, flood_days, visibility_only)
    flooded, unacted = found.result.results
    assert flooded.unexpected_count == flagged["flood"].sum() >= 200
    assert unacted.unexpected_count == flagged["visibility_only"].sum() > 400
    assert {row["rule"] for row in flooded.sample_rows} == {"rule 1"}
    assert {row["rule"] for row in unacted.sample_rows} == {"rule 2"}
    counts = flood_days["status"].value_counts()
    assert counts["confirmed"] >= 1
    assert (
        flooded.observed == f"floods: 0 suspected, {counts['confirmed']} confirmed, {counts.get('cleared', 0)} cleared"
    )
    assert unacted.observed == "visibility-only rules: 1"


def test_an_incident_that_was_acted_on_is_expected():
    found = flags.find_flags(with_burst(alert_volume(), acted=1.0), None, pd.Timestamp(AS_OF).to_pydatetime())
    assert found.result.passed
    assert set(found.flood_days["status"]) == {"cleared"}


def test_settings_declarations_and_overrides_reach_the_statistics():
    from dagster_project.triage.flags.floods import FloodSettings
    from dagster_project.triage.flags.visibility import VisibilitySettings

    history = with_burst(alert_volume())
    as_of = pd.Timestamp(AS_OF).to_pydatetime()
    created = pd.Timestamp("2025-02-25", tz="UTC")
    rules = pd.DataFrame(
        {
            "rule": ["rule 0", "rule 1", "rule 2"],
            "declared_visibility_only": [True, False, None],
            "created_at": [created, pd.NaT, pd.NaT],
        }
    )
    overrides = pd.DataFrame(
        {
            "flag": ["flood"],
            "scope": ["rule 1"],
            "day": [pd.Timestamp("2025-01-15").date()],
            "action": ["clear"],
            "until": [pd.NaT],
            "who": ["Ada"],
            "why": ["it was real"],
            "created_at": [created],
        }
    )
    declared = flags.find_flags(history, rules, as_of)
    assert list(declared.visibility_only_rules["rule"]) == ["rule 0"]
    assert [o.passed for o in declared.result.results] == [False, False]
    overruled = flags.find_flags(history, None, as_of, overrides=overrides)
    assert overruled.result.results[0].passed
    assert "Ada" in set(overruled.flood_days["decided_by"])
    lenient = flags.find_flags(
        history, None, as_of, FloodSettings(minimum_volume=1000), VisibilitySettings(minimum_decided=10**9)
    )
    assert lenient.result.passed
    assert len(lenient.flood_days) == 0


def test_flags_need_a_history():
    with pytest.raises(HeedError, match="'acted'"):
        flags.find_flags(alert_volume().drop(columns="acted"), None, pd.Timestamp(AS_OF).to_pydatetime())


def test_raw_facts_may_be_infinite_where_features_may_not():
    assert run("alert_features", alert_features().assign(value=np.inf, threshold=-np.inf)).passed
