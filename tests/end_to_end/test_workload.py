"""One promise, one figure: the board, the report, `heed summary` and SQL."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extras import RealDictCursor

from dagster_project.commands import summary
from dagster_project.commands.report import read_evidence, write_report
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.board.board import read_snapshot
from dagster_project.serving.board.filter import Filter, select_page
from dagster_project.settings import Settings
from dagster_project.triage.evaluation.workload import PROMISES, at_promise, at_threshold

SQL = """
SELECT DISTINCT ON (promise) promise, source, threshold, alerts, acted, alerts_below, acted_below
FROM reporting.triage_workload CROSS JOIN unnest(ARRAY[0.01, 0.02, 0.05]::double precision[]) AS promise
WHERE share_missed <= promise ORDER BY promise, threshold DESC
"""


def test_a_promise_has_one_figure_on_board_report_command_and_in_sql(
    scored_company: Warehouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse = scored_company
    rows = warehouse.read(SQL)
    assert rows["promise"].tolist() == list(PROMISES)
    assert rows["alerts_below"].is_monotonic_increasing
    assert rows["alerts_below"].iloc[-1] > 0

    write_report(read_evidence(warehouse, Settings()), tmp_path / "report.html")
    report = re.sub(r"<[^>]*>", " ", (tmp_path / "report.html").read_text(encoding="utf-8"))
    report = " ".join(report.split())
    document = summary.collect(warehouse)
    summary.show(document)
    printed = " ".join(capsys.readouterr().out.split())
    connection = psycopg2.connect(warehouse.url())
    with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
        snapshot = read_snapshot(cursor)
    connection.close()
    assert snapshot.past.source == rows["source"].iloc[0]
    for row in rows.itertuples():
        at = at_promise(snapshot.past.curve, row.promise)
        assert (at.threshold, at.alerts_below, at.acted_below) == (row.threshold, row.alerts_below, row.acted_below)
        below, acted = f"{row.alerts_below:,} of {row.alerts:,}", f"{row.acted_below:,} of {row.acted:,}"
        shares = f"{row.alerts_below / row.alerts:.1%}", f"{row.acted_below / row.acted:.1%}"
        assert f"{row.promise:.0%} {row.threshold:.1%} {below} {acted} {shares[0]} {shares[1]}" in report
        assert f"below {row.threshold:.1%} could have waited, {shares[0]} of the work ({below}); {shares[1]}" in printed
        # The slider has whole percents; at the one above the promise's threshold it counts what SQL counts there.
        step = int(row.threshold * 100) + 1
        board = select_page(snapshot, Filter(threshold=step), datetime.now(UTC)).workload
        there = at_threshold(snapshot.past.curve, step / 100)
        counted = warehouse.read(
            "SELECT alerts_below, acted_below FROM reporting.triage_workload WHERE threshold >= $1 "
            "ORDER BY threshold LIMIT 1",
            (step / 100,),
        )
        assert (there.alerts_below, there.acted_below) == tuple(counted.iloc[0])
        assert board.saved_of[step].startswith(f"{there.alerts_below:,} of {there.alerts:,} past alerts")
        assert board.missed_of[step].startswith(f"{there.acted_below:,} of {there.acted:,} past actions")
    evaluation = document["evaluation"]
    if rows["source"].iloc[0] == "evaluation":
        for row in rows.itertuples():
            metric = f"workload_saved_at_{row.promise:.0%}_missed"
            saved = next(
                each["value"] for each in evaluation if (each["metric"], each["contender"]) == (metric, "model")
            )
            assert saved == pytest.approx(row.alerts_below / row.alerts, abs=1e-12)
