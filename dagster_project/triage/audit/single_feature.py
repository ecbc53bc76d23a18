"""Single facts that know too much: columns, attributes and ids, each on its own.

Belongs here: what can be suspected (`list_suspects`), how well a single fact separates outcomes, whether it says
more than everything else together.
Does not belong here: facts made of the outcomes (`audit/columns/encodings.py`) or filled in later
(`audit/columns/filled_in_later.py`), history features built without the future (`audit/recomputation.py`), and whole
data sets (`audit/leakage.py`).

History features are no suspects here: that they know nothing of the future is proven by computing them again, and a
strong habit is no leak. Everything else in a frame is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from dagster_project.triage.audit.findings import CLEAN, LEAK, NOT_CHECKED, SUSPICIOUS, Finding
from dagster_project.triage.audit.moments import read_moments
from dagster_project.triage.audit.reference_learner import FitPredict, trainable
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.features.attributes import attribute_columns
from dagster_project.triage.features.contract import FeatureSettings, histories_about, history_features_for

SINGLE = "a single fact"
IDS_AND_TIMES = "ids and times"

BOOKKEEPING = (
    *("alert_id", "raised_at", "acted", "known_at", "excluded", "attributes"),
    *("outcome", "horizon_ends_at", "loaded_at", "excluded_from", "excluded_until", "flood", "visibility_only"),
)
PLAIN_FACTS = ("value", "threshold", "severity", "title")
IDENTITY = ("rule", "entity", "team")

# Accused when the interval of the difference clears zero at this many standard errors: one-sided 1 in 2,000 per fact,
# below 1 in 50 for 40 facts. Fewer would accuse by chance alone in frames with many attributes.
CLEAR = 3.3
# A fact that says this much more than everything else together, in AUC, is implausible: in 20 clean worlds with
# something to learn (seeds 1,020 to 1,029, 6,000 alerts) the strongest single fact stayed 0.15 below all others in
# every world. In pure noise it may be 0.04 above, at an AUC of 0.54: `WORTH_A_LOOK` keeps that out.
MARGIN = 0.02
CERTAIN = 0.99
# Facts below this separate too little to be worth a second learner.
WORTH_A_LOOK = 0.65
# Share of the log-loss that an id or a time may explain beyond everything else. Ids explain nothing; by sampling alone
# the best of all readings of an id gained at most 0.002 in 30 worlds (the same, and pure noise).
ID_GAIN = 0.03

ID_LIKE = 0.5
THERE = "is there"
# Seconds since 1970 of the years 2001 to 2096, and the same in milliseconds.
_EPOCH, _EPOCH_MS = (1.0e9, 4.0e9), (1.0e12, 4.0e12)


@dataclass(frozen=True)
class Suspect:
    """A fact under suspicion.

    name : as people know it. kind : 'fact', 'number', 'text', 'id' or 'time'. values : one per alert of the frame:
    float64 with nan for 'number' and 'time' (seconds after the alert was raised), object with None for others.
    source : the column, or "@name" for an attribute.
    """

    name: str
    kind: str
    values: np.ndarray
    source: str


def list_suspects(frame: pd.DataFrame, settings: FeatureSettings) -> list[Suspect]:
    """Everything in `frame` that could know too much: plain facts, attributes, columns nobody declared, ids.

    History columns of `settings` are left out (see the module); `rule`, `entity` and `team` are what history is kept
    about, not facts to be suspected.
    """
    suspects = [Suspect("alert_id", "id", objects(frame["alert_id"]), "alert_id")]
    history = {f.name for f in history_features_for(settings)}
    for name in frame.columns:
        if name in BOOKKEEPING or name in IDENTITY or name in history:
            continue
        suspects.append(_suspect(name, frame[name], frame["raised_at"], name))
    if "attributes" in frame:
        for name, values in attribute_columns(frame["attributes"]).items():
            suspects.append(_suspect(f"attribute {name}", pd.Series(values), frame["raised_at"], f"@{name}"))
    return suspects


def _suspect(name: str, column: pd.Series, raised: pd.Series, source: str) -> Suspect:
    if pd.api.types.is_datetime64_any_dtype(column):
        return Suspect(name, "time", _after(pd.to_datetime(column, utc=True), raised), source)
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return _number(name, np.where(np.isfinite(numbers), numbers, np.nan), raised, source)
    values = objects(column)
    present = np.array([v is not None for v in values], dtype=bool)
    seen = values[present]
    if len(seen) and all(isinstance(v, float) for v in seen):
        numbers = np.array([np.nan if v is None else float(v) for v in values])
        return _number(name, numbers, raised, source)
    texts = [str(v) for v in seen]
    if source != "title" and (moments := read_moments(values, raised)) is not None:
        return Suspect(name, "time", _after(moments, raised), source)
    distinct = len(set(texts))
    kind = "id" if distinct > max(20, ID_LIKE * len(texts)) and source != "title" else "text"
    return Suspect(name, kind, values, source)


def _number(name: str, numbers: np.ndarray, raised: pd.Series, source: str) -> Suspect:
    seen = numbers[np.isfinite(numbers)]
    for (low, high), per_second in ((_EPOCH, 1), (_EPOCH_MS, 1000)):
        if len(seen) and ((seen > low) & (seen < high)).mean() > 0.99:
            times = pd.to_datetime(pd.Series(numbers / per_second), unit="s", utc=True, errors="coerce")
            return Suspect(name, "time", _after(times, raised), source)
    whole = len(seen) > 0 and bool((seen == np.round(seen)).all())
    if whole and source.startswith("@") and len(np.unique(seen)) > max(20, 0.9 * len(seen)):
        texts = np.array([None if np.isnan(v) else str(int(v)) for v in numbers], dtype=object)
        return Suspect(name, "id", texts, source)
    return Suspect(name, "number", numbers, source)


def _after(times: pd.Series, raised: pd.Series) -> np.ndarray:
    left = times.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    seconds = (left - raised.dt.tz_localize(None).to_numpy().astype("datetime64[us]")) / np.timedelta64(1, "s")
    return np.asarray(seconds, dtype=np.float64)


def objects(column: pd.Series) -> np.ndarray:
    values = column.astype(object).to_numpy(copy=True)
    values[pd.isna(values)] = None
    return values


def probes(suspect: Suspect, raised: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Ways to read a suspect, each as integer codes (-1: missing): (what is read, codes [alerts]).

    Numbers fall into 40 quantile bins and keep their most frequent values apart; text keeps its 100 most frequent
    values; ids are read by their beginning, ending, length, parity, and by their order against the order of
    raising. `raised` is any number that grows with `raised_at`.
    """
    if suspect.kind in ("number", "time"):
        return [("its value", _bins(suspect.values))]
    if suspect.kind != "id":
        return [("its value", _frequent(suspect.values))]
    texts = ["" if v is None else str(v) for v in suspect.values]
    digits = [re.sub(r"\D", "", t)[-15:] for t in texts]
    number = np.array([float(d) if d else np.nan for d in digits])
    order = (
        pd.Series(number).rank().to_numpy() - pd.Series(np.where(np.isnan(number), np.nan, raised)).rank().to_numpy()
    )
    letters = np.array([re.sub(r"\d+", "#", t) or None for t in texts], dtype=object)
    return [
        ("its letters", _frequent(letters)),
        ("its first characters", _frequent(np.array([t[:2] or None for t in texts], dtype=object))),
        ("its last character", _frequent(np.array([t[-1:] or None for t in texts], dtype=object))),
        ("its length", _frequent(np.array([len(t) for t in texts], dtype=object))),
        ("whether it is even", _frequent(pd.Series(number % 2).astype(object).to_numpy())),
        ("its size", _bins(number)),
        ("its order against time", _bins(order)),
    ]


