"""A signed webhook, as the Standard Webhooks specification (version 1) describes it.

Belongs here: the signature and the three headers.
Does not belong here: the message (`message.py`).

The standard library: the signature is one HMAC, and a test holds it to the specification's published vector. The
`standardwebhooks` package would add four dependencies for these ten lines.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time

from dagster_project.delivery.http import DELIVERED, Client, Outcome
from dagster_project.delivery.message import Waiting
from dagster_project.errors import HeedError
from dagster_project.settings import Destination


def key_of(secret: str, variable: str) -> bytes:
    """The key in a secret like `whsec_` and base64.

    Raises
    ------
    HeedError
        It is not written like that, or is shorter than the specification's 24 bytes.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error:
        key = b""
    if not 24 <= len(key) <= 64:
        raise HeedError(
            f"{variable} is not the secret of a webhook: whsec_ and 24 to 64 bytes in base64",
            'generate one with `echo "whsec_$(openssl rand -base64 32)"`, and give it to the receiver too',
        )
    return key


def signature(key: bytes, message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def send(row: Waiting, destination: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Send a message. The receiver recognises one that it has by `webhook-id`."""
    body, now = row.message.encode(), int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": row.message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": signature(key_of(secret, destination.secret_from), row.message_id, now, body),
    }
    client.ask("POST", address, headers=headers, body=body)
    return DELIVERED
