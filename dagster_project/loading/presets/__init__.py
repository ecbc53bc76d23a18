"""Presets: mappings for the exports of known systems, one file each, with the words of that system.

Belongs here: those files, and finding one by name or path.
Does not belong here: reading a mapping (`loading/mapping.py`); a system that needs code of its own.

A preset takes only what is known when an alert is raised (`keep`), and a column that a version of the export lacks is
no error unless alerts need it.
"""

from __future__ import annotations

from pathlib import Path

from dagster_project.errors import HeedError
from dagster_project.loading.contract import nearest, shown
from dagster_project.loading.mapping import Mapping, read_mapping

FOLDER = Path(__file__).parent


def preset_names(own: Path | None = None) -> list[str]:
    """The names of all presets: heed's, and those in a folder of the user's own."""
    folders = [FOLDER, *([own] if own is not None and own.is_dir() else [])]
    return sorted({path.stem for folder in folders for path in folder.glob("*.toml")})


def read_preset(name: str, own: Path | None = None) -> Mapping:
    """The preset of a name, or the one in a file. own : a folder with the user's presets, which come first.

    Raises
    ------
    HeedError
        There is none of this name.
    """
    if name.endswith(".toml"):
        return read_mapping(name)
    for folder in (own, FOLDER):
        path = folder / f"{name}.toml" if folder is not None and "/" not in name else None
        if path is not None and path.is_file():
            return read_mapping(path, f"the preset {name}")
    names = preset_names(own)
    close = nearest(name, names)
    place = f", or write your own in {own / name}.toml" if own is not None and "/" not in name else ""
    raise HeedError(
        f"there is no preset {shown(name)}",
        (f"did you mean {close}" if close else f"use one of {', '.join(names)}") + place,
    )
