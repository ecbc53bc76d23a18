"""One file into the raw tables, in one transaction.

Belongs here: the order of a load (check, stream, compare, insert), which rows are new, progress and the report.
Does not belong here: what files look like (`readers.py`), connections and the tables' definitions (`resources/`).

How a load decides
------------------
A row is a version of its id, told apart by the hash of its content. Raw keeps every version that any file ever held.
After a load, the newest version of each id in the file is the one that stands last in the file. So:

- a version that raw does not hold is added; copies of it within the file are added too, as duplicates;
- a version that raw holds is skipped, except where it stands last in the file and is not the newest in raw: then it
  is a correction back, and is added again;
- a row without an id is skipped when raw holds its content.

A file whose content was loaded before is not read again only while no later load of its kind has added a row: then what
it would leave is what stands.

An id is what staging takes for one: without outer blanks, rules and action types without regard to letter case.

Newest is by `loaded_at`, then `load_id`, as in staging. All rows of a load carry one `loaded_at`, later than that of
any load before; only where a file holds different versions of one id, each carries a microsecond more than the one
before.

Of an alert staging uses the oldest version, unless a later load is a correction: then that one. So the rows of a
correction are added although raw holds the same ones as the newest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dagster_project.errors import HeedError
from dagster_project.loading.contract import COLUMNS, KINDS, NUMBERS, Kind, Mapping

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection, Cursor

    from dagster_project.loading.doubts import LoadWarning
    from dagster_project.loading.readers import Chunk, Reader, SourceFile

_TRIMMED = "nullif(btrim({}, E' \\t\\r\\n\\f\\x0b'), '')"
_TYPE = _TRIMMED.format("action_type")
# As the macro type_key in dbt_project/macros/read_text.sql has it.
_NOT_COMPARED = "E' \\t\\n\\r\\f\\x0b_-/.,:;!?()[]&''\u2019`\"'"
# What rows of one id share, as the staging models see it. Ids of alerts and actions are trimmed as they are read
# (`rows.py`), so that an index on them serves.
KEYS: dict[Kind, str] = {
    "alerts": "alert_id",
    "actions": "action_id",
    "rules": f"lower({_TRIMMED.format('rule')})",
    "action_types": f"coalesce(nullif(translate(lower({_TYPE}), {_NOT_COMPARED}, ''), ''), lower({_TYPE}))",
}

# Held to the end of the transaction, so that loads follow one another: "load" in ASCII, heed's own number.
LOAD_LOCK = 0x6C6F6164

# Often enough to see that it moves, seldom enough for a terminal that prints one line each.
PROGRESS_SECONDS = 1.0

# From so many new rows on the planner is told about them at once: dbt reads the table next, and automatic statistics
# come up to a minute later.
ANALYZE_ROWS = 10_000

Stage = Literal["checking", "waiting", "reading", "comparing", "committing"]


@dataclass(frozen=True)
class LoadProgress:
    """Where a load stands.

    Attributes
    ----------
    rows : rows read so far. bytes_read, bytes_total : of the file as it lies on disk. seconds : since the start.
    """

    kind: Kind
    file: str
    stage: Stage
    rows: int
    bytes_read: int
    bytes_total: int
    seconds: float

    def summary(self) -> str:
        """One line in words."""
        share = f"{100 * self.bytes_read / max(self.bytes_total, 1):.0f}%"
        return {
            "checking": f"checking {self.file}, {share}",
            "waiting": "waiting for another load to finish",
            "reading": f"{self.rows:,} rows read, {share} of {self.file}",
            "comparing": f"{self.rows:,} rows read, comparing them with what stands already",
            "committing": f"{self.rows:,} rows read, finishing",
        }[self.stage]


@dataclass(frozen=True)
class LoadReport:
    """What a load did. rows_read = rows_added + rows_unchanged + rows_undecodable.

    Attributes
    ----------
    already_loaded : this content was loaded before, so nothing was read or changed; the counts say what it held.
    ignored_columns : columns of the file that were not loaded.
    load_id : the row in raw.loads.
    rows_of_loaded_ids : rows added whose id had been loaded before with other content.
    warnings : what people should know about the file, with counts.
    decimals : number column -> decimal sign, where the file's numbers were not written plainly.
    """

    file: str
    kind: Kind
    rows_read: int
    rows_added: int
    rows_unchanged: int
    rows_undecodable: int
    seconds: float
    already_loaded: bool
    ignored_columns: tuple[str, ...] = ()
    load_id: int | None = None
    rows_of_loaded_ids: int = 0
    warnings: tuple[LoadWarning, ...] = ()
    decimals: dict[str, str] = field(default_factory=dict)

    def summary(self) -> str:
        """One line in words."""
        kind = self.kind.replace("_", " ")
        if self.already_loaded:
            rejected = f", {self.rows_undecodable:,} of them undecodable" if self.rows_undecodable else ""
            return f"{self.file}: loaded before ({self.rows_read:,} {kind}{rejected}), nothing changed"
        if self.rows_read == 0:
            return f"{self.file}: a header and no rows, nothing to add"
        line = f"{self.file}: {self.rows_read:,} {kind} read in {self.seconds:.1f} s, {self.rows_added:,} added"
        if self.rows_unchanged:
            line += f", {self.rows_unchanged:,} unchanged"
        if self.rows_of_loaded_ids and self.kind == "alerts":
            line += (
                f", {self.rows_of_loaded_ids:,} of them tell other facts of alerts that were loaded before: heed uses "
                "those loaded first (load with --correction where these are right)"
            )
        if self.rows_undecodable:
            line += f", {self.rows_undecodable:,} undecodable and rejected (raw.undecodable_rows)"
        if self.decimals:
            signs = {",": "decimal commas", ".": "decimal points and thousands separators"}
            line += "; " + ", ".join(f"{name} read with {signs[sign]}" for name, sign in self.decimals.items())
        if self.ignored_columns:
            line += f"; columns not loaded: {', '.join(self.ignored_columns[:12])}"
        return line

    def to_document(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {**asdict(self), "ignored_columns": list(self.ignored_columns)}


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
    progress_seconds: float = PROGRESS_SECONDS,
) -> LoadReport:
    """Load one file into the raw tables, all of it or nothing.

    Parameters
    ----------
    kind : what the rows are.
    path : a CSV (also .csv.gz), Parquet or JSON lines file.
    connect : makes a connection to the warehouse, not in autocommit mode, with the raw tables in place.
    mapping : names of the file's columns; without it the contract's names are looked for.
    correction : a person says that these rows are right and what was loaded before is not: of alerts, their facts count
        also for the past. Without it the facts that were loaded first count.
    progress : called at most every `progress_seconds`.
    loaded_at : the moment the rows count as loaded, with a zone; now by default. Must be later than any load before.
    time_zone : the zone of times that carry none (`source.time_zone`), for warnings; rows hold times as written.

    simulation : the simulated company that the rows are of; kept with the load, in its transaction. None: real rows.

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

    source = SourceFile(Path(path))
    try:
        tell = _Teller(kind, source, progress, progress_seconds)
        load = _Load(kind, source, mapping, time_zone, correction, simulation, tell)
        try:
            return load.run(connect, loaded_at)
        except Error as error:
            raise HeedError(
                f"the warehouse did not take {source.path} ({' '.join(str(error).split())[:300]})",
                "nothing was loaded; mend that and load again (`heed doctor` examines the warehouse)",
            ) from error
    finally:
        source.close()


