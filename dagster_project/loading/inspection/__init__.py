"""Inspection: what is in a file, and a commented mapping to start from.

Belongs here: looking at columns (`profile.py`), what each probably is (`guess.py`), the mapping as text (`write.py`),
and trying it on the file (`trial.py`).
Does not belong here: loading anything; the warehouse.
"""
