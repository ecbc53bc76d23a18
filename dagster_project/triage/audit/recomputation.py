"""Are features what they were when the alert was raised? Recomputed without the future, and by definition.

Belongs here: features built again from a history that ends at a moment, history features by their definition with
an engine of its own, and stored facts compared with the facts of today.
Does not belong here: building features (`pipeline.py`, `timeline/`), and what other audits look for
(`audit/single_feature.py`, `audit/leakage.py`).

Time: at a cut T the history holds alerts raised before T, and outcomes known before T; everything else is removed.
Whatever an honest feature of an alert raised before T says, it still says.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.audit.findings import CLEAN, LEAK, NOT_CHECKED, SUSPICIOUS, Finding
from dagster_project.triage.features.contract import FeatureSettings, history_features_for
from dagster_project.triage.features.history import HistoryFeature
from dagster_project.triage.features.keys import key_values

# (history, first, until) -> features of the alerts raised in [first, until), as `steps.build_features` gives them.
Rebuild = Callable[[pd.DataFrame, datetime, datetime], pd.DataFrame]

FUTURE_REMOVED = "future removed"
DEFINITION = "features by definition"
FACTS_CHANGED = "facts as they were raised"
CHANGED_LATER = "changed between versions"
# Below these shares corrections by hand explain a change, and too few alerts could hold the later value to matter; five
# standard errors, because alerts of one cause are changed together.
CHANGED_SHARE, LATE_SHARE, CHANGED_MINIMUM, CHANGED_CLEAR = 0.01, 0.05, 100, 5.0
FACTS = ("rule", "entity", "team", "severity", "value", "threshold", "title", "attributes")

# Features are float32: sums taken in another order differ in the seventh digit, decayed rates after division in
# the fifth.
RELATIVE, ABSOLUTE = 1e-3, 1e-4
WINDOW = timedelta(days=1)


def known_before(history: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """`history` as it stood just before `moment`: later alerts are gone, later outcomes are null."""
    seen = raised_before(history, moment)
    unknown = ~(seen["known_at"] < moment).to_numpy(dtype=bool)
    acted = np.where(unknown, np.nan, seen["acted"].to_numpy(dtype=np.float64, na_value=np.nan))
    seen = seen.assign(acted=acted, known_at=seen["known_at"].mask(unknown))
    if "outcome" in seen:
        seen["outcome"] = seen["outcome"].astype(object).mask(unknown, None)
    return seen


def raised_before(history: pd.DataFrame, moment: pd.Timestamp) -> pd.DataFrame:
    """The alerts raised before `moment`. Of a history in order of time nothing is copied: a year of texts is large."""
    raised = history["raised_at"]
    if raised.is_monotonic_increasing:
        return history.iloc[: int(raised.searchsorted(moment))]
    return history[raised < moment]


def raised_since(frame: pd.DataFrame, moment: pd.Timestamp | None) -> pd.DataFrame:
    """The alerts raised at `moment` or later; all of them for None. As `raised_before`."""
    if moment is None:
        return frame
    raised = frame["raised_at"]
    if raised.is_monotonic_increasing:
        return frame.iloc[int(raised.searchsorted(moment)) :]
    return frame[raised >= moment]


def future_removed(
    frame: pd.DataFrame,
    history: pd.DataFrame,
    rebuild: Rebuild,
    *,
    cuts: int = 6,
    ties: int = 8,
    seed: int = 0,
    trusted_from: pd.Timestamp | None = None,
) -> list[Finding]:
    """Features built again from a history without future, against the features as stored.

    frame : features as stored; rows may be any selection of alerts.
    history : alerts with `acted` (float64) and `known_at`, at least one lookback before every alert examined.
    rebuild : how features are built from a history.
    cuts : sampled moments; at each, all alerts raised in the day before are compared.
    ties : sampled alerts that share their moment with another alert or with an outcome; each is built again from
        what was strictly before it. "<=" for "<" shows here and nowhere else.
    trusted_from : alerts raised before this moment are not examined (history does not reach far enough).
    Returns: One finding per column that differs, or one that says how much was compared. 'leak' when a feature knew
        more than was known; 'suspicious' when it knew less (rows that came late: a stale feature, not one that sees
        ahead).
    """
    stored = raised_since(frame, trusted_from)
    stored = stored if stored["alert_id"].is_unique else stored.drop_duplicates("alert_id")
    if not len(stored):
        return [_not_checked(FUTURE_REMOVED, "no alert lies far enough after the beginning of the history")]
    rng = np.random.default_rng(seed)
    moments = stored["raised_at"]
    later = np.sort(rng.choice(len(stored), min(cuts, len(stored)), replace=False))
    compared, parts = 0, []
    for position in later:
        cut = moments.iloc[position] + timedelta(microseconds=1)
        before = known_before(history, cut)
        rows = stored[(moments >= cut - WINDOW) & (moments < cut)]
        rebuilt = rebuild(before, (cut - WINDOW).to_pydatetime(warn=False), cut.to_pydatetime(warn=False))
        compared += len(rows)
        parts.append(_differences(rows, rebuilt))
    for position in _tied(stored, history, ties, rng):
        row = stored.iloc[[position]]
        moment = row["raised_at"].iloc[0]
        end = moment + timedelta(microseconds=1)
        own = known_before(history[history["alert_id"] == row["alert_id"].iloc[0]], end).assign(acted=np.nan)
        own["known_at"] = own["known_at"].mask(np.ones(len(own), dtype=bool))
        alone = pd.concat([known_before(history, moment), own])
        rebuilt = rebuild(alone, moment.to_pydatetime(warn=False), end.to_pydatetime(warn=False))
        compared += len(row)
        parts.append(_differences(row, rebuilt))
    differences = pd.concat(parts, ignore_index=True)
    if not len(differences):
        return [
            Finding(
                FUTURE_REMOVED,
                "features",
                f"the features of {compared} alerts are the same when everything later is removed",
                0.0,
                0.0,
                CLEAN,
            )
        ]
    return [_difference_finding(name, mine, compared) for name, mine in differences.groupby("column", sort=True)]


def _difference_finding(name: object, mine: pd.DataFrame, compared: int) -> Finding:
    alerts = int(mine["alert_id"].nunique())
    stale = bool(mine["stale"].all())
    example = mine.iloc[0]
    words = (
        f"differs for {alerts} of {compared} alerts when everything later is removed, for example alert "
        f"{example['alert_id']}: {example['stored']:.6g} as stored, {example['rebuilt']:.6g} without the future"
    )
    words += "; every difference is one of knowing less: rows came in late" if stale else ""
    return Finding(FUTURE_REMOVED, str(name), words, alerts / max(compared, 1), 0.0, SUSPICIOUS if stale else LEAK)


def _tied(stored: pd.DataFrame, history: pd.DataFrame, most: int, rng: np.random.Generator) -> np.ndarray:
    """Positions of sampled alerts whose moment is also that of another alert or of an outcome."""
    raised = history["raised_at"].value_counts()
    crowded = raised.index[raised > 1]
    shared = stored["raised_at"].isin(crowded) | stored["raised_at"].isin(history["known_at"].dropna())
    positions = np.flatnonzero(shared.to_numpy())
    return np.sort(rng.choice(positions, min(most, len(positions)), replace=False))


def _differences(stored: pd.DataFrame, rebuilt: pd.DataFrame) -> pd.DataFrame:
    """One row per alert and numeric column that differs: alert_id, column, stored, rebuilt, stale."""
    both = stored.merge(rebuilt, on="alert_id", how="left", suffixes=("", "\0"))
    names = [
        name
        for name in rebuilt.columns
        if name not in ("alert_id", "raised_at", *FACTS)
        and name + "\0" in both
        and pd.api.types.is_numeric_dtype(rebuilt[name])
    ]
    if not names or not len(both):
        return pd.DataFrame({name: [] for name in ("alert_id", "column", "stored", "rebuilt", "stale")})
    left = both[names].to_numpy(dtype=np.float64, na_value=np.nan)
    right = both[[name + "\0" for name in names]].to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isclose(left, right, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    # A column that lacks half-lives and means, but counts: it can say who knew more.
    counts = np.array(["_count_" in name for name in names])
    more = (wrong & counts & (left > right)).any(axis=1)
    fewer = (wrong & counts & (left < right)).any(axis=1)
    rows, columns = np.nonzero(wrong)
    return pd.DataFrame(
        {
            "alert_id": both["alert_id"].to_numpy()[rows],
            "column": np.asarray(names, dtype=object)[columns],
            "stored": left[rows, columns],
            "rebuilt": right[rows, columns],
            "stale": (fewer & ~more)[rows],
        }
    )


def by_definition(
    frame: pd.DataFrame,
    history: pd.DataFrame,
    settings: FeatureSettings,
    *,
    sample: int = 150,
    seed: int = 0,
    trusted_from: pd.Timestamp | None = None,
) -> list[Finding]:
    """History features against their definition, computed alert by alert without the engine.

    frame : features as stored; only columns of `settings` are compared.
    history : as for `future_removed`; optional `excluded_from`, `excluded_until` (times during which an alert is
        left out of the histories of others; see `exclusion.flag_alerts`).
    sample : alerts examined. Half of them share their moment with others where there are such.

    Rebuilding with the code under suspicion cannot see what that code does without the future as well, such as
    counting the alert itself; the definition can.
    """
    stored = raised_since(frame, trusted_from)
    features = [f for f in history_features_for(settings) if f.name in frame]
    if not len(stored) or not features:
        return [
            _not_checked(DEFINITION, "no history column, or no alert far enough after the beginning of the history")
        ]
    rng = np.random.default_rng(seed)
    chosen = np.union1d(
        _tied(stored, history, sample // 2, rng), rng.choice(len(stored), min(sample // 2, len(stored)), replace=False)
    )
    rows = stored.iloc[chosen]
    expected = _defined(rows, history, features, settings)
    left = rows[[f.name for f in features]].to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isclose(left, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    counts = np.array(["_count" in f.statistic for f in features])
    more = (wrong & counts & (left > expected)).any(axis=1)
    fewer = (wrong & counts & (left < expected)).any(axis=1)
    findings = []
    for position in np.flatnonzero(wrong.any(axis=0)):
        bad = np.flatnonzero(wrong[:, position])
        stale = bool((fewer & ~more)[bad].all())
        words = (
            f"differs from its definition for {len(bad)} of {len(rows)} alerts, for example alert "
            f"{rows['alert_id'].iloc[bad[0]]}: {left[bad[0], position]:.6g} as stored, "
            f"{expected[bad[0], position]:.6g} by definition"
        )
        words += "; every difference is one of knowing less: rows came in late" if stale else ""
        verdict = SUSPICIOUS if stale else LEAK
        findings.append(Finding(DEFINITION, features[position].name, words, len(bad) / len(rows), 0.0, verdict))
    if findings:
        return findings
    words = f"{len(features)} history features of {len(rows)} alerts are what their definition says"
    return [Finding(DEFINITION, "features", words, 0.0, 0.0, CLEAN)]


def _us(times: pd.Series) -> np.ndarray:
    """int64 microseconds; the smallest int64 for NaT."""
    naive = pd.to_datetime(times, utc=True).dt.tz_localize(None)
    return naive.to_numpy().astype("datetime64[us]").astype(np.int64)


NEVER = np.iinfo(np.int64).min


def _defined(
    rows: pd.DataFrame, history: pd.DataFrame, features: list[HistoryFeature], settings: FeatureSettings
) -> np.ndarray:
    keys = list(dict.fromkeys(f.key for f in features))
    both = pd.concat([history, rows[[c for c in history.columns if c in rows.columns]]], ignore_index=True)
    values = key_values(both, keys)
    raised, known = _us(history["raised_at"]), _us(history["known_at"])
    acted = history["acted"].to_numpy(dtype=np.float64, na_value=np.nan)
    known = np.where(np.isnan(acted), NEVER, known)
    moments = _us(rows["raised_at"])
    out_from = _us(history["excluded_from"]) if "excluded_from" in history else np.full(len(history), NEVER)
    out_until = _us(history["excluded_until"]) if "excluded_until" in history else np.full(len(history), NEVER)
    expected = np.full((len(rows), len(features)), np.nan)
    reach = settings.lookback // timedelta(microseconds=1)
    for key in keys:
        codes = pd.factorize(values[key])[0]
        mine, wanted = codes[: len(history)], codes[len(history) :]
        own = [(i, f) for i, f in enumerate(features) if f.key == key]
        # Within a key in order of one clock, a window is a slice.
        clocks = [(clock, *_sorted_within(mine, clock)) for clock in (raised, known)]
        for row, (code, t) in enumerate(zip(wanted, moments, strict=True)):
            if code < 0:
                continue
            events = []
            for clock, order, starts in clocks:
                there = order[starts[code] : starts[code + 1]]
                first, last = np.searchsorted(clock[there], [t - reach, t], "left")
                there = there[first:last]
                away = (out_from[there] != NEVER) & (out_from[there] < t)
                away &= (out_until[there] == NEVER) | (t <= out_until[there])
                events.append(there[~away])
            earlier, seen = raised[events[0]], known[events[1]]
            for i, feature in own:
                expected[row, i] = _statistic(feature, t, earlier, seen, acted[events[1]], reach)
    return expected


def _sorted_within(codes: np.ndarray, clock: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(positions by code, then by clock; where each code begins among them)."""
    order = np.lexsort((clock, codes))
    return order, np.searchsorted(codes[order], np.arange(codes.max(initial=-1) + 2))


