"""Sparse facts: every column has a name, and what is missing is left out."""

from __future__ import annotations

import pandas as pd

from dagster_project.triage.learning.mixture.facts import attribute_keys, sparse_facts, words


def test_words_are_read_once_in_lower_case_with_their_neighbours() -> None:
    assert words("Disk FULL: disk /var") == ["disk", "full", "var", "disk full", "full disk", "disk var"]
    assert words("") == []
    assert words("—") == []


def test_sparse_facts_name_every_column_and_leave_out_what_is_missing() -> None:
    frame = pd.DataFrame(
        {
            "rule": ["a", "b", None],
            "team": ["x", None, "x"],
            "raised_at": pd.to_datetime(["2024-01-01 05:00", "2024-01-02 00:00", "2024-01-07 23:59"], utc=True),
            "attributes": ['{"region": 7}', None, '{"region": "7"}'],
        }
    )
    kinds = ("rule", "rule+team", "@region", "hour", "weekday", "words of title", "@nothing")
    facts = {f.name: f for f in sparse_facts(frame, kinds)}
    assert facts["rule"].matrix.toarray().tolist() == [[1, 0], [0, 1], [0, 0]]
    assert facts["rule+team"].values.tolist() == ["a\x1fx"]
    assert facts["rule+team"].matrix.toarray().sum() == 1
    assert facts["@region"].values.tolist() == ["7"]
    assert facts["@region"].matrix.toarray()[:, 0].tolist() == [1, 0, 1]
    assert facts["hour"].matrix[0, 5] == 1
    assert facts["weekday"].matrix[2, 6] == 1
    assert facts["words of title"].matrix.shape == (3, 0)
    assert facts["@nothing"].matrix.shape == (3, 0)


def test_attributes_whose_values_recur_propose_themselves_as_keys() -> None:
    rows = [
        f'{{"region": "r{i % 3}", "product": "p{i % 7}", "ticket": "T-{i}", "rule": "x{i % 2}"}}' for i in range(60)
    ]
    frame = pd.DataFrame({"rule": "r", "severity": None, "attributes": rows})
    assert attribute_keys(frame) == ("region", "product", "region+product")
    assert attribute_keys(frame.assign(severity="low"))[0] == "severity"
    assert attribute_keys(frame, most=1) == ("region",)
    assert attribute_keys(frame.iloc[:0]) == ()
