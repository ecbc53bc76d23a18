"""Features as Parquet files, one per day, on a local path or in a bucket.

Belongs here: where a day's file is, writing a day so that readers see the old file or the new one, reading a range of
days, and the Dagster IO manager.
Does not belong here: what a feature is (`triage/features/contract.py`).

Each feature contract has its own directory, so features of another contract are never read by mistake. Its manifest
holds the checksum of each file, and the warehouse that of the manifest: damaged files, and older files that were put
back, are refused.
"""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import dagster as dg
import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.files.checksums import DoubtfulFile, checksum_of, require_checksum
from dagster_project.resources.files.spill import ALERTS_AT_ONCE, SpillBuffer
from dagster_project.resources.stores.watermarks import manifest_watermark, oldest_in_progress, remember_manifest

if TYPE_CHECKING:
    import pyarrow as pa
    from upath import UPath

    from dagster_project.resources.warehouse.connection import Warehouse

_MANIFEST = "manifest.json"


class DamagedFile(HeedError):
    """A feature file cannot be read, or is not the one that was written."""


class FeatureStore:
    """The daily feature files of one contract.

    root : the directory or bucket path of all contracts.
    contract : the feature contract's hash.
    warehouse : the one with the alerts, which holds the manifest's checksum. None: no check, as in a benchmark.
    """

    def __init__(self, root: UPath, contract: str, warehouse: Warehouse | None = None) -> None:
        self.directory = root / f"contract={contract}"
        self._warehouse = warehouse

    def path(self, day: date) -> UPath:
        """The file of a day, which may not exist."""
        return self.directory / f"day={day.isoformat()}.parquet"

    def write(self, parts: Iterable[pd.DataFrame], days: Iterable[date]) -> int:
        """Write the given days, each to its own file; days without alerts are removed.

        parts : alert_features in order of `raised_at`, one part in memory at a time; rows of other days are an error.
        Returns the number of files that hold alerts.
        """
        days, written = set(days), set[date]()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._remove_unfinished()
        cache_id, checksums = self._manifest()
        for day in days:
            checksums.pop(day.isoformat(), None)
        for day, slices in groupby(_by_day(parts), key=itemgetter(0)):
            if day not in days or day in written:
                raise ValueError(f"features of {day} were computed but not asked for, or out of order")
            self._replace(self.path(day), (table for _, table in slices))
            with self.path(day).open("rb") as file:
                checksums[day.isoformat()] = checksum_of(file)
            written.add(day)
        for day in days - written:
            self.path(day).unlink(missing_ok=True)
        self._write_manifest(cache_id, checksums)
        return len(written)

    def read(
        self,
        first: date,
        last: date,
        columns: Sequence[str] | None = None,
        keep: Callable[[pa.Table], np.ndarray] | None = None,
    ) -> pd.DataFrame:
        """The features of alerts raised from `first` to `last`, both included, in order of time.

        Days without a file hold no alerts; a frame without rows and columns means that no day had any.
        columns : None reads all. keep : a function from the features of a day or part of a day to bool[rows]; None
            keeps all.
        """
        import pyarrow as pa

        rows = ALERTS_AT_ONCE if keep else None
        tables = [
            table.filter(pa.array(keep(table))) if keep else table
            for path, checksum in self._days(first, last)
            for table in _read(path, checksum, rows, columns)
        ]
        if not tables:
            return pd.DataFrame()
        whole = pa.concat_tables(tables, promote_options="permissive")
        tables.clear()
        # Free each column once it is copied: a year of features would be in memory twice otherwise.
        return whole.to_pandas(split_blocks=True, self_destruct=True)

    def read_parts(self, first: date, last: date, rows: int) -> Iterator[pd.DataFrame]:
        """As `read`, in parts of about `rows` rows; no part if no day had any alert."""
        import pyarrow as pa

        held: list[pa.Table] = []
        for path, checksum in self._days(first, last):
            for table in _read(path, checksum, rows):
                if held and sum(part.num_rows for part in held) + table.num_rows > rows:
                    whole = pa.concat_tables(held, promote_options="permissive")
                    held.clear()
                    yield whole.to_pandas(split_blocks=True, self_destruct=True)
                held.append(table)
        if held:
            yield pa.concat_tables(held, promote_options="permissive").to_pandas(split_blocks=True)

    def compare(self, first: date, last: date, days: int) -> list[str]:
        """What is wrong with the newest day and with `days` random ones between `first` and `last`, in words."""
        stored = self._days(first, last)
        chosen = sorted({*stored[-1:], *random.sample(stored, min(days, len(stored)))}, key=lambda each: each[0].name)
        damages = []
        for path, checksum in chosen:
            try:
                for _ in _read(path, checksum, ALERTS_AT_ONCE, ["alert_id"]):
                    pass
            except DamagedFile as error:
                damages.append(error.cause)
        return damages

    def _days(self, first: date, last: date) -> list[tuple[UPath, str]]:
        """The files of these days that exist or should, in order, with their checksums (empty: none is recorded)."""
        if not self.directory.exists():
            return []
        _, checksums = self._manifest()
        names = {self.path(date.fromisoformat(day)).name: checksum for day, checksum in checksums.items()}
        ends = self.path(first).name, self.path(last).name
        existing = {path.name for path in self.directory.iterdir() if path.suffix == ".parquet"}
        return [
            (self.directory / name, names.get(name, ""))
            for name in sorted(existing | names.keys())
            if ends[0] <= name <= ends[1]
        ]

    def _manifest(self) -> tuple[str, dict[str, str]]:
        """The name of these files in the warehouse, and the checksum of each day; none if the warehouse disagrees."""
        try:
            with (self.directory / _MANIFEST).open("rb") as file:
                content = file.read()
            manifest = json.loads(content)
            cache_id, checksums = str(manifest["cache_id"]), dict(manifest["days"])
        except (OSError, ValueError, TypeError, KeyError):
            return uuid.uuid4().hex, {}
        warehouse = self._warehouse
        if warehouse is not None and manifest_watermark(warehouse, "features", cache_id, content) is None:
            return cache_id, {}
        return cache_id, checksums

    def _write_manifest(self, cache_id: str, checksums: dict[str, str]) -> None:
        content = json.dumps({"cache_id": cache_id, "days": dict(sorted(checksums.items()))}).encode()
        path = self.directory / _MANIFEST
        if path.protocol in ("", "file"):
            with whole_file(path, _REMEDY) as fresh:
                fresh.write_bytes(content)
        else:
            path.write_bytes(content)
        if self._warehouse is not None:
            now = oldest_in_progress(self._warehouse)
            remember_manifest(self._warehouse, "features", cache_id, content, now)

    def _remove_unfinished(self) -> None:
        """Remove half-written files of killed writers; the run holds the run lock, so nobody else writes now."""
        if self.directory.protocol in ("", "file"):
            for path in self.directory.glob(".day=*"):
                path.unlink(missing_ok=True)

    def _replace(self, path: UPath, tables: Iterable[pa.Table]) -> None:
        if path.protocol in ("", "file"):
            # No fsync, which a year of days would need for each file: features can be derived again, and a file that
            # a power cut truncated has no footer, which reading detects.
            with whole_file(path, _REMEDY) as fresh, fresh.open("wb") as file:
                _write(file, tables)
        else:  # an object store shows an object only when its upload has ended
            with path.open("wb") as file:
                _write(file, tables)