def _statistic(
    feature: HistoryFeature, t: int, raised: np.ndarray, known: np.ndarray, acted: np.ndarray, reach: int
) -> float:
    """One feature at `t` of sorted times in [t - reach, t) (microseconds)."""
    span = reach if feature.window is None else feature.window // timedelta(microseconds=1)
    if feature.statistic == "raised_count":
        return float(len(raised) - np.searchsorted(raised, t - span, "left"))
    if feature.statistic == "seconds_since_raised":
        return (t - raised[-1]) / 1e6 if len(raised) else float("nan")
    first = int(np.searchsorted(known, t - span, "left"))
    when, what = known[first:], acted[first:]
    if feature.statistic == "known_count":
        return float(len(when))
    if feature.statistic == "acted_count":
        return float(what.sum())
    if not len(when):
        return float("nan")
    if feature.statistic == "last_outcome":
        return float(what[when == when[-1]].mean())
    if feature.statistic == "seconds_since_acted":
        return (t - when[what == 1][-1]) / 1e6 if (what == 1).any() else float("nan")
    assert feature.half_life is not None
    weight = 2.0 ** (-(t - when) / 1e6 / feature.half_life.total_seconds())
    return float(np.dot(weight, what) / weight.sum()) if weight.sum() > 0 else float("nan")


