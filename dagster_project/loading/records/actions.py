"""Decisions that stand in the records of alerts, as rows of actions.

Belongs here: which decisions a record holds, their ids, words and whether a machine made them.
Does not belong here: how a mapping writes a decision (`spec.py`), the meaning of action types (dbt's seeds).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from dagster_project.loading.records.conditions import any_holds
from dagster_project.loading.records.fields import Record, look_up, opened
from dagster_project.loading.records.spec import Decision, RecordMapping
from dagster_project.loading.records.times import TimeColumn
from dagster_project.loading.values import JOINT

# What heed calls a decision that no person made: neutral in the project's list, and a user's list may say otherwise.
BY_MACHINE = "closed-by-machine"
_LAST_OF = 200_000  # alerts that later records may belong to


@dataclass
class Counts:
    """What was seen among the decisions of a file.

    Attributes
    ----------
    by_machine : type -> decisions by a machine. without_time : type -> decisions without a time, which are no actions.
    without_alert : records that belong to no alert before them. example : of the last two, the first row.
    """

    by_machine: Counter[str] = field(default_factory=Counter)
    without_time: Counter[str] = field(default_factory=Counter)
    without_alert: int = 0
    examples: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Action:
    """One action: its facts as text, and further ones for its attributes."""

    action_id: str
    alert_id: str | None
    acted_at: str
    action_type: str
    actor: str | None
    further: dict[str, str]


class DecisionMaker:
    """Makes the actions of one file.

    times : one per decision, in their order.
    """

    def __init__(self, mapping: RecordMapping, times: list[TimeColumn]) -> None:
        self.mapping, self.times = mapping, times
        self.counts = Counts()
        self._last: dict[tuple[int, tuple[str | None, ...]], str | None] = {}

    def actions(self, row: int, record: Record, alert_id: str | None, is_alert: bool) -> list[Action]:
        """The actions in one record. alert_id : of the alert that the record is; is_alert : whether it is one."""
        actions = []
        untimed: list[str] = []
        for at, decision in enumerate(self.mapping.decisions):
            owner = alert_id
            if decision.link:
                key = (at, tuple(one.text(record) for one in decision.link))
                if is_alert:
                    if len(self._last) < _LAST_OF or key in self._last:
                        self._last[key] = alert_id
                    continue
                if not any_holds(decision.when, record):
                    continue
                owner = self._last.get(key)
                if owner is None:
                    self.counts.without_alert += 1
                    self.counts.examples.setdefault("without_alert", f"row {row:,}")
            elif not is_alert:
                continue
            for part in self._parts(decision, record):
                action = self._action(at, decision, row, part, owner)
                if isinstance(action, Action):
                    actions.append(action)
                elif action is not None:
                    untimed.append(action)
        if untimed and all(action.action_type == BY_MACHINE for action in actions):
            self.counts.without_time.update(untimed[:1])
            self.counts.examples.setdefault("without_time", f"row {row:,}")
        return actions

    @staticmethod
    def _parts(decision: Decision, record: Record) -> list[Record]:
        if not decision.each:
            return [record]
        items = opened(look_up(record, decision.each))
        # An item hides the record's own field of the same name.
        return [{**record, **item} for item in items if isinstance(item, dict)] if isinstance(items, list) else []

    def _action(
        self, at: int, decision: Decision, row: int, record: Record, alert_id: str | None
    ) -> Action | str | None:
        """The action; its type where the record says that there was one, and not when; None where there was none."""
        empty = self.mapping.empty
        if decision.when and not any_holds(decision.when, record):
            return None
        word = decision.type.text(record, empty)
        when = decision.time.text(record, empty)
        if when is None:
            says_so = any(one.says_something() and one.holds(record) for one in decision.when)
            by_person = not decision.always_machine and not any_holds(decision.by_machine, record)
            return word if says_so and by_person else None
        acted_at = self.times[at].iso(when, row)
        further = {}
        kind = word or "decided"
        if decision.always_machine or any_holds(decision.by_machine, record):
            self.counts.by_machine[kind] += 1
            further["type"], kind = kind, BY_MACHINE
        elif (meaning := self._meaning(kind)) is not None:
            further["type"], kind = kind, meaning
        ident = JOINT.join((alert_id or "", decision.name, acted_at))
        return Action(ident, alert_id, acted_at, kind, decision.actor.text(record, empty), further)

    def _meaning(self, word: str) -> str | None:
        """The mapping's meaning of a word, where the project's list has another one or none."""
        from dagster_project.resources.inputs.action_types import project_types, type_key

        key = type_key(word)
        meaning = self.mapping.words.get(key)
        return meaning if meaning is not None and project_types().get(key) != meaning else None
