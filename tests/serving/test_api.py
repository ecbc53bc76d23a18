"""The HTTP interface, asked as other systems ask it: what it answers, and how it fails."""

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator
from psycopg2 import errors

from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.serving.api.openapi import description
from dagster_project.serving.pool import Pool
from tests.conftest import Company
from tests.serving.conftest import HOSTILE, HOSTILE_ID, REASON, Service, serving


@pytest.fixture(scope="module")
def scored(service: Service) -> tuple[str, float]:
    """The open alert with the highest probability that is no test's own."""
    [highest] = service.rows(
        "SELECT alert_id, probability FROM reporting.alert_scores_latest WHERE is_open AND alert_id <> %s "
        "AND NOT flood AND NOT visibility_only ORDER BY probability DESC NULLS LAST LIMIT 1",
        (HOSTILE_ID,),
    )
    return highest


def path_of(alert_id: str, what: str = "score") -> str:
    return f"/alerts/{quote(alert_id, safe='')}/{what}"


def test_a_score_is_what_the_view_says(service: Service, scored: tuple[str, float], company: Company) -> None:
    answer = service.ask(path_of(scored[0]))
    assert answer.status == 200
    score = answer.json
    [(rule, team, version, reasons, as_of)] = service.rows(
        "SELECT rule, team, model_version, reasons, as_of FROM reporting.alert_scores_latest WHERE alert_id = %s",
        (scored[0],),
    )
    assert (score["alert_id"], score["probability"]) == scored
    assert (score["rule"], score["team"], score["model_version"], score["reasons"]) == (rule, team, version, reasons)
    assert score["as_of"] == as_of.isoformat()
    assert set(score["flags"]) == {"flood", "visibility_only", "unpredictable_team", "new_rule"}
    assert score["freshness"]["stale"] is False
    assert score["freshness"]["age_seconds"] == 600


def test_team_predictability_is_the_audits(service: Service, scored: tuple[str, float]) -> None:
    score = service.ask(path_of(scored[0])).json
    audited = service.rows(
        "SELECT status, reason FROM training.team_scorecards WHERE model_version = %s AND team = %s "
        "ORDER BY as_of DESC LIMIT 1",
        (score["model_version"], score["team"]),
    )
    assert audited
    assert (score["team_predictability"]["status"], score["team_predictability"]["reason"]) == audited[0]
    assert score["flags"]["unpredictable_team"] == (audited[0][0] == "unpredictable")


def test_any_id_and_any_text_come_through_unchanged(service: Service) -> None:
    answer = service.ask(path_of(HOSTILE_ID))
    assert answer.status == 200, answer.text
    score = answer.json
    assert (score["alert_id"], score["rule"], score["reasons"]) == (HOSTILE_ID, HOSTILE["rule"], [REASON])
    assert score["flags"]["new_rule"]
    assert (score["probability"], score["probability_at_raise"]) == (1.0, 1.0)  # certainty does not age
    assert score["team_predictability"] is None
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_missing_score_says_why(service: Service) -> None:
    [(waiting,)] = service.rows("SELECT alert_id FROM marts.alert_outcomes WHERE outcome IS NULL LIMIT 1")
    service.rows("DELETE FROM scoring.alert_scores WHERE alert_id = %s", (waiting,))
    [(decided,)] = service.rows(
        "SELECT alert_id FROM marts.alert_outcomes WHERE outcome IS NOT NULL "
        "AND alert_id NOT IN (SELECT alert_id FROM scoring.alert_scores) LIMIT 1"
    )
    for alert_id, part in ((waiting, "not scored yet"), (decided, "never scored"), ("nobody's", "there is no alert")):
        answer = service.ask(path_of(alert_id))
        assert answer.status == 404
        assert part in answer.json["error"]
        assert set(answer.json) == {"error", "remedy"}


@pytest.mark.parametrize("alert_id", ["%00", "x" * 1001, "' OR true --", "%ff", "a%0ab"])
def test_impossible_ids_are_unknown_ids(service: Service, alert_id: str) -> None:
    answer = service.ask(f"/alerts/{alert_id.replace(' ', '%20')}/score")
    assert answer.status == 404
    assert answer.json["error"].startswith("there is no alert")


