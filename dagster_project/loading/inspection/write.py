"""A proposed mapping as a commented TOML file.

Belongs here: text.
Does not belong here: what is proposed (`guess.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from dagster_project.loading.contract import COLUMNS, REQUIRED, Kind
from dagster_project.loading.inspection.guess import Guess
from dagster_project.loading.inspection.profile import Profile


def _q(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(_q(text) for text in texts) + "]"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def mapping_text(parts: list[tuple[Profile, Guess]], time_zone: str) -> str:
    """The mapping for files that were looked at."""
    lines = [
        "# Written by `heed inspect`. Read the reasons, correct what is wrong, then:",
        f"#   {load_command(parts, 'mapping.toml')}",
        "",
    ]
    for seen, guess in parts:
        kind: Kind = "actions" if guess.is_actions else "alerts"
        lines += _table(seen, guess, kind, time_zone)
    words = {text: what for _, guess in parts for text, what in guess.words.items()}
    if words:
        lines += [
            "[words]",
            *(f"{_q(text)} = {_q(meaning)}  # {_comment(why)}" for text, (meaning, why) in words.items()),
        ]
    return "\n".join(lines).rstrip() + "\n"


def load_command(parts: list[tuple[Profile, Guess]], mapping: str) -> str:
    """The command that loads these files by the mapping."""
    files = [f"--{'actions' if guess.is_actions else 'alerts'} {seen.path}" for seen, guess in parts]
    return f"heed load {' '.join(files)} --mapping {mapping}"


def _table(seen: Profile, guess: Guess, kind: Kind, time_zone: str) -> list[str]:
    lines = [f"[{kind}]", f"# {_comment(seen.path.name)}: {seen.rows:,} rows were looked at."]
    for question in guess.asks:
        lines.append(f"# QUESTION: {_comment(question)}")
    if seen.list_at:
        lines.append(f"records = {_q(seen.list_at)}")
    if seen.encoding:
        lines.append(f"encoding = {_q(seen.encoding)}  # it is not UTF-8; look whether names with accents are right")
    if seen.placeholders:
        lines.append(f"null_values = {_list(seen.placeholders)}  # these texts mean that a cell is empty")
    if guess.where:
        parts = [f"{_q(column)} = {_list(texts)}" for column, texts in guess.where.items()]
        lines.append(f"where = {{ {', '.join(parts)} }}  # the file has a row for each event")
    order = ("alert_id", "action_id") if kind == "alerts" else ("action_id", "alert_id")
    for name in dict.fromkeys((*(n for n in order if n in COLUMNS[kind]), *COLUMNS[kind])):
        if name == "attributes":
            continue
        columns = guess.roles.get(name)
        if columns:
            value = _q(columns[0]) if len(columns) == 1 else _list(columns)
            if len(columns) > 1 and not name.endswith("_id"):
                value = f"{{ join = {value} }}"
            column = seen.columns.get(columns[0])
            example = f", such as {_comment(column.example()[:40])}" if column and len(columns) == 1 else ""
            lines.append(f"{name} = {value}  # {guess.why.get(name, '')}{example}")
        elif name in REQUIRED[kind]:
            lines.append(f'# QUESTION: no column looks like {name}, which heed needs: {name} = "your_column"')
        else:
            lines.append(f'# {name} = "..."  # no column looks like it')
    formats = {column: form for column, form in guess.formats.items() if form}
    if formats:
        lines.append("# Which number is the month: some values leave no choice.")
        values = list(formats.values())
        if len(set(values)) == 1:
            lines.append(f"time_format = {_q(values[0])}")
    if guess.has_days_only:
        lines.append('time_of_day = "00:00"  # days without a time: alerts of one day lose their order')
    lines.append(
        f"# Times without an offset are read in {time_zone} ([source] in heed.toml), unless a zone is named here:"
    )
    lines.append('# time_zone = "Europe/Berlin"')
    if guess.later:
        lines.append("# Filled or changed after the raise, it seems: the model must not see these.")
        for name, why in guess.later.items():
            lines.append(f"#   {_comment(name)}: {why}")
        lines.append(f"ignore = {_list(guess.later)}")
    raised = next(iter(guess.roles.get("raised_at", ())), "")
    for time, word, fixed, actor in guess.decisions:
        when = _q(time)
        if time in guess.spans:
            when = f'{{ column = {_q(time)}, after = {_q(raised)}, unit = "{guess.spans[time]}" }}'
        elif time in guess.clocks:
            when = f"{{ join = {_list((time, guess.clocks[time]))} }}"
        lines += ["", f"[[{kind}.decision]]", f"time = {when}"]
        if word:
            lines.append(f"type = {_q(word)}")
        if fixed:
            lines.append(f"fixed_type = {_q(fixed)}" + ("  # where type is empty" if word else ""))
        if actor:
            lines.append(f"actor = {_q(actor)}")
        if time in guess.machines:
            shows = [f"{{ {_q(column)} = {_list(texts)} }}" for column, texts in guess.machines[time].items()]
            lines.append(f"by_machine = [{', '.join(shows)}]  # no people" if shows else "by_machine = true")
    if kind == "alerts" and not guess.decisions and not guess.where:
        lines.append("# No column says when somebody decided: load actions from another file, with --actions.")
    return [*lines, ""]
