"""What assets reach the world through: the warehouse, the feature files, the model store, the expectations.

Belongs here: reading and writing, connections, file layouts.
Does not belong here: computations (`triage/`) and the order of things (assets, `automation.py`).
"""
