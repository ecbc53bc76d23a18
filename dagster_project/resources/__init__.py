"""Everything outside the process that assets use: warehouse, feature files, model store, expectations, dbt.

Belongs here: reading and writing, connections, file layouts.
Does not belong here: computations (`triage/`) and the order of steps (assets, `automation.py`).
"""
