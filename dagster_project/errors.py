"""The one exception that users see.

Belongs here: `HeedError`, an error with a cause and a remedy in plain words, which `heed` prints as one line.
Does not belong here: anything a user cannot correct. A bug raises whatever Python raises.
"""

import errno
import re
import unicodedata


def one_line(text: str) -> str:
    """Untrusted text as part of one line: it can neither start a new line nor control a terminal.

    Line ends and tabs become spaces. Control characters, bidirectional marks and lone surrogates are escaped, like
    \\x1b.
    """
    spaced = text.replace("\r\n", " ").translate(dict.fromkeys(map(ord, "\r\n\t\u2028\u2029"), " "))
    return "".join(c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape").decode() for c in spaced)


class HeedError(Exception):
    """An error that a user can correct.

    cause : what is wrong, with the name of the file, column or setting, without a full stop.
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
    """Translate an error caused by the machine: a full disk, a lost warehouse or run history. None: any other error.

    Such errors may occur anywhere, and come from many libraries.
    """
    current: BaseException | None = error
    while current is not None:
        package, text = type(current).__module__.split(".")[0], " ".join(str(current).split())[:300]
        if (isinstance(current, OSError) and current.errno in _NO_ROOM) or "No space left on device" in text:
            return HeedError(f"there is no space left on the disk ({text})", "free some, then run again")
        if package in ("adbc_driver_manager", "psycopg2"):
            # A driver may quote the address with the password: repeat only messages that are known to have none.
            reason = text if _SERVER_SAYS.search(text) else type(current).__name__
            return HeedError(
                f"the connection to the warehouse was lost ({reason})", "run again; `heed doctor` tells more"
            )
        if package == "sqlite3":
            return HeedError(
                f"Dagster's run history cannot be written ({text})", "free some space in HEED_HOME, then run again"
            )
        current = current.__cause__ or current.__context__
    return None
