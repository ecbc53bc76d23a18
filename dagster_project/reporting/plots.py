"""Figures as SVG text, readable on light and dark pages.

Belongs here: pure functions from frames to one SVG string. Lines and words take the colour of the page's text
(`currentColor`), or a middle grey where there is none to inherit, as in an image. Does not belong here: computing the
numbers, and where a figure is shown.
"""

from __future__ import annotations

import math
from html import escape

import pandas as pd

STATUS_COLOURS = {"confirmed": "#d1495b", "suspected": "#e09f3e", "cleared": "#3a9d6e"}
"""Contrast of at least 3:1 against white and black. Red-green colour-blind readers can distinguish them by lightness
and by the legend."""
WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 48, 12, 26, 24


def volume_svg(band: pd.DataFrame, flood_days: pd.DataFrame) -> str:
    """Alerts per day as bars, the expected volume as a line, its band as an area, flood days in their status's colour.

    band : day (date), alerts, expected, upper (alerts a day; nan: not known), from `triage.flags.floods.daily_band`;
        or the columns of those names of `reporting.exclusion_daily`. Any order.
    flood_days : day (date), status ('confirmed', 'suspected', 'cleared'), scope. If a day has several
        floods, the most serious status colours the bar, and the bar's title names all.
    Returns: One `<svg>` element with a title and no script. All text from the data is escaped.
    """
    rows = band.sort_values("day").to_dict("records")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" color="#808080" '
        'font-family="sans-serif" font-size="11" style="color:var(--heed-ink, currentColor)">',
        "<title>Alerts per day, with the expected band and flood days</title>",
    ]
    if not rows:
        parts.append(
            f'<text x="{WIDTH / 2}" y="{HEIGHT / 2}" text-anchor="middle" fill="currentColor">no alerts</text>'
        )
        return "".join([*parts, "</svg>"])

    first = rows[0]["day"]
    days = (rows[-1]["day"] - first).days + 1
    most = max(max(float(row["alerts"]), *(_number(row[name]) for name in ("expected", "upper"))) for row in rows)
    top = _round_up(most)
    step = (WIDTH - LEFT - RIGHT) / days

    def x(day: object) -> float:
        return round(LEFT + (day - first).days * step, 2)  # type: ignore[operator]

    def y(value: float) -> float:
        return round(HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM), 2)

    flooded: dict[object, list[tuple[str, str]]] = {}
    for flood in flood_days.to_dict("records"):
        flooded.setdefault(flood["day"], []).append((str(flood["status"]), str(flood["scope"])))

    for value in (0, top / 2, top):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value)}" y2="{y(value)}" stroke="currentColor" '
            f'stroke-opacity="0.25"/><text x="{LEFT - 6}" y="{y(value) + 4}" text-anchor="end" '
            f'fill="currentColor">{value:,.0f}</text>'
        )
    for run in _runs(rows):
        edge = " ".join(f"{x(row['day']) + step / 2:.2f},{y(float(row['upper']))}" for row in run)
        floor = f"{x(run[-1]['day']) + step / 2:.2f},{y(0)} {x(run[0]['day']) + step / 2:.2f},{y(0)}"
        parts.append(f'<polygon points="{edge} {floor}" fill="currentColor" fill-opacity="0.12"/>')
    for row in rows:
        floods = flooded.get(row["day"], [])
        status = next((name for name in STATUS_COLOURS if any(name == s for s, _ in floods)), None)
        colour, opacity = (STATUS_COLOURS[status], 1) if status else ("currentColor", 0.55)
        words = f"{row['day']}: {int(row['alerts']):,} alerts"
        if not math.isnan(_number(row["expected"], math.nan)):
            words += f", {float(row['expected']):,.0f} expected"
        for each, scope in floods[:5]:
            words += f"; {each}: {scope[:80]}"
        if len(floods) > 5:
            words += f"; and {len(floods) - 5} more"
        height = round(y(0) - y(float(row["alerts"])), 2)
        parts.append(
            f'<rect x="{x(row["day"])}" y="{y(float(row["alerts"]))}" width="{max(step * 0.85, 0.4):.2f}" '
            f'height="{height}" fill="{colour}" fill-opacity="{opacity}"><title>{escape(words)}</title></rect>'
        )
    for run in _runs(rows):
        line = " ".join(f"{x(row['day']) + step / 2:.2f},{y(float(row['expected']))}" for row in run)
        parts.append(f'<polyline points="{line}" fill="none" stroke="currentColor" stroke-width="1.2"/>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 8}" fill="currentColor">{first}</text>')
    if days > 1:
        last = rows[-1]["day"]
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end" fill="currentColor">{last}</text>')
    at = LEFT
    for name, colour in {"expected, with its band": "currentColor", **STATUS_COLOURS}.items():
        parts.append(f'<rect x="{at}" y="8" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{at + 14}" y="17" fill="currentColor">{name}</text>')
        at += 150 if colour == "currentColor" else 80
    return "".join([*parts, "</svg>"])


def _number(value: object, otherwise: float = 0.0) -> float:
    number = math.nan if value is None or value is pd.NA else float(value)  # type: ignore[arg-type]
    return number if math.isfinite(number) else otherwise


def _runs(rows: list[dict]) -> list[list[dict]]:
    """Runs of consecutive rows whose band is known."""
    runs: list[list[dict]] = [[]]
    for row in rows:
        if all(math.isfinite(_number(row[name], math.nan)) for name in ("expected", "upper")):
            runs[-1].append(row)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _round_up(value: float) -> float:
    """The next of 1, 2, 5 times a power of ten; at least 2."""
    unit = 10.0 ** math.floor(math.log10(max(value, 2.0)))
    return next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= value)