def test_a_batch_keeps_its_order_and_lists_what_is_unknown(service: Service) -> None:
    known = [row[0] for row in service.rows("SELECT alert_id FROM reporting.alert_scores_latest LIMIT 50")]
    answer = service.ask("/scores", method="POST", body={"alert_ids": [*reversed(known), "nobody's", known[0]]})
    assert answer.status == 200
    assert [score["alert_id"] for score in answer.json["scores"]] == known[::-1]
    assert answer.json["unknown"] == ["nobody's"]
    single = service.ask(path_of(known[0])).json
    assert answer.json["scores"][-1] == {name: value for name, value in single.items() if name != "freshness"}


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({}, "alert_ids is missing"),
        ([], "as a JSON object"),
        ({"alert_ids": []}, "alert_ids is []"),
        ({"alert_ids": "a"}, "alert_ids is 'a'"),
        ({"alert_ids": ["a", 7]}, "alert_ids[1]"),
        ({"alert_ids": ["a"], "team": "x"}, "no field 'team'"),
        ({"alert_ids": ["a\0"]}, "alert_ids[0]"),
        ('{"alert_ids": ["\\ud800"]}', "alert_ids[0]"),
        ({"alert_ids": ["é" * 501]}, "at most 1,000 bytes"),
        ({"alert_ids": ["a"] * 1001}, "at most 1000 items after validation, not 1001"),
        ("{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
    ids=str,
)
def test_a_bad_batch_is_refused_in_words(service: Service, body: Any, part: str) -> None:
    answer = service.ask("/scores", method="POST", body=body)
    assert answer.status == 422
    assert part in answer.json["error"]
    assert "alert_ids" in answer.json["remedy"] or part == "not JSON"
    assert len(answer.text.splitlines()) == 1
    assert len(answer.text) < 500


def test_a_body_without_end_is_not_read(service: Service) -> None:
    assert service.ask("/feedback", method="POST", body=b"x" * 70_000).status == 413


def test_other_addresses_and_methods_are_said_not_to_be_there(service: Service) -> None:
    assert service.ask("/nothing").json["error"] == "there is nothing at this address"
    assert service.ask("/static/../app.py").status == 404
    answer = service.ask("/scores")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert answer.json["remedy"] == "use POST"


def test_the_badge_says_what_the_score_says(service: Service, scored: tuple[str, float]) -> None:
    answer = service.ask(path_of(scored[0], "badge.svg"))
    assert (answer.status, answer.headers["content-type"]) == (200, "image/svg+xml")
    assert f"{scored[1]:.0%}" in answer.text
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    unknown = service.ask(path_of("nobody's", "badge.svg"))
    assert unknown.status == 404
    assert "not scored" in unknown.text
    assert ">100%<" in service.ask(path_of(HOSTILE_ID, "badge.svg")).text
    [(flagged, words)] = service.rows(
        "SELECT alert_id, flag_words FROM reporting.alert_scores_latest "
        "WHERE is_open AND status <> 'holdout' AND visibility_only LIMIT 1"
    )
    badge = service.ask(path_of(flagged, "badge.svg")).text
    assert ">visibility only<" in badge
    assert words in badge


def test_feedback_is_appended(service: Service, scored: tuple[str, float]) -> None:
    for verdict, by in (("wrong", None), ("useful", "Ann")):
        feedback = {"alert_id": scored[0], "verdict": verdict, **({"given_by": by} if by else {})}
        answer = service.ask("/feedback", method="POST", body=feedback)
        assert answer.status == 201
        assert (answer.json["verdict"], answer.json["given_by"]) == (verdict, by)
    written = service.rows(
        "SELECT verdict, given_by, model_version FROM scoring.feedback WHERE alert_id = %s ORDER BY feedback_id",
        (scored[0],),
    )
    version = service.ask(path_of(scored[0])).json["model_version"]
    assert written == [("wrong", None, version), ("useful", "Ann", version)]


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"alert_id": "nobody's"}, 404),
        ({"model_version": "never-made"}, 404),
        ({"verdict": "maybe"}, 422),
        ({"verdict": ["useful"]}, 422),
        ({"alert_id": None}, 422),
        ({"given_by": "x" * 201}, 422),
        ({"given_by": "a\0"}, 422),
        ({"surprise": 1}, 422),
    ],
    ids=str,
)
def test_bad_feedback_is_refused(
    service: Service, scored: tuple[str, float], changed: dict[str, Any], status: int
) -> None:
    before = service.rows("SELECT count(*) FROM scoring.feedback")
    answer = service.ask("/feedback", method="POST", body={"alert_id": scored[0], "verdict": "useful", **changed})
    assert answer.status == status
    assert set(answer.json) == {"error", "remedy"}
    assert service.rows("SELECT count(*) FROM scoring.feedback") == before


