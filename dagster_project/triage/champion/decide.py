"""The decision about the champion: production and replay both take it here.

Belongs here: what the standing champion is measured by and whether it may defend its place, the gate's judgement of the
candidate, a person's roll-back that the gate must respect, and the model that scores from now on.
Does not belong here: targets and comparisons (`gate.py`), the map of a champion that stays (`recalibration.py`), and
reading or storing models and decisions (`assets/training.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from dagster_project.triage.audit.withholding import Withholding, knows
from dagster_project.triage.champion import gate
from dagster_project.triage.champion.recalibration import recalibrate
from dagster_project.triage.learning.model import Model


@dataclass(frozen=True)
class Standing:
    """The champion of the moment.

    version : its name in the store. model : None when its row cannot be read; `damage` then says why.
    published : returns alert_id and probability of the alerts that it scored (see `gate.compare_published`); called
        only when it cannot read today's features.
    """

    version: str
    model: Model | None
    damage: str = ""
    published: Callable[[], pd.DataFrame] | None = None


@dataclass(frozen=True)
class Outcome:
    """What was decided.

    decision : about the candidate. unusable : why the standing champion did not defend its place; empty when it did, or
    when there was none. scores : the candidate, or the champion with the map that fits it now; None when the candidate
    was refused and no champion can be recalibrated: whatever scored before goes on scoring.
    """

    decision: gate.Decision
    unusable: str
    scores: Model | None


def decide_champion(
    candidate: Model,
    forecasts: pd.DataFrame,
    evaluation: pd.DataFrame,
    frame: pd.DataFrame,
    standing: Standing | None,
    *,
    cut: datetime,
    horizon: timedelta,
    targets: gate.Targets | None = None,
    withholding: Withholding | None = None,
    leaks: Sequence[str] = (),
    withdrawn: Mapping[str, Mapping[str, Any]] | None = None,
) -> Outcome:
    """Decide whether the candidate becomes champion, and which model scores from `cut` on.

    forecasts : `Learned.forecasts` of the candidate. evaluation : `evidence.measure` of them.
    frame : the training frame at `cut` (UTC), with the outcomes known by then.
    standing : the champion; None when there is none.
    horizon : how long an action counts after an alert.
    targets : of the gate; None asks what the gate asks by default.
    withholding : what learning went without. A champion that learned from it would win on facts it cannot have known.
    leaks : what the audit of the candidate calls leaks, in words.
    withdrawn : by version, the roll-back (`decided_by`, `reasons`) that ended it. The gate never brings one back.

    The champion is compared without its recalibration: the map was fitted on the very alerts of the comparison.
    """
    withdrawn = withdrawn or {}
    champion, unusable, comparison = _defending(candidate, forecasts, frame, standing, withholding or Withholding())
    decision = gate.judge(
        candidate, evaluation, targets or gate.Targets(), champion is not None, comparison, leaks, unusable
    )
    if decision.decision == "promoted" and (rollback := withdrawn.get(candidate.version)):
        why = f"{rollback['decided_by']} rolled back from it ({'; '.join(rollback['reasons'])})"
        decision = replace(decision, decision="refused", reasons=[f"{why}; only a person makes it champion again"])
    if decision.decision == "promoted":
        return Outcome(decision, unusable, candidate)
    if champion is None:
        return Outcome(decision, unusable, None)
    recalibrated = recalibrate(champion, frame, cut, horizon)
    return Outcome(decision, unusable, champion if recalibrated.version in withdrawn else recalibrated)


def _defending(
    candidate: Model,
    forecasts: pd.DataFrame,
    frame: pd.DataFrame,
    standing: Standing | None,
    withholding: Withholding,
) -> tuple[Model | None, str, gate.Comparison | None]:
    """(the champion where it defends its place, why it does not, how it compares with the candidate)."""
    if standing is None:
        return None, "", None
    if standing.model is None:
        return None, standing.damage, None
    trained = standing.model.as_trained()
    if trained.contract.get("hash") != candidate.contract.get("hash"):
        # It cannot score any more, but what it said while it could is compared.
        why = gate.why_other_features(standing.version, trained.contract, candidate.contract)
        published = standing.published() if standing.published is not None else None
        compared = None if published is None else gate.compare_published(candidate, forecasts, trained, published)
        return None, why, compared
    if known_to := knows(trained, withholding):
        return None, gate.why_it_knows(standing.version, known_to), None
    return standing.model, "", gate.compare(candidate, forecasts, trained, frame)
