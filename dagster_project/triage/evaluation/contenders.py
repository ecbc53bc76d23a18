"""Names of contenders in tables and reports.

Belongs here: the names.
Does not belong here: fitting them (`learning/`).
"""

from __future__ import annotations

# The column of the forecasts of what was learned, next to those of the baselines.
MODEL = "model"

ALWAYS_NO = "always_no_action"

CONSTANT = "constant_rate"

REPEAT = "repeat_last_per_"
REPEAT_LAST = f"{REPEAT}rule"
