"""`GET /metrics`: numbers for monitoring, in Prometheus' format.

Belongs here: the names, meanings and units of metrics, and the queries behind them.
Does not belong here: routes (`api/openapi.py`), and verdicts (`heed doctor`, `/health`): alerting rules give those.

A scrape runs a few fast queries, none about single alerts. If the warehouse cannot be reached, `heed_warehouse_up` is 0
and the service's own metrics are still there. Labels are bounded: never an alert, a rule or a team.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg2.extensions import cursor as Cursor
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagster_project.serving.freshness import read_freshness
from dagster_project.serving.pool import Pool, rows
from dagster_project.serving.problem import Problem

# Values by the values of their labels.
Labelled = Mapping[tuple[str, ...], float]

CONTENT_TYPE = CONTENT_TYPE_LATEST
# Seconds, from what a score takes (a few ms) to when the pool gives up (10 s).
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_MAY_READ = """
SELECT coalesce(has_table_privilege(to_regclass(%(table)s), 'SELECT'), false) AS may
"""
_OPEN = "SELECT alerts FROM scoring.publications WHERE as_of <= %(now)s ORDER BY as_of DESC, published_at DESC LIMIT 1"
_FLAGGED = """
SELECT count(*) FILTER (WHERE flood) AS flood, count(*) FILTER (WHERE visibility_only) AS visibility_only
FROM reporting.excluded_alerts
"""
_REJECTED = "SELECT source, rejected_rows FROM marts.load_reconciliation ORDER BY source"
_RUNS = """
SELECT DISTINCT ON (job) job, status, ended_at FROM scoring.run_ends ORDER BY job, ended_at DESC
"""


class Metrics:
    """The metrics of one service."""

    def __init__(self, pool: Pool, refresh_cron: str, clock: Callable[[], datetime]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "heed_http_request_duration_seconds",
            "Time from a request to the end of its answer.",
            ("method", "endpoint", "status"),
            registry=self._registry,
            buckets=_BUCKETS,
        )
        self._registry.register(_Warehouse(pool, refresh_cron, clock))

    def page(self) -> bytes:
        """All metrics as text."""
        return generate_latest(self._registry)

    def count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answered request."""
        endpoint = getattr(scope.get("endpoint"), "__name__", "none")
        method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
        self._requests.labels(method, endpoint, str(status)).observe(seconds)


class Counted:
    """An ASGI application around another one that counts each request when its answer has ended."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.inner = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, status = time.monotonic(), 500

        async def send_and_count(message: Message) -> None:
            nonlocal status
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                self._metrics.count(scope, status, time.monotonic() - started)

        await self.inner(scope, receive, send_and_count if scope["type"] == "http" else send)


class _Warehouse(Collector):
    """Metrics read from the warehouse during the scrape."""

    def __init__(self, pool: Pool, refresh_cron: str, clock: Callable[[], datetime]) -> None:
        self._pool, self._cron, self._clock = pool, refresh_cron, clock

    def describe(self) -> Iterator[Metric]:
        """Queries nothing: this is called when the collector is registered."""
        yield GaugeMetricFamily("heed_warehouse_up", "")

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("heed_warehouse_up", "1: the warehouse answered this scrape.")
        try:
            metrics = self._pool.read(self._read)
        except Problem:
            metrics = None
        up.add_metric([], 0 if metrics is None else 1)
        yield up
        yield from metrics or []

    def _read(self, cursor: Cursor) -> list[Metric]:
        metrics: list[Metric] = []

        def gauge(name: str, text: str, values: Labelled, labels: tuple[str, ...] = ()) -> None:
            family = GaugeMetricFamily(f"heed_{name}", text, labels=labels)
            for key, value in values.items():
                family.add_metric(key, value)
            metrics.append(family)

        def ask(table: str, query: str, **values: Any) -> list[dict[str, Any]]:
            may = rows(cursor, _MAY_READ, {"table": table})[0]["may"]
            return rows(cursor, query, values) if may else []

        now = self._clock()
        if ask("scoring.alert_scores", "SELECT 1") and (fresh := read_freshness(cursor, self._cron, now)):
            gauge("scores_as_of_seconds", "Published scores use data through (Unix).", {(): fresh.as_of.timestamp()})
            gauge("scores_age_seconds", "Age of the published scores.", {(): fresh.age.total_seconds()})
            gauge(
                "scores_stale", "1: scheduled refreshes were missed, so scores are stale.", {(): float(fresh.is_stale)}
            )
        if newest := ask("scoring.publications", _OPEN, now=now):
            gauge("open_alerts", "Open alerts at the newest publication.", {(): newest[0]["alerts"]})
        if flagged := ask("reporting.excluded_alerts", _FLAGGED):
            text = "Alerts that a flag keeps out of training and headline metrics."
            gauge("flagged_alerts", text, {(name,): number for name, number in flagged[0].items()}, ("flag",))
        if rejected := ask("marts.load_reconciliation", _REJECTED):
            values: Labelled = {(row["source"],): float(row["rejected_rows"] or 0) for row in rejected}
            gauge("rejected_rows", "Rejected rows; marts.rejected_rows says why.", values, ("source",))
        if ends := ask("scoring.run_ends", _RUNS):
            failed: Labelled = {(row["job"],): float(row["status"] == "failed") for row in ends}
            gauge("run_failed", "1: the newest ended run of the job failed.", failed, ("job",))
            when: Labelled = {(row["job"],): row["ended_at"].timestamp() for row in ends}
            gauge("run_ended_seconds", "When the newest run of the job ended (Unix).", when, ("job",))
        return metrics
