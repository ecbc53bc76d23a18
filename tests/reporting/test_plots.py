"""Figures: well-formed, safe whatever the data say, readable on any page."""

from __future__ import annotations

from datetime import date, timedelta
from xml.etree import ElementTree

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.reporting.plots import volume_svg

SVG = "{http://www.w3.org/2000/svg}"
START = date(2025, 1, 1)


def band(alerts: list[int], unknown: int = 2) -> pd.DataFrame:
    expected = [float("nan") if i < unknown else 10.0 for i in range(len(alerts))]
    return pd.DataFrame(
        {
            "day": [START + timedelta(days=i) for i in range(len(alerts))],
            "alerts": alerts,
            "expected": expected,
            "upper": [2.5 * value for value in expected],
        }
    )


def floods(*rows: tuple[int, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(START + timedelta(days=day), status, scope) for day, status, scope in rows],
        columns=["day", "status", "scope"],
    )


def test_each_day_is_a_bar_and_a_flood_has_its_colour_and_words():
    drawn = volume_svg(band([9, 11, 10, 80, 10]), floods((3, "cleared", "rule b"), (3, "confirmed", "rule <a>")))
    tree = ElementTree.fromstring(drawn)
    bars = [bar for bar in tree.iter(f"{SVG}rect") if bar.find(f"{SVG}title") is not None]
    assert len(bars) == 5
    assert [bar.get("fill") for bar in bars].count("currentColor") == 4
    words = bars[3].find(f"{SVG}title").text
    assert words == "2025-01-04: 80 alerts, 10 expected; cleared: rule b; confirmed: rule <a>"
    assert len(list(tree.iter(f"{SVG}polygon"))) == 1
    # Nothing but the statuses has a colour of its own: the rest follows the page.
    assert "black" not in drawn
    assert "white" not in drawn


def test_nothing_to_draw_is_said():
    assert "no alerts" in volume_svg(band([]), floods())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 10**7), min_size=1, max_size=30),
    st.lists(
        st.tuples(st.integers(0, 29), st.sampled_from(["suspected", "confirmed", "cleared"]), st.text(max_size=40)),
        max_size=8,
    ),
)
def test_whatever_the_data_say_it_is_one_well_formed_figure(alerts, rows):
    clean = [(d, s, "".join(c for c in t if c.isprintable())) for d, s, t in rows]
    tree = ElementTree.fromstring(volume_svg(band(alerts), floods(*clean)))
    assert tree.tag == f"{SVG}svg"
    for bar in tree.iter(f"{SVG}rect"):
        assert float(bar.get("height")) >= 0
        assert np.isfinite(float(bar.get("y")))
    assert not list(tree.iter(f"{SVG}script"))
