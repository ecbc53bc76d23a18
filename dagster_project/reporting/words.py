"""Numbers and names as people read them.

Belongs here: formatting of numbers, intervals, times and outside text, and the names of contenders and metrics.
Does not belong here: computing the numbers.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import datetime
from typing import Any

CONTENDERS = {
    "model": "heed's model",
    "always_no_action": "always no action",
    "constant_rate": "constant rate",
    "rate_per_rule": "past rate per rule",
    "rate_per_entity": "past rate per entity",
    "rate_per_team": "past rate per team",
    "repeat_last": "repeat last outcome",
    "repeat_last_per_rule": "repeat last outcome",
    "repeat_last_per_entity": "repeat last outcome per entity",
    "repeat_last_per_team": "repeat last outcome per team",
    "logistic_on_rates": "logistic on the rates",
    "prior": "a fixed prior",
}
METRICS = {
    "log_loss": "log-loss",
    "brier": "Brier score",
    "log_loss_skill_over_constant": "skill over the constant rate (log-loss)",
    "brier_skill_over_constant": "skill over the constant rate (Brier)",
    "log_loss_skill_over_best_baseline": "skill over the best simple rule (log-loss)",
    "brier_skill_over_best_baseline": "skill over the best simple rule (Brier)",
    "roc_auc": "AUC (ROC)",
    "pr_auc": "AUC (precision-recall)",
    "prevalence": "share acted on (prevalence)",
    "calibration_slope": "calibration slope (ideal: 1)",
    "calibration_intercept": "calibration intercept (ideal: 0)",
    "decile_error": "decile error",
    "workload_saved_at_1%_missed": "workload saved at 1% missed",
    "workload_saved_at_2%_missed": "workload saved at 2% missed",
    "workload_saved_at_5%_missed": "workload saved at 5% missed",
    "precision_of_first_10_a_day": "share acted on among the day's first 10",
}
TOO_FEW = "too few"

# Characters of an outside name in a table cell, and in its tooltip.
SHORT, LONG = 60, 300
_BIDIRECTIONAL = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def contender(name: str) -> str:
    """The display name of a contender."""
    return CONTENDERS.get(name, name.replace("_", " "))


def metric(name: str) -> str:
    """The display name of a metric."""
    return METRICS.get(name, name.replace("_", " "))


def known(value: Any) -> bool:
    """Whether the value is a finite number."""
    return value is not None and value == value and math.isfinite(float(value))


def number(value: Any, digits: int = 3) -> str:
    """0.123, with a real minus sign; 'too few' if there is none."""
    return f"{_unsigned(float(value), digits):.{digits}f}".replace("-", "−") if known(value) else TOO_FEW


def percent(value: Any, digits: int = 0) -> str:
    """12%; 'too few' if there is none."""
    return f"{_unsigned(100 * float(value), digits):.{digits}f}%".replace("-", "−") if known(value) else TOO_FEW


def interval(low: Any, high: Any, digits: int = 3) -> str:
    """'0.120 to 0.340'; empty if it is not known."""
    return f"{number(low, digits)} to {number(high, digits)}" if known(low) and known(high) else ""


def percent_interval(low: Any, high: Any, digits: int = 0) -> str:
    """'12% to 34%'; empty if it is not known."""
    return f"{percent(low, digits)} to {percent(high, digits)}" if known(low) and known(high) else ""


def count(value: Any) -> str:
    """12,345."""
    return f"{int(value):,}" if known(value) else "0"


def moment(value: datetime | None) -> str:
    """2025-06-01 12:30 UTC."""
    return f"{value:%Y-%m-%d %H:%M} UTC" if value is not None else "unknown"


def clean(text: Any) -> str:
    """Outside text on one line, without control characters or changes of reading direction."""
    kept = (
        " " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter
        for letter in str(text)[: 20 * LONG]
        if ord(letter) not in _BIDIRECTIONAL and not 0xD800 <= ord(letter) <= 0xDFFF
    )
    return re.sub(r"\s+", " ", "".join(kept)).strip()


def short(text: Any, most: int = SHORT) -> str:
    """`clean`, cut to `most` characters with an ellipsis."""
    line = clean(text)
    return line if len(line) <= most else line[: most - 1].rstrip() + "…"


def sentence(text: Any, most: int = 600) -> str:
    """`short` with a capital letter and a full stop."""
    line = short(text, most)
    return line if not line else line[0].upper() + line[1:] + ("" if line[-1] in ".!?…" else ".")


def listed(items: Iterable[str]) -> str:
    """a, b and c."""
    those = list(items)
    return those[0] if len(those) == 1 else ", ".join(those[:-1]) + " and " + those[-1] if those else ""


def _unsigned(value: float, digits: int) -> float:
    """Rounded, without a minus sign before zero."""
    return round(value, digits) + 0.0
