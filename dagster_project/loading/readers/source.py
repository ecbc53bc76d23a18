"""One file on disk: what format it has, its bytes, its checksum.

Belongs here: opening and identifying files, decompressing, damage and change while a file is read.
Does not belong here: records (`csv_reader.py`, `jsonl_reader.py`, `parquet_reader.py`).
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from dagster_project.errors import HeedError
from dagster_project.loading.readers import limits
from dagster_project.loading.readers.layout import Layout
from dagster_project.loading.readers.transcoded import Transcoded

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    **dict.fromkeys((".xlsx", ".xlsm", ".xls", ".ods"), "sheet"),
    ".log": "lines",
}
_ENDINGS = ".csv, .tsv, .json, .jsonl, .log (each also with .gz), .xlsx or .parquet"
_BINARY = ("parquet", "sheet")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


class SourceFile:
    """One regular file, open for reading, of a known format.

    Raises
    ------
    HeedError
        It does not exist, is no regular file, cannot be read, is empty, or has an ending that heed does not know.
    """

    def __init__(self, path: Path, layout: Layout | None = None) -> None:
        """layout : what a mapping says of the file."""
        layout = layout or Layout()
        self.path, self.encoding = path, layout.encoding
        # What a first look at the whole file settled, for readers that open it again.
        self.settled: dict[tuple[str, str], list[str]] = {}
        self.name = path.name
        ending = path.suffix.lower()
        says_gzip = ending == ".gz"
        if says_gzip:
            ending = Path(path.stem).suffix.lower()
        known = layout.format or ("lines" if layout.lines else "") or FORMATS.get(ending)
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise HeedError(f"the file {path} does not exist", "correct the path; nothing was loaded") from error
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        if stat.S_ISDIR(status.st_mode):
            raise HeedError(f"{path} is a directory", "name one file; load several one after the other")
        if not stat.S_ISREG(status.st_mode):
            raise HeedError(
                f"{path} is not a regular file", "write its content to a file first, since it is read twice"
            )
        if known is None or (says_gzip and known in _BINARY):
            raise HeedError(
                f"the ending of {path} says nothing that heed can read",
                f'use {_ENDINGS}, as fits the content, or write format = "csv" in the mapping',
            )
        if status.st_size == 0:
            raise HeedError(f"{path} is empty (0 bytes)", "export it again; nothing was loaded")
        try:
            self.raw: IO[bytes] = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        self.format = known
        self.bytes_total = status.st_size
        self.position: int | None = None  # how far, for formats that are not read from front to back
        self._stamp = _stamp(os.fstat(self.raw.fileno()))
        self.is_gzip = known not in _BINARY and self.raw.read(2) == _GZIP_MAGIC
        self.raw.seek(0)
        if says_gzip and not self.is_gzip:
            self.raw.close()
            raise HeedError(
                f"{path} is not gzip, though its name says so",
                f"rename it to {path.stem} if it is plain text, or compress it again",
            )

    def close(self) -> None:
        self.raw.close()

    def bytes_read(self) -> int:
        """How far the file itself (compressed, where it is) has been read."""
        return min(self.raw.tell() if self.position is None else self.position, self.bytes_total)

    def stream(self) -> IO[bytes] | Transcoded:
        """The decompressed content from the start."""
        stream = self._bytes()
        encoding = self.encoding or self._encoding_of_mark(stream)
        stream = self._bytes()
        return Transcoded(stream, encoding, self.path) if encoding else stream

    def _bytes(self) -> IO[bytes]:
        self.raw.seek(0)
        return cast("IO[bytes]", gzip.GzipFile(fileobj=self.raw, mode="rb")) if self.is_gzip else self.raw

    def _encoding_of_mark(self, stream: IO[bytes]) -> str:
        """UTF-16 or UTF-32 where the first bytes say so; UTF-8 needs no change."""
        if self.format in _BINARY:
            return ""
        first = stream.read(4) if not self.is_gzip else self._first_of_gzip(stream)
        if first in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
            return "utf-32"
        return "utf-16" if first[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""

    @staticmethod
    def _first_of_gzip(stream: IO[bytes]) -> bytes:
        try:
            return stream.read(4)
        except (EOFError, OSError, zlib.error):  # named when it is read
            return b""

    def is_by_line(self) -> bool:
        """Whether the first filled line is whole JSON, as JSON lines are; a document over several lines is not."""
        first = self.read(self.stream()).removeprefix(BYTE_ORDER_MARK).lstrip()
        line, end, _ = first.partition(b"\n")
        if first[:1] == b"[":
            return False
        if not end:
            return True
        try:
            json.loads(line)
        except (ValueError, RecursionError):
            # A broken line among good ones is rejected alone; a document has none.
            return first.count(b"\n{") > 0 and line.strip() != b"{"
        return True

    def read(self, stream: IO[bytes] | Transcoded) -> bytes:
        """The next block of the content; b"" at its end."""
        try:
            return stream.read(limits.BLOCK_BYTES)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise HeedError(
                f"the gzip file {self.path} is damaged or cut off ({' '.join(str(error).split())})",
                "fetch or export it again; nothing was loaded",
            ) from error
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def sha256(self, extra: bytes, tell: Callable[[], None]) -> str:
        """SHA-256 of the decompressed content, then of `extra`. Reads it whole, and so finds damage before loading."""
        digest = hashlib.sha256()
        self.position = None
        stream, size = self._bytes(), 0
        while block := self.read(stream):
            digest.update(block)
            size += len(block)
            if self.is_gzip and size > limits.GZIP_FREE_BYTES and size > limits.GZIP_RATIO * self.bytes_total:
                raise HeedError(
                    f"{self.path} holds more than {limits.GZIP_RATIO} times its size, "
                    "as files do that are made to fill disks",
                    "decompress it yourself if you trust it, and load that",
                )
            tell()
        digest.update(extra)
        return digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise if the file was written to since it was opened: then its parts do not belong together."""
        if _stamp(os.fstat(self.raw.fileno())) != self._stamp:
            raise HeedError(
                f"{self.path} changed while it was read", "load it when its writer has finished; nothing was loaded"
            )


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: Exception) -> HeedError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return HeedError(f"{path} cannot be read ({reason})", "name a file that you may read; nothing was loaded")
