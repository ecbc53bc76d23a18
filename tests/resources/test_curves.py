"""Curves of age and rates of flagged alerts: stored as they were learned, and written only when they changed."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from dagster_project.resources.stores.curves import publish_rates, read_curves, save_curves
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.triage.flags.rates import flagged_rates
from dagster_project.triage.learning.time_to_decision import EVERYWHERE, Curves, group_key, group_name, no_curves

AS_OF = datetime(2025, 3, 1, tzinfo=UTC)
HORIZON = timedelta(days=14)


def curves(as_of: datetime = AS_OF, seed: int = 0) -> Curves:
    plain = no_curves(as_of, HORIZON)
    rng = np.random.default_rng(seed)
    groups = [
        EVERYWHERE,
        *(group_name("team", team, "") for team in ("", "a", "a:b")),
        group_name("rule", "a", "b:c"),
        group_name("rule", "a:b", "c"),
    ]
    coefficients = {group: rng.random((len(plain.ages), 3)) for group in groups}
    return Curves(as_of, HORIZON, 1_234, plain.ages, coefficients)


def test_curves_come_back_to_the_last_bit_and_the_newest_ones_count(warehouse: Warehouse) -> None:
    assert read_curves(warehouse, AS_OF) is None
    first, second = curves(), curves(AS_OF + timedelta(days=1), seed=1)
    assert save_curves(warehouse, first) == save_curves(warehouse, first) == first.version
    save_curves(warehouse, second)
    for as_of, expected in ((AS_OF, first), (AS_OF + timedelta(days=1), second)):
        stored = read_curves(warehouse, as_of)
        assert stored is not None
        assert stored.to_document() == expected.to_document()
    assert read_curves(warehouse, AS_OF - timedelta(seconds=1)) is None


@pytest.mark.parametrize(
    "key", [("all", "", ""), ("team", "", ""), ("team", "a:b", ""), ("rule", "a:b", "3:c"), ("rule", "", ":")]
)
def test_a_group_is_known_by_its_name(key: tuple[str, str, str]) -> None:
    assert group_key(group_name(*key)) == key  # type: ignore[arg-type]


def test_rates_are_written_when_they_changed(warehouse: Warehouse) -> None:
    raised = pd.Timestamp(AS_OF) - pd.to_timedelta(np.arange(200) % 20 + 20, unit="D")
    alerts = pd.DataFrame(
        {
            "raised_at": pd.Series(raised).astype("datetime64[us, UTC]"),
            "known_at": pd.Series(raised + timedelta(days=1)).astype("datetime64[us, UTC]"),
            "acted": (np.arange(200) % 50 == 0).astype(float),
            "rule": np.where(np.arange(200) % 2, "one", "two"),
            "flood": np.arange(200) < 100,
            "visibility_only": np.arange(200) >= 150,
        }
    )
    rates = flagged_rates(alerts, AS_OF, HORIZON)
    assert publish_rates(warehouse, rates, AS_OF) == len(rates) > 4
    assert publish_rates(warehouse, rates, AS_OF + timedelta(hours=1)) == 0
    changed = rates.assign(acted=rates["acted"] + 1)
    assert publish_rates(warehouse, changed, AS_OF + timedelta(hours=2)) == len(rates)
    words = warehouse.read("SELECT kind, words FROM scoring.flagged_rates WHERE rule = '' AND as_of = $1", (AS_OF,))
    assert dict(words.to_numpy().tolist())["flood"].startswith("part of a flood: about 1 in")
