"""What names of columns and people say: the words that stand for a role, the best first.

Belongs here: words, and how well a name fits some of them.
Does not belong here: what a column's values say (`guess.py`).
"""

from __future__ import annotations

import re
import unicodedata

# Words in names, the best first, by role.
NAMES: dict[str, tuple[str, ...]] = {
    "alert_id": (
        *("alert_id", "incident_id", "event_id", "finding_id", "issue_key", "number", "id", "key", "uuid", "guid"),
        *(
            "alert_number",
            "incident_number",
            "case_id",
            "ticket_id",
            "ticket",
            "fingerprint",
            "reference",
            "ref",
            "url",
            *("no", "nr", "num", "nummer", "numero"),
        ),
    ),
    "raised_at": (
        *("raised_at", "created_at", "created", "opened_at", "opened", "createdat", "triggered_at", "fired_at"),
        *("starts_at", "startsat", "start_time", "started_at", "first_seen", "firstseen", "detected_at", "detected"),
        *("createddatetime", "creation_time", "create_time", "createtime", "event_time", "alert_time", "occurred_at"),
        *(
            "reported_at",
            "reported",
            "raised",
            "open_time",
            "timestamp",
            "@timestamp",
            "time",
            "datetime",
            "date",
            "begin",
            *("erstellt", "angelegt", "eroffnet", "gemeldet", "erfasst", "cree", "ouvert", "creado", "abierto"),
        ),
    ),
    "rule": (
        *("rule", "rule_name", "rule_id", "alert_name", "alertname", "alert_rule", "monitor", "monitor_name", "check"),
        *("check_name", "signature", "detection", "condition", "condition_name", "policy", "policy_name", "trigger"),
        *("alert_type", "event_type", "problem", "title", "name", "summary", "short_description", "subject", "message"),
        *(
            "description",
            "category",
            "type",
            "alert",
            "alarm",
            "alarm_name",
            "alarm_text",
            "technique",
            "text",
            "regel",
            "betreff",
            "titel",
            "titre",
            "sujet",
            "titulo",
            "asunto",
        ),
    ),
    "entity": (
        *("entity", "host", "hostname", "host_name", "node", "instance", "resource", "resource_id", "resource_name"),
        *(
            "service",
            "service_name",
            "server",
            "device",
            "device_name",
            "machine",
            "component",
            "asset",
            "ci",
            "cmdb_ci",
        ),
        *("configuration_item", "object", "target", "application", "app", "package", "system", "cluster", "user", "ip"),
        *("source", "src", "gerat", "rechner", "dienst", "serveur", "servidor", "dispositivo"),
    ),
    "team": (
        *(
            "team",
            "team_name",
            "assignment_group",
            "group",
            "queue",
            "support_group",
            "squad",
            "department",
            "business_unit",
            "org",
            "project",
        ),
        *("repository", "tenant", "account", "routed_to", "gruppe", "groupe", "equipe", "grupo", "equipo"),
    ),
    "severity": (
        *("severity", "priority", "prio", "sev", "urgency", "level", "criticality", "impact"),
        *("prioritat", "schweregrad", "priorite", "gravite", "prioridad", "gravedad"),
    ),
    "value": ("value", "metric_value", "current_value", "measured", "score", "risk_score"),
    "threshold": ("threshold", "limit", "threshold_value"),
}
# Words that say that somebody decided -> the type of such an action, where no column names one. The best first.
DECIDED: dict[str, str] = {
    **{word: "resolved" for word in ("resolved", "resolution", "resolve", "gelost", "resolu", "resuelto")},
    **{word: "closed" for word in ("closed", "close", "closing", "closure", "geschlossen", "ferme", "clos", "cerrado")},
    **{word: "acknowledged" for word in ("acknowledged", "acked", "ack")},
    **{word: word for word in ("dismissed", "fixed", "remediated", "mitigated", "completed", "solved", "handled")},
    **{word: word for word in ("ended", "actioned", "acted", "suppressed", "archived", "reviewed", "done", "cleared")},
    **{word: word for word in ("ignored", "rejected", "silenced", "waived", "snoozed")},
    **{word: "muted" for word in ("muted", "mute")},
    **{word: "fixed" for word in ("behoben", "erledigt", "solucionado")},
}
DECIDED_AT = tuple(DECIDED)
DURATION = (
    *("duration", "ttr", "mttr", "time_to_resolve", "time_to_resolved", "time_to_resolution", "time_to_close"),
    *("time_to_closed", "time_to_closure", "open_for", "elapsed", "dauer", "duree"),
)
UNITS = {
    **{word: "s" for word in ("s", "sec", "secs", "second", "seconds")},
    **{word: "ms" for word in ("ms", "msec", "millis", "milliseconds")},
    **{word: "minutes" for word in ("m", "min", "mins", "minute", "minutes")},
    **{word: "hours" for word in ("h", "hr", "hrs", "hour", "hours")},
}
CHANGED_AT = ("updated", "modified", "changed", "last_change", "last_update", "update", "touched")
DECISION = (
    *("resolution", "close_code", "closure_code", "resolution_code", "disposition", "outcome", "verdict", "decision"),
    *("classification", "close_reason", "dismissed_reason", "reason", "resolution_type", "closure", "determination"),
    *(
        "action",
        "action_taken",
        "result",
        "workflow_status",
        "state",
        "status",
        "losung",
        "losungsart",
        "statut",
        "estado",
    ),
    *("actionable", "true_positive", "false_positive", "escalated", "muted", "mute"),
)
ACTOR = (
    *("resolved_by", "closed_by", "dismissed_by", "acknowledged_by", "handled_by", "actor", "closer", "resolver"),
    *("assignee", "assigned_to", "owner", "user", "analyst", "agent", "technician", "engineer", "bearbeiter"),
    *("acked_by", "ignored_by", "by"),
)
LATER = (
    *("status", "state", "resolution", "resolved", "closed", "close", "updated", "modified", "changed", "dismissed"),
    *(
        "fixed",
        "ack",
        "acked",
        "acknowledged",
        "assignee",
        "assigned",
        "owner",
        "duration",
        "age",
        "comment",
        "comments",
    ),
    *(
        "note",
        "notes",
        "work",
        "outcome",
        "disposition",
        "classification",
        "verdict",
        "reopen",
        "reopened",
        "escalated",
    ),
    *(
        "agent",
        "resolver",
        "technician",
        "engineer",
        "mttr",
        "mtta",
        "recovery",
        "end",
        "ended",
        "ends",
        "archived",
        "reviewed",
        "determination",
        "handled",
        "actions",
    ),
)
MACHINES = re.compile(
    r"(?<![a-z])(system|automation|automatic|auto|bot|service|integration|api|workflow|monitor|scheduler)(?![a-z])",
    re.IGNORECASE,
)
FEW = 60  # different values of a column that says what was decided


