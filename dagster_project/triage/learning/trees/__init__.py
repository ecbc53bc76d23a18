"""Trained gradient-boosted trees: raw scores and exact contributions, many alerts at a time.

Belongs here: reading LightGBM's text format (`text.py`), the compiled loops (`kernels.py`, imported only when something
is computed), and what callers use: `Forest` (`forest.py`).
Does not belong here: training trees (`triage/learning/boosting.py`), and what scores and contributions are used for.
"""

from dagster_project.triage.learning.trees.forest import Forest

__all__ = ["Forest"]
