"""Findings of an audit, as rows.

Belongs here: the form of a finding and of the table that findings make.
Does not belong here: looking for anything (`audit/leakage.py`, `audit/recomputation.py`, `audit/single_feature.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

COLUMNS = ("check", "subject", "finding", "value", "limit", "verdict")
CLEAN, SUSPICIOUS, LEAK, NOT_CHECKED = "clean", "suspicious", "leak", "not checked"
WITHHELD, VOUCHED = "withheld", "vouched"


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    check : which check. subject : the column, attribute or set of alerts it is about. finding : in words.
    value, limit : the number that decided, and what it was held against; nan where there is none.
    verdict : 'clean', 'suspicious' (a person should look), 'leak' (must not serve), 'not checked' (there was
        not enough to check; the finding says what is missing), 'withheld' (a leak, withheld from learning) or
        'vouched' (it looks like a leak, and a person says that it is known at the raise).
    """

    check: str
    subject: str
    finding: str
    value: float
    limit: float
    verdict: str


def table(findings: Sequence[Finding]) -> pd.DataFrame:
    """One row per finding with the columns `COLUMNS`; value and limit are float64."""
    rows = pd.DataFrame([[getattr(f, name) for name in COLUMNS] for f in findings], columns=list(COLUMNS))
    return rows.astype({"value": "float64", "limit": "float64"})