def words_of(name: str) -> list[str]:
    """The words of a column's name, without accents: "ClosedTime [UTC]" is closed, time, utc; "Alert #" alert, no."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", plain.replace("#", " no "))
    return [word for word in re.split(r"[^a-z0-9@]+", spaced.casefold()) if word]


def score(name: str, wanted: tuple[str, ...]) -> float:
    """How well a name fits a list of names, 0 to 1: earlier ones and whole names are better."""
    words = [word[:-1] if word.endswith("s") and word[:-1] in wanted else word for word in words_of(name)]
    plain, last = "_".join(words), "_".join(words[-1:])
    for at, one in enumerate(wanted):
        rank = 1 - at / (2 * len(wanted))
        squeezed = one.replace("_", "")
        if plain == one or "".join(words) == squeezed:
            return rank
        if plain.endswith(f"_{one}") or plain.endswith(one + "_utc") or plain.startswith(one + "_"):
            return rank * 0.9
        if one in words or last == one:
            return rank * 0.7
    return 0.0


def decision_of(name: str) -> str:
    """The type of action whose word is in a name, such as "resolved" in "Resolution time"; empty: none."""
    return next((DECIDED[word] for word in words_of(name) if word in DECIDED), "")


def is_later_time(name: str) -> bool:
    return score(name, DECIDED_AT) > 0 or score(name, CHANGED_AT) > 0


def is_later(name: str) -> bool:
    return any(word in LATER or word in DECIDED for word in words_of(name))
