"""The Jinja environment of all pages: escaping, strict names, and the functions of `words.py` as filters.

Belongs here: what all templates share. Does not belong here: single pages (`page.py`, `serving/board/pages.py`).
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from dagster_project.reporting import words


def environment(folder: Path) -> jinja2.Environment:
    """Templates of `folder`. Every value is escaped, and an undefined name is an error."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {
        "short": words.short,
        "clean": lambda text: words.short(text, words.LONG),
        "sentence": words.sentence,
        "count": words.count,
        "percent": words.percent,
        "moment": words.moment,
    }
    return templates
