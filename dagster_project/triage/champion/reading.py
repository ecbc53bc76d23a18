"""What readers see of a score while an alert waits: curves of age, and rates of flagged alerts, learned at a training.

Belongs here: which alerts each of them is learned from. Production and replay call the same function.
Does not belong here: the two methods (`learning/time_to_decision.py`, `flags/rates.py`), tables and views.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.flags.exclusion import flag_alerts
from dagster_project.triage.flags.rates import flagged_rates, kinds, rates_of
from dagster_project.triage.learning.calibration import uninfluenced
from dagster_project.triage.learning.time_to_decision import Curves, fit_curves


def learn_reading(
    history: pd.DataFrame,
    flags: tuple[pd.DataFrame, pd.DataFrame],
    as_of: datetime,
    horizon: timedelta,
    influenced: np.ndarray | None = None,
) -> tuple[Curves, pd.DataFrame]:
    """Curves of age and rates of flagged alerts, from what was known at `as_of`.

    history : one row per alert: alert_id, raised_at, known_at, acted, rule, team, and attributes where floods of
        sources are flagged.
    flags : flood days and visibility-only rules, as they stood at `as_of`.
    influenced : bool[alerts], outcomes that a shown score may have changed. The curves go without them as long as
        the others are enough, as calibration does.
    Returns: Curves, from alerts that had no flag while they were open; rates as `flagged_rates`, from those that had
        one. Not the flags as they were decided later: a flood is confirmed because nobody acted, so confirmed ones
        alone would say too little, and the others too much.
    """
    flood, visibility_only = flagged_while_open(history, flags, as_of)
    rates = flagged_rates(history.assign(flood=flood, visibility_only=visibility_only), as_of, horizon)
    plain = ~(flood | visibility_only) & history["acted"].notna().to_numpy()
    if influenced is not None:
        plain[plain] = uninfluenced(influenced[plain], history["acted"].to_numpy(dtype=np.float64)[plain])
    rows = history.loc[plain, ["raised_at", "known_at", "acted", "team", "rule"]]
    return fit_curves(rows, as_of, horizon), rates


def flagged_while_open(
    alerts: pd.DataFrame, flags: tuple[pd.DataFrame, pd.DataFrame], as_of: datetime
) -> tuple[np.ndarray, np.ndarray]:
    """Whether an alert had each flag while it was open, as its readers saw it; two bool[alerts].

    alerts : as `flag_alerts` takes them, with known_at. A flood that was found after the decision changed nothing that
    anybody read. Visibility-only rules are those of the raise.
    """
    until = alerts["known_at"].fillna(pd.Timestamp(as_of))
    suspected = flag_alerts(alerts, *flags, as_of=as_of)["excluded_from"]
    flood = (suspected.notna() & (suspected < until)).to_numpy(dtype=bool)
    return flood, flag_alerts(alerts, *flags, as_of="at_raise")["visibility_only"].to_numpy(dtype=bool)


def as_read(
    scores: pd.DataFrame, alerts: pd.DataFrame, curves: Curves, rates: pd.DataFrame, moment: datetime
) -> pd.DataFrame:
    """The open alerts of a moment with the number that readers see, as `reporting.alert_scores_latest` gives it.

    scores : alert_id, probability (at the raise), flood, visibility_only: the newest score of each open alert.
    alerts : raised_at, team, rule of the same alerts, row by row.
    curves, rates : learned by the moment.
    Returns: alert_id, moment (datetime64[us, UTC]), probability_at_raise, probability, flood, visibility_only.
    """
    age = (pd.Timestamp(moment) - alerts["raised_at"]).dt.total_seconds().to_numpy(dtype=np.float64)
    at_raise = scores["probability"].to_numpy(dtype=np.float64)
    flood, visibility_only = (scores[name].to_numpy(dtype=bool) for name in ("flood", "visibility_only"))
    groups = curves.groups(alerts["team"], alerts["rule"])
    of_kind = rates_of(rates, kinds(flood, visibility_only), alerts["rule"].to_numpy(dtype=object))
    # The share of a kind is a chance at the raise as well: it falls with the wait.
    now = curves.now(np.where(np.isnan(of_kind), at_raise, of_kind), groups, age)
    return pd.DataFrame(
        {
            "alert_id": scores["alert_id"].to_numpy(),
            "moment": pd.Series(pd.Timestamp(moment), index=range(len(scores))).astype("datetime64[us, UTC]"),
            "probability_at_raise": at_raise,
            "probability": now,
            "flood": flood,
            "visibility_only": visibility_only,
        }
    )
