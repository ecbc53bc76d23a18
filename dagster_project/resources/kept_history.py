"""The clean history beside the warehouse: Arrow files by day, brought up to date by what changed.

Belongs here: which days have to be read again, the files, and reading columns of a range of days from them.
Does not belong here: the as-of, and what is done with the rows (`tables.py`).

Every run asks for months or years of alerts with their outcomes, and nearly all of them are as they were. The files
hold them as the warehouse does, with outcomes that may be later than a run's as-of; `tables.read_history` cuts. They
are there to save time only: without them, or in any doubt, everything is read again.

A day has one file, or several where it has more alerts than are read at once: no more than a file stands in memory
beside what is asked for.

A day is read again when a row of it was written since the files were made (PostgreSQL's number of the transaction,
xmin, tells) or when it has another number of rows. The files are believed only while the warehouse still holds
their own mark, and while both tables are the ones they were made from: a restored dump or another database has neither.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.resources.whole_file import whole_file

if TYPE_CHECKING:
    import pyarrow as pa

    from dagster_project.resources.postgres import Warehouse

_ROWS = """
SELECT alerts.alert_id, alerts.raised_at, alerts.rule, alerts.entity, alerts.team, alerts.severity,
       alerts.value, alerts.threshold, alerts.title, alerts.attributes::text AS attributes, alerts.loaded_at,
       outcomes.known_at, (outcomes.outcome = 'acted')::int::double precision AS acted, outcomes.horizon_ends_at
