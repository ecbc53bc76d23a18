"""List model versions, and roll back to an earlier one.

Belongs here: what `heed champion` and `heed rollback` do.
Does not belong here: the gate's decisions (`triage/champion/gate.py`), storing any (`resources/stores/models.py`).

A roll-back appends a decision; nothing is changed or deleted. It applies to every run at or after its as-of. The
version that it ends is withdrawn: only a person can make it champion again, not the gate. Newer candidates still
compete against the version that scores now.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings


def list_versions(warehouse: Warehouse, as_of: datetime | None = None) -> list[dict[str, Any]]:
    """Every version, the latest first: model_version, kind, cut, scores, withdrawn, and its decisions in order.

    as_of : None: now.
    """
    _require_tables(warehouse)
    models = ModelStore(warehouse)
    as_of = as_of or _now_or_later(models)
    champion = models.champion(as_of)
    decisions = models.decisions(as_of)
    withdrawn = models.succession(as_of).withdrawn
    return [
        {
            "model_version": row["model_version"],
            "kind": row["kind"],
            "cut": row["cut"],
            "scores": champion is not None and row["model_version"] == champion.model_version,
            "withdrawn": row["model_version"] in withdrawn,
            "decisions": [
                {name: decision[name] for name in ("as_of", "decided_at", "decision", "reasons", "decided_by")}
                for decision in decisions
                if decision["model_version"] == row["model_version"]
            ],
        }
        for row in models.versions(as_of)
    ]


def roll_back(
    warehouse: Warehouse,
    settings: Settings,
    version: str | None,
    *,
    who: str,
    why: str,
    as_of: datetime | None = None,
) -> tuple[str, str | None]:
    """Let an earlier version score again, from `as_of` on.

    version : None: the latest earlier champion that nobody rolled back from. as_of : None: now.

    Returns: (the version that scores now, the one that scored before or None).
    Raises HeedError: the name or the reason is empty; the version is unknown, scores already, was trained on data from
        after the as-of, or has another feature contract than today's settings; or there is a later decision.
    """
    from dagster_project.triage.features.contract import contract

    who, why = who.strip(), why.strip()
    if not who or not why:
        raise HeedError("a roll-back needs a name and a reason", "say --who NAME --why TEXT")
    _require_tables(warehouse)
    models = ModelStore(warehouse)
    last = _now_or_later(models)
    as_of = as_of or last
    if as_of < last:
        decisions = models.decisions(last)
        if decisions and decisions[-1]["as_of"] > as_of:
            raise HeedError(
                f"there is a later decision, as of {decisions[-1]['as_of']:%Y-%m-%d %H:%M:%S} UTC",
                "leave out --as-of, or choose a later one",
            )
    champion = models.champion(as_of)
    present = champion.model_version if champion else None
    wanted = version or models.succession(as_of).previous()
    if wanted is None:
        raise HeedError("there is no earlier champion to roll back to", "name a version; `heed champion` lists them")
    known = {row["model_version"]: row for row in models.versions(datetime.max.replace(tzinfo=UTC))}
    if wanted not in known:
        raise HeedError(f"there is no model version {wanted!r}", "`heed champion` lists the existing ones")
    if wanted == present:
        raise HeedError(f"{wanted} scores already", "nothing needs to be done")
    if known[wanted]["cut"] > as_of:
        raise HeedError(f"{wanted} was trained on data from after {as_of:%Y-%m-%d %H:%M} UTC", "choose a later --as-of")
    if models.load(wanted).contract.get("hash") != contract(settings.feature_settings())["hash"]:
        raise HeedError(
            f"{wanted} was trained with other features than today's settings give (another feature contract)",
            "choose another version, or restore the [features] of heed.toml that it was trained with",
        )
    models.roll_back(wanted, as_of, present, who=who, why=why)
    return wanted, present


def _require_tables(warehouse: Warehouse) -> None:
    if warehouse.value("SELECT to_regclass('training.champion_decisions') IS NULL"):
        raise HeedError("there is no model yet: no job has run", "run `heed run`")


def _now_or_later(models: ModelStore) -> datetime:
    """Now, or the as-of of the last decision if a run had one in the future."""
    ever = models.decisions(datetime.max.replace(tzinfo=UTC))
    return max([datetime.now(UTC), *(row["as_of"] for row in ever[-1:])])
