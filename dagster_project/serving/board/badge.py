"""The badge: a small picture that other systems show next to an alert.

Belongs here: what it says in each state, and drawing it.
Does not belong here: reading the score (`api/scores.py`).
"""

from __future__ import annotations

from typing import Any
from xml.sax.saxutils import escape

_GREY, _LOW, _HIGH, _LABEL = "#5b6575", "#3f6186", "#1f5fae", "#2b323d"
_SIZE, _PADDING = 11, 8  # pixels
# How wide a character is, as a share of the font's size: of Verdana and DejaVu Sans, the wider one. An average would be
# too narrow for digits and percent signs, and squeezing them into it makes them overlap.
_WIDTHS = {
    **dict.fromkeys("ijl'|", 0.28),
    **dict.fromkeys("frt ·.,:()-", 0.46),
    **dict.fromkeys("0123456789", 0.64),
    **dict.fromkeys("mMW@", 1.0),
    **dict.fromkeys("w", 0.82),
    **dict.fromkeys("%", 1.08),
}
_OTHER_WIDTH = 0.64
_EVEN = 0.5  # at or above this, somebody acts more often than not


def badge(score: dict[str, Any] | None, *, stale: bool = False, instead: str = "not scored") -> str:
    """The badge as SVG. score : from `read_score`; None: the badge says `instead`."""
    if score is None:
        return _draw(instead, _GREY, f"actionability: {instead}")
    if not score["is_open"]:
        word = str(score["outcome"]).replace("_", " ")
        return _draw(word, _GREY, f"outcome: {word}", label="outcome")
    if score["probability"] is None:
        return _draw("not shown (holdout)", _GREY, "no score is shown: drawn at random, to measure what scores change")
    if score["status"] == "prior":
        return _draw("no history yet", _GREY, "actionability: hardly anything is known yet")
    flags = [name.replace("_", " ") for name in ("flood", "visibility_only") if score["flags"][name]]
    # A flag says more than a small number would: what is true of all alerts of its kind stands in the title.
    parts = [*(flags or [f"{score['probability']:.0%}"]), *(["stale"] if stale else [])]
    colour = _GREY if flags or stale else _HIGH if score["probability"] >= _EVEN else _LOW
    title = f"actionability {score['probability']:.0%}: the probability that somebody acts on this alert"
    if score["flag_words"]:
        title = f"{title}; {score['flag_words']}"
    return _draw(" · ".join(parts), colour, ", ".join([title, *parts[1:]]))


def _draw(text: str, colour: str, title: str, label: str = "actionability") -> str:
    widths = [
        round(sum(_WIDTHS.get(each, _OTHER_WIDTH) for each in part) * _SIZE) + 2 * _PADDING for part in (label, text)
    ]
    total = sum(widths)
    words = "".join(
        f'<text x="{start + width / 2}" y="14" textLength="{width - 2 * _PADDING}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(part)}</text>'
        for start, width, part in ((0, widths[0], label), (widths[0], widths[1], text))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="20" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>"
        f'<rect width="{total}" height="20" rx="4" fill="{_LABEL}"/>'
        f'<path d="M{widths[0]} 0H{total - 4}a4 4 0 0 1 4 4V16a4 4 0 0 1 -4 4H{widths[0]}z" fill="{colour}"/>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="{_SIZE}">'
        f"{words}</g>"
        "</svg>"
    )
