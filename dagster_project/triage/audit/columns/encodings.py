"""Numbers made of the outcomes: target encodings among the facts.

Belongs here: whether a number repeats the shares acted of rules, entities or teams.
Does not belong here: how well a single fact separates outcomes (`audit/single_feature.py`).
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import chi2

from dagster_project.triage.audit.findings import CLEAN, LEAK, Finding
from dagster_project.triage.audit.single_feature import list_suspects
from dagster_project.triage.features.contract import FeatureSettings
from dagster_project.triage.features.keys import key_values

ENCODES = "repeats the outcomes' chance"


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
    by_fact: dict[str, Finding] = {}
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
                if degrees >= 4 and probability < 1e-6 and suspect.name not in by_fact:
                    text = (
                        f"follows the share acted per {key} closer than chance allows (probability "
                        f"{probability:.1g}, {degrees} degrees of freedom): it was made of the outcomes"
                    )
                    by_fact[suspect.name] = Finding(ENCODES, suspect.name, text, probability, 1e-6, LEAK)
    if by_fact:
        return list(by_fact.values())
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
