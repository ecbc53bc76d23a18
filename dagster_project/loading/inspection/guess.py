"""What each column of a file probably is, and why.

Belongs here: names and evidence that speak for a role, and the choice among columns.
Does not belong here: counting (`profile.py`), the mapping as text (`write.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from dagster_project.loading.inspection.meanings import closed_by_itself, is_yes_or_no, meanings_of
from dagster_project.loading.inspection.names import (
    ACTOR,
    CHANGED_AT,
    DECIDED_AT,
    DECISION,
    DURATION,
    FEW,
    MACHINES,
    NAMES,
    UNITS,
    decision_of,
    is_later,
    is_later_time,
    score,
    words_of,
)
from dagster_project.loading.inspection.profile import Column, Profile
from dagster_project.loading.records.times import DAY_FIRST, MONTH_FIRST

# An id holds a digit and no blank, and is no decimal number, time or address.
_CODE = re.compile(r"(?!\d+\.\d+$)(?!\d+\.\d+\.\d+\.\d+$)(?=\S*\d)\S{1,200}")
_NUMBER = re.compile(r"[-+]?[\d.,' ]+(?:[eE][-+]?\d+)?")


_SAYS_NOTHING = 0.2  # of `_says`: no word with a meaning


@dataclass
class Guess:
    """What a file probably holds.

    Attributes
    ----------
    roles : contract column -> column, or columns of an id. why : contract column -> reason. decisions : (time, type or
    "", fixed type, actor or ""). machines : time column -> column -> texts that are no people; no columns: always.
    clocks : time column of a decision that holds days -> column of its time of day. spans : time column of a decision
    that holds how long after the raise it was -> its unit. words : type -> (what it means here, why), where the type
    alone does not say it. later : column -> why it was probably filled after the raise. formats : time column ->
    time_format to write, empty where the file does not settle it. where : column -> the texts of the rows that count.
    asks : what only a person can say.
    """

    roles: dict[str, list[str]] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)
    decisions: list[tuple[str, str, str, str]] = field(default_factory=list)
    machines: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    clocks: dict[str, str] = field(default_factory=dict)
    spans: dict[str, str] = field(default_factory=dict)
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    where: dict[str, list[str]] = field(default_factory=dict)
    later: dict[str, str] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    asks: list[str] = field(default_factory=list)
    is_actions: bool = False
    has_days_only: bool = False


def guess(seen: Profile, alert_ids: set[str] | None = None) -> Guess:
    """What each column of a file is. alert_ids : ids of the alerts in another file, to which actions may belong."""
    out = Guess()
    columns = [column for column in seen.columns.values() if column.filled]
    # A version that looks like a date is no time: it never changes.
    times = [column for column in columns if column.is_time() and (len(column.values) > 1 or column.filled == 1)]
    out.is_actions = bool(alert_ids) and _belongs_to(columns, alert_ids or set()) is not None
    if out.is_actions:
        _guess_actions(seen, columns, times, alert_ids or set(), out)
    else:
        _guess_alerts(seen, columns, times, out)
    _time_formats(times, out)
    return out


def _belongs_to(columns: Iterable[Column], alert_ids: set[str]) -> Column | None:
    """The column whose values are ids of alerts."""
    best, share = None, 0.5
    for column in columns:
        known = sum(value in alert_ids for value in column.values) / len(column.values)
        named = 0.1 * (score(column.name, NAMES["alert_id"]) > 0)
        if known > 0.5 and known + named > share:
            best, share = column, known + named
    return best


def _pick(candidates: Iterable[tuple[float, Column]]) -> Column | None:
    """The column with the highest score; the first of equals."""
    best = max(candidates, key=lambda pair: pair[0], default=(0.0, None))
    return best[1] if best[0] > 0 else None


def _take(out: Guess, role: str, column: Column | None, why: str) -> None:
    if column is not None:
        out.roles[role], out.why[role] = [column.name], why


def _guess_alerts(seen: Profile, columns: list[Column], times: list[Column], out: Guess) -> None:
    full = [column for column in times if column.filled >= 0.95 * seen.rows]
    raised = _pick((score(c.name, NAMES["raised_at"]) * (not is_later_time(c.name)), c) for c in full)
    if raised is None:
        raised = next((c for c in full if not is_later_time(c.name)), None)
    _take(out, "raised_at", raised, "a time in every row, and named like the moment of the raise")
    used = {raised.name} if raised else set()
    clock: Column | None = None
    if raised is not None and raised.days == raised.filled:
        clock = next((c for c in columns if c.clocks >= 0.95 * seen.rows and not is_later(c.name)), None)
        out.roles["raised_at"] += [clock.name] if clock else []
        out.why["raised_at"] = "the day and the time of day" if clock else "a day in every row"
        out.has_days_only = clock is None
        used |= {clock.name} if clock else set()

    unique = [c for c in columns if c.is_unique() and c.filled >= 0.99 * seen.rows and c.name not in used]
    ident = _pick((score(c.name, NAMES["alert_id"]), c) for c in unique if not c.is_time() or "id" in c.name.lower())
    why = "different in every row, and named like an id"
    if ident is None:
        codes = (c for c in unique if not c.is_time() and not is_later(c.name) and all(map(_CODE.match, c.values)))
        ident = next((c for c in codes if not score(c.name, (*NAMES["value"], *NAMES["threshold"]))), None)
        why = "different in every row, and written like an id"
    if ident is None or (
        "." in ident.name and why.endswith("named like an id")
    ):  # an id inside an object is one of the object
        moment = [raised, *([clock] if clock else [])] if raised is not None and ident is None else []
        _compose_id(seen, columns, moment, out)
    if ident is not None and "alert_id" not in out.roles:
        _take(out, "alert_id", ident, why)
    used |= set(out.roles.get("alert_id", ()) if ident is not None else ())

    decided = [c for c in times if c is not raised and score(c.name, DECIDED_AT) > 0]
    changed = [c for c in times if c is not raised and score(c.name, CHANGED_AT) > 0]
    words = [
        c
        for c in columns
        if not c.is_time() and len(c.values) <= FEW and c.name not in used and score(c.name, DECISION) > 0
    ]
    _decide(seen, columns, decided, changed, words, out)
    if raised is not None and all(decision_of(time) == "acknowledged" for time, *_ in out.decisions):
        _by_duration(columns, words, raised, out)
    if not out.decisions:
        labels = [c.name for c in words if is_yes_or_no(c.values) or _says(c) > _SAYS_NOTHING]
        out.asks += [f"{name} seems to say what was decided, and no column says when" for name in labels[:1]]
    for time, word, _, _ in out.decisions:
        if word:
            out.words |= meanings_of(word, seen.columns[word].values)
            automatic = [text for text in seen.columns[word].values if closed_by_itself(text)]
            if automatic and not (time in out.machines and not out.machines[time]):
                out.machines.setdefault(time, {})[word] = automatic
                out.words = {text: what for text, what in out.words.items() if text not in automatic}
    taken = used | {name for decision in out.decisions for name in decision if name} | set(out.clocks.values())

    def named(role: str, allowed: Iterable[Column]) -> Column | None:
        # A name says more to people than a number inside an object, and is as good for the model. A resource's name is
        # no rule.
        def fits(column: Column) -> float:
            fit = score(column.name, NAMES[role])
            less = words_of(column.name)[-1:] in (["id"], ["type"])
            less |= role == "rule" and score(column.name, NAMES["entity"]) > 0.8 * fit
            return fit * (0.5 if less else 1.0)

        return _pick((fits(c), c) for c in allowed if c.name not in taken)

    facts = [c for c in columns if not c.is_time() and not is_later(c.name)]
    texts = [c for c in facts if c.filled >= 0.5 * seen.rows and c.longest <= 400]
    repeating = [c for c in texts if len(c.values) <= max(0.7 * c.filled, 1)] or texts
    rule = named("rule", repeating) or named("rule", texts)
    _take(out, "rule", rule, f"{len(rule.values):,} different values in {rule.filled:,} rows" if rule else "")
    if rule is not None:
        taken.add(rule.name)
    for role in ("entity", "team", "severity"):
        column = named(role, [c for c in facts if c.longest <= 200])
        _take(out, role, column, "by its name")
        taken |= {column.name} if column else set()
    for role in ("value", "threshold"):
        numbers = [c for c in facts if all(map(_NUMBER.fullmatch, c.values))]
        column = named(role, numbers)
        _take(out, role, column, "numbers, and by its name")
        taken |= {column.name} if column else set()
    _later(seen, columns, taken | {name for names in out.roles.values() for name in names}, out)


def _compose_id(seen: Profile, columns: list[Column], moment: list[Column], out: Guess) -> None:
    """An id of two or three columns, where no single one is different in every row."""
    named = [c for c in columns if score(c.name, NAMES["alert_id"]) > 0 and "." not in c.name and not c.is_unique()]
    named = sorted(named, key=lambda c: -len(c.values))[:3]
    scopes = [c for role in ("team", "entity", "rule") for c in columns if score(c.name, NAMES[role]) > 0.3]
    scopes = [c for c in scopes if not is_later(c.name) and not c.is_time()][:8]
    tries = [[scope, one] for one in named for scope in scopes if scope is not one]
    if moment:
        tries += [[scope, *moment] for scope in scopes]
        tries += [[a, b, *moment] for a in scopes for b in scopes if a is not b]
    from dagster_project.loading.records.fields import Field

    for parts in tries[:60]:
        one = Field(tuple(part.name for part in parts), "id")
        ids = {one.text(record) for record in seen.records}
        if None not in ids and len(ids) == len(seen.records):
            out.roles["alert_id"] = [part.name for part in parts]
            out.why["alert_id"] = "no column is different in every row, and these together are"
            return


def _decide(
    seen: Profile,
    columns: list[Column],
    decided: list[Column],
    changed: list[Column],
    words: list[Column],
    out: Guess,
) -> None:
    word = _pick((score(c.name, DECISION) * _says(c), c) for c in words)
    actors = [c for c in columns if not c.is_time() and score(c.name, ACTOR) > 0]
    # A column that is filled where nobody decided says who is responsible.
    rows = set().union(*(c.rows for c in decided)) if decided else set()
    actors = [c for c in actors if not rows or len(c.rows - rows) <= 0.5 * max(1, seen.rows - len(rows))]
    for column in decided:
        stem = decision_of(column.name)
        same = [c for c in words if decision_of(c.name) == stem]
        own = _pick((score(c.name, DECISION) + 0.01, c) for c in same if not c.name.lower().endswith("by"))
        several = len(decided) > 1
        use = own or (None if several else word)
        by = _pick((1.0 + score(c.name, ACTOR), c) for c in actors if decision_of(c.name) == stem)
        by = by or (None if several else _pick((score(c.name, ACTOR), c) for c in actors))
        out.decisions.append((column.name, use.name if use else "", stem, by.name if by else ""))
        if column.days == column.filled:
            clock = next((c for c in columns if c.clocks >= 0.95 * c.filled and decision_of(c.name) == stem), None)
            out.clocks |= {column.name: clock.name} if clock else {}
        _machines(columns, column, by, several, out)
    if not decided and changed and word is not None:
        by = _pick((score(c.name, ACTOR), c) for c in actors)
        out.decisions.append((changed[0].name, word.name, "", by.name if by else ""))
        _machines(columns, changed[0], by, False, out)
        out.asks.append(
            f"{changed[0].name} changes with every edit: if a column says when {word.name} was set, use that one"
        )


def _by_duration(columns: list[Column], words: list[Column], raised: Column, out: Guess) -> None:
    """A decision whose moment is so long after the raise, where no column says when it was."""
    numbers = [c for c in columns if not c.is_time() and all(map(_NUMBER.fullmatch, c.values))]
    span = _pick((score(c.name, DURATION), c) for c in numbers)
    if span is None:
        return
    actors = [c for c in columns if decision_of(c.name) not in ("", "acknowledged") and score(c.name, ACTOR) > 0]
    by = _pick((score(c.name, ACTOR), c) for c in actors)
    unit = next((UNITS[word] for word in reversed(words_of(span.name)) if word in UNITS), "")
    if not unit:
        out.asks.append(f"{span.name} may be in seconds, ms, minutes or hours; seconds are assumed")
    out.spans[span.name] = unit or "s"
    word = _pick((score(c.name, DECISION) * _says(c), c) for c in words)
    fixed = decision_of(span.name) or (decision_of(by.name) if by else "closed")
    out.decisions.append((span.name, word.name if word else "", fixed, by.name if by else ""))
    _machines(columns, span, by, False, out)


def _machines(columns: list[Column], time: Column, by: Column | None, several: bool, out: Guess) -> None:
    """What shows that no person decided: an actor by name, a type of actor, a column that says "automatic"."""
    if "auto" in words_of(time.name):
        out.machines[time.name] = {}
        return
    shows: dict[str, list[str]] = {}
    for column in columns:
        words = words_of(column.name)
        kind_of_actor = "by" in words and words[-1] in ("type", "kind") and len(column.values) <= FEW
        if column is time:
            continue
        if column is by or kind_of_actor:
            texts = sorted({value for value in column.values if MACHINES.search(value)})[:20]
        elif "auto" in words and not several and not column.is_time():
            texts = [value for value in column.values if value.casefold() in ("true", "yes", "t", "y", "1")]
        else:
            continue
        if texts:
            shows[column.name] = texts
    if shows:
        out.machines[time.name] = shows


def _says(column: Column) -> float:
    """How many of a column's values are words with a known meaning; a column of open and closed says little."""
    from dagster_project.resources.inputs.action_types import project_types, type_key

    known = project_types()
    decisive = sum(known.get(type_key(value)) in ("acted", "dismissed") for value in column.values)
    # A state says that somebody decided; how, another column may say better.
    weight = 0.5 if words_of(column.name)[-1:] in (["status"], ["state"]) else 1.0
    return weight * (0.2 + decisive / len(column.values))


