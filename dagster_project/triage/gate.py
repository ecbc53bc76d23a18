"""The gate: whether a candidate becomes champion.

Belongs here: the targets agreed with managers, the comparison with the present champion on the same alerts, and
the decision with its reasons.
Does not belong here: measuring (`evidence.py`), storing decisions (the model store), rolling back (a person's).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage import evidence, metrics
from dagster_project.triage.evaluation import EvaluationSettings
from dagster_project.triage.model import LIGHTGBM, MIXTURE, MODEL, Model, rule_day_blocks

REPLICATES = 300


@dataclass(frozen=True)
class Targets:
    """What was agreed with managers, measured on unflagged alerts of the inner cuts. The defaults ask for some skill.

    minimum_skill : least log-loss skill over the constant rate (1 is perfect, 0 no better than the rate).
    minimum_auc : least area under the ROC curve.
    maximum_decile_error : most mean difference between forecast and share acted over deciles.
    minimum_workload_saved : least share of alerts below a threshold that misses 5% of the acted ones.
    """

    minimum_skill: float = 0.0
    minimum_auc: float = 0.0
    maximum_decile_error: float = 1.0
    minimum_workload_saved: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The candidate's recipe beside the champion on the same alerts, which neither had seen.

    alerts : how many. gain : mean log-loss of the champion minus that of the candidate, in nats; low, high : its 95%
    interval (block bootstrap over rule-days).
    """

    alerts: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """What the gate concluded about a candidate: 'promoted' or 'refused', and why."""

    decision: str
    reasons: list[str]
    evidence: dict[str, Any] = field(default_factory=dict)


def compare(candidate: Model, forecasts: pd.DataFrame, champion: Model, frame: pd.DataFrame) -> Comparison | None:
    """Compare on the alerts of the inner cuts that were raised after the champion had learned.

    Parameters
    ----------
    forecasts : `Learned.forecasts` of the candidate. frame : the training frame it was taught from.

    Returns
    -------
    None when these alerts are too few to say anything (`EvaluationSettings`): a champion of last week has been
    followed by no alert whose horizon is over.
    """
    name = _contender(candidate)
    if not len(forecasts) or name not in forecasts:
        return None
    later = forecasts[(forecasts["raised_at"] >= pd.Timestamp(champion.cut)) & ~forecasts["excluded"]]
    acted = later["acted"].to_numpy(dtype=np.float64)
    blocks = rule_day_blocks(later)
    needed = EvaluationSettings()
    if (
        acted.sum() < needed.minimum_acted
        or (1 - acted).sum() < needed.minimum_not_acted
        or len(np.unique(blocks)) < needed.minimum_blocks
    ):
        return None
    facts = later[["alert_id"]].merge(frame, on="alert_id", how="left", validate="one_to_one")
    gain = metrics.log_losses(champion.predict(facts), acted) - metrics.log_losses(later[name].to_numpy(), acted)
    low, high = metrics.interval(lambda w: float(np.dot(w, gain) / w.sum()), blocks, REPLICATES, seed=0)
    return Comparison(len(later), float(gain.mean()), low, high)


def decide(
    candidate: Model,
    evaluation: pd.DataFrame,
    targets: Targets,
    has_champion: bool,
    comparison: Comparison | None = None,
    leaks: Sequence[str] = (),
) -> Decision:
    """Whether the candidate becomes champion.

    evaluation : the table of `evidence.measure`. has_champion : whether one stands that can still score.
    comparison : as `compare` gives it; None: nothing can be compared yet. leaks : what the audit calls leaks, in words.

    A candidate is refused when the audit found a leak, when it misses a target, or when it loses to the champion beyond
    doubt (the whole interval lies below zero). Without a champion it scores all the same: something has to, and the
    reasons then say what it misses.
    """
    missed, measured = _against(targets, evaluation, _contender(candidate))
    missed = [f"it knows what was not known then: {leak}" for leak in leaks] + missed
    made: dict[str, Any] = {
        "targets": measured,
        "compared_with_champion": vars(comparison) if comparison is not None else None,
        "leaks": list(leaks),
    }
    if not has_champion:
        said = [f"{miss}; it scores because nothing else does" for miss in missed]
        return Decision(
            "promoted", ["there was no champion: the first candidate scores", *said, candidate.explanation], made
        )
    lost = []
    if comparison is not None and comparison.high < 0:
        lost.append(
            f"on {comparison.alerts} alerts that neither had seen it lost to the champion by {-comparison.gain:.3f} "
            f"nats per alert (95% interval {-comparison.high:.3f} to {-comparison.low:.3f})"
        )
    if missed or lost:
        return Decision("refused", missed + lost, made)
    beside = "it met the targets" if measured else "no target could be measured"
    if comparison is None:
        beside += "; too few alerts since the champion learned to compare the two"
    else:
        beside += (
            f"; on {comparison.alerts} alerts that neither had seen it gained {comparison.gain:.3f} nats per alert "
            f"over the champion (95% interval {comparison.low:.3f} to {comparison.high:.3f})"
        )
    return Decision("promoted", [beside, candidate.explanation], made)


def _contender(model: Model) -> str:
    return MODEL if model.kind in (LIGHTGBM, MIXTURE) else model.kind


def _against(targets: Targets, evaluation: pd.DataFrame, contender: str) -> tuple[list[str], dict[str, Any]]:
    """(what is missed, in words; every target that could be measured, with its figure)."""
    missed: list[str] = []
    measured: dict[str, Any] = {}
    asked = (
        ("minimum_skill", "log_loss_skill_over_constant", "log-loss skill over the constant rate", True),
        ("minimum_auc", "roc_auc", "AUC", True),
        ("maximum_decile_error", "decile_error", "decile error", False),
        ("minimum_workload_saved", "workload_saved_at_5%_missed", "workload saved at 5% missed", True),
    )
    for name, metric, words, at_least in asked:
        target = getattr(targets, name)
        found = evidence.row(evaluation, contender, metric)
        if found is None:
            continue
        value = found["value"]
        met = value >= target if at_least else value <= target
        measured[name] = {"target": target, **found, "met": met}
        if not met:
            bound = "at least" if at_least else "at most"
            missed.append(
                f"its {words} is {value:.3f} (95% interval {found['low']:.3f} to {found['high']:.3f}), "
                f"and {bound} {target:g} is agreed"
            )
    return missed, measured
