"""Progress lines of long commands: text for people, or one JSON object per line for machines.

Belongs here: the format of a line, chosen by HEED_LOG_FORMAT.
Does not belong here: the messages, and results (`--json`).
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

VARIABLE = "HEED_LOG_FORMAT"


def in_json() -> bool:
    """Whether lines are JSON objects: HEED_LOG_FORMAT=json."""
    return os.environ.get(VARIABLE, "").strip().lower() == "json"


def json_line(message: str, level: str = "info", **more: Any) -> str:
    """One JSON object: time (ISO 8601, UTC), level, message and the other arguments."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "level": level, "message": message, **more}, default=str, ensure_ascii=False)


class JsonFormatter(logging.Formatter):
    """Formats records of Python's logging as such lines, with a traceback in the field `error`."""

    def format(self, record: logging.LogRecord) -> str:
        more = {"error": self.formatException(record.exc_info)} if record.exc_info else {}
        return json_line(record.getMessage(), record.levelname.lower(), logger=record.name, **more)


def server_logging() -> dict[str, Any] | None:
    """uvicorn's `log_config` for such lines; None: uvicorn's default."""
    if not in_json():
        return None
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "dagster_project.logs.JsonFormatter"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "loggers": {"uvicorn": {"handlers": ["stderr"], "propagate": False}},
    }
