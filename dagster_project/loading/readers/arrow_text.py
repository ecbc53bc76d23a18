"""Arrow values as text and as JSON: column at a time where Arrow can, value by value where it cannot.

Belongs here: how a typed value is written (times ISO 8601, numbers shortest, nested values JSON), and what text the
warehouse could not hold.
Does not belong here: which column is what (`loading/columns.py`).
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as t


@dataclass(frozen=True)
class NotJson:
    """Why a text is not JSON that PostgreSQL can hold."""

    reason: str


def parse_json(text: str, *, nan: bool = False) -> Any | NotJson:
    """The value of a JSON text, or why it is none that jsonb could hold: jsonb refuses NUL and half surrogates.

    nan : accept NaN, which Python and pandas write for an empty cell.
    """
    try:
        value = (_NAN_DECODER if nan else _DECODER).decode(text)
    except _BeyondRange:
        return NotJson("a number beyond double precision")
    except _Twice as error:
        return NotJson(f"the name {str(error)[:60]!r} twice in one object")
    except (ValueError, RecursionError):
        return NotJson("not JSON")
    return (_trouble(value) or value) if "\\u" in text else value


class _BeyondRange(ValueError):
    pass


class _Twice(ValueError):
    pass


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Python would keep the last value of a name that occurs twice, and silently drop the others."""
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        raise _Twice(next(name for name, _ in pairs if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
    return content


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _BeyondRange(text)
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _only_nan(name: str) -> None:
    if name != "NaN":
        raise ValueError(f"{name} is not JSON")


# Made once: json.loads with an option makes a decoder for every call, which takes ten times as long.
_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object)
_NAN_DECODER = json.JSONDecoder(parse_constant=_only_nan, parse_float=_finite, object_pairs_hook=_object)


def _trouble(value: Any) -> NotJson | None:
    if isinstance(value, str):
        if "\0" in value:
            return NotJson("a NUL character")
        try:
            value.encode()
        except UnicodeEncodeError:
            return NotJson("half of a surrogate pair")
    elif isinstance(value, dict):
        return next((trouble for pair in value.items() for one in pair if (trouble := _trouble(one))), None)
    elif isinstance(value, list | tuple):
        return next((trouble for one in value if (trouble := _trouble(one))), None)
    return None


def plain_text(value: Any) -> str | None:
    """One Python value as text: null for None, NaN and the empty text; true and false; nested values as JSON."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float | Decimal):
        return str(value)
    if isinstance(value, dict | list | tuple):
        return json.dumps(_jsonable(value), ensure_ascii=False, separators=(",", ":"))
    return str(_jsonable(value))


def plain_json(value: Any) -> str | None:
    """One Python value as JSON text; null where it is empty."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return json.dumps(_jsonable(value), ensure_ascii=False, separators=(",", ":"))


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _jsonable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(one) for one in value]
    if isinstance(value, date | time):  # a datetime is a date
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return str(value)


def texts_of(values: Sequence[Any]) -> pa.Array:
    """Python values as `plain_text` writes them, as one string array."""
    if {type(value) for value in values} <= {str, type(None)}:
        return as_text(pa.array(values, pa.string()))
    return pa.array([plain_text(value) for value in values], pa.string())


def json_of(values: Sequence[Any]) -> pa.Array:
    """Python values as `plain_json` writes them, as one string array."""
    if {type(value) for value in values} <= {str, type(None)}:
        return as_json(pa.array(values, pa.string()))
    return pa.array([plain_json(value) for value in values], pa.string())


def json_strings(texts: pa.Array) -> pa.Array:
    """A string array as JSON strings, quotes included; null stays null."""
    if len(texts) == 0 or texts.null_count == len(texts):
        return texts
    if pc.any(pc.match_substring_regex(texts, r"[\x01-\x1f]")).as_py():
        values = [None if v is None else json.dumps(v, ensure_ascii=False) for v in texts.to_pylist()]
        return pa.array(values, pa.string())
    escaped = pc.replace_substring(texts, "\\", "\\\\")
    escaped = pc.replace_substring(escaped, '"', '\\"')
    return pc.binary_join_element_wise('"', escaped, '"', "")


