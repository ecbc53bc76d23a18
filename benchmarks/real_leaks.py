"""Leaks planted on real alerts, and the same alerts without one: what is taken out of learning.

    python -m benchmarks.real_leaks --data ../shared/data      # writes benchmarks/real_leaks.md

Belongs here: the partial leaks of `planted_leaks.py` on the two exports with real decisions, and the false alarms on
every column of theirs.
Does not belong here: the data (not part of heed), simulated worlds (`trust.py`), the checks (`dagster_project/triage`).

"By learning" is what `withholding.withhold` takes out: nothing is built again from a history, so the kinds that plant a
leak in that code are not among these.
"""

from __future__ import annotations

import argparse
import json
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.audit_worlds import SETTINGS, AuditWorld
from benchmarks.planted_leaks import CAUGHT_BY, PLANTED
from benchmarks.wolfi import DATA, read_wolfi
from dagster_project.triage.audit.withholding import COLUMN_CHECKS, withhold
from dagster_project.triage.features.build import build_features
from dagster_project.triage.flags.exclusion import known_by
from dagster_project.triage.flags.find import find_flags
from dagster_project.triage.learning.settings import LearningSettings
from dagster_project.triage.pipeline import training_frame

ROOT = Path(__file__).resolve().parents[1]
HORIZON = timedelta(days=14)
CUTS = {"service desk": ("2016-04-15", "2016-05-25"), "packages": ("2024-10-01", "2025-01-15", "2025-05-01")}


def read_servicenow(folder: Path) -> pd.DataFrame:
    """Incidents as `benchmarks.wolfi.read_wolfi` gives alerts: one row each, in order of time."""
    contract = ["alert_id", "raised_at", "rule", "entity", "team", "severity"]
    raw = pd.read_csv(folder / "alerts.csv.gz", dtype="str").drop_duplicates("alert_id")
    rest = raw.drop(columns=contract).to_dict("records")
    alerts = raw[contract].copy()
    alerts["attributes"] = [json.dumps({k: v for k, v in row.items() if isinstance(v, str)}) for row in rest]
    alerts["raised_at"] = pd.to_datetime(alerts["raised_at"], utc=True).dt.as_unit("us")
    ends = alerts["raised_at"] + HORIZON
    actions = pd.read_csv(folder / "actions.csv.gz", dtype="str").sort_values("acted_at", kind="stable")
    first = actions.drop_duplicates("alert_id").set_index("alert_id")
    at = pd.to_datetime(alerts["alert_id"].map(first["acted_at"]), utc=True).dt.as_unit("us")
    within = at.between(alerts["raised_at"], ends)
    alerts["known_at"] = at.where(within, ends)
    alerts["acted"] = (within & (alerts["alert_id"].map(first["action_type"]) == "handed_on")).astype(float)
    alerts = alerts.dropna(subset="rule")  # as cleaning does: 39 alerts
    return alerts.sort_values(["raised_at", "alert_id"], ignore_index=True)


def real_world(alerts: pd.DataFrame, cut: pd.Timestamp) -> AuditWorld:
    """What learning gets at a cut, in the form in which leaks are planted; there is no truth beside it."""
    history = alerts[alerts["raised_at"] < cut].reset_index(drop=True)
    late = (history["known_at"] > cut).to_numpy()
    history.loc[late, ["acted", "known_at"]] = [np.nan, pd.NaT]
    history = history.assign(**{n: None for n in ("severity", "value", "threshold", "title") if n not in history})
    at = cut.to_pydatetime(warn=False)
    rules = pd.DataFrame(columns=["rule", "title", "team", "declared_visibility_only", "created_at"])
    floods, visibility_only = find_flags(history, rules, at)
    features = build_features(history, floods, visibility_only, at - timedelta(days=365), at, SETTINGS)
    flags = known_by(floods, at), known_by(visibility_only, at)
    frame = training_frame(features, history, *flags, cut=at, training_days=365)
    return AuditWorld(history, features, frame, pd.DataFrame(), pd.DataFrame(), cut)


def main() -> None:
    """Plant, look, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA.parent)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "real_leaks.md")
    arguments = parser.parse_args()
    read = {
        "service desk": read_servicenow(arguments.data / "servicenow"),
        "packages": read_wolfi(arguments.data / "wolfi"),
    }
    settings = LearningSettings(threads=1)
    kinds = {kind: plant for kind, plant in PLANTED.items() if CAUGHT_BY[kind] in COLUMN_CHECKS}
    lines = ["# Leaks on real alerts: what is taken out of learning", "", "| alerts | cut | planted | taken out |",
             "|---|---|---|---|"]  # fmt: skip
    for name, alerts in read.items():
        for position, day in enumerate(CUTS[name]):
            world = real_world(alerts, pd.Timestamp(day, tz="UTC"))
            at = world.cut.to_pydatetime(warn=False)
            named = list(withhold(world.frame, world.history, at, settings).withheld)
            lines.append(f"| {name} | {day} | nothing | {', '.join(named) or 'nothing'} |")
            print(lines[-1], flush=True)
            for kind, plant in kinds.items() if position == len(CUTS[name]) - 1 else ():
                case = plant(world)
                named = list(withhold(case.frame, case.history, at, settings).withheld)
                lines.append(f"| {name} | {day} | {kind} | {', '.join(named) or 'nothing'} |")
                print(lines[-1], flush=True)
    arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
