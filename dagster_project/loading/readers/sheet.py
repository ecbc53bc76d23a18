"""Spreadsheets to rows of plain values.

Belongs here: opening a workbook, choosing the sheet, and what its cells become: times as ISO 8601, whole numbers
without a point.
Does not belong here: headers and records (`records/sources.py`).

By python-calamine: it reads .xlsx, .xls and .ods, gives typed times, and parses the XML in Rust.
"""

from __future__ import annotations

import zipfile
from datetime import date, datetime, time, timedelta
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.loading.contract import shown
from dagster_project.loading.readers import limits
from dagster_project.loading.readers.source import SourceFile


def sheet_rows(source: SourceFile, name: str) -> list[list[Any]]:
    """The rows of one sheet: the named one, else the only one that holds anything.

    Raises
    ------
    HeedError
        The workbook is damaged, locked or too large; the sheet is not there, or it is open which one is meant.
    """
    import python_calamine as calamine

    _refuse_bomb(source)
    try:
        book = calamine.load_workbook(str(source.path))
        names = list(book.sheet_names)
        if name and name not in names:
            raise HeedError(
                f"{source.path} has no sheet {shown(name)}", f"it has {', '.join(shown(one, 30) for one in names)}"
            )
        wanted = [name] if name else names
        filled = [(one, rows) for one in wanted if (rows := book.get_sheet_by_name(one).to_python())]
    except calamine.PasswordError as error:
        raise HeedError(f"{source.path} is locked by a password", "save it without one") from error
    except (calamine.CalamineError, OSError, ValueError) as error:
        raise HeedError(
            f"the spreadsheet {source.path} is damaged ({' '.join(str(error).split())[:120]})",
            "save it again, or save the sheet as CSV; nothing was loaded",
        ) from error
    if len(filled) > 1:
        raise HeedError(
            f"{source.path} has {len(filled)} sheets that hold something: {', '.join(shown(n, 30) for n, _ in filled)}",
            f'say which in the mapping: sheet = "{filled[0][0]}"',
        )
    source.position = source.bytes_total
    return [[_plain(cell) for cell in row] for row in filled[0][1]] if filled else []


def _refuse_bomb(source: SourceFile) -> None:
    """A workbook is a zip file, which can unfold to any size."""
    source.raw.seek(0)
    if not zipfile.is_zipfile(source.raw):
        return
    with zipfile.ZipFile(source.raw) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > max(limits.SHEET_FREE_BYTES, limits.GZIP_RATIO * source.bytes_total) or size > limits.SHEET_BYTES:
        raise HeedError(
            f"{source.path} unfolds to {size:,} bytes, more than a sheet of alerts can have",
            "save the sheet as CSV if you trust it, and load that",
        )


def _plain(cell: Any) -> Any:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2**53:
        return int(cell)
    if isinstance(cell, datetime | date | time):
        return cell.isoformat()
    if isinstance(cell, timedelta):
        return cell.total_seconds()
    if isinstance(cell, str):
        return cell.replace("\0", "") or None
    return cell
