"""Checksums of the files that heed keeps outside the warehouse to save time.

Belongs here: computing one for an open file, and refusing a file whose checksum differs.
Does not belong here: where the right one is stored (`history_cache.py`, `features.py`), and what replaces the file.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

# Checksums of files read in this process, by device, inode, size and both times of the file. Tools that restore a
# file can set its modification time back (`cp -p`), but not the change time of its inode (ctime).
_read: dict[tuple[int, ...], str] = {}
# Ten years of daily files, some of them in parts; beyond that, all are read again.
_MOST = 20_000


class DoubtfulFile(Exception):
    """A file is not the one that heed wrote last: damaged, or an older one that was restored."""


def checksum_of(file: Any) -> str:
    """The SHA-256 of an open file; leaves the file at its beginning."""
    file.seek(0)
    checksum = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return checksum


def require_checksum(file: Any, wanted: str) -> None:
    """Refuse an open file with another checksum. A local file that passed and has not changed since is not read again.

    Raises DoubtfulFile: the checksum differs.
    """
    state = _state(file)
    if state is not None and _read.get(state) == wanted:
        return
    if checksum_of(file) != wanted:
        raise DoubtfulFile(f"{getattr(file, 'name', 'a file')} is not the file that heed wrote last")
    if state is not None:
        if len(_read) >= _MOST:
            _read.clear()
        _read[state] = wanted


def _state(file: Any) -> tuple[int, ...] | None:
    """None for an object in a bucket: only its content tells whether it changed."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
