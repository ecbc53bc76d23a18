"""Slack, mail and the other services that apprise knows.

Belongs here: one message by apprise.
Does not belong here: notices of failed runs (`resources/notices.py`).

These services know no idempotency key. The text carries the reference, so people recognise a message that came twice.
"""

from __future__ import annotations

import logging

from dagster_project.delivery.http import DELIVERED, Client, Outcome
from dagster_project.delivery.message import Waiting
from dagster_project.settings import Destination


def send(row: Waiting, destination: Destination, address: str, secret: str, client: Client) -> Outcome:
    """Send a message."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL)  # its messages contain addresses
    service = apprise.Apprise.instantiate(address)
    if service is None:
        return Outcome("failed", f"{destination.url_from} is not an address that Apprise knows")
    data = row.data
    title = f"{data['probability']:.0%} {data['title'] or data['rule']}"
    body = f"{row.comment}\nalert {row.alert_id}, rule {data['rule']}, team {data['team'] or 'none'}"
    if service.notify(title=title, body=body):
        return DELIVERED
    return Outcome("again", "the service did not accept the message")
