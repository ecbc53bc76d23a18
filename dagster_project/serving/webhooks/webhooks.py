"""The webhooks of a service: from a request to committed rows.

Belongs here: the order (known, signed, understood, written), and the secrets.
Does not belong here: each of these steps (its own module), HTTP (`app.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dagster_project.delivery.webhook import key_of
from dagster_project.errors import HeedError
from dagster_project.serving.api.models import shown
from dagster_project.serving.problem import Problem
from dagster_project.serving.webhooks.intake import Intake
from dagster_project.serving.webhooks.rows import Rows
from dagster_project.serving.webhooks.signatures import require_signature
from dagster_project.serving.webhooks.vendors import rows_of
from dagster_project.settings import Settings, Webhook

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

# As for the token of writers: nobody guesses that over a network.
LEAST_SECRET = 16


@dataclass(frozen=True)
class Receipt:
    """A webhook that was understood, on its way into `raw`."""

    rows: Rows
    done: Future[None]

    async def written(self) -> dict[str, int]:
        """Counts of what it said, once that is committed. Raises Problem (503) if it is not."""
        await asyncio.wrap_future(self.done)
        return {"alerts": len(self.rows.alerts), "actions": len(self.rows.actions), "ignored": self.rows.ignored}


@dataclass(frozen=True)
class Webhooks:
    """webhooks : by name. secrets : by name. intake : writes; None: there are no webhooks."""

    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    intake: Intake | None = None

    @classmethod
    def of(cls, settings: Settings, connect: Callable[[], Connection]) -> Webhooks:
        """From the settings and the environment.

        Raises
        ------
        HeedError
            A secret is not set, or too short to keep anybody out.
        """
        secrets = {}
        for name, webhook in settings.webhooks.items():
            secret = os.environ.get(webhook.secret_from, "").strip()
            if len(secret) < LEAST_SECRET:
                raise HeedError(
                    f"{webhook.secret_from}, the secret of the webhook {name}, is not set or has less than "
                    f"{LEAST_SECRET} characters",
                    "generate one with `openssl rand -hex 32`, and give it to both sides",
                )
            if webhook.kind == "json":
                key_of(secret, webhook.secret_from)
            secrets[name] = secret
        if settings.webhooks and settings.source.database_schema != "raw":
            raise HeedError(
                "webhooks are written to heed's own tables, and database_schema under [source] names others",
                'set it to "raw", or remove [webhooks]',
            )
        return cls(settings.webhooks, secrets, Intake(connect, settings.source.time_zone) if secrets else None)

    def check(self, name: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Check a request, and begin to write what it says.

        headers : with lower-case names.

        Raises
        ------
        Problem
            404: no such webhook. 401: not signed. 422: it cannot be read. 503: too many wait.
        """
        webhook = self.webhooks.get(name)
        if webhook is None or self.intake is None:
            raise Problem(404, f"there is no webhook {shown(name)}", "add it under [webhooks] in heed.toml")
        require_signature(webhook, self.secrets[name], headers, body)
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Problem(422, "the webhook is not JSON", "send it as its system documents it") from error
        rows = rows_of(webhook.kind, payload, headers)
        _require_text([*rows.alerts, *rows.actions])
        return Receipt(rows, self.intake.write(rows))


def _require_text(rows: list[dict[str, Any]]) -> None:
    """Raise `Problem` (422) if a text cannot be stored."""
    try:
        is_text = "\\u0000" not in json.dumps(rows) and json.dumps(rows, ensure_ascii=False).encode() is not None
    except UnicodeEncodeError:
        is_text = False
    if not is_text:
        raise Problem(422, "the webhook has text with NUL, or that is not Unicode", "send it as JSON in UTF-8")