def _guess_actions(seen: Profile, columns: list[Column], times: list[Column], ids: set[str], out: Guess) -> None:
    owner = _belongs_to(columns, ids)
    _take(out, "alert_id", owner, "its values are ids of the alerts")
    rest = [c for c in columns if c is not owner]
    when = _pick((1.0 - 0.001 * at, c) for at, c in enumerate(times) if c.filled >= 0.9 * seen.rows and c is not owner)
    _take(out, "acted_at", when, "a time in every row")
    ident = _pick(
        (score(c.name, ("action_id", "event_id", "id", "uuid", "key")), c)
        for c in rest
        if c.is_unique() and c is not when
    )
    word_names = ("action_type", "action", "event", "type", "activity", "operation", "what", "step", *DECISION)
    word = _pick((score(c.name, word_names) * _says(c), c) for c in rest if not c.is_time() and len(c.values) <= FEW)
    _take(out, "action_type", word, "few different words, and by its name")
    if ident is not None:
        _take(out, "action_id", ident, "different in every row, and named like an id")
    elif owner is not None and when is not None:
        out.roles["action_id"] = [owner.name, when.name, *([word.name] if word else [])]
        out.why["action_id"] = "no column is different in every row"
    actor = _pick((score(c.name, ("actor", "by", "user", "who", *ACTOR)), c) for c in rest if c not in (word, ident))
    _take(out, "actor", actor, "by its name")


