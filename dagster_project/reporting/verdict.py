"""The verdict: yes, not yet or no, in one plain sentence, with the points that it rests on.

Belongs here: which numbers lead to which verdict. Does not belong here: computing them (`triage`), and the verdict's
layout (`page.py`).

A claim needs its whole interval on the right side. What is neither shown nor refuted is "not yet".
"""

from __future__ import annotations

from dataclasses import dataclass

from dagster_project.reporting import words
from dagster_project.reporting.evidence import HEADLINE, LAST_CUT, LEARNED, MODEL, SKILL, Evidence, Number, saved_at

YES, NOT_YET, NO = "Yes", "Not yet", "No"
GOOD, UNSURE, BAD, UNKNOWN = "good", "unsure", "bad", "unknown"
# The share of acted-on alerts that a manager may accept to miss, in the point about saved workload.
MISSED = "5%"


@dataclass(frozen=True)
class Point:
    """One point that the verdict rests on. state : good, unsure, bad or unknown. source : table and slice."""

    title: str
    state: str
    figure: str
    text: str
    source: str


@dataclass(frozen=True)
class Verdict:
    """word : yes, not yet or no. sentence : why. points : skill, calibration, saving, last cut, audits."""

    word: str
    sentence: str
    points: tuple[Point, ...]

    @property
    def state(self) -> str:
        return {YES: GOOD, NOT_YET: UNSURE, NO: BAD}[self.word]


def judge(evidence: Evidence) -> Verdict:
    """Whether the scores can be trusted to put likely alerts first."""
    scoring = evidence.scoring
    if scoring is None:
        return Verdict(NOT_YET, "no version scores yet: nothing has been trained on your alerts so far.", ())
    if scoring.kind == "prior" or not evidence.contenders():
        return Verdict(
            NOT_YET,
            "too little is known for any comparison: for now, every alert has the same score.",
            (),
        )
    name = evidence.shown or MODEL
    points = (
        _skill(evidence),
        _calibration(evidence, name),
        _saving(evidence, name),
        _last_cut(evidence),
        _audits(evidence),
    )
    _, calibration, saving, last, audits = points
    best = evidence.best_baseline()
    rival = f"the best simple rule ({words.contender(best)})" if best else "the best simple rule"
    gain = evidence.number(MODEL, SKILL)
    by = f"{words.percent(gain.value)} ({words.percent_interval(gain.low, gain.high)})"
    if audits.state == BAD:
        return Verdict(NO, f"the audit found that the model uses information from the future: {audits.text}", points)
    if scoring.kind not in LEARNED:
        own = f"a simple rule ({words.contender(scoring.kind)}) scores"
        if gain.below_zero:
            return Verdict(NO, f"heed's model is worse than {rival}, so {own}.", points)
        if gain.value is None:
            return Verdict(NOT_YET, f"too few outcomes are known to train or test a model, so {own}.", points)
        if gain.above_zero:
            return Verdict(
                NOT_YET, f"a model now beats {rival} by {by}, but the gate has not let it score: {own}.", points
            )
        return Verdict(NOT_YET, f"no model is significantly better than {rival}, so {own}.", points)
    if gain.value is None:
        return Verdict(NOT_YET, "too few outcomes are known to compare the model with the simple rules.", points)
    if gain.below_zero:
        return Verdict(NO, f"the model is worse than {rival}.", points)
    if not gain.above_zero:
        return Verdict(
            NOT_YET,
            f"the model is not significantly better than {rival}: its gain is {by}, which includes zero.",
            points,
        )
    beats = f"the model's forecasts are better than those of {rival} by {by}"
    if last.state == BAD:
        return Verdict(NOT_YET, f"{beats}, but on the latest alerts it was worse than the simple rules.", points)
    if calibration.state == BAD:
        return Verdict(NOT_YET, f"{beats}, but its percentages do not mean what they say.", points)
    if calibration.state != GOOD:
        return Verdict(NOT_YET, f"{beats}, but there is no proof yet that its percentages mean what they say.", points)
    worth = f"; {saving.text}" if saving.state == GOOD else "."
    unaudited = " It has not been audited yet." if audits.state == UNKNOWN else ""
    return Verdict(YES, f"{beats}, and its percentages mean what they say{worth}{unaudited}", points)


