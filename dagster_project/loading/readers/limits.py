"""How much a reader takes at a time, and beyond what a file is refused.

Belongs here: sizes and counts, each with the measurement or reason behind it. Read them as `limits.NAME`.
Does not belong here: what a reader does at a limit.
"""

from __future__ import annotations

# Measured on a million alerts of 207 bytes: 1 MiB takes 15% more CPU than 4 MiB, 16 MiB takes no less than 4.
BLOCK_BYTES = 4 << 20
# Longer than any record seen in alert exports by orders of magnitude; more is a file that is not what it says.
MAX_RECORD_BYTES = 8 << 20
# How much of an undecodable row is kept; the reason says when there was more.
CONTENT_BYTES = 1 << 20
CHUNK_ROWS = 1 << 16
# A record over several lines is read again line by line when it has the wrong number of fields; not beyond this size,
# since reading again costs its square in the worst case.
REREAD_CHARACTERS = 1 << 16
MAX_COLUMNS = 1 << 14
# gzip shrinks at most 1032-fold. Measured: the Wolfi export 6-fold, alerts with 50 constant attributes each 107-fold. A
# file beyond 300-fold that also is large was made to fill a disk.
GZIP_RATIO, GZIP_FREE_BYTES = 300, 1 << 28
# Measured: a column of consecutive numbers, delta-encoded and compressed, holds 181 rows a byte, and alerts have three
# columns at least. Rows beyond this are the same row over and over.
PARQUET_ROWS_PER_BYTE, PARQUET_FREE_ROWS = 200, 1 << 20
PARQUET_ROW_GROUP_BYTES = 4 << 30
PARQUET_CHUNK_BYTES = 32 << 20
# A dictionary holds a text once, however many rows have it: a file's size says nothing about what its rows
# hold. 300-fold, as for gzip, is far beyond what alerts reach; nested values are read a few rows at a time.
PARQUET_RATIO, PARQUET_FREE_BYTES = GZIP_RATIO, GZIP_FREE_BYTES
PARQUET_NESTED_ROWS = 256
# Some exports begin with a title, a date and an empty line. No header is looked for further down.
LINES_BEFORE_HEADER = 20
# A sheet is held whole. A million rows of 15 columns unfold to some 700 MB of XML, and no sheet has more rows.
SHEET_FREE_BYTES, SHEET_BYTES = 1 << 26, 1 << 30
