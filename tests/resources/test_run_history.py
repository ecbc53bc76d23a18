"""Dagster's run history with kept connections: the same files, the same events, seen by others while a run goes on."""

import sqlite3
import threading
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage

from dagster_project.instance import dagster_instance
from dagster_project.resources import run_history
from dagster_project.resources.run_history import EventLog

DAYS = dg.StaticPartitionsDefinition([f"day {number}" for number in range(20)])


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def counted(context: dg.AssetExecutionContext) -> None:
    context.log.warning("seen")


def run(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    tags = {"dagster/asset_partition_range_start": "day 0", "dagster/asset_partition_range_end": "day 19"}
    return dg.materialize([counted], instance=instance, tags=tags)


def test_dagsters_own_storage_reads_the_same_events(tmp_path: Path) -> None:
    with dagster_instance(tmp_path) as instance:
        assert isinstance(instance.event_log_storage, EventLog)
        done = run(instance)
        ours = instance.all_logs(done.run_id)
        assert len(instance.get_materialized_partitions(counted.key)) == 20
    assert not list((tmp_path / "dagster" / "history" / "runs").glob("*-wal")), "a connection was left open"
    theirs = DagsterSqliteStorage(str(tmp_path / "dagster")).event_log_storage.get_logs_for_run(done.run_id)
    assert theirs == ours
    assert len(theirs) > 40


def test_events_of_many_threads_are_all_kept(tmp_path: Path) -> None:
    with dagster_instance(tmp_path) as instance:
        done = run(instance)
        before = len(instance.all_logs(done.run_id))
        stored = instance.get_run_by_id(done.run_id)
        threads = [
            threading.Thread(target=lambda: [instance.report_engine_event("seen", stored) for _ in range(25)])
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(instance.all_logs(done.run_id)) == before + 100


def test_the_file_changes_while_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The UI watches the file, not the write-ahead log beside it."""
    monkeypatch.setattr(run_history, "KEPT_SECONDS", 0.0)
    with dagster_instance(tmp_path) as instance:
        done = run(instance)
        alone = sqlite3.connect(f"file:{instance.event_log_storage.path_for_shard(done.run_id)}?immutable=1", uri=True)
        assert alone.execute("SELECT count(*) FROM event_logs").fetchone()[0] >= 40
        alone.close()


def test_a_wiped_history_is_empty_and_takes_new_runs(tmp_path: Path) -> None:
    with dagster_instance(tmp_path) as instance:
        first = run(instance)
        instance.event_log_storage.wipe()
        assert instance.all_logs(first.run_id) == []
        assert len(instance.all_logs(run(instance).run_id)) > 40
