"""What a materialisation shows in the Dagster UI: small plots and tables.

Belongs here: turning frames into Dagster metadata.
Does not belong here: what the numbers are.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import dagster as dg
import pandas as pd

from dagster_project.checks import markdown_table
from dagster_project.reporting.plots import volume_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dagster_project.resources.warehouse.connection import Warehouse


def figure(width: float = 7.0, height: float = 2.4) -> Figure:
    """An empty figure that never touches a screen."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), dpi=90, layout="constrained")


def image(drawn: Figure, alternative: str) -> dg.MetadataValue:
    """A figure as Markdown that carries the picture in itself."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    return dg.MetadataValue.md(
        f"![{alternative}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
    )


def table(frame: pd.DataFrame, digits: int = 4) -> dg.MetadataValue:
    """A small frame as a Markdown table; content is shown as text, whatever it holds."""
    shown = frame.copy()
    for name in shown.select_dtypes("number"):
        shown[name] = shown[name].map(lambda value: f"{value:.{digits}g}")
    return dg.MetadataValue.md(
        markdown_table([{str(k): v for k, v in row.items()} for row in shown.to_dict("records")])
    )


def table_schema(warehouse: Warehouse, table: str) -> dg.TableSchema:
    """The columns of a table of the warehouse, with the descriptions that stand in its DDL."""
    return dg.TableSchema(
        [
            dg.TableColumn(name=column["name"], type=column["type"], description=column["description"])
            for column in warehouse.columns(table)
        ]
    )


def frame_schema(frame: pd.DataFrame) -> dg.TableSchema:
    """The columns of a frame that becomes a file."""
    return dg.TableSchema([dg.TableColumn(name=str(name), type=str(kind)) for name, kind in frame.dtypes.items()])


def volume_plot(band: pd.DataFrame, flood_days: pd.DataFrame) -> dg.MetadataValue:
    """Alerts per day with their seasonal band, and the days on which something flooded marked by their status."""
    drawn = base64.b64encode(volume_svg(band, flood_days).encode()).decode()
    return dg.MetadataValue.md(f"![alerts per day, band and flood days](data:image/svg+xml;base64,{drawn})")


def score_plot(probability: pd.Series) -> dg.MetadataValue:
    """How the probabilities of the open alerts are distributed."""
    drawn = figure(5.0, 2.2)
    axes = drawn.add_subplot()
    axes.hist(probability, bins=40, range=(0, 1), color="#8da0b8")
    axes.set_xlabel("probability that somebody acts")
    axes.set_ylabel("open alerts")
    return image(drawn, "distribution of probabilities")
