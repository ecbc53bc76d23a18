"""One file into the raw tables, in one transaction.

Belongs here: the order of a load (check, stream, compare, insert).
Does not belong here: what files look like (`readers/`), which rows are new (`versions.py`), the log of loads
(`ledger.py`), connections and the tables' definitions (`resources/`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.loading import ledger, versions
from dagster_project.loading.contract import COLUMNS, KINDS, NUMBERS, Kind
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.report import LoadProgress, LoadReport, ProgressTeller

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection, Cursor

    from dagster_project.loading.readers.chunk import Chunk, Reader
    from dagster_project.loading.readers.source import SourceFile

# Held to the end of the transaction, so that loads follow one another: "load" in ASCII, heed's own number.
LOAD_LOCK = 0x6C6F6164

# Often enough to see that it moves, seldom enough for a terminal that prints one line each.
PROGRESS_SECONDS = 1.0

# Tables that gain so many rows are analyzed at once: dbt reads them next, and automatic statistics come up to a minute
# later.
ANALYZE_ROWS = 10_000


def load_file(
    kind: Kind,
    path: str | Path,
    connect: Callable[[], Connection],
    *,
    mapping: Mapping | None = None,
    correction: bool = False,
    progress: Callable[[LoadProgress], None] | None = None,
    loaded_at: datetime | None = None,
    time_zone: str = "UTC",
    simulation: dict[str, Any] | None = None,
    decisions_only: bool = False,
    progress_seconds: float = PROGRESS_SECONDS,
) -> LoadReport:
    """Load one file into the raw tables, all of it or nothing.

    Parameters
    ----------
    kind : what the rows are.
    path : a CSV (also .csv.gz), Parquet or JSON lines file.
    connect : makes a connection to the warehouse, not in autocommit mode, with the raw tables in place.
    mapping : names of the file's columns; without it the contract's names are looked for.
    correction : these rows are right, and what was loaded before is wrong: facts of alerts then count for the past too.
        Without it the facts that were loaded first count.
    progress : called at most every `progress_seconds`.
    loaded_at : when the rows count as loaded, with a zone; now by default. Must be later than any load before.
    time_zone : the zone of times that carry none (`source.time_zone`), for warnings; rows hold times as written.
    decisions_only : `kind` is actions, and the file holds alerts with decisions in them, as the mapping says.
    simulation : the simulated company that the rows belong to; kept with the load, in its transaction. None: real rows.

    Raises
    ------
    HeedError
        The file, its header or the mapping is wrong, none of its rows can be decoded, or the warehouse refuses.
        Nothing was loaded then.
    """
    from adbc_driver_manager import Error

    if kind not in KINDS:
        raise HeedError(f"{kind!r} is no kind of file that heed loads", f"use one of {', '.join(KINDS)}")
    if loaded_at is not None and loaded_at.tzinfo is None:
        raise HeedError(f"loaded_at {loaded_at} has no time zone", "give one, for example UTC")
    from dagster_project.loading.readers import SourceFile

    mapping = mapping or Mapping()
    source = SourceFile(Path(path), mapping.layouts.get("alerts" if decisions_only else kind))
    try:
        tell = ProgressTeller(kind, source, progress, progress_seconds)
        load = _Load(kind, source, mapping, time_zone, correction, simulation, decisions_only, tell)
        try:
            return load.run(connect, loaded_at)
        except Error as error:
            raise HeedError(
                f"the warehouse did not take {source.path} ({' '.join(str(error).split())[:300]})",
                "nothing was loaded; mend that and load again (`heed doctor` examines the warehouse)",
            ) from error
    finally:
        source.close()


class _Load:
    """One load. Names of tables and columns below are heed's own constants; values only ever go as parameters."""

    def __init__(
        self,
        kind: Kind,
        source: SourceFile,
        mapping: Mapping,
        time_zone: str,
        correction: bool,
        simulation: dict[str, Any] | None,
        decisions_only: bool,
        tell: ProgressTeller,
    ) -> None:
        from dagster_project.loading.observed import Observed

        self.kind, self.source, self.mapping, self.tell = kind, source, mapping, tell
        self.time_zone, self.correction, self.simulation = time_zone, correction, simulation
        self.decisions_only = decisions_only
        self.observed = Observed(kind)
        self.decimals: dict[str, str] = {}
        self.failure: BaseException | None = None

    def run(self, connect: Callable[[], Connection], loaded_at: datetime | None) -> LoadReport:
        self._open()  # a wrong header is refused before anything is read
        fingerprint = self.mapping.fingerprint(self.kind, decisions_only=self.decisions_only)
        if self.correction:  # the same content says something else
            fingerprint += b"correction"
        sha256 = self.source.sha256(fingerprint, lambda: self.tell("checking"))

        with connect() as connection:
            try:
                with connection.cursor() as cursor:
                    report = self._load(cursor, sha256, loaded_at)
                self.tell("committing")
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
        return report

    def _load(self, cursor: Cursor, sha256: str, loaded_at: datetime | None) -> LoadReport:
        from dagster_project.loading.staged import StagedChecks

        self._wait_for_other_loads(cursor)
        ledger.require_own_tables(cursor, self.kind)
        ledger.refuse_mixture(cursor, self.simulation is not None)
        file = str(self.source.path)
        if (before := ledger.loaded_before(cursor, self.kind, sha256)) is not None:
            load_id, read, undecodable = before
            return LoadReport(
                file=file,
                kind=self.kind,
                rows_read=read,
                rows_added=0,
                rows_unchanged=read - undecodable,
                rows_undecodable=undecodable,
                seconds=self.tell.seconds(),
                already_loaded=True,
                load_id=load_id,
            )
        load_id, loaded_at = ledger.begin_load(cursor, self.kind, file, sha256, loaded_at, self.simulation)
        if self.correction:
            cursor.execute("INSERT INTO raw.corrections (load_id) VALUES ($1)", parameters=(load_id,))
        reader = self._stage(cursor)
        self.source.check_unchanged()
        read, undecodable = self.tell.rows, self.observed.undecodable.total()
        self._refuse_if_nothing_is_kept(reader)
        self.tell("comparing")
        versions.judge(cursor, self.kind, self.correction)
        checks = StagedChecks(cursor, self.kind, self.time_zone)
        warnings = [*self.observed.warnings(self.decimals, reader.delimiter), *reader.notes()]
        warnings += checks.before_insert(self.observed)
        added = versions.insert_new(cursor, self.kind, load_id, loaded_at)
        warnings += [*checks.unmatched_actions(), *checks.early_actions()]
        if undecodable:
            ledger.keep_undecodable(cursor, self.kind, file, load_id, loaded_at)
        of_loaded_ids = 0 if self.correction else versions.added_to_loaded_ids(cursor, self.kind)
        unchanged = read - added - undecodable
        ledger.finish_load(cursor, load_id, read, added, unchanged, undecodable)
        if added >= ANALYZE_ROWS:
            cursor.execute(f'ANALYZE raw."{self.kind}"')
        return LoadReport(
            file=file,
            kind=self.kind,
            rows_read=read,
            rows_added=added,
            rows_unchanged=unchanged,
            rows_undecodable=undecodable,
            seconds=self.tell.seconds(),
            already_loaded=False,
            ignored_columns=reader.ignored,
            load_id=load_id,
            rows_of_loaded_ids=of_loaded_ids,
            warnings=tuple(warnings),
            decimals=self.decimals,
        )

    def _refuse_if_nothing_is_kept(self, reader: Reader) -> None:
        """A load that keeps no row of a file that has rows is no success."""
        rows = self.tell.rows - reader.before_header
        if rows > 0 and not self.observed.rows:
            raise HeedError(
                f"none of the {rows:,} rows of {self.source.path} can be decoded: {self.observed.reasons()}",
                f"{self.observed.mend()}; nothing was loaded",
            )

    def _wait_for_other_loads(self, cursor: Cursor) -> None:
        if not ledger.one_row(cursor, "SELECT pg_try_advisory_xact_lock($1)", LOAD_LOCK)[0]:
            self.tell("waiting", whatever_the_time=True)
            ledger.one_row(cursor, "SELECT pg_advisory_xact_lock($1)", LOAD_LOCK)

    def _open(self) -> Reader:
        from dagster_project.loading.readers import open_reader

        return open_reader(self.kind, self.source, self.mapping, decisions_only=self.decisions_only)

    def _stage(self, cursor: Cursor) -> Reader:
        """Read the file into a temporary table; a second time if its numbers use other signs than 1234.5."""
        from dagster_project.loading.values import decimals

        mapped = self.mapping.decimal.get(self.kind, "")
        self.decimals = dict.fromkeys(NUMBERS, mapped) if mapped else {}
        reader = self._open()
        self._copy(cursor, reader)
        if not mapped and (own := decimals(self.observed.numbers)):
            self.decimals = own
            reader = self._open()
            self._copy(cursor, reader)
        return reader

    def _copy(self, cursor: Cursor, reader: Reader) -> None:
        """Stream the file by COPY into a temporary table, visible only here and dropped at the end."""
        import pyarrow as pa

        from dagster_project.loading.observed import Observed
        from dagster_project.loading.rows import incoming_schema

        self.observed, self.tell.rows = Observed(self.kind), 0
        cursor.execute("DROP TABLE IF EXISTS pg_temp.incoming")
        batches = pa.RecordBatchReader.from_batches(incoming_schema(self.kind), self._batches(reader))
        try:
            cursor.adbc_ingest("incoming", batches, mode="create", temporary=True)
        except BaseException:
            if self.failure is not None:  # the driver reports only that its input failed, not how
                raise self.failure from None
            raise
        if self.failure is not None:
            raise self.failure
        cursor.execute(f"ANALYZE pg_temp.incoming ({COLUMNS[self.kind][0]}, row_hash)")

    def _batches(self, reader: Reader) -> Iterator[pa.RecordBatch]:
        from dagster_project.loading.rows import incoming_batch

        try:
            for chunk in reader.chunks():
                chunk = self._normalized(chunk)
                batch = incoming_batch(self.kind, chunk, self.tell.rows)
                self.tell.rows += batch.num_rows
                self.tell("reading")
                if batch.num_rows:
                    yield batch
        except BaseException as error:
            self.failure = error
            raise

    def _normalized(self, chunk: Chunk) -> Chunk:
        """A chunk with empty texts as null and plain numbers, as the mapping and the file itself say."""
        from dagster_project.loading.values import emptied, plain_numbers

        if empty := self.mapping.empty.get(self.kind):
            quoted = [json.dumps(text, ensure_ascii=False) for text in empty]
            chunk.contract = {name: emptied(texts, empty) for name, texts in chunk.contract.items()}
            chunk.further = [(name, emptied(texts, quoted)) for name, texts in chunk.further]
        self.observed.as_in_file(chunk)
        for name, decimal in self.decimals.items():
            if name in chunk.contract and name not in chunk.typed:
                chunk.contract[name] = plain_numbers(chunk.contract[name], decimal)
        self.observed.as_loaded(chunk)
        return chunk
