"""Spill buffers: frames too long for memory, kept in parts until all parts are checked.

Belongs here: the files of one such frame, and reading the parts back.
Does not belong here: the checks, and where the rows go afterwards.

A stage that writes only what passes its checks must keep all rows until the last one is checked. The newest part stays
in memory, which on nearly every run is everything; earlier parts go to files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.files.memory import release

# Alerts in a part: with a hundred features and their reasons a few hundred MB.
ALERTS_AT_ONCE = 250_000


class SpillBuffer:
    """The parts of one frame, in their order.

    home : the state directory; the files are in `spill/` there.
    name : of the frame. Files that a killed run left under it are removed; only one run holds the run lock.

    Attributes
    ----------
    newest : the last part. rows : of all parts.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._directory = home / "spill" / name
        self._files: list[Path] = []
        self.newest = pd.DataFrame()
        self.rows = 0
        self._remove()

    def keep(self, parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Pass each part on, and keep it."""
        for part in parts:
            self._write_newest()
            self.newest = part
            self.rows += len(part)
            yield part

    def __iter__(self) -> Iterator[pd.DataFrame]:
        from pyarrow import feather

        for path in self._files:
            yield feather.read_table(path, memory_map=False).to_pandas(split_blocks=True, self_destruct=True)
        if len(self.newest.columns):
            yield self.newest

    def clear(self) -> None:
        """Remove all parts."""
        self._remove()
        self._files.clear()
        release(self.newest)

    def _remove(self) -> None:
        # Only names that heed gives: the home may hold a `spill` directory with other people's files.
        for path in [*self._directory.glob("[0-9]*.arrow"), *self._directory.glob(".[0-9]*.arrow.*")]:
            path.unlink(missing_ok=True)

    def _write_newest(self) -> None:
        import pyarrow as pa
        from pyarrow import feather

        if not len(self.newest):
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / f"{len(self._files)}.arrow"
        with whole_file(path, "free some room, or correct what it says; the next run writes it") as fresh:
            feather.write_feather(pa.Table.from_pandas(self.newest, preserve_index=False), str(fresh))
        self._files.append(path)
