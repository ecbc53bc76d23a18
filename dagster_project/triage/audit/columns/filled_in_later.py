"""Facts filled in after the raise: times that lie later, and facts that decided alerts have and open ones lack.

Belongs here: whether a single fact was written down later.
Does not belong here: how well it separates outcomes (`audit/single_feature.py`), and versions of alerts that differ
(`audit/recomputation.py`).
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd

from dagster_project.triage.audit.findings import CLEAN, LEAK, NOT_CHECKED, SUSPICIOUS, Finding
from dagster_project.triage.audit.single_feature import IDS_AND_TIMES, THERE, Suspect, _after, list_suspects
from dagster_project.triage.features.contract import FeatureSettings

KNOWN_LATER = "known later"

# Edges of the ages, in days, within which decided and open alerts are compared.
AGES = np.array([1.0, 3.0, 7.0, 14.0, 1e6])
# A fact that tells decided from open alerts this well needs no second witness. The strongest in the 30 clean worlds
# told them apart by 0.24.
TOTAL = 0.8


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
    findings, times = [], 0
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
        findings.append(Finding(IDS_AND_TIMES, suspect.name, text, share, 0.01, verdict))
    if not findings:
        text = f"none of {times} attributes with times lies after the raising of its alert"
        findings.append(Finding(IDS_AND_TIMES, "times", text, 0.0, 0.01, CLEAN))
    return findings


def known_later(
    history: pd.DataFrame, settings: FeatureSettings, cut: pd.Timestamp, horizon: timedelta
) -> list[Finding]:
    """Facts that fill in as alerts are decided: other among decided alerts than among open ones of the same age.

    history : all alerts raised before `cut`, facts as they are today, `known_at` null or after `cut` where there is no
        outcome yet.
    cut : today. horizon : how long an answer counts.

    Two comparisons, for whether the fact is there and for each of its frequent values. Within a rule and an age,
    decided against open alerts of the last horizon (Mantel-Haenszel): a fact that speeds up the answer differs here
    too, honestly. And the youngest alerts, all of them, against mature ones of the same rules, with the week-to-week
    scatter as the measure: a fact that came into use some day differs here too, honestly. Accused when both do, in
    the same direction ('leak'), or when the first difference is nearly total (`TOTAL`; 'leak' for being there,
    'suspicious' for a value). A value that the alerts of one burst share, raised yesterday and open, accuses nobody.
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
    findings = []
    for suspect in facts:
        worst: Finding | None = None
        for words, flag in _indicators(suspect, mature):
            difference, z = _mantel_haenszel(flag[recent], decided[recent], stratum[recent])
            if abs(z) < 4 or abs(difference) < 0.1:
                continue
            if words != THERE and _of_one_burst(flag & recent & (decided == (difference > 0)), past, rule):
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
            finding = Finding(KNOWN_LATER, suspect.name, text, abs(difference), 0.1, LEAK if sure else SUSPICIOUS)
            if worst is None or (finding.verdict == LEAK, finding.value) > (worst.verdict == LEAK, worst.value):
                worst = finding
        if worst is not None:
            findings.append(worst)
    if findings:
        return findings
    text = f"{len(facts)} facts are the same among open and decided alerts of the same age, or do not fill in with age"
    return [Finding(KNOWN_LATER, "facts", text, 0.0, 0.1, CLEAN)]


def _of_one_burst(flag: np.ndarray, past: pd.DataFrame, rule: np.ndarray) -> bool:
    """Whether most of the flagged alerts were raised by two rules on one day: by one cause, which counts once."""
    rows = np.flatnonzero(flag)
    if not len(rows):
        return False
    day = past["raised_at"].iloc[rows].dt.floor("D").astype("int64").to_numpy()
    count = np.sort(np.unique(np.column_stack([day, rule[rows]]), axis=0, return_counts=True)[1])
    return bool(count[-2:].sum() > 0.5 * len(rows))


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
        conditions = [(THERE, there)]
        seen = values[mature & there]
        if len(seen):
            for edge in np.unique(np.quantile(seen, [0.25, 0.5, 0.75])):
                conditions += [(f"is at most {edge:.4g}", there & (values <= edge))]
                conditions += [(f"is below {edge:.4g}", there & (values < edge))]
    else:
        there = np.array([v is not None for v in values], dtype=bool)
        conditions = [(THERE, there)]
        if suspect.kind == "text":
            words = pd.Series(values[there], dtype=object).value_counts().index[:20]
            codes = pd.Index(words, dtype=object).get_indexer(values)
            conditions += [(f"is {word!r}", codes == code) for code, word in enumerate(words)]
    return [(words, flag) for words, flag in conditions if 0 < flag.sum() < len(flag)]


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
