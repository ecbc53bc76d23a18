"""The badge as a browser draws it: nothing overlaps, nothing sticks out."""

from itertools import pairwise
from typing import Any

import pytest

from dagster_project.serving.board.badge import badge

# Where each character begins and ends, with its line's and its half's limits, in pixels.
MEASURE = """
svg => { document.body.innerHTML = svg; return [...document.querySelectorAll("text")].map(text => ({
  width: document.querySelector("svg").width.baseVal.value,
  spans: [...Array(text.getNumberOfChars()).keys()].map(n => [
    text.getStartPositionOfChar(n).x, text.getEndPositionOfChar(n).x])}))}
"""


def score(probability: float | None, **values: Any) -> dict[str, Any]:
    flags = {"flood": False, "visibility_only": False}
    usual = {"is_open": True, "status": "model", "flags": flags, "flag_words": None, "outcome": None}
    return {**usual, "probability": probability, **values}


@pytest.mark.browser
def test_no_two_characters_overlap(browser: Any) -> None:
    both = {"flood": True, "visibility_only": True}
    pictures = [
        *(badge(score(number / 100)) for number in (0, 1, 7, 11, 44, 73, 88, 100)),
        badge(score(0.44), stale=True),
        badge(score(0.88, flags=both, flag_words="part of a flood"), stale=True),
        badge(score(None)),
        badge(score(0.5, status="prior")),
        badge(score(0.5, is_open=False, outcome="not_acted")),
        badge(None),
        badge(None, instead="unavailable"),
    ]
    page = browser.new_page()
    for picture in pictures:
        for text in page.evaluate(MEASURE, picture):
            spans = text["spans"]
            assert len(spans) > 1
            assert all(end - start > 1.5 for start, end in spans), picture  # nothing is squeezed to a line
            assert all(after[0] >= before[1] - 0.3 for before, after in pairwise(spans)), picture
            assert spans[0][0] > 4
            assert spans[-1][1] < text["width"] - 4
