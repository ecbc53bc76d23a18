"""Which action types were seen, as a login with few rights sees it. Their meanings are tested in `tests/dbt`."""

import psycopg2

from dagster_project.resources.inputs.action_types import raw_types, unknown_in_words
from dagster_project.resources.warehouse.connection import Warehouse
from dagster_project.settings import Settings
from tests.conftest import with_roles


def test_a_login_that_only_loads_can_name_unknown_types(warehouse: Warehouse) -> None:
    login = with_roles(warehouse)
    connection = psycopg2.connect(warehouse.url())
    with connection, connection.cursor() as cursor:
        cursor.execute(
            """CREATE SCHEMA IF NOT EXISTS marts;
               CREATE TABLE marts.action_meanings (action_type text, alerts_without_decision bigint);
               INSERT INTO raw.actions (action_id, action_type) VALUES
                   ('1', 'Danced'), ('2', ' danced '), ('3', 'Fixed'), ('4', null), ('5', ''), ('6', 'sung');
               INSERT INTO raw.action_types (action_type, meaning) VALUES ('SUNG', ' Neutral'), ('sung', null)"""
        )
    connection.close()
    types = raw_types(login("test_loader"), Settings())
    assert [(each.action_type, each.meaning, each.actions) for each in types] == [
        ("danced", None, 2),
        ("fixed", "acted", 1),
        ("sung", "neutral", 1),
    ]
    assert "danced (2, for example 1)" in unknown_in_words(types)
