"""Chunks of a file to rows as the raw tables hold them: attributes as one JSON object, and a hash of the content.

Belongs here: assembling attributes, the hash that distinguishes versions of a row.
Does not belong here: reading (`readers/`), and comparing with what is stored (`versions.py`).
"""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dagster_project.loading.contract import COLUMNS, Kind
from dagster_project.loading.readers import arrow_text
from dagster_project.loading.readers.chunk import Chunk
from dagster_project.loading.values import trimmed

# 128 bits: among a hundred billion rows two differ and look equal with a probability of 1e-17.
HASH_BYTES = 16


def incoming_schema(kind: Kind) -> pa.Schema:
    """The staging table's columns: order in the file, reason and content of rejected rows, the row and its hash."""
    texts = [(name, pa.string()) for name in ("reason", "content", *COLUMNS[kind], "row_hash")]
    return pa.schema([("seq", pa.int64()), ("line", pa.int64()), *texts])


def incoming_batch(kind: Kind, chunk: Chunk, seq: int) -> pa.RecordBatch:
    """The rows of a chunk, then its undecodable rows, numbered from `seq`."""
    columns: dict[str, pa.Array] = {}
    for name in COLUMNS[kind]:
        columns[name] = chunk.contract.get(name, pa.nulls(chunk.rows, pa.string()))
    if "attributes" in columns:
        columns["attributes"] = _attributes(chunk.further, columns["attributes"])
    columns["row_hash"] = row_hashes(columns)
    # Staging trims ids: rows whose ids differ in outer blanks only are versions of one row, and must be so here.
    columns |= {name: trimmed(columns[name]) for name in COLUMNS[kind] if name.endswith("_id")}
    rejected = chunk.rejected
    rows = chunk.rows + len(rejected)

    def padded(values: pa.Array) -> pa.Array:
        return pa.concat_arrays([values, pa.nulls(len(rejected), pa.string())]) if rejected else values

    def only_rejected(values: list[str]) -> pa.Array:
        return pa.concat_arrays([pa.nulls(chunk.rows, pa.string()), pa.array(values, pa.string())])

    arrays = {
        "seq": pa.array(np.arange(seq, seq + rows)),
        "line": pa.concat_arrays(
            [pa.nulls(chunk.rows, pa.int64()), pa.array([row.line for row in rejected], pa.int64())]
        ),
        "reason": only_rejected([row.reason for row in rejected]),
        "content": only_rejected([row.content for row in rejected]),
        **{name: padded(values) for name, values in columns.items()},
    }
    schema = incoming_schema(kind)
    return pa.RecordBatch.from_arrays([arrays[name] for name in schema.names], schema=schema)


def row_hashes(columns: dict[str, pa.Array]) -> pa.Array:
    """32 hexadecimal digits per row: BLAKE2b-128 over NUL, name, "=", value of each column that is not null.

    Text holds no NUL and names hold no "=", so different rows never give the same input. Null columns do not
    enter, so a column that the contract gains later changes no hash of older rows.
    """
    if not columns or len(next(iter(columns.values()))) == 0:
        return pa.array([], pa.string())
    named = [pc.binary_join_element_wise(f"\0{name}=", values, "") for name, values in columns.items()]
    joined = _joined(named).cast(pa.binary())
    blake2b = hashlib.blake2b
    hashes = [blake2b(content, digest_size=HASH_BYTES).hexdigest() for content in joined.to_pylist()]
    return pa.array(hashes, pa.string())


def _attributes(further: list[tuple[str, pa.Array]], explicit: pa.Array) -> pa.Array:
    """One JSON object per row out of the further columns, keys in order of their names; null where all are empty.

    A file's own attributes are merged in, and win. Where they are no JSON object they are kept as they are: alone as
    the raw text, with further columns under the key "unreadable", which is where staging would put them.
    """
    filled = [(name, values) for name, values in further if values.null_count < len(values)]
    if not filled:
        return explicit
    keys = [f",{json.dumps(name, ensure_ascii=False)}:" for name, _ in filled]
    pairs = [pc.binary_join_element_wise(key, one, "") for key, (_, one) in zip(keys, filled, strict=True)]
    inner = _joined(pairs)
    objects = pc.binary_join_element_wise(pc.replace_substring(inner, ",", "{", max_replacements=1), "}", "")
    built = pc.if_else(pc.equal(inner, ""), pa.scalar(None, pa.string()), objects)
    if explicit.null_count == len(explicit):
        return built
    names = {name for name, _ in filled}
    merged = [_merged(ours, own, names) for ours, own in zip(built.to_pylist(), explicit.to_pylist(), strict=True)]
    return pa.array(merged, pa.string())


def _joined(pieces: list[pa.Array]) -> pa.Array:
    """Row by row the pieces one after the other, nulls as nothing.

    Not null_handling="skip": pyarrow 26.0 leaves rows out of the result whose pieces are all null.
    """
    return pc.binary_join_element_wise(*pieces, "", null_handling="replace", null_replacement="")


def _merged(built: str | None, own: str | None, names: set[str]) -> str | None:
    if built is None or own is None:
        return own if built is None else built
    content = arrow_text.parse_json(own)
    if not isinstance(content, dict):
        return _dump({**json.loads(built), "unreadable": own})
    if not content:
        return built
    if names.isdisjoint(content):
        # The common case, without rewriting the file's own numbers.
        return f"{built[:-1]},{own.strip()[1:]}"
    return _dump({**json.loads(built), **content})


def _dump(content: dict[str, object]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))
