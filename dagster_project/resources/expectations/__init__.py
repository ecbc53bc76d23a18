"""Great Expectations, as heed runs it.

Belongs here: suites (`suites.py`), running them (`validation.py`), results, flags and Data Docs.
Does not belong here: what is expected (`expectations/suites`), custom expectations (`expectations/plugins`), Dagster
(`checks.py`).
"""
