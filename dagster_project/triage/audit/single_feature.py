"""Single facts that know too much: columns, attributes and ids, each on its own.

Belongs here: what can be suspected (`list_suspects`), how well a single fact separates outcomes, whether it says
more than everything else together, whether it repeats the outcomes' own chance, and whether it was filled in later.
Does not belong here: history features built without the future (`audit/recomputation.py`), and whole data sets
(`audit/leakage.py`).

History features are no suspects here: that they know nothing of the future is proven by computing them again, and a
strong habit is no leak. Everything else in a frame is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pandas as pd
from scipy.stats import chi2

from dagster_project.triage.audit.findings import CLEAN, LEAK, NOT_CHECKED, SUSPICIOUS, Finding
from dagster_project.triage.audit.moments import read_moments
from dagster_project.triage.audit.reference_learner import FitPredict, teaching
from dagster_project.triage.evaluation import metrics
from dagster_project.triage.features.attributes import attribute_columns
from dagster_project.triage.features.contract import FeatureSettings, histories_about, history_features_for
from dagster_project.triage.features.keys import key_values

SINGLE = "a single fact"
ENCODES = "repeats the outcomes' chance"
IDS_AND_TIMES = "ids and times"
KNOWN_LATER = "known later"

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
# Edges of the ages, in days, within which decided and open alerts are compared.
AGES = np.array([1.0, 3.0, 7.0, 14.0, 1e6])
# A fact that tells decided from open alerts this well needs no second witness. The strongest in the 30 clean worlds
# told them apart by 0.24.
TOTAL = 0.8
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
    made = [Suspect("alert_id", "id", objects(frame["alert_id"]), "alert_id")]
    history = {f.name for f in history_features_for(settings)}
    for name in frame.columns:
        if name in BOOKKEEPING or name in IDENTITY or name in history:
            continue
        made.append(_suspect(name, frame[name], frame["raised_at"], name))
    if "attributes" in frame:
        for name, values in attribute_columns(frame["attributes"]).items():
            made.append(_suspect(f"attribute {name}", pd.Series(values), frame["raised_at"], f"@{name}"))
    return made


def _suspect(name: str, column: pd.Series, raised: pd.Series, source: str) -> Suspect:
    if pd.api.types.is_datetime64_any_dtype(column):
        return Suspect(name, "time", _after(pd.to_datetime(column, utc=True), raised), source)
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
        return _number(name, np.where(np.isfinite(numbers), numbers, np.nan), raised, source)
    found = objects(column)
    present = np.array([v is not None for v in found], dtype=bool)
    seen = found[present]
    if len(seen) and all(isinstance(v, float) for v in seen):
        numbers = np.array([np.nan if v is None else float(v) for v in found])
        return _number(name, numbers, raised, source)
    texts = [str(v) for v in seen]
    if source != "title" and (moments := read_moments(found, raised)) is not None:
        return Suspect(name, "time", _after(moments, raised), source)
    distinct = len(set(texts))
    kind = "id" if distinct > max(20, ID_LIKE * len(texts)) and source != "title" else "text"
    return Suspect(name, kind, found, source)


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
    made = (left - raised.dt.tz_localize(None).to_numpy().astype("datetime64[us]")) / np.timedelta64(1, "s")
    return np.asarray(made, dtype=np.float64)


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
    ordered = teaching(frame).sort_values(["raised_at", "alert_id"], kind="stable", ignore_index=True)
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
    made = frame.copy(deep=False)
    names = {source[1:] for source in sources if source.startswith("@")}
    for source in sources:
        if source in made and source != "alert_id":
            made[source] = None if source in (*IDENTITY, "severity", "title") else np.nan
    for name in histories_about(sources, settings):
        if name in made:
            made[name] = np.nan
    if names and "attributes" in made:
        codes, texts = pd.factorize(made["attributes"].astype(object))
        kept = np.array([*(_strip(t, names) for t in texts), None], dtype=object)
        made["attributes"] = kept[codes]
    return made


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
    found: dict[str, Finding] = {}
    strongest = max(readings, key=lambda r: r[3])
    for suspect, words, encoded, auc in sorted(strong, key=lambda r: -r[3]):
        if suspect.name in found:
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
            found[suspect.name] = Finding(SINGLE, suspect.name, text, auc, rest, LEAK if sure else SUSPICIOUS)
        elif suspect.kind in ("id", "time"):
            gain, gain_error = _gain(others, encoded, y[later], parts.blocks[later], replicates, seed)
            if gain > max(ID_GAIN, CLEAR * gain_error):
                text = f"{words} explains {gain:.0%} of the log-loss that everything else leaves"
                found[suspect.name] = Finding(IDS_AND_TIMES, suspect.name, text, gain, ID_GAIN, LEAK)
    made = list(found.values())
    if not any(f.check == SINGLE for f in made):
        text = f"none of {len(suspects)} facts beats all others; the strongest is {strongest[0].name}"
        made.append(Finding(SINGLE, "facts", text, strongest[3], CERTAIN, CLEAN))
    return made


class Rest:
    """A divided frame, its suspects, and forecasts of the later part without some facts, each made once.

    fit_predict : a learner (`quick.quick_learner`); it learns from the earlier part and forecasts the later one.
    """

    def __init__(self, parts: Halves, fit_predict: FitPredict, settings: FeatureSettings) -> None:
        self.parts, self.fit_predict, self.settings = parts, fit_predict, settings
        self.suspects = list_suspects(parts.ordered, settings)
        self.made: dict[tuple[str, ...], np.ndarray] = {}

    @classmethod
    def of(cls, frame: pd.DataFrame, fit_predict: FitPredict, settings: FeatureSettings) -> Rest | None:
        """Of `frame` as `steps.training_frame` returns it; None where it cannot be divided (`halve`)."""
        parts = halve(frame)
        return None if parts is None else cls(parts, fit_predict, settings)

    def without(self, sources: Sequence[str]) -> np.ndarray:
        # An id takes no part in learning: leaving it out is leaving nothing out.
        key = tuple(s for s in sources if s != "alert_id")
        if key not in self.made:
            frame = without(self.parts.ordered, key, self.settings)
            self.made[key] = self.fit_predict(frame[self.parts.earlier], frame[self.parts.later])
        return self.made[key]


def _demeaned(suspect: Suspect, ordered: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """A number's distance from the mean of its group: an average that leaves the alert itself out tells its outcome."""
    if suspect.kind != "number" or suspect.source in PLAIN_FACTS:
        return []
    values = pd.Series(suspect.values)
    made = []
    for name in ("rule", "entity"):
        distance = (values - values.groupby(ordered[name].to_numpy()).transform("mean")).to_numpy()
        scale = np.nanstd(suspect.values)
        # Where the group has one value, rounding must not become a signal.
        distance = np.where(np.abs(distance) > 1e-9 * max(scale, 1e-300), distance, 0.0)
        made.append((f"its distance from the mean of its {name}", _bins(distance)))
    return made


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


