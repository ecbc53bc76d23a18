"""`heed inspect` and `heed load` as commands: a preset, a proposed mapping, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from loading_store import Store

from dagster_project.cli import main

EXPORTS = Path(__file__).parent / "exports"


@pytest.fixture
def heed(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HEED_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HEED_DATABASE_URL", store.url)
    monkeypatch.chdir(tmp_path)

    def run(*words: Any) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words])

    return run


def test_a_preset_loads_alerts_and_decisions_once(heed, store):
    file = EXPORTS / "pagerduty-api-csv" / "incidents.csv"
    first = heed("load", "--preset", "pagerduty", file)
    assert first.exit_code == 0, first.output
    assert "40 alerts read" in first.output
    assert "30 actions read" in first.output
    assert "note: 10 decisions were made by a machine" in first.output
    again = heed("load", "--preset", "pagerduty", file)
    assert again.output.count("loaded before") == 2
    assert (store.count(), store.count("raw.actions")) == (40, 30)


def test_a_proposed_mapping_is_written_tried_and_loaded(heed, store, tmp_path):
    file = EXPORTS / "jira-csv" / "jira.csv"
    proposed = heed("inspect", file, "--json")
    assert proposed.exit_code == 0, proposed.output
    document = json.loads(proposed.stdout)
    assert document["questions"] == []
    assert document["lines"][-1] == f"next: heed load --alerts {file} --mapping mapping.toml"
    assert store.is_empty()
    assert "exists" in heed("inspect", file).output
    tried = heed("inspect", file, "--mapping", "mapping.toml")
    assert "30 alerts would be loaded" in tried.output
    loaded = heed("load", "--alerts", file, "--mapping", "mapping.toml")
    assert loaded.exit_code == 0, loaded.output
    assert (store.count(), store.count("raw.actions")) == (30, 20)


def test_what_a_file_does_not_say_is_given_on_the_command_line(heed, store, tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("number,opened_at,short_description\nI1,05/06/2025 08:00:00,x\n")
    asked = heed("load", "--preset", "servicenow", file)
    assert asked.exit_code == 1
    assert "--time-format" in asked.output
    assert store.is_empty()
    told = ("--time-format", "day-first", "--time-zone", "Europe/Berlin")
    assert heed("load", "--preset", "servicenow", file, *told).exit_code == 0
    assert store.rows("SELECT raised_at FROM raw.alerts") == [("2025-06-05T06:00:00Z",)]


def test_actions_before_their_alerts_are_named(heed, store, tmp_path):
    alerts, actions = tmp_path / "a.csv", tmp_path / "b.csv"
    alerts.write_text("alert_id,raised_at,rule\n1,2026-05-01T08:00:00,a\n2,2026-05-01T08:00:00,a\n")
    actions.write_text(
        "action_id,alert_id,acted_at,action_type\n1,1,2026-05-01T06:30:00,fixed\n2,2,2026-05-01T09:00:00,fixed\n"
    )
    loaded = heed("load", "--alerts", alerts, "--actions", actions)
    assert "1 of 2 actions come before their alert, by up to 1.5 hours" in loaded.output
    assert "different zones" in loaded.output
