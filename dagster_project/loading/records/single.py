"""One record at a time: the rows that a mapping makes of it, as a file with this record would give them.

Belongs here: a record to a row of `raw.alerts` and to rows of `raw.actions`, for webhooks, which have no file.
Does not belong here: files (`reader.py`), what a mapping says (`spec.py`), writing rows.
"""

from __future__ import annotations

import json
from typing import Any

from dagster_project.loading.records.actions import DecisionMaker
from dagster_project.loading.records.fields import Record, leaves
from dagster_project.loading.records.spec import RecordMapping
from dagster_project.loading.records.times import TimeColumn
from dagster_project.loading.values import BLANKS


class SingleRecords:
    """Applies a mapping whose times need no file to settle how they are written, such as those of an API."""

    def __init__(self, mapping: RecordMapping) -> None:
        self.mapping = mapping
        self._times = {name: TimeColumn(name, rule) for name, rule in mapping.rules.items()}
        self._decisions = [TimeColumn("", decision.rule) for decision in mapping.decisions]

    def alert_id(self, record: Record) -> str | None:
        """The id of the alert that a record is; None where it has none."""
        return self.mapping.fields["alert_id"].text(record, self.mapping.empty)

    def alert(self, record: Record) -> dict[str, Any]:
        """The row of `raw.alerts`: columns without a value are left out, attributes are JSON."""
        row: dict[str, Any] = {}
        for name, one in self.mapping.fields.items():
            text = one.text(record, self.mapping.empty)
            if text is not None:
                row[name] = self._times[name].iso(text, 0) if name in self._times else text
        kept = {
            path.strip(BLANKS): value
            for path, value in leaves(record)
            if value not in (None, "") and str(value) not in self.mapping.empty and self.mapping.keeps("alerts", path)
        }
        return {**row, "attributes": _dump(kept)} if kept else row

    def actions(self, record: Record) -> list[dict[str, Any]]:
        """The rows of `raw.actions` for the decisions in a record."""
        maker = DecisionMaker(self.mapping, self._decisions)
        rows = []
        for action in maker.actions(0, record, self.alert_id(record), is_alert=True):
            row = {
                name: getattr(action, name) for name in ("action_id", "alert_id", "acted_at", "action_type", "actor")
            }
            row["attributes"] = _dump(action.further) if action.further else None
            rows.append({name: value for name, value in row.items() if value is not None})
        return rows


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(dict(sorted(content.items())), ensure_ascii=False, separators=(",", ":"))
