"""What Schemathesis is told beside the OpenAPI description: half of the ids are those of alerts that exist, and every
answer of the service is written down.

Belongs here: hooks of the generated requests. Does not belong here: when and how many are made (`service.py`).
"""

from __future__ import annotations

import hashlib
import os
import zlib
from typing import Any

import schemathesis

from dagster_project.serving.api.scores import is_possible_id


def _known(alert_id: Any) -> Any:
    if not isinstance(alert_id, str) or not is_possible_id(alert_id):
        return alert_id  # what is wrong on purpose has to stay wrong
    number = zlib.crc32(repr(alert_id).encode())
    return f"bench-{number % 700_000:07d}" if number % 2 else alert_id


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    if path_parameters and "alert_id" in path_parameters:
        return {**path_parameters, "alert_id": _known(path_parameters["alert_id"])}
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("alert_ids"), list):
        return {**body, "alert_ids": [_known(each) for each in body["alert_ids"]]}
    if isinstance(body, dict) and "alert_id" in body:
        return {**body, "alert_id": _known(body["alert_id"])}
    return body


# One line an answer, written at once: a round that is broken off leaves what it got.
_ANSWERS = os.open(os.environ["HEED_ANSWERS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    sent = response.request
    body = sent.body if isinstance(sent.body, bytes) else str(sent.body or "").encode(errors="surrogatepass")
    what = b"\0".join([str(sent.method).encode(), str(sent.url).encode(errors="surrogatepass"), body])
    os.write(_ANSWERS, f"{response.status_code} {hashlib.blake2b(what, digest_size=10).hexdigest()}\n".encode())