def _bins(values: np.ndarray, bins: int = 40) -> np.ndarray:
    codes = np.full(len(values), -1, dtype=np.int64)
    finite = np.isfinite(values)
    if finite.any():
        edges = np.unique(np.quantile(values[finite], np.linspace(0, 1, bins + 1)[1:-1]))
        # Both sides: a value that fills several quantiles is a bin of its own.
        codes[finite] = np.searchsorted(edges, values[finite], "left") + np.searchsorted(edges, values[finite], "right")
    return codes


def _frequent(values: np.ndarray, most: int = 100) -> np.ndarray:
    codes = pd.factorize(np.asarray(values, dtype=object))[0].astype(np.int64)
    counts = np.bincount(codes[codes >= 0]) if (codes >= 0).any() else np.zeros(0, np.int64)
    place = np.full(len(counts) + 1, most, dtype=np.int64)
    ordered = np.argsort(-counts, kind="stable")[:most]
    place[ordered] = np.arange(len(ordered))
    place[-1] = -1
    return place[codes]


def encoded_rates(codes: np.ndarray, acted: np.ndarray, taught: np.ndarray, strength: float = 5.0) -> np.ndarray:
    """The taught share acted of each code, shrunk towards the overall share by `strength` alerts: float64 [alerts]."""
    rate = float(acted[taught].mean()) if taught.any() else 0.5
    shifted = codes + 1
    size = int(shifted.max(initial=0)) + 1
    n = np.bincount(shifted[taught], minlength=size)
    k = np.bincount(shifted[taught], weights=acted[taught], minlength=size)
    return ((k + strength * rate) / (n + strength))[shifted]


