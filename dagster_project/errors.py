"""The one exception that users see.

Belongs here: `HeedError`, an error with a cause and a remedy in plain words, which `heed` prints as one line.
Does not belong here: anything a user cannot mend. A bug raises what Python raises, and is a bug.
"""


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
        return f"{self.cause}. {self.remedy[:1].upper()}{self.remedy[1:]}."
