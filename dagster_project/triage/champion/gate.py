"""The gate: does a candidate meet the targets, and does it hold against the champion?

Belongs here: the targets agreed with managers, the comparison with the present champion on the same alerts, and
the judgement with its reasons.
Does not belong here: which champion is compared and what scores in the end (`decide.py`), measuring
(`evaluation/evidence.py`), and storing decisions (the model store).

Models compete by the chance at the raise, which is what they learn. The chance now follows from it by curves that all
of them share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import evidence, metrics
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.evaluation.measures import EvaluationSettings
from dagster_project.triage.evaluation.metrics import rule_day_blocks
from dagster_project.triage.learning.model import LIGHTGBM, MIXTURE, Model

REPLICATES = 300


@dataclass(frozen=True)
class Targets:
    """The targets agreed with managers, on unflagged alerts of the inner cuts.

    The default refuses what is clearly worse than the constant rate. A little worse is no reason: where nothing can be
    learned, or the level drifts, the champion of last month was no better, and a candidate has seen more.

    minimum_skill : least log-loss skill over the constant rate (1 is perfect, 0 no better than the rate).
    minimum_auc : least area under the ROC curve.
    maximum_decile_error : largest mean difference between forecast and share acted over deciles.
    minimum_workload_saved : least share of alerts below a threshold that misses 5% of the acted ones.
    """

    minimum_skill: float = -0.1
    minimum_auc: float = 0.0
    maximum_decile_error: float = 1.0
    minimum_workload_saved: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """The candidate's recipe against the champion, on the same alerts, which neither had seen.

    alerts : how many. gain : mean log-loss of the champion minus that of the candidate, in nats; low, high : its 95%
    interval (block bootstrap over rule-days).
    """

    alerts: int
    gain: float
    low: float
    high: float


@dataclass(frozen=True)
class Decision:
    """The decision about a candidate: 'promoted' or 'refused', and why."""

    decision: str
    reasons: list[str]
    evidence: dict[str, Any] = field(default_factory=dict)


def compare(candidate: Model, forecasts: pd.DataFrame, champion: Model, frame: pd.DataFrame) -> Comparison | None:
    """Compare on the alerts of the inner cuts since the champion was trained.

    The candidate's recipe speaks through versions that learned at those cuts, so they know as much as the champion at
    least. At an earlier cut such a version knows less, and would lose for that: a candidate that has seen a change of
    habits would be refused.

    forecasts : `Learned.forecasts` of the candidate. frame : the training frame it was trained on.
    Returns: None when there are too few such alerts (`EvaluationSettings`): no alert raised since last week has reached
        the end of its horizon, so a champion of last week cannot be compared yet.
    """
    later = _later(candidate, forecasts, champion)
    if not len(later):
        return None
    facts = later[["alert_id"]].merge(frame, on="alert_id", how="left", validate="one_to_one")
    return _compared(candidate, later, champion.predict(facts))


def compare_published(
    candidate: Model, forecasts: pd.DataFrame, champion: Model, published: pd.DataFrame
) -> Comparison | None:
    """Like `compare`, for a champion that cannot read today's features: uses the scores it published.

    published : `alert_id`, `probability` (at the raise, as first published by this champion), one row per alert.
    """
    later = _later(candidate, forecasts, champion)
    later = later.merge(published[["alert_id", "probability"]], on="alert_id", how="inner", validate="one_to_one")
    return _compared(candidate, later, later["probability"].to_numpy(dtype=np.float64))


def _later(candidate: Model, forecasts: pd.DataFrame, champion: Model) -> pd.DataFrame:
    """The unflagged alerts of the inner cuts that are not before the champion's."""
    if not len(forecasts):
        return pd.DataFrame({"alert_id": pd.Series([], dtype="str")})
    cuts = pd.to_datetime(pd.Series(candidate.evidence["inner_cuts"]), utc=True, format="ISO8601")
    fair = forecasts["fold"].map(cuts >= pd.Timestamp(champion.cut))
    return forecasts[fair.astype(bool) & ~forecasts["excluded"]]


def _compared(candidate: Model, later: pd.DataFrame, champion: np.ndarray) -> Comparison | None:
    name = _contender(candidate)
    if not len(later) or name not in later:
        return None
    acted = later["acted"].to_numpy(dtype=np.float64)
    blocks = rule_day_blocks(later)
    needed = EvaluationSettings()
    if (
        acted.sum() < needed.minimum_acted
        or (1 - acted).sum() < needed.minimum_not_acted
        or len(np.unique(blocks)) < needed.minimum_blocks
    ):
        return None
    gain = metrics.log_losses(champion, acted) - metrics.log_losses(later[name].to_numpy(), acted)
    low, high = metrics.interval(lambda w: float(np.dot(w, gain) / w.sum()), blocks, REPLICATES, seed=0)
    return Comparison(len(later), float(gain.mean()), low, high)


