"""JSON documents as a stream of records: arrays, wrapped lists, and several documents one after the other.

Belongs here: finding the list of records and giving out one record at a time, in bounded memory.
Does not belong here: what a record means (`reader.py`), one object a line (`readers/jsonl_reader.py`).
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterator
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.readers import limits
from dagster_project.loading.readers.arrow_text import NotJson, parse_json

_BLANK = " \t\r\n"
_PLAIN = json.JSONDecoder()
# How many levels down a list of records is looked for where no mapping names it, as in {"hits": {"hits": [...]}}.
_LEVELS = 3


class JsonStream:
    """Values of a JSON text, one after the other.

    read : gives the next block of UTF-8, empty at the end. file : for messages.
    """

    def __init__(self, read: Callable[[], bytes], file: str) -> None:
        self._read, self.file = read, file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")().decode
        self._text, self._at, self._ended = "", 0, False
        self.line = 1
        self._before = 0  # characters in front of self._text that are counted in self.line

    def peek(self) -> str:
        """The next character that is no blank; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def skip(self) -> None:
        """Pass the next character."""
        self._at += 1

    def value(self) -> tuple[Any, str]:
        """The next value whole, and its text.

        Raises
        ------
        HeedError
            It is no JSON, or longer than any record.
        """
        self.peek()
        while True:
            try:
                value, end = _PLAIN.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                behind = getattr(error, "pos", self._at) - self._at  # what is in front of the value may go now
                if len(self._text) - self._at <= limits.MAX_RECORD_BYTES and self._more():
                    continue
                if len(self._text) - self._at > limits.MAX_RECORD_BYTES:
                    cause = f"a value that begins on line {self._line():,} of {self.file} is longer than "
                    raise HeedError(
                        f"{cause}{limits.MAX_RECORD_BYTES:,} bytes, so it is no record",
                        'name the list of records in the mapping, like records = "Findings"; nothing was loaded',
                    ) from error
                at = self._at + behind
                line = self.line + self._text.count("\n", 0, at)
                cut = "ends in the middle of a value" if not self._text[at:].strip() else "is no JSON"
                raise HeedError(
                    f"{self.file} {cut} at line {line:,}", "export it again, whole; nothing was loaded"
                ) from error
            if end == len(self._text) and self._more():  # 12 may go on as 123
                continue
            text = self._text[self._at : end]
            self._at = end
            return value, text

    def pass_over(self) -> None:
        """Pass the next value, however long a list it is."""
        if self.peek() == "[":
            for _ in self.items():
                self.pass_over()
        elif self.peek() == "{":
            for _ in self.keys():
                self.pass_over()
        else:
            self.value()

    def items(self) -> Iterator[None]:
        """Stops at each item of the list that begins here; the caller takes or passes the item."""
        self.skip()
        while (sign := self.peek()) != "]":
            if sign == ",":
                self.skip()
                continue
            self._inside(sign)
            yield
        self.skip()

    def keys(self) -> Iterator[str]:
        """The names in the object that begins here; the caller takes or passes each value."""
        self.skip()
        while (sign := self.peek()) != "}":
            if sign == ",":
                self.skip()
                continue
            self._inside(sign)
            name, _ = self.value()
            if self.peek() != ":":
                raise self._broken()
            self.skip()
            yield str(name)
        self.skip()

    def _inside(self, sign: str) -> None:
        if sign in ("", "]", "}", ":"):
            raise self._broken()

    def _broken(self) -> HeedError:
        cause = "is cut off" if self._ended and self._at >= len(self._text) else "is no JSON"
        return HeedError(f"{self.file} {cause} at line {self._line():,}", "export it again, whole; nothing was loaded")

    def line_now(self) -> int:
        """The line of the next character."""
        return self._line()

    def _line(self) -> int:
        passed = self._text.count("\n", 0, self._at)
        return self.line + passed

    def _more(self) -> bool:
        if self._ended:
            return False
        block = self._read()
        try:
            further = self._decode(block, final=not block)
        except UnicodeDecodeError as error:
            raise HeedError(
                f"{self.file} is not UTF-8 behind line {self._line():,}",
                'name its encoding in the mapping, like encoding = "cp1252"; nothing was loaded',
            ) from error
        self._ended = not block
        self.line += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :] + further, 0
        return bool(block)


def records(stream: JsonStream, paths: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any] | str, str]]:
    """(line, record or why it is none, text) of every record.

    paths : where lists of records, or single ones, are in each document; a document without any of them is a record.
        Empty: the items of each array, and each object.
    """
    wanted = [tuple(path.split(".")) for path in paths]
    while (sign := stream.peek()) != "":
        if sign == "[":
            yield from _list(stream)
        elif sign == "{" and wanted:
            line = stream.line_now()
            document: dict[str, Any] = {}
            count = 0
            for item in _wrapped(stream, wanted, (), document):
                count += 1
                yield item
            if not count and not any(_reached(document, path) for path in wanted):
                yield _record(line, document, "")
        else:
            yield _one(stream)


def _reached(document: dict[str, Any], path: tuple[str, ...]) -> bool:
    here: Any = document
    for step in path:
        if not isinstance(here, dict) or step not in here:
            return False
        here = here[step]
    return True


def _wrapped(
    stream: JsonStream, wanted: list[tuple[str, ...]], path: tuple[str, ...], rest: dict[str, Any]
) -> Iterator[tuple[int, dict[str, Any] | str, str]]:
    for name in stream.keys():  # noqa: SIM118 - no dictionary
        here = (*path, name)
        sign = stream.peek()
        if here in wanted and sign == "[":
            rest[name] = None
            yield from _list(stream)
        elif here in wanted and sign == "{":
            rest[name] = None
            yield _one(stream)
        elif sign == "{" and any(one[: len(here)] == here for one in wanted):
            inner: dict[str, Any] = {}
            rest[name] = inner
            yield from _wrapped(stream, wanted, here, inner)
        else:
            rest[name], _ = stream.value()


def _list(stream: JsonStream) -> Iterator[tuple[int, dict[str, Any] | str, str]]:
    for _ in stream.items():
        if stream.peek() == "[":  # pages in one list
            yield from _list(stream)
        else:
            yield _one(stream)


def _one(stream: JsonStream) -> tuple[int, dict[str, Any] | str, str]:
    line = stream.line_now()
    value, text = stream.value()
    return _record(line, value, text)


def _record(line: int, value: Any, text: str) -> tuple[int, dict[str, Any] | str, str]:
    if not isinstance(value, dict):
        return line, "not a JSON object", text
    checked = parse_json(text, nan=True) if text else value
    return line, checked.reason if isinstance(checked, NotJson) else checked, text


def find_list(stream: JsonStream) -> tuple[str, ...] | None:
    """Where the first list of objects in a document is: () for an array, None where there is none.

    Reads no further than that list.
    """
    sign = stream.peek()
    if sign == "[":
        return ()
    if sign != "{":
        return None
    return _first_list(stream, ())


def _first_list(stream: JsonStream, path: tuple[str, ...]) -> tuple[str, ...] | None:
    for name in stream.keys():  # noqa: SIM118 - no dictionary
        here = (*path, name)
        sign = stream.peek()
        if sign == "[":
            is_objects = False
            for _ in stream.items():
                is_objects = stream.peek() == "{"
                if is_objects:
                    return here
                stream.pass_over()
        elif sign == "{" and len(here) < _LEVELS:
            if (below := _first_list(stream, here)) is not None:
                return below
        else:
            stream.pass_over()
    return None
