"""Times as systems write them, as ISO 8601: any common form, one day-month order per column, zones.

Belongs here: reading one text as a time, and the evidence for the order of day and month.
Does not belong here: which column is a time (`spec.py`). Times of plain files, which are ISO 8601, are read by dbt's
staging models.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from dagster_project.errors import HeedError
from dagster_project.loading.contract import shown

DAY_FIRST, MONTH_FIRST, ISO, EPOCH = "day-first", "month-first", "iso", "epoch"
NAMED = (DAY_FIRST, MONTH_FIRST, ISO, EPOCH)

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            *("jan january", "feb february", "mar march", "apr april", "may", "jun june", "jul july", "aug august"),
            *("sep sept september", "oct october", "nov november", "dec december"),
        ),
        1,
    )
    for name in names.split()
}
_ZONE = r"Z|(?:UTC|GMT)?\s?[+-]\d{1,2}(?::?\d{2})?|[A-Z]{2,5}"
_CLOCK = (
    r"(?P<hour>\d{1,2})[:h](?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,:](?P<fraction>\d{1,9}))?)?"
    rf"(?:\s?(?P<half>[AaPp])\.?[Mm]\.?)?(?:\s?(?P<zone>{_ZONE}))?(?:\s\([^)]*\))?"
)
_GAP = r"(?:\s?[T,@]\s?|,?\s+at\s+|\s+|\s-\s|:)"
_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,?\s+)?"
_YEAR = r"(?P<year>\d{4}|\d{2})"
_MONTH = r"(?P<name>[A-Za-z]{3,9})\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_SHAPES = tuple(
    (name, re.compile(rf"{_WEEKDAY}{pattern}", re.ASCII))
    for name, pattern in (
        ("iso", rf"(?P<year>\d{{4}})[-/.](?P<month>\d{{1,2}})[-/.](?P<day>\d{{1,2}})(?:{_GAP}{_CLOCK})?"),
        ("numbers", rf"(?P<one>\d{{1,2}})(?P<mark>[-/.])(?P<two>\d{{1,2}})(?P=mark){_YEAR}(?:{_GAP}{_CLOCK})?"),
        ("named", rf"{_DAY}[-/ .]\s?{_MONTH}[-/ .,]\s?{_YEAR}(?:{_GAP}{_CLOCK})?"),
        ("named", rf"{_MONTH}[-/ ]{_DAY},?[-/ ]{_YEAR}(?:{_GAP}{_CLOCK})?"),
        ("named", rf"{_MONTH}\s+{_DAY}\s+{_CLOCK}\s+(?P<year>\d{{4}})"),
        ("compact", r"(?P<year>\d{4})(?P<month>\d{2})(?P<day>\d{2})(?:[T_-]?(?P<hour>\d{2})(?P<minute>\d{2})"
         rf"(?P<second>\d{{2}})(?:[.](?P<fraction>\d{{1,9}}))?(?P<zone>{_ZONE})?)?"),
    )
)  # fmt: skip
_EPOCH = re.compile(r"(\d{9,10}|\d{13}|\d{16}|\d{19})(?:[.](\d{1,9}))?", re.ASCII)
_EPOCH_UNITS = {9: 1, 10: 1, 13: 10**3, 16: 10**6, 19: 10**9}
_OFFSET = re.compile(r"(?:UTC|GMT)?\s?([+-])(\d{1,2}):?(\d{2})?")
_ZONE_IN_NAME = re.compile(r"[\s_]*[\[(_ ](?:UTC|GMT|Z)[\])]?$", re.IGNORECASE)
# What a mapping is most likely to need, for the remedy.
_COMMON = (
    *("%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z", "%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"),
    *("%Y-%m-%d %I:%M:%S %p", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M"),
    *("%d-%m-%Y %H:%M:%S", "%m-%d-%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%m-%d-%Y %H:%M", "%d.%m.%Y %H:%M:%S"),
    *("%d.%m.%Y %H:%M", "%d/%b/%y %I:%M %p", "%d/%b/%Y %H:%M", "%m/%d/%Y, %I:%M:%S.%f %p", "%m/%d/%Y %I:%M:%S %p"),
    *("%m/%d/%Y %I:%M %p", "%b %d, %Y %I:%M %p", "%b %d, %Y @ %H:%M:%S.%f", "%a, %d %b %Y %H:%M:%S %z"),
    *("%a %b %d %H:%M:%S %Y", "%Y%m%d%H%M%S", "%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y"),
)


@dataclass(frozen=True)
class TimeRule:
    """How a column's times are written.

    Attributes
    ----------
    formats : strptime formats or names of `NAMED`, tried in turn; empty: any form, and the file settles the order of
        day and month. zone : of times without an offset; empty: what heed.toml says. hour : HH:MM for days without a
        time; empty: such a day is no moment.
    """

    formats: tuple[str, ...] = ()
    zone: str = ""
    hour: str = ""


def zone_named(name: str) -> tzinfo:
    """A zone of the IANA database, UTC, or an offset like +02:00.

    Raises
    ------
    HeedError
        There is none of this name.
    """
    if name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    if match := _OFFSET.fullmatch(name):
        return _offset(match)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise HeedError(f"there is no time zone {shown(name)}", "name one like Europe/Berlin, UTC or +02:00") from error


def _offset(match: re.Match[str]) -> timezone:
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    return timezone(timedelta(minutes=-minutes if match[1] == "-" else minutes))


def zone_in_name(column: str) -> str:
    """UTC where a column's name says so, as in "ClosedTime [UTC]"; else empty."""
    return "UTC" if _ZONE_IN_NAME.search(column) else ""


