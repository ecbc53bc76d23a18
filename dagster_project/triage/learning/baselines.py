"""The simple rules that every model has to beat.

Belongs here: the baselines, fitted on the same past alerts as a model. Each forecasts probabilities by itself, and can
serve when nothing better is proven.
Does not belong here: choosing between contenders (`learning/training.py`) and measuring them (`evaluation/metrics.py`,
`evaluation/measures.py`).

Baselines read history columns, so at scoring they are as up to date as the model: the rate of a rule is the rate known
when the alert was raised, not the one at training.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.contenders import ALWAYS_NO, CONSTANT, REPEAT, REPEAT_LAST
from dagster_project.triage.evaluation.metrics import clip_probability, expit, log_losses, logit
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.learning.calibration import penalised_logistic

LOGISTIC = "logistic_on_rates"
RATE_KEYS = ("rule", "entity", "team")

# "Nobody ever acts" is not a probability, and its log-loss is infinite as soon as somebody acts. It is scored as odds
# of a thousand to one: an action then costs 6.9 nats. Its Brier score and its ranking do not depend on this choice.
ALWAYS_NO_PROBABILITY = 1e-3

# A rate is mixed with so many alerts at the overall rate. Each fit chooses among these, by log-loss on the past.
STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0)

# A baseline never claims more certainty than this: the past rate of a rule that was never acted upon is a
# small number, not zero.
FLOOR = 1e-3


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    name : one of `names_for`. numbers : what it needs to forecast, JSON-able.
    """

    name: str
    numbers: dict[str, Any]

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Probability of action per alert, float64 in (0, 1); `HeedError` for a missing history column."""
        n = len(frame)
        if self.name == ALWAYS_NO:
            return np.full(n, ALWAYS_NO_PROBABILITY)
        if self.name == CONSTANT:
            return np.full(n, self.numbers["rate"], dtype=np.float64)
        if self.name.startswith(REPEAT):
            last = _read(frame, self.numbers["column"])
            table = self.numbers
            return np.where(np.isnan(last), table["none"], np.where(last > 0.5, table["acted"], table["not_acted"]))
        if self.name == LOGISTIC:
            design = _design([Baseline.from_document(r) for r in self.numbers["rates"]], self.numbers["last"], frame)
            # Row by row the same sum in the same order, whatever the other rows are.
            z = (design * np.asarray(self.numbers["coefficients"], dtype=np.float64)).sum(axis=1)
            return clip_probability(expit(z), FLOOR)
        return _shrunk(
            frame, self.numbers["known"], self.numbers["acted"], self.numbers["share"],
            self.numbers["strength"], self.numbers["rate"],
        )  # fmt: skip

    def reads(self, columns: Collection[str]) -> bool:
        """Whether it reads one of these history columns."""
        text = json.dumps(self.numbers)
        return any(f'"{name}"' in text for name in columns)

    def to_document(self) -> dict[str, Any]:
        """JSON-able; `from_document` gives back an equal baseline."""
        return {"name": self.name, "numbers": self.numbers}

    @classmethod
    def from_document(cls, document: Any) -> Baseline:
        """The baseline of a document made by `to_document`; `HeedError` when it is not one."""
        try:
            baseline = cls(str(document["name"]), dict(document["numbers"]))
            needed: tuple[str, ...]
            if baseline.name.startswith("rate_per_"):
                needed = ("rate", "strength")
                ok = all(isinstance(baseline.numbers[c], (str, type(None))) for c in ("known", "acted", "share"))
            elif baseline.name == LOGISTIC:
                needed = ()
                ok = len(baseline.numbers["coefficients"]) == 1 + len(baseline.numbers["rates"]) + 2 * bool(
                    baseline.numbers["last"]
                ) and all(np.isfinite(float(c)) for c in baseline.numbers["coefficients"])
                for rate in baseline.numbers["rates"]:
                    cls.from_document(rate)
            else:
                repeats = {f"{REPEAT}{key}": ("acted", "not_acted", "none") for key in RATE_KEYS}
                needed = {ALWAYS_NO: (), CONSTANT: ("rate",), **repeats}[baseline.name]
                ok = baseline.name not in repeats or isinstance(baseline.numbers["column"], str)
            ok = ok and all(np.isfinite(float(baseline.numbers[name])) for name in needed)
        except (KeyError, TypeError, ValueError) as error:
            raise HeedError(f"the stored baseline is malformed ({error!r})", "train again") from error
        if not ok:
            raise HeedError("the stored baseline is malformed (a number is missing or not finite)", "train again")
        return baseline


def names_for(settings: FeatureSettings) -> list[str]:
    """The baselines that the history of `settings` allows, from the simplest to the most elaborate."""
    rates = [f"rate_per_{key}" for key in RATE_KEYS if key in settings.keys and settings.outcome_windows]
    repeats = [f"{REPEAT}{key}" for key in RATE_KEYS if key in settings.keys]
    return [ALWAYS_NO, CONSTANT, *rates, *repeats, *([LOGISTIC] if rates else [])]


def read_by_baselines(settings: FeatureSettings) -> set[str]:
    """The history columns that fitting and predicting may read."""
    statistics = ("known_count", "acted_count", "decayed_acted_rate", "last_outcome")
    return {f.name for f in history_features_for(settings) if f.key in RATE_KEYS and f.statistic in statistics}


def fit_baselines(
    frame: pd.DataFrame,
    acted: np.ndarray,
    settings: FeatureSettings,
    weight: np.ndarray | None = None,
    prior: tuple[float, float] = (0.5, 0.5),
    withheld: Sequence[str] = (),
) -> dict[str, Baseline]:
    """All baselines that `settings` allow, fitted on the same past alerts.

    Parameters
    ----------
    frame : past alerts with their history columns. acted : 0.0 or 1.0 per alert. weight : per alert, default
    1.
    prior : pseudo-counts (acted, not acted) that keep a rate inside (0, 1); Jeffreys' by default.
    withheld : keys whose history no baseline reads; those that need one are left out.

    Defined for any number of alerts, none included (every rate is then the prior's mean).
    """
    w = np.ones(len(acted)) if weight is None else np.asarray(weight, dtype=np.float64)
    y = np.asarray(acted, dtype=np.float64)
    rate = float((np.dot(w, y) + prior[0]) / (w.sum() + prior[0] + prior[1]))
    fitted = {ALWAYS_NO: Baseline(ALWAYS_NO, {}), CONSTANT: Baseline(CONSTANT, {"rate": rate})}
    wanted = names_for(settings)
    rates = []
    for key in RATE_KEYS:
        name = f"rate_per_{key}"
        if name in wanted and key not in withheld:
            fitted[name] = _fit_rate(name, key, frame, y, w, rate, settings)
            rates.append(fitted[name])
    for f in history_features_for(settings):
        name = f"{REPEAT}{f.key}"
        if f.statistic == "last_outcome" and name in wanted and f.key not in withheld:
            fitted[name] = _fit_repeat_last(name, f.name, frame, y, w, rate)
    last = fitted[REPEAT_LAST].numbers["column"] if REPEAT_LAST in fitted else None
    if LOGISTIC in wanted and rates:
        design = _design(rates, last, frame)
        # Centred on "the plain average of the log-odds of the rates", with room to move away from it.
        centre = [0.0] + [1.0 / len(rates)] * len(rates) + [0.0, 0.0] * (last is not None)
        coefficients = penalised_logistic(design, y, w, centre, [1.0] * len(centre))
        numbers = {
            "rates": [r.to_document() for r in rates],
            "last": last,
            "coefficients": [float(c) for c in coefficients],
        }
        fitted[LOGISTIC] = Baseline(LOGISTIC, numbers)
    return fitted


def _fit_rate(
    name: str,
    key: str,
    frame: pd.DataFrame,
    y: np.ndarray,
    w: np.ndarray,
    rate: float,
    settings: FeatureSettings,
) -> Baseline:
    """The window or half-life, and the shrinkage, with the lowest log-loss on the past.

    History columns make that an out-of-sample choice.
    """
    features = [f for f in history_features_for(settings) if f.key == key]
    known = {f.window: f.name for f in features if f.statistic == "known_count"}
    acted = {f.window: f.name for f in features if f.statistic == "acted_count"}
    longest = known[max(w for w in known if w is not None)]
    variants: list[tuple[str, str | None, str | None]] = [(known[w], acted[w], None) for w in known if w in acted]
    variants += [(longest, None, f.name) for f in features if f.statistic == "decayed_acted_rate"]
    best: tuple[float, dict[str, Any]] | None = None
    for known_name, acted_name, share_name in variants:
        for strength in STRENGTHS:
            p = _shrunk(frame, known_name, acted_name, share_name, strength, rate)
            loss = float(np.dot(w, log_losses(p, y)))
            if best is None or loss < best[0] - 1e-9:
                read = {"known": known_name, "acted": acted_name, "share": share_name}
                best = (loss, {**read, "strength": strength, "rate": rate})
    assert best is not None
    return Baseline(name, best[1])


def _shrunk(
    frame: pd.DataFrame, known: str, acted: str | None, share: str | None, strength: float, rate: float
) -> np.ndarray:
    """(acted + strength * rate) / (known + strength); a decayed share replaces acted / known."""
    n = np.nan_to_num(_read(frame, known))
    k = np.nan_to_num(_read(frame, acted)) if acted is not None else np.nan_to_num(_read(frame, str(share))) * n
    return clip_probability((k + strength * rate) / (n + strength), FLOOR)


def _fit_repeat_last(
    name: str, column: str, frame: pd.DataFrame, y: np.ndarray, w: np.ndarray, rate: float
) -> Baseline:
    """P(acted | the key's last known outcome), each mixed with two alerts at the overall rate."""
    last = _read(frame, column)
    numbers: dict[str, Any] = {"column": column}
    groups = {"acted": last > 0.5, "not_acted": last <= 0.5, "none": np.isnan(last)}
    for group, mask in groups.items():
        numbers[group] = float((np.dot(w[mask], y[mask]) + 2 * rate) / (w[mask].sum() + 2))
    return Baseline(name, numbers)


def _design(rates: list[Baseline], last_column: str | None, frame: pd.DataFrame) -> np.ndarray:
    columns = [np.ones(len(frame)), *(logit(r.predict(frame)) for r in rates)]
    if last_column:
        last = _read(frame, last_column)
        columns += [
            np.where(last > 0.5, 1.0, np.where(last <= 0.5, -1.0, 0.0)),
            np.isnan(last).astype(np.float64),
        ]
    return np.column_stack(columns)


def _read(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        raise HeedError(f"the history column {name} is missing", "compute the features with the settings of the model")
    return frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