def test_nobody_judges_a_score_that_is_not_shown(service: Service) -> None:
    ((held_out,), *_) = service.rows(
        "SELECT alert_id FROM reporting.alert_scores_latest WHERE status = 'holdout' LIMIT 1"
    )
    answer = service.ask("/feedback", method="POST", body={"alert_id": held_out, "verdict": "useful"})
    assert answer.status == 409
    assert "drawn at random" in answer.json["error"]
    assert service.rows("SELECT count(*) FROM scoring.feedback WHERE alert_id = %s", (held_out,)) == [(0,)]


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
    ids=str,
)
def test_pages_of_other_sites_cannot_post(service: Service, scored: tuple[str, float], headers: dict[str, str]) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    body = f"alert_id={quote(scored[0])}&verdict=wrong"
    before = service.rows("SELECT count(*) FROM scoring.feedback")
    assert service.ask("/feedback", method="POST", body=body, headers=form).status == 403
    assert service.rows("SELECT count(*) FROM scoring.feedback") == before


def test_the_boards_form_leads_back_to_the_board_and_nowhere_else(service: Service, scored: tuple[str, float]) -> None:
    headers = {
        "Content-Type": "application/x-www-form-urlencoded",
        "Origin": service.address,
        "Sec-Fetch-Site": "same-origin",
    }
    body = f"alert_id={quote(scored[0])}&verdict=useful&back={quote('team=A&x=//evil.example' + chr(13) + chr(10))}"
    answer = service.ask("/feedback", method="POST", body=body, headers=headers)
    assert answer.status == 303
    assert answer.headers["location"].startswith("/?team=A&x=%2F%2Fevil.example%0D%0A#a")
    many = f"alert_id={quote(scored[0])}&verdict=useful&back={quote('&'.join(['team=A'] * 50))}"
    assert service.ask("/feedback", method="POST", body=many, headers=headers).status == 303


def test_a_name_that_is_not_its_own_is_refused(service: Service) -> None:
    """A page that resolves its own name to this machine would otherwise read every score."""
    answer = service.ask("/health", headers={"Host": "rebound.example"})
    assert answer.status == 421
    assert "--allowed-host" in answer.json["remedy"]
    assert service.ask("/health", headers={"Host": f"localhost:{service.port}"}).status == 200


def test_health_is_ok_and_goes_stale(service: Service, company: Company, scored: tuple[str, float]) -> None:
    answer = service.ask("/health")
    assert (answer.status, answer.json["status"]) == (200, "ok")
    with serving(service.warehouse, lambda: company.end + timedelta(minutes=31)) as later:
        health = later.ask("/health").json
        assert health["status"] == "stale"
        assert health["freshness"]["stale"] is True
        assert "stale" in later.ask(path_of(scored[0], "badge.svg")).text
        assert "These scores are stale" in later.ask("/").text


def test_an_absent_warehouse_is_said_and_its_return_noticed(
    service: Service, company: Company, tmp_path: Path, scored: tuple[str, float]
) -> None:
    nowhere = Warehouse(tmp_path, f"postgresql://somebody:secret@/alerts?host={tmp_path}")
    with serving(nowhere, lambda: company.end) as lost:
        for path in ("/health", path_of(scored[0])):
            answer = lost.ask(path)
            assert answer.status == 503
            assert "not reachable" in answer.json["error"]
            assert "secret" not in answer.text
        assert lost.ask("/").status == 503
        assert "not reachable" in lost.ask("/").text
        badge = lost.ask(path_of(scored[0], "badge.svg"))
        assert (badge.status, "unavailable" in badge.text) == (503, True)
        nowhere._external_url = service.warehouse.url()
        assert lost.ask("/health").status == 200


def test_connections_that_died_are_replaced(service: Service) -> None:
    assert service.ask("/health").status == 200
    killed = service.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'heed serve' AND datname = current_database()"
    )
    assert killed
    assert service.ask("/health").status == 200


def test_a_warehouse_without_scores_says_what_to_do(warehouse: Warehouse, company: Company) -> None:
    with serving(warehouse, lambda: company.end) as empty:
        for path in ("/health", path_of("a")):
            answer = empty.ask(path)
            assert answer.status == 503
            assert "heed run" in answer.json["remedy"]
        assert "run `heed run`".lower() in empty.ask("/").text.lower()


def test_a_role_that_may_only_read_serves_without_feedback(
    service: Service, company: Company, scored: tuple[str, float]
) -> None:
    service.rows(
        "CREATE ROLE only_reads LOGIN; GRANT USAGE ON SCHEMA reporting, marts, training, scoring TO only_reads; "
        "GRANT SELECT ON ALL TABLES IN SCHEMA reporting, marts, training, scoring TO only_reads"
    )
    try:
        url = re.sub(r"//[^@]*@", "//only_reads@", service.warehouse.url())
        with serving(Warehouse(company.home, url), lambda: company.end) as humble:
            assert humble.ask(path_of(scored[0])).status == 200
            assert humble.ask("/").status == 200
            answer = humble.ask("/feedback", method="POST", body={"alert_id": scored[0], "verdict": "useful"})
            assert answer.status == 503
            assert "role may not" in answer.json["error"]
    finally:
        service.rows("DROP OWNED BY only_reads; DROP ROLE only_reads")


