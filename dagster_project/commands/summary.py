"""The current state of a warehouse on one screen, for a first look.

Belongs here: the queries and the screen of `heed summary` and `heed demo`.
Does not belong here: evidence in depth (`heed report`), tables for analysts (`dbt_project/models/reporting`).
"""

from __future__ import annotations

import json
from typing import Any

from dagster_project.commands.doctor import stale_sources
from dagster_project.errors import HeedError, one_line
from dagster_project.reporting.words import contender
from dagster_project.resources.inputs.action_types import (
    MEANINGS,
    SeenType,
    clean_types,
    nothing_acted_in_words,
    unknown_in_words,
)
from dagster_project.resources.inputs.undecodable import undecodable_rows
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.stores.scores import read_workload
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import load_settings
from dagster_project.triage.evaluation.workload import PROMISES, Below, at_promise

_TOP = """
SELECT alert_id, raised_at, rule, entity, team, probability, reasons::text AS reasons, flood, visibility_only
FROM reporting.alert_scores_latest
WHERE is_open AND probability IS NOT NULL ORDER BY flood, visibility_only, probability DESC, alert_id LIMIT 10
"""
_REOPENED = """
SELECT count(DISTINCT dismissals.alert_id) AS alerts FROM marts.actions AS reopenings
JOIN marts.actions AS dismissals USING (alert_id)
WHERE reopenings.meaning = 'reopened' AND dismissals.meaning = 'dismissed' AND dismissals.acted_at < reopenings.acted_at
"""


def collect(warehouse: Warehouse) -> dict[str, Any]:
    """Everything the summary shows, as plain values."""
    if warehouse.value("SELECT to_regclass('reporting.alert_scores_latest') IS NULL"):
        raise HeedError("there is nothing to summarize: no job has run yet", "run `heed run`")
    read = lambda query: warehouse.read_arrow(query).to_pylist()  # noqa: E731
    champion = read(
        "SELECT model_version, as_of, reasons::text AS reasons FROM training.champion_decisions "
        "WHERE decision IN ('promoted', 'rolled_back') ORDER BY as_of DESC, decision_id DESC LIMIT 1"
    )
    models = ModelStore(warehouse)
    curve = read_workload(warehouse)
    evaluation: list[dict[str, Any]] = []
    if champion:
        table = models.evaluation(champion[0]["model_version"])
        evaluation = [
            {str(name): value for name, value in row.items()}
            for row in table[table["slice"] == "unflagged"].to_dict("records")
        ]
    return {
        "loaded": read(
            "SELECT source, raw_rows, clean_rows, duplicate_rows, rejected_rows FROM marts.load_reconciliation "
            "ORDER BY source"
        ),
        "stale_sources": [each.to_document() for each in stale_sources(warehouse, load_settings())],
        "rejected": undecodable_rows(warehouse)
        + read(
            "SELECT source, reason, count(*) AS rows FROM marts.rejected_rows GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 8"
        ),
        "fact_changes": read(
            "SELECT ltrim(column_name, '@') AS name, count(*) AS alerts FROM marts.alert_fact_changes GROUP BY 1 "
            "ORDER BY 2 DESC, 1 LIMIT 8"
        ),
        "reopened": read(_REOPENED)[0]["alerts"],
        "action_types": [each.to_document() for each in clean_types(warehouse)],
        "floods": read(
            "SELECT day, scope_kind, scope, volume, expected, acted_share, status, evidence FROM quality.flood_days "
            "WHERE status <> 'cleared' AND superseded_at IS NULL ORDER BY volume DESC LIMIT 8"
        ),
        "cleared": read(
            "SELECT count(*) AS n FROM quality.flood_days WHERE status = 'cleared' AND superseded_at IS NULL"
        )[0]["n"],
        "visibility_only": read(
            "SELECT * FROM (SELECT DISTINCT ON (rule) rule, alerts_decided, acted, status, evidence "
            "FROM quality.visibility_only_rules WHERE released_at IS NULL ORDER BY rule, alerts_decided DESC) AS those "
            "ORDER BY alerts_decided DESC LIMIT 8"
        ),
        "champion": {**champion[0], "reasons": json.loads(champion[0]["reasons"])} if champion else None,
        "not_known_at_raise": _not_known(models, champion[0]["model_version"]) if champion else [],
        "evaluation": evaluation,
        "most_worth_attention": [{**row, "reasons": json.loads(row["reasons"])} for row in read(_TOP)],
        "workload": [
            {"promise": promise, **vars(at_promise(curve, promise))} for promise in (PROMISES if len(curve) else ())
        ],
        "open_alerts": read("SELECT count(*) AS n FROM reporting.alert_scores_latest WHERE is_open")[0]["n"],
    }