def formats_that_fit(text: str) -> list[str]:
    """What would read a text, for people who write a mapping: strptime formats, or names of `NAMED`."""
    fits = [form for form in _COMMON if _by_format(text, form) is not None][:3]
    if not fits and _EPOCH.fullmatch(text):
        return [EPOCH]
    shape = _shape(text)
    if not fits and shape is not None:
        return [DAY_FIRST, MONTH_FIRST] if shape[0] == "numbers" else [ISO] if shape[0] == "iso" else []
    return fits


def is_time(text: str) -> bool:
    """Whether a text looks like a time in any form that heed reads."""
    return _EPOCH.fullmatch(text) is not None or _any_order(text)


def _any_order(text: str) -> bool:
    return any(_parts(text, order) is not None for order in (DAY_FIRST, MONTH_FIRST))


@lru_cache(maxsize=1 << 14)
def _shape(text: str) -> tuple[str, dict[str, Any]] | None:
    for name, pattern in _SHAPES:
        if match := pattern.fullmatch(text):
            return name, match.groupdict()
    return None


@dataclass(frozen=True)
class _Parts:
    clock: datetime  # without a zone
    has_time: bool
    zone: str


@lru_cache(maxsize=1 << 16)
def _parts(text: str, order: str) -> _Parts | None:
    if epoch := _EPOCH.fullmatch(text):
        unit = _EPOCH_UNITS[len(epoch[1])]
        whole, rest = divmod(int(epoch[1]), unit)
        micro = rest * 10**6 // unit if unit > 1 else int((epoch[2] or "0").ljust(6, "0")[:6])
        return _Parts(datetime.fromtimestamp(whole, UTC).replace(tzinfo=None, microsecond=micro), True, "UTC")
    shape = _shape(text)
    if shape is None:
        return None
    name, got = shape
    if name == "numbers":
        first, second = int(got["one"]), int(got["two"])
        day, month = (second, first) if order == MONTH_FIRST else (first, second)
    elif name == "named":
        month, day = _MONTHS.get(got["name"].lower(), 0), int(got["day"])
    else:
        month, day = int(got["month"]), int(got["day"])
    year = int(got["year"])
    year += 2000 if year < 100 else 0
    hour, half = int(got.get("hour") or 0), (got.get("half") or "").lower()
    if half:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if half == "p" else 0)
    micro = int((got.get("fraction") or "0").ljust(6, "0")[:6])
    try:
        clock = datetime(year, month, day, hour, int(got.get("minute") or 0), int(got.get("second") or 0), micro)
    except ValueError:
        return None
    return _Parts(clock, got.get("hour") is not None, (got.get("zone") or "").strip())