@pytest.fixture
def pool(copied: Warehouse) -> Iterator[Pool]:
    pool = Pool(copied, size=1)
    yield pool
    pool.close()


def test_reading_connections_cannot_write(pool: Pool) -> None:
    with pytest.raises(errors.ReadOnlySqlTransaction):
        pool.read(lambda cursor: cursor.execute("DELETE FROM scoring.feedback"))
    [row] = pool.read(lambda cursor: cursor.execute("SHOW default_transaction_read_only") or cursor.fetchall())
    assert row["default_transaction_read_only"] == "on"


def validator(document: dict[str, Any], method: str, path: str, status: int) -> Draft202012Validator:
    content = document["paths"][path][method]["responses"][str(status)]["content"]
    return Draft202012Validator({**content["application/json"]["schema"], "components": document["components"]})


def test_answers_are_as_described(service: Service, scored: tuple[str, float]) -> None:
    document = service.ask("/openapi.json").json
    assert document == json.loads(json.dumps(description()))
    asked: list[tuple[str, str, str, Any]] = [
        ("get", "/alerts/{alert_id}/score", path_of(scored[0]), None),
        ("get", "/alerts/{alert_id}/score", path_of(HOSTILE_ID), None),
        ("get", "/alerts/{alert_id}/score", path_of("nobody's"), None),
        ("post", "/scores", "/scores", {"alert_ids": [scored[0], "nobody's"]}),
        ("post", "/scores", "/scores", {}),
        ("get", "/alerts", "/alerts?limit=100", None),
        ("get", "/alerts", "/alerts?since=never-given", None),
        ("post", "/feedback", "/feedback", {"alert_id": scored[0], "verdict": "useful"}),
        ("get", "/health", "/health", None),
        ("get", "/health/fresh", "/health/fresh", None),
    ]
    for method, path, address, body in asked:
        answer = service.ask(address, method=method.upper(), body=body)
        validator(document, method, path, answer.status).validate(answer.json)
    changed = {**service.ask(path_of(scored[0])).json, "surprise": 1}
    assert not validator(document, "get", "/alerts/{alert_id}/score", 200).is_valid(changed)


def test_what_the_description_forbids_is_refused_and_what_it_allows_is_not(service: Service) -> None:
    """One source for both: the schemas of requests say what the service does with them."""
    document = service.ask("/openapi.json").json
    texts: list[Any] = [
        None,
        7,
        "",
        " ",
        "\ufeff",
        "\x1e",
        "a",
        " a\n",
        "a\0",
        "x" * 200,
        "x" * 201,
        "x" * 1000,
        "x" * 1001,
    ]
    bodies: list[tuple[str, str, Any]] = [("/scores", "Wanted", {"alert_ids": [each]}) for each in texts]
    for field in ("alert_id", "verdict", "model_version", "given_by", "more"):
        full = {"alert_id": "nobody's", "verdict": "useful"}
        bodies += [("/feedback", "NewFeedback", {**full, field: each}) for each in texts]
    for field in ("alert_id", "who", "why"):
        full = {"alert_id": "nobody's", "who": "Ann", "why": "because"}
        bodies += [("/closings/undo", "NewUndo", {**full, field: each}) for each in texts]
        bodies.append(("/closings/undo", "NewUndo", {name: text for name, text in full.items() if name != field}))
    for path, name, body in bodies:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        allowed = Draft202012Validator(schema).is_valid(body)
        status = service.ask(path, method="POST", body=body).status
        assert (status != 422) == allowed, (path, body, status)
    # Webhooks are signed by those who send them, in forms of their own: test_webhooks.py.
    posts = {path for path, each in document["paths"].items() if "post" in each} - {"/webhooks/{name}"}
    assert {path for path, *_ in bodies} == posts


def test_every_operation_answers_head_where_it_answers_get(service: Service, scored: tuple[str, float]) -> None:
    for path in ("/", "/health", "/alerts", path_of(scored[0]), "/openapi.json", "/metrics"):
        answer = service.ask(path, method="HEAD")
        assert (answer.status, answer.body) == (200, b"")


def test_json_is_taken_whatever_its_content_type(service: Service, scored: tuple[str, float]) -> None:
    """`curl -d` says that it sends a form."""
    for kind in ("application/x-www-form-urlencoded", "text/plain", ""):
        body = json.dumps({"alert_ids": [scored[0]]})
        assert service.ask("/scores", method="POST", body=body, headers={"Content-Type": kind}).status == 200
