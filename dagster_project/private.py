"""Who may read what heed writes: its state is for its own account, what a person asked for is as they want it.

Belongs here: the mask for new files, the state directory's mode, and the mode of files that were asked for by `--out`.
Does not belong here: rights in the warehouse (`resources/warehouse/roles.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OTHERS = 0o007
_mask_of_the_user: int | None = None


@contextmanager
def private_files() -> Iterator[None]:
    """Within it, new files are for heed's account alone, also those of the processes that it starts.

    A mask that keeps others out already, like a unit's `UMask=0027`, was chosen by somebody, and stays.
    """
    global _mask_of_the_user
    before = os.umask(0o077)
    if before & _OTHERS == _OTHERS:
        os.umask(before)
    _mask_of_the_user = before
    try:
        yield
    finally:
        _mask_of_the_user = None
        os.umask(before)


def share(path: Path) -> None:
    """Give a file that a person asked for the mode that their own programs would have given it."""
    if _mask_of_the_user is not None:
        path.chmod(0o666 & ~_mask_of_the_user)


def private_directory(home: Path) -> None:
    """Make the state directory where it is missing, and take from others the right to list it or enter it.

    The group's rights stay, since somebody gave them. As root others may enter, and list nothing: the account of the
    embedded server must come through.
    """
    as_root = os.geteuid() == 0
    before = os.umask(0o022 if _mask_of_the_user is None else _mask_of_the_user)
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
    finally:
        os.umask(before)
    home.mkdir(mode=0o700, exist_ok=True)
    status = home.stat()
    mode = status.st_mode & 0o7777
    wanted = (mode | 0o011) & ~0o006 if as_root else mode & ~_OTHERS
    if wanted != mode and status.st_uid == os.geteuid():
        home.chmod(wanted)
