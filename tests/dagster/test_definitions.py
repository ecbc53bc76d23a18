"""The code location: loads alone, quickly, without touching anything, and is what a review can read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT

SNAPSHOT = Path(__file__).with_name("lineage.json")

LOAD = """
import json
import dagster_project.definitions as location
defs = location.defs
graph = defs.resolve_asset_graph()
print(json.dumps({
    "assets": {
        key.to_user_string(): {
            "group": graph.get(key).group_name,
            "owners": sorted(graph.get(key).owners),
            "parents": sorted(parent.to_user_string() for parent in graph.get(key).parent_keys),
        }
        for key in sorted(graph.get_all_asset_keys())
    },
    "jobs": {
        name: sorted(key.to_user_string() for key in defs.resolve_job_def(name).asset_layer.executable_asset_keys)
        for name in ("refresh_scores", "retrain")
    },
    "schedules": {
        schedule.name: [schedule.cron_schedule, schedule.job_name, schedule.default_status.value]
        for schedule in defs.schedules
    },
}))
"""


def interpreter(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    # A warehouse that does not exist: whoever contacts it while loading fails.
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("HEED_")},
        "HEED_HOME": str(home),
        "HEED_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nowhere",
    }
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=PROJECT, env=environment
    )


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    done = interpreter("-c", LOAD, home=tmp_path_factory.mktemp("home"))
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_lineage_is_the_one_that_was_reviewed(loaded: dict) -> None:
    """A change of the lineage shows in review: write the snapshot anew with `HEED_WRITE_SNAPSHOT=1`."""
    if os.environ.get("HEED_WRITE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(loaded, indent=2) + "\n")
    assert loaded == json.loads(SNAPSHOT.read_text())


def test_every_asset_has_a_group_and_every_computed_one_an_owner(loaded: dict) -> None:
    for key, asset in loaded["assets"].items():
        assert asset["group"] != "default", key
        assert asset["owners"], key


def test_nothing_in_the_graph_hangs_loose(loaded: dict) -> None:
    """Everything but the raw tables and the seed is made from something that is in the graph."""
    for key, asset in loaded["assets"].items():
        if asset["group"] != "raw" and key != "staging/action_types":
            assert asset["parents"], key
        for parent in asset["parents"]:
            assert parent in loaded["assets"], f"{key} depends on {parent}, which is not in the graph"


def test_refreshing_does_not_train(loaded: dict) -> None:
    refresh, retrain = (set(loaded["jobs"][name]) for name in ("refresh_scores", "retrain"))
    assert not any(key.startswith("training/") for key in refresh)
    assert refresh < retrain
    assert retrain == {key for key, asset in loaded["assets"].items() if asset["group"] != "raw"}


def test_all_schedules_run_as_soon_as_a_daemon_does(loaded: dict) -> None:
    assert {schedule[1] for schedule in loaded["schedules"].values()} == {"refresh_scores", "retrain", "prune"}
    assert {schedule[2] for schedule in loaded["schedules"].values()} == {"RUNNING"}


def test_dagster_accepts_the_workspace(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("dagster")
    done = subprocess.run(
        [str(program), "definitions", "validate", "-w", "workspace.yaml"],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env={**os.environ, "HEED_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
