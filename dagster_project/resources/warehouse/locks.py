"""The numbers of heed's advisory locks.

Belongs here: the numbers, and what each one is held for.
Does not belong here: taking them (`run_lock.py`, `loading/load.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass
if TYPE_CHECKING:
    pass

# Held while a run changes the warehouse, so that two runs cannot interleave: any constant that is heed's own.
RUN_LOCK = 0x68656564

TURN_LOCK = RUN_LOCK + 2
