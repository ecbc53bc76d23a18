"""One pull: from a source of heed.toml to rows of `raw`.

Belongs here: the order (lock, position, page, load, position), and what people are told of it.
Does not belong here: one system's requests (its module), loading (`loading/load.py`).

A page is loaded as a file in the system's preset would be, then the position is kept in `raw.pulls`. A pull that is
killed in between fetches that page again, and the loading contract recognises its rows: nothing is lost and nothing
doubled, whatever the moment.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import Kind
from dagster_project.loading.load import load_file
from dagster_project.loading.presets import read_preset
from dagster_project.loading.pulls import dagster, dbt, github, jira, pagerduty, sentry, servicenow
from dagster_project.loading.pulls.page import Asked, Page, Position, Stream
from dagster_project.resources.warehouse.locks import PULL_LOCK
from dagster_project.settings import PullSource, Settings, heed_home

if TYPE_CHECKING:
    from dagster_project.loading.mapping import Mapping
    from dagster_project.resources.warehouse.connection import Warehouse

# Records of several pages in one load: what a load costs hardly depends on their number.
MOST_RECORDS = 1_000
_KINDS: tuple[Kind, ...] = ("alerts", "actions")
STREAMS: dict[str, Callable[[PullSource], list[Stream]]] = {
    "pagerduty": pagerduty.streams,
    "jira": jira.streams,
    "servicenow": servicenow.streams,
    "github": github.streams,
    "sentry": sentry.streams,
    "dagster": dagster.streams,
    "dbt": dbt.streams,
}


@dataclass
class PullReport:
    """What a pull of one source brought.

    Attributes
    ----------
    records : fetched. alerts, actions : rows that are new in `raw`. undecodable : rows that were rejected.
    is_busy : another pull of this source was running, so this one did nothing. warnings : each once, in words.
    """

    source: str
    records: int = 0
    alerts: int = 0
    actions: int = 0
    undecodable: int = 0
    is_busy: bool = False
    warnings: dict[str, None] = field(default_factory=dict)

    def line(self) -> str:
        """One line in words."""
        if self.is_busy:
            return f"{self.source}: another pull of it is running"
        rejected = f", {self.undecodable:,} rows rejected" * bool(self.undecodable)
        return (
            f"{self.source}: {self.records:,} records fetched, {self.alerts:,} rows of alerts and {self.actions:,} of "
            f"actions are new{rejected}"
        )

    def to_document(self) -> dict[str, Any]:
        """For machines."""
        counts = {name: getattr(self, name) for name in ("source", "records", "alerts", "actions", "undecodable")}
        return {**counts, "busy": self.is_busy, "warnings": list(self.warnings)}


def pull(name: str, settings: Settings, warehouse: Warehouse, say: Callable[[str], None]) -> PullReport:
    """Fetch what is new in one source of heed.toml, and load it.

    Raises
    ------
    HeedError
        There is no such source, its secret is not set, the system cannot be read, or its records do not fit the preset.
        What was loaded before stays, and the next pull goes on from there.
    """
    source = settings.sources.get(name)
    if source is None:
        raise HeedError(
            f"heed.toml has no source {name!r}",
            f"use one of {', '.join(settings.sources)}" if settings.sources else f"add a table [sources.{name}]",
        )
    if settings.source.database_schema != "raw":
        raise HeedError(
            "what is pulled is written to heed's own tables, and database_schema under [source] names others",
            'set it to "raw", or remove [sources]',
        )
    now = datetime.now(UTC)
    asked = Asked(
        source,
        _secret(name, source),
        now,
        first=(
            datetime.fromisoformat(source.since).replace(tzinfo=UTC)
            if source.since
            else now - timedelta(days=settings.learning.training_days)
        ),
        horizon=timedelta(days=settings.outcome.horizon_days),
    )
    report = PullReport(name)
    with _alone(name, warehouse) as is_alone:
        if not is_alone:
            report.is_busy = True
            return report
        for stream in STREAMS[source.kind](source):
            own = source.preset or stream.preset
            preset = read_preset(own, heed_home() / "presets") if own else None
            loading = _Loading(name, stream.name, preset, warehouse, settings.source.time_zone, report)
            for page in stream.pages(asked, loading.position()):
                loading.take(page)
                say(f"{name}, {stream.name}: {report.records:,} records")
            loading.finish()
    return report


def last_pulled(settings: Settings, warehouse: Warehouse) -> dict[str, datetime | None]:
    """When each source of heed.toml was last pulled: its list that was pulled longest ago. None: a list never was."""
    kept = {
        (row["source"], row["stream"]): row["pulled_at"]
        for row in warehouse.read_arrow("SELECT source, stream, pulled_at FROM raw.pulls").to_pylist()
    }
    result = {}
    for name, source in settings.sources.items():
        times = [kept.get((name, stream.name)) for stream in STREAMS[source.kind](source)]
        pulled = [time for time in times if time is not None]
        result[name] = min(pulled) if len(pulled) == len(times) else None
    return result


def _secret(name: str, source: PullSource) -> str:
    if not source.secret_from:
        return ""
    secret = os.environ.get(source.secret_from, "").strip()
    if not secret:
        raise HeedError(f"{source.secret_from}, the secret of the source {name}, is not set", "set it, and pull again")
    return secret


class _Loading:
    """Pages of one stream, on their way into `raw`."""

    def __init__(
        self, source: str, stream: str, preset: Mapping | None, warehouse: Warehouse, time_zone: str, report: PullReport
    ) -> None:
        self._key, self._preset, self._warehouse = (source, stream), preset, warehouse
        self._time_zone, self._report = time_zone, report
        self._records: list[dict[str, Any]] = []
        self._position: Position | None = None

    def position(self) -> Position:
        """Where the last pull ended; empty before the first."""
        kept = self._warehouse.value(
            "SELECT max(position::text) FROM raw.pulls WHERE source = $1 AND stream = $2", self._key
        )
        return json.loads(kept) if kept else {}

    def take(self, page: Page) -> None:
        self._records += page.records
        self._position = page.position
        self._report.records += len(page.records)
        if len(self._records) >= MOST_RECORDS:
            self.flush()

    def finish(self) -> None:
        """The list was read to its end, which counts as a pull also where it brought nothing."""
        self.flush()
        with self._warehouse.transaction() as cursor:
            cursor.execute(
                """INSERT INTO raw.pulls (source, stream, position) VALUES ($1, $2, '{}')
                   ON CONFLICT (source, stream) DO UPDATE SET pulled_at = now()""",
                parameters=self._key,
            )

    def flush(self) -> None:
        """Load what was taken, then keep the position."""
        if self._records:
            self._load()
            self._records = []
        if self._position is not None:
            with self._warehouse.transaction() as cursor:
                cursor.execute(
                    """INSERT INTO raw.pulls (source, stream, position) VALUES ($1, $2, $3::text::jsonb)
                       ON CONFLICT (source, stream) DO UPDATE SET position = excluded.position, pulled_at = now()""",
                    parameters=(*self._key, json.dumps(self._position)),
                )
            self._position = None

    def _load(self) -> None:
        if self._preset is not None:
            self._load_as("alerts", self._records)
            if self._preset.has_decisions():
                self._load_as("actions", self._records)
            return
        # Rows of the contract, which need no preset.
        for kind in _KINDS:
            if rows := [row for row in self._records if ("action_id" in row) == (kind == "actions")]:
                self._load_as(kind, rows)

    def _load_as(self, kind: Kind, records: list[dict[str, Any]]) -> None:
        with tempfile.TemporaryDirectory(prefix="heed-pull-") as folder:
            file = Path(folder) / f"pull-{self._key[0]}.jsonl"
            # A record that came on two pages is one line; of two states of a record, the later one is the last.
            lines = dict.fromkeys(json.dumps(record) for record in records)
            file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            loaded = load_file(
                kind,
                file,
                self._warehouse.connect,
                mapping=self._preset,
                time_zone=self._time_zone,
                decisions_only=kind == "actions" and self._preset is not None,
            )
        setattr(self._report, kind, getattr(self._report, kind) + loaded.rows_added)
        self._report.undecodable += loaded.rows_undecodable
        self._report.warnings |= {warning.line(): None for warning in loaded.warnings if not warning.is_note}


@contextmanager
def _alone(name: str, warehouse: Warehouse) -> Iterator[bool]:
    """Hold the lock of a source, on a session of its own. Yields False where another pull holds it."""
    connection = warehouse.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock($1::int, hashtext($2))", parameters=(PULL_LOCK, name))
            row = cursor.fetchone()
            cursor.fetchall()
        connection.commit()
        yield bool(row and row[0])
    finally:
        connection.close()