def dated_later(
    frame: pd.DataFrame, settings: FeatureSettings, cut: pd.Timestamp, recent: pd.DataFrame | None = None
) -> list[Finding]:
    """Times that lie after the raising of their alert: somebody wrote them down later.

    frame : facts with `raised_at`; `known_at` where there is one. recent : facts of the youngest alerts, known or
    not; a time that was planned (a deadline) lies after the cut for some of them, one that was written down never
    does.

    'leak' when at least 1% of the alerts have such a time and either it coincides with the answer (within an hour,
    for a fifth of them), or none lies after the cut; 'suspicious' when that cannot be told.
    """
    rows = frame if recent is None else pd.concat([frame, recent], ignore_index=True)
    rows = rows.drop_duplicates("alert_id").reset_index(drop=True)
    raised = rows["raised_at"]
    until = (cut - raised).dt.total_seconds().to_numpy(dtype=np.float64)
    known = _after(rows["known_at"], raised) if "known_at" in rows else np.full(len(rows), np.nan)
    found, times = [], 0
    for suspect in list_suspects(rows, settings):
        if suspect.kind != "time":
            continue
        times += 1
        after = suspect.values > 1.0
        share = float(after.mean()) if len(after) else 0.0
        if share < 0.01:
            continue
        answered = after & np.isfinite(known)
        same = float((np.abs(suspect.values - known)[answered] <= 3600).mean()) if answered.any() else 0.0
        planned = bool((suspect.values[after] > until[after]).any())
        text = f"{share:.0%} of its values lie after the alert was raised"
        if same >= 0.2:
            verdict, text = LEAK, f"{text}, and {same:.0%} of those within an hour of the answer"
        elif not planned:
            verdict, text = LEAK, f"{text}, and none after today: it is written down as things happen"
        else:
            verdict, text = CLEAN, f"{text}, some after today: planned, not written down later"
        found.append(Finding(IDS_AND_TIMES, suspect.name, text, share, 0.01, verdict))
    if not found:
        text = f"none of {times} attributes with times lies after the raising of its alert"
        found.append(Finding(IDS_AND_TIMES, "times", text, 0.0, 0.01, CLEAN))
    return found


