"""One file on disk: what format it has, its bytes, its checksum.

Belongs here: opening and identifying files, decompressing, damage and change while a file is read.
Does not belong here: records (`csv_reader.py`, `jsonl_reader.py`, `parquet_reader.py`).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from dagster_project.errors import HeedError
from dagster_project.loading.readers import limits

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_ENDINGS = ".csv, .tsv, .jsonl (each also with .gz) or .parquet"
_OTHER_FORMATS = {
    ".json": "write one object a line, for example with `jq -c '.[]' FILE.json > FILE.jsonl` where it is an array",
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save the sheet as CSV in UTF-8, with ids as text, and load that"),
}
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_GZIP_MAGIC = b"\x1f\x8b"


class SourceFile:
    """One regular file, open for reading, of a known format.

    Raises
    ------
    HeedError
        It does not exist, is no regular file, cannot be read, is empty, or has an ending that heed does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        ending = path.suffix.lower()
        says_gzip = ending == ".gz"
        if says_gzip:
            ending = Path(path.stem).suffix.lower()
        known = FORMATS.get(ending)
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
        if known is None or (says_gzip and known == "parquet"):
            raise HeedError(
                f"the ending of {path} says nothing that heed can read",
                _OTHER_FORMATS.get(ending, f"use {_ENDINGS}, as fits the content"),
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
        self.is_gzip = known != "parquet" and self.raw.read(2) == _GZIP_MAGIC
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

    def stream(self) -> IO[bytes]:
        """The decompressed content from the start."""
        self.raw.seek(0)
        return cast("IO[bytes]", gzip.GzipFile(fileobj=self.raw, mode="rb")) if self.is_gzip else self.raw

    def read(self, stream: IO[bytes]) -> bytes:
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
        stream, size = self.stream(), 0
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
