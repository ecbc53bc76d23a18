"""How a file is written, as a mapping may say: format, encoding, separator, lines to skip, where the records are.

Belongs here: those settings, and reading them from a mapping's table.
Does not belong here: what the columns mean (`loading/mapping.py`, `loading/records/spec.py`).
"""

from __future__ import annotations

import codecs
import re
from dataclasses import asdict, dataclass
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import shown

FORMATS_NAMED = ("csv", "json", "jsonl", "parquet", "sheet", "lines")


@dataclass(frozen=True)
class Layout:
    """How a file is written. Empty or 0: the file itself decides.

    Attributes
    ----------
    format : one of FORMATS_NAMED, where the file's ending does not say it. encoding : a codec's name. separator : one
    character. skip_lines : lines in front of the header. records : paths of the list of records in JSON. sheet : the
    sheet's name. lines : regular expressions with named groups; each line of the file that matches one is a record.
    """

    format: str = ""
    encoding: str = ""
    separator: str = ""
    skip_lines: int = 0
    records: tuple[str, ...] = ()
    sheet: str = ""
    lines: tuple[str, ...] = ()

    def is_plain(self) -> bool:
        """Whether nothing is set."""
        return self == Layout()

    def to_document(self) -> dict[str, Any]:
        """The settings as JSON-ready values."""
        return asdict(self)


SETTINGS = tuple(Layout.__dataclass_fields__)


def read_layout(entries: dict[str, Any], where: str) -> Layout:
    """The settings of a table that are about the file. where : the table, for messages.

    Raises
    ------
    HeedError
        A setting has a value that cannot be right; the message says what can.
    """
    got: dict[str, Any] = {}
    for name in SETTINGS:
        if name not in entries:
            continue
        value = entries[name]
        if name == "skip_lines":
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise HeedError(f"skip_lines of {where} is not a number of lines", "write skip_lines = 3")
            got[name] = value
            continue
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
            raise HeedError(f"{name} of {where} is not a text", f"write {name} = {_EXAMPLES[name]}")
        if name in ("records", "lines"):
            got[name] = tuple(texts)
        elif len(texts) > 1:
            raise HeedError(f"{name} of {where} is a list", f"write one: {name} = {_EXAMPLES[name]}")
        else:
            got[name] = texts[0]
    _check(got, where)
    return Layout(**got)


_EXAMPLES = {
    "format": '"csv"',
    "encoding": '"cp1252"',
    "separator": '";"',
    "records": '"Findings"',
    "sheet": '"Sheet1"',
    "lines": "['\\[(?P<time>\\d+)\\] (?P<rule>.*)']",
}


def _check(got: dict[str, Any], where: str) -> None:
    if (form := got.get("format")) and form not in FORMATS_NAMED:
        raise HeedError(
            f"format of {where} is {shown(form)}, which heed does not read", f"use one of {', '.join(FORMATS_NAMED)}"
        )
    if encoding := got.get("encoding"):
        try:
            codecs.lookup(encoding)
        except LookupError as error:
            raise HeedError(
                f"encoding of {where} is {shown(encoding)}, which Python does not know",
                "use a name like utf-8, cp1252, latin-1, utf-16 or shift_jis",
            ) from error
    separator = got.get("separator", "")
    if separator == "tab":
        got["separator"] = separator = "\t"
    if separator and (len(separator) != 1 or separator in '"\r\n'):
        raise HeedError(f"separator of {where} is {shown(separator)}", 'write one character, like separator = ";"')
    for line in got.get("lines", ()):
        try:
            groups = re.compile(line).groupindex
        except re.error as error:
            raise HeedError(
                f"lines of {where} has no regular expression in {shown(line)} ({error})",
                f"write one with named groups: lines = {_EXAMPLES['lines']}",
            ) from error
        if not groups:
            raise HeedError(f"lines of {where} names no groups in {shown(line)}", f"write lines = {_EXAMPLES['lines']}")
