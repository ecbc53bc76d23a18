"""Buffered parts come back unchanged, and no file is left."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from dagster_project.resources.files.spill import SpillBuffer


def part(first: int, rows: int) -> pd.DataFrame:
    numbers = range(first, first + rows)
    return pd.DataFrame(
        {
            "alert_id": pd.Series([f"a{number}" for number in numbers], dtype="str"),
            "raised_at": pd.Timestamp("2025-06-01", tz="UTC").as_unit("us") + pd.to_timedelta(numbers, unit="s"),
            "team": pd.Series([None] * rows, dtype="str"),
            "history": np.arange(first, first + rows, dtype=np.float32),
            "flood": np.arange(rows) % 2 == 0,
            "reasons": [["one", f"two, “{number}”"][: 1 + number % 2] for number in numbers],
        }
    )


def test_parts_come_back_in_order_as_often_as_they_are_asked_for(tmp_path: Path) -> None:
    parts = [part(0, 5), part(5, 1), part(6, 4)]
    buffer = SpillBuffer(tmp_path, "scores")
    passed_on = list(buffer.keep(part.copy() for part in parts))
    assert [len(each) for each in passed_on] == [5, 1, 4]
    assert buffer.rows == 10
    assert len(list(tmp_path.rglob("*.arrow"))) == 2, "the newest part needs no file"
    for _ in range(2):
        for came, was in zip(buffer, parts, strict=True):
            pd.testing.assert_frame_equal(came.drop(columns="reasons"), was.drop(columns="reasons"))
            assert [json.dumps(list(each)) for each in came["reasons"]] == [json.dumps(each) for each in was["reasons"]]
    buffer.clear()
    assert not list(tmp_path.rglob("*.arrow"))


def test_what_a_killed_run_left_goes_with_the_next_one_and_no_rows_are_no_crash(tmp_path: Path) -> None:
    killed = SpillBuffer(tmp_path, "scores")
    list(killed.keep([part(0, 5), part(5, 5)]))
    assert list(tmp_path.rglob("*.arrow"))
    buffer = SpillBuffer(tmp_path, "scores")
    assert not list(tmp_path.rglob("*.arrow"))
    assert list(buffer) == []
    [empty] = buffer.keep([part(0, 0)])
    assert len(empty) == buffer.rows == 0
    [kept] = buffer
    pd.testing.assert_frame_equal(kept, part(0, 0))
