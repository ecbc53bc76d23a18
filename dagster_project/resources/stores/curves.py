"""What turns the chance at the raise into the number that people read: curves of age, and rates of flagged alerts.

Belongs here: writing and reading both.
Does not belong here: learning them (`triage/learning/time_to_decision.py`, `triage/flags/rates.py`), and the view that
applies them (`reporting.alert_scores_latest`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa

from dagster_project.resources.warehouse.connection import Warehouse, append
from dagster_project.triage.flags.rates import COLUMNS, in_words
from dagster_project.triage.learning.time_to_decision import Curves, group_key, group_name

_RATES = (*COLUMNS, "words")
_NEWEST_RATES = f"""
SELECT {", ".join(_RATES)} FROM scoring.flagged_rates
WHERE as_of = (SELECT max(as_of) FROM scoring.flagged_rates WHERE as_of <= $1)
"""
_NEWEST_SET = """
SELECT * FROM scoring.curve_sets WHERE as_of <= $1 ORDER BY as_of DESC, fitted_at DESC LIMIT 1
"""


def save_curves(warehouse: Warehouse, curves: Curves) -> str:
    """Store curves, unless they are stored already. Returns their version."""
    version = curves.version
    keys = [group_key(group) for group in curves.coefficients]
    by_age = [np.asarray(values).T.tolist() for values in curves.coefficients.values()]
    rows = pa.table(
        {
            "level": [level for level, _, _ in keys],
            "team": [team for _, team, _ in keys],
            "rule": [rule for _, _, rule in keys],
            **{name: pa.array([one[k] for one in by_age], pa.list_(pa.float64())) for k, name in enumerate("abc")},
        }
    )
    with warehouse.transaction() as cursor:
        cursor.execute(
            "INSERT INTO scoring.curve_sets (curve_version, as_of, horizon_seconds, alerts, landmark, ages) "
            "VALUES ($1, $2, $3, $4, false, $5) ON CONFLICT DO NOTHING",
            parameters=(
                version,
                curves.as_of,
                curves.horizon.total_seconds(),
                curves.alerts,
                [float(age) for age in curves.ages],
            ),
        )
        append(
            cursor,
            "scoring.decision_curves",
            rows.append_column("curve_version", pa.array([version] * len(rows))),
            columns="curve_version, level, team, rule, a, b, c",
            select="curve_version, level, team, rule, a, b, c FROM pg_temp.incoming",
            conflict="ON CONFLICT DO NOTHING",
        )
    return version


def read_curves(warehouse: Warehouse, as_of: datetime) -> Curves | None:
    """The newest curves that were learned by `as_of`; None where there are none."""
    sets = warehouse.read_arrow(_NEWEST_SET, (as_of,)).to_pylist()
    if not sets:
        return None
    [newest] = sets
    rows = warehouse.read_arrow(
        "SELECT level, team, rule, a, b, c FROM scoring.decision_curves WHERE curve_version = $1",
        (newest["curve_version"],),
    )
    coefficients = {group_name(row["level"], row["team"], row["rule"]): _table(row) for row in rows.to_pylist()}
    return Curves(
        newest["as_of"],
        timedelta(seconds=newest["horizon_seconds"]),
        int(newest["alerts"]),
        tuple(int(age) for age in newest["ages"]),
        coefficients,
    )


def _table(row: dict[str, list[float]]) -> np.ndarray:
    return np.column_stack([row["a"], row["b"], row["c"]])


def publish_rates(warehouse: Warehouse, rates: pd.DataFrame, as_of: datetime) -> int:
    """Append the rates of flagged alerts where they differ from the newest ones. Returns how many rows were added.

    rates : as `flagged_rates` gives them.
    """
    rows = rates.assign(words=[in_words(row) for _, row in rates.iterrows()])[list(_RATES)]
    before = warehouse.read(_NEWEST_RATES, (as_of,))
    order = ["kind", "rule"]
    if len(before) == len(rows) and before.sort_values(order, ignore_index=True).equals(
        rows.sort_values(order, ignore_index=True).astype(before.dtypes)
    ):
        return 0
    with warehouse.transaction() as cursor:
        return append(
            cursor,
            "scoring.flagged_rates",
            pa.Table.from_pandas(rows.assign(as_of=pd.Timestamp(as_of)), preserve_index=False),
            columns=", ".join((*_RATES, "as_of")),
            select=", ".join((*_RATES, "as_of")) + " FROM pg_temp.incoming",
            conflict="ON CONFLICT DO NOTHING",
        )
