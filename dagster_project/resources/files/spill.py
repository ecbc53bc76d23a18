"""Frames too long to stand in memory whole: parts that are set aside until all of them were looked at.

Belongs here: the files of one such frame, and giving the parts back.
Does not belong here: what is looked at, and where the rows go then.

A stage that writes only what passes its checks has to hold everything until the last row is checked. The newest part
stays in memory, and with it all there is on nearly every run; what came before it goes to a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.files.memory import release

# Alerts in a part: with a hundred features and their reasons a few hundred MB.
ALERTS_AT_ONCE = 250_000


class Aside:
    """The parts of one frame, in their order.

    Parameters
    ----------
    home : the state directory, under which the files stand while they are needed.
    name : of the frame. What a run that was killed left under it is removed; one run has its turn at a time.

    Attributes
    ----------
    newest : the part that was kept last. rows : of all parts.
    """

    def __init__(self, home: Path, name: str) -> None:
        self._directory = home / "aside" / name
        self._files: list[Path] = []
        self.newest = pd.DataFrame()
        self.rows = 0
        self._remove()

    def keep(self, parts: Iterable[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        """Give each part on, and keep it."""
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
        """Give up all parts."""
        self._remove()
        self._files.clear()
        release(self.newest)

    def _remove(self) -> None:
        # By the names that heed gives: a home may be a directory in which somebody else keeps an `aside`.
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
