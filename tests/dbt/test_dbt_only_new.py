"""Reading what is new leaves what reading everything leaves: the law of `macros/only_new.sql`, on random changes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from dagster_project.resources.dbt.incremental import CLEAN_VARIABLE, FULL, NEW, remember_reading, what_to_read
from dagster_project.settings import Outcome, Settings, Source
from tests.dbt.conftest import Dbt, require_kept_is_what_stands

pytestmark = pytest.mark.slow

BEGIN = datetime(2025, 3, 1, tzinfo=UTC)
TABLES = (
    *("alerts", "actions", "alert_outcomes", "daily_alert_volume", "rejected_rows", "rules", "load_reconciliation"),
    *("alert_fact_changes", "action_meanings"),
)
RULES = ["disk full", "Disk full", "DISK FULL", "login failed", "Login failed", " ", "backup late"]
TYPES = ["fixed", "dismissed", "seen", "Re-opened", "nobody knows", ""]

# More of them: HEED_SEEDS="1 2 3 4".
SEEDS = [int(seed) for seed in os.environ.get("HEED_SEEDS", "1").split()]


class Feed:
    """A raw warehouse to which random things happen: rows come, come late, come again corrected, change and vanish."""

    def __init__(self, made: Dbt, seed: int) -> None:
        self.made, self.random, self.loads = made, np.random.default_rng(seed), 0

    def load(self, now: datetime, alerts: int, actions: int) -> None:
        self.loads += 1
        pick, number = self.random.choice, self.random.integers
        loaded = [now, now, now, None]

        def moment(first: datetime) -> str | None:
            time = first + timedelta(minutes=int(number(0, int((now - first) / timedelta(minutes=1)))))
            time += timedelta(days=30) if self.random.random() < 0.03 else timedelta(0)
            return None if self.random.random() < 0.03 else time.isoformat()

        def alert() -> dict[str, str | None]:
            """Of most ids every row was raised at the same moment: they are versions. The others share an id."""
            name = int(number(400))
            first = (BEGIN + timedelta(minutes=name * 20)).isoformat()
            return {
                "alert_id": pick(["", f" a{name}", f"a{name}", f"a{name}"]),
                "raised_at": first if self.random.random() < 0.8 else moment(BEGIN),
            }

        if self.loads == 2:
            self.made.sql("INSERT INTO raw.corrections (load_id) VALUES (%s)", (self.loads,))
        rows = [
            {
                **alert(),
                "rule": pick(RULES),
                "entity": f"e{number(5)}",
                "team": pick([None, "Ops", "ops", "dev"]),
                "value": pick(["1", "2.5", "many"]),
                "attributes": pick([None, '{"a": 1}', '{"a": 2, "b": 1}', "[]"]),
                "loaded_at": pick(loaded),
                "row_hash": f"{number(1 << 30)}",
                "load_id": self.loads,
            }
            for _ in range(alerts)
        ]
        self.made.fill("raw.alerts", Dbt.ALERT, rows)
        rows = [
            {
                "action_id": pick(["", f"x{number(500)}", f"x{number(500)}", f"x{number(500)}"]),
                "alert_id": pick(["", f"a{number(420)}", f"a{number(420)}", f"a{number(420)}"]),
                "acted_at": moment(BEGIN),
                "action_type": pick(TYPES),
                "loaded_at": pick(loaded),
                "row_hash": f"{number(1 << 30)}",
                "load_id": self.loads,
            }
            for _ in range(actions)
        ]
        self.made.fill("raw.actions", Dbt.ACTION, rows)

    def disturb(self) -> None:
        """Rows that change where they stand or vanish, and dead ones whose places others will take."""
        for table, column in (("alerts", "raised_at"), ("actions", "acted_at")):
            some = f"ctid IN (SELECT ctid FROM raw.{table} ORDER BY md5(ctid::text || {self.loads}) LIMIT 12)"
            self.made.sql(f"UPDATE raw.{table} SET {column} = '2025-03-0{1 + self.loads}T08:00:00Z' WHERE {some}")
            some = f"ctid IN (SELECT ctid FROM raw.{table} ORDER BY md5(ctid::text || 'x{self.loads}') LIMIT 12)"
            self.made.sql(f"DELETE FROM raw.{table} WHERE {some}")
        self.made.sql("UPDATE raw.alerts SET rule = 'LOGIN FAILED' WHERE rule = 'Login failed' AND random() < 0.8")
        self.made.sql("INSERT INTO raw.rules (rule, title) VALUES ('backup LATE', 'late'), ('never raised', null)")


def clean(made: Dbt, what: str, as_of: datetime, *, command: str = "run", also: tuple[str, ...] = ()) -> None:
    variables = json.dumps({"horizon_days": 7})
    chosen = ["--select", "tag:clean", "--exclude-resource-type", "unit_test"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CLEAN_VARIABLE, what)
        made.run(command, *(chosen if command == "build" else chosen[:2]), "--vars", variables, *also, as_of=as_of)


def standing(made: Dbt) -> dict[str, list[Any]]:
    made_of = {name: f"SELECT t::text FROM marts.{name} AS t ORDER BY 1" for name in TABLES}
    for name in ("stg_alerts", "stg_actions"):
        made_of[name] = (
            "SELECT (to_jsonb(t) - 'raw_rows' - 'staged_at')::text COLLATE \"C\" AS row "
            f"FROM staging.{name} AS t WHERE placement <> 'gone' ORDER BY 1"
        )
    return {name: made.sql(query) for name, query in made_of.items()}


@pytest.mark.parametrize("seed", SEEDS)
def test_reading_what_is_new_equals_reading_everything(dbt_database: Callable[[], Dbt], seed: int) -> None:
    made = dbt_database()
    feed = Feed(made, seed)
    moment = BEGIN + timedelta(days=9)
    feed.load(moment, 300, 400)
    clean(made, FULL, moment, command="build")
    require_kept_is_what_stands(made, moment)
    for step in range(2):
        before = standing(made)
        moment += timedelta(days=3)
        feed.load(moment, 40, 60)
        feed.disturb()
        clean(made, NEW, moment, command="build" if step else "run")
        read = made.sql("SELECT count(*) FROM staging.changed_alerts")[0][0]
        assert 0 < read < len(before["alerts"]), "it read everything, or nothing"
        require_kept_is_what_stands(made, moment)
    new = standing(made)
    clean(made, FULL, moment)
    whole = standing(made)
    for name in new:
        assert new[name] == whole[name], name
    assert new["alerts"] != before["alerts"]
    reasons = dict(made.sql("SELECT reason, count(*) FROM marts.rejected_rows GROUP BY 1"))
    assert reasons["the id belongs to another alert (raised at another time)"] > 5
    assert reasons["the id of its alert belongs to several alerts"] > 5
    assert len(new["alert_fact_changes"]) > 5
    assert len({row for row in new["alert_outcomes"]} - set(before["alert_outcomes"])) > 20


def test_in_doubt_everything_is_read(dbt_database: Callable[[], Dbt]) -> None:
    made = dbt_database()
    Feed(made, 2).load(BEGIN + timedelta(days=1), 20, 20)
    settings, moment = Settings(outcome=Outcome(horizon_days=7)), BEGIN + timedelta(days=2)

    def answer(**changes: Any) -> str:
        return what_to_read(
            made.warehouse, changes.pop("settings", settings), changes.pop("at", moment), **changes
        ).what

    assert answer() == FULL, "nothing was built yet"
    reading = what_to_read(made.warehouse, settings, moment)
    clean(made, FULL, moment, command="build")
    assert answer() == FULL, "dbt was run by hand: nobody knows with what"
    remember_reading(made.warehouse, reading, moment)
    assert answer() == NEW
    assert answer(at=moment + timedelta(days=1)) == NEW
    assert answer(full_refresh=True) == FULL
    assert answer(at=moment - timedelta(seconds=1)) == FULL
    assert answer(settings=Settings(outcome=Outcome(horizon_days=8))) == FULL
    assert answer(settings=Settings(source=Source(time_zone="Europe/Berlin"))) == FULL
    made.sql("INSERT INTO raw.action_types (action_type, meaning) VALUES ('seen', 'acted')")
    assert answer() == FULL, "an action type means something else"
    made.sql("TRUNCATE raw.action_types")
    assert answer() == NEW
    reading = what_to_read(made.warehouse, settings, moment)
    with pytest.raises(AssertionError):  # the hooks at its beginning ran, the cleaning failed
        clean(made, NEW, moment, also=("--vars", '{"raw_alerts": "is not there"}'))
    assert answer() == FULL, "the last run failed"
    remember_reading(made.warehouse, reading, moment)
    assert answer() == NEW
    made.sql("ALTER TABLE raw.alerts ALTER COLUMN value TYPE varchar")
    assert answer() == FULL, "the table is another one"
    made.sql("ALTER TABLE raw.actions RENAME TO kept; CREATE VIEW raw.actions AS SELECT * FROM raw.kept")
    assert what_to_read(made.warehouse, settings, moment).fingerprint == "", "a view does not show what changed"
