"""The Jinja environment of every page of heed: escaping, strict names, and the words of `words.py` as filters.

Belongs here: what all templates share. Does not belong here: what one page shows (`page.py`, `serving/board/pages.py`).
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from dagster_project.reporting import words


def environment(folder: Path) -> jinja2.Environment:
    """Templates of `folder`; every value is escaped, and a name that is not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "short": words.short,
        "clean": lambda text: words.short(text, words.LONG),
        "sentence": words.sentence,
        "count": words.count,
        "percent": words.percent,
        "moment": words.moment,
    }
    return made
