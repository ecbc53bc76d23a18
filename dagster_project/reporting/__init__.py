"""What heed draws for people: figures as text, for the Dagster UI and for reports.

Belongs here: pure functions from frames to SVG. Does not belong here: what the numbers are (`triage`, dbt), and where
a figure is shown (`assets/showing.py`, reports).
"""
