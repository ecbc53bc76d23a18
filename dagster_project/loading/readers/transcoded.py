"""Text of any encoding as UTF-8, block by block.

Belongs here: transcoding, and saying where and why an encoding does not fit.
Does not belong here: opening files (`source.py`).
"""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import IO

from dagster_project.errors import HeedError
from dagster_project.loading.contract import shown

_CANDIDATES = ("utf-8", "utf-16", "cp1252", "shift_jis", "gb18030", "latin-1")


class Transcoded:
    """A stream of bytes in one encoding, read as UTF-8."""

    def __init__(self, stream: IO[bytes], encoding: str, path: Path) -> None:
        self._stream, self._encoding, self._path = stream, encoding, path
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._lines, self._ended = 1, False

    def read(self, size: int) -> bytes:
        """The next block; b"" at the end.

        Raises
        ------
        HeedError
            Bytes that this encoding does not have: names the line, the value and what would fit.
        """
        while not self._ended:
            block = self._stream.read(size)
            self._ended = not block
            try:
                text = self._decoder.decode(block, final=self._ended)
            except UnicodeDecodeError as error:
                raise self._misfit(block, error) from error
            self._lines += text.count("\n")
            if text:
                return text.removeprefix("\ufeff").encode("utf-8", "surrogatepass")
        return b""

    def _misfit(self, block: bytes, error: UnicodeDecodeError) -> HeedError:
        data = error.object if isinstance(error.object, bytes) else block
        line = self._lines + data[: error.start].count(b"\n")
        around = data[max(0, error.start - 15) : error.start + 15].decode("latin-1")
        fits = [name for name in _CANDIDATES if name != self._encoding and _decodes(data, name)][:2]
        return HeedError(
            f"line {line:,} of {self._path} is not {self._encoding}: {shown(around)}",
            f"what would fit: encoding = {' or '.join(map(repr, fits))}; nothing was loaded".replace("'", '"')
            if fits
            else "leave encoding out, or name another; nothing was loaded",
        )


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data[: 1 << 16].decode(encoding)
    except UnicodeDecodeError as error:
        return error.end >= min(len(data), 1 << 16) - 3  # cut off inside a character
    return True
