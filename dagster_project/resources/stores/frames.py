"""The training set and past forecasts, handed from one asset to the next as a Parquet file each.

Belongs here: the files and their Dagster IO manager. Nothing is pickled.
Does not belong here: the model store (`models.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.files.memory import release

if TYPE_CHECKING:
    from upath import UPath


class FrameFile:
    """The newest frame of an asset, as one Parquet file."""

    def __init__(self, path: UPath) -> None:
        self.path = path

    def write(self, frame: pd.DataFrame) -> None:
        """Replace the file; readers see the old one or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in self.path.parent.glob(f".{self.path.name}.*"):  # by a writer that was killed
            unfinished.unlink(missing_ok=True)
        remedy = "free some room, or correct what it says, then run again"
        with whole_file(self.path, remedy) as fresh, fresh.open("wb") as file:
            frame.to_parquet(file, index=False, compression="zstd")

    def read(self) -> pd.DataFrame:
        """The frame as it was written."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with self.path.open("rb") as file:
                table = pq.read_table(file)
        except (OSError, pa.ArrowException) as error:
            raise HeedError(
                f"{self.path} cannot be read ({' '.join(str(error).split())[:200]})",
                "run the job `retrain`, which writes it again",
            ) from error
        # Free each column once it is copied: the frame would be in memory twice otherwise.
        return table.to_pandas(split_blocks=True, self_destruct=True)


class FrameFiles(dg.IOManager):
    """Hands over the frame of an asset as a file of its name, which is read when needed."""

    def __init__(self, directory: UPath) -> None:
        self._directory = directory

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        file = self._file(context.asset_key)
        file.write(obj)
        release(obj)
        context.add_output_metadata({"path": dg.MetadataValue.path(str(file.path))})

    def load_input(self, context: dg.InputContext) -> FrameFile:
        return self._file(context.asset_key)

    def _file(self, key: dg.AssetKey) -> FrameFile:
        return FrameFile(self._directory / f"{key.path[-1]}.parquet")