def repeated_chance(frame: pd.DataFrame, history: pd.DataFrame | None, settings: FeatureSettings) -> list[Finding]:
    """Numbers that fit the shares acted of rules, entities or teams better than chance allows: target encodings.

    A property of a rule, however telling, cannot follow the sampling noise of its outcomes. For a number that is
    constant within the values of a key, the shares acted per value scatter around any line on that number by at
    least their binomial variance: the sum of n (share - line) ** 2 / (p (1 - p)) is chi-square with
    (values - 2) degrees of freedom, or larger. Far smaller means that the number was made of the outcomes. The line may
    also bend with 1 / n, as smoothed shares do. Accused below a probability of 1e-6: with 10 numbers, 4 keys and 4
    readings of each that is at most once in 6,000 audits.

    frame : facts with outcomes. history : all outcomes there are, for encodings that were made over more than the
    frame; None for none.
    """
    numbers = [s for s in list_suspects(frame, settings) if s.kind == "number"]
    ids = ["rule", "entity", "team", "rule+entity"]
    tables = [frame] if history is None else [frame, history]
    keys = [key_values(rows, ids).astype(object) for rows in tables] if numbers else []
    found: dict[str, Finding] = {}
    for suspect in numbers:
        for key in ids:
            group = pd.DataFrame({"key": keys[0][key].to_numpy(), "value": suspect.values}).dropna()
            if not len(group):
                continue
            spread = group.groupby("key")["value"].agg(["min", "max", "mean"])
            total = float(np.std(group["value"]))
            constant = (spread["max"] - spread["min"]) <= 1e-6 * max(total, 1e-12)
            if total <= 0 or constant.mean() < 0.95:
                continue
            for rows, values in zip(tables, keys, strict=True):
                probability, degrees = _too_good(spread["mean"], rows, values[key].to_numpy())
                if degrees >= 4 and probability < 1e-6 and suspect.name not in found:
                    text = (
                        f"follows the share acted per {key} closer than chance allows (probability "
                        f"{probability:.1g}, {degrees} degrees of freedom): it was made of the outcomes"
                    )
                    found[suspect.name] = Finding(ENCODES, suspect.name, text, probability, 1e-6, LEAK)
    if found:
        return list(found.values())
    text = f"none of {len(numbers)} numbers follows the outcomes closer than chance allows"
    return [Finding(ENCODES, "numbers", text, float("nan"), 1e-6, CLEAN)]


