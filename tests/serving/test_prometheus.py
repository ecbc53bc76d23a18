"""What monitoring reads: metrics that Prometheus' own parser understands, and an answer that says scores are stale."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dagster_project.resources.warehouse.connection import Warehouse
from tests.serving.conftest import Service, serving

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)


def scrape(service: Service) -> dict[tuple[str, ...], float]:
    """(name, label values...) -> value."""
    answer = service.ask("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


@pytest.fixture
def published(warehouse: Warehouse) -> Warehouse:
    """Scores of ten minutes ago; the newest refresh succeeded after a failure, the newest retraining failed."""
    with warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO scoring.publications (as_of, published_at, alerts, added) VALUES ($1, $1, 42, 7)",
            parameters=(NOW - timedelta(minutes=10),),
        )
        for run_id, job, status, minutes in (
            ("a", "refresh_scores", "failed", 30),
            ("b", "refresh_scores", "succeeded", 9),
            ("c", "retrain", "failed", 60),
        ):
            cursor.execute(
                "INSERT INTO scoring.run_ends (run_id, job, status, ended_at) VALUES ($1, $2, $3, $4)",
                parameters=(run_id, job, status, NOW - timedelta(minutes=minutes)),
            )
    return warehouse


def test_metrics_say_how_fresh_scores_are_and_how_runs_ended(published: Warehouse) -> None:
    with serving(published, lambda: NOW) as service:
        metrics = scrape(service)
        assert metrics["heed_warehouse_up",] == 1
        assert metrics["heed_scores_age_seconds",] == 600
        assert metrics["heed_scores_as_of_seconds",] == (NOW - timedelta(minutes=10)).timestamp()
        assert metrics["heed_scores_stale",] == 0
        assert metrics["heed_open_alerts",] == 42
        assert metrics["heed_run_failed", "refresh_scores"] == 0
        assert metrics["heed_run_failed", "retrain"] == 1
        assert metrics["heed_run_ended_seconds", "retrain"] == (NOW - timedelta(hours=1)).timestamp()
        service.ask("/alerts/unknown-1/score")
        service.ask("/alerts/unknown-2/score")
        service.ask("/nothing/here", headers={"Host": "rebound.example"})
        counted = {key: value for key, value in scrape(service).items() if key[0].endswith("seconds_count")}
        assert counted["heed_http_request_duration_seconds_count", "metrics", "GET", "200"] == 1
        assert counted["heed_http_request_duration_seconds_count", "none", "GET", "421"] == 1
        [(_, scores)] = [(key, value) for key, value in counted.items() if key[1] == "score"]
        assert scores == 2


def test_monitoring_is_told_of_stale_scores_and_load_balancers_are_not(published: Warehouse) -> None:
    with serving(published, lambda: NOW) as service:
        assert (service.ask("/health/fresh").status, service.ask("/health").status) == (200, 200)
    with serving(published, lambda: NOW + timedelta(hours=1)) as service:
        stale = service.ask("/health/fresh")
        assert (stale.status, stale.json["status"]) == (503, "stale")
        assert (service.ask("/health").status, service.ask("/health").json["status"]) == (200, "stale")
        assert scrape(service)["heed_scores_stale",] == 1


def test_metrics_of_a_warehouse_without_scores_or_without_an_answer(warehouse: Warehouse, tmp_path: Path) -> None:
    with serving(warehouse, lambda: NOW) as service:
        metrics = scrape(service)
        assert metrics["heed_warehouse_up",] == 1
        assert ("heed_scores_age_seconds",) not in metrics
        assert service.ask("/health/fresh").status == 503
    with serving(Warehouse(tmp_path, f"postgresql://somebody@/alerts?host={tmp_path}"), lambda: NOW) as service:
        assert scrape(service)["heed_warehouse_up",] == 0
        assert scrape(service)["heed_http_request_duration_seconds_count", "metrics", "GET", "200"] == 1
