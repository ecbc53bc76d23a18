"""Which days of features a run derives, by how it was launched: asked in a real run of a job of that name."""

from datetime import timedelta

import dagster as dg
import pytest

from dagster_project.assets.features import DAYS
from dagster_project.resources.as_of import (
    AS_OF_TAG,
    RANGE_END_TAG,
    RANGE_START_TAG,
    REFRESH,
    RETRAIN,
    feature_days,
    parse_moment,
)
from dagster_project.settings import Settings

AS_OF = parse_moment("2025-06-01T10:00:00Z")
SETTINGS = Settings(learning={"training_days": 40})


def own(days: int) -> list[str]:
    return [(AS_OF - timedelta(days=back)).date().isoformat() for back in range(days, -1, -1)]


@pytest.mark.parametrize(
    ("job", "tags", "expected"),
    [
        (REFRESH, {}, own(14)),
        (RETRAIN, {}, own(40)),
        (REFRESH, {"dagster/partition": "2025-06-01"}, own(14)),
        (REFRESH, {"dagster/partition": "2024-02-29"}, ["2024-02-29", *own(14)]),
        (REFRESH, {RANGE_START_TAG: "2025-05-10", RANGE_END_TAG: "2025-05-20"}, own(22)),
        ("a_backfill", {RANGE_START_TAG: "2024-02-28", RANGE_END_TAG: "2024-03-01"},
         ["2024-02-28", "2024-02-29", "2024-03-01"]),
    ],
    ids=["refresh", "retrain", "today chosen", "an old day chosen", "days chosen", "a backfill of the asset"],
)  # fmt: skip
def test_a_run_derives_the_days_it_was_launched_for_and_those_its_job_needs(
    job: str, tags: dict[str, str], expected: list[str]
) -> None:
    days: list[str] = []

    @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def asked(context: dg.AssetExecutionContext) -> None:
        days.extend(day.isoformat() for day in feature_days(context, SETTINGS))

    definitions = dg.Definitions(assets=[asked], jobs=[dg.define_asset_job(job, executor_def=dg.in_process_executor)])
    with dg.DagsterInstance.ephemeral() as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance, tags={AS_OF_TAG: AS_OF.isoformat(), **tags}
        )
    assert result.success
    assert days == expected