FROM marts.alerts AS alerts
JOIN marts.alert_outcomes AS outcomes USING (alert_id)
WHERE alerts.raised_at >= $1 AND alerts.raised_at < $2
ORDER BY alerts.raised_at, alerts.alert_id
"""
# Of each day the number of rows, and whether one of them was written since a transaction.
_DAYS = """
SELECT (raised_at AT TIME ZONE 'UTC')::date AS day, count(*) AS rows, bool_or(age(xmin) <= age($1::text::xid)) AS fresh
FROM marts.{table} GROUP BY 1
"""
# A table that is replaced or rewritten gets another file.
_TABLES = """
SELECT string_agg(oid || ' ' || pg_relation_filenode(oid), ', ' ORDER BY relname) FROM pg_class
WHERE oid IN (to_regclass('marts.alerts'), to_regclass('marts.alert_outcomes'))
"""
# Texts that recur are kept once a day.
_RECURRING = ("rule", "entity", "team", "severity", "title")
# What is read from the warehouse at once, and stands in a file at most, in rows: with long attributes some 200 MB.
_AT_ONCE = 200_000
# The files' own form: raised whenever their content changes without a change of the query.
_FORM = 2


@dataclass
class _Manifest:
    """What the files hold: their mark, the tables and the transaction they stand at, and of each day its rows and its
    parts: of each its file, the names of its attributes, and when its first and last alert were raised (ISO 8601)."""

    made_by: str = ""
    keeper: str = ""
    mark: str = ""
    tables: str = ""
    transaction: int = 0
    days: dict[str, dict[str, Any]] = field(default_factory=dict)


class KeptHistory:
    """The kept history of one home and its warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._directory = kept_directory(warehouse.home)

    def refresh(self) -> None:
        """Bring the files to what the warehouse holds now; once in a turn, until something is cleaned."""
        if not self._warehouse.history_stands:
            self._refresh()
            self._warehouse.history_stands = self._warehouse.keeps_a_connection

    def _refresh(self) -> None:
        warehouse = self._warehouse
        manifest = self._manifest()
        # What is in progress when this is asked is seen by a later asking.
        now = int(warehouse.value("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"))
        tables = str(warehouse.value(_TABLES))
        since = self._believed(manifest, tables, now)
        if since is None:
            shutil.rmtree(self._directory, ignore_errors=True)
            manifest = _Manifest(_made_by(), manifest.keeper or uuid.uuid4().hex)
        found = self._days(since if since is not None else now)
        again = [
            day
            for day, (rows, fresh) in found.items()
            if fresh or manifest.days.get(day.isoformat(), {}).get("rows") != rows
        ]
        gone = set(manifest.days) - {day.isoformat() for day in found}
        if not again and not gone and since is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        for half in self._directory.glob(".day=*"):  # by a writer that was killed
            half.unlink(missing_ok=True)
        left = {part["file"] for name in gone for part in manifest.days.pop(name)["parts"]}
        for first, last in _spans({day: found[day][0] for day in again}):
            made: dict[str, dict[str, Any]] = {}
            for day, table in self._read_span(first, last):
                told = made.setdefault(day.isoformat(), {"rows": 0, "parts": []})
                told["parts"].append(self._write(day, len(told["parts"]), table))
                told["rows"] += table.num_rows
            for name, told in made.items():
                before = manifest.days.get(name, {"parts": []})["parts"]
                left |= {part["file"] for part in before} - {part["file"] for part in told["parts"]}
                manifest.days[name] = told
        manifest.mark, manifest.tables, manifest.transaction = uuid.uuid4().hex, tables, now
        with whole_file(self._directory / "manifest.json", _REMEDY) as fresh_file:
            fresh_file.write_text(json.dumps(asdict(manifest)))
        from dagster_project.resources.tables import remember_checked

        remember_checked(warehouse, _keeper(manifest), manifest.mark, now)
        for name in left:
            (self._directory / name).unlink(missing_ok=True)

    def read(self, since: datetime, until: datetime, columns: Sequence[str]) -> pa.Table:
        """These columns of the alerts raised in [since, until), in order of time; recurring texts as dictionaries.

        A damaged file makes everything be read again, once.
        """
        return self._undamaged(lambda: self._read(since, until, columns))

    def read_sources(
        self, since: datetime, until: datetime, columns: Sequence[str], limit: int, always: Collection[str] = ()
    ) -> pa.Table:
        """As `read`, and beside it, as a column `@name` each, the attributes that have few values (dictionaries).

        An attribute is followed up to the day on which it shows its `limit` + 1st value, and is null after it.
        always : attributes that are followed to the end, however many values they have.
        """
        return self._undamaged(lambda: self._read_sources(since, until, columns, limit, always))

    def _undamaged(self, read: Callable[[], pa.Table]) -> pa.Table:
        import pyarrow as pa

        self.refresh()
        try:
            return read()
        except (OSError, pa.ArrowException):
            (self._directory / "manifest.json").unlink(missing_ok=True)
            self._warehouse.history_stands = False
            self.refresh()
            return read()

    def _read(self, since: datetime, until: datetime, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        tables = [_cut(self._load(part["file"], columns), since, until) for part in self._parts(since, until)] or [
            _schema().empty_table().select(list(columns))
        ]
        return pa.concat_tables(tables, promote_options="permissive")

    def _read_sources(
        self, since: datetime, until: datetime, columns: Sequence[str], limit: int, always: Collection[str]
    ) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        from dagster_project.triage.floods.sources import MARK

        words: dict[str, dict[str, int]] = {}
        codes: dict[str, list[Any]] = {}
        tables, total = [], 0
        for part in self._parts(since, until):
            followed = [s for s in part["sources"] if s in always or len(words.get(s, ())) <= limit]
            table = _cut(self._load(part["file"], [*columns, *(MARK + s for s in followed)]), since, until)
            for source in followed:
                values = table.column(MARK + source).combine_chunks()
                own = values.indices.fill_null(-1).to_numpy(zero_copy_only=False)
                known = words.setdefault(source, {})
                lookup = np.full(len(values.dictionary) + 1, -1, np.int32)
                dictionary = values.dictionary
                for code in dict.fromkeys(own[own >= 0].tolist()):
                    lookup[code] = known.setdefault(dictionary[code].as_py(), len(known))
                parts = codes.setdefault(source, [])
                if total > (held := sum(map(len, parts))):
                    parts.append(np.full(total - held, -1, np.int32))
                parts.append(lookup[own])
            tables.append(table.select(list(columns)))
            total += table.num_rows
        if not tables:
            return _schema().empty_table().select(list(columns))
        whole = pa.concat_tables(tables, promote_options="permissive")
        for source, parts in sorted(codes.items()):
            column = np.concatenate(parts)
            column = np.concatenate([column, np.full(total - len(column), -1, np.int32)])
            held = pa.DictionaryArray.from_arrays(pa.array(column, mask=column < 0), pa.array(list(words[source])))
            whole = whole.append_column(MARK + source, held)
        return whole

    def _believed(self, manifest: _Manifest, tables: str, now: int) -> int | None:
        """The transaction up to which the files are what the warehouse holds; None where they cannot be believed."""
        if manifest.made_by != _made_by() or manifest.tables != tables:
            return None
        marked = self._warehouse.value(
            "SELECT transaction FROM quality.checked_rows WHERE suite = $1 AND expectations = $2",
            (_keeper(manifest), manifest.mark),
        )
        # Numbers go round after 2 ** 32.
        believed = marked is not None and int(marked) == manifest.transaction and 0 <= now - int(marked) < 2**31
        return manifest.transaction if believed else None

    def _days(self, since: int) -> dict[date, tuple[int, bool]]:
        """Of each day that has alerts: how many there are, and whether it has to be read again."""
        found = []
        for table in ("alerts", "alert_outcomes"):
            rows = self._warehouse.read_arrow(_DAYS.format(table=table), (str(since % 2**32),))
            found.append({row["day"]: (int(row["rows"]), bool(row["fresh"])) for row in rows.to_pylist()})
        alerts, outcomes = found
        return {
            day: (rows, fresh or outcomes.get(day, (0, True)) != (rows, False))
            for day, (rows, fresh) in sorted(alerts.items())
        }

    def _read_span(self, first: date, last: date) -> Iterator[tuple[date, pa.Table]]:
        import numpy as np

        begin = datetime.combine(first, time(), UTC)
        end = datetime.combine(last + timedelta(days=1), time(), UTC)
        for part in self._warehouse.read_parts(_ROWS, (begin, end), _AT_ONCE):
            rows = part.combine_chunks()
            days = rows.column("raised_at").cast("timestamp[us]").to_numpy().astype("datetime64[D]")
            numbers, starts = np.unique(days, return_index=True)
            for day, start, stop in zip(numbers.tolist(), starts, [*starts[1:], len(days)], strict=True):
                yield day, rows.slice(start, stop - start)

    def _write(self, day: date, number: int, table: pa.Table) -> dict[str, Any]:
        import pyarrow as pa
        from pyarrow import feather

        from dagster_project.triage.floods.sources import MARK, codes_of_text

        for name in _RECURRING:
            encoded = table.column(name).dictionary_encode().combine_chunks()
            table = table.set_column(table.schema.get_field_index(name), name, encoded)
        sources = []
        texts = table.column("attributes").to_numpy()
        for name, codes, values in codes_of_text(texts, limit=len(texts) + 1):
            sources.append(name)
            indices = pa.array(codes, pa.int32(), mask=codes < 0)
            table = table.append_column(
                MARK + name, pa.DictionaryArray.from_arrays(indices, pa.array(values, pa.string()))
            )
        name = f"day={day.isoformat()}{f'.{number}' if number else ''}.arrow"
        with whole_file(self._directory / name, _REMEDY) as fresh:
            feather.write_feather(table, str(fresh), compression="lz4")
        raised = table.column("raised_at")
        first, last = (raised[place].as_py().isoformat() for place in (0, table.num_rows - 1))
        return {"file": name, "sources": sources, "first": first, "last": last}

    def _load(self, name: str, columns: Sequence[str]) -> pa.Table:
        from pyarrow import feather

        return feather.read_table(self._directory / name, columns=list(columns), memory_map=False)

    def _parts(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """The parts that may hold alerts raised in [since, until), in order of time."""
        first, last = since.astimezone(UTC).date().isoformat(), until.astimezone(UTC).date().isoformat()
        parts = [
            part
            for name, told in sorted(self._manifest().days.items())
            if first <= name <= last
            for part in told["parts"]
        ]
        return [
            part
            for part in parts
            if datetime.fromisoformat(part["first"]) < until and datetime.fromisoformat(part["last"]) >= since
        ]

    def _manifest(self) -> _Manifest:
        try:
            return _Manifest(**json.loads((self._directory / "manifest.json").read_text()))
        except (OSError, ValueError, TypeError):
            return _Manifest()


_REMEDY = "free some room, or correct what it says; the next run writes it"


def kept_directory(home: Path) -> Path:
    """Where the kept history of a home stands."""
    return home / "history"


def _keeper(manifest: _Manifest) -> str:
    return f"history kept as {manifest.keeper}"


def _made_by() -> str:
    return hashlib.sha256(f"{_FORM} {_ROWS}".encode()).hexdigest()[:16]


def _schema() -> pa.Schema:
    """The columns of `_ROWS`, where there is not one row to tell."""
    import pyarrow as pa

    texts = ("alert_id", "rule", "entity", "team", "severity", "title", "attributes")
    moments = ("raised_at", "loaded_at", "known_at", "horizon_ends_at")
    kinds = {**dict.fromkeys(texts, pa.string()), **dict.fromkeys(moments, pa.timestamp("us", "UTC"))}
    return pa.schema({**kinds, **dict.fromkeys(("value", "threshold", "acted"), pa.float64())})


def _spans(rows: dict[date, int]) -> Iterator[tuple[date, date]]:
    """Days, in order, as spans of days that follow one another, of at most `_AT_ONCE` rows where a day allows it."""
    first = last = None
    held = 0
    for day, number in sorted(rows.items()):
        if first is None or last is None or day != last + timedelta(days=1) or held + number > _AT_ONCE:
            if first is not None and last is not None:
                yield first, last
            first, held = day, 0
        last, held = day, held + number
    if first is not None and last is not None:
        yield first, last


def _cut(table: pa.Table, since: datetime, until: datetime) -> pa.Table:
    import pyarrow.compute as pc

    times = table.column("raised_at")
    if table.num_rows == 0 or (times[0].as_py() >= since and times[-1].as_py() < until):
        return table
    return table.filter(pc.and_(pc.greater_equal(times, since), pc.less(times, until)))
