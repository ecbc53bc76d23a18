"""What heed stands on fails: server, connections, disk, files, SQL, models."""

import os
import shutil
import signal
from contextlib import suppress
from typing import Any

import psycopg2
import pytest

from dagster_project.resources.warehouse.embedded import running_server_pid
from tests.faults.conftest import Row, mount, unmount
from tests.faults.soak import NEWEST_CHAMPION, TRUNCATE, Soak, a_crowd, damage


def stopped_in_one_line(soak: Soak, line: str, *words: str) -> None:
    """The command, the doctor and Dagster's run say the same, in one line each."""
    finding = soak.doctor("runs")
    assert finding is not None
    assert finding.level == "error"
    for word in words:
        assert word in line
        assert word in finding.found


def test_postgres_is_killed(soak: Soak, row: Row) -> None:
    soak.bring()
    run = soak.run().reaches("features__alert_features")
    pid = running_server_pid(soak.home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    if run.wait() != 0:  # it was in the middle of a query; else it started the server anew and went on
        assert "heed: " in run.fails()
    row("Postgres killed", "kill -9 of the server in a run", soak.recovers())


def test_postgres_is_stopped_while_dbt_cleans(soak: Soak, row: Row) -> None:
    soak.bring()
    with suppress(psycopg2.Error), soak.writers_wait("marts.alert_outcomes"):
        run = soak.run().is_blocked_at("marts.alert_outcomes")
        pid = running_server_pid(soak.home)
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        stopped_in_one_line(soak, run.fails(), "cleaning alerts and actions (dbt): ")
    row("Postgres stopped", "fast shutdown while dbt cleans", soak.recovers())


def test_connections_run_out(soak: Soak, row: Row) -> None:
    soak.bring()
    run = soak.run().reaches("clean_alerts_suite")
    taken: list[Any] = []
    with a_crowd(soak.url, taken):
        line = run.fails()
    stopped_in_one_line(soak, line, "the warehouse is not reachable", "too many clients")
    row("no connection left", f"{len(taken)} others hold them all", soak.recovers())


def test_the_disk_is_full_for_parquet(soak: Soak, row: Row) -> None:
    soak.bring()
    features = soak.home / "features"
    if mount(features, "16k"):
        line = soak.run().fails()
        unmount(features)
        how = "a disk of 16 kB for features"
        assert "No space left on device" in line
    else:
        line = soak.start("run", file_limit=8_000).fails()
        how = "no file may exceed 8 kB"
    stopped_in_one_line(soak, line, "deriving features", "cannot be written")
    row("disk full for Parquet", how, soak.recovers())
    assert not list(soak.home.glob("features/*/.day=*"))


def test_the_disk_is_full_for_postgres(soak: Soak, row: Row) -> None:
    if not soak.has_own_disk:
        pytest.skip("only root may mount a disk of its own, and filling the machine's disk would harm others")
    soak.bring()
    filler = soak.home / "filler"
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            # Most of it beforehand: what is left is full in a moment, and not once the run has ended.
            while shutil.disk_usage(soak.home).free > 128 * 2**20:
                file.write(bytes(2**20))
            run = soak.run().reaches("clean_alerts_suite")
            while file.write(bytes(2**16)):
                pass
        line = run.fails()
    finally:
        filler.unlink()  # or every test after this one fails too
    assert any(
        words in line for words in ("No space left", "no space left", "run history", "was lost", "not reachable")
    )
    row("disk full for all", "a file fills the home's disk", soak.recovers())


def test_feature_files_are_corrupted(soak: Soak, row: Row) -> None:
    """In a run, between deriving and scoring: scores come from what would have made the files."""
    soak.bring()
    run = soak.run().reaches("features__alert_features")
    with soak.writers_wait("training.champion_decisions", "ACCESS EXCLUSIVE"):
        run.is_blocked_at("training.champion_decisions")
        for number, file in enumerate(sorted(soak.home.glob("features/*/day=*.parquet"))):
            damage(file, number)
    row("feature files corrupted", "truncated, overwritten, deleted", soak.recovers(within=run))
    assert "features of open alerts are derived again" in run.said


def test_a_dbt_model_fails(soak: Soak, row: Row) -> None:
    soak.bring()
    soak.do("ALTER TABLE marts.alerts ADD CONSTRAINT nothing_more CHECK (false) NOT VALID")
    line = soak.run().fails()
    soak.do("ALTER TABLE marts.alerts DROP CONSTRAINT nothing_more")
    stopped_in_one_line(soak, line, "cleaning alerts and actions (dbt)", "nothing_more")
    row("a dbt model fails", "a constraint refuses its rows", soak.recovers())


def test_learning_fails_and_scoring_goes_on(soak: Soak, row: Row) -> None:
    soak.bring()
    champion = soak.value("SELECT model_version FROM training.champion_decisions ORDER BY decision_id DESC LIMIT 1")
    soak.do("ALTER TABLE training.model_versions ADD CONSTRAINT no_more CHECK (false) NOT VALID")
    run = soak.run("--retrain")
    line = run.fails()
    soak.do("ALTER TABLE training.model_versions DROP CONSTRAINT no_more")
    assert "training: " in line
    assert f"Scores were still published, by {champion}" in line
    assert soak.lost() == 0
    finding = soak.doctor("learning")
    assert finding is not None
    assert "no_more" in finding.found
    row("learning fails", "no version can be stored", soak.recovers())


def test_the_gate_refuses_and_scoring_goes_on(soak: Soak, row: Row) -> None:
    soak.bring()
    soak.run("--retrain").succeeds()  # a champion that today's audit accepts
    champion = soak.value(NEWEST_CHAMPION)
    settings = soak.home / "heed.toml"
    before = settings.read_text()
    settings.write_text(before + "[gate]\nminimum_auc = 1.0\n")
    recovered = soak.recovers(within=soak.run("--retrain"))
    settings.write_text(before)
    newest = "FROM training.champion_decisions ORDER BY decision_id DESC LIMIT 1"
    decision, reasons = soak.value(f"SELECT decision {newest}"), soak.value(f"SELECT reasons::text {newest}")
    assert "at least 1 is agreed" in reasons, reasons
    if decision == "refused":
        assert soak.value("SELECT model_version FROM scoring.publications ORDER BY as_of DESC LIMIT 1") == champion
    else:  # today's audit withholds a column that the champion learned from: it may not score, and something has to
        assert "it scores because nothing else does" in reasons, reasons
    row("the gate refuses", "an AUC of 1 is asked for", recovered)


def test_the_champion_is_truncated(soak: Soak, row: Row) -> None:
    """The champion before it scores, that is said, and the next run that may learn makes a new one."""
    soak.bring()
    first = soak.value(NEWEST_CHAMPION)
    soak.run("--retrain").succeeds()
    second = soak.value(NEWEST_CHAMPION)
    assert second != first
    soak.do(TRUNCATE, second)
    soak.bring()
    said = soak.run("--no-retrain").succeeds()
    assert f"champion {second} cannot be read" in said
    assert f"scored by {first}" in said
    finding = soak.doctor("model")
    assert finding is not None
    assert finding.level == "warn"
    row("champion truncated", "half of its row is cut off", soak.recovers())
    assert soak.value(NEWEST_CHAMPION) not in (first, second)
    assert soak.doctor("model").level == "ok"  # type: ignore[union-attr]
