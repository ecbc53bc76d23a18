"""Columns that learning goes without, because they know what was not known when the alert was raised.

Belongs here: all checks of single columns in one call, which columns they take out, and what a person vouches for.
Does not belong here: the checks (`audit/single_feature.py`, `audit/one_outcome.py`, `audit/recomputation.py`),
audits of whole data sets (`audit/leakage.py`), and learning (`learning/training.py`).

A column is taken out, the others are checked again without it (two copies of one leak excuse each other), and so on
until nothing more is found. Production and replay call this before they learn, on what was known at the cut; the audit
of the candidate checks the remaining columns once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.audit.columns.encodings import ENCODES, repeated_chance
from dagster_project.triage.audit.columns.filled_in_later import KNOWN_LATER, dated_later, known_later
from dagster_project.triage.audit.findings import LEAK, VOUCHED, WITHHELD, Finding
from dagster_project.triage.audit.one_outcome import ONE_OUTCOME, one_outcome
from dagster_project.triage.audit.recomputation import (
    CHANGED_LATER,
    FACTS_CHANGED,
    changed_later,
    facts_changed,
    raised_before,
    raised_since,
)
from dagster_project.triage.audit.reference_learner import FitPredict, reference_learner
from dagster_project.triage.audit.single_feature import (
    IDENTITY,
    IDS_AND_TIMES,
    SINGLE,
    Rest,
    list_suspects,
    single_facts,
    without,
)
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.keys import COLUMNS
from dagster_project.triage.learning.settings import LearningSettings
from dagster_project.triage.learning.training import Learned, Model, learn

COLUMN_CHECKS = (SINGLE, ENCODES, IDS_AND_TIMES, KNOWN_LATER, FACTS_CHANGED, CHANGED_LATER, ONE_OUTCOME)
# The latest alerts that a check learns from: as for the audit (`audit.MOST_ALERTS`).
MOST_ALERTS = 8_000
# Each round takes out all that it finds; a third round found nothing new in any case of benchmarks/planted_leaks.py.
ROUNDS = 5


@dataclass(frozen=True)
class Withholding:
    """What learning goes without.

    withheld, vouched : by column, why it is taken out, or would be if nobody vouched for it. A column is written as the
    frame names it, an attribute as "@name".
    """

    withheld: dict[str, Finding] = field(default_factory=dict)
    vouched: dict[str, Finding] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """As rows of an audit, with the verdicts 'withheld' and 'vouched'."""
        withheld = [replace(f, verdict=WITHHELD) for f in self.withheld.values()]
        return withheld + [
            replace(f, verdict=VOUCHED, finding=f"{f.finding}; a person vouches that it is known at the raise")
            for f in self.vouched.values()
        ]

    def to_document(self) -> dict[str, Any]:
        """JSON-able, for the provenance of a model; empty where there is nothing to tell."""
        parts = {"withheld": self.withheld, "vouched": self.vouched}
        return {
            name: [
                {
                    "source": source,
                    "column": f.subject,
                    "check": f.check,
                    "finding": f.finding,
                    "value": f.value if np.isfinite(f.value) else None,
                    "limit": f.limit if np.isfinite(f.limit) else None,
                }
                for source, f in findings.items()
            ]
            for name, findings in parts.items()
            if findings
        }

    @classmethod
    def of(cls, evidence: dict[str, Any]) -> Withholding:
        """What the provenance of a model (`Model.evidence`) says was withheld and vouched for."""
        number = lambda value: float("nan") if value is None else float(value)  # noqa: E731
        parts = {
            name: {
                row["source"]: Finding(
                    row["check"], row["column"], row["finding"], number(row["value"]), number(row["limit"]), LEAK
                )
                for row in evidence.get(name, [])
            }
            for name in ("withheld", "vouched")
        }
        return cls(**parts)


def source_of(subject: str) -> str:
    """The column that a finding is about: an attribute is written "@name"."""
    return f"@{subject.removeprefix('attribute ')}" if subject.startswith("attribute ") else subject


def is_vouched(source: str, known_at_raise: Sequence[str]) -> bool:
    """Whether a person says that a column or attribute is known at the raise."""
    return source in known_at_raise or (source.startswith("@") and source[1:] in known_at_raise)


def withhold(
    frame: pd.DataFrame,
    history: pd.DataFrame,
    cut: datetime,
    settings: LearningSettings,
    changes: pd.DataFrame | None = None,
) -> Withholding:
    """Which columns know the future, as far as that shows at `cut`.

    frame : as `steps.training_frame` returns it at `cut`.
    history : alerts raised before `cut`, open ones included, with `acted` and `known_at`; outcomes that were not known
        at the cut are ignored. settings.known_at_raise : columns that a person vouches for; they are checked and kept.
    changes : as for `recomputation.changed_later`, those known at the cut; None: versions are not compared.
    """
    moment = pd.Timestamp(cut)
    past = as_known(raised_before(history, moment), moment)
    order = frame[["raised_at", "alert_id"]].reset_index(drop=True).sort_values(["raised_at", "alert_id"]).index
    latest = without_bugs(frame).iloc[order[-MOST_ALERTS:]]
    learner = reference_learner(settings.features, threads=settings.threads)
    withheld: dict[str, Finding] = {}
    vouched: dict[str, Finding] = {}
    for _ in range(ROUNDS):
        findings = check_columns(
            latest, frame, past, moment, settings.features, settings.horizon, learner, withheld=list(withheld)
        )
        findings += changed_later(past, changes) if changes is not None else []
        new = {source_of(f.subject): f for f in reversed(findings) if f.verdict == LEAK}
        vouched |= {s: f for s, f in new.items() if is_vouched(s, settings.known_at_raise)}
        new = {s: f for s, f in new.items() if s not in vouched and s not in withheld}
        if not new:
            break
        withheld |= dict(sorted(new.items()))
    return Withholding(withheld, dict(sorted(vouched.items())))


def without_bugs(frame: pd.DataFrame) -> pd.DataFrame:
    """The training frame as audits take it: alerts of floods, also of those confirmed later, do not count.

    A bug raises its alerts with a few names and one outcome. Whatever has these names tells the outcome, and would look
    like a column filled in later. Leaving bugs out by their outcome can hide no leak among all the other alerts.
    """
    kept = frame.drop(columns=["excluded_since", "influenced", "flood"], errors="ignore")
    if "flood" in frame and "excluded" in frame:
        kept["excluded"] = kept["excluded"].astype(bool) | frame["flood"].astype(bool)
    return kept


def as_known(history: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """`history` with the outcomes that were known at `moment`; others are null."""
    late = (history["known_at"] > moment).to_numpy(dtype=bool)
    if not late.any():
        return history
    acted = history["acted"].mask(late)
    return history.assign(acted=acted, known_at=history["known_at"].mask(late))


def check_columns(
    latest: pd.DataFrame,
    frame: pd.DataFrame,
    past: pd.DataFrame,
    cut: pd.Timestamp,
    features: FeatureSettings,
    horizon: timedelta,
    learner: FitPredict,
    *,
    withheld: Sequence[str] = (),
    replicates: int = 60,
    seed: int = 20_250_101,
) -> list[Finding]:
    """Every check of single columns.

    latest : the alerts of `frame` that checks learn from and test on. past : alerts raised before the cut, with
        outcomes as known then. withheld : columns that are no suspects any more, and that the learner does not see.
    """
    # What is about identity groups alerts in every check: there it stays, and only the learner goes without it.
    facts = [source for source in withheld if source not in IDENTITY]
    names = [source for source in withheld if source in IDENTITY]
    if withheld:
        latest, past = without(latest, facts, features), without(past, facts, features)
        frame = without(frame[["alert_id", *(c for c in (*COLUMNS, "value", "threshold", "attributes") if c in frame)]],
                        facts, features)  # fmt: skip

    def fit_predict(train: pd.DataFrame, test: pd.DataFrame) -> np.ndarray:
        return (
            learner(without(train, names, features), without(test, names, features)) if names else learner(train, test)
        )

    findings = facts_changed(frame, past)
    rest = Rest.of(latest, fit_predict, features)
    findings += single_facts(rest, replicates=replicates, seed=seed)
    findings += one_outcome(rest, seed=seed)
    del rest
    findings += dated_later(latest, features, cut, raised_since(past, cut - horizon))
    findings += repeated_chance(latest, past, features)
    findings += known_later(raised_since(past, cut - horizon - timedelta(days=70)), features, cut, horizon)
    return [f for f in findings if source_of(f.subject) not in withheld]


def learn_without_leaks(
    frame: pd.DataFrame,
    cut: datetime,
    settings: LearningSettings,
    withholding: Withholding,
) -> Learned:
    """`model.learn` without what is withheld; the model's provenance and explanation say what that was, and why."""
    learned = learn(frame, cut, replace(settings, withheld=tuple(withholding.withheld)))
    said = withholding.to_document()
    if not said:
        return learned
    words = learned.model.explanation
    if withholding.withheld:
        names = ", ".join(f.subject for f in withholding.withheld.values())
        words = f"{words}; learned without {names}: not known when the alert was raised"
    return replace(
        learned, model=replace(learned.model, evidence={**learned.model.evidence, **said}, explanation=words)
    )


def knows(model: Model, withholding: Withholding) -> list[str]:
    """Which of the withheld columns a model has learned from: their names as people know them."""
    return [finding.subject for source, finding in withholding.withheld.items() if model.reads(source)]


def extra_numbers(frame: pd.DataFrame, features: FeatureSettings) -> list[str]:
    """Numeric columns of the frame that no feature contract names; the audit's learner sees them."""
    return [
        s.source
        for s in list_suspects(frame.head(2_000), features)
        if s.kind == "number" and not s.source.startswith("@") and s.source not in ("value", "threshold")
    ]