def _too_good(number: pd.Series, rows: pd.DataFrame, of: np.ndarray) -> tuple[float, int]:
    """(probability of so small a scatter by chance, degrees of freedom). of : the value of a key per row."""
    known = rows["acted"].notna().to_numpy() & pd.notna(of)
    outcomes = pd.DataFrame({"key": of[known], "acted": rows["acted"].to_numpy(dtype=np.float64)[known]})
    table = outcomes.groupby("key")["acted"].agg(["sum", "count"]).join(number.rename("number"), how="inner").dropna()
    # Groups nobody ever acted on follow any number that is zero for them. Small ones scatter less than chi-square says,
    # because leaving out the extremes leaves out scatter: with 8 alerts and 2 of a kind, a clean world was accused.
    table = table[(table["count"] >= 30) & (table["sum"] >= 5) & (table["count"] - table["sum"] >= 5)]
    if len(table) < 8:
        return 1.0, 0
    n = table["count"].to_numpy(np.float64)
    share = table["sum"].to_numpy(np.float64) / n
    variance = share * (1 - share)
    number_ = table["number"].to_numpy(np.float64)
    if np.std(number_) <= 1e-12:
        return 1.0, 0
    number_ = (number_ - number_.mean()) / number_.std()
    w = n / variance
    plain = np.column_stack([np.ones(len(n)), number_])
    # (acted + strength * rate) / (n + strength), the usual smoothing, is no line, but becomes one with 1 / n.
    smoothed = np.column_stack([plain, 1 / n, number_ / n])
    best = (1.0, 0)
    for x in (plain, smoothed):
        degrees = len(n) - x.shape[1]
        beta = np.linalg.lstsq(x * np.sqrt(w)[:, None], share * np.sqrt(w), rcond=None)[0]
        probability = float(chi2.cdf(float(np.sum(w * (share - x @ beta) ** 2)), degrees))
        best = min(best, (probability, degrees))
    return best


