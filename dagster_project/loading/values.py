"""Cells as a mapping and a file's own conventions define them: joined ids, empty texts, decimal commas.

Belongs here: changes of a cell's text that are needed before rows are compared, each for a whole column at a time.
Does not belong here: types (dbt's staging models read them), and which column is what (`columns.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

# What staging trims from every text (`raw_text` in dbt_project/macros/raw_columns.sql).
BLANKS = " \t\r\n\f\x0b"
JOINT = "|"

_SIGN = "^[-+]?"
# "1 234" and "1'234": blanks and apostrophes only ever separate thousands.
_SPACED = _SIGN + r"[0-9]{1,3}(?:[ '’\x{a0}\x{202f}][0-9]{3})+(?:[.,][0-9]+)?$"
_SPACES = r"[ '’\x{a0}\x{202f}]"


def _settles(decimal: str, thousands: str) -> str:
    """The pattern of cells that can be read in one way only: with this decimal sign and this thousands separator."""
    d, t = f"[{decimal}]", f"[{thousands}]"
    return (
        f"{_SIGN}(?:"
        f"[0-9]+{d}(?:[0-9]{{1,2}}|[0-9]{{4,}})"  # 7,5 and 1,2345: thousands have three digits
        f"|(?:0[0-9]*|[0-9]{{4,}}){d}[0-9]+"  # 0,123 and 1234,567: no thousands begin so
        f"|[0-9]{{1,3}}(?:{t}[0-9]{{3}})+{d}[0-9]+"  # 1.234,5
        f"|[0-9]{{1,3}}(?:{t}[0-9]{{3}}){{2,}}"  # 1.234.567
        ")$"
    )


_SETTLES = {",": _settles(",", "."), ".": _settles(".", ",")}
# 1.234 and 1,234 are a thousand or one, and the cell does not say which.
_OPEN = {".": _SIGN + r"[1-9][0-9]{0,2}[.][0-9]{3}$", ",": _SIGN + r"[1-9][0-9]{0,2},[0-9]{3}$"}
# Cells that a convention changes.
_SEPARATED = _SIGN + r"[0-9][0-9.]*,[0-9][0-9.,]*$|" + _SIGN + r"[0-9]{1,3}(?:[.][0-9]{3}){2,}$"
_COMMA = _SIGN + r"(?:[0-9]{1,3}(?:[.][0-9]{3})+(?:,[0-9]+)?|[0-9]+,[0-9]+)$"
_GROUPS = _SIGN + r"[0-9]{1,3}(?:,[0-9]{3})+(?:[.][0-9]+)?$"


def trimmed(texts: pa.Array) -> pa.Array:
    """A string array as staging trims it: without outer blanks, null where nothing is left."""
    bare = pc.utf8_trim(texts, BLANKS)
    return pc.if_else(pc.equal(bare, ""), pa.scalar(None, pa.string()), bare)


def joined(parts: list[pa.Array]) -> pa.Array:
    """One id of several columns: the parts, trimmed, with | between them; null where a part is empty.

    Two different lists of parts never give the same id: a | within a part is written \\|, and a \\ is written \\\\.
    """
    escaped = []
    for part in parts:
        texts = pc.replace_substring(trimmed(part), "\\", "\\\\")
        escaped.append(pc.replace_substring(texts, JOINT, "\\" + JOINT))
    return pc.binary_join_element_wise(*escaped, JOINT)


def emptied(texts: pa.Array, empty: Iterable[str]) -> pa.Array:
    """A string array in which the named texts, with or without outer blanks, are null."""
    is_empty = pc.is_in(pc.utf8_trim(texts, BLANKS), pa.array(list(empty), pa.string()))
    return pc.if_else(is_empty, pa.scalar(None, pa.string()), texts)


@dataclass
class NumberEvidence:
    """How the texts of one number column are written.

    Attributes
    ----------
    settled : "," and "." -> cells that can only be read with this decimal sign.
    ambiguous : "," and "." -> cells that have this sign once, before three digits: thousands or decimals.
    separated : cells with something else than digits, sign and point: what a convention may change.
    examples : the first such cell of each; keys "settled ,", "ambiguous .", and so on.
    """

    settled: Counter[str] = field(default_factory=Counter)
    ambiguous: Counter[str] = field(default_factory=Counter)
    separated: int = 0
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, texts: pa.Array) -> None:
        """Count the cells of a string array."""
        texts = pc.utf8_trim(texts, BLANKS)
        bare = _without_spaces(texts)
        separated = pc.or_(pc.match_substring_regex(bare, _SEPARATED), pc.match_substring_regex(texts, _SPACED))
        self.separated += int(pc.sum(separated).as_py() or 0)
        for name, counts, patterns in (("settled", self.settled, _SETTLES), ("ambiguous", self.ambiguous, _OPEN)):
            for sign, pattern in patterns.items():
                cells = bare.filter(pc.fill_null(pc.match_substring_regex(bare, pattern), False))
                if len(cells):
                    counts[sign] += len(cells)
                    self.examples.setdefault(f"{name} {sign}", cells[0].as_py())

    def decimal(self) -> str | None:
        """The decimal sign that the cells settle; None where they settle none or contradict each other."""
        signs = [sign for sign in ",." if self.settled[sign]]
        return signs[0] if len(signs) == 1 else None

    def contradictory(self) -> bool:
        """Whether some cells can only have decimal commas and others only decimal points."""
        return bool(self.settled[","] and self.settled["."])


def decimals(evidence: dict[str, NumberEvidence]) -> dict[str, str]:
    """Column -> decimal sign. A column decides by its own cells, else by those of the file's other number columns."""
    known = {sign for column in evidence.values() if (sign := column.decimal())}
    shared = known.pop() if len(known) == 1 else None
    chosen = {}
    for name, column in evidence.items():
        sign = column.decimal() or (None if column.contradictory() else shared)
        if sign is None and column.separated and not column.contradictory() and not column.ambiguous[","]:
            sign = "."  # only blanks between thousands
        if sign == "," or (sign == "." and column.separated):
            chosen[name] = sign
    return chosen


def plain_numbers(texts: pa.Array, decimal: str) -> pa.Array:
    """Numbers written with this decimal sign, and with thousands separators or not, as staging reads them: 1234.5.

    Other cells stay as they are.
    """
    bare = _without_spaces(pc.utf8_trim(texts, BLANKS))
    pattern, thousands = (_COMMA, ".") if decimal == "," else (_GROUPS, ",")
    plain = pc.replace_substring(pc.replace_substring(bare, thousands, ""), ",", ".")
    is_spaced = pc.match_substring_regex(pc.utf8_trim(texts, BLANKS), _SPACED)
    return pc.if_else(pc.match_substring_regex(bare, pattern), plain, pc.if_else(is_spaced, bare, texts))


def _without_spaces(texts: pa.Array) -> pa.Array:
    is_spaced = pc.match_substring_regex(texts, _SPACED)
    if not pc.any(is_spaced).as_py():
        return texts
    return pc.if_else(is_spaced, pc.replace_substring_regex(texts, _SPACES, ""), texts)