def judge(
    candidate: Model,
    evaluation: pd.DataFrame,
    targets: Targets,
    has_champion: bool,
    comparison: Comparison | None = None,
    leaks: Sequence[str] = (),
    unusable: str = "",
) -> Decision:
    """Whether the candidate may become champion.

    evaluation : the table of `evidence.measure`. has_champion : whether there is a champion that can still score.
    comparison : as `compare` returns it; None: nothing can be compared yet.
    leaks : what the audit calls leaks, in words.
    unusable : why the present champion cannot score any more, in words; empty: it can, or there is none.

    A candidate with a leak is always refused: without a champion, every alert gets the prior. A candidate is also
    refused when it misses a target, or when it loses to the champion and the whole interval lies below zero. Without a
    champion that can score, it is promoted all the same, since something has to score, and the reasons say what it
    misses.
    """
    missed, measured = _against(targets, evaluation, _contender(candidate))
    leaky = [f"it knows what was not known then: {leak}" for leak in leaks]
    details: dict[str, Any] = {
        "targets": measured,
        "compared_with_champion": vars(comparison) if comparison is not None else None,
        "leaks": list(leaks),
    }
    lost = comparison is not None and comparison.high < 0
    if leaky:
        nobody = [] if has_champion else ["no model scores until a candidate without a leak is learned"]
        return Decision("refused", leaky + missed + nobody, details)
    if not has_champion:
        first = (
            f"{unusable}; the candidate replaces it"
            if unusable
            else ("there was no champion: the first candidate scores")
        )
        excused = [f"{miss}; it scores because nothing else does" for miss in missed]
        if unusable and comparison is None:
            first += ", not compared: too few of the alerts that it scored have an outcome yet"
        elif comparison is not None:
            first += (
                f": {_in_words(comparison)}"
                if not lost
                else (f", although {_in_words(comparison)}: nothing else can score with today's features")
            )
        return Decision("promoted", [first, *excused, candidate.explanation], details)
    if missed or lost:
        losing = [_in_words(comparison)] if comparison is not None and lost else []
        return Decision("refused", missed + losing, details)
    why = "it met the targets" if measured else "no target could be measured"
    if comparison is None:
        why += "; too few alerts since the champion learned to compare the two"
    else:
        why += f"; {_in_words(comparison)}"
    return Decision("promoted", [why, candidate.explanation], details)


def why_it_knows(version: str, columns: Sequence[str]) -> str:
    """Why a champion that learned from columns which today's audit withholds may not defend its place, in words."""
    return f"the champion {version} learned from {', '.join(columns)}, not known when the alert was raised"


def why_other_features(version: str, champion: dict[str, Any], today: dict[str, Any]) -> str:
    """Why a champion of another feature contract cannot score any more, in words. champion, today : the contracts."""
    before, now = (dict(each.get("settings", {})) for each in (champion, today))
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    changes = "; ".join(f"{name} were {_listed(before.get(name))}, now {_listed(now.get(name))}" for name in changed)
    other = changes or "of an earlier release"
    return f"the champion {version} was trained with other features ({other}) and cannot score"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _in_words(comparison: Comparison) -> str:
    if comparison.high < 0:
        return (
            f"on {comparison.alerts} alerts that neither had seen it lost to the champion by {-comparison.gain:.3f} "
            f"nats per alert (95% interval {-comparison.high:.3f} to {-comparison.low:.3f})"
        )
    return (
        f"on {comparison.alerts} alerts that neither had seen it gained {comparison.gain:.3f} nats per alert "
        f"over the champion (95% interval {comparison.low:.3f} to {comparison.high:.3f})"
    )


def _contender(model: Model) -> str:
    return MODEL if model.kind in (LIGHTGBM, MIXTURE) else model.kind


def _against(targets: Targets, evaluation: pd.DataFrame, contender: str) -> tuple[list[str], dict[str, Any]]:
    """(missed targets in words, every target that could be measured with its figure)."""
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
        figure = evidence.row(evaluation, contender, metric)
        if figure is None:
            continue
        value = figure["value"]
        met = value >= target if at_least else value <= target
        measured[name] = {"target": target, **figure, "met": met}
        if not met:
            bound = "at least" if at_least else "at most"
            missed.append(
                f"its {words} is {value:.3f} (95% interval {figure['low']:.3f} to {figure['high']:.3f}), "
                f"and {bound} {target:g} is agreed"
            )
    return missed, measured
