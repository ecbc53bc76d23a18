"""The history cache: the clean history as Arrow files by day, refreshed from what changed in the warehouse.

Belongs here: which days have to be read again, the files, and reading columns of a range of days from them.
Does not belong here: cutting at the as-of, and what is done with the rows (`history.py`).

Every run reads months or years of alerts with their outcomes, and nearly all of them are unchanged. The files hold them
as the warehouse does, with outcomes that may be later than a run's as-of; `history.read_history` cuts them. The cache
only saves time: without it, or in any doubt, everything is read again.

A day has one file, or several if it has more alerts than are read at once: at most one file is in memory in addition to
the result.

A day is read again when one of its rows was written after the files (by the number of the writing transaction, xmin) or
when its number of rows differs. The warehouse holds the checksum of the manifest, and the manifest those of the files.
Cache files that don't match the warehouse are ignored: damaged files, older files that were put back, files made from
tables that were since replaced, and all files if the warehouse is a restored copy (`watermarks.py`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.files.checksums import DoubtfulFile, checksum_of, require_checksum
from dagster_project.resources.stores.watermarks import manifest_watermark, oldest_in_progress, remember_manifest

if TYPE_CHECKING:
    import pyarrow as pa

    from dagster_project.resources.warehouse.connection import Warehouse

_ROWS = """
SELECT alerts.alert_id, alerts.raised_at, alerts.rule, alerts.entity, alerts.team, alerts.severity,
       alerts.value, alerts.threshold, alerts.title, alerts.attributes::text AS attributes, alerts.loaded_at,
       outcomes.known_at, (outcomes.outcome = 'acted')::int::double precision AS acted, outcomes.horizon_ends_at
