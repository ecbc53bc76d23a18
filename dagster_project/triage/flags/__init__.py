"""Flags: floods and visibility-only rules.

Belongs here: finding flags (`find.py`: `floods/`, `visibility.py`) and what they exclude (`exclusion.py`).
Does not belong here: where flags are stored (`resources/stores/flags.py`).
"""
