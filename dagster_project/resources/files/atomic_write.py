"""Writing a file so that a reader sees the old one or the new one.

Belongs here: the temporary file, replacing the old one, and the error when that fails.
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
    """Gives a temporary path in the same directory; it replaces `path` when the block ends without an error.

    Not synced to the disk: readers must notice a file that a power cut truncated.

    Raises HeedError: the file cannot be written; names the reason and `remedy`.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield fresh
        fresh.rename(path)
    except OSError as error:
        reason = " ".join((error.strerror or str(error)).split())[:200]
        raise HeedError(f"{path} cannot be written ({reason})", remedy) from error
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