def facts_changed(frame: pd.DataFrame, history: pd.DataFrame) -> list[Finding]:
    """Facts as stored with the features, against the facts that the warehouse holds today.

    A fact that changed after the alert was raised was not known at that time. Columns: `FACTS`, where both frames
    have them. 'leak' from 1% of the alerts on: below, corrections by hand explain it ('suspicious').
    """
    left, right = (each[["alert_id", *(name for name in FACTS if name in each)]] for each in (frame, history))
    both = left.merge(right.drop_duplicates("alert_id"), on="alert_id", how="inner", suffixes=("", "\0"))
    findings = []
    for name in FACTS:
        if name + "\0" not in both or not len(both):
            continue
        then, now = both[name], both[name + "\0"]
        if not then.dtype == now.dtype == "str":
            then, now = then.astype(object), now.astype(object)
        changed = (then.fillna("") != now.fillna("")).to_numpy(dtype=bool)
        share = float(changed.mean())
        if share > 0:
            words = f"{int(changed.sum())} of {len(both)} alerts have another {name} today than when they were raised"
            findings.append(Finding(FACTS_CHANGED, name, words, share, 0.01, LEAK if share >= 0.01 else SUSPICIOUS))
    if findings or not len(both):
        return findings or [_not_checked(FACTS_CHANGED, "no alert of the frame is in the history")]
    return [Finding(FACTS_CHANGED, "facts", f"the facts of {len(both)} alerts have not changed", 0.0, 0.01, CLEAN)]


