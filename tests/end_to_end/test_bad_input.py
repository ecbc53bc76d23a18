"""Bad input, as a person meets it: the real command, one clear line, the right exit status, nothing lost.

What a loader does with single rows is tested in `tests/loading`, what SQL does with them in `tests/dbt`.
"""

import csv
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from dagster_project.cli import main
from dagster_project.commands.run import JobOutcome, run_job
from dagster_project.commands.summary import collect, show
from dagster_project.instance import dagster_instance
from dagster_project.loading import load_file
from dagster_project.resources.inputs.action_types import raw_types
from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import Settings

pytestmark = pytest.mark.slow

START = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass
class Shell:
    """Runs `heed` in a home and a database of its own."""

    home: Path
    url: str

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("heed")), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HEED_HOME": str(self.home), URL_VARIABLE: self.url, **environment},
        )

    def refuses(self, *arguments: str, **environment: str) -> str:
        """Run, expect failure, and return the one line that says why."""
        done = self(*arguments, **environment)
        assert done.returncode == 1, done.stdout + done.stderr
        said = [line for line in done.stderr.splitlines() if line.startswith("heed: ")]
        assert len(said) == 1, done.stderr
        assert "Traceback" not in done.stderr + done.stdout
        return said[0]

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.home, self.url)


class InProcess(Shell):
    """The same commands without a process for each, which takes longer to start than most commands take."""

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        home = {"HEED_HOME": str(self.home), URL_VARIABLE: self.url}
        done = CliRunner().invoke(main, [*map(str, arguments)], env={**home, **environment})
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@pytest.fixture
def heed(tmp_path: Path, empty_database: str) -> Shell:
    """The real command, for a few tests: what a process adds is the same for every error."""
    return Shell(tmp_path / "home", empty_database)


@pytest.fixture
def in_process(tmp_path: Path, empty_database: str) -> InProcess:
    return InProcess(tmp_path / "home", empty_database)


