"""The team scorecard: how predictable is each team, how predictable could it be, and does it contradict itself?

Belongs here: skill, ranking, ceiling and inconsistency per team, and one status in a word.
Does not belong here: the forecasts (the rolling-origin evaluation makes them), the gate, and what may be closed.

A company average hides teams whose decisions no model predicts. A low skill has two causes that call for opposite
answers: a model that has not learned enough yet, and decisions that do not follow from what is known. The ceiling
distinguishes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from dagster_project.triage.audit.reference_learner import FitPredict, reference_learner, trainable
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import MODEL
from dagster_project.triage.features.contract import FeatureSettings

PREDICTABLE, PARTLY, UNPREDICTABLE, TOO_FEW = "predictable", "partly", "unpredictable", "too few"
STATUSES = (PREDICTABLE, PARTLY, UNPREDICTABLE, TOO_FEW)
COLUMNS = (
    *("team", "alerts", "acted", "acted_share"),
    *("skill", "skill_low", "skill_high", "auc", "auc_low", "auc_high"),
    *("ceiling", "ceiling_low", "ceiling_high"),
    *("inconsistency", "inconsistency_low", "inconsistency_high", "same_facts_pairs"),
    *("status", "reason"),
)

# How much further than the learner the truth ranks, in d' (the distance between acted and other alerts in standard
# deviations, from the AUC), when there is no learning curve: the median of 98 teams with 1,000 forecast alerts or more
# in 16 worlds (seeds 3,010 to 3,025, 24,000 alerts).
REACH = 1.2
# A learner trained on a quarter of the alerts shows how fast d' still grows. The reach is the geometric mean of `REACH`
# and (d' of all / d' of a quarter) ** REACH_POWER. On those 98 teams the mean absolute error of the ceiling was 0.0137
# with 1.5 and 0.0150 with 2, and 93% and 90% of the ceilings lay within 0.03. `REACH` alone came to 0.0141 and does not
# see how many alerts there are, the curve alone to 0.0141. Three times as many trees came to no less. A linear model
# per team on top of the forecasts, cross-fitted and corrected for its optimism, came to 0.0129 at the best of its
# constants, chosen on the same worlds, with 88% within 0.03: no better, for much more machinery.
REACH_POWER = 1.5
# No learner was further from the truth than this; beyond it, two noisy numbers were divided.
REACH_MOST = 1.4
# Two learners whose d' differ by less than this share are equally good: the difference is sampling.
RATIO_NOISE = 0.05
# Standard deviation of the true reach of a team around what is estimated for all, as a share, on the same teams
# (0.10 in all, of which the bootstrap of the AUC explains about 0.08).
REACH_ERROR = 0.06

# Below 0.75 one in four pairs of an acted and another alert is in the wrong order; below 0.60 four in ten do: the
# truth itself reaches 0.55 to 0.64 for simulated teams that decide by whim.
PREDICTABLE_AUC = 0.75
PARTLY_AUC = 0.60


@dataclass(frozen=True)
class ScorecardSettings:
    """How to judge teams.

    features : the history features of the frame.
    minimum_acted, minimum_not_acted, minimum_blocks : fewer alerts of a kind or fewer rule-days, and there are no
        numbers ("too few").
    predictable_auc : a team is predictable when the whole interval of its AUC lies above.
    partly_auc : a team is unpredictable when its ceiling lies below (and it has no proven skill).
    repeat_within : two alerts with the same facts are a pair when they are no further apart.
    minimum_pairs : fewer pairs give no inconsistency.
    replicates, level, seed : of the block bootstrap over rule-days.
    most_alerts : the learning curve uses at most so many alerts, the latest ones.
    threads : CPU threads; results do not depend on them.
    """

    features: FeatureSettings = field(default_factory=FeatureSettings)
    minimum_acted: int = 20
    minimum_not_acted: int = 20
    minimum_blocks: int = 10
    predictable_auc: float = PREDICTABLE_AUC
    partly_auc: float = PARTLY_AUC
    repeat_within: timedelta = timedelta(days=30)
    minimum_pairs: int = 30
    replicates: int = 300
    level: float = 0.95
    seed: int = 20_250_101
    most_alerts: int = 50_000
    horizon: timedelta = timedelta(days=14)
    threads: int = 1


def team_scorecard(
    forecasts: pd.DataFrame,
    frame: pd.DataFrame | None = None,
    *,
    fit_predict: FitPredict | None = None,
    reach: float | None = None,
    settings: ScorecardSettings | None = None,
) -> pd.DataFrame:
    """Judge every team on honest forecasts.

    forecasts : one row per alert of the rolling-origin evaluation: alert_id, raised_at, rule, entity, team, severity,
        acted (0.0 or 1.0), excluded (bool), `model` (probability). Excluded alerts and alerts without a team are left
        out.
    frame : the training frame, to measure how fast the learner still learns (`learning_reach`); without it and
        without `reach` the ceiling takes `REACH`.
    fit_predict : the learner of the learning curve. reach : as `learning_reach` returned it, to save the time.
    Returns: One row per team, in order of names: team; alerts, acted (int64); acted_share; skill (1 - log-loss of the
        model / log-loss of the team's own share in hindsight, the hardest constant there is); auc; ceiling (the AUC
        that the best possible forecast is estimated to reach); inconsistency (of pairs of alerts with the same rule,
        entity and severity within `repeat_within`, the share that ended differently, divided by what drawing outcomes
        at random from the team would give: 0 is never, 1 is as if the facts said nothing); each with low and high
        (`level`); same_facts_pairs; status; reason in words. Numbers are nan where there are too few alerts.

    Status, with intervals widened for the number of teams (Bonferroni), so that a company of noise is called
    predictable nowhere:

    * 'too few': not enough alerts of either kind, or no proven skill and a ceiling that could still be high;
    * 'predictable': proven skill, and the AUC above `predictable_auc`;
    * 'partly': proven skill;
    * 'unpredictable': no proven skill, and a ceiling below `partly_auc`, or an AUC below it with its whole interval.

    Ceiling: d' = sqrt(2) * inverse normal of the AUC, times the reach (how much further the truth ranks than the
    learner, one number for all teams), capped below 1. One number for all, because the learning curve of a single team
    is noise; teams differ in d', which is measured. Its interval covers the bootstrap of the AUC and the scatter of the
    reach between teams.
    """
    chosen = settings or ScorecardSettings()
    rows = forecasts[~forecasts["excluded"].astype(bool) & forecasts["acted"].notna() & forecasts["team"].notna()]
    rows = rows.sort_values(["raised_at", "alert_id"], kind="stable")
    if reach is None:
        reach = REACH if frame is None else learning_reach(frame, rows, fit_predict=fit_predict, settings=chosen)
    names = sorted(rows["team"].astype(str).unique())
    scored = [_team(name, rows[rows["team"].astype(str) == name], reach, len(names), chosen) for name in names]
    table = pd.DataFrame(scored, columns=list(COLUMNS))
    numbers = [c for c in COLUMNS if c not in ("team", "alerts", "acted", "same_facts_pairs", "status", "reason")]
    whole = ["alerts", "acted", "same_facts_pairs"]
    return table.astype({**dict.fromkeys(numbers, "float64"), **dict.fromkeys(whole, "int64")})


def learning_reach(
    frame: pd.DataFrame,
    forecasts: pd.DataFrame | None = None,
    *,
    fit_predict: FitPredict | None = None,
    settings: ScorecardSettings | None = None,
) -> float:
    """How much further the truth ranks than the model, as a factor on d', from a learning curve.

    A learner is trained on the earlier alerts and on every fourth of them, and tested on the later ones. The factor is
    the geometric mean of `REACH` and (d' / d' of the quarter) ** `REACH_POWER`, d' being the mean over teams; divided
    by how much further the model of `forecasts` ranks than the learner on the alerts that both know (when they differ
    by more than `RATIO_NOISE`), so that a better model is closer to the same ceiling. Between 1.02 and `REACH_MOST`;
    `REACH` where there are too few alerts for a curve.
    """
    chosen = settings or ScorecardSettings()
    learner = fit_predict or reference_learner(chosen.features, threads=chosen.threads)
    ordered = trainable(frame).sort_values(["raised_at", "alert_id"], kind="stable").tail(chosen.most_alerts)
    if len(ordered) < 1_000:
        return REACH
    cut = ordered["raised_at"].iloc[int(0.5 * len(ordered))]
    past = ordered[(ordered["raised_at"] + chosen.horizon <= cut) & (ordered["known_at"] < cut)]
    later = ordered[ordered["raised_at"] >= cut]
    full = pd.Series(learner(past, later), index=later["alert_id"])
    quarters = [pd.Series(learner(past.iloc[k::4], later), index=later["alert_id"]) for k in (0, 2)]
    large = _mean_distance([full], later)
    small = _mean_distance(quarters, later)
    if not (large > 0.3 and small > 0.15):
        return REACH
    reach = float(np.sqrt(REACH * max(1.0, large / small) ** REACH_POWER))
    if forecasts is not None:
        both = forecasts[forecasts["alert_id"].isin(full.index)]
        if len(both) >= 500:
            ours = _mean_distance([both.set_index("alert_id")[MODEL]], both)
            theirs = _mean_distance([full], both)
            if min(ours, theirs) > 0.3 and abs(theirs / ours - 1) > RATIO_NOISE:
                reach *= theirs / ours
    return float(np.clip(reach, 1.02, REACH_MOST))


def _mean_distance(forecasts: Sequence[pd.Series], rows: pd.DataFrame) -> float:
    """Mean d' over teams with at least 20 alerts of either kind, weighing each by the smaller kind."""
    total = weights = 0.0
    for _, mine in rows.groupby("team"):
        y = mine["acted"].to_numpy(np.float64)
        weight = min(y.sum(), len(y) - y.sum())
        if weight < 20:
            continue
        for forecast in forecasts:
            total += weight * float(distance(metrics.roc_auc(forecast.loc[mine["alert_id"]].to_numpy(), y)))
            weights += weight
    return total / weights if weights else float("nan")


