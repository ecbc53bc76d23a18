"""A sequence of everything that can happen, after which the incremental run equals the full one.

`make equivalence` runs 200 of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.changes import Clusters, happen


@pytest.fixture(scope="module")
def clusters(open_directory: Path) -> Iterator[Clusters]:
    made = Clusters(open_directory / "clusters")
    yield made
    made.stop()


@pytest.mark.parametrize("seed", [1])
def test_whatever_happened_an_incremental_run_equals_a_full_one(clusters: Clusters, tmp_path: Path, seed: int) -> None:
    sequence, rows = happen(clusters, tmp_path / "sequence", seed)
    assert len(sequence.done) >= 15
    assert rows > 100
