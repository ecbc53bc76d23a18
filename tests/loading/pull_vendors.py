"""Systems from which heed pulls, as small servers that answer in their published shapes.

Each has incidents that are raised, decided and changed; pages are short, and any request may be refused, delayed or
held, as real systems do.
"""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PAGE = 5
SECRET = "a-token-for-tests"
Reply = tuple[int, dict[str, str], Any]


@dataclass
class Incident:
    number: int
    raised: datetime
    updated: datetime
    decided: datetime | None = None


def iso(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Vendor:
    """One system. before : called with the number of each request for a page; a reply of it is sent instead."""

    kind: str
    incidents: list[Incident] = field(default_factory=list)
    before: Callable[[int], Reply | None] = lambda number: None
    is_own_server: bool = False
    pages: int = 0
    port: int = 0
    start: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0) - timedelta(hours=60))

    @property
    def url(self) -> str:
        return f"http{'s' * (self.kind == 'pagerduty')}://127.0.0.1:{self.port}"  # its client insists

    def source(self) -> dict[str, Any]:
        own = {
            "jira": {"query": "project = OPS", "user": "" if self.is_own_server else "heed@example.com"},
            "servicenow": {"user": "heed"},
            "github": {"repositories": ["acme/shop"]},
            "sentry": {"organization": "acme"},
        }
        day = (self.start - timedelta(days=1)).date().isoformat()
        return {"kind": self.kind, "url": self.url, "secret_from": "HEED_TEST_PULL", "since": day} | own.get(
            self.kind, {}
        )

    def raise_some(self, number: int) -> None:
        """More incidents, spread over the hours until now, every third of them decided."""
        for _ in range(number):
            n = len(self.incidents)
            raised = self.start + timedelta(minutes=61 * n)
            decided = raised + timedelta(minutes=30) if n % 3 == 0 else None
            self.incidents.append(Incident(n, raised, decided or raised, decided))

    def decide(self, number: int) -> None:
        """Somebody decides an incident now."""
        now = datetime.now(UTC).replace(microsecond=0)
        self.incidents[number].decided = self.incidents[number].updated = now

    def alert_ids(self) -> list[str]:
        form = {
            "jira": "OPS-{}",
            "servicenow": "INC{}",
            "github": "acme/shop|dependabot|{}",
            "pagerduty": "P{}",
            "sentry": "{}",
        }[self.kind]
        return sorted(form.format(incident.number) for incident in self.incidents)

    def decided(self) -> int:
        return sum(incident.decided is not None for incident in self.incidents)

    # Answers.

    def answer(self, path: str, query: dict[str, str], headers: Any) -> Reply:
        right = {"pagerduty": f"Token token={SECRET}"}.get(self.kind, "")
        sent = headers.get("Authorization", "")
        if (
            sent != right
            if right
            else not sent.startswith("Basic " if self.kind in _BASIC and not self.is_own_server else f"Bearer {SECRET}")
        ):
            return 401, {}, {"message": "Unauthorized"}
        return getattr(self, f"_{self.kind}")(path, query)

    def _page(self) -> Reply | None:
        self.pages += 1
        return self.before(self.pages)

    def _pagerduty(self, path: str, query: dict[str, str]) -> Reply:
        assert path == "/incidents"
        since, until = (datetime.fromisoformat(query[name]) for name in ("since", "until"))
        assert until - since <= timedelta(days=180)
        matching = [i for i in self.incidents if since <= i.raised < until]
        offset, limit = int(query.get("offset", 0)), min(int(query.get("limit", 25)), PAGE)
        if query.get("total") != "true" and (reply := self._page()):
            return reply
        rows = []
        for one in matching[offset : offset + limit]:
            row: dict[str, Any] = {
                "id": f"P{one.number}",
                "type": "incident",
                "title": f"checkout-{one.number} is down",
                "created_at": iso(one.raised),
                "updated_at": iso(one.updated),
                "status": "resolved" if one.decided else "triggered",
                "urgency": "high",
                "service": {"id": "PSVC", "type": "service_reference", "summary": "checkout"},
                "acknowledgements": [],
                "last_status_change_at": iso(one.updated),
                "last_status_change_by": {"id": "PU", "type": "user_reference", "summary": "Ada"},
            }
            rows.append(row)
        total = {"total": len(matching) if query.get("total") == "true" else None}
        more = offset + limit < len(matching)
        return 200, {}, {"incidents": rows, "limit": limit, "offset": offset, "more": more, **total}

    def _jira(self, path: str, query: dict[str, str]) -> Reply:
        assert path == ("/rest/api/2/search" if self.is_own_server else "/rest/api/3/search/jql")
        jql = query["jql"]
        minutes = int(jql.split('updated >= "-')[1].split("m")[0])
        assert jql.startswith("(project = OPS) AND ")
        assert jql.endswith("ORDER BY updated ASC, key ASC")
        floor = (datetime.now(UTC) - timedelta(minutes=minutes)).replace(second=0, microsecond=0)
        if reply := self._page():
            return reply
        token = query.get("nextPageToken", "")
        at = (datetime.fromisoformat(token.split(" ")[0]), int(token.split(" ")[1])) if token else None
        matching = sorted((i.updated, i.number) for i in self.incidents if i.updated >= floor)
        left = [key for key in matching if at is None or key > at]
        if self.is_own_server:
            start = int(query.get("startAt", "0"))
            page = [self._issue(self.incidents[number]) for _, number in matching[start : start + PAGE]]
            return 200, {}, {"issues": page, "startAt": start, "maxResults": PAGE, "total": len(matching)}
        issues = [self._issue(self.incidents[number]) for _, number in left[:PAGE]]
        is_last = len(left) <= PAGE
        following = {} if is_last else {"nextPageToken": f"{left[PAGE - 1][0].isoformat()} {left[PAGE - 1][1]}"}
        return 200, {}, {"issues": issues, "isLast": is_last, **following}

    @staticmethod
    def _issue(one: Incident) -> dict[str, Any]:
        jira = lambda time: time.strftime("%Y-%m-%dT%H:%M:%S.000+0000")  # noqa: E731
        return {
            "id": str(10_000 + one.number),
            "key": f"OPS-{one.number}",
            "fields": {
                "summary": f"checkout-{one.number} is down",
                "created": jira(one.raised),
                "updated": jira(one.updated),
                "priority": {"name": "High"},
                "project": {"key": "OPS"},
                "resolution": {"name": "Done"} if one.decided else None,
                "resolutiondate": jira(one.decided) if one.decided else None,
                "assignee": {"displayName": "Ada"},
            },
        }

    def _servicenow(self, path: str, query: dict[str, str]) -> Reply:
        assert path == "/api/now/table/incident"
        terms = query["sysparm_query"].split("^")
        assert terms[1:] == ["ORDERBYsys_updated_on", "ORDERBYsys_id"]
        floor = datetime.fromisoformat(terms[0].removeprefix("sys_updated_on>=")).replace(tzinfo=UTC)
        if reply := self._page():
            return reply
        matching = sorted((i.updated, f"{i.number:032x}", i) for i in self.incidents if i.updated >= floor)
        offset = int(query["sysparm_offset"])
        return 200, {}, {"result": [self._row(i) for _, _, i in matching[offset : offset + PAGE]]}

    @staticmethod
    def _row(one: Incident) -> dict[str, Any]:
        def both(value: str, display: str | None = None) -> dict[str, str]:
            return {"value": value, "display_value": value if display is None else display}

        def time(moment: datetime | None) -> dict[str, str]:  # displays are in the user's zone and format
            return (
                both(f"{moment:%Y-%m-%d %H:%M:%S}", f"{moment + timedelta(hours=2):%d.%m.%Y %H:%M:%S}")
                if moment
                else both("")
            )

        return {
            "sys_id": both(f"{one.number:032x}"),
            "number": both(f"INC{one.number}"),
            "short_description": both(f"checkout-{one.number} is down"),
            "opened_at": time(one.raised),
            "sys_updated_on": time(one.updated),
            "resolved_at": time(one.decided),
            "closed_at": time(None),
            "close_code": both("Solved (Permanently)" if one.decided else ""),
            "resolved_by": both("0a1b" if one.decided else "", "Ada" if one.decided else ""),
            "assignment_group": both("9f", "Payments"),
            "priority": both("2", "2 - High"),
            "state": both("6" if one.decided else "2", "Resolved" if one.decided else "In Progress"),
        }

    def _github(self, path: str, query: dict[str, str]) -> Reply:
        if path == "/repos/acme/shop/code-scanning/alerts":
            return 404, {}, {"message": "no analysis found", "status": "404"}
        assert path == "/repos/acme/shop/dependabot/alerts"
        assert (query["sort"], query["direction"]) == ("updated", "desc")
        if reply := self._page():
            return reply
        offset = int(query.get("after", "0"))  # places shift while others change: the worst that a server may do
        order = sorted(self.incidents, key=lambda i: (i.updated, i.number), reverse=True)
        headers = {}
        if offset + PAGE < len(order):
            again = "&".join(f"{name}={quote(value)}" for name, value in {**query, "after": str(offset + PAGE)}.items())
            headers["Link"] = f'<{self.url}{path}?{again}>; rel="next"'
        alerts = [
            {
                "number": one.number,
                "state": "dismissed" if one.decided else "open",
                "html_url": f"https://github.com/acme/shop/security/dependabot/{one.number}",
                "dependency": {"package": {"ecosystem": "pip", "name": "django"}},
                "security_advisory": {"ghsa_id": "GHSA-rf4j-j272-fj86", "severity": "high", "summary": "A bypass"},
                "created_at": iso(one.raised),
                "updated_at": iso(one.updated),
                "dismissed_at": iso(one.decided) if one.decided else None,
                "dismissed_by": {"login": "ada"} if one.decided else None,
                "dismissed_reason": "tolerable_risk" if one.decided else None,
                "fixed_at": None,
            }
            for one in order[offset : offset + PAGE]
        ]
        return 200, headers, alerts

    def _sentry(self, path: str, query: dict[str, str]) -> Reply:
        issues = "/api/0/organizations/acme/issues/"
        if path != issues:
            return 200, {}, self._whole_issue(int(path.removeprefix(issues).rstrip("/")))
        begin, end = (part.split("firstSeen:")[1] for part in query["query"].split(" "))
        floor, top = datetime.fromisoformat(begin.removeprefix(">=")), datetime.fromisoformat(end.removeprefix("<"))
        if reply := self._page():
            return reply
        matching = sorted((i for i in self.incidents if floor <= i.raised < top), key=lambda i: i.raised, reverse=True)
        offset = int(query.get("cursor", "0:0:0").split(":")[1])
        again = {name: value for name, value in query.items() if name != "cursor"}
        link = f"{self.url}{path}?" + "&".join(f"{name}={quote(value)}" for name, value in again.items())
        more = str(offset + PAGE < len(matching)).lower()
        next_page, previous = f"0:{offset + PAGE}:0", f"0:{max(offset - PAGE, 0)}:1"
        headers = {
            "Link": f'<{link}&cursor={previous}>; rel="previous"; results="false"; cursor="{previous}", '
            f'<{link}&cursor={next_page}>; rel="next"; results="{more}"; cursor="{next_page}"'
        }
        page = [self._whole_issue(one.number) for one in matching[offset : offset + PAGE]]
        return 200, headers, [{name: v for name, v in issue.items() if name != "activity"} for issue in page]

    def _whole_issue(self, number: int) -> dict[str, Any]:
        one = self.incidents[number]
        activity = [{"type": "first_seen", "dateCreated": iso(one.raised), "user": None}]
        if one.decided:
            activity.insert(0, {"type": "set_resolved", "dateCreated": iso(one.decided), "user": {"email": "ada@x"}})
        return {
            "id": str(number),
            "title": "KeyError: 7",
            "metadata": {"type": "KeyError"},
            "culprit": "checkout.pay",
            "level": "error",
            "project": {"id": "1", "slug": "web", "name": "Web"},
            "firstSeen": iso(one.raised),
            "lastSeen": iso(one.raised),
            "status": "resolved" if one.decided else "unresolved",
            "substatus": None if one.decided else "new",
            "activity": activity,
        }


_BASIC = {"jira", "servicenow"}


def certificate(folder: Path) -> Path:
    """A certificate for this machine, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "heed's tests")])
    day, address = timedelta(days=1), x509.IPAddress(IPv4Address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - day)
        .not_valid_after(datetime.now(UTC) + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = folder / "certificate.pem"
    file.write_bytes(private + signed.public_bytes(pem))
    return file


@contextmanager
def serving(vendor: Vendor) -> Iterator[Vendor]:
    """Answer for a system on a port of this machine. SSL_CERT_FILE names the certificate where one is needed."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            try:
                status, headers, content = vendor.answer(parts.path, query, self.headers)
            except Exception as error:  # what a real server would not understand either
                status, headers, content = 400, {}, {"message": repr(error)}
            body = json.dumps(content).encode()
            try:
                self.send_response(status)
                for name, value in {**headers, "Content-Type": "application/json"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # the client did not wait

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if vendor.url.startswith("https"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["SSL_CERT_FILE"])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    vendor.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield vendor
    finally:
        server.shutdown()
        server.server_close()
