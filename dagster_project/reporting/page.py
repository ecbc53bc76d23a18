"""The evidence page: one data object in, one self-contained HTML text out.

Belongs here: what each section shows, and in which order. The markup is in `templates/report.html.j2`; autoescape is
on, so text from outside cannot become markup.
Does not belong here: reading the warehouse (`dagster_project/commands/report.py`), the verdict (`verdict.py`), figures
(`figures.py`).

The same evidence gives the same bytes: nothing here reads a clock.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from dagster_project.reporting import words
from dagster_project.reporting.environment import environment
from dagster_project.reporting.evidence import (
    AGES,
    AS_READ,
    EVERY_AGE,
    EVERYTHING,
    HEADLINE,
    LAST_CUT,
    MISS_RATES,
    MODEL,
    SKILL,
    SKILL_OVER_CONSTANT,
    Evidence,
    Number,
    saved_at,
)
from dagster_project.reporting.figures import Bar, bars_svg, reliability_svg
from dagster_project.reporting.plots import volume_svg
from dagster_project.reporting.verdict import judge

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS = {
    "verdict": "Verdict",
    "skill": "Skill compared with the simple rules",
    "calibration": "Calibration",
    "reading": "Open alerts as they were read",
    "workload": "Workload saved",
    "teams": "Teams",
    "flagged": "With and without flagged alerts",
    "last-cut": "The last cut alone",
    "audits": "Audits",
    "floods": "Flagged days",
    "visibility": "Visibility-only rules",
    "loaded": "Loaded and rejected rows",
    "lineage": "The model and its history",
    "depth": "Every number",
}
# Rows shown of long tables; the others are counted.
MOST_FLOODS, MOST_RULES, MOST_REJECTED, MOST_VERSIONS, MOST_LOADS, MOST_FINDINGS = 25, 25, 12, 15, 10, 40

_COMPARED = ("log_loss", "brier", SKILL_OVER_CONSTANT, SKILL, "roc_auc", "pr_auc", "decile_error")
_SIDE_BY_SIDE = (
    *(SKILL, SKILL_OVER_CONSTANT, "log_loss", "brier", "roc_auc", "pr_auc", "prevalence"),
    *("calibration_slope", "decile_error", *(saved_at(rate) for rate in MISS_RATES)),
)
_SHARES = (SKILL, SKILL_OVER_CONSTANT, "prevalence", "precision_of_first_10_a_day", *(saved_at(r) for r in MISS_RATES))


def render(evidence: Evidence) -> str:
    """The page."""
    name = evidence.shown or (MODEL if MODEL in evidence.contenders() else None)
    return _template().render(
        evidence=evidence,
        sections=SECTIONS,
        verdict=judge(evidence),
        name=name,
        shown=words.contender(name) if name else None,
        best=evidence.best_baseline(),
        support={part: evidence.support(part) for part in (HEADLINE, EVERYTHING, LAST_CUT)},
        skill=_compared(evidence, HEADLINE),
        skill_figure=_skill_figure(evidence),
        calibration=_calibration(evidence, name),
        workload=_workload(evidence),
        promises=evidence.promises,
        as_read=_as_read(evidence),
        workload_figure=_workload_figure(evidence, name),
        parts={part: _parts(evidence, part, name) for part in ("team", "severity", "rule age", "month")},
        side_by_side=_side_by_side(evidence, name),
        last_cut=_compared(evidence, LAST_CUT),
        audits=_audits(evidence),
        floods=_floods(evidence),
        volume=_volume(evidence),
        everything=_everything(evidence),
        limits={
            "floods": MOST_FLOODS,
            "rules": MOST_RULES,
            "rejected": MOST_REJECTED,
            "versions": MOST_VERSIONS,
            "loads": MOST_LOADS,
        },
    )


def _figure(metric: str, number: Number) -> dict[str, Any]:
    """A number and its interval as text."""
    if metric in _SHARES:
        return {"value": words.percent(number.value), "interval": words.percent_interval(number.low, number.high)}
    digits = 4 if metric in ("log_loss", "brier") else 3
    return {"value": words.number(number.value, digits), "interval": words.interval(number.low, number.high, digits)}


def _compared(evidence: Evidence, part: str) -> list[dict[str, Any]]:
    """One row per contender, from the lowest log-loss to the highest."""
    best = evidence.best_baseline(part)
    rows = []
    for name in evidence.contenders(part):
        figures = {metric: _figure(metric, evidence.number(name, metric, part)) for metric in _COMPARED}
        rows.append(
            {
                "label": words.contender(name),
                "scores": evidence.scoring is not None and name == evidence.scoring.contender,
                "best": name == best,
                **figures,
            }
        )
    return rows


def _skill_figure(evidence: Evidence) -> Markup | None:
    bars = [
        Bar(words.contender(name), evidence.number(name, SKILL_OVER_CONSTANT), name == evidence.shown)
        for name in evidence.contenders()
    ]
    if not bars:
        return None
    text = "; ".join(f"{bar.label} {words.percent(bar.number.value)}" for bar in bars)
    title = "Skill over the constant rate of heed's model and of every simple rule, with 95% intervals"
    return Markup(bars_svg(bars, title, text, prefix="skill-figure"))


def _calibration(evidence: Evidence, name: str | None) -> dict[str, Any]:
    table = evidence.reliability
    rows = table[table["contender"] == name].sort_values("bin").to_dict("records") if len(table) and name else []
    figure = None
    if rows:
        text = "; ".join(
            f"forecast {words.percent(row['mean_forecast'])}, observed {words.percent(row['acted_share'])}"
            for row in rows
        )
        title = f"Reliability of {words.contender(str(name))}: forecasts and observed shares"
        figure = Markup(reliability_svg(rows, title, text))
    named = ("calibration_slope", "calibration_intercept", "decile_error")
    return {
        "rows": rows,
        "figure": figure,
        "measures": [
            {"label": words.metric(metric), **_figure(metric, evidence.number(name, metric))} for metric in named
        ],
    }


def _workload(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "label": words.contender(name),
            "scores": evidence.scoring is not None and name == evidence.scoring.contender,
            "rates": [_figure(saved_at(rate), evidence.number(name, saved_at(rate))) for rate in MISS_RATES],
        }
        for name in evidence.contenders()
    ]


def _as_read(evidence: Evidence) -> list[dict[str, Any]]:
    """One row per age, and one for all: what boards of the past said of open alerts, and what happened."""
    measured = evidence.evaluation
    rows = measured[measured["slice"] == AS_READ] if len(measured) else measured
    number = lambda age, metric, at_raise=False: evidence.number(  # noqa: E731
        f"{MODEL} at the raise" if at_raise else MODEL, metric, AS_READ, age
    )
    return [
        {
            "age": age,
            "alerts": int(rows.loc[rows["slice_value"] == age, "alerts"].max()),
            "figures": [
                *(_figure("prevalence", number(age, metric)) for metric in ("mean_forecast", "acted_share")),
                _figure("prevalence", number(age, "mean_forecast", at_raise=True)),
                *(_figure("log_loss", number(age, "log_loss", at_raise)) for at_raise in (True, False)),
                _figure("roc_auc", number(age, "roc_auc_within")),
                *(
                    _figure("prevalence", number(EVERY_AGE, f"precision_of_first_{k}")) if age == EVERY_AGE else None
                    for k in (10, 50)
                ),
            ],
        }
        for age in (EVERY_AGE, *AGES)
        if len(rows) and (rows["slice_value"] == age).any()
    ]


def _workload_figure(evidence: Evidence, name: str | None) -> Markup | None:
    best = evidence.best_baseline()
    pairs = [each for each in dict.fromkeys((name, best)) if each]
    if not pairs:
        return None
    bars = [
        Bar(f"{words.contender(each)}, {rate} missed", evidence.number(each, saved_at(rate)), each == name)
        for rate in MISS_RATES
        for each in pairs
    ]
    text = "; ".join(f"{bar.label}: {words.percent(bar.number.value)}" for bar in bars)
    title = "Share of alerts that could have waited, by share of acted-on alerts among them"
    return Markup(bars_svg(bars, title, text, prefix="workload-figure", label=250))


def _parts(evidence: Evidence, part: str, name: str | None) -> list[dict[str, Any]]:
    """One row per value of a slice, with a verdict in a few words."""
    rows = []
    for value in evidence.values_of(part):
        alerts, acted = evidence.support(part, value)
        gain = evidence.number(name, SKILL, part, value)
        if gain.value is None:
            status, word = "unknown", words.TOO_FEW
        elif gain.above_zero:
            status, word = "good", "better than every simple rule"
        elif gain.below_zero:
            status, word = "bad", "worse than a simple rule"
        else:
            status, word = "unsure", "no difference shown"
        rows.append(
            {
                "value": value,
                "alerts": alerts,
                "acted": acted,
                "share": words.percent(acted / alerts) if gain.value is not None and alerts else words.TOO_FEW,
                "status": status,
                "word": word,
                **{
                    metric: _figure(metric, evidence.number(name, metric, part, value))
                    for metric in (SKILL, "roc_auc", "decile_error", saved_at("5%"))
                },
            }
        )
    return rows


def _side_by_side(evidence: Evidence, name: str | None) -> list[dict[str, Any]]:
    return [
        {
            "label": words.metric(metric),
            "cells": [
                _figure(metric, evidence.number(name, metric, part)) for part in (HEADLINE, EVERYTHING, LAST_CUT)
            ],
        }
        for metric in _SIDE_BY_SIDE
    ]


def _audits(evidence: Evidence) -> dict[str, Any] | None:
    """Findings, leaks first; None: not audited."""
    if not evidence.audits:
        return None
    order = {"leak": 0, "withheld": 0, "vouched": 0, "suspicious": 1, "not checked": 2, "clean": 3}
    states = {"leak": "bad", "suspicious": "unsure", "vouched": "unsure", "clean": "good"}
    findings = sorted(evidence.audits.get("leakage") or [], key=lambda row: order.get(str(row.get("verdict")), 2))
    shortcut = dict(evidence.audits.get("shortcut") or {})
    if shortcut:
        shortcut["number"] = _figure(SKILL, Number(*(_finite(shortcut.get(end)) for end in ("value", "low", "high"))))
    teams = []
    for row in evidence.audits.get("scorecard") or []:
        team = dict(row)
        for name in ("skill", "auc", "ceiling", "inconsistency"):
            ends = (_finite(row.get(end)) for end in (name, f"{name}_low", f"{name}_high"))
            team[name] = _figure(SKILL if name == "skill" else name, Number(*ends))
        teams.append(team)
    return {
        "findings": [
            {**row, "state": states.get(str(row.get("verdict")), "unknown")} for row in findings[:MOST_FINDINGS]
        ],
        "more": max(0, len(findings) - MOST_FINDINGS),
        "not_known": [row for row in findings if row.get("verdict") in ("leak", "withheld", "vouched")],
        "shortcut": shortcut,
        "scorecard": teams,
    }


def _finite(value: Any) -> float | None:
    return float(value) if words.known(value) else None


def _floods(evidence: Evidence) -> dict[str, Any]:
    table = evidence.floods
    flagged = table[table["status"] != "cleared"] if len(table) else table
    rows = flagged.sort_values(["day", "volume"], ascending=[False, False], kind="stable") if len(flagged) else flagged
    return {
        "rows": rows.head(MOST_FLOODS).to_dict("records"),
        "flagged": len(flagged),
        "cleared": len(table) - len(flagged),
    }


def _volume(evidence: Evidence) -> Markup | None:
    if not len(evidence.band):
        return None
    drawn = volume_svg(evidence.band, evidence.floods[["day", "status", "scope"]])
    # HTML needs no namespace for SVG, and without it the page contains no URL at all.
    return Markup(drawn.replace(' xmlns="http://www.w3.org/2000/svg"', "", 1))


def _everything(evidence: Evidence) -> list[dict[str, Any]]:
    """Every metric of every contender, on the three main slices."""
    table = evidence.evaluation
    if not len(table):
        return []
    metrics = list(dict.fromkeys(table["metric"]))
    order = [metric for metric in words.METRICS if metric in metrics] + [m for m in metrics if m not in words.METRICS]
    return [
        {
            "part": part,
            "metrics": [
                {
                    "label": words.metric(metric),
                    "cells": [
                        _figure(metric, evidence.number(name, metric, part)) for name in evidence.contenders(part)
                    ],
                }
                for metric in order
            ],
            "contenders": [words.contender(name) for name in evidence.contenders(part)],
        }
        for part in (HEADLINE, EVERYTHING, LAST_CUT)
        if evidence.contenders(part)
    ]


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    templates = environment(TEMPLATES)
    templates.filters |= {
        "contender": words.contender,
        "day": lambda value: f"{pd.Timestamp(value):%Y-%m-%d}" if value is not None else "",
    }
    templates.globals |= {"percent_interval": words.percent_interval, "number": words.number}
    return templates.get_template("report.html.j2")
