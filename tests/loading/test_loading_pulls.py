"""Pulls from servers that speak the published shapes of each system: nothing lost and nothing doubled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner
from loading_store import Store
from pull_vendors import SECRET, Reply, Vendor, certificate, serving

from dagster_project.cli import main
from dagster_project.definitions import build_defs
from dagster_project.errors import HeedError
from dagster_project.loading.pulls import http
from dagster_project.loading.pulls.pull import PullReport, pull
from dagster_project.resources.warehouse.connection import URL_VARIABLE
from dagster_project.settings import PullSource, Settings
from tests.conftest import PROJECT

KINDS = ("pagerduty", "jira", "servicenow", "github", "sentry")


@pytest.fixture(scope="module")
def own_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch, store: Store, own_certificate: Path) -> None:
    monkeypatch.setenv("HEED_TEST_PULL", SECRET)
    monkeypatch.setenv("SSL_CERT_FILE", str(own_certificate))
    monkeypatch.setattr(http, "BACKOFF_SECONDS", 0.05)
    store.rows("TRUNCATE raw.pulls")


@pytest.fixture(params=KINDS)
def vendor(request: pytest.FixtureRequest, _impatient: None) -> Iterator[Vendor]:
    with serving(Vendor(request.param)) as vendor:
        yield vendor


def pulled(vendor: Vendor, store: Store, **changes: Any) -> PullReport:
    settings = Settings.model_validate({"sources": {vendor.kind: vendor.source() | changes}})
    return pull(vendor.kind, settings, store.warehouse, lambda _: None)


def is_right(vendor: Vendor, store: Store) -> None:
    """Every alert is there once, and every decision once."""
    alerts = [row[0] for row in store.rows("SELECT alert_id FROM raw.alerts GROUP BY alert_id ORDER BY alert_id")]
    assert sorted(alerts) == vendor.alert_ids()
    decisions = "SELECT action_id, alert_id FROM raw.actions WHERE action_type <> 'neutral'"
    actions = store.rows(decisions)
    assert len({action for action, _ in actions}) == len(actions) == vendor.decided()
    assert {alert for _, alert in actions} <= set(alerts)


def test_a_pull_survives_limits_errors_and_time_outs(
    vendor: Vendor, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SECONDS", 1.0)
    vendor.raise_some(40)
    asked: list[float] = []

    def before(number: int) -> Reply | None:
        asked.append(time.monotonic())
        if number == 2:
            return 429, {"Retry-After": "1"}, {"message": "slow down"}
        if number == 4:
            return 500, {}, {"message": "oops"}
        if number == 6:
            time.sleep(1.5)
        return None

    vendor.before = before
    report = pulled(vendor, store)
    is_right(vendor, store)
    assert (report.alerts, report.actions) == (40, vendor.decided())
    if vendor.kind != "pagerduty":  # its client has its own patience, which grows
        assert asked[2] - asked[1] >= 0.99


def test_a_second_pull_brings_what_changed(vendor: Vendor, store: Store) -> None:
    vendor.raise_some(30)
    first = pulled(vendor, store)
    vendor.raise_some(4)
    vendor.decide(5)
    vendor.decide(28)
    second = pulled(vendor, store)
    is_right(vendor, store)
    assert first.alerts == 30
    assert second.actions == vendor.decided() - first.actions
    if vendor.kind not in ("pagerduty", "sentry"):  # these are read again for as long as a decision counts
        assert second.records < 20
    third = pulled(vendor, store)
    assert (third.alerts, third.actions) == (0, 0)


def test_a_pull_that_brings_nothing_is_a_pull(vendor: Vendor, store: Store) -> None:
    before = "SELECT min(pulled_at) > now() - interval '1 day' FROM raw.pulls"
    pulled(vendor, store)  # of a system without alerts
    assert store.rows(before) == [(True,)]
    vendor.raise_some(3)
    assert pulled(vendor, store).alerts == 3
    kept = store.rows("SELECT stream, position FROM raw.pulls ORDER BY 1")
    store.rows("UPDATE raw.pulls SET pulled_at = now() - interval '2 days'")
    assert pulled(vendor, store).alerts == 0
    assert store.rows(before) == [(True,)]
    if vendor.kind not in ("pagerduty", "sentry"):  # whose position is the time of the pull
        assert store.rows("SELECT stream, position FROM raw.pulls ORDER BY 1") == kept


def test_what_changes_during_a_pull_is_not_passed_over(vendor: Vendor, store: Store) -> None:
    vendor.raise_some(40)

    def before(number: int) -> None:
        if number in (2, 5, 8):  # none of these is decided yet
            vendor.decide(number)
            vendor.decide(39 - number)

    vendor.before = before
    pulled(vendor, store)
    vendor.before = lambda number: None
    pulled(vendor, store)
    is_right(vendor, store)


def test_pages_of_an_own_jira_pass_nothing_over(store: Store) -> None:
    """By number they would: an issue that changes moves to the end, and others up to where nobody looks for them."""
    with serving(Vendor("jira", is_own_server=True)) as vendor:
        vendor.raise_some(40)
        for number in range(20, 32):  # more than two pages within a minute
            vendor.incidents[number].updated = vendor.incidents[number].raised = vendor.incidents[20].raised
            vendor.incidents[number].decided = None
        vendor.before = lambda number: vendor.decide(number) if number in (2, 4) else None
        pulled(vendor, store)
        is_right(vendor, store)


def test_pulls_that_are_killed_between_pages_go_on(store: Store, tmp_path: Path) -> None:
    with ExitStack() as stack:
        vendors = [stack.enter_context(serving(Vendor(kind))) for kind in KINDS]
        held: set[str] = set()

        def hold(vendor: Vendor) -> Any:
            def before(number: int) -> None:
                if number == 4:
                    held.add(vendor.kind)
                    time.sleep(30)

            return before

        for vendor in vendors:
            vendor.raise_some(40)
            vendor.before = hold(vendor)
        sources = {vendor.kind: vendor.source() for vendor in vendors}
        (tmp_path / "sources.json").write_text(json.dumps({"sources": sources}))
        process = subprocess.Popen(
            [sys.executable, "-c", _ALL_AT_ONCE, str(tmp_path / "sources.json")],
            cwd=PROJECT,
            env={**os.environ, "HEED_HOME": str(tmp_path), URL_VARIABLE: store.warehouse.url()},
        )
        until = time.monotonic() + 120
        while len(held) < len(vendors) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert held == set(KINDS)
        partly = store.count()
        assert 0 < partly < 40 * len(vendors)
        for vendor in vendors:
            vendor.before = lambda number: None
            asked = vendor.pages
            while pulled(vendor, store).is_busy:  # until the server notices that the killed session is gone
                time.sleep(0.1)
            assert vendor.pages > asked
        loaded = {row[0] for row in store.rows("SELECT alert_id FROM raw.alerts")}
        wanted = {alert for vendor in vendors for alert in vendor.alert_ids()}
        assert loaded == wanted
        assert store.count() == len(wanted)
        actions = store.rows("SELECT count(*), count(DISTINCT action_id) FROM raw.actions")
        assert actions == [(sum(vendor.decided() for vendor in vendors),) * 2]


# A load for each page, so that a kill finds some pages in raw and others not.
_ALL_AT_ONCE = """
import json, sys, threading
import adbc_driver_postgresql.dbapi  # before the threads, which would import it at once
from pathlib import Path
from dagster_project.loading.pulls import pull
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings, heed_home

