"""A file with a row for each event of an alert: the raise, and what was done afterwards.

Belongs here: recognizing such a file, and which of its rows are alerts and which are actions.
Does not belong here: files with a row for each alert (`guess.py`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime

from dagster_project.loading.inspection.guess import Guess, guess
from dagster_project.loading.inspection.names import ACTOR, FEW, MACHINES, NAMES, score
from dagster_project.loading.inspection.profile import Column, Profile, narrowed
from dagster_project.loading.records.fields import look_up, text_of
from dagster_project.loading.records.times import TimeColumn, TimeRule

_EVENTS = (
    "event",
    "event_type",
    "event_name",
    "action",
    "activity",
    "operation",
    "transition",
    "type",
    "state",
    "status",
)
_FIRST_WORDS = 3  # so many texts may say that an alert was raised
_MOST_IDS = 0.7  # of the rows: alerts have several events on average, or their ids differ for another reason


def event_log(seen: Profile) -> list[tuple[Profile, Guess]]:
    """The alerts of such a file and their actions, each with what its columns are; empty where it is none.

    It is one where ids repeat, and the first event of nearly every id is one of few texts that hardly occur later.
    """
    full = [c for c in seen.columns.values() if c.filled >= 0.95 * seen.rows]
    times = [c for c in full if c.is_time()]
    ids = [c for c in full if not c.is_time() and not c.is_unique() and score(c.name, NAMES["alert_id"]) > 0]
    events = [c for c in full if not c.is_time() and 2 <= len(c.values) <= FEW and score(c.name, _EVENTS) > 0]
    time = max(times, key=lambda c: score(c.name, NAMES["raised_at"]), default=None)
    if time is None or any(c.is_unique() and score(c.name, ("alert_id", "incident_id")) > 0 for c in full):
        return []
    for owner in sorted(ids, key=lambda c: (-score(c.name, NAMES["alert_id"]), -len(c.values))):
        if not 2 <= len(owner.values) <= _MOST_IDS * owner.filled:
            continue
        for event in sorted(events, key=lambda c: -score(c.name, _EVENTS)):
            first = _first_words(seen, owner, event, time) if event is not owner else []
            if first:
                return _two_parts(seen, owner, event, first)
    return []


def _first_words(seen: Profile, owner: Column, event: Column, time: Column) -> list[str]:
    """The texts with which alerts begin; empty where no few texts do so."""
    column = TimeColumn("", TimeRule())
    rows: dict[str, list[tuple[datetime, str]]] = defaultdict(list)
    for record in seen.records:
        one, what, when = (text_of(look_up(record, c.name)) for c in (owner, event, time))
        if one is None or what is None or when is None:
            continue
        try:
            moment = datetime.fromisoformat(column.iso(when, 0))
        except ValueError:
            continue
        rows[one].append((moment if moment.tzinfo else moment.replace(tzinfo=UTC), what))
    firsts = Counter(min(each, key=lambda pair: pair[0])[1] for each in rows.values())
    words = [word for word, _ in firsts.most_common(_FIRST_WORDS) if firsts[word] >= 0.05 * len(rows)]
    events = [what for each in rows.values() for _, what in each]
    begun = sum(firsts[word] for word in words)
    later = sum(what in words for what in events) - begun
    alone = len(words) == len(event.values)
    return words if not alone and begun >= 0.95 * len(rows) and later <= 0.1 * len(events) else []


def _two_parts(seen: Profile, owner: Column, event: Column, first: list[str]) -> list[tuple[Profile, Guess]]:
    def begins(record: object) -> bool:
        return isinstance(record, dict) and text_of(look_up(record, event.name)) in first

    alerts = narrowed(seen, begins)
    actions = narrowed(seen, lambda record: not begins(record))
    of_alerts, of_actions = guess(alerts), guess(actions, set(owner.values))
    of_alerts.roles["alert_id"], of_alerts.why["alert_id"] = [owner.name], "the events of one alert share it"
    of_alerts.decisions, of_alerts.where = [], {event.name: first}
    of_alerts.later = {name: why for name, why in of_alerts.later.items() if name != event.name}
    of_actions.roles["action_type"], of_actions.why["action_type"] = [event.name], "what happened to the alert"
    of_actions.where = {event.name: [f"!{word}" for word in first]}
    actor = next((c for c in actions.columns.values() if [c.name] == of_actions.roles.get("actor")), None)
    if actor is not None and score(actor.name, ACTOR) > 0:
        machines = sorted(text for text in actor.values if MACHINES.search(text))[:20]
        if machines:
            of_actions.where[actor.name] = [f"!{text}" for text in machines]
    return [(alerts, of_alerts), (actions, of_actions)]
