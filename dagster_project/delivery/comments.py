"""A comment in a system that has no idempotency key: looked for before it is written a second time.

Belongs here: that rule.
Does not belong here: one system's addresses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from dagster_project.delivery.http import DELIVERED, Client, Outcome
from dagster_project.delivery.message import Waiting


def comment(row: Waiting, address: str, listed: str, body: Any, headers: Mapping[str, str], client: Client) -> Outcome:
    """Write a comment, unless an earlier attempt did.

    address : where comments are written. listed : where the newest ones are read. body : what is sent.
    """
    if row.attempts:
        earlier = client.ask("GET", listed, headers=headers)
        if row.reference in json.dumps(earlier, ensure_ascii=False):
            return DELIVERED
    client.ask("POST", address, headers=headers, json=body)
    return DELIVERED
