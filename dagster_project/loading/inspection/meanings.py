"""What the words of decisions mean where the list of known words does not have them.

Belongs here: yes and no, words put together of known ones, and words that say that an alert closed by itself.
Does not belong here: the list (`dbt_project/seeds/action_types.csv`), and which column holds the words (`guess.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from dagster_project.loading.inspection.names import words_of

_YES = frozenset(("yes", "y", "true", "t", "1", "x", "ja", "j", "oui", "si", "sí"))
_NO = frozenset(("no", "n", "false", "f", "0", "nein", "non"))
# Names of columns of which "yes" says that somebody acted, and those of which it says that there was nothing to do.
_ACTED = ("action taken", "acted", "actioned", "actionable", "action", "true positive", "fixed", "remediated")
_DISMISSED = ("false positive", "dismissed", "ignored", "noise", "suppressed", "false alarm")
_BY_ITSELF = re.compile(r"(?<![a-z])(auto(?![a-z])|automat)", re.IGNORECASE)
_PARTS = re.compile(r"\s+[-–—|/]\s+|\s*[:;(\[>]\s*|[)\]]")


def closed_by_itself(text: str) -> bool:
    """Whether a type says that no person decided: "Resolved - Auto Resolve", "automated_closure"."""
    return _BY_ITSELF.search(text.replace("_", " ")) is not None


def is_yes_or_no(texts: Iterable[str]) -> bool:
    """Whether a column says yes and no, and nothing else."""
    answers = {text.strip().casefold() for text in texts}
    return bool(answers & _YES) and bool(answers & _NO) and answers <= _YES | _NO


def meanings_of(column: str, texts: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(meaning, why) of the types that the list of known words does not have, as far as the column and they say it."""
    from dagster_project.resources.inputs.action_types import project_types, type_key

    known = project_types()
    unknown = [text for text in texts if known.get(type_key(text)) is None]
    out = {}
    name = " ".join(words_of(column))
    # "No action taken" says the opposite: nothing is assumed about columns that deny something.
    yes = "" if set(words_of(column)) & {"no", "not", "without"} else _meaning_of_yes(name)
    for text in unknown:
        if yes and text.strip().casefold() in _YES:
            out[text] = (yes, f"{column} says yes")
        elif yes == "acted" and text.strip().casefold() in _NO:
            out[text] = ("dismissed", f"{column} says no")
        else:
            parts = [part for part in _PARTS.split(text) if part]
            told = {part: meaning for part in parts if (meaning := known.get(type_key(part)))} if len(parts) > 1 else {}
            # The more exact word counts: "Resolved - False positive" is a false positive, "Closed: fixed" is fixed.
            part = next((part for part in reversed(parts) if told.get(part) in ("acted", "dismissed")), None)
            if part is not None:
                out[text] = (told[part], f'as "{part}"')
    return out


def _meaning_of_yes(name: str) -> str:
    if any(words in name for words in _DISMISSED):
        return "dismissed"
    return "acted" if any(words in name for words in _ACTED) else ""
