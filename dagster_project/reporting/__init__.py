"""Reports for people: the evidence page, its figures, and figures for the Dagster UI.

Belongs here: pure functions from frames to HTML and SVG. Does not belong here: computing the numbers (`triage`, dbt),
and attaching figures to assets (`assets/showing.py`).
"""
