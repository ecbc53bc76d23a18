"""Generated requests, reasonable and not: none may be answered with a failure of the service, or change what it says.

`make benchmark-service` sends 100,000 from the OpenAPI description.
"""

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.serving.conftest import HOSTILE_ID, Service

SPOILT = [
    "'; DROP TABLE scoring.feedback; --",
    "<script>alert(1)</script>",
    "{{ 7*7 }}",
    "${jndi:ldap://x}",
    "../../etc",
]
TEXT = st.one_of(
    st.text(max_size=40), st.sampled_from([*SPOILT, "\0", "\r\nX-Injected: 1", "a" * 1001, HOSTILE_ID, ""])
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)),
    max_leaves=8,
)
BODY = st.one_of(
    st.binary(max_size=60),
    JSON.map(json.dumps),
    st.fixed_dictionaries({}, optional={"alert_ids": st.one_of(JSON, st.lists(TEXT, max_size=5))}).map(json.dumps),
    st.fixed_dictionaries(
        {},
        optional={
            "alert_id": st.one_of(TEXT, JSON),
            "verdict": st.one_of(st.sampled_from(["useful", "wrong"]), JSON),
            "given_by": JSON,
            "model_version": JSON,
        },
    ).map(json.dumps),
)
QUERY = st.dictionaries(
    st.sampled_from(["team", "rule", "age", "flag", "threshold", "page", "by", "since", "limit", "x"]),
    st.one_of(TEXT, st.sampled_from(["1", "7", "older", "flood", "none", "99999999999", "-1"])),
    max_size=5,
)
PATH = st.one_of(
    st.sampled_from(
        ["/", "/alerts", "/scores", "/feedback", "/health", "/openapi.json", "/static/board.css", "/static/../app.py"]
    ),
    TEXT.map(lambda text: f"/alerts/{quote(text.encode('utf-8', 'surrogatepass'), safe='')}/score"),
    TEXT.map(lambda text: f"/alerts/{quote(text.encode('utf-8', 'surrogatepass'), safe='')}/badge.svg"),
    TEXT.map(lambda text: "/" + quote(text.encode("utf-8", "surrogatepass"))),
)
KIND = st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data"])
REQUEST = st.tuples(st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS"]), PATH, QUERY, BODY, KIND)


@settings(max_examples=300)
@given(request=REQUEST)
def test_no_request_makes_the_service_fail(service: Service, request: Any) -> None:
    method, path, query, body, kind = request
    asked = "&".join(
        f"{name}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}" for name, value in query.items()
    )
    sent = body if isinstance(body, bytes) else body.encode()
    answer = service.ask(
        f"{path}?{asked}",
        method=method,
        body=sent if method in ("POST", "PUT") else None,
        headers={"Content-Type": kind},
    )
    assert answer.status < 500, (answer.status, answer.text[:300])
    assert "x-injected" not in answer.headers
    if answer.headers.get("content-type", "").startswith("text/html"):
        assert "<script>alert" not in answer.text
    if answer.status >= 400 and method != "HEAD" and not path.endswith("badge.svg"):
        assert set(json.loads(answer.text)) == {"error", "remedy"}
        assert "Traceback" not in answer.text
