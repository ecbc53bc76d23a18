"""Which days of features a run derives, by its job and by what was chosen by hand; nothing has to be chosen."""

from datetime import timedelta

import pytest
from dagster._config import validate_config

from dagster_project.definitions import defs
from dagster_project.errors import HeedError
from dagster_project.resources.as_of import REFRESH, RETRAIN, feature_days, parse_moment
from dagster_project.settings import Settings

AS_OF = parse_moment("2025-06-01T10:00:00Z")
SETTINGS = Settings(learning={"training_days": 40})
ALONE = "__ASSET_JOB"  # how Dagster names a run of assets that were chosen one by one


def own(days: int) -> list[str]:
    return [(AS_OF - timedelta(days=back)).date().isoformat() for back in range(days, -1, -1)]


@pytest.mark.parametrize(
    ("job", "chosen", "expected"),
    [
        (REFRESH, (None, None), own(14)),
        (RETRAIN, (None, None), own(40)),
        (ALONE, (None, None), own(40)),
        (REFRESH, ("2025-06-01", "2025-06-01"), own(14)),
        (REFRESH, ("2024-02-29", "2024-02-29"), ["2024-02-29", *own(14)]),
        (REFRESH, ("2025-05-10", "2025-05-20"), own(22)),
        (ALONE, ("2024-02-28", "2024-03-01"), ["2024-02-28", "2024-02-29", "2024-03-01"]),
        (ALONE, ("2025-05-30", None), own(2)),
        (ALONE, ("2025-05-31", "2025-12-31"), own(1)),
        (ALONE, (None, "2025-04-23"), ["2025-04-22", "2025-04-23"]),
    ],
)
def test_a_run_derives_the_days_that_were_chosen_and_those_its_job_needs(
    job: str, chosen: tuple[str | None, str | None], expected: list[str]
) -> None:
    assert [day.isoformat() for day in feature_days(job, AS_OF, SETTINGS, chosen)] == expected


@pytest.mark.parametrize("chosen", [("2025-06-02", None), ("2025-03-02", "2025-03-01"), ("yesterday", None)])
def test_days_that_cannot_be_derived_are_refused(chosen: tuple[str | None, str | None]) -> None:
    with pytest.raises(HeedError):
        feature_days(ALONE, AS_OF, SETTINGS, chosen)


def test_days_begin_with_the_earliest_that_can_be_true() -> None:
    assert feature_days(RETRAIN, parse_moment("2000-01-02"), SETTINGS)[0].isoformat() == "2000-01-01"
    with pytest.raises(HeedError, match=r"before source\.earliest"):
        feature_days(REFRESH, parse_moment("0001-01-01"), SETTINGS)


@pytest.mark.parametrize("name", [REFRESH, RETRAIN])
def test_one_click_launches_a_job(name: str) -> None:
    """The UI asks for a partition where a job has some, and opens a form where configuration is required."""
    job = defs.resolve_job_def(name)
    assert job.partitions_def is None
    assert validate_config(job.run_config_schema.config_type, {}).success
