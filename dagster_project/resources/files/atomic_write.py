"""Writing a file so that a reader sees the old one or the new one.

Belongs here: the place beside it, its taking over, and what is said where it cannot be written.
Does not belong here: what is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dagster_project.errors import HeedError

if TYPE_CHECKING:
    from upath import UPath

Place = TypeVar("Place", Path, "UPath")


@contextmanager
def whole_file(path: Place, remedy: str) -> Iterator[Place]:
    """Gives a place beside `path` to write to; it takes the place of `path` when the block has ended well.

    Not synced to the disk: what a power cut truncates is noticed when it is read.

    Raises
    ------
    HeedError
        It cannot be written; says why, and `remedy`.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        fresh.rename(path)
    except OSError as error:
        said = " ".join((error.strerror or str(error)).split())[:200]
        raise HeedError(f"{path} cannot be written ({said})", remedy) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
