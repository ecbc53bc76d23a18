"""The Dagster resource that runs dbt: dagster-dbt's own, without the parts that cost time and are not used here.

Belongs here: how a step starts dbt, and how dbt's events become Dagster's.
Does not belong here: what is built (`assets/dbt.py`), dbt's variables and directories (`project.py`).

`DbtCliResource.cli` runs `dbt --version` (3 s of processor time), and loads dbt, its profile and its adapter into this
process as well (3 s), for optional metadata (row counts, columns). They are not used here: the models are under
contract, and what Dagster shows of them comes from dbt's events.
"""

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliInvocation, DbtCliResource
from dagster_dbt.asset_utils import get_updated_cli_invocation_params_for_context
from dagster_dbt.dagster_dbt_translator import DagsterDbtTranslator
from packaging.version import Version

from dagster_project.resources.dbt.prestarted import run_dbt
from dagster_project.resources.dbt.project import DBT_ANYWHERE


class Dbt(DbtCliResource):
    """dbt for the steps of heed."""

    def build(
        self,
        context: dg.AssetExecutionContext,
        arguments: Sequence[str],
        target_path: Path,
        environment: Mapping[str, str],
    ) -> DbtCliInvocation:
        """Start `dbt build` for what this step selects; `stream()` yields its events.

        arguments : after `build`, without a selection.
        target_path : where dbt writes and logs.
        environment : variables of dbt's process, in addition to those of this one.
        """
        chosen = get_updated_cli_invocation_params_for_context(
            context=context, manifest={}, dagster_dbt_translator=DagsterDbtTranslator()
        )
        variables = {
            **os.environ,
            **environment,
            "DAGSTER_DBT_CLI": "true",
            **DBT_ANYWHERE,
            "DBT_LOG_FORMAT": "json",
            "DBT_TARGET_PATH": str(target_path),
            "DBT_LOG_PATH": str(target_path),
            "DBT_PROFILES_DIR": str(self.profiles_dir),
            "DBT_PROJECT_DIR": str(self.project_dir),
        }
        if chosen.indirect_selection:
            variables["DBT_INDIRECT_SELECTION"] = chosen.indirect_selection
        project = Path(self.project_dir)
        return DbtCliInvocation(
            process=run_dbt(["build", *arguments, *chosen.selection_args], variables, project),  # type: ignore[arg-type]
            manifest=chosen.manifest,
            dagster_dbt_translator=chosen.dagster_dbt_translator,
            project_dir=project,
            target_path=target_path,
            raise_on_error=True,
            cli_version=Version(version("dbt-core")),
            context=context,
        )
