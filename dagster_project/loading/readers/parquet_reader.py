"""Parquet files to chunks of rows.

Belongs here: row groups and batches in bounded memory, damage, cells that PostgreSQL cannot hold.
Does not belong here: how a typed value is written (`arrow_text.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dagster_project.errors import HeedError
from dagster_project.loading.columns import ColumnPlan, plan_columns
from dagster_project.loading.contract import Kind
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.readers import arrow_text, limits
from dagster_project.loading.readers.chunk import Chunk, Reader, contract_columns, rejected_row
from dagster_project.loading.readers.source import SourceFile


class ParquetReader(Reader):
    """Parquet, row group by row group. Lines are row numbers."""

    def __init__(
        self,
        kind: Kind,
        source: SourceFile,
        mapping: Mapping,
        plan: Callable[[Sequence[str]], ColumnPlan] | None = None,
    ) -> None:
        """plan : what each column becomes; the contract's columns by default."""
        self.source = source
        source.position = 0
        source.raw.seek(0)
        if source.raw.read(4) != b"PAR1":
            raise HeedError(
                f"{source.path} is not a Parquet file, though its name says so",
                "rename it as fits its content (.csv, .jsonl), or export it again",
            )
        with _damage_named(self.source.path):
            # Buffered: a column chunk is read piece by piece, not whole.
            metadata = pq.read_metadata(source.raw)
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            dictionaries = _dictionaries(metadata.schema, groups)
            self._flat = sorted(name for name in dictionaries if "." not in name)
            self._file: pq.ParquetFile = pq.ParquetFile(
                source.raw, buffer_size=1 << 20, pre_buffer=False, read_dictionary=self._flat
            )
            schema = self._file.schema_arrow
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
            self._rows = int(metadata.num_rows)
            # Impala, Hive and Spark write times so, always in UTC; the type has no field for a zone.
            columns = [metadata.schema.column(i) for i in range(metadata.num_columns)]
            self._utc = {column.path for column in columns if column.physical_type == "INT96"}
        if self._rows > max(limits.PARQUET_FREE_ROWS, limits.PARQUET_ROWS_PER_BYTE * source.bytes_total):
            raise HeedError(
                f"{source.path} claims {self._rows:,} rows in {source.bytes_total:,} bytes, "
                "as files do that are made to fill a disk",
                "write it again as CSV if you trust it, and load that",
            )
        largest = max((size for _, size in sizes), default=0)
        if largest > limits.PARQUET_ROW_GROUP_BYTES:
            raise HeedError(
                f"{source.path} has a row group of {largest / 2**30:.0f} GiB, which does not fit into memory",
                "write it again with smaller row groups",
            )
        self.plan = plan(schema.names) if plan else plan_columns(kind, schema.names, mapping, source.name)
        self.ignored = self.plan.ignored
        width = sum(size for _, size in sizes) / self._rows if self._rows else 1.0
        most = limits.PARQUET_NESTED_ROWS if len(dictionaries) > len(self._flat) else limits.CHUNK_ROWS
        self._batch_rows = int(max(1, min(most, limits.PARQUET_CHUNK_BYTES / max(width, 1.0))))
        self._unfolded = 0

    def chunks(self) -> Iterator[Chunk]:
        with _damage_named(self.source.path):
            batches = self._file.iter_batches(batch_size=self._batch_rows, use_threads=False)
        row = 0
        while True:
            with _damage_named(self.source.path):
                batch = next(batches, None)
                if batch is None:
                    break
                batch.validate()
            for part in self._unfold(batch):
                yield self._chunk(part, row)
                row += part.num_rows
            if self._rows:
                self.source.position = int(self.source.bytes_total * min(1.0, row / self._rows))
        if row != self._rows:
            raise HeedError(
                f"{self.source.path} holds {row:,} rows and claims {self._rows:,}",
                "export it again; nothing was loaded",
            )

    def _unfold(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """The batch in parts whose texts fit into memory once each row has its own."""
        if not batch.num_rows:
            return
        sizes = np.zeros(batch.num_rows, np.int64)
        with _damage_named(self.source.path):  # a damaged index points nowhere
            for column in batch.columns:
                if pa.types.is_dictionary(column.type):
                    lengths = pc.fill_null(pc.binary_length(column.dictionary).take(column.indices), 0)
                    sizes += lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        ends = np.cumsum(sizes)
        self._unfolded += int(ends[-1])
        if self._unfolded > max(limits.PARQUET_FREE_BYTES, limits.PARQUET_RATIO * self.source.bytes_total):
            raise HeedError(
                f"the rows of {self.source.path} hold more than {limits.PARQUET_RATIO} times its size, "
                "as files do that are made to fill a disk",
                "write it again as CSV if you trust it, and load that",
            )
        at = 0
        while at < batch.num_rows:
            begun = ends[at - 1] if at else 0
            until = max(int(np.searchsorted(ends, begun + limits.PARQUET_CHUNK_BYTES, "right")), at + 1)
            yield batch.slice(at, until - at)
            at = until

    def _chunk(self, batch: pa.RecordBatch, before: int) -> Chunk:
        wanted = sorted(self.plan.positions())
        bad = np.zeros(batch.num_rows, bool)
        for at in wanted:
            mask = arrow_text.undecodable(batch.column(at))
            if mask is not None:
                bad |= mask
        rejected = []
        if bad.any():
            for row in np.flatnonzero(bad).tolist():
                cells = {}
                for name, column in zip(batch.schema.names, batch.columns, strict=True):
                    cells[name] = arrow_text.lenient_value(column, int(row))
                content = json.dumps(cells, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
                rejected.append(rejected_row(before + row + 1, "not UTF-8, or a NUL character", content))
            batch = batch.filter(pa.array(~bad))

        def values_at(at: int) -> pa.Array:
            values = batch.column(at)
            is_utc = batch.schema.names[at] in self._utc and pa.types.is_timestamp(values.type)
            return values.cast(pa.timestamp(values.type.unit, "UTC")) if is_utc else values

        contract = contract_columns(self.plan, lambda at: arrow_text.as_text(values_at(at)))
        further = [(name, arrow_text.as_json(values_at(at))) for name, at in self.plan.attributes]
        typed = {name for name, at in self.plan.contract.items() if not arrow_text.is_text(batch.column(at))}
        return Chunk(batch.num_rows, contract, further, rejected, frozenset(typed))


def _dictionaries(schema: Any, groups: list[Any]) -> set[str]:
    """The columns, by their paths, of texts that a dictionary holds in any row group.

    The schema's paths, which decide what is read: those of the groups may say something else.
    """
    paths = set()
    for group in groups:
        for at in range(group.num_columns):
            column = group.column(at)
            if column.physical_type == "BYTE_ARRAY" and {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(column.encodings):
                paths.add(schema.column(at).path)
    return paths


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Turns any error inside the Parquet library into one line about a damaged file."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        detail = " ".join(str(error).split())[:160]
        raise HeedError(
            f"the Parquet file {path} is damaged or cut off ({detail})",
            "fetch or export it again; nothing was loaded",
        ) from error
