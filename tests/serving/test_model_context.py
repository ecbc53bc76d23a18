"""`heed mcp`, as a client of the protocol starts it: a process of its own, spoken to over its standard streams."""

import sys
from typing import Any

import anyio
import pytest

from dagster_project.resources.warehouse.connection import URL_VARIABLE, Warehouse
from tests.conftest import PROJECT, Company

VIEW = "SELECT alert_id, probability, status, flag_words, reasons FROM reporting.alert_scores_latest WHERE is_open "


def environment(warehouse: Warehouse) -> dict[str, str]:
    return {"HEED_HOME": str(warehouse.home), URL_VARIABLE: warehouse.url(), "PYTHONPATH": str(PROJECT)}


def test_an_assistant_gets_the_numbers_of_the_service(company: Company) -> None:
    """By the login of the service: the digits of the view, the order of the board, no number where none is shown."""
    from mcp import Client, StdioServerParameters

    view = {row["alert_id"]: row for row in company.warehouse.read_arrow(VIEW).to_pylist()}
    flagged = next(row for row in view.values() if row["flag_words"] and row["status"] != "holdout")
    held_out = next(row for row in view.values() if row["status"] == "holdout")
    plain = next(row for row in view.values() if not row["flag_words"] and row["status"] != "holdout")

    async def talk() -> dict[str, Any]:
        command = StdioServerParameters(
            command=sys.executable,
            args=["-m", "dagster_project.cli", "mcp"],
            env=environment(company.login("test_web")),
        )
        async with Client(command, read_timeout_seconds=60) as client:
            answers: dict[str, Any] = {"tools": (await client.list_tools()).tools}
            for name in (flagged["alert_id"], held_out["alert_id"], plain["alert_id"], "nobody's"):
                answers[name] = await client.call_tool("alert_score", {"alert_id": name})
            answers["most"] = await client.call_tool("open_alerts", {"limit": 100})
            answers["team"] = await client.call_tool("open_alerts", {"team": "nobody's"})
            answers["bad"] = await client.call_tool("open_alerts", {"limit": 0})
            return answers

    answers = anyio.run(talk)
    assert {tool.name for tool in answers["tools"]} == {"alert_score", "open_alerts"}
    assert all(tool.annotations.read_only_hint and tool.output_schema for tool in answers["tools"])
    for row in (flagged, held_out, plain):
        score = answers[row["alert_id"]].structured_content
        assert {name: score[name] for name in ("probability", "status", "flag_words")} == {
            name: row[name] for name in ("probability", "status", "flag_words")
        }
        assert score["freshness"]["stale"]  # the company's run was long ago, by this clock
    assert answers[held_out["alert_id"]].structured_content["probability"] is None
    assert answers["nobody's"].is_error
    assert 'there is no alert "nobody\'s"' in answers["nobody's"].content[0].text
    most = answers["most"].structured_content
    # Held-out alerts have a random place, as on the board.
    shown = [each for each in most["alerts"] if each["probability"] is not None]
    flags = [each["flags"]["flood"] or each["flags"]["visibility_only"] for each in shown]
    assert flags == sorted(flags)  # flagged ones last
    numbers = [each["probability"] for each, flag in zip(shown, flags, strict=True) if not flag]
    assert numbers == sorted(numbers, reverse=True)
    assert (most["matching"], len(most["alerts"])) == (len(view), min(100, len(view)))
    assert {each["alert_id"]: each["probability"] for each in most["alerts"]}.items() <= {
        name: row["probability"] for name, row in view.items()
    }.items()
    assert answers["team"].structured_content["alerts"] == []
    assert answers["bad"].is_error


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_project.errors import HeedError
    from dagster_project.serving.model_context import serve

    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(HeedError, match="not installed") as refused:
        serve()
    assert "heed[mcp]" in refused.value.remedy
