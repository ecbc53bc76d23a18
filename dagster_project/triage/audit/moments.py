"""Texts that hold times: which columns do, and which times they are, in the formats of any country.

Belongs here: the forms of dates and times that exports use. Does not belong here: times of the contract, which loading
reads with the source's own settings and never guesses.

An audit may guess, since it only asks whether a time is after the raise: when two readings fit (day or month first), it
takes the one closer to the raise.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import product

import numpy as np
import pandas as pd

_DATES = (
    *("%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d"),
    *("%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d.%m.%y", "%d-%m-%y"),
    *("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y", "%d %b %y", "%d %B %y", "%Y %b %d"),
)
_TIMES = (
    *("", "%H:%M:%S", "%H:%M", "%H:%M:%S.%f", "%I:%M:%S %p", "%I:%M %p", "%I:%M:%S.%f %p", "%H.%M", "%H.%M.%S"),
    *("%H%M%S", "%H:%M:%S,%f"),
)
_OTHERS = ("%b %d %H:%M:%S %Y", "%Y%m%d%H%M%S", "%Y%m%d%H%M")  # as C and Unix write it, and without any separator
_WEEKDAY = re.compile(r"\b(mon|tue|wed|thu|fri|sat|sun)[a-z]*\b[.,]?\s*", re.IGNORECASE)
_ZONE = re.compile(r"\s*(z|utc|gmt|[a-z]{3,4}(?<![ap]m))$", re.IGNORECASE)
_UNIVERSAL = re.compile(r"\b(utc|gmt)\b", re.IGNORECASE)
_OFFSET = re.compile(r"\s*(?:utc|gmt)?\s*([+-]\d\d):?(\d\d)?$", re.IGNORECASE)
_MERIDIEM = re.compile(r"\s*\b([ap])\.?\s?m\b\.?", re.IGNORECASE)
_MONTH_NAMES = re.compile(r"(?<=\d)[-/.](?=[a-z]{3})|(?<=[a-z])[-/.](?=\d)", re.IGNORECASE)
_ORDINAL = re.compile(r"(?<=\d)(st|nd|rd|th)\b", re.IGNORECASE)
_LOOKS = re.compile(
    r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\b\d{8}|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\b.*\d",
    re.IGNORECASE,
)
# What each directive of a form can stand for. Less strict than parsing: it only spares most forms the parsing.
_DIRECTIVES = {
    "%Y": r"\d{4}",
    **dict.fromkeys(("%y", "%m", "%d", "%H", "%I", "%M", "%S"), r"\d{1,2}"),
    "%f": r"\d+",
    **dict.fromkeys(("%b", "%B", "%p"), r"[^\W\d_]+"),
}
SAMPLE = 200
ENOUGH = 0.9


def read_moments(texts: np.ndarray, near: pd.Series) -> pd.Series | None:
    """The moments that texts name, or None where fewer than 90% of the texts name any.

    texts : str or None per alert. near : when each alert was raised (datetime, UTC).
    Returns: datetime64[us, UTC] per alert, NaT where there is none. Texts without an offset are read as UTC. Accepted:
        year, day or month first, with slashes, dots, dashes or blanks; month names and weekdays in English; 12- and
        24-hour clocks; fractions; offsets.
    """
    codes, distinct_texts = pd.factorize(np.asarray(texts, dtype=object))
    readable = np.array([isinstance(t, str) and bool(t.strip()) for t in distinct_texts], dtype=bool)
    distinct = distinct_texts[readable]
    if not len(distinct):
        return None
    sample = distinct[:: max(1, len(distinct) // SAMPLE)][:SAMPLE]
    if np.mean([bool(_LOOKS.search(t)) and len(t) <= 60 for t in sample]) < ENOUGH:
        return None
    plain, _ = _plain(sample)
    # Of a form that reads enough of the sample, one of the first texts beyond the tolerated share can be read.
    first = plain.iloc[: int(len(plain) * (1 - ENOUGH)) + 1]
    possible = [form for form, pattern in _patterns().items() if any(map(pattern.fullmatch, first))]
    forms = [form for form in possible if _parsed(plain, form).notna().mean() >= ENOUGH]
    if not forms:
        return None
    codes = np.append(np.where(readable, np.cumsum(readable) - 1, -1), -1)[codes]
    present = codes >= 0
    plain, offsets = _plain(distinct)
    raised = near.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    best: tuple[float, np.ndarray] | None = None
    for form in forms:
        moments = (_parsed(plain, form) - offsets).to_numpy().astype("datetime64[us]")
        mine = np.where(codes >= 0, moments[codes], np.datetime64("NaT"))
        away = np.abs((mine - raised) / np.timedelta64(1, "s"))[present]
        missing = float(np.isnan(away).mean())
        if missing > 1 - ENOUGH:
            continue
        distance = float(np.nanmedian(away)) * (1 + 10 * missing)
        if best is None or distance < best[0]:
            best = (distance, mine)
    return None if best is None else pd.Series(best[1]).dt.tz_localize("UTC")


@cache
def _patterns() -> dict[str, re.Pattern[str]]:
    """A pattern that each form's texts match, and few others."""

    def pattern(form: str) -> str:
        parts = re.split(r"(%[a-zA-Z])", form)
        return "".join(_DIRECTIVES.get(part, re.escape(part)) for part in parts)

    return {form: re.compile(pattern(form), re.IGNORECASE) for form in _forms()}


def _forms() -> list[str]:
    dated = [f"{date} {time}".strip() for date, time in product(_DATES, _TIMES)]
    return [*dated, *(f"{time} {date}" for date, time in product(_DATES, _TIMES) if time), *_OTHERS]


def _parsed(plain: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(plain, format=form, errors="coerce").astype("datetime64[us]")


def _plain(texts: np.ndarray) -> tuple[pd.Series, pd.Series]:
    """The texts without weekday, zone and ornaments; and their offsets from UTC."""
    stripped, offsets = [], []
    for text in texts:
        plain = _WEEKDAY.sub("", text.strip())
        minutes = 0
        # An offset follows a time of day; in 01-02-2025 the last dash belongs to the date.
        if ":" in plain and (offset := _OFFSET.search(plain)):
            sign = -1 if offset[1].startswith("-") else 1
            minutes = sign * (60 * int(offset[1][1:]) + int(offset[2] or 0))
            plain = plain[: offset.start()]
        plain = _MERIDIEM.sub(lambda m: f" {m[1].upper()}M", plain.removesuffix("]"))
        if not plain.endswith(("AM", "PM")):
            plain = _ZONE.sub("", plain) if any(c.isdigit() for c in plain[-8:]) else plain
        plain = _UNIVERSAL.sub("", plain)
        plain = _ORDINAL.sub("", _MONTH_NAMES.sub(" ", plain))
        plain = re.sub(r"(?<=\d)T(?=\d)", " ", plain).replace(", ", " ").replace(" at ", " ")
        stripped.append(" ".join(plain.replace("[", " ").split()))
        offsets.append(minutes)
    return pd.Series(stripped, dtype="str"), pd.Series(pd.to_timedelta(offsets, unit="min"))