@dataclass(frozen=True)
class Halves:
    """A frame divided in time: taught on the earlier part, tested on the later one.

    ordered : the rows that teach, in order of time. earlier, later : boolean masks over them; an earlier outcome was
    known before the first later alert was raised. blocks : codes of the rule-days of all rows.
    """

    ordered: pd.DataFrame
    earlier: np.ndarray
    later: np.ndarray
    blocks: np.ndarray


def halve(frame: pd.DataFrame, share: float = 0.6) -> Halves | None:
    """Divide `frame` in time; None when either part has fewer than 20 alerts of a kind."""
    ordered = trainable(frame).sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
    if len(ordered) < 80:
        return None
    cut = ordered["raised_at"].iloc[int(share * len(ordered))]
    later = (ordered["raised_at"] >= cut).to_numpy()
    earlier = (ordered["known_at"] < cut).to_numpy() & ~later
    y = ordered["acted"].to_numpy(dtype=np.float64)
    for mask in (earlier, later):
        if min(y[mask].sum(), (1 - y[mask]).sum()) < 20:
            return None
    day = ordered["raised_at"].dt.floor("D").astype("int64").astype(str)
    blocks = pd.factorize(ordered["rule"].astype(object).astype(str) + "\0" + day)[0].astype(np.int64)
    return Halves(ordered, earlier, later, blocks)


def without(frame: pd.DataFrame, sources: Sequence[str], settings: FeatureSettings) -> pd.DataFrame:
    """`frame` with the named columns and attributes ("@name"), and the histories kept about them, empty."""
    reduced = frame.copy(deep=False)
    names = {source[1:] for source in sources if source.startswith("@")}
    for source in sources:
        if source in reduced and source != "alert_id":
            reduced[source] = None if source in (*IDENTITY, "severity", "title") else np.nan
    for name in histories_about(sources, settings):
        if name in reduced:
            reduced[name] = np.nan
    if names and "attributes" in reduced:
        codes, texts = pd.factorize(reduced["attributes"].astype(object))
        kept = np.array([*(_strip(t, names) for t in texts), None], dtype=object)
        reduced["attributes"] = kept[codes]
    return reduced


def _strip(text: object, names: set[str]) -> str | None:
    try:
        entry = json.loads(text) if isinstance(text, str) else text
    except ValueError:
        return None
    if not isinstance(entry, dict):
        return None
    return json.dumps({k: v for k, v in entry.items() if k not in names}, sort_keys=True, default=str)


def single_facts(learner: Rest | None, *, replicates: int = 60, seed: int = 0) -> list[Finding]:
    """Facts that separate outcomes implausibly well, alone.

    Each suspect, read in every way `probes` knows, is taught its shares on the earlier part of time and tested on
    the later. A fact is accused when its AUC exceeds that of a learner that sees everything but this fact, by more
    than `MARGIN` and by `CLEAR` standard errors (block bootstrap over rule-days): a single fact that beats all others
    together, history included, is more likely written down after the decision than a stroke of luck. Ids and times
    are accused already when they explain `ID_GAIN` of the log-loss beyond that learner: an honest id explains none.

    'leak' for AUC >= `CERTAIN`, for a margin of 0.05, and for ids and times; else 'suspicious'.
    """
    if learner is None:
        why = "too few known outcomes of either kind in the earlier or the later part"
        return [Finding(SINGLE, "facts", why, float("nan"), float("nan"), NOT_CHECKED)]
    parts, suspects = learner.parts, learner.suspects
    ordered, y = parts.ordered, parts.ordered["acted"].to_numpy(dtype=np.float64)
    later = parts.later
    raised = ordered["raised_at"].astype("int64").to_numpy().astype(np.float64)
    readings = []
    for suspect in suspects:
        for words, codes in [*probes(suspect, raised), *_demeaned(suspect, ordered)]:
            encoded = encoded_rates(codes, y, parts.earlier)[later]
            readings.append((suspect, words, encoded, metrics.roc_auc(encoded, y[later])))
    strong = [r for r in readings if r[3] >= WORTH_A_LOOK or (r[0].kind in ("id", "time") and r[3] >= 0.55)]
    # Whatever is nearly certain is taken from the others first, or two copies of one leak would excuse each other.
    certain = sorted({r[0].source for r in readings if r[3] >= 0.97})
    by_fact: dict[str, Finding] = {}
    strongest = max(readings, key=lambda r: r[3])
    for suspect, words, encoded, auc in sorted(strong, key=lambda r: -r[3]):
        if suspect.name in by_fact:
            continue
        others = learner.without(sorted({suspect.source, *certain}))
        rest = metrics.roc_auc(others, y[later])
        weights = list(metrics.bootstrap_weights(parts.blocks[later], replicates, seed))
        one, all_ = metrics.Ranking(encoded, y[later]), metrics.Ranking(others, y[later])
        draws = np.array([one.roc_auc(w[parts.blocks[later]]) - all_.roc_auc(w[parts.blocks[later]]) for w in weights])
        error = float(np.nanstd(draws)) if np.isfinite(draws).any() else float("inf")
        if auc - rest > max(MARGIN, CLEAR * error):
            sure = auc >= CERTAIN or auc - rest >= 0.05 or suspect.kind in ("id", "time")
            text = f"{words} alone separates outcomes with AUC {auc:.3f}, everything else together with {rest:.3f}"
            by_fact[suspect.name] = Finding(SINGLE, suspect.name, text, auc, rest, LEAK if sure else SUSPICIOUS)
        elif suspect.kind in ("id", "time"):
            gain, gain_error = _gain(others, encoded, y[later], parts.blocks[later], replicates, seed)
            if gain > max(ID_GAIN, CLEAR * gain_error):
                text = f"{words} explains {gain:.0%} of the log-loss that everything else leaves"
                by_fact[suspect.name] = Finding(IDS_AND_TIMES, suspect.name, text, gain, ID_GAIN, LEAK)
    findings = list(by_fact.values())
    if not any(f.check == SINGLE for f in findings):
        text = f"none of {len(suspects)} facts beats all others; the strongest is {strongest[0].name}"
        findings.append(Finding(SINGLE, "facts", text, strongest[3], CERTAIN, CLEAN))
    return findings


