"""What a materialisation shows in the Dagster UI: small plots and tables.

Belongs here: turning frames into Dagster metadata.
Does not belong here: what the numbers are.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from dagster_project.checks import markdown_table
from dagster_project.reporting.plots import volume_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dagster_project.resources.warehouse.connection import Warehouse


# Shown name -> metric of `training.model_evaluations`.
HEADLINE = {
    "AUC": "roc_auc",
    "log-loss": "log_loss",
    "log-loss skill over the constant rate": "log_loss_skill_over_constant",
    "log-loss skill over the best baseline": "log_loss_skill_over_best_baseline",
    "decile error": "decile_error",
}


def figure(width: float = 7.0, height: float = 2.4) -> Figure:
    """An empty figure that needs no screen."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), dpi=90, layout="constrained")


def image(drawn: Figure, alternative: str) -> dg.MetadataValue:
    """A figure as Markdown, with the picture embedded."""
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
    """The columns of a table of the warehouse, with its comments as their descriptions."""
    return dg.TableSchema(
        [
            dg.TableColumn(name=column["name"], type=column["type"], description=column["description"])
            for column in warehouse.columns(table)
        ]
    )


def table_metadata(warehouse: Warehouse, table: str) -> dict[str, Any]:
    """What Dagster knows of every table: its columns, and how many rows it holds now."""
    return {
        "dagster/row_count": warehouse.value(f"SELECT count(*) FROM {table}"),
        "dagster/column_schema": table_schema(warehouse, table),
    }


def headline(evaluation: pd.DataFrame) -> dict[str, float]:
    """A model's measures on unflagged alerts, as numbers that Dagster plots over time; those that could be taken."""
    from dagster_project.triage.evaluation.contenders import MODEL
    from dagster_project.triage.evaluation.evidence import row

    measured = {name: row(evaluation, MODEL, metric) for name, metric in HEADLINE.items()}
    return {name: measure["value"] for name, measure in measured.items() if measure is not None}


def frame_schema(frame: pd.DataFrame, descriptions: Mapping[str, str] | None = None) -> dg.TableSchema:
    """The columns of a frame that becomes a file."""
    described = descriptions or {}
    return dg.TableSchema(
        [
            dg.TableColumn(name=str(name), type=str(kind), description=described.get(str(name)))
            for name, kind in frame.dtypes.items()
        ]
    )


def volume_plot(band: pd.DataFrame, flood_days: pd.DataFrame) -> dg.MetadataValue:
    """Alerts per day with their seasonal band; flood days are marked by their status."""
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
