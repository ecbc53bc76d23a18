"""The world as frames: what a warehouse would hold, and the truth about it.

Belongs here: `World` and `simulate`, which puts company, volume, facts and decisions together.
Does not belong here: files (`export`), and how anything is drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dagster_project.errors import HeedError
from dagster_project.simulator.company import (
    ANY_PLATFORM,
    BUDGET_BANDS,
    CAMPAIGN_TYPES,
    COUNTRIES,
    PLATFORMS,
    SEVERITIES,
    TEMPLATES,
    Company,
    build_company,
    source_of,
)
from dagster_project.simulator.config import WorldConfig
from dagster_project.simulator.decisions import ACTION_TYPES, Answers, Decided, decide
from dagster_project.simulator.facts import Facts, state_facts
from dagster_project.simulator.volume import DAY_US, Burst, Raised, raise_alerts

ATTRIBUTES = (
    "platform", "country", "campaign_type", "account", "account_manager", "budget_band", "campaign_status",
    "source", "collector", "bucket",
)  # fmt: skip
COLLECTORS = tuple(f"collector-{i}" for i in range(8))
BUCKETS = 100


@dataclass(frozen=True)
class World:
    """A simulated company's alerts with known truth. Frames as in the contract; all times are datetime64[us,
    UTC].

    Attributes
    ----------
    config : the configuration with all defaults filled in.
    alerts : contract columns of `raw.alerts`, one row per alert in order of `raised_at`; `attributes` is JSON
        text.
    all_actions : contract columns of `raw.actions` plus `meaning`, in order of `acted_at`, also those taken
        after the export.
    rules : contract columns of `raw.rules`.
    truth : one row per alert, in the order of `alerts`: alert_id, probability (true P(acted within the horizon), given
        all that was known when it was raised), probability_without_score (the same unless scores were shown), is_flood
        (a bug made it), in_flood_scope (its rule was flooded that day; it may be genuine), is_incident,
        is_visibility_only, flood_id (null when no bug made it), acted, known_at.
    rule_truth : rule, team, is_visibility_only, created_day, habit_change_day (null when none), habit_change
        ("begins", "stops" or null).
    floods : one row per flood and day: flood_id, day, scope, kind ("rule", "source" or "team"), team, rules
        (JSON list), expected (ordinary alerts of the scope that day), factor, alerts (those of the bug),
        probability.
    incidents : the same for incidents, with incident_id; `alerts` are all of its alerts.
    teams : name, predictability (0 to 1).
    """

    config: WorldConfig
    alerts: pd.DataFrame
    all_actions: pd.DataFrame
    rules: pd.DataFrame
    truth: pd.DataFrame
    rule_truth: pd.DataFrame
    floods: pd.DataFrame
    incidents: pd.DataFrame
    teams: pd.DataFrame
    facts: pd.DataFrame  # the attributes as columns, as the export writes them

    @property
    def actions(self) -> pd.DataFrame:
        """The actions that the export can know: `acted_at` up to and including `config.end`."""
        return self.all_actions[self.all_actions["acted_at"] <= self.config.end].reset_index(drop=True)


def simulate(config: WorldConfig | None = None, *, shown_scores: np.ndarray | None = None) -> World:
    """Make the world of a configuration. The same arguments give the same bytes.

    config : what to simulate; None is `WorldConfig()`.
    shown_scores : (config.alerts,) float64 in [0, 1], the score that people saw beside each alert in the
        order of `World.alerts`, nan where none was shown. The alerts of a configuration do not depend on
        outcomes, so a first run without scores gives the alerts to score. With `config.score_influence` = s
        people follow the score in a share s of cases: P(acted) becomes (1 - s) * p + s * score. Habits then
        grow from what people did.
    Raises HeedError: the scores do not fit the alerts.
    """
    config = (config or WorldConfig()).resolved()
    if shown_scores is not None:
        shown_scores = np.asarray(shown_scores, dtype=np.float64)
        if shown_scores.shape != (config.alerts,):
            raise HeedError(
                f"There are {shown_scores.shape} shown scores for {config.alerts} alerts",
                "Give one score per alert, nan where none was shown",
            )
        if ((shown_scores < 0) | (shown_scores > 1)).any():
            raise HeedError("Some shown scores are no probabilities", "Give values from 0 to 1, or nan")
    company = build_company(config)
    raised = raise_alerts(config, company)
    facts = state_facts(config, company, raised)
    decided, answers = decide(config, company, raised, facts, shown_scores)
    return _frames(config, company, raised, facts, decided, answers)


def _times(us: np.ndarray) -> pd.Series:
    return pd.Series(np.asarray(us, dtype=np.int64).astype("datetime64[us]")).dt.tz_localize("UTC")


def _text(values: object, codes: np.ndarray) -> pa.Array:
    """Look the codes up in the values: text without a Python loop over the rows."""
    return pa.array(list(values), type=pa.string()).take(pa.array(codes))  # type: ignore[call-overload]


def _ids(prefix: str, count: int) -> pa.Array:
    digits = pc.utf8_lpad(pc.cast(pa.array(np.arange(1, count + 1)), pa.string()), 8, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _frames(
    config: WorldConfig, company: Company, raised: Raised, facts: Facts, decided: Decided, answers: Answers
) -> World:
    alert_id = _ids("al-", raised.time.size)
    loaded_at = pd.Timestamp(config.end).tz_convert("UTC").as_unit("us")
    columns, attributes, title = _attributes(config, company, raised, facts)
    alerts = pa.table(
        {
            "alert_id": alert_id,
            "raised_at": pa.array(raised.time).cast(pa.timestamp("us", "UTC")),
            "rule": _text(company.rule, raised.rule),
            "entity": _text(company.entity, facts.entity),
            "team": _text(company.team, facts.team),
            "severity": _text(SEVERITIES, facts.severity),
            "value": facts.value,
            "threshold": facts.threshold,
            "title": title,
            "attributes": attributes,
        }
    ).to_pandas()
    alerts["loaded_at"] = loaded_at

    actors = [f"{str(t).lower().replace(' ', '-')}.{i}" for t in company.team for i in range(1, 6)]
    actions = pa.table(
        {
            "action_id": _ids("ac-", answers.time.size),
            "alert_id": alert_id.take(pa.array(answers.alert)),
            "acted_at": pa.array(answers.time).cast(pa.timestamp("us", "UTC")),
            "action_type": _text(ACTION_TYPES, answers.type),
            "actor": _text(actors, answers.actor),
            "meaning": _text(ACTION_TYPES.values(), answers.type),
        }
    ).to_pandas()
    actions["loaded_at"] = loaded_at

    team_name = pd.Series([company.team[t] if t >= 0 else None for t in company.rule_team], dtype="str")
    rules = pd.DataFrame(
        {
            "rule": pd.Series(company.rule, dtype="str"),
            "title": pd.Series(company.rule_title, dtype="str"),
            "team": team_name,
            "declared_visibility_only": company.rule_declared,
            # Rules there from the first day are older than the export.
            "created_at": _times((raised.first_day + company.rule_start - 90 * (company.rule_start == 0)) * DAY_US),
            "loaded_at": loaded_at,
        }
    )
    changes = (company.rule_change_day < config.days) & (float(config.habit_changes) > 0)
    if config.mode in ("copy_only", "noise"):
        changes[:] = False
    words = np.where(company.rule_change_direction > 0, "begins", "stops")
    rule_truth = pd.DataFrame(
        {
            "rule": rules["rule"],
            "team": team_name,
            "is_visibility_only": company.rule_visibility_only,
            "created_day": _times((raised.first_day + company.rule_start) * DAY_US),
            "habit_change_day": _times(
                (raised.first_day + np.where(changes, company.rule_change_day, 0)) * DAY_US
            ).mask(~changes),
            "habit_change": pd.Series(words, dtype="str").mask(~changes),
        }
    )
    flood, visibility = raised.flood >= 0, company.rule_visibility_only[raised.rule]
    flood_ids = [f"flood-{b.event + 1}" for b in raised.floods]
    truth = pd.DataFrame(
        {
            "alert_id": alerts["alert_id"],
            "probability": decided.probability,
            "probability_without_score": decided.probability_without_score,
            "is_flood": flood,
            "in_flood_scope": _in_scope(raised, company),
            "is_incident": raised.incident >= 0,
            "is_visibility_only": visibility,
            "flood_id": _text([*flood_ids, None], np.where(flood, raised.flood, len(flood_ids))).to_pandas(),
            "acted": decided.acted.astype(np.float64),
            "known_at": _times(decided.known),
        }
    )
    teams = pd.DataFrame({"name": pd.Series(company.team, dtype="str"), "predictability": company.predictability})
    in_incident = np.bincount(raised.incident[raised.incident >= 0], minlength=len(raised.incidents))
    return World(
        config=config,
        alerts=alerts,
        all_actions=actions,
        rules=rules,
        truth=truth,
        rule_truth=rule_truth,
        floods=_bursts("flood", raised.floods, company, raised, [int(b.extra.sum()) for b in raised.floods]),
        incidents=_bursts("incident", raised.incidents, company, raised, in_incident.tolist()),
        teams=teams,
        facts=columns,
    )


def _in_scope(raised: Raised, company: Company) -> np.ndarray:
    """(N,) whether an alert's rule was flooded on its day; the alert itself may be genuine."""
    flooded = np.zeros((company.rule.size, int(raised.day.max()) + 1), dtype=bool)
    for burst in raised.floods:
        flooded[burst.rules[burst.extra > 0], burst.day] = True
    return flooded[raised.rule, raised.day]


