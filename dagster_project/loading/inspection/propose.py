"""Files to a proposed mapping, tried on them.

Belongs here: the order of an inspection.
Does not belong here: its parts (`profile.py`, `guess.py`, `write.py`, `trial.py`).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from dagster_project.errors import HeedError
from dagster_project.loading.contract import REQUIRED, Kind
from dagster_project.loading.inspection.event_log import event_log
from dagster_project.loading.inspection.guess import Guess, guess
from dagster_project.loading.inspection.profile import Profile, profile
from dagster_project.loading.inspection.trial import about_decisions, try_mapping
from dagster_project.loading.inspection.write import mapping_text
from dagster_project.loading.mapping import Mapping, read_mapping
from dagster_project.loading.records.fields import Field


@dataclass
class Proposal:
    """A mapping as text, what it does to its files in lines, and what only a person can say.

    is_blocked : nothing can be loaded until a person has said it.
    """

    text: str
    lines: list[str]
    questions: list[str]
    parts: list[tuple[Profile, Guess]]
    is_blocked: bool


def propose(paths: list[Path], zone: str, time_format: str = "") -> Proposal:
    """A mapping for files: one of alerts, or one of alerts and one of actions.

    time_format : the order of day and month, where a person has said it.

    Raises
    ------
    HeedError
        A file cannot be read, or there are more than two.
    """
    if len(paths) > 2:
        raise HeedError(f"{len(paths)} files are too many", "inspect one file of alerts, and one of actions at most")
    seen = [profile(path) for path in paths]
    parts = (event_log(seen[0]) if len(seen) == 1 else []) or [(one, guess(one)) for one in seen]
    if len(seen) == 2:
        parts = _as_pair(parts)
    for _, one in parts:
        if time_format:
            one.formats = {column: form or time_format for column, form in one.formats.items()}
            one.asks = [question for question in one.asks if "no value decides" not in question]
    text = mapping_text(parts, zone)
    questions = [question for _, one in parts for question in one.asks]
    for looked_at, what in parts:
        kind: Kind = "actions" if what.is_actions else "alerts"
        lacking = [name for name in REQUIRED[kind] if name not in what.roles]
        questions += [f"{looked_at.path.name}: no column looks like {name}, which {kind} need" for name in lacking]
    lines = []
    blocked = any("no column looks like" in question or "no value decides" in question for question in questions)
    if not blocked:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "mapping.toml"
            file.write_text(text, encoding="utf-8")
            mapping = read_mapping(file, "the proposed mapping")
        kinds: list[tuple[Kind, Path]] = [("actions" if what.is_actions else "alerts", one.path) for one, what in parts]
        lines = try_files(kinds, mapping, zone)
    return Proposal(text, lines, questions, parts, blocked)


def _as_pair(parts: list[tuple[Profile, Guess]]) -> list[tuple[Profile, Guess]]:
    """Alerts first, then the actions that belong to them, where one file's values are ids of the other's rows."""
    pairs: list[tuple[int, int, list[tuple[Profile, Guess]]]] = []
    for (alerts, of_alerts), (actions, _) in (parts, parts[::-1]):
        columns = of_alerts.roles.get("alert_id")
        if not columns:
            continue
        one = Field(tuple(columns), "id" if len(columns) > 1 else "first")
        ids = {text for record in alerts.records if (text := one.text(record)) is not None}
        as_actions = guess(actions, ids)
        if as_actions.is_actions:
            lacking = sum(name not in of_alerts.roles for name in REQUIRED["alerts"])
            lacking += sum(name not in as_actions.roles for name in REQUIRED["actions"])
            pairs.append((lacking, len(pairs), [(alerts, of_alerts), (actions, as_actions)]))
    if not pairs:
        return parts
    pair = min(pairs)[2]
    pair[0][1].decisions = []  # they are in the other file
    return pair


def try_files(files: list[tuple[Kind, Path]], mapping: Mapping, zone: str) -> list[str]:
    """What a load of these files by a mapping would do, in lines."""
    alerts = [try_mapping(kind, path, mapping, zone) for kind, path in files if kind == "alerts"]
    actions = [try_mapping(kind, path, mapping, zone) for kind, path in files if kind == "actions"]
    if mapping.has_decisions():
        actions += [
            try_mapping("actions", path, mapping, zone, decisions_only=True) for kind, path in files if kind == "alerts"
        ]
    lines = [line for trial in (*alerts, *actions) for line in trial.lines()]
    return lines + about_decisions(alerts, actions)
