"""The public Wolfi export, loaded with the mapping that the project keeps. Skips where it is absent, and in CI."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.loading import read_mapping

EXAMPLE = Path(__file__).parents[2] / "examples" / "wolfi"

pytestmark = pytest.mark.real


def test_the_wolfi_export_is_loaded_whole(store, real_alerts):
    mapping = read_mapping(EXAMPLE / "mapping.toml")
    alerts = store.load("alerts", real_alerts / "alerts.csv.gz", mapping=mapping)
    actions = store.load("actions", real_alerts / "actions.csv.gz", mapping=mapping)
    types = store.load("action_types", EXAMPLE / "action_types.csv")
    assert (alerts.rows_read, alerts.rows_added, alerts.rows_undecodable) == (13_429, 13_429, 0)
    assert (actions.rows_read, actions.rows_added, actions.rows_undecodable) == (18_853, 18_853, 0)
    assert alerts.ignored_columns == actions.ignored_columns == types.ignored_columns == ()
    keys = store.rows("SELECT DISTINCT jsonb_object_keys(attributes::jsonb) FROM raw.alerts ORDER BY 1")
    assert [key for (key,) in keys] == [
        "component",
        "component_location",
        "component_version",
        "detection_kind",
        "scanner",
    ]
    assert store.rows("SELECT count(*), count(rule), count(entity) FROM raw.alerts") == [(13_429,) * 3]
    assert store.rows("SELECT count(*), count(actor) FROM raw.actions") == [(18_853, 18_853)]
    assert store.rows("SELECT count(*) FROM raw.actions WHERE attributes::jsonb ? 'reason'")[0][0] > 2_000


def test_every_action_type_of_the_export_has_a_meaning(store, real_alerts):
    store.load("actions", real_alerts / "actions.csv.gz")
    store.load("action_types", EXAMPLE / "action_types.csv")
    unknown = store.rows("SELECT action_type FROM raw.actions EXCEPT SELECT action_type FROM raw.action_types")
    assert unknown == []