class _Teller:
    """Progress, at most every so many seconds, from the first such moment on: short loads say nothing."""

    def __init__(
        self, kind: Kind, source: SourceFile, progress: Callable[[LoadProgress], None] | None, every: float
    ) -> None:
        self.kind, self.source, self.progress, self.every = kind, source, progress, every
        self.started = self.told = time.monotonic()
        self.rows = 0

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def __call__(self, stage: Stage, *, whatever_the_time: bool = False) -> None:
        now = time.monotonic()
        if self.progress is None or (now - self.told < self.every and not whatever_the_time):
            return
        self.told = now
        read = self.source.bytes_read() if stage in ("checking", "reading") else self.source.bytes_total
        self.progress(
            LoadProgress(
                self.kind, str(self.source.path), stage, self.rows, read, self.source.bytes_total, self.seconds()
            )
        )


class _Load:
    """One load. Names of tables and columns below are heed's own constants; values only ever go as parameters."""

    def __init__(
        self,
        kind: Kind,
        source: SourceFile,
        mapping: Mapping | None,
        time_zone: str,
        correction: bool,
        simulation: dict[str, Any] | None,
        tell: _Teller,
    ) -> None:
        from dagster_project.loading.doubts import Observed

        self.kind, self.source, self.mapping, self.tell = kind, source, mapping, tell
        self.time_zone, self.correction = time_zone, correction
        self.simulation = None if simulation is None else json.dumps(simulation)
        self.table = f'raw."{kind}"'
        self.key = KEYS[kind]
        self.observed = Observed(kind)
        self.decimals: dict[str, str] = {}
        self.failure: BaseException | None = None

    def run(self, connect: Callable[[], Connection], loaded_at: datetime | None) -> LoadReport:
        from dagster_project.loading.readers import open_reader

        open_reader(self.kind, self.source, self.mapping)  # a wrong header is refused before anything is read
        fingerprint = self.mapping.fingerprint(self.kind) if self.mapping else b""
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
        from dagster_project.loading.doubts import StagedDoubts

        self._wait_for_turn(cursor)
        self._require_own_tables(cursor)
        self._refuse_a_mixture(cursor)
        if (before := self._loaded_before(cursor, sha256)) is not None:
            return before
        load_id, loaded_at = self._begin(cursor, sha256, loaded_at)
        if self.correction:
            cursor.execute("INSERT INTO raw.corrections (load_id) VALUES ($1)", parameters=(load_id,))
        reader = self._stage(cursor)
        self.source.check_unchanged()
        read, undecodable = self.tell.rows, self.observed.undecodable.total()
        self._refuse_if_nothing_is_kept(reader)
        self.tell("comparing")
        self._judge(cursor)
        doubts = StagedDoubts(cursor, self.kind, self.time_zone)
        warnings = [*self.observed.warnings(self.decimals, reader.delimiter), *doubts.before_insert(self.observed)]
        added = self._insert(cursor, load_id, loaded_at)
        warnings += doubts.unmatched_actions()
        self._keep_undecodable(cursor, load_id, loaded_at)
        known = 0 if self.correction else self._of_loaded_ids(cursor)
        unchanged = read - added - undecodable
        cursor.execute(
            """UPDATE raw.loads SET rows_read = $2, rows_added = $3, rows_unchanged = $4, rows_undecodable = $5,
                   finished_at = greatest(clock_timestamp(), started_at + interval '1 microsecond' * coalesce(
                       (SELECT max(version) FROM pg_temp.judged WHERE is_added), 0))
               WHERE load_id = $1""",
            parameters=(load_id, read, added, unchanged, undecodable),
        )
        if added >= ANALYZE_ROWS:
            cursor.execute(f"ANALYZE {self.table}")
        return LoadReport(
            file=str(self.source.path),
            kind=self.kind,
            rows_read=read,
            rows_added=added,
            rows_unchanged=unchanged,
            rows_undecodable=undecodable,
            seconds=self.tell.seconds(),
            already_loaded=False,
            ignored_columns=reader.ignored,
            load_id=load_id,
            rows_of_loaded_ids=known,
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

    def _wait_for_turn(self, cursor: Cursor) -> None:
        if not _row(cursor, "SELECT pg_try_advisory_xact_lock($1)", LOAD_LOCK)[0]:
            self.tell("waiting", whatever_the_time=True)
            _row(cursor, "SELECT pg_advisory_xact_lock($1)", LOAD_LOCK)

    def _require_own_tables(self, cursor: Cursor) -> None:
        cursor.execute(
            """SELECT table_name, column_name FROM information_schema.columns
               WHERE table_schema = 'raw' AND table_name IN ($1, 'loads', 'undecodable_rows')""",
            parameters=(self.kind,),
        )
        found = set(cursor.fetchall())
        if len({table for table, _ in found}) < 3:
            raise HeedError(
                "the warehouse has no raw tables to load into, or this role may not see them",
                "prepare it first (`heed load` does so), or use a role that may write to raw",
            )
        wanted = (*COLUMNS[self.kind], "loaded_at", "row_hash", "load_id")
        missing = [name for name in wanted if (self.kind, name) not in found]
        if missing:
            raise HeedError(
                f"raw.{self.kind} is not the table that heed loads into: it has no column {', '.join(missing)}",
                "heed reads your own tables where they are (database_schema under [source] in heed.toml), and loads "
                "files only into tables it made",
            )

    def _refuse_a_mixture(self, cursor: Cursor) -> None:
        """Real rows and simulated ones never stand in one warehouse: nobody could tell them apart later."""
        row = _row(
            cursor,
            "SELECT EXISTS (SELECT FROM raw.loads WHERE (simulation IS NULL) <> $1)",
            self.simulation is None,
        )
        if row[0] and self.simulation is None:
            raise HeedError(
                "the warehouse holds a simulated company", "use another one, or `heed load`, which removes it first"
            )
        if row[0]:
            raise HeedError("the warehouse holds rows of your own", "simulate in another one")

    def _loaded_before(self, cursor: Cursor, sha256: str) -> LoadReport | None:
        """The report for a content that was loaded before, if what it would leave is what stands.

        It is not where a later load added rows, nor where rows of earlier loads have been deleted since.
        """
        row = _row(
            cursor,
            """SELECT load_id, rows_read, rows_undecodable FROM raw.loads
               WHERE kind = $1 AND sha256 = $2 AND finished_at IS NOT NULL ORDER BY load_id DESC LIMIT 1""",
            self.kind,
            sha256,
        )
        if row is None:
            return None
        stands = _row(
            cursor,
            f"""SELECT NOT EXISTS (SELECT FROM raw.loads WHERE kind = $1 AND load_id > $2 AND rows_added > 0)
                   AND (SELECT count(*) FROM {self.table} WHERE load_id IS NOT NULL)
                    >= (SELECT coalesce(sum(rows_added), 0) FROM raw.loads WHERE kind = $1)""",
            self.kind,
            row[0],
        )
        if not stands[0]:
            return None
        load_id, read, undecodable = (int(value or 0) for value in row)
        return LoadReport(
            file=str(self.source.path),
            kind=self.kind,
            rows_read=read,
            rows_added=0,
            rows_unchanged=read - undecodable,
            rows_undecodable=undecodable,
            seconds=self.tell.seconds(),
            already_loaded=True,
            load_id=load_id,
        )

    def _begin(self, cursor: Cursor, sha256: str, loaded_at: datetime | None) -> tuple[int, datetime]:
        # Later than every load before, even when the clock was set back in between.
        newest = _row(cursor, "SELECT max(greatest(started_at, finished_at)) FROM raw.loads")[0]
        if loaded_at is not None and newest is not None and loaded_at <= newest:
            raise HeedError(
                f"loaded_at {loaded_at.isoformat()} is not later than the last load ({newest.isoformat()})",
                "give a later moment, since the rows loaded last must be the newest",
            )
        row = _row(
            cursor,
            """INSERT INTO raw.loads (kind, file, sha256, started_at, simulation)
               SELECT $1, $2, $3, coalesce($4::timestamptz, greatest(
                   clock_timestamp(),
                   (SELECT max(greatest(started_at, finished_at)) FROM raw.loads) + interval '1 microsecond')),
                   $5::text::jsonb
               RETURNING load_id, started_at""",
            self.kind,
            str(self.source.path),
            sha256,
            loaded_at,
            self.simulation,
        )
        return int(row[0]), row[1]

    def _stage(self, cursor: Cursor) -> Reader:
        """Read the file into a temporary table; a second time where its numbers turn out not to be written plainly."""
        from dagster_project.loading.readers import open_reader
        from dagster_project.loading.values import decimals

        given = self.mapping.decimal.get(self.kind, "") if self.mapping else ""
        self.decimals = dict.fromkeys(NUMBERS, given) if given else {}
        reader = open_reader(self.kind, self.source, self.mapping)
        self._copy(cursor, reader)
        if not given and (found := decimals(self.observed.numbers)):
            self.decimals = found
            reader = open_reader(self.kind, self.source, self.mapping)
            self._copy(cursor, reader)
        return reader

    def _copy(self, cursor: Cursor, reader: Reader) -> None:
        """Stream the file by COPY into a temporary table, which nobody else sees and which is gone at the end."""
        import pyarrow as pa

        from dagster_project.loading.doubts import Observed
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
                chunk = self._as_meant(chunk)
                batch = incoming_batch(self.kind, chunk, self.tell.rows)
                self.tell.rows += batch.num_rows
                self.tell("reading")
                if batch.num_rows:
                    yield batch
        except BaseException as error:
            self.failure = error
            raise

    def _as_meant(self, chunk: Chunk) -> Chunk:
        """A chunk with its empty texts empty and its numbers plain, as the mapping and the file itself say."""
        from dagster_project.loading.values import emptied, plain_numbers

        if self.mapping and (empty := self.mapping.empty.get(self.kind)):
            quoted = [json.dumps(text, ensure_ascii=False) for text in empty]
            chunk.contract = {name: emptied(texts, empty) for name, texts in chunk.contract.items()}
            chunk.further = [(name, emptied(texts, quoted)) for name, texts in chunk.further]
        self.observed.as_in_file(chunk)
        for name, decimal in self.decimals.items():
            if name in chunk.contract and name not in chunk.typed:
                chunk.contract[name] = plain_numbers(chunk.contract[name], decimal)
        self.observed.as_loaded(chunk)
        return chunk

    def _judge(self, cursor: Cursor) -> None:
        """Fill pg_temp.judged for the rows that need a decision; all others are added as version 0.

        They are rows of ids that raw holds or that occur twice in the file, and rows without an id that raw holds.
        is_questioned : not merely the newest version once more. is_back_again : raw holds it, and newer ones.
        """
        raised_at = "raised_at" if self.kind == "alerts" else "NULL::text"
        # Every version in raw of an id in the file, and which one is the newest. A correction is added although raw
        # holds the same row as the newest one: it must win over the older ones, too.
        corrects = "AND load_id IN (SELECT load_id FROM raw.corrections)" if self.correction else ""
        cursor.execute("DROP TABLE IF EXISTS pg_temp.stored, pg_temp.judged")
        cursor.execute(
            f"""CREATE TEMPORARY TABLE stored AS
                SELECT {self.key} AS id, row_hash, {raised_at} AS raised_at,
                       row_number() OVER (PARTITION BY {self.key} COLLATE "C" ORDER BY loaded_at DESC NULLS LAST,
                           load_id DESC NULLS LAST, row_hash COLLATE "C" DESC) = 1 {corrects} AS is_newest
                FROM {self.table}
                WHERE {self.key} IN (SELECT {self.key} FROM pg_temp.incoming WHERE reason IS NULL)"""
        )
        if _row(cursor, f"SELECT EXISTS (SELECT FROM pg_temp.incoming WHERE reason IS NULL AND {self.key} IS NULL)")[0]:
            cursor.execute(
                f"""INSERT INTO pg_temp.stored
                    SELECT NULL, row_hash, NULL, false FROM {self.table}
                    WHERE {self.key} IS NULL AND row_hash IN (
                        SELECT row_hash FROM pg_temp.incoming WHERE {self.key} IS NULL AND reason IS NULL)"""
            )
        cursor.execute("ANALYZE pg_temp.stored")
        cursor.execute(
            f"""CREATE TEMPORARY TABLE judged AS
                WITH file AS (
                    SELECT seq, {self.key} AS id, row_hash FROM pg_temp.incoming WHERE reason IS NULL
                ),
                repeated AS (
                    SELECT id FROM file WHERE id IS NOT NULL GROUP BY id HAVING count(*) > 1
                ),
                settled AS (
                    -- (Joins and NOT EXISTS throughout: NOT IN is hashed only where it fits into work_mem.)
                    -- The bulk of an export that repeats an older one: the newest version in raw, once in the file.
                    -- The hash covers the id, so it alone tells whether raw holds a version.
                    SELECT seq FROM file JOIN pg_temp.stored USING (row_hash)
                    WHERE is_newest AND NOT EXISTS (SELECT FROM repeated WHERE repeated.id = file.id)
                ),
                questioned AS (
                    SELECT file.* FROM file
                    JOIN (SELECT id FROM pg_temp.stored WHERE is_newest UNION SELECT id FROM repeated) AS contested
                        USING (id)
                    WHERE NOT EXISTS (SELECT FROM settled WHERE settled.seq = file.seq)
                    UNION ALL
                    SELECT * FROM file WHERE id IS NULL
                ),
                known AS (
                    SELECT questioned.*, held.row_hash IS NOT NULL AS is_known
                    FROM questioned
                    LEFT JOIN (SELECT DISTINCT row_hash FROM pg_temp.stored) AS held USING (row_hash)
                ),
                placed AS (
                    SELECT known.*,
                           id IS NOT NULL AND row_number() OVER (by_id ORDER BY seq DESC) = 1 AS is_last,
                           bool_or(NOT is_known) OVER by_id AS id_gains_a_version
                    FROM known WINDOW by_id AS (PARTITION BY id COLLATE "C")
                ),
                decided AS (
                    SELECT placed.seq, placed.id, placed.row_hash, is_known AND newest.row_hash <> placed.row_hash
                               AND NOT id_gains_a_version AS is_back_again,
                           NOT is_known OR (is_last AND (
                               id_gains_a_version OR newest.row_hash IS DISTINCT FROM placed.row_hash)) AS is_added
                    FROM placed
                    LEFT JOIN pg_temp.stored AS newest ON newest.is_newest AND newest.id = placed.id
                ),
                changes AS (
                    SELECT seq, id, is_added, is_back_again,
                           is_added AND id IS NOT NULL AND row_hash <> lag(row_hash) OVER (
                               PARTITION BY id COLLATE "C", is_added ORDER BY seq) AS is_change
                    FROM decided
                )
                SELECT seq, is_added,
                       count(*) FILTER (WHERE is_change) OVER (
                           PARTITION BY id COLLATE "C" ORDER BY seq) AS version,
                       true AS is_questioned, is_back_again
                FROM changes
                UNION ALL
                SELECT seq, false, 0, false, false FROM settled"""
        )
        cursor.execute("ANALYZE pg_temp.judged")

    def _insert(self, cursor: Cursor, load_id: int, loaded_at: datetime) -> int:
        names = ", ".join(f'"{name}"' for name in COLUMNS[self.kind])
        row = _row(
            cursor,
            f"""WITH added AS (
                    INSERT INTO {self.table} ({names}, loaded_at, row_hash, load_id)
                    SELECT {names}, $1::timestamptz + coalesce(judged.version, 0) * interval '1 microsecond',
                           row_hash, $2::bigint
                    FROM pg_temp.incoming LEFT JOIN pg_temp.judged USING (seq)
                    WHERE reason IS NULL AND coalesce(judged.is_added, true)
                    RETURNING 1
                )
                SELECT count(*) FROM added""",
            loaded_at,
            load_id,
        )
        return int(row[0])

    def _of_loaded_ids(self, cursor: Cursor) -> int:
        """Rows added whose id was in raw before."""
        row = _row(
            cursor,
            f"""SELECT count(*) FROM pg_temp.incoming JOIN pg_temp.judged USING (seq)
                WHERE is_added AND {self.key} IN (SELECT id FROM pg_temp.stored)""",
        )
        return int(row[0])

    def _keep_undecodable(self, cursor: Cursor, load_id: int, loaded_at: datetime) -> None:
        """Set undecodable rows aside, once: an export that repeats one adds it no second time."""
        if not self.observed.undecodable:
            return
        cursor.execute(
            """INSERT INTO raw.undecodable_rows (load_id, file, line, reason, content, loaded_at)
               SELECT $1, $2, line, reason, content, $3
               FROM pg_temp.incoming
               WHERE reason IS NOT NULL AND NOT EXISTS (
                   SELECT FROM raw.undecodable_rows AS earlier JOIN raw.loads USING (load_id)
                   WHERE loads.kind = $4
                     AND earlier.reason = incoming.reason AND earlier.content = incoming.content)""",
            parameters=(load_id, str(self.source.path), loaded_at, self.kind),
        )


def _row(cursor: Cursor, query: str, *parameters: Any) -> Any:
    cursor.execute(query, parameters=parameters or None)
    row = cursor.fetchone()
    cursor.fetchall()  # the driver refuses the next statement while rows are outstanding
    return row