pull.MOST_RECORDS = 1
settings = Settings.model_validate(json.loads(Path(sys.argv[1]).read_text()))
warehouse = Warehouse(heed_home())
arguments = [(name, settings, warehouse, print) for name in settings.sources]
threads = [threading.Thread(target=pull.pull, args=each) for each in arguments]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_two_pulls_of_a_source_do_not_meet(store: Store) -> None:
    with serving(Vendor("jira")) as vendor:
        vendor.raise_some(3)
        inner: list[PullReport] = []
        vendor.before = lambda number: inner.append(pulled(vendor, store)) if number == 1 else None
        assert not pulled(vendor, store).is_busy
        assert inner[0].is_busy
        is_right(vendor, store)


def test_a_source_that_asks_for_something_else_begins_at_the_beginning(store: Store) -> None:
    with serving(Vendor("servicenow")) as vendor:
        vendor.raise_some(12)
        pulled(vendor, store)
        assert pulled(vendor, store).records < 12
        positions = store.rows("SELECT stream FROM raw.pulls")
        assert positions == [("incident",)]


def test_dagster_pulls_and_shows_it_in_the_lineage(store: Store) -> None:
    with serving(Vendor("servicenow")) as vendor:
        vendor.raise_some(3)
        settings = Settings.model_validate({"sources": {"tickets": vendor.source()}})
        defs = build_defs(settings=settings, warehouse=store.warehouse)
        source, graph = dg.AssetKey(["sources", "tickets"]), defs.resolve_asset_graph()
        assert graph.get(dg.AssetKey(["raw", "alerts"])).parent_keys == {source}
        assert source not in defs.resolve_job_def("refresh_scores").asset_layer.executable_asset_keys
        assert "pull_schedule" in {schedule.name for schedule in defs.schedules or []}
        assert defs.resolve_job_def("pull").execute_in_process().success
        is_right(vendor, store)


