"""Replay from the warehouse to a file, as `heed replay` does.

Belongs here: cleaning once, reading, writing the file, and the short comparison at the end.
Does not belong here: the walk through time (`triage/replay.py`).
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dagster_project.commands.run import Say, require_alerts
from dagster_project.errors import HeedError, one_line
from dagster_project.private import share
from dagster_project.resources.cluster import Cluster
from dagster_project.resources.dbt.project import build_clean_tables
from dagster_project.resources.files.atomic_write import whole_file
from dagster_project.resources.inputs.action_types import require_known_meanings
from dagster_project.resources.stores.flags import read_overrides, read_rules
from dagster_project.resources.stores.history import read_history
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.resources.warehouse.run_lock import run_lock
from dagster_project.resources.warehouse.schema import prepare
from dagster_project.settings import heed_home, load_settings
from dagster_project.triage.audit.findings import WITHHELD

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ReplayReport:
    """What a replay wrote, and how its scores compare."""

    out: Path
    alerts: int
    steps: int
    seconds: float
    measured: pd.DataFrame
    not_known_at_raise: list[dict[str, Any]]

    def summary(self) -> str:
        """For people."""
        lines = [f"{self.alerts} alerts scored at {self.steps} cuts in {self.seconds:.0f} s: {self.out}"]
        for row in self.not_known_at_raise:
            cuts = f"at {row['cuts']} of {self.steps} cuts, first {row['first_cut']:.10}"
            kept = "withheld from learning" if row["verdict"] == WITHHELD else "kept: a person vouches for it"
            lines.append(one_line(f"  not known at the raise: {row['column']} ({kept} {cuts}): {row['finding']}"))
        wide = self.measured.pivot_table(
            index=["slice", "contender"], columns="metric", values="value", sort=False, dropna=False
        )
        counts = self.measured.groupby("slice")["alerts"].first()
        for position, (part, contender) in enumerate(wide.index.to_list()):
            metrics = wide.iloc[position]
            lines.append(
                f"  {part:<15} {contender:<20} log-loss {metrics['log_loss']:.4f}  AUC {metrics['roc_auc']:.3f}  "
                f"decile error {metrics['decile_error']:.3f}  on {counts[part]} alerts"
            )
        return "\n".join(lines)

    def to_document(self) -> dict[str, Any]:
        """For machines."""
        measured = json.loads(self.measured.to_json(orient="records"))
        return {**vars(self), "out": str(self.out), "measured": measured}


def without_formulas(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows for a CSV file, with an apostrophe before texts that a spreadsheet would take for a formula.

    Such texts begin with =, +, -, @, a tab or a line end, and are not numbers. In Parquet, texts stay as they are.
    """
    escaped = rows.copy()
    for name in escaped.columns:
        if escaped[name].dtype.kind == "O" or str(escaped[name].dtype) in ("str", "string", "category"):
            texts = escaped[name].astype("str")
            formula = texts.str.match(r"[=+\-@\t\r\n]") & ~texts.str.fullmatch(r"[+-]?[0-9]+([.][0-9]+)?")
            escaped[name] = texts.where(~formula.fillna(False).astype(bool), "'" + texts).where(rows[name].notna())
    return escaped


def replay_to_file(
    first: datetime, until: datetime, every: timedelta, out: Path, say: Say, open_out: Path | None = None
) -> ReplayReport:
    """Replay [first, until) on this home's warehouse and write one row per alert to `out`.

    open_out : where the alerts go that were open at each cut, as readers saw them: one row per alert and cut.

    Raises HeedError: no alert was raised in that time, too many actions have a type that nobody explained, or the file
        cannot be written.
    """
    import pandas as pd

    from dagster_project.triage.replay import ReplayStep, compare, cuts_between, replay

    started = time.monotonic()
    for path in (out, *([open_out] if open_out else [])):
        if path.suffix not in (".parquet", ".csv"):
            raise HeedError(f"{path} is neither .parquet nor .csv", "name the file with one of the two endings")
        if not path.absolute().parent.is_dir():
            raise HeedError(f"the directory of {path} does not exist", "create it first")
    settings = load_settings()
    cluster = Cluster(settings.compute.dask)
    cuts = cuts_between(first, until, every)
    warehouse = Warehouse(heed_home())
    prepare(warehouse)
    require_alerts(warehouse, settings)
    say("cleaning alerts and actions (dbt)")
    with run_lock(warehouse, f"replay-{uuid.uuid4()}", say):
        build_clean_tables(warehouse, settings, until)
        require_known_meanings(warehouse, settings, until)
        history = read_history(warehouse, until)
    if not (history["raised_at"] >= first).any():
        raise HeedError(
            f"no alert was raised from {first:%Y-%m-%d} to {until:%Y-%m-%d}",
            "choose times within your data",
        )
    say(f"walking through {len(cuts)} cuts")
    leaks: dict[tuple[str, str], dict[str, Any]] = {}

    def tell(step: ReplayStep, number: int, of: int) -> None:
        say(f"{number}/{of}  {step.cut:%Y-%m-%d}  {step.alerts} alerts  {step.model_version}  ({step.decision})")
        for each in step.withholding.findings:
            row = leaks.setdefault(
                (each.subject, each.verdict),
                {"column": each.subject, "verdict": each.verdict, "first_cut": step.cut.isoformat(), "cuts": 0},
            )
            row |= {"cuts": row["cuts"] + 1, "check": each.check, "finding": each.finding}

    open_alerts: list[pd.DataFrame] = []
    scores, baselines = replay(
        history,
        read_rules(warehouse),
        first,
        until,
        every,
        replace(settings.learning_settings(), fit_elsewhere=cluster.fit if cluster else None),
        settings.learning.training_days,
        tell=tell,
        overrides=read_overrides(warehouse, until),
        targets=settings.gate_targets(),
        derive=cluster.history_features,
        on_open=open_alerts.append if open_out else None,
    )
    _write(scores, out, "--out")
    if open_out:
        _write(pd.concat(open_alerts, ignore_index=True), open_out, "--open")
    horizon = timedelta(days=settings.outcome.horizon_days)
    measured = compare(scores, baselines, history, until, horizon)
    return ReplayReport(
        out, len(scores), len(cuts), round(time.monotonic() - started, 1), measured, list(leaks.values())
    )


def _write(rows: pd.DataFrame, out: Path, option: str) -> None:
    with whole_file(out, f"choose another {option}") as fresh:
        if out.suffix == ".parquet":
            rows.to_parquet(fresh, index=False)
        else:
            without_formulas(rows).to_csv(fresh, index=False)
        share(fresh)
