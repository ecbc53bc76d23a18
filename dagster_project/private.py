"""Who may read what heed writes: state is for its own account; requested files have the mode of the user's umask.

Belongs here: the umask for new files, and the modes of the state directory and of files requested with `--out`.
Does not belong here: rights in the warehouse (`resources/warehouse/roles.py`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OTHERS = 0o007
_user_umask: int | None = None


@contextmanager
def private_files() -> Iterator[None]:
    """Within it, new files are for heed's account alone, including those of child processes.

    A umask that keeps others out already, like a unit's `UMask=0027`, was chosen by somebody, and stays.
    """
    global _user_umask
    before = os.umask(0o077)
    if before & _OTHERS == _OTHERS:
        os.umask(before)
    _user_umask = before
    try:
        yield
    finally:
        _user_umask = None
        os.umask(before)


def share(path: Path) -> None:
    """Give a file that a person requested the mode of their own umask."""
    if _user_umask is not None:
        path.chmod(0o666 & ~_user_umask)


def private_directory(home: Path) -> None:
    """Create the state directory if it is missing, and revoke the right of others to list or enter it.

    The group's rights stay, since somebody granted them. For root, others may enter but not list it: the account of the
    embedded server must pass through.
    """
    as_root = os.geteuid() == 0
    before = os.umask(0o022 if _user_umask is None else _user_umask)
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