def _bursts(word: str, bursts: list[Burst], company: Company, raised: Raised, alerts: list[int]) -> pd.DataFrame:
    teams = [company.team[b.team] if b.team >= 0 else None for b in bursts]
    return pd.DataFrame(
        {
            f"{word}_id": pd.Series([f"{word}-{b.event + 1}" for b in bursts], dtype="str"),
            "day": _times(np.array([(raised.first_day + b.day) * DAY_US for b in bursts], dtype=np.int64)),
            "scope": pd.Series([b.scope for b in bursts], dtype="str"),
            "kind": pd.Series([b.kind for b in bursts], dtype="str"),
            "team": pd.Series(teams, dtype="str"),
            "rules": pd.Series([json.dumps(company.rule[b.rules].tolist()) for b in bursts], dtype="str"),
            "expected": np.array([b.expected for b in bursts], dtype=np.float64),
            "factor": np.array([b.factor for b in bursts], dtype=np.float64),
            "alerts": np.array(alerts[: len(bursts)], dtype=np.int64),
            "probability": np.array([b.probability for b in bursts], dtype=np.float64),
        }
    )


def _attributes(
    config: WorldConfig, company: Company, raised: Raised, facts: Facts
) -> tuple[pd.DataFrame, pa.Array, pa.Array]:
    """The attributes as columns, as JSON text, and the titles."""
    rng = config.stream("attributes")
    n = raised.time.size
    account = company.entity_account[facts.entity]
    platform = company.entity_platform[facts.entity]
    accounts = [f"account-{i:04d}" for i in range(company.account_team.size)]
    managers = [f"manager-{i:02d}" for i in range(int(company.account_manager.max()) + 1)]
    sources = source_of(np.arange(ANY_PLATFORM + 1))
    statuses = ("active", "ended")
    codes = {
        "platform": (PLATFORMS, platform),
        "country": (COUNTRIES, company.account_country[account]),
        "campaign_type": (CAMPAIGN_TYPES, company.entity_type[facts.entity]),
        "account": (accounts, account),
        "account_manager": (managers, company.account_manager[account]),
        "budget_band": (BUDGET_BANDS, company.entity_band[facts.entity]),
        "campaign_status": (statuses, facts.ended.astype(np.int64)),
        "source": (sources, company.rule_platform[raised.rule]),
        # The last two mean nothing, as many attributes do.
        "collector": (COLLECTORS, rng.integers(0, len(COLLECTORS), n)),
        "bucket": ([str(i) for i in range(BUCKETS)], rng.integers(0, BUCKETS, n)),
    }
    columns = {name: _text(values, at) for name, (values, at) in codes.items()}
    parts: list[object] = []
    for i, name in enumerate(ATTRIBUTES):
        values, at = codes[name]
        quote = "" if name == "bucket" else '"'
        opening = "{" if i == 0 else ", "
        parts.append(_text([f'{opening}"{name}": {quote}{v}{quote}' for v in values], at))
    attributes = pc.binary_join_element_wise(*parts, "}", "")

    # "... for campaign-00012, 1.4 times the threshold"
    ratio = np.exp(facts.excess * company.rule_direction[raised.rule])
    tenth = np.where(np.isnan(facts.value), 0, np.clip(np.round(ratio * 10), 1, 1000)).astype(np.int64)
    tails = ["", *(f", {i / 10:.1f} times the threshold" for i in range(1, 1001))]
    sentences = [TEMPLATES[t][1] for t in company.rule_template]
    title = pc.binary_join_element_wise(
        _text(sentences, raised.rule), " for ", _text(company.entity, facts.entity), _text(tails, tenth), ""
    )
    return pa.table(columns).to_pandas(), attributes, title