def as_text(values: pa.Array) -> pa.Array:
    """A column of any type as text, null where it is empty.

    Times with a zone become ISO 8601 in UTC with Z, times without one carry none; NaN is null; nested values are JSON.
    """
    values = _unwrapped(values)
    kind = values.type
    if t.is_null(kind):
        return pa.nulls(len(values), pa.string())
    if _is_bytes(kind):
        texts = values.cast(pa.string())
        return pc.if_else(pc.equal(pc.binary_length(texts), 0), pa.scalar(None, pa.string()), texts)
    if t.is_floating(kind):
        if t.is_float16(kind):
            values = values.cast(pa.float32())
        return _digits(pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values).cast(pa.string()))
    if t.is_boolean(kind) or t.is_integer(kind) or t.is_decimal(kind) or t.is_date32(kind) or t.is_time(kind):
        return values.cast(pa.string())
    if t.is_date64(kind):
        return values.cast(pa.date32()).cast(pa.string())
    if t.is_timestamp(kind):
        # The integers are UTC already; without the zone the cast needs no time zone database.
        texts = values.cast(pa.timestamp(kind.unit)).cast(pa.string())
        texts = pc.replace_substring(texts, " ", "T", max_replacements=1)
        if kind.unit != "s":
            texts = pc.replace_substring_regex(texts, r"\.?0+$", "")
        return pc.binary_join_element_wise(texts, "Z", "") if kind.tz else texts
    return pa.array([plain_text(value) for value in values.to_pylist()], pa.string())


def _digits(texts: pa.Array) -> pa.Array:
    """Floats as Arrow writes them, without an exponent where all digits are known: 1.7776224e+12 is a time in
    milliseconds, and as an id it would match no other file. Beyond 2^53 digits are lost, and the exponent shows it."""
    if not pc.any(pc.match_substring(texts, "e+")).as_py():
        return texts
    return pa.array([_written_out(text) for text in texts.to_pylist()], pa.string())


def _written_out(text: str | None) -> str | None:
    if text is None or "e+" not in text or abs(number := float(text)) > 2**53:
        return text
    return repr(number).removesuffix(".0")


def as_json(values: pa.Array) -> pa.Array:
    """A column of any type as JSON values (string array), null where it is empty: numbers and booleans stay bare."""
    values = _unwrapped(values)
    kind = values.type
    if t.is_nested(kind):
        return pa.array([plain_json(value) for value in values.to_pylist()], pa.string())
    texts = as_text(values)
    if t.is_integer(kind) or t.is_boolean(kind) or t.is_decimal(kind):
        return texts
    if t.is_floating(kind):
        infinite = pc.is_inf(values.cast(pa.float64()))
        if pc.any(infinite).as_py():
            return pc.if_else(infinite, json_strings(texts), texts)
        return texts
    return json_strings(texts)


def undecodable(values: pa.Array) -> np.ndarray | None:
    """bool[rows]: cells whose text PostgreSQL cannot hold (not UTF-8, or NUL). None when there is none."""
    values = _unwrapped(values)
    kind = values.type
    if t.is_nested(kind):
        mask = np.zeros(len(values), bool)
        for row in range(len(values)):
            try:
                mask[row] = _trouble(values[row].as_py()) is not None
            except UnicodeDecodeError:
                mask[row] = True
        return mask if mask.any() else None
    if not _is_bytes(kind):
        return None
    content = values.cast(pa.binary())
    has_nul = pc.fill_null(pc.match_substring(content, "\0"), False).to_numpy(zero_copy_only=False)
    try:
        content.cast(pa.string()).validate(full=True)
    except pa.ArrowInvalid:
        decodable = [value is None or _decodes(value) for value in content.to_pylist()]
        has_nul = has_nul | ~np.asarray(decodable, bool)
    return has_nul if has_nul.any() else None


def is_text(values: pa.Array) -> bool:
    """Whether a column holds texts (or bytes), not typed values."""
    return _is_bytes(_unwrapped(values).type)


def lenient_value(values: pa.Array, row: int) -> Any:
    """One cell for people to look at, whatever is in it; bytes that are no text as \\xNN."""
    values = _unwrapped(values)
    if _is_bytes(values.type):
        content = values[row].cast(pa.binary()).as_py()
        return None if content is None else content.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    try:
        return _jsonable(values[row].as_py())
    except UnicodeDecodeError:
        return "(not UTF-8)"


def _unwrapped(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if t.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values


def _is_bytes(kind: pa.DataType) -> bool:
    texts = t.is_string, t.is_large_string, t.is_string_view
    binaries = t.is_binary, t.is_large_binary, t.is_binary_view, t.is_fixed_size_binary
    return any(is_one(kind) for is_one in (*texts, *binaries))


def _decodes(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
