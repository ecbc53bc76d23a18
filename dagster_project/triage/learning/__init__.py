"""Contenders that learn, and how they are combined.

Belongs here: the linear model on sparse facts, the history of words, the mixture of all contenders.
Does not belong here: trees (`boosting.py`, `trees/`), choosing what an alert's features are (`features.py`).
"""