@lru_cache(maxsize=1 << 16)
def _by_format(text: str, form: str) -> _Parts | None:
    # strptime reads six digits of a second; Microsoft writes seven.
    trimmed = re.sub(r"([.]\d{6})\d+", r"\1", text) if "%f" in form else text
    try:
        moment = datetime.strptime(trimmed, form)
    except (ValueError, re.error):
        return None
    has_time = any(code in form for code in ("%H", "%I", "%X", "%c", "%s"))
    if moment.tzinfo is not None:
        return _Parts(moment.astimezone(UTC).replace(tzinfo=None), has_time, "UTC")
    return _Parts(moment, has_time, "Z" if form.endswith("Z") and not form.endswith("%Z") else "")


@dataclass
class TimeColumn:
    """The times of one column: evidence first, then reading.

    Attributes
    ----------
    order : which number of 05/01/2026 is the day; "" until the evidence or a mapping settles it.
    only : order -> values that have only this one. open : values that have both. example : the first of those.
    unread : values that are no time by the rule; first_unread : (row, value). days : values without a time of day.
    twice, never : local times that the change of the clock gives two moments, or none.
    """

    name: str
    rule: TimeRule
    order: str = ""
    only: Counter[str] = field(default_factory=Counter)
    open: int = 0
    example: str = ""
    read: int = 0
    unread: int = 0
    first_unread: tuple[int, str] = (0, "")
    days: int = 0
    first_day: str = ""
    twice: int = 0
    never: int = 0
    _zone: tzinfo | None = None
    _cache: dict[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._zone = zone_named(self.rule.zone) if self.rule.zone else None
        self._hour = time.fromisoformat(self.rule.hour) if self.rule.hour else None
        named = [form for form in self.rule.formats if form in (DAY_FIRST, MONTH_FIRST)]
        self.order = named[0] if len(named) == 1 else self.order

    def settles(self) -> bool:
        """Whether the file has to settle something."""
        return not self.order and (not self.rule.formats or any(form in NAMED for form in self.rule.formats))

    def observe(self, text: str) -> None:
        """Count one value as evidence for the order of day and month."""
        shape = _shape(text)
        if shape is None or shape[0] != "numbers":
            return
        one, two, mark = int(shape[1]["one"]), int(shape[1]["two"]), shape[1]["mark"]
        if one > 12 >= two:
            self.only[DAY_FIRST] += 1
        elif two > 12 >= one:
            self.only[MONTH_FIRST] += 1
        elif mark == ".":  # no country writes months first with points
            self.only[DAY_FIRST] += 1
        elif one != two:
            self.open += 1
            self.example = self.example or text

    def own_order(self) -> str:
        """The order that this column's values settle; "" where they settle none or contradict each other."""
        orders = [order for order in (DAY_FIRST, MONTH_FIRST) if self.only[order]]
        return orders[0] if len(orders) == 1 else ""

    def iso(self, text: str, row: int) -> str:
        """A value as ISO 8601: in UTC with Z, or as local time without offset. What is no time comes back as it is."""
        if text in self._cache:
            result = self._cache[text]
        else:
            result = self._iso(text)
            if len(self._cache) < 1 << 16:
                self._cache[text] = result
        if result is not None:
            self.read += 1
            return result
        self.unread += 1
        if self.unread == 1:
            self.first_unread = (row, text)
        return text

    def _iso(self, text: str) -> str | None:
        parts = self._read(text)
        if parts is None:
            return None
        clock = parts.clock
        if not parts.has_time:
            self.days += 1
            self.first_day = self.first_day or text
            if self._hour is None:
                return None
            clock = datetime.combine(clock.date(), self._hour)
        moment = self._placed(clock, parts.zone)
        if moment is None:
            return None
        written = moment.isoformat()
        return written.replace("+00:00", "Z")

    def _read(self, text: str) -> _Parts | None:
        if not self.rule.formats:
            return self._in_any_form(text)
        for form in self.rule.formats:
            if form not in NAMED:
                parts = _by_format(text, form)
            elif form == EPOCH:
                parts = _parts(text, "") if _EPOCH.fullmatch(text) else None
            elif form == ISO:
                shape = _shape(text)
                parts = _parts(text, "") if shape is not None and shape[0] in ("iso", "compact") else None
            else:
                parts = _parts(text, form) if self.order in ("", form) else None
            if parts is not None:
                return parts
        return None

    def _in_any_form(self, text: str) -> _Parts | None:
        order = self.order
        shape = None if order else _shape(text)
        is_open = shape is not None and shape[0] == "numbers" and shape[1]["one"] != shape[1]["two"]
        if is_open and shape is not None and shape[1]["mark"] != ".":
            # No order is known: only what has a single meaning is read.
            readings = [parts for order in (DAY_FIRST, MONTH_FIRST) if (parts := _parts(text, order)) is not None]
            return readings[0] if len(readings) == 1 else None
        return _parts(text, order or DAY_FIRST)

    def _placed(self, clock: datetime, zone: str) -> datetime | None:
        """A local time in UTC, or without a zone where none is known; None where an abbreviation is unknown."""
        if zone.upper() in ("Z", "UTC", "GMT"):
            return clock.replace(tzinfo=UTC)
        if match := _OFFSET.fullmatch(zone):
            return clock.replace(tzinfo=_offset(match)).astimezone(UTC)
        if self._zone is None:
            return None if zone else clock
        early, late = clock.replace(tzinfo=self._zone, fold=0), clock.replace(tzinfo=self._zone, fold=1)
        if zone:  # CET, EDT: good where the column's zone has it at that time
            return next((m.astimezone(UTC) for m in (early, late) if m.tzname() == zone), None)
        before, after = early.utcoffset(), late.utcoffset()
        if before is not None and after is not None and before != after:
            if before > after:
                self.twice += 1
            else:
                self.never += 1
            # As PostgreSQL does: the later of two moments, an hour later where there is none.
            return (late if before > after else early).astimezone(UTC)
        return early.astimezone(UTC)


def settle(columns: list[TimeColumn], file: str, kind: str) -> None:
    """Decide the order of day and month for each column: its own evidence, else that of the file's other columns.

    Raises
    ------
    HeedError
        Nothing in the file settles it.
    """
    known = {order for column in columns if (order := column.own_order())}
    shared = known.pop() if len(known) == 1 else ""
    for column in columns:
        if not column.settles():
            continue
        column.order = column.own_order()
        if column.order or not (column.open or column.only):
            continue
        if column.only:
            raise HeedError(
                f"{column.name} of {file} has {column.only[DAY_FIRST]:,} times that can only have the day first and "
                f"{column.only[MONTH_FIRST]:,} that can only have the month first",
                "the file mixes two formats: export it in one, best as 2026-05-01T08:00:00Z",
            )
        column.order = shared
        if not column.order:
            raise HeedError(
                f"{column.name} of {file} may have the day or the month first: {column.open:,} values such as "
                f"{shown(column.example)} fit both, and no value decides",
                f'write time_format = "{DAY_FIRST}" or time_format = "{MONTH_FIRST}" under [{kind}] in the mapping, or '
                f"give --time-format {DAY_FIRST} or {MONTH_FIRST}",
            )
