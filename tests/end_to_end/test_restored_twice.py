"""A dump that is restored twice: object ids and transaction numbers repeat, and no place in it may be believed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dagster_project.resources.dbt.incremental import FULL, NEW, cleaning
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.warehouse.schema import prepare
from tests.end_to_end.changes import SETTINGS, Clusters, Sequence, build_clean

pytestmark = pytest.mark.slow


@pytest.fixture
def sequence(open_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sequence]:
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    clusters = Clusters(open_directory / f"restored-{os.getpid()}")
    yield Sequence(clusters, tmp_path / "sequence", 1)
    clusters.stop()


def clean(sequence: Sequence) -> str:
    with cleaning(sequence.warehouse, SETTINGS, sequence.now) as reading:
        build_clean(sequence.warehouse, sequence.now, reading.what)
    return reading.what


def require_marts_are_raw(sequence: Sequence) -> None:
    raw = {row[0] for row in sequence.sql("SELECT alert_id FROM raw.alerts")}
    assert {row[0] for row in sequence.sql("SELECT alert_id FROM marts.alerts")} == raw
    assert set(read_history(sequence.warehouse, sequence.now)["alert_id"]) == raw


def test_a_dump_restored_twice_is_read_again(sequence: Sequence) -> None:
    for _ in range(2):
        sequence.load_burst()
    sequence.random.random = lambda: 1.0  # type: ignore[method-assign]  # no rows go before a dump but those named here
    sequence.dump_and_restore()
    prepare(sequence.warehouse)
    assert clean(sequence) == FULL
    require_marts_are_raw(sequence)
    assert clean(sequence) == NEW, "nothing was restored since"
    # Seven go and seven come, in the places and with the transaction numbers of the restore.
    gone = [
        row[0]
        for row in sequence.sql(
            "DELETE FROM raw.alerts WHERE alert_id IN (SELECT alert_id FROM raw.alerts ORDER BY alert_id LIMIT 7) "
            "RETURNING alert_id"
        )
    ]
    assert len(gone) == 7
    sequence.random.random = lambda: 0.99  # type: ignore[method-assign]
    for number in range(7):
        sequence._alert(f"newest {number}", sequence.now - timedelta(hours=1))
    sequence.dump_and_restore()
    what = clean(sequence)
    require_marts_are_raw(sequence)
    assert what == FULL
