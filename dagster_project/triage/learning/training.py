"""Training: the model that serves from a cut on, learned from what was known then.

Belongs here: fitting the baselines, and whether the candidates' trees or a baseline serve.
Does not belong here: the alerts and inner cuts of a training (`past.py`), the competition between candidates
(`competition.py`), the trained model (`model.py`), LightGBM itself (`boosting.py`), measuring the forecasts
(`evaluation/evidence.py`), and the gate against the present champion (`champion/gate.py`).

How a training uses time, at cut T:

1. Usable alerts were raised before T and their outcome was known at T. Only *mature* ones take part: raised at least
   one horizon before T. Younger alerts are known early only because somebody decided quickly; a model trained on them
   would learn that everything is acted upon. Excluded alerts are never trained on, but are forecast.
2. Inner cuts lie in the last third of the mature alerts (rolling origin). At an inner cut c every candidate
   and every baseline is fitted on alerts that were mature at c and not excluded by a flag decided by c, and
   forecasts the alerts raised between c and the next inner cut.
3. Every decision (candidates, number of trees, calibration) is made for each inner cut from the forecasts of the
   inner cuts *before* it, as production would have made it. The forecasts made with these decisions are the evidence:
   nothing in them was chosen with hindsight, and no decision at all used those of the last inner cut. Trees serve only
   if they beat the best baseline there, with a block bootstrap interval above zero; the best baseline is chosen in the
   same way, from the inner cuts before.
4. For production the same decisions are made once more from all inner cuts, and the winners are fitted again
   on all mature alerts.

The default is kept unless the past contradicts it by more than its noise. Alert histories are short and change
abruptly: on the real alerts (22 cuts, 10,040 alerts) choosing freely by the smallest past loss had a log-loss 0.09
above that of the same candidates left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.triage.evaluation import metrics
from dagster_project.triage.evaluation.contenders import CONSTANT, MODEL
from dagster_project.triage.features.contract import contract
from dagster_project.triage.learning.baselines import LOGISTIC, RATE_KEYS, Baseline, fit_baselines
from dagster_project.triage.learning.candidates import LearningSettings
from dagster_project.triage.learning.competition import Competition, rounded
from dagster_project.triage.learning.model import LIGHTGBM, PRIOR, Model
from dagster_project.triage.learning.past import Past, horizon_ends, join, known_alerts, usable_alerts
from dagster_project.triage.learning.reasons.counts import count_outcomes

# With fewer alerts of known outcome no rate is told from another.
FEWEST = 20


@dataclass(frozen=True)
class Learned:
    """The result of a training.

    model : what scores from now on.
    forecasts : one row per alert of the inner cuts, flagged ones included, in order of time: alert_id,
        raised_at, rule, entity, team, severity (as far as given), rule_age_days (since the rule's first alert
        of the training set), last_outcome (of the rule, as known at raise; nan: none), acted, excluded, influenced
        (absent where none is), fold (0, 1, ...), and one column of probabilities per contender: "model" (the trees,
        decided and fitted on nothing later than the alert's inner cut; absent when there was too little to learn
        from) and every baseline. Empty when there was no inner cut.
    """

    model: Model
    forecasts: pd.DataFrame


def train(frame: pd.DataFrame, cut: datetime, settings: LearningSettings) -> Model:
    """The model of `learn`."""
    return learn(frame, cut, settings).model


def learn(frame: pd.DataFrame, cut: datetime, settings: LearningSettings, proven: bool = False) -> Learned:
    """Learn from what was known at `cut`.

    Parameters
    ----------
    frame : one row per alert: `raised_at`, `known_at` (datetime, UTC), `acted` (1.0, 0.0, nan for not known),
        `excluded` (bool, may be absent), `excluded_since` (datetime, UTC: when the exclusion was decided; may
        be absent or null: always), `influenced` (bool: a shown score may have changed the outcome; may be absent:
        none), the raise-time columns, and the history columns of `settings.features`.
        Rows whose outcome was not known at the cut are ignored, so the whole table may be given.
    cut : time-zone aware.
    proven : whether the present champion is a model of trees. It beat the best baseline significantly once, and that
        holds until it is refuted: trees then give way only when they lose significantly. Otherwise an interval that
        happens to include zero would swap model and baseline from week to week.

    Never fails for lack of data: with too little to learn from, the best baseline (or the prior) serves and
    `Model.explanation` says so. Deterministic: the same rows, cut and settings give the same bytes, whatever the
    number of threads and the order of rows.
    """
    if cut.tzinfo is None:
        raise ValueError("the cut needs a time zone")
    known = int(usable_alerts(frame, cut).sum())
    by = ["raised_at", "alert_id"] if "alert_id" in frame else ["raised_at"]
    ripe = known_alerts(frame, cut) & (horizon_ends(frame, settings.horizon) <= pd.Timestamp(cut)).to_numpy(dtype=bool)
    rows = np.flatnonzero(ripe)
    # Ordered by its keys alone: the frame is wide, and is copied once.
    order = frame[by].iloc[rows].reset_index(drop=True).sort_values(by, kind="stable").index.to_numpy()
    mature = frame.iloc[rows[order]].reset_index(drop=True)
    del frame  # learning needs its memory when the caller holds it no more
    return _Training(known, mature, cut.astimezone(UTC), settings, proven).run()


class _Training:
    """One training: the past, the competition on it, and the model that wins."""

    def __init__(
        self, known: int, mature: pd.DataFrame, cut: datetime, settings: LearningSettings, proven: bool
    ) -> None:
        self.known, self.cut, self.settings, self.proven = known, cut, settings, proven
        self.past = Past(mature, cut, settings)
        self.contract = contract(settings.features)
        acted = self.past.acted[~self.past.excluded]
        self.counts = {
            "known": known,
            "mature": len(acted),
            "acted": int(acted.sum()),
            "not_acted": int((acted == 0).sum()),
        }
        self.evidence: dict[str, Any] = {"alerts": self.counts}

    def run(self) -> Learned:
        if not self.counts["mature"]:
            return Learned(self._prior(), pd.DataFrame())
        past, settings = self.past, self.settings
        forecasts = self._baseline_forecasts()
        counted = ~past.excluded[past.validation]
        y = past.acted[past.validation][counted]
        baseline = self._baseline_in_the_past(forecasts)
        losses = {name: metrics.log_loss(p[counted], y) for name, p in forecasts.items()} if past.folds else {}
        serving = self._serving_baseline(forecasts)
        best = min(losses, key=lambda name: losses[name]) if losses else CONSTANT
        self.evidence |= {
            "inner_cuts": [fold.cut.isoformat() for fold in past.folds],
            "validation_alerts": len(y),
            "log_loss": {name: rounded(loss) for name, loss in losses.items()},
        }
        if self.counts["acted"] < settings.minimum_acted or self.counts["not_acted"] < settings.minimum_not_acted:
            why = (
                f"too little to learn from: {self.counts['acted']} acted and {self.counts['not_acted']} not acted "
                f"outcomes are known, {settings.minimum_acted} and {settings.minimum_not_acted} are needed"
            )
            return Learned(self._baseline(serving, why), self._table(forecasts))
        if not past.folds:
            why = "too little to learn from: the known outcomes lie too close in time to test a model on later ones"
            return Learned(self._baseline(serving, why), self._table(forecasts))
        competition = Competition(past)
        trees = competition.forecasts()
        gain = metrics.log_losses(baseline[counted], y) - metrics.log_losses(trees[counted], y)
        blocks = pd.factorize(past.blocks[past.validation][counted])[0]
        low, high = metrics.interval(
            lambda w: float(np.dot(w, gain) / max(w.sum(), 1e-300)), blocks, settings.replicates, settings.seed
        )
        choice = competition.decide(len(past.folds))
        names = [competition.candidates[i].name for i in choice.members]
        self.evidence["log_loss"][LIGHTGBM] = rounded(metrics.log_loss(trees[counted], y))
        self.evidence["candidates"] = competition.evidence(choice)
        self.evidence["chosen"] = {
            "candidates": names,
            "trees": list(choice.trees),
            "calibration": choice.calibration.to_document(),
        }
        self.evidence["gain_over_best_baseline"] = {
            "baseline_in_hindsight": best,
            "nats": rounded(float(gain.mean())),
            "low": rounded(low),
            "high": rounded(high),
        }
        table = self._table({MODEL: trees, **forecasts})
        margin = f"by {gain.mean():.3f} nats per alert (95% interval {low:.3f} to {high:.3f})"
        explanation = f"gradient-boosted trees ({'; '.join(names)}), trained on {self.counts['mature']} alerts; "
        if gain.mean() > 0 and low > 0:
            explanation += f"in the past they beat the best baseline {margin}"
        elif self.proven and not high < 0:
            explanation += (
                f"they beat the best baseline significantly before, and lately {margin}, which does not refute it"
            )
        elif not settings.prove_first and not high < 0:
            explanation += f"they serve unproven, as the settings ask: in the past they beat the best baseline {margin}"
        else:
            why = f"in the past no model beat the best baseline significantly (the trees did {margin})"
            return Learned(self._baseline(serving, why), table)
        model = self._model(
            LIGHTGBM,
            explanation,
            plan=competition.plan,
            calibration=choice.calibration,
            booster_text=competition.final_trees(choice),
            members=len(choice.members),
            counts=count_outcomes(competition.plan, competition.matrix, past.acted, ~past.excluded, settings.features),
        )
        return Learned(model, table)

    def _model(self, kind: str, explanation: str, **parts: Any) -> Model:
        threads = self.settings.threads
        return Model(kind, self.cut, self.contract, explanation, self.evidence, threads=threads, **parts)

    def _baseline_forecasts(self) -> dict[str, np.ndarray]:
        parts: dict[str, list[np.ndarray]] = {}
        past = self.past
        for fold in past.folds:
            training, later = past.mature.iloc[fold.training], past.mature.iloc[fold.validation]
            for name, baseline in self._fit_baselines(training, past.acted[fold.training]).items():
                parts.setdefault(name, []).append(baseline.predict(later))
        return {name: np.concatenate(p) for name, p in parts.items()}

    def _serving_baseline(self, forecasts: dict[str, np.ndarray]) -> str:
        """The baseline that serves where trees do not.

        The logistic regression on the rates, unless another is better by more than noise: it begins as the mean of
        their log-odds, and where there is little to choose by, the smallest loss is luck. With next to no outcome it is
        the constant rate.
        """
        default = LOGISTIC if self.rates else CONSTANT
        if self.counts["mature"] < FEWEST:
            return CONSTANT
        counted, y, blocks = self.past.seen(len(self.past.folds))
        if not len(y):
            return default
        losses = {name: metrics.log_losses(p[counted], y) for name, p in forecasts.items()}
        own = losses[default]
        better = [name for name, loss in losses.items() if metrics.clearly_better(own - loss, blocks)]
        return min(better, key=lambda name: losses[name].mean(), default=default)

    @property
    def rates(self) -> bool:
        """Whether any rate may be read."""
        features, withheld = self.settings.features, self.settings.withheld
        return bool(features.outcome_windows) and any(k in features.keys and k not in withheld for k in RATE_KEYS)

    def _baseline_in_the_past(self, forecasts: dict[str, np.ndarray]) -> np.ndarray:
        """The forecasts of the best baseline of the inner cuts before; of the constant rate at first.

        The best in hindsight would be an unfair opponent: nobody could have chosen it.
        """
        parts, end = [], 0
        for number, fold in enumerate(self.past.folds):
            counted, y, _ = self.past.seen(number)
            losses = {name: metrics.log_loss(p[: len(counted)][counted], y) for name, p in forecasts.items()}
            chosen = min(losses, key=lambda name: losses[name]) if len(y) else CONSTANT
            parts.append(forecasts[chosen][end : end + len(fold.validation)])
            end += len(fold.validation)
        return join(parts)

    def _fit_baselines(self, frame: pd.DataFrame, acted: np.ndarray) -> dict[str, Baseline]:
        settings = self.settings
        return fit_baselines(frame, acted, settings.features, prior=settings.prior, withheld=settings.withheld)

    def _baseline(self, name: str, why: str) -> Model:
        past = self.past
        fitted = self._fit_baselines(past.mature[~past.excluded], past.acted[~past.excluded])[name]
        return self._model(name, f"{name.replace('_', ' ')} serves: {why}", baseline=fitted)

    def _prior(self) -> Model:
        """No alert is old enough for an unbiased outcome: the prior, moved by nothing."""
        a, b = self.settings.prior
        rate = a / (a + b)
        why = (
            "no outcome is known yet"
            if not self.known
            else f"{self.known} outcomes are known, none of an alert that is a whole horizon old, "
            "and early outcomes alone mislead"
        )
        explanation = f"every alert gets the prior probability {rate:.2f}: {why}"
        return self._model(PRIOR, explanation, baseline=Baseline(CONSTANT, {"rate": float(rate)}))

    def _table(self, forecasts: dict[str, np.ndarray]) -> pd.DataFrame:
        if not forecasts:
            return pd.DataFrame()
        past = self.past
        mature, rows = past.mature, past.validation
        wanted = ("alert_id", "raised_at", "rule", "entity", "team", "severity", "acted", "known_at")
        facts = mature.iloc[rows][[c for c in wanted if c in mature]].reset_index(drop=True)
        first = mature.groupby("rule")["raised_at"].transform("min")
        facts["rule_age_days"] = ((mature["raised_at"] - first).dt.total_seconds() / 86_400).to_numpy()[rows]
        if "rule_last_outcome" in mature:
            facts["last_outcome"] = mature["rule_last_outcome"].to_numpy(dtype=np.float64, na_value=np.nan)[rows]
        facts["excluded"] = past.excluded[rows]
        if past.influenced.any():
            facts["influenced"] = past.influenced[rows]
        facts["fold"] = np.repeat(np.arange(len(past.folds)), [len(fold.validation) for fold in past.folds])
        return pd.concat([facts, pd.DataFrame(forecasts)], axis=1)