def test_the_command_pulls_all_sources_although_one_is_down(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEED_HOME", str(tmp_path))
    monkeypatch.setenv(URL_VARIABLE, store.warehouse.url())
    with serving(Vendor("servicenow")) as vendor:
        vendor.raise_some(3)
        tables = []
        for name, source in (("down", vendor.source() | {"table": "nothing"}), ("up", vendor.source())):
            lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in source.items())
            tables.append(f"[sources.{name}]\n{lines}")
        (tmp_path / "heed.toml").write_text("\n".join(tables))
        done = CliRunner().invoke(main, ["pull"])
        assert done.exit_code == 1
        assert "heed: down: " in done.stderr
        assert "status 400" in done.stderr
        assert "fetched, 3 rows of alerts and 1 of actions are new" in done.output
        is_right(vendor, store)
        again = CliRunner().invoke(main, ["pull", "up", "--json"])
        assert json.loads(again.stdout.splitlines()[-1])[0]["alerts"] == 0


def test_a_secret_that_is_missing_or_wrong_is_named(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("jira", "pagerduty", "github"):
        with serving(Vendor(kind)) as vendor:
            vendor.raise_some(1)
            with pytest.raises(HeedError, match="NOBODY, the secret of the source"):
                pulled(vendor, store, secret_from="NOBODY")
            monkeypatch.setenv("HEED_WRONG", "not-the-token-at-all")
            if kind != "jira":
                with pytest.raises(HeedError) as raised:
                    pulled(vendor, store, secret_from="HEED_WRONG")
                assert "401" in raised.value.cause
                assert "not-the-token" not in str(raised.value)
    assert store.rows("SELECT * FROM raw.pulls") == []


def test_a_next_page_on_another_host_gets_no_token(store: Store) -> None:
    with serving(Vendor("github")) as vendor, serving(Vendor("github")) as thief:
        vendor.raise_some(12)
        real = vendor._github

        def lured(path: str, query: dict[str, str]) -> Reply:
            status, headers, content = real(path, query)
            return status, {name: v.replace(vendor.url, thief.url) for name, v in headers.items()}, content

        vendor._github = lured  # type: ignore[method-assign]
        with pytest.raises(HeedError, match="another host"):
            pulled(vendor, store)
        assert thief.pages == 0


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ({"kind": "jira", "secret_from": "X"}, "also needs url"),
        ({"kind": "github", "secret_from": "X"}, "also needs repositories"),
        ({"kind": "github", "secret_from": "X", "repositories": ["a/b/c"]}, "neither owner/name"),
        ({"kind": "pagerduty"}, "also needs secret_from"),
        ({"kind": "pagerduty", "secret_from": "X", "since": "2026-13-01"}, "month"),
    ],
)
def test_a_source_without_what_it_needs_is_refused(source: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        PullSource.model_validate(source)
