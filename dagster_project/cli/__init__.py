"""The `heed` command. Each subcommand reads arguments, calls one function, and prints the result.

Belongs here: arguments, exit statuses, one-line errors, `--json`.
Does not belong here: anything that could be called without a terminal.
"""

from dagster_project.cli import closing, data, loading, scores, services
from dagster_project.cli.group import main

__all__ = ["closing", "data", "loading", "main", "scores", "services"]
