"""The shortcut audit: does the model only repeat the last action?

Belongs here: how much of the model's skill repeating the rule's last outcome reaches, and any history at all; how it
does where the outcome differs from the last one, on first alerts, without history and with history mixed up; one
verdict in words.
Does not belong here: leaks (`audit/leakage.py`), teams (`audit/scorecard.py`), and deciding what serves.

A model that repeats habits can be free of leaks and calibrated, and still tell people nothing new: it says "you always
ignore this". Whether it says more is measured against two references on the same forecasts: repeating the last outcome,
and the best of the simple rules that know a rule's, entity's or team's past.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from dagster_project.triage.audit.reference_learner import FitPredict, reference_learner
from dagster_project.triage.audit.single_feature import halve
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import ALWAYS_NO, CONSTANT, MODEL, REPEAT_LAST
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.learning.baselines import names_for

REPEATS, MOSTLY_HABIT, LEARNS_BEYOND, TOO_FEW = "repeats", "mostly habit", "learns beyond habit", "too few"
VERDICTS = (REPEATS, MOSTLY_HABIT, LEARNS_BEYOND, TOO_FEW)
COLUMNS = ("slice", "contender", "metric", "value", "low", "high", "alerts", "acted")

# Less of its skill than this beyond a reference is no skill worth the name: it is within what a better fit of the
# same rule would gain. In copy-only worlds (seeds 2,000 to 2,003, 8,000 alerts) the share beyond repeating lay between
# -0.06 and -0.03, in the mixed ones the share beyond every habit between 0.67 and 0.77; the limit lies far from both.
NOT_WORTH_THE_NAME = 0.15
MINIMUM_OF_EACH = 30
NEW = "first alerts of a rule"
CHANGED = "outcome differs from the last"
SAME = "outcome is the last again"
ALL = "all"


@dataclass(frozen=True)
class ShortcutSettings:
    """How to audit.

    features : the history features of the frame. replicates, level, seed : of the block bootstrap over rule-days.
    most_alerts : the controls (without history, mixed up) train on at most so many alerts, the latest ones.
    threads : CPU threads of the default learner; results do not depend on them.
    """

    features: FeatureSettings = field(default_factory=FeatureSettings)
    replicates: int = 300
    level: float = 0.95
    seed: int = 20_250_101
    most_alerts: int = 50_000
    threads: int = 1


@dataclass(frozen=True)
class ShortcutAudit:
    """The result of the audit.

    verdict : one of `VERDICTS`. reason : the sentence that says why, with its interval.
    decided_by : 'share of skill beyond repeating' or 'share of skill beyond habit'. value, low, high : that number
    and its interval; nan where it is not defined.
    table : one row per slice, contender and metric: value, low, high (float64), alerts, acted (int64). Metrics:
    log_loss, roc_auc (of all alerts of the slice), roc_auc_given_last (over pairs with the same last outcome: 0.5 for
    a model that only repeats), share_beyond_repeating, share_beyond_habit.
    """

    verdict: str
    reason: str
    decided_by: str
    value: float
    low: float
    high: float
    table: pd.DataFrame


def audit_shortcut(
    forecasts: pd.DataFrame,
    frame: pd.DataFrame,
    *,
    fit_predict: FitPredict | None = None,
    settings: ShortcutSettings | None = None,
) -> ShortcutAudit:
    """Whether the forecasts do more than repeat the rule's last known outcome.

    forecasts : one row per alert of the rolling-origin evaluation: alert_id, raised_at, rule, acted (0.0 or 1.0),
        excluded (bool), and one column of probabilities per contender: `model`, `constant_rate`,
        `repeat_last_per_rule`, other baselines (see `baselines.names_for`). Excluded alerts are left out.
    frame : training frame with the history columns of at least those alerts.
    fit_predict : the learner of the controls without history and with history mixed up; `reference_learner` by default.

    The verdict follows from two shares of the model's skill, each with a block bootstrap interval over rule-days.
    Skill is the log-loss gained over the constant rate.

    * beyond repeating: the part of it that repeating the last outcome does not reach. At most
      `NOT_WORTH_THE_NAME`, with its whole interval: 'repeats'.
    * beyond habit: the part that no simple rule on past outcomes reaches (the best of them, in hindsight). Above
      `NOT_WORTH_THE_NAME` with its whole interval: 'learns beyond habit'; otherwise 'mostly habit', provided that the
      share beyond repeating is above zero with its whole interval.
    * 'too few': the model has no skill with an interval above zero, or an interval too wide to say, or fewer than
      30 alerts of either outcome.

    Raises KeyError: a contender or a column is missing from the forecasts.
    """
    chosen = settings or ShortcutSettings()
    last_column = next(
        f.name for f in history_features_for(chosen.features) if f.key == "rule" and f.statistic == "last_outcome"
    )
    rows = forecasts[~forecasts["excluded"].astype(bool) & forecasts["acted"].notna()]
    rows = rows.merge(frame[["alert_id", last_column]].drop_duplicates("alert_id"), on="alert_id", how="left")
    y = rows["acted"].to_numpy(dtype=np.float64)
    last = rows[last_column].to_numpy(dtype=np.float64, na_value=np.nan)
    blocks = metrics.rule_day_blocks(rows)
    contenders = [MODEL, CONSTANT, REPEAT_LAST]
    simple = set(names_for(chosen.features)) - {ALWAYS_NO, CONSTANT}
    habits = [c for c in rows.columns if c in simple or c.startswith(("rate_per_", "repeat_last"))]
    measured = []
    draws = list(metrics.bootstrap_weights(blocks, chosen.replicates, chosen.seed))
    for part, mask in _slices(y, last).items():
        for name in contenders:
            measured += _measures(
                part, name, rows[name].to_numpy(np.float64), y, last, mask, blocks, draws, chosen.level
            )
    shares = _shares(rows, y, habits, blocks, draws, chosen.level)
    for metric, (value, low, high) in shares.items():
        measured.append((ALL, MODEL, metric, value, low, high, len(y), int(y.sum())))
    measured += _controls(
        frame, chosen, fit_predict or reference_learner(chosen.features, threads=chosen.threads), last_column
    )
    verdict, reason, decided_by = _verdict(shares, y)
    value, low, high = shares.get(decided_by, (float("nan"),) * 3)
    table = pd.DataFrame(measured, columns=list(COLUMNS)).astype({"value": float, "low": float, "high": float})
    return ShortcutAudit(verdict, reason, decided_by.replace("_", " "), value, low, high, table)


BEYOND_REPEATING, BEYOND_HABIT, SKILL = "share_beyond_repeating", "share_beyond_habit", "log_loss_skill_over_constant"


def _slices(acted: np.ndarray, last: np.ndarray) -> dict[str, np.ndarray]:
    known = np.isfinite(last)
    differs = known & ((last > 0.5) != (acted > 0.5))
    return {ALL: np.ones(len(acted), dtype=bool), CHANGED: differs, SAME: known & ~differs, NEW: ~known}


def _measures(
    part: str,
    name: str,
    p: np.ndarray,
    acted: np.ndarray,
    last: np.ndarray,
    mask: np.ndarray,
    blocks: np.ndarray,
    draws: list[np.ndarray],
    level: float,
) -> list[tuple[object, ...]]:
    y, q, b = acted[mask], p[mask], blocks[mask]
    counts = (len(y), int(y.sum()))
    if min(y.sum(), len(y) - y.sum()) < MINIMUM_OF_EACH:
        nothing = (float("nan"),) * 3
        return [(part, name, metric, *nothing, *counts) for metric in ("log_loss", "roc_auc")]
    losses = metrics.log_losses(q, y)
    ranking = metrics.Ranking(q, y)
    weights = [w[b] for w in draws]
    loss = [float(np.dot(w, losses) / w.sum()) if w.sum() else float("nan") for w in weights]
    # Ranks cost more than means and move less: a third of the draws does.
    auc = [ranking.roc_auc(w) for w in weights[: max(50, len(weights) // 3)]]
    measured: list[tuple[object, ...]] = [
        (part, name, "log_loss", float(losses.mean()), *metrics.percentile_interval(np.array(loss), level), *counts),
        (part, name, "roc_auc", ranking.roc_auc(), *metrics.percentile_interval(np.array(auc), level), *counts),
    ]
    if part == ALL:
        groups = np.where(np.isnan(last), 2, last > 0.5).astype(np.int64)
        strata = [(metrics.Ranking(q[rows], y[rows]), rows) for rows in (groups == g for g in range(3)) if rows.any()]
        within = [_within(strata, y, w) for w in (np.ones(len(y)), *weights[: max(50, len(weights) // 3)])]
        bounds = metrics.percentile_interval(np.array(within[1:]), level)
        measured.append((part, name, "roc_auc_given_last", within[0], *bounds, *counts))
    return measured


def _within(strata: list[tuple[metrics.Ranking, np.ndarray]], acted: np.ndarray, weight: np.ndarray) -> float:
    """AUC over pairs of one stratum."""
    won = pairs = 0.0
    for ranking, rows in strata:
        w, y = weight[rows], acted[rows]
        count = float(np.dot(w, y) * np.dot(w, 1 - y))
        if count > 0:
            won += ranking.roc_auc(w) * count
            pairs += count
    return won / pairs if pairs else float("nan")


def _shares(
    rows: pd.DataFrame,
    acted: np.ndarray,
    habits: list[str],
    blocks: np.ndarray,
    draws: list[np.ndarray],
    level: float,
) -> dict[str, tuple[float, float, float]]:
    names = dict.fromkeys([MODEL, CONSTANT, REPEAT_LAST, *habits])
    losses = {name: metrics.log_losses(rows[name].to_numpy(np.float64), acted) for name in names}
    if not len(acted):
        return {}
    sums = {name: np.bincount(blocks, values) for name, values in losses.items()}
    count = np.bincount(blocks)

    def shares(weight: np.ndarray) -> tuple[float, float, float]:
        n = np.dot(weight, count)
        mean = {name: float(np.dot(weight, values)) / n for name, values in sums.items()} if n else {}
        if not mean:
            return (float("nan"),) * 3
        gain = mean[CONSTANT] - mean[MODEL]
        best = min(mean[name] for name in {REPEAT_LAST, *habits})
        return (
            gain / max(mean[CONSTANT], 1e-12),
            _share(gain, mean[CONSTANT] - mean[REPEAT_LAST]),
            _share(gain, mean[CONSTANT] - best),
        )

    value = shares(np.ones(len(count)))
    replicas = np.array([shares(w) for w in draws])
    return {
        name: (value[i], *metrics.percentile_interval(replicas[:, i], level))
        for i, name in enumerate((SKILL, BEYOND_REPEATING, BEYOND_HABIT))
    }


def _share(gain: float, reference: float) -> float:
    """The part of `gain` beyond `reference`, relative to the larger of the two, from -1 to 1; nan where neither gains
    anything. A reference that loses leaves all of the gain beyond it.
    """
    over = max(gain, reference)
    return float(np.clip((gain - reference) / over, -1.0, 1.0)) if over > 0 else float("nan")


def _verdict(shares: dict[str, tuple[float, float, float]], acted: np.ndarray) -> tuple[str, str, str]:
    """(verdict, reason, the share that decided)."""
    if not shares or min(acted.sum(), len(acted) - acted.sum()) < MINIMUM_OF_EACH:
        return TOO_FEW, f"fewer than {MINIMUM_OF_EACH} alerts of either outcome", BEYOND_REPEATING
    skill, repeating, habit = shares[SKILL], shares[BEYOND_REPEATING], shares[BEYOND_HABIT]
    if not skill[1] > 0:
        words = f"the model has no proven skill over the constant rate ({_text(skill)}): there is nothing to explain"
        return TOO_FEW, words, BEYOND_REPEATING
    if repeating[2] <= NOT_WORTH_THE_NAME:
        words = f"{_text(repeating)} of the model's skill is beyond repeating the rule's last outcome"
        return REPEATS, words, BEYOND_REPEATING
    if habit[1] > NOT_WORTH_THE_NAME:
        words = f"{_text(habit)} of the model's skill is beyond every simple rule on past outcomes"
        return LEARNS_BEYOND, words, BEYOND_HABIT
    if repeating[1] > 0:
        words = (
            f"{_text(repeating)} of the model's skill is beyond repeating the last outcome, but only {_text(habit)} is "
            "beyond every simple rule on past outcomes"
        )
        return MOSTLY_HABIT, words, BEYOND_HABIT
    words = f"the share of the model's skill beyond repeating the last outcome is uncertain ({_text(repeating)})"
    return TOO_FEW, words, BEYOND_REPEATING


def _text(share: tuple[float, float, float]) -> str:
    return f"{share[0]:.0%} [{share[1]:.0%}, {share[2]:.0%}]"


def _controls(
    frame: pd.DataFrame, settings: ShortcutSettings, fit_predict: FitPredict, last_column: str
) -> list[tuple[object, ...]]:
    """The same learner with history, without, and with the history of later alerts mixed up within their rules."""
    ordered = frame.sort_values(["raised_at", "alert_id"], kind="stable").tail(settings.most_alerts)
    parts = halve(ordered)
    if parts is None:
        return []
    train, test = parts.ordered[parts.earlier], parts.ordered[parts.later]
    names = [f.name for f in history_features_for(settings.features)]
    forecasts = {"learner": fit_predict(train, test)}
    nothing = dict.fromkeys(names, np.nan)
    forecasts["learner without history"] = fit_predict(train.assign(**nothing), test.assign(**nothing))
    mixed = test.copy()
    mixed[names] = test[names].to_numpy()[_mixed(test["rule"], settings.seed)]
    # Trained on true history: it loses what it learned from history of the moment rather than of the rule.
    forecasts["learner with history mixed up within rules"] = fit_predict(train, mixed)
    y = test["acted"].to_numpy(np.float64)
    last = test[last_column].to_numpy(np.float64, na_value=np.nan)
    blocks = pd.factorize(parts.blocks[parts.later])[0].astype(np.int64)
    draws = list(metrics.bootstrap_weights(blocks, min(settings.replicates, 100), settings.seed))
    measured = []
    for part, mask in _slices(y, last).items():
        for name, p in forecasts.items():
            measured += _measures(part, name, p, y, last, mask, blocks, draws, settings.level)
    return measured


def _mixed(rule: pd.Series, seed: int) -> np.ndarray:
    """Positions that put every row's history at a random other row of its rule."""
    rng = np.random.default_rng(seed)
    codes = pd.factorize(rule)[0]
    order = np.lexsort((np.arange(len(codes)), codes))
    drawn = np.lexsort((rng.random(len(codes)), codes))
    places = np.empty(len(codes), dtype=np.int64)
    places[order] = drawn
    return places