def _source(evidence: Evidence, metric: str, part: str = HEADLINE) -> str:
    alerts, acted = evidence.support(part)
    counted = f"{words.count(alerts)} alerts, {words.count(acted)} acted on"
    return f"training.model_evaluations, slice '{part}', {metric}: {counted}"


def _skill(evidence: Evidence) -> Point:
    gain = evidence.number(MODEL, SKILL)
    source = _source(evidence, SKILL)
    title = "Better than the best simple rule?"
    if gain.value is None:
        return Point(title, UNKNOWN, words.TOO_FEW, "no model could be compared", source)
    return Point(title, _sign(gain), *_skill_words(gain), source)


def _skill_words(gain: Number) -> tuple[str, str]:
    comparison = {
        GOOD: "less wrong than the best simple rule",
        BAD: "more wrong than the best simple rule",
        UNSURE: "the interval includes zero: no difference is shown",
    }[_sign(gain)]
    return words.percent(gain.value), f"{comparison}; 95% interval {words.percent_interval(gain.low, gain.high)}"


def _sign(number: Number) -> str:
    return GOOD if number.above_zero else BAD if number.below_zero else UNSURE


def _calibration(evidence: Evidence, name: str) -> Point:
    error, limit = evidence.number(name, "decile_error"), evidence.calibration_limit
    source = _source(evidence, "decile_error")
    title = "Do the percentages mean what they say?"
    if error.value is None or error.low is None or error.high is None:
        return Point(title, UNKNOWN, words.TOO_FEW, "too few outcomes to tell", source)
    state = GOOD if error.high <= limit else BAD if error.low > limit else UNSURE
    points = f"{100 * error.value:.1f} points"
    text = (
        "average difference between forecast and observed share; 95% interval "
        f"{100 * error.low:.1f} to {100 * error.high:.1f}, at most {100 * limit:g} is allowed"
    )
    return Point(title, state, points, text, source)


def _saving(evidence: Evidence, name: str) -> Point:
    saved = evidence.number(name, saved_at(MISSED))
    source = _source(evidence, saved_at(MISSED))
    title = "What would it save?"
    if saved.value is None:
        return Point(title, UNKNOWN, words.TOO_FEW, "too few outcomes to tell", source)
    text = (
        f"of 1,000 alerts about {1000 * saved.value:.0f} ({words.interval(_k(saved.low), _k(saved.high), 0)}) could "
        f"have waited, with {MISSED} of the acted-on alerts among them."
    )
    return Point(title, GOOD if saved.value > 0 else UNSURE, words.percent(saved.value), text, source)


def _k(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def _last_cut(evidence: Evidence) -> Point:
    gain = evidence.number(MODEL, SKILL, LAST_CUT)
    source = _source(evidence, SKILL, LAST_CUT)
    title = "Still so on the latest alerts?"
    if gain.value is None:
        return Point(title, UNKNOWN, words.TOO_FEW, "too few outcomes in the last cut", source)
    return Point(title, _sign(gain), *_skill_words(gain), source)


def _audits(evidence: Evidence) -> Point:
    title, source = "Audited?", "training.audit_findings"
    if not evidence.audits:
        return Point(
            title, UNKNOWN, "not audited", "nobody has checked whether it sees the future or repeats habits", source
        )
    findings = evidence.audits.get("leakage") or []
    leaks = [row for row in findings if row.get("verdict") == "leak"]
    doubts = [row for row in findings if row.get("verdict") == "suspicious"]
    habit = str((evidence.audits.get("shortcut") or {}).get("verdict") or "")
    if leaks:
        named = words.listed(words.short(row.get("subject") or row.get("check"), 40) for row in leaks[:3])
        return Point(title, BAD, f"{len(leaks)} leaks" if len(leaks) > 1 else "a leak", f"{named}.", source)
    if doubts:
        return Point(title, UNSURE, f"{len(doubts)} to review", "somebody should review what the audit found", source)
    if habit in ("repeats", "mostly habit"):
        return Point(title, UNSURE, habit, "most of its forecasts repeat past habits", source)
    checked = [row for row in findings if row.get("verdict") == "clean"]
    if not checked:
        return Point(title, UNKNOWN, "not checked", "there was not enough to check", source)
    return Point(title, GOOD, habit or "no leak found", f"{len(checked)} checks found no leak", source)
