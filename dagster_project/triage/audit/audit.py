"""All audits of a candidate in one call: leaks, the shortcut of repeating the last action, teams.

Belongs here: calling the three audits, so that production and tests do it in the same way.
Does not belong here: the audits themselves (`audit/leakage.py`, `audit/shortcut.py`, `audit/scorecard.py`), and what
follows from them (`champion/decide.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from dagster_project.triage.audit.leakage import AuditSettings, audit_leakage
from dagster_project.triage.audit.scorecard import ScorecardSettings, team_scorecard
from dagster_project.triage.audit.shortcut import ShortcutAudit, ShortcutSettings, audit_shortcut
from dagster_project.triage.audit.single_feature import IDENTITY, without
from dagster_project.triage.audit.withholding import without_bugs
from dagster_project.triage.evaluation.contenders import MODEL, REPEAT_LAST
from dagster_project.triage.evaluation.evidence import contenders
from dagster_project.triage.features.build import build_features
from dagster_project.triage.flags.exclusion import flag_alerts, known_by
from dagster_project.triage.learning.settings import LearningSettings

# The controls train on at most so many alerts, the latest ones: with 8,000, all three audits take 12 CPU seconds on
# 58,000 alerts. Most of it is for building features again, which does not depend on this number.
MOST_ALERTS = 8_000


@dataclass(frozen=True)
class Audit:
    """The results of the audits.

    findings : as `audit_leakage` returns them. shortcut : None when no trees were trained. teams : as `team_scorecard`
    returns them; empty when no trees were trained.
    """

    findings: pd.DataFrame
    shortcut: ShortcutAudit | None
    teams: pd.DataFrame


def audit(
    frame: pd.DataFrame,
    forecasts: pd.DataFrame,
    history: pd.DataFrame,
    flood_days: pd.DataFrame,
    visibility_only: pd.DataFrame,
    cut: datetime,
    settings: LearningSettings,
    history_from: pd.Timestamp | None = None,
) -> Audit:
    """Audit what was learned at `cut`.

    frame : the training frame. forecasts : `Learned.forecasts`. history : alerts raised before the cut with `acted` and
        `known_at`, null where the outcome was not known at the cut.
    history_from : the history holds every alert since then; None: it goes back to the beginning.
    settings.withheld : the columns withheld from learning; they are not checked, and no control learns from them.
    """
    features = settings.features
    flags = flag_alerts(history, flood_days, visibility_only, as_of=cut)
    flagged = history.assign(
        excluded_from=flags["excluded_from"],
        excluded_until=flags["excluded_until"],
    )

    def rebuild(past: pd.DataFrame, first: datetime, until: datetime) -> pd.DataFrame:
        # Today's flags reach no further back than they were known then: that is part of what is checked here.
        return build_features(past, known_by(flood_days, cut), known_by(visibility_only, cut), first, until, features)

    findings = audit_leakage(
        without_bugs(frame),
        flagged,
        pd.Timestamp(cut),
        rebuild=rebuild,
        forecasts=forecasts if len(forecasts) else None,
        settings=AuditSettings(
            features=features,
            horizon=settings.horizon,
            most_alerts=MOST_ALERTS,
            threads=settings.threads,
            shuffles=1,
            withheld=settings.withheld,
            known_at_raise=settings.known_at_raise,
        ),
        history_from=history_from,
    )
    if not len(forecasts) or MODEL not in contenders(forecasts):
        return Audit(findings, None, pd.DataFrame())
    # Rule, entity and team group alerts in these audits, and stay.
    bare = without(frame, [source for source in settings.withheld if source not in IDENTITY], features)
    # Without the rule there is no last action of a rule to repeat.
    shortcut = None
    if REPEAT_LAST in forecasts:
        shortcut = audit_shortcut(
            forecasts,
            bare,
            settings=ShortcutSettings(features=features, most_alerts=MOST_ALERTS, threads=settings.threads),
        )
    teams = team_scorecard(
        forecasts,
        bare,
        settings=ScorecardSettings(
            features=features, horizon=settings.horizon, most_alerts=MOST_ALERTS, threads=settings.threads
        ),
    )
    return Audit(findings, shortcut, teams)
