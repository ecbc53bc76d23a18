"""Names of contenders in tables and reports.

Belongs here: the names.
Does not belong here: fitting them (`learning/`).
"""

from __future__ import annotations

# The column of the trees' forecasts, next to those of the baselines.
MODEL = "model"

ALWAYS_NO = "always_no_action"

CONSTANT = "constant_rate"

REPEAT_LAST = "repeat_last_per_rule"
