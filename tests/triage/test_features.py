"""What a model may know: facts at raise time, keys, the contract."""

import json
import subprocess
import sys
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.errors import HeedError
from dagster_project.triage.features.attributes import attribute_columns
from dagster_project.triage.features.contract import (
    FeatureSettings,
    contract,
    history_features_for,
    require_same_contract,
    settings_from_contract,
)
from dagster_project.triage.features.facts import raise_time_features
from dagster_project.triage.features.keys import key_codes, key_values


def alerts(**columns: list[object]) -> pd.DataFrame:
    n = len(next(iter(columns.values())))
    base: dict[str, object] = {"raised_at": pd.to_datetime(["2024-03-01T03:30:00Z"] * n), "rule": ["r"] * n}
    return pd.DataFrame({**base, **columns})


def test_value_over_threshold_is_signed_and_missing_where_it_means_nothing() -> None:
    frame = alerts(value=[20.0, 5.0, 1.0, None, float("inf"), 1e300], threshold=[10.0, 10.0, 0.0, 3.0, 2.0, 1e-300])
    made = raise_time_features(frame)["value_over_threshold"]
    assert made.iloc[0] == pytest.approx(np.arcsinh(1.0))
    assert made.iloc[1] == pytest.approx(-np.arcsinh(0.5))
    assert made.iloc[2:].isna().all()
    assert raise_time_features(alerts(value=[-20.0], threshold=[-10.0]))["value_over_threshold"].iloc[0] < 0


def test_severity_words_have_an_order_and_unknown_words_have_none() -> None:
    frame = alerts(severity=["low", " HIGH ", "Critical", "P1", "sev-3", "purple", None])
    level = raise_time_features(frame)["severity_level"].to_numpy()
    assert level[0] < level[1] < level[2] == level[3]
    assert level[4] == 3
    assert np.isnan(level[5:]).all()


def test_time_facts_and_absent_columns() -> None:
    made = raise_time_features(alerts(rule=["r"])).iloc[0]
    assert made["hour"] == 3.5
    assert made["weekday"] == 4
    assert made[["value", "threshold", "severity_level", "title_length"]].isna().all()
    assert len(raise_time_features(alerts(rule=["r"]).iloc[:0])) == 0


def test_attributes_of_every_shape() -> None:
    texts = [
        '{"a": "x", "n": 3, "flag": true}',
        '{"a": "", "n": 1e999}',
        "not json",
        "[1]",
        None,
        {"a": "dict"},
        '{"deep": {"k": 1}}',
    ]
    made = attribute_columns(pd.Series(texts, dtype=object))
    assert list(made["a"]) == ["x", None, None, None, None, "dict", None]
    assert list(made["n"]) == [3.0, None, None, None, None, None, None]
    assert made["flag"][0] == 1.0
    assert made["deep"][6] == '{"k": 1}'
    assert list(attribute_columns(pd.Series(texts, dtype=object), ["zz"])["zz"]) == [None] * 7
    assert attribute_columns(pd.Series([], dtype=object)) == {}


def test_keys_are_columns_attributes_or_combinations() -> None:
    frame = alerts(
        rule=["a", "a+b", "a", "a"],
        entity=["b+c", "c", None, "b+c"],
        attributes=['{"region": "eu"}', '{"region": 7}', "{}", '{"region": "eu"}'],
    )
    keys = key_values(frame, ["rule", "entity", "region", "rule+entity", "region+rule"])
    assert list(keys["region"].astype(object).where(keys["region"].notna(), None)) == ["eu", "7.0", None, "eu"]
    combined = keys["rule+entity"]
    assert combined[0] == combined[3] == json.dumps(["a", "b+c"])
    # "a" with "b+c" is not "a+b" with "c".
    assert combined[0] != combined[1]
    assert pd.isna(combined[2])
    assert keys["region+rule"][0] == json.dumps(["eu", "a"])
    assert key_values(frame.drop(columns="entity"), ["entity"])["entity"].isna().all()


def test_a_combination_equals_grouping_by_its_parts() -> None:
    rng = np.random.default_rng(1)
    frame = alerts(
        rule=list(rng.choice(list("abc"), 300)), team=list(rng.choice(np.array(["x", "y", None], object), 300))
    )
    keys = key_values(frame, ["rule+team"])["rule+team"]
    expected = frame.groupby(["rule", "team"]).ngroup().fillna(-1).to_numpy()
    assert (keys.isna().to_numpy() == (expected < 0)).all()
    pairs = {(k, e) for k, e in zip(keys, expected, strict=True) if e >= 0}
    assert len(pairs) == len({k for k, _ in pairs}) == len({e for _, e in pairs})


@given(st.lists(st.tuples(*[st.sampled_from(["a", "b", "c", "", None])] * 3, st.booleans()), min_size=1, max_size=12))
def test_key_codes_are_equal_where_key_values_are(rows: list[tuple[str | None, str | None, str | None, bool]]) -> None:
    frame = pd.DataFrame([row[:3] for row in rows], columns=["rule", "entity", "team"], dtype=object)
    wanted = np.array([row[3] for row in rows])
    keys = ["rule", "all", "rule+entity", "rule+entity+team"]
    values, codes = key_values(frame, keys), key_codes(frame, keys, wanted)
    for key in keys:
        asked = set(values[key][wanted].dropna())
        expected = values[key].where(values[key].isin(asked))
        assert (codes[key].isna() == expected.isna()).all()
        assert pd.factorize(codes[key])[0].tolist() == pd.factorize(expected)[0].tolist()


def test_settings_refuse_what_cannot_work() -> None:
    with pytest.raises(HeedError, match="reaches further back than the lookback"):
        FeatureSettings(lookback=timedelta(days=5))
    with pytest.raises(HeedError, match="empty part"):
        FeatureSettings(keys=("rule", "rule+"))
    with pytest.raises(HeedError, match="named twice"):
        FeatureSettings(keys=("rule", "team", "team"))
    with pytest.raises(HeedError, match="not positive"):
        FeatureSettings(half_lives=(timedelta(0),))
    assert FeatureSettings(keys=("team",)).keys == ("rule", "team")


def test_names_of_history_features_are_unique() -> None:
    names = [f.name for f in history_features_for(FeatureSettings())]
    assert len(set(names)) == len(names)
    assert "rule_acted_count_28d" in names
    assert "rule+entity_last_outcome" in names


def test_the_contract_is_stable_and_refuses_other_settings() -> None:
    settings = FeatureSettings(keys=("rule", "team", "region"))
    made = contract(settings)
    assert made == contract(FeatureSettings(keys=("rule", "team", "region")))
    assert settings_from_contract(json.loads(json.dumps(made))) == settings
    require_same_contract(json.loads(json.dumps(made)), made)
    other = contract(FeatureSettings(keys=("rule", "team")))
    assert other["hash"] != made["hash"]
    with pytest.raises(HeedError, match="the model also needs region_"):
        require_same_contract(made, other)
    with pytest.raises(HeedError, match="contract is malformed"):
        settings_from_contract({"settings": {"keys": 3}})


def test_learning_modules_import_without_the_heavy_libraries() -> None:
    code = (
        "import sys, dagster_project.triage.learning.training, dagster_project.triage.evaluation.measures\n"
        "print([m for m in ('lightgbm', 'sklearn', 'scipy', 'numba') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