def _not_known(models: ModelStore, version: str) -> list[dict[str, Any]]:
    """Columns that were not known at the raise according to the audit: withheld, vouched for by a person, or a leak."""
    findings = (models.audit(version) or {"leakage": []})["leakage"]
    return [
        {name: row[name] for name in ("subject", "verdict", "finding", "check")}
        for row in findings
        if row["verdict"] in ("withheld", "vouched", "leak")
    ]


def show(document: dict[str, Any]) -> None:
    """Print the summary for people."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # Evidence in words needs room; without a terminal of known width, 120 columns read well.
    console = Console(highlight=False)
    console = console if console.is_terminal else Console(highlight=False, width=120)
    plain = lambda value: Text(one_line(str(value)))  # noqa: E731  (names may look like markup, or steer a terminal)

    def table(title: str, *columns: str) -> Table:
        shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        for column in columns:
            shown.add_column(column, justify="right" if column in _NUMERIC else "left", overflow="fold", min_width=4)
        return shown

    loaded = table("What came in", "table", "rows", "clean", "duplicates", "rejected")
    for row in document["loaded"]:
        loaded.add_row(
            *(plain(row[name]) for name in ("source", "raw_rows", "clean_rows", "duplicate_rows", "rejected_rows"))
        )
    console.print(loaded)
    for row in document["stale_sources"]:
        console.print(plain(f"  {row['what']}: {row['found']}. {row['remedy']}"))
    for row in document["rejected"]:
        console.print(plain(f"  rejected: {row['rows']} {row['source']}: {row['reason']}"))
    for row in document["fact_changes"]:
        console.print(
            plain(f"  {row['name']} changed after the raise for {row['alerts']} alerts; heed uses the first-seen value")
        )
    if document["reopened"]:
        console.print(
            plain(
                f"  {document['reopened']} alerts were dismissed and reopened: that dismissal does not count, and "
                "history features treat them as undecided since then"
            )
        )
    _show_meanings(console, [SeenType(**each) for each in document["action_types"]], plain)

    console.print()
    floods = table("Flagged as floods: a bug made them, not the business", "day", "scope", "alerts", "usual", "why")
    for row in document["floods"]:
        floods.add_row(
            plain(row["day"]),
            plain(f"{row['scope_kind']} {row['scope']}"),
            plain(row["volume"]),
            plain(f"{row['expected']:.0f}"),
            plain(f"{row['status']}: {row['evidence']}"),
        )
    console.print(floods if document["floods"] else "[bold]No flood was found.[/]")
    console.print(plain(f"  {document['cleared']} more busy days were examined and cleared: people acted on them."))

    console.print()
    rules = table("Visibility-only rules: nobody acts on them, by design", "rule", "decided", "why")
    for row in document["visibility_only"]:
        rules.add_row(plain(row["rule"]), plain(row["alerts_decided"]), plain(f"{row['status']}: {row['evidence']}"))
    console.print(rules if document["visibility_only"] else "[bold]No visibility-only rule was found.[/]")

    console.print()
    for row in document["not_known_at_raise"]:
        what = {"withheld": "withheld from learning", "vouched": "kept: a person vouches for it"}
        console.print(
            plain(f"Not known at the raise: {row['subject']} ({what.get(row['verdict'], 'a leak')}): {row['finding']}.")
        )
    _show_evaluation(console, document, table, plain)

    console.print()
    top = table(f"Of {document['open_alerts']} open alerts, the ten most worth attention", "chance", "alert", "because")
    for row in document["most_worth_attention"]:
        about = " · ".join(str(row[name]) for name in ("rule", "entity", "team") if row[name])
        top.add_row(plain(f"{row['probability']:.0%}"), plain(about), plain("; ".join(row["reasons"])))
    console.print(top)


_NUMERIC = {
    "rows",
    "clean",
    "duplicates",
    "rejected",
    "alerts",
    "usual",
    "decided",
    "chance",
    "log-loss",
    "AUC",
}


# A neutral type may really be a decision if more than this share of its actions is on alerts without one.
_ENDS_ALERTS = 0.5


def _show_meanings(console: Any, types: list[SeenType], plain: Any) -> None:
    """The meaning of each action type, and the types that a person should explain."""
    if not types:
        return
    console.print()
    console.print("[bold]What heed takes action types for[/]")
    for meaning in MEANINGS:
        words = [each for each in types if each.meaning == meaning]
        if words:
            named = ", ".join(f"{each.action_type[:40]} {each.actions:,}" for each in words[:_WORDS_SHOWN])
            more = f" and {len(words) - _WORDS_SHOWN} more" if len(words) > _WORDS_SHOWN else ""
            console.print(plain(f"  {meaning}: {named}{more}"))
    if none_acted := nothing_acted_in_words(types):
        console.print(plain(f"  WARNING: {none_acted}, with `heed action-types`"))
    if unknown := unknown_in_words(types):
        console.print(plain(f"  {unknown}"))
    for each in types:
        undecided = each.alerts_without_decision or 0
        if each.meaning == "neutral" and each.defined_in == "project" and undecided > _ENDS_ALERTS * each.actions:
            console.print(
                plain(
                    f"  {each.action_type[:40]}: {undecided:,} alerts have it and no decision. If it is a decision, "
                    "say so with `heed action-types`"
                )
            )


_WORDS_SHOWN = 12


def _show_evaluation(console: Any, document: dict[str, Any], table: Any, plain: Any) -> None:
    if not document["evaluation"]:
        console.print("[bold]There were too few alerts to compare models.[/]")
        return
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for row in document["evaluation"]:
        measured.setdefault(row["contender"], {})[row["metric"]] = row
    alerts = document["evaluation"][0]["alerts"]
    shown = table(
        f"The model and the simple baselines, on {alerts} later alerts that none of them had seen (lower log-loss and "
        "higher AUC are better)",
        *("contender", "log-loss", "95% interval", "AUC"),
    )
    order = sorted(measured, key=lambda name: measured[name]["log_loss"]["value"])
    for name in order:
        loss, auc = measured[name]["log_loss"], measured[name]["roc_auc"]
        shown.add_row(
            plain(contender(name)),
            plain(_number(loss["value"], 4)),
            plain(f"{_number(loss['low'], 4)} to {_number(loss['high'], 4)}"),
            plain(_number(auc["value"], 3)),
        )
    console.print(shown)
    for row in document["workload"]:
        at = Below(**{name: value for name, value in row.items() if name != "promise"})
        console.print(
            plain(
                f"  Missing at most {row['promise']:.0%}: alerts below {at.threshold:.1%} could have waited, "
                f"{at.saved:.1%} of the work ({at.alerts_below:,} of {at.alerts:,}); {at.missed:.1%} of the actions "
                "were among them."
            )
        )
    if document["champion"]:
        console.print(plain(f"  Scores now: {document['champion']['model_version']}."))
        for reason in document["champion"]["reasons"]:
            console.print(plain(f"  {reason[:1].upper()}{reason[1:]}."))


def _number(value: float | None, digits: int) -> str:
    return "too few" if value is None or value != value else f"{value:.{digits}f}"
