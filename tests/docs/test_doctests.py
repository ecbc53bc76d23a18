"""The examples in docstrings, run.

Belongs here: the modules whose docstrings hold examples. Does not belong here: examples on pages (`test_docs.py`).
"""

import doctest
import importlib

import pytest

MODULES = (
    "dagster_project.triage.features.attributes",
    "dagster_project.triage.features.contract",
    "dagster_project.triage.features.facts",
    "dagster_project.triage.features.history.definition",
    "dagster_project.triage.features.history.engine",
    "dagster_project.triage.features.keys",
    "dagster_project.triage.flags.exclusion",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted
    assert not result.failed
