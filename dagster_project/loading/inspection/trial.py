"""A mapping tried on its file, without a warehouse: what would be loaded, what rejected, what people should know.

Belongs here: counting what a load and the first run would do.
Does not belong here: loading.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from dagster_project.loading.contract import REQUIRED, Kind, shown
from dagster_project.loading.mapping import Mapping
from dagster_project.loading.readers import SourceFile, open_reader
from dagster_project.loading.records.times import TimeColumn, TimeRule
from dagster_project.loading.staged import before_their_alert


@dataclass
class Trial:
    """What a load of a file would do.

    Attributes
    ----------
    rows : that would be loaded; rejected : reason -> rows that the run would reject; undecodable : rows that no reader
    can decode. ids : alert id -> moment. acted : (alert id, moment) of actions. words : type -> actions. notes : lines.
    """

    kind: str
    file: str
    rows: int = 0
    undecodable: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    ids: dict[str, datetime | None] = field(default_factory=dict)
    reused: int = 0
    acted: list[tuple[str, datetime | None]] = field(default_factory=list)
    words: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """In words."""
        lines = [f"{self.file}: {self.rows:,} {self.kind} would be loaded"]
        if self.undecodable:
            lines.append(f"  {self.undecodable:,} rows cannot be decoded")
        lines += [f"  {count:,} would be rejected: {reason}" for reason, count in self.rejected.items()]
        if self.reused:
            lines.append(f"  WARNING: {self.reused:,} rows have the id of another alert with another time")
        return lines + [f"  {note}" for note in self.notes]


def try_mapping(kind: Kind, path: Path, mapping: Mapping, zone: str, *, decisions_only: bool = False) -> Trial:
    """Read a file as a load would.

    Raises
    ------
    HeedError
        What a load would refuse.
    """
    trial = Trial("decisions" if decisions_only else kind, path.name)
    source = SourceFile(path, mapping.layouts.get("alerts" if decisions_only else kind))
    column = TimeColumn("", TimeRule())
    local = ZoneInfo(zone)
    try:
        reader = open_reader(kind, source, mapping, decisions_only=decisions_only)
        for chunk in reader.chunks():
            trial.undecodable += len(chunk.rejected)
            cells = {name: texts.to_pylist() for name, texts in chunk.contract.items()}
            for at in range(chunk.rows):
                _count(trial, kind, {name: texts[at] for name, texts in cells.items()}, column, local)
        trial.notes += [f"{'note' if n.is_note else 'WARNING'}: {n.line()}" for n in reader.notes()]
    finally:
        source.close()
    return trial


def _count(trial: Trial, kind: Kind, row: dict[str, Any], column: TimeColumn, local: ZoneInfo) -> None:
    trial.rows += 1
    missing = [name for name in REQUIRED[kind] if not row.get(name)]
    name = "raised_at" if kind == "alerts" else "acted_at"
    moment = _moment(column.iso(row.get(name) or "", 0), local)
    if missing:
        trial.rejected[f"no {', '.join(missing)}"] += 1
    elif moment is None:
        example = trial.examples.setdefault(name, shown(row[name]))
        trial.rejected[f"{name} cannot be read, such as {example}"] += 1
    if kind == "alerts" and row.get("alert_id"):
        before = trial.ids.setdefault(row["alert_id"], moment)
        trial.reused += before != moment
    elif kind == "actions":
        trial.acted.append((row.get("alert_id") or "", moment))
        trial.words[row.get("action_type") or ""] += 1


def _moment(text: str, local: ZoneInfo) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=local)).astimezone(UTC)


def about_decisions(alerts: list[Trial], actions: list[Trial]) -> list[str]:
    """What the actions of files say about the alerts: matches, order, words. In words, each with its count."""
    from dagster_project.resources.inputs.action_types import SeenType, nothing_acted_in_words, project_types, type_key

    ids = {alert: moment for trial in alerts for alert, moment in trial.ids.items()}
    acted = [pair for trial in actions for pair in trial.acted]
    if not acted:
        return []
    counts = Counter[str]()
    for trial in actions:
        counts.update(trial.words)
    known = project_types()
    types = [SeenType(word, known.get(type_key(word)), None, count, None) for word, count in counts.most_common()]
    meanings: Counter[str] = Counter()
    for each in types:
        meanings[each.meaning or "unknown"] += each.actions
    unknown = [each for each in types if each.meaning is None]
    lines = ["decisions: " + ", ".join(f"{count:,} {meaning}" for meaning, count in meanings.most_common())]
    if unknown:
        some = ", ".join(f"{each.actions:,} {shown(each.action_type, 30)}" for each in unknown[:8])
        lines.append(f"  WARNING: words with unknown meaning, neutral until [words] in the mapping says more: {some}")
    if words := nothing_acted_in_words(types):
        lines.append(f"  WARNING: {words}, in [words]")
    unmatched = sum(alert not in ids for alert, _ in acted)
    if unmatched:
        lines.append(f"  WARNING: {unmatched:,} of {len(acted):,} decisions belong to no alert in these files")
    lags = [
        (moment - raised).total_seconds()
        for alert, moment in acted
        if moment is not None and (raised := ids.get(alert)) is not None
    ]
    early = sorted(lag for lag in lags if lag < 0)
    if early:
        lines.append("  WARNING: " + "; ".join(before_their_alert(len(early), len(lags), early[0])))
    return lines