def distance(auc: float | np.ndarray) -> np.ndarray:
    """d' of an AUC: the distance between two normal distributions of equal spread that it separates so well."""
    return np.sqrt(2.0) * ndtri(np.clip(auc, 0.001, 0.999))


def auc_of(distance_: float | np.ndarray) -> np.ndarray:
    """The inverse of `distance`."""
    return ndtr(np.asarray(distance_) / np.sqrt(2.0))


def _team(name: str, rows: pd.DataFrame, reach: float, teams: int, settings: ScorecardSettings) -> list[object]:
    y = rows["acted"].to_numpy(np.float64)
    p = rows[MODEL].to_numpy(np.float64)
    n, acted = len(y), int(y.sum())
    blocks = metrics.rule_day_blocks(rows)
    nan3 = [float("nan")] * 3
    head: list[object] = [name, n, acted, acted / n if n else float("nan")]
    clash, pairs = _inconsistency(rows, y, settings)
    few = acted < settings.minimum_acted or n - acted < settings.minimum_not_acted
    if few or blocks.max(initial=-1) + 1 < settings.minimum_blocks:
        words = f"{acted} alerts acted on and {n - acted} not are too few to judge"
        return [*head, *nan3, *nan3, *nan3, *clash, pairs, TOO_FEW, words]
    losses = metrics.log_losses(p, y)
    ranking = metrics.Ranking(p, y)

    def measure(weight: np.ndarray) -> tuple[float, float]:
        total = weight.sum()
        rate = np.dot(weight, y) / total if total else 0.0
        if not 0 < rate < 1:
            return float("nan"), float("nan")
        own = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
        return float(1 - np.dot(weight, losses) / total / own), ranking.roc_auc(weight)

    skill, auc = measure(np.ones(n))
    weights = metrics.bootstrap_weights(blocks, settings.replicates, settings.seed)
    draws = np.array([measure(w[blocks]) for w in weights])
    skill_interval = metrics.percentile_interval(draws[:, 0], settings.level)
    auc_interval = metrics.percentile_interval(draws[:, 1], settings.level)
    # For the status: normal intervals at a level for all teams together; percentiles that far out need more draws.
    wide = float(-ndtri((1 - settings.level) / 2 / max(teams, 1)))
    skill_low = skill - wide * float(np.nanstd(draws[:, 0]))
    auc_low, auc_high = (auc + side * wide * float(np.nanstd(draws[:, 1])) for side in (-1, 1))
    reached = float(distance(max(auc, 0.5)))
    error = np.hypot(reach * float(np.nanstd(distance(draws[:, 1]))), reached * REACH_ERROR)
    z = float(-ndtri((1 - settings.level) / 2))
    ceiling = [float(auc_of(max(reach * reached + side * z * error, 0.0))) for side in (0, -1, 1)]
    numbers = [skill, *skill_interval, auc, *auc_interval, *ceiling]
    status, words = _status(skill, skill_low, auc, auc_low, auc_high, ceiling[0], settings)
    return [*head, *numbers, *clash, pairs, status, words]


