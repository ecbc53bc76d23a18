"""The model store: model versions, their evidence, and champion decisions, as rows in the warehouse.

Belongs here: writing and reading model versions, evaluations and champion decisions.
Does not belong here: what a model is (`triage/learning/model.py`) and which becomes champion (`triage/champion`).

A model is LightGBM's text and one JSON document in one row; nothing is ever unpickled.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pandas as pd

from dagster_project.errors import HeedError
from dagster_project.resources.warehouse.connection import Warehouse, append
from dagster_project.triage.champion.succession import Succession

if TYPE_CHECKING:
    from dagster_project.settings import Settings
    from dagster_project.triage.audit.audit import Audit
    from dagster_project.triage.champion.decide import Standing
    from dagster_project.triage.learning.model import Model

# The check's name for the verdict on repeating the last action, which is stored among the findings.
SHORTCUT = "shortcut: repeating the last action"
_FINDING_COLUMNS = ("check_name", "subject", "finding", "value", "low", "high", "limit_value", "verdict")
_TEAM_COLUMNS = (
    *("team", "alerts", "acted", "acted_share", "skill", "skill_low", "skill_high", "auc", "auc_low", "auc_high"),
    *("ceiling", "ceiling_low", "ceiling_high", "inconsistency", "same_facts_pairs", "status", "reason"),
)


@dataclass(frozen=True)
class Champion:
    """The model version that scores, since when, and why.

    cut : everything in it was known by then. trained : the same for its trees; earlier if it was recalibrated.
    """

    model_version: str
    as_of: datetime
    cut: datetime
    trained: datetime
    kind: str
    reasons: list[str]


class ModelStore:
    """Model versions in `training.*` of one warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def save(self, model: Model, cut: datetime) -> str:
        """Store a model version; the same version again changes nothing. Returns the version."""
        booster, document = model.to_document()
        with self._warehouse.transaction() as cursor:
            cursor.execute(
                "INSERT INTO training.model_versions (model_version, created_at, cut, kind, booster, document) "
                "VALUES ($1, now(), $2, $3, $4, $5::text::jsonb) ON CONFLICT (model_version) DO NOTHING",
                parameters=(model.version, cut, model.kind, booster, json.dumps(document, allow_nan=False)),
            )
        return model.version

    def load(self, model_version: str) -> Model:
        """Read a model version back, exactly as it was saved."""
        from dagster_project.triage.learning.mixture.model import read_model

        rows = self._warehouse.read_arrow(
            "SELECT booster, document::text AS document FROM training.model_versions WHERE model_version = $1",
            (model_version,),
        ).to_pylist()
        if not rows:
            raise HeedError(
                f"there is no model version {model_version}",
                "`heed champion` lists the existing ones",
            )
        try:
            document = json.loads(rows[0]["document"])
        except (ValueError, RecursionError) as error:  # PostgreSQL keeps numbers that Python refuses to read
            raise HeedError(f"the stored model {model_version} is malformed ({error})", "train again") from error
        return read_model(rows[0]["booster"], document)

    def attribute_keys(self, as_of: datetime) -> tuple[str, ...]:
        """The attributes whose history the champion reads; none where there is no champion."""
        champion = self.champion(as_of)
        keys = champion and self._warehouse.value(
            "SELECT (document->'contract'->'attribute_keys')::text FROM training.model_versions "
            "WHERE model_version = $1",
            (champion.model_version,),
        )
        return tuple(map(str, json.loads(keys))) if keys else ()

    def newest(self, as_of: datetime) -> str:
        """The model version with the latest cut up to `as_of`: the candidate of a run at that as-of.

        A recalibrated champion is no candidate.
        """
        version = self._warehouse.value(
            "SELECT model_version FROM training.model_versions WHERE cut <= $1 AND document->'recalibration' IS NULL "
            "ORDER BY cut DESC, created_at DESC LIMIT 1",
            (as_of,),
        )
        if version is None:
            raise HeedError("no model was trained yet", "run the job `retrain`")
        return version

    def champion(self, as_of: datetime) -> Champion | None:
        """The champion at `as_of`: the newest promotion or roll-back with an as-of up to then.

        A model that was trained on data from after `as_of` is never returned.
        """
        rows = self._warehouse.read_arrow(
            """SELECT decision.model_version, decision.as_of, version.cut, version.kind,
                      (version.document->>'cut')::timestamptz AS trained,
                      decision.reasons::text AS reasons
               FROM training.champion_decisions AS decision
               JOIN training.model_versions AS version USING (model_version)
               WHERE decision.decision IN ('promoted', 'rolled_back')
                 AND decision.as_of <= $1 AND version.cut <= $1
               ORDER BY decision.as_of DESC, decision.decision_id DESC LIMIT 1""",
            (as_of,),
        ).to_pylist()
        if not rows:
            return None
        return Champion(**{**rows[0], "reasons": json.loads(rows[0]["reasons"])})

    def standing(self, as_of: datetime) -> Standing | None:
        """The champion at a moment, for the decision whether a candidate replaces it; None: there is none."""
        from dagster_project.triage.champion.decide import Standing

        champion = self.champion(as_of)
        if champion is None:
            return None
        version = champion.model_version
        try:
            model = self.load(version)
        except HeedError as error:
            return Standing(version, None, f"the champion {version} cannot be read ({error.cause})")
        return Standing(version, model, published=lambda: self.published_by(model, as_of))

    def scoring_model(self, as_of: datetime, contract: dict[str, Any]) -> tuple[Model | None, str]:
        """The model that scores at `as_of`, and a warning if it is not the champion; None: there is no champion.

        If the champion's row cannot be read (truncated, changed), the latest earlier champion scores that can be read,
        has the same feature contract and was not withdrawn by a person.

        Raises HeedError: the champion has another feature contract, or cannot be read and there is no substitute.
        """
        from dagster_project.triage.features.contract import require_same_contract

        champion = self.champion(as_of)
        if champion is None:
            return None, ""
        try:
            model = self.load(champion.model_version)
        except HeedError as error:
            damage = f"champion {champion.model_version} cannot be read ({error.cause})"
        else:
            require_same_contract(model.contract, contract)
            return model, ""
        succession = self.succession(as_of)
        for version in dict.fromkeys(reversed(succession.champions)):
            if version == champion.model_version or version in succession.withdrawn:
                continue
            try:
                model = self.load(version)
                require_same_contract(model.contract, contract)
            except HeedError:
                continue
            if model.cut <= as_of:
                return model, f"{damage}; {version}, champion before it, scores instead"
        raise HeedError(
            f"{damage}, and no earlier champion can replace it", "run `heed run --retrain`; published scores stay"
        )

    def learning_is_due(self, as_of: datetime, settings: Settings) -> bool:
        """Whether there is no usable champion for today's features, or the newest candidate is too old."""
        from dagster_project.triage.features.contract import contract, require_same_contract

        champion = self.champion(as_of)
        if champion is None:
            return True
        try:
            require_same_contract(self.load(champion.model_version).contract, contract(settings.feature_settings()))
        except HeedError:
            return True
        newest = self._warehouse.value("SELECT max(cut) FROM training.model_versions WHERE cut <= $1", (as_of,))
        return as_of - newest >= timedelta(days=settings.learning.retrain_every_days)

    def decide(
        self,
        model_version: str,
        as_of: datetime,
        decision: str,
        reasons: list[str],
        evidence: dict[str, Any],
        decided_by: str,
    ) -> None:
        """Append a decision of the gate or of a person, unless the same one exists for that as-of."""
        with self._warehouse.transaction() as cursor:
            cursor.execute(
                """INSERT INTO training.champion_decisions
                       (model_version, as_of, decided_at, decision, reasons, evidence, decided_by)
                   SELECT $1, $2, now(), $3, $4::text::jsonb, $5::text::jsonb, $6
                   WHERE NOT EXISTS (
                       SELECT 1 FROM training.champion_decisions AS d
                       WHERE d.model_version = $1 AND d.as_of = $2 AND d.decision = $3)""",
                parameters=(
                    model_version,
                    as_of,
                    decision,
                    json.dumps(reasons),
                    json.dumps(evidence, allow_nan=False),
                    decided_by,
                ),
            )

    def decisions(self, as_of: datetime) -> list[dict[str, Any]]:
        """The decisions with an as-of up to `as_of`, the oldest first.

        decision_id, model_version, as_of, decided_at, decision, reasons (list of text), evidence (dict), decided_by.
        """
        rows = self._warehouse.read_arrow(
            """SELECT decision_id, model_version, as_of, decided_at, decision, reasons::text AS reasons,
                      evidence::text AS evidence, decided_by
               FROM training.champion_decisions WHERE as_of <= $1 ORDER BY as_of, decision_id""",
            (as_of,),
        ).to_pylist()
        return [
            {**row, "reasons": json.loads(row["reasons"] or "[]"), "evidence": json.loads(row["evidence"] or "{}")}
            for row in rows
        ]

    def versions(self, as_of: datetime) -> list[dict[str, Any]]:
        """The versions trained on nothing later than `as_of`, the latest first.

        model_version, created_at, cut, kind, contract_hash.
        """
        return self._warehouse.read_arrow(
            """SELECT model_version, created_at, cut, kind, coalesce(document->'contract'->>'hash', '') AS contract_hash
               FROM training.model_versions WHERE cut <= $1 ORDER BY cut DESC, created_at DESC, model_version""",
            (as_of,),
        ).to_pylist()

    def roll_back(self, model_version: str, as_of: datetime, instead_of: str | None, *, who: str, why: str) -> None:
        """Append a person's decision that a version scores from `as_of` on."""
        with self._warehouse.transaction() as cursor:
            cursor.execute(
                """INSERT INTO training.champion_decisions
                       (model_version, as_of, decided_at, decision, reasons, evidence, decided_by)
                   VALUES ($1, $2, now(), 'rolled_back', $3::text::jsonb, $4::text::jsonb, $5)""",
                parameters=(model_version, as_of, json.dumps([why]), json.dumps({"instead_of": instead_of}), who),
            )

    def succession(self, as_of: datetime) -> Succession:
        """Who was champion when, up to `as_of`, and which versions people rolled back from."""
        return Succession.of(self.decisions(as_of))

    def save_evaluation(
        self,
        model_version: str,
        as_of: datetime,
        evaluation: pd.DataFrame,
        reliability: pd.DataFrame | None = None,
        workload: pd.DataFrame | None = None,
    ) -> None:
        """Replace the evaluation of a model version at an as-of, in one transaction.

        evaluation : slice, slice_value, contender, metric, value, low, high, alerts, acted. reliability : contender,
        bin, mean_forecast, acted_share, low, high, alerts, acted. workload : as `workload_curve` gives it.
        """
        tables = {"training.model_evaluations": evaluation}
        if reliability is not None:
            tables["training.reliability"] = reliability
        if workload is not None:
            tables["training.workload_curves"] = workload
        self._replace(model_version, as_of, tables)

    def save_audit(self, model_version: str, as_of: datetime, audit: Audit) -> None:
        """Replace the audit of a model version at an as-of: findings, including the shortcut's verdict, and teams."""
        findings = audit.findings.rename(columns={"check": "check_name", "limit": "limit_value"})
        if audit.shortcut is not None:
            shortcut = audit.shortcut
            row = {
                "check_name": SHORTCUT,
                "subject": shortcut.decided_by or "model",
                "finding": shortcut.reason,
                "value": shortcut.value,
                "low": shortcut.low,
                "high": shortcut.high,
                "verdict": shortcut.verdict,
            }
            findings = pd.concat([findings, pd.DataFrame([row])], ignore_index=True)
        tables = {"training.audit_findings": findings}
        if len(audit.teams):
            tables["training.team_scorecards"] = audit.teams[list(_TEAM_COLUMNS)]
        self._replace(model_version, as_of, tables)

    def inherit_audit(self, model_version: str, as_of: datetime, predecessor: str) -> None:
        """Store the newest audit of a predecessor for a version with the same trees, columns and order of scores."""
        for name, columns in (
            ("training.audit_findings", _FINDING_COLUMNS),
            ("training.team_scorecards", _TEAM_COLUMNS),
        ):
            rows = self._warehouse.read(
                f"""SELECT {", ".join(columns)} FROM {name} WHERE model_version = $1
                    AND as_of = (SELECT max(as_of) FROM {name} WHERE model_version = $1)""",
                (predecessor,),
            )
            if len(rows):
                self._replace(model_version, as_of, {name: rows})

    def audit(self, model_version: str) -> dict[str, Any] | None:
        """The newest audit of a model version; None: there is none.

        'leakage': findings with check, subject, finding, value, limit, verdict. 'shortcut': verdict, reason, value,
        low, high; absent if no trees were trained. 'scorecard': one entry per team.
        """
        rows = self._warehouse.read_arrow(
            """SELECT check_name AS check, subject, finding, value, low, high, limit_value AS limit, verdict
               FROM training.audit_findings
               WHERE model_version = $1 AND as_of = (
                   SELECT max(as_of) FROM training.audit_findings WHERE model_version = $1)
               ORDER BY check_name, subject""",
            (model_version,),
        ).to_pylist()
        if not rows:
            return None
        teams = self._warehouse.read_arrow(
            f"""SELECT {", ".join(_TEAM_COLUMNS)} FROM training.team_scorecards
               WHERE model_version = $1 AND as_of = (
                   SELECT max(as_of) FROM training.team_scorecards WHERE model_version = $1)
               ORDER BY team""",
            (model_version,),
        ).to_pylist()
        audit: dict[str, Any] = {"leakage": [row for row in rows if row["check"] != SHORTCUT], "scorecard": teams}
        for row in rows:
            if row["check"] == SHORTCUT:
                audit["shortcut"] = {**row, "reason": row["finding"]}
        return audit

    def leaks(self, model_version: str) -> list[str]:
        """The leaks in the newest audit of a model version, in words."""
        audit = self.audit(model_version) or {"leakage": []}
        return [f"{row['subject']}: {row['finding']}" for row in audit["leakage"] if row["verdict"] == "leak"]

    def published_by(self, model: Model, as_of: datetime) -> pd.DataFrame:
        """A model's first score of each alert, up to `as_of`: alert_id, probability.

        Versions that share its training, and differ only in a later calibration, count as the same model.
        """
        return self._warehouse.read(
            """SELECT DISTINCT ON (score.alert_id) score.alert_id, score.probability
               FROM scoring.alert_scores AS score
               JOIN training.model_versions AS version USING (model_version)
               WHERE version.kind = $1 AND (version.document->>'cut')::timestamptz = $2
                 AND version.document->'contract'->>'hash' = $3
                 AND score.as_of <= $4 AND score.raised_at >= $2 AND score.probability IS NOT NULL
               ORDER BY score.alert_id, score.as_of""",
            (model.kind, model.cut, str(model.contract.get("hash")), as_of),
        )

    def _replace(self, model_version: str, as_of: datetime, tables: dict[str, pd.DataFrame]) -> None:
        import pyarrow as pa

        with self._warehouse.transaction() as cursor:
            for name, frame in tables.items():
                columns = ", ".join(["model_version", "as_of", *frame.columns])
                rows = frame.assign(model_version=model_version, as_of=pd.Timestamp(as_of))
                cursor.execute(
                    f"DELETE FROM {name} WHERE model_version = $1 AND as_of = $2", parameters=(model_version, as_of)
                )
                append(
                    cursor,
                    name,
                    pa.Table.from_pandas(rows, preserve_index=False),
                    columns=columns,
                    select=f"{columns} FROM pg_temp.incoming",
                )

    def evaluation(self, model_version: str) -> pd.DataFrame:
        """The newest stored evaluation of a model version; empty: there is none."""
        return self._warehouse.read(
            """SELECT slice, slice_value, contender, metric, value, low, high, alerts, acted
               FROM training.model_evaluations
               WHERE model_version = $1 AND as_of = (
                   SELECT max(as_of) FROM training.model_evaluations WHERE model_version = $1)
               ORDER BY slice, slice_value, contender, metric""",
            (model_version,),
        )
