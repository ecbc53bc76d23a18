"""The real alerts of `examples/wolfi` as a history: what the warehouse would hold, without a warehouse.

Belongs here: reading the two exported files by the example's own mapping and meanings. Does not belong here: the data
(not part of heed), and loading them for real (`heed load`).
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pandas as pd

from dagster_project.triage.floods import DAY

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "wolfi"
HORIZON = pd.Timedelta(DAY * 14, unit="us")


def read_wolfi(folder: Path) -> pd.DataFrame:
    """One row per alert in order of time: the contract's columns, attributes as JSON text, and the outcome.

    The first decisive action from `raised_at` to the end of the horizon decides; none by then means not acted on.
    """
    mapping = tomllib.loads((EXAMPLE / "mapping.toml").read_text())
    meaning = pd.read_csv(EXAMPLE / "action_types.csv").set_index("action_type")["meaning"]
    raw = pd.read_csv(folder / "alerts.csv.gz", dtype="str")
    alerts = raw.rename(columns={theirs: ours for ours, theirs in mapping["alerts"].items()})
    contract = ["alert_id", "raised_at", "rule", "entity", "team"]
    rest = alerts.drop(columns=contract)
    alerts = alerts[contract].drop_duplicates("alert_id")
    alerts["attributes"] = [
        json.dumps({name: value for name, value in row.items() if isinstance(value, str)})  # nulls are no attributes
        for row in rest.loc[alerts.index].to_dict("records")
    ]
    alerts["raised_at"] = pd.to_datetime(alerts["raised_at"], utc=True).dt.as_unit("us")
    alerts["horizon_ends_at"] = alerts["raised_at"] + HORIZON

    actions = pd.read_csv(folder / "actions.csv.gz", dtype="str")[["alert_id", "acted_at", "action_type"]]
    actions["acted_at"] = pd.to_datetime(actions["acted_at"], utc=True).dt.as_unit("us")
    actions["meaning"] = actions["action_type"].map(meaning)
    decisive = actions[actions["meaning"].isin(["acted", "dismissed"])].merge(alerts, on="alert_id")
    within = decisive["acted_at"].between(decisive["raised_at"], decisive["horizon_ends_at"])
    first = decisive[within].sort_values("acted_at", kind="stable").drop_duplicates("alert_id").set_index("alert_id")
    alerts["known_at"] = alerts["alert_id"].map(first["acted_at"]).fillna(alerts["horizon_ends_at"])
    alerts["acted"] = alerts["alert_id"].map(first["meaning"] == "acted").fillna(False).astype(float)
    return alerts.sort_values(["raised_at", "alert_id"], ignore_index=True)