FROM marts.alerts AS alerts
JOIN marts.alert_outcomes AS outcomes USING (alert_id)
WHERE alerts.raised_at >= $1 AND alerts.raised_at < $2
ORDER BY alerts.raised_at, alerts.alert_id
"""
# Per day: the number of rows, and whether one of them was written since a transaction.
_DAYS = """
SELECT (raised_at AT TIME ZONE 'UTC')::date AS day, count(*) AS rows, bool_or(age(xmin) <= age($1::text::xid)) AS fresh
FROM marts.{table} GROUP BY 1
"""
# A table that is replaced or rewritten has another filenode.
_TABLES = """
SELECT string_agg(oid || ' ' || pg_relation_filenode(oid), ', ' ORDER BY relname) FROM pg_class
WHERE oid IN (to_regclass('marts.alerts'), to_regclass('marts.alert_outcomes'))
"""
# Recurring texts are stored once per day.
_RECURRING = ("rule", "entity", "team", "severity", "title")
# Most rows read at once, and most rows in a file: with long attributes some 200 MB.
_AT_ONCE = 200_000
# The version of the files' format: raise it when their content changes without a change of the query.
_FORM = 3


@dataclass
class _Manifest:
    """What the files hold.

    tables, transaction : what they were made from. days : of each day its rows and parts; of each part its file with
        checksum, the names of its attributes, and when its first and last alert were raised (ISO 8601).
    cache_id : names this cache in the warehouse, where several homes may have one.
    """

    made_by: str = ""
    cache_id: str = ""
    tables: str = ""
    transaction: int = 0
    days: dict[str, dict[str, Any]] = field(default_factory=dict)


class HistoryCache:
    """The history cache of one home and its warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._directory = history_directory(warehouse.home)

    def refresh(self) -> None:
        """Update the files from the warehouse; once per run lock, until something is cleaned."""
        if not self._warehouse.history_is_current:
            self._refresh()
            self._warehouse.history_is_current = self._warehouse.keeps_a_connection

    def forget(self) -> None:
        """Invalidate the files: the next read reads everything from the warehouse."""
        if (self._directory / _MANIFEST).exists():
            # Keep the id, so that the next watermark replaces the one of these files.
            self._write_manifest(_Manifest(cache_id=self._manifest()[0].cache_id))
        self._warehouse.history_is_current = False

    def compare(self, days: int) -> list[str]:
        """Differences from the warehouse in the newest day and in `days` random ones, in words. Changes nothing.

        Days that the next refresh would read again anyway are skipped.
        """
        import random

        manifest, content = self._manifest()
        since = self._valid_as_of(manifest, content)
        if since is None:
            return []
        settled = [
            day
            for day, (rows, fresh) in self._days(since).items()
            if not fresh and manifest.days.get(day.isoformat(), {}).get("rows") == rows
        ]
        chosen = sorted({*settled[-1:], *random.sample(settled, min(days, len(settled)))})
        return [difference for day in chosen if (difference := self._difference(manifest, day))]

    def _difference(self, manifest: _Manifest, day: date) -> str:
        import pyarrow as pa

        names = _schema().names
        try:
            cached = pa.concat_tables(
                [self._load(part, names) for part in manifest.days[day.isoformat()]["parts"]],
                promote_options="permissive",
            )
        except (OSError, pa.ArrowException, DoubtfulFile) as error:
            return f"{day}: {' '.join(str(error).split())[:200]}"
        stored = pa.concat_tables([table for _, table in self._read_span(day, day)]).select(names)
        return "" if cached.cast(stored.schema).equals(stored) else f"{day}: other rows than the warehouse"

    def _refresh(self) -> None:
        warehouse = self._warehouse
        manifest, content = self._manifest()
        now = oldest_in_progress(warehouse)
        since = self._valid_as_of(manifest, content)
        if since is None:
            _remove(self._directory)
            manifest = _Manifest(_format_id(), manifest.cache_id or uuid.uuid4().hex)
        days = self._days(since if since is not None else now)
        stale = [
            day
            for day, (rows, fresh) in days.items()
            if fresh or manifest.days.get(day.isoformat(), {}).get("rows") != rows
        ]
        gone = set(manifest.days) - {day.isoformat() for day in days}
        if not stale and not gone and since is not None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        for unfinished in self._directory.glob(".day=*"):  # by a writer that was killed
            unfinished.unlink(missing_ok=True)
        obsolete = {part["file"] for name in gone for part in manifest.days.pop(name)["parts"]}
        for first, last in _spans({day: days[day][0] for day in stale}):
            written: dict[str, dict[str, Any]] = {}
            for day, table in self._read_span(first, last):
                entry = written.setdefault(day.isoformat(), {"rows": 0, "parts": []})
                entry["parts"].append(self._write(day, len(entry["parts"]), table))
                entry["rows"] += table.num_rows
            for name, entry in written.items():
                before = manifest.days.get(name, {"parts": []})["parts"]
                obsolete |= {part["file"] for part in before} - {part["file"] for part in entry["parts"]}
                manifest.days[name] = entry
        manifest.tables, manifest.transaction = self._tables(), now
        content = self._write_manifest(manifest)
        remember_manifest(warehouse, "history", manifest.cache_id, content, now)
        for name in obsolete:
            (self._directory / name).unlink(missing_ok=True)

    def read(self, since: datetime, until: datetime, columns: Sequence[str]) -> pa.Table:
        """These columns of the alerts raised in [since, until), in order of time; recurring texts as dictionaries.

        If a file is damaged or not the one that was written, everything is read again, once.
        """
        return self._undamaged(lambda: self._read(since, until, columns))

    def read_sources(
        self, since: datetime, until: datetime, columns: Sequence[str], limit: int, always: Collection[str] = ()
    ) -> pa.Table:
        """As `read`, with a dictionary column `@name` for each attribute that has few values.

        An attribute is null after the day on which it shows its `limit` + 1st value.
        always : attributes that are included however many values they have.
        """
        return self._undamaged(lambda: self._read_sources(since, until, columns, limit, always))

    def _undamaged(self, read: Callable[[], pa.Table]) -> pa.Table:
        import pyarrow as pa

        self.refresh()
        try:
            return read()
        except (OSError, pa.ArrowException, DoubtfulFile) as error:
            reason = " ".join(str(error).split())[:300]
            logging.getLogger(__name__).warning("the history cache is read again from the warehouse: %s", reason)
            self.forget()
            self.refresh()
            return read()

    def _read(self, since: datetime, until: datetime, columns: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        tables = [_cut(self._load(part, columns), since, until) for part in self._parts(since, until)] or [
            _schema().empty_table().select(list(columns))
        ]
        return pa.concat_tables(tables, promote_options="permissive")

    def _read_sources(
        self, since: datetime, until: datetime, columns: Sequence[str], limit: int, always: Collection[str]
    ) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        from dagster_project.triage.flags.floods.sources import MARK

        words: dict[str, dict[str, int]] = {}
        codes: dict[str, list[Any]] = {}
        tables, total = [], 0
        for part in self._parts(since, until):
            followed = [s for s in part["sources"] if s in always or len(words.get(s, ())) <= limit]
            table = _cut(self._load(part, [*columns, *(MARK + s for s in followed)]), since, until)
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

    def _valid_as_of(self, manifest: _Manifest, content: bytes) -> int | None:
        """The transaction up to which the files match the warehouse; None: they cannot be used."""
        if manifest.made_by != _format_id() or manifest.tables != self._tables():
            return None
        transaction = manifest_watermark(self._warehouse, "history", manifest.cache_id, content)
        return transaction if transaction == manifest.transaction else None

    def _tables(self) -> str:
        return str(self._warehouse.value(_TABLES))

    def _days(self, since: int) -> dict[date, tuple[int, bool]]:
        """Per day with alerts: their number, and whether the day has to be read again."""
        counts = []
        for table in ("alerts", "alert_outcomes"):
            rows = self._warehouse.read_arrow(_DAYS.format(table=table), (str(since % 2**32),))
            counts.append({row["day"]: (int(row["rows"]), bool(row["fresh"])) for row in rows.to_pylist()})
        alerts, outcomes = counts
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

        from dagster_project.triage.flags.floods.sources import MARK, codes_of_text

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
        with (self._directory / name).open("rb") as file:
            checksum = checksum_of(file)
        raised = table.column("raised_at")
        first, last = (raised[place].as_py().isoformat() for place in (0, table.num_rows - 1))
        return {"file": name, "sha256": checksum, "sources": sources, "first": first, "last": last}

    def _load(self, part: dict[str, Any], columns: Sequence[str]) -> pa.Table:
        from pyarrow import feather

        with (self._directory / part["file"]).open("rb") as file:
            require_checksum(file, part["sha256"])
            return feather.read_table(file, columns=list(columns))

    def _parts(self, since: datetime, until: datetime) -> list[dict[str, Any]]:
        """The parts that may hold alerts raised in [since, until), in order of time."""
        first, last = since.astimezone(UTC).date().isoformat(), until.astimezone(UTC).date().isoformat()
        parts = [
            part
            for name, entry in sorted(self._manifest()[0].days.items())
            if first <= name <= last
            for part in entry["parts"]
        ]
        return [
            part
            for part in parts
            if datetime.fromisoformat(part["first"]) < until and datetime.fromisoformat(part["last"]) >= since
        ]

    def _write_manifest(self, manifest: _Manifest) -> bytes:
        content = json.dumps(asdict(manifest)).encode()
        with whole_file(self._directory / _MANIFEST, _REMEDY) as fresh:
            fresh.write_bytes(content)
        return content

    def _manifest(self) -> tuple[_Manifest, bytes]:
        """The manifest and its bytes; an empty one if there is none that can be read."""
        try:
            content = (self._directory / _MANIFEST).read_bytes()
            return _Manifest(**json.loads(content)), content
        except (OSError, ValueError, TypeError):
            return _Manifest(), b""


_MANIFEST = "manifest.json"
_REMEDY = "free some room, or correct what it says; the next run writes it"


def history_directory(home: Path) -> Path:
    """Where the history cache of a home is."""
    return home / "history"


def _remove(directory: Path) -> None:
    """Remove heed's own files, by their names: a home may contain a `history` folder that is not heed's."""
    for pattern in ("day=*.arrow", ".day=*", _MANIFEST):
        for path in directory.glob(pattern):
            path.unlink(missing_ok=True)


def _format_id() -> str:
    return hashlib.sha256(f"{_FORM} {_ROWS}".encode()).hexdigest()[:16]


def _schema() -> pa.Schema:
    """The columns of `_ROWS`, for when there are no rows."""
    import pyarrow as pa

    texts = ("alert_id", "rule", "entity", "team", "severity", "title", "attributes")
    times = ("raised_at", "loaded_at", "known_at", "horizon_ends_at")
    kinds = {**dict.fromkeys(texts, pa.string()), **dict.fromkeys(times, pa.timestamp("us", "UTC"))}
    return pa.schema({**kinds, **dict.fromkeys(("value", "threshold", "acted"), pa.float64())})


def _spans(rows: dict[date, int]) -> Iterator[tuple[date, date]]:
    """The days in order as spans of consecutive days, of at most `_AT_ONCE` rows unless a single day has more."""
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
