"""Turning a score into a calibrated probability.

Belongs here: the calibration maps (none, shift, Platt, beta, isotonic), fitting one, choosing among them on
later alerts, and their plain-JSON form.
Does not belong here: measuring calibration (`evaluation/metrics.py`) and deciding on which alerts to fit
(`learning/training.py`).

No map is fitted on resampled or re-balanced alerts. Sources: Platt 1999; Niculescu-Mizil & Caruana 2005
(isotonic regression needs 1,000 to 2,000 alerts); Kull, Silva Filho & Flach 2017 (beta calibration).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dagster_project.errors import HeedError
from dagster_project.triage.evaluation.metrics import clip_probability, expit, logit

KINDS = ("none", "shift", "platt", "beta", "isotonic")

# Isotonic regression follows noise on few alerts: below this it does not compete (Niculescu-Mizil & Caruana
# 2005).
ISOTONIC_MINIMUM = 2_000

# A map fitted on alerts whose score nobody saw needs this many, and this many of either outcome. A judgement: at a
# share of 0.2 and 200 alerts, the level of such a map has a standard error of 3 points.
UNINFLUENCED_MINIMUM = 200
UNINFLUENCED_EACH = 20

# Strength of the pull towards "leave the score as it is", in units of squared log-odds coefficient: a
# Gaussian prior of standard deviation 0.5 around slope 1 and of 1.0 around intercept 0. With 100 alerts the
# pull still matters, with 2,000 it does not.
SLOPE_SPREAD = 0.5
INTERCEPT_SPREAD = 1.0


@dataclass(frozen=True)
class Calibration:
    """A monotone map from probability to probability.

    kind : one of `KINDS`.
    numbers : what the map needs: {"intercept", "slope"} | {"intercept", "a", "b"} | {"x": [...], "y": [...]}.
    """

    kind: str = "none"
    numbers: dict[str, Any] = field(default_factory=dict)

    def apply(self, probability: np.ndarray) -> np.ndarray:
        """Calibrated float64 probabilities inside (0, 1); the order of two alerts is never reversed."""
        p = clip_probability(probability)
        if self.kind == "none":
            return p
        if self.kind in ("shift", "platt"):
            return clip_probability(expit(self.numbers["intercept"] + self.numbers["slope"] * logit(p)))
        if self.kind == "beta":
            a, b, c = self.numbers["a"], self.numbers["b"], self.numbers["intercept"]
            return clip_probability(expit(c + a * np.log(p) - b * np.log1p(-p)))
        x, y = np.asarray(self.numbers["x"]), np.asarray(self.numbers["y"])
        return clip_probability(np.interp(logit(p), x, y))

    def to_document(self) -> dict[str, Any]:
        """Plain numbers and lists; `from_document` gives back an equal map."""
        return {"kind": self.kind, "numbers": self.numbers}

    @classmethod
    def from_document(cls, document: Any) -> Calibration:
        """The map of a document made by `to_document`; `HeedError` when it is not one."""
        try:
            calibration = cls(str(document["kind"]), dict(document["numbers"]))
            needed = {
                "none": (),
                "shift": ("intercept", "slope"),
                "platt": ("intercept", "slope"),
                "beta": ("intercept", "a", "b"),
                "isotonic": ("x", "y"),
            }[calibration.kind]
            values = [np.asarray(calibration.numbers[name], dtype=np.float64) for name in needed]
            sound = all(v.size and np.isfinite(v).all() for v in values)
            if calibration.kind == "isotonic":
                sound = sound and values[0].shape == values[1].shape and bool((np.diff(values[0]) > 0).all())
        except (KeyError, TypeError, ValueError) as error:
            raise HeedError(f"the stored calibration is malformed ({error!r})", "train again") from error
        if not sound:
            raise HeedError("the stored calibration is malformed (not finite or not ordered)", "train again")
        return calibration


def uninfluenced(influenced: np.ndarray, acted: np.ndarray) -> np.ndarray:
    """Which alerts a map may be fitted on: those that no shown score touched, as long as they are enough.

    influenced : bool[alerts]. acted : 0.0 or 1.0. Returns bool[alerts]: all of them where too few are untouched.
    """
    free = ~influenced
    acted_on = float(acted[free].sum())
    enough = free.sum() >= UNINFLUENCED_MINIMUM and UNINFLUENCED_EACH <= acted_on <= free.sum() - UNINFLUENCED_EACH
    return free if enough else np.ones(len(free), dtype=bool)


def fit_calibration(
    kind: str, probability: np.ndarray, acted: np.ndarray, weight: np.ndarray | None = None
) -> Calibration:
    """The calibration map of one `kind` that fits the outcomes best, shrunk towards leaving scores alone.

    probability, acted, weight : float64 arrays of equal length; `weight` None counts each alert once.

    With one class only, or no alerts, every kind but "none" is still defined by its shrinkage (isotonic falls
    back to "shift").
    """
    y = np.asarray(acted, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    p = clip_probability(probability)
    if kind == "none" or not len(y):
        return Calibration()
    x = logit(p)
    if kind == "isotonic":
        if 0 < np.dot(w, y) < w.sum():
            return _isotonic(x, y, w)
        kind = "shift"
    if kind == "shift":
        (intercept,) = penalised_logistic(np.ones((len(y), 1)), y, w, [0.0], [INTERCEPT_SPREAD], offset=x)
        return Calibration("shift", {"intercept": float(intercept), "slope": 1.0})
    if kind == "platt":
        design = np.column_stack([np.ones(len(y)), x])
        intercept, slope = penalised_logistic(design, y, w, [0.0, 1.0], [INTERCEPT_SPREAD, SLOPE_SPREAD])
        return Calibration("platt", {"intercept": float(intercept), "slope": float(max(slope, 0.0))})
    if kind == "beta":
        design = np.column_stack([np.ones(len(y)), np.log(p), -np.log1p(-p)])
        spread = [INTERCEPT_SPREAD, SLOPE_SPREAD, SLOPE_SPREAD]
        c, a, b = penalised_logistic(design, y, w, [0.0, 1.0, 1.0], spread)
        if a < 0 or b < 0:  # not monotone: Kull et al. drop the offending term and fit again; here Platt is that fit
            return fit_calibration("platt", p, y, w)
        return Calibration("beta", {"intercept": float(c), "a": float(a), "b": float(b)})
    raise ValueError(f"unknown calibration kind {kind!r}")


def choose_calibration(
    probability: np.ndarray,
    acted: np.ndarray,
    order: np.ndarray,
    weight: np.ndarray | None = None,
    blocks: int = 4,
) -> tuple[Calibration, dict[str, float]]:
    """The map that would have done best on later alerts, fitted on all of them.

    Alerts are cut by `order` (time; any sortable array) into `blocks` + 1 equal parts; each part but the
    first is forecast by maps fitted on all parts before it. The kind with the lowest log-loss there wins;
    "none" competes and wins ties within 0.0005 nats, because a map that gains nothing only adds variance.

    Returns the fitted map and the log-loss of each kind that competed (empty when there are fewer than 50
    alerts: then scores stay as they are).
    """
    y = np.asarray(acted, dtype=np.float64)
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    if len(y) < 50 or y.min() == y.max():
        return Calibration(), {}
    p = clip_probability(probability)
    position = np.empty(len(y), dtype=np.int64)
    position[np.argsort(order, kind="stable")] = np.arange(len(y))
    part = position * (blocks + 1) // len(y)
    kinds = [k for k in KINDS if k != "isotonic" or len(y) >= ISOTONIC_MINIMUM]
    losses: dict[str, float] = {}
    for kind in kinds:
        total = 0.0
        for i in range(1, blocks + 1):
            now, before = part == i, part < i
            q = fit_calibration(kind, p[before], y[before], w[before]).apply(p[now])
            total -= float(np.dot(w[now], y[now] * np.log(q) + (1 - y[now]) * np.log1p(-q)))
        losses[kind] = total / float(w[part > 0].sum())
    best = min(losses, key=lambda k: losses[k])
    if losses["none"] <= losses[best] + 5e-4:
        best = "none"
    return fit_calibration(best, p, y, w), losses


def penalised_logistic(
    design: np.ndarray,
    y: np.ndarray,
    w: np.ndarray,
    centre: list[float],
    spread: list[float],
    offset: np.ndarray | None = None,
) -> np.ndarray:
    """Logistic regression with a Gaussian prior N(centre, spread^2) per coefficient, by damped Newton steps.

    design : float64 [n, k], any intercept column included. y : 0.0 or 1.0. w : weights. offset : fixed
    log-odds [n].

    Returns the k coefficients; defined for any data, because the prior is.
    """
    middle = np.asarray(centre, dtype=np.float64)
    precision = 1.0 / np.asarray(spread, dtype=np.float64) ** 2
    shift = np.zeros(len(y)) if offset is None else offset

    def objective(beta: np.ndarray) -> float:
        z = design @ beta + shift
        return float(np.dot(w, np.logaddexp(0.0, z) - y * z) + 0.5 * np.dot(precision, (beta - middle) ** 2))

    beta = middle.copy()
    value = objective(beta)
    for _ in range(60):
        mu = expit(design @ beta + shift)
        gradient = design.T @ (w * (mu - y)) + precision * (beta - middle)
        hessian = (design * (w * mu * (1 - mu))[:, None]).T @ design + np.diag(precision)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-6:
            trial = beta - size * step
            trial_value = objective(trial)
            if trial_value <= value + 1e-12 * abs(value):
                break
            size /= 2
        else:
            break
        done = abs(value - trial_value) <= 1e-12 * max(1.0, abs(value))
        beta, value = trial, trial_value
        if done:
            break
    return beta


def _isotonic(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> Calibration:
    """Isotonic regression on the log-odds, at most 200 knots.

    Each step is shrunk by half an alert of either outcome. Without that shrinkage the lowest and highest
    steps say 0 and 1, which no finite number of alerts can show.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(increasing=True, out_of_bounds="clip").fit(x, y, sample_weight=w)
    level = fitted.predict(x)
    knots, inverse = np.unique(level, return_inverse=True)
    weight = np.bincount(inverse, w)
    centre = np.bincount(inverse, w * x) / np.maximum(weight, 1e-300)
    value = (knots * weight + 0.5) / (weight + 1.0)
    order = np.argsort(centre, kind="stable")
    centre, value = centre[order], np.maximum.accumulate(value[order])
    keep = np.r_[True, np.diff(centre) > 1e-9]
    centre, value = centre[keep], value[keep]
    if len(centre) > 200:
        pick = np.unique(np.linspace(0, len(centre) - 1, 200).astype(int))
        centre, value = centre[pick], value[pick]
    return Calibration("isotonic", {"x": [float(v) for v in centre], "y": [float(v) for v in value]})