def _status(
    skill: float,
    skill_low: float,
    auc: float,
    auc_low: float,
    auc_high: float,
    ceiling: float,
    settings: ScorecardSettings,
) -> tuple[str, str]:
    if skill_low > 0 and auc_low > settings.predictable_auc:
        return PREDICTABLE, f"its decisions follow from what is known: skill {skill:.0%}, AUC {auc:.2f}"
    if skill_low > 0 and auc_low > 0.5:
        return PARTLY, f"some of its decisions are predictable: skill {skill:.0%}, AUC {auc:.2f}"
    if ceiling < settings.partly_auc or auc_high < settings.partly_auc:
        return UNPREDICTABLE, f"no proven skill (AUC {auc:.2f}), and at best an AUC of about {ceiling:.2f} is in reach"
    words = f"no proven skill (AUC {auc:.2f}), but {ceiling:.2f} may be in reach: more alerts will tell"
    return TOO_FEW, words


def _inconsistency(rows: pd.DataFrame, acted: np.ndarray, settings: ScorecardSettings) -> tuple[list[float], int]:
    """([share of pairs that differ over the share by chance, low, high], pairs). `rows` are in order of time."""
    facts = [rows[c].astype(object).where(rows[c].notna(), "\0").astype(str) for c in ("rule", "entity", "severity")]
    key = pd.factorize(facts[0] + "\1" + facts[1] + "\1" + facts[2])[0]
    raised = rows["raised_at"].astype("datetime64[us, UTC]").astype("int64").to_numpy()
    order = np.lexsort((np.arange(len(key)), key))
    same = (np.diff(key[order]) == 0) & (np.diff(raised[order]) <= settings.repeat_within // timedelta(microseconds=1))
    first, second = order[:-1][same], order[1:][same]
    pairs = len(first)
    rate = float(acted.mean()) if len(acted) else 0.0
    chance = 2 * rate * (1 - rate)
    if pairs < settings.minimum_pairs or chance <= 0:
        return [float("nan")] * 3, pairs
    differ = (acted[first] != acted[second]).astype(np.float64)
    things = np.unique(key[first], return_inverse=True)[1]
    n, k = np.bincount(things).astype(np.float64), np.bincount(things, weights=differ)
    draws = [
        float(np.dot(w, k) / max(np.dot(w, n), 1e-9)) / chance
        for w in metrics.bootstrap_weights(np.arange(len(n)), settings.replicates, settings.seed)
    ]
    return [float(differ.mean()) / chance, *metrics.percentile_interval(np.array(draws), settings.level)], pairs