class Rest:
    """A divided frame, its suspects, and forecasts of the later part without some facts, each made once.

    fit_predict : a learner (`reference_learner`); it learns from the earlier part and forecasts the later one.
    """

    def __init__(self, parts: Halves, fit_predict: FitPredict, settings: FeatureSettings) -> None:
        self.parts, self.fit_predict, self.settings = parts, fit_predict, settings
        self.suspects = list_suspects(parts.ordered, settings)
        self.forecasts: dict[tuple[str, ...], np.ndarray] = {}

    @classmethod
    def of(cls, frame: pd.DataFrame, fit_predict: FitPredict, settings: FeatureSettings) -> Rest | None:
        """Of `frame` as `steps.training_frame` returns it; None where it cannot be divided (`halve`)."""
        parts = halve(frame)
        return None if parts is None else cls(parts, fit_predict, settings)

    def without(self, sources: Sequence[str]) -> np.ndarray:
        # An id takes no part in learning: leaving it out is leaving nothing out.
        key = tuple(s for s in sources if s != "alert_id")
        if key not in self.forecasts:
            frame = without(self.parts.ordered, key, self.settings)
            self.forecasts[key] = self.fit_predict(frame[self.parts.earlier], frame[self.parts.later])
        return self.forecasts[key]


def _demeaned(suspect: Suspect, ordered: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """A number's distance from the mean of its group: an average that leaves the alert itself out tells its outcome."""
    if suspect.kind != "number" or suspect.source in PLAIN_FACTS:
        return []
    values = pd.Series(suspect.values)
    readings = []
    for name in ("rule", "entity"):
        distance = (values - values.groupby(ordered[name].to_numpy()).transform("mean")).to_numpy()
        scale = np.nanstd(suspect.values)
        # Where the group has one value, rounding must not become a signal.
        distance = np.where(np.abs(distance) > 1e-9 * max(scale, 1e-300), distance, 0.0)
        readings.append((f"its distance from the mean of its {name}", _bins(distance)))
    return readings


def _gain(
    base: np.ndarray, probe: np.ndarray, acted: np.ndarray, blocks: np.ndarray, replicates: int, seed: int
) -> tuple[float, float]:
    """(share of the log-loss of `base` that adding `probe` saves out of sample, its standard error)."""
    from dagster_project.triage.learning.calibration import penalised_logistic

    fold = blocks % 2
    x0 = np.column_stack([np.ones(len(base)), metrics.logit(base)])
    x1 = np.column_stack([x0, metrics.logit(metrics.clip_probability(probe, 1e-3))])
    losses = [np.zeros(len(base)), np.zeros(len(base))]
    for side in (0, 1):
        fit, use = fold != side, fold == side
        if min(acted[fit].sum(), (1 - acted[fit]).sum()) < 5:
            return 0.0, float("inf")
        for i, (x, centre) in enumerate(((x0, [0.0, 1.0]), (x1, [0.0, 1.0, 0.0]))):
            beta = penalised_logistic(x[fit], acted[fit], np.ones(int(fit.sum())), centre, [1.0] * len(centre))
            losses[i][use] = metrics.log_losses(metrics.expit(x[use] @ np.asarray(beta)), acted[use])
    difference = losses[0] - losses[1]
    base_loss = max(float(losses[0].mean()), 1e-9)
    draws = [
        float(np.dot(w[blocks], difference) / max(w[blocks].sum(), 1e-9)) / base_loss
        for w in metrics.bootstrap_weights(blocks, replicates, seed)
    ]
    return float(difference.mean()) / base_loss, float(np.std(draws))
