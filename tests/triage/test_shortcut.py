"""The shortcut audit: who only repeats is told so, who learns is not, and little is too little."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.audit_worlds import SETTINGS, audit_world, rolling_forecasts
from dagster_project.triage.audit.reference_learner import reference_learner
from dagster_project.triage.audit.shortcut import COLUMNS, ShortcutSettings, audit_shortcut
from dagster_project.triage.evaluation import metrics

LEARNER = reference_learner(SETTINGS, rounds=25)
AUDIT = ShortcutSettings(SETTINGS, replicates=60)


def hand_made(beyond_last: float, beyond_rate: float, n: int = 6_000) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Forecasts of a world whose log-odds are the last outcome, a rule's rate and a fact, each of its own strength."""
    rng = np.random.default_rng(3)
    rule = rng.integers(0, 20, n)
    last = rng.choice([0.0, 1.0, np.nan], n, p=[0.6, 0.3, 0.1])
    habit = np.select([last == 1, last == 0], [1.5, -1.5], 0.0)
    of_rule = beyond_last * rng.normal(size=20)[rule]
    fact = beyond_rate * rng.normal(size=n)
    acted = (rng.random(n) < metrics.expit(habit + of_rule + fact)).astype(float)
    raised = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.sort(rng.integers(0, 10**7, n)), unit="s")
    forecasts = pd.DataFrame(
        {
            "alert_id": [f"a{i}" for i in range(n)],
            "raised_at": raised,
            "rule": [f"rule {r}" for r in rule],
            "acted": acted,
            "excluded": False,
            "fold": 0,
            "model": metrics.expit(habit + of_rule + fact),
            "constant_rate": acted.mean(),
            "repeat_last_per_rule": metrics.expit(0.9 * habit),
            "rate_per_rule": metrics.expit(habit + of_rule),
        }
    )
    return forecasts, pd.DataFrame({"alert_id": forecasts["alert_id"], "rule_last_outcome": last})


@pytest.mark.parametrize(
    ("beyond_last", "beyond_rate", "verdict"),
    [(0.0, 0.0, "repeats"), (1.2, 0.0, "mostly habit"), (1.0, 1.5, "learns beyond habit")],
)
def test_the_verdict_follows_from_what_the_skill_is_made_of(
    beyond_last: float, beyond_rate: float, verdict: str
) -> None:
    forecasts, frame = hand_made(beyond_last, beyond_rate)
    empty = frame.assign(raised_at=forecasts["raised_at"], known_at=pd.NaT, acted=np.nan, rule="r", excluded=False)
    found = audit_shortcut(forecasts, empty, settings=AUDIT)
    assert found.verdict == verdict, found.reason
    assert found.low <= found.value <= found.high
    assert list(found.table.columns) == list(COLUMNS)


def test_whoever_repeats_cannot_rank_alerts_with_the_same_last_outcome() -> None:
    forecasts, frame = hand_made(1.0, 1.0)
    empty = frame.assign(raised_at=forecasts["raised_at"], known_at=pd.NaT, acted=np.nan, rule="r", excluded=False)
    found = audit_shortcut(forecasts, empty, settings=AUDIT).table
    given = found[found["metric"] == "roc_auc_given_last"].set_index("contender")["value"]
    assert given["repeat_last_per_rule"] == pytest.approx(0.5)
    assert given["model"] > 0.7
    changed = found[(found["slice"] == "outcome differs from the last") & (found["metric"] == "roc_auc")]
    assert changed.set_index("contender")["value"]["repeat_last_per_rule"] == 0.0


def test_little_or_no_skill_is_too_few() -> None:
    forecasts, frame = hand_made(1.0, 1.0)
    empty = frame.assign(raised_at=forecasts["raised_at"], known_at=pd.NaT, acted=np.nan, rule="r", excluded=False)
    assert audit_shortcut(forecasts.head(40), empty, settings=AUDIT).verdict == "too few"
    assert audit_shortcut(forecasts.head(0), empty, settings=AUDIT).verdict == "too few"
    noise = forecasts.assign(model=np.random.default_rng(0).uniform(0.1, 0.9, len(forecasts)))
    found = audit_shortcut(noise, empty, settings=AUDIT)
    assert found.verdict == "too few"
    assert "no proven skill" in found.reason


@pytest.mark.parametrize(("predictability", "verdict"), [("copy_only", "repeats"), ("mixed", "learns beyond habit")])
def test_worlds_are_told_apart(predictability: str, verdict: str) -> None:
    world = audit_world(2, alerts=3_500, days=120, predictability=predictability)
    forecasts = rolling_forecasts(world.frame, LEARNER, SETTINGS, folds=1)
    found = audit_shortcut(forecasts, world.frame, fit_predict=LEARNER, settings=AUDIT)
    assert found.verdict == verdict, found.reason
    again = audit_shortcut(
        forecasts.sample(frac=1, random_state=1).sort_values("alert_id"),
        world.frame,
        fit_predict=LEARNER,
        settings=replace(AUDIT, threads=2),
    )
    assert again.verdict == found.verdict
    assert again.value == pytest.approx(found.value)
    controls = found.table[found.table["metric"] == "log_loss"].set_index(["slice", "contender"])["value"]
    if predictability == "copy_only":
        assert controls["all", "learner without history"] > controls["all", "learner"] + 0.1
        assert controls["all", "learner with history mixed up within rules"] > controls["all", "learner"] + 0.1
