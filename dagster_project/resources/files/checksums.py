"""Checksums of the files that heed keeps beside the warehouse to save time.

Belongs here: taking one of an open file, and refusing a file that has another.
Does not belong here: where the right one stands (`history_cache.py`, `features.py`), and what is done without the file.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

# What was read in this process and had this checksum, by device, inode, size and both times of the file. Tools that
# put a file back can set back the time of its change (`cp -p`), but not that of its inode (ctime).
_read: dict[tuple[int, ...], str] = {}
# Files of ten years of days, some of them in parts; beyond that all are looked at again.
_MOST = 20_000


class DoubtfulFile(Exception):
    """A file is not the one that was written: damaged, or an older one that was put back."""


def checksum_of(file: Any) -> str:
    """The SHA-256 of an open file, which stands at its beginning afterwards."""
    file.seek(0)
    checksum = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return checksum


def require_checksum(file: Any, wanted: str) -> None:
    """Refuse an open file with another checksum. A local file that passed and was not touched since is not read again.

    Raises
    ------
    DoubtfulFile
        It has another one.
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
    """None: an object in a bucket, of which nothing tells whether it changed but its content."""
    try:
        status = os.fstat(file.fileno())
    except (OSError, AttributeError):
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
