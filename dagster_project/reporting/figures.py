"""The figures of the evidence page as SVG text, readable with and without colour.

Belongs here: pure functions from plain numbers to one SVG string each, with a title and a description.
Does not belong here: the daily volume, which the Dagster UI shows too (`plots.py`), and computing the numbers.

Colours are the page's custom properties; lines and words take the colour of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from dagster_project.reporting import words
from dagster_project.reporting.evidence import Number

WIDTH = 720
LABEL, ROW = 190, 30
# Room for the number at the end of a bar.
ENDING = 175


@dataclass(frozen=True)
class Bar:
    """One bar: its label, its number, and whether the page is about it."""

    label: str
    number: Number
    strong: bool = False


def bars_svg(
    bars: Sequence[Bar], title: str, description: str, least: float = -0.5, prefix: str = "bars", label: int = LABEL
) -> str:
    """Horizontal bars from zero with their intervals. Values below `least` are cut off, with a mark.

    The numbers are shares (0.12 is written 12%). An unknown number is written 'too few'.
    """
    ends = [end for bar in bars for end in (bar.number.value, bar.number.low, bar.number.high) if end is not None]
    bottom = max(least, min([0.0, *ends]))
    top = max([0.05, *ends])
    bottom = -_step(-bottom) if bottom < 0 else 0.0
    top = _step(top)
    height = ROW * len(bars) + 30
    left, right = label, WIDTH - ENDING

    def x(value: float) -> float:
        return round(left + (min(max(value, bottom), top) - bottom) / (top - bottom) * (right - left), 1)

    parts = [_open(WIDTH, height, title, description, prefix)]
    for tick in _ticks(bottom, top):
        parts.append(
            f'<line x1="{x(tick)}" x2="{x(tick)}" y1="4" y2="{height - 26}" class="{"axis" if tick == 0 else "grid"}"/>'
            f'<text x="{x(tick)}" y="{height - 10}" text-anchor="middle" class="small">{words.percent(tick)}</text>'
        )
    for i, bar in enumerate(bars):
        middle = ROW * i + 4 + ROW / 2
        kind = "strong" if bar.strong else "plain"
        name = escape(words.short(bar.label, (label - 10) // 7))
        parts.append(f'<text x="{label - 10}" y="{middle + 4}" text-anchor="end" class="label {kind}">{name}</text>')
        value, low, high = bar.number.value, bar.number.low, bar.number.high
        if value is None:
            parts.append(f'<text x="{x(0) + 6}" y="{middle + 4}" class="small">{words.TOO_FEW}</text>')
            continue
        start, end = sorted((x(0), x(value)))
        cut = value < bottom
        parts.append(
            f'<rect x="{start}" y="{middle - 8}" width="{max(end - start, 1):.1f}" height="16" rx="2" '
            f'class="bar {kind}"/>'
        )
        if cut:
            parts.append(f'<path d="M{left + 10} {middle - 8} l-6 8 l6 8" class="torn"/>')
        elif low is not None and high is not None:
            parts.append(_whisker(x(low), x(high), middle))
        ending = words.percent(value) + (f" ({words.percent_interval(low, high)})" if low is not None else "")
        parts.append(f'<text x="{right + 12}" y="{middle + 4}" class="small {kind}">{ending}</text>')
    return "".join([*parts, "</svg>"])


def reliability_svg(rows: Sequence[dict], title: str, description: str) -> str:
    """Forecast (x) against observed share (y), with intervals, and the number of alerts in each bin.

    rows : mean_forecast, acted_share, low, high (None: too few), alerts. Perfect calibration is on the diagonal.
    """
    size, left, top, counts = 340, 58, 14, 54
    width, height = 480, top + size + counts + 58
    ends = [row[name] for row in rows for name in ("mean_forecast", "acted_share", "high") if words.known(row[name])]
    reach = min(1.0, _step(max([0.1, *ends])))
    most = max([1, *(int(row["alerts"]) for row in rows)])

    def x(value: float) -> float:
        return round(left + value / reach * size, 1)

    def y(value: float) -> float:
        return round(top + size - value / reach * size, 1)

    floor = top + size + counts + 16
    parts = [_open(width, height, title, description, "reliability")]
    for tick in _ticks(0.0, reach):
        parts.append(
            f'<line x1="{x(tick)}" x2="{x(tick)}" y1="{top}" y2="{top + size}" class="grid"/>'
            f'<line x1="{left}" x2="{left + size}" y1="{y(tick)}" y2="{y(tick)}" class="grid"/>'
            f'<text x="{left - 8}" y="{y(tick) + 4}" text-anchor="end" class="small">{words.percent(tick)}</text>'
            f'<text x="{x(tick)}" y="{floor + 16}" text-anchor="middle" class="small">{words.percent(tick)}</text>'
        )
    parts.append(f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(reach)}" y2="{y(reach)}" class="diagonal"/>')
    for row in rows:
        at = x(row["mean_forecast"])
        tall = round(counts * int(row["alerts"]) / most, 1)
        parts.append(
            f'<rect x="{at - 5:.1f}" y="{floor - tall:.1f}" width="10" height="{tall}" class="bar plain">'
            f"<title>{words.count(row['alerts'])} alerts</title></rect>"
        )
        if not words.known(row["acted_share"]):
            continue
        if words.known(row["low"]) and words.known(row["high"]):
            parts.append(
                f'<path d="M{at} {y(row["low"])} V{y(row["high"])} M{at - 4:.1f} {y(row["low"])} h8 '
                f'M{at - 4:.1f} {y(row["high"])} h8" class="whisker"/>'
            )
        label = (
            f"forecast {words.percent(row['mean_forecast'], 1)}, observed {words.percent(row['acted_share'], 1)}, "
            f"{words.count(row['alerts'])} alerts"
        )
        parts.append(
            f'<circle cx="{at}" cy="{y(row["acted_share"])}" r="5" class="dot"><title>{escape(label)}</title></circle>'
        )
    parts.append(
        f'<text x="{left + size / 2}" y="{height - 6}" text-anchor="middle" class="small">'
        "forecast; the bars count alerts</text>"
        f'<text transform="translate(14 {top + size / 2}) rotate(-90)" text-anchor="middle" class="small">'
        "observed share acted on</text>"
        f'<text x="{left + size + 8}" y="{y(reach) + 4}" class="small">ideal</text>'
    )
    return "".join([*parts, "</svg>"])


def _open(width: int, height: int, title: str, description: str, prefix: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-labelledby="{prefix}-title {prefix}-desc" class="figure">'
        f'<title id="{prefix}-title">{escape(title)}</title><desc id="{prefix}-desc">{escape(description)}</desc>'
    )


def _whisker(low: float, high: float, y: float) -> str:
    return f'<path d="M{low} {y} H{high} M{low} {y - 4} v8 M{high} {y - 4} v8" class="whisker"/>'


def _step(value: float) -> float:
    """The value rounded up to a tenth, or to a twentieth below a fifth."""
    unit = 0.05 if value < 0.2 else 0.1
    return round(math.ceil(value / unit - 1e-9) * unit, 10)


def _ticks(bottom: float, top: float) -> list[float]:
    span = top - bottom
    unit = next(u for u in (0.05, 0.1, 0.2, 0.5, 1.0) if span / u <= 7 or u == 1.0)
    first = math.ceil(bottom / unit - 1e-9)
    return [round(i * unit, 10) + 0.0 for i in range(first, math.floor(top / unit + 1e-9) + 1)]