def known_later(
    history: pd.DataFrame, settings: FeatureSettings, cut: pd.Timestamp, horizon: timedelta
) -> list[Finding]:
    """Facts that fill in as alerts are decided: other among decided alerts than among open ones of the same age.

    Parameters
    ----------
    history : all alerts raised before `cut`, facts as they are today, `known_at` null or after `cut` where there is no
        outcome yet.
    cut : today. horizon : how long an answer counts.

    Two comparisons, for whether the fact is there and for each of its frequent values. Within a rule and an age,
    decided against open alerts of the last horizon (Mantel-Haenszel): a fact that speeds up the answer differs here
    too, honestly. And the youngest alerts, all of them, against mature ones of the same rules, with the week-to-week
    scatter as the measure: a fact that came into use some day differs here too, honestly. Accused when both do, in
    the same direction ('leak'), or when the first difference is nearly total (`TOTAL`; 'leak' for being there,
    'suspicious' for a value).
    """
    past = history[history["raised_at"] < cut].sort_values("raised_at", kind="stable", ignore_index=True)
    age = cut - past["raised_at"]
    recent = (age < horizon).to_numpy()
    decided = (past["known_at"] <= cut).to_numpy(dtype=bool) & past["acted"].notna().to_numpy()
    if (recent & decided).sum() < 30 or (recent & ~decided).sum() < 30 or (~recent).sum() < 200:
        text = "fewer than 30 decided or 30 open alerts in the last horizon"
        return [Finding(KNOWN_LATER, "facts", text, float("nan"), float("nan"), NOT_CHECKED)]
    mature = (age >= horizon).to_numpy() & (age < horizon + timedelta(days=63)).to_numpy()
    week = (age.dt.total_seconds().to_numpy() // (7 * 86_400)).astype(np.int64)
    young = _youngest(age, recent)
    rule = pd.factorize(past["rule"], use_na_sentinel=False)[0].astype(np.int64)
    # Rule and single day would leave most strata with one alert.
    stratum = rule * len(AGES) + np.searchsorted(AGES, age.dt.total_seconds().to_numpy() / 86_400)
    facts = [s for s in list_suspects(past, settings) if s.source != "alert_id"]
    found = []
    for suspect in facts:
        worst: Finding | None = None
        for words, flag in _indicators(suspect, mature):
            difference, z = _mantel_haenszel(flag[recent], decided[recent], stratum[recent])
            if abs(z) < 4 or abs(difference) < 0.1:
                continue
            shift, shift_z = _young_shift(flag, young, mature, week, rule)
            # Filled in with decisions: the young have less of what the decided have more of.
            both = shift_z * np.sign(difference) < -3 and abs(shift) >= 0.05
            if not both and abs(difference) < TOTAL:
                continue
            text = (
                f"{words} among {_percent(flag[recent & decided])} of the decided and "
                f"{_percent(flag[recent & ~decided])} of the open alerts of the last {horizon.days} days"
            )
            # Being there nearly never before a decision and nearly always after it has no honest reason.
            sure = both or (words == THERE and difference >= TOTAL)
            made = Finding(KNOWN_LATER, suspect.name, text, abs(difference), 0.1, LEAK if sure else SUSPICIOUS)
            if worst is None or (made.verdict == LEAK, made.value) > (worst.verdict == LEAK, worst.value):
                worst = made
        if worst is not None:
            found.append(worst)
    if found:
        return found
    text = f"{len(facts)} facts are the same among open and decided alerts of the same age, or do not fill in with age"
    return [Finding(KNOWN_LATER, "facts", text, 0.0, 0.1, CLEAN)]


def _percent(flag: np.ndarray) -> str:
    return f"{flag.mean():.0%}" if len(flag) else "none"


def _youngest(age: pd.Series, recent: np.ndarray) -> np.ndarray:
    """The alerts of the last day, or of as many hours as hold 60 alerts, at most a third of the recent ones."""
    ages = age[recent].dt.total_seconds().to_numpy()
    count = int(np.clip((ages < 86_400).sum(), 60, max(60, len(ages) // 3)))
    limit = np.sort(ages)[min(count, len(ages)) - 1]
    return recent & (age.dt.total_seconds().to_numpy() <= limit)


def _indicators(suspect: Suspect, mature: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Yes-or-no readings of a fact: there, each frequent value, and below the quartiles of mature alerts."""
    values = suspect.values
    if suspect.kind in ("number", "time"):
        there = np.isfinite(values)
        made = [(THERE, there)]
        seen = values[mature & there]
        if len(seen):
            for edge in np.unique(np.quantile(seen, [0.25, 0.5, 0.75])):
                made += [(f"is at most {edge:.4g}", there & (values <= edge))]
                made += [(f"is below {edge:.4g}", there & (values < edge))]
    else:
        there = np.array([v is not None for v in values], dtype=bool)
        made = [(THERE, there)]
        if suspect.kind == "text":
            words = pd.Series(values[there], dtype=object).value_counts().index[:20]
            codes = pd.Index(words, dtype=object).get_indexer(values)
            made += [(f"is {word!r}", codes == code) for code, word in enumerate(words)]
    return [(words, flag) for words, flag in made if 0 < flag.sum() < len(flag)]


def _mantel_haenszel(flag: np.ndarray, decided: np.ndarray, stratum: np.ndarray) -> tuple[float, float]:
    """(difference of the share flagged, decided less open, within strata; its z under no association)."""
    stratum = np.unique(stratum, return_inverse=True)[1]
    size = int(stratum.max(initial=-1)) + 1
    n = np.bincount(stratum, minlength=size).astype(np.float64)
    d = np.bincount(stratum, weights=decided, minlength=size)
    f = np.bincount(stratum, weights=flag, minlength=size)
    both = np.bincount(stratum, weights=flag & decided, minlength=size)
    good = (n > 1) & (d > 0) & (d < n)
    if not good.any():
        return 0.0, 0.0
    n, d, f, both = n[good], d[good], f[good], both[good]
    weight = d * (n - d) / n
    difference = float(np.sum(weight * (both / d - (f - both) / (n - d))) / weight.sum())
    variance = float(np.sum(d * (n - d) * f * (n - f) / (n * n * (n - 1))))
    return difference, float(np.sum(both - d * f / n) / np.sqrt(variance)) if variance > 0 else 0.0


def _young_shift(
    flag: np.ndarray, young: np.ndarray, mature: np.ndarray, week: np.ndarray, rule: np.ndarray
) -> tuple[float, float]:
    """(share among the youngest less that of mature alerts of the same rules, in standard errors)."""
    size = int(rule.max()) + 1
    n = np.bincount(rule[mature], minlength=size)
    overall = float(flag[mature].mean())
    usual = (np.bincount(rule[mature], weights=flag[mature], minlength=size) + 5 * overall) / (n + 5)
    residual = flag - usual[rule]
    shift = float(residual[young].mean())
    weeks = pd.Series(residual[mature]).groupby(week[mature]).agg(["mean", "count"])
    noise = max(float(np.mean(usual[rule][young] * (1 - usual[rule][young]))), 0.01)
    # Week-to-week scatter beyond sampling: habits of recording change.
    beyond = max(0.0, float(np.var(weeks["mean"])) - float(np.mean(noise / weeks["count"])))
    return shift, shift / float(np.sqrt(noise / young.sum() + beyond))
