"""Which action types were seen, as a login with few rights sees it. Their meanings are tested in `tests/dbt`."""

import psycopg2

from dagster_project.resources.inputs.action_types import SeenType, nothing_acted_in_words, raw_types, unknown_in_words
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
    assert not nothing_acted_in_words(types)


def test_actions_none_of_which_counts_as_acted_are_named() -> None:
    closed, odd = SeenType("closed", "neutral", "project", 5, "1"), SeenType("odd", None, None, 2, "2")
    words = nothing_acted_in_words([closed, odd, SeenType("dismissed", "dismissed", "project", 9, "3")])
    assert words.startswith("no action counts as acted")
    assert "closed (5), odd (2)" in words
    assert not nothing_acted_in_words([closed, SeenType("fixed", "acted", "project", 1, "4")])
    assert not nothing_acted_in_words([])