def changed_later(history: pd.DataFrame, changes: pd.DataFrame) -> list[Finding]:
    """Facts that later versions of alerts tell otherwise, where many alerts were first loaded after their decision.

    history : alerts with `acted`, `known_at` and `loaded_at` (when the version in use was loaded; UTC, may be null).
    changes : `alert_id`, `column_name` ("@name" for an attribute), as `marts.alert_fact_changes` holds them.

    An alert loaded before its decision shows whether people change the fact later; one loaded after it holds the fact
    as it was then. 'leak' when at least `CHANGED_SHARE` of the former changed, and their acted share is another by
    `CHANGED_CLEAR` standard errors, while at least `LATE_SHARE` of all alerts belong to the latter; 'suspicious'
    without that difference.
    """
    known = history[history["acted"].notna() & history["known_at"].notna()]
    if "loaded_at" not in known or not len(changes) or not known["loaded_at"].notna().any():
        return [_not_checked(CHANGED_LATER, "no alert was loaded in versions that differ")]
    late = (known["loaded_at"] > known["known_at"]).to_numpy(dtype=bool)
    seen = known[~late]
    if len(seen) < CHANGED_MINIMUM or late.mean() < LATE_SHARE:
        text = f"{len(seen)} alerts were loaded before their decision and {int(late.sum())} after it"
        return [Finding(CHANGED_LATER, "facts", text, float(late.mean()), LATE_SHARE, CLEAN)]
    acted = seen["acted"].to_numpy(dtype=np.float64)
    findings = []
    for name, rows in changes.groupby("column_name", sort=True):
        changed = seen["alert_id"].isin(rows["alert_id"]).to_numpy()
        share = float(changed.mean())
        if share < CHANGED_SHARE:
            continue
        a, b = acted[changed], acted[~changed]
        rate = acted.mean()
        error = np.sqrt(max(rate * (1 - rate), 1e-9) * (1 / len(a) + 1 / max(len(b), 1)))
        sure = len(b) > 0 and abs(a.mean() - b.mean()) > CHANGED_CLEAR * error
        text = (
            f"changed later for {share:.0%} of the alerts that were loaded before their decision ({a.mean():.0%} of "
            f"those acted on), and {late.mean():.0%} of all alerts were first loaded after theirs"
        )
        subject = f"attribute {str(name)[1:]}" if str(name).startswith("@") else str(name)
        verdict = LEAK if sure else SUSPICIOUS
        findings.append(Finding(CHANGED_LATER, subject, text, share, CHANGED_SHARE, verdict))
    text = f"none of {changes['column_name'].nunique()} changed columns changed for {CHANGED_SHARE:.0%} of the alerts"
    return findings or [Finding(CHANGED_LATER, "facts", text, 0.0, CHANGED_SHARE, CLEAN)]


def _not_checked(check: str, why: str) -> Finding:
    return Finding(check, "features", why, float("nan"), float("nan"), NOT_CHECKED)
