"""Which version scores, which ones there are, and a person's way back to an earlier one.

Belongs here: what `heed champion` and `heed rollback` do. Does not belong here: the gate's decisions
(`triage/champion/gate.py`) and storing any (`resources/stores/models.py`).

A roll-back is one more decision, appended; nothing is changed or deleted. It holds for every run at or after its
moment. The version that it ends is withdrawn: the gate does not make it champion again, only a person does. Newer
candidates compete as ever, against the version that scores now.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from dagster_project.errors import HeedError
from dagster_project.resources.stores.models import ModelStore
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings


def list_versions(warehouse: Warehouse, as_of: datetime | None = None) -> list[dict[str, Any]]:
    """Every version, the latest first: model_version, kind, cut, scores, withdrawn, and its decisions in their order.

    as_of : the moment at which to stand; None: whatever stands last.
    """
    _require_tables(warehouse)
    models = ModelStore(warehouse)
    moment = as_of or _last_moment(models)
    champion = models.champion(moment)
    decisions = models.decisions(moment)
    withdrawn = models.succession(moment).withdrawn
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
        for row in models.versions(moment)
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

    version : None: the latest champion before this one that nobody rolled back from. as_of : None: now.

    Returns
    -------
    (the version that scores now, the one that scored before or None).

    Raises
    ------
    HeedError
        Nobody or no reason is named, the version is unknown, scores already, learned from after the moment, or has
        another feature contract than today's settings; or a later decision stands.
    """
    from dagster_project.triage.features.contract import contract

    who, why = who.strip(), why.strip()
    if not who or not why:
        raise HeedError("a roll-back needs a name and a reason", "say --who NAME --why TEXT")
    _require_tables(warehouse)
    models = ModelStore(warehouse)
    last = _last_moment(models)
    moment = as_of or last
    if moment < last:
        standing = models.decisions(last)
        if standing and standing[-1]["as_of"] > moment:
            raise HeedError(
                f"a decision for {standing[-1]['as_of']:%Y-%m-%d %H:%M:%S} UTC stands after that moment",
                "leave out --as-of, or choose a later one",
            )
    champion = models.champion(moment)
    present = champion.model_version if champion else None
    wanted = version or models.succession(moment).previous()
    if wanted is None:
        raise HeedError("there is no earlier champion to roll back to", "name a version; `heed champion` lists them")
    known = {row["model_version"]: row for row in models.versions(datetime.max.replace(tzinfo=UTC))}
    if wanted not in known:
        raise HeedError(f"there is no model version {wanted!r}", "`heed champion` lists those there are")
    if wanted == present:
        raise HeedError(f"{wanted} scores already", "nothing needs to be done")
    if known[wanted]["cut"] > moment:
        raise HeedError(f"{wanted} learned from after {moment:%Y-%m-%d %H:%M} UTC", "choose a later --as-of")
    if models.load(wanted).contract != contract(settings.feature_settings()):
        raise HeedError(
            f"{wanted} was taught with other features than today's settings give (another feature contract)",
            "choose another version, or restore the [features] of heed.toml that it was taught with",
        )
    models.roll_back(wanted, moment, present, who=who, why=why)
    return wanted, present


def _require_tables(warehouse: Warehouse) -> None:
    if warehouse.value("SELECT to_regclass('training.champion_decisions') IS NULL"):
        raise HeedError("there is no model yet: no job has run", "run `heed run`")


def _last_moment(models: ModelStore) -> datetime:
    """Now, or the moment of a later decision where a run stood in the future."""
    ever = models.decisions(datetime.max.replace(tzinfo=UTC))
    return max([datetime.now(UTC), *(row["as_of"] for row in ever[-1:])])
