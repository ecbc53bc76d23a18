"""Whether a webhook comes from where it says.

Belongs here: the signature of each system, and how old a signed time may be.
Does not belong here: what a webhook means (`vendors.py`), secrets (the environment).

Not all systems sign a time. A webhook of theirs that is sent a second time by somebody else makes the same rows as the
first one, which the loading contract recognises: it changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping

from dagster_project.delivery.webhook import key_of, signature
from dagster_project.serving.problem import Problem
from dagster_project.settings import Webhook

# As the Standard Webhooks specification recommends, and most systems use: clocks differ, and queues delay.
TOLERANCE_SECONDS = 300


def require_signature(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> None:
    """Raise `Problem` (401) unless a request was signed with the secret, and not too long ago where the time is signed.

    headers : with lower-case names.
    """
    if not _CHECKS[webhook.kind](webhook, secret, headers, body):
        raise Problem(401, "the signature is missing or wrong", f"sign with the secret in {webhook.secret_from}")


def _hex(secret: str, signed: bytes) -> str:
    return hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()


def _same(sent: str, right: str) -> bool:
    return hmac.compare_digest(sent.encode("utf-8", "replace"), right.encode())


def _is_recent(timestamp: str) -> bool:
    try:
        return abs(time.time() - float(timestamp)) <= TOLERANCE_SECONDS
    except ValueError:
        return False


def _alertmanager(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """It signs nothing: the secret is the bearer token, or the password, of its `http_config`."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value, validate=True).partition(b":")[2].decode("utf-8", "replace")
        except binascii.Error:
            return False
    return scheme.lower() in ("bearer", "basic") and _same(value.strip(), secret)


def _pagerduty(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """`x-pagerduty-signature` holds one signature for each secret in use."""
    sent = headers.get("x-pagerduty-signature", "").split(",")
    return any([_same(each.strip(), f"v1={_hex(secret, body)}") for each in sent])


def _grafana(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """The HMAC of a contact point; with a timestamp header, the time is signed too."""
    sent = headers.get("x-grafana-alerting-signature", "")
    if not webhook.timestamp_header:
        return _same(sent, _hex(secret, body))
    timestamp = headers.get(webhook.timestamp_header.lower(), "")
    return _same(sent, _hex(secret, f"{timestamp}:".encode() + body)) and _is_recent(timestamp)


def _sentry(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return _same(headers.get("sentry-hook-signature", ""), _hex(secret, body))


def _github(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    return _same(headers.get("x-hub-signature-256", ""), f"sha256={_hex(secret, body)}")


def _json(webhook: Webhook, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Standard Webhooks, as heed signs its own."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not timestamp.isdigit() or not _is_recent(timestamp):
        return False
    right = signature(key_of(secret, webhook.secret_from), message_id, int(timestamp), body)
    return any([_same(each, right) for each in headers.get("webhook-signature", "").split()])


_CHECKS = {
    "alertmanager": _alertmanager,
    "pagerduty": _pagerduty,
    "grafana": _grafana,
    "sentry": _sentry,
    "github": _github,
    "json": _json,
}