def write(path: Path, header: list[str], rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def alerts_file(path: Path, rows: list[list[object]]) -> Path:
    return write(path, ["alert_id", "raised_at", "rule", "entity", "team"], rows)


def actions_file(path: Path, rows: list[list[object]]) -> Path:
    return write(path, ["action_id", "alert_id", "acted_at", "action_type"], rows)


def test_a_missing_file(heed: Shell, tmp_path: Path) -> None:
    said = heed.refuses("load", "--alerts", str(tmp_path / "no.csv"))
    assert "no.csv does not exist" in said


def test_a_missing_column_names_the_nearest(in_process: InProcess, tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", ["alert_id", "raised", "rule"], [["1", "2025-01-01", "r"]])
    refusal = in_process.refuses("load", "--alerts", str(file))
    assert "raised_at" in refusal
    assert "raised" in refusal
    assert in_process.warehouse.value("SELECT count(*) FROM raw.alerts") == 0


def test_an_empty_file(in_process: InProcess, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("")
    assert "empty" in in_process.refuses("load", "--alerts", str(tmp_path / "a.csv"))


def test_nothing_was_loaded_yet(in_process: InProcess) -> None:
    assert "heed load" in in_process.refuses("run")


def test_a_warehouse_that_does_not_answer(heed: Shell) -> None:
    said = heed.refuses("run", **{URL_VARIABLE: "postgresql://someone:hunter2@127.0.0.1:1/nowhere"})
    assert "not reachable" in said
    assert "hunter2" not in said


def test_a_moment_that_is_none(in_process: InProcess) -> None:
    assert "'yesterday' is not a moment" in in_process.refuses("run", "--as-of", "yesterday")


def test_a_replay_backwards(in_process: InProcess, tmp_path: Path) -> None:
    out = str(tmp_path / "o.parquet")
    assert "ends before it begins" in in_process.refuses(
        "replay", "--from", "2025-02-01", "--to", "2025-01-01", "--out", out
    )
    assert "neither .parquet nor .csv" in in_process.refuses(
        "replay", "--from", "2025-01-01", "--to", "2025-02-01", "--out", str(tmp_path / "o.txt")
    )


def test_a_setting_that_does_not_exist(in_process: InProcess, tmp_path: Path) -> None:
    (tmp_path / "heed.toml").write_text("[outcome]\nhorizont = 3\n")
    refusal = in_process.refuses("run", HEED_SETTINGS=str(tmp_path / "heed.toml"))
    assert "heed.toml:2" in refusal


def test_errors_for_machines(heed: Shell, tmp_path: Path) -> None:
    done = heed("load", "--json", "--alerts", str(tmp_path / "no.csv"))
    assert done.returncode == 1
    assert set(json.loads(done.stdout)) == {"error", "remedy"}


def run_on(
    alerts: list[list[object]], actions: list[list[object]], as_of: datetime, tmp_path: Path, url: str
) -> tuple[Warehouse, JobOutcome]:
    """Load and run the whole job in this process."""
    warehouse = Warehouse(tmp_path / "home", url)
    prepare(warehouse)
    load_file("alerts", alerts_file(tmp_path / "a.csv", alerts), warehouse.connect)
    load_file("actions", actions_file(tmp_path / "d.csv", actions), warehouse.connect)
    settings = Settings(learning={"training_days": 60, "threads": 1})
    with dagster_instance(warehouse.home) as instance:
        outcome = run_job("retrain", as_of, settings=settings, warehouse=warehouse, instance=instance)
    return warehouse, outcome


NASTY_RULE = "\"; DROP TABLE raw.alerts; -- '✨' {{ 1/0 }} <b>" + "x" * 10_000


CASES = ("no outcome at all", "all alerts on one day", "one rule only, of nasty text")


@pytest.mark.parametrize("case", CASES)
def test_companies_with_little_to_learn_from_are_scored_all_the_same(
    tmp_path: Path, empty_database: str, case: str
) -> None:
    """Too little to learn from is no error: a simple baseline or the prior scores, and says so.

    That one class of outcomes alone is no error either is tested with the model, without a warehouse.
    """
    days = 1 if case == "all alerts on one day" else 40
    alerts = [
        [
            f"a{n}",
            (START + timedelta(days=days * n / 400)).isoformat(),
            NASTY_RULE if case.startswith("one rule") else f"rule {n % 5}",
            f"e{n % 20}",
            f"t{n % 2}",
        ]
        for n in range(400)
    ]
    answered = [] if case == "no outcome at all" else alerts[:350:2]
    actions: list[list[object]] = [
        [
            f"d{n}",
            alert[0],
            (datetime.fromisoformat(str(alert[1])) + timedelta(hours=2)).isoformat(),
            ("resolved", "dismissed")[n % 2],
        ]
        for n, alert in enumerate(answered)
    ]
    # One alert that cannot be true, one that is only very old, and one with the id of another stop nothing.
    alerts += [["epoch", "1970-01-01T00:00:00Z", "r", "e", "t"], ["old", "2001-02-03T04:05:06Z", "rule 1", "e1", "t1"]]
    alerts.append(["a0", (START + timedelta(days=20)).isoformat(), "rule 1", "e1", "t1"])
    warehouse, outcome = run_on(alerts, actions, START + timedelta(days=days), tmp_path, empty_database)
    assert warehouse.read("SELECT row_id, reason FROM marts.rejected_rows ORDER BY 1").to_numpy().tolist() == [
        ["a0", "the id belongs to another alert (raised at another time)"],
        ["epoch", "the time lies before the earliest that can be true"],
    ]
    assert any("ids_of_several_alerts: 1 rows have the id of an alert" in line for line in outcome.warnings)
    assert warehouse.value("SELECT outcome FROM marts.alert_outcomes WHERE alert_id = 'old'") == "not_acted"
    scores = warehouse.read("SELECT * FROM scoring.alert_scores")
    assert len(scores) == outcome.to_document()["open_alerts"] > 0
    assert scores["probability"].between(0, 1, inclusive="neither").all()
    if case in ("no outcome at all", "all alerts on one day"):
        assert set(scores["status"]) <= {"baseline", "prior"}
        why = warehouse.value("SELECT document->>'explanation' FROM training.model_versions ORDER BY cut DESC LIMIT 1")
        assert "too little" in why or "prior" in why
    if case.startswith("one rule"):
        assert warehouse.value("SELECT rule FROM marts.alerts LIMIT 1") == NASTY_RULE
        found = collect(warehouse)
        assert {(each["action_type"], each["meaning"]) for each in found["action_types"]} == {
            ("resolved", "acted"),
            ("dismissed", "dismissed"),
        }
        show(found)


def test_words_that_nobody_explained(empty_database: str, tmp_path: Path) -> None:
    """A third of the decisions in a word that heed does not know: `load` names it, learning is refused, a list is
    written and answered. Ids that several alerts share are named by the run, too."""
    heed = InProcess(tmp_path / "home", empty_database)
    times = [START + timedelta(hours=n) for n in range(60)]
    alerts: list[list[object]] = [[f"a{n}", at.isoformat(), "r", "e", "t"] for n, at in enumerate(times)]
    alerts.append(["a0", times[9].isoformat(), "other", "e", "t"])
    words = ("adjusted", "escalated", "fixed")
    actions: list[list[object]] = [
        [f"d{n}", f"a{n}", (at + timedelta(minutes=30)).isoformat(), words[n % 3]] for n, at in enumerate(times)
    ]
    files = (
        "--alerts",
        alerts_file(tmp_path / "a.csv", alerts),
        "--actions",
        actions_file(tmp_path / "d.csv", actions),
    )
    said = heed("load", *map(str, files)).stderr
    assert "adjusted (20, for example d0)" in said
    assert "nothing is learned" in said
    refused = heed.refuses("run", "--as-of", "2025-03-01")
    assert "50% of the actions that may decide" in refused
    assert "adjusted (20, for example d0)" in refused
    out = str(tmp_path / "o.parquet")
    assert "adjusted" in heed.refuses("replay", "--from", "2025-01-02", "--to", "2025-03-01", "--out", out)
    examined = {line["what"]: line for line in json.loads(heed("doctor", "--json").stdout)}
    assert examined["action types"]["status"] == "wrong"
    assert "1 rows have the id of an alert" in examined["alert ids"]["found"]

    listed = tmp_path / "types.csv"
    assert "3 action types, 1 without a meaning" in heed("action-types", "--out", str(listed)).stdout
    lines = listed.read_text().splitlines()
    assert lines[1:] == [
        "adjusted,,20,nobody,20,d0",
        "escalated,neutral,20,heed assumes it,20,d1",
        "fixed,acted,20,heed assumes it,0,d11",
    ]
    answered = [line.replace(",,", ",acted,").replace("neutral", "acted") for line in lines]
    listed.write_text("\n".join(answered) + "\n")
    assert "warning" not in heed("load", "--action-types", str(listed)).stderr
    assert all(each.meaning == "acted" for each in raw_types(heed.warehouse, Settings()))


def test_a_moment_before_the_first_alert(tmp_path: Path, empty_database: str) -> None:
    warehouse, outcome = run_on(
        [["1", START.isoformat(), "r", "e", "t"]], [], START - timedelta(days=200), tmp_path, empty_database
    )
    assert outcome.to_document()["open_alerts"] == 0
    assert warehouse.value("SELECT count(*) FROM scoring.alert_scores") == 0
