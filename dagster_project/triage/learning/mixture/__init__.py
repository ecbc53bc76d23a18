"""The pool of contenders that serves, and the linear model in it.

Belongs here: weights with their bound, sparse facts, the linear model on them, and the version that serves.
Does not belong here: trees (`tree_blend.py`, `boosting.py`), baselines (`baselines.py`), the training itself
(`training.py`).
"""
