"""The one exception that users see.

Belongs here: `HeedError`, an error with a cause and a remedy in plain words, which `heed` prints as one line.
Does not belong here: anything a user cannot mend. A bug raises what Python raises, and is a bug.
"""

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