def _later(seen: Profile, columns: list[Column], taken: set[str], out: Guess) -> None:
    """Columns that were probably filled after the raise: by name, by time, by being filled with the decisions."""
    decided: set[int] = set()
    for time, *_ in out.decisions:
        decided |= seen.columns[time].rows
    for column in columns:
        if column.name in taken:
            continue
        partly = 0 < column.filled < 0.95 * seen.rows
        with_decision = len(column.rows & decided) / column.filled
        base = len(decided) / max(seen.rows, 1)
        if column.is_time() and len(column.values) > 1:
            out.later[column.name] = "a second time"
        elif is_later(column.name):
            out.later[column.name] = "by its name"
        elif partly and column.filled >= 10 and with_decision > 0.95 and base < 0.9:
            out.later[column.name] = f"filled in {with_decision:.0%} of its rows together with a decision"


def _time_formats(times: list[Column], out: Guess) -> None:
    """What the file settles about day and month first; a question where it does not."""
    used = {name for names in out.roles.values() for name in names} | {time for time, *_ in out.decisions}
    settled = {order for c in times if c.name in used and (order := c.order.own_order())}
    for column in times:
        evidence = column.order
        if column.name not in used or not (evidence.open or evidence.only):
            continue
        order = evidence.own_order() or (next(iter(settled)) if len(settled) == 1 else "")
        if order:
            out.formats[column.name] = order
        elif "" not in out.formats.values():
            out.formats[column.name] = ""
            out.asks.append(
                f"{column.name}: {evidence.example or column.example()} may have the day or the month first, and no "
                f'value decides; write "{DAY_FIRST}" or "{MONTH_FIRST}"'
            )
