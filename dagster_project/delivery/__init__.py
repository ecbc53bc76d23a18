"""Scores for other systems: what is said, to whom, when, and how it gets there.

Assets and commands call `deliver.py`; it plans with `rules.py`, and sends through one module per kind of destination.
"""