_REMEDY = "free some room, or correct what it says; the next run writes it"


def _by_day(parts: Iterable[pd.DataFrame]) -> Iterator[tuple[date, pa.Table]]:
    """The alerts of each day of each part, in order."""
    import pyarrow as pa

    for part in parts:
        times = part["raised_at"]
        frame = part if times.is_monotonic_increasing else part.sort_values("raised_at", kind="stable")
        # One table, cut into slices: converting each day of a year to Arrow separately takes three times as long.
        table = pa.Table.from_pandas(frame, preserve_index=False)
        numbers, starts = np.unique(frame["raised_at"].dt.floor("D").to_numpy("datetime64[D]"), return_index=True)
        for day, (start, stop) in zip(numbers.tolist(), pairwise([*starts.tolist(), len(frame)]), strict=True):
            yield day, table.slice(start, stop - start)


def _write(file: BinaryIO, tables: Iterable[pa.Table]) -> None:
    import pyarrow.parquet as pq

    with ExitStack() as stack:
        writer: pq.ParquetWriter | None = None
        for table in tables:
            writer = writer or stack.enter_context(pq.ParquetWriter(file, table.schema, compression="zstd"))
            writer.write_table(table)


def _read(path: UPath, checksum: str, rows: int | None, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The contents of a file: whole, or in parts of at most `rows` rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with path.open("rb") as file:
            require_checksum(file, checksum)
            if rows is None:
                yield pq.read_table(file, columns=columns)
            else:
                for batch in pq.ParquetFile(file).iter_batches(rows, columns=columns):
                    yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException, DoubtfulFile) as error:
        raise DamagedFile(
            f"the feature file {path} cannot be read ({' '.join(str(error).split())[:200]})",
            "delete it; the next run of `retrain` writes it again",
        ) from error


@dataclass(frozen=True)
class DerivedFeatures:
    """What a run derived. rows : in order of `raised_at`. days : those that it covers, also days without alerts."""

    rows: SpillBuffer
    days: Sequence[date]


class FeatureFiles(dg.IOManager):
    """Dagster's IO manager: writes spilled features by day, and hands over the store for reading."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def handle_output(self, context: dg.OutputContext, obj: DerivedFeatures) -> None:
        files = self._store.write(obj.rows, obj.days)
        obj.rows.clear()
        context.add_output_metadata({"path": dg.MetadataValue.path(str(self._store.directory)), "files": files})

    def load_input(self, context: dg.InputContext) -> FeatureStore:
        return self._store


def remove_features(home: Path) -> None:
    """Remove the feature files of all contracts from a home, and nothing else."""
    for directory in (home / "features").glob("contract=*"):
        for pattern in ("day=*.parquet", ".day=*", _MANIFEST):
            for path in directory.glob(pattern):
                path.unlink(missing_ok=True)
