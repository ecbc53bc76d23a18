"""Every query of the dashboard runs on a real warehouse as the role that only reads, filled in as Grafana does it."""

import json
import re
from datetime import datetime, timedelta
from typing import Any

import psycopg2
import pytest
import yaml
from psycopg2.extras import RealDictCursor

from tests.conftest import PROJECT, Company

ROOM = PROJECT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((ROOM / "dashboards" / "heed.json").read_text(encoding="utf-8"))
[DATASOURCE] = yaml.safe_load((ROOM / "provisioning" / "datasources" / "heed.yaml").read_text(encoding="utf-8"))[
    "datasources"
]
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"]}
# Nothing was sent by the company of the tests, and its scores are too young for outcomes.
MAY_BE_EMPTY = {"Messages to other systems", "Messages that were not delivered", "Calibration by tenth"}


def quoted(moment: datetime) -> str:
    return f"'{moment.isoformat(timespec='seconds').replace('+00:00', 'Z')}'"


def filled_in(sql: str, first: datetime, last: datetime, variables: dict[str, list[str]]) -> str:
    """As Grafana does: variables first, in the browser, then the macros of its PostgreSQL data source."""
    for name, values in variables.items():
        texts = ",".join("'" + value.replace("'", "''") + "'" for value in values)
        sql = sql.replace(f"${{{name}:sqlstring}}", texts)
    sql = re.sub(r"\$__timeFilter\(([^)]*)\)", rf"\1 BETWEEN {quoted(first)} AND {quoted(last)}", sql)
    sql = re.sub(r"\$__timeGroupAlias\((\w+),\s*'1h'\)", r'floor(extract(epoch from \1)/3600)*3600 AS "time"', sql)
    return sql.replace("$__timeFrom()", quoted(first)).replace("$__timeTo()", quoted(last))


def ask(company: Company, sql: str) -> tuple[list[str], list[dict[str, Any]]]:
    """As the analyst, who may not write."""
    connection = psycopg2.connect(company.login("test_analyst").url())
    try:
        connection.set_session(readonly=True)
        with connection.cursor(cursor_factory=RealDictCursor) as cursor:
            cursor.execute(sql)
            return [column.name for column in cursor.description or ()], [dict(row) for row in cursor.fetchall()]
    finally:
        connection.close()


@pytest.fixture(scope="module")
def teams(company: Company) -> list[str]:
    """What the variable offers; all of them are chosen at first."""
    [variable] = DASHBOARD["templating"]["list"]
    _, rows = ask(company, variable["query"])
    assert variable["name"] == "team"
    assert len(rows) > 1
    return [row["team"] for row in rows]


@pytest.mark.parametrize("title", PANELS)
def test_every_panel_gets_its_rows(company: Company, teams: list[str], title: str) -> None:
    panel = PANELS[title]
    # Publications have the time of the tests' clock, everything else that of the company.
    last = datetime.now(company.end.tzinfo) + timedelta(minutes=1)
    for target in panel["targets"]:
        sql = filled_in(target["rawSql"], company.end - timedelta(days=120), last, {"team": teams})
        assert "$" not in sql
        columns, rows = ask(company, sql)
        assert rows or title in MAY_BE_EMPTY
        named = {
            override["matcher"]["options"]
            for override in panel["fieldConfig"]["overrides"]
            if override["matcher"]["id"] == "byName"
        }
        assert named <= set(columns)  # a unit for a column that is not there would go unseen
        if target["format"] == "time_series":
            times = [row["time"] for row in rows]
            assert columns[0] == "time"
            assert times == sorted(times)


def test_the_sums_are_those_of_the_view(company: Company, teams: list[str]) -> None:
    view = company.warehouse.read(
        "SELECT probability, flood OR visibility_only AS flagged FROM reporting.alert_scores_latest WHERE is_open"
    )
    moment = company.end

    def value(title: str, chosen: list[str]) -> float:
        _, [row] = ask(company, filled_in(PANELS[title]["targets"][0]["rawSql"], moment, moment, {"team": chosen}))
        return float(next(iter(row.values())))

    assert value("Open alerts", teams) == len(view)
    assert value("Actions to expect", teams) == pytest.approx(view.loc[~view["flagged"], "probability"].sum())
    assert value("Open alerts", ["O'Neil's, a team that is not there"]) == 0


def test_panels_use_the_datasource_that_is_provisioned_and_no_secret_stands_in_it() -> None:
    used = {json.dumps(each) for each in (*_datasources(DASHBOARD),)}
    assert used == {json.dumps({"type": DATASOURCE["type"], "uid": DATASOURCE["uid"]})}
    assert DATASOURCE["secureJsonData"]["password"].startswith("$")
    assert len({panel["id"] for panel in PANELS.values()}) == len(DASHBOARD["panels"]) == len(PANELS)


def _datasources(part: Any) -> list[Any]:
    if isinstance(part, list):
        return [found for each in part for found in _datasources(each)]
    if not isinstance(part, dict):
        return []
    own = [part["datasource"]] if "datasource" in part else []
    return own + [found for each in part.values() for found in _datasources(each)]
