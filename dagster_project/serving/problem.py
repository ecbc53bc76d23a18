"""Errors of a request.

Belongs here: `Problem`, an error with a cause, a remedy and an HTTP status.
Does not belong here: writing it as JSON or as a page (`app.py`).
"""

from __future__ import annotations

from dagster_project.errors import HeedError


class Problem(HeedError):
    """A `HeedError` with the HTTP status of its answer."""

    def __init__(self, status: int, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.args = (status, cause, remedy)
        self.status = status
