"""The suites, the dbt contracts, the feature contract and the tables that Python writes say the same.

Belongs here: names and words that stand in two places and must not drift apart.
Does not belong here: whether an expectation finds its fault (`test_expectation_suites.py`).
"""

from __future__ import annotations

import pandas as pd
import pytest
import yaml

from dagster_project.resources.expectations import suites
from dagster_project.resources.expectations import validation as ex
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.facts import RAISE_TIME_FEATURES
from dagster_project.triage.flags.floods import FLOOD_COLUMNS, detect_floods
from dagster_project.triage.flags.visibility import VISIBILITY_COLUMNS, declare_visibility_only

MODELS = suites.PROJECT.parent / "dbt_project" / "models"
MARTS = {"clean_alerts": "alerts", "clean_actions": "actions", "alert_outcomes": "alert_outcomes"}


def mart(name: str) -> dict[str, dict]:
    """The columns of a mart's contract, by name."""
    documents = yaml.safe_load((MODELS / "marts" / "_marts.yml").read_text())
    [model] = [model for model in documents["models"] if model["name"] == name]
    return {column["name"]: column for column in model["columns"]}


def expectations(suite: str) -> list[dict]:
    return suites.suite_document(suite)["expectations"]


def named_columns(suite: str) -> set[str]:
    """The columns that the suite names, without families recognised by name."""
    return {column for e in expectations(suite) for column in suites.columns_of(e["kwargs"])}


@pytest.mark.parametrize(("suite", "table"), MARTS.items())
def test_suites_name_only_columns_of_the_contract(suite, table):
    assert named_columns(suite) <= set(mart(table))


@pytest.mark.parametrize(("suite", "table"), MARTS.items())
def test_what_the_contract_forbids_to_be_null_is_critical_in_the_suite(suite, table):
    """A column that the contract declares not null is one that later stages stand on."""
    in_contract = {
        name
        for name, column in mart(table).items()
        if {"type": "not_null"} in column.get("constraints", []) and name in named_columns(suite)
    }
    checked = {
        e["kwargs"]["column"]
        for e in expectations(suite)
        if e["type"] == "expect_column_values_to_not_be_null" and e["severity"] == "critical"
    }
    if suite == "clean_actions":  # without a type an action is neutral: the suite is milder than the contract
        in_contract -= {"action_type"}
    assert checked == in_contract


@pytest.mark.parametrize(("suite", "table"), MARTS.items())
def test_suite_and_contract_accept_the_same_words(suite, table):
    words = {
        e["kwargs"]["column"]: e["kwargs"]["value_set"]
        for e in expectations(suite)
        if e["type"] == "expect_column_values_to_be_in_set"
    }
    accepted = {
        name: test["accepted_values"]["arguments"]["values"]
        for name, column in mart(table).items()
        for test in column.get("data_tests", [])
        if isinstance(test, dict) and "accepted_values" in test
    }
    assert {name: set(values) for name, values in words.items()} == {
        name: set(values) for name, values in accepted.items() if name in words
    }
    assert set(words) <= set(accepted)


def test_every_history_feature_belongs_to_a_family_that_is_checked():
    """A new kind of history feature must be named so that a law covers it, or get a law of its own."""
    ex.import_gx()
    from heed_expectations.history import COUNT, RATE, WAIT

    settings = FeatureSettings(keys=("rule", "entity", "team", "rule+entity", "region"))
    for feature in history_features_for(settings):
        families = [bool(COUNT.match(feature.name)), bool(RATE.search(feature.name)), bool(WAIT.search(feature.name))]
        assert sum(families) == 1, feature.name
    for name in RAISE_TIME_FEATURES:
        assert not any([COUNT.match(name), RATE.search(name), WAIT.search(name)]), name


def test_facts_that_may_be_infinite_are_raised_with_the_alert():
    [finite] = [e for e in expectations("alert_features") if e["type"] == "expect_features_to_be_finite"]
    assert set(finite["kwargs"]["facts"]) <= set(mart("alerts"))


def test_flag_suites_name_columns_of_the_flag_tables():
    assert named_columns("flood_days") <= set(FLOOD_COLUMNS)
    assert named_columns("visibility_only_rules") <= set(VISIBILITY_COLUMNS)


def test_flags_satisfy_their_suites_whatever_people_say():
    """Overrides made before, after and without a flood, for rules that exist and for those that do not."""
    raised = pd.Timestamp("2025-01-01", tz="UTC") + pd.to_timedelta(range(0, 60 * 24, 2), "h")
    burst = pd.Timestamp("2025-02-10", tz="UTC") + pd.to_timedelta(range(300), "min")
    moments = pd.Series(raised.append(burst).as_unit("us"))
    history = pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(len(moments))],
            "raised_at": moments,
            "rule": ["quiet"] * len(raised) + ["bursting"] * len(burst),
            "team": "ads",
            "acted": 0.0,
            "known_at": moments + pd.Timedelta("1D"),
        }
    )
    overrides = pd.DataFrame(
        [
            {"flag": flag, "scope": scope, "day": day, "action": action, "until": until, "created_at": created}
            for flag in ("flood", "visibility_only")
            for scope in ("quiet", "bursting", "ads", "no such rule")
            for day in ("2025-02-10", "2024-06-01")
            for action in ("flag", "clear")
            for until, created in ((None, None), ("2025-02-20", "2025-02-01"), ("2025-02-11", "2025-02-12"))
        ]
    ).assign(who="Ada", why="she knows")
    as_of = "2025-02-25T00:00:00Z"
    rows = 0
    for number in range(0, len(overrides), 6):
        some = overrides.iloc[number : number + 6]
        floods = detect_floods(history, as_of, None, some)
        quiet = declare_visibility_only(history, None, as_of, None, some, floods)
        rows += len(floods) + len(quiet)
        for suite, table in (("flood_days", floods), ("visibility_only_rules", quiet)):
            result = ex.validate(suite, table, id_columns=("rule", "scope"))
            assert result.passed, result.in_words()
    assert rows >= 20
