"""The one exception that users see.

Belongs here: `HeedError`, an error with a cause and a remedy in plain words, which `heed` prints as one line.
Does not belong here: anything a user cannot mend. A bug raises what Python raises, and is a bug.
"""

import errno
import re
import unicodedata


def one_line(text: str) -> str:
    """Text from outside as part of one line: it can neither begin a line of its own nor steer a terminal.

    Line ends and tabs become blanks. Control characters, marks that turn the direction of writing, and halves of
    surrogates are written out, like \\x1b.
    """
    blank = text.replace("\r\n", " ").translate(dict.fromkeys(map(ord, "\r\n\t\u2028\u2029"), " "))
    return "".join(c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape").decode() for c in blank)


class HeedError(Exception):
    """Something a user can mend.

    Parameters
    ----------
    cause : what is wrong, naming the thing (file, column, setting), without a full stop.
    remedy : what to do about it, as an instruction, without a full stop.
    """

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(cause, remedy)
        self.cause = cause
        self.remedy = remedy

    def __str__(self) -> str:
        return one_line(f"{self.cause}. {self.remedy[:1].upper()}{self.remedy[1:]}.")


_SERVER_SAYS = re.compile(
    "server closed|terminating connection|shutting down|starting up|recovery mode|too many clients|connection slots|"
    "could not (extend|write|open) file|deadlock detected|lock timeout|canceling statement"
)
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def outage(error: BaseException) -> HeedError | None:
    """What an error means that the machine caused: a full disk, a warehouse or a run history that broke off; else None.

    Such errors come from wherever heed happened to be, in the words of many libraries.
    """
    current: BaseException | None = error
    while current is not None:
        package, text = type(current).__module__.split(".")[0], " ".join(str(current).split())[:300]
        if (isinstance(current, OSError) and current.errno in _NO_ROOM) or "No space left on device" in text:
            return HeedError(f"there is no room left on the disk ({text})", "free some, then run again")
        if package in ("adbc_driver_manager", "psycopg2"):
            # A driver may quote the address, and with it the password: only what is known to hold none is repeated.
            said = text if _SERVER_SAYS.search(text) else type(current).__name__
            return HeedError(f"the warehouse broke off ({said})", "run again; `heed doctor` tells more")
        if package == "sqlite3":
            return HeedError(
                f"Dagster's run history cannot be written ({text})", "look for room in HEED_HOME, then run again"
            )
        current = current.__cause__ or current.__context__
    return None
