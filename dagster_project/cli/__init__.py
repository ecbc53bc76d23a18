"""The `heed` command: thin. Each command reads arguments, calls one function, and says what happened.

Belongs here: arguments, exit status, the one-line form of errors, `--json`.
Does not belong here: anything that could be called without a terminal.
"""

from dagster_project.cli import closing, data, scores, services
from dagster_project.cli.group import main

__all__ = ["closing", "data", "main", "scores", "services"]
